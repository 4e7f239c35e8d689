-- planning.lua: what a deployment will do: its units, their generations, and
-- the places where it is to be observed.

local file = require "core.file"
local generation = require "core.generation"
local json = require "json"
local staging = require "staging"
local text = require "text"

local M = {}

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
  if #names == 0 then names = { (M.common_name(run.material.fields)) } end
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

--- Plans what will be done: units, their generations, and the targets.
function M.plan(run)
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

--- The names of a run's services, in one line.
function M.service_names(run)
  local names = {}
  for i, service in ipairs(run.services) do names[i] = service.name end
  return table.concat(names, ", ")
end

--- What recovery needs to know if this process dies.
function M.journal(run)
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

return M
