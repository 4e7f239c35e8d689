local file = require "core.file"

local program = file.link("/proc/self/exe")
local folder

-- Runs a chunk in another certwright; what it prints, without the newline.
local function child(code, before)
  local pipe = assert(io.popen(("%s '%s' -e '%s' 2>&1"):format(before or "", program, code)))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub("\n$", ""))
end

-- What a user without root's rights is refused is refused to this child.
local POWERLESS = "setpriv --bounding-set=-all --inh-caps=-all"

local function path(name)
  return folder .. "/" .. name
end

-- Every name in a folder, hidden ones too, with a space between them.
local function names(of)
  local pipe = assert(io.popen("LC_ALL=C ls -A '" .. of .. "' | tr '\\n' ' '"))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub(" $", ""))
end

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(file.mkdir(folder, tonumber("700", 8)))
end)

after_each(function()
  os.execute("rm -rf '" .. folder .. "'")
end)

local function refused(message, code, ...)
  local result, got, got_code = ...
  assert.is_nil(result)
  assert.equal(message, got)
  assert.equal(code, got_code)
end

describe("file.write", function()
  it("makes a file of mode 0644 whatever the umask", function()
    child(('assert(core.file.write("%s", "x"))'):format(path("a")), "umask 077;")
    assert.equal(tonumber("644", 8), file.stat(path("a")).mode)
    child(('assert(core.file.write("%s", "x", { mode = 0x1b6 }))'):format(path("b")), "umask 027;")
    assert.equal(tonumber("666", 8), file.stat(path("b")).mode)
  end)

  it("writes every byte, and leaves no other name behind", function()
    local bytes = ("\0\r\n\255"):rep(100000)
    assert.is_true(file.write(path("a"), bytes))
    assert.equal(bytes, file.read(path("a")))
    assert.is_true(file.write(path("empty"), ""))
    assert.equal("", file.read(path("empty")))
    assert.equal("a empty", names(folder))
  end)

  it("sets owner, group and mode", function()
    assert.is_true(file.write(path("a"), "x", { mode = tonumber("640", 8), owner = 12345, group = 54321 }))
    local stat = file.stat(path("a"))
    assert.same({ 12345, 54321, tonumber("640", 8) }, { stat.owner, stat.group, stat.mode })
  end)

  it("refuses what exists unless it is told otherwise", function()
    assert(file.write(path("a"), "old"))
    refused(("cannot write '%s': File exists"):format(path("a")), "exists", file.write(path("a"), "new"))
    assert.equal("old", file.read(path("a")))
    assert.is_true(file.write(path("a"), "new", { exclusive = false, mode = tonumber("600", 8) }))
    assert.equal("new", file.read(path("a")))
    assert.equal(tonumber("600", 8), file.stat(path("a")).mode)
    assert.equal("a", names(folder))
  end)

  it("never follows or replaces a link, a folder or a device", function()
    assert(file.write(path("target"), "old"))
    os.execute(("ln -s target '%s'; ln -s nowhere '%s'"):format(path("link"), path("dangling")))
    for _, name in ipairs { "link", "dangling" } do
      refused(("cannot write '%s': File exists"):format(path(name)), "exists", file.write(path(name), "new"))
      refused(("cannot write '%s': not a regular file"):format(path(name)), "exists",
        file.write(path(name), "new", { exclusive = false }))
    end
    refused("cannot write '/dev/null': not a regular file", "exists",
      file.write("/dev/null", "new", { exclusive = false }))
    refused(("cannot write '%s/.': not a regular file"):format(folder), "exists",
      file.write(folder .. "/.", "new", { exclusive = false }))
    assert.equal("old", file.read(path("target")))
    assert.equal("dangling link target", names(folder))
  end)

  it("says why a folder cannot be written to", function()
    refused(("cannot write '%s': No such file or directory"):format(path("none/a")), "missing",
      file.write(path("none/a"), "x"))
    file.mkdir(path("shut"), tonumber("500", 8))
    assert.equal(("certwright: cannot write '%s': Permission denied"):format(path("shut/a")),
      child(('return core.file.write("%s", "x")'):format(path("shut/a")), POWERLESS))
    assert.equal(("certwright: cannot write '%s': Operation not permitted"):format(path("a")),
      child(('return core.file.write("%s", "x", { owner = 1 })'):format(path("a")), POWERLESS))
    assert.equal("shut", names(folder))
  end)

  it("leaves nothing of a file that the disk has no room for", function()
    local code = 'print(core.file.write("%s", ("x"):rep(1000000)))'
    assert.equal(("nil\tcannot write '%s': File too large\tio"):format(path("a")),
      child(code:format(path("a")), "trap '' XFSZ; ulimit -f 100;"))
    assert.equal("", names(folder))
  end)

  it("writes names as long as the file system allows", function()
    local long = ("n"):rep(255)
    assert.is_true(file.write(path(long), "x"))
    assert.equal(long, names(folder))
    refused(("cannot write '%s': File name too long"):format(path(long .. "n")), "io",
      file.write(path(long .. "n"), "x"))
  end)

  it("raises on wrong arguments", function()
    assert.error_matches(function() file.write(path("a"), "x", { perm = 1 }) end, "unknown field 'perm'")
    assert.error_matches(function() file.write(path("a"), "x", { mode = 512 }) end, "mode is no whole number")
    assert.error_matches(function() file.write(path("a"), "x", { owner = -1 }) end, "owner is no whole number")
    assert.error_matches(function() file.write(path("a"), "x", { group = "x" }) end, "group is no whole number")
    assert.error_matches(function() file.write(path("a"), "x", { exclusive = 1 }) end, "exclusive is no boolean")
    assert.error_matches(function() file.write("a\0b", "x") end, "a path holds a NUL")
    assert.error_matches(function() file.write("", "x") end, "a path is empty")
    assert.equal("", names(folder))
  end)
end)

describe("file.read", function()
  it("reads no more than its limit", function()
    assert(file.write(path("a"), "12345"))
    assert.equal("12345", file.read(path("a"), 5))
    refused(("cannot read '%s': more than 4 bytes"):format(path("a")), "limit", file.read(path("a"), 4))
    assert(file.write(path("big"), ("x"):rep(1024 * 1024 + 1)))
    refused(("cannot read '%s': more than 1048576 bytes"):format(path("big")), "limit", file.read(path("big")))
    assert.equal(1024 * 1024 + 1, #file.read(path("big"), 2 ^ 21 // 1))
  end)

  it("reads files whose size the kernel does not tell", function()
    assert.matches("^Linux version", file.read("/proc/version"))
    assert.is_true(#file.read("/proc/self/maps") > 4096)
  end)

  it("reads standard input when the path is a dash", function()
    assert.equal("abc", child('io.write(core.file.read("-"))', "printf abc |"))
    assert.equal("300000", child('print(#core.file.read("-"))', "head -c 300000 /dev/zero |"))
    assert.equal("certwright: cannot read 'standard input': more than 2 bytes",
      child('return core.file.read("-", 2)', "printf abc |"))
  end)

  it("refuses what is no regular file, without waiting for it", function()
    os.execute(("mkfifo '%s'"):format(path("pipe")))
    for _, name in ipairs { path("pipe"), folder, "/dev/zero" } do
      refused(("cannot read '%s': not a regular file"):format(name), "io", file.read(name))
    end
  end)

  it("says why a file cannot be read", function()
    refused(("cannot read '%s': No such file or directory"):format(path("a")), "missing", file.read(path("a")))
    assert(file.write(path("shut"), "x", { mode = 0 }))
    assert.equal(("nil\tcannot read '%s': Permission denied\tdenied"):format(path("shut")),
      child(('print(core.file.read("%s"))'):format(path("shut")), POWERLESS))
    os.execute(("ln -s round '%s'"):format(path("round")))
    refused(("cannot read '%s': Too many levels of symbolic links"):format(path("round")), "io",
      file.read(path("round")))
  end)

  it("leaves no descriptor open", function()
    local before = names("/proc/self/fd")
    for _ = 1, 20 do
      file.read("/proc/version")
      file.read(folder)
      file.read(path("none"))
      file.write(path("a"), "x")
      file.mkdirs(path("b/c"), 448)
      file.remove(path("b/c"))
    end
    assert.equal(#before, #names("/proc/self/fd"))
  end)
end)

describe("file.mkdir", function()
  it("makes a folder with exactly that mode", function()
    child(('assert(core.file.mkdir("%s", 0x3ff))'):format(path("a")), "umask 077;")
    assert.equal(tonumber("1777", 8), file.stat(path("a")).mode)
    assert.is_true(file.mkdir(path("b/"), tonumber("700", 8)))
    assert.equal(tonumber("700", 8), file.stat(path("b")).mode)
  end)

  it("says why there is none", function()
    refused(("cannot make folder '%s': File exists"):format(folder), "exists", file.mkdir(folder, 448))
    refused(("cannot make folder '%s': No such file or directory"):format(path("a/b")), "missing",
      file.mkdir(path("a/b"), 448))
    assert(file.mkdir(path("shut"), tonumber("500", 8)))
    assert.equal(("nil\tcannot make folder '%s': Permission denied\tdenied"):format(path("shut/a")),
      child(('print(core.file.mkdir("%s", 448))'):format(path("shut/a")), POWERLESS))
    refused(("cannot make folder '%s': File name too long"):format(path(("n"):rep(256))), "io",
      file.mkdir(path(("n"):rep(256)), 448))
    assert.error_matches(function() file.mkdir(path("a")) end, "number expected")
    assert.error_matches(function() file.mkdir(path("a"), 4096) end, "no mode of a folder")
  end)
end)

describe("file.mkdirs", function()
  it("makes what is missing and leaves alone what is there", function()
    assert(file.mkdir(path("a"), tonumber("750", 8)))
    assert.is_true(file.mkdirs(path("a/b//c/"), tonumber("711", 8)))
    assert.is_true(file.mkdirs(path("a/b/c"), tonumber("700", 8)))
    assert.equal(tonumber("750", 8), file.stat(path("a")).mode)
    assert.equal(tonumber("711", 8), file.stat(path("a/b")).mode)
    assert.equal(tonumber("711", 8), file.stat(path("a/b/c")).mode)
    assert.is_true(file.mkdirs("/", 448))
    assert.equal("folder", child(('assert(core.file.mkdirs("x/y", 448)) print(core.file.stat("x/y").kind)'),
      ("cd '%s';"):format(folder)))
  end)

  it("goes through a link to a folder", function()
    os.execute(("ln -s . '%s'; ln -s nowhere '%s'"):format(path("link"), path("dangling")))
    assert.is_true(file.mkdirs(path("link/b"), 448))
    assert.equal("folder", file.stat(path("b")).kind)
    refused(("cannot make folder '%s': File exists"):format(path("dangling")), "exists",
      file.mkdirs(path("dangling/b"), 448))
  end)

  it("names what is in the way", function()
    assert(file.write(path("a"), "x"))
    refused(("cannot make folder '%s': File exists"):format(path("a")), "exists", file.mkdirs(path("a"), 448))
    refused(("cannot make folder '%s': File exists"):format(path("a")), "exists", file.mkdirs(path("a/b/c"), 448))
    assert(file.mkdir(path("shut"), tonumber("500", 8)))
    assert.equal(("nil\tcannot make folder '%s': Permission denied\tdenied"):format(path("shut/b")),
      child(('print(core.file.mkdirs("%s", 448))'):format(path("shut/b/c")), POWERLESS))
    local long = path(("n/"):rep(3000))
    refused(("cannot make folder '%s': File name too long"):format(long), "io", file.mkdirs(long, 448))
  end)
end)

describe("file.stat", function()
  it("tells files, folders, links and the rest apart", function()
    assert(file.write(path("a"), "12345"))
    os.execute(("ln -s a '%s'; touch -d @1234567890 '%s'"):format(path("link"), path("a")))
    assert.same({ kind = "file", size = 5, mode = tonumber("644", 8), owner = file.stat(folder).owner,
      group = file.stat(path("a")).group, modified = 1234567890 }, file.stat(path("a")))
    assert.equal("folder", file.stat(folder).kind)
    assert.equal("other", file.stat("/dev/null").kind)
    assert.equal("link", file.stat(path("link")).kind)
    assert.equal("file", file.stat(path("link"), true).kind)
  end)

  it("says why it knows nothing", function()
    refused(("cannot look at '%s': No such file or directory"):format(path("a")), "missing", file.stat(path("a")))
    assert(file.mkdir(path("shut"), 0))
    assert.equal(("nil\tcannot look at '%s': Permission denied\tdenied"):format(path("shut/a")),
      child(('print(core.file.stat("%s"))'):format(path("shut/a")), POWERLESS))
    refused(("cannot look at '%s': File name too long"):format(path(("n"):rep(256))), "io",
      file.stat(path(("n"):rep(256))))
  end)
end)

describe("file.filesystem", function()
  it("agrees with stat and df", function()
    local pipe = io.popen(("stat -f -c '%%t %%d' '%s'; df -B1 --output=avail '%s' | tail -1"):format(folder, folder))
    local kind, inodes, free = pipe:read("a"):match("(%x+) (%d+)%s+(%d+)")
    pipe:close()
    local got = file.filesystem(folder)
    assert.equal(tonumber(kind, 16), got.type)
    assert.is_true(math.abs(got.free - tonumber(free)) < 2 ^ 30)
    assert.is_true(math.abs((got.inodes or 0) - tonumber(inodes)) < 10000)
    assert.equal(0x9fa0, file.filesystem("/proc").type)
  end)

  it("says why it knows nothing", function()
    refused(("cannot look at the file system of '%s': No such file or directory"):format(path("a")), "missing",
      file.filesystem(path("a")))
    assert(file.mkdir(path("shut"), 0))
    assert.equal(("nil\tcannot look at the file system of '%s': Permission denied\tdenied"):format(path("shut/a")),
      child(('print(core.file.filesystem("%s"))'):format(path("shut/a")), POWERLESS))
    refused(("cannot look at the file system of '%s': File name too long"):format(path(("n"):rep(256))), "io",
      file.filesystem(path(("n"):rep(256))))
  end)
end)

describe("file.resolve and file.link", function()
  it("follow every link, and read one", function()
    assert(file.mkdir(path("a"), 448))
    os.execute(("ln -s a/../a '%s'"):format(path("link")))
    assert.equal(file.resolve(folder) .. "/a", file.resolve(path("link/.")))
    assert.equal("a/../a", file.link(path("link")))
  end)

  it("say why they cannot", function()
    refused(("cannot resolve '%s': No such file or directory"):format(path("a")), "missing", file.resolve(path("a")))
    refused(("cannot read link '%s': No such file or directory"):format(path("a")), "missing", file.link(path("a")))
    refused(("cannot read link '%s': not a symbolic link"):format(folder), "io", file.link(folder))
    os.execute(("ln -s round '%s'"):format(path("round")))
    refused(("cannot resolve '%s': Too many levels of symbolic links"):format(path("round")), "io",
      file.resolve(path("round")))
    assert(file.mkdir(path("shut"), 0))
    for verb, call in pairs { resolve = "resolve", ["read link"] = "link" } do
      assert.equal(("nil\tcannot %s '%s': Permission denied\tdenied"):format(verb, path("shut/a")),
        child(('print(core.file.%s("%s"))'):format(call, path("shut/a")), POWERLESS))
    end
  end)
end)

describe("file.remove", function()
  it("removes a file, an empty folder, and a link but not its target", function()
    assert(file.write(path("a"), "x"))
    assert(file.mkdir(path("b"), 448))
    os.execute(("ln -s a '%s'"):format(path("link")))
    assert.is_true(file.remove(path("link")))
    assert.equal("a b", names(folder))
    assert.is_true(file.remove(path("b")))
    assert.is_true(file.remove(path("a")))
    assert.equal("", names(folder))
  end)

  it("says why something stays", function()
    refused(("cannot remove '%s': No such file or directory"):format(path("a")), "missing", file.remove(path("a")))
    assert(file.mkdirs(path("shut/a"), tonumber("500", 8)))
    refused(("cannot remove '%s': Directory not empty"):format(path("shut")), "io", file.remove(path("shut")))
    assert.equal(("nil\tcannot remove '%s': Permission denied\tdenied"):format(path("shut/a")),
      child(('print(core.file.remove("%s"))'):format(path("shut/a")), POWERLESS))
  end)
end)
