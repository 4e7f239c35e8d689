-- remove: forgets a request or certificate and deletes its key.  Refused while
-- a service still has it; for a pending request there is a question.

local assignments = require "assignments"
local certificates = require "certificates"
local completion = require "completion"
local file = require "core.file"
local flow = require "flow"
local invocation = require "invocation"
local object = require "object"

local function still_assigned(context, row)
  local rows, message, code = assignments.of(context.db, row.id)
  if not rows then return nil, message, code end
  local services = assignments.services(rows)
  if #services == 0 then return true end
  return nil, ("cannot remove %d: it is assigned to %s; assign another certificate there first"):format(row.id,
    table.concat(services, ", ")), "denied"
end

-- The files of an object that are there.
local function files_of(context, row)
  local list = {}
  for _, path in ipairs { context:path("keys", row.id .. ".pem"), context:path("requests", row.id .. ".csr") } do
    if file.stat(path) then list[#list + 1] = path end
  end
  return list
end

-- The certificate that is still to come would be of no use without the key.
local function agree(context, row)
  if not flow.holds(completion.from, row.state) then return true end
  return context:agree(("request %d is pending: removing it deletes the key that its certificate would need"):format(
    row.id), "keep its key: " .. invocation.suggest("cancel %d", row.id))
end

-- The row goes first: a key without a row is harmless, a row without its key
-- would promise what is not there.
local function remove(context, row)
  local ok, message, code = still_assigned(context, row)
  if not ok then return nil, message, code end
  ok, message, code = context.db:transaction(function()
    local done, why, what = certificates.record(context.db, row.id, context:who(), "removed", row.fingerprint)
    if done then done, why, what = certificates.remove(context.db, row.id) end
    if done == 0 then return nil, ("%d was removed by another command"):format(row.id), "missing" end
    return done, why, what
  end)
  if not ok then return nil, message, code end
  for _, path in ipairs(files_of(context, row)) do
    ok, message, code = file.remove(path)
    if not ok then return nil, message, code end
  end
  return true
end

local function explain(context, row)
  context:say("would remove %d and its key", row.id)
  for _, path in ipairs(files_of(context, row)) do context:say("would delete %s", path) end
end

return {
  summary = "remove a request or certificate and its key",
  role = "organization-management",
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint", argument = "CERT" },
  },
  notes = [[
Refused while a service has it.  A pending request needs --yes, or a Yes on a
terminal, for its key is lost with it.]],
  text = function(fields, context) return not context.dry_run and ("removed %d"):format(fields.id) end,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.cert)
    if not row then return nil, message, code end
    local fields, ok
    fields, message, code = object.fields(context, row)
    if not fields then return nil, message, code end
    ok, message, code = agree(context, row)
    if not ok then return nil, message, code end
    if context.dry_run then
      ok, message, code = still_assigned(context, row)
      if ok then explain(context, row) end
    else
      ok, message, code = flow.locked(context, row.id, function() return remove(context, row) end)
    end
    if not ok then return nil, message, code end
    return fields
  end,
}
