-- adopt: points a service's configuration at certwright's files, or undoes it.

local adoption = require "adoption"
local json = require "json"
local text = require "text"

return {
  summary = "point a service's configuration at certwright's files",
  role = "organization-management",
  options = {
    { "service", "the service, as config.lua names it", argument = "SERVICE" },
    { "--undo", "put the service's own configuration back" },
  },
  notes = [[
What the service presents now becomes its first generation, so nothing
changes for clients.  Where certwright cannot do it, it says what to write.]],
  text = function(fields)
    return text.fields { { "Service", fields.service }, { "Folder", fields.dir },
      { "Adopted", fields.adopted and "yes" or "no" } }
  end,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local site
    site, message, code = context:site()
    if not site then return nil, message, code end
    local service
    service, message, code = site:service(args.service)
    if not service then return nil, message, code end
    local ok
    if args.undo then
      ok, message, code = adoption.undo(context, service)
    else
      ok, message, code = adoption.adopt(context, service)
    end
    if not ok then return nil, message, code end
    local settings = service.how.settings(service)
    local adopted = settings and settings.uses_current or false
    return json.object({ service = service.name, dir = service.dir, adopted = adopted },
      { "service", "dir", "adopted" })
  end,
}
