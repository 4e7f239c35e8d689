-- help: what there is to run, and where each comes from.

local flow = require "flow"
local json = require "json"
local options = require "options"
local roles = require "roles"
local scripts = require "scripts"
local text = require "text"

local GLOBALS = [[
Options of every command:
  --json       print one JSON value on standard output
  --dry-run    say what would change, and change nothing
  --yes        answer every question with yes: replace files, too
  --quiet      say less            --verbose    say more
  --site DIR   the site folder: config.lua, policy.lua, scripts/
  --state DIR  the state folder: store, keys, requests
  --help       explain a command   --version    print the version

certwright help COMMAND explains one.  Without a command, on a terminal:
explore what there is.  certwright FILE.lua ... runs a script of your own,
certwright -e CODE a line of Lua.]]

-- The names of the steps in their order, and `enroll`, which runs them.
local function workflow(context)
  local order = {}
  for i, step in ipairs(flow.steps(context) or {}) do order[i] = step.name end
  order[#order + 1] = "enroll"
  return order
end

local function lines_of(list, order)
  local first, others, of, is_step = {}, {}, {}, {}
  local function row(entry) return { "  " .. entry.name, entry.site and "site" or "", entry.summary } end
  for _, entry in ipairs(list) do of[entry.name] = entry end
  for _, name in ipairs(order) do
    if of[name] then first[#first + 1], is_step[name] = row(of[name]), true end
  end
  for _, entry in ipairs(list) do
    if not is_step[entry.name] then others[#others + 1] = row(entry) end
  end
  local lines, rows = {}, table.move(others, 1, #others, #first + 1, { table.unpack(first) })
  for line in text.table(rows):gmatch "[^\n]+" do lines[#lines + 1] = line end
  table.insert(lines, #first + 1, "\nOther commands:")
  return table.concat(lines, "\n")
end

local function overview(context)
  local list = json.array()
  for _, name in ipairs(scripts.names(context)) do
    local script, message = scripts.load(context, name)
    list[#list + 1] = script and { name = name, summary = script.summary, path = script.path, site = script.is_site }
      or { name = name, summary = "cannot be run: " .. message, path = (scripts.find(context, name)), site = false }
  end
  return list
end

return {
  summary = "list the commands, or explain one",
  role = "auditor",
  options = {
    { "command", "the command to explain", argument = "COMMAND", optional = true },
    { "part", "one of the commands of that command, such as init of ca", argument = "PART", optional = true },
  },

  text = function(result, context)
    if result.help then return result.help end
    return table.concat({
      "certwright takes a TLS certificate from request to observed on every service.", "",
      "The workflow, in this order:", lines_of(result, workflow(context)), "", GLOBALS,
    }, "\n")
  end,

  run = function(args, context)
    if not args.command then return overview(context) end
    local script, message, code = scripts.load(context, args.command)
    if not script then return nil, message, code end
    local command, why = scripts.command(script, { args.part })
    if not command and args.part then return nil, why, "usage" end
    local help = options.help(script, command) .. "\n\nThis is " .. script.path
    if command then
      help = ("%s\nIt takes the role %s; see certwright help roles"):format(help, roles.needed(script, command))
    end
    return { name = script.name, summary = script.summary, path = script.path, site = script.is_site, help = help }
  end,
}
