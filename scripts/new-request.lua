-- new-request: makes a key and a certificate request (article: "Create a
-- certificate request").

local certificates = require "certificates"
local draft = require "draft"
local object = require "object"
local options = require "options"
local request = require "request"

local function text(result, context)
  return context.printed or object.text(result)
end

-- What --dry-run says: every value and who decided it.
local function explain(made)
  local shown = require("text")
  local lines = {}
  local function line(field, value)
    local by = made.decided[field] or "option"
    lines[#lines + 1] = { field, shown.escape(value), by }
  end
  lines[1] = { "VALUE", "WOULD BE", "DECIDED BY" }
  line("friendly_name", made.friendly_name)
  line("common_name", made.common_name)
  lines[#lines + 1] = { "domains", shown.names(made.domains), made.decided.extra_domains or "option" }
  line("key", made.key)
  local subject = {}
  for attribute, value in options.sorted(made.subject) do subject[#subject + 1] = attribute .. "=" .. value end
  line("subject", table.concat(subject, ", "))
  line("ca", made.ca)
  return shown.table(lines)
end

return {
  summary = "make a key and a certificate request",
  role = "requester",
  from = { "created" },
  to = "created",
  options = {
    { "--name", "friendly name of the request", argument = "NAME" },
    { "--common-name", "the subject's common name; always among the domains", argument = "NAME" },
    { "--domain", "a name the certificate shall cover (repeat)", argument = "NAME", many = true },
    { "--root-domain", "the root domain; with --wildcard, ask for *.D", argument = "D" },
    { "--wildcard", "ask for a wildcard certificate of the root domain" },
    { "--services", "take the names of these services", argument = "A,B", convert = options.list },
    { "--include-accepted-domains", "add the accepted domains" },
    { "--include-autodiscover", "add autodiscover.D of each accepted domain" },
    { "--include-fqdn", "add this host's full name" },
    { "--include-hostname", "add this host's short name" },
    { "--key", "rsa:2048, rsa:3072, rsa:4096, ec:P-256, ec:P-384 or ed25519", argument = "KIND" },
    { "--organization", "subject: organization (O)", argument = "TEXT" },
    { "--unit", "subject: organizational unit (OU)", argument = "TEXT" },
    { "--locality", "subject: locality (L)", argument = "TEXT" },
    { "--state-name", "subject: state or province (ST)", argument = "TEXT" },
    { "--country", "subject: country (C), two letters", argument = "CC" },
    { "--exportable", "the key may be exported later" },
    { "--self-signed", "make a self-signed certificate at once" },
    { "--out", "write the request to FILE instead of standard output", argument = "FILE" },
    { "--form", "form of the request written out", argument = "FORM", choices = { "pem", "der" } },
    { "--from", "renew this certificate: same names, subject and kind of key", argument = "CERT" },
    { "--reuse-key", "with --from: keep its key" },
  },
  text = text,

  run = function(args, context)
    local db, message, code
    if context.dry_run then
      db, message, code = context:read()
    else
      db, message, code = context:write()
    end
    local site
    if db then site, message, code = context:site() end
    if not site then return nil, message, code end
    local from
    if args.from then
      from, message, code = object.find(db, args.from)
      if not from then return nil, message, code end
    elseif args.reuse_key then
      return nil, "--reuse-key needs --from CERT", "usage"
    end
    local made
    made, message, code = draft.make(site, args, { local_ca = require("ca.local").exists(context), from = from })
    if not made then return nil, message, code end
    made, message, code = request.name(context, made, args, from)
    if not made then return nil, message, code end
    if context.dry_run then
      context.printed = explain(made)
      return { friendly_name = made.friendly_name, common_name = made.common_name,
        domains = require("json").array(made.domains), key = made.key, subject = made.subject, ca = made.ca,
        decided = made.decided }
    end
    local id
    id, message, code = request.create(context, made, args, from)
    if not id then return nil, message, code end
    local row = certificates.get(db, id)
    context:say("%s %d '%s' for %s", args.self_signed and "self-signed certificate" or "request", id,
      require("text").escape(row.friendly_name), require("text").names(row.domains))
    if not args.self_signed then
      context:say("key kept as %s, request as %s", context:path("keys", id .. ".pem"),
        context:path("requests", id .. ".csr"))
      context:say("next: certwright submit-request %d", id)
    end
    return object.fields(context, row)
  end,
}
