-- services: what runs here and what it presents.

local generation = require "core.generation"
local json = require "json"
local options = require "options"
local presented = require "presented"
local text = require "text"

local FIELDS = { "service", "driver", "dir", "current", "adopted", "running", "names", "endpoints", "error" }
local ENDPOINT_FIELDS = { "endpoint", "address", "name", "presents", "error" }

-- What clients see at the endpoints of a service.
local function endpoints_of(service)
  local seen, list = presented.of({ service })[service.name], json.array()
  for i, result in ipairs(seen) do
    list[i] = json.object({
      endpoint = result.endpoint, address = result.address or json.null, name = result.name or json.null,
      presents = result.fingerprint or json.null, error = result.error or json.null,
    }, ENDPOINT_FIELDS)
  end
  return list, seen.error
end

local function describe(site, name)
  local service, message = site:service(name)
  if not service then
    return json.object({ service = name, driver = site.config.services[name].driver, names = json.array(),
      endpoints = json.array(), error = message, dir = json.null, current = json.null, adopted = false,
      running = false }, FIELDS)
  end
  local settings, why = service.how.settings(service)
  local endpoints, problem = endpoints_of(service)
  return json.object({
    service = name, driver = service.driver, dir = service.dir,
    current = generation.current(service.dir, "current") or json.null,
    adopted = settings and settings.uses_current or false,
    running = service.how.pid(service) ~= nil, names = json.array(service.domain_names), endpoints = endpoints,
    error = why or problem or json.null,
  }, FIELDS)
end

local function shown(value)
  return value == json.null and "-" or text.escape(value)
end

return {
  summary = "what runs here, and what it presents",
  role = "auditor",
  options = { { "service", "only this service", argument = "SERVICE", optional = true } },

  text = function(list)
    if #list == 0 then return "the site names no services: see 'services' in config.lua" end
    local rows = { { "SERVICE", "DRIVER", "RUNS", "ADOPTED", "ENDPOINT", "PRESENTS" } }
    for _, service in ipairs(list) do
      local first = { service.service, service.driver, service.running and "yes" or "no",
        service.adopted and "yes" or "no" }
      for i, endpoint in ipairs(service.endpoints) do
        local row = i == 1 and first or { "", "", "", "" }
        row[5] = shown(endpoint.endpoint)
        row[6] = endpoint.presents ~= json.null and endpoint.presents:sub(1, 16) or shown(endpoint.error)
        rows[#rows + 1] = row
      end
      if #service.endpoints == 0 then
        first[5], first[6] = "-", shown(service.error)
        rows[#rows + 1] = first
      end
    end
    return text.table(rows)
  end,

  run = function(args, context)
    local site, message, code = context:site()
    if not site then return nil, message, code end
    if args.service then
      local service
      service, message, code = site:service(args.service)
      if not service then return nil, message, code end
      return json.array { describe(site, args.service) }
    end
    local list = json.array()
    for name in options.sorted(site.config.services) do list[#list + 1] = describe(site, name) end
    return list
  end,
}
