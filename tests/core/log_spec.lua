-- core.log: lines that are only ever added.

local file = require "core.file"
local host = require "core.host"
local log = require "core.log"
local process = require "core.process"

describe("core.log", function()
  local folder

  setup(function()
    folder = "/tmp/cw-log-" .. host.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    assert(file.mkdir(folder, 448))
  end)
  teardown(function() process.run { "rm", "-rf", "--", folder } end)

  it("adds bytes to a file that it makes for its owner only", function()
    local path = folder .. "/new"
    assert.is_true(log.append(path, "one\n"))
    assert.is_true(log.append(path, "two\n", 65536))
    assert.equal("one\ntwo\n", file.read(path))
    assert.same({ 384, 8 }, { file.stat(path).mode, file.stat(path).size }) -- 0600; the room kept does not show
  end)

  it("adds to no link, no folder, no pipe, and no file that has another name", function()
    local path = folder .. "/target"
    assert(file.write(path, "x"))
    for _, argv in ipairs { { "ln", "-s", "target", "link" }, { "ln", "target", "second" }, { "mkdir", "folder" },
      { "mkfifo", "pipe" } } do
      assert.equal(0, process.run(argv, { cwd = folder }).status)
    end
    local function refusal(name, reason, code)
      local written, message, what = log.append(folder .. "/" .. name, "y")
      assert.same({ false, ("cannot write '%s/%s': %s"):format(folder, name, reason), code }, { written or false, message, what })
    end
    refusal("link", "Too many levels of symbolic links", "io")
    refusal("second", "Invalid argument", "io")
    refusal("folder", "Is a directory", "io")
    refusal("pipe", "No such device or address", "io")
    refusal("none/new", "No such file or directory", "missing")
    assert.equal("x", file.read(path))
  end)

  it("adds nothing to a file of another user", function()
    local path = folder .. "/theirs"
    assert(file.write(path, "x", { owner = 65534 }))
    local written, message, code = log.append(path, "y")
    assert.same({ false, ("cannot write '%s': Operation not permitted"):format(path), "denied" }, { written or false, message, code })
  end)

  it("adds all of the bytes or none where the disk is full", function()
    if process.run({ "mount", "-t", "tmpfs", "-o", "size=128k", "none", folder }).status ~= 0 then
      return pending "cannot mount here"
    end
    local _ <close> = setmetatable({}, { __close = function() process.run { "umount", folder } end })
    local path = folder .. "/log"
    assert.is_true(log.append(path, ("a"):rep(4096), 8192))
    local long = ("b"):rep(200 * 1024)
    local written, message, code = log.append(path, long)
    assert.same({ false, ("cannot write '%s': No space left on device"):format(path), "io" }, { written or false, message, code })
    assert.equal(4096, file.stat(path).size)
    assert(file.write(folder .. "/fill", ("c"):rep(96 * 1024)))
    written = log.append(path, "x", 65536)
    assert.is_nil(written)
    assert.is_true(log.append(path, ("d"):rep(4096))) -- into the room that was kept
    assert.equal(8192, file.stat(path).size)
  end)

  it("knows SHA-256 (FIPS 180-2, appendix B)", function()
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", log.sha256 "abc")
    assert.equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", log.sha256 "")
    assert.equal(64, #log.sha256 "\0\0")
  end)

  it("tells the system's log, and nobody when none runs", function()
    assert.equal(0, select("#", log.system("certwright", "%s%n a test of its own")))
    assert.has_error(function() log.system("certwright", "x", "loud") end, "bad argument #3 to 'system' (invalid option 'loud')")
  end)
end)
