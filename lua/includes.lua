-- includes.lua: the files of a server's configuration, which include each other.

local file = require "core.file"

local M = {}

local DEPTH = 20 -- of includes

--- The text of a file that lies so many includes deep.
-- @return text | nil, message, "missing" | "denied" | "parse" | "limit" | "io"
function M.text(path, depth)
  if depth > DEPTH then
    return nil, ("cannot read '%s': includes nested more than %d deep"):format(path, DEPTH), "limit"
  end
  local text, message, code = file.read(path)
  if text and text:find("\0", 1, true) then
    return nil, ("cannot read '%s': it holds a NUL"):format(path), "parse"
  end
  return text, message, code
end

return M
