-- recovery.lua: finishes or undoes what a crash cut short, and says which.
--
-- Before the switch: undo.  After it: when every place shows the new
-- certificate, commit; else put back.

local assignments = require "assignments"
local certificates = require "certificates"
local generation = require "core.generation"
local observation = require "observation"
local putback = require "putback"

local M = {}

-- Rebuilds a run from what the journal holds and what the site says now.
local function rebuild(context, entry)
  local run = {
    context = context, journal = entry.id, row = { id = entry.object_id }, units = entry.plan.units,
    targets = entry.plan.targets, before = entry.plan.before, services = {}, options = {},
    wanted = { fingerprint = entry.fingerprint, chain = entry.plan.chain },
  }
  run.material = { wanted = run.wanted }
  local site, message, code = context:site()
  if not site then return nil, message, code end
  for _, unit in ipairs(run.units) do
    for i, name in ipairs(unit.services) do
      local service
      service, message, code = site:service(name)
      if not service then
        return nil, ("cannot recover the deployment of %d that was cut short: %s"):format(entry.object_id,
          message), code
      end
      service.was_running = unit.running
      unit.services[i] = service
      run.services[#run.services + 1] = service
    end
  end
  return run
end

local function before_switch(stage)
  return stage == "begin" or stage == "preflight" or stage:match "^stage" ~= nil
end

local function is_switched(run)
  for _, unit in ipairs(run.units) do
    if generation.current(unit.dir, "current") ~= unit.new then return false end
  end
  return true
end

-- Whether every place that answered before shows the new certificate.
local function is_observed(run)
  if next(run.before) == nil then return false end
  run.results = observation.look(run.targets)
  for _, result in ipairs(run.results) do
    if run.before[observation.key(result)] and observation.difference(result, run.wanted) then return false end
  end
  return true
end

local function recover(context, entry)
  local run, message, code = rebuild(context, entry)
  if not run then return nil, message, code end
  local what = ("the deployment of %d that was cut short at '%s'"):format(entry.object_id, entry.stage)
  if before_switch(entry.stage) then
    putback.undo(run)
    local ok
    ok, message, code = assignments.finish(context.db, run.journal, "undone", "cut short")
    if ok then
      ok, message, code = certificates.record(context.db, run.row.id, context:who(), "undone",
        "cut short at " .. entry.stage)
    end
    if not ok then return nil, message, code end
    context:say("recovered: %s was undone; nothing had been switched", what)
    return true
  end
  if entry.stage ~= "put back" and is_switched(run) and is_observed(run) then
    local ok
    ok, message, code = require("deployment").record(run)
    if not ok then return nil, message, code end
    context:say("recovered: %s was finished; the new certificate is observed everywhere", what)
    return true
  end
  local ok
  ok, message, code = putback.restore(run, "cut short at " .. entry.stage)
  if not ok then return nil, ("%s could not be put back: %s"):format(what, message), code end
  context:say("recovered: %s was put back; everything is as before", what)
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
  entries, message, code = assignments.unfinished(context.db)
  if not entries then return nil, message, code end
  for _, entry in ipairs(entries) do
    local ok
    ok, message, code = recover(context, entry)
    if not ok then return nil, message, code end
  end
  return true
end

--- Says, without touching anything, that something was cut short.
function M.mention(context)
  for _, entry in ipairs(assignments.unfinished(context.db) or {}) do
    context:say("a deployment of %d is under way or was cut short at '%s'; certwright check finishes or undoes it",
      entry.object_id, entry.stage)
  end
end

return M
