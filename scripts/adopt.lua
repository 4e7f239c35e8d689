-- adopt: points a service's configuration at certwright's files, or undoes it.

local adoption = require "adoption"
local json = require "json"
local text = require "text"

return {
  summary = "point a service's configuration at certwright's files",
  role = "organization-management",
  options = {
    { "service", "the service, as the site's config.lua names it", argument = "SERVICE" },
    { "--undo", "put the service's own configuration back" },
  },
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
    return json.object({ service = service.name, dir = service.dir, adopted = not args.undo },
      { "service", "dir", "adopted" })
  end,
}
