-- draft.lua: what a new request will ask for: the names gathered from options,
-- services and the site's policy, and who decided each value.

local host = require "core.host"
local names = require "names"
local options = require "options"
local text = require "text"

local M = {}

local function add(list, items)
  table.move(items, 1, #items, #list + 1, list)
end

-- The names of services: the site's, else those in the service's own
-- configuration.
local function service_names(site, services)
  local list = {}
  for _, name in ipairs(services) do
    local service, message, code = site:service(name)
    if not service then return nil, message, code end
    local own = service.domain_names
    if #own == 0 then
      local settings
      settings, message, code = service.how.settings(service)
      if not settings then return nil, message, code end
      own = settings.names or {}
    end
    add(list, own)
  end
  return list
end

-- The host's fully qualified name, as far as it is known.
local function full_name()
  local name = host.name()
  if name:find(".", 1, true) then return name end
  local result = require("core.process").run({ "hostname", "-f" }, { timeout = 5 })
  local full = result and result.status == 0 and result.stdout:match "^%S+"
  return full and full:find(".", 1, true) and full or name
end

-- This host's names, full and short: what a self-signed certificate is for when
-- nobody says.
local function own_names()
  return { full_name(), (host.name():match "^[^.]+") }
end

-- The names that switches ask for.
local function switched(args, site)
  local list, accepted = {}, site.config.accepted_domains
  for _, switch in ipairs { "include_accepted_domains", "include_autodiscover" } do
    if args[switch] and #accepted == 0 then
      return nil, ("--%s: 'accepted_domains' in '%s' names none"):format(switch:gsub("_", "-"), site.path), "usage"
    end
  end
  if args.include_accepted_domains then add(list, accepted) end
  if args.include_autodiscover then
    for _, domain in ipairs(accepted) do list[#list + 1] = "autodiscover." .. domain:gsub("^%*%.", "") end
  end
  if args.include_fqdn then
    list[#list + 1] = full_name()
    if not list[#list]:find(".", 1, true) then
      return nil, ("--include-fqdn: this host, '%s', has no full name: name it in /etc/hosts, or give --domain"):format(
        text.escape(list[#list])), "usage"
    end
  end
  if args.include_hostname then list[#list + 1] = host.name():match "^[^.]+" end
  return list
end

-- The names asked for.  Services give theirs; when the request is made in
-- order to be assigned (`enroll`), only if no others are given, and none are to
-- be the same as before.
local function gather(site, args, from)
  local list = {}
  if args.common_name then list[1] = args.common_name end
  if args.wildcard then
    if not args.root_domain then return nil, "--wildcard needs --root-domain", "usage" end
    list[#list + 1] = "*." .. args.root_domain
    add(list, args.domain)
    return names.list(list)
  end
  add(list, args.domain)
  local asked, message, code = switched(args, site)
  if not asked then return nil, message, code end
  add(list, asked)
  if #list == 0 and not from or not args.assign then
    local served
    served, message, code = service_names(site, args.services or {})
    if not served then return nil, message, code end
    add(list, served)
  end
  if #list == 0 and args.self_signed and not from then list = own_names() end
  return names.list(list)
end

-- Who decided a value: the site's policy, its config.lua where the shipped
-- policy takes the value from there, or the shipped policy.
local SETTING = { key = "key", subject = "organization", ca = "ca" }

local function decider(site, field)
  local source = site.policy:source(field)
  local setting = SETTING[field]
  return not site.policy.own[field] and setting and site.own[setting] ~= nil and site.path or source
end

-- Asks the policy for a value that no option gave; remembers who decided.
local function decide(draft, site, field, given, kind)
  if given ~= nil then
    draft[field] = given
    draft.decided[field] = "option"
    return true
  end
  local value, message, code = site.policy:value(field, draft, kind)
  if value == nil then return nil, message, code end
  draft[field] = value
  draft.decided[field] = decider(site, field)
  return true
end

-- The failure of a value that the policy decided names the function: it is not
-- the caller's.
local function blame(draft, site, field, message, code)
  if draft.decided[field] == "option" then return nil, message, code end
  local by = draft.decided[field] or site.policy:source(field)
  return nil, ("%s in '%s': %s"):format(field, by, message), "refused"
end

local function check_strings(list)
  for _, value in pairs(list) do
    if type(value) ~= "string" then return nil, ("it holds a %s, not only strings"):format(type(value)) end
  end
  return true
end

local function extra_domains(draft, site)
  local extra, message, code = site.policy:value("extra_domains", draft, "table")
  if not extra then return nil, message, code end
  if next(extra) == nil then return true end
  local ok
  ok, message = check_strings(extra)
  if ok then ok, message = names.list(extra) end
  if not ok then return blame(draft, site, "extra_domains", message) end
  add(draft.domains, extra)
  draft.domains = names.list(draft.domains)
  draft.decided.extra_domains = site.policy:source "extra_domains"
  return true
end

-- The common name stands first among the domains, once.
local function common_name_first(draft, site)
  local name, message, code = names.check(draft.common_name)
  if not name then return blame(draft, site, "common_name", message, code) end
  local list = { name }
  for _, domain in ipairs(draft.domains) do
    if domain ~= name then list[#list + 1] = domain end
  end
  draft.common_name, draft.domains = name, list
  return true
end

-- A refusal reaches the user in the site's own words.
local function validate(draft, site)
  local ok, message, code = site.policy:ask("validate", draft)
  if message then return nil, message, code end
  if ok == false then
    return nil, ("validate in '%s' refuses this request"):format(site.policy:source "validate"), "refused"
  end
  return true
end

local SUBJECT = { organization = "O", unit = "OU", locality = "L", state_name = "ST", country = "C" }

-- A renewal keeps its old subject, but what is said anew has to be right.
local function check_attributes(draft, site, args, known)
  local said = {}
  for option, attribute in pairs(SUBJECT) do said[attribute] = args[option] end
  for attribute, given in options.sorted(draft.subject) do
    if said[attribute] or not known.subject then
      local value, message, code = require("subject").check(attribute, given)
      if not value and said[attribute] then return nil, message, code end
      if not value then return blame(draft, site, "subject", message, code) end
      draft.subject[attribute] = value
    end
  end
  return true
end

-- What the subject starts from: a renewal's old one, else the policy's.
local function base_subject(draft, site, known)
  if known.subject then
    draft.decided.subject = "option"
    return known.subject
  end
  local base, message, code = site.policy:value("subject", draft, "table")
  if not base then return nil, message, code end
  draft.decided.subject = decider(site, "subject")
  local ok, why = check_strings(base)
  if not ok then return blame(draft, site, "subject", why) end
  return base
end

local function subject(draft, site, args, known)
  local base, message, code = base_subject(draft, site, known)
  if not base then return nil, message, code end
  draft.subject = {}
  for attribute, value in pairs(base) do draft.subject[attribute] = value end
  for option, attribute in pairs(SUBJECT) do
    if args[option] then
      draft.subject[attribute] = args[option] ~= "" and args[option] or nil -- "" takes away what the policy gives
      draft.decided.subject = "option"
    end
  end
  local ok
  ok, message, code = check_attributes(draft, site, args, known)
  if not ok then return nil, message, code end
  -- X.520: a common name has at most 64 characters; a longer name stands in
  -- the SAN alone, where clients look (RFC 9525).
  if #draft.common_name <= 64 then draft.subject.CN = draft.common_name end
  return true
end

local function friendly_name(draft, site)
  local name, message, code = names.friendly(draft.friendly_name)
  if name then return name end
  if draft.decided.friendly_name ~= "option" then message = message .. "; choose one with --name" end
  return blame(draft, site, "friendly_name", message, code)
end

-- A CA that cannot be submitted to is said now, not after a person's review.
local function check_ca(draft, site)
  if site.config.cas[draft.ca] then return true end
  local _, message, code = site:ca(draft.ca)
  return blame(draft, site, "ca", message, code)
end

-- The common name of a certificate from elsewhere may be no domain name.
local function name_of(row)
  return row.common_name and names.check(row.common_name)
end

-- Kinds of keys that can be made; a certificate from elsewhere may have another.
local KINDS = {
  ["rsa:2048"] = true, ["rsa:3072"] = true, ["rsa:4096"] = true, ["ec:P-256"] = true, ["ec:P-384"] = true,
  ed25519 = true,
}

local function kind_of(args, row)
  return args.key or (args.reuse_key or KINDS[row.key]) and row.key or nil
end

-- The CA that a renewal goes to: the one before, as long as the site has it.
local function ca_of(site, args, row)
  return args.ca or site.config.cas[row.ca or ""] and row.ca or nil
end

--- Makes the draft of a request.
-- @param site as site.lua loads it
-- @param args the options of new-request, by key
-- @param known { local_ca = bool, from = row of the certificate to renew or
--   nil, subject = its attributes without the common name or nil }
-- @return draft { friendly_name, common_name, domains, key, subject, ca,
--   services, decided = { field = file or "option" }, ... }
--   | nil, message, "usage" | "limit" | "refused" | ...
function M.make(site, args, known)
  local draft = {
    config = site.config, local_ca = known.local_ca, services = args.services or {},
    root_domain = args.root_domain, wildcard = args.wildcard or false, decided = {},
  }
  local domains, message, code = gather(site, args, known.from)
  if not domains then return nil, message, code end
  local from = known.from or {}
  local is_same = #domains == 0 -- a renewal for the same names
  if is_same then domains = { table.unpack(from.domains or {}) } end
  if #domains == 0 then
    return nil, "no name to ask for: give --domain NAME (repeat), --services LIST, or --root-domain D --wildcard",
      "usage"
  end
  draft.domains = domains
  local common_name = args.common_name and domains[1] or is_same and name_of(from) or nil
  local steps = {
    function() return extra_domains(draft, site) end,
    function() return decide(draft, site, "common_name", common_name, "string") end,
    function() return common_name_first(draft, site) end,
    function() return decide(draft, site, "friendly_name", args.name or from.friendly_name, "string") end,
    function() return friendly_name(draft, site) end,
    function() return decide(draft, site, "key", kind_of(args, from), "string") end,
    function() return subject(draft, site, args, known) end,
    function() return decide(draft, site, "ca", ca_of(site, args, from), "string") end,
    function() return check_ca(draft, site) end,
    function() return validate(draft, site) end,
  }
  for _, step in ipairs(steps) do
    local ok
    ok, message, code = step()
    if not ok then return nil, message, code end
  end
  return draft
end

return M
