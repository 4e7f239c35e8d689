-- list: every object, and its filters.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local Terminal = dofile(here .. "support/terminal.lua")
local file = require "core.file"

describe("list", function()
  local desk

  local function ids(...)
    local list = {}
    for i, object in ipairs((desk:done("list", ...))) do list[i] = object.id end
    return list
  end

  -- 1 self-signed for 365 days, 2 pending, 3 cancelled, 4 of the local CA for 90 days, 5 self-signed for 10 days
  setup(function()
    desk = Desk.new "list"
    desk:done("new-request", "--self-signed", "--domain", "a.test", "--domain", "b.test")
    desk:ask("--domain", "b.test", "--name", "waits")
    desk:ask("--domain", "c.test")
    desk:done("cancel", "3")
    desk:done("ca", "init")
    desk:done("enroll", "--domain", "d.test", "--domain", "*.d.test")
    desk:write("site/config.lua", "return { self_signed_days = 10 }")
    desk:done("new-request", "--self-signed", "--domain", "a.test")
  end)
  teardown(function() desk:close() end)

  it("shows every object, the oldest first; not the certificates of CAs", function()
    assert.same({ 1, 2, 3, 4, 5 }, ids())
  end)

  it("is a table with a line each for people", function()
    local lines = {}
    for line in desk:run("list").stdout:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.equal(6, #lines)
    assert.is_truthy(lines[1]:find "^ID +NAME +STATE +STATUS +UNTIL +SERVICES +SHA%-256 +DOMAINS$")
    assert.is_truthy(lines[2]:find "^1 +a%.test +completed +Untrusted +%d+%-%d+%-%d+ +%- +%x+ +a%.test, b%.test$")
    assert.is_truthy(lines[3]:find "^2 +waits +created +PendingRequest +%- +%- +%- +b%.test$")
  end)

  it("--status shows those of one status, in whatever case", function()
    assert.same({ 2 }, ids("--status", "PendingRequest"))
    assert.same({ 1, 5 }, ids("--status", "untrusted"))
    assert.same({ 4 }, ids("--status", "Valid"))
    assert.same({ 3 }, ids("--status", "Unknown"))
    assert.same({}, ids("--status", "Revoked"))
  end)

  it("--status refuses a status that there is not, which would look like an empty list", function()
    desk:refuses(2, "usage", "--status: there is no status 'expired'; there are: Valid, PendingRequest, DateInvalid, "
      .. "Untrusted, Revoked, RevocationCheckFailure, Invalid, Unknown; see certwright help list", "list", "--status",
      "expired")
  end)

  it("--domain shows those that cover it, in whatever case, wildcards for one label", function()
    assert.same({ 1, 2 }, ids("--domain", "B.test"))
    assert.same({ 1, 2 }, ids("--domain", "b.test."))
    assert.same({ 4 }, ids("--domain", "*.d.test"))
    assert.same({ 4 }, ids("--domain", "X.d.test"))
    assert.same({ 4 }, ids("--domain", "d.test"))
    for _, name in ipairs { "y.x.d.test", "*.x.d.test", ".d.test", "test", "x.test" } do
      assert.same({}, ids("--domain", name))
    end
  end)

  it("--domain puts first what would be served: valid ones of a CA, then self-signed ones, the newest first", function()
    local inner <close> = Desk.new "order"
    local function order()
      local list = {}
      for i, object in ipairs((inner:done("list", "--domain", "s.test"))) do list[i] = object.id end
      return table.concat(list, " ")
    end
    inner:done("ca", "init")
    inner:done("new-request", "--self-signed", "--domain", "s.test") -- 1
    inner:done("enroll", "--domain", "s.test") -- 2
    inner:done("enroll", "--domain", "*.test2.test", "--domain", "s.test", "--name", "other") -- 3
    inner:done("new-request", "--domain", "s.test", "--name", "waits") -- 4
    inner:done("new-request", "--self-signed", "--domain", "s.test", "--name", "own") -- 5
    local function set(sql)
      local store <close> = assert(require("core.store").open(inner.state .. "/store.db"))
      assert(store:run(sql))
    end
    set "UPDATE objects SET not_before = not_before - 100 * id WHERE state = 'completed'"
    assert.equal("2 3 1 5 4", order())
    set "UPDATE objects SET not_before = not_before + 500 WHERE id IN (3, 5)"
    assert.equal("3 2 5 1 4", order())
    set "UPDATE objects SET not_after = 1000000000 WHERE id = 3"
    assert.equal("2 5 1 3 4", order())
    set "UPDATE objects SET has_private_key = 0 WHERE id = 2"
    assert.equal("5 1 3 2 4", order())
  end)

  it("--expiring shows the certificates that end within so many days", function()
    assert.same({}, ids("--expiring", "9"))
    assert.same({ 5 }, ids("--expiring", "11"))
    assert.same({ 4, 5 }, ids("--expiring", "91"))
    assert.same({ 1, 4, 5 }, ids("--expiring", "366"))
    desk:refuses(2, "usage", "--expiring: 'soon' is not a whole number; see certwright help list", "list",
      "--expiring", "soon")
    desk:refuses(2, "usage", "--expiring: '-1' is not a whole number; see certwright help list", "list",
      "--expiring=-1")
  end)

  it("--service shows those that a service has", function()
    assert.same({}, ids("--service", "web"))
  end)

  it("--domain puts first what was observed for that name, whatever else would be chosen", function()
    local inner <close> = Desk.new "seen"
    local web = inner.lab:nginx { names = { "d.test" }, pair = inner.lab:certificate { names = { "d.test" } } }
    inner.lab:site { services = { web = web.service } }
    inner:done("ca", "init")
    inner:done("new-request", "--self-signed", "--domain", "d.test", "--domain", "e.test")
    inner:done("enroll", "--domain", "d.test", "--domain", "e.test", "--ca", "local", "--name", "newer")
    local function first(name) return inner:done("list", "--domain", name)[1].id end
    assert.equal(2, first "d.test")
    inner:done("assign-services", "1", "--services", "web", "--overwrite")
    assert.same({ 1, 2 }, { first "D.test", first "e.test" }) -- nothing is known of e.test
  end)

  it("--service shows what was written for it, until another takes its place", function()
    local inner <close> = Desk.new "listed"
    local pair = inner.lab:certificate { names = { "d.test" } }
    local web = inner.lab:nginx { names = { "d.test" }, pair = pair }
    web.service.endpoints = nil
    inner.lab:site { services = { web = web.service } }
    for _ = 1, 2 do inner:done("new-request", "--self-signed", "--domain", "d.test") end
    for id = 1, 2 do
      inner:done("assign-services", tostring(id), "--services", "web", "--no-observe")
      local listed = inner:done("list", "--service", "web")
      assert.same({ 1, id, { "web" } }, { #listed, listed[1].id, listed[1].services })
    end
  end)

  it("filters can be used together", function()
    assert.same({ 1 }, ids("--domain", "b.test", "--status", "Untrusted"))
    assert.same({ 5 }, ids("--domain", "a.test", "--expiring", "100"))
  end)

  it("says so when nothing is like what was asked for", function()
    desk:clear()
    desk:ask("--domain", "a.test")
    for _, words in ipairs { { "--status", "Valid" }, { "--service", "web" }, { "--domain", "b.test" } } do
      assert.equal("nothing is like that; certwright list shows everything\n",
        desk:run("list", table.unpack(words)).stdout)
    end
  end)

  it("fits a terminal of 80 columns and of 70: names stand below or are counted, fingerprints are whole", function()
    desk:clear()
    local names = {}
    for i = 1, 11 do
      names[#names + 1] = "--domain"
      names[#names + 1] = ("server%d.long.corp.contoso.test"):format(i)
    end
    local first = desk:done("new-request", "--self-signed", table.unpack(names))
    local second = desk:done("new-request", "--self-signed", "--domain", "quite-a-long-name-of-a-server.contoso.test")
    for _, columns in ipairs { 80, 70 } do
      local terminal <close> = Terminal.new({ Desk.program, "--site", desk.site, "--state", desk.state, "list" }, { columns = columns })
      assert.equal(0, terminal:ended())
      local screen = terminal:screen():gsub("\nPane is dead.*", "")
      for line in screen:gmatch "[^\n]+" do assert.is_true(#line <= columns, line) end
      for _, object in ipairs { first, second } do
        assert.is_truthy(screen:find(object.fingerprint:sub(1, 16) .. "\n", 1, true), screen)
      end
      local flat = screen:gsub("%s+", " ")
      assert.is_truthy(flat:find("server7.long.corp.contoso.test, server8.long.corp.contoso.test +3 more 2 quite-a-", 1, true), screen)
      assert.is_truthy(flat:find("quite-a-long-name-of-a-server.contoso.test", 1, true), screen)
    end
  end)

  it("makes nothing where there is nothing", function()
    local inner <close> = Desk.new "empty"
    assert.same({}, (inner:done("list")))
    assert.equal("there is nothing yet; begin with: certwright new-request --domain NAME\n", inner:run("list").stdout)
    assert.is_nil(file.stat(inner.state))
  end)
end)
