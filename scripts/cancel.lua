-- cancel: gives up a pending request; its key and request stay until `remove`.

local completion = require "completion"
local flow = require "flow"
local object = require "object"

return {
  summary = "cancel a pending request",
  role = "requester",
  options = { { "id", "the request: its id or friendly name", argument = "ID" } },
  notes = [[
Its key and its request are kept until certwright remove ID.]],
  text = object.text,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.id)
    if not row then return nil, message, code end
    if row.state == "cancelled" then return object.fields(context, row) end
    if not flow.holds(completion.from, row.state) then
      return nil, ("cannot cancel %d: it is %s, not pending"):format(row.id, row.state), "mismatch"
    end
    if context.dry_run then
      context:say("would cancel request %d", row.id)
      return object.fields(context, row)
    end
    local ok
    ok, message, code = flow.locked(context, row.id, function()
      return flow.advance(context, row.id, completion.from, "cancelled")
    end)
    if not ok then return nil, message, code end
    context:say("request %d is cancelled", row.id)
    return object.read(context, row.id)
  end,
}
