-- presented.lua: what clients see now at the endpoints of a service, under its
-- first name.

local observation = require "observation"

local M = {}

--- Probes services, all at once.
-- @param services as site:service returns them
-- @return { [service's name] = array of results (see observation.look), or of
--   nothing and `error`, why its endpoints are not known }
function M.of(services)
  local seen, targets = {}, {}
  for _, service in ipairs(services) do
    local endpoints, message = service.endpoints, nil
    if not endpoints then endpoints, message = service.how.endpoints(service) end
    seen[service.name] = { error = message }
    for _, endpoint in ipairs(endpoints or {}) do
      targets[#targets + 1] = { service = service.name, endpoint = endpoint, name = service.domain_names[1] }
    end
  end
  for _, result in ipairs(observation.look(targets)) do
    table.insert(seen[result.service], result)
  end
  return seen
end

return M
