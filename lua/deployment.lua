-- deployment.lua: assigning a certificate to services, all or nothing.
--
-- The run is the array `stages` below: each is journaled before it is entered,
-- so that recovery.lua knows what a crash cut short.  Whatever fails from the
-- switch on is put back: links, reload, and the old certificate observed.

local assignments = require "assignments"
local generation = require "core.generation"
local host = require "core.host"
local interrupt = require "core.interrupt"
local invocation = require "invocation"
local observation = require "observation"
local overwrite = require "overwrite"
local planning = require "planning"
local putback = require "putback"
local recording = require "recording"
local recovery = require "recovery"
local servant = require "servant"
local sni = require "sni"
local staging = require "staging"
local text = require "text"

local M = {}

--- Writes the stage that is about to be entered into the journal.
function M.enter(run, stage)
  return assignments.stage(run.context.db, run.journal, stage)
end

-- Probes every place as it is, before anything is touched.  From here on a
-- place is the address that was found: what a resolver says later changes
-- nothing.
local function look_before(run)
  run.before = {}
  if run.options.no_observe then return true end
  local places, kept = {}, planning.kept(run)
  for i, result in ipairs(observation.look(run.targets)) do
    if result.step == "url" then return nil, text.escape(result.error), "usage" end
    if result.error then
      run.context:say("  %s does not answer: %s", observation.describe(result), text.escape(result.error))
    else
      run.before[observation.key(result)] = { fingerprint = result.fingerprint, chain = result.chain }
    end
    places[i] = { service = result.service, endpoint = result.endpoint, name = result.name or "",
      address = result.address, kept = kept(result) or nil }
  end
  run.targets = places
  return true
end

-- A service must name <dir>/current/, or nothing that is done here shows.
local function check_configuration(service)
  local settings, message, code = service.how.settings(service)
  if not settings then return nil, message, code end
  local told = "the configuration of '%s' does not name %s; %s:\n\n  %s\n\n"
    .. "or let certwright do it, where it can: %s"
  local adopt = invocation.suggest("adopt %s", service.name)
  if not settings.uses_current then
    return nil, told:format(service.name, service.dir .. "/current/",
      "put this into " .. (settings.where or "its configuration"), table.concat(settings.lines, "\n  "), adopt),
      "missing"
  elseif service.sni and not settings.uses_sni then
    return nil, told:format(service.name, "what is presented beside its default certificate", "run",
      settings.sni_command, adopt), "missing"
  end
  return true
end

local function preflight(run)
  local ok, message, code = staging.check_pair(run.material, planning.common_name(run.material.fields))
  if not ok then return nil, message, code end
  for _, unit in ipairs(run.units) do
    ok, message, code = staging.check_folder(unit.dir)
    if not ok then return nil, message, code end
    for _, service in ipairs(unit.services) do
      ok, message, code = check_configuration(service)
      if not ok then return nil, message, code end
    end
  end
  return true
end

-- Whether every unit's current generation holds the certificate where it should.
local function is_written(run)
  for _, unit in ipairs(run.units) do
    local folder, fingerprint = unit.dir .. "/current", run.material.wanted.fingerprint
    if unit.sni and not sni.holds(folder, fingerprint) then return false end
    if not unit.sni and (staging.written(folder) ~= fingerprint or sni.holds(folder, fingerprint)) then return false end
  end
  return true
end

-- Whether nothing is left to do: every place shows the certificate, and every
-- unit's current generation holds it.
local function is_observed(run)
  if run.options.no_observe or #run.targets == 0 or not is_written(run) then return false end
  local wanted = planning.wanted(run)
  run.results = observation.look(run.targets)
  for _, result in ipairs(run.results) do
    if wanted(result) and observation.difference(result, wanted(result)) then return false end
  end
  -- once proves nothing: a server may be in the middle of handing over
  local good
  run.results, good = observation.wait(run.targets, wanted, function() return true end,
    observation.timeouts(run.services))
  return good
end

local function each_unit(run, verb, work)
  for _, unit in ipairs(run.units) do
    local name = unit.services[1].name
    local ok, message, code = M.enter(run, verb .. " " .. name)
    if ok then ok, message, code = work(run, unit) end
    if not ok then return nil, message, code end
  end
  return true
end

local function stage(run)
  return each_unit(run, "stage", function(_, unit)
    return staging.write(unit, unit.default or run.material)
  end)
end

local function switch(run)
  return each_unit(run, "switch", function(_, unit)
    run.switched = true
    return generation.switch(unit.dir, "current", unit.new)
  end)
end

local function check(run)
  return each_unit(run, "check", function(_, unit) return servant.check(unit) end)
end

local function answered_before(run, unit)
  for key in pairs(run.before) do
    for _, service in ipairs(unit.services) do
      if key:sub(1, #service.name + 1) == service.name .. " " then return true end
    end
  end
  return false
end

local function was_running(unit)
  for _, service in ipairs(unit.services) do
    if service.was_running then return true end
  end
  return false
end

-- A service that did not answer before, or where nobody asked was not running,
-- cannot veto by not reloading.
local function reload(run)
  return each_unit(run, "reload", function(_, unit)
    local ok, message, code = servant.reload(unit)
    local veto = answered_before(run, unit) or (run.options.no_observe and was_running(unit))
    if ok or veto then return ok, message, code end
    run.context:warn("%s", message)
    return true
  end)
end

local function say_observed(run, result)
  local before = run.before[observation.key(result)]
  local was = ""
  if before and before.fingerprint ~= result.fingerprint then
    was = (" (was %s)"):format(before.fingerprint:sub(1, 16))
  end
  local place = observation.describe(result) .. ((result.name or "") == "" and " without a name" or "")
  run.context:say("  observed %s: %s%s", place, result.fingerprint:sub(1, 16), was)
end

local function observe(run)
  if run.options.no_observe then return true end
  local good
  local wanted = planning.wanted(run)
  run.results, good = observation.wait(run.targets, wanted,
    function(result) return run.before[observation.key(result)] ~= nil end, observation.timeouts(run.services))
  if good then
    for _, result in ipairs(run.results) do
      if wanted(result) and not observation.difference(result, wanted(result)) then say_observed(run, result) end
    end
    return true
  end
  local lines = {}
  for _, result in ipairs(run.results) do
    local why = wanted(result) and observation.difference(result, wanted(result))
    if why then lines[#lines + 1] = ("%s: %s"):format(observation.describe(result), text.escape(why)) end
  end
  return nil, "not observed: " .. table.concat(lines, "; "), "unobserved"
end

-- Old generations of ours go, also halves that a crash left under hidden names;
-- the new one, the one before and what was found there stay.
local function prune(unit)
  for name in require("lfs").dir(unit.dir) do
    name = name:match "^%.(.+)%.%x%x%x%x%x%x$" or name
    if name:match "^%d+T%d+Z%-%x+" and name ~= unit.new and name ~= unit.previous then
      generation.remove(unit.dir, name)
    end
  end
end

local function commit(run)
  local ok, message, code = recording.record(run)
  if not ok then return nil, message, code end
  for _, unit in ipairs(run.units) do pcall(prune, unit) end -- what stays is no harm
  return true
end

--- The transaction, in order.  Until `switch` a failure is undone by removing
-- what was staged; from there on by putting back.
M.stages = {
  { "preflight", preflight },
  { "stage", stage },
  { "switch", switch },
  { "check", check },
  { "reload", reload },
  { "observe", observe },
  { "commit", commit },
}

local function unreachable(run)
  local lines, wanted = {}, planning.wanted(run)
  for _, result in ipairs(run.results or {}) do
    if wanted(result) and observation.difference(result, wanted(result)) then
      lines[#lines + 1] = observation.describe(result)
    end
  end
  if #lines == 0 then return true end
  return nil, ("written everywhere, but these did not answer before and still do not show it: %s"):format(
    table.concat(lines, "; ")), "unobserved"
end

-- Runs a stage.  Ctrl-C and defects, a site's driver's too, are failures like
-- any other: what was done by then is put back.
local function attempt(work, run)
  local guard = work == commit and xpcall or interrupt.run -- what is committed is not put back
  local results = table.pack(guard(function() return work(run) end, function(problem)
    return run.context.verbose and debug.traceback(problem) or tostring(problem)
  end))
  if results[1] then return table.unpack(results, 2, results.n) end
  return nil, results[2], "io"
end

local function put_back(run, failed, message, code)
  local results = table.pack(pcall(putback.fail, run, failed, message, code))
  if results[1] then return table.unpack(results, 2, results.n) end
  return nil, ("%s (in %s); AND NOT PUT BACK: %s"):format(message, failed, tostring(results[2])), "unrestored"
end

local function transact(run)
  for _, entry in ipairs(M.stages) do
    local began = host.clock()
    local ok, message, code = M.enter(run, entry[1])
    if ok then ok, message, code = attempt(entry[2], run) end
    if run.context.verbose then run.context:say("  %s took %.4f s", entry[1], host.clock() - began) end
    if not ok then return put_back(run, entry[1], message, code) end
  end
  return unreachable(run)
end

local function begin(run)
  local ok, message, code = planning.plan(run)
  if ok then ok, message, code = look_before(run) end
  if not ok then return nil, message, code end
  if is_observed(run) then
    for _, result in ipairs(run.results) do say_observed(run, result) end
    if run.context.dry_run then run.context:say("would record that; no service is touched") end
    return run.context.dry_run or recording.record(run)
  end
  run.results = nil
  if run.context.dry_run then
    ok, message, code = preflight(run)
    if not ok then return nil, message, code end
    for _, unit in ipairs(run.units) do
      run.context:say("would write %s/%s, point current at it (now: %s) and reload %s", unit.dir, unit.new,
        unit.previous or "nothing", unit.services[1].driver)
    end
    for _, target in ipairs(run.targets) do run.context:say("would observe %s", observation.describe(target)) end
    return true
  end
  run.journal, message, code = assignments.begin(run.context.db, run.row.id, run.material.wanted.fingerprint,
    planning.journal(run))
  if not run.journal then return nil, message, code end
  interrupt.watch(true) -- to the end: an impatient second Ctrl-C shall not cut the report short
  return transact(run)
end

--- Assigns a completed certificate to services, all or nothing.
-- @param row the object; services as site:services returns them
-- @param options { overwrite =, no_overwrite =, no_observe = } each optional, and
--   ask = function(service, existing certificate, new one) -> whether to
--   overwrite it | nil, message, code; without it nobody is asked
-- @return true when it was observed everywhere (or written, with no_observe)
--   | nil, message, code: everything is as before, but for "unobserved" of
--   places that did not answer before; "unrestored": it could not be put back
function M.assign(context, row, services, options)
  if row.revoked_at then
    return nil, ("cannot assign %d: it was revoked on %s"):format(row.id, text.day(row.revoked_at)), "revoked"
  end
  local material, message, code = staging.material(context, row)
  if not material then return nil, message, code end
  local run = {
    context = context, row = row, services = services, options = options, material = material,
  }
  local ok
  ok, message, code = overwrite.ask(run)
  if not ok then return nil, message, code end
  return recovery.alone(context, function()
    context:say("assigning %d '%s' to %s", row.id, text.escape(row.friendly_name), planning.service_names(run))
    return begin(run)
  end)
end

return M
