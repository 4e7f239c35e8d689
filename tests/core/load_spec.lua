local load = require "core.load"
local host = require "core.host"
local process = require "core.process"
local lfs = require "lfs"
local anyone = dofile((debug.getinfo(1, "S").source:match "^@(.-)tests/core/" or "") .. "tests/support/anyone.lua")

local folder
local program = assert(process.run { "readlink", "/proc/" .. host.pid() .. "/exe" }).stdout:gsub("\n$", "")
local DENIED = "refused to run code from '%s': owner %d, mode %s: others could have written it; to mend it: %s '%s'"

local function write(name, text, mode)
  local path = folder .. "/" .. name
  local file <close> = assert(io.open(path, "wb"))
  assert(file:write(text))
  assert(process.run { "chmod", mode or "644", path })
  return path
end

local function refused(path, owner, mode, mend)
  return { nil, DENIED:format(path, owner, mode, mend, path), "denied" }
end

setup(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(lfs.mkdir(folder))
end)

teardown(function()
  assert(process.run { "rm", "-rf", folder })
end)

describe("load.file", function()
  it("loads text, named by its path", function()
    local path = write("chunk.lua", "#!/bin/x\nlocal i = debug.getinfo(1, 'Sl')\nreturn i.source, i.currentline, ...")
    assert.are.same({ "@" .. path, 2, 7 }, { load.file(path)(7) })
    assert.is_nil(load.file(write("empty.lua", ""))())
    assert.is_nil(load.file(write("comment.lua", "#"))())
  end)

  it("gives the chunk its environment, also one that uses none", function()
    assert.are.equal(3, load.file(write("env.lua", "return x"), { x = 3 })())
    assert.are.equal(4, load.file(write("none.lua", "return 4"), {})())
  end)

  it("says what is missing, not a file, or not Lua", function()
    local path = folder .. "/nonesuch.lua"
    assert.are.same({ nil, "cannot read '" .. path .. "': No such file or directory", "missing" }, { load.file(path) })
    assert.are.same({ nil, "cannot read '" .. folder .. "': not a regular file", "io" }, { load.file(folder) })
    path = write("bad.lua", "return return")
    local result, message, code = load.file(path)
    assert.is_nil(result)
    assert.is_truthy(message:find("bad.lua:1: unexpected symbol near 'return'", 1, true), message)
    assert.are.equal("parse", code)
  end)

  it("refuses bytecode", function()
    local path = write("code.lua", string.dump(function() return 1 end))
    assert.are.same({ nil, "refused to run code from '" .. path .. "': it is bytecode", "denied" },
      { load.file(path) })
  end)

  it("takes a mebibyte of text, and not a byte more", function()
    local text = "return 1 --"
    text = text .. ("x"):rep((1 << 20) - #text)
    assert.are.equal(1, load.file(write("large.lua", text))())
    local path = write("larger.lua", text .. "x")
    assert.are.same({ nil, "cannot read '" .. path .. "': more than 1048576 bytes of code", "limit" },
      { load.file(path) })
  end)
end)

describe("trust", function()
  it("is refused to a file that others may write", function()
    for _, mode in ipairs { "0664", "0646", "1666" } do
      local path = write("open.lua", "return 1", mode)
      assert.are.same(refused(path, 0, mode, "chmod go-w"), { load.file(path) })
      assert.are.same(refused(path, 0, mode, "chmod go-w"), { load.trusted(path) })
    end
  end)

  it("is refused to a file or folder of another user's", function()
    assert(lfs.mkdir(folder .. "/theirs"))
    local path = write("theirs/chunk.lua", "return 1")
    assert(process.run { "chown", "65534", path })
    assert.are.same(refused(path, 65534, "0644", "chown 0"), { load.file(path) })
    assert(process.run { "chown", "0", path })
    assert.is_true(load.trusted(path))
    assert(process.run { "chown", "65534", folder .. "/theirs" })
    assert.are.same(refused(folder .. "/theirs", 65534, "0755", "chown 0"), { load.file(path) })
  end)

  it("is refused below a folder that others may write, unless that is sticky", function()
    assert(lfs.mkdir(folder .. "/shared"))
    assert(lfs.mkdir(folder .. "/shared/own"))
    local path = write("shared/own/chunk.lua", "return 1")
    assert(process.run { "chmod", "775", folder .. "/shared" })
    assert.are.same(refused(folder .. "/shared", 0, "0775", "chmod go-w"), { load.file(path) })
    assert(process.run { "chmod", "1777", folder .. "/shared" })
    assert.are.equal(1, load.file(path)())
  end)

  it("follows the file, not the name", function()
    assert(lfs.mkdir(folder .. "/loose"))
    local path = write("loose/chunk.lua", "return 1")
    assert(process.run { "chmod", "777", folder .. "/loose" })
    assert(lfs.link(path, folder .. "/link.lua", true))
    assert.are.same(refused(folder .. "/loose", 0, "0777", "chmod go-w"), { load.file(folder .. "/link.lua") })
  end)

  it("is refused to a link that others could have made, whatever it leads to", function()
    local path = write("target.lua", "return 1")
    assert(lfs.mkdir(folder .. "/open"))
    assert(lfs.link(path, folder .. "/open/link.lua", true))
    assert.are.equal(1, load.file(folder .. "/open/link.lua")())
    assert(process.run { "chmod", "777", folder .. "/open" })
    assert.are.same(refused(folder .. "/open", 0, "0777", "chmod go-w"), { load.file(folder .. "/open/link.lua") })
    assert(lfs.link("open/link.lua", folder .. "/second.lua", true)) -- by way of one that nobody else made
    assert.are.same(refused(folder .. "/open", 0, "0777", "chmod go-w"), { load.file(folder .. "/second.lua") })
    assert(process.run { "chmod", "1777", folder .. "/open" })
    assert.are.equal(1, load.file(folder .. "/second.lua")())
    assert(process.run { "chown", "-h", "65534", folder .. "/open/link.lua" })
    assert.are.same(refused(folder .. "/open/link.lua", 65534, "0777", "chown -h 0"),
      { load.file(folder .. "/second.lua") })
  end)

  it("is refused to a folder that a link of others' leads to", function()
    assert(lfs.mkdir(folder .. "/site"))
    write("site/chunk.lua", "return 1")
    assert(lfs.mkdir(folder .. "/home"))
    assert(lfs.link(folder .. "/site", folder .. "/home/site", true))
    assert.are.equal(1, load.file(folder .. "/home/../home/./site/chunk.lua")())
    assert(process.run { "chown", "65534", folder .. "/home" })
    assert.are.same(refused(folder .. "/home", 65534, "0755", "chown 0"),
      { load.file(folder .. "/home/../home/./site/chunk.lua") })
  end)

  it("is found out from the working folder, for a path that starts there", function()
    assert(lfs.mkdir(folder .. "/here"))
    write("here/chunk.lua", "return 1")
    local result = process.run({ program, "chunk.lua" }, { cwd = folder .. "/here" })
    assert.are.same({ 0, "" }, { result.status, result.stderr })
    assert(process.run { "chmod", "777", folder .. "/here" })
    result = process.run({ program, "../here/chunk.lua" }, { cwd = folder .. "/here" })
    assert.are.equal(1, result.status)
    assert.are.equal("certwright: " .. refused(folder .. "/here", 0, "0777", "chmod go-w")[2] .. "\n", result.stderr)
  end)

  it("is given to the owner of the program's file, and to oneself", function()
    local line = [[core.load.trusted(arg[1])]]
    local path = write("own.lua", "print(" .. line .. ")")
    assert(process.run { "chown", "-R", "65534", folder })
    local own = write("tested.lua", "return 1")
    assert(process.run { "chown", "65534", own })
    local result = assert(process.run({ anyone.program(), path, own }, { uid = 65534, gid = 65534 }))
    assert(process.run { "chown", "-R", "0", folder })
    assert.are.same({ "true\n", "" }, { result.stdout, result.stderr })
  end)
end)

describe("the program", function()
  it("ignores LUA_PATH, LUA_CPATH and LUA_INIT", function()
    write("planted.lua", "return 1")
    local env = { LUA_INIT = "error 'LUA_INIT'", LUA_INIT_5_4 = "error 'LUA_INIT_5_4'" }
    for _, name in ipairs { "LUA_PATH", "LUA_CPATH", "LUA_PATH_5_4", "LUA_CPATH_5_4" } do
      env[name] = folder .. "/?.lua"
    end
    local chunk = "print((pcall(require, 'planted')), (package.path .. package.cpath):find(arg[1], 1, true))"
    local result = process.run({ program, "-e", chunk, folder }, { env = env })
    assert.are.same({ "", 0 }, { result.stderr, result.status })
    assert.is_truthy(result.stdout:find "^false\tnil\n$", result.stdout)
  end)

  it("is not misled by a working folder", function()
    write("planted.lua", "return 1")
    local result = process.run({ program, "-e", "print(pcall(require, 'planted'))" }, { cwd = folder })
    assert.is_truthy(result.stdout:find "^false", result.stdout)
  end)
end)

describe("the program's own files, compiled when it is built,", function()
  local home, chunks, whole

  local function run(argv)
    local result = assert(process.run(argv))
    assert.are.same({ "", 0 }, { result.stderr, result.status })
    return result.stdout
  end

  local function version() return run { home .. "/certwright", "--version" } end

  local function put(path, bytes)
    local stream <close> = assert(io.open(path, "wb"))
    assert(stream:write(bytes))
  end

  local function get(path)
    local stream <close> = assert(io.open(path, "rb"))
    return stream:read "a"
  end

  -- A copy of the program, whose compiled files say what their text does not.
  setup(function()
    home = folder .. "/copy"
    local tree = program:match "^(.*)/"
    local modules = home .. "/" .. (program:find "asan$" and "build/sanitize/modules" or "build/modules")
    run { "mkdir", "-p", modules }
    run { "cp", program, home .. "/certwright" }
    run { "cp", "-R", tree .. "/lua", tree .. "/scripts", home }
    chunks = modules .. "/chunks"
    run { home .. "/certwright", tree .. "/core/chunks.lua", chunks, tree, home }
    local count
    whole, count = get(chunks):gsub("certwright (%%s\n)", "COMPILED__ %1")
    assert.are.equal(1, count)
  end)

  before_each(function() put(chunks, whole) end)

  it("are used", function()
    assert.matches("^COMPILED__ %d", version())
    assert.matches("assign%-services", run { home .. "/certwright", "help" })
  end)

  it("are compiled although others beside them cannot be", function()
    put(home .. "/lua/half.lua", "return {")
    put(home .. "/lua/script.lua", "#!/usr/bin/env certwright\nreturn 'CODE'\n")
    assert(lfs.link("nobody@nowhere.1", home .. "/lua/.#locked.lua", true))
    run { home .. "/certwright", program:match "^(.*)/" .. "/core/chunks.lua", chunks, home, home }
    local compiled = get(chunks)
    for _, name in ipairs { "half.lua", "script.lua", ".#locked.lua" } do os.remove(home .. "/lua/" .. name) end
    assert.is_nil(compiled:find("half.lua", 1, true))
    assert.is_truthy(compiled:find("/lua/cli.lua", 1, true))
    assert.is_truthy(compiled:find("script.lua....\nreturn 'CODE'\n....\27Lua"))
  end)

  it("are not where the text is another", function()
    local text = get(home .. "/lua/cli.lua")
    put(home .. "/lua/cli.lua", text .. " ")
    local said = version()
    put(home .. "/lua/cli.lua", text)
    assert.matches("^certwright %d", said)
    assert.matches("^COMPILED__ %d", version())
  end)

  it("are not under another name", function()
    run { "mv", home, folder .. "/moved" }
    local said = run { folder .. "/moved/certwright", "--version" }
    run { "mv", folder .. "/moved", home }
    assert.matches("^certwright %d", said)
  end)

  it("are not by another release of Lua", function()
    local other, count = whole:gsub("Lua 5%.4%.%d", "Lua 5.4.x", 1)
    assert.are.equal(1, count)
    put(chunks, other)
    assert.matches("^certwright %d", version())
  end)

  it("are not where others could have written them", function()
    run { "chmod", "666", chunks }
    local said = version()
    run { "chmod", "644", chunks }
    assert.matches("^certwright %d", said)
  end)

  it("are not missed where they are cut, empty or gone", function()
    local at = whole:find("/lua/cli.lua", 1, true)
    for _, size in ipairs { 0, 3, 4, 40, at, at + 100, whole:find("COMPILED", 1, true) } do
      put(chunks, whole:sub(1, size))
      assert.matches("^certwright %d", version())
    end
    os.remove(chunks)
    assert.matches("^certwright %d", version())
    assert(lfs.mkdir(chunks))
    assert.matches("^certwright %d", version())
    assert(lfs.rmdir(chunks))
  end)
end)
