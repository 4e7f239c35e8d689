-- json.lua: JSON through dkjson, with the fields of an object in their order,
-- null where a field does not apply, and [] for an empty list.

local dkjson = require "dkjson"
local text = require "text"

local M = {}

--- Stands for JSON's null in a table.
M.null = dkjson.null

local ARRAY = { __jsontype = "array" } -- one for all, since a list has thousands
local objects = setmetatable({}, { __mode = "k" }) -- by their order

--- Marks a table as a JSON array, so that an empty one is [].
function M.array(t)
  return setmetatable(t or {}, ARRAY)
end

--- Whether a table is marked as a JSON array.
function M.is_array(t)
  return (getmetatable(t) or {}).__jsontype == "array"
end

--- Marks a table as a JSON object whose fields come in this order.
function M.object(t, order)
  local marks = order and objects[order]
  if not marks then
    marks = { __jsontype = "object", __jsonorder = order }
    if order then objects[order] = marks end
  end
  return setmetatable(t or {}, marks)
end

--- A value, JSON's null in place of nil.
function M.or_null(value)
  if value == nil then return M.null end
  return value
end

local function escaped(code)
  if code < 0x10000 then return ("\\u%04x"):format(code) end
  code = code - 0x10000
  return ("\\u%04x\\u%04x"):format(0xD800 | code >> 10, 0xDC00 | code & 0x3FF)
end

--- One JSON value as text, which a terminal may show: of strings, what nobody
-- would see stands as \uXXXX.
function M.encode(value)
  local encoded = dkjson.encode(value, { indent = true })
  if not encoded:find "[\x7F-\xFF]" then return encoded end
  return (encoded:gsub("[^\n]+", function(line) return text.replace_hidden(line, escaped) end))
end

--- One JSON value on one line, for the store.
function M.compact(value)
  return dkjson.encode(value)
end

--- The value of a JSON text.
-- @param null what stands for JSON's null; nil: its field is absent
-- @return value | nil, message, "parse"
function M.decode(encoded, null)
  local value, _, message = dkjson.decode(encoded, 1, null)
  if message then return nil, "cannot read JSON: " .. message, "parse" end
  return value
end

return M
