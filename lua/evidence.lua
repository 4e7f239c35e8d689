-- evidence.lua: reads the audit record back: its lines as tables, and whether
-- they are all there, unchanged and in their order.
--
-- What a chain of hashes proves, and what it cannot, stands in LIMITS.

local json = require "json"
local log = require "core.log"
local trail = require "trail"

local M = {}

--- What `audit --verify` does not show, said wherever it is used.
M.LIMITS = [[
A chain of hashes shows what was changed, removed or moved by whoever did not
make the whole chain again.  root can do that, and change what the store
remembers as well.  Against root only a witness elsewhere helps: the system's
log, sent to another machine (each line there has its number and hash), or
the number and hash that certwright audit --head prints, noted elsewhere and
given to certwright audit --verify --expect NUMBER:HASH.  What root does
without certwright is in no record of certwright.]]

-- A file for reading; one that is not there is empty.
local function open(path)
  local stream, message, errno = io.open(path, "rb")
  if not stream and errno == 2 then stream, message = io.open("/dev/null", "rb") end
  if not stream then return nil, "cannot read " .. message, "io" end
  return stream
end

--- Every line that is a record, oldest first, as a table; those that are none
-- are left out: verify tells of them.
-- @param is_wanted function(line) -> whether it is worth reading
-- @return array | nil, message, code
function M.read(path, is_wanted)
  local stream <close>, message, code = open(path)
  if not stream then return nil, message, code end
  local list = json.array()
  for line in stream:lines() do
    if is_wanted(line) then
      local record = json.decode(line, json.null)
      if type(record) == "table" and record.seq and type(record.who) == "table" then list[#list + 1] = record end
    end
  end
  return list
end

-- Whether a record says of the piece before it that a crash left it there.
local function owns_torn(bytes, piece)
  local length, sum = bytes:match '"torn":{"bytes":(%d+),"sha256":"(%x+)"}'
  return length and tonumber(length) == #piece and sum == log.sha256(piece)
end

-- Whether a record comes further down.
local function comes_later(next_line, seq, last)
  for line in next_line do
    local number, previous = trail.parse((line:gsub("\n$", "")))
    if number == seq and previous == last then return true end
  end
  return false
end

local function records(from, to)
  return from == to and ("record %d was"):format(from) or ("records %d to %d were"):format(from, to)
end

-- What is wrong with a line that has another place in the chain; nil: nothing.
local function misplaced(at, seq, previous, next_line)
  local due = at.seq + 1
  if seq > due and comes_later(next_line, due, at.hash) then
    return ("line %d is record %d, and record %d comes further down: lines were moved"):format(at.line, seq, due)
  elseif seq > due then
    return ("line %d is record %d: %s removed before it"):format(at.line, seq, records(due, seq - 1))
  elseif seq < due then
    return ("line %d is record %d, where record %d should be: it was inserted or moved"):format(at.line, seq, due)
  elseif previous ~= at.hash then
    return ("line %d, record %d, follows another line than the one before it, which was replaced"):format(at.line, seq)
  end
end

-- One whole line.
-- @param at { line, seq, hash of the last record, warnings, torn = a piece that
--   is no record, torn_line }
-- @return nil when it is as it should be, or what is wrong
local function judge(at, line, next_line, marks)
  local seq, previous, hash, bytes = trail.parse(line)
  if not seq and not at.torn then
    at.torn, at.torn_line = line, at.line -- the next record may own it
    return nil
  elseif not seq then
    return ("line %d is no record"):format(at.torn_line)
  elseif log.sha256(bytes) ~= hash then
    return ("line %d, record %d, was changed: its hash is not that of what it says"):format(at.line, seq)
  elseif at.torn and not owns_torn(bytes, at.torn) then
    return ("line %d is no record"):format(at.torn_line)
  end
  local wrong = misplaced(at, seq, previous, next_line)
  if wrong then return wrong end
  if at.torn then
    table.insert(at.warnings, ("line %d is a piece of one that was cut short while it was written; record %d says so")
      :format(at.torn_line, seq))
  end
  at.seq, at.hash, at.torn = seq, hash, nil
  for _, mark in ipairs(marks) do
    if mark.seq == seq and mark.hash ~= hash then
      return ("line %d, record %d, is not the one that %s: lines up to it were made again"):format(at.line, seq,
        mark.by)
    end
  end
end

-- The end of the file, against what is known of it.
local function judge_end(at, piece, marks)
  for _, mark in ipairs(marks) do
    if mark.seq > at.seq then
      local left = at.seq > 0 and ("the last whole line is record %d"):format(at.seq) or "no record is left"
      return ("the end was cut off: %s, and %s record %d"):format(left, mark.by, mark.seq)
    end
  end
  if at.torn then return ("line %d is no record"):format(at.torn_line) end
  if piece then
    table.insert(at.warnings, "the last line is a piece of one that was cut short while it was written; the next "
      .. "record will say so")
  end
  local seq = marks.store and marks.store.seq
  if at.seq > 0 and not seq then
    table.insert(at.warnings, "the store remembers no record: it is a new one, or was put back from a copy")
  elseif seq and at.seq > seq then
    table.insert(at.warnings, ("the store remembers record %d as the last, and the file goes on to %d: a crash came "
      .. "between the two, or the store was put back from a copy"):format(seq, at.seq))
  end
end

--- Whether the record is whole.
-- @param marks array of { seq, hash, by = who knows of it, as "the store
--   remembers" }; marks.store: which of them is the store's own
-- @return { seq = of the last record, hash =, warnings = }
--   | nil, message, "mismatch" | "io": the first line that is wrong, and why
function M.verify(path, marks)
  local stream <close>, message, code = open(path)
  if not stream then return nil, message, code end
  local at = { line = 0, seq = 0, hash = trail.NONE, warnings = json.array() }
  local next_line, wrong, piece = stream:lines "L", nil, nil
  for line in next_line do
    at.line = at.line + 1
    if line:sub(-1) == "\n" then
      wrong = judge(at, line:sub(1, -2), next_line, marks)
    else
      piece = line
    end
    if wrong then break end
  end
  wrong = wrong or judge_end(at, piece, marks)
  if wrong then return nil, ("'%s': %s"):format(path, wrong), "mismatch" end
  return at
end

return M
