-- roles.lua: which role may run which script, and which groups have a role.
--
-- The roles are in one order, and each may do what those before it may.  They
-- are about role users (see caller.lua): root needs none, nor does who may run
-- everything through sudo, nor who works on a store of their own.

local host = require "core.host"
local options = require "options"
local scripts = require "scripts"
local settings = require "settings"

local M = {}

--- The names of the roles, the least first.
M.names = scripts.roles

local function rank(role)
  for i, name in ipairs(M.names) do
    if name == role then return i end
  end
end

--- Whether a role includes another.
function M.includes(role, other)
  return rank(role) >= rank(other)
end

--- The groups of each role, as the site's config.lua has them.
-- @return { role = { name, ... } }, path | nil, message, code
function M.groups(context)
  local path = context.site_dir .. "/config.lua"
  local values, message, code = settings.read(path)
  if not values then return nil, message, code end
  local ok
  ok, message, code = settings.check(path, values)
  if not ok then return nil, message, code end
  local groups = {}
  for _, role in ipairs(M.names) do
    local given = (values.roles or {})[role] or {}
    groups[role] = type(given) == "table" and given or { given }
  end
  return groups, path
end

-- Whether the system says that a caller is in a group of that name.
local function is_in(caller, name)
  local group = host.group(name)
  for _, gid in ipairs(caller.groups) do
    if group and group.gid == gid then return true end
  end
  return false
end

--- The highest role that a caller has.
-- @return role | nil, message, "denied" | ...
function M.of(context, caller)
  local groups, path, code = M.groups(context)
  if not groups then return nil, path, code end
  local found, some
  for _, role in ipairs(M.names) do
    for _, name in ipairs(groups[role]) do
      some = true
      if is_in(caller, name) then found = role end
    end
  end
  if found then return found end
  return nil, ("'%s' may not run certwright through sudo: %s"):format(caller.name, some
    and ("in no group that 'roles' in '%s' names"):format(path)
    or ("'%s' names no 'roles', so only root may"):format(path)), "denied"
end

--- The least role that may run a command of a script.
-- @param args its parsed arguments; nil: whatever they are
function M.needed(script, command, args)
  local role = command.role or script.role or M.names[#M.names]
  local more = args and (command.role_of or script.role_of)
  more = more and more(args)
  return more and rank(more) > rank(role) and more or role
end

--- Whether who acts may run a command of a script.
-- @return true | nil, message, "denied"
function M.allow(context, script, command, args)
  local needed = M.needed(script, command, args)
  if context:may(needed) then return true end
  local name = command == script and script.name or script.name .. " " .. command.name
  if needed ~= M.needed(script, command) then name = name .. " in this way" end
  return nil, ("'%s' may not run %s: it takes the role %s, and '%s' has the role %s"):format(context.caller.name, name,
    needed, context.caller.name, context.role), "denied"
end

-- The least role that may run something of a script.
local function least(script)
  local role
  for _, command in pairs(script.commands or { script }) do
    local needed = M.needed(script, command)
    if not role or rank(needed) < rank(role) then role = needed end
  end
  return role
end

--- The commands that take each role, and no more.
-- @return { role = { name, ... } }
function M.commands(context)
  local commands = {}
  for _, role in ipairs(M.names) do commands[role] = {} end
  for _, name in ipairs(scripts.names(context)) do
    local script, message = scripts.load(context, name)
    if script then
      table.insert(commands[least(script)], name)
    else
      context:warn("left out: %s", message)
    end
  end
  return commands
end

--- The groups that the system does not know, with their roles.
function M.unknown(groups)
  local list = {}
  for role, names in options.sorted(groups) do
    for _, name in ipairs(names) do
      if not host.group(name) then list[#list + 1] = { role = role, group = name } end
    end
  end
  return list
end

return M
