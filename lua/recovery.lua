-- recovery.lua: finishes or undoes what a crash cut short, and says which.
--
-- Before the switch: undo.  After it: when every place shows the new
-- certificate, commit; else put back.  It also lets one deployment run at a
-- time.

local assignments = require "assignments"
local audit = require "audit"
local certificates = require "certificates"
local generation = require "core.generation"
local interrupt = require "core.interrupt"
local observation = require "observation"
local planning = require "planning"
local putback = require "putback"
local servant = require "servant"

local M = {}

local LOCK_TIMEOUT = 60 -- seconds to wait for another deployment

-- A run from what the journal holds.
local function rebuild(context, entry)
  local run = {
    context = context, journal = entry.id, units = entry.plan.units,
    row = certificates.get(context.db, entry.object_id) or { id = entry.object_id }, -- it may be removed by now
    targets = entry.plan.targets, before = entry.plan.before, services = {}, options = {},
    wanted = { fingerprint = entry.fingerprint, chain = entry.plan.chain },
  }
  run.material = { wanted = run.wanted }
  return run
end

-- Gives a run its services, as the site says now.
local function add_services(run)
  local site, message, code = run.context:site()
  if not site then return nil, message, code end
  for _, unit in ipairs(run.units) do
    for i, name in ipairs(unit.services) do
      local service
      service, message, code = site:service(name)
      if not service then
        return nil, ("cannot recover the deployment of %d that was cut short: %s"):format(run.row.id, message),
          code == "usage" and "missing" or code
      end
      service.was_running, service.sni = unit.running, unit.sni
      unit.services[i] = service
      run.services[#run.services + 1] = service
    end
  end
  return true
end

-- How many units' links name the new generation.
local function switched(run)
  local count = 0
  for _, unit in ipairs(run.units) do
    if generation.current(unit.dir, "current") == unit.new then count = count + 1 end
  end
  return count
end

-- Whether no daemon can have read anything new.
local function before_switch(run, stage)
  if stage == "begin" or stage == "preflight" or stage:match "^stage" then return true end
  return stage:match "^switch" ~= nil and switched(run) == 0
end

local function is_before(run)
  return function(result) return run.before[observation.key(result)] ~= nil end
end

-- Whether every place that answered before shows the new certificate, and goes
-- on doing so.  Cut short before the last reload, a daemon may still hold the
-- old one in a process that was not asked: so there is a reload first.
local function is_observed(run, stage)
  local answered, wanted = is_before(run), planning.wanted(run)
  if next(run.before) == nil then return false end
  if stage ~= "observe" and stage ~= "commit" then
    for _, result in ipairs(observation.look(run.targets)) do
      if answered(result) and observation.difference(result, wanted(result)) then return false end
    end
    for _, unit in ipairs(run.units) do
      if not servant.reload(unit) then return false end
    end
  end
  local good
  run.results, good = observation.wait(run.targets, wanted, answered,
    observation.timeouts(run.services))
  return good
end

local function undo(run, what, stage)
  putback.undo(run)
  local db = run.context.db
  local ok, message, code = db:transaction(function()
    local done, why, how = assignments.finish(db, run.journal, "undone", "cut short")
    if not done then return nil, why, how end
    return certificates.record(db, run.row.id, run.context:who(), "undone", "cut short at " .. stage)
  end)
  if not ok then return nil, message, code end
  run.context:say("recovered: %s was undone; nothing had been switched", what)
  return true, what .. " was undone"
end

local function recover(context, entry)
  local run, stage = rebuild(context, entry), entry.stage
  local what = ("the deployment of %d that was cut short at '%s'"):format(entry.object_id, stage)
  if before_switch(run, stage) then return undo(run, what, stage) end
  local ok, message, code = add_services(run)
  if not ok then return nil, message, code end
  if stage ~= "put back" and switched(run) == #run.units and is_observed(run, stage) then
    ok, message, code = require("recording").record(run)
    if not ok then return nil, message, code end
    context:say("recovered: %s was finished; the new certificate is observed everywhere", what)
    return true, what .. " was finished"
  end
  ok, message, code = putback.restore(run, "cut short at " .. stage)
  if not ok then return nil, ("%s could not be put back: %s"):format(what, message), code end
  context:say("recovered: %s was put back; everything is as before", what)
  return true, what .. " was put back"
end

-- Recovers everything, with the lock held.  From here on services are touched:
-- a terminal or a reader of our output that goes away is no reason to stop.
local function recover_all(context)
  interrupt.detach()
  local entries, message, code = assignments.unfinished(context.db)
  if not entries then return nil, message, code end
  for _, entry in ipairs(entries) do
    local ok
    ok, message, code = audit.recovery(context, entry.object_id, function() return recover(context, entry) end)
    if not ok then return nil, message, code end
  end
  return true
end

--- Recovers every deployment that was cut short.  One that another process is
-- working on is left alone.
-- @return true | nil, message, "unrestored" | ...
function M.run(context)
  local entries, message, code = assignments.unfinished(context.db)
  if not entries then return nil, message, code end
  if #entries == 0 then return true end
  local lock <close>, why, what = generation.lock(context:path("locks", "deployment"), 0)
  if not lock then
    if what == "busy" then return true end
    return nil, why, what
  end
  return recover_all(context)
end

--- Runs a function while no other process deploys, after what such a process
-- may have left when it ended while this one waited.
-- @return what the function returns | nil, message, "busy" | "unrestored" | ...
function M.alone(context, work)
  if context.dry_run then return work() end
  local lock <close>, message, code = generation.lock(context:path("locks", "deployment"), LOCK_TIMEOUT)
  if not lock then
    if code == "busy" then message = "another deployment is under way" end
    return nil, message, code
  end
  local ok, why, what = recover_all(context)
  if not ok then return nil, why, what end
  return work()
end

return M
