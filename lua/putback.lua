-- putback.lua: undoes a deployment: before the switch by removing what was
-- staged, after it by switching back, reloading, and observing the old
-- certificate again.

local assignments = require "assignments"
local attempts = require "attempts"
local audit = require "audit"
local certificates = require "certificates"
local generation = require "core.generation"
local host = require "core.host"
local observation = require "observation"
local planning = require "planning"
local servant = require "servant"
local sni = require "sni"
local staging = require "staging"
local text = require "text"

local M = {}

--- Removes what was staged; nothing ever pointed at it.
function M.undo(run)
  for _, unit in ipairs(run.units) do generation.remove(unit.dir, unit.new) end
  return true
end

-- Points every unit's link back; a first assignment had none.
local function switch_back(run)
  local problems = {}
  for _, unit in ipairs(run.units) do
    if generation.current(unit.dir, "current") == unit.new then
      local ok, message = generation.switch(unit.dir, "current", unit.previous)
      if not ok then problems[#problems + 1] = message end
    end
  end
  return problems
end

local function reload_back(run)
  local problems = {}
  for _, unit in ipairs(run.units) do
    local ok, message = servant.revive(unit)
    if not ok then problems[#problems + 1] = message end
  end
  return problems
end

local function has_exited(run)
  for _, service in ipairs(run.services) do
    if servant.has_exited(service) then return true end
  end
  return false
end

local function before_of(run, result)
  return run.before[observation.key(result)]
end

-- Whether every place that answered before shows again what it showed.
local function observe_old(run)
  if next(run.before) == nil then return {}, true end
  return observation.wait(run.targets, function(result) return before_of(run, result) end,
    function(result) return before_of(run, result) ~= nil end, observation.timeouts(run.services))
end

-- Reloads, and observes the old; a daemon that took its time to exit is started
-- in a second round.
local function bring_back(run)
  local problems = reload_back(run)
  local results, good = observe_old(run)
  if not good and has_exited(run) then
    problems = reload_back(run)
    results, good = observe_old(run)
  end
  return results, good, problems
end

-- Where a failure is recorded: where it was looked, else where it would have
-- been, else the services.
local function places_of(run, results)
  if #results > 0 then return results end
  if #run.targets > 0 then return run.targets end
  local places = {}
  for i, service in ipairs(run.services) do places[i] = { service = service.name } end
  return places
end

-- The services on which the object stands in spite of the failure: it was there
-- before.
local function standing(run)
  local set = {}
  for _, row in ipairs(assignments.of(run.context.db, run.row.id) or {}) do
    if row.state ~= "failed" and row.state ~= "replaced" then set[row.service] = true end
  end
  return set
end

-- What stays wanted: `check` shows it, `renew` and `poll` try it again.
local function record_failure(run, results, message)
  local stands, written, beside, kept = standing(run), {}, {}, planning.kept(run)
  for _, unit in ipairs(run.units) do
    local folder = unit.previous and unit.dir .. "/" .. unit.previous
    local there = folder and staging.written(folder)
    if folder and unit.sni and sni.holds(folder, run.wanted.fingerprint) then there = run.wanted.fingerprint end
    for _, service in ipairs(unit.services) do
      written[service.name], beside[service.name] = there, unit.sni and 1 or 0
    end
  end
  for _, place in ipairs(places_of(run, results)) do
    if not stands[place.service] and not kept(place) then
      local ok, why, code = assignments.put(run.context.db, {
        object_id = run.row.id, service = place.service, endpoint = place.endpoint, address = place.address,
        name = place.name, server = host.name(), desired = run.wanted.fingerprint, written = written[place.service],
        observed = place.fingerprint, observed_at = place.fingerprint and place.at, error = message, state = "failed",
        sni = beside[place.service],
      })
      if not ok then return nil, why, code end
    end
  end
  return true
end

-- Closes the journal and tells the history, in one transaction.
local function finish(run, results, outcome, message)
  local db = run.context.db
  return db:transaction(function()
    local ok, why, code = true, nil, nil
    if results then ok, why, code = record_failure(run, results, message) end
    if results and ok then ok, why, code = attempts.begin(db, run.row.id, message) end
    if ok then ok, why, code = certificates.record(db, run.row.id, run.context:who(), outcome, message) end
    if ok then ok, why, code = assignments.finish(db, run.journal, outcome, message) end
    if not ok then return nil, why, code end
    return true
  end)
end

local function describe_unrestored(run, results, problems)
  local lines = { table.unpack(problems) }
  for _, result in ipairs(results) do
    local before = before_of(run, result)
    local why = before and observation.difference(result, before)
    if why then lines[#lines + 1] = ("%s: %s"):format(observation.describe(result), text.escape(why)) end
  end
  return table.concat(lines, "; ")
end

--- Puts back what was before, and observes it.
-- @param run { context, row, units, services, targets, before, wanted, journal }
-- @param message why
-- @return true | nil, message, "unrestored"
function M.restore(run, message)
  assignments.stage(run.context.db, run.journal, "put back")
  run.context:say("  putting back what was there before")
  local problems = switch_back(run)
  local links_are_back = #problems == 0
  local results, good, more = bring_back(run)
  table.move(more, 1, #more, #problems + 1, problems)
  audit.deployed(run, results)
  if not links_are_back or not good then
    local why = describe_unrestored(run, results, problems)
    finish(run, results, "unrestored", message .. "; not put back: " .. why)
    return nil, why, "unrestored"
  end
  for _, result in ipairs(results) do
    if before_of(run, result) then
      run.context:say("  observed %s: %s, as before", observation.describe(result), result.fingerprint:sub(1, 16))
    end
  end
  local ok, why, code = finish(run, results, "put back", message)
  M.undo(run)
  return ok, why, code
end

--- Ends a deployment that failed in a stage.
-- @return nil, message, code
function M.fail(run, stage, message, code)
  run.wanted = run.material.wanted
  if not run.switched then
    M.undo(run)
    local ok, why, what = finish(run, nil, "undone", message)
    if not ok then return nil, ("%s; and: %s"):format(message, why), what end
    return nil, message, code
  end
  local ok, why, what = M.restore(run, message)
  if not ok and what == "unrestored" then
    return nil, ("%s (in %s); AND NOT PUT BACK: %s"):format(message, stage, why), "unrestored"
  elseif not ok then
    return nil, ("%s; and: %s"):format(message, why), what
  end
  return nil, ("%s; everything is as before"):format(message), code
end

return M
