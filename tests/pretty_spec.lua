-- How values are shown at the prompt.

local pretty = require "pretty"
local json = require "json"

describe("a value that is shown", function()
  it("is a string as Lua reads it, whatever bytes it has", function()
    assert.equal([["a\u{001B}[31mb\u{202E}c\nd"]], pretty.show "a\27[31mb\u{202e}c\nd")
    assert.equal([["é漢\xFF\u{0000}\"\\"]], pretty.show "é漢\xff\0\"\\")
    assert.equal("é\nü", pretty.show "é\nü")
  end)

  it("says how long a string is that it cuts, between characters", function()
    assert.equal(('"%s" ... (20000 bytes)'):format(("é"):rep(8192)), pretty.show(("é"):rep(10000)))
    assert.equal(('{\n  "%s" ... (400 bytes),\n}'):format(("x"):rep(300)), pretty.show { ("x"):rep(400) })
  end)

  it("quotes a string of several lines within a table", function()
    assert.equal([[{ pem = "a\nb\n" }]], pretty.show { pem = "a\nb\n" })
  end)

  it("is a long list side by side, with how many more there are", function()
    local list = {}
    for i = 1, 10000 do list[i] = i end
    local shown = pretty.show(list)
    assert.is_truthy(shown:find("\n  1, 2, 3, 4, 5,", 1, true))
    assert.is_truthy(shown:find("\n  %.%.%. %(9940 more%),\n}$"))
    for line in shown:gmatch "[^\n]+" do assert.is_true(#line <= 80) end
  end)

  it("is a table with keys of every kind, in an order", function()
    local keyed = { ["a\nb"] = 1, [1.5] = 2, [true] = 3, ["end"] = 4, name = 5, [{}] = 6 }
    local shown = pretty.show(keyed)
    for _, item in ipairs { "[1.5] = 2", [=[["a\nb"] = 1]=], '["end"] = 4', "name = 5", "[true] = 3", "[{}] = 6" } do
      assert.is_truthy(shown:find(item, 1, true), shown)
    end
    assert.is_true(shown:find("[1.5]", 1, true) < shown:find("[true]", 1, true))
  end)

  it("ends at a depth, at itself, and at so many entries in all", function()
    assert.equal("{ 1, { 2, { 3, { 4, { ... } } } } }", pretty.show { 1, { 2, { 3, { 4, { 5 } } } } })
    local own = {}
    own.own = own
    assert.equal("{ own = { ... the same again ... } }", pretty.show(own))
    local wide = {}
    for i = 1, 60 do
      wide[i] = {}
      for j = 1, 60 do wide[i][j] = { j, j, j } end
    end
    assert.is_true(#pretty.show(wide) < 20000)
  end)

  it("is shown whatever its metatable does", function()
    local function bad() error "no" end
    assert.equal("{ 1, 2 }", pretty.show(setmetatable({ 1, 2 }, { __len = bad, __index = bad, __pairs = bad,
      __eq = bad })))
    assert.is_truthy(pretty.show(setmetatable({}, { __tostring = bad })):find "^table that cannot be shown: .*no$")
    assert.equal("5", pretty.show(setmetatable({}, { __tostring = function() return 5 end })))
    assert.is_truthy(pretty.show(setmetatable({}, { __tostring = function() return {} end })):find "cannot be shown")
    assert.equal("a\\u{001B}b", pretty.show(setmetatable({}, { __tostring = function() return "a\27b" end })))
  end)

  it("is a number, null, or where a function is", function()
    assert.equal("nan", pretty.show(0 / 0))
    assert.equal("3.0", pretty.show(3.0))
    assert.equal("null", pretty.show(json.null))
    assert.is_truthy(pretty.show(pretty.show):find "^function: pretty%.lua:%d+$")
  end)
end)

describe("what a call returned", function()
  it("is each value on a line, nil too", function()
    assert.equal('1\nnil\n"x"', pretty.results(table.pack(1, nil, "x")))
    assert.equal("", pretty.results(table.pack()))
    assert.equal("nil", pretty.results(table.pack(nil)))
  end)

  it("is a refusal where it is nil, message, code", function()
    assert.equal("refused (missing): no\\u{001B}\nfile", pretty.results(table.pack(nil, "no\27\nfile", "missing")))
  end)
end)
