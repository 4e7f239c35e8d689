-- ca/manual.lua: a CA that a person speaks to, by web form or e-mail.
--
-- A request stays pending until a file comes back; `complete-request --file`
-- brings it.

local invocation = require "invocation"

local M = {}

M.summary = "a person carries the request to the CA and brings back the certificate"
M.by_hand = true

local function completing(order)
  return invocation.suggest("complete-request %d --file FILE", order.id)
end

function M.submit(ca, order, context)
  return {
    issued = false,
    advice = ("send %s to the CA '%s'; when its certificate has come:\n  %s"):format(
      context:path("requests", order.id .. ".csr"), ca.name, completing(order)),
  }
end

function M.collect(ca, order)
  return nil, ("the CA '%s' cannot be asked, for a person carries what it sends; give that with --file:\n"
    .. "  %s"):format(ca.name, completing(order)), "usage"
end

return M
