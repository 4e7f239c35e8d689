-- ca/init.lua: what an adapter is, and the check of it when one is loaded.
--
-- An adapter is one Lua file that speaks to one kind of CA:
--   summary   one line
--   submit(ca, order, context) -> { ticket =, issued = bool, advice = } |
--     nil, message, code ("rejected": the request is refused for good)
--   collect(ca, order, context) -> bytes of the certificate and what came with
--     it | nil, message, "pending" | "rejected" | ...; `poll` asks so, too
--   revoke(ca, certificate, reason, context) -> true | nil, message, code;
--     certificate is a core.cert, reason one of crl.REASONS; may be absent
--   by_hand  true: a person carries everything, and nothing is ever asked
-- `ca` is the CA's entry in the site's config.lua with its name; `order` has
-- id, request (a core.request), domains, ticket, friendly_name.

local M = {}

local CONTRACT = { summary = "string", submit = "function", collect = "function" }
local OPTIONAL = { revoke = "function", by_hand = "boolean" }

--- Loads the adapter of this name, the site's own first.
-- @return adapter | nil, message, "parse" | "missing"
function M.load(name)
  if not name:match "^%w[%w_-]*$" then
    return nil, ("'%s' is not a name of an adapter"):format(name), "parse"
  end
  local ok, adapter = pcall(require, "ca." .. name)
  if not ok then
    local text = tostring(adapter)
    if text:find("module 'ca." .. name .. "' not found", 1, true) then
      return nil, ("there is no adapter '%s'"):format(name), "missing"
    end
    return nil, text, "parse"
  end
  for field, kind in require("options").sorted(CONTRACT) do
    if type(adapter) ~= "table" or type(adapter[field]) ~= kind then
      return nil, ("adapter ca/%s.lua: '%s' must be a %s"):format(name, field, kind), "parse"
    end
  end
  for field, kind in require("options").sorted(OPTIONAL) do
    if adapter[field] ~= nil and type(adapter[field]) ~= kind then
      return nil, ("adapter ca/%s.lua: '%s' must be a %s, where it is given"):format(name, field, kind), "parse"
    end
  end
  return adapter
end

return M
