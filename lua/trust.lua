-- trust.lua: which anchors this server trusts, and why a chain is not trusted.

local cert = require "core.cert"
local file = require "core.file"

local M = {}

-- The site's anchors and the local CA's root; a file that cannot be read is a
-- clear error, for it was named on purpose.
local function site_anchors(context, site)
  local anchors = {}
  for _, path in ipairs(site.config.anchors) do
    local bytes, message, code = file.read(path)
    local list
    if bytes then
      list, message, code = cert.parse(bytes)
      if not list then message = ("'%s': %s"):format(path, message) end
    end
    if not list then return nil, ("'%s': 'anchors': %s"):format(site.path, message), code end
    table.move(list, 1, #list, #anchors + 1, anchors)
  end
  local root = require("ca.local").root(context)
  if root then anchors[#anchors + 1] = root end
  return anchors
end

--- Why a chain leads to no known anchor.
-- The site's anchors and the local root are tried first, then the system's.
-- Judged as clients do for a server's certificate, but leniently: what real
-- CAs send passes.
-- @param chain array of core.cert, leaf first
-- @return false when it is trusted, else the reason | nil, message, code
function M.reason(context, chain)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local anchors
  anchors, message, code = site_anchors(context, site)
  if not anchors then return nil, message, code end
  local options = { chain = chain, purpose = "any", strict = false, at = chain[1]:fields().not_before }
  if #anchors > 0 then
    options.anchors = anchors
    if cert.verify(options) then return false end
  end
  options.anchors = "system"
  local ok, why = cert.verify(options)
  return not ok and why or false
end

--- Certificates of CAs that may complete a chain which came without them.
function M.help(context)
  local help = {}
  local site = context:site()
  local anchors = site and site_anchors(context, site) or {}
  table.move(anchors, 1, #anchors, 1, help)
  local bytes = file.read(context:path("ca", "issuing.pem"))
  local issuing = bytes and cert.parse(bytes)
  if issuing then help[#help + 1] = issuing[1] end
  return help
end

return M
