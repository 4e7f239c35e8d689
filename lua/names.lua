-- names.lua: what a domain name on a certificate may look like, and how one is
-- shown.  A name in another script than ASCII goes as its A-labels (RFC 5890),
-- which libidn2 knows; it is loaded for such names only.

local host = require "core.host"
local text = require "text"

local M = {}

local LABEL_LIMIT = 63 -- octets (RFC 1035, section 2.3.4)
local NAME_LIMIT = 253 -- octets, without the root's dot (RFC 1035, section 2.3.4)

--- Whether a name is an IP address literal.
function M.is_address(name)
  return host.address(name) ~= nil
end

-- libidn2's functions, or why there are none.
local function library(shown)
  local ok, idna = pcall(require, "core.idna")
  if ok then return idna end
  return nil, ("'%s' is an internationalized name, for which libidn2 is needed (install libidn2-0): %s"):format(shown,
    idna), "missing"
end

-- A label of a name in ASCII; one that begins with xn-- must be what IDNA 2008
-- has for some text.
local function check_label(label, shown)
  if #label > LABEL_LIMIT then
    return nil, ("'%s': a label is longer than %d octets (RFC 1035)"):format(shown, LABEL_LIMIT), "limit"
  elseif not label:match "^[%w]$" and not label:match "^%w[%w-]*%w$" then
    return nil, ("'%s' is not a domain name: '%s' may hold letters, digits and inner hyphens only%s"):format(shown,
      label, label:find("_", 1, true) and ", no underscore (CA/Browser Forum)" or ""), "usage"
  elseif label:sub(3, 4) ~= "--" then
    return true
  elseif label:sub(1, 2) ~= "xn" then
    return nil, ("'%s': hyphens as third and fourth character are reserved for IDNA: '%s' (RFC 5890)"):format(shown,
      label), "usage"
  end
  local idna, message, code = library(shown)
  if not idna then return nil, message, code end
  local decoded
  decoded, message = idna.label(label)
  if decoded then return true end
  return nil, ("'%s': '%s' is no A-label of IDNA 2008: %s"):format(shown, label, message), "usage"
end

-- The A-label form of a name that is not ASCII, whose ASCII is checked first:
-- what is mapped might become something else.
local function to_ascii(body, shown)
  local odd = body:match "[^%w.\x80-\xFF-]"
  if odd then
    return nil, ("'%s' is not a domain name: it holds '%s'"):format(shown, odd), "usage"
  end
  local idna, message, code = library(shown)
  if not idna then return nil, message, code end
  local ascii
  ascii, message, code = idna.ascii(body)
  if ascii then return ascii end
  if code == "limit" then return nil, ("'%s': %s"):format(shown, message), code end
  return nil, ("'%s' is not a domain name of IDNA 2008: %s"):format(shown, message), "usage"
end

-- What no name is, whatever else it may be.
local function check_text(name, shown)
  if not utf8.len(name) then return nil, ("'%s' is not UTF-8"):format(shown), "usage" end
  local hidden = text.hidden(name)
  if hidden then
    return nil, ("'%s' is not a domain name: it holds the character U+%04X, which cannot be seen"):format(shown,
      hidden), "usage"
  elseif name:find("@", 1, true) then
    return nil, ("'%s' is an e-mail address, not a domain name"):format(shown), "usage"
  elseif name:find("://", 1, true) then
    return nil, ("'%s' is a URL: give the domain name in it alone"):format(shown), "usage"
  end
  return true
end

-- A name below what may be a wildcard, in lower case; its limits and labels.
local function check_body(body, shown)
  local message, code
  if body:find "[\x80-\xFF]" then
    body, message, code = to_ascii(body, shown)
    if not body then return nil, message, code end
  end
  if body == "" or body:find "%.%." or body:find "^%." then
    return nil, ("'%s' is not a domain name: it has an empty label"):format(shown), "usage"
  end
  for label in body:gmatch "[^.]+" do
    local ok
    ok, message, code = check_label(label, shown)
    if not ok then return nil, message, code end
  end
  if body:match "%.%d+$" or body:match "^%d+$" then -- RFC 1123, section 2.1
    return nil, ("'%s' is neither a domain name nor an IP address"):format(shown), "usage"
  end
  return body
end

--- Checks and normalises a name for a certificate: a DNS name in lower case,
-- as A-labels, without a final dot, a wildcard only as its whole left-most label
-- (RFC 9525, section 6.3), or an IP address in its shortest form.
-- @return name | nil, message, "usage" | "limit" | "missing" (libidn2)
function M.check(name)
  local address = host.address(name)
  if address then return address end
  local shown = text.escape(name)
  local ok, message, code = check_text(name, shown)
  if not ok then return nil, message, code end
  local plain = name:lower():gsub("%.$", "")
  local star, body = plain:match "^(%*%.)(.*)$"
  star, body = star or "", body or plain
  if #plain > NAME_LIMIT and not plain:find "[\x80-\xFF]" then
    return nil, ("'%s' is longer than %d octets (RFC 1035)"):format(shown, NAME_LIMIT), "limit"
  elseif body:find("*", 1, true) then
    return nil, ("'%s': a wildcard may only be the whole left-most label, as in *.example.com"):format(shown), "usage"
  end
  body, message, code = check_body(body, shown)
  if not body then return nil, message, code end
  if #star + #body > NAME_LIMIT then
    return nil, ("'%s' is longer than %d octets (RFC 1035)"):format(shown, NAME_LIMIT), "limit"
  elseif star ~= "" and not body:find(".", 1, true) then -- which RFC 9525's clients match with nothing
    return nil, ("'%s': a wildcard needs at least two labels after it"):format(shown), "usage"
  end
  return star .. body
end

-- Cyrillic and Greek letters that look like Latin ones (UTS 39, section 4).
local LOOKALIKES = {}
for _, code in utf8.codes "асԁеһіјӏорԛѕԝхуҽпгѵѡοανρτυικ" do LOOKALIKES[code] = true end

-- Whether a U-label can be shown without deceiving: one that mixes Latin with
-- another script, or has lookalikes of Latin letters only, may look like a name
-- that it is not (UTS 39, section 5.1), one that runs from right to left changes
-- its place in the line.
local function is_plain(label)
  local latin, other, unlike = false, false, false
  for _, code in utf8.codes(label) do
    if code >= 0x0590 and code <= 0x08FF or code >= 0x10800 and code <= 0x10FFF or code >= 0x1E800 and code <= 0x1EFFF
    then return false end
    local is_letter = code >= 0x80 or string.char(code):find "%a"
    latin = latin or is_letter and code < 0x0250
    other = other or code >= 0x0250
    unlike = unlike or code >= 0x0250 and not LOOKALIKES[code]
  end
  return not (latin and other) and (unlike or not other)
end

-- The U-labels of a name that has A-labels, where all are valid and can be
-- shown; else nil.
local function to_unicode(name)
  if not name:find "^[%w*.-]+$" or not ("." .. name):find(".xn--", 1, true) then return nil end
  local ok, idna = pcall(require, "core.idna")
  if not ok then return nil end
  local labels = {}
  for label in name:gmatch "[^.]+" do
    local decoded = label
    if label:sub(1, 4) == "xn--" then decoded = idna.label(label) end
    if not decoded or not is_plain(decoded) then return nil end
    labels[#labels + 1] = decoded
  end
  return text.escape(table.concat(labels, "."))
end

--- Names in one line, as text.names has them, each with its U-labels beside.
function M.shown(list)
  local shown = {}
  for i, name in ipairs(list) do
    local decoded = to_unicode(name:lower())
    shown[i] = text.names { name } .. (decoded and (" (%s)"):format(decoded) or "")
  end
  return table.concat(shown, ", ")
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
  local shown = text.escape(name)
  local length = utf8.len(name)
  if not length then
    return nil, ("the friendly name '%s' is not UTF-8"):format(shown), "usage"
  elseif length < 1 or length > 63 then
    return nil, ("the friendly name '%s' must have 1 to 63 characters"):format(shown), "usage"
  elseif name:find "[%c/]" or name:find "\u{7F}" or name:find "\xC2[\x80-\x9F]" then
    return nil, ("the friendly name '%s' may not hold a control character or a /"):format(shown), "usage"
  elseif text.hidden(name) then
    return nil, ("the friendly name '%s' may not hold the character U+%04X, which cannot be seen"):format(shown,
      text.hidden(name)), "usage"
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
