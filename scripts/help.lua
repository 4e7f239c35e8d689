-- help: what there is to run, and where each comes from.

local json = require "json"
local options = require "options"
local scripts = require "scripts"
local text = require "text"

local function globals()
  return table.concat({
    "Global options:",
    "  --site DIR      the site folder: config.lua, policy.lua, scripts/",
    "  --state DIR     the state folder: store, keys, requests",
    "  --json          print one JSON value",
    "  --yes           answer every question with yes",
    "  --dry-run       say what would change, change nothing",
    "  --quiet         say less; --verbose: say more",
    "  --help          help on a command; --version",
  }, "\n")
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
    local rows = {}
    for _, entry in ipairs(result) do
      rows[#rows + 1] = { "  " .. entry.name, entry.site and "site" or "", entry.summary }
    end
    return table.concat({
      "certwright takes a TLS certificate from request to observed on every service.", "",
      "  certwright new-request       make a key and a request",
      "  certwright submit-request    submit it to a CA",
      "  certwright complete-request  bring the certificate",
      "  certwright assign-services   put it on services, and see it there",
      "  certwright enroll            all four", "",
      "Commands, from " .. context.home .. "/scripts,",
      "those marked 'site' from " .. context.site_dir .. "/scripts:", text.table(rows), "", globals(), "",
      "certwright help COMMAND says more of one.",
      "certwright FILE.lua runs a script of yours, certwright -e CODE a chunk of Lua.",
    }, "\n")
  end,

  run = function(args, context)
    if not args.command then return overview(context) end
    local script, message, code = scripts.load(context, args.command)
    if not script then return nil, message, code end
    local help = options.help(script, (scripts.command(script, { args.part }))) .. "\n\nThis is " .. script.path
    return { name = script.name, summary = script.summary, path = script.path, site = script.is_site, help = help }
  end,
}
