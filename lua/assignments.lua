-- assignments.lua: the SQL of assignments and of the journal of deployments.
--
-- An assignment is a certificate on a service as it is seen at one endpoint,
-- address and name: what is desired, written and observed there.

local invocation = require "invocation"
local json = require "json"

local M = {}

-- With each that failed, when it is tried again.
local ROWS = [[SELECT a.*, t.next_at AS retry_at FROM assignments a
  LEFT JOIN attempts t ON t.object_id = a.object_id AND a.state = 'failed' ]]

--- The assignments of an object.
-- @return array of rows | nil, message, code
function M.of(db, id)
  return db:rows(ROWS .. "WHERE a.object_id = ?1 ORDER BY service, endpoint, address, name", id)
end

--- The assignments of all objects.
-- @return { [object id] = array of rows } | nil, message, code
function M.by_object(db)
  local rows, message, code = db:rows(ROWS .. "ORDER BY a.object_id, service, endpoint, address, name")
  if not rows then return nil, message, code end
  local by_id = {}
  for _, row in ipairs(rows) do
    by_id[row.object_id] = by_id[row.object_id] or {}
    table.insert(by_id[row.object_id], row)
  end
  return by_id
end

--- The services that rows of assignments show a certificate to be on.
function M.services(rows)
  local list, seen = {}, {}
  for _, row in ipairs(rows) do
    if row.state ~= "replaced" and row.state ~= "failed" and not seen[row.service] then
      seen[row.service] = true
      list[#list + 1] = row.service
    end
  end
  return list
end

--- Every assignment that still stands or is still wanted.
function M.standing(db)
  return db:rows [[SELECT * FROM assignments WHERE state != 'replaced'
    ORDER BY object_id, service, endpoint, address, name]]
end

--- Whether a certificate stands, or is wanted, on a service.
function M.on_service(db, service)
  return db:rows("SELECT * FROM assignments WHERE service = ?1 AND state != 'replaced' ORDER BY object_id", service)
end

--- Writes one assignment, over the one that stands for the same place.
-- @param row { object_id, service, endpoint, address, name, server, desired,
--   written, observed, observed_at, error, state, sni = 1 for a certificate that
--   is beside the service's default one }
function M.put(db, row)
  return db:run([[INSERT OR REPLACE INTO assignments (object_id, service, endpoint, address, name, server, desired,
    written, observed, observed_at, error, state, sni)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)]],
    row.object_id, row.service, row.endpoint or "", row.address or "", row.name or "", row.server, row.desired,
    row.written, row.observed, row.observed_at, row.error, row.state, row.sni or 0)
end

--- Forgets one row.
function M.drop(db, row)
  return db:run([[DELETE FROM assignments WHERE object_id = ?1 AND service = ?2 AND endpoint = ?3 AND address = ?4
    AND name = ?5]], row.object_id, row.service, row.endpoint, row.address, row.name)
end

--- Forgets the rows of one object on a service, before new ones are written.
function M.forget(db, id, service)
  return db:run("DELETE FROM assignments WHERE object_id = ?1 AND service = ?2", id, service)
end

--- Marks what other objects had on a service as its default as replaced.
function M.replace_others(db, id, service)
  return db:run([[UPDATE assignments SET state = 'replaced'
    WHERE service = ?1 AND object_id != ?2 AND state != 'replaced' AND sni = 0]], service, id)
end

--- Drops what other objects merely wanted to be on a service, its default: a
-- wish that failed is overridden by the next one.
function M.drop_wishes(db, id, service)
  return db:run([[DELETE FROM assignments
    WHERE service = ?1 AND object_id != ?2 AND state = 'failed' AND sni = 0]], service, id)
end

--- Cancels what an object wants but has not: its failed assignments.
-- @return number of rows | nil, message, code
function M.cancel(db, id, service)
  return db:run("DELETE FROM assignments WHERE object_id = ?1 AND (?2 IS NULL OR service = ?2) AND state = 'failed'",
    id, service)
end

--- Opens a journal entry.
-- @return id | nil, message, code
function M.begin(db, object_id, fingerprint, plan)
  local ok, id, code = db:run([[INSERT INTO deployments (object_id, fingerprint, plan, stage, started_at)
    VALUES (?1, ?2, ?3, 'begin', ?4)]], object_id, fingerprint, json.compact(plan), os.time())
  if not ok then return nil, id, code end
  return id
end

--- Writes the stage that is about to be entered.
function M.stage(db, id, stage)
  return db:run("UPDATE deployments SET stage = ?2 WHERE id = ?1", id, stage)
end

--- Closes a journal entry: committed, put back, undone, unrestored.
function M.finish(db, id, outcome, message)
  return db:run("UPDATE deployments SET finished_at = ?2, outcome = ?3, message = ?4 WHERE id = ?1",
    id, os.time(), outcome, message)
end

--- Journal entries that were cut short, oldest first, their plans read.
function M.unfinished(db)
  local rows, message, code = db:rows "SELECT * FROM deployments WHERE finished_at IS NULL ORDER BY id"
  if not rows then return nil, message, code end
  for _, row in ipairs(rows) do
    row.plan, message, code = json.decode(row.plan)
    if not row.plan then return nil, message, code end
  end
  return rows
end

--- Says, without touching anything, that something was cut short.
function M.mention(context)
  for _, entry in ipairs(M.unfinished(context.db) or {}) do
    context:say("a deployment of %d is under way or was cut short at '%s'; %s finishes or undoes it",
      entry.object_id, entry.stage, invocation.suggest "check")
  end
end

--- What `adopt` remembered of a service.
-- @return record, adopted_at | nil when there is none
function M.adoption(db, service)
  local rows, message, code = db:rows("SELECT * FROM adoptions WHERE service = ?1", service)
  if not rows then return nil, message, code end
  if not rows[1] then return nil end
  return json.decode(rows[1].record), rows[1].adopted_at
end

--- Remembers what adopting a service changed; nil forgets it.
function M.remember_adoption(db, service, record)
  if record == nil then return db:run("DELETE FROM adoptions WHERE service = ?1", service) end
  return db:run("INSERT OR REPLACE INTO adoptions VALUES (?1, ?2, ?3)", service, json.compact(record), os.time())
end

return M
