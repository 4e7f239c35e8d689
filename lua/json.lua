-- json.lua: JSON through dkjson, with the fields of an object in their order,
-- null where a field does not apply, and [] for an empty list.

local dkjson = require "dkjson"

local M = {}

--- Stands for JSON's null in a table.
M.null = dkjson.null

--- Marks a table as a JSON array, so that an empty one is [].
function M.array(t)
  return setmetatable(t or {}, { __jsontype = "array" })
end

--- Marks a table as a JSON object whose fields come in this order.
function M.object(t, order)
  return setmetatable(t or {}, { __jsontype = "object", __jsonorder = order })
end

--- One JSON value as text.
function M.encode(value)
  return dkjson.encode(value, { indent = true })
end

--- One JSON value on one line, for the store.
function M.compact(value)
  return dkjson.encode(value)
end

--- The value of a JSON text.
-- @return value | nil, message, "parse"
function M.decode(text)
  local value, _, message = dkjson.decode(text, 1, nil)
  if message then return nil, "cannot read JSON: " .. message, "parse" end
  return value
end

return M
