-- command.lua: the command that is asked for: which script that is, whether who
-- acts may run it, what its arguments say, and running it.  What is printed goes
-- through the host: what cli.lua hands over, its streams among it.

local options = require "options"
local roles = require "roles"
local scripts = require "scripts"

local M = {}

-- Loads the script that is named, and parses the arguments of its command.
-- Whether who acts may run it is asked before the script, and before each of
-- its arguments counts.
-- @return script, command, its parsed arguments | nil, message, code, whether
--   that was a refusal
local function prepare(context, what)
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

-- Runs a command; its end goes into the audit record, a raise's too.
-- @param status_of the exit status of a code
-- @return what the command returns
local function run(context, command, parsed, status_of)
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

-- Prints what a script returned: one JSON value, or its text for people.  A
-- text that is no lines but bytes comes with a second value, true.
local function print_result(host, script, result, context)
  local text, exact
  if host.globals.json then
    local json = require "json"
    if host.globals.dry_run and not json.is_array(result) then result.would = json.array(context.plan) end
    text = json.encode(result)
  elseif script.text then
    text, exact = script.text(result, context)
  end
  if text and text ~= "" then
    local ok, message = host.out:write(text, (exact or text:sub(-1) == "\n") and "" or "\n")
    if ok then ok, message = host.out:flush() end
    if not ok then return host.fail("cannot write the result: " .. tostring(message), "io") end
  end
end

local function new_context(host)
  return require("context").new { home = host.home, version = host.version, globals = host.globals }
end

local function refuse(host, context, command, arguments, message, code)
  context.command, context.arguments = command, arguments
  local ok, why = require("audit").record(context, { result = "refused", status = 1, code = code, message = message })
  if not ok then context:warn("the refusal is not in the audit record: %s", why) end
  context:close()
  return host.fail(message, code)
end

--- Refuses what a role user may not do, and puts it into the audit record.
-- @return the exit status
function M.refuse(host, command, arguments, message, code)
  return refuse(host, new_context(host), command, arguments, message, code)
end

--- A bare `certwright` on a terminal.
-- @return the exit status
function M.explore(host)
  local modules = {}
  for name in pairs(package.preload) do modules[#modules + 1] = name:match "^core%.(.+)$" end
  table.sort(modules)
  host.expose_core()
  local context = new_context(host)
  for name, value in pairs(require("explore").globals(context, modules)) do _G[name] = value end
  local ok, message, code = require("repl").loop {
    greeting = ("certwright %s: help() says what there is, Ctrl-D ends"):format(host.version),
    history = require("where").history(), modules = modules,
    topics = function() return require("explanation").topics(context) end,
    value = function(text) host.out:write(text, "\n") end,
    problem = function(text) host.err:write(text, "\n") end,
  }
  context:close()
  return ok and 0 or host.fail(message, code)
end

--- Runs a command of a script.
-- @param what { name =, rest = its arguments }
-- @return the exit status
function M.script(host, what)
  local context = new_context(host)
  local script, command, parsed, refused = prepare(context, what)
  if refused then return refuse(host, context, what.name, what.rest, command, parsed) end
  if not script then return host.fail(command, parsed) end
  local result, note, note_code, status = run(context, command, parsed, host.status_of)
  context:close()
  if result == nil then return host.fail(note, note_code, status) end
  local failed = print_result(host, command.text and command or script, result, context)
  if failed then return failed end
  if note then host.print_error(note) end
  return status or (note_code and host.status_of(note_code)) or 0
end

return M
