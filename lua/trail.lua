-- trail.lua: the file of the audit record, STATE/audit.jsonl: a JSON object a
-- line, each with the hash of the line before it and, last, its own, which is
-- SHA-256 over the bytes of the line up to `,"hash":`.
--
-- Lines are only ever added, under a lock.  The store remembers the last one,
-- since a chain alone does not show that its end was cut off.  verify is in
-- evidence.lua; what a line says in audit.lua.

local generation = require "core.generation"
local log = require "core.log"

local M = {}

local LOCK_TIMEOUT = 30 -- seconds to wait for other processes, a line each
local ROOM = 65536 -- bytes of disk kept for the lines that follow
local BLOCK = 8192

--- What the first line has for the hash of the line before it.
M.NONE = ("0"):rep(64)

local TAIL = '^{"seq":(%d+),.*,"previous":"(%x+)","hash":"(%x+)"}$'

--- The path of the file.
function M.path(context)
  return context:path "audit.jsonl"
end

--- Takes a line apart.
-- @return seq, previous hash, hash, the bytes that it is the hash of
--   | nil: it is no line of a record
function M.parse(line)
  local seq, previous, hash = line:match(TAIL)
  if not seq or #previous ~= 64 or #hash ~= 64 then return nil end
  return math.tointeger(tonumber(seq)), previous, hash, line:sub(1, -76)
end

-- What stands before and after the last line break; nil: there is none.
local function split(text)
  local back = text:reverse():find("\n", 1, true)
  if back then return text:sub(1, -back - 1), back > 1 and text:sub(1 - back) or "" end
end

-- The last whole line of a file, and what stands after it.
local function tail(path)
  local stream, message, errno = io.open(path, "rb")
  if not stream then
    if errno == 2 then return "", "" end
    return nil, "cannot read " .. message, "io"
  end
  local at, text, whole, rest = stream:seek "end", "", nil, nil
  while at > 0 and not whole do
    local from = math.max(0, at - BLOCK)
    stream:seek("set", from)
    text, at = stream:read(at - from) .. text, from
    local lines, after = split(text)
    local _, line = split(lines or "")
    whole, rest = line or (at == 0 and lines) or nil, after -- without a break before it, it may begin further up
  end
  stream:close()
  if not whole then return "", text end
  return whole, rest
end

--- The line that the store remembers as the last: seq, hash | nil: none
function M.head(db)
  local rows, message, code = db:rows "SELECT seq, hash FROM audit"
  if not rows then return nil, message, code end
  if rows[1] then return rows[1].seq, rows[1].hash end
  return nil
end

-- What a new line follows: the last of the file, or, where that was changed or
-- cut, what the store remembers: then it shows for ever.
local function place(path, db)
  local line, torn, code = tail(path)
  if not line then return nil, torn, code end
  local seq, _, hash, bytes = M.parse(line)
  if seq and log.sha256(bytes) ~= hash then seq = nil end
  local head, known, what = M.head(db)
  if what then return nil, known, what end
  local is_good = seq and (not head or seq > head or (seq == head and hash == known))
  if not seq and line == "" and not head then seq, hash, is_good = 0, M.NONE, true end
  return {
    seq = is_good and seq or head or 0, hash = is_good and hash or known or M.NONE, torn = torn ~= "" and torn or nil,
    is_good = is_good,
  }
end

-- Appends a line, and has the store remember it.
local function append(path, db, compose)
  local last, message, code = place(path, db)
  if not last then return nil, message, code end
  local seq = last.seq + 1
  local bytes = ('%s,"previous":"%s"'):format(compose(seq, last.torn), last.hash)
  local hash = log.sha256(bytes)
  local ok
  ok, message, code = db:run("INSERT OR REPLACE INTO audit (id, seq, hash) VALUES (1, ?1, ?2)", seq, hash)
  if ok then
    ok, message, code = log.append(path, ('%s%s,"hash":"%s"}\n'):format(last.torn and "\n" or "", bytes, hash), ROOM)
  end
  if not ok then return nil, message, code end
  return seq, hash, last.is_good
end

--- Adds a line, in the file and as the last one in the store; a crash between
-- the two leaves the file ahead by that line, never the store.
-- @param path of the file; lock of the lock file; db the store
-- @param compose function(seq, torn) -> the fields as a JSON object's text,
--   without its last brace; torn: nil, or what a crash left of a line
-- @return seq, hash, whether the end of the file was as the store remembers it
--   | nil, message, "busy" | "denied" | "io"
function M.add(path, lock, db, compose)
  local held <close>, message, code = generation.lock(lock, LOCK_TIMEOUT)
  if not held then return nil, message, code end
  return db:transaction(function() return append(path, db, compose) end)
end

return M
