-- sni.lua: the certificates of a generation that stand beside its default one,
-- for the clients that ask for their names (SNI: RFC 6066, section 3).
--
-- A generation holds each as sni-N.pem, key first, the newest being 1; whoever
-- has a name first keeps it.  Which file is for which name, the service's driver
-- writes.  So a generation says all of itself, and the next is made of it.

local cert = require "core.cert"
local file = require "core.file"
local key = require "core.key"
local names = require "names"

local M = {}

-- A chain and its key out of files.
local function pair(chain_path, key_path)
  local chain, message, code = cert.open(chain_path)
  if not chain then return nil, message, code end
  local secret
  secret, message, code = key.open(key_path)
  if not secret then return nil, message, code end
  return { chain = chain, key = secret, fields = chain[1]:fields(), fingerprint = chain[1]:fingerprint() }
end

local function path_of(folder, number)
  return ("%s/sni-%d.pem"):format(folder, number)
end

--- The default certificate of a generation: { chain, key, fields, fingerprint }.
-- @return it | nil, message, code
function M.default(folder)
  return pair(folder .. "/fullchain.pem", folder .. "/privkey.pem")
end

--- The certificates beside it, the newest first.
-- @return array of { chain, key, fields, fingerprint } | nil, message, code
function M.read(folder)
  local list = {}
  while file.stat(path_of(folder, #list + 1)) do
    local path = path_of(folder, #list + 1)
    local entry, message, code = pair(path, path)
    if not entry then return nil, message, code end
    list[#list + 1] = entry
  end
  return list
end

--- Whether a generation holds a certificate beside its default one.
function M.holds(folder, fingerprint)
  local number = 1
  while file.stat(path_of(folder, number)) do
    local list = cert.open(path_of(folder, number))
    if list and list[1]:fingerprint() == fingerprint then return true end
    number = number + 1
  end
  return false
end

--- The names of a certificate that a client can ask for: no address, and none
-- that is no DNS name at all.
function M.names(entry)
  local list = {}
  for _, name in ipairs(entry.fields.domains) do
    local plain = names.check(name)
    if plain and not names.is_address(plain) then list[#list + 1] = plain end
  end
  return list
end

--- The one of a list that a client gets that asks for a name; nil: the default.
function M.holder(list, name)
  for _, entry in ipairs(list) do
    if entry.chain[1]:covers(name) then return entry end
  end
end

-- Whether a list, or an entry of it by the same wildcard, has a name already.
local function has(list, name)
  if not name:find("*", 1, true) then return M.holder(list, name) ~= nil end
  for _, entry in ipairs(list) do
    for _, other in ipairs(M.names(entry)) do
      if other == name then return true end
    end
  end
  return false
end

--- A list without some certificates.
-- @param gone set of fingerprints
function M.without(list, gone)
  local kept = {}
  for _, entry in ipairs(list) do
    if not gone[entry.fingerprint] then kept[#kept + 1] = entry end
  end
  return kept
end

--- A list with a new certificate before the others; those of which it takes
-- every name are left out.
function M.with(list, entry)
  local kept = { entry }
  for _, other in ipairs(list) do
    local keeps = false
    for _, name in ipairs(M.names(other)) do keeps = keeps or not has(kept, name) end
    if keeps then kept[#kept + 1] = other end
  end
  return kept
end

--- What a driver makes its table of: each certificate's path in the folder, and
-- its names.
function M.table(list, folder)
  local shown = {}
  for i, entry in ipairs(list) do shown[i] = { path = path_of(folder, i), names = M.names(entry) } end
  return shown
end

--- The name of the file of the number-th certificate.
function M.file(number)
  return path_of("", number):sub(2)
end

return M
