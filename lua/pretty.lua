-- pretty.lua: Lua values as a person reads them, tables to a depth.

local text = require "text"

local M = {}

local DEPTH, WIDTH, ITEMS = 4, 78, 60

local show

local function key_text(key, depth, seen)
  if type(key) == "string" and key:match "^[%a_][%w_]*$" then return key end
  return "[" .. show(key, depth + 1, seen, "") .. "]"
end

-- Numbers before strings, each in order, whatever else last.
local function sorted_keys(t)
  local keys = {}
  for key in next, t do
    if not (math.type(key) == "integer" and key >= 1 and key <= #t) then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return type(a) ~= type(b) and type(a) < type(b) or tostring(a) < tostring(b)
  end)
  return keys
end

local function show_table(t, depth, seen, indent)
  if next(t) == nil then return "{}" end
  if seen[t] then return "{ ... the same again ... }" end
  if depth >= DEPTH then return "{ ... }" end
  seen[t] = true
  local items, inner = {}, indent .. "  "
  for i = 1, math.min(#t, ITEMS) do items[#items + 1] = show(t[i], depth + 1, seen, inner) end
  for _, key in ipairs(sorted_keys(t)) do
    if #items >= ITEMS then break end
    items[#items + 1] = key_text(key, depth, seen) .. " = " .. show(t[key], depth + 1, seen, inner)
  end
  if #items >= ITEMS then items[#items + 1] = "..." end
  seen[t] = nil
  local line = "{ " .. table.concat(items, ", ") .. " }"
  if #line + #indent <= WIDTH and not line:find "\n" then return line end
  return "{\n" .. inner .. table.concat(items, ",\n" .. inner) .. ",\n" .. indent .. "}"
end

-- A string as Lua would read it, but with what a terminal would act on escaped.
local function show_string(s)
  if #s > 2000 then s = s:sub(1, 2000) .. " ..." end
  if s:find "\n" and not s:find "[^\n\t\x20-\x7E]" then return s:gsub("\n$", "") end
  return '"' .. text.escape(s:gsub('[\\"]', "\\%0")) .. '"'
end

function show(value, depth, seen, indent)
  local kind = type(value)
  if kind == "string" then return (show_string(value)) end
  local meta = getmetatable(value)
  if kind == "table" and not (type(meta) == "table" and meta.__tostring) then
    return show_table(value, depth, seen, indent)
  end
  return text.escape_lines(tostring(value))
end

--- A value as text; strings of several lines stand as they are.
function M.show(value)
  return show(value, 0, {}, "")
end

--- What a call returned: each value on its own line; nil, message, code as the
-- refusal that it is.
-- @param results a table.pack
function M.results(results)
  if results.n == 3 and results[1] == nil and type(results[2]) == "string" and type(results[3]) == "string" then
    return ("refused (%s): %s"):format(results[3], text.escape(results[2]))
  end
  local lines = {}
  for i = 1, results.n do lines[i] = M.show(results[i]) end
  return table.concat(lines, "\n")
end

return M
