-- subject.lua: what an attribute of a request's subject may hold.

local countries = require "countries"
local options = require "options"
local text = require "text"

local M = {}

-- Upper bounds in characters (X.520; RFC 5280, appendix A.1, "Upper Bounds").
local LIMITS = { O = 64, OU = 64, L = 128, ST = 128 }
local RANK = { CN = "1", OU = "2", O = "3", L = "4", ST = "5", C = "6" }
local WHAT = { O = "organization", OU = "organizational unit", L = "locality", ST = "state or province" }

-- What people write for a country that has another code, in lower case.
local OTHERS = { uk = "GB", usa = "US", ["united states of america"] = "US", england = "GB", holland = "NL" }

local function country_of(name)
  local code = OTHERS[name:lower()]
  for other, country in pairs(countries) do
    if country:lower() == name:lower() then code = other end
  end
  return code
end

local function check_country(given)
  local code = given:upper()
  if countries[code] then return code end
  local meant = country_of(given)
  return nil, ("the country '%s' is not a two-letter code of ISO 3166-1, such as US%s"):format(text.escape(given),
    meant and (" (%s is %s)"):format(countries[meant], meant) or ""), "usage"
end

--- Checks the value of an attribute.
-- @param attribute O, OU, L, ST, C or another one that a policy sets
-- @return value, a country in upper case | nil, message, "usage" | "limit"
function M.check(attribute, value)
  if attribute == "C" then return check_country(value) end
  local what = WHAT[attribute] or "subject's " .. attribute
  local length, limit = utf8.len(value), LIMITS[attribute] or math.huge
  if not length then return nil, ("the %s '%s' is not UTF-8"):format(what, text.escape(value)), "usage" end
  local hidden = text.hidden(value) -- it would deceive whoever reads it
  if hidden then
    return nil, ("the %s '%s' may not hold the character U+%04X, which cannot be seen"):format(what, text.escape(value),
      hidden), "usage"
  elseif length > limit then
    return nil, ("the %s '%s...' has %d characters, and may have %d (X.520; RFC 5280, appendix A.1)"):format(what,
      text.escape(value:sub(1, utf8.offset(value, 21) - 1)), length, limit), "limit"
  end
  return value
end

--- A subject's attributes in one line, as the request will have them: the
-- narrowest first.
-- @param subject table of values by attribute
function M.line(subject)
  local list, parts = {}, {}
  for attribute, value in pairs(subject) do list[(RANK[attribute] or "9") .. attribute] = attribute .. "=" .. value end
  for _, part in options.sorted(list) do parts[#parts + 1] = part end
  return table.concat(parts, ",")
end

return M
