-- servant.lua: runs a service's own commands: check, reload, start again.
--
-- The site's argv arrays stand in place of the driver's.  A command that ends
-- well proves nothing; what it did is observed elsewhere.

local process = require "core.process"
local text = require "text"

local M = {}

local TIMEOUT = 60 -- seconds for one command
local TOLD = 400   -- bytes of what a program printed, in a message

local function run(service, verb, argv)
  local result, message, code = process.run(argv, { timeout = TIMEOUT })
  if not result then return nil, ("%s: cannot %s: %s"):format(service.name, verb, message), code end
  if result.status == 0 then
    if service.how.verdict then
      local ok, why = service.how.verdict(result)
      if not ok then return nil, ("%s refused to %s: %s"):format(service.name, verb, text.escape(why)), "refused" end
    end
    return true
  end
  local told = result.stderr ~= "" and result.stderr or result.stdout
  told = text.escape_lines(told):sub(1, TOLD):gsub("\n", "; ")
  if not utf8.len(told) then told = told:gsub("[\x80-\xFF]+$", "") end
  return nil, ("%s refused to %s ('%s' ended with %s)%s"):format(service.name, verb, table.concat(argv, " "),
    result.status and "status " .. result.status or "signal " .. tostring(result.signal),
    told ~= "" and ": " .. told or ""), "refused"
end

local SAID = { check = "accept the new files", reload = "reload", restart = "start again" }

-- Runs a command of each of a unit's services, but none twice: services that
-- are one daemon have the same one.  A driver without such a command has none.
local function each(unit, verb_of)
  local done = {}
  for _, service in ipairs(unit.services) do
    local verb = verb_of(service)
    local argv = service[verb] or service.how[verb](service)
    local key = argv and table.concat(argv, "\0")
    if key and not done[key] then
      done[key] = true
      local ok, message, code = run(service, SAID[verb], argv)
      if not ok then return nil, message, code end
    end
  end
  return true
end

--- Lets a unit's daemons check their configuration, if they can.
-- @return true | nil, message, "refused" | "missing" | "timeout"
function M.check(unit)
  return each(unit, function() return "check" end)
end

--- Reloads a unit's daemons.  One that has exited is not started by this.
-- @return true | nil, message, "refused" | "missing" | "timeout"
function M.reload(unit)
  return each(unit, function() return "reload" end)
end

--- Whether a daemon that ran before has exited.
function M.has_exited(service)
  return service.was_running ~= false and not service.how.pid(service)
end

--- Brings a unit back after a failure: a reload, or a start of what ran before
-- and has exited.  Without a command to start it, whoever supervises it does.
-- @return true | nil, message, code
function M.revive(unit)
  return each(unit, function(service) return M.has_exited(service) and "restart" or "reload" end)
end

return M
