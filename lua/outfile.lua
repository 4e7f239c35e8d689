--- outfile.lua: the file that --out names: opened with the rights of whoever
-- called; one that is there is replaced with --yes only.

local text = require "text"
local theirs = require("caller").file

local M = {}

local function taken(path)
  return ("'%s' exists already; say --yes to replace it"):format(text.escape(path)), "exists"
end

--- Whether a file may be written.
-- @return true, whether it is there | nil, message, "exists" | "denied"
function M.check(context, path)
  local is_there, message, code = theirs.stat(path)
  if code == "denied" then return nil, message, code end
  if is_there and not context.yes then return nil, taken(path) end
  return true, is_there and true or false
end

--- What a dry run says of a file that would be written.
-- @return true | nil, message, "exists" | "denied"
function M.plan(context, path)
  local ok, is_there, code = M.check(context, path)
  if not ok then return nil, is_there, code end
  context:say("would %s %s", is_there and "replace" or "write", text.escape(path))
  return true
end

--- Writes it, readable by its owner alone where it holds a secret.
-- @return true | nil, message, "exists" | ...
function M.write(context, path, bytes, is_secret)
  local ok, message, code = theirs.write(path, bytes,
    { mode = is_secret and 384 or 420, exclusive = not context.yes }) -- 0600, 0644
  if not ok and code == "exists" and not context.yes then return nil, taken(path) end
  return ok, message, code
end

return M
