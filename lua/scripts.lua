-- scripts.lua: finds scripts, the site's own first, and checks what they are.

local file = require "core.file"
local load = require "core.load"
local loader = require "loader"

local M = {}

local ORDER = "workflow" -- workflow.lua holds the order of the steps; it is no script

local FIELDS = {
  summary = "string", options = "table", role = "string", role_of = "function", run = "function", commands = "table",
  from = "table", to = "string", text = "function", notes = "string",
}

--- The roles that a script may be for, the least first; each may do what those
-- before it may.  A script that names none is for the last.
M.roles = { "auditor", "requester", "operator", "organization-management" }

local function is_role(name)
  for _, role in ipairs(M.roles) do
    if role == name then return true end
  end
  return false
end

-- A script is a declaration plus one function; whatever is missing or strange
-- is named with its file.
local function check(path, script, of)
  local where = of and ("%s (command %s)"):format(path, of) or path
  if type(script) ~= "table" then
    return nil, ("'%s' is not a script: it returns no table"):format(where), "parse"
  end
  for field, value in pairs(script) do
    if not FIELDS[field] then
      return nil, ("'%s' is not a script: unknown field '%s'"):format(where, tostring(field)), "parse"
    elseif type(value) ~= FIELDS[field] then
      return nil, ("'%s' is not a script: '%s' must be a %s"):format(where, field, FIELDS[field]), "parse"
    end
  end
  if script.role and not is_role(script.role) then
    return nil, ("'%s' is not a script: there is no role '%s'; there are: %s"):format(where, script.role,
      table.concat(M.roles, ", ")), "parse"
  end
  if not script.summary then
    return nil, ("'%s' is not a script: it has no summary"):format(where), "parse"
  elseif not script.run and not script.commands then
    return nil, ("'%s' is not a script: it has neither run nor commands"):format(where), "parse"
  end
  return script
end

-- The folders that may hold scripts, the site's own first.
local function folders(context)
  return { context.site_dir .. "/scripts", context.home .. "/scripts" }
end

--- The path of a script, and whether it is the site's own.
-- @return path, is_site | nil
function M.find(context, name)
  if not name:match "^[%w][%w_-]*$" then return nil end
  for i, folder in ipairs(folders(context)) do
    local path = folder .. "/" .. name .. ".lua"
    if file.stat(path, true) then return path, i == 1 end
  end
end

-- The command that a word is the beginning of, in whatever case, or a part of a
-- command's name; nil where that is none or several.
local function meant_by(context, word)
  local found
  word = word:lower():gsub("_", "-")
  for _, name in ipairs(M.names(context)) do
    if #word > 2 and name:find(word, 1, true) then
      if found then return nil end
      found = name
    end
  end
  return found
end

--- Runs the file of a script and checks the table that it returns.
-- @return the script, with name and path set
--   | nil, message, "usage" | "parse" | "denied" | "io"
function M.load(context, name)
  local path, is_site = M.find(context, name)
  if not path or name == ORDER then
    local meant = meant_by(context, name)
    return nil, ("there is no command '%s'%s; see certwright help"):format(name,
      meant and (" (did you mean '%s'?)"):format(meant) or ""), "usage"
  end
  local chunk, message, code = loader.file(path)
  if not chunk then return nil, message, code end
  local ran, script = pcall(chunk)
  if not ran then return nil, ("'%s' failed: %s"):format(path, tostring(script)), "parse" end
  script, message, code = check(path, script)
  if not script then return nil, message, code end
  for command, entry in pairs(script.commands or {}) do
    local ok
    ok, message, code = check(path, entry, command)
    if not ok then return nil, message, code end
    entry.name = command
  end
  script.name, script.path, script.is_site = name, path, is_site
  return script
end

--- Which command of a script the arguments ask for.
-- @return the command and the arguments left for it | nil, message
function M.command(script, arguments)
  if not script.commands then return script, arguments end
  local command = script.commands[arguments[1]]
  if command then return command, { table.unpack(arguments, 2) } end
  local names = {}
  for name in require("options").sorted(script.commands) do names[#names + 1] = name end
  if arguments[1] then
    return nil, ("%s has no command '%s'; there are: %s"):format(script.name, arguments[1], table.concat(names, ", "))
  end
  return nil, ("%s needs a command: %s"):format(script.name, table.concat(names, ", "))
end

--- The names of all scripts that may be run, sorted, each once.
function M.names(context)
  local lfs = require "lfs"
  local seen, names = { [ORDER] = true }, {}
  for _, folder in ipairs(folders(context)) do
    if file.stat(folder, true) then
      for entry in lfs.dir(folder) do
        local name = entry:match "^([%w][%w_-]*)%.lua$"
        if name and not seen[name] then
          seen[name] = true
          names[#names + 1] = name
        end
      end
    end
  end
  table.sort(names)
  return names
end

--- Whether code in this path would be run; used by `help` to say so.
M.trusted = load.trusted

return M
