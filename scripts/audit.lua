-- audit: who did what, on what, and how it ended; and whether that record is
-- whole.

local evidence = require "evidence"
local file = require "core.file"
local generation = require "core.generation"
local host = require "core.host"
local invocation = require "invocation"
local json = require "json"
local options = require "options"
local text = require "text"
local trail = require "trail"

local FIELDS = {
  "seq", "at", "who", "pid", "host", "command", "arguments", "begun", "result", "status", "code", "message", "object",
  "name", "before", "after", "torn", "previous", "hash",
}

-- "2026-11-22", or with a time: what every later line's own text is not below.
local function since(word)
  if word:match "^%d%d%d%d%-%d%d%-%d%d$" or word:match "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$" then return word end
  return nil, ("'%s' is no day such as 2026-11-22 and no time such as 2026-11-22T18:00:00Z"):format(word)
end

local function expected(word)
  local seq, hash = word:match "^(%d+):(%x+)$"
  if not seq or #hash ~= 64 then return nil, ("'%s' is not what certwright audit --head prints"):format(word) end
  return { seq = math.tointeger(tonumber(seq)), hash = hash:lower(), by = "--expect names" }
end

-- The line that the store remembers as the last; nil where there is none.
local function head(context)
  local db, message, code = context:read()
  if not db then return nil, message, code end
  local seq, hash, what = trail.head(db)
  if what then return nil, hash, what end
  return seq and { seq = seq, hash = hash, by = "the store remembers" }
end

-- Between two lines: no other process is adding one.
local function alone(context, work)
  local path = context:path("locks", "audit")
  if not file.stat(path) then return work() end
  local lock <close>, message, code = generation.lock(path, 10)
  if not lock then return nil, message, code end
  return work()
end

local function verify(args, context)
  local found, message, code = alone(context, function()
    local store, why, what = head(context)
    if why then return nil, why, what end
    local marks = { store = store }
    if store then marks[1] = store end
    if args.expect then marks[#marks + 1] = args.expect end
    return evidence.verify(trail.path(context), marks)
  end)
  if not found then return nil, message, code end
  for _, warning in ipairs(found.warnings) do context:warn("%s", warning) end
  return json.object({ whole = true, records = found.seq, hash = found.hash, warnings = found.warnings,
    limits = evidence.LIMITS }, { "whole", "records", "hash", "warnings", "limits" })
end

-- Whether a line may be one that is asked for: cheaper than to read it all.
local function filter(args)
  local id = args.id and { ('"object":%s,'):format(args.id), ('"%s":'):format(args.id) }
  return function(line)
    if args.since and (line:match '"at":"([^"]+)"' or "") < args.since then return false end
    return not id or line:find(id[1], 1, true) or line:find(id[2], 1, true)
  end
end

local function is_about(record, id)
  local function has(side) return type(side) == "table" and side.objects and side.objects[id] ~= nil end
  return tostring(record.object) == id or has(record.before) or has(record.after)
end

local function read(args, context)
  local db, message, code = context:read() -- says where root's is to who has none
  if not db then return nil, message, code end
  context.is_filtered = args.id or args.since
  local records
  records, message, code = evidence.read(trail.path(context), filter(args))
  if not records then return nil, message, code end
  local list = json.array()
  for _, record in ipairs(records) do
    if not args.id or is_about(record, args.id) then
      for _, field in ipairs(FIELDS) do
        if record[field] == nil then record[field] = json.null end
      end
      list[#list + 1] = json.object(record, FIELDS)
    end
  end
  return list
end

local function who_of(record)
  local name = record.who.user or tostring(record.who.uid)
  return record.who.sudo_uid and (record.who.sudo_user or tostring(record.who.sudo_uid)) .. " (sudo)" or name
end

-- "aaaa -> bbbb" for each certificate that was one thing and is another.
local function change_of(record)
  local parts = {}
  local function short(print) return type(print) == "string" and print:sub(1, 8) or "-" end
  local before, after = record.before, record.after
  for _, kind in ipairs { "objects", "services" } do
    for name, value in options.sorted(after ~= json.null and after[kind] or {}) do
      local was = before[kind][name]
      if kind == "objects" then
        local function as(side) return side.revoked and "revoked" or side.state end
        local is = value == json.null and "removed" or as(value)
        parts[#parts + 1] = (was == json.null or as(was) == is) and ("%s: %s"):format(name, is)
          or ("%s: %s -> %s"):format(name, as(was), is)
      else
        local function first(list) return #list > 1 and short(list[1]) .. "+" or short(list[1]) end
        parts[#parts + 1] = ("%s: %s -> %s"):format(name, first(was), first(value))
      end
    end
  end
  return table.concat(parts, ", ")
end

local function is_running(record)
  local process = record.host == host.name() and host.process(record.pid)
  return process and process.name:find "^certwright" ~= nil
end

-- A line for each command: its result, with when it began; a beginning without
-- a result is one that goes on, or that was killed.
local function lines_of(list, context)
  local ended, rows = {}, { { "NO", "AT", "WHO", "COMMAND", "ID", "RESULT", "CHANGE" } }
  for _, record in ipairs(list) do ended[record.begun] = true end
  for _, record in ipairs(list) do
    if record.result ~= "begun" or not ended[record.seq] then
      local result = record.result
      if result == "begun" then result = is_running(record) and "under way" or "cut short" end
      rows[#rows + 1] = { tostring(record.seq), record.at, text.escape(who_of(record)), text.escape(record.command),
        record.object ~= json.null and tostring(record.object) or "-", result,
        text.escape(record.code ~= json.null and record.message ~= json.null and record.message:match "^[^\n]*"
          or change_of(record)) }
    end
  end
  if #rows == 1 then
    return context.is_filtered and "the audit record has no such line" or "nothing has been recorded yet"
  end
  local function minute(n) return (rows[n + 1][2]:gsub("T(%d+:%d+).*", " %1")) end
  return text.fitted(rows, context.columns, { text.replace("AT", minute), text.cut "CHANGE", text.cut "WHO",
    text.drop "CHANGE" })
end

return {
  summary = "show and verify the record of who did what",
  role = "auditor",
  options = {
    { "id", "only what was done to the request or certificate with this id", argument = "ID", optional = true },
    { "--since", "only from this day or time on (UTC)", argument = "TIME", convert = since },
    { "--verify", "say whether the record is whole, or which line is wrong first" },
    { "--expect", "with --verify: this record must be in it, as --head printed it", argument = "NUMBER:HASH",
      convert = expected },
    { "--head", "print the number and the hash of the last record, to be noted elsewhere" },
  },
  notes = [[
Every command that changes something is recorded, in the state folder's
audit.jsonl and in the system's log: begun, and how it ended; refused and
recovered, too.  list, show, check and other reading is not, but for a
revocation that was found.

]] .. evidence.LIMITS,
  text = function(result, context)
    if result.whole then
      return ("the audit record is whole: %s, up to\n%d:%s\n\n%s"):format(text.count(result.records, "record"),
        result.records, result.hash, evidence.LIMITS)
    end
    return context.printed or lines_of(result, context)
  end,

  run = function(args, context)
    if args.expect and not args.verify then return nil, "--expect needs --verify", "usage" end
    if args.verify and (args.head or args.id or args.since) then
      return nil, "--verify is about the whole record: give it alone, or with --expect", "usage"
    end
    if args.id and not args.id:match "^%d+$" then
      return nil, ("'%s' is no id; %s shows them"):format(text.escape(args.id), invocation.suggest "list"), "usage"
    end
    if args.verify then return verify(args, context) end
    if not args.head then return read(args, context) end
    local last, message, code = head(context)
    if message then return nil, message, code end
    last = last or { seq = 0, hash = trail.NONE }
    context.printed = ("%d:%s"):format(last.seq, last.hash)
    return json.object({ seq = last.seq, hash = last.hash }, { "seq", "hash" })
  end,
}
