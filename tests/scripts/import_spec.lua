-- import: certificates made elsewhere, with their keys; openssl makes them.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local process = require "core.process"

describe("import", function()
  local desk, made, outside, password

  setup(function()
    desk = Desk.new "import"
    outside = desk:outside()
    made = desk.lab:certificate { names = { "a.test", "b.test" }, ca = outside }
    password = desk:write("password", "secret\n")
  end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  -- A PKCS #12 of the pair and its issuer.
  local function pfx(name, ...)
    local path = desk.path .. "/" .. name
    os.remove(path)
    desk:openssl("pkcs12", "-export", "-inkey", made .. "/key.pem", "-in", made .. "/cert.pem", "-certfile",
      outside .. "/cert.pem", "-passout", "pass:secret", "-out", path, ...)
    return path
  end

  -- Imports twice: both times the same object, and the key of the pair is kept.
  local function imports(...)
    local object = desk:done("import", ...)
    local before = desk:snapshot()
    assert.same(object, (desk:done("import", ...)))
    assert.is_true(before == desk:snapshot())
    assert.same({ "completed", { "a.test", "b.test" }, desk:digest("certificate", desk:read(made .. "/cert.pem")) },
      { object.state, object.domains, object.fingerprint })
    assert.is_true(desk:verifies(object.id, desk.root .. "/cert.pem", "b.test"))
    return object
  end

  local function keeps_key(id)
    local path = ("%s/keys/%d.pem"):format(desk.state, id)
    assert.equal("0600", desk:mode(path))
    assert.equal(desk:openssl("pkey", "-in", made .. "/key.pem", "-pubout"), (desk:openssl("pkey", "-in", path,
      "-pubout")))
  end

  describe("takes", function()
    it("a PKCS #12, modern or with 3DES, with its key and its name", function()
      for i, words in ipairs { {}, { "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "SHA1" } } do
        desk:clear()
        local object = imports(pfx("pair.pfx", "-name", "from Windows " .. i, table.unpack(words)), "--password-file",
          password)
        assert.same({ "from Windows " .. i, true, false, "Untrusted" }, { object.friendly_name,
          object.has_private_key, object.exportable, object.status })
        keeps_key(object.id)
      end
    end)

    it("PEM of a certificate and its key in one file or in two, the key encrypted or not", function()
      local sealed = desk:write("sealed.pem", desk:openssl("pkcs8", "-topk8", "-in", made .. "/key.pem", "-passout",
        "pass:secret"))
      local chain = desk:read(made .. "/cert.pem") .. desk:read(outside .. "/cert.pem")
      local cert_file = desk:write("chain.pem", chain)
      local old = desk:write("old.pem", desk:openssl("pkey", "-in", made .. "/key.pem", "-traditional", "-aes-256-cbc",
        "-passout", "pass:secret"))
      assert.is_truthy(desk:read(old):find("DEK-Info: AES-256-CBC", 1, true))
      for _, words in ipairs {
        { cert_file, "--key", old, "--password-file", password },
        { desk:write("old one.pem", desk:read(old) .. chain), "--password-file", password },
        { desk:write("one.pem", chain .. desk:read(made .. "/key.pem")) },
        { desk:write("sealed one.pem", desk:read(sealed) .. chain), "--password-file", password },
        { cert_file, "--key", made .. "/key.pem" },
        { cert_file, "--key", sealed, "--password-file", password },
      } do
        desk:clear()
        local object = imports(table.unpack(words))
        assert.same({ "a.test", true }, { object.common_name, object.has_private_key })
        keeps_key(object.id)
      end
    end)

    it("one, and shows it and what comes next", function()
      local result = desk:run("import", made .. "/cert.pem", "--key", made .. "/key.pem")
      assert.equal(0, result.status, result.stderr)
      assert.matches("^Id +1\nName +a%.test\nState +completed\n", result.stdout)
      assert.matches("^1 'a%.test' is imported with its key: valid until .-\nnext: certwright assign%-services 1 "
        .. "%-%-services LIST\n$", result.stderr)
    end)

    it("a name, and whether the key may leave again", function()
      local object = imports(pfx "pair.pfx", "--password-file", password, "--name", "mail", "--exportable")
      assert.same({ "mail", true }, { object.friendly_name, object.exportable })
    end)

    it("a certificate without its key, and the key later, without losing what it is", function()
      local chain = desk:write("chain.pem", desk:read(made .. "/cert.pem") .. desk:read(outside .. "/cert.pem"))
      local object = imports(chain)
      assert.same({ false, false }, { object.has_private_key, object.exportable })
      local again = imports(chain, "--key", made .. "/key.pem", "--exportable")
      assert.same({ object.id, true, true }, { again.id, again.has_private_key, again.exportable })
      keeps_key(again.id)
      local history = desk:done("show", "1").history
      assert.same({ "completed", "imported its key" }, { history[1].event, history[2].event })
    end)

    it("one that has expired, which is then DateInvalid", function()
      local _, _, request = desk:ask("--domain", "old.test", "--key", "ec:P-256")
      local old, key = desk:sign(request, { from = -20, to = -10 }), desk:read(desk.state .. "/keys/1.pem")
      desk:clear()
      assert.equal("DateInvalid", desk:done("import", old, "--key", desk:write("old.key", key, "600")).status)
    end)
  end)

  it("makes a name that is in use its own, but never one that was asked for", function()
    local other = desk.lab:certificate { names = { "a.test" }, ca = outside }
    desk:done("import", made .. "/cert.pem")
    assert.equal("a.test (2)", desk:done("import", other .. "/cert.pem").friendly_name)
    local third = desk.lab:certificate { names = { "a.test" }, ca = outside }
    desk:refuses(1, "exists", "the friendly name 'a.test' is in use by 1; choose another with --name", "import",
      third .. "/cert.pem", "--name", "a.test")
    desk:refuses(2, "usage", "the friendly name '77' may not be digits only: that is an id", "import",
      third .. "/cert.pem", "--name", "77")
  end)

  describe("refuses, and changes nothing:", function()
    local function refuses(code, message, ...)
      desk:refuses(1, code, message, "import", ...) -- which makes the store
      local before = desk:snapshot()
      desk:refuses(1, code, message, "import", ...)
      desk:refuses(1, code, message, "import", "--dry-run", ...)
      assert.is_true(before == desk:snapshot())
      assert.equal(0, #desk:done "list")
    end

    it("a key of another certificate, naming it", function()
      local other = desk.lab:certificate { names = { "a.test" }, ca = outside }
      refuses("mismatch", "the key (HEX) is that of no certificate here", made .. "/cert.pem", "--key",
        other .. "/key.pem")
    end)

    it("the certificate of a CA", function()
      refuses("mismatch", "'Outside issuing' is the certificate of a CA, not of a server", outside .. "/cert.pem")
    end)

    it("a password that is missing or wrong", function()
      local path = pfx "pair.pfx"
      refuses("denied", "'LAB/pair.pfx': cannot read the PKCS #12: no password was given; give it with "
        .. "--password-file FILE", path)
      refuses("denied", "'LAB/pair.pfx': cannot read the PKCS #12: wrong password", path, "--password-file",
        desk:write("wrong", "Secret\n"))
      local sealed = desk:write("sealed.pem", desk:openssl("pkcs8", "-topk8", "-in", made .. "/key.pem", "-passout",
        "pass:secret"))
      refuses("denied", "cannot read the private key in 'LAB/sealed.pem': it is encrypted and no password was given; "
        .. "give it with --password-file FILE", made .. "/cert.pem", "--key", sealed)
      refuses("parse", "cannot read a password from 'LAB/empty': its first line is empty", path, "--password-file",
        desk:write("empty", "\n"))
    end)

    it("a PKCS #12 with RC2, which it names with the way out", function()
      refuses("unsupported", "'LAB/rc2.pfx': cannot read the PKCS #12: this OpenSSL cannot decrypt "
        .. "pbeWithSHA1And40BitRC2-CBC; convert it first with: openssl pkcs12 -legacy -in FILE -out FILE.pem",
        pfx("rc2.pfx", "-legacy"), "--password-file", password)
    end)

  end)

  describe("of the certificate that a request waits for", function()
    it("completes that, whether or not its key comes along", function()
      for _, with_key in ipairs { false, true } do
        desk:clear()
        local id, _, request = desk:ask("--domain", "a.test", "--name", "mail")
        local file = desk:sign(request)
        if with_key then
          file = desk:write("both.pem", desk:read(file) .. desk:read(desk.state .. "/keys/1.pem"), "600")
        end
        local before = desk:snapshot()
        local _, said = desk:done("import", file, "--dry-run")
        assert.matches("would complete request 1 with certificate %x+\n$", said.stderr)
        assert.matches("^would have it renewed from ", said.stderr)
        assert.is_true(before == desk:snapshot())
        local object, result = desk:done("import", file)
        assert.same({ id, "completed", "mail", true }, { tostring(object.id), object.state, object.friendly_name,
          object.has_private_key })
        assert.matches("^1 'mail' waited for this certificate and is completed, with its key: valid until ", result.stderr)
        assert.equal("completed", desk:done("show", id).history[2].event)
        assert.equal(1, #desk:done "list")
        _, result = desk:done("import", file)
        assert.matches("^1 'mail' is here already, with its key: valid until ", result.stderr)
      end
    end)

    it("keeps its name, and whether its key may leave", function()
      local _, _, request = desk:ask("--domain", "a.test")
      local file = desk:sign(request)
      local before = desk:snapshot()
      for option, words in pairs { ["--name"] = { "--name", "x" }, ["--exportable"] = { "--exportable" } } do
        desk:refuses(1, "exists", "request 1 'a.test' waits for this certificate, with a name and a key that stay as they "
          .. "are: import it without " .. option, "import", file, table.unpack(words))
      end
      assert.is_true(before == desk:snapshot())
    end)

    it("refuses one that cannot serve", function()
      local id, _, request = desk:ask("--domain", "a.test")
      desk:refuses(1, "expired", "the certificate 'a.test' expired on TIME", "import", desk:sign(request,
        { from = -20, to = -10 }))
      assert.equal("created", desk:done("show", id).state)
    end)
  end)

  it("reads standard input, and no more than 16 MiB of it", function()
    local object = desk:done("import", "-", "--key", made .. "/key.pem", { stdin = desk:read(made .. "/cert.pem") })
    assert.equal("a.test", object.common_name)
    local result = assert(process.run { "sh", "-c", '"$@" </dev/zero', "sh", Desk.program, "--site", desk.site, "--state",
      desk.state, "import", "-" })
    assert.same({ 1, "", "certwright: cannot read 'standard input': more than 16777216 bytes\n" }, { result.status, result.stdout,
      result.stderr })
  end)

  it("has a friendly name of its own where the one in a PKCS #12 is none", function()
    for _, name in ipairs { ("x"):rep(70000), "12", "\u{202E}evil", "a/b" } do
      desk:clear()
      assert.equal("a.test", desk:done("import", pfx("pair.pfx", "-name", name), "--password-file", password).friendly_name)
    end
  end)

  it("--dry-run says what it would do, and changes nothing", function()
    local value, result = desk:done("import", pfx "pair.pfx", "--password-file", password, "--dry-run")
    assert.same({ "CN=a.test", { "a.test", "b.test" }, true, false }, { value.subject, value.domains,
      value.has_private_key, value.exportable })
    assert.matches("^would import certificate 'a.test', valid until %d+%-%d%d%-%d%dT%S+, with its key\nwould have it renewed from "
      .. "%d+%-%d%d%-%d%dT%S+Z on %(renew_at in '[^']*'%)\n$", result.stderr)
    assert.equal("", desk:snapshot())
    local plain = desk:run("import", made .. "/cert.pem", "--dry-run")
    assert.same({ 0, "" }, { plain.status, plain.stdout })
  end)
end)
