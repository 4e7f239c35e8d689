-- list: every request and certificate, a line each.

local assignments = require "assignments"
local certificates = require "certificates"
local invocation = require "invocation"
local json = require "json"
local object = require "object"
local options = require "options"
local text = require "text"

local DAY = 86400
local NAMES_BELOW = 8 -- names that stand below a line of a narrow table

local STATUS = {
  "Valid", "PendingRequest", "DateInvalid", "Untrusted", "Revoked", "RevocationCheckFailure", "Invalid", "Unknown",
}

-- A status as it is written; a misspelt one must not look like an empty list.
local function status(word)
  for _, name in ipairs(STATUS) do
    if name:lower() == word:lower() then return name end
  end
  return nil, ("there is no status '%s'; there are: %s"):format(word, table.concat(STATUS, ", "))
end

-- A domain as certificates have it; one of another script is asked for as it is
-- spoken, and what could be on no certificate is on none.
local function domain(word)
  return require("names").check(word) or word
end

local function row_of(fields)
  local until_ = fields.not_after ~= json.null and fields.not_after:sub(1, 10) or "-"
  local services = #fields.services > 0 and table.concat(fields.services, ",") or "-"
  local print_ = fields.fingerprint ~= json.null and fields.fingerprint:sub(1, 16) or "-"
  return { tostring(fields.id), text.escape(fields.friendly_name), fields.state, fields.status, until_, services,
    print_, text.names(fields.domains) }
end

-- How the table gets narrower for a terminal.  No name is lost: names that do not
-- fit are counted, or stand below their line; fingerprints stay whole.
local function steps_for(list, columns)
  local function some(field)
    return function(n) return #list[n][field] > 0 and text.some(list[n][field]) or "-" end
  end
  local function is_said(row, cell) return cell == row[2] or cell == "-" end
  return {
    text.replace("DOMAINS", some "domains"), text.drop "STATE",
    text.replace("DOMAINS", function(n) return text.some(list[n].domains, NAMES_BELOW) end),
    text.below("DOMAINS", columns, is_said), text.replace("SERVICES", some "services"), text.cut "NAME",
  }
end

return {
  summary = "list requests and certificates",
  role = "auditor",
  options = {
    { "--status", "only those of this status (Valid, PendingRequest, DateInvalid, Untrusted, ...)", argument = "S",
      convert = status },
    { "--domain", "only those that cover this name; first the one that clients get", argument = "NAME",
      convert = domain },
    { "--service", "only those on this service", argument = "S" },
    { "--expiring", "only certificates that expire within so many days", argument = "DAYS", convert = options.number },
  },

  notes = [[
With --domain NAME a wildcard counts for the names it covers.  What was
observed on a service for that name comes first; then what would be served:
valid ones of a CA, the newest first, self-signed ones after them; then what
cannot be.]],

  text = function(list, context)
    if #list == 0 and context.is_filtered then
      return text.wrap(("nothing is like that; %s shows everything"):format(invocation.suggest "list"),
        context.columns, 2)
    elseif #list == 0 then
      return text.wrap("there is nothing yet; begin with: " .. invocation.suggest "new-request --domain NAME",
        context.columns, 2)
    end
    local rows = { { "ID", "NAME", "STATE", "STATUS", "UNTIL", "SERVICES", "SHA-256", "DOMAINS" } }
    for _, fields in ipairs(list) do rows[#rows + 1] = row_of(fields) end
    return text.fitted(rows, context.columns, steps_for(list, context.columns))
  end,

  run = function(args, context)
    local db, message, code = context:read()
    if not db then return nil, message, code end
    local rows
    rows, message, code = certificates.list(db, {
      domain = args.domain, service = args.service, before = args.expiring and os.time() + args.expiring * DAY,
    })
    if not rows then return nil, message, code end
    local by_object
    by_object, message, code = assignments.by_object(db)
    if not by_object then return nil, message, code end
    if args.domain then require("selection").sort(rows, by_object, args.domain) end
    if #rows > 1 then object.look_for_requests(context) end
    local list = json.array()
    context.is_filtered = next(args) ~= nil
    for _, row in ipairs(rows) do
      if not args.status or object.status(row) == args.status then
        local fields
        fields, message, code = object.fields(context, row, by_object[row.id] or {})
        if not fields then return nil, message, code end
        list[#list + 1] = fields
      end
    end
    assignments.mention(context)
    return list
  end,
}
