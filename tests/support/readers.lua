--- Every reader of what strangers send, as a function of bytes that returns the
-- code with which they were refused, or nothing: it reads, and where something
-- was read, asks it for all that it knows.  What a reader hands over must keep
-- its promises, or it raises.  The corpus (tests/corpus) and the fuzz targets
-- (tests/fuzz) share them.

local bundle = require "core.bundle"
local cert = require "core.cert"
local key = require "core.key"
local request = require "core.request"
local revocation = require "core.revocation"

local LIMIT = 1024 * 1024 -- bytes that a reader takes

local codes = {}
for code in ([[usage parse limit mismatch expired untrusted revoked exists missing denied io busy constraint pending
  refused rejected timeout unobserved unrestored unsupported]]):gmatch "%S+" do codes[code] = true end

-- Memory that ran out looks like a file that cannot be read.
local function no_memory(message)
  return message:find ": malloc failure$" or message:find ": not enough memory$"
end

-- The code with which it was refused, which must be as nil, message, code; or
-- nothing.
local function refused(value, message, code)
  if value ~= nil then return nil end
  assert(type(message) == "string" and utf8.len(message) and #message > 0, "a refusal without text in UTF-8")
  assert(codes[code], "a refusal with the code " .. tostring(code) .. ": " .. message)
  assert(not no_memory(message), message)
  return code
end

-- All text in a value is UTF-8.
local function check_text(value, name)
  if type(value) == "string" then
    if not utf8.len(value) then error(("%s is no UTF-8: %q"):format(name, value)) end
  elseif type(value) == "table" then
    for field, inner in pairs(value) do
      check_text(field, "a field's name")
      check_text(inner, field)
    end
  end
  return value
end

-- What is read again from what it writes is the same; a PEM text is longer
-- than its DER, and may be too long to be read.
local function read_again(read, one)
  local pem = one:pem()
  local again = { assert(read(one:der())), #pem <= LIMIT and assert(read(pem)) or nil }
  for _, other in ipairs(again) do
    assert(other:fingerprint() == one:fingerprint(), "not the same when it is read again")
  end
end

local M = {}

local function use_certificate(one)
  local fields = check_text(one:fields())
  read_again(function(bytes)
    local all = assert(cert.parse(bytes))
    return #all == 1 and all[1]
  end, one)
  assert(one:fingerprint() == fields.fingerprint and one:public_key() == fields.public_key)
  check_text(one:extensions())
  check_text(tostring(one))
  for i = 1, math.min(3, #fields.domains) do one:covers(fields.domains[i]) end
  assert(not one:covers "")
  one:covers "mail.contoso.com"
end

local function use_certificates(all, bytes)
  for _, one in ipairs(all) do use_certificate(one) end
  refused(cert.chain(all))
  for _, question in ipairs {
    { chain = all, anchors = {} }, { chain = all, anchors = { all[#all] }, strict = false },
    { chain = all, anchors = { all[1] }, name = "mail.contoso.com", purpose = "server", strict = true },
    { chain = all, anchors = all, crls = bytes, at = 1700000000 },
  } do
    refused(cert.verify(question))
  end
end

--- Certificates, one in DER or a pile in PEM.
function M.certificate(bytes)
  local all, message, code = cert.parse(bytes)
  if all then use_certificates(all, bytes) end
  return refused(all, message, code)
end

--- Requests.
function M.request(bytes)
  local one <close>, message, code = request.parse(bytes)
  if not one then return refused(one, message, code) end
  check_text(one:fields())
  check_text(tostring(one))
  read_again(request.parse, one)
  refused(one:verify())
end

local function read_key(bytes, password)
  local one <close>, message, code = key.load(bytes, password)
  if not one then return refused(one, message, code) end
  check_text { one:type(), one:public(), one:fingerprint(), tostring(one) }
  assert(one:bits() >= 0)
  if #bytes < 4096 then refused(one:sign "data") end -- with giant numbers in it that takes seconds
end

--- Private keys, without a password.
function M.key(bytes) return read_key(bytes) end

--- Private keys, with a password: what is encrypted is decrypted.
function M.sealed_key(bytes) return read_key(bytes, "password") end

--- The certificates in PKCS #7.
function M.pkcs7(bytes)
  local all, message, code = bundle.pkcs7(bytes)
  if not all then return refused(all, message, code) end
  assert(#all > 0 and #all <= 100)
  use_certificates(all, "")
  assert(#bundle.pkcs7(bundle.write_pkcs7(all)) == #all, "not the same when it is read again")
end

-- What was in a PKCS #12: its key is where there was one.
local function use_bundle(what)
  check_text { what.friendly_name or "" }
  assert(#what.certificates <= 100)
  for _, one in ipairs(what.certificates) do use_certificate(one) end
  if what.key then
    check_text { what.key:type(), what.key:fingerprint(), tostring(what.key) }
    what.key:close()
  end
end

--- PKCS #12, with the password that its maker had, and with none.
function M.pkcs12(bytes)
  local code
  for _, password in ipairs { "password", false } do
    local what, message, why = bundle.pkcs12(bytes, password or nil)
    if what then use_bundle(what) else code = refused(what, message, why) end
    if what then return end
  end
  return code
end

local issuer, subject

--- What a CA publishes: revocation lists and OCSP responses.
function M.revocation(bytes)
  if not issuer then
    local signer = key.generate "ec:P-256"
    local function issue(name, ca, by)
      return assert(cert.issue { key = signer, public = signer, subject = { CN = name }, ca = ca, issuer = by, not_before = 0,
        not_after = 2000000000 })
    end
    issuer = issue("Contoso CA", true)
    subject = issue("mail.contoso.com", false, issuer)
  end
  local code = refused(revocation.list(bytes, subject, issuer))
  return code and code ~= "parse" and code or refused(revocation.response(bytes, subject, issuer))
end

--- What an e-mail has attached: each part is a box that a reader takes.
function M.parts(bytes)
  local parts, message, code = bundle.parts(bytes)
  if not parts then return refused(parts, message, code) end
  assert(#parts <= 100)
  for _, part in ipairs(parts) do
    assert(type(part) == "userdata" and bundle.kinds(part))
    refused(cert.parse(part))
    refused(bundle.pkcs7(part))
  end
  return #parts == 0 and "parse" or nil
end

--- An archive: all that its list says is there is taken out, or refused.
function M.zip(bytes)
  local zip = require "core.zip"
  local entries, message, code = zip.entries(bytes)
  if not entries then return refused(entries, message, code) end
  assert(#check_text(entries) <= 100)
  local first
  for _, entry in ipairs(entries) do
    if entry.size <= LIMIT then
      local data <close>, why, what = zip.extract(bytes, entry)
      if data then assert(type(data) == "userdata" and bundle.kinds(data)) end
      first = first or refused(data, why, what)
    end
  end
  return first
end

--- A file with everything in it: each reader takes what is its own.
function M.pile(bytes)
  M.certificate(bytes)
  M.request(bytes)
  M.key(bytes)
  M.pkcs7(bytes)
  M.revocation(bytes)
  M.parts(bytes)
end

return M
