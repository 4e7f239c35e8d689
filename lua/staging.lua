-- staging.lua: what is written for a service: the files of a generation, and
-- everything that is checked before a server is handed them.
--
-- Seven of twelve common servers lose TLS or exit when they are handed a bad
-- pair, with a clean exit status: so these checks are ours to make.

local cert = require "core.cert"
local file = require "core.file"
local generation = require "core.generation"
local host = require "core.host"
local key = require "core.key"
local names = require "names"
local probe = require "core.probe"
local process = require "core.process"
local sni = require "sni"
local text = require "text"

local M = {}

--- The generation of a service that had no certificate before it was adopted.
M.STAND_IN = "stand-in"

local FREE_BYTES, FREE_FILES = 1024 * 1024, 64 -- wanted on the disk before anything is written

--- The certificate, chain and key of an object, ready to be written.
-- @return { chain = array of core.cert, leaf first, key = core.key, fields =,
--   fingerprint =, wanted = { fingerprint, chain } } | nil, message, code
function M.material(context, row)
  if not row.certificate then
    return nil, ("%d has no certificate yet: it is %s"):format(row.id, row.state), "missing"
  elseif not row.has_private_key then
    return nil, ("%d has no private key here"):format(row.id), "missing"
  end
  local chain, message, code = cert.parse(row.certificate .. (row.chain or ""))
  if not chain then return nil, message, code end
  local secret
  secret, message, code = key.open(context:path("keys", row.id .. ".pem"))
  if not secret then return nil, message, code end
  local prints = {}
  for i, certificate in ipairs(chain) do prints[i] = certificate:fingerprint() end
  return { chain = chain, key = secret, fields = chain[1]:fields(), fingerprint = prints[1],
    wanted = { fingerprint = prints[1], chain = prints } }
end

-- Each issuer certifies the one before it.
local function check_chain(chain)
  local built, message, code = cert.chain(chain, chain[1])
  if not built then return nil, message, code end
  for i = 1, #chain do
    if built[i] ~= chain[i] then
      return nil, ("the chain is out of order or does not belong together: certificate %d of %d did not issue the one "
        .. "before it"):format(i, #chain), "mismatch"
    end
  end
  return true
end

--- Checks a pair as no server does: key, order, dates, purpose, and a TLS
-- handshake in memory.
-- @return true | nil, message, "mismatch" | "expired" | ...
function M.check_pair(material, name)
  local fields, now = material.fields, os.time()
  local shown = text.label(fields)
  if not material.chain[1]:matches(material.key) then
    return nil, ("the key does not belong to the certificate '%s'"):format(shown), "mismatch"
  elseif now > fields.not_after then
    return nil, ("the certificate '%s' expired on %s"):format(shown, text.time(fields.not_after)), "expired"
  elseif now < fields.not_before then
    return nil, ("the certificate '%s' is not valid before %s"):format(shown, text.time(fields.not_before)), "expired"
  elseif fields.ca then
    return nil, ("'%s' is the certificate of a CA, not of a server"):format(shown), "mismatch"
  end
  local purposes, serves = fields.extended_key_usage, false
  for _, purpose in ipairs(purposes) do
    serves = serves or purpose == "serverAuth" or purpose == "anyExtendedKeyUsage"
  end
  if #purposes > 0 and not serves then
    return nil, ("the certificate '%s' is not for servers: its extended key usage is %s"):format(shown,
      table.concat(purposes, ", ")), "mismatch"
  end
  local ok, message, code = check_chain(material.chain)
  if not ok then return nil, message, code end
  return probe.rehearse { chain = material.chain, key = material.key, name = name }
end

--- Which of a service's names the certificate covers, and which not.  None of
-- them: refused.
-- @return the covered names that clients ask for by SNI: no wildcard and no
--   address; the missing ones | nil, message, "mismatch"
function M.names(material, service)
  local asked, missing, count = {}, {}, 0
  for _, name in ipairs(service.domain_names) do
    local plain = name:lower():gsub("%.$", "")
    if not material.chain[1]:covers(plain) then
      missing[#missing + 1] = plain
    else
      count = count + 1
      if not plain:find("*", 1, true) and not names.is_address(plain) then asked[#asked + 1] = plain end
    end
  end
  if count == 0 and #missing > 0 then
    return nil, ("the certificate covers none of the names of '%s': %s; it covers %s"):format(service.name,
      text.names(missing), text.names(material.fields.domains)), "mismatch"
  end
  return asked, missing
end

-- The nearest folder above path that exists.
local function existing(path)
  while not file.stat(path) and path ~= "/" do path = path:match "^(.+)/[^/]+$" or "/" end
  return path
end

-- Whether nobody else could put another folder, or other files, in the place of
-- one that keys are to be in; in a sticky one they could, where it is empty.
local function guard(dir)
  local ok, message, code = file.guard(dir, "write keys below")
  if not ok then return nil, message, code end
  local status = file.stat(dir, true)
  if status.mode & 18 ~= 0 then -- 0022
    return nil, ("refused to write keys below '%s': owner %d, mode %04o: others could write there; to mend it: "
      .. "chmod 755 '%s'"):format(dir, status.owner, status.mode, dir), "denied"
  end
  return true
end

--- Checks that a unit's folder can be written, and trusted.
-- @return true | nil, message, "denied" | "io" | "exists"
function M.check_folder(dir)
  local base = existing(dir)
  local ok, why, what = file.guard(base, "write keys below")
  if ok and base == dir then ok, why, what = guard(dir) end
  if not ok then return nil, why, what end
  if file.stat(base, true).kind ~= "folder" then return nil, ("'%s' is not a folder"):format(base), "exists" end
  local room, message, code = file.filesystem(base)
  if not room then return nil, message, code end
  if room.free < FREE_BYTES or (room.inodes and room.inodes >= 0 and room.inodes < FREE_FILES and room.inodes ~= 0) then
    return nil, ("cannot write below '%s': the disk is full (%d bytes free, %d wanted)"):format(dir, room.free,
      FREE_BYTES), "io"
  end
  return true
end

-- What the services of a unit say of one field of its key files: one value, or
-- none.
local function agreed(unit, field)
  local first
  for _, service in ipairs(unit.services) do
    if service[field] ~= nil and not first then
      first = service
    elseif service[field] ~= nil and service[field] ~= first[field] then
      return nil, ("'%s' and '%s' share '%s', but their '%s' is not the same: %s, %s"):format(first.name, service.name,
        unit.dir, field, first[field], service[field]), "usage"
    end
  end
  return first or {}
end

-- Owner, group and mode of the key files, as the site gives them.
local function rights(unit)
  local access = {}
  local by, message, code = agreed(unit, "owner")
  if not by then return nil, message, code end
  if by.owner then
    access.owner, message, code = host.lookup(by.owner)
    if not access.owner then return nil, ("service '%s': owner: %s"):format(by.name, message), code end
    access.owner = access.owner.uid
  end
  by, message, code = agreed(unit, "group")
  if not by then return nil, message, code end
  if by.group then
    access.group, message, code = host.group(by.group)
    if not access.group then return nil, ("service '%s': group: %s"):format(by.name, message), code end
    access.group = access.group.gid
  end
  by, message, code = agreed(unit, "mode")
  if not by then return nil, message, code end
  access.mode = by.mode or (access.group and 416 or 384) -- 0640, 0600
  return access
end

local function pems(chain, first)
  local list = {}
  for i = first, #chain do list[#list + 1] = chain[i]:pem() end
  return table.concat(list)
end

-- The files of a generation, for generation.write.
local function files_of(unit, material, folder)
  local access, message, code = rights(unit)
  if not access then return nil, message, code end
  local function secret(certificates, key_of)
    return { mode = access.mode, owner = access.owner, group = access.group, key_of or material.key, certificates }
  end
  local full = pems(material.chain, 1)
  local files = {
    ["fullchain.pem"] = { full }, ["cert.pem"] = { material.chain[1]:pem() },
    ["chain.pem"] = { pems(material.chain, 2) }, ["privkey.pem"] = secret(), ["combined.pem"] = secret(full),
  }
  local beside = unit.beside or {}
  for i, entry in ipairs(beside) do files[sni.file(i)] = secret(pems(entry.chain, 1), entry.key) end
  for _, service in ipairs(unit.services) do
    local extra
    extra, message, code = service.how.files(service, folder, sni.table(beside, folder))
    if not extra then return nil, message, code end
    for name, content in pairs(extra) do files[name] = { content } end
  end
  return files
end

-- The groups of a process: its own, then the supplementary ones.
local function groups_of(pid, own)
  local list = { own }
  local status = file.read(("/proc/%d/status"):format(pid)) or ""
  for gid in (status:match "\nGroups:([^\n]*)" or ""):gmatch "%d+" do list[#list + 1] = tonumber(gid) end
  return list
end

-- Whether a user can read a file, in one of the groups.
local function can_read(path, uid, groups)
  for _, gid in ipairs(groups) do
    local result, message, code = process.run({ "test", "-r", path }, { uid = uid, gid = gid, timeout = 10 })
    if not result then return nil, message, code end
    if result.status == 0 then return true end
  end
  return false
end

-- Tries to read the files with the rights of the running service.
local function check_readable(unit, folder)
  for _, service in ipairs(unit.services) do
    local pid = service.how.pid(service)
    local running = pid and host.process(pid)
    if running and running.uid ~= (host.user()) then
      for _, name in ipairs { "fullchain.pem", "privkey.pem", "combined.pem" } do
        local can, message, code = can_read(folder .. "/" .. name, running.uid, groups_of(pid, running.gid))
        if can == nil then return nil, message, code end
        if not can then
          local user = host.lookup(running.uid)
          return nil, ("'%s' could not read %s/%s: it runs as %s; give its key an owner or group in the site's "
            .. "config.lua"):format(service.name, folder, name, user and user.name or "user " .. running.uid), "denied"
        end
      end
    end
  end
  return true
end

--- Writes a generation for a unit; nothing points at it yet.
-- @param unit { dir =, services =, new = name of the generation, beside = what it
--   holds beside its default certificate, as sni.lua reads it }
-- @param material of its default certificate
-- @return true | nil, message, code
function M.write(unit, material)
  local folder = unit.dir .. "/" .. unit.new
  local files, message, code = files_of(unit, material, folder)
  if not files then return nil, message, code end
  local ok
  ok, message, code = file.mkdirs(unit.dir, 493) -- 0755
  if ok then ok, message, code = guard(unit.dir) end -- it may be there since it was checked
  if ok then ok, message, code = generation.write(unit.dir, unit.new, files) end
  if ok and file.stat("/sys/fs/selinux/enforce", true) then
    ok, message, code = process.run { "restorecon", "-RF", folder }
  end
  if ok then ok, message, code = check_readable(unit, folder) end
  return ok and true, message, code
end

--- The fingerprint of the certificate in a folder of files, if there is one.
function M.written(folder)
  local list = cert.open(folder .. "/fullchain.pem") or cert.open(folder .. "/cert.pem")
  return list and list[1]:fingerprint()
end

return M
