-- revoke: has a certificate revoked by its CA.

local assignments = require "assignments"
local crl = require "crl"
local flow = require "flow"
local invocation = require "invocation"
local object = require "object"
local text = require "text"
local withdrawal = require "withdrawal"

-- Clients that look may refuse it where it stands from now on.
local function agree(context, row)
  local rows, message, code = assignments.of(context.db, row.id)
  if not rows then return nil, message, code end
  local services = assignments.services(rows)
  if #services == 0 then return true end
  local matter = ("%d '%s' is on %s, where clients that check will refuse it when it is revoked"):format(row.id,
    text.escape(row.friendly_name), table.concat(services, ", "))
  return context:agree(matter, "renew it first: " .. invocation.suggest("renew %d", row.id))
end

local function revoke(args, context, row)
  local ok, message, code = agree(context, row)
  if not ok then return nil, message, code end
  ok, message, code = flow.locked(context, row.id, function()
    return withdrawal.revoke(context, row, { reason = args.reason or "unspecified", done = args.done })
  end)
  if not ok then
    if code == "pending" then return object.fields(context, row), message, code end
    return nil, message, code
  end
  if not context.dry_run then
    context:say("%d '%s' is revoked", row.id, text.escape(row.friendly_name))
    local site = context:site()
    local ca = not args.done and site and site:ca(row.ca)
    if ca and ca.adapter == "local" then context:next "ca crl --out FILE, to be published" end
  end
  return object.read(context, row.id)
end

return {
  summary = "have a certificate revoked by its CA",
  role = "organization-management",
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint", argument = "CERT" },
    { "--reason", table.concat(crl.REASONS, ", "), argument = "REASON", convert = crl.reason },
    { "--done", "the CA has revoked it already: remember that" },
  },
  notes = [[
Exit status 3: this CA cannot be asked from here; what to ask it is said, and
--done tells of it afterwards.  It cannot be taken back.  One that a service
has needs --yes, or a Yes on a terminal; `renew` then takes it for due.]],
  text = object.text,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.cert)
    if not row then return nil, message, code end
    if row.state ~= "completed" then
      return nil, ("cannot revoke %d: it has no certificate, it is %s"):format(row.id, row.state), "mismatch"
    elseif row.revoked_at then
      context:say("%d was revoked on %s already", row.id, text.day(row.revoked_at))
      return object.fields(context, row)
    end
    return revoke(args, context, row)
  end,
}
