-- lines.lua: what is typed on pages that show a numbered list and take commands
-- about it: a verb and numbers, or names.

local names = require "names"
local text = require "text"

local M = {}

--- The parts of a line: a verb, if it begins with one of these, and the rest.
-- @param verbs set
-- @return verb or nil, rest
function M.command(line, verbs)
  local verb, rest = line:match "^(%a+)%s*(.*)$"
  if verbs[(verb or ""):lower()] and (rest == "" or line:match "^%a+%s") then return verb:lower(), rest end
  return nil, line
end

--- Numbers such as "3" or "1,3".
-- @param count of the list that they are of; what its lines are called
-- @return array | nil, message
function M.numbers(line, count, what)
  local list = {}
  for word in line:gmatch "[^,%s]+" do
    local number = word:match "^%d+$" and math.tointeger(tonumber(word))
    if not number or number < 1 or number > count then
      return nil, ("'%s' is no %s: type %s"):format(text.escape(word), what,
        count == 1 and "1" or ("a number from 1 to %d"):format(count))
    end
    list[#list + 1] = number
  end
  if #list == 0 then return nil, ("say which %s, by its number"):format(what) end
  return list
end

--- Names that were typed in one line, checked.
-- @return array | nil, message
function M.names(line)
  local list = {}
  for name in line:gmatch "[^,%s]+" do list[#list + 1] = name end
  return names.list(list)
end

return M
