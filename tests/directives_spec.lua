-- directives: nginx's grammar.

local directives = require "directives"
local process = require "core.process"
local lfs = require "lfs"

local folder

local function write(name, text)
  local stream = assert(io.open(folder .. "/" .. name, "w"))
  stream:write(text)
  stream:close()
  return folder .. "/" .. name
end

local function read(text, follow)
  return directives.read(write("main.conf", text), follow or function() return true end)
end

describe("directives", function()
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    lfs.mkdir(folder)
  end)

  teardown(function()
    process.run { "rm", "-r", folder }
  end)

  it("reads words, quotes, escapes and comments", function()
    local list = assert(read [[
      # include nothing.conf;
      a b"c 'd;e' "f\"g\\h" i\ j#k ${x}y; # tail
      l 'it';
    ]])
    assert.same({ "a", 'b"c', "d;e", 'f"g\\h', "i\\ j#k", "${x}y" }, { table.unpack(list[1]) })
    assert.equal(2, #list)
    assert.equal(2, list[1].line)
    assert.equal(3, list[2].line)
  end)

  it("reads blocks within blocks", function()
    local list = assert(read "http{server{listen 1;}server{listen 2;}}")
    local servers = directives.named(list[1].block, "server")
    assert.equal("2", servers[2].block[1][2])
  end)

  it("passes over the code of a Lua block", function()
    local list = assert(read 'a { content_by_lua_block { local x = { "}" and {} } -- { it; } \n } b c; }')
    assert.same({ "b", "c" }, { table.unpack(directives.named(list[1].block, "b")[1]) })
  end)

  it("follows includes by pattern, relative to the main file, in order", function()
    lfs.mkdir(folder .. "/d")
    write("d/2.conf", "two;")
    write("d/1.conf", "one; include d/3.inc;")
    write("d/3.inc", "three;")
    local list = assert(read "include d/*.conf; include none/*.conf; last;")
    local names = {}
    for _, directive in ipairs(list) do
      names[#names + 1] = directive[1]
    end
    assert.same({ "include", "one", "include", "three", "two", "include", "last" }, names)
    assert.equal(folder .. "/d/*.conf", list[1][2])
    assert.equal(folder .. "/d/2.conf", list[5].file)
  end)

  it("does not open what it is told not to follow", function()
    local list = assert(read("include /nowhere/x.conf;", function() return false end))
    assert.equal("/nowhere/x.conf", list[1][2])
  end)

  it("refuses an include that is not there", function()
    local list, message, code = read "include nothing.conf;"
    assert.is_nil(list)
    assert.equal("missing", code)
    assert.matches("nothing.conf", message, 1, true)
  end)

  it("refuses includes without end", function()
    local _, message, code = read "include main.conf;"
    assert.equal("limit", code)
    assert.matches("nested more than 20 deep", message, 1, true)
  end)

  it("refuses a NUL, also in a path to include", function()
    local path = folder .. "/main.conf"
    assert.same({ nil, ("cannot read '%s': it holds a NUL"):format(path), "parse" }, { read "include a\0b;" })
  end)

  for _, case in ipairs {
    { "a 'b;\n", "line 1: a quote is not closed" }, { 'a "b\\', "line 1: a quote is not closed" },
    { "a b\\", "line 1: it ends inside a directive or a block" },
    { "a;\nb {\n c;\n", "line 4: it ends inside a directive or a block" },
    { "a;\n}", "line 2: unexpected '}'" }, { "a;;", "line 1: unexpected ';'" }, { "{ a; }", "line 1: unexpected '{'" },
    { "a {\n b }", "line 2: unexpected '}'" }, { "x_by_lua_block { {", "line 1: a block is not closed" },
  } do
    it("refuses " .. ("%q"):format(case[1]), function()
      local list, message, code = read(case[1])
      assert.is_nil(list)
      assert.equal("parse", code)
      assert.matches(case[2], message, 1, true)
    end)
  end
end)
