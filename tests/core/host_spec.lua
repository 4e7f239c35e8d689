local host = require "core.host"
local process = require "core.process"
local lfs = require "lfs"
local anyone = dofile((debug.getinfo(1, "S").source:match "^@(.-)tests/core/" or "") .. "tests/support/anyone.lua")

local program = assert(process.run { "readlink", "/proc/" .. host.pid() .. "/exe" }).stdout:gsub("\n$", "")

local function output(...)
  return (process.run({ ... }).stdout:gsub("\r", ""):gsub("\n$", ""))
end

local function raises(expected, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.is_truthy(message:find(expected, 1, true), message)
end

describe("users and groups", function()
  it("knows whose rights it has", function()
    local uid, gid, real = host.user()
    assert.are.equal(output("id", "-u"), tostring(uid))
    assert.are.equal(output("id", "-g"), tostring(gid))
    assert.are.equal(output("id", "-ru"), tostring(real))
  end)

  it("finds every user of the system by name and by number", function()
    for line in io.lines "/etc/passwd" do
      local name, uid, gid, home = line:match "^([^:]+):[^:]*:(%d+):(%d+):[^:]*:([^:]*):"
      local expected = { name = name, uid = math.tointeger(uid), gid = math.tointeger(gid), home = home }
      assert.are.same(expected, host.lookup(name))
      assert.are.equal(expected.uid, host.lookup(expected.uid).uid)
    end
  end)

  it("knows the groups of every user, as the system's database has them", function()
    for line in io.lines "/etc/passwd" do
      local name = line:match "^[^:]+"
      local expected, groups = {}, host.groups(name, host.lookup(name).gid)
      for gid in output("id", "-G", name):gmatch "%d+" do
        expected[#expected + 1] = math.tointeger(gid)
      end
      table.sort(expected)
      table.sort(groups)
      assert.are.same(expected, groups)
    end
    assert.are.same({ 4711 }, host.groups("nosuchuser", 4711))
    raises("number expected, got no value", host.groups, "root")
    raises("out of range", host.groups, "root", -1)
  end)

  it("finds every group of the system, and its members", function()
    for line in io.lines "/etc/group" do
      local name, gid, list = line:match "^([^:]+):[^:]*:(%d+):(.*)$"
      local members = {}
      for member in list:gmatch "[^,]+" do
        members[#members + 1] = member
      end
      assert.are.same({ name = name, gid = math.tointeger(gid), members = members }, host.group(name))
      assert.are.equal(math.tointeger(gid), host.group(math.tointeger(gid)).gid)
    end
  end)

  it("reads a group with thousands of members", function()
    local folder = os.tmpname()
    os.remove(folder)
    lfs.mkdir(folder)
    local names = {}
    for i = 1, 3000 do
      names[i] = "member" .. i
    end
    local file = assert(io.open(folder .. "/group", "w"))
    file:write("crowd:x:4242:", table.concat(names, ","), "\n")
    file:close()
    -- the group file is replaced in a mount namespace of the child's own
    local line = [[mount --bind "$2/group" /etc/group && exec "$0" -e "$1"]]
    local chunk = [[local g = core.host.group "crowd"; print(g.gid, #g.members, g.members[3000])]]
    local result = process.run { "unshare", "-m", "sh", "-c", line, program, chunk, folder }
    process.run { "rm", "-r", folder }
    if result.stderr ~= "" then
      pending("no mount namespace: " .. result.stderr)
    end
    assert.are.equal("4242\t3000\tmember3000\n", result.stdout)
  end)

  it("says which user or group is missing", function()
    assert.are.same({ nil, "no user 'nonesuch'", "missing" }, { host.lookup "nonesuch" })
    assert.are.same({ nil, "no user '4000000000'", "missing" }, { host.lookup(4000000000) })
    assert.are.same({ nil, "no user '0'", "missing" }, { host.lookup "0" })
    assert.are.same({ nil, "no group 'nonesuch'", "missing" }, { host.group "nonesuch" })
    assert.are.same({ nil, "no group '4000000000'", "missing" }, { host.group(4000000000) })
  end)

  it("raises for what names nobody", function()
    raises("string or integer expected", host.lookup)
    raises("string or integer expected", host.group, {})
    raises("out of range", host.lookup, -1)
    raises("out of range", host.lookup, 4294967295)
    raises("number has no integer representation", host.group, 1.5)
  end)
end)

describe("the machine", function()
  it("tells its name", function()
    assert.are.equal(output("uname", "-n"), host.name())
  end)

  it("knows that pipes and files are no terminals", function()
    local chunk = "print(core.host.terminal(0), core.host.terminal(1), core.host.terminal(2), core.host.columns())"
    assert.are.equal("false\tfalse\tfalse\tnil", output(program, "-e", chunk))
  end)

  it("knows a terminal and its width", function()
    local chunk = "print(core.host.terminal(0), core.host.terminal(1), core.host.columns())"
    local line = ("stty cols 91; exec '%s' -e '%s'"):format(program, chunk)
    assert.are.equal("true\ttrue\t91", output("script", "-qec", line, "/dev/null"))
    assert.are.equal("true\tfalse\tnil", output("script", "-qec", line .. " 2>&1 | cat", "/dev/null"))
    assert.are.equal("true\tfalse\t91", output("script", "-qec", line .. " | cat", "/dev/null"))
  end)

  it("raises for other descriptors", function()
    raises("must be 0, 1 or 2", host.terminal, 3)
    raises("must be 0, 1 or 2", host.terminal, -1)
  end)

  it("has a clock that advances by what it sleeps", function()
    local from = host.clock()
    assert.are.equal("float", math.type(from))
    host.sleep(0.05)
    local slept = host.clock() - from
    assert.is_true(slept >= 0.05 and slept < 5)
    host.sleep(0)
    raises("out of range", host.sleep, -1)
    raises("out of range", host.sleep, 0 / 0)
  end)

  it("goes on sleeping after a signal", function()
    local chunk = "local c = core.host.clock() core.host.sleep(0.3) print(core.host.clock() - c >= 0.3)"
    local line = [[ "$0" -e "$1" & sleep 0.1; kill -STOP $!; kill -CONT $!; wait $! ]]
    assert.are.equal("true", output("sh", "-c", line, program, chunk))
  end)

  it("gives as many random bytes as are asked for, other ones each time", function()
    for _, count in ipairs { 0, 1, 16, 257, 1 << 20 } do
      assert.are.equal(count, #host.random(count))
    end
    assert.are_not.equal(host.random(16), host.random(16))
    raises("out of range", host.random, -1)
    raises("out of range", host.random, (1 << 20) + 1)
  end)
end)

describe("host.process", function()
  it("describes the program itself", function()
    local found = host.process(host.pid())
    local uid, gid = host.user()
    assert.are.equal(output("sh", "-c", "echo $PPID"), tostring(host.pid()))
    assert.are.same({ uid, gid, "R" }, { found.uid, found.gid, found.state })
    assert.are.equal(program:match "[^/]+$", found.name)
    assert.is_true(found.start > 0)
  end)

  it("tells parent, effective user, name and state of another one", function()
    local child <close> = assert(process.start({ "sleep", "20" }, { uid = 65534, gid = 7 }))
    local found = host.process(child:pid())
    assert.are.same({ 65534, 7, "sleep", host.pid() }, { found.uid, found.gid, found.name, found.parent })
    assert.are.equal(found.start, host.process(child:pid()).start)
  end)

  it("sees a process that has ended and was not waited for", function()
    local child <close> = assert(process.start { "true" })
    for _ = 1, 200 do
      if host.process(child:pid()).state == "Z" then
        break
      end
      host.sleep(0.01)
    end
    assert.are.equal("Z", host.process(child:pid()).state)
  end)

  it("is not misled by brackets, spaces or bytes in a name", function()
    local path = os.tmpname()
    os.remove(path)
    lfs.mkdir(path)
    process.run { "cp", "/bin/sleep", path .. "/a) R 1 (\xff" }
    local child <close> = assert(process.start { path .. "/a) R 1 (\xff", "20" })
    local found = host.process(child:pid())
    process.run { "rm", "-r", path }
    assert.are.same({ "a) R 1 (\u{FFFD}", host.pid() }, { found.name, found.parent })
  end)

  it("says that there is no such process", function()
    local child = assert(process.start { "true" })
    child:wait(10)
    local pid = child:pid()
    assert.are.same({ nil, "no process " .. pid, "missing" }, { host.process(pid) })
    raises("out of range", host.process, 0)
    raises("out of range", host.process, -1)
  end)
end)

describe("the program's memory", function()
  it("is in no core file, and seen by no process of the same user", function()
    local chunk = [[local file = require "core.file"
      print(file.stat("/proc/self/environ").owner, file.read("/proc/self/limits"):match "Max core file size%s+(%d+)")]]
    local user = { uid = 65534, gid = 65534 }
    assert.are.equal("0\t0\n", process.run({ anyone.program(), "-e", chunk }, user).stdout)
    assert.are.equal("65534\n", process.run({ "stat", "-c", "%u", "/proc/self/environ" }, user).stdout)
  end)
end)

describe("host.signal", function()
  it("sends a signal, and 0 only asks", function()
    local child <close> = assert(process.start { "sleep", "20" })
    assert.is_true(host.signal(child:pid(), 0))
    assert.is_true(child:running())
    assert.is_true(host.signal(child:pid(), "USR1"))
    assert.are.same({ signal = 10 }, child:wait(10))
  end)

  it("says that the process is missing", function()
    local child = assert(process.start { "true" })
    child:wait(10)
    local message = "cannot signal process " .. child:pid() .. ": No such process"
    assert.are.same({ nil, message, "missing" }, { host.signal(child:pid(), "TERM") })
  end)

  it("says that it may not signal another user's process", function()
    local child <close> = assert(process.start({ "sleep", "20" }, { uid = 65534, gid = 65534 }))
    local chunk = ("print(core.host.signal(%d, 'TERM'))"):format(child:pid())
    assert.are.equal(
      "nil\tcannot signal process " .. child:pid() .. ": Operation not permitted\tdenied",
      output("setpriv", "--bounding-set=-kill", program, "-e", chunk)
    )
  end)

  it("raises for groups of processes and for unknown signals", function()
    raises("out of range", host.signal, 0, "TERM")
    raises("out of range", host.signal, -1, "TERM")
    raises("invalid option 'SIGTERM'", host.signal, host.pid(), "SIGTERM")
    raises("bad argument #2", host.signal, host.pid(), 15)
    raises("bad argument #2", host.signal, host.pid())
  end)
end)
