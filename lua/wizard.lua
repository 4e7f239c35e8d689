--- wizard.lua: pages of questions on a terminal, in plain lines: no cursor is
-- moved, so that it works over ssh and with a screen reader.  It knows no page
-- and prints nothing itself; whoever runs it hands it a dialogue
-- (context:dialogue()): { columns(), colour, read() -> line | nil, write(text) }.
--
--     local ui = wizard.new(context:dialogue())
--     local answers, message, code = ui:run({ page, ... }, {})
--
-- A page is { title = text, help = text, skip = function(state) -> bool or nil,
-- run = function(state, ui) }.  What it asks it keeps in state, and offers it as
-- the default when it is run again: so nothing is lost on the way back.  A run
-- that returns nil, message, code ends the wizard with that.  A last page without
-- `run` is a title alone ("Completion"): what was asked for is done below it.
--
-- A page talks by ui:say, show, same, warn, title, and asks by ui:ask, yes, choose,
-- choose_some (questions.lua); ui:form and ui:within, below, put them together.
-- To every question: Enter takes what is in [brackets], `?` explains, `<` goes
-- back: to the question before in a form, out of ui:within, else to the page
-- before.  Ctrl-C and the end of input abandon everything.

local interrupt = require "core.interrupt"
local questions = require "questions"

local M = {}

local Ui, BACK, ABANDON = questions.Ui, questions.BACK, questions.ABANDON

--- A wizard that talks through a dialogue.
function M.new(dialogue)
  return setmetatable({ dialogue = dialogue }, Ui)
end

--- Goes back, as `<` does.
function Ui.back()
  error(BACK)
end

--- Ends the wizard, as Ctrl-C does.
function Ui.abandon()
  error(ABANDON)
end

-- Runs a part; false when `<` was the answer to a question of it.
local function attempt(part, ...)
  local results = table.pack(pcall(part, ...))
  if results[1] then return true, table.unpack(results, 2, results.n) end
  if results[2] == BACK then return false end
  error(results[2], 0)
end

--- Asks for a part of a page that `<` leaves, to where it was begun.
-- @param part function that asks
-- @return true and what part returns | false after `<`
function Ui.within(_, part)
  return attempt(part)
end

--- Asks questions one after the other; `<` goes to the one before.
-- @param into where the answers are kept, by key; what is there is the default
-- @param list array of { key =, kind = "ask" | "yes" | "choose" |
--   "choose_some" (default: ask), skip = function(into) -> bool, and what that
--   kind takes; default may be a function(into) }
function Ui:form(into, list)
  local path, i = {}, 1
  while i <= #list do
    local question = list[i]
    if question.skip and question.skip(into) then
      i = i + 1
    else
      local default = question.default
      if type(default) == "function" then default = default(into) end
      if into[question.key] ~= nil then default = into[question.key] end
      local now = setmetatable({ default = default }, { __index = question })
      local went, value = attempt(self[question.kind or "ask"], self, now)
      if went then
        into[question.key], path[#path + 1], i = value, i, i + 1
      elseif #path == 0 then
        error(BACK)
      else
        i = table.remove(path)
      end
    end
  end
end

-- The page after (step 1) or before (step -1) a place that is not skipped, and
-- which of how many such pages it is.
local function find_page(pages, state, place, step)
  local number, count, found = 0, 0, nil
  place = place + step
  while pages[place] and pages[place].skip and pages[place].skip(state) do place = place + step end
  for i, page in ipairs(pages) do
    if i == place or not (page.skip and page.skip(state)) then count = count + 1 end
    if i == place then number, found = count, place end
  end
  return found, number, count
end

local function walk(self, pages, state)
  self:say(questions.KEYS)
  local place, number, count = find_page(pages, state, 0, 1)
  while place do
    local page = pages[place]
    self:title(page.title, ("page %d of %d"):format(number, count))
    self.help = page.help
    if not page.run then return state end
    local went, done, message, code = attempt(page.run, state, self)
    if went and done == nil and message ~= nil then return nil, message, code end
    local to, n, of = find_page(pages, state, place, went and 1 or -1)
    if to or went then
      place, number, count = to, n, of
    else
      self:say "This is the first page; Ctrl-C leaves."
    end
  end
  return state
end

--- Runs pages in their order.
-- @param state what the pages read and write; the answers so far
-- @return state | nil, message, "refused" when it was abandoned, or what a page
--   returned
function Ui:run(pages, state)
  local before = interrupt.watch(true)
  local results = table.pack(interrupt.run(function() return walk(self, pages, state) end, function(problem)
    return problem
  end))
  if not before then interrupt.watch(false) end
  self.help = nil
  if results[1] then return table.unpack(results, 2, results.n) end
  local problem = results[2]
  local interrupted = type(problem) == "string" and problem:find "interrupted$"
  if interrupted then self.dialogue.write "\n" end
  if interrupted or problem == ABANDON then return nil, "abandoned: nothing was changed", "refused" end
  error(problem, 0)
end

return M
