-- appraisal.lua: what is worth saying of a certificate that came: how it
-- differs from what was asked for, and what clients will not like.
--
-- Nothing here refuses: these are warnings, each a code and a message.

local flow = require "flow"
local names = require "names"
local text = require "text"

local M = {}

local DAY = 86400
-- CA/Browser Forum's Baseline Requirements, 6.3.2; clients enforce it for every
-- CA that they trust by themselves.
local LONGEST_DAYS = 398
local SHORTEST_DAYS = 5
local NAMES_LIMIT = 20 -- of names in a warning

-- Last labels that no public CA certifies: RFC 2606, RFC 6761, RFC 6762, RFC
-- 8375, ICANN's .internal, and what sites made up.
local PRIVATE = {
  test = true, example = true, invalid = true, localhost = true, ["local"] = true, internal = true, arpa = true,
  corp = true, home = true, lan = true, intranet = true, private = true, localdomain = true,
}

local function adder()
  local warnings = {}
  return warnings, function(code, format, ...)
    warnings[#warnings + 1] = { code = code, message = format:format(...) }
  end
end

-- What of one list is not in the other, regardless of case.
local function difference(wanted, got)
  local set, missing = {}, {}
  for _, name in ipairs(got) do set[name:lower()] = true end
  for _, name in ipairs(wanted) do
    if not set[name:lower()] then missing[#missing + 1] = name end
  end
  return missing
end

-- What a certificate names: domains and IP addresses as a request does, all else
-- with its type, which no request asks for here.  An address as a dNSName is none
-- (RFC 9525, section 6.4).
local function names_of(fields)
  local list = {}
  for i, name in ipairs(fields.names) do
    local is_domain = name.type == "ip" or name.type == "dns" and not names.is_address(name.value)
    list[i] = is_domain and name.value or ("%s:%s"):format(name.type, name.value)
  end
  return list
end

-- A list of usages that is absent allows everything.
local function compare_usage(warn, asked, fields)
  local got = fields.key_usage
  if #got == 0 then return end
  local missing, added = difference(asked.key_usage, got), difference(got, asked.key_usage)
  if #asked.key_usage > 0 and #missing > 0 then
    warn("mismatch", "key usage asked for but not in the certificate: %s", table.concat(missing, ", "))
  end
  if #asked.key_usage > 0 and #added > 0 then
    warn("mismatch", "key usage in the certificate but not asked for: %s", table.concat(added, ", "))
  end
end

--- How a certificate differs from its request.
-- @param row the object; asked the fields of its request, or nil
-- @param fields of the certificate
-- @return array of { code =, message = }
function M.differences(row, asked, fields)
  local warnings, warn = adder()
  local got = names_of(fields)
  local missing, added = difference(row.domains, got), difference(got, row.domains)
  if #missing > 0 then warn("mismatch", "asked for but not in the certificate: %s", text.some(missing, NAMES_LIMIT)) end
  if #added > 0 then warn("mismatch", "in the certificate but not asked for: %s", text.some(added, NAMES_LIMIT)) end
  if asked then compare_usage(warn, asked, fields) end
  if fields.must_staple and not (asked and asked.must_staple) then
    warn("mismatch", "in the certificate but not asked for: must-staple, with which clients refuse a service that "
      .. "staples no OCSP response (RFC 7633)")
  end
  return warnings
end

local function is_public(name)
  if names.is_address(name) then return false end
  local last = name:lower():match "%.([^.]+)$"
  return last ~= nil and not PRIVATE[last]
end

local function doubt_validity(warn, fields)
  local seconds = fields.not_after - fields.not_before
  local days = seconds // DAY
  if seconds < SHORTEST_DAYS * DAY then
    warn("mismatch", "unusually short: it is valid for %s only, until %s",
      days > 0 and text.count(days, "day") or text.count(seconds // 3600, "hour"), text.time(fields.not_after))
  elseif seconds > LONGEST_DAYS * DAY then
    for _, name in ipairs(fields.domains) do
      if is_public(name) then
        warn("mismatch", "valid for %d days: clients refuse more than %d for public names such as %s", days,
          LONGEST_DAYS, text.names { name })
        return
      end
    end
  end
end

-- Digests for which collisions are made, and keys of less than 112 bits (NIST SP
-- 800-57, part 1, 5.6.1).
local function doubt_strength(warn, fields)
  local named = fields.signature_algorithm .. (fields.pss_digest and " with " .. fields.pss_digest or "")
  local algorithm = named:lower()
  if algorithm:find "sha1" or algorithm:find "md[245]" then
    warn("untrusted", "'%s' has a weak signature, which clients refuse: %s", text.label(fields), named)
  end
  local rsa, curve = fields.key:match "^rsa:(%d+)", fields.key:match "^ec:%a+%-(%d+)"
  if rsa and tonumber(rsa) < 2048 or curve and tonumber(curve) < 224 then
    warn("untrusted", "'%s' has a weak key, which clients refuse: %s", text.label(fields), fields.key)
  end
end

local function serves(purposes)
  return #purposes == 0 or flow.holds(purposes, "serverAuth") or flow.holds(purposes, "anyExtendedKeyUsage")
end

-- What clients refuse an issuer for: what it may issue (CA/Browser Forum's Baseline
-- Requirements, 7.1.2.10.6), how long it lasts.
local function doubt_issuer(warn, fields, leaf)
  if not serves(fields.extended_key_usage) then
    warn("untrusted", "its issuer '%s' is not for servers: its extended key usage is %s", text.label(fields),
      table.concat(fields.extended_key_usage, ", "))
  end
  local ends = fields.not_after -- that one has expired already is the chain's matter
  if ends and ends < leaf.not_after and ends >= os.time() then
    warn("expired", "its issuer '%s' expires before it does, on %s", text.label(fields), text.time(ends))
  end
end

--- What clients will not like about a certificate.
-- @param chain array of core.cert, leaf first, without the root
-- @return array of { code =, message = }
function M.doubts(chain)
  local warnings, warn = adder()
  local fields = chain[1]:fields()
  if not serves(fields.extended_key_usage) then
    warn("mismatch", "not for servers: its extended key usage is %s", table.concat(fields.extended_key_usage, ", "))
  end
  if #fields.key_usage > 0 and not flow.holds(fields.key_usage, "digitalSignature") then
    warn("mismatch", "not for servers: its key usage is %s, without digitalSignature",
      table.concat(fields.key_usage, ", "))
  end
  doubt_validity(warn, fields)
  for i, certificate in ipairs(chain) do
    local own = i == 1 and fields or certificate:fields()
    if not own.self_issued or i == 1 then doubt_strength(warn, own) end
    if i > 1 then doubt_issuer(warn, own, fields) end
  end
  return warnings
end

return M
