-- submission.lua: a request and its CA: handing it over, and asking for the
-- certificate.

local certificates = require "certificates"
local file = require "core.file"
local flow = require "flow"
local invocation = require "invocation"
local request = require "core.request"
local text = require "text"

local M = {}

--- The states from which a request may be submitted; one that was submitted
-- may be submitted again, to the same CA, if that is meant, or another.
M.from = { "created", "submitted", "rejected" }

-- What an adapter is told of a request.
local function order_of(context, row)
  local bytes, message, code = file.read(context:path("requests", row.id .. ".csr"))
  if not bytes then return nil, message, code end
  local parsed
  parsed, message, code = request.parse(bytes)
  if not parsed then return nil, message, code end
  return {
    id = row.id, request = parsed, domains = row.domains, ticket = row.ticket, friendly_name = row.friendly_name,
  }
end

local function prepare(context, row, name)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local ca
  ca, message, code = site:ca(name)
  if not ca then return nil, message, code end
  local order
  order, message, code = order_of(context, row)
  if not order then return nil, message, code end
  return ca, order
end

local function submit(context, row, name)
  local ca, order, code = prepare(context, row, name)
  if not ca then return nil, order, code end
  if context.dry_run then
    context:say("would submit request %d to the CA '%s' (%s), which %s", row.id, name, ca.how.summary,
      name == row.ca and "was chosen when the request was made" or "--ca names")
    return { dry_run = true }
  end
  local answer, message
  answer, message, code = ca.how.submit(ca, order, context)
  if not answer then
    if code == "rejected" then
      flow.advance(context, row.id, M.from, "rejected", { ca = name }, { detail = message })
    end
    return nil, message, code
  end
  local ok
  ok, message, code = flow.advance(context, row.id, M.from, "submitted",
    { ca = name, ticket = answer.ticket or certificates.NULL },
    { detail = answer.ticket and ("to %s, ticket %s"):format(name, answer.ticket) or "to " .. name })
  if not ok then return nil, message, code end
  return { issued = answer.issued, ticket = answer.ticket, advice = answer.advice, ca = name }
end

--- Whether a person carries requests to the CA of an object: it is never asked.
function M.by_hand(context, row)
  local site = context:site()
  local ca = site and row.ca and site:ca(row.ca)
  return ca and ca.how.by_hand or false
end

-- A request that a CA has must not be ordered, and paid for, again by mistake.
-- To name another CA is to say so.
local function agree(context, row, name)
  if row.state ~= "submitted" or context.in_workflow or name and name ~= row.ca then return true end
  if M.by_hand(context, row) then return true end
  local question = ("request %d is with the CA '%s' already%s; submitting it again orders another certificate"):format(
    row.id, text.escape(row.ca), row.ticket and (" (ticket %s)"):format(text.escape(row.ticket)) or "")
  return context:agree(question, "ask for the answer with: " .. invocation.suggest("complete-request %d", row.id))
end

-- Whether a request may be submitted as it is now.
local function admit(context, row, name)
  if row.state == "completed" then
    return nil, ("%d is completed already; renew it with: %s"):format(row.id,
      invocation.suggest("renew %d", row.id)), "exists"
  elseif not flow.holds(M.from, row.state) then
    return nil, ("cannot submit %d: it was %s"):format(row.id, row.state), "mismatch"
  end
  return agree(context, row, name)
end

--- Hands a request to a CA and records that.
-- @param name the CA's, or nil: the one its draft chose
-- @return { issued = bool, ticket =, advice =, ca = } | nil, message, code
function M.submit(context, row, name)
  local ok, message, code = admit(context, row, name)
  if not ok then return nil, message, code end
  return flow.locked(context, row.id, function()
    local current, why, what = certificates.get(context.db, row.id)
    local is_admitted = current
    if current and current.state ~= row.state then -- another command had it meanwhile
      is_admitted, why, what = admit(context, current, name)
    end
    if not is_admitted then return nil, why, what end
    return submit(context, current, name or current.ca)
  end)
end

--- Asks the CA of a submitted request for its certificate.
-- @return bytes | nil, message, "pending" | "rejected" | "usage" | ...
function M.collect(context, row)
  local ca, order, code = prepare(context, row, row.ca)
  if not ca then return nil, order, code end
  local bytes, message
  bytes, message, code = ca.how.collect(ca, order, context)
  if not bytes and code == "rejected" and not context.dry_run then
    flow.advance(context, row.id, M.from, "rejected", {}, { detail = text.escape(message) })
  end
  return bytes, message, code
end

return M
