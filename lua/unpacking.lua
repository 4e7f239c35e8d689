-- unpacking.lua: what a CA sent, in whatever wrapping, as one pile of
-- certificates and, where it is wanted, a key.
--
-- What a file is, its content says, never its name: PEM with text around it,
-- DER, PKCS #7, PKCS #12, a ZIP of them, an e-mail with these; UTF-16, marks of
-- quoting and base64 without armour are seen through by the readers in core.  Bytes
-- of a file stay in a box that Lua cannot look into, since a key may be among them.

local bundle = require "core.bundle"
local cert = require "core.cert"
local file = require("caller").file -- for files that the user names
local key = require "core.key"
local text = require "text"

local M = {}

local FILE_LIMIT = 16 * 1024 * 1024 -- bytes; what is neither bundle nor ZIP has 1 MiB
local CERTIFICATES_LIMIT = 100 -- in all files together

local SECONDS_LIMIT = 2 -- that all PKCS #12 may take to open

local add -- for a ZIP and an e-mail, whose parts are added as files are

local function add_certificates(pile, list)
  table.move(list, 1, #list, #pile.certificates + 1, pile.certificates)
  if #pile.certificates > CERTIFICATES_LIMIT then
    return nil, ("more than %d certificates"):format(CERTIFICATES_LIMIT), "limit"
  end
  return true
end

local function add_zip(pile, archive, options)
  local entries, message, code = require("zip").read(archive)
  if not entries then return nil, message, code end
  local before, is_nested = #pile.certificates, false
  for _, entry in ipairs(entries) do
    local kinds = bundle.kinds(entry.bytes)
    is_nested = is_nested or kinds and kinds.zip
    local is_wanted = kinds and (kinds.certificate or kinds.pkcs7 or kinds.pkcs12 or kinds.key and options.with_key)
    if is_wanted then
      local ok
      ok, message, code = add(pile, entry.bytes, options)
      if not ok then return nil, ("'%s' in the ZIP: %s"):format(text.escape(entry.name), message), code end
    end
  end
  if #pile.certificates == before then
    return nil, "no certificate in the ZIP" .. (is_nested and ", but another ZIP: unpack it first" or ""), "parse"
  end
  return true
end

-- What an e-mail has attached, or what stands as base64 without armour in a text.
local function add_parts(pile, bytes, options)
  local before = #pile.certificates
  local parts, message, code = bundle.parts(bytes)
  if not parts then return nil, message, code end
  for _, part in ipairs(parts) do
    local ok
    ok, message, code = add(pile, part, options)
    if not ok then return nil, message, code end
  end
  if #pile.certificates == before and not pile.has_request then return cert.parse(bytes) end -- which says none is there
  return true
end

local function add_pkcs12(pile, bytes, options)
  local held, message, code = bundle.pkcs12(bytes, options.password)
  if not held then
    if code == "denied" and not options.password then
      message = message .. "; give it with --password-file FILE"
    elseif code == "unsupported" then
      message = ("%s; convert it first with: openssl pkcs12 -legacy %s-in FILE -out FILE.pem"):format(message,
        options.with_key and "" or "-nokeys ") -- with the key, which it encrypts again
    end
    return nil, message, code
  end
  pile.seconds = pile.seconds + (held.seconds or 0)
  if pile.seconds > SECONDS_LIMIT then
    return nil, ("the iteration counts of all PKCS #12 would take over %d seconds"):format(SECONDS_LIMIT), "limit"
  end
  pile.key = pile.key or held.key
  pile.friendly_name = pile.friendly_name or held.friendly_name
  return add_certificates(pile, held.certificates)
end

local function add_key(pile, bytes, options)
  if not options.with_key or pile.key then return true end
  local found, message, code = key.load(bytes, options.password)
  if not found then
    if code == "denied" and not options.password then message = message .. "; give it with --password-file FILE" end
    return nil, message, code
  end
  pile.key = found
  return true
end

local READERS = {
  { "certificate", cert.parse }, { "pkcs7", bundle.pkcs7 },
}

function add(pile, bytes, options)
  local kinds, message, code = bundle.kinds(bytes)
  if not kinds then return nil, message, code end
  if kinds.zip then return add_zip(pile, kinds.zip, options) end
  if not next(kinds) then return add_parts(pile, bytes, options) end
  for _, reader in ipairs(READERS) do
    if kinds[reader[1]] then
      local list, ok
      list, message, code = reader[2](bytes)
      if not list then return nil, message, code end
      ok, message, code = add_certificates(pile, list)
      if not ok then return nil, message, code end
    end
  end
  pile.has_request = pile.has_request or kinds.request
  local ok = true
  if kinds.pkcs12 then ok, message, code = add_pkcs12(pile, bytes, options) end
  if ok and kinds.key then ok, message, code = add_key(pile, bytes, options) end
  if not ok then return nil, message, code end
  return true
end

--- An empty pile: { certificates = array, key =, friendly_name =, seconds = }.
function M.pile()
  return { certificates = {}, seconds = 0 }
end

--- Adds what bytes hold to a pile.
-- @param bytes string or core.secret; source its name, for messages
-- @param options { password = string or core.secret or nil, with_key = boolean }
-- @return pile | nil, message, "parse" | "denied" | "limit" | "unsupported"
function M.add(pile, bytes, source, options)
  local ok, message, code = add(pile, bytes, options or {})
  if not ok then return nil, ("'%s': %s"):format(source, message), code end
  return pile
end

--- All that files hold, in their order; "-" is standard input.
-- @return pile | nil, message, code
function M.files(paths, options)
  local pile = M.pile()
  for _, path in ipairs(paths) do
    local bytes <close>, message, code = file.secret(path, FILE_LIMIT)
    local ok = bytes
    if bytes then ok, message, code = M.add(pile, bytes, path, options) end
    if not ok then return nil, message, code end
  end
  if #pile.certificates == 0 then
    return nil, ("'%s': no certificate is there%s"):format(table.concat(paths, "', '"),
      pile.has_request and ", only a request" or ""), "parse"
  end
  return pile
end

--- The password in a file, when one is given: its first line.
-- @return core.secret or false | nil, message, code
function M.password(path)
  if not path then return false end
  return file.password(path)
end

return M
