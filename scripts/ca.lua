-- ca: the embedded local CA.

local authority = require "ca.local"
local caller = require "caller"
local crl = require "crl"
local flow = require "flow"
local invocation = require "invocation"
local json = require "json"
local options = require "options"
local outfile = require "outfile"
local text = require "text"

local FIELDS = { "subject", "fingerprint", "not_before", "not_after", "file" }
local CRL_FIELDS = { "number", "count", "this_update", "next_update", "file" }
local CRL_DAYS = 7

local function fields_of(root, path)
  local fields = root:fields()
  return json.object({
    subject = fields.subject, fingerprint = fields.fingerprint, not_before = text.time(fields.not_before),
    not_after = text.time(fields.not_after), file = path or json.null,
  }, FIELDS)
end

-- What a dry run prints: nothing was made.
local function nothing(names)
  local fields = {}
  for _, field in ipairs(names) do fields[field] = json.null end
  return json.object(fields, names)
end

local function init(_, context)
  local db, message, code = context:write()
  if not db then return nil, message, code end
  local site
  site, message, code = context:site()
  if not site then return nil, message, code end
  local root
  root, message, code = flow.locked(context, "ca", function()
    return authority.init(context, site.config.organization)
  end)
  if not root then return nil, message, code end
  if context.dry_run then
    context:say("would make a root and an issuing CA in %s", context:path "ca")
    context:say("would name them '%s' and '%s'%s",
      text.escape(authority.common_name(site.config.organization, "root")),
      text.escape(authority.common_name(site.config.organization, "issuing")),
      site.own.organization and (", after 'organization' in '%s'"):format(site.path) or "")
    return nothing(FIELDS)
  end
  context:say("made a root and an issuing CA in %s", context:path "ca")
  context:say("clients must trust the root: %s", invocation.suggest "ca root --out root.pem")
  return fields_of(root, context:path("ca", "root.pem"))
end

local function root(args, context)
  local certificate, message, code = authority.root(context)
  if not certificate then return nil, message, code end
  if args.out and context.dry_run then
    local ok
    ok, message, code = outfile.plan(context, args.out)
    if not ok then return nil, message, code end
  elseif args.out then
    local ok
    ok, message, code = outfile.write(context, args.out, certificate:pem())
    if not ok then return nil, message, code end
    context:say("wrote the root certificate to %s", args.out)
  else
    context.printed = certificate:pem()
  end
  return fields_of(certificate, args.out)
end

local function write_crl(args, made)
  local bytes = args.form == "der" and made.der or made.pem
  return caller.file.write(args.out, bytes, { mode = 420, exclusive = false }) -- 0644
end

-- The file is written anew each time that the list is published.
local function crl_command(args, context)
  if args.form == "der" and not args.out then return nil, "--form der needs --out FILE", "usage" end
  if (args.days or CRL_DAYS) < 1 then return nil, "--days: the list has to hold for a day at least", "usage" end
  local certificate, message, code = authority.root(context)
  if not certificate then return nil, message, code end
  if context.dry_run then
    context:say("would make the revocation list of the local CA%s", args.out and ", as " .. args.out or "")
    return nothing(CRL_FIELDS)
  end
  local db, made
  db, message, code = context:write() -- the CA signs: that is recorded
  if not db then return nil, message, code end
  made, message, code = crl.issue(context, args.days or CRL_DAYS)
  if not made then return nil, message, code end
  if args.out then
    local ok
    ok, message, code = write_crl(args, made)
    if not ok then return nil, message, code end
    context:say("wrote revocation list %d with %s to %s", made.number, text.count(made.count, "certificate"), args.out)
  else
    context.printed = made.pem
  end
  return json.object({ number = made.number, count = made.count, this_update = text.time(made.this_update),
    next_update = text.time(made.next_update), file = args.out or json.null }, CRL_FIELDS)
end

local function crl_text(fields, context)
  if context.printed then return context.printed end
  if fields.number == json.null then return "" end
  return text.fields { { "Number", fields.number }, { "Revoked", fields.count }, { "Next update", fields.next_update } }
end

local function summary(fields)
  if fields.subject == json.null then return "" end
  return text.fields { { "Root", text.escape(fields.subject) }, { "SHA-256", fields.fingerprint },
    { "Valid until", fields.not_after } }
end

return {
  summary = "the embedded local CA",
  role = "organization-management",
  commands = {
    init = { summary = "make the local CA: a root and an issuing CA", options = {}, run = init, text = summary },
    root = {
      summary = "write the local CA's root certificate",
      role = "auditor",
      options = { { "--out", "write to FILE instead of standard output", argument = "FILE" } },
      run = root,
      text = function(fields, context) return context.printed or summary(fields) end,
    },
    crl = {
      summary = "write the local CA's revocation list",
      options = {
        { "--out", "write to FILE, over one that is there, instead of standard output", argument = "FILE" },
        { "--form", "form of the list", argument = "FORM", choices = { "pem", "der" } },
        { "--days", ("until the next list is made, at the latest (%d)"):format(CRL_DAYS), argument = "DAYS",
          convert = options.number },
      },
      run = crl_command,
      text = crl_text,
    },
  },
}
