-- certificates.lua: the SQL of objects (requests and their certificates),
-- their names and their history.  Knows no workflow: states are written by
-- flow.lua through `advance`.

local invocation = require "invocation"
local json = require "json"

local M = {}

-- Columns that a caller may set, in one place so that no name of a column
-- ever comes from outside.
local COLUMNS = {
  friendly_name = true, subject = true, common_name = true, key = true, public_key = true,
  has_private_key = true, exportable = true, self_signed = true, ca = true, ticket = true,
  wish = true, replaces = true, certificate = true, chain = true, fingerprint = true,
  thumbprint = true, serial = true, issuer = true, not_before = true, not_after = true,
  renew_at = true, untrusted = true, revoked_at = true, warnings = true, created_at = true,
  state = true, id = true,
}

--- Clears a column in a change: { ticket = certificates.NULL }.
M.NULL = {}

-- "a = ?1, b = ?2" and the values, for a table of changes.
local function assignments_of(changes)
  local columns, values = {}, {}
  for column, value in require("options").sorted(changes) do
    if not COLUMNS[column] then error("unknown column " .. tostring(column), 3) end
    columns[#columns + 1] = column
    if value == M.NULL then value = nil end
    values[#columns] = value
  end
  return columns, values
end

local function insert(db, changes)
  local columns, values = assignments_of(changes)
  local marks = {}
  for i = 1, #columns do marks[i] = "?" .. i end
  local sql = ("INSERT INTO objects (%s) VALUES (%s)"):format(table.concat(columns, ", "), table.concat(marks, ", "))
  local changed, id, code = db:run(sql, table.unpack(values, 1, #columns))
  if not changed then return nil, id, code end
  return id
end

local function insert_names(db, id, names)
  local ok, message, code = db:run("DELETE FROM names WHERE object_id = ?1", id)
  if not ok then return nil, message, code end
  for position, name in ipairs(names) do
    ok, message, code = db:run("INSERT INTO names VALUES (?1, ?2, ?3)", id, position, name)
    if not ok then return nil, message, code end
  end
  return true
end

--- Records an event in the history of an object.
function M.record(db, id, who, event, detail)
  return db:run("INSERT INTO history (object_id, at, who, event, detail) VALUES (?1, ?2, ?3, ?4, ?5)",
    id, os.time(), who, event, detail)
end

--- The id that the next object gets, unless a greater one is given to it.
function M.next_id(db)
  local rows, message, code = db:rows "SELECT seq FROM sqlite_sequence WHERE name = 'objects'"
  if not rows then return nil, message, code end
  return (rows[1] and rows[1].seq or 0) + 1
end

--- Adds an object; inside a transaction.
-- @param fields columns of `objects`
-- @param names its names, in order
-- @return id | nil, message, code
function M.add(db, fields, names, who)
  local id, message, code = insert(db, fields)
  if not id then return nil, message, code end
  local ok
  ok, message, code = insert_names(db, id, names)
  if ok then ok, message, code = M.record(db, id, who, fields.state) end
  if not ok then return nil, message, code end
  return id
end

--- Compare-and-set of an object's state, with other columns and its names.
-- @param from array of states it may be in
-- @return true | nil, message, "mismatch" | ...
function M.advance(db, id, from, changes, names)
  local columns, values = assignments_of(changes)
  local sets, places = {}, {}
  for i, column in ipairs(columns) do sets[i] = column .. " = ?" .. i end
  local n = #columns
  for i, state in ipairs(from) do
    places[i] = "?" .. n + 1 + i
    values[n + 1 + i] = state
  end
  values[n + 1] = id
  local sql = ("UPDATE objects SET %s WHERE id = ?%d AND state IN (%s)"):format(
    table.concat(sets, ", "), n + 1, table.concat(places, ", "))
  local changed, message, code = db:run(sql, table.unpack(values, 1, n + 1 + #from))
  if not changed then return nil, message, code end
  if changed == 0 then
    return nil, ("cannot change %d: its state is no longer %s"):format(id, table.concat(from, " or ")), "mismatch"
  end
  if names then return insert_names(db, id, names) end
  return true
end

--- Changes columns of an object without touching its state.
function M.set(db, id, changes)
  if changes.state then error("only flow.lua changes a state", 2) end
  local columns, values = assignments_of(changes)
  local sets = {}
  for i, column in ipairs(columns) do sets[i] = column .. " = ?" .. i end
  values[#columns + 1] = id
  return db:run(("UPDATE objects SET %s WHERE id = ?%d"):format(table.concat(sets, ", "), #columns + 1),
    table.unpack(values, 1, #columns + 1))
end

-- All columns but the certificates themselves, for lists.
local SUMMARY = "id, state, friendly_name, subject, common_name, key, public_key, has_private_key, exportable, "
  .. "self_signed, ca, ticket, wish, replaces, fingerprint, thumbprint, serial, issuer, not_before, not_after, "
  .. "renew_at, untrusted, revoked_at, warnings, created_at"

-- Reads objects and their names, in two queries however many there are.
-- @param columns "*" or SUMMARY; where a condition on objects; order of rows
local function select(db, columns, where, order, ...)
  local sql = ("SELECT %s FROM objects WHERE %s ORDER BY %s"):format(columns, where, order)
  local rows, message, code = db:rows(sql, ...)
  if not rows then return nil, message, code end
  local by_id = {}
  for _, row in ipairs(rows) do
    by_id[row.id] = row
    row.domains = {}
    row.warnings = row.warnings == "[]" and {} or json.decode(row.warnings)
    row.has_private_key, row.exportable = row.has_private_key == 1, row.exportable == 1
    row.self_signed = row.self_signed == 1
  end
  local names
  names, message, code = db:rows("SELECT object_id, name FROM names WHERE object_id IN (SELECT id FROM objects WHERE "
    .. where .. ") ORDER BY object_id, position", ...)
  if not names then return nil, message, code end
  for _, entry in ipairs(names) do
    local row = by_id[entry.object_id]
    if row then row.domains[#row.domains + 1] = entry.name end
  end
  return rows
end

local function read(db, where, order, ...)
  return select(db, "*", where, order, ...)
end

--- The object with this id.
-- @return row | nil, message, "missing" | ...
function M.get(db, id)
  local rows, message, code = read(db, "id = ?1", "id", id)
  if not rows then return nil, message, code end
  if not rows[1] then
    return nil, ("there is no request or certificate %d; see %s"):format(id, invocation.suggest "list"), "missing"
  end
  return rows[1]
end

--- Objects with this friendly name that are not cancelled or rejected,
-- the completed first, the newest first.
function M.named(db, name)
  return read(db, "friendly_name = ?1 AND state NOT IN ('cancelled', 'rejected')",
    "state = 'completed' DESC, id DESC", name)
end

--- Objects whose fingerprint or thumbprint starts with these hex digits.
function M.with_fingerprint(db, digits)
  local last = digits .. "g" -- past every longer row of hex digits
  return read(db, "(fingerprint >= ?1 AND fingerprint < ?2) OR (thumbprint >= ?1 AND thumbprint < ?2)",
    "id", digits, last)
end

--- Pending requests, or all objects, of this public key (SPKI, SHA-256 hex).
function M.with_key(db, public_key)
  return read(db, "public_key = ?1", "id DESC", public_key)
end

--- Requests that wait for a certificate.
function M.pending(db)
  return read(db, "state IN ('created', 'submitted')", "id")
end

--- Objects that renew this one, the newest first, but for cancelled ones.
function M.successors(db, id)
  return read(db, "replaces = ?1 AND state != 'cancelled'", "id DESC", id)
end

--- Objects that are to be gone on with: pending at a CA, wanted for more than
-- they are, or wanted on a service and not there.
function M.unfinished(db)
  return read(db, [[state = 'submitted' OR (wish IS NOT NULL AND state != 'cancelled')
    OR id IN (SELECT object_id FROM assignments WHERE state = 'failed')]], "id")
end

-- Certificates that renew by themselves when their time has come: those on a
-- service (a revoked one at once), and those that nothing has replaced.  One
-- whose key is elsewhere is renewed elsewhere.
local RENEWED = [[state = 'completed' AND has_private_key = 1 AND (
  id IN (SELECT object_id FROM assignments WHERE state != 'replaced')
  OR (revoked_at IS NULL AND NOT EXISTS (SELECT 1 FROM objects AS newer WHERE newer.state = 'completed'
    AND newer.id > objects.id AND (newer.friendly_name = objects.friendly_name OR newer.replaces = objects.id)))) ]]

--- Certificates that are due to be renewed, the newest first.
-- @param now epoch seconds
-- @param id nil, or only this one
function M.due(db, now, id)
  return read(db, RENEWED .. "AND (renew_at <= ?1 OR revoked_at IS NOT NULL) AND (?2 IS NULL OR id = ?2)", "id DESC",
    now, id)
end

--- The certificate that is due next.
-- @return { id, friendly_name, renew_at } | nil when there is none
function M.next_due(db, now)
  local rows = db:rows("SELECT id, friendly_name, renew_at FROM objects WHERE " .. RENEWED
    .. "AND renew_at > ?1 AND revoked_at IS NULL ORDER BY renew_at LIMIT 1", now)
  return rows and rows[1]
end

-- The wildcard that covers a name: "*" for its left-most label, before at least
-- two more (RFC 9525, section 6.3).
local function wildcard_of(name)
  local rest = name:match "^[^.*]+(%..+%..+)$"
  return rest and not require("names").is_address(name) and "*" .. rest or name
end

--- Objects, oldest first, that fit the filter, without certificate and chain.
-- @param filter { domain= (a name that is covered), service=, before= (epoch: not_after before it) } each optional
function M.list(db, filter)
  local where, values = { "1" }, {}
  local function add(condition, value)
    values[#values + 1] = value
    where[#where + 1] = condition:gsub("%?", "?" .. #values)
  end
  if filter.domain then
    local name = filter.domain:lower():gsub("(.)%.$", "%1")
    values[1], values[2] = name, wildcard_of(name)
    where[1] = "id IN (SELECT object_id FROM names WHERE name IN (?1, ?2))"
  end
  if filter.service then
    add("id IN (SELECT object_id FROM assignments WHERE service = ? AND state NOT IN ('replaced', 'failed'))",
      filter.service)
  end
  if filter.before then
    add("not_after < ? AND state = 'completed'", filter.before)
  end
  -- "+id": without it, SQLite would walk all ids rather than an index
  return select(db, SUMMARY, table.concat(where, " AND "), #values > 0 and "+id" or "id", table.unpack(values))
end

--- What happened to an object, oldest first: { at, who, event, detail }.
function M.history(db, id)
  return db:rows("SELECT at, who, event, detail FROM history WHERE object_id = ?1 ORDER BY id", id)
end

--- Removes an object; its history stays.
function M.remove(db, id)
  return db:run("DELETE FROM objects WHERE id = ?1", id)
end

return M
