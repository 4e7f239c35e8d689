-- revoke, and ca crl: what the local CA revokes openssl refuses; what another CA
-- has to revoke is a person's to ask for.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
package.path = here .. "support/?.lua;" .. package.path
local deploy = require "deploy"
local process = require "core.process"
local json = require "dkjson"

describe("revoke", function()
  local desk

  setup(function() desk = Desk.new "revoke" end)
  teardown(function() desk:close() end)
  before_each(function()
    desk:clear()
    desk:done("ca", "init")
  end)

  -- What openssl says of an object's certificate with the CA's list, which has to
  -- hold at a time (now): "OK" or its error.
  local function judged(id, at)
    local certificate, chain = desk:kept(id)
    local leaf, others = desk:write("v/leaf.pem", certificate), desk:write("v/chain.pem", chain)
    local list = desk.path .. "/v/list.pem"
    desk:done("ca", "crl", "--out", list)
    local result = assert(process.run { "openssl", "verify", "-crl_check", "-CAfile", desk.state .. "/ca/root.pem",
      "-untrusted", others, "-CRLfile", list, "-attime", tostring(at or os.time()), leaf })
    return result.status == 0 and "OK" or (result.stdout .. result.stderr):match "depth lookup: ([^\n]+)"
  end

  local function list_text()
    return (desk:openssl("crl", "-noout", "-text", { stdin = desk:run("ca", "crl").stdout }))
  end

  it("puts a certificate of the local CA on its list, which openssl reads", function()
    desk:done("enroll", "--domain", "a.test")
    desk:done("enroll", "--domain", "b.test")
    assert.same({ "OK", "OK" }, { judged(1), judged(2) })
    local object, result = desk:done("revoke", "1", "--reason", "keycompromise")
    assert.same({ "Revoked", "completed" }, { object.status, object.state })
    assert.equal("1 'a.test' is revoked\nnext: certwright ca crl --out FILE, to be published\n", result.stderr)
    assert.is_truthy(object.warnings[#object.warnings].message:find "^revoked on %d+%-%d%d%-%d%d %(keyCompromise%)$")
    assert.same({ "certificate revoked", "OK" }, { judged(1), judged(2) })
    local text = list_text()
    assert.is_truthy(text:lower():find("serial number: " .. object.serial, 1, true))
    assert.is_truthy(text:find "X509v3 CRL Reason Code: \n%s*Key Compromise\n")
    local history = desk:done("show", "1").history
    assert.same({ "revoked", "keyCompromise" }, { history[#history].event, history[#history].detail })
  end)

  it("gives no reason where none was said, and knows those of RFC 5280 for servers", function()
    local words = { keyCompromise = "Key Compromise", affiliationChanged = "Affiliation Changed",
      superseded = "Superseded", cessationOfOperation = "Cessation Of Operation",
      privilegeWithdrawn = "Privilege Withdrawn" }
    for reason in pairs(words) do
      desk:done("enroll", "--domain", reason .. ".test")
      desk:done("revoke", reason:lower() .. ".test", "--reason", reason)
    end
    local text = list_text()
    for _, said in pairs(words) do assert.is_truthy(text:find(said .. "\n", 1, true), said) end
    desk:done("enroll", "--domain", "plain.test")
    desk:done("revoke", "plain.test")
    assert.equal(5, select(2, list_text():gsub("Reason Code", "")))
    desk:refuses(2, "usage", "--reason: there is no reason 'certificateHold'; there are: unspecified, keyCompromise, "
      .. "affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn; see certwright help revoke", "revoke", "1",
      "--reason", "certificateHold")
  end)

  it("may be said again: nothing changes", function()
    desk:done("enroll", "--domain", "a.test")
    desk:done("revoke", "1")
    local before = desk:snapshot()
    local object, result = desk:done("revoke", "1", "--reason", "superseded")
    assert.equal("Revoked", object.status)
    assert.is_truthy(result.stderr:find "^1 was revoked on %S+ already\n$")
    assert.is_true(before == desk:snapshot())
  end)

  it("is finished by the next when it was cut short after the CA's record", function()
    desk:done("enroll", "--domain", "a.test")
    desk:done("revoke", "1")
    deploy.sql(desk.lab, "UPDATE objects SET revoked_at = NULL")
    assert.equal("Revoked", desk:done("revoke", "1").status)
    assert.equal(1, desk:done("ca", "crl").count)
  end)

  it("asks about one that a service has; such a one is not assigned anew, and due", function()
    local web = desk.lab:nginx { names = { "www.test" } }
    desk.lab:site { services = { web = web.service } }
    desk:done("enroll", "--services", "web")
    desk:refuses(2, "usage", "1 'www.test' is on web, where clients that check will refuse it when it is revoked; say "
      .. "--yes if that is meant; or renew it first: certwright renew 1", "revoke", "1")
    assert.equal("Valid", desk:done("show", "1").status)
    desk:done("revoke", "1", "--yes")
    desk:refuses(1, "revoked", "cannot assign 1: it was revoked on " .. os.date "!%Y-%m-%d", "assign-services", "1",
      "--services", "web")
    desk:refuses(1, "revoked", "cannot reuse the key of 1: its certificate was revoked", "renew", "1", "--reuse-key")
    local list = desk:done "renew"
    assert.same({ 1, 2, { "web" } }, { #list, list[1].id, list[1].services })
  end)

  it("of a CA that a person speaks to says what to ask for, and records it when that was done", function()
    desk:done("ca", "root")
    local id, _, request = desk:ask("--domain", "a.test")
    desk:waits("submit-request", id, "--ca", "manual")
    desk:done("complete-request", id, "--file", desk:sign(request))
    local before = desk:snapshot()
    local object, result = desk:waits("revoke", id)
    assert.is_true(object.status ~= "Revoked")
    assert.equal(("certwright: the CA 'manual' is not asked from here: have it revoke serial number %s of "
      .. "'CN=Outside issuing'; when it has:\n  certwright revoke 1 --done\n"):format(object.serial), result.stderr)
    assert.is_true(before == desk:snapshot())
    object = desk:done("revoke", id, "--done", "--reason", "superseded")
    assert.equal("Revoked", object.status)
  end)

  it("of an imported and of a self-signed one as well", function()
    local pair = desk.lab:certificate { names = { "a.test" }, ca = desk:outside() }
    desk:done("import", pair .. "/cert.pem")
    local _, result = desk:waits("revoke", "1")
    assert.is_truthy(result.stderr:find("^certwright: its CA is not asked from here: have it revoke"))
    desk:done("new-request", "--self-signed", "--domain", "b.test")
    _, result = desk:waits("revoke", "2")
    assert.equal("certwright: nobody revokes a self-signed certificate: take it away wherever clients trust it; to have it "
      .. "shown as revoked here:\n  certwright revoke 2 --done\n", result.stderr)
    assert.equal("Revoked", desk:done("revoke", "2", "--done").status)
  end)

  it("hands certificate and reason to an adapter of the site's own, whose refusal changes nothing", function()
    local function adapter(body)
      desk:write("site/ca/mine.lua", ([[
        local M = {}
        for field, value in pairs(require "ca.local") do M[field] = value end
        function M.revoke(ca, certificate, reason, context) %s end
        return M]]):format(body))
    end
    desk:write("site/config.lua", "return { ca = 'mine', cas = { mine = { adapter = 'mine' } } }")
    adapter [[return nil, ca.name .. " " .. certificate:fields().common_name .. " " .. reason, "refused"]]
    desk:done("enroll", "--domain", "a.test")
    desk:refuses(1, "refused", "mine a.test superseded", "revoke", "1", "--reason", "superseded")
    assert.equal("Valid", desk:done("show", "1").status)
    adapter "return true"
    assert.equal("Revoked", desk:done("revoke", "1").status)
    desk:write("site/ca/mine.lua", "return { summary = 's', submit = print, collect = print, revoke = 7 }")
    local id = desk:ask("--domain", "b.test")
    local result = desk:run("--json", "submit-request", id)
    assert.is_truthy(json.decode(result.stdout).error.message:find("adapter ca/mine.lua: 'revoke' must be a function, where "
      .. "it is given", 1, true))
  end)

  it("is refused for what has no certificate, or none of the local CA", function()
    local id = desk:ask("--domain", "a.test")
    desk:refuses(1, "mismatch", "cannot revoke 1: it has no certificate, it is created", "revoke", id)
    desk:done("enroll", "--domain", "b.test")
    os.remove(("%s/ca/issued/%s.pem"):format(desk.state, desk:done("show", "2").serial))
    desk:refuses(1, "missing", "the local CA has not issued the certificate with the serial number "
      .. desk:shown(desk:done("show", "2").serial), "revoke", "2")
  end)

  it("--dry-run says what would be, and changes nothing", function()
    desk:done("enroll", "--domain", "a.test")
    local before = desk:snapshot()
    local serial = desk:done("show", "1").serial
    for said, words in pairs {
      [("would have the CA 'local' revoke 1 (serial number %s)\n"):format(serial)] = { "revoke", "1" },
      ["would remember that 1 was revoked\n"] = { "revoke", "1", "--done" },
      ["would make the revocation list of the local CA\n"] = { "ca", "crl" },
    } do
      words[#words + 1] = "--dry-run"
      assert.equal(said, select(2, desk:done(table.unpack(words))).stderr)
    end
    assert.is_true(before == desk:snapshot())
  end)

  describe("ca crl", function()
    it("makes a list of a greater number each time, for as long as is said", function()
      local first = desk:done("ca", "crl", "--out", desk.path .. "/a.crl")
      local second, result = desk:done("ca", "crl", "--out", desk.path .. "/a.crl", "--form", "der", "--days", "2")
      assert.same({ 1, 2, 0 }, { first.number, second.number, second.count })
      assert.equal("wrote revocation list 2 with 0 certificates to LAB/a.crl\n", desk:shown(result.stderr))
      local text = desk:openssl("crl", "-inform", "DER", "-in", desk.path .. "/a.crl", "-noout", "-text", "-nextupdate")
      assert.is_truthy(text:find "X509v3 CRL Number: \n%s*2\n")
      assert.is_truthy(text:find "No Revoked Certificates")
      local ends = tonumber((deploy.tool { "date", "-d", text:match "nextUpdate=([^\n]+)", "+%s" }))
      assert.is_true(math.abs(ends - os.time() - 2 * 86400) < 60)
      assert.equal("0644", desk:mode(desk.path .. "/a.crl"))
    end)

    it("is outdated for openssl after its time", function()
      desk:done("enroll", "--domain", "a.test")
      assert.equal("CRL has expired", judged(1, os.time() + 8 * 86400))
    end)

    it("needs a local CA, a file for DER, and a day at least", function()
      desk:refuses(2, "usage", "--form der needs --out FILE", "ca", "crl", "--form", "der")
      desk:refuses(2, "usage", "--days: the list has to hold for a day at least", "ca", "crl", "--days", "0")
      desk:clear()
      desk:refuses(1, "missing", "there is no local CA here; make one with: certwright ca init", "ca", "crl")
    end)

    it("is named in certificates where the site says where it is published", function()
      desk:done("enroll", "--domain", "a.test")
      assert.is_nil(desk:certificate((desk:kept(1))).text:find "CRL Distribution")
      desk:write("site/config.lua", "return { ca = 'internal', cas = { internal = { adapter = 'local', crl_url = "
        .. "'http://pki.contoso.test/a.crl' } } }")
      desk:done("enroll", "--domain", "b.test")
      assert.is_truthy(desk:certificate((desk:kept(2))).text:find("URI:http://pki.contoso.test/a.crl", 1, true))
      desk:write("site/config.lua", "return { ca = 'internal', cas = { internal = { adapter = 'local', crl_url = 'a b' } } }")
      desk:refuses(1, "parse", "cannot issue a certificate: 'a b' is no URL\nrequest 3 is kept, and poll tries again; to go "
        .. "on now: certwright enroll 3\nto give it up: certwright cancel 3", "enroll", "--domain", "c.test")
    end)

    it("says which of its records cannot be read", function()
      desk:done("enroll", "--domain", "a.test")
      local serial = desk:done("revoke", "1").serial
      desk:write("state/ca/revoked/" .. serial, "rubbish")
      desk:refuses(1, "parse", "cannot read 'STATE/ca/revoked/HEX': no time and reason", "ca", "crl")
    end)
  end)
end)
