-- object.lua: an object as the outside sees it: its JSON fields, its status,
-- and how the command line names it.

local assignments = require "assignments"
local certificates = require "certificates"
local json = require "json"
local text = require "text"
local wildcards = require "wildcards"

local M = {}

local FIELDS = {
  "id", "state", "status", "friendly_name", "subject", "common_name", "domains", "key", "fingerprint",
  "thumbprint", "serial", "issuer", "not_before", "not_after", "renew_at", "services", "request_file", "ca",
  "ticket", "self_signed", "exportable", "has_private_key", "warnings", "assignments", "status_reason", "history",
}

local ASSIGNMENT_FIELDS = {
  "server", "service", "endpoint", "address", "name", "desired", "written", "observed", "observed_at", "error", "state",
}

--- The status of an object, as Exchange names it, and its reason.
-- @param now epoch seconds; default: the clock
-- @return status, reason
function M.status(row, now)
  now = now or os.time()
  if row.state == "created" or row.state == "submitted" then
    return "PendingRequest", row.state == "created" and "not submitted to a CA yet" or "waits for the CA's certificate"
  elseif row.state == "rejected" or row.state == "cancelled" then
    return "Unknown", "the request was " .. row.state
  elseif row.revoked_at then
    return "Revoked", "revoked on " .. text.day(row.revoked_at)
  elseif now < row.not_before then
    return "DateInvalid", "not valid before " .. text.time(row.not_before)
  elseif now > row.not_after then
    return "DateInvalid", "expired on " .. text.time(row.not_after)
  elseif row.untrusted then
    return "Untrusted", row.untrusted
  end
  return "Valid", "chains to a trust anchor"
end

local function or_null(value)
  if value == nil then return json.null end
  return value
end

local function assignment_fields(row)
  local fields = {}
  for _, name in ipairs(ASSIGNMENT_FIELDS) do
    local value = row[name]
    if value == "" then value = nil end
    if name == "observed_at" then value = text.time(value) end
    fields[name] = or_null(value)
  end
  return json.object(fields, ASSIGNMENT_FIELDS)
end

--- The fields of an object, every one present.
-- @param context for the path of its request
-- @param row as certificates.lua reads it
-- @param rows its assignments, when they have been read
-- @return a table | nil, message, code
function M.fields(context, row, rows)
  local message, code
  if not rows then
    rows, message, code = assignments.of(context.db, row.id)
    if not rows then return nil, message, code end
  end
  local status, reason = M.status(row)
  local shown = { services = json.array(assignments.services(rows)), assignments = json.array() }
  for i, assignment in ipairs(rows) do shown.assignments[i] = assignment_fields(assignment) end
  local request_file = context:path("requests", row.id .. ".csr")
  if not require("core.file").stat(request_file) then request_file = nil end
  local fields = {
    status = status, status_reason = reason, services = shown.services, assignments = shown.assignments,
    request_file = request_file, domains = json.array(row.domains),
    warnings = json.array(table.move(row.warnings, 1, #row.warnings, 1, {})),
    not_before = text.time(row.not_before), not_after = text.time(row.not_after), renew_at = text.time(row.renew_at),
  }
  for _, warning in ipairs(wildcards.warnings(row.domains, rows)) do table.insert(fields.warnings, warning) end
  for _, name in ipairs(FIELDS) do
    if fields[name] == nil then fields[name] = or_null(row[name]) end
  end
  fields.history = nil
  return json.object(fields, FIELDS)
end

--- The fields of the object with this id, read afresh.
function M.read(context, id)
  local row, message, code = certificates.get(context.db, id)
  if not row then return nil, message, code end
  return M.fields(context, row)
end

local function describe(rows)
  local lines = {}
  for _, row in ipairs(rows) do
    lines[#lines + 1] = ("  %d  %s  %s  %s"):format(row.id, text.escape(row.friendly_name), row.state,
      row.fingerprint and row.fingerprint:sub(1, 16) or "-")
  end
  return table.concat(lines, "\n")
end

local function by_name(db, name)
  local rows, message, code = certificates.named(db, name)
  if not rows then return nil, message, code end
  if rows[1] and (rows[1].state == "completed" or #rows == 1) then return rows[1] end
  if #rows > 1 then
    return nil, ("'%s' names several requests; say which by its id:\n%s"):format(text.escape(name), describe(rows)),
      "usage"
  end
  return false
end

--- Finds the object that the command line names: an id, a friendly name, or
-- the first 6 or more hex digits of a fingerprint or thumbprint.
-- @return row | nil, message, "missing" | "usage" (several match)
function M.find(db, word)
  local id = word:match "^%d+$" and math.tointeger(tonumber(word))
  if id then return certificates.get(db, id) end
  local row, message, code = by_name(db, word)
  if row or row == nil then return row, message, code end
  if #word >= 6 and word:match "^%x+$" then
    local rows
    rows, message, code = certificates.with_fingerprint(db, word:lower())
    if not rows then return nil, message, code end
    if #rows > 1 then
      return nil, ("'%s' is the beginning of several fingerprints:\n%s"):format(word, describe(rows)), "usage"
    end
    if rows[1] then return rows[1] end
  end
  return nil, ("there is no request or certificate '%s'; see certwright list"):format(text.escape(word)), "missing"
end

local function value_or_dash(value)
  if value == json.null then return "-" end
  return type(value) == "string" and text.escape(value) or tostring(value)
end

-- Where an assignment is seen; its address where the endpoint says none.
local function place_of(assignment)
  if assignment.endpoint == json.null then return "-" end
  local shown = text.escape(assignment.endpoint)
  if assignment.address == json.null or shown:find(assignment.address, 1, true) then return shown end
  return ("%s [%s]"):format(shown, assignment.address)
end

--- Assignments as a table; why one is not as it should be stands below it.
-- @param list assignments, as in the fields of an object
-- @param columns the terminal's width, or nil
-- @param ids of each the object's id, or nil: no such column
function M.assignments(list, columns, ids)
  local rows, lines, number = { { "SERVICE", "ENDPOINT", "NAME", "STATE", "OBSERVED" } }, {}, 0
  for i, a in ipairs(list) do
    rows[i + 1] = { a.service, place_of(a), value_or_dash(a.name), a.state, a.observed ~= json.null
      and a.observed:sub(1, 16) or "-" }
  end
  for i, row in ipairs(ids and rows or {}) do table.insert(row, 1, i == 1 and "ID" or tostring(ids[i - 1])) end
  for line in text.fitted(rows, columns, { text.cut "NAME" }):gmatch "[^\n]+" do
    lines[#lines + 1] = line
    local why = list[number] and list[number].error or json.null
    if why ~= json.null then lines[#lines + 1] = text.wrap("  " .. text.escape(why), columns, 4) end
    number = number + 1
  end
  return table.concat(lines, "\n")
end

-- What is wrong with the object, but for what its status says already.
local function warnings_of(object)
  local lines = {}
  for _, warning in ipairs(object.warnings) do
    if warning.message ~= object.status_reason then lines[#lines + 1] = text.escape(warning.message) end
  end
  return lines
end

--- An object as text for a person.
-- @param context for the width of the terminal
function M.text(object, context)
  local pairs_ = {
    { "Id", object.id }, { "Name", value_or_dash(object.friendly_name) }, { "State", object.state },
    { "Status", ("%s (%s)"):format(object.status, text.escape(object.status_reason)) },
    { "Subject", value_or_dash(object.subject) }, { "Domains", text.names(object.domains) },
    { "Key", value_or_dash(object.key) },
  }
  local function add(label, value)
    if value ~= json.null then pairs_[#pairs_ + 1] = { label, value_or_dash(value) } end
  end
  add("Issuer", object.issuer)
  add("Valid from", object.not_before)
  add("Valid until", object.not_after)
  add("Renew at", object.renew_at)
  add("Serial", object.serial)
  add("SHA-256", object.fingerprint)
  add("SHA-1", object.thumbprint)
  add("CA", object.ca)
  add("Ticket", object.ticket)
  add("Request", object.request_file)
  if #object.services > 0 then add("Services", table.concat(object.services, ", ")) end
  for i, warning in ipairs(warnings_of(object)) do pairs_[#pairs_ + 1] = { i == 1 and "Warnings" or "", warning } end
  local shown = text.fields(pairs_, context.columns)
  if #object.assignments == 0 then return shown end
  local listed = M.assignments(object.assignments, context.columns and context.columns - 2)
  return shown .. "\n\nAssignments\n  " .. listed:gsub("\n", "\n  ")
end

return M
