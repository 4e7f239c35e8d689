local process = require "core.process"
local host = require "core.host"
local lfs = require "lfs"

local folder
local program = assert(process.run { "readlink", "/proc/" .. host.pid() .. "/exe" }).stdout:gsub("\n$", "")

local function write(name, text, mode)
  local path = folder .. "/" .. name
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
  assert(process.run { "chmod", mode or "755", path })
  return path
end

local function read(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

local function sh(line, options)
  return process.run({ "sh", "-c", line }, options)
end

-- A chunk in a program of its own that was started by a shell's line.
local function nested(line, chunk, ...)
  return process.run { "sh", "-c", line, program, chunk, ... }
end

local function gone(pid)
  for _ = 1, 200 do
    local found = host.process(pid)
    if not found or found.state == "Z" and found.parent ~= host.pid() then
      return true
    end
    host.sleep(0.01)
  end
  return false
end

-- Waits until a program has written text to the file.
local function await(path, text)
  for _ = 1, 500 do
    if read(path):find(text, 1, true) then
      return
    end
    host.sleep(0.01)
  end
  error("no " .. text .. " in " .. path)
end

local function children()
  local list = {}
  for name in lfs.dir "/proc" do
    local found = name:find "^%d+$" and host.process(math.tointeger(tonumber(name)))
    if found and found.parent == host.pid() then
      list[#list + 1] = found.name
    end
  end
  return list
end

setup(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(lfs.mkdir(folder))
end)

teardown(function()
  assert(process.run { "rm", "-rf", folder })
end)

describe("process.run", function()
  it("returns the exit status and both outputs apart", function()
    assert.are.same({ status = 3, stdout = "a\n", stderr = "b\n" }, sh "echo a; echo b >&2; exit 3")
  end)

  it("returns the signal of a program that was killed", function()
    assert.are.same({ signal = 15, stdout = "", stderr = "" }, sh "kill -TERM $$")
  end)

  it("hands arguments over as they are", function()
    local arguments = { "printf", "[%s]", "", " ", "$HOME", "a'b\"c", "*", "\n", "\xff" }
    assert.are.equal("[][ ][$HOME][a'b\"c][*][\n][\xff]", process.run(arguments).stdout)
  end)

  it("keeps every byte of input and output", function()
    local bytes = {}
    for value = 0, 255 do
      bytes[#bytes + 1] = string.char(value)
    end
    bytes = table.concat(bytes)
    assert.are.equal(bytes, process.run({ "cat" }, { stdin = bytes }).stdout)
  end)

  it("gives an empty standard input without stdin", function()
    assert.are.equal("/dev/null\n", process.run({ "readlink", "/proc/self/fd/0" }).stdout)
    assert.are.equal("0\n", process.run({ "wc", "-c" }, { stdin = "" }).stdout)
  end)

  it("feeds a mebibyte through a program that echoes it", function()
    local bytes = host.random(1 << 20)
    assert.are.equal(bytes, process.run({ "cat" }, { stdin = bytes }).stdout)
  end)

  it("is not stopped by a program that does not read its input", function()
    local bytes = ("x"):rep(1 << 20)
    assert.are.same({ status = 0, stdout = "", stderr = "" }, process.run({ "true" }, { stdin = bytes }))
    assert.are.equal("ok\n", sh("exec <&-; sleep 0.05; echo ok", { stdin = bytes }).stdout)
    assert.are.equal("ok\n", sh("sleep 0.05; echo ok", { stdin = bytes }).stdout)
  end)

  it("does not wait for a daemon that keeps the outputs open", function()
    local from = host.clock()
    local result = sh "sleep 20 & echo $!"
    assert.is_true(host.clock() - from < 5)
    assert.are.equal(0, result.status)
    assert.is_truthy(host.process(math.tointeger(tonumber(result.stdout))))
    assert.is_true(host.signal(math.tointeger(tonumber(result.stdout)), "KILL"))
  end)

  it("takes all that was written before the exit, beside a daemon that goes on writing", function()
    local result = sh("yes & echo $! >&2; head -c 60000 /dev/zero; exit 7", { limit = 1 << 28 })
    assert.are.equal(7, result.status)
    assert.is_true(select(2, result.stdout:gsub("\0", "")) == 60000)
    assert.is_true(gone(math.tointeger(tonumber(result.stderr))))
  end)

  it("kills the group at the time limit, grandchildren too", function()
    local from = host.clock()
    local file = folder .. "/grandchild"
    local result, message, code = sh("sleep 20 & echo $! >" .. file .. "; wait", { timeout = 0.3 })
    assert.is_nil(result)
    assert.are.equal("'sh' was killed: not done in 0.3 seconds", message)
    assert.are.equal("timeout", code)
    assert.is_true(host.clock() - from < 5)
    assert.is_true(gone(math.tointeger(tonumber(read(file)))))
  end)

  it("keeps the time limit while the program never stops writing", function()
    assert.are.equal("timeout", select(3, process.run({ "sh", "-c", "while :; do echo; done" }, { timeout = 0.2 })))
  end)

  it("takes output of exactly the limit, on each stream", function()
    local result = sh("head -c 5000 /dev/zero; head -c 5000 /dev/zero >&2", { limit = 5000 })
    assert.are.same({ 5000, 5000 }, { #result.stdout, #result.stderr })
    assert.are.equal(1 << 20, #process.run({ "head", "-c", "1048576", "/dev/zero" }).stdout)
    assert.are.equal(0, process.run({ "true" }, { limit = 0 }).status)
  end)

  it("refuses one byte more, on either stream", function()
    local result, message, code = sh("head -c 5001 /dev/zero; sleep 20", { limit = 5000 })
    assert.are.same({ nil, "'sh' was killed: over 5000 bytes of output", "limit" }, { result, message, code })
    assert.are.equal("limit", select(3, sh("head -c 5001 /dev/zero >&2", { limit = 5000 })))
    assert.are.equal("limit", select(3, sh "head -c 1048577 /dev/zero"))
    assert.are.equal("limit", select(3, sh("echo", { limit = 0 })))
  end)

  it("says that a program is missing", function()
    local result, message, code = process.run { "nonesuch" }
    assert.is_nil(result)
    assert.are.equal("cannot run 'nonesuch': No such file or directory", message)
    assert.are.equal("missing", code)
    assert.are.equal("missing", select(3, process.run { folder .. "/nonesuch" }))
    assert.are.equal("missing", select(3, process.run { "/etc/passwd/nonesuch" }))
  end)

  it("says that a program may not be executed", function()
    local path = write("plain", "#!/bin/sh\n", "644")
    local result, message, code = process.run { path }
    assert.is_nil(result)
    assert.are.equal("cannot run '" .. path .. "': Permission denied", message)
    assert.are.equal("denied", code)
    assert.are.equal("denied", select(3, process.run { folder }))
  end)

  it("never hands a file to a shell that the kernel does not execute", function()
    local path = write("text", "echo shell\n")
    local result, message, code = process.run { path }
    assert.is_nil(result)
    assert.are.equal("cannot run '" .. path .. "': Exec format error", message)
    assert.are.equal("io", code)
  end)

  it("looks for programs in its own search path only", function()
    write("own-program", "#!/bin/sh\necho found\n")
    assert.are.equal("missing", select(3, process.run({ "own-program" }, { cwd = folder, env = { PATH = folder } })))
    assert.are.equal("found\n", process.run({ "./own-program" }, { cwd = folder }).stdout)
  end)

  it("gives the child exactly its own environment and env", function()
    local function environment(env)
      local lines = {}
      for line in process.run({ "env" }, { env = env }).stdout:gmatch "[^\n]+" do
        lines[#lines + 1] = line
      end
      table.sort(lines)
      return lines
    end
    local path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    assert.are.same({ "LC_ALL=C.UTF-8", path }, environment())
    assert.are.same({ "A= b=c", "EMPTY=", "LC_ALL=C.UTF-8", path }, environment { A = " b=c", EMPTY = "" })
    assert.are.same({ "LC_ALL=C", "PATH=/bin" }, environment { PATH = "/bin", LC_ALL = "C" })
  end)

  it("runs in the folder that is asked for", function()
    assert.are.equal(folder .. "\n", process.run({ "pwd" }, { cwd = folder }).stdout)
  end)

  it("starts in the folder that is set for all, unless it is given one", function()
    local chunk = "local p = core.process; p.folder '/usr' "
      .. "io.write(p.run({ 'pwd' }).stdout, p.run({ 'pwd' }, { cwd = '/' }).stdout)"
    assert.are.equal("/usr\n/\n", process.run({ program, "-e", chunk }, { cwd = folder }).stdout)
    assert.is_truthy(select(2, pcall(process.folder, "")):find("a path is empty", 1, true))
  end)

  it("refuses a folder that is missing or closed to the child", function()
    local result, message, code = process.run({ "pwd" }, { cwd = folder .. "/nonesuch" })
    assert.is_nil(result)
    assert.are.equal("cannot run 'pwd' in '" .. folder .. "/nonesuch': No such file or directory", message)
    assert.are.equal("missing", code)
    lfs.mkdir(folder .. "/closed")
    assert(process.run { "chmod", "700", folder .. "/closed" })
    assert.are.equal(
      "denied",
      select(3, process.run({ "pwd" }, { cwd = folder .. "/closed", uid = 65534, gid = 65534 }))
    )
  end)

  it("becomes another user without supplementary groups", function()
    assert.are.equal("65534\n", process.run({ "id", "-u" }, { uid = 65534, gid = 65534 }).stdout)
    local chunk = [[
      local process = require "core.process"
      io.write(process.run({ "id", "-G" }).stdout)
      local status = process.run({ "grep", "-E", "^([UG]id|Groups)", "/proc/self/status" }, { uid = 65534, gid = 7 })
      io.write((status.stdout:gsub("[ \t]+", " ")))
      io.write(process.run({ "id", "-G" }, { gid = 7 }).stdout)]]
    assert.are.equal(
      "0 2 3\nUid: 65534 65534 65534 65534\nGid: 7 7 7 7\nGroups: \n7\n",
      nested('exec setpriv --groups 2,3 "$0" -e "$1"', chunk).stdout
    )
  end)

  it("says that it may not become another user", function()
    local chunk = [[print(core.process.run({ "id" }, { uid = 65534, gid = 65534 }))]]
    assert.are.equal(
      "nil\tcannot run 'id' as another user: Operation not permitted\tdenied\n",
      nested('exec setpriv --bounding-set=-setuid,-setgid "$0" -e "$1"', chunk).stdout
    )
  end)

  it("checks whether another user may execute the program with that user's rights", function()
    lfs.mkdir(folder .. "/private")
    local path = write("private/tool", "#!/bin/sh\nexit 0\n")
    assert(process.run { "chmod", "700", folder .. "/private" })
    assert.are.equal(0, process.run({ path }).status)
    assert.are.equal("denied", select(3, process.run({ path }, { uid = 65534, gid = 65534 })))
  end)

  it("leaves the child without a terminal to ask on", function()
    local chunk = [[
      local own = io.open "/dev/tty"
      local child = core.process.run { "sh", "-c", ": </dev/tty" }
      print(own ~= nil, child.status ~= 0, child.stderr:match "No such device or address")]]
    local line = [[exec script -qec "'$0' -e '$1'" /dev/null]]
    assert.are.equal("true\ttrue\tNo such device or address", (nested(line, chunk).stdout:gsub("%s+$", "")))
  end)

  it("leads a session and a process group of its own", function()
    local fields = process.run({ "cat", "/proc/self/stat" }).stdout
    local pid, group, session = fields:match "^(%d+) %(cat%) %u %d+ (%d+) (%d+) "
    assert.are.same({ pid, pid }, { group, session })
  end)

  it("passes no descriptor on above 2", function()
    local file <close> = assert(io.open "/etc/passwd") -- luacheck: ignore
    local pipe <close> = assert(io.popen ":") -- luacheck: ignore
    local started <close> = assert(process.start { "sleep", "20" })
    assert.are.equal("0\n1\n2\n", sh("ls /proc/$$/fd; :", { stdin = "x" }).stdout)
    assert.are.equal("0\n1\n2\n", process.run({ "ls", "/proc/" .. started:pid() .. "/fd" }).stdout)
  end)

  it("places the streams right when the caller has none itself", function()
    local chunk = [[
      local result = core.process.run({ "sh", "-c", "cat; echo error >&2; ls /proc/$$/fd" }, { stdin = "input " })
      local file = io.open(arg[1], "w")
      file:write(result.stdout, result.stderr)
      file:close()]]
    nested('exec "$0" -e "$1" "$2" <&- >&- 2>&-', chunk, folder .. "/streams")
    assert.are.equal("input 0\n1\n2\nerror\n", read(folder .. "/streams"))
  end)

  it("puts signals and umask back for the child", function()
    local chunk = [[
      local result = core.process.run { "sh", "-c", "umask; exec grep -E 'Sig(Blk|Ign)' /proc/self/status" }
      print(result.status, (result.stdout:gsub("\t", " ")))]]
    local told = nested([[trap '' HUP PIPE TERM CHLD; umask 077; exec "$0" -e "$1"]], chunk).stdout
    local blocked, ignored = told:match "^0\t0022\nSigBlk: (%x+)\nSigIgn: (%x+)\n\n$"
    assert.are.equal(0, tonumber(blocked, 16), told)
    -- signals 32 and 33 are the C library's own: nobody can set them
    assert.are.equal(0, tonumber(ignored, 16) & ~(3 << 31), told)
  end)

  it("has the status although the caller was started with SIGCHLD ignored", function()
    local chunk = [[print(core.process.run({ "false" }).status)]]
    assert.are.equal("1\n", nested([[trap '' CHLD; exec "$0" -e "$1"]], chunk).stdout)
  end)

  it("leaves the caller's handling of SIGPIPE as it was", function()
    local line = "SigIgn:%s+(%x+)"
    local before = read("/proc/self/status"):match(line)
    process.run({ "true" }, { stdin = ("x"):rep(1 << 20) })
    assert.are.equal(before, read("/proc/self/status"):match(line))
  end)

  it("raises on misuse", function()
    local function refuses(expected, ...)
      local ok, message = pcall(process.run, ...)
      assert.is_false(ok)
      assert.is_truthy(message:find(expected, 1, true), message)
    end
    refuses("table expected", "true")
    refuses("no program named", {})
    refuses("no program named", { "" })
    refuses("argument: string expected, got number", { "echo", 1 })
    refuses("argument holds a NUL", { "echo", "a\0b" })
    refuses("unknown field 'shell'", { "true" }, { shell = true })
    refuses("env: table expected", { "true" }, { env = "A=b" })
    refuses("env: a name is no string", { "true" }, { env = { "A=b" } })
    refuses("env: string expected, got number", { "true" }, { env = { A = 1 } })
    refuses("env: a name is empty", { "true" }, { env = { ["A=b"] = "c" } })
    refuses("env: a name is empty", { "true" }, { env = { [""] = "c" } })
    refuses("env: a name is empty", { "true" }, { env = { ["A\0"] = "c" } })
    refuses("env holds a NUL", { "true" }, { env = { A = "b\0c" } })
    refuses("cwd: string expected", { "true" }, { cwd = 1 })
    refuses("cwd holds a NUL", { "true" }, { cwd = "/\0" })
    refuses("stdin: string expected", { "true" }, { stdin = 1 })
    refuses("timeout: number expected", { "true" }, { timeout = "1" })
    refuses("timeout: out of range", { "true" }, { timeout = 0 })
    refuses("timeout: out of range", { "true" }, { timeout = 0 / 0 })
    refuses("timeout: out of range", { "true" }, { timeout = math.huge })
    refuses("limit: whole number expected", { "true" }, { limit = 1.5 })
    refuses("limit: out of range", { "true" }, { limit = -1 })
    refuses("uid: out of range", { "true" }, { uid = -1, gid = 0 })
    refuses("uid: out of range", { "true" }, { uid = 4294967295, gid = 0 })
    refuses("uid without gid", { "true" }, { uid = 65534 })
  end)

  it("has the status also of a child that another process traces", function()
    local code = [[
      for _ = 1, 40 do
        local result = assert(core.process.run { "sh", "-c", "exit 3" })
        assert(result.status == 3, tostring(result.status) .. tostring(result.signal))
      end]]
    local result = assert(process.run({ "strace", "--seccomp-bpf", "-f", "-qq", "-e", "trace=execve", "-e", "signal=none", "-o",
      "/dev/null", program, "-e", code }, { env = { ASAN_OPTIONS = "detect_leaks=0" } }))
    assert.are.same({ 0, "" }, { result.status, result.stderr })
  end)
end)

describe("process.start", function()
  it("returns while the program runs, and knows how it ended", function()
    local child <close> = assert(process.start { "sh", "-c", "sleep 0.2; exit 5" })
    assert.is_true(child:running())
    assert.are.equal(("process \"sh\" %d (running)"):format(child:pid()), tostring(child))
    assert.are.same({ status = 5 }, child:wait())
    assert.is_false(child:running())
    assert.are.same({ status = 5 }, child:wait(0))
    assert.are.same({ status = 5 }, child:stop())
    assert.are.equal(("process \"sh\" %d (ended)"):format(child:pid()), tostring(child))
  end)

  it("says that it has not ended in time", function()
    local child <close> = assert(process.start { "sleep", "20" })
    local result, message, code = child:wait(0.05)
    assert.is_nil(result)
    assert.are.equal("process " .. child:pid() .. " has not ended", message)
    assert.are.equal("timeout", code)
  end)

  it("sees an end without being asked to wait", function()
    local child <close> = assert(process.start { "true" })
    for _ = 1, 200 do
      if host.process(child:pid()).state == "Z" then
        break
      end
      host.sleep(0.01)
    end
    assert.is_false(child:running())
    assert.is_nil(host.process(child:pid()))
  end)

  it("appends both outputs to a file of mode 0600", function()
    local path = folder .. "/output"
    for _ = 1, 2 do
      local child <close> = assert(process.start({ "sh", "-c", "echo out; echo err >&2" }, { output = path }))
      assert.are.equal(0, child:wait(10).status)
    end
    assert.are.equal("out\nerr\nout\nerr\n", read(path))
    assert.are.equal("rw-------", lfs.attributes(path, "permissions"))
  end)

  it("says why the output cannot be written", function()
    local child, message, code = process.start({ "true" }, { output = folder .. "/nonesuch/file" })
    assert.is_nil(child)
    assert.are.equal("cannot write '" .. folder .. "/nonesuch/file': No such file or directory", message)
    assert.are.equal("missing", code)
    assert.are.equal("io", select(3, process.start({ "true" }, { output = folder })))
  end)

  it("says why a program cannot be started", function()
    local child, message, code = process.start { "nonesuch" }
    assert.is_nil(child)
    assert.are.equal("cannot run 'nonesuch': No such file or directory", message)
    assert.are.equal("missing", code)
    assert.are.equal("denied", select(3, process.start { folder }))
    assert.are.equal("io", select(3, process.start { write("no-program", "text") }))
  end)

  it("takes environment, folder and user as run does", function()
    local path = folder .. "/taken"
    local options = { env = { A = "b" }, cwd = "/usr", uid = 65534, gid = 65534, output = path }
    local child <close> = assert(process.start(
      { "sh", "-c", "echo $A; pwd; id -u; id -G; readlink /proc/$$/fd/0" }, options))
    child:wait(10)
    assert.are.equal("b\n/usr\n65534\n65534\n/dev/null\n", read(path))
  end)

  it("signals the process", function()
    local path = folder .. "/signals"
    local line = "trap 'echo hup; exit 4' HUP; echo ready; while :; do sleep 0.02; done"
    local child <close> = assert(process.start({ "sh", "-c", line }, { output = path }))
    await(path, "ready")
    assert.is_true(child:signal "HUP")
    assert.are.same({ status = 4 }, child:wait(10))
    assert.are.equal("ready\nhup\n", read(path))
    local result, message, code = child:signal "HUP"
    assert.is_nil(result)
    assert.are.equal("cannot signal process " .. child:pid() .. ": No such process", message)
    assert.are.equal("missing", code)
  end)

  it("stops the process with the signal that is asked for", function()
    local child <close> = assert(process.start { "sleep", "20" })
    assert.are.same({ signal = 15 }, child:stop())
    local other <close> = assert(process.start { "sleep", "20" })
    assert.are.same({ signal = 2 }, other:stop "INT")
  end)

  it("kills what does not heed the signal in time", function()
    local path = folder .. "/stubborn"
    local child <close> =
      assert(process.start({ "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done" }, { output = path }))
    await(path, "ready")
    local from = host.clock()
    assert.are.same({ signal = 9 }, child:stop("TERM", 0.2))
    assert.is_true(host.clock() - from >= 0.2)
  end)

  it("kills what the stopped process left in its group", function()
    local path = folder .. "/left"
    local child <close> = assert(process.start({ "sh", "-c", "sleep 20 & echo $!; wait" }, { output = path }))
    await(path, "\n")
    assert.are.same({ signal = 15 }, child:stop())
    assert.is_true(gone(math.tointeger(tonumber(read(path)))))
  end)

  it("is killed when its handle is closed, leaves its scope, or is collected", function()
    local child = assert(process.start { "sleep", "20" })
    child:close()
    child:close()
    assert.is_nil(host.process(child:pid()))
    assert.are.same({ signal = 9 }, child:wait(0))
    local pid
    do
      local scoped <close> = assert(process.start { "sleep", "20" })
      pid = scoped:pid()
    end
    assert.is_nil(host.process(pid))
    pid = assert(process.start { "sleep", "20" }):pid()
    collectgarbage()
    collectgarbage()
    assert.is_nil(host.process(pid))
  end)

  it("raises on misuse", function()
    assert.has_error(function()
      process.start({ "true" }, { stdin = "x" })
    end, "bad argument #2 to 'start' (unknown field 'stdin')")
    assert.has_error(function()
      process.start({ "true" }, { output = 1 })
    end, "bad argument #2 to 'start' (output: string expected, got number)")
    local child <close> = assert(process.start { "sleep", "20" })
    assert.has_error(function()
      child:signal "NONE"
    end)
    assert.has_error(function()
      child:wait(-1)
    end)
    assert.has_error(function()
      child:stop("TERM", 0 / 0)
    end)
  end)
end)

describe("core.process", function()
  it("leaves no zombie and no descriptor behind", function()
    local function descriptors()
      local count = 0
      for _ in lfs.dir "/proc/self/fd" do
        count = count + 1
      end
      return count
    end
    collectgarbage()
    collectgarbage()
    local before = descriptors()
    for _ = 1, 20 do
      process.run({ "cat" }, { stdin = "x" })
      process.run { "nonesuch" }
      process.run({ "sleep", "20" }, { timeout = 0.01 })
      process.run({ "yes" }, { limit = 1000 })
      process.run({ "true" }, { cwd = "/nonesuch" })
      process.start({ "true" }, { output = "/nonesuch/file" })
      process.start({ "true" }):close()
    end
    assert.are.same({}, children())
    assert.are.equal(before, descriptors())
  end)
end)
