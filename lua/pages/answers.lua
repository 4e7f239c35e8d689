-- answers.lua: what the answers to the pages of new-request mean: its options, and
-- the request that they would make.
--
-- `self` is what new-request.lua has: context, site, and the options that were
-- given; `state` what its pages keep: name, root_domain, wildcard, common_name,
-- domains, organization, unit, locality, state_name, country, out.

local draft = require "draft"
local names = require "names"
local request = require "request"
local subjects = require "subject"
local text = require "text"

local M = {}

-- The options that the pages ask for; the others stay as they were given.
local ASKED = { name = true, root_domain = true, wildcard = true, common_name = true, domain = true, out = true }
--- The options of the subject, and its attributes.
M.SUBJECT = { organization = "O", unit = "OU", locality = "L", state_name = "ST", country = "C" }

--- The draft that options make, with the name it would have.
-- @return draft | nil, message, code
function M.proposed(self, args)
  local known = { local_ca = require("ca.local").exists(self.context) }
  local made, message, code = draft.make(self.site, args, known)
  if not made then return nil, message, code end
  return request.name(self.context, made, args)
end

--- The options, but for those asked on later pages.
-- @param list the names asked for so far
function M.options(self, state, list)
  local args = {}
  for key, value in pairs(self.given) do args[key] = value end
  for key in pairs(ASKED) do args[key] = nil end
  for _, key in ipairs { "name", "root_domain" } do args[key] = state[key] ~= "" and state[key] or nil end
  args.domain, args.wildcard = {}, state.wildcard or nil
  if not state.wildcard then
    for _, name in ipairs(list) do
      if name ~= state.common_name then args.domain[#args.domain + 1] = name end
    end
    args.common_name = state.common_name
  end
  return args
end

--- All the options: of the subject those that differ from what the site gives
-- (state.site_subject).
function M.all(self, state)
  local args = M.options(self, state, state.domains)
  for key in pairs(M.SUBJECT) do
    args[key] = state[key] ~= state.site_subject[key] and state[key] or nil
  end
  args.out = state.out ~= "" and not args.self_signed and state.out or nil
  return args
end

--- What the site would put into the subject of this request, by option.
function M.site_subject(self, state)
  local args, given = M.options(self, state, state.domains), {}
  for key in pairs(M.SUBJECT) do args[key] = nil end
  local made = M.proposed(self, args)
  local subject = made and made.subject or self.site.config.organization
  for key, attribute in pairs(M.SUBJECT) do given[key] = subject[attribute] or "" end
  return given
end

--- A draft and its options as labels and values, for text.fields.
function M.summary(made, args)
  return {
    { "Friendly name", text.escape(made.friendly_name) },
    { "Common name", text.escape(made.common_name) },
    { "Domains", names.shown(made.domains) },
    { "Subject", text.escape(subjects.line(made.subject)) },
    { "Key", text.escape(made.key) .. (args.exportable and ", exportable" or "") },
    { "CA", args.self_signed and "none: self-signed at once" or text.escape(made.ca) },
    not args.self_signed and { "Request file", text.escape(args.out or "printed here") } or nil,
  }
end

return M
