-- putback.lua: undoes a deployment: before the switch by removing what was
-- staged, after it by switching back, reloading, and observing the old
-- certificate again.

local assignments = require "assignments"
local certificates = require "certificates"
local generation = require "core.generation"
local host = require "core.host"
local observation = require "observation"
local servant = require "servant"
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

local function before_of(run, result)
  return run.before[observation.key(result)]
end

-- Whether every place that answered before shows again what it showed.
local function observe_old(run)
  local targets = {}
  for _, target in ipairs(run.targets) do targets[#targets + 1] = target end
  if next(run.before) == nil then return {}, true end
  local longest = 0
  for _, service in ipairs(run.services) do longest = math.max(longest, service.observe_timeout) end
  return observation.wait(targets, function(result) return before_of(run, result) end,
    function(result) return before_of(run, result) ~= nil end, longest)
end

-- What stays wanted: `check` shows it, `renew` and `poll` try it again.
local function record_failure(run, results, message)
  local db, wanted = run.context.db, run.wanted
  local by_service = {}
  for _, row in ipairs(assignments.of(db, run.row.id) or {}) do
    if row.state ~= "failed" then by_service[row.service] = true end
  end
  for _, unit in ipairs(run.units) do
    local written = unit.previous and staging.written(unit.dir .. "/" .. unit.previous)
    for _, result in ipairs(results) do
      for _, service in ipairs(unit.services) do
        if result.service == service.name and not by_service[service.name] then
          local ok, why, code = assignments.put(db, {
            object_id = run.row.id, service = result.service, endpoint = result.endpoint, address = result.address,
            name = result.name, server = host.name(), desired = wanted.fingerprint, written = written,
            observed = result.fingerprint, observed_at = result.fingerprint and result.at, error = message,
            state = "failed",
          })
          if not ok then return nil, why, code end
        end
      end
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
  table.move(reload_back(run), 1, 99, #problems + 1, problems)
  local results, good = observe_old(run)
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
