-- check: probes every assignment again, and says what clients see now.

local certificates = require "certificates"
local inspection = require "inspection"
local invocation = require "invocation"
local json = require "json"
local object = require "object"
local text = require "text"

local INTERVAL = 60 -- seconds between two rounds of --watch

local function lines_of(list, context)
  local shown, ids = {}, {}
  for _, fields in ipairs(list) do
    for _, assignment in ipairs(fields.assignments) do
      if assignment.state ~= "replaced" then shown[#shown + 1], ids[#ids + 1] = assignment, fields.id end
    end
  end
  if #shown == 0 then
    return text.wrap("nothing is assigned yet; assign with: "
      .. invocation.suggest "assign-services CERT --services LIST", context.columns, 2)
  end
  return object.assignments(shown, context.columns, ids)
end

-- What stands on a service, and should not much longer.
local function warn_of_end(context, row)
  local status, reason = object.status(row)
  if status == "DateInvalid" or status == "Revoked" then
    context:warn("%d '%s': %s", row.id, text.escape(row.friendly_name), text.escape(reason))
  elseif row.renew_at and row.renew_at < os.time() then
    context:warn("%d '%s' is due to be renewed: it expires on %s", row.id, text.escape(row.friendly_name),
      text.time(row.not_after))
  end
end

local function round(context, records, revocation)
  local ids, problems, code = inspection.run(context, records)
  if not ids then return nil, problems, code end
  local list, session, failure = json.array(), revocation and require("answers").session(context), "unobserved"
  for _, id in ipairs(ids) do
    local row, message, what = certificates.get(context.db, id)
    if not row then return nil, message, what end
    local fields, ok, is_revoked
    warn_of_end(context, row)
    if session and row.certificate then
      ok, is_revoked, what = require("revocation").inspect(session, row, problems)
      if not ok then return nil, is_revoked, what end
      if is_revoked then failure = "revoked" end
    end
    fields, message, what = object.fields(context, row)
    if not fields then return nil, message, what end
    list[#list + 1] = fields
  end
  if #problems > 0 then return list, table.concat(problems, "\n"), failure end
  return list
end

return {
  summary = "probe every assignment again",
  role = "auditor",
  options = {
    { "--watch", "go on until interrupted, a round a minute" },
    { "--revocation", "ask CAs and look at what is stapled, too: exit status 1 when one is revoked" },
  },
  notes = [[
Exit status 1 when one is not as it should be.  Nothing is put right but what
a crash cut short.  A place that config.lua does not name any more, and that
does not present the certificate, does not count; it is forgotten, but not
while all of its service is gone and silent.  For who has less than the role
operator it only looks, and records nothing.]],
  text = lines_of,

  run = function(args, context)
    if args.watch and context.json then
      return nil, "--watch goes on for ever, --json prints one value: give one of them", "usage"
    end
    local status = require("core.file").stat(context:path "store.db", true)
    local db, message, code
    local records = not context.dry_run and context:may "operator"
    if status and records then
      db, message, code = context:write { unrecorded = true }
    else
      db, message, code = context:read()
    end
    if not db then return nil, message, code end
    while args.watch do
      local list, why, what = round(context, records, args.revocation)
      if not list then return nil, why, what end
      context:say("%s", text.time(os.time()) .. "  " .. (why or "every assignment is as it should be"))
      require("core.host").sleep(INTERVAL)
    end
    return round(context, records, args.revocation)
  end,
}
