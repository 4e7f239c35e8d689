-- command.lua: the command that is asked for: which script that is, whether who
-- acts may run it, what its arguments say, and running it.

local options = require "options"
local roles = require "roles"
local scripts = require "scripts"

local M = {}

--- Loads the script that is named, and parses the arguments of its command.
-- Whether who acts may run it is asked before the script, and before each of
-- its arguments counts.
-- @return script, command, its parsed arguments | nil, message, code, whether
--   that was a refusal
function M.prepare(context, what)
  local message, code
  if context.caller then
    context.role, message, code = roles.of(context, context.caller)
    if not context.role then return nil, message, code, true end
  end
  local script
  script, message, code = scripts.load(context, what.name)
  if not script then return nil, message, code end
  local command, arguments = scripts.command(script, what.rest)
  if not command then return nil, arguments, "usage" end
  local allowed, parsed
  allowed, message, code = roles.allow(context, script, command)
  if not allowed then return nil, message, code, true end
  parsed, message = options.parse(script, command, arguments)
  if not parsed then return nil, message, "usage" end
  allowed, message, code = roles.allow(context, script, command, parsed)
  if not allowed then return nil, message, code, true end
  context.command = command == script and script.name or ("%s %s"):format(script.name, command.name)
  context.arguments, context.parsed = arguments, parsed
  return script, command, parsed
end

--- Runs a command; its end goes into the audit record, a raise's too.
-- @param status_of the exit status of a code
-- @return what the command returns
function M.run(context, command, parsed, status_of)
  local status, message, code = 1, nil, nil
  local _ <close> = setmetatable({}, { __close = function(_, problem)
    if context.record then -- as of a command that changes something
      require("audit").finish(context, status, problem and tostring(problem) or message, problem and "io" or code)
    end
  end })
  local results = table.pack(command.run(parsed, context))
  message, code = results[2], results[3]
  status = results[4] or (results[1] == nil or code) and status_of(code) or 0
  return table.unpack(results, 1, results.n)
end

return M
