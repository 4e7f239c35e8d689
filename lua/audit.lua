-- audit.lua: the audit record: who did what, on what, what was there before and
-- after, and how it ended.
--
-- Every command that opens the store for writing has two lines in it: "begun",
-- before anything is changed, so that a kill leaves a trace and a full disk
-- refuses the command rather than its record; and its result.  Each goes to
-- the system's log, too, with its number and hash.  The file is trail.lua's.

local host = require "core.host"
local interrupt = require "core.interrupt"
local invocation = require "invocation"
local json = require "json"
local log = require "core.log"
local object = require "object"
local text = require "text"
local trail = require "trail"

local M = {}

local ARGUMENTS, LENGTH, MESSAGE = 64, 256, 1000 -- at most, and bytes of each
local UNSET = 4294967295 -- the login uid of what no login started (proc(5))

local ORDER = {
  "seq", "at", "who", "pid", "host", "command", "arguments", "begun", "result", "status", "code", "message", "object",
  "name", "before", "after", "torn",
}

-- How a command ended, by its code; any other: "failed".
local RESULT = { usage = "refused", denied = "refused", pending = "pending", unrestored = "unrestored" }

local LEVEL = { failed = "warning", refused = "warning", unrestored = "err" }

-- Text of others: valid, and not endless.
local function plain(value, length)
  value = tostring(value)
  if not utf8.len(value) then value = value:gsub("[\x80-\xFF]", "\u{FFFD}") end
  if #value <= length then return value end
  return value:sub(1, (utf8.offset(value, 0, length + 1)) - 1) .. "..."
end

local function name_of(uid)
  local user = host.lookup(uid)
  return user and user.name
end

--- Who acts.  What sudo says counts for root only, to whom anybody could be
-- root; the login uid is the kernel's, and outlives su and sudo.
-- @return { uid, user, sudo_uid, sudo_user, login_uid }
function M.who()
  local effective, _, real = host.user()
  local who = { uid = real or effective, user = name_of(real or effective) }
  if effective == 0 then
    who.sudo_uid = math.tointeger(tonumber((os.getenv "SUDO_UID" or ""):match "^%d+$"))
    who.sudo_user = who.sudo_uid and (name_of(who.sudo_uid) or plain(os.getenv "SUDO_USER" or "", LENGTH))
  end
  local stream = io.open("/proc/self/loginuid", "r")
  local login = stream and math.tointeger(tonumber(stream:read "a"))
  if stream then stream:close() end
  if login and login ~= UNSET then who.login_uid = login end
  return json.object(who, { "uid", "user", "sudo_uid", "sudo_user", "login_uid" })
end

local function cut(arguments)
  local list = json.array()
  for i, argument in ipairs(arguments) do
    list[i] = i <= ARGUMENTS and plain(argument, LENGTH) or nil
  end
  if #arguments > ARGUMENTS then list[ARGUMENTS + 1] = ("... %d more"):format(#arguments - ARGUMENTS) end
  return list
end

-- A line for the system's log: number and hash first, which a long line keeps.
local function tell_system(fields, seq, hash)
  local parts = { seq and ("seq=%d hash=%s"):format(seq, hash) or "not in the audit record" }
  local function add(label, value)
    if value == nil then return end
    if type(value) == "table" then value = json.compact(value) end
    value = text.escape(tostring(value))
    parts[#parts + 1] = label .. "=" .. (value:find '[%s"]' and ('"%s"'):format(value:gsub('"', "'")) or value)
  end
  add("result", fields.result)
  add("user", fields.who.user or fields.who.uid)
  add("sudo_user", fields.who.sudo_user)
  add("command", table.concat({ fields.command, table.unpack(fields.arguments) }, " "))
  for _, field in ipairs { "object", "name", "code", "before", "after", "message" } do add(field, fields[field]) end
  log.system("certwright", plain(table.concat(parts, " "), MESSAGE), LEVEL[fields.result])
end

-- The fields of a line, in order; what does not apply is left out.
local function fields_of(context, what)
  local fields = {
    at = text.time(os.time()), who = M.who(), pid = host.pid(), host = host.name(),
    command = plain(what.action or context.command or "", LENGTH),
    arguments = cut(what.arguments or context.arguments or {}),
    begun = what.begun, result = what.result, status = what.status, code = what.code,
    message = what.message and plain(what.message, MESSAGE), object = what.object,
    name = what.friendly_name and plain(what.friendly_name, LENGTH), before = what.before, after = what.after,
  }
  return json.object(fields, ORDER)
end

--- Puts one line into the audit record and into the system's log.
-- @param what { result = "begun" | "done" | "pending" | "failed" | "refused" |
--   "unrestored", action =, arguments = (else the command that runs), code =,
--   message =, status = exit status, object = id, friendly_name =, before =, after = } each
--   optional but result; before and after: fingerprints, { objects =, services = }
-- @return true, the line's number | nil, message, code: it is not in the record
function M.record(context, what)
  local fields = fields_of(context, what)
  local ok, message, code = context:make_state_folder()
  if ok and not context.is_writing then -- a refusal: nothing else is written
    if context.db then context:close() end
    ok, message, code = context:open_store()
  end
  local seq, hash, is_good
  if ok then
    seq, hash, is_good = trail.add(trail.path(context), context:path("locks", "audit"), context.db,
      function(number, torn)
        fields.seq = number
        fields.torn = torn and json.object({ bytes = #torn, sha256 = log.sha256(torn) }, { "bytes", "sha256" })
        return (json.compact(fields):sub(1, -2))
      end)
    if not seq then message, code = hash, is_good end
  end
  tell_system(fields, seq, seq and hash)
  if not seq then return nil, message, code end
  if not is_good then
    context:warn("%s was changed by others than certwright: %s says where", trail.path(context),
      invocation.suggest "audit --verify")
  end
  return true, seq
end

-- What was touched, by whatever script, is told by the store itself: objects
-- as they were when the command began, and as they are.
local WATCH = {
  "PRAGMA temp_store = MEMORY",
  "DROP TRIGGER IF EXISTS temp.added", "DROP TRIGGER IF EXISTS temp.changed", "DROP TRIGGER IF EXISTS temp.removed",
  "DROP TABLE IF EXISTS temp.touched",
  [[CREATE TEMP TABLE touched (id INTEGER PRIMARY KEY, was TEXT, had TEXT, was_revoked INTEGER, name TEXT, state TEXT,
    has TEXT, is_revoked INTEGER)]],
  [[CREATE TEMP TRIGGER added AFTER INSERT ON main.objects BEGIN
    INSERT INTO touched VALUES (new.id, NULL, NULL, NULL, new.friendly_name, new.state, new.fingerprint,
      new.revoked_at); END]],
  [[CREATE TEMP TRIGGER changed AFTER UPDATE OF state, fingerprint, revoked_at, has_private_key, exportable
    ON main.objects BEGIN
    INSERT INTO touched VALUES (old.id, old.state, old.fingerprint, old.revoked_at, new.friendly_name, new.state,
      new.fingerprint, new.revoked_at)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, state = excluded.state, has = excluded.has,
      is_revoked = excluded.is_revoked; END]],
  [[CREATE TEMP TRIGGER removed AFTER DELETE ON main.objects BEGIN
    INSERT INTO touched VALUES (old.id, old.state, old.fingerprint, old.revoked_at, old.friendly_name, NULL, NULL, NULL)
    ON CONFLICT (id) DO UPDATE SET state = NULL, has = NULL; END]],
}

local function watch(db)
  for _, statement in ipairs(WATCH) do
    local ok, message, code = (statement:match "^PRAGMA" and db.rows or db.run)(db, statement)
    if not ok then return nil, message, code end
  end
  return true
end

-- The object that the command line names, where it names one.
local function named(context)
  local word = context.parsed and (context.parsed.cert or context.parsed.id)
  local row = type(word) == "string" and object.find(context.db, word)
  return row or nil
end

--- Records that a command begins; once.  Called by context:write, else by who
-- opened the store `unrecorded` and has found something to change.  From then on
-- nobody keeps its end from being recorded by no longer reading what it says.
-- @param says_nothing whether it says nothing until then
-- @return true | nil, message, code: then nothing may be changed
function M.begin(context, says_nothing)
  if context.record or context.dry_run then return true end
  local ok, message, code = watch(context.db)
  if not ok then return nil, message, code end
  local row = named(context)
  local record = { services = {}, object = row and row.id, friendly_name = row and row.friendly_name }
  local seq
  ok, seq, code = M.record(context, { result = "begun", object = record.object, friendly_name = record.friendly_name })
  if not ok then return nil, code == "busy" and seq or seq .. "; what is not in the audit record is not done", code end
  record.begun = seq
  context.record = record
  if not says_nothing then interrupt.detach() end
  return true
end

-- The fingerprints of results, or of what stood before, that are of a service.
local function prints(results, service)
  local list, seen = {}, {}
  for key, result in pairs(results) do
    local is_of = result.service == service or type(key) == "string" and key:sub(1, #service + 1) == service .. " "
    if is_of and result.fingerprint and not seen[result.fingerprint] then
      seen[result.fingerprint] = true
      list[#list + 1] = result.fingerprint
    end
  end
  table.sort(list)
  return json.array(list)
end

--- Notes what services presented before a deployment and after it, or, where
-- nobody looked, what their files were and are.
-- @param run as deployment.lua has it; results of the last look, or nil
function M.deployed(run, results)
  local sights = run.context.recovering or run.context.record and run.context.record.services
  for _, unit in ipairs(sights and run.units or {}) do
    local function files(generation_name)
      return json.array { generation_name and require("staging").written(unit.dir .. "/" .. generation_name) }
    end
    for _, service in ipairs(unit.services) do
      local before = prints(run.before, service.name)
      local sight = sights[service.name] or { before = #before > 0 and before or files(unit.previous) }
      sight.after = prints(results or {}, service.name)
      if #sight.after == 0 then sight.after = files "current" end
      sights[service.name] = sight
    end
  end
end

-- Services as before and after them, into the two sides.
local function add_services(before, after, sights)
  if next(sights) == nil then return end
  before.services, after.services = json.object {}, json.object {}
  for service, sight in pairs(sights) do
    before.services[service], after.services[service] = sight.before, sight.after
  end
end

--- Runs what recovers a deployment, with a record of its own.
-- @param id the object that was being deployed
-- @param work function -> true, what was done | nil, message, code
-- @return the same
function M.recovery(context, id, work)
  context.recovering = {}
  local ok, message, code = work()
  local before, after = {}, {}
  add_services(before, after, context.recovering)
  context.recovering = nil
  local told, why = M.record(context, {
    action = "recovery", arguments = {}, object = id, result = ok and "done" or RESULT[code] or "failed",
    code = not ok and code or nil, message = message, before = before.services and json.object(before),
    after = before.services and json.object(after),
  })
  if not told then context:warn("what was recovered is not in the audit record: %s", why) end
  return ok, message, code
end

-- Objects and services that were touched: before, after, and the first object.
local function changes(context)
  local before, after = {}, {}
  local rows = context.db:rows "SELECT * FROM touched ORDER BY id" or {}
  local function object_as(state, fingerprint, revoked)
    return state and json.object({ state = state, fingerprint = fingerprint or json.null, revoked = revoked and true },
      { "state", "fingerprint", "revoked" }) or json.null
  end
  if rows[1] then before.objects, after.objects = json.object {}, json.object {} end
  for _, row in ipairs(rows) do
    before.objects[tostring(row.id)] = object_as(row.was, row.had, row.was_revoked)
    after.objects[tostring(row.id)] = object_as(row.state, row.has, row.is_revoked)
  end
  add_services(before, after, context.record.services)
  if next(before) == nil then return nil, nil end
  return json.object(before, { "objects", "services" }), json.object(after, { "objects", "services" }), rows[1]
end

--- Records how a command ended, where it had begun.
-- @param status the exit status; message and code of a failure
function M.finish(context, status, message, code)
  local record = context.record
  if not record then return end
  local before, after, row = changes(context)
  context.record = nil
  local ok, why = M.record(context, {
    begun = record.begun, result = status == 0 and "done" or RESULT[code] or "failed", status = status, code = code,
    message = message, object = record.object or row and row.id,
    friendly_name = record.friendly_name or row and row.name, before = before, after = after,
  })
  if not ok then context:warn("how it ended is not in the audit record: %s", why) end
end

return M
