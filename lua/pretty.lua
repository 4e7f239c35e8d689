-- pretty.lua: Lua values as a person reads them, tables to a depth.
--
-- What a value says of itself (__tostring, __name) is asked for, but nothing that
-- it raises or holds gets further than into the text.

local json = require "json"
local text = require "text"

local M = {}

local DEPTH, ITEMS, ALL = 4, 60, 1000 -- levels; entries of one table, of all
local NESTED, LONGEST = 300, 16384 -- bytes of a string in a table, of one alone
local WIDTH = 78

local show

local NAMED = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r" }

-- A string as Lua would read it: what nobody would see, what a terminal would act
-- on and what is no UTF-8 is escaped.
local function quoted(s)
  s = s:gsub('[\\"]', "\\%0"):gsub("[\n\t\r]", NAMED)
  if not s:find "[^\x20-\x7E]" then return '"' .. s .. '"' end
  local parts, at = {}, 1
  while at <= #s do
    local length, bad = utf8.len(s, at)
    local last = length and #s or bad - 1
    parts[#parts + 1] = text.escape(s:sub(at, last))
    if bad then parts[#parts + 1] = ("\\x%02X"):format(s:byte(bad)) end
    at = last + (bad and 2 or 1)
  end
  return '"' .. table.concat(parts) .. '"'
end

-- Cut between characters, with what is missing.
local function shortened(s, limit)
  if #s <= limit then return s, "" end
  local at = limit
  while at > limit - 4 and s:find("^[\x80-\xBF]", at + 1) do at = at - 1 end
  return s:sub(1, at), (" ... (%d bytes)"):format(#s)
end

local function show_string(s, depth)
  local start, rest = shortened(s, depth > 0 and NESTED or LONGEST)
  if depth == 0 and s:find "\n." and utf8.len(start) and text.escape(start:gsub("[\n\t]", "")) ==
    start:gsub("[\n\t]", "") then
    return (start:gsub("\n$", "")) .. rest
  end
  return quoted(start) .. rest
end

local function show_number(value)
  if value ~= value then return "nan" end
  return tostring(value)
end

local function show_function(value)
  local info = debug.getinfo(value, "S")
  if info.what == "C" then return tostring(value) end
  return ("function: %s:%d"):format(text.escape(info.short_src:match "[^/]+$" or info.short_src), info.linedefined)
end

-- What a value that is no plain table says of itself.
local function own_text(value)
  local ok, said = pcall(tostring, value)
  if ok then return text.escape_lines(said .. "") end -- a number is taken for one, too
  return ("%s that cannot be shown: %s"):format(type(value), text.escape_lines(tostring(said)))
end

--- The words that are no names.
M.KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true
  until while]]):gmatch "%a+" do M.KEYWORDS[word] = true end

local function key_text(key, state)
  if type(key) == "string" and key:match "^[%a_][%w_]*$" and not M.KEYWORDS[key] then return key end
  return "[" .. show(key, DEPTH, state, "") .. "]"
end

local RANK = { number = 1, string = 2 }

-- Numbers before strings, each in order, whatever else last.
local function sorted_keys(t)
  local keys, texts, length = {}, {}, rawlen(t)
  for key in next, t do
    if not (math.type(key) == "integer" and key >= 1 and key <= length) then
      keys[#keys + 1] = key
      if not RANK[type(key)] then texts[key] = own_text(key) end
    end
  end
  table.sort(keys, function(a, b)
    local first, second = RANK[type(a)] or 3, RANK[type(b)] or 3
    if first ~= second then return first < second end
    if first == 3 then return texts[a] < texts[b] end
    return a < b
  end)
  return keys
end

-- Items as lines: those without a key side by side.
local function filled(items, keyed_from, indent)
  local lines, line = {}, nil
  for i, item in ipairs(items) do
    local longer = line and line .. " " .. item .. "," or item .. ","
    if line and i < keyed_from and #indent + #longer <= WIDTH and not longer:find "\n" then
      line = longer
    else
      lines[#lines + 1] = line
      line = item .. ","
    end
  end
  lines[#lines + 1] = line
  return lines
end

-- The entries of a table as items, and the number of the first that has a key.
local function entries(t, depth, state, indent)
  local items, length, keys = {}, rawlen(t), sorted_keys(t)
  local total = length + #keys
  local function is_full() return #items >= ITEMS or state.left <= 0 end
  for i = 1, length do
    if is_full() then break end
    state.left = state.left - 1
    items[i] = show(rawget(t, i), depth + 1, state, indent)
  end
  local keyed_from = #items + 1
  for _, key in ipairs(keys) do
    if is_full() then break end
    state.left = state.left - 1
    items[#items + 1] = key_text(key, state) .. " = " .. show(rawget(t, key), depth + 1, state, indent)
  end
  return items, keyed_from, total - #items
end

local function show_table(t, depth, state, indent)
  if next(t) == nil then return "{}" end
  if state.seen[t] then return "{ ... the same again ... }" end
  if depth >= DEPTH then return "{ ... }" end
  state.seen[t] = true
  local inner = indent .. "  "
  local items, keyed_from, missing = entries(t, depth, state, inner)
  state.seen[t] = nil
  if missing > 0 then items[#items + 1] = ("... (%d more)"):format(missing) end
  local line = "{ " .. table.concat(items, ", ") .. " }"
  if #line + #indent <= WIDTH and not line:find "\n" then return line end
  if missing > 0 then keyed_from = math.min(keyed_from, #items) end
  return "{\n" .. inner .. table.concat(filled(items, keyed_from, inner), "\n" .. inner) .. "\n" .. indent .. "}"
end

function show(value, depth, state, indent)
  local kind = type(value)
  if kind == "string" then return show_string(value, depth) end
  if kind == "number" then return show_number(value) end
  if kind == "function" then return show_function(value) end
  if rawequal(value, json.null) then return "null" end
  local meta = debug.getmetatable(value)
  if kind == "table" and not (type(meta) == "table" and rawget(meta, "__tostring")) then
    return show_table(value, depth, state, indent)
  end
  return own_text(value)
end

--- A value as text; strings of several lines stand as they are.
function M.show(value)
  return show(value, 0, { seen = {}, left = ALL }, "")
end

--- What a call returned: each value on its own line; nil, message, code as the
-- refusal that it is.
-- @param results a table.pack
function M.results(results)
  if results.n == 3 and results[1] == nil and type(results[2]) == "string" and type(results[3]) == "string" then
    return ("refused (%s): %s"):format(text.escape(results[3]), text.escape_lines(results[2]))
  end
  local lines = {}
  for i = 1, results.n do lines[i] = M.show(results[i]) end
  return table.concat(lines, "\n")
end

return M
