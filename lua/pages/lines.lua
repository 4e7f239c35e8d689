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

--- Numbers such as "3", "1,3" or "2-4".
-- @param count of the list that they are of; what its lines are called
-- @return array | nil, message
function M.numbers(line, count, what)
  local list = {}
  for word in line:gsub("%s*%-%s*", "-"):gmatch "[^,%s]+" do
    local first, last = word:match "^(%d+)%-?(%d*)$"
    first, last = math.tointeger(tonumber(first)), math.tointeger(tonumber(last)) or math.tointeger(tonumber(first))
    if not first or first < 1 or last > count or last < first then
      return nil, ("'%s' is no %s: %s"):format(text.escape(word), what, count == 0 and "there are none"
        or count == 1 and "type 1" or ("type a number from 1 to %d"):format(count))
    end
    for number = first, last do list[#list + 1] = number end
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

--- Puts a name back on the list that was taken off it; what has replaced it there
-- stays.
-- @param state its `changed` has what replaces a name (false: nothing), `added`
--   the names that are no row's
function M.want(state, name)
  state.added[#state.added + 1] = state.changed[name] or nil
  state.changed[name] = nil
end

return M
