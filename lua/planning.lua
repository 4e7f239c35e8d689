-- planning.lua: what a deployment will do: its units, their generations, and
-- the places where it is to be observed.

local assignments = require "assignments"
local certificates = require "certificates"
local file = require "core.file"
local generation = require "core.generation"
local json = require "json"
local names = require "names"
local observation = require "observation"
local overwrite = require "overwrite"
local sni = require "sni"
local staging = require "staging"
local text = require "text"

local M = {}

-- Names a place, whatever its address.
local function place_key(place)
  return ("%s %s %s"):format(place.service, place.endpoint, place.name or "")
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

--- The name for the handshake when a service has none of its own.
function M.common_name(fields)
  for _, name in ipairs { fields.common_name, table.unpack(fields.domains) } do
    if not name:find("*", 1, true) and not names.is_address(name) then return name:lower() end
  end
end

-- The name that a client sends who knows no more than an endpoint; "": none.
local function host_of(endpoint)
  local host = endpoint:match "^%w+://([^%[%]:/]+)"
  return host and not names.is_address(host) and host:lower() or ""
end

-- The names by which a certificate is observed that becomes the default one.
-- What another certificate is presented for beside it stays so.
local function names_of_default(run, unit, service)
  local asked, missing, code = staging.names(run.material, service)
  if not asked then return nil, missing, code end
  for _, name in ipairs(missing) do
    run.context:warn("the certificate does not cover %s, a name of '%s'", text.escape(name), service.name)
  end
  if #asked == 0 then asked = { M.common_name(run.material.fields) } end
  local free = {}
  for _, name in ipairs(asked) do
    local other = sni.holder(unit.beside, name)
    if other then
      run.context:say("  %s stays with %s, which is there for its names", text.escape(name),
        other.fingerprint:sub(1, 16))
    else
      free[#free + 1] = name
    end
  end
  if #unit.beside > 0 then free[#free + 1] = "" end
  return free
end

-- The names by which a certificate is observed that stands beside the default.
local function names_beside(run, service)
  local asked, message = staging.names(run.material, service)
  if not asked then
    run.context:warn("%s", message)
    asked = {}
  end
  local list, seen = {}, {}
  for _, name in ipairs(table.move(sni.names(run.material), 1, 1000, #asked + 1, asked)) do
    if not seen[name] and not name:find("*", 1, true) then list[#list + 1] = name end
    seen[name] = true
  end
  if #list > 0 then return list end
  return nil, ("no name is known that clients of '%s' ask for and %s covers: give services.%s.names in the site's "
    .. "config.lua"):format(service.name, text.names(run.material.fields.domains), service.name), "usage"
end

local function endpoints_of(run, service)
  local endpoints = service.endpoints
  if not endpoints then
    local message, code
    endpoints, message, code = service.how.endpoints(service)
    if not endpoints then return nil, message, code end
  end
  if #endpoints == 0 and not run.options.no_observe then
    local instead = run.context.in_workflow and "" or ", or --no-observe" -- which enroll does not take
    return nil, ("no endpoint of '%s' is known: give services.%s.endpoints in the site's config.lua%s"):format(
      service.name, service.name, instead), "usage"
  end
  return endpoints
end

-- Adds the places of a service at which the certificate is to be observed.
local function add_targets(run, unit, service, endpoints)
  local asked, message, code
  if unit.sni then
    asked, message, code = names_beside(run, service)
  else
    asked, message, code = names_of_default(run, unit, service)
  end
  if not asked then return nil, message, code end
  for _, endpoint in ipairs(endpoints) do
    for i = 1, math.max(1, #asked) do
      run.targets[#run.targets + 1] = { service = service.name, endpoint = endpoint,
        name = asked[i] or host_of(endpoint) }
    end
  end
  return true
end

-- The names of a service at which everything is to stay as it is: array of
-- { name, endpoint or nil: all of them }.
local function keep(run, unit, service)
  local rows, message, code = assignments.on_service(run.context.db, service.name)
  if not rows then return nil, message, code end
  local leaf, list = run.material.chain[1], {}
  local function add(name, endpoint)
    local taken = name ~= "" and unit.sni and leaf:covers(name)
    if not taken then list[#list + 1] = { name = name, endpoint = endpoint } end
  end
  for _, row in ipairs(rows) do
    local other = row.object_id ~= run.row.id and row.object_id ~= run.row.replaces and row.state ~= "failed"
    if other and (unit.sni or row.sni == 1) then add(row.name, row.endpoint) end
  end
  if unit.sni then
    add ""
    for _, name in ipairs(service.domain_names) do
      if not name:find("*", 1, true) and not names.is_address(name) then add((name:lower():gsub("%.$", ""))) end
    end
  end
  return list
end

-- Adds the places of a service that have to stay as they are: the default one's
-- where it is not replaced, and those of the certificates beside it.
local function add_kept(run, unit, service, endpoints)
  if #unit.beside == 0 then return true end
  local list, message, code = keep(run, unit, service)
  if not list then return nil, message, code end
  local seen = {}
  for _, target in ipairs(run.targets) do seen[place_key(target)] = true end
  for _, endpoint in ipairs(endpoints) do
    for _, place in ipairs(list) do
      local target = { service = service.name, endpoint = endpoint, name = place.name, kept = true }
      if not seen[place_key(target)] and (not place.endpoint or place.endpoint == endpoint) then
        seen[place_key(target)] = true
        run.targets[#run.targets + 1] = target
      end
    end
  end
  return true
end

-- What the new generation of a unit holds beside its default certificate; that
-- stays the one that is there if the new one stands beside it.
local function compose(run, unit)
  local folder = unit.dir .. "/" .. (unit.previous or "")
  local list, message, code = sni.read(folder)
  if not list then return nil, message, code end
  local replaced = run.row.replaces and certificates.get(run.context.db, run.row.replaces)
  local gone = { [run.material.fingerprint] = true }
  if replaced and replaced.fingerprint then gone[replaced.fingerprint] = true end
  unit.beside = sni.without(list, gone)
  if unit.sni then
    unit.default, message, code = sni.default(folder)
    if not unit.default then return nil, message, code end
    unit.beside = sni.with(unit.beside, run.material)
  end
  return true
end

local function plan_unit(run, unit)
  unit.new = generation_name(unit.dir, run.material.wanted.fingerprint)
  local previous, why, what = generation.current(unit.dir, "current")
  if not previous and what ~= "missing" then return nil, why, what end
  unit.previous = previous
  local ok, message, code = compose(run, unit)
  if not ok then return nil, message, code end
  for _, service in ipairs(unit.services) do
    service.was_running = service.how.pid(service) ~= nil
    local endpoints
    endpoints, message, code = endpoints_of(run, service)
    if not endpoints then return nil, message, code end
    ok, message, code = add_targets(run, unit, service, endpoints)
    if ok then ok, message, code = add_kept(run, unit, service, endpoints) end
    if not ok then return nil, message, code end
  end
  return true
end

--- Plans what will be done: units, their generations, and the targets.
function M.plan(run)
  run.units, run.targets = units_of(run.services), {}
  local ok, message, code = overwrite.decide(run)
  for _, unit in ipairs(run.units) do
    if ok then ok, message, code = plan_unit(run, unit) end
  end
  return ok, message, code
end

--- Whether a place has to stay as it is, rather than to show the certificate.
-- @return function(place) -> bool
function M.kept(run)
  local set = {}
  for _, target in ipairs(run.targets) do set[place_key(target)] = target.kept end
  return function(place) return set[place_key(place)] or false end
end

--- What is wanted of a place: the certificate, or what was seen there before.
-- @return function(result) -> { fingerprint, chain }, or nil: anything
function M.wanted(run)
  local kept = M.kept(run)
  return function(result)
    if kept(result) then return run.before[observation.key(result)] end
    return run.material.wanted
  end
end

--- The names of a run's services, in one line.
function M.service_names(run)
  local list = {}
  for i, service in ipairs(run.services) do
    list[i] = service.name .. (service.sni and " (for its own names only)" or "")
  end
  return table.concat(list, ", ")
end

--- What recovery needs to know if this process dies.
function M.journal(run)
  local units = json.array()
  for i, unit in ipairs(run.units) do
    local list, running = json.array(), false
    for j, service in ipairs(unit.services) do
      list[j] = service.name
      running = running or service.was_running
    end
    units[i] = { dir = unit.dir, new = unit.new, previous = unit.previous, services = list, running = running,
      sni = unit.sni }
  end
  return {
    units = units, targets = json.array(run.targets), before = run.before, chain = run.material.wanted.chain,
  }
end

return M
