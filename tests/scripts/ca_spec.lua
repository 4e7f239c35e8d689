-- ca init and ca root: the embedded local CA, judged by openssl.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local file = require "core.file"
local json = require "dkjson"
local lfs = require "lfs"

describe("the local CA", function()
  local desk

  setup(function() desk = Desk.new "ca" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  it("is a root and an issuing CA that openssl verifies, keys 0600, folders 0700", function()
    desk:write("site/config.lua", "return { organization = { O = 'Contoso', OU = 'Mail', C = 'US' } }")
    local value, result = desk:done("ca", "init")
    local folder = desk.state .. "/ca"
    assert.equal("made a root and an issuing CA in STATE/ca\nclients must trust the root: certwright ca root --out "
      .. "root.pem\n", desk:shown(result.stderr))
    local root, issuing = desk:read(folder .. "/root.pem"), desk:read(folder .. "/issuing.pem")
    assert.equal(desk:digest("certificate", root), value.fingerprint)
    assert.same({ "0600", "0600", "0700", "0700", folder .. "/root.pem" }, { desk:mode(folder .. "/root.key"),
      desk:mode(folder .. "/issuing.key"), desk:mode(folder), desk:mode(folder .. "/issued"), value.file })
    assert.is_truthy(desk:openssl("verify", "-x509_strict", "-CAfile", folder .. "/root.pem",
      folder .. "/issuing.pem"):find "OK")
    local text = desk:certificate(root)
    assert.same({ "CN=Contoso certwright root CA,O=Contoso,C=US", "CA:TRUE", "Certificate Sign, CRL Sign" },
      { text.subject, text.basic_constraints, text.key_usage })
    text = desk:certificate(issuing)
    assert.same({ "CN=Contoso certwright issuing CA,O=Contoso,C=US", "CA:TRUE, pathlen:0" },
      { text.subject, text.basic_constraints })
    assert.is_nil(desk:read(folder .. "/root.pem"):find "PRIVATE")
  end)

  it("is made once", function()
    local first = desk:done("ca", "init")
    desk:refuses(1, "exists", "there is a local CA already, in 'STATE/ca'", "ca", "init")
    assert.equal(first.fingerprint, desk:done("ca", "root").fingerprint)
  end)

  it("is made once by several commands at the same time, whole", function()
    local ends, made = {}, nil
    for i = 1, 5 do ends[i] = desk:start("--json", "ca", "init") end
    for _, wait in ipairs(ends) do
      local status, text = wait()
      if status == 0 then
        assert.is_nil(made)
        made = json.decode(text:match "{.*}").fingerprint
      else
        assert.equal(1, status)
        assert.is_truthy(text:find("there is a local CA already, in ", 1, true), text)
      end
    end
    assert.equal(made, desk:done("ca", "root").fingerprint)
    desk:openssl("verify", "-CAfile", desk.state .. "/ca/root.pem", desk.state .. "/ca/issuing.pem")
    desk:done("enroll", "--domain", "a.test")
  end)

  it("is not made again over one that has issued", function()
    desk:done("ca", "init")
    desk:done("enroll", "--domain", "a.test")
    local root = desk:read(desk.state .. "/ca/root.key")
    os.remove(desk.state .. "/ca/issuing.pem")
    local message = "the local CA in 'STATE/ca' has issued certificates, but 'STATE/ca/issuing.pem' is gone: put it "
      .. "back from a backup, or move the folder away"
    desk:refuses(1, "exists", message, "ca", "init")
    desk:refuses(1, "exists", message, "ca", "init", "--dry-run")
    assert.equal(root, desk:read(desk.state .. "/ca/root.key"))
  end)

  it("is made again where making it was cut short", function()
    desk:done("ca", "init")
    os.remove(desk.state .. "/ca/issuing.pem")
    desk:refuses(1, "missing", "there is no local CA here; make one with: certwright ca init", "ca", "root")
    desk:done("ca", "init")
    desk:done("enroll", "--domain", "a.test")
    assert.is_true(desk:verifies(1, desk.state .. "/ca/root.pem", "a.test"))
  end)

  it("is the default from then on", function()
    assert.equal("manual", select(2, desk:ask("--domain", "a.test")).ca)
    desk:done("ca", "init")
    assert.equal("local", select(2, desk:ask("--domain", "a.test")).ca)
  end)

  it("gives each certificate a serial of its own, and at most its own lifetime", function()
    desk:write("site/config.lua", "return { cas = { ['local'] = { adapter = 'local', days = 20000 } } }")
    desk:done("ca", "init")
    local serials = {}
    for _ = 1, 3 do
      local object = desk:done("enroll", "--domain", "a.test")
      assert.is_nil(serials[object.serial])
      assert.is_true(#object.serial >= 16)
      serials[object.serial] = true
      assert.is_true(desk:verifies(object.id, desk.state .. "/ca/root.pem", "a.test"))
    end
  end)

  it("does not grant what a request asks for beyond subject and names", function()
    desk:done("ca", "init")
    local id, _, path = desk:ask("--domain", "a.test")
    local config = desk:write("greedy.cnf", "[req]\nprompt = no\ndistinguished_name = dn\nreq_extensions = ext\n[dn]\n"
      .. "CN = a.test\n[ext]\nbasicConstraints = critical, CA:true\nkeyUsage = keyCertSign\n"
      .. "subjectAltName = DNS:a.test, email:root@a.test, URI:https://a.test/\n")
    desk:openssl("req", "-new", "-key", desk.state .. "/keys/1.pem", "-config", config, "-out", path)
    desk:done("submit-request", id)
    desk:done("complete-request", id)
    local certificate = desk:certificate((desk:kept(id)))
    assert.same({ "CA:FALSE", "Digital Signature", "TLS Web Server Authentication" },
      { certificate.basic_constraints, certificate.key_usage, certificate.extended_key_usage })
    assert.same({ "DNS:a.test" }, certificate.names)
  end)

  describe("ca root", function()
    it("prints the root, or writes it where --out says", function()
      desk:done("ca", "init")
      local root = desk:read(desk.state .. "/ca/root.pem")
      assert.equal(root, desk:run("ca", "root").stdout)
      local path = desk.path .. "/root.pem"
      assert.equal(path, desk:done("ca", "root", "--out", path).file)
      assert.equal(root, desk:read(path))
      desk:refuses(1, "exists", "'LAB/root.pem' exists already; say --yes to replace it", "ca", "root", "--out", path)
      desk:done("ca", "root", "--out", path, "--yes")
      os.remove(path)
      assert(lfs.link(desk:write("target", "mine"), path, true))
      desk:refuses(1, "exists", "cannot write 'LAB/root.pem': not a regular file", "ca", "root", "--out", path, "--yes")
      assert.equal("mine", desk:read(desk.path .. "/target"))
      os.remove(path)
    end)

    it("needs one, and makes no folder for it", function()
      desk:refuses(1, "missing", "there is no local CA here; make one with: certwright ca init", "ca", "root")
      assert.is_nil(file.stat(desk.state))
    end)
  end)

  it("--dry-run makes nothing", function()
    local value, result = desk:done("ca", "init", "--dry-run")
    assert.equal("would make a root and an issuing CA in STATE/ca\nwould name them 'Local certwright root CA' and 'Local certwright "
      .. "issuing CA'\n", desk:shown(result.stderr))
    assert.equal(json.null, value.fingerprint)
    assert.is_nil(file.stat(desk.state))
    desk:done("ca", "init")
    desk:refuses(1, "exists", "there is a local CA already, in 'STATE/ca'", "ca", "init", "--dry-run")
  end)
end)
