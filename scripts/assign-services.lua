-- assign-services: puts a certificate on services, and is done when it was
-- observed there (article: "Assign Services to Certificate").

local assignments = require "assignments"
local certificates = require "certificates"
local object = require "object"
local options = require "options"

-- Gives up what the certificate wants but has not.
local function cancel(args, context, row)
  if context.dry_run then
    context:say("would give up what %d wants but has not", row.id)
    return object.fields(context, row)
  end
  local db = context.db
  local changed, message, code = db:transaction(function()
    local count = 0
    for _, service in ipairs(args.services or { false }) do
      local n, why, what = assignments.cancel(db, row.id, service or nil)
      if not n then return nil, why, what end
      count = count + n
    end
    if count > 0 then
      local ok, why, what = certificates.record(db, row.id, context:who(), "assignment cancelled",
        args.services and table.concat(args.services, ", "))
      if not ok then return nil, why, what end
    end
    return count
  end)
  if not changed then return nil, message, code end
  context:say(changed > 0 and "cancelled: %d is no longer wanted there" or "nothing to cancel for %d", row.id)
  return object.read(context, row.id)
end

-- The services to assign: those named, else those that still want it.
local function wanted_services(args, context, site, row)
  if args.services then return site:services(args.services) end
  local rows, message, code = assignments.of(context.db, row.id)
  if not rows then return nil, message, code end
  local names, seen = {}, {}
  for _, assignment in ipairs(rows) do
    if assignment.state ~= "replaced" and not seen[assignment.service] then
      seen[assignment.service] = true
      names[#names + 1] = assignment.service
    end
  end
  if #names > 0 then return site:services(names) end
  local known = {}
  for name in options.sorted(site.config.services) do known[#known + 1] = name end
  return nil, ("assign-services needs --services LIST%s"):format(
    #known > 0 and "; the site has: " .. table.concat(known, ", ") or
    (": and '%s' names no service yet"):format(site.path)), "usage"
end

return {
  summary = "put a certificate on services and observe it there",
  role = "operator",
  from = { "completed" },
  to = "completed",
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint", argument = "CERT" },
    { "--services", "the services, as config.lua names them", argument = "A,B", convert = options.list },
    { "--overwrite", "replace an existing default SMTP certificate" },
    { "--no-overwrite", "leave it; present this one for its own names (SNI)" },
    { "--no-observe", "record it as written, do not look at the endpoints" },
    { "--cancel", "give up wanting it where it could not be assigned" },
  },
  notes = [[
All of the services or none: exit status 1 says that everything is as it was,
4 that it could not be put back.  Without --services: those that it is on, or
should be.  For example:
   certwright assign-services 1 --services web,smtp,imap]],
  text = object.text,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.cert)
    if not row then return nil, message, code end
    if args.cancel then return cancel(args, context, row) end
    if row.state ~= "completed" then
      return nil, ("%d has no certificate yet: it is %s; next:\n  certwright %s %d"):format(row.id, row.state,
        row.state == "submitted" and "complete-request" or "submit-request", row.id), "mismatch"
    end
    local site
    site, message, code = context:site()
    if not site then return nil, message, code end
    local services
    services, message, code = wanted_services(args, context, site, row)
    if not services then return nil, message, code end
    if context.terminal then args.ask = require("pages.overwrite").ask(context) end
    local ok
    ok, message, code = require("deployment").assign(context, row, services, args)
    if not ok then return nil, message, code end
    return object.read(context, row.id)
  end,
}
