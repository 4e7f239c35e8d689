-- The policy a site starts from.  A site's own policy.lua returns those of
-- these functions that it wants otherwise.  Each is pure: it is given a draft
-- and returns a value, so that it can be tested.
--
-- A draft holds what is known of a request so far: friendly_name, common_name,
-- domains (array), key, subject (table), ca, services (array), root_domain,
-- wildcard, config (the site's values) and local_ca (whether one was made).
local M = {}

-- A person's label for the object, at most 63 characters.
-- One of hex digits only would be taken for a fingerprint.
function M.friendly_name(draft)
  local name = draft.common_name:sub(1, 63)
  return name:match "^%x+$" and name:sub(1, 62) .. "." or name
end

-- The name that stands as CN; it is always among the domains as well.
function M.common_name(draft)
  return draft.domains[1]
end

-- Names to add to those that were asked for.
function M.extra_domains(_draft)
  return {}
end

-- The kind of key.
function M.key(draft)
  return draft.config.key
end

-- The subject's attributes; the common name is added to them.
function M.subject(draft)
  return draft.config.organization
end

-- The CA to submit to.
function M.ca(draft)
  return draft.config.ca or (draft.local_ca and "local" or "manual")
end

-- nil, message refuses the request in the site's own words.
function M.validate(_draft)
  return true
end

-- When to renew: a third of the lifetime before the end, half of it when the
-- certificate lives ten days or less.
function M.renew_at(certificate)
  local lifetime = certificate.not_after - certificate.not_before
  local left = lifetime > 10 * 86400 and lifetime // 3 or lifetime // 2
  return certificate.not_after - left
end

return M
