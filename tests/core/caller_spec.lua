local caller = require "core.caller"
local file = require "core.file"
local host = require "core.host"
local process = require "core.process"
local anyone = dofile((debug.getinfo(1, "S").source:match "^@(.-)tests/core/" or "") .. "tests/support/anyone.lua")

if (host.user()) ~= 0 then
  describe("core.caller", function() pending "needs root" end)
  return
end

local nobody = host.lookup "nobody"
nobody.groups = { nobody.gid, 12345 }

-- Real, effective, saved and file system ids of this thread, and its groups.
local function ids()
  local text = assert(file.read "/proc/thread-self/status")
  return { text:match "\nUid:%s+([^\n]+)", text:match "\nGid:%s+([^\n]+)", (text:match "\nGroups:%s*([^\n]-) *\n") }
end

local folder = "/tmp/cw-caller-" .. host.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end)

describe("core.caller", function()
  setup(function()
    assert(file.mkdir(folder, tonumber("755", 8)))
    assert(file.mkdir(folder .. "/theirs", tonumber("755", 8)))
    assert(file.write(folder .. "/secret", "secret", { mode = tonumber("600", 8) }))
    assert(file.write(folder .. "/of-the-group", "shared", { mode = tonumber("640", 8), group = 12345 }))
    assert(process.run({ "chown", "nobody", folder .. "/theirs" }).status == 0)
  end)
  teardown(function() process.run { "rm", "-rf", "--", folder } end)

  it("gives a function a user's rights, while who may signal or trace it stays", function()
    local before = ids()
    local during = caller.call(nobody, ids)
    local own, group = ("%d"):format(nobody.uid), ("%d"):format(nobody.gid)
    assert.same({ ("0\t%s\t0\t%s"):format(own, own), ("0\t%s\t0\t%s"):format(group, group) }, { during[1], during[2] })
    assert.same({ ["12345"] = true, [group] = true }, { [during[3]:match "^%d+"] = true, [during[3]:match "%d+$"] = true })
    assert.same(before, ids())
  end)

  it("reads what the user may, by their groups, too, and nothing else", function()
    assert.same({ nil, ("cannot read '%s/secret': Permission denied"):format(folder), "denied" },
      { caller.call(nobody, file.read, folder .. "/secret") })
    assert.equal("shared", caller.call(nobody, file.read, folder .. "/of-the-group"))
    assert.equal("secret", file.read(folder .. "/secret"))
  end)

  it("makes and removes files as the user", function()
    local path = folder .. "/theirs/new"
    assert.is_true(caller.call(nobody, file.write, path, "x", { mode = tonumber("600", 8) }))
    local status = file.stat(path)
    assert.same({ nobody.uid, nobody.gid }, { status.owner, status.group })
    assert.is_true(caller.call(nobody, file.remove, path))
    assert.same({ nil, ("cannot write '%s/new': Permission denied"):format(folder), "denied" },
      { caller.call(nobody, file.write, folder .. "/new", "x") })
    assert.same({ nil, ("cannot remove '%s/secret': Permission denied"):format(folder), "denied" },
      { caller.call(nobody, file.remove, folder .. "/secret") })
  end)

  it("hands over arguments and results as they are", function()
    assert.same({ n = 4, 1, nil, "x", nil }, table.pack(caller.call(nobody, function(...) return ... end, 1, nil, "x", nil)))
    assert.same({ n = 0 }, table.pack(caller.call(nobody, function() end)))
  end)

  it("takes the rights back when the function raises, and the collector goes on", function()
    local before = ids()
    local problem = {}
    local ok, raised = pcall(caller.call, nobody, function()
      assert.is_false(collectgarbage "isrunning")
      error(problem)
    end)
    assert.is_false(ok)
    assert.equal(problem, raised)
    assert.same(before, ids())
    assert.is_true(collectgarbage "isrunning")
    collectgarbage "stop"
    caller.call(nobody, function() end)
    assert.is_false(collectgarbage "isrunning")
    collectgarbage "restart"
  end)

  it("starts programs with the user's rights, too", function()
    assert.equal(("%d\n"):format(nobody.uid), caller.call(nobody, process.run, { "id", "-u" }).stdout)
  end)

  it("is for root alone", function()
    local result = process.run({ anyone.program(), "-e", "print(core.caller.call({ uid = 0, gid = 0, groups = {} }, print, 1))" },
      { uid = nobody.uid, gid = nobody.gid, env = { HOME = "/nonexistent" } })
    assert.same({ 0, "nil\tcannot act as 'another user': Operation not permitted\tdenied\n" }, { result.status, result.stdout })
  end)

  it("refuses what is no user, or no function", function()
    local function raises(expected, ...)
      local ok, message = pcall(caller.call, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    raises("table expected, got nil", nil, print)
    raises("function expected, got no value", nobody)
    raises("uid is no id", { gid = 1, groups = {} }, print)
    raises("uid is no id", { uid = 4294967295, gid = 1, groups = {} }, print)
    raises("uid is no id", { uid = "x", gid = 1, groups = {} }, print)
    raises("gid is no id", { uid = 1, gid = -1, groups = {} }, print)
    raises("groups is no list of ids", { uid = 1, gid = 1 }, print)
    raises("a group is no id", { uid = 1, gid = 1, groups = { 1.5 } }, print)
    assert.equal("0\t0\t0\t0", ids()[1])
  end)
end)
