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

--- What cert.verify says, up to the names, where a chain ends in no anchor; any
-- other refusal is about the chain itself.
M.NO_ANCHOR = "^no trusted issuer "

-- Whose anchor a path ends in.
local function kind_of(context, path, is_own)
  local anchor = path[#path]
  if #path == 1 and anchor:fields().self_issued then return "self-signed" end
  local root = require("ca.local").root(context)
  if root and root == anchor then return "local CA" end
  return is_own and "site" or "system"
end

--- The way from a chain to its anchor: the site's anchors and the local CA's root
-- are tried first, then the system's.
-- Judged as clients do for a server's certificate, but leniently: what real
-- CAs send passes.
-- @param chain array of core.cert, leaf first
-- @return path (array of core.cert, leaf first, anchor last), the anchor's kind
--   ("system", "site", "local CA", "self-signed") | false, why it is not trusted
--   | nil, message, code
function M.path(context, chain)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local anchors
  anchors, message, code = site_anchors(context, site)
  if not anchors then return nil, message, code end
  local fields = chain[1]:fields() -- its own dates are judged elsewhere
  local at = math.max(fields.not_before, math.min(os.time(), fields.not_after))
  local options = { chain = chain, purpose = "any", strict = false, at = at }
  local ok, path, why
  if #anchors > 0 then
    options.anchors = anchors
    ok, path = cert.verify(options)
    if ok then return path, kind_of(context, path, true) end
    if not path:find(M.NO_ANCHOR) then why = path end
  end
  options.anchors = "system"
  ok, path = cert.verify(options)
  if ok then return path, kind_of(context, path, false) end
  return false, why or path
end

--- Why a chain leads to no known anchor, or is not in order; see path.
-- @return false when it is trusted, else the reason | nil, message, code
function M.reason(context, chain)
  local path, why, code = M.path(context, chain)
  if path == nil then return nil, why, code end
  return not path and why
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
