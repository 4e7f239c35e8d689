-- submit-request: hands a request to its CA (article: "Submit the request to
-- certificate authority").

local ca = require "submission"
local object = require "object"

return {
  summary = "submit a request to a certificate authority",
  role = "requester",
  from = ca.from,
  to = "submitted",
  options = {
    { "id", "the request: its id or friendly name", argument = "ID" },
    { "--ca", "the CA, as config.lua names it; without it, the one that `show` names", argument = "NAME" },
  },
  notes = [[
Exit status 3: the CA has not issued the certificate yet.]],
  text = object.text,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.id)
    if not row then return nil, message, code end
    local answer
    answer, message, code = ca.submit(context, row, args.ca)
    if not answer then return nil, message, code end
    local result
    result, message, code = object.read(context, row.id)
    if not result then return nil, message, code end
    if answer.dry_run then return result end
    if not answer.issued then return result, answer.advice or "the CA has not issued it yet", "pending" end
    context:say("request %d: the CA '%s' has issued it (ticket %s)", row.id, answer.ca, answer.ticket)
    context:next("complete-request %d", row.id)
    return result
  end,
}
