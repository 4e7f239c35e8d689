-- object.lua: an object as the outside sees it: its JSON fields, its status,
-- and how the command line names it.

local assignments = require "assignments"
local certificates = require "certificates"
local file = require "core.file"
local invocation = require "invocation"
local json = require "json"
local names = require "names"
local text = require "text"
local wildcards = require "wildcards"

local M = {}

local NO_ANCHOR = "^no trusted issuer " -- as trust.lua has it, without loading that for a list

local ORDER = {
  "id", "state", "status", "friendly_name", "subject", "common_name", "domains", "key", "fingerprint",
  "thumbprint", "serial", "issuer", "not_before", "not_after", "renew_at", "services", "request_file", "ca",
  "ticket", "self_signed", "exportable", "has_private_key", "warnings", "assignments", "status_reason",
  "revocation", "root", "chain", "private_key", "details", "history", -- what only some commands add
}

local ASSIGNMENT_FIELDS = {
  "server", "service", "endpoint", "address", "name", "desired", "written", "observed", "observed_at", "error", "state",
  "retry_at",
}

-- What was said when it was found to be revoked.
local function revocation_reason(row)
  for _, warning in ipairs(row.warnings or {}) do
    if warning.code == "revoked" then return warning.message end
  end
  return "revoked on " .. text.day(row.revoked_at)
end

-- Of a certificate that is not revoked, in its time: what the chain and the CA say.
local function chain_status(row)
  local asked = row.revocation
  if row.untrusted then
    return row.untrusted:find(NO_ANCHOR) and "Untrusted" or "Invalid", row.untrusted
  elseif asked and asked.state == "failed" then
    return "RevocationCheckFailure", asked.message
  end
  return "Valid", "chains to a trust anchor" .. (asked and "; " .. asked.message or "")
end

--- The status of an object, as Exchange names it, and its reason.
-- Untrusted: its chain ends in no anchor; Invalid: the chain breaks another rule.
-- @param row with revocation, as revocation.check sets it, where that was asked
-- @param now epoch seconds; default: the clock
-- @return status, reason
function M.status(row, now)
  now = now or os.time()
  if row.state == "created" or row.state == "submitted" then
    return "PendingRequest", row.state == "created" and "not submitted to a CA yet" or "waits for the CA's certificate"
  elseif row.state == "rejected" or row.state == "cancelled" then
    return "Unknown", "the request was " .. row.state
  elseif row.revoked_at then
    return "Revoked", revocation_reason(row)
  elseif now < row.not_before then
    return "DateInvalid", "not valid before " .. text.time(row.not_before)
  elseif now > row.not_after then
    return "DateInvalid", "expired on " .. text.time(row.not_after)
  end
  return chain_status(row)
end

local function assignment_fields(row)
  local fields = {}
  for _, name in ipairs(ASSIGNMENT_FIELDS) do
    local value = row[name]
    if value == "" then value = nil end
    if name:find "_at$" then value = text.time(value) end
    fields[name] = json.or_null(value)
  end
  return json.object(fields, ASSIGNMENT_FIELDS)
end

-- The path of an object's request, if that is there.
local function request_of(context, id)
  local name = id .. ".csr"
  local path = context:path("requests", name)
  local is_there
  if context.requests then is_there = context.requests[name] else is_there = file.stat(path) end
  return is_there and path or nil
end

--- Looks once for all requests, before the fields of many objects are asked for.
function M.look_for_requests(context)
  context.requests = {}
  local folder = context:path "requests"
  if not file.stat(folder, true) then return end
  for name in require("lfs").dir(folder) do context.requests[name] = true end
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
  local null, status, reason = json.null, M.status(row)
  local shown, warnings = json.array(), json.array(table.move(row.warnings, 1, #row.warnings, 1, {}))
  for i, assignment in ipairs(rows) do shown[i] = assignment_fields(assignment) end
  for _, warning in ipairs(wildcards.warnings(row.domains, rows)) do table.insert(warnings, warning) end
  local fields = {
    id = row.id, state = row.state, status = status, friendly_name = row.friendly_name, subject = row.subject or null,
    common_name = row.common_name or null, domains = json.array(row.domains), key = row.key or null,
    fingerprint = row.fingerprint or null, thumbprint = row.thumbprint or null, serial = row.serial or null,
    issuer = row.issuer or null, not_before = text.time(row.not_before) or null,
    not_after = text.time(row.not_after) or null, renew_at = text.time(row.renew_at) or null,
    services = json.array(assignments.services(rows)), request_file = request_of(context, row.id) or null,
    ca = row.ca or null, ticket = row.ticket or null, self_signed = row.self_signed, exportable = row.exportable,
    has_private_key = row.has_private_key, warnings = warnings, assignments = shown, status_reason = reason,
  }
  if row.revocation then
    fields.revocation = json.object({ state = row.revocation.state, message = row.revocation.message,
      reason = json.or_null(row.revocation.reason), revoked_at = json.or_null(text.time(row.revocation.revoked_at)) },
      { "state", "message", "reason", "revoked_at" })
  end
  return json.object(fields, ORDER)
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
  return nil, ("there is no request or certificate '%s'; see %s"):format(text.escape(word), invocation.suggest "list"),
    "missing"
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

-- What stands below an assignment: why it is not as it should be, when it was
-- observed if that is not said elsewhere, when it is tried again.
local function remarks(lines, assignment, columns, latest)
  if assignment.error ~= json.null then
    lines[#lines + 1] = text.wrap("  " .. text.escape(assignment.error), columns, 4)
  end
  local seen = latest and assignment.observed_at or json.null
  if seen ~= json.null and seen:sub(1, 16) ~= latest:sub(1, 16) then
    lines[#lines + 1] = "  last observed " .. seen
  end
  if assignment.retry_at ~= json.null then
    lines[#lines + 1] = ("  renew and poll try again after %s"):format(assignment.retry_at)
  end
end

--- Assignments as a table; why one is not as it should be stands below it.
-- @param list assignments, as in the fields of an object
-- @param columns the terminal's width, or nil
-- @param ids of each the object's id, or nil: no such column
-- @param latest when most were observed, said below: another time stands by its row
function M.assignments(list, columns, ids, latest)
  local rows, lines, number = { { "SERVICE", "ENDPOINT", "NAME", "STATE", "OBSERVED" } }, {}, 0
  for i, a in ipairs(list) do
    rows[i + 1] = { a.service, place_of(a), value_or_dash(a.name), a.state, a.observed ~= json.null
      and a.observed:sub(1, 16) or "-" }
  end
  for i, row in ipairs(ids and rows or {}) do table.insert(row, 1, i == 1 and "ID" or tostring(ids[i - 1])) end
  for line in text.fitted(rows, columns, { text.cut "NAME" }):gmatch "[^\n]+" do
    lines[#lines + 1] = line
    if list[number] then remarks(lines, list[number], columns, latest) end
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
    { "Subject", value_or_dash(object.subject) }, { "Domains", names.shown(object.domains) },
    { "Key", value_or_dash(object.key) },
  }
  local function add(label, value)
    if value ~= json.null then pairs_[#pairs_ + 1] = { label, value_or_dash(value) } end
  end
  add("Issuer", object.issuer)
  if (object.root or json.null) ~= json.null then
    add("Root", ("%s (%s)"):format(object.root.subject, object.root.kind))
  elseif (object.details or json.null) ~= json.null then
    add("Root", "none that is known")
  end
  add("Valid from", object.not_before)
  add("Valid until", object.not_after)
  add("Renew at", object.renew_at)
  add("Serial", object.serial)
  add("SHA-256", object.fingerprint)
  add("SHA-1", object.thumbprint)
  add("CA", object.ca)
  add("Ticket", object.ticket)
  add("Request", object.request_file)
  if (object.private_key or json.null) ~= json.null then
    add("Private key", ("%s (%s)"):format(object.private_key, object.exportable and "exportable" or "not exportable"))
  end
  if #object.services > 0 then add("Services", table.concat(object.services, ", ")) end
  for i, warning in ipairs(warnings_of(object)) do pairs_[#pairs_ + 1] = { i == 1 and "Warnings" or "", warning } end
  local shown = text.fields(pairs_, context.columns)
  if #object.assignments == 0 then return shown end
  local latest = ""
  for _, assignment in ipairs(object.assignments) do
    local at = assignment.observed_at
    if at ~= json.null and at > latest then latest = at end
  end
  local listed = M.assignments(object.assignments, context.columns and context.columns - 2, nil, latest)
  if latest ~= "" then listed = ("%s\nlast observed %s"):format(listed, latest) end
  return shown .. "\n\nAssignments\n  " .. listed:gsub("\n", "\n  ")
end

--- One object, or a line of each: what `renew` and `poll` print.
function M.summary(result, context)
  if result.id then return M.text(result, context) end
  if #result == 0 then return "" end
  local rows = { { "ID", "NAME", "STATE", "STATUS", "UNTIL", "SERVICES" } }
  for _, object in ipairs(result) do
    rows[#rows + 1] = { tostring(object.id), text.escape(object.friendly_name), object.state, object.status,
      object.not_after ~= json.null and object.not_after:sub(1, 10) or "-",
      #object.services > 0 and table.concat(object.services, ",") or "-" }
  end
  return text.fitted(rows, context.columns, { text.drop "STATE", text.cut "NAME", text.cut "SERVICES" })
end

return M
