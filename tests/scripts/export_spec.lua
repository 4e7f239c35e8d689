-- export: what goes out, which the openssl command line reads.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local lfs = require "lfs"
local process = require "core.process"

describe("export", function()
  local desk, made, outside, password, out

  setup(function()
    desk = Desk.new "export"
    outside = desk:outside()
    made = desk.lab:certificate { names = { "a.test" }, ca = outside }
    password = desk:write("password", "secret\n")
    out = desk.path .. "/out"
  end)
  teardown(function() desk:close() end)

  before_each(function()
    desk:clear()
    os.remove(out)
    desk:done("import", desk:write("chain.pem", desk:read(made .. "/cert.pem") .. desk:read(outside .. "/cert.pem")),
      "--key", made .. "/key.pem", "--exportable", "--name", "mail")
  end)

  local function fingerprints(pem)
    local list = {}
    for block in pem:gmatch "%-%-%-%-%-BEGIN CERTIFICATE.-END CERTIFICATE%-%-%-%-%-\n" do
      list[#list + 1] = desk:digest("certificate", block)
    end
    return list
  end
  local function leaf() return desk:digest("certificate", desk:read(made .. "/cert.pem")) end
  local function issuer() return desk:digest("certificate", desk:read(outside .. "/cert.pem")) end

  it("pem and p7b hold the certificate and its chain, der the certificate alone; on standard output, or in a file",
    function()
      for form, read in pairs {
        pem = function(bytes) return bytes end,
        der = function(bytes) return (desk:openssl("x509", "-inform", "DER", { stdin = bytes })) end,
        p7b = function(bytes) return (desk:openssl("pkcs7", "-inform", "DER", "-print_certs", { stdin = bytes })) end,
      } do
        local result = desk:run("export", "mail", "--form", form)
        assert.same({ 0, "" }, { result.status, result.stderr })
        assert.same({ leaf(), form ~= "der" and issuer() or nil }, fingerprints(read(result.stdout)))
        os.remove(out)
        local object, said = desk:done("export", "1", "--form", form, "--out", out)
        assert.same({ 1, ("wrote certificate 1 to %s\n"):format(out) }, { object.id, said.stderr })
        assert.is_true(desk:read(out) == result.stdout)
        assert.equal("0644", desk:mode(out))
      end
      assert.equal(desk:run("export", "1").stdout, desk:run("export", "1", "--form", "pem").stdout)
    end)

  it("pfx holds the key as well, modern or legacy, under the password, and the history says so", function()
    for kind, pattern in pairs { modern = "PBES2, PBKDF2, AES%-256%-CBC", legacy = "pbeWithSHA1And3%-KeyTripleDES" } do
      os.remove(out)
      desk:done("export", "1", "--form", "pfx", "--pfx", kind, "--password-file", password, "--out", out)
      assert.equal("0600", desk:mode(out))
      local text, info = desk:openssl("pkcs12", "-in", out, "-info", "-noenc", "-passin", "pass:secret")
      assert.matches(pattern, info)
      assert.matches("friendlyName: mail", text)
      local found = fingerprints(text)
      table.sort(found)
      local expected = { leaf(), issuer() }
      table.sort(expected)
      assert.same(expected, found)
      assert.equal(desk:openssl("pkey", "-in", made .. "/key.pem", "-pubout"), (desk:openssl("pkey", "-pubout",
        { stdin = text:match "%-%-%-%-%-BEGIN PRIVATE KEY.-END PRIVATE KEY%-%-%-%-%-\n" })))
    end
    local history = desk:done("show", "1").history
    assert.same({ "exported", "with its key" }, { history[#history].event, history[#history].detail })
  end)

  describe("as pfx, modern or legacy, with a name and a password beyond ASCII,", function()
    local wide
    local function run(...)
      local result = assert(process.run { ... })
      assert.equal(0, result.status, result.stdout .. result.stderr)
      return result.stdout
    end

    before_each(function()
      wide = desk:write("wide", "Пароль-ü-パス 7\n")
      desk:done("remove", "1")
      desk:done("import", desk:write("chain.pem", desk:read(made .. "/cert.pem") .. desk:read(outside .. "/cert.pem")),
        "--key", made .. "/key.pem", "--exportable", "--name", "Müller, Post \u{1F512}")
    end)

    it("is read by GnuTLS, which finds AES-256 and SHA-256, or 3DES and SHA-1", function()
      local word = desk:read(wide):match "[^\n]+"
      for kind, found in pairs { modern = { "SHA256 (", "AES-256-CBC", "100000" }, legacy = { "SHA1 (", "3DES-CBC", "2048" } } do
        os.remove(out)
        desk:done("export", "2", "--pfx", kind, "--password-file", wide, "--out", out)
        local said = run("certtool", "--p12-info", "--inraw", "--password", word, "--infile", out)
        assert.is_truthy(said:find("MAC: " .. found[1], 1, true), said)
        for _, pattern in ipairs { "Cipher: (%S+)", "Iteration count: (%d+)" } do
          for word_ in said:gmatch(pattern) do
            assert.equal(found[pattern:find "Cipher" and 2 or 3], word_)
          end
        end
        assert.is_truthy(said:find("Friendly name: Müller, Post \u{FFFD}\n", 1, true), said)
        assert.same({ [leaf()] = true, [issuer()] = true }, { [fingerprints(said)[1]] = true, [fingerprints(said)[2]] = true })
        assert.is_truthy(said:find("BEGIN ENCRYPTED PRIVATE KEY", 1, true))
        local wrong = assert(process.run { "certtool", "--p12-info", "--inraw", "--password", "x", "--infile", out })
        assert.is_truthy((wrong.stdout .. wrong.stderr):find "[Ee]rror")
      end
    end)

    it("is taken in by NSS with its key, which gives it back", function()
      for _, kind in ipairs { "modern", "legacy" } do
        os.remove(out)
        desk:done("export", "2", "--pfx", kind, "--password-file", wide, "--out", out)
        local folder, back = "sql:" .. desk.lab:folder("nss " .. kind), desk.path .. "/back.pfx"
        run("certutil", "-N", "-d", folder, "--empty-password")
        run("pk12util", "-i", out, "-w", wide, "-d", folder, "-K", "")
        assert.is_truthy(run("certutil", "-K", "-d", folder):find("Müller, Post \u{FFFD}", 1, true))
        os.remove(back)
        run("pk12util", "-o", back, "-n", "Müller, Post \u{FFFD}", "-w", wide, "-d", folder, "-K", "")
        desk:clear()
        local object = desk:done("import", back, "--password-file", wide, "--exportable", "--name",
          "Müller, Post \u{1F512}")
        assert.same({ leaf(), true, 1 }, { object.fingerprint, object.has_private_key, object.id })
        desk:done("remove", "1")
        desk:done("import", back, "--password-file", wide, "--exportable")
      end
    end)
  end)

  it("a pfx has its mode before a byte is in it", function()
    local trace = desk.path .. "/trace"
    local result = assert(process.run { "sh", "-c", 'umask 0; exec "$@"', "sh", "strace", "-f", "-o", trace, "-e",
      "trace=openat,open", Desk.program, "--site", desk.site, "--state", desk.state, "export", "1", "--pfx", "modern",
      "--password-file", password, "--out", out })
    assert.equal(0, result.status, result.stderr)
    local line = desk:read(trace):match "[^\n]*%.out%.%x+\"[^\n]*O_CREAT[^\n]*"
    assert.is_truthy(line, desk:read(trace))
    for _, flag in ipairs { "O_EXCL", "O_NOFOLLOW", "0600" } do assert.is_truthy(line:find(flag, 1, true), line) end
  end)

  it("what was exported as pfx can be imported elsewhere, twice", function()
    for _, kind in ipairs { "modern", "legacy" } do
      os.remove(out)
      desk:done("export", "1", "--pfx", kind, "--password-file", password, "--out", out)
      local before = desk:done("show", "1")
      desk:done("remove", "1")
      for _ = 1, 2 do
        local object = desk:done("import", out, "--password-file", password, "--exportable")
        assert.same({ before.fingerprint, "mail", true }, { object.fingerprint, object.friendly_name,
          object.has_private_key })
      end
      desk:clear()
      desk:done("import", out, "--password-file", password, "--exportable")
    end
  end)

  it("gives the request of a pending object, as pem or der only", function()
    local id, _, request = desk:ask("--domain", "b.test")
    assert.equal(desk:read(request), desk:run("export", id).stdout)
    assert.same({ "DNS:b.test" }, desk:request(desk:run("export", id, "--form", "der").stdout, "DER").names)
    desk:refuses(1, "mismatch", "2 has no certificate, it is created: its request can be exported as pem or der", "export",
      id, "--form", "p7b", "--out", out)
  end)

  describe("refuses", function()
    it("a key that is not exportable, or is not here", function()
      desk:done("remove", "1")
      desk:done("import", made .. "/cert.pem", "--key", made .. "/key.pem")
      desk:refuses(1, "denied", "cannot export 2 as pfx: its key is not exportable, as it was made or imported without "
        .. "--exportable; one that is: certwright new-request --from 2 --exportable", "export", "2", "--form", "pfx", "--password-file", password, "--out", out)
      local other = desk.lab:certificate { names = { "b.test" }, ca = outside }
      desk:done("import", other .. "/cert.pem")
      desk:refuses(1, "missing", "cannot export 3 as pfx: its key is not here", "export", "3", "--form", "pfx",
        "--password-file", password, "--out", out)
      assert.is_nil(io.open(out))
    end)

    it("a file that exists, unless --yes is said", function()
      desk:write("out", "mine")
      desk:refuses(1, "exists", "'LAB/out' exists already; say --yes to replace it", "export", "1", "--out", out)
      assert.equal("mine", desk:read(out))
      desk:done("export", "1", "--out", out, "--yes")
      assert.same({ leaf(), issuer() }, fingerprints(desk:read(out)))
    end)

    it("to follow a link, whatever is said", function()
      local target = desk:write("target", "mine")
      for _, place in ipairs { target, desk.path .. "/nowhere" } do
        os.remove(out)
        assert(lfs.link(place, out, true))
        desk:refuses(1, "exists", "'LAB/out' exists already; say --yes to replace it", "export", "1", "--pfx", "modern",
          "--password-file", password, "--out", out)
        desk:refuses(1, "exists", "cannot write 'LAB/out': not a regular file", "export", "1", "--pfx", "modern",
          "--password-file", password, "--out", out, "--yes")
        assert.same({ "mine", "link" }, { desk:read(target), lfs.symlinkattributes(out, "mode") })
        assert.is_nil(lfs.attributes(desk.path .. "/nowhere"))
      end
    end)

    it("a password that is not UTF-8, which readers would take for another", function()
      desk:refuses(1, "parse", "cannot make a PKCS #12: the password is not UTF-8", "export", "1", "--pfx", "modern",
        "--password-file", desk:write("latin", "M\xFCll\n"), "--out", out)
      assert.is_nil(lfs.attributes(out))
    end)

    it("what is not there, and options that do not go together", function()
      desk:refuses(1, "missing", "there is no request or certificate 9; see certwright list", "export", "9", "--out", out)
      for message, words in pairs {
        ["a pfx holds the key: it needs --password-file FILE"] = { "--form", "pfx", "--out", out },
        ["--password-file is for pfx only: a der holds no key"] = { "--form", "der", "--password-file", password },
        ["--pfx legacy needs --form pfx"] = { "--form", "pem", "--pfx", "legacy" },
        ["export with --json needs --out FILE"] = {},
      } do
        desk:refuses(2, "usage", message, "export", "1", table.unpack(words))
      end
    end)
  end)

  it("--dry-run says what it would do, and changes nothing", function()
    local before = desk:snapshot()
    local _, result = desk:done("export", "1", "--form", "pfx", "--password-file", password, "--out", out, "--dry-run")
    assert.matches("^would export 1 as pfx, %d+ bytes\nwould write [^\n]*/out\n$", result.stderr)
    assert.is_nil(io.open(out))
    assert.is_true(before == desk:snapshot())
  end)
end)
