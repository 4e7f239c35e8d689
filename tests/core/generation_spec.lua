local file = require "core.file"
local generation = require "core.generation"
local key = require "core.key"

local program = file.link("/proc/self/exe")
local folder

local function child(code, before)
  local pipe = assert(io.popen(("%s '%s' -e '%s' 2>&1"):format(before or "", program, code)))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub("\n$", ""))
end

local POWERLESS = "setpriv --bounding-set=-all --inh-caps=-all"

local function path(name)
  return folder .. "/" .. name
end

local function names(of)
  local pipe = assert(io.popen("LC_ALL=C ls -A '" .. of .. "' | tr '\\n' ' '"))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub(" $", ""))
end

local function refused(message, code, ...)
  local result, got, got_code = ...
  assert.is_nil(result)
  assert.equal(message, got)
  assert.equal(code, got_code)
end

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(file.mkdir(folder, tonumber("700", 8)))
end)

after_each(function()
  collectgarbage()
  os.execute("rm -rf '" .. folder .. "'")
end)

describe("generation.write", function()
  it("writes texts and keys in the order of the parts", function()
    local pair <close> = key.generate("ec:P-256")
    assert.is_true(generation.write(folder, "g1", {
      ["cert.pem"] = { "leaf\n", "chain\n" },
      ["chain.pem"] = {},
      ["combined.pem"] = { pair, "leaf\n", "\0chain\n" },
    }))
    assert.equal("cert.pem chain.pem combined.pem", names(path("g1")))
    assert.equal("leaf\nchain\n", file.read(path("g1/cert.pem")))
    assert.equal("", file.read(path("g1/chain.pem")))
    local text = file.read(path("g1/combined.pem"))
    assert.matches("^%-+BEGIN PRIVATE KEY%-+\n.*\n%-+END PRIVATE KEY%-+\nleaf\n%zchain\n$", text)
    assert.equal(pair:fingerprint(), key.open(path("g1/combined.pem")):fingerprint())
    assert.equal("g1", names(folder))
  end)

  it("gives keys to their owner only, and the rest to everybody", function()
    child(([[local k = core.key.generate("ed25519") assert(core.generation.write("%s", "g1", { a = { "x" }, b = { k },
      c = { "x", k, mode = 0x1a0, group = 54321 }, d = { "x", mode = 0x100, owner = 12345 } }))]]):format(folder),
      "umask 077;")
    local function access(name)
      local stat = file.stat(path(name))
      return ("%o %d %d"):format(stat.mode, stat.owner, stat.group)
    end
    local user, group = file.stat(folder).owner, file.stat(folder).group
    assert.equal(("755 %d %d"):format(user, group), access("g1"))
    assert.equal(("644 %d %d"):format(user, group), access("g1/a"))
    assert.equal(("600 %d %d"):format(user, group), access("g1/b"))
    assert.equal(("640 %d 54321"):format(user), access("g1/c"))
    assert.equal(("400 12345 %d"):format(group), access("g1/d"))
  end)

  it("sets owner and mode before the first byte, and has all on the disk before the rename", function()
    local log = path("log")
    local out = child(([[local k = core.key.generate("ed25519") assert(core.generation.write("%s", "g1",
      { ["k.pem"] = { k, "x", mode = 0x1a0, owner = 12345 } }))]]):format(folder),
      ("ASAN_OPTIONS=detect_leaks=0 strace -f -o '%s' -e openat,fchown,fchmod,write,fsync,close,renameat2"):format(log))
    assert.equal("", out)
    local text = assert(file.read(log, 2 ^ 24 // 1))
    local number, rest = text:match('"k%.pem", O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC, 0600%) = (%d+)\n(.*)')
    local order = {}
    for call, first in rest:gmatch("(%w+)%(([%w_]+)") do
      if first == number or call == "fsync" or call:find("^rename") then
        order[#order + 1] = call
        if call == "close" then number = nil end
      end
    end
    assert.matches("^fchown fchmod write[ write]* fsync close fsync renameat2 fsync$", table.concat(order, " "))
  end)

  it("refuses a name that is taken, even by an empty folder or a link", function()
    assert(generation.write(folder, "g1", { a = { "old" } }))
    assert(file.mkdir(path("g2"), 448))
    os.execute(("ln -s nowhere '%s'; touch '%s'"):format(path("g3"), path("g4")))
    for _, name in ipairs { "g1", "g2", "g3", "g4" } do
      refused(("cannot write '%s': File exists"):format(path(name)), "exists",
        generation.write(folder, name, { a = { "new" } }))
    end
    assert.equal("old", file.read(path("g1/a")))
    assert.equal("g1 g2 g3 g4", names(folder))
  end)

  it("says why it cannot, and leaves nothing behind", function()
    refused(("cannot write '%s': No such file or directory"):format(path("none/g1")), "missing",
      generation.write(path("none"), "g1", { a = { "x" } }))
    assert(file.mkdir(path("shut"), tonumber("500", 8)))
    assert.equal(("nil\tcannot write '%s': Permission denied\tdenied"):format(path("shut/g1")),
      child(('print(core.generation.write("%s", "g1", {}))'):format(path("shut")), POWERLESS))
    assert.equal(("nil\tcannot write '%s': Operation not permitted\tdenied"):format(path("g1/a")),
      child(('print(core.generation.write("%s", "g1", { a = { "x", owner = 1 } }))'):format(folder), POWERLESS))
    local big = [[print(core.generation.write("%s", "g1", { a = { "x" }, b = { ("x"):rep(1000000) }, c = { "x" } }))]]
    assert.equal(("nil\tcannot write '%s': File too large\tio"):format(path("g1/b")),
      child(big:format(folder), "trap '' XFSZ; ulimit -f 100;"))
    assert.equal("shut", names(folder))
  end)

  it("raises on a key that others could read, before anything is written", function()
    local pair <close> = key.generate("ed25519")
    for _, mode in ipairs { "644", "604", "602", "601" } do
      assert.error_matches(function()
        generation.write(folder, "g1", { ["k.pem"] = { "x", pair, mode = tonumber(mode, 8) } })
      end, "'k.pem' holds a key: its mode must give others nothing")
    end
    assert.equal("", names(folder))
  end)

  it("raises on names that are not one name", function()
    local unlike = "not one name without a leading dot"
    for _, name in ipairs { "", ".", "..", ".a", "a/b", "/a", "a\0b", ("n"):rep(241) } do
      assert.error_matches(function() generation.write(folder, name, {}) end, unlike)
      assert.error_matches(function() generation.write(folder, "g1", { [name] = { "x" } }) end, unlike)
      assert.error_matches(function() generation.switch(folder, name, "g1") end, unlike)
      assert.error_matches(function() generation.switch(folder, "current", name) end, unlike)
      assert.error_matches(function() generation.current(folder, name) end, unlike)
      assert.error_matches(function() generation.remove(folder, name) end, unlike)
    end
    assert.equal("", names(folder))
  end)

  it("raises on files that are described wrongly", function()
    local shut = key.generate("ed25519")
    shut:close()
    local wrong = {
      ["a file is unnamed"] = { { "x" } },
      ["a file is no table"] = { a = "x" },
      ["a part of 'a' is neither text nor a key"] = { a = { 1 } },
      ["the parts of 'a' have a gap"] = { a = { [2] = "x" } },
      ["'a' has a field that is no part, mode, owner or group"] = { a = { "x", perm = 1 } },
      ["mode is no whole number from 0 to 511"] = { a = { "x", mode = 512 } },
      ["owner is no whole number"] = { a = { "x", owner = "root" } },
      ["group is no whole number"] = { a = { "x", group = 1.5 } },
    }
    for message, files in pairs(wrong) do
      assert.error_matches(function() generation.write(folder, "g1", files) end, message, nil, true)
    end
    assert.has_error(function() generation.write(folder, "g1", { a = { shut } }) end)
    assert.has_error(function() generation.write(folder, "g1") end)
    assert.equal("", names(folder))
  end)
end)

describe("generation.switch and generation.current", function()
  before_each(function()
    assert(generation.write(folder, "g1", { a = { "1" } }))
    assert(generation.write(folder, "g2", { a = { "2" } }))
  end)

  it("make, move and remove a relative link", function()
    assert.is_true(generation.switch(folder, "current", "g1"))
    assert.equal("g1", file.link(path("current")))
    assert.equal("1", file.read(path("current/a")))
    assert.is_true(generation.switch(folder, "current", "g2"))
    assert.equal("g2", generation.current(folder, "current"))
    assert.is_true(generation.switch(folder, "current"))
    assert.is_true(generation.switch(folder, "current"))
    refused(("cannot read link '%s': No such file or directory"):format(path("current")), "missing",
      generation.current(folder, "current"))
    assert.equal("g1 g2", names(folder))
  end)

  it("refuse to lead to what is no generation", function()
    assert(generation.switch(folder, "current", "g1"))
    os.execute(("ln -s g1 '%s'; touch '%s'"):format(path("alias"), path("file")))
    refused(("cannot switch to '%s': No such file or directory"):format(path("none")), "missing",
      generation.switch(folder, "current", "none"))
    for _, name in ipairs { "alias", "file" } do
      refused(("cannot switch to '%s': Not a directory"):format(path(name)), "missing",
        generation.switch(folder, "current", name))
    end
    refused(("cannot switch '%s': No such file or directory"):format(path("none/current")), "missing",
      generation.switch(path("none"), "current", "g1"))
    assert.equal("g1", generation.current(folder, "current"))
  end)

  it("leave alone what is no link", function()
    assert(file.write(path("current"), "x"))
    for _, name in ipairs { "g1", false } do
      refused(("cannot switch '%s': not a symbolic link"):format(path("current")), "exists",
        generation.switch(folder, "current", name or nil))
    end
    refused(("cannot switch '%s': not a symbolic link"):format(path("g2")), "exists",
      generation.switch(folder, "g2", "g1"))
    refused(("cannot read link '%s': not a symbolic link"):format(path("current")), "io",
      generation.current(folder, "current"))
    assert.equal("x", file.read(path("current")))
  end)

  it("name what somebody else linked by hand, if it is beside the link", function()
    for target, name in pairs { ["g1"] = "g1", ["g1/"] = "g1", ["gone"] = "gone" } do
      os.execute(("ln -sfn '%s' '%s'"):format(target, path("current")))
      assert.equal(name, generation.current(folder, "current"))
    end
    for _, target in ipairs { "../x", "/x", "a/b", "./g1", "." } do
      os.execute(("ln -sfn '%s' '%s'"):format(target, path("current")))
      refused(("cannot use link '%s': '%s' is no name beside it"):format(path("current"), target), "io",
        generation.current(folder, "current"))
    end
  end)

  it("say that they lack the rights", function()
    assert(generation.switch(folder, "current", "g1"))
    os.execute(("chmod 500 '%s'"):format(folder))
    local expected = ("nil\tcannot switch '%s': Permission denied\tdenied"):format(path("current"))
    assert.equal(expected, child(('print(core.generation.switch("%s", "current", "g2"))'):format(folder), POWERLESS))
    assert.equal(expected, child(('print(core.generation.switch("%s", "current"))'):format(folder), POWERLESS))
    assert.equal(("nil\tcannot remove '%s': Permission denied\tdenied"):format(path("g2")),
      child(('print(core.generation.remove("%s", "g2"))'):format(folder), POWERLESS))
    os.execute(("chmod 0 '%s'"):format(folder))
    assert.equal(("nil\tcannot read link '%s': Permission denied\tdenied"):format(path("current")),
      child(('print(core.generation.current("%s", "current"))'):format(folder), POWERLESS))
    os.execute(("chmod 700 '%s'"):format(folder))
    assert.equal("current g1 g2", names(folder))
  end)
end)

describe("generation.remove", function()
  it("removes a generation, and is content with none", function()
    assert(generation.write(folder, "g1", { a = { "1" }, b = { "2" } }))
    assert(generation.write(folder, "g1.2", { a = { "1" } }))
    assert.is_true(generation.remove(folder, "g1"))
    assert.is_true(generation.remove(folder, "g1"))
    assert.is_true(generation.remove(path("none"), "g1"))
    assert.equal("g1.2", names(folder))
  end)

  it("removes what was cut short of that name, and nothing else", function()
    os.execute(("cd '%s' && mkdir .g1.012345 .g1.abcdef .g1.x.012345 .g1.01234g .g2.012345 .g1.0123456 && "
      .. "touch .g1.012345/a .g1.000000 && "
      .. "ln -s g1 .g1.543210 && ln -s g2 .g2.543210 && ln -s g1 current"):format(folder))
    assert.is_true(generation.remove(folder, "g1"))
    assert.equal(".g1.000000 .g1.0123456 .g1.01234g .g1.x.012345 .g2.012345 .g2.543210 current", names(folder))
  end)

  it("refuses what is no folder of files", function()
    assert(file.write(path("file"), "x"))
    refused(("cannot remove '%s': Not a directory"):format(path("file")), "missing", generation.remove(folder, "file"))
    refused(("cannot remove '%s': Not a directory"):format(path("file/g1")), "missing",
      generation.remove(path("file"), "g1"))
    assert(file.mkdirs(path("g1/sub"), 448))
    refused(("cannot remove '%s': Is a directory"):format(path("g1")), "io", generation.remove(folder, "g1"))
    assert.equal("file", file.stat(path("file")).kind)
  end)
end)

describe("generation.lock", function()
  it("makes a file for its owner only, and frees it when closed", function()
    local lock = generation.lock(path("lock"))
    assert.equal("lock", tostring(lock))
    assert.equal(tonumber("600", 8), file.stat(path("lock")).mode)
    lock:close()
    lock:close()
    assert.equal("lock (closed)", tostring(lock))
    do
      local again <close> = assert(generation.lock(path("lock")))
      assert.equal("lock", tostring(again))
    end
    assert(generation.lock(path("lock"))):close()
    assert(generation.lock(path("other")))
    collectgarbage()
    collectgarbage()
    assert(generation.lock(path("other"))):close()
  end)

  it("keeps out the same process, by any name of the file", function()
    local one <close> = assert(generation.lock(path("lock")))
    local two <close> = assert(generation.lock(path("other")))
    os.execute(("ln '%s' '%s'"):format(path("lock"), path("alias")))
    local pid = file.link("/proc/self")
    for _, name in ipairs { "lock", "alias", "other" } do
      refused(("cannot lock '%s': process %s holds it"):format(path(name), pid), "busy",
        generation.lock(path(name), 60))
    end
    assert.matches("cannot lock '.*': process " .. pid .. " holds it\tbusy$",
      child(('print(core.generation.lock("%s"))'):format(path("lock"))))
    assert.same({ "lock", "lock" }, { tostring(one), tostring(two) })
  end)

  it("waits for another process, as long as it may", function()
    os.execute(("mkfifo '%s'"):format(path("wait")))
    local holder = io.popen(([[exec '%s' -e 'local l <close> = core.generation.lock("%s")
      print("held") io.stdout:flush() io.open("%s")']]):format(program, path("lock"), path("wait")))
    assert.equal("held", holder:read("l"))
    local result, message, code = generation.lock(path("lock"), 0.1)
    assert.is_nil(result)
    assert.matches(("^cannot lock '%s': process %%d+ holds it$"):format(path("lock")), message)
    assert.equal("busy", code)
    os.execute(("(sleep 0.2; kill -9 %s) &"):format(message:match("process (%d+)")))
    local lock <close> = assert(generation.lock(path("lock"), 10))
    assert.equal("lock", tostring(lock))
    holder:close()
  end)

  it("says why there is none", function()
    refused(("cannot lock '%s': No such file or directory"):format(path("none/lock")), "missing",
      generation.lock(path("none/lock")))
    refused(("cannot lock '%s': Is a directory"):format(folder), "io", generation.lock(folder))
    os.execute(("ln -s x '%s'; mkfifo '%s'"):format(path("link"), path("pipe")))
    refused(("cannot lock '%s': Too many levels of symbolic links"):format(path("link")), "io",
      generation.lock(path("link")))
    refused(("cannot lock '%s': Invalid argument"):format(path("pipe")), "io", generation.lock(path("pipe")))
    assert(file.mkdir(path("shut"), tonumber("500", 8)))
    assert.equal(("nil\tcannot lock '%s': Permission denied\tdenied"):format(path("shut/lock")),
      child(('print(core.generation.lock("%s"))'):format(path("shut/lock")), POWERLESS))
    assert.error_matches(function() generation.lock(path("lock"), -1) end, "no time")
  end)
end)

describe("a process killed at any instant", function()
  -- Writes, switches and removes generations of a key and its public key.
  local CODE = [[local dir = "%s"
    local keys = {}
    for i = 1, 8 do keys[i] = core.key.generate("ec:P-256") end
    print("ready") io.stdout:flush()
    for n = %d, %d + 9999 do
      local k, name = keys[n %% 8 + 1], "g" .. n
      assert(core.generation.write(dir, name, { ["privkey.pem"] = { k }, ["cert.pem"] = { k:public() },
        ["combined.pem"] = { k, k:public() } }))
      local old = core.generation.current(dir, "current")
      assert(core.generation.switch(dir, "current", name))
      if old then assert(core.generation.remove(dir, old)) end
    end]]

  local function whole(dir)
    local text = assert(file.read(dir .. "/cert.pem"))
    for _, name in ipairs { "privkey.pem", "combined.pem" } do
      local pair <close> = assert(key.open(dir .. "/" .. name))
      assert.equal(text, pair:public())
      assert.equal(tonumber("600", 8), file.stat(dir .. "/" .. name).mode)
    end
    assert.equal(text, file.read(dir .. "/combined.pem"):sub(-#text))
    assert.equal("cert.pem combined.pem privkey.pem", names(dir))
  end

  it("leaves current on a whole generation, and only whole ones with a name", function()
    local kills, interrupted = 25, 0
    for round = 1, kills do
      local first = round * 10000
      local code = CODE:format(folder, first, first)
      local pipe = io.popen(([[exec sh -c 'echo $$; exec "%s" -e "$1"' x '%s' 2>&1]]):format(program, code))
      local pid = pipe:read("l")
      assert.equal("ready", pipe:read("l"))
      os.execute(("sleep %f; kill -9 %s"):format(0.001 + math.random() * 0.03, pid))
      assert.equal("", pipe:read("a"))
      pipe:close()
      local current = generation.current(folder, "current")
      if current then
        whole(path(current))
      end
      for name in names(folder):gmatch("%S+") do
        if name:find("^g%d+$") then
          whole(path(name))
          if name ~= current then assert(generation.remove(folder, name)) end
        elseif name ~= "current" then
          interrupted = interrupted + 1
        end
      end
      for n = first, first + 60 do
        if "g" .. n ~= current then assert(generation.remove(folder, "g" .. n)) end
      end
    end
    assert.is_true(interrupted > 0, "no kill hit a write, a switch or a remove")
  end)
end)
