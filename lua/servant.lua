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
  return nil, ("%s refused to %s ('%s' ended with %s): %s"):format(service.name, verb, table.concat(argv, " "),
    result.status and "status " .. result.status or "signal " .. tostring(result.signal), told), "refused"
end

--- Lets a unit's service check its configuration, if it can.
-- @return true | nil, message, "refused" | "missing" | "timeout"
function M.check(unit)
  for _, service in ipairs(unit.services) do
    local argv = service.check or service.how.check(service)
    if argv then
      local ok, message, code = run(service, "accept the new files", argv)
      if not ok then return nil, message, code end
    end
  end
  return true
end

--- Reloads a unit: its services are one daemon.  One that has exited is not
-- started by this.
-- @return true | nil, message, "refused" | "missing" | "timeout"
function M.reload(unit)
  local service = unit.services[1]
  return run(service, "reload", service.reload or service.how.reload(service))
end

--- Brings a unit back after a failure: a reload, or a start when the daemon
-- that ran before has exited.
-- @return true | nil, message, code
function M.revive(unit)
  local service = unit.services[1]
  if service.was_running ~= false and not service.how.pid(service) then
    return run(service, "start again", service.restart or service.how.restart(service))
  end
  return M.reload(unit)
end

return M
