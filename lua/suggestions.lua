-- suggestions.lua: what Tab offers at the prompt: globals and keywords, fields,
-- methods, and the names that help takes.
--
-- Nothing that was typed is run: values are looked up without metamethods, but for
-- those of tables that name what they have by `__names` (explore.lua).

local pretty = require "pretty"

local M = {}

local DEEPEST = 10 -- metatables one behind the other

-- Whether a line ends within a string, and where that begins.
local function string_start(line)
  local quote, start, i = nil, nil, 1
  while i <= #line do
    local c = line:sub(i, i)
    if quote and c == "\\" then
      i = i + 1
    elseif quote == c then
      quote = nil
    elseif not quote and line:find("^%-%-", i) then
      return i
    elseif not quote and (c == '"' or c == "'") then
      quote, start = c, i
    end
    i = i + 1
  end
  return quote and start
end

-- The keys of the expression that a text ends with: a.b[1]["c"]; the first is a
-- global, or the string that a literal is.
-- @return array of { key } | nil when it is nothing that can be looked up
local function keys_of(text)
  local keys = {}
  while true do
    local before, key = text:match "^(.*)%[%s*(%d+)%s*%]$"
    key = math.tointeger(tonumber(key))
    if not before then before, key = text:match '^(.*)%[%s*"([^"]*)"%s*%]$' end
    if not before then before, key = text:match "^(.*)%[%s*'([^']*)'%s*%]$" end
    if before then
      text = before
    elseif text:find "[\"']%s*%)$" and #keys == 0 then
      return { "string" } -- the methods of a literal
    else
      before, key = text:match "^(.-)([%a_][%w_]*)$"
      if not before then return nil end
    end
    table.insert(keys, 1, key)
    if text ~= before then
      if not before:find "[.:]$" or before:find "%.%.$" then return keys end
      text = before:sub(1, -2)
    end
  end
end

local function index_of(value)
  local meta = debug.getmetatable(value)
  local index = type(meta) == "table" and rawget(meta, "__index")
  return type(index) == "table" and index or nil, type(meta) == "table" and rawget(meta, "__names") or nil
end

local function member(value, key)
  if rawequal(value, _G.core) then return value[key] end
  local at = value
  for _ = 1, DEEPEST do
    local found = type(at) == "table" and rawget(at, key)
    if found or at == nil then return found or nil end
    local index, names = index_of(at)
    if names then return at[key] end
    at = index
  end
end

local function names_in(value, modules)
  local found, at = {}, value
  for _ = 1, DEEPEST do
    local index, names = index_of(at)
    for key, one in next, type(at) == "table" and at or {} do found[key] = found[key] or one end
    for _, name in ipairs(names and names(at) or {}) do found[name] = true end
    at = index
    if at == nil then break end
  end
  if rawequal(value, _G.core) then
    for _, name in ipairs(modules) do found[name] = true end
  end
  return found
end

-- What an expression before a separator has, by name.
local function members(keys, modules)
  local value = _G
  for _, key in ipairs(keys) do
    value = member(value, key)
    if value == nil then return {} end
  end
  return names_in(value, modules)
end

local function matching(names, start, prefix, is_wanted)
  local list = {}
  for name, value in next, names do
    if type(name) == "string" and name:sub(1, #start) == start and is_wanted(name, value) then
      list[#list + 1] = prefix .. name
    end
  end
  table.sort(list)
  return list
end

local function is_name(name)
  return name:find "^[%a_][%w_]*$" ~= nil and not pretty.KEYWORDS[name]
end

local function complete(line, from, options)
  local quoted = string_start(line)
  if quoted then
    local start = line:sub(quoted + 1)
    if not line:sub(1, quoted - 1):find "help%s*%(?%s*$" then return {} end
    return matching(options.topics(), start, line:sub(from, quoted), function() return true end)
  end
  local before, start = line:match "^(.-)([%w_]*)$"
  local prefix = line:sub(from, #before)
  local separator = not before:find "%.%.$" and before:match "[.:]$" or nil
  if not separator then
    local names = names_in(_G, options.modules)
    for word in pairs(pretty.KEYWORDS) do names[word] = true end
    return matching(names, start, prefix, function(name) return name:find "^[%a_][%w_]*$" ~= nil end)
  end
  local keys = keys_of(before:sub(1, -2))
  return matching(keys and members(keys, options.modules) or {}, start, prefix, function(name, value)
    return is_name(name) and (separator == "." or type(value) == "function")
  end)
end

--- The words that complete what stands before the cursor.
-- @param line up to the cursor
-- @param from where the word begins that they replace
-- @param options { modules = names of core's modules, topics = function -> names
--   that help takes, as keys }
-- @return array of words, sorted, each once
function M.words(line, from, options)
  local ok, words = pcall(complete, line, from, options)
  return ok and words or {}
end

return M
