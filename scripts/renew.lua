-- renew: a new certificate with the same names and settings, from the same CA,
-- on every service where the old one stands; without CERT: for all that are due.

local flow = require "flow"
local object = require "object"
local outcome = require "outcome"
local renewal = require "renewal"

-- One certificate, for whoever names it.
local function renew_one(args, context, steps)
  local row, message, code = object.find(context.db, args.cert)
  if not row then return nil, message, code end
  local result
  result, message, code = renewal.one(context, steps, row, args)
  if not result then return nil, message, code end
  if result.code and result.code ~= "pending" then return nil, result.message, result.code end
  return result.fields, result.message, result.code
end

local function renew_due(context, steps)
  local list, message, code = renewal.all(context, steps)
  if not list then return nil, message, code end
  if #list == 0 then context:say("nothing is due: %s", renewal.next(context.db)) end
  return outcome.fields(list), outcome.worst(list)
end

return {
  summary = "renew a certificate, or all that are due",
  role = "operator",
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint; without it, what is due",
      argument = "CERT", optional = true },
    { "--reuse-key", "with CERT: keep its key" },
  },
  notes = [[
Each folder of certificates is assigned for itself.  A renewal that waits for
its CA (exit status 3) or failed is gone on with; nothing is requested twice.
For cron, once a day or more often:
   23 * * * *  root  certwright renew --quiet]],
  text = object.summary,

  run = function(args, context)
    if args.reuse_key and not args.cert then return nil, "--reuse-key needs CERT", "usage" end
    local db, message, code = context:write { unrecorded = args.cert == nil }
    if not db then return nil, message, code end
    context.in_workflow = true
    local steps
    steps, message, code = flow.steps(context)
    if not steps then return nil, message, code end
    return renewal.alone(context, function()
      if args.cert then return renew_one(args, context, steps) end
      return renew_due(context, steps)
    end)
  end,
}
