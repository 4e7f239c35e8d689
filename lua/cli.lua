-- cli.lua: argv -> script -> exit status.
--
-- The one place that prints results and errors and that chooses an exit
-- status.  What a command does stands in scripts/NAME.lua (the site's own
-- first); what is looked up, decided and written stands in the modules beside
-- this file.  Called by the host with its home folder, its version, and argv.

local home, version = ...
local argv = { table.unpack({ ... }, 3) }

local loader = assert(require("core.load").file(home .. "/lua/loader.lua"))()

-- Global options: those that take a value, and those that are switches.
local VALUES = { ["--site"] = "site", ["--state"] = "state", ["--server"] = "server" }
local SWITCHES = {
  ["--json"] = "json", ["--yes"] = "yes", ["--dry-run"] = "dry_run", ["--quiet"] = "quiet",
  ["--verbose"] = "verbose", ["--help"] = "help", ["-h"] = "help", ["--version"] = "version",
}

-- What an error code means for the exit status; any other is 1.
local STATUS = { usage = 2, pending = 3, unrestored = 4 }
local function status_of(code) return STATUS[code] or 1 end

local globals = {}

-- A message quotes what others wrote: arguments, paths, servers.  Whoever made
-- it, nothing in it reaches a terminal that is more than text.
local function print_error(message)
  local text = assert(loader.file(home .. "/lua/text.lua"))()
  message = text.escape_lines(message)
  local host = require "core.host"
  io.stderr:write(text.wrap("certwright: " .. message, host.terminal(2) and host.columns() or nil, 2), "\n")
  return message
end

-- Prints a failure where it belongs and returns its exit status.
local function fail(message, code, status)
  message = print_error(message)
  if globals.json then
    local json = require "json"
    local failure = json.object({ code = code or "io", message = message }, { "code", "message" })
    io.stdout:write(json.encode { error = failure }, "\n")
  end
  return status or status_of(code)
end

-- Splits argv into global options, the script or file named, and the rest.
-- What follows a FILE or -e CODE belongs to it, untouched.
local function scan(arguments)
  local rest, name, i = {}, nil, 1
  while i <= #arguments do
    local argument = arguments[i]
    local option, value = argument:match "^(%-%-[%w-]+)=(.*)$"
    if argument == "--" then
      if not name then
        name, i = arguments[i + 1], i + 1
      else
        rest[#rest + 1] = "--"
      end
      table.move(arguments, i + 1, #arguments, #rest + 1, rest)
      break
    elseif VALUES[option or argument] then
      if not value then
        i = i + 1
        value = arguments[i]
      end
      if not value or value == "" then return nil, (option or argument) .. " needs a value", "usage" end
      globals[VALUES[option or argument]] = value
    elseif SWITCHES[argument] then
      globals[SWITCHES[argument]] = true
    elseif not name and argument == "-e" then
      if not arguments[i + 1] then return nil, "-e needs a chunk of Lua", "usage" end
      return { code = arguments[i + 1], rest = { table.unpack(arguments, i + 2) } }
    elseif not name and (argument:find("/", 1, true) or argument:find "%.lua$") then
      return { file = argument, rest = { table.unpack(arguments, i + 1) } }
    elseif not name and argument:sub(1, 1) == "-" then
      return nil, ("unknown option '%s'; see certwright help"):format(argument), "usage"
    elseif not name then
      name = argument
    else
      rest[#rest + 1] = argument
    end
    i = i + 1
  end
  return { name = name, rest = rest }
end

local function expose_core()
  _G.core = setmetatable({}, {
    __index = function(core, name)
      if not package.preload["core." .. tostring(name)] then return nil end
      local module = require("core." .. name)
      rawset(core, name, module)
      return module
    end,
  })
end

-- Runs FILE or a chunk as a user's own program: core is a global, nothing is
-- strict, no folder is made.
local function run_chunk(what)
  local chunk, message, code
  if what.code then
    chunk, message = load(what.code, "=-e", "t")
    code = "parse"
  else
    chunk, message, code = require("core.load").file(what.file)
  end
  if not chunk then return fail(message, code) end
  expose_core()
  _G.arg = { [0] = what.file or "-e", table.unpack(what.rest) }
  local results = table.pack(xpcall(chunk, debug.traceback, table.unpack(what.rest)))
  if not results[1] then return fail(tostring(results[2]), "io") end
  if results.n >= 3 and results[2] == nil and type(results[3]) == "string" then
    return fail(results[3], results[4], 1) -- whatever the code: it is a program of the user's own
  end
  return 0
end

-- What root alone may ask for: it would run the caller's code, or on a store of
-- the caller's choice.  nil: nothing of that.
local function beyond_roles(what)
  local host = require "core.host"
  local is_repl = not what.name and not globals.help and not globals.json and host.terminal(0) and host.terminal(1)
  return globals.site and "--site" or globals.state and "--state" or what.code and "-e" or what.file and "FILE"
    or is_repl and "the prompt" or nil
end

-- Finds out who called, before a folder of anybody's choice can have a say in
-- it, and where the site and the state are; then modules can be required.
-- @return true, what is beyond a role user or nil | nil, message, code
local function settle(what)
  local effective, _, real = require("core.host").user()
  if effective == 0 and (real ~= 0 or os.getenv "SUDO_UID") then -- else nobody but who acts
    local caller = assert(loader.file(home .. "/lua/caller.lua"))()
    local message, code
    package.loaded.caller = caller
    globals.caller, message, code = caller.identify()
    if globals.caller == nil then return nil, message, code end
  end
  local beyond = globals.caller and beyond_roles(what) or nil
  if globals.caller then globals.site, globals.state = nil, nil end
  local where = assert(loader.file(home .. "/lua/where.lua"))()
  globals.site = globals.site or where.site()
  globals.state = globals.state or where.state()
  loader.install(home, globals.site)
  return true, beyond
end

-- What command.lua has of this file: the only streams that anything goes to.
local function host_of()
  return {
    home = home, version = version, globals = globals, fail = fail, print_error = print_error, status_of = status_of,
    expose_core = expose_core, out = io.stdout, err = io.stderr,
  }
end

local function main()
  local what, message, code = scan(argv)
  if not what then return fail(message, code) end
  if globals.version then
    io.stdout:write(globals.json and ('{"version":"%s"}\n'):format(version) or ("certwright %s\n"):format(version))
    return 0
  end
  if globals.server then
    return fail("--server is not supported yet: certwright acts on this machine only", "unsupported", 2)
  end
  local settled, beyond
  settled, beyond, code = settle(what)
  if not settled then return fail(beyond, code) end
  if beyond then
    return require("command").refuse(host_of(), beyond, argv,
      ("'%s' may not use %s through sudo: it is root's alone"):format(globals.caller.name, beyond), "denied")
  end
  if what.code or what.file then return run_chunk(what) end
  if not what.name and not globals.help and not globals.json then
    local host = require "core.host"
    if host.terminal(0) and host.terminal(1) then return require("command").explore(host_of()) end
  end
  if globals.help then what = { name = "help", rest = { what.name, (what.rest[1] or ""):match "^%w.*" } } end
  what.name = what.name or "help"
  return require("command").script(host_of(), what)
end

local ok, status = xpcall(main, function(problem)
  if type(problem) == "string" and problem:find "interrupted!$" then return problem end
  return globals.verbose and debug.traceback(problem, 2) or problem
end)
if not ok then return fail(tostring(status), "io", 1) end
return status
