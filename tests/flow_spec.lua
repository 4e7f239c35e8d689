-- Commands at the same time: one object is worked on by one command, a state
-- changes by compare-and-set, and nothing is lost.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local generation = require "core.generation"
local file = require "core.file"
local host = require "core.host"
local process = require "core.process"
local store = require "core.store"

describe("commands at the same time", function()
  local desk, locked, held, waiting, path, stuck, holder, blocked

  -- While this process holds an object, or a store, the commands that work on it
  -- wait until they give up; the other tests run meanwhile.
  setup(function()
    desk, locked = Desk.new "flow", Desk.new "locked"
    local id, _, request = locked:ask("--domain", "a.test")
    path = locked:sign(request)
    held = assert(generation.lock(locked.state .. "/locks/1"))
    waiting = {
      locked:start("--json", "submit-request", id), locked:start("--json", "complete-request", id, "--file", path),
      locked:start("--json", "complete-request", "--file", path), locked:start("--json", "cancel", id),
      locked:start("--json", "remove", id, "--yes"), locked:start("--json", "enroll", id),
    }
  end)
  setup(function()
    stuck = Desk.new "stuck"
    local id = stuck:ask("--domain", "a.test")
    holder = assert(store.open(stuck.state .. "/store.db"))
    assert(holder:run "BEGIN IMMEDIATE")
    blocked = stuck:start("--json", "cancel", id)
  end)
  teardown(function()
    held:close()
    holder:close()
    for _, wait in ipairs(waiting) do wait() end -- those that no test has waited for
    if blocked then blocked() end
    desk:close()
    locked:close()
    stuck:close()
  end)
  before_each(function() desk:clear() end)

  -- Starts the commands, and collects exit statuses and what they printed.
  local function at_once(commands)
    local ends, statuses, texts = {}, {}, {}
    for i, words in ipairs(commands) do ends[i] = desk:start("--json", table.unpack(words)) end
    for i, wait in ipairs(ends) do statuses[i], texts[i] = wait() end
    return statuses, texts
  end

  it("complete and cancel a request: one of them", function()
    for round = 1, 3 do
      local id, _, request = desk:ask("--domain", "a.test")
      local certificate = desk:sign(request)
      local commands = { { "complete-request", id, "--file", certificate }, { "cancel", id } }
      if round % 2 == 0 then commands = { commands[2], commands[1] } end
      local statuses, texts = at_once(commands)
      local state = desk:done("show", id).state
      local winner = statuses[1] == 0 and 1 or 2
      assert.same({ 0, 1 }, { statuses[winner], statuses[3 - winner] }, texts[1] .. texts[2])
      assert.equal(commands[winner][1] == "cancel" and "cancelled" or "completed", state)
      assert.is_truthy(texts[3 - winner]:find('"code":"mismatch"', 1, true), texts[3 - winner])
    end
  end)

  it("complete a request with two certificates: one of them, whole", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local certificates = { desk:sign(request), desk:sign(request) }
    local statuses, texts = at_once { { "complete-request", id, "--file", certificates[1] },
      { "complete-request", id, "--file", certificates[2] } }
    local winner = statuses[1] == 0 and 1 or 2
    assert.same({ 0, 1 }, { statuses[winner], statuses[3 - winner] })
    assert.is_truthy(texts[3 - winner]:find '"code":"exists"' or texts[3 - winner]:find '"code":"mismatch"')
    assert.equal(desk:digest("certificate", desk:read(certificates[winner])), desk:done("show", id).fingerprint)
    assert.equal(2, #desk:done("show", id).history)
  end)

  it("complete a request with the same certificate: done once", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local certificate = desk:sign(request)
    local statuses = at_once { { "complete-request", id, "--file", certificate },
      { "complete-request", "--file", certificate } }
    assert.is_true(statuses[1] == 0 or statuses[2] == 0)
    assert.same({ "completed", 2 }, { desk:done("show", id).state, #desk:done("show", id).history })
  end)

  it("remove an object: one of them", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test")
    local statuses, texts = at_once { { "remove", "1" }, { "remove", "1" }, { "remove", "1" } }
    table.sort(statuses)
    assert.same({ 0, 1, 1 }, statuses, table.concat(texts))
  end)

  it("submit a request: it is ordered once, and the ticket that is kept is good", function()
    desk:done("ca", "init")
    local id = desk:ask("--domain", "a.test")
    local statuses = at_once { { "submit-request", id }, { "submit-request", id }, { "submit-request", id } }
    table.sort(statuses)
    assert.same({ 0, 2, 2 }, statuses)
    assert.equal("completed", desk:done("complete-request", id).state)
  end)

  it("enroll the same request: it is completed once, and both say how it ended", function()
    desk:done("ca", "init")
    local id = desk:ask("--domain", "a.test")
    local statuses = at_once { { "enroll", id }, { "enroll", id } }
    assert.is_true(statuses[1] == 0 or statuses[2] == 0)
    local completed = 0
    for _, entry in ipairs(desk:done("show", id).history) do
      completed = completed + (entry.event == "completed" and 1 or 0)
    end
    assert.equal(1, completed)
    assert.is_true(desk:verifies(1, desk.state .. "/ca/root.pem", "a.test"))
  end)

  it("make a store: one waits for another that is writing the first page", function()
    local fresh, output = desk.path .. "/fresh.db", desk.path .. "/writing"
    local writer <close> = assert(process.start({ Desk.program, "-e", [[
      local db = assert(core.store.open(arg[1]))
      assert(db:transaction(function()
        db:run "CREATE TABLE first (a)"
        io.stdout:write "writing"
        io.stdout:flush()
        core.host.sleep(0.3)
        return true
      end))]], fresh }, { output = output }))
    for _ = 1, 1000 do
      if file.read(output) == "writing" then break end
      host.sleep(0.01)
    end
    local db <close> = assert(store.open(fresh))
    assert(require("schema").prepare(db, true))
    assert.equal("wal", db:rows "PRAGMA journal_mode"[1].journal_mode)
    assert.equal(0, writer:wait(10).status)
  end)

  it("make requests: each its own, with its own key", function()
    local commands = {}
    for i = 1, 8 do commands[i] = { "new-request", "--domain", ("host%d.test"):format(i) } end
    local statuses, texts = at_once(commands)
    assert.same({ 0, 0, 0, 0, 0, 0, 0, 0 }, statuses, table.concat(texts))
    local list = desk:done "list"
    assert.equal(8, #list)
    for _, object in ipairs(list) do
      assert.same({ "DNS:" .. object.common_name }, desk:request(desk:read(object.request_file)).names)
      assert.equal(desk:openssl("req", "-in", object.request_file, "-noout", "-pubkey"),
        desk:openssl("pkey", "-in", ("%s/keys/%d.pem"):format(desk.state, object.id), "-pubout"))
    end
  end)

  it("on an object that another works on are refused as busy, and change nothing", function()
    for _, wait in ipairs(waiting) do
      local status, text = wait()
      assert.equal(1, status, text)
      assert.is_truthy(text:find('certwright: another command is working on 1\n', 1, true), text)
      assert.is_truthy(text:find('"code":"busy"', 1, true), text)
    end
    waiting = {}
    local object = locked:done("show", "1") -- reading does not wait
    assert.same({ "created", 1 }, { object.state, #object.history })
    assert.is_truthy(file.stat(locked.state .. "/keys/1.pem"))
    held:close()
    assert.equal("completed", locked:done("complete-request", "1", "--file", path).state)
  end)

  it("on a store that another holds are refused as busy, while readers go on", function()
    assert.same({ "a.test" }, stuck:done("list")[1].domains)
    local status, text = blocked()
    blocked = nil
    assert.equal(1, status)
    assert.is_truthy(text:find('"code":"busy"', 1, true), text)
    assert.is_truthy(stuck:shown(text):find("certwright: cannot write 'STATE/store.db': database is locked\n", 1, true),
      text)
    holder:close()
    assert.equal("created", stuck:done("show", "1").state)
    assert.equal("cancelled", stuck:done("cancel", "1").state)
  end)
end)
