-- zip.lua: the files in a ZIP archive, in boxes that Lua cannot look into: a key
-- may be among them.
--
-- Nothing is ever written: an entry's name serves messages only.

local text = require "text"
local zip = require "core.zip"

local M = {}

local ENTRY_LIMIT = 1024 * 1024 -- bytes of an entry, inflated
local SUM_LIMIT = 16 * 1024 * 1024 -- bytes of all of them

local function read_entry(bytes, entry)
  local shown = text.escape(entry.name)
  if entry.is_encrypted then
    return nil, ("cannot read '%s' in the ZIP: it is encrypted; unpack it first"):format(shown), "unsupported"
  elseif entry.size > ENTRY_LIMIT then
    return nil, ("cannot read '%s' in the ZIP: more than %d bytes"):format(shown, ENTRY_LIMIT), "limit"
  end
  local data, message, code = zip.extract(bytes, entry)
  if not data then return nil, ("cannot read '%s' in the ZIP: %s"):format(shown, message), code end
  return data
end

--- The files in an archive, folders left out.
-- @param bytes core.secret or string, of at most 16 MiB
-- @return array of { name =, bytes = core.secret }
--   | nil, message, "parse" | "limit" | "unsupported"
function M.read(bytes)
  local entries, message, code = zip.entries(bytes)
  if not entries then return nil, "cannot read the ZIP: " .. message, code end
  local files, sum = {}, 0
  for _, entry in ipairs(entries) do
    sum = sum + entry.size
    if sum > SUM_LIMIT then
      return nil, ("cannot read the ZIP: more than %d bytes inflated"):format(SUM_LIMIT), "limit"
    end
    if entry.name:sub(-1) ~= "/" then
      local data
      data, message, code = read_entry(bytes, entry)
      if not data then return nil, message, code end
      files[#files + 1] = { name = entry.name, bytes = data }
    end
  end
  return files
end

return M
