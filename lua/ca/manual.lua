-- ca/manual.lua: a CA that a person speaks to, by web form or e-mail.
--
-- A request stays pending until a file comes back; `complete-request --file`
-- brings it.

local M = {}

M.summary = "a person carries the request to the CA and brings back the certificate"
M.by_hand = true

function M.submit(ca, order, context)
  return {
    issued = false,
    advice = ("send %s to the CA '%s'; when its certificate has come:\n  certwright complete-request %d --file FILE")
      :format(context:path("requests", order.id .. ".csr"), ca.name, order.id),
  }
end

function M.collect(ca, order)
  return nil, ("the CA '%s' cannot be asked, for a person carries what it sends; give that with --file:\n"
    .. "  certwright complete-request %d --file FILE"):format(ca.name, order.id), "usage"
end

return M
