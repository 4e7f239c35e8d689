-- recording.lua: what the store is told of a deployment that succeeded.

local assignments = require "assignments"
local attempts = require "attempts"
local audit = require "audit"
local cert = require "core.cert"
local certificates = require "certificates"
local host = require "core.host"
local observation = require "observation"
local planning = require "planning"
local sni = require "sni"

local M = {}

-- A row of assignments of an object that a result shows.
local function seen_row(id, result, wanted, beside)
  return {
    object_id = id, service = result.service, endpoint = result.endpoint, address = result.address,
    name = result.name, server = host.name(), desired = wanted.fingerprint, written = wanted.fingerprint,
    observed = result.fingerprint, observed_at = result.fingerprint and result.at,
    error = observation.difference(result, wanted), state = observation.state(result, wanted), sni = beside,
  }
end

-- A row of an object that was written where nobody looks.
local function written_row(id, place, fingerprint, beside)
  return {
    object_id = id, service = place.service, endpoint = place.endpoint, name = place.name, server = host.name(),
    desired = fingerprint, written = fingerprint, state = "written", sni = beside,
  }
end

-- Where a certificate is that was only written: at the targets, or where no
-- endpoint is known at its service, by name if it stands beside the default.
local function places_of(run)
  local places, covered = {}, {}
  for _, target in ipairs(run.targets) do
    covered[target.service] = true
    if not target.kept then places[#places + 1] = target end
  end
  for _, service in ipairs(run.services) do
    local names = service.sni and sni.names(run.material) or { "" }
    for _, name in ipairs(covered[service.name] and {} or names) do
      places[#places + 1] = { service = service.name, name = name }
    end
  end
  return places
end

-- The rows of the certificate that was assigned.
local function rows_of(run)
  local rows, beside, kept, id = {}, {}, planning.kept(run), run.row.id
  for _, service in ipairs(run.services) do beside[service.name] = service.sni and 1 or 0 end
  for _, result in ipairs(run.results or {}) do
    if not kept(result) then
      rows[#rows + 1] = seen_row(id, result, run.material.wanted, beside[result.service])
    end
  end
  for _, place in ipairs(run.results and {} or places_of(run)) do
    rows[#rows + 1] = written_row(id, place, run.material.wanted.fingerprint, beside[place.service])
  end
  return rows
end

-- The rows of the service's default certificate where no name is asked for: its
-- other rows may all have gone to the one that now stands beside it.
local function rows_of_default(run, service, default)
  local rows, kept = {}, planning.kept(run)
  for _, result in ipairs(run.results or {}) do
    if result.service == service.name and kept(result) and (result.name or "") == "" then
      rows[#rows + 1] = seen_row(default.object_id, result, { fingerprint = default.desired })
    end
  end
  if #rows == 0 then rows[1] = written_row(default.object_id, { service = service.name }, default.desired) end
  return rows
end

-- What others had on a service where the certificate is the default one now.
local function replace(db, run, service)
  local ok, message, code = assignments.drop_wishes(db, run.row.id, service.name)
  if ok then ok, message, code = assignments.replace_others(db, run.row.id, service.name) end
  return ok, message, code
end

-- What others had on a service for the names of the certificate that now stands
-- beside the default one; the default one stays.
local function give_way(db, run, service)
  local rows, message, code = assignments.on_service(db, service.name)
  if not rows then return nil, message, code end
  local leaf, default, ok = assert(cert.parse(run.row.certificate))[1], nil, true
  for _, row in ipairs(rows) do
    if row.object_id ~= run.row.id then
      local stands = row.sni == 0 and row.state ~= "failed"
      if stands then default = row end
      local renewed = row.sni == 1 and row.object_id == run.row.replaces
      if (stands or row.sni == 1) and (renewed or (row.name ~= "" and leaf:covers(row.name))) then
        row.state = "replaced"
        if ok then ok, message, code = assignments.put(db, row) end
      end
    end
  end
  for _, row in ipairs(default and rows_of_default(run, service, default) or {}) do
    if ok then ok, message, code = assignments.put(db, row) end
  end
  return ok, message, code
end

--- Records that a certificate is assigned: rows, journal and history at once.
function M.record(run)
  local db = run.context.db
  audit.deployed(run, run.results)
  return db:transaction(function()
    local ok, message, code = true, nil, nil
    for _, service in ipairs(run.services) do
      if ok then ok, message, code = (service.sni and give_way or replace)(db, run, service) end
      if ok then ok, message, code = assignments.forget(db, run.row.id, service.name) end
    end
    for _, row in ipairs(rows_of(run)) do
      if ok then ok, message, code = assignments.put(db, row) end
    end
    if ok then
      ok, message, code = certificates.record(db, run.row.id, run.context:who(),
        run.results and "assigned" or "written", planning.service_names(run))
    end
    if ok then ok, message, code = attempts.settle(db, run.row.id) end
    if ok and run.journal then ok, message, code = assignments.finish(db, run.journal, "committed") end
    if not ok then return nil, message, code end
    return true
  end)
end

return M
