-- export: what goes out, which the openssl command line reads.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")

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
        assert.equal(1, desk:done("export", "1", "--form", form, "--out", out).id)
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
      desk:refuses(1, "denied", "cannot export 2 as pfx: its key is not exportable; it was not made or imported with "
        .. "--exportable", "export", "2", "--form", "pfx", "--password-file", password, "--out", out)
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
    assert.matches("^would export 1 as pfx, %d+ bytes\n$", result.stderr)
    assert.is_nil(io.open(out))
    assert.is_true(before == desk:snapshot())
  end)
end)
