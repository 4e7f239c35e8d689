--- questions.lua: asks a person on a terminal for a text, yes or no, one or
-- several of a list, and asks again until the answer will do.  It prints nothing
-- itself: see wizard.lua, which runs pages of these questions.
--
-- What was typed is data: UTF-8 without control characters, or it is asked for
-- again.  `<` raises M.BACK, the end of input M.ABANDON, for wizard.lua to catch.

local text = require "text"

local M = { BACK = { "back" }, ABANDON = { "abandon" } }

local NONE = "-" -- what is typed for nothing, where something is the default

--- Said when a wizard begins, and with every help.
M.KEYS = "Enter takes what is in [brackets]. ? explains, < goes back, Ctrl-C leaves everything as it is."

--- What wizard.lua hands to its pages; `dialogue` is where it talks, `help` that
-- of the page.
local Ui = {}
Ui.__index = Ui
M.Ui = Ui

-- Writes lines, each broken between words where the terminal ends.
local function write(self, prose, indent, ending)
  local lines = {}
  for line in (text.escape_lines(prose) .. "\n"):gmatch "(.-)\n" do
    lines[#lines + 1] = text.wrap(line, self.dialogue.columns(), #line:match "^ *" + (indent or 0))
  end
  self.dialogue.write(table.concat(lines, "\n") .. (ending or "\n"))
end

--- Says something: prose, or lines that begin with blanks of their own.
-- @param indent of the lines that a long line is broken into, beside its own
function Ui:say(prose, indent)
  write(self, prose, indent)
end

--- Shows lines as they are, for tables that fit.
function Ui:show(lines)
  self.dialogue.write(text.escape_lines(lines) .. "\n")
end

--- Shows a command to copy: what text.hidden lets pass stands in it as it is.
function Ui:paste(command)
  local lines = {}
  for line in command:gmatch "[^\n]+" do
    lines[#lines + 1] = text.replace_hidden(line, function(code)
      return text.hidden(utf8.char(code)) and ("\\u{%04X}"):format(code) or utf8.char(code)
    end)
  end
  self.dialogue.write(table.concat(lines, "\n") .. "\n")
end

--- Shows the command that does what the pages do, to copy.
function Ui:same(command)
  self:say "\nThe same on the command line:"
  self:paste(command)
  self:say ""
end

--- Warns of something that does not stop the user.
function Ui:warn(prose)
  write(self, "Warning: " .. prose, 2)
end

--- The heading of a page, or of what follows the last one.
function Ui:title(title, place)
  title = text.escape(title)
  if self.dialogue.colour then title = "\27[1m" .. title .. "\27[0m" end
  self.dialogue.write(("\n%s%s\n"):format(title, place and (" (%s)"):format(place) or ""))
end

-- One line that was typed, without outer blanks.
local function read(self, prompt)
  while true do
    write(self, prompt .. ":", 2, " ")
    local line = self.dialogue.read()
    if not line then
      self.dialogue.write "\n"
      error(M.ABANDON)
    end
    line = line:match "^%s*(.-)%s*$"
    if not utf8.len(line) then
      self:say "That was not UTF-8; type it again."
    elseif line:find "%c" or line:find "\xC2[\x80-\x9F]" then
      self:say "That held control characters (the arrow keys do nothing here); type it again."
    elseif text.hidden(line) then
      self:say "That held invisible characters; type it again."
    else
      return line
    end
  end
end

-- The answer to a prompt that is no `?` and no `<`.
-- @param hint how to answer, said last
local function answer(self, prompt, question, hint)
  local page_help = not question.apart and self.help
  while true do
    local line = read(self, prompt)
    if line == "<" then error(M.BACK) end
    if line ~= "?" then return line end
    for _, about in ipairs { question.help or false, page_help or false, hint or false, M.KEYS } do
      if about then self:say(about) end
    end
  end
end

-- The prompt of a question, and how to answer it.
local function words_of(question, default)
  if not question.optional then
    return question.prompt .. (default and (" [%s]"):format(text.escape(default)) or ""), question.hint
  end
  local none = question.shown or "none"
  return ("%s [%s]"):format(question.prompt, default and text.escape(default) or none),
    (question.hint and question.hint .. "\n" or "") .. ("%s alone means: %s."):format(NONE, none)
end

--- Asks for a text.
-- @param question { prompt =, default = text, optional = whether nothing will
--   do (`-` says so), shown = what then stands in the brackets ("none"), help =,
--   apart = whether the page's help says nothing of it, hint = how to answer,
--   check = function(text) -> value | nil, message }
-- @return what check returns, else the text; "" for nothing
function Ui:ask(question)
  local default = question.default ~= "" and question.default or nil
  local prompt, hint = words_of(question, default)
  while true do
    local line = answer(self, prompt, question, hint)
    local given = line == "" and default or line
    if question.optional and (given == "" or line == NONE) then return "" end
    local value, message = given, nil
    if given == "" then
      value, message = nil, "This needs an answer; ? explains"
    elseif question.check then
      value, message = question.check(given)
    end
    if value ~= nil then return value end
    self:say((message or "That will not do") .. ".")
  end
end

--- Asks yes or no.
-- @param question { prompt =, default = bool or nil, help = }
function Ui:yes(question)
  local default = question.default
  local shown = default == nil and "y/n" or default and "Y/n" or "y/N"
  while true do
    local line = answer(self, ("%s [%s]"):format(question.prompt, shown), question):lower()
    if line == "" and default ~= nil then return default end
    if line == "y" or line == "yes" then return true end
    if line == "n" or line == "no" then return false end
    self:say "Answer y or n."
  end
end

-- The number of an item by what was typed: its number or its name.
local function find_item(items, word)
  for i, item in ipairs(items) do
    if word == tostring(i) or item.name and word == item.name then return i end
  end
  return nil, ("'%s' is none of them: type %s"):format(text.escape(word),
    #items == 1 and "1" or ("a number from 1 to %d"):format(#items))
end

local function show_items(self, items)
  local room = #tostring(#items)
  for i, item in ipairs(items) do
    self:say(("%" .. room + 2 .. "d  %s"):format(i, item.label), 2)
  end
end

--- Asks for one of a numbered list.
-- @param question { prompt =, items = { { label =, name = a word that chooses it,
--   too }, ... }, default = number or nil, help = }
-- @return its number
function Ui:choose(question)
  show_items(self, question.items)
  return self:ask {
    prompt = question.prompt, help = question.help, default = question.default and tostring(question.default),
    check = function(line) return find_item(question.items, line) end,
  }
end

--- Asks for several of a numbered list: "1,3", names, or "all".
-- @param question as for choose; default = array of numbers; optional = whether
--   none will do
-- @return array of numbers in the list's order
function Ui:choose_some(question)
  local items = question.items
  show_items(self, items)
  local value = self:ask {
    prompt = question.prompt, optional = question.optional, default = table.concat(question.default or {}, ","),
    help = question.help, hint = "Numbers with commas between them, such as 1,3; or all.",
    check = function(line)
      local chosen, list = {}, {}
      for word in line:gmatch "[^,%s]+" do
        local i, message = find_item(items, word)
        if not i and word ~= "all" then return nil, message end
        for n = i or 1, i or #items do chosen[n] = true end
      end
      for i = 1, #items do list[#list + 1] = chosen[i] and i or nil end
      if #list == 0 then return nil, "That chooses none of them" end
      return list
    end,
  }
  return value == "" and {} or value
end

return M
