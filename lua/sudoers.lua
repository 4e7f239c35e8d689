-- sudoers.lua: the sudoers file that lets each role's groups run its commands
-- as root (sudoers(5)).
--
-- It is the outer of two doors: certwright itself looks at who calls, so a line
-- that outlives its role, or an argument that a `*` lets pass, opens nothing.

local file = require "core.file"
local host = require "core.host"
local roles = require "roles"

local M = {}

local HEAD = [[
# What the groups of certwright's roles may run as root, printed by
# `certwright roles --sudoers`; print it anew when 'roles' in config.lua or the
# scripts change. Save it as /etc/sudoers.d/certwright, mode 0440, once
# `visudo -c -f` has accepted it.
#
# Options stand behind the command: sudo certwright list --json
# A `*` lets any arguments pass: certwright asks the system which groups the
# calling user is in, refuses what is beyond their role, and --site, --state, -e
# and FILE; it opens files that are named with the user's own rights.
]]

-- The path of the program, which nobody but root may be able to change.
local function program()
  local path, message, code = file.link "/proc/self/exe"
  if not path then return nil, message, code end
  local status
  status, message, code = file.stat(path)
  if not status then return nil, message, code end
  if status.owner ~= 0 then
    return nil, ("cannot let others run '%s' as root: it belongs to user %d; install it first: make install")
      :format(path, status.owner), "denied"
  end
  local ok
  ok, message, code = file.guard(path, "let others run")
  if not ok then return nil, message, code end
  if path:find "[^%w/._+-]" then
    return nil, ("cannot name '%s' in a sudoers file: install it where the path is plain letters and digits")
      :format(path), "unsupported"
  end
  return path
end

local function alias(role)
  return "CERTWRIGHT_" .. role:upper():gsub("%-", "_")
end

-- The alias of a role's own commands, a command a line.
local function commands_of(path, role, names)
  local lines = {}
  for _, name in ipairs(names) do
    lines[#lines + 1] = ("    %s %s, %s %s *"):format(path, name, path, name)
  end
  return ("Cmnd_Alias %s = \\\n%s\n"):format(alias(role), table.concat(lines, ", \\\n"))
end

--- The text of the file.
-- @param groups as roles.groups, commands as roles.commands returns them
-- @return text | nil, message, "denied" | "unsupported" | ...
function M.text(groups, commands)
  local path, message, code = program()
  if not path then return nil, message, code end
  local parts, included, grants = { HEAD }, {}, {}
  for _, role in ipairs(roles.names) do
    if #commands[role] > 0 then
      parts[#parts + 1] = commands_of(path, role, commands[role])
      included[#included + 1] = alias(role)
    end
    for _, name in ipairs(groups[role]) do
      if host.group(name) then -- one that others might make later gets nothing
        grants[#grants + 1] = ('"%%%s" ALL = (root) NOSETENV: %s\n'):format(name, table.concat(included, ", "))
      end
    end
  end
  if #grants == 0 then
    return nil, "no group that is there has a role: name some under 'roles' in config.lua", "missing"
  end
  parts[#parts + 1] = ("Defaults!%s env_reset, !setenv, !env_keep, use_pty\n"):format(table.concat(included, ", "))
  parts[#parts + 1] = table.concat(grants)
  return table.concat(parts, "\n")
end

return M
