-- A command as a person would type it: what a shell makes of it is what was meant.

local commandline = require "commandline"
local where = require "where"
local process = require "core.process"

local SCRIPT = { name = "new-request", options = { { "--name", "" , argument = "X" }, { "--domain", "", argument = "D", many = true },
  { "--services", "", argument = "A,B" }, { "--wildcard", "" }, { "id", "", argument = "ID" } } }

local function context(site, state)
  return { site_dir = site or where.site(), state_dir = state or where.state() }
end

local function line(args, columns, ...)
  return commandline.lines(commandline.words(context(...), SCRIPT, args), columns or 1000)
end

-- The words that a shell takes a command for.
local function split(text)
  local result = assert(process.run { "sh", "-c", "for word in " .. text .. "; do printf '%s\\0' \"$word\"; done" })
  assert.equal(0, result.status, result.stderr)
  local words = {}
  for word in result.stdout:gmatch "(%Z*)%z" do words[#words + 1] = word end
  return words
end

describe("a command line", function()
  it("has the options that were given, in the script's order", function()
    assert.equal("certwright new-request --name x --domain a.test --domain b.test --services web,smtp --wildcard",
      line { domain = { "a.test", "b.test" }, wildcard = true, name = "x", services = { "web", "smtp" } })
    assert.equal("certwright new-request", line { domain = {} })
  end)

  it("names folders that are not the usual ones", function()
    assert.equal("certwright --site '/my site' --state /s new-request --name ''", line({ name = "" }, nil, "/my site", "/s"))
  end)

  it("is taken apart by a shell as it was meant", function()
    local names = { "it's", "$HOME `x` $(y) \\ \"q\"", "-x", "--json", "", "*", "a b", "~", "#", "é", "!x", "a=b;c&d|e>f" }
    local expected = { "certwright", "new-request" }
    for _, name in ipairs(names) do
      local words = name:sub(1, 1) == "-" and { "--domain=" .. name } or { "--domain", name }
      table.move(words, 1, #words, #expected + 1, expected)
    end
    assert.same(expected, split(line { domain = names }))
    assert.same(expected, split(line({ domain = names }, 30)))
    assert.same(expected, split(line({ domain = names }, 1)))
  end)

  it("is broken between options, else between words, to so many columns", function()
    local text = line({ name = ("n"):rep(29), domain = { "a.test", ("b"):rep(31) .. ".test", "c.test" } }, 40)
    assert.equal(table.concat({ "certwright new-request", "--name " .. ("n"):rep(29), "--domain a.test", "--domain",
      ("b"):rep(31) .. ".test", "--domain c.test" }, " \\\n  "), text)
  end)
end)
