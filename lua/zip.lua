-- zip.lua: what is in a ZIP archive, as bytes.
--
-- Nothing is ever written: an entry's name serves messages only, its data is
-- inflated by gzip, which reads it from standard input and checks it.

local process = require "core.process"
local text = require "text"

local M = {}

local ENTRIES_LIMIT = 100
local ENTRY_LIMIT = 1024 * 1024 -- bytes of an entry, inflated
local SUM_LIMIT = 16 * 1024 * 1024 -- bytes of all of them

local CENTRAL, LOCAL, LAST = "PK\1\2", "PK\3\4", "PK\5\6"
local STORED, DEFLATED = 0, 8

local function broken(why)
  return nil, "cannot read the ZIP: " .. why, "parse"
end

-- Where the list of entries begins, and how many there are: from the record at
-- the end, after which a comment of up to 64 KiB may stand.
local function directory(bytes)
  local from = math.max(1, #bytes - 65557)
  local found
  repeat
    local at = bytes:find(LAST, from, true)
    found, from = at or found, at and at + 1
  until not at
  if not found or #bytes < found + 21 then return nil end
  local count, _, offset = string.unpack("<I2 I4 I4", bytes, found + 10)
  return offset + 1, count
end

-- One entry of the list: what is said of it, and where the next one begins.
local function entry_at(bytes, at)
  if bytes:sub(at, at + 3) ~= CENTRAL or #bytes < at + 45 then return nil end
  local flags, method, _, crc, packed, size, name_length, extra, comment, offset, name
  flags, method, _, crc, packed, size, name_length, extra, comment, at =
    string.unpack("<I2 I2 I4 I4 I4 I4 I2 I2 I2", bytes, at + 8)
  offset, at = string.unpack("<I4", bytes, at + 8)
  name = bytes:sub(at, at + name_length - 1)
  return {
    name = name, is_encrypted = flags & 1 == 1, method = method, crc = crc, packed = packed, size = size,
    offset = offset + 1,
  }, at + name_length + extra + comment
end

-- The data of an entry, as it stands in the archive.
local function packed_data(bytes, entry)
  if bytes:sub(entry.offset, entry.offset + 3) ~= LOCAL or #bytes < entry.offset + 29 then return nil end
  local name_length, extra = string.unpack("<I2 I2", bytes, entry.offset + 26)
  local first = entry.offset + 30 + name_length + extra
  local data = bytes:sub(first, first + entry.packed - 1)
  return #data == entry.packed and data or nil
end

-- Deflated data is what stands in a gzip file between header and trailer (RFC
-- 1952, section 2.3).
local function inflate(data, entry)
  local input = "\x1F\x8B\8\0\0\0\0\0\0\xFF" .. data .. string.pack("<I4 I4", entry.crc, entry.size)
  local result, message, code = process.run({ "gzip", "-dc" }, { stdin = input, timeout = 10, limit = ENTRY_LIMIT })
  if not result then return nil, message, code end
  return result.status == 0 and #result.stdout == entry.size and result.stdout or nil
end

local function read_entry(bytes, entry)
  local shown = text.escape(entry.name)
  if entry.is_encrypted then
    return nil, ("cannot read '%s' in the ZIP: it is encrypted; unpack it first"):format(shown), "unsupported"
  elseif entry.size > ENTRY_LIMIT then
    return nil, ("cannot read '%s' in the ZIP: more than %d bytes"):format(shown, ENTRY_LIMIT), "limit"
  elseif entry.method ~= STORED and entry.method ~= DEFLATED then
    return nil, ("cannot read '%s' in the ZIP: unknown way of compression"):format(shown), "unsupported"
  end
  local data, message, code = packed_data(bytes, entry)
  if data and entry.method == DEFLATED then data, message, code = inflate(data, entry) end
  if not data and code then return nil, ("cannot read '%s' in the ZIP: %s"):format(shown, message), code end
  if not data then return broken(("'%s' is damaged"):format(shown)) end
  return data
end

--- The files in an archive, folders left out.
-- @param bytes of at most 16 MiB
-- @return array of { name =, bytes = } | nil, message, "parse" | "limit" | "unsupported" | ...
function M.read(bytes)
  local at, count = directory(bytes)
  if not at then return broken "its list of entries is missing" end
  if count > ENTRIES_LIMIT then
    return nil, ("cannot read the ZIP: more than %d entries"):format(ENTRIES_LIMIT), "limit"
  end
  local files, sum = {}, 0
  for number = 1, count do
    local entry
    entry, at = entry_at(bytes, at)
    if not entry then return broken(("entry %d is malformed"):format(number)) end
    sum = sum + entry.size
    if sum > SUM_LIMIT then
      return nil, ("cannot read the ZIP: more than %d bytes inflated"):format(SUM_LIMIT), "limit"
    end
    if entry.name:sub(-1) ~= "/" then
      local data, message, code = read_entry(bytes, entry)
      if not data then return nil, message, code end
      files[#files + 1] = { name = entry.name, bytes = data }
    end
  end
  return files
end

return M
