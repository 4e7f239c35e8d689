-- recording.lua: what the store is told of a deployment that succeeded.

local assignments = require "assignments"
local certificates = require "certificates"
local host = require "core.host"
local observation = require "observation"
local planning = require "planning"

local M = {}

-- The rows of assignments that the results show.
local function rows_of(run)
  local rows = {}
  for _, result in ipairs(run.results or {}) do
    local wanted = run.material.wanted
    rows[#rows + 1] = {
      object_id = run.row.id, service = result.service, endpoint = result.endpoint, address = result.address,
      name = result.name, server = host.name(), desired = wanted.fingerprint, written = wanted.fingerprint,
      observed = result.fingerprint, observed_at = result.fingerprint and result.at,
      error = observation.difference(result, wanted), state = observation.state(result, wanted),
    }
  end
  if run.results then return rows end
  for _, target in ipairs(#run.targets > 0 and run.targets or run.services) do
    rows[#rows + 1] = {
      object_id = run.row.id, service = target.endpoint and target.service or target.name, endpoint = target.endpoint,
      name = target.endpoint and target.name, server = host.name(), desired = run.material.wanted.fingerprint,
      written = run.material.wanted.fingerprint, state = "written",
    }
  end
  return rows
end

--- Records that a certificate is assigned: rows, journal and history at once.
function M.record(run)
  local db = run.context.db
  return db:transaction(function()
    local ok, message, code = true, nil, nil
    for _, service in ipairs(run.services) do
      if ok then ok, message, code = assignments.drop_wishes(db, run.row.id, service.name) end
      if ok then ok, message, code = assignments.replace_others(db, run.row.id, service.name) end
      if ok then ok, message, code = assignments.forget(db, run.row.id, service.name) end
    end
    for _, row in ipairs(rows_of(run)) do
      if ok then ok, message, code = assignments.put(db, row) end
    end
    if ok then
      ok, message, code = certificates.record(db, run.row.id, run.context:who(),
        run.results and "assigned" or "written", planning.service_names(run))
    end
    if ok and run.journal then ok, message, code = assignments.finish(db, run.journal, "committed") end
    if not ok then return nil, message, code end
    return true
  end)
end

return M
