-- ca/local.lua: the embedded CA: a root and an issuing CA in the state folder,
-- keys 0600, for a site's own services and for tests.
--
-- It issues server certificates only: what a request asks for beyond its
-- subject and names is not granted.

local cert = require "core.cert"
local file = require "core.file"
local invocation = require "invocation"
local key = require "core.key"
local lfs = require "lfs"
local names = require "names"

local M = {}

M.summary = "the CA in the state folder, made by certwright ca init"

local DAY = 86400
local ROOT_DAYS, ISSUING_DAYS = 3650, 1825
local LEAF_DAYS = 90

local function paths(context)
  local folder = context:path "ca"
  return {
    folder = folder, issued = folder .. "/issued",
    root = folder .. "/root.pem", root_key = folder .. "/root.key",
    issuing = folder .. "/issuing.pem", issuing_key = folder .. "/issuing.key",
  }
end

--- Whether a local CA has been made.
function M.exists(context)
  return file.stat(paths(context).issuing, true) ~= nil
end

local function read_certificate(path)
  local bytes, message, code = file.read(path)
  if not bytes then return nil, message, code end
  local list
  list, message, code = cert.parse(bytes)
  if not list then return nil, ("cannot read '%s': %s"):format(path, message), code end
  return list[1]
end

--- The root certificate.
-- @return core.cert | nil, message, "missing" | ...
function M.root(context)
  if not M.exists(context) then
    return nil, "there is no local CA here; make one with: " .. invocation.suggest "ca init", "missing"
  end
  return read_certificate(paths(context).root)
end

-- The order is the reverse of what a reader needs: issuing.pem comes last, so
-- that a CA that was cut short while being made does not exist.
local function write_authority(at, root, root_key, issuing, issuing_key)
  local ok, message, code = root_key:save(at.root_key)
  if ok then ok, message, code = issuing_key:save(at.issuing_key) end
  if ok then ok, message, code = file.write(at.root, root:pem(), { mode = 420 }) end -- 0644
  if ok then ok, message, code = file.write(at.issuing, issuing:pem(), { mode = 420 }) end
  return ok, message, code
end

--- The common name of the "root" or "issuing" CA of an organization.
function M.common_name(subject, kind)
  return ("%s certwright %s CA"):format(subject.O or "Local", kind)
end

local function make_certificates(subject, root_key, issuing_key)
  local now = os.time() - 300 -- clocks differ
  local function name(kind)
    local list = {}
    for attribute, value in pairs(subject) do list[attribute] = value end
    list.OU = nil
    list.CN = M.common_name(subject, kind)
    return list
  end
  local root, message, code = cert.issue {
    key = root_key, public = root_key, subject = name "root", ca = true,
    key_usage = { "keyCertSign", "cRLSign" }, not_before = now, not_after = now + ROOT_DAYS * DAY,
  }
  if not root then return nil, message, code end
  local issuing
  issuing, message, code = cert.issue {
    key = root_key, issuer = root, public = issuing_key, subject = name "issuing", ca = true, path_length = 0,
    key_usage = { "keyCertSign", "cRLSign", "digitalSignature" }, not_before = now,
    not_after = now + ISSUING_DAYS * DAY,
  }
  if not issuing then return nil, message, code end
  return root, issuing
end

-- Whether a CA that has no certificate (any more) has issued one before: then it
-- was not cut short while it was made, and its keys are worth more than a new CA.
local function has_issued(at)
  if not file.stat(at.issued, true) then return false end
  for name in lfs.dir(at.issued) do
    if name:match "^%x" then return true end
  end
  return false
end

--- Makes the root and the issuing CA; a dry run only says whether it could.
-- @param subject organization attributes for both names
-- @return root core.cert | nil, message, "exists" | ...
function M.init(context, subject)
  local at = paths(context)
  if M.exists(context) then
    return nil, ("there is a local CA already, in '%s'"):format(at.folder), "exists"
  end
  if has_issued(at) then
    return nil, ("the local CA in '%s' has issued certificates, but '%s' is gone: put it back from a backup, or move "
      .. "the folder away"):format(at.folder, at.issuing), "exists"
  end
  if context.dry_run then return true end
  for _, leftover in ipairs { at.root, at.root_key, at.issuing_key } do file.remove(leftover) end
  local ok, message, code = file.mkdirs(at.folder, 448) -- 0700
  if ok then ok, message, code = file.mkdirs(at.issued, 448) end
  if not ok then return nil, message, code end
  local root_key <close> = assert(key.generate "ec:P-384")
  local issuing_key <close> = assert(key.generate "ec:P-256")
  local root, issuing, why
  root, issuing, why = make_certificates(subject, root_key, issuing_key)
  if not root then return nil, issuing, why end
  ok, message, code = write_authority(at, root, root_key, issuing, issuing_key)
  if not ok then return nil, message, code end
  return root
end

-- Where its revocation list is published: a URL or several.
local function places(urls)
  return type(urls) == "string" and { urls } or urls
end

local function issue(ca, order, at)
  local issuing, message, code = read_certificate(at.issuing)
  if not issuing then return nil, message, code end
  local signer <close>, why, what = key.open(at.issuing_key)
  if not signer then return nil, why, what end
  local wanted = order.request:fields()
  local now = os.time()
  local usage = { "digitalSignature" }
  if wanted.key:match "^rsa" then usage[2] = "keyEncipherment" end
  local not_after = math.min(now + (ca.days or LEAF_DAYS) * DAY, issuing:fields().not_after)
  return cert.issue {
    key = signer, issuer = issuing, request = order.request, not_before = now - 300, not_after = not_after,
    domains = order.domains, emails = {}, uris = {}, crls = places(ca.crl_url),
    key_usage = usage, extended_key_usage = { "serverAuth" }, ca = false,
  }
end

--- Issues at once, and keeps the certificate until it is collected.
function M.submit(ca, order, context)
  if not M.exists(context) then
    return nil, "there is no local CA here; make one with: " .. invocation.suggest "ca init", "missing"
  end
  local domains, why = names.list(order.request:fields().domains)
  if not domains then return nil, "the local CA refuses: " .. why, "rejected" end
  if #domains == 0 then return nil, "the local CA refuses: the request has no domain name", "rejected" end
  order.domains = domains
  local at = paths(context)
  local certificate, message, code = issue(ca, order, at)
  if not certificate then return nil, message, code end
  local serial = certificate:fields().serial
  local bytes
  bytes, message, code = file.read(at.issuing)
  if not bytes then return nil, message, code end
  local ok
  ok, message, code = file.write(("%s/%s.pem"):format(at.issued, serial), certificate:pem() .. bytes, { mode = 420 })
  if not ok then return nil, message, code end
  return { ticket = serial, issued = true }
end

--- Puts a certificate that it has issued on its revocation list.
function M.revoke(_, certificate, reason, context)
  local serial = certificate:fields().serial
  local issued, message, code = read_certificate(("%s/%s.pem"):format(paths(context).issued, serial))
  if not issued and code ~= "missing" then return nil, message, code end
  if issued ~= certificate then
    return nil, ("the local CA has not issued the certificate with the serial number %s"):format(serial), "missing"
  end
  return require("crl").revoke(context, serial, reason)
end

function M.collect(_, order, context)
  if not (order.ticket or ""):match "^%x+$" then
    return nil, "the local CA has issued nothing for this request; submit it first", "missing"
  end
  return file.read(("%s/%s.pem"):format(paths(context).issued, order.ticket))
end

return M
