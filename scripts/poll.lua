-- poll: asks every CA that owes an answer, and goes on with what was wished: the
-- certificate is completed, and assigned where it was to be.

local flow = require "flow"
local object = require "object"
local outcome = require "outcome"
local renewal = require "renewal"

return {
  summary = "ask CAs for what they owe, and go on",
  role = "operator",
  options = {},
  notes = [[
What failed on a service is tried again, too: after a minute, then after twice
as long each time, a day at most.  Exit status 3: a CA has not issued yet.
For cron:
   */10 * * * *  root  certwright poll --quiet]],
  text = object.summary,

  run = function(_, context)
    local db, message, code = context:write { unrecorded = true }
    if not db then return nil, message, code end
    context.in_workflow = true
    local steps
    steps, message, code = flow.steps(context)
    if not steps then return nil, message, code end
    local list
    list, message, code = renewal.poll(context, steps)
    if not list then return nil, message, code end
    if #list == 0 then context:say("no CA owes an answer, and nothing is to be tried again now") end
    return outcome.fields(list), outcome.worst(list)
  end,
}
