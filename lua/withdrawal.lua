-- withdrawal.lua: has a certificate revoked by its CA, and remembers that it
-- was.  A CA that cannot be asked is a person's to ask: then nothing is
-- remembered before that person says that it was done.

local certificates = require "certificates"
local invocation = require "invocation"
local json = require "json"
local text = require "text"

local M = {}

-- The CA's adapter where it can revoke.
local function revoker(context, row)
  if not row.ca or row.self_signed then return false end
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local ca
  ca, message, code = site:ca(row.ca)
  if not ca then return nil, message, code end
  return ca.how.revoke and ca or false
end

-- Who has to be asked by a person, and for what.
local function advice(row)
  local done = invocation.suggest("revoke %d --done", row.id)
  if row.self_signed then
    return ("nobody revokes a self-signed certificate: take it away wherever clients trust it; to have it shown as "
      .. "revoked here:\n  %s"):format(done)
  end
  local ca = row.ca and ("the CA '%s'"):format(text.escape(row.ca)) or "its CA"
  return ("%s is not asked from here: have it revoke serial number %s of '%s'; when it has:\n"
    .. "  %s"):format(ca, row.serial, text.escape(row.issuer), done)
end

local function remember(context, row, reason)
  local db, now = context.db, os.time()
  local message = ("revoked on %s (%s)"):format(text.day(now), reason)
  local warnings = json.array { table.unpack(row.warnings) }
  warnings[#warnings + 1] = { code = "revoked", message = message }
  return db:transaction(function()
    local ok, why, code = certificates.set(db, row.id, { revoked_at = now, warnings = json.compact(warnings) })
    if ok then ok, why, code = certificates.record(db, row.id, context:who(), "revoked", reason) end
    if not ok then return nil, why, code end
    return true
  end)
end

--- Revokes the certificate of an object.
-- @param options { reason =, done = a person says that the CA has }
-- @return true | nil, message, "pending" (a person has to ask the CA) | ...
function M.revoke(context, row, options)
  if not options.done then
    local ca, message, code = revoker(context, row)
    if ca == nil then return nil, message, code end
    if not ca then return nil, advice(row), "pending" end
    local list
    list, message, code = require("core.cert").parse(row.certificate)
    if not list then return nil, message, code end
    if context.dry_run then
      context:say("would have the CA '%s' revoke %d (serial number %s)", row.ca, row.id, row.serial)
      return true
    end
    local ok
    ok, message, code = ca.how.revoke(ca, list[1], options.reason, context)
    if not ok then return nil, message, code end
  elseif context.dry_run then
    context:say("would remember that %d was revoked", row.id)
    return true
  end
  return remember(context, row, options.reason)
end

return M
