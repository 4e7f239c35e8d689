-- settings.lua: what may stand in a site's config.lua: reads the file, and
-- checks its values before anybody uses them.

local load = require "core.load"
local names = require "names"
local options = require "options"

local M = {}

local FIELDS = {
  organization = "table", key = "string", ca = "string", cas = "table", anchors = "table",
  accepted_domains = "table", services = "table", self_signed_days = "number", roles = "table",
  proxy = "string", no_proxy = "table",
}

local SERVICE_FIELDS = {
  driver = "string", dir = "string", names = "table", endpoints = "table", owner = "string", group = "string",
  mode = "string or number", observe_timeout = "number", check = "table", reload = "table", restart = "table",
}

-- The empty environment of config.lua: it holds nothing, and says so when a
-- name stands where a text should, quotes forgotten.
local EMPTY = setmetatable({}, {
  __index = function(_, name)
    error(("'%s' is defined nowhere; a text stands in quotes"):format(tostring(name)), 2)
  end,
  __newindex = function(_, name)
    error(("'%s' is assigned outside the returned table"):format(tostring(name)), 2)
  end,
})

--- Reads a config.lua: values only, in an empty environment.
-- @return table, empty when there is no such file | nil, message, "parse" | "denied" | "io"
function M.read(path)
  local chunk, message, code = load.file(path, EMPTY)
  if not chunk then
    if code == "missing" then return {} end
    return nil, message, code
  end
  local ok, values = pcall(chunk)
  if not ok then
    return nil, ("'%s' may hold values only: %s"):format(path, tostring(values)), "parse"
  elseif type(values) ~= "table" then
    return nil, ("'%s' returns no table of values"):format(path), "parse"
  end
  return values
end

-- Every setting is one of fields, and of its type.
local function check_fields(path, prefix, values, fields)
  for name, value in pairs(values) do
    if not fields[name] then
      return nil, ("'%s': there is no setting '%s%s'"):format(path, prefix, tostring(name)), "parse"
    elseif not fields[name]:find(type(value), 1, true) then
      return nil, ("'%s': '%s%s' must be a %s, not a %s"):format(path, prefix, name, fields[name], type(value)), "parse"
    end
  end
  return true
end

-- The values of a list or table that must all be strings.
local function check_strings(path, setting, list)
  for key, value in pairs(list or {}) do
    if type(value) ~= "string" then
      local place = math.type(key) and "[" .. key .. "]" or "." .. tostring(key)
      return nil, ("'%s': '%s%s' must be a string, not a %s"):format(path, setting, place, type(value)), "parse"
    end
  end
  return true
end

-- A command: a list of words without NUL, the first of them a program.
local function check_command(path, setting, list)
  local ok, message, code = check_strings(path, setting, list)
  if not ok or not list then return ok, message, code end
  local count = 0
  for _, word in pairs(list) do count = word:find("\0", 1, true) and math.huge or count + 1 end
  if count ~= #list or (list[1] or "") == "" then
    return nil, ("'%s': '%s' must be a list of words, the first of them a program"):format(path, setting), "parse"
  end
  return true
end

local function check_names(path, setting, list)
  local ok, message, code = check_strings(path, setting, list)
  if not ok then return nil, message, code end
  for _, name in pairs(list or {}) do
    ok, message = names.check(name)
    if not ok then return nil, ("'%s': '%s': %s"):format(path, setting, message), "parse" end
  end
  return true
end

-- The Unix groups of each role: a name, or a list of names.
local function check_roles(path, roles)
  local known = {}
  for _, role in ipairs(require("scripts").roles) do known[role] = "string or table" end
  local ok, message, code = check_fields(path, "roles.", roles, known)
  if not ok then return nil, message, code end
  for role, names_ in options.sorted(roles) do
    local list = type(names_) == "table" and names_ or { names_ }
    ok, message, code = check_strings(path, "roles." .. role, list)
    if not ok then return nil, message, code end
    for _, name in pairs(list) do
      if not name:match "^[%w_][%w_.@ -]*%$?$" then
        return nil, ("'%s': 'roles.%s': '%s' is no name of a group"):format(path, role, name), "parse"
      end
    end
  end
  return true
end

local function check_values(path, values)
  local ok, message, code = check_strings(path, "organization", values.organization)
  if ok then ok, message, code = check_strings(path, "anchors", values.anchors) end
  if ok then ok, message, code = check_names(path, "accepted_domains", values.accepted_domains) end
  if ok then ok, message, code = check_strings(path, "no_proxy", values.no_proxy) end
  if ok then ok, message, code = check_roles(path, values.roles or {}) end
  if ok and values.proxy and not values.proxy:match "^%a[%w]*://[^%s%c]+$" then
    return nil, ("'%s': 'proxy' must be a URL, such as http://proxy.contoso.com:3128"):format(path), "parse"
  end
  if not ok then return nil, message, code end
  local days = values.self_signed_days
  if days and not (math.tointeger(days) and days >= 1) then
    return nil, ("'%s': 'self_signed_days' must be a whole number of days, 1 or more"):format(path), "parse"
  end
  return true
end

local function check_entry(path, group, name, entry)
  if type(name) ~= "string" or not name:match "^%w[%w_-]*$" then
    return nil, ("'%s': '%s' is not a name for an entry of %s"):format(path, tostring(name), group), "parse"
  elseif type(entry) ~= "table" then
    return nil, ("'%s': '%s.%s' must be a table"):format(path, group, name), "parse"
  end
  local key, dir = "adapter", nil
  if group == "services" then key, dir = "driver", entry.dir end
  if type(entry[key]) ~= "string" then
    return nil, ("'%s': '%s.%s' needs '%s', a string"):format(path, group, name, key), "parse"
  elseif dir ~= nil and (type(dir) ~= "string" or dir:sub(1, 1) ~= "/" or dir:find "%c") then
    return nil, ("'%s': '%s.%s.dir' must be an absolute path, without control characters"):format(path, group, name),
      "parse"
  end
  return true
end

--- Checks what a site's config.lua says; a fault names the file and the setting.
-- @return true | nil, message, "parse"
function M.check(path, values)
  local ok, message, code = check_fields(path, "", values, FIELDS)
  if not ok then return nil, message, code end
  for _, group in ipairs { "services", "cas" } do
    for name, entry in pairs(values[group] or {}) do
      ok, message, code = check_entry(path, group, name, entry)
      if not ok then return nil, message, code end
    end
  end
  return check_values(path, values)
end


--- Checks the settings of a service: those that every one has, and its driver's.
-- @param own the driver's { name = type }
-- @return true | nil, message, "parse"
function M.check_service(path, name, entry, own)
  local prefix, fields = "services." .. name .. ".", {}
  for field, kind in pairs(SERVICE_FIELDS) do fields[field] = kind end
  for field, kind in pairs(own or {}) do fields[field] = kind end
  local ok, message, code = check_fields(path, prefix, entry, fields)
  if not ok then return nil, message, code end
  for kind, value in options.sorted(entry.names or {}) do
    local setting = ("%snames.%s"):format(prefix, kind)
    ok, message, code = check_names(path, setting, type(value) == "table" and value or { value })
    if not ok then return nil, message, code end
  end
  ok, message, code = check_strings(path, prefix .. "endpoints", entry.endpoints)
  if not ok then return nil, message, code end
  for _, field in ipairs { "check", "reload", "restart" } do
    ok, message, code = check_command(path, prefix .. field, entry[field])
    if not ok then return nil, message, code end
  end
  if entry.observe_timeout and entry.observe_timeout <= 0 then
    return nil, ("'%s': '%sobserve_timeout' must be more than 0 seconds"):format(path, prefix), "parse"
  end
  return true
end

return M
