-- Revocation as users see it: a CA of openssl's that publishes by OCSP and lists,
-- a real responder and a real web server; `show --revocation`, `check --revocation`.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local Desk = dofile(here .. "/support/desk.lua")
local Publisher = dofile(here .. "/support/publisher.lua")
local host = require "core.host"
local json = require "dkjson"
local lfs = require "lfs"

local CONFIG = [[
[ca]
default_ca = published
[published]
database = DIR/index
new_certs_dir = DIR
crlnumber = DIR/number
rand_serial = yes
default_md = sha256
default_crl_days = 30
policy = any
unique_subject = no
certificate = CA/cert.pem
private_key = CA/key.pem
[any]
commonName = optional
[req]
distinguished_name = any
]]

describe("revocation", function()
  local desk, publisher, ca, dir, port, responder

  local function openssl(...) return desk:openssl(...) end

  -- Lets the CA outside sign a request with these lines of extensions: a file.
  local function sign(request, extensions)
    local path = desk.lab:folder "signed"
    desk:write("ext.cnf", "basicConstraints = critical,CA:false\nsubjectAltName = DNS:a.test\nauthorityKeyIdentifier = keyid\n" .. extensions)
    openssl("ca", "-batch", "-notext", "-config", dir .. "/ca.cnf", "-in", request, "-out", path .. "/cert.pem", "-days", "90",
      "-extfile", desk.path .. "/ext.cnf")
    return path .. "/cert.pem"
  end

  local function lists() return "crlDistributionPoints = URI:" .. publisher.url .. "/ca.crl\n" end
  local function ocsp() return ("authorityInfoAccess = OCSP;URI:http://127.0.0.1:%d\n"):format(port) end

  -- An object with a certificate that says where its revocation is told; its id and file.
  local function complete(extensions)
    local id, _, request = desk:ask("--domain", "a.test", "--name", "n" .. host.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
    local path = sign(request, extensions)
    desk:done("complete-request", id, "--file", path, "--file", ca .. "/cert.pem")
    return id, path
  end

  local function revoke(path, reason)
    openssl("ca", "-config", dir .. "/ca.cnf", "-revoke", path, "-crl_reason", reason or "keyCompromise")
  end

  local function publish(...)
    openssl("ca", "-config", dir .. "/ca.cnf", "-gencrl", "-out", dir .. "/ca.pem", ...)
    publisher:put("ca.crl", (openssl("crl", "-in", dir .. "/ca.pem", "-outform", "DER")))
  end

  local function respond(more)
    if responder then responder.stop() end
    responder = publisher:responder { port = port, index = dir .. "/index", ca = ca .. "/cert.pem", signer = ca .. "/cert.pem",
      key = ca .. "/key.pem", more = more }
  end

  local function silence()
    if responder then responder.stop() end
    responder = nil
  end

  setup(function()
    desk = Desk.new "revoked"
    local root = desk.lab:authority { name = "Outside root" }
    ca = desk.lab:authority { name = "Outside issuing", ca = root }
    desk.root_file = root .. "/cert.pem"
    dir = desk.lab:folder "published-ca"
    publisher, port = Publisher.new(desk.lab), desk.lab:port()
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root_file))
    for name, text in pairs { index = "", number = "01\n", ["ca.cnf"] = (CONFIG:gsub("DIR", dir):gsub("CA/", ca .. "/")) } do
      desk:write(dir:sub(#desk.path + 2) .. "/" .. name, text)
    end
    publish()
  end)
  teardown(function()
    silence()
    if publisher then publisher:close() end
    desk:close()
  end)

  local function show(id)
    local object = desk:done("show", id, "--revocation")
    return object.status, object.status_reason, object
  end

  local function clear_cache()
    require("core.process").run { "rm", "-rf", "--", desk.state .. "/revocation" }
  end

  before_each(clear_cache)

  describe("by a revocation list", function()
    it("is good, and says who said so", function()
      local status, reason, object = show((complete(lists())))
      assert.equal("Valid", status)
      assert.equal(("chains to a trust anchor; not revoked, says CRL %s/ca.crl of TIME"):format(publisher.url), desk:shown(reason))
      assert.same({ "good", json.null, json.null }, { object.revocation.state, object.revocation.reason, object.revocation.revoked_at })
    end)

    it("is revoked, with when and why; list shows that from then on, without asking", function()
      local id, path = complete(lists())
      revoke(path)
      publish()
      assert.equal("Valid", desk:done("show", id).status)
      local recorded = #desk:done "audit"
      local status, reason, object = show(id)
      assert.equal("Revoked", status)
      assert.equal(("revoked on TIME: keyCompromise, says CRL %s/ca.crl of TIME"):format(publisher.url), desk:shown(reason))
      assert.same({ "revoked", "keyCompromise" }, { object.revocation.state, object.revocation.reason })
      assert.same({ "revoked", (reason:gsub("^revoked ", "")) }, { object.history[#object.history].event,
        object.history[#object.history].detail })
      assert.same({ { code = "revoked", message = reason } }, object.warnings)
      local asked = publisher:count "/ca.crl"
      assert.equal(tonumber(id), desk:done("list", "--status", "Revoked")[1].id)
      assert.equal(asked, publisher:count "/ca.crl")
      assert.equal(#object.history, #select(3, show(id)).history)
      local records = desk:done "audit"
      local last = records[#records]
      assert.same({ recorded + 2, "show", "done", tonumber(id), true }, { #records, last.command, last.result, last.object,
        last.after.objects[id].revoked })
    end)

    it("was on hold, and is not any more", function()
      local id, path = complete(lists())
      desk:openssl("ca", "-config", dir .. "/ca.cnf", "-revoke", path, "-crl_hold", "holdInstructionReject")
      publish()
      assert.equal("Revoked", (show(id)))
      local index = desk:read(dir .. "/index"):gsub("R(\t%d+Z\t)%d+Z,holdInstruction[^\t]*\t", "V%1\t")
      desk:write(dir:sub(#desk.path + 2) .. "/index", index)
      publish()
      clear_cache()
      assert.equal("Valid", (show(id)))
      assert.equal("Valid", desk:done("show", id).status)
    end)

    it("is asked once while the list is fresh, and told from what is kept when nobody answers", function()
      local id, before = complete(lists()), publisher:count "/ca.crl"
      show(id)
      assert.equal(before + 1, publisher:count "/ca.crl")
      publisher:stop()
      local status, reason = show(id)
      publisher:start()
      assert.equal("Valid", status)
      assert.is_truthy(reason:find "Z, cached$")
      assert.equal(before + 1, publisher:count "/ca.crl")
      local count = 0
      for name in lfs.dir(desk.state .. "/revocation") do
        if name:find "^%x+$" then
          count = count + 1
          assert.equal("0600", desk:mode(desk.state .. "/revocation/" .. name))
        end
      end
      assert.equal(1, count)
    end)

    it("--dry-run keeps and remembers nothing", function()
      local id, path = complete(lists())
      revoke(path)
      publish()
      local before = desk:snapshot()
      assert.equal("Revoked", desk:done("--dry-run", "show", id, "--revocation").status)
      assert.equal(before, desk:snapshot())
    end)

    local function fails(id, pattern)
      local status, reason, object = show(id)
      assert.equal("RevocationCheckFailure", status)
      assert.is_truthy(desk:shown(reason):find(pattern), reason)
      assert.equal("failed", object.revocation.state)
      assert.equal("Valid", desk:done("show", id).status) -- it is not remembered
    end

    it("cannot be told from a list that is over", function()
      local id = complete(lists())
      publish("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z")
      fails(id, "^cannot tell whether 'a%.test' is revoked: '[^']*/ca%.crl': the answer was good until TIME$")
      publish()
    end)

    it("cannot be told from another's list", function()
      local id = complete(lists())
      local other = desk.lab:authority { name = "Outside issuing" }
      desk:openssl("ca", "-config", dir .. "/ca.cnf", "-gencrl", "-keyfile", other .. "/key.pem", "-cert", other .. "/cert.pem",
        "-out", dir .. "/ca.pem")
      publisher:put("ca.crl", desk:read(dir .. "/ca.pem"))
      fails(id, "/ca%.crl': the revocation list is not of \"Outside issuing\": its signature is not the issuer's$")
      publish()
    end)

    it("cannot be told where there is no such page, or the server is silent, or talks too long", function()
      fails((complete("crlDistributionPoints = URI:" .. publisher.url .. "/none.crl\n")), "/none%.crl': HTTP status 404$")
      fails((complete(("crlDistributionPoints = URI:http://127.0.0.1:%d/x\n"):format(desk.lab:port()))), "Couldn't connect to server$")
      publisher:put("slow", ("x"):rep(1000))
      local id, from = complete("crlDistributionPoints = URI:" .. publisher.url .. "/slow\n"), host.clock()
      fails(id, "Operation timed out after")
      assert.is_true(host.clock() - from < 12)
      local huge = assert(io.open(publisher.dir .. "/files/huge", "w"))
      huge:seek("set", 33 * 1024 * 1024)
      huge:write "x"
      huge:close()
      fails((complete("crlDistributionPoints = URI:" .. publisher.url .. "/huge\n")), "/huge': more than 33554432 bytes$")
    end)

    it("is not looked for in LDAP or in a file", function()
      fails((complete("crlDistributionPoints = URI:ldap://a.test/x,URI:file:///etc/x\n")),
        "'ldap://a%.test/x' is not fetched: only http and https are; 'file:///etc/x' is not fetched: only http and https are$")
    end)
  end)

  describe("by OCSP", function()
    it("is good, revoked, and kept", function()
      local id, path = complete(ocsp())
      respond()
      local status, reason = show(id)
      assert.equal("Valid", status)
      assert.equal(("chains to a trust anchor; not revoked, says OCSP http://127.0.0.1:%d of TIME"):format(port), desk:shown(reason))
      silence()
      status, reason = show(id)
      assert.equal("Valid", status)
      assert.is_truthy(reason:find "cached$")
      clear_cache()
      revoke(path, "superseded")
      respond()
      status, reason = show(id)
      assert.equal("Revoked", status)
      assert.equal(("revoked on TIME: superseded, says OCSP http://127.0.0.1:%d of TIME"):format(port), desk:shown(reason))
    end)

    it("is followed by the list where the responder is down, or does not know it", function()
      local id = complete(ocsp() .. lists())
      publish()
      silence()
      local status, reason = show(id)
      assert.equal("Valid", status)
      assert.is_truthy(reason:find("says CRL ", 1, true), reason)
      id = complete(ocsp())
      local kept = desk:read(dir .. "/index")
      desk:write(dir:sub(#desk.path + 2) .. "/index", "")
      respond()
      status, reason = show(id)
      assert.equal("RevocationCheckFailure", status)
      assert.equal(("cannot tell whether 'a.test' is revoked: 'http://127.0.0.1:%d' does not know it"):format(port), reason)
      desk:write(dir:sub(#desk.path + 2) .. "/index", kept)
      silence()
      status, reason = show(id)
      assert.equal("RevocationCheckFailure", status)
      assert.is_truthy(reason:find "Couldn't connect to server$")
    end)

    it("needs a signer that the CA delegated this to", function()
      local id = complete(ocsp())
      local stranger = desk.lab:authority { name = "Stranger" }
      silence()
      responder = publisher:responder { port = port, index = dir .. "/index", ca = ca .. "/cert.pem", signer = stranger .. "/cert.pem",
        key = stranger .. "/key.pem" }
      local status, reason = show(id)
      assert.equal("RevocationCheckFailure", status)
      assert.is_truthy(reason:find('the OCSP response is not signed for "Outside issuing"', 1, true), reason)
      silence()
    end)
  end)

  describe("stapled", function()
    local web

    setup(function()
      web = desk.lab:nginx { names = { "a.test" } }
      desk.lab:site { anchors = { desk.root_file }, services = { web = web.service } }
    end)
    teardown(function()
      web:stop()
      desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root_file))
    end)

    -- Lets nginx staple what openssl says of a certificate now; nil: nothing.
    local function staple(path, signer, more)
      local conf = "ssl_stapling on; ssl_stapling_file " .. web.folder .. "/staple.der;"
      if path then
        openssl("ocsp", "-issuer", ca .. "/cert.pem", "-cert", path, "-reqout", web.folder .. "/staple.req", "-no_nonce")
        openssl("ocsp", "-index", dir .. "/index", "-CA", ca .. "/cert.pem", "-rsigner", signer .. "/cert.pem", "-rkey",
          signer .. "/key.pem", "-reqin", web.folder .. "/staple.req", "-respout", web.folder .. "/staple.der",
          table.unpack(more or { "-nmin", "30" }))
      end
      desk:write(web.folder:sub(#desk.path + 2) .. "/conf.d/staple.conf", path and conf or "")
      local log = #web:log()
      assert(require("core.process").run { "nginx", "-p", web.folder, "-c", web.folder .. "/nginx.conf", "-s", "reload" })
      assert(desk.lab:eventually(function() return web:log():find("exited with code 0", log, true) end))
    end

    local function check(status)
      local result = desk:run("check", "--revocation")
      assert.equal(status, result.status, result.stderr)
      return desk:shown(result.stderr)
    end

    it("is what check and show take where nobody else answers, and what check judges", function()
      local id, path = complete(ocsp())
      silence()
      desk:done("assign-services", id, "--services", "web")
      assert.is_truthy(check(1):find(("certwright: %s: cannot tell whether 'a.test' is revoked: cannot fetch"):format(id), 1, true))
      staple(path, ca)
      assert.equal("", check(0))
      local status, reason = show(id)
      assert.equal("Valid", status)
      assert.equal(("chains to a trust anchor; not revoked, says stapled OCSP %s of TIME"):format(web.endpoints[1]), desk:shown(reason))
      local stranger = desk.lab:authority { name = "Outside issuing" }
      staple(path, stranger)
      assert.is_truthy(check(1):find(("\n%s on %s: the OCSP response is not signed for \"Outside issuing\": "):format(id, web.endpoints[1]), 1, true))
      revoke(path)
      staple(path, ca)
      local said = check(1)
      assert.is_truthy(said:find(("%s: revoked on TIME: keyCompromise, says stapled OCSP %s of TIME\n"):format(id, web.endpoints[1]), 1, true), said)
      assert.is_truthy(said:find(("%s on %s: the stapled answer is 'revoked'\n"):format(id, web.endpoints[1]), 1, true), said)
      assert.equal("Revoked", desk:done("list")[tonumber(id)].status)
    end)

    it("is missed where the certificate requires it", function()
      staple(nil)
      local id = complete("tlsfeature = status_request\n" .. lists())
      publish()
      desk:done("assign-services", id, "--services", "web")
      assert.is_truthy(check(1):find(("%s on %s: staples nothing, which its certificate requires"):format(id, web.endpoints[1]), 1, true))
    end)
  end)

  it("of an issuer above revokes what it issued", function()
    local root, folder = desk.root_file:match "^(.*)/", desk.lab:folder "middle"
    local name = folder:sub(#desk.path + 2)
    desk:write(name .. "/ext.cnf", "basicConstraints = critical,CA:true\nkeyUsage = critical,keyCertSign,cRLSign\n"
      .. "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\ncrlDistributionPoints = URI:" .. publisher.url .. "/root.crl\n")
    for file, text in pairs { index = "", number = "01\n", ["ca.cnf"] = (CONFIG:gsub("DIR", folder):gsub("CA/", root .. "/")) } do
      desk:write(name .. "/" .. file, text)
    end
    openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder .. "/key.pem", "-out",
      folder .. "/ca.csr", "-subj", "/CN=Middle", "-config", folder .. "/ca.cnf")
    openssl("ca", "-batch", "-notext", "-config", folder .. "/ca.cnf", "-in", folder .. "/ca.csr", "-out", folder .. "/cert.pem", "-days",
      "900", "-extfile", folder .. "/ext.cnf")
    local function publish_root()
      openssl("ca", "-config", folder .. "/ca.cnf", "-gencrl", "-out", folder .. "/root.pem")
      publisher:put("root.crl", desk:read(folder .. "/root.pem"))
      clear_cache()
    end
    publish_root()
    local outside = desk.authority
    desk.authority = folder
    local id, _, request = desk:ask("--domain", "a.test", "--name", "below")
    desk:done("complete-request", id, "--file", desk:sign(request), "--file", folder .. "/cert.pem")
    desk.authority = outside
    local status, reason = show(id)
    assert.same({ "Valid", "chains to a trust anchor; its CA offers neither OCSP nor a revocation list" }, { status, reason })
    openssl("ca", "-config", folder .. "/ca.cnf", "-revoke", folder .. "/cert.pem", "-crl_reason", "CACompromise")
    publish_root()
    status, reason = show(id)
    assert.equal("Revoked", status)
    assert.equal(("its issuer 'Middle' was revoked on TIME: cACompromise, says CRL %s/root.crl of TIME"):format(publisher.url), desk:shown(reason))
  end)

  it("is asked through the site's proxy", function()
    desk:write("site/config.lua", ("return { anchors = { %q }, proxy = %q }"):format(desk.root_file, publisher.url))
    publish()
    local id = complete "crlDistributionPoints = URI:http://ca.invalid/ca.crl\n"
    local status, reason = show(id)
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root_file))
    assert.same({ "Valid", "chains to a trust anchor; not revoked, says CRL http://ca.invalid/ca.crl of TIME" }, { status, desk:shown(reason) })
  end)

  describe("where there is nobody to ask", function()
    it("is no failure, and says so", function()
      local status, reason = show((complete ""))
      assert.same({ "Valid", "chains to a trust anchor; its CA offers neither OCSP nor a revocation list" }, { status, reason })
    end)

    it("is the local CA's own knowledge", function()
      desk:done("ca", "init")
      local object = desk:done("enroll", "--domain", "l.test", "--ca", "local")
      local status, reason = show(tostring(object.id))
      assert.same({ "Valid", "chains to a trust anchor; not revoked, by the local CA's own records" }, { status, reason })
    end)

    it("is nothing for a self-signed one, or one whose issuer is unknown, or a request", function()
      local object = desk:done("new-request", "--self-signed", "--domain", "s.test")
      local status, _, shown = show(tostring(object.id))
      assert.same({ "Untrusted", "unchecked" }, { status, shown.revocation.state })
      local id, _, request = desk:ask("--domain", "a.test", "--name", "alone")
      assert.equal(json.null, select(3, show(id)).root)
      local path = sign(request, lists())
      desk:write("site/config.lua", "return {}")
      desk:done("complete-request", id, "--file", path)
      status, _, shown = show(id)
      assert.same({ "Untrusted", "failed", "cannot tell whether 'a.test' is revoked: its issuer's certificate is not here" },
        { status, shown.revocation.state, shown.revocation.message })
      desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root_file))
    end)
  end)
end)
