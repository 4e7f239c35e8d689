-- assign-services: puts a certificate on services, and is done when it was
-- observed there (article: "Assign Services to Certificate").

local assignments = require "assignments"
local attempts = require "attempts"
local certificates = require "certificates"
local invocation = require "invocation"
local object = require "object"
local options = require "options"
local submission = require "submission"
local text = require "text"
local wish = require "wish"

-- Gives up what the certificate wants but has not.
local function cancel(args, context, row)
  if context.dry_run then
    context:say("would give up what %d wants but has not%s", row.id,
      args.services and " on " .. table.concat(args.services, ", ") or "")
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
    local unwished, reason, kind = wish.drop(db, row, args.services)
    if not unwished then return nil, reason, kind end
    count = count + unwished
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

local flags = {
  { "--services", "the services, as config.lua names them", argument = "A,B", convert = options.list },
  { "--overwrite", "replace an existing default SMTP certificate" },
  { "--no-overwrite", "leave it; present this one for its own names (SNI)" },
  { "--no-observe", "record it as written, do not look at the endpoints" },
}

-- The certificate that is named, if it can be assigned.
local function named(context, word)
  local row, message, code = object.find(context.db, word)
  if not row then return nil, message, code end
  if row.state == "completed" then return row end
  local step = row.state ~= "submitted" and "submit-request %d"
    or submission.by_hand(context, row) and "complete-request %d --file FILE" or "complete-request %d"
  return nil, ("%d has no certificate yet: it is %s; next:\n  %s"):format(row.id, row.state,
    invocation.suggest(step, row.id)), "mismatch"
end

-- What becomes of a failure that is known to renew and poll.
local function later(context, id)
  local failures, next_at = attempts.of(context.db, id)
  if context.in_workflow or context.dry_run or (failures or 0) == 0 then return "" end
  return ("\nrenew and poll try %d again after %s; to give it up: %s"):format(id, text.time(next_at),
    invocation.suggest("assign-services %d --cancel", id))
end

-- What was assigned, and what its clients may not like.
local function result_of(context, id, pages)
  local fields, message, code = object.read(context, id)
  if not fields then return nil, message, code end
  for _, warning in ipairs(fields.warnings) do
    if warning.code == "wildcard" then context:warn("%s", warning.message) end
  end
  if pages and not context.dry_run then pages.completed() end
  return fields
end

return {
  summary = "put a certificate on services and observe it there",
  role = "operator",
  from = { "completed" },
  to = "completed",
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint", argument = "CERT", optional = true },
    { "--cancel", "give up wanting it where it could not be assigned" }, table.unpack(flags),
  },
  notes = [[
All of the services or none: exit status 1 says that everything is as it was,
4 that it could not be put back.  On a terminal it asks for what is not given;
else, without --services: those that it is on, or should be.  For example:
   certwright assign-services 1 --services web,smtp,imap]],
  text = object.text,

  run = function(args, context)
    if not args.cert and (args.cancel or not context.terminal) then
      return nil, "assign-services needs CERT, and --services LIST; see " .. invocation.suggest "list", "usage"
    end
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row
    if args.cert then
      if args.cancel then
        row, message, code = object.find(db, args.cert)
      else
        row, message, code = named(context, args.cert)
      end
      if not row then return nil, message, code end
    end
    if args.cancel then return cancel(args, context, row) end
    local pages
    if context.terminal and not (row and args.services) then
      pages, message, code = require("pages.assign-services").run(context, flags, args, row)
      if not pages then return nil, message, code end
      row = pages.row
    elseif context.terminal then
      args.ask = require("pages.overwrite").ask(context)
    end
    local site
    site, message, code = context:site()
    if not site then return nil, message, code end
    local services
    services, message, code = wanted_services(args, context, site, row)
    if not services then return nil, message, code end
    local ok
    ok, message, code = require("deployment").assign(context, row, services, args)
    if not ok then return nil, message .. later(context, row.id), code end
    return result_of(context, row.id, pages)
  end,
}
