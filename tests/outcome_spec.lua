-- outcome.lua: one exit status for several results.

local outcome = require "outcome"

describe("outcome", function()
  local function worst(...)
    local list = {}
    for i, code in ipairs { ... } do list[i] = code ~= "done" and { message = i .. "", code = code } or {} end
    return outcome.worst(list)
  end

  it("is nothing when all went well", function()
    assert.is_nil(outcome.worst {})
    assert.is_nil(worst("done", "done"))
  end)

  it("is what could not be put back, then what failed, then what waits", function()
    assert.same({ "2\n3\n4", "unrestored" }, { worst("done", "io", "unrestored", "pending") })
    assert.same({ "1\n3", "unobserved" }, { worst("pending", "done", "unobserved") })
    assert.same({ "1\n2", "pending" }, { worst("pending", "pending") })
  end)

  it("is no misuse of the command because one of many says so", function()
    assert.same({ "1\n2", "refused" }, { worst("usage", "pending") })
  end)

  it("lists each object once, and knows an interrupt", function()
    local list = outcome.fields { { id = 1, fields = { "a" } }, { id = 2, fields = { "b" } }, { id = 1, fields = { "c" } } }
    assert.same({ "a", "b" }, { list[1][1], list[2][1] })
    assert.is_true(outcome.is_interrupted "lua/x.lua:3: interrupted; everything is as before")
    assert.is_true(outcome.is_interrupted "interrupted")
    assert.is_false(outcome.is_interrupted "the CA refuses: your payment was interrupted")
    assert.is_false(outcome.is_interrupted(nil))
  end)
end)
