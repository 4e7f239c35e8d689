-- site.lua: the site folder: its values over the shipped ones, and its
-- services and CAs.  Missing or empty means the defaults.

local file = require "core.file"
local names = require "names"
local paths = require "paths"
local settings = require "settings"

local M = {}
M.__index = M

-- The site's values over the shipped ones; CAs are added to the shipped CAs.
local function merge(shipped, own)
  local config = {}
  for name, value in pairs(shipped) do config[name] = value end
  for name, value in pairs(own) do config[name] = value end
  config.cas = {}
  for name, entry in pairs(shipped.cas) do config.cas[name] = entry end
  for name, entry in pairs(own.cas or {}) do config.cas[name] = entry end
  return config
end

-- The default CA has to be one of those that there are.
local function check_ca(path, config)
  if config.ca == nil or config.cas[config.ca] then return true end
  return nil, ("'%s': 'ca' is '%s', which is none of 'cas'"):format(path, config.ca), "parse"
end

--- The site of a context: { config =, own = what its config.lua says, policy =,
-- dir =, path = of config.lua }.
-- @return site | nil, message, "parse" | "denied" | "io"
function M.load(context)
  local dir = context.site_dir
  local shipped, message, code = settings.read(context.home .. "/lua/defaults/config.lua")
  if not shipped then return nil, message, code end
  local path = dir .. "/config.lua"
  local own
  own, message, code = settings.read(path)
  if not own then return nil, message, code end
  local ok
  ok, message, code = settings.check(path, own)
  if not ok then return nil, message, code end
  local policy
  policy, message, code = require("policy").load(context.home, dir)
  if not policy then return nil, message, code end
  local config = merge(shipped, own)
  ok, message, code = check_ca(path, config)
  if not ok then return nil, message, code end
  return setmetatable({ dir = dir, path = path, own = own, config = config, policy = policy }, M)
end

-- Where a distribution keeps keys: Debian's folder, or Red Hat's.
local function default_dir(name)
  local base = file.stat("/etc/pki/tls", true) and not file.stat("/etc/ssl/private", true)
    and "/etc/pki/certwright" or "/etc/ssl/certwright"
  return base .. "/" .. name
end

-- A service's `names`, which have been checked, as they stand on certificates.
local function normalised(value)
  if type(value) == "string" then return names.check(value) end
  local plain = {}
  for key, name in pairs(value or {}) do plain[key] = normalised(name) end
  return plain
end

-- The names of a service as a list: its `names` values, strings or lists.
local function names_of(entry)
  local list, seen = {}, {}
  local function add(name)
    if not seen[name] then list[#list + 1] = name end
    seen[name] = true
  end
  for _, value in require("options").sorted(entry.names or {}) do
    for _, name in ipairs(type(value) == "table" and value or { value }) do add(name) end
  end
  return list
end

-- The mode of a key's files: octal digits as chmod has them, or a number, which
-- Lua cannot write in octal; at most 0640.
local function mode_of(path, name, value)
  local mode = math.tointeger(type(value) == "number" and value or value:match "^[0-7]+$" and tonumber(value, 8))
  if not mode or mode & ~416 ~= 0 then -- 0640
    return nil, ("'%s': 'services.%s.mode' must be octal digits in quotes, at most \"0640\", not %s"):format(path, name,
      tostring(value)), "parse"
  end
  return mode
end

--- A service of the site, complete: its driver loaded, its folder known.
-- @return service | nil, message, "usage" | "parse" | ...
function M:service(name)
  local entry = self.config.services[name]
  if not entry then
    local known = {}
    for other in require("options").sorted(self.config.services) do known[#known + 1] = other end
    return nil, ("there is no service '%s' in '%s'%s"):format(name, self.path,
      #known > 0 and "; there are: " .. table.concat(known, ", ") or ", which names none"), "usage"
  end
  local driver, message, code = require("service").load(entry.driver)
  if not driver then return nil, ("'%s': 'services.%s.driver': %s"):format(self.path, name, message), code end
  local ok
  ok, message, code = settings.check_service(self.path, name, entry, driver.fields)
  if not ok then return nil, message, code end
  local service = { name = name, observe_timeout = 30 }
  for field, value in pairs(entry) do service[field] = value end
  service.names = normalised(entry.names)
  service.dir = paths.clean(service.dir or default_dir(name))
  if entry.mode then
    service.mode, message, code = mode_of(self.path, name, entry.mode)
    if not service.mode then return nil, message, code end
  end
  service.domain_names = names_of(service)
  service.how = driver
  return service
end

--- The services of a list of names, in that order; those that share a `dir`
-- with one of them come along, since they are one unit.
-- @return array of services | nil, message, code
function M:services(wanted)
  local list, seen, dirs = {}, {}, {}
  local function add(name)
    if seen[name] then return true end
    local service, message, code = self:service(name)
    if not service then return nil, message, code end
    seen[name], dirs[service.dir] = true, true
    list[#list + 1] = service
    return true
  end
  for _, name in ipairs(wanted) do
    local ok, message, code = add(name)
    if not ok then return nil, message, code end
  end
  for name, entry in require("options").sorted(self.config.services) do
    if dirs[paths.clean(entry.dir or default_dir(name))] then
      local ok, message, code = add(name)
      if not ok then return nil, message, code end
    end
  end
  return list
end

--- The entry of a CA, with its adapter loaded.
-- @return { name =, adapter = string, how = adapter, ... } | nil, message, code
function M:ca(name)
  local entry = self.config.cas[name]
  if not entry then
    local known = {}
    for other in require("options").sorted(self.config.cas) do known[#known + 1] = other end
    return nil, ("there is no CA '%s' in '%s'; there are: %s"):format(name, self.path, table.concat(known, ", ")),
      "usage"
  end
  local adapter, message, code = require("ca").load(entry.adapter)
  if not adapter then return nil, ("'%s': 'cas.%s.adapter': %s"):format(self.path, name, message), code end
  local ca = { name = name }
  for field, value in pairs(entry) do ca[field] = value end
  ca.how = adapter
  return ca
end

return M
