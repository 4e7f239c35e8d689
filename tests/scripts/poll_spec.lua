-- poll: CAs of a site's own that take their time, and what was wished for.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
package.path = here .. "support/?.lua;" .. package.path
local deploy = require "deploy"
local json = require "dkjson"

local NAME = "www.test"

describe("poll", function()
  local desk, web

  setup(function()
    desk = Desk.new "poll"
    web = desk.lab:nginx { names = { NAME } }
    desk:outside()
  end)
  teardown(function() desk:close() end)

  -- An adapter of the site's own, as a site would write one: its CA is openssl; it
  -- issues when it is asked for the second time, or for the first with `soon`.
  local SLOW = [[
    local file = require "core.file"
    local process = require "core.process"
    local M = { summary = "the CA outside, on the second day" }
    function M.submit(ca, order)
      if order.friendly_name == "refused" then return nil, "never for " .. ca.name, "rejected" end
      assert(file.write(ca.folder .. "/" .. order.id .. ".csr", order.request:pem(), { exclusive = false }))
      local log = file.read(ca.folder .. "/log") or ""
      assert(file.write(ca.folder .. "/log", log .. order.id .. " ", { exclusive = false }))
      if ca.soon then assert(file.write(ca.folder .. "/" .. order.id, "", { exclusive = false })) end
      return { ticket = ca.folder .. "/" .. order.id, advice = "come back later" }
    end
    function M.collect(ca, order)
      if not file.stat(order.ticket) then
        assert(file.write(order.ticket, "asked"))
        return nil, order.id .. " is in the works", "pending"
      elseif order.friendly_name == "regretted" then
        return nil, "the CA thought better of it", "rejected"
      end
      local result = process.run { "openssl", "x509", "-req", "-in", order.ticket .. ".csr", "-CA", ca.issuer .. "/cert.pem",
        "-CAkey", ca.issuer .. "/key.pem", "-days", "90", "-copy_extensions", "copy" }
      if result.status ~= 0 then return nil, result.stderr, "io" end
      return result.stdout .. file.read(ca.issuer .. "/cert.pem")
    end
    return M]]

  local folder

  local function site(changes, late)
    desk.lab:site { ca = "slow", services = { web = deploy.with(web.service, changes or {}) }, cas = {
      paper = { adapter = "manual" }, slow = { adapter = "slow", folder = folder, issuer = desk.authority, soon = not late } } }
  end

  before_each(function()
    desk:clear()
    folder = desk.lab:folder "orders"
    desk:write("site/ca/slow.lua", SLOW)
    site()
  end)

  local function wait_over() deploy.sql(desk.lab, "UPDATE attempts SET next_at = 1") end

  it("asks, completes, and puts the certificate on the services that were wished for", function()
    site({}, true)
    local object = desk:waits("enroll", "--domain", NAME, "--services", "web")
    assert.same({ 1, "submitted" }, { object.id, object.state })
    local list, result = desk:waits "poll"
    assert.same({ 1, 1, "submitted", {} }, { #list, list[1].id, list[1].state, list[1].services })
    assert.equal("certwright: 1 is in the works\nto go on then: certwright enroll 1\n", result.stderr)
    list, result = desk:done "poll"
    assert.same({ 1, 1, "completed", { "web" } }, { #list, list[1].id, list[1].state, list[1].services })
    assert.equal(list[1].fingerprint, desk.lab:presented(web.endpoints[1], NAME))
    assert.is_truthy(result.stderr:find("request 1 is completed", 1, true))
    assert.equal("1 ", desk:read(folder .. "/log"))
    list, result = desk:done "poll"
    assert.same({ {}, "no CA owes an answer, and nothing is to be tried again now\n" }, { list, result.stderr })
  end)

  it("is exit 3 with the object while the CA has not issued", function()
    desk:waits("enroll", "--domain", NAME)
    desk:ask("--domain", "b.test")
    site({}, true)
    desk:waits("submit-request", "2")
    local list, result = desk:waits "poll"
    assert.same({ 2, "completed", "submitted" }, { #list, list[1].state, list[2].state })
    assert.is_truthy(result.stderr:find("certwright: 2 is in the works\nto go on then: certwright enroll 2\n", 1, true))
    local text = desk:run "poll"
    assert.equal(0, text.status)
    assert.is_truthy(text.stdout:find "^ID +NAME +STATE +STATUS +UNTIL +SERVICES\n2 +b%.test +completed +%a+ +%S+ +%-\n$")
    assert.equal("1 2 ", desk:read(folder .. "/log"))
  end)

  it("goes on with a renewal", function()
    desk:waits("enroll", "--domain", NAME, "--services", "web")
    desk:done "poll"
    deploy.sql(desk.lab, "UPDATE objects SET renew_at = 1")
    local list = desk:waits "renew"
    assert.same({ 1, 2, "submitted" }, { #list, list[1].id, list[1].state })
    deploy.sql(desk.lab, "UPDATE objects SET renew_at = 1")
    list = desk:done "poll"
    assert.same({ 1, 2, { "web" } }, { #list, list[1].id, list[1].services })
    assert.equal(list[1].fingerprint, desk.lab:presented(web.endpoints[1], NAME))
    assert.equal("1 2 ", desk:read(folder .. "/log"))
  end)

  it("leaves a CA alone to which a person carries requests, and says who waits", function()
    desk:waits("enroll", "--domain", NAME, "--ca", "paper", "--name", "by mail")
    local list, result = desk:done "poll"
    assert.same({}, list)
    assert.equal("1 'by mail' waits for a person: certwright complete-request 1 --file FILE\n"
      .. "no CA owes an answer, and nothing is to be tried again now\n", result.stderr)
  end)

  it("fails once for what a CA rejects; it may be submitted again", function()
    desk:waits("enroll", "--domain", "a.test", "--name", "regretted")
    desk:waits("enroll", "--domain", "b.test")
    desk:ask("--domain", "c.test")
    site({}, true)
    desk:waits("submit-request", "3")
    local result = desk:run("--json", "poll") -- 1 is rejected, 2 completed, 3 pending
    assert.equal(1, result.status)
    local list = json.decode(result.stdout)
    assert.same({ "rejected", "completed", "submitted" }, { list[1].state, list[2].state, list[3].state })
    assert.is_truthy(result.stderr:find("certwright: the CA thought better of it\n", 1, true))
    assert.is_nil(result.stderr:find("try 1 again", 1, true))
    assert.equal(0, desk:run("poll").status)
    assert.equal("rejected", desk:done("show", "1").state)
    assert.same({}, (desk:done "poll"))
    assert.equal("submitted", desk:waits("submit-request", "1").state)
  end)

  it("tries again what failed on a service, when its time has come", function()
    desk:waits("enroll", "--domain", NAME, "--services", "web")
    local before = desk.lab:presented(web.endpoints[1], NAME)
    site { check = { "false" } }
    assert.equal(1, desk:run("poll").status)
    assert.equal(before, desk.lab:presented(web.endpoints[1], NAME))
    site()
    assert.same({}, (desk:done "poll"))
    wait_over()
    local list = desk:done "poll"
    assert.same({ 1, { "web" } }, { #list, list[1].services })
    assert.equal(list[1].fingerprint, desk.lab:presented(web.endpoints[1], NAME))
  end)

  it("tries again what a person's assign-services could not, unless that is cancelled", function()
    desk:waits("enroll", "--domain", NAME)
    desk:done "poll"
    site { check = { "false" } }
    assert.equal(1, desk:run("assign-services", "1", "--services", "web").status)
    site()
    assert.same({}, (desk:done "poll"))
    desk:done("assign-services", "1", "--cancel")
    wait_over()
    assert.same({}, (desk:done "poll"))
  end)

  it("keeps a wish that the services refuse before anything is touched", function()
    desk:waits("enroll", "--domain", NAME, "--services", "web")
    site { dir = desk.path .. "/elsewhere" }
    assert.equal(1, desk:run("poll").status)
    site()
    wait_over()
    assert.same({ "web" }, desk:done("poll")[1].services)
    desk:waits("enroll", "--domain", NAME, "--services", "web")
    site { dir = desk.path .. "/elsewhere" }
    assert.equal(1, desk:run("poll").status)
    desk:done("assign-services", "2", "--services", "web", "--cancel")
    site()
    wait_over()
    assert.same({}, (desk:done "poll"))
  end)

  it("hands over what the CA could not take when it was wished for", function()
    desk:write("site/ca/slow.lua", "return { summary = 's', submit = function() return nil, 'asleep', 'timeout' end, "
      .. "collect = function() end }")
    desk:refuses(1, "timeout", "asleep\nrequest 1 is kept, and poll tries again; to go on now: certwright enroll 1\n"
      .. "to give it up: certwright cancel 1", "enroll", "--domain", NAME)
    assert.matches("^certwright: asleep\npoll tries 1 again after %d[^\n]+\n$", desk:run("poll").stderr)
    wait_over()
    desk:write("site/ca/slow.lua", SLOW)
    assert.equal("submitted", desk:waits("poll")[1].state)
  end)

  it("orders once when enroll and polls run at the same time", function()
    local ends = { desk:start("enroll", "--domain", NAME, "--services", "web") }
    for i = 2, 4 do ends[i] = desk:start "poll" end
    for i = 1, 4 do ends[i]() end
    assert.equal("1 ", desk:read(folder .. "/log"))
    while desk:run("poll").status == 3 do assert.equal("submitted", desk:done("show", "1").state) end
    assert.same({ "web" }, desk:done("show", "1").services)
  end)

  it("--dry-run says what it would go on with, and changes nothing", function()
    desk:waits("enroll", "--domain", NAME, "--services", "web")
    local before = desk:snapshot()
    local _, result = desk:done("poll", "--dry-run")
    assert.equal("would run complete-request\nwould run assign-services on web\n", result.stderr)
    assert.is_true(before == desk:snapshot())
  end)
end)
