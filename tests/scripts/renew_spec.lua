-- renew: new certificates with old names, on real servers; what is due is made so
-- by the site's policy, or in the store, never by waiting.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local Terminal = dofile(here .. "support/terminal.lua")
package.path = here .. "support/?.lua;" .. package.path
local deploy = require "deploy"
local json = require "dkjson"

local NAME = "www.test"
local DUE = "return { renew_at = function(certificate) return certificate.not_before end }"

describe("renew", function()
  local desk, web, other

  setup(function()
    desk = Desk.new "renew"
    web = desk.lab:nginx { names = { NAME }, dir = desk.path .. "/ssl/web" }
    other = desk.lab:nginx { names = { NAME }, dir = desk.path .. "/ssl/other" }
  end)
  teardown(function() desk:close() end)

  -- The site: its services, with other fields of some; its CAs.
  local function site(changes, config)
    config = config or {}
    config.services = config.services or { web = deploy.with(web.service, (changes or {}).web or {}),
      other = deploy.with(other.service, (changes or {}).other or {}) }
    config.cas = config.cas or { internal = { adapter = "local" }, paper = { adapter = "manual" } }
    config.ca = config.ca or "internal"
    desk.lab:site(config)
  end

  before_each(function()
    desk:clear()
    site()
    desk:done("ca", "init")
  end)

  local function due(id) deploy.sql(desk.lab, "UPDATE objects SET renew_at = 1 WHERE id = ?1", id) end

  -- The time of the next attempt of all has come.
  local function wait_over() deploy.sql(desk.lab, "UPDATE attempts SET next_at = 1") end

  local function shown(server) return desk.lab:presented((server or web).endpoints[1], NAME) end

  local function count() return #desk:done "list" end

  local function enroll(...) return desk:done("enroll", "--domain", NAME, ...) end

  local function states(id)
    local list = {}
    for i, row in ipairs(desk:done("show", tostring(id)).assignments) do list[i] = row.service .. " " .. row.state end
    return list
  end

  local function public_key(object) return desk:digest("request", desk:read(object.request_file)) end

  describe("CERT", function()
    it("makes a new key and a certificate with the same names, subject and kind of key, on the same services", function()
      site(nil, { organization = { O = "Contoso", C = "US" } })
      local old = enroll("--domain", "b.test", "--name", "front", "--key", "rsa:2048", "--exportable", "--unit", "Mail",
        "--services", "web,other")
      site(nil, { organization = { O = "Fabrikam" } })
      local new, result = desk:done("renew", "1")
      for _, field in ipairs { "friendly_name", "domains", "common_name", "subject", "key", "ca", "exportable", "state" } do
        assert.same(old[field], new[field], field)
      end
      assert.equal("CN=www.test,OU=Mail,O=Contoso,C=US", new.subject)
      assert.not_equal(public_key(old), public_key(new))
      assert.same({ 2, { "other", "web" } }, { new.id, new.services })
      assert.same({ new.fingerprint, new.fingerprint }, { shown(web), shown(other) })
      assert.same({ "other replaced", "web replaced" }, states(1))
      assert.is_truthy(result.stderr:find("^renewing 1 'front'\n"))
      assert.is_truthy(result.stderr:find("was " .. old.fingerprint:sub(1, 16), 1, true))
    end)

    it("goes to the CA that issued the old one, whatever the site prefers now", function()
      enroll "--services=web"
      site(nil, { ca = "paper" })
      local new, result = desk:done("renew", "1")
      assert.same({ "internal", "completed" }, { new.ca, new.state })
      assert.is_nil(result.stderr:find("its renewal goes to", 1, true))
      site(nil, { ca = "mine", cas = { mine = { adapter = "local" } } })
      new, result = desk:done("renew", "2")
      assert.equal("mine", new.ca)
      assert.is_truthy(result.stderr:find("2: the site has no CA 'internal' any more; its renewal goes to the CA 'mine'\n", 1, true))
    end)

    it("keeps the key with --reuse-key", function()
      local old = enroll()
      assert.equal(public_key(old), public_key(desk:done("renew", "1", "--reuse-key")))
    end)

    it("is named as every certificate is; its name is the new one's from then on", function()
      enroll("--name", "front")
      assert.equal(2, desk:done("renew", "front").id)
      assert.equal(3, desk:done("renew", "front").id)
      assert.equal(3, desk:done("show", "front").id)
    end)

    it("goes on with what renews it already, if that is not to be renewed itself", function()
      enroll()
      assert.equal(2, desk:done("new-request", "--from", "1").id)
      assert.same({ 2, "completed" }, { desk:done("renew", "1").id, desk:done("show", "2").state })
      local _, result = desk:done("renew", "1")
      assert.is_truthy(result.stderr:find("^2 renews 1 already\n"))
      assert.equal(2, count())
      desk:refuses(1, "exists", "2 renews 1 already, with a key of its own; to begin again with the old key: "
        .. "certwright remove 2", "renew", "1", "--reuse-key")
      due(2)
      assert.equal(3, desk:done("renew", "1").id)
    end)

    it("takes nothing for a renewal that has other names, or that no CA signed where one did", function()
      local old = enroll "--services=web"
      desk:done("new-request", "--from", "1", "--self-signed")
      desk:done("new-request", "--from", "1", "--domain", "b.test")
      due(1)
      local list = desk:done "renew"
      assert.same({ 1, 4, { NAME }, false }, { #list, list[1].id, list[1].domains, list[1].self_signed })
      assert.same({ list[1].fingerprint, "created" }, { shown(), desk:done("show", "3").state })
      assert.not_equal(old.fingerprint, shown())
    end)

    it("takes a request for more names for a renewal", function()
      enroll "--services=web"
      assert.equal(2, desk:done("new-request", "--from", "1", "--domain", "b.test", "--domain", NAME).id)
      local new = desk:done("renew", "1")
      assert.same({ 2, { "b.test", NAME }, new.fingerprint }, { new.id, new.domains, shown() })
    end)

    it("makes a self-signed one again at once, for as long as the old one", function()
      site(nil, { self_signed_days = 30 })
      local old = desk:done("enroll", "--self-signed", "--services", "web")
      site(nil, { self_signed_days = 700 })
      local new = desk:done("renew", "1")
      assert.same({ true, json.null, old.domains, { "web" } }, { new.self_signed, new.ca, new.domains, new.services })
      assert.equal(new.fingerprint, shown())
      local function days(object)
        local text = desk:openssl("x509", "-noout", "-enddate", { stdin = (desk:kept(object.id)) })
        return tonumber((deploy.tool { "date", "-d", text:match "=(.*)\n", "+%s" })) - os.time()
      end
      assert.is_true(math.abs(days(new) - 30 * 86400) < 600)
    end)

    it("asks the site's CA for one that was made elsewhere, and says so", function()
      local pair = desk.lab:certificate { names = { NAME, "b.test" }, ca = desk:outside(), key = "rsa:2048" }
      desk:done("import", pair .. "/fullchain.pem", "--key", pair .. "/key.pem")
      desk:done("assign-services", "1", "--services", "web")
      local new, result = desk:done("renew", "1")
      assert.same({ "internal", { NAME, "b.test" }, "rsa:2048", { "web" }, NAME },
        { new.ca, new.domains, new.key, new.services, new.friendly_name })
      assert.is_truthy(result.stderr:find("1: it was made elsewhere; its renewal goes to the CA 'internal'\n", 1, true))
      assert.equal(new.fingerprint, shown())
    end)

    it("is exit 3 while a person carries the request, and goes on with the same one", function()
      local old = enroll "--services=web"
      deploy.sql(desk.lab, "UPDATE objects SET ca = 'paper'")
      local new, result = desk:waits("renew", "1")
      assert.same({ 2, "submitted", "paper" }, { new.id, new.state, new.ca })
      assert.is_truthy(desk:shown(result.stderr):find("certwright: send STATE/requests/2.csr to the CA 'paper'; when its "
        .. "certificate has come:\n  certwright complete-request 2 --file FILE\nto go on then: certwright renew 2\n", 1, true))
      for _, word in ipairs { "1", "2", NAME } do
        new, result = desk:waits("renew", word)
        assert.same({ 2, "submitted" }, { new.id, new.state })
        assert.is_truthy(result.stderr:find("the CA 'paper' cannot be asked, for a person carries what it sends", 1, true))
      end
      desk:refuses(1, "exists", "2 renews 1 already, with a key of its own; to begin again with the old key: "
        .. "certwright cancel 2", "renew", "1", "--reuse-key")
      assert.same({ 2, old.fingerprint }, { count(), shown() })
      new, result = desk:done("complete-request", "2", "--file", desk:sign(new.request_file), "--file",
        desk:outside() .. "/cert.pem")
      assert.equal("completed", new.state)
      assert.is_truthy(result.stderr:find("next: certwright renew 2\n", 1, true))
      new = desk:done("renew", NAME)
      assert.same({ 2, { "web" }, new.fingerprint }, { new.id, new.services, shown() })
      assert.equal(2, count())
    end)

    it("begins anew when the request was cancelled", function()
      enroll()
      deploy.sql(desk.lab, "UPDATE objects SET ca = 'paper'")
      desk:waits("renew", "1")
      desk:done("cancel", "2")
      assert.equal(3, desk:waits("renew", "1").id)
    end)

    it("is refused for what has no certificate to renew", function()
      local id = desk:ask("--domain", "a.test")
      desk:refuses(1, "mismatch", "cannot renew 1: it has no certificate, it is created; to go on with it: "
        .. "certwright enroll 1", "renew", id)
      desk:done("cancel", id)
      desk:refuses(1, "mismatch", "cannot renew 1: it has no certificate, it is cancelled", "renew", id)
      desk:refuses(1, "missing", "there is no request or certificate 7; see certwright list", "renew", "7")
      desk:refuses(2, "usage", "--reuse-key needs CERT", "renew", "--reuse-key")
    end)

    it("assigns each folder for itself: one that fails keeps none of the others", function()
      local old = enroll "--services=web,other"
      site { other = { check = { "false" } } }
      local result = desk:run("renew", "1")
      assert.equal(1, result.status)
      local new = desk:done("show", "2")
      assert.same({ new.fingerprint, old.fingerprint }, { shown(web), shown(other) })
      assert.same({ { "other failed", "web observed" }, { "other observed", "web replaced" } }, { states(2), states(1) })
      assert.is_truthy(desk:shown(result.stderr):find("; everything is as before\nrenew and poll try 2 again after TIME\n", 1, true))
      site()
      assert.same({ 2, { "other", "web" } }, { desk:done("renew", "1").id, desk:done("show", "2").services })
      assert.equal(new.fingerprint, shown(other))
    end)

    it("does not look where nobody looked before", function()
      site { web = { endpoints = {} } }
      desk:done("enroll", "--domain", NAME)
      desk:done("assign-services", "1", "--services", "web", "--no-observe")
      desk:done("renew", "1")
      assert.same({ { "web written" }, { "web replaced" } }, { states(2), states(1) })
    end)

    it("goes past a service that the site has no more, and is exit 1", function()
      enroll "--services=web,other"
      site(nil, { services = { web = web.service } })
      local result = desk:run("renew", "1")
      assert.equal(1, result.status)
      assert.is_truthy(desk:shown(result.stderr):find("there is no service 'other' in 'SITE/config.lua'; there are: web\n", 1, true))
      assert.equal(desk:done("show", "2").fingerprint, shown())
    end)
  end)

  describe("without CERT", function()
    it("renews what is due, and nothing else", function()
      enroll "--services=web"
      desk:done("enroll", "--domain", "b.test")
      local before = desk:done("show", "2")
      local list, result = desk:done "renew"
      assert.same({}, list)
      assert.equal(("nothing is due: 1 'www.test' is due on %s\n"):format(desk:done("show", "1").renew_at), result.stderr)
      due(1)
      list = desk:done "renew"
      assert.same({ 1, 3, { "web" } }, { #list, list[1].id, list[1].services })
      assert.equal(list[1].fingerprint, shown())
      assert.same(before, desk:done("show", "2"))
      assert.same({}, (desk:done "renew"))
    end)

    it("is recorded where it renews something, and only there", function()
      enroll()
      local before = #desk:done "audit"
      desk:done "renew"
      desk:done "poll"
      assert.equal(before, #desk:done "audit")
      due(1)
      desk:done "renew"
      assert.equal(before + 2, #desk:done "audit")
    end)

    it("takes the time from the site's policy", function()
      desk:write("site/policy.lua", DUE)
      enroll "--services=web"
      os.remove(desk.site .. "/policy.lua")
      local text = desk:run "renew"
      assert.equal(0, text.status)
      assert.is_truthy(text.stdout:find "^ID +NAME +STATE +STATUS +UNTIL +SERVICES\n2 +www%.test +completed +Valid +%S+ +web\n$")
      assert.same({}, (desk:done "renew"))
    end)

    it("leaves alone what another of its name, or its renewal, has replaced, unless a service has it", function()
      enroll("--name", "front")
      desk:done("renew", "1")
      due(1)
      assert.same({}, (desk:done "renew"))
      enroll "--services=web"
      desk:done("new-request", "--from", "3", "--name", "else")
      desk:done("enroll", "4")
      due(3)
      local list = desk:done "renew"
      assert.same({ 1, 4, { "web" } }, { #list, list[1].id, list[1].services })
    end)

    it("leaves alone a certificate whose key is elsewhere", function()
      local pair = desk.lab:certificate { names = { NAME }, ca = desk:outside() }
      desk:done("import", pair .. "/cert.pem")
      due(1)
      local list, result = desk:done "renew"
      assert.same({ {}, "nothing is due: there is no certificate to renew\n" }, { list, result.stderr })
    end)

    it("tries again what failed, later and later, and what a person names at once", function()
      local old = enroll "--services=web"
      due(1)
      site { web = { check = { "false" } } }
      local result = desk:run "renew"
      assert.same({ 1, old.fingerprint }, { result.status, shown() })
      local function attempts()
        local row = deploy.sql(desk.lab, "SELECT failures, next_at FROM attempts WHERE object_id = 2")[1]
        return row.failures, row.next_at - os.time()
      end
      local failures, seconds = attempts()
      assert.is_true(failures == 1 and seconds > 50 and seconds <= 60)
      local list
      list, result = desk:done "renew"
      assert.same({}, list)
      assert.is_truthy(desk:shown(result.stderr):find "^nothing is due: .*2 is tried again after TIME\n$")
      for round, wanted in ipairs { 120, 240 } do
        wait_over()
        assert.equal(1, desk:run("renew").status)
        failures, seconds = attempts()
        assert.is_true(failures == round + 1 and seconds > wanted - 10 and seconds <= wanted)
      end
      deploy.sql(desk.lab, "UPDATE attempts SET failures = 40, next_at = 1")
      assert.equal(1, desk:run("renew").status)
      failures, seconds = attempts()
      assert.is_true(failures == 41 and seconds <= 86400 and seconds > 86300)
      local checked = desk:run "check"
      assert.equal(1, checked.status)
      assert.is_truthy(desk:shown(checked.stdout):find("\n  web refused to accept the new files ('false' ended with status 1)\n"
        .. "  renew and poll try again after TIME\n", 1, true))
      site()
      assert.same({ 2, { "web" } }, { desk:done("renew", "1").id, desk:done("show", "2").services })
      assert.same({}, deploy.sql(desk.lab, "SELECT * FROM attempts"))
      assert.same({ 0, 2 }, { desk:run("check").status, count() })
    end)

    it("does not try again what was cancelled", function()
      enroll "--services=web"
      due(1)
      site { web = { check = { "false" } } }
      assert.equal(1, desk:run("renew").status)
      desk:done("assign-services", "2", "--cancel")
      deploy.sql(desk.lab, "UPDATE objects SET renew_at = 4000000000")
      site()
      local before = shown()
      assert.same({}, (desk:done "renew"))
      assert.equal(before, shown())
    end)

    it("keeps in mind that a renewal could not even begin", function()
      enroll()
      due(1)
      desk:write("site/policy.lua", "return { validate = function() return nil, 'not on a Sunday' end }")
      local failed = desk:run("--json", "renew")
      assert.same({ 1, 1 }, { failed.status, json.decode(failed.stdout)[1].id })
      assert.equal("certwright: 1: not on a Sunday\n", failed.stderr:match "[^\n]*\n$")
      local _, result = desk:done "renew"
      assert.is_truthy(desk:shown(result.stderr):find "1 is tried again after TIME\n$")
      os.remove(desk.site .. "/policy.lua")
      wait_over()
      assert.equal(2, desk:done("renew")[1].id)
      assert.same({}, deploy.sql(desk.lab, "SELECT * FROM attempts"))
    end)

    it("hands a request that the CA rejected over again, the same one", function()
      desk:write("site/ca/strict.lua", ([[
        local M = {}
        for field, value in pairs(require "ca.local") do M[field] = value end
        function M.submit(...)
          if not require("core.file").stat(%q) then return nil, "not today", "rejected" end
          return require("ca.local").submit(...)
        end
        return M]]):format(desk.path .. "/open"))
      enroll "--services=web"
      due(1)
      site(nil, { cas = { internal = { adapter = "strict" } } })
      local result = desk:run "renew"
      assert.same({ 1, "rejected" }, { result.status, desk:done("show", "2").state })
      assert.is_truthy(desk:shown(result.stderr):find("certwright: not today\nrenew and poll try 2 again after TIME\n", 1, true))
      assert.same({}, (desk:done "renew"))
      assert.equal(1, desk:run("renew", "1").status)
      desk:write("open", "")
      wait_over()
      assert.same({ 2, { "web" } }, { desk:done("renew")[1].id, desk:done("show", "2").services })
      assert.equal(2, count())
      os.remove(desk.path .. "/open")
    end)

    it("renews a revoked certificate that a service still has", function()
      enroll "--services=web"
      enroll "--domain=b.test"
      deploy.sql(desk.lab, "UPDATE objects SET revoked_at = 1")
      local list = desk:done "renew"
      assert.same({ 1, 3, { "web" } }, { #list, list[1].id, list[1].services })
    end)

    it("renews once when two run at the same time", function()
      enroll "--services=web"
      due(1)
      local ends = {}
      for i = 1, 3 do ends[i] = desk:start "renew" end
      for i = 1, 3 do
        local status, text = ends[i]()
        assert.equal(0, status, text)
      end
      assert.equal(2, count())
    end)
  end)

  describe("killed", function()
    -- A command of the site that kills certwright, once.
    local function killer()
      return { "sh", "-c", ("[ -e %s/killed ] || { : >%s/killed; kill -9 $PPID; sleep 5; }"):format(desk.path, desk.path) }
    end

    after_each(function() os.remove(desk.path .. "/killed") end)

    it("after the switch, it is put back, and gone on with later, with the same new certificate", function()
      local old = enroll "--services=web,other"
      due(1)
      site { web = { check = killer() } }
      assert.equal(9, desk:run("renew").signal)
      assert.equal(0, desk:run("renew").status)
      assert.equal(old.fingerprint, shown())
      wait_over()
      assert.equal(0, desk:run("renew").status)
      local new = desk:done("show", "2")
      assert.same({ 2, { "other", "web" }, new.fingerprint, new.fingerprint }, { count(), new.services, shown(web), shown(other) })
    end)

    it("at the CA, the same request is handed over again", function()
      desk:write("site/ca/deadly.lua", ([[
        local M = {}
        for field, value in pairs(require "ca.local") do M[field] = value end
        function M.submit(...)
          require("core.process").run(%s)
          return require("ca.local").submit(...)
        end
        return M]]):format(('{ "sh", "-c", %q }'):format(killer()[3])))
      enroll "--services=web"
      due(1)
      site(nil, { cas = { internal = { adapter = "deadly" } } })
      assert.equal(9, desk:run("renew").signal)
      assert.equal("created", desk:done("show", "2").state)
      local list = desk:done "renew"
      assert.same({ 1, 2, { "web" }, 2 }, { #list, list[1].id, list[1].services, count() })
    end)
  end)

  it("begins no other folder after Ctrl-C: that one is put back, the rest stays", function()
    local old = enroll "--services=web,other"
    site { other = { check = { "sleep", "2" } } }
    local terminal <close> = Terminal.new { Desk.program, "--site", desk.site, "--state", desk.state, "renew", "1" }
    terminal:expect "assigning 2 [^\n]* to other\n"
    assert(desk.lab:eventually(function() return desk:run("show", "2").stderr:find "under way or was cut short at 'check" end))
    terminal:key "C-c"
    assert.equal(1, terminal:ended())
    assert.same({ old.fingerprint, old.fingerprint }, { shown(web), shown(other) })
    assert.is_nil(terminal:screen():find "assigning 2 [^\n]* to web\n")
    site()
    wait_over()
    assert.same({ "other", "web" }, desk:done("renew")[1].services)
  end)

  it("--dry-run says what would be, and changes nothing", function()
    enroll "--services=web,other"
    due(1)
    local before = desk:snapshot()
    local said = "would make a key and a request for www.test, below STATE\n"
      .. "would renew 1 'www.test' for www.test: from the CA 'internal', on other; web\n"
    local object, result = desk:done("renew", "1", "--dry-run")
    assert.same({ 1, said }, { object.id, desk:shown(result.stderr) })
    object, result = desk:done("renew", "--dry-run")
    assert.same({ 1, said }, { object[1].id, desk:shown(result.stderr) })
    assert.is_true(before == desk:snapshot())
  end)
end)

describe("renew with mail servers", function()
  it("replaces the default certificate of SMTP without being told, everywhere at once", function()
    local lab <close> = deploy.three()
    local id = deploy.issue(lab)
    assert.equal(0, deploy.assign(lab, id, "web,smtp,imap", "--overwrite").status)
    local object, result = lab:json("renew", id)
    assert.equal(0, result.status, result.stderr)
    assert.same(deploy.all(lab.endpoints, object.fingerprint), deploy.presented(lab, lab.endpoints, deploy.name))
    assert.same({ "imap", "smtp", "web" }, object.services)
  end)
end)
