-- The history of the prompt.

local file, host, process = require "core.file", require "core.host", require "core.process"
local history = require "history"
local lfs = require "lfs"

describe("the history", function()
  local folder, path

  before_each(function()
    folder = "/tmp/cw-history-" .. host.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
    path = folder .. "/deep/history"
  end)

  after_each(function() process.run { "rm", "-rf", "--", folder } end)

  local function mode() return lfs.attributes(path, "permissions") end

  it("makes its folder and file for its owner alone", function()
    assert(history.open(path)):add "1 + 1"
    assert.equal("rw-------", mode())
    assert.equal("rwx------", lfs.attributes(folder .. "/deep", "permissions"))
    assert.same({ "1 + 1" }, assert(history.open(path)).lines)
  end)

  it("takes from others what they could read", function()
    assert(file.mkdirs(folder .. "/deep", 448))
    assert(file.write(path, "old\n", { mode = 420 }))
    assert.equal("rw-r--r--", mode())
    assert.same({ "old" }, assert(history.open(path)).lines)
    assert.equal("rw-------", mode())
  end)

  it("follows no link, and says so", function()
    assert(file.mkdirs(folder .. "/deep", 448))
    assert(file.write(folder .. "/target", "keep\n"))
    assert(lfs.link(folder .. "/target", path, true))
    local opened, message, code = history.open(path)
    assert.is_nil(opened)
    assert.equal(("'%s' is no regular file"):format(path), message)
    assert.equal("denied", code)
    assert.equal("keep\n", assert(file.read(folder .. "/target")))
  end)

  it("has the lines of two prompts, and is made again when it was removed", function()
    local one, two = assert(history.open(path)), assert(history.open(path))
    assert(one:add "from one")
    assert(two:add "from two")
    assert.same({ "from one", "from two" }, assert(history.open(path)).lines)
    assert(os.remove(path))
    assert(one:add "anew")
    assert.equal("rw-------", mode())
  end)

  it("keeps the last 1000 lines, and none that is too long", function()
    local one = assert(history.open(path))
    for i = 1, 1010 do assert(one:add("line " .. i)) end
    assert(one:add(("x"):rep(5000)))
    local lines = assert(history.open(path)).lines
    assert.equal(1000, #lines)
    assert.equal("line 1010", lines[1000])
    local _, count = assert(file.read(path)):gsub("\n", "")
    assert.equal(1000, count)
  end)

  it("begins a line of its own after one that does not end", function()
    assert(file.mkdirs(folder .. "/deep", 448))
    assert(file.write(path, "one\n\ntwo", { mode = 384 }))
    assert(assert(history.open(path)):add "three")
    assert.equal("one\ntwo\nthree\n", assert(file.read(path)))
  end)

  it("keeps nothing that begins with a blank, and no private key", function()
    local one = assert(history.open(path))
    assert(one:add " secret")
    assert(one:add "k = [[\n-----BEGIN RSA PRIVATE KEY-----\nMII\n]]")
    assert.equal("", assert(file.read(path)))
  end)
end)
