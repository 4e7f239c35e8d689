-- The engine of the pages: by a dialogue that is written down, and on a real
-- terminal.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/" or ""
local Terminal = dofile(here .. "tests/support/terminal.lua")
local lfs = require "lfs"
local wizard = require "wizard"
local program = assert(lfs.symlinkattributes("/proc/self/exe", "target"))

-- A wizard that is typed these lines and then the end of input; and what it said.
local function scripted(lines, columns)
  local said, at = {}, 0
  local ui = wizard.new {
    columns = function() return columns or 80 end,
    write = function(text) said[#said + 1] = text end,
    read = function()
      at = at + 1
      said[#said + 1] = lines[at] and lines[at] .. "\n" or ""
      return lines[at]
    end,
  }
  return ui, function() return table.concat(said) end
end

-- Runs pages with these lines; the state or nil, message, code, then what was said.
local function run(lines, pages, state)
  local ui, said = scripted(lines)
  local result, message, code = ui:run(pages, state or {})
  return result, said(), message, code
end

-- Asks one question by this method; the answer, and what was said.
local function asked(lines, method, question)
  local value
  local state, said = run(lines, { { title = "Page", run = function(_, ui)
    value = ui[method](ui, question)
  end } })
  assert.is_truthy(state, "abandoned: " .. said)
  return value, said
end

local function page(key, fields)
  local question = { prompt = key, optional = true }
  for name, value in pairs(fields or {}) do question[name] = value end
  return { title = "Page " .. key, skip = question.skip, run = function(state, ui)
    question.default = state[key]
    state[key] = ui:ask(question)
  end }
end

describe("a question", function()
  it("shows its default in brackets and takes it at Enter", function()
    local value, said = asked({ "" }, "ask", { prompt = "Name", default = "mail" })
    assert.equal("mail", value)
    assert.is_truthy(said:find("\nName [mail]: \n", 1, true))
  end)

  it("takes what was typed, without outer blanks", function()
    assert.equal("Grüße  aus", (asked({ "  Grüße  aus\t" }, "ask", { prompt = "Name", default = "mail" })))
  end)

  it("is asked again until it is answered", function()
    local value, said = asked({ "", " ", "x" }, "ask", { prompt = "Name" })
    assert.equal("x", value)
    assert.is_truthy(said:find("Name: \nThis needs an answer; ? explains.\nName:  \nThis needs an answer", 1, true))
  end)

  it("says why an answer will not do, and asks again; the default is checked as well", function()
    local value, said = asked({ "x", "", "7" }, "ask", { prompt = "Number", default = "y", check = function(line)
      if not tonumber(line) then return nil, ("'%s' is no number"):format(line) end
      return tonumber(line)
    end })
    assert.equal(7, value)
    assert.is_truthy(said:find("'x' is no number.\nNumber [y]: \n'y' is no number.\n", 1, true))
  end)

  it("may be left empty where that is said", function()
    assert.equal("", (asked({ "" }, "ask", { prompt = "Unit", optional = true })))
    local value, said = asked({ "?", "-" }, "ask", { prompt = "Unit", optional = true, default = "Mail" })
    assert.equal("", value)
    assert.is_truthy(said:find("- alone means: none.", 1, true))
  end)

  it("explains itself, its page and the keys at ?", function()
    local _, said = run({ "?", "x" }, { { title = "Page", help = "About the page.", run = function(_, ui)
      ui:ask { prompt = "Name", help = "About the name." }
    end } })
    assert.is_truthy(said:find("About the name.\nAbout the page.\nEnter takes what is in [brackets].", 1, true))
    _, said = run({ "?", "x" }, { { title = "Page", help = "About the page.", run = function(_, ui)
      ui:ask { prompt = "Name", help = "About the name.", optional = true }
    end } })
    assert.is_truthy(said:find("About the name.\nAbout the page.\n- alone means: none.\nEnter takes", 1, true))
    _, said = run({ "?", "x" }, { { title = "Page", help = "About the page.", run = function(_, ui)
      ui:ask { prompt = "Name", help = "About the name.", apart = true }
    end } })
    assert.is_truthy(said:find("About the name.\nEnter takes what is in [brackets].", 1, true))
  end)

  it("takes no control characters and nothing but UTF-8", function()
    local value, said = asked({ "\27[A", "a\xFFb", "a\xC2\x9Bb", "ab" }, "ask", { prompt = "Name" })
    assert.equal("ab", value)
    assert.equal(2, select(2, said:gsub("That held control characters %(the arrow keys do nothing here%)", "")))
    assert.equal(1, select(2, said:gsub("That was not UTF%-8; type it again%.", "")))
  end)

  it("escapes what it shows", function()
    local _, said = asked({ "" }, "ask", { prompt = "Name\27[2J", default = "a\u{202E}b" })
    assert.is_truthy(said:find("Name\\u{001B}[2J [a\\u{202E}b]: ", 1, true))
  end)

  it("is yes or no", function()
    assert.is_true(asked({ "" }, "yes", { prompt = "Go on?", default = true }))
    assert.is_false(asked({ "" }, "yes", { prompt = "Go on?", default = false }))
    local value, said = asked({ "", "perhaps", "YES" }, "yes", { prompt = "Go on?" })
    assert.is_true(value)
    assert.equal(2, select(2, said:gsub("\nAnswer y or n%.", "")))
    assert.is_false(asked({ "n" }, "yes", { prompt = "Go on?", default = true }))
  end)

  local items = { { label = "web on nginx", name = "web" }, { label = "smtp on postfix", name = "smtp" }, { label = "imap" } }

  it("is one of a numbered list, by number or name", function()
    local value, said = asked({ "4", "nope", "smtp" }, "choose", { prompt = "Service", items = items, default = 1 })
    assert.equal(2, value)
    assert.is_truthy(said:find("\n  1  web on nginx\n  2  smtp on postfix\n  3  imap\nService [1]: ", 1, true))
    assert.is_truthy(said:find("'4' is none of them: type a number from 1 to 3.\n", 1, true))
    assert.is_truthy(said:find("'nope' is none of them", 1, true))
    assert.equal(1, (asked({ "" }, "choose", { prompt = "Service", items = items, default = 1 })))
  end)

  it("is several of a numbered list", function()
    local question = { prompt = "Services", items = items, default = { 1, 2 }, optional = true }
    assert.same({ 1, 3 }, (asked({ "3, web" }, "choose_some", question)))
    assert.same({ 1, 2, 3 }, (asked({ "all" }, "choose_some", question)))
    assert.same({}, (asked({ "-" }, "choose_some", question)))
    local value, said = asked({ "1,9", "," , "" }, "choose_some", question)
    assert.same({ 1, 2 }, value)
    assert.is_truthy(said:find("Services [1,2]: ", 1, true))
    assert.is_truthy(said:find("'9' is none of them", 1, true))
    assert.is_truthy(said:find("That chooses none of them.", 1, true))
  end)
end)

describe("pages", function()
  it("run in their order, with their titles, places and the keys", function()
    local state, said = run({ "1", "2" }, { page "a", page "b" })
    assert.same({ a = "1", b = "2" }, state)
    assert.is_truthy(said:find("^Enter takes what is in %[brackets%]%. %? explains, < goes back, Ctrl%-C leaves"))
    assert.is_truthy(said:find("\nPage a (page 1 of 2)\n", 1, true))
    assert.is_truthy(said:find("\nPage b (page 2 of 2)\n", 1, true))
  end)

  it("go back with < and lose nothing", function()
    local state, said = run({ "1", "2", "<", "<", "", "", "3" }, { page "a", page "b", page "c" })
    assert.same({ a = "1", b = "2", c = "3" }, state)
    assert.is_truthy(said:find("Page a (page 1 of 3)\na [1]: \n\nPage b (page 2 of 3)\nb [2]: ", 1, true))
  end)

  it("do not go back before the first", function()
    local state, said = run({ "<", "1" }, { page "a" })
    assert.same({ a = "1" }, state)
    assert.is_truthy(said:find("This is the first page; Ctrl-C leaves.", 1, true))
  end)

  it("are skipped on the way forth and back, and are not counted then", function()
    local skipped = page("b", { skip = function(state) return state.a == "skip" end })
    local state, said = run({ "skip", "<", "", "3" }, { page "a", skipped, page "c" })
    assert.same({ a = "skip", c = "3" }, state)
    assert.is_truthy(said:find("Page c (page 2 of 2)", 1, true))
    assert.is_nil(said:find("Page b", 1, true))
    assert.same({ a = "x", b = "2", c = "3" }, run({ "x", "2", "3" }, { page "a", skipped, page "c" }))
  end)

  it("end with a title, where the last one asks nothing", function()
    local state, said = run({ "1" }, { page "a", { title = "Completion" } })
    assert.same({ a = "1" }, state)
    assert.is_truthy(said:find("Page a (page 1 of 2)\na [none]: 1\n\nCompletion (page 2 of 2)\n", 1, true))
  end)

  it("end with what a page returns", function()
    local state, _, message, code = run({}, { { title = "Page", run = function() return nil, "no such thing", "missing" end } })
    assert.same({ nil, "no such thing", "missing" }, { state, message, code })
  end)

  it("are abandoned at the end of input, or by themselves", function()
    local state, _, message, code = run({ "1" }, { page "a", page "b" })
    assert.same({ nil, "abandoned: nothing was changed", "refused" }, { state, message, code })
    state, _, message = run({ "1" }, { { title = "Page", run = function(_, ui) ui:abandon() end } })
    assert.same({ nil, "abandoned: nothing was changed" }, { state, message })
  end)

  it("raise what is wrong in them", function()
    assert.error_matches(function() run({}, { { title = "Page", run = function() error "broken page" end } }) end, "broken page")
  end)

  it("have parts that < leaves", function()
    local outcome = {}
    local state = run({ "<", "x" }, { { title = "Page", run = function(_, ui)
      outcome[1] = ui:within(function() return ui:ask { prompt = "inner" } end)
      outcome[2], outcome[3] = ui:within(function() return ui:ask { prompt = "inner" } end)
    end } })
    assert.is_truthy(state)
    assert.same({ false, true, "x" }, outcome)
  end)

  it("have forms, in which < goes to the question before", function()
    local form = { title = "Form", run = function(state, ui)
      ui:form(state, {
        { key = "one", prompt = "One", default = "1" },
        { key = "two", prompt = "Two", optional = true, skip = function(into) return into.one == "no two" end },
        { key = "sure", kind = "yes", prompt = "Sure?", default = false },
        { key = "three", prompt = "Three", default = function(into) return into.one .. (into.two or "") end },
      })
    end }
    local state, said = run({ "0", "x", "1", "y", "<", "<", "-", "", "" }, { page "zero", form })
    assert.same({ zero = "0", one = "x", two = "", sure = true, three = "x" }, state)
    assert.is_truthy(said:find("Three [x1]: <\nSure? [Y/n]: <\nTwo [1]: -\nSure? [Y/n]: \nThree [x]: ", 1, true))
    state = run({ "0", "a", "<", "<", "9", "no two", "y", "3" }, { page "zero", form })
    assert.same({ zero = "9", one = "no two", sure = true, three = "3" }, state)
  end)

  it("break lines where the terminal ends", function()
    local ui, said = scripted({ "" }, 40)
    ui:run({ { title = "Page", run = function(_, inner)
      inner:say(("word "):rep(30))
      inner:say("  - " .. ("item "):rep(20), 2)
      inner:warn(("careful "):rep(10))
      inner:ask { prompt = "A question that is rather long, with a default", default = "mail.contoso.com" }
    end } }, {})
    for line in said():gmatch "[^\n]+" do
      assert.is_true(#line <= 40, line)
    end
    assert.is_truthy(said():find("\n    item item", 1, true))
    assert.is_truthy(said():find("\nWarning: careful", 1, true))
  end)
end)

describe("on a terminal, pages", function()
  local chunk = [[
    local wizard = require "wizard"
    local ui = wizard.new(require("context"):dialogue())
    local function page(key)
      return { title = "Page " .. key, run = function(state, inner)
        state[key] = inner:ask { prompt = key, default = state[key], optional = key == "b" }
      end }
    end
    local state, message, code = ui:run({ page "a", page "b" }, {})
    if not state then return nil, message, code end
    print(("got %s and %s"):format(state.a, state.b))
  ]]

  local function start(env)
    local terminal = Terminal.new({ program, "-e", chunk }, { env = env })
    terminal:expect "\na: "
    return terminal
  end

  it("are answered by whoever types, who goes back and forth", function()
    local terminal <close> = start()
    terminal:type "first ümlaut\n"
    terminal:expect "\nb %[none%]: "
    terminal:type "<\n"
    terminal:expect "\na %[first ümlaut%]: "
    terminal:type "\n"
    terminal:expect "%[none%]: <\n.*%[none%]: " -- what is typed before a prompt is shown before it
    terminal:type "-\n"
    terminal:expect "\ngot first ümlaut and \n"
    assert.equal(0, terminal:ended())
  end)

  it("end at Ctrl-C, with a line half typed as well, and at Ctrl-D", function()
    for _, keys in ipairs { { "C-c" }, { "x", "C-c" }, { "x", "C-d", "C-c" }, { "C-d" } } do
      local terminal <close> = start()
      for _, key in ipairs(keys) do terminal:key(key) end
      terminal:expect "\ncertwright: abandoned: nothing was changed\n"
      assert.equal(1, terminal:ended())
    end
  end)

  it("have bold titles, and none with NO_COLOR or on a dumb terminal", function()
    local function raw(...)
      local result = assert(require("core.process").run({ "script", "-qec",
        ("env %s %s -e '%s'"):format(table.concat({ ... }, " "), program, chunk:gsub("'", "'\\''")), "/dev/null" },
        { timeout = 30, stdin = "1\n2\n" }))
      assert.is_truthy(result.stdout:find "got 1 and 2")
      return result.stdout:find("\27", 1, true) ~= nil
    end
    assert.is_true(raw("TERM=xterm", "NO_COLOR="))
    assert.is_false(raw("TERM=xterm", "NO_COLOR=1"))
    assert.is_false(raw("TERM=dumb", "NO_COLOR="))
  end)
end)
