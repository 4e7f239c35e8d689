-- deployment.lua: assigning a certificate to services, all or nothing.
--
-- The run is the array `stages` below: each is journaled before it is entered,
-- so that recovery.lua knows what a crash cut short.  Whatever fails from the
-- switch on is put back: links, reload, and the old certificate observed.

local assignments = require "assignments"
local attempts = require "attempts"
local audit = require "audit"
local cert = require "core.cert"
local certificates = require "certificates"
local file = require "core.file"
local generation = require "core.generation"
local host = require "core.host"
local interrupt = require "core.interrupt"
local json = require "json"
local observation = require "observation"
local putback = require "putback"
local recovery = require "recovery"
local servant = require "servant"
local staging = require "staging"
local text = require "text"

local M = {}

--- Writes the stage that is about to be entered into the journal.
function M.enter(run, stage)
  return assignments.stage(run.context.db, run.journal, stage)
end

-- Groups services by their folder: what shares one is one unit, with one
-- generation and one reload.
local function units_of(services)
  local units, by_dir = {}, {}
  for _, service in ipairs(services) do
    local unit = by_dir[service.dir]
    if not unit then
      unit = { dir = service.dir, services = {} }
      by_dir[service.dir] = unit
      units[#units + 1] = unit
    end
    table.insert(unit.services, service)
  end
  return units
end

-- A name for a new generation: when, and which certificate.
local function generation_name(dir, fingerprint)
  local base = os.date "!%Y%m%dT%H%M%SZ" .. "-" .. fingerprint:sub(1, 8)
  local name, number = base, 1
  while file.stat(dir .. "/" .. name) do
    number = number + 1
    name = base .. "-" .. number
  end
  return name
end

-- The name for the handshake when a service has none of its own.
local function common_name(fields)
  for _, name in ipairs { fields.common_name, table.unpack(fields.domains) } do
    if not name:find("*", 1, true) and not require("names").is_address(name) then return name:lower() end
  end
end

-- Where and under which names a service is to be observed.
local function targets_of(run, service)
  local names, missing, code = staging.names(run.material, service)
  if not names then return nil, missing, code end
  for _, name in ipairs(missing) do
    run.context:warn("the certificate does not cover %s, a name of '%s'", text.escape(name), service.name)
  end
  if #names == 0 then names = { (common_name(run.material.fields)) } end
  local endpoints, message = service.endpoints
  if not endpoints then
    endpoints, message, code = service.how.endpoints(service)
    if not endpoints then return nil, message, code end
  end
  if #endpoints == 0 and not run.options.no_observe then
    return nil, ("no endpoint of '%s' is known: give services.%s.endpoints in the site's config.lua, or --no-observe")
      :format(service.name, service.name), "usage"
  end
  local targets = {}
  for _, endpoint in ipairs(endpoints) do
    for i = 1, math.max(1, #names) do
      targets[#targets + 1] = { service = service.name, endpoint = endpoint, name = names[i] }
    end
  end
  return targets
end

-- Plans what will be done: units, their generations, and the targets.
local function plan(run)
  run.units, run.targets = units_of(run.services), {}
  for _, unit in ipairs(run.units) do
    unit.new = generation_name(unit.dir, run.material.wanted.fingerprint)
    local previous, why, what = generation.current(unit.dir, "current")
    if not previous and what ~= "missing" then return nil, why, what end
    unit.previous = previous
    for _, service in ipairs(unit.services) do
      service.was_running = service.how.pid(service) ~= nil
      local targets, message, code = targets_of(run, service)
      if not targets then return nil, message, code end
      table.move(targets, 1, #targets, #run.targets + 1, run.targets)
    end
  end
  return true
end

-- What recovery needs to know if this process dies.
local function journal_plan(run)
  local units = json.array()
  for i, unit in ipairs(run.units) do
    local names, running = json.array(), false
    for j, service in ipairs(unit.services) do
      names[j] = service.name
      running = running or service.was_running
    end
    units[i] = { dir = unit.dir, new = unit.new, previous = unit.previous, services = names, running = running }
  end
  return {
    units = units, targets = json.array(run.targets), before = run.before, chain = run.material.wanted.chain,
  }
end

-- Probes every place as it is, before anything is touched.  From here on a
-- place is the address that was found: what a resolver says later changes
-- nothing.
local function look_before(run)
  run.before = {}
  if run.options.no_observe then return true end
  local places = {}
  for i, result in ipairs(observation.look(run.targets)) do
    if result.step == "url" then return nil, text.escape(result.error), "usage" end
    if result.error then
      run.context:say("  %s does not answer: %s", observation.describe(result), text.escape(result.error))
    else
      run.before[observation.key(result)] = { fingerprint = result.fingerprint, chain = result.chain }
    end
    places[i] = { service = result.service, endpoint = result.endpoint, name = result.name, address = result.address }
  end
  run.targets = places
  return true
end

-- A service must name <dir>/current/, or nothing that is done here shows.
local function check_configuration(service)
  local settings, message, code = service.how.settings(service)
  if not settings then return nil, message, code end
  if settings.uses_current then return true end
  return nil, ("the configuration of '%s' does not name %s/current/; put this into %s:\n\n  %s\n\n"
    .. "or let certwright do it: certwright adopt %s"):format(service.name, service.dir,
    settings.where or "its configuration", table.concat(settings.lines, "\n  "), service.name), "missing"
end

-- *Overwrite the existing default SMTP certificate?*
local function check_default(run, service)
  if not service.how.default or run.options.overwrite or run.context.yes or run.replaces then return true end
  if generation.current(service.dir, "current") == staging.STAND_IN then return true end
  local existing = service.how.default(service)
  local list = existing and cert.open(existing.certificate)
  local there = list and list[1]:fingerprint()
  if not there or there == run.material.wanted.fingerprint then return true end
  return nil, ("'%s' has a default certificate already (%s): say --overwrite to replace it with %s"):format(
    service.name, there:sub(1, 16), run.material.wanted.fingerprint:sub(1, 16)), "usage"
end

local function preflight(run)
  local ok, message, code = staging.check_pair(run.material, common_name(run.material.fields))
  if not ok then return nil, message, code end
  for _, unit in ipairs(run.units) do
    ok, message, code = staging.check_folder(unit.dir)
    if not ok then return nil, message, code end
    for _, service in ipairs(unit.services) do
      ok, message, code = check_configuration(service)
      if ok then ok, message, code = check_default(run, service) end
      if not ok then return nil, message, code end
    end
  end
  return true
end

-- Whether nothing is left to do: every place shows the certificate, and every
-- unit's current generation holds it.
local function is_observed(run)
  if run.options.no_observe or #run.targets == 0 then return false end
  for _, unit in ipairs(run.units) do
    if staging.written(unit.dir .. "/current") ~= run.material.wanted.fingerprint then return false end
  end
  run.results = observation.look(run.targets)
  for _, result in ipairs(run.results) do
    if observation.difference(result, run.material.wanted) then return false end
  end
  -- once proves nothing: a server may be in the middle of handing over
  local good
  run.results, good = observation.wait(run.targets, function() return run.material.wanted end,
    function() return true end, observation.timeouts(run.services))
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
  return each_unit(run, "stage", function(_, unit) return staging.write(unit, run.material) end)
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
  run.context:say("  observed %s: %s%s", observation.describe(result), result.fingerprint:sub(1, 16), was)
end

local function observe(run)
  if run.options.no_observe then return true end
  local good
  run.results, good = observation.wait(run.targets, function() return run.material.wanted end,
    function(result) return run.before[observation.key(result)] ~= nil end, observation.timeouts(run.services))
  if good then
    for _, result in ipairs(run.results) do
      if not observation.difference(result, run.material.wanted) then say_observed(run, result) end
    end
    return true
  end
  local lines = {}
  for _, result in ipairs(run.results) do
    local why = observation.difference(result, run.material.wanted)
    if why then lines[#lines + 1] = ("%s: %s"):format(observation.describe(result), text.escape(why)) end
  end
  return nil, "not observed: " .. table.concat(lines, "; "), "unobserved"
end

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

local function service_names(run)
  local names = {}
  for i, service in ipairs(run.services) do names[i] = service.name end
  return table.concat(names, ", ")
end

--- Records that a certificate is assigned: rows, journal and history at once.
function M.record(run)
  local db = run.context.db
  audit.deployed(run, run.results)
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
        run.results and "assigned" or "written", service_names(run))
    end
    if ok then ok, message, code = attempts.settle(db, run.row.id) end
    if ok and run.journal then ok, message, code = assignments.finish(db, run.journal, "committed") end
    if not ok then return nil, message, code end
    return true
  end)
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
  local ok, message, code = M.record(run)
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
  local lines = {}
  for _, result in ipairs(run.results or {}) do
    if observation.difference(result, run.material.wanted) then
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
  local ok, message, code = plan(run)
  if ok then ok, message, code = look_before(run) end
  if not ok then return nil, message, code end
  if is_observed(run) then
    for _, result in ipairs(run.results) do say_observed(run, result) end
    if run.context.dry_run then run.context:say("would record that; no service is touched") end
    return run.context.dry_run or M.record(run)
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
    journal_plan(run))
  if not run.journal then return nil, message, code end
  interrupt.watch(true) -- to the end: an impatient second Ctrl-C shall not cut the report short
  return transact(run)
end

--- Assigns a completed certificate to services, all or nothing.
-- @param row the object; services as site:services returns them
-- @param options { overwrite =, no_observe = } each optional
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
    replaces = row.replaces ~= nil,
  }
  return recovery.alone(context, function()
    context:say("assigning %d '%s' to %s", row.id, text.escape(row.friendly_name), service_names(run))
    return begin(run)
  end)
end

return M
