-- attempts.lua: when what failed is tried again: after a minute, then after
-- twice as long each time, a day at most.
--
-- Kept per object, so that it holds from one run of `renew` or `poll` to the
-- next.  What a person asks for by name is tried at once.

local M = {}

local FIRST, LONGEST = 60, 86400 -- seconds

local function delay(failures)
  return math.min(FIRST << math.min(failures - 1, 20), LONGEST)
end

--- How often in a row an object failed, and when it is tried again.
-- @return failures, next_at (epoch) | 0 when it did not fail | nil, message, code
function M.of(db, id)
  local rows, message, code = db:rows("SELECT failures, next_at FROM attempts WHERE object_id = ?1", id)
  if not rows then return nil, message, code end
  if not rows[1] then return 0 end
  return rows[1].failures, rows[1].next_at
end

--- Records the failure that follows so many others.
-- @return when it is tried again (epoch) | nil, message, code
function M.failed(db, id, before, message)
  local next_at = os.time() + delay(before + 1)
  local ok, why, code = db:run("INSERT OR REPLACE INTO attempts VALUES (?1, ?2, ?3, ?4)", id, before + 1, next_at,
    message)
  if not ok then return nil, why, code end
  return next_at
end

--- Records a first failure; one that is known already stays as it is.
function M.begin(db, id, message)
  return db:run("INSERT OR IGNORE INTO attempts VALUES (?1, 1, ?2, ?3)", id, os.time() + delay(1), message)
end

--- Forgets that an object failed.
function M.clear(db, id)
  return db:run("DELETE FROM attempts WHERE object_id = ?1", id)
end

--- Forgets it unless something that the object wants is still missing.
function M.settle(db, id)
  return db:run([[DELETE FROM attempts WHERE object_id = ?1 AND NOT EXISTS
    (SELECT 1 FROM assignments WHERE object_id = ?1 AND state = 'failed')]], id)
end

--- The next attempt of all.
-- @return id, next_at (epoch) | nil when nothing is to be tried again
function M.next(db)
  local rows = db:rows [[SELECT object_id, next_at FROM attempts JOIN objects ON id = object_id
    WHERE state != 'cancelled' ORDER BY next_at LIMIT 1]]
  if rows and rows[1] then return rows[1].object_id, rows[1].next_at end
end

return M
