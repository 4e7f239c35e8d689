-- commandline.lua: a command with its options, as a person would type it: for
-- pasting into a POSIX shell, and for reading.

local invocation = require "invocation"
local options = require "options"

local M = {}

--- A word as a shell takes it for one word.
M.quote = invocation.quote

-- What an option is given by: a name and a value. One that begins with a hyphen
-- would be taken for an option itself.
local function given(option, value)
  if value == true then return { option[1] } end
  if type(value) == "table" then value = table.concat(value, ",") end
  value = tostring(value)
  if value:sub(1, 1) == "-" then return { option[1] .. "=" .. value } end
  return { option[1], value }
end

-- The words that give a script's options, a group for each option.
local function groups(script, args)
  local list = {}
  for _, option in ipairs(script.options) do
    local value = args[options.key(option)]
    for _, each in ipairs(option.many and value or { value or nil }) do list[#list + 1] = given(option, each) end
  end
  return list
end

--- The arguments of a script that give its options, as argv has them.
-- @param script as scripts.load returns it
-- @param args its options by key
-- @return array
function M.arguments(script, args)
  local list = {}
  for _, group in ipairs(groups(script, args)) do table.move(group, 1, #group, #list + 1, list) end
  return list
end

--- The quoted words of a command, a group for each that belong together.
-- @param context whose site and state folders are named where they are not the
--   usual ones
-- @param script, args as for arguments
-- @return array of arrays
function M.words(context, script, args)
  local words = invocation.program(context)
  words[#words + 1] = { script.name }
  local given_words = groups(script, args)
  table.move(given_words, 1, #given_words, #words + 1, words)
  for _, group in ipairs(words) do
    for i, word in ipairs(group) do group[i] = M.quote(word) end
  end
  return words
end

--- Words as lines: broken between groups, else within one, where a line would be
-- wider than so many columns.
function M.lines(words, columns)
  local lines, line = {}, ""
  local function add(word, is_apart)
    local longer = line == "" and word or line .. " " .. word
    if line ~= "" and (is_apart or utf8.len(longer) + 2 > columns) then
      lines[#lines + 1] = line .. " \\"
      longer = "  " .. word
    end
    line = longer
  end
  for _, group in ipairs(words) do
    local whole = table.concat(group, " ")
    local is_whole = utf8.len(whole) + 4 <= columns
    for i, word in ipairs(is_whole and { whole } or group) do add(word, not is_whole and i == 1) end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

return M
