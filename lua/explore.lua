-- explore.lua: what the REPL has ready: certificates, services, probe, help.

local certificates = require "certificates"
local explanation = require "explanation"
local object = require "object"
local options = require "options"
local text = require "text"

local M = {}

-- A value that shows itself as text and is indexed or called lazily.
local function lazy(methods)
  return setmetatable({}, methods)
end

local function opened(context)
  local db, message, code = context:read()
  if not db then error(("%s (%s)"):format(message, code), 0) end
  return db
end

local function listed(context)
  local rows, message = certificates.list(opened(context), {})
  if not rows then error(message, 0) end
  return rows
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
      local db = opened(context)
      local row, message, code = object.find(db, tostring(word))
      if not row and code ~= "missing" then error(message, 0) end
      return row and object.fields(context, row)
    end,
    __len = function() return #listed(context) end,
    __pairs = function()
      local rows, i = listed(context), 0
      return function()
        i = i + 1
        if rows[i] then return rows[i].id, object.fields(context, rows[i]) end
      end
    end,
    __names = function()
      local names = {}
      for i, row in ipairs(listed(context)) do names[i] = row.friendly_name end
      return names
    end,
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
      for name in options.sorted(site().config.services) do
        local service, message = site():service(name)
        rows[#rows + 1] = service and { name, service.driver, service.dir, text.names(service.domain_names) }
          or { name, "-", "-", message }
      end
      return #rows > 1 and text.table(rows) or "the site names no services"
    end,
    __index = function(_, name)
      if not site().config.services[name] then return nil end
      local service, message = site():service(name)
      if not service then error(message, 0) end
      return service
    end,
    __names = function()
      local names = {}
      for name in options.sorted(site().config.services) do names[#names + 1] = name end
      return names
    end,
  }
end

-- A text that is shown as it is.
local function prose(said)
  return lazy { __tostring = function() return said end }
end

-- A function that says what it is for where it is not called.
local function command(said, work)
  return lazy { __tostring = function() return said end, __call = function(_, ...) return work(...) end }
end

local function check_endpoint(endpoint)
  local kind = type(endpoint)
  if kind ~= "string" and kind ~= "table" then
    error("probe needs a URL, such as probe \"https://127.0.0.1:443\"", 3)
  end
end

--- The globals of the REPL.
-- @param modules the names of core's modules
function M.globals(context, modules)
  local globals = { certificates = certificates_of(context), services = services_of(context) }
  local function help(...)
    local value = ...
    if select("#", ...) > 0 and value == nil then
      return prose "that is nil; help() says what there is, help \"cert:covers\" tells of a method"
    end
    for _, name in ipairs { "certificates", "services", "probe", "help" } do
      if rawequal(value, globals[name]) then value = nil end
    end
    return prose(explanation.of(context, modules, value))
  end
  local function probe(endpoint, name)
    check_endpoint(endpoint)
    return table.unpack(require("core.probe").run({ endpoint }, { name = name }))
  end
  globals.help = command(explanation.of(context, modules), help)
  globals.probe = command('probe(URL, NAME) is a handshake: probe "https://127.0.0.1:443"', probe)
  globals.exit = command("Ctrl-D ends", function() return prose "Ctrl-D ends" end)
  globals.quit = globals.exit
  return globals
end

return M
