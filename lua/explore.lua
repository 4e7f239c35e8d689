-- explore.lua: what the REPL has ready: certificates, services, probe, help.

local certificates = require "certificates"
local object = require "object"
local reference = require "reference"
local text = require "text"

local M = {}

-- A value that shows itself as text and is indexed or called lazily.
local function lazy(methods)
  return setmetatable({}, methods)
end

local function listed(context)
  local db, message, code = context:read()
  if not db then error(message .. " (" .. code .. ")", 0) end
  return assert(certificates.list(db, {}))
end

-- certificates: the list; certificates[1] or certificates["name"]: one of them.
local function certificates_of(context)
  return lazy {
    __tostring = function()
      local rows = { { "ID", "NAME", "STATE", "STATUS", "UNTIL", "DOMAINS" } }
      for _, row in ipairs(listed(context)) do
        rows[#rows + 1] = { tostring(row.id), text.escape(row.friendly_name), row.state, (object.status(row)),
          text.day(row.not_after), text.names(row.domains) }
      end
      return #rows > 1 and text.table(rows) or "there are no certificates yet"
    end,
    __index = function(_, word)
      local db = assert(context:read())
      local row = object.find(db, tostring(word))
      return row and object.fields(context, row)
    end,
    __len = function() return #listed(context) end,
  }
end

-- services: the site's; services.web: one of them, with its driver.
local function services_of(context)
  local function site()
    local loaded, message = context:site()
    if not loaded then error(message, 0) end
    return loaded
  end
  return lazy {
    __tostring = function()
      local rows = { { "SERVICE", "DRIVER", "FOLDER", "NAMES" } }
      for name in require("options").sorted(site().config.services) do
        local service, message = site():service(name)
        rows[#rows + 1] = service and { name, service.driver, service.dir, text.names(service.domain_names) }
          or { name, "-", "-", message }
      end
      return #rows > 1 and text.table(rows) or "the site names no services"
    end,
    __index = function(_, name) return (site():service(name)) end,
  }
end

-- The name of a function of a core module, such as "cert.parse".
local function core_name(value, modules)
  for _, module in ipairs(modules) do
    local loaded = package.loaded["core." .. module]
    for name, member in pairs(type(loaded) == "table" and loaded or {}) do
      if member == value then return module .. "." .. name end
    end
  end
end

local GENERAL = [[
core             the primitives: core.key, core.request, core.cert, core.probe
certificates     what `certwright list` shows; certificates[1] is one of them
services         the site's services; services.web is one of them
probe(URL, NAME) a handshake: probe "https://127.0.0.1:443"
help(VALUE)      what is written above its definition: help(core.cert.parse),
                 help "cert:covers" for a method
A value is shown as it is typed.  Tab completes, Ctrl-C leaves the line,
Ctrl-D ends.]]

local function help_of(context, modules)
  return function(value)
    if value == nil then return GENERAL end
    local found
    if type(value) == "string" then
      found = reference.of_c(context.home, value) or reference.of_c(context.home, value:match ":([%w_]+)$" or value)
    elseif type(value) == "function" then
      local name = core_name(value, modules)
      found = name and reference.of_c(context.home, name) or reference.of_lua(value)
    end
    return found or "there is nothing written about that; help() says what there is"
  end
end

--- The globals of the REPL.
-- @param modules the names of core's modules
function M.globals(context, modules)
  return {
    certificates = certificates_of(context), services = services_of(context), help = help_of(context, modules),
    probe = function(endpoint, name)
      local results = require("core.probe").run({ endpoint }, { name = name })
      return table.unpack(results)
    end,
  }
end

return M
