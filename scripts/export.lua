-- export: a certificate with its chain, or the request of a pending object, in
-- a form that others read; as pfx, and only so, with its key.

local certificates = require "certificates"
local host = require "core.host"
local object = require "object"
local outfile = require "outfile"
local transfer = require "transfer"
local unpacking = require "unpacking"

-- The form, and what it needs to be given.
local function form_of(args, context)
  local form = args.form or (args.pfx and "pfx") or "pem"
  if form ~= "pfx" and args.pfx then return nil, ("--pfx %s needs --form pfx"):format(args.pfx), "usage" end
  if form == "pfx" and not args.password_file then
    return nil, "a pfx holds the key: it needs --password-file FILE", "usage"
  elseif form ~= "pfx" and args.password_file then
    return nil, ("--password-file is for pfx only: a %s holds no key"):format(form), "usage"
  elseif not args.out and context.json then
    return nil, "export with --json needs --out FILE", "usage"
  elseif not args.out and form ~= "pem" and host.terminal(1) then
    return nil, ("%s is nothing for a terminal: say --out FILE"):format(form), "usage"
  end
  return form
end

return {
  summary = "write out a certificate and its chain, or its key",
  role = "auditor",
  role_of = function(args) return (args.form == "pfx" or args.pfx) and "organization-management" or nil end,
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint", argument = "CERT" },
    { "--form", "pem, der (the certificate alone), p7b or pfx (with the key)", argument = "FORM",
      choices = { "pem", "der", "p7b", "pfx" } },
    { "--password-file", "its first line becomes the password of a pfx", argument = "FILE" },
    { "--pfx", "modern (AES-256, the default), or legacy (3DES and SHA-1) for old readers", argument = "KIND",
      choices = { "modern", "legacy" } },
    { "--out", "write to FILE instead of standard output", argument = "FILE" },
  },
  notes = [[
Who has a role needs organization-management for a pfx.]],
  text = function(_, context) return context.printed, true end,

  run = function(args, context)
    local form, message, code = form_of(args, context)
    if not form then return nil, message, code end
    local db
    if form == "pfx" then db, message, code = context:write() else db, message, code = context:read() end
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.cert)
    if not row then return nil, message, code end
    local password
    password, message, code = unpacking.password(args.password_file)
    if password == nil then return nil, message, code end
    local bytes
    bytes, message, code = transfer.export(context, row, { form = form, pfx = args.pfx, password = password })
    if not bytes then return nil, message, code end
    local ok = true
    if context.dry_run then
      context:say("would export %d as %s, %d bytes", row.id, form, #bytes)
      if args.out then ok, message, code = outfile.plan(context, args.out) end
    elseif args.out then
      ok, message, code = outfile.write(context, args.out, bytes, form == "pfx")
    else
      context.printed = bytes
    end
    if ok and form == "pfx" and not context.dry_run then
      ok, message, code = certificates.record(db, row.id, context:who(), "exported", "with its key")
    end
    if not ok then return nil, message, code end
    if args.out and not context.dry_run then
      context:say("wrote %s %d to %s", row.state == "completed" and "certificate" or "request", row.id, args.out)
    end
    return object.fields(context, row)
  end,
}
