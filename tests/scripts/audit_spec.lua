-- audit: the record for people: its table, its filters, and what it refuses.
-- What is in it, and what --verify finds, is in tests/audit_spec.lua.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local Terminal = dofile(here .. "support/terminal.lua")

describe("audit", function()
  local desk

  setup(function()
    desk = Desk.new "audit"
    desk:ask("--domain", "a.test", "--name", "mail")
    desk:ask("--domain", "b.test")
    desk:run("cancel", "7")
    desk:done("cancel", "2")
    desk:done("remove", "2")
  end)
  teardown(function() desk:close() end)

  local function shown(...)
    local result = desk:run("audit", ...)
    assert.equal(0, result.status, result.stderr)
    return desk:shown(result.stdout)
  end

  it("shows a line for each command that changed something, or tried to", function()
    assert.equal([[
NO  AT                    WHO   COMMAND      ID  RESULT  CHANGE
2   TIME  root  new-request  1   done    1: created
4   TIME  root  new-request  2   done    2: created
6   TIME  root  cancel       -   failed  there is no request or certificate 7; see certwright list
8   TIME  root  cancel       2   done    2: created -> cancelled
10  TIME  root  remove       2   done    2: cancelled -> removed
]], shown())
  end)

  it("shows what was done to one object, and since when", function()
    local function numbers(...)
      local list = {}
      for number in shown(...):gmatch "%f[^\n](%d+) " do list[#list + 1] = tonumber(number) end
      return list
    end
    assert.same({ 2 }, numbers "1")
    assert.same({ 4, 8, 10 }, numbers "2")
    assert.same({ 2, 4, 6, 8, 10 }, numbers("--since", "2020-01-01"))
    assert.same({ 2 }, numbers("--since", os.date("!%Y-%m-%d"), "1"))
    assert.equal("the audit record has no such line\n", shown("--since", "2100-01-01T00:00:00Z"))
    assert.equal("the audit record has no such line\n", shown "20")
  end)

  it("gives every field of every line as JSON, those that do not apply as null", function()
    local list = desk:done "audit"
    assert.equal(10, #list)
    local fields = {}
    for field in pairs(list[1]) do fields[#fields + 1] = field end
    table.sort(fields)
    assert.equal("after arguments at before begun code command hash host message name object pid previous result seq status "
      .. "torn who", table.concat(fields, " "))
    assert.equal(list[1].hash, list[2].previous)
    assert.same({ {}, {} }, { (desk:done("audit", "99")), (desk:done("audit", "--since", "2100-01-01")) })
  end)

  it("fits a terminal", function()
    local terminal <close> = Terminal.new({ desk.program, "--site", desk.site, "--state", desk.state, "audit" }, { columns = 80 })
    local screen = terminal:expect "removed"
    for line in screen:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    assert.is_truthy(screen:find "%d%d%d%d%-%d%d%-%d%d %d%d:%d%d +%a+", screen)
  end)

  it("--verify says what it does not show, in help as well", function()
    local said = shown "--verify"
    assert.is_truthy(said:find "^the audit record is whole: 10 records, up to\n10:HEX\n\nA chain of hashes shows what was changed")
    for _, text in ipairs { said, desk:run("help", "audit").stdout } do
      assert.is_truthy(text:find("root can do that, and change what the store\nremembers as well", 1, true), text)
      assert.is_truthy(text:find("sent to another machine", 1, true), text)
    end
    local value = desk:done("audit", "--verify")
    assert.same({ true, 10, {} }, { value.whole, value.records, value.warnings })
    assert.is_truthy(value.limits:find "^A chain of hashes")
    assert.same({ 10, value.hash }, { desk:done("audit", "--head").seq, desk:done("audit", "--head").hash })
  end)

  it("refuses what makes no sense", function()
    local seen = "see certwright help audit"
    desk:refuses(2, "usage", "--expect needs --verify", "audit", "--expect", "1:" .. ("0"):rep(64))
    desk:refuses(2, "usage", "--expect: '1:ab' is not what certwright audit --head prints; " .. seen, "audit", "--verify", "--expect", "1:ab")
    desk:refuses(2, "usage", "--verify is about the whole record: give it alone, or with --expect", "audit", "--verify", "1")
    desk:refuses(2, "usage", "'mail' is no id; certwright list shows them", "audit", "mail")
    desk:refuses(2, "usage", "--since: 'monday' is no day such as 2026-11-22 and no time such as TIME; " .. seen,
      "audit", "--since", "monday")
  end)
end)
