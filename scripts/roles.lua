-- roles: who may do what through sudo.

local json = require "json"
local roles = require "roles"
local text = require "text"

local function described(groups, commands)
  local list = json.array()
  for i, role in ipairs(roles.names) do
    list[i] = json.object({ role = role, groups = json.array(groups[role]), commands = json.array(commands[role]) },
      { "role", "groups", "commands" })
  end
  return list
end

-- A role after the other, each with what it may do beyond those before it.
local function lines_of(list, context)
  local shown = {}
  for i, entry in ipairs(list) do
    local groups = #entry.groups > 0 and "groups: " .. text.names(entry.groups) or "no group"
    if entry.role == context.role then groups = groups .. " (yours)" end
    local more = #entry.commands > 0 and table.concat(entry.commands, ", ") or "nothing more"
    shown[#shown + 1] = { entry.role, groups }
    shown[#shown + 1] = { "", (i > 1 and "also " or "") .. more }
  end
  return text.fields(shown, context.columns)
end

return {
  summary = "who may do what through sudo",
  role = "auditor",
  options = { { "--sudoers", "print a sudoers file that lets the roles' groups run their commands" } },
  notes = [[
Each role may do what those before it may.  'roles' in config.lua names the
Unix groups of each:
   roles = { requester = "certs", operator = { "mail", "web" } }
Without it only root may, and who sudo lets run everything.  A user of a
role runs sudo certwright COMMAND ..., with all options behind the command.
To let the groups do so:
   certwright roles --sudoers > sudoers && visudo -c -f sudoers
   install -m 440 sudoers /etc/sudoers.d/certwright]],
  text = function(result, context)
    if context.printed then return context.printed, true end
    return lines_of(result, context)
  end,

  run = function(args, context)
    local groups, message, code = roles.groups(context)
    if not groups then return nil, message, code end
    for _, unknown in ipairs(roles.unknown(groups)) do
      context:warn("'roles.%s' names the group '%s', which this machine does not know", unknown.role, unknown.group)
    end
    local commands = roles.commands(context)
    if not args.sudoers then return described(groups, commands) end
    context.printed, message, code = require("sudoers").text(groups, commands)
    if not context.printed then return nil, message, code end
    return json.object({ sudoers = context.printed }, { "sudoers" })
  end,
}
