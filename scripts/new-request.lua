-- new-request: makes a key and a certificate request (article: "Create a
-- certificate request").

local certificates = require "certificates"
local draft = require "draft"
local json = require "json"
local object = require "object"
local options = require "options"
local outfile = require "outfile"
local pages = require "pages.new-request"
local request = require "request"

-- The request itself, where it is for nobody's file; DER byte for byte.
local function text(result, context)
  return context.printed or object.text(result, context), context.printed ~= nil
end

-- Options that could do nothing.
local function check(args, context)
  if args.self_signed and (args.out or args.form) then
    return nil, ("%s is for a request, and --self-signed makes a certificate: certwright show tells of it"):format(
      args.out and "--out" or "--form"), "usage"
  elseif args.form == "der" and not args.out and context.columns and not context.json then
    return nil, "--form der writes bytes that are nothing for a terminal: give --out FILE", "usage"
  end
  return true
end

-- The certificate to renew, its subject, or why it cannot be renewed.
local function renewed(args, context)
  if not args.from then
    if args.reuse_key then return nil, "--reuse-key needs --from CERT", "usage" end
    return {}
  elseif args.reuse_key and args.key then
    return nil, "--reuse-key keeps the key: --key cannot be given with it", "usage"
  end
  local from, message, code = object.find(context.db, args.from)
  if not from then return nil, message, code end
  if from.state ~= "completed" then
    return nil, ("cannot renew %d: it has no certificate yet, it is %s"):format(from.id, from.state), "mismatch"
  end
  if args.reuse_key and args.exportable and not from.exportable then
    return nil, ("cannot make the key of %d exportable: it was made or imported without --exportable"):format(from.id),
      "denied"
  end
  local subject
  subject, message, code = request.subject(context, from)
  if not subject and code ~= "missing" then return nil, message, code end
  return { from = from, subject = subject }
end

-- What --dry-run says: every value and who decided it.
local function explain(made, context)
  local shown = require("text")
  local lines, shipped = {}, "^" .. context.home:gsub("%p", "%%%0") .. "/"
  local function line(field, value, decided)
    local by = (decided or made.decided[field] or "option"):gsub(shipped, "")
    lines[#lines + 1] = { field, shown.escape(value), by }
  end
  lines[1] = { "VALUE", "WOULD BE", "DECIDED BY" }
  line("friendly_name", made.friendly_name)
  line("common_name", made.common_name)
  line("domains", require("names").shown(made.domains), made.decided.extra_domains)
  line("key", made.key)
  line("subject", require("subject").line(made.subject))
  line("ca", made.ca)
  return shown.table(lines)
end

-- What a dry run says would come of these values.
local function plan(context, made, args, site)
  context:say("would make %s%s for %s, below %s", args.reuse_key and "" or "a key and ",
    args.self_signed and "a self-signed certificate" or "a request", require("text").names(made.domains),
    context.state_dir)
  if args.self_signed then
    context:say("would have it renewed when renew_at in '%s' says", site.policy:source "renew_at")
    return true
  end
  if not args.out then return true end
  return outfile.plan(context, args.out)
end

local function values(made)
  return json.object({
    friendly_name = made.friendly_name, common_name = made.common_name, domains = json.array(made.domains),
    key = made.key, subject = json.object(made.subject), ca = made.ca, decided = json.object(made.decided),
  }, { "friendly_name", "common_name", "domains", "key", "subject", "ca", "decided" })
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
    { "--organization", "subject: organization (O)", argument = "TEXT", empty = true },
    { "--unit", "subject: organizational unit (OU)", argument = "TEXT", empty = true },
    { "--locality", "subject: locality (L)", argument = "TEXT", empty = true },
    { "--state-name", "subject: state or province (ST)", argument = "TEXT", empty = true },
    { "--country", "subject: country (C), two letters", argument = "CC", empty = true },
    { "--exportable", "the key may be exported later" },
    { "--self-signed", "make a self-signed certificate at once" },
    { "--out", "write the request to FILE instead of standard output", argument = "FILE" },
    { "--form", "form of the request written out", argument = "FORM", choices = { "pem", "der" } },
    { "--from", "renew this certificate: same names, subject and kind of key", argument = "CERT" },
    { "--reuse-key", "with --from: keep its key" },
  },
  notes = [[
The request is kept in the state folder in any case.  --dry-run shows every
value, and who decided it.  An attribute of the subject that is '' is left out
though the site has it.  On a terminal, without a name to ask for, it asks for
everything, page by page.  For example:
   certwright new-request --domain mail.contoso.com --out contoso.csr]],
  text = text,

  run = function(args, context)
    local ok, message, code
    if pages.wanted(args, context) then
      args, message, code = pages.ask(args, context)
      if not args then return nil, message, code end
    end
    ok, message, code = check(args, context)
    local db, site
    if ok then db, message, code = context:write() end
    if db then site, message, code = context:site() end
    if not site then return nil, message, code end
    local known
    known, message, code = renewed(args, context)
    if not known then return nil, message, code end
    local from = known.from
    known.local_ca = require("ca.local").exists(context)
    local made
    made, message, code = draft.make(site, args, known)
    if not made then return nil, message, code end
    made, message, code = request.name(context, made, args, from)
    if not made then return nil, message, code end
    if context.dry_run then
      ok, message, code = plan(context, made, args, site)
      if not ok then return nil, message, code end
      context.printed = explain(made, context) .. "\n"
      return values(made)
    end
    local id
    id, message, code = request.create(context, made, args, from)
    if not id then return nil, message, code end
    local row = certificates.get(db, id)
    context:say("%s %d '%s' for %s", args.self_signed and "self-signed certificate" or "request", id,
      require("text").escape(row.friendly_name), require("names").shown(row.domains))
    if args.self_signed then
      context:next("assign-services %d --services LIST", id)
    else
      context:say("key kept as %s, request as %s", context:path("keys", id .. ".pem"),
        context:path("requests", id .. ".csr"))
      if args.out then context:say("wrote the request to %s", args.out) end
      context:next("submit-request %d", id)
    end
    return object.fields(context, row)
  end,
}
