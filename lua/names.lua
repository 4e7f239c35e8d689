-- names.lua: what a domain name on a certificate may look like.

local M = {}

local LABEL_LIMIT = 63 -- octets (RFC 1035, section 2.3.4)
local NAME_LIMIT = 253 -- octets, without the root's dot (RFC 1035, section 2.3.4)

local function is_ipv4(name)
  local octets = { name:match "^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$" }
  if #octets == 0 then return false end
  for _, octet in ipairs(octets) do
    if tonumber(octet) > 255 then return false end
  end
  return true
end

--- Whether a name is an IP address literal.
function M.is_address(name)
  return is_ipv4(name) or (name:find(":", 1, true) ~= nil and name:match "^[%x:.]+$" ~= nil)
end

local function check_label(label, name)
  if #label > LABEL_LIMIT then
    return nil, ("'%s': a label is longer than %d octets (RFC 1035)"):format(name, LABEL_LIMIT), "limit"
  elseif not label:match "^[%w]$" and not label:match "^%w[%w-]*%w$" then
    return nil, ("'%s' is not a domain name: '%s' may hold letters, digits and inner hyphens only"):format(name, label),
      "usage"
  end
  return true
end

--- Checks and normalises a name for a certificate: a DNS name in lower case
-- without a final dot, a wildcard only as its whole left-most label (RFC
-- 9525, section 6.3; RFC 5890 for what a label is), or an IP address.
-- @return name | nil, message, "usage" | "limit"
function M.check(name)
  local shown = require("text").escape(name)
  if M.is_address(name) then return name:lower() end
  if name:find "[\x80-\xFF]" then
    return nil, ("'%s' is not an ASCII name; give its A-label form (xn--...)"):format(shown), "usage"
  end
  local plain = name:lower():gsub("%.$", "")
  if #plain > NAME_LIMIT then
    return nil, ("'%s' is longer than %d octets (RFC 1035)"):format(shown, NAME_LIMIT), "limit"
  end
  local body = plain:gsub("^%*%.", "")
  if body:find("*", 1, true) then
    return nil, ("'%s': a wildcard may only be the whole left-most label, as in *.example.com"):format(shown), "usage"
  elseif body == "" or body:find "%.%." or body:find "^%." then
    return nil, ("'%s' is not a domain name: it has an empty label"):format(shown), "usage"
  elseif body ~= plain and not body:find(".", 1, true) then
    return nil, ("'%s': a wildcard needs at least two labels after it"):format(shown), "usage"
  end
  for label in body:gmatch "[^.]+" do
    local ok, message, code = check_label(label, shown)
    if not ok then return nil, message, code end
  end
  if body:match "%.%d+$" then -- RFC 1123, section 2.1
    return nil, ("'%s' is neither a domain name nor an IP address"):format(shown), "usage"
  end
  return plain
end

--- Checks several names and drops the repeated ones, keeping their order.
-- @return array | nil, message, code
function M.list(names)
  local list, seen = {}, {}
  for _, name in ipairs(names) do
    local checked, message, code = M.check(name)
    if not checked then return nil, message, code end
    if not seen[checked] then
      seen[checked] = true
      list[#list + 1] = checked
    end
  end
  return list
end

--- Checks a friendly name (see "Words" in the README).
-- @return name | nil, message, "usage" | "limit"
function M.friendly(name)
  local shown = require("text").escape(name)
  local length = utf8.len(name)
  if not length then
    return nil, ("the friendly name '%s' is not UTF-8"):format(shown), "usage"
  elseif length < 1 or length > 63 then
    return nil, ("the friendly name '%s' must have 1 to 63 characters"):format(shown), "usage"
  elseif name:find "[%c/]" or name:find "\u{7F}" or name:find "\xC2[\x80-\x9F]" then
    return nil, ("the friendly name '%s' may not hold a control character or a /"):format(shown), "usage"
  elseif name:sub(1, 1) == "-" then
    return nil, ("the friendly name '%s' may not begin with -"):format(shown), "usage"
  elseif name:match "^%d+$" then
    return nil, ("the friendly name '%s' may not be digits only: that is an id"):format(shown), "usage"
  elseif #name >= 6 and name:match "^%x+$" then
    return nil, ("the friendly name '%s' may not be hex digits only: that is a fingerprint"):format(shown), "usage"
  end
  return name
end

return M
