-- crl.lua: what the local CA has revoked, and its revocation list (RFC 5280,
-- section 5).
--
-- ca/revoked/ holds a file for each certificate, named by its serial number:
-- when it was revoked, and why.  Lists are made of them; each has a greater
-- number than the one before.

local cert = require "core.cert"
local file = require "core.file"
local flow = require "flow"
local key = require "core.key"
local lfs = require "lfs"

local M = {}

local DAY, CLOCK = 86400, 300 -- clocks differ by so many seconds

--- Why a CA revokes the certificate of a server (RFC 5280, section 5.3.1).
M.REASONS = {
  "unspecified", "keyCompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn",
}

--- A reason as it is written.
-- @return reason | nil, message
function M.reason(word)
  for _, name in ipairs(M.REASONS) do
    if name:lower() == word:lower() then return name end
  end
  return nil, ("there is no reason '%s'; there are: %s"):format(word, table.concat(M.REASONS, ", "))
end

local function path_of(context, ...)
  return context:path("ca", ...)
end

--- Records that the local CA has revoked a certificate; once more is the same.
-- @return true | nil, message, code
function M.revoke(context, serial, reason)
  return flow.locked(context, "ca", function()
    local path = path_of(context, "revoked", serial)
    if file.stat(path) then return true end
    local ok, message, code = file.mkdirs(path_of(context, "revoked"), 448) -- 0700
    if not ok then return nil, message, code end
    return file.write(path, ("%d %s\n"):format(os.time(), reason), { mode = 420 }) -- 0644
  end)
end

local function entries(context)
  local list, folder = {}, path_of(context, "revoked")
  if not file.stat(folder, true) then return list end
  for name in lfs.dir(folder) do
    if name:match "^%x+$" then
      local text, message, code = file.read(folder .. "/" .. name)
      if not text then return nil, message, code end
      local at, reason = text:match "^(%d+) (%a+)\n$"
      if not at then return nil, ("cannot read '%s/%s': no time and reason"):format(folder, name), "parse" end
      list[#list + 1] = { serial = name, at = math.tointeger(tonumber(at)), reason = reason }
    end
  end
  return list
end

-- The number of the next list, which is kept before the list is made: a number
-- is never used twice.
local function next_number(context)
  local path = path_of(context, "crl.number")
  local text, message, code = file.read(path)
  if not text and code ~= "missing" then return nil, message, code end
  local number = (math.tointeger(tonumber(text or "0")) or 0) + 1
  local ok
  ok, message, code = file.write(path, ("%d\n"):format(number), { mode = 420, exclusive = false })
  if not ok then return nil, message, code end
  return number
end

local function issue(context, days)
  local list, message, code = entries(context)
  if not list then return nil, message, code end
  local issuers
  issuers, message, code = cert.open(path_of(context, "issuing.pem"))
  if not issuers then return nil, message, code end
  local signer <close>, why, what = key.open(path_of(context, "issuing.key"))
  if not signer then return nil, why, what end
  local number
  number, message, code = next_number(context)
  if not number then return nil, message, code end
  local now = os.time()
  local pem, der
  pem, der, code = cert.issue_crl {
    key = signer, issuer = issuers[1], entries = list, number = number, this_update = now - CLOCK,
    next_update = now + days * DAY,
  }
  if not pem then return nil, der, code end
  return { pem = pem, der = der, number = number, count = #list, this_update = now - CLOCK,
    next_update = now + days * DAY }
end

--- Makes the local CA's revocation list.
-- @param days until the next one, at the latest
-- @return { pem, der, number, count, this_update, next_update } | nil, message, code
function M.issue(context, days)
  return flow.locked(context, "ca", function() return issue(context, days) end)
end

return M
