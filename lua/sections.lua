--- Reads a configuration written in Dovecot's grammar: settings and sections, a
-- line each, comments, includes with patterns.  It knows no setting, changes
-- nothing, and does not say whether a server would accept what it reads.

local includes = require "includes"
local paths = require "paths"

local M = {}

-- A line without its comment, which a quote may hold, and outer blanks.
local function strip(line)
  local position = 1
  repeat
    local at, _, c = line:find("([\"'#])", position)
    if c == "#" then
      line = line:sub(1, at - 1)
    elseif c then
      position = at + 1
      while position <= #line and line:sub(position, position) ~= c do
        position = position + (line:sub(position, position) == "\\" and 2 or 1)
      end
      position = position + 1
    end
  until not c or c == "#"
  return line:match "^%s*(.-)%s*$"
end

-- The settings of a scope; "" is the one outside of all sections.
local function scope_of(reader, scope)
  local values = reader.scopes[scope] or {}
  reader.scopes[scope] = values
  return values
end

-- A setting's value: of `<path` the absolute path, else without quotes and with
-- what `$other` stands for.
local function value_of(reader, value, path)
  local content = value:match "^<%s*(.-)$"
  if content then
    return "<" .. paths.join(paths.parent(path), content)
  end
  value = value:match '^"(.*)"$' or value:match "^'(.*)'$" or value
  return (value:gsub("%$([%w_]+)", scope_of(reader, "")))
end

local read

local function include(reader, scope, pattern, optional, path, depth)
  pattern = paths.join(paths.parent(path), pattern)
  if scope == "" then
    table.insert(reader.includes, pattern)
  end
  local instead = reader.replace(pattern)
  for name, value in pairs(instead or {}) do
    scope_of(reader, scope)[name] = value
  end
  local found = instead and {} or paths.glob(pattern)
  if #found == 0 and not (instead or optional or paths.is_pattern(pattern)) then
    found = { pattern }
  end
  for _, each in ipairs(found) do
    local done, message, code = read(reader, scope, each, depth + 1)
    if not done then
      return nil, message, code
    end
  end
  return true
end

function read(reader, scope, path, depth)
  local text, message, code = includes.text(path, depth)
  if not text then
    return nil, message, code
  end
  local outer, done = {}, true
  for line in text:gsub("\\\r?\n", " "):gmatch "[^\r\n]+" do
    line = strip(line)
    local try, pattern = line:match "^!include(%S*)%s+(.+)$"
    local section = line:match "^([^=]-)%s*{$"
    local name, value = line:match "^([^=%s]+)%s*=%s*(.*)$"
    if try then
      done, message, code = include(reader, scope, pattern, try == "_try", path, depth)
    elseif section then
      outer[#outer + 1] = scope
      scope = scope .. "/" .. section:gsub("%s+", " "):gsub('"', "")
    elseif line == "}" and #outer > 0 then
      scope = table.remove(outer)
    elseif name then
      scope_of(reader, scope)[name] = value_of(reader, value, path)
    elseif line ~= "" then
      line = line:sub(1, 80):gsub("[^ -~]", "?")
      return nil, ("cannot read '%s': no setting, section or include: %s"):format(path, line), "parse"
    end
    if not done then
      return nil, message, code
    end
  end
  return true
end

--- Reads a configuration file and what it includes; a later setting replaces an
-- earlier one of its scope.
-- @param path absolute
-- @param replace function(path): settings to take in place of that include, or nil
-- @return { [scope] = { name = value } } with scopes like "" and "/service
--   imap-login/inet_listener imaps", values of `<path` as "<" and the absolute
--   path; and the paths included outside of sections. Or nil, message, "missing" |
--   "denied" | "parse" | "limit" | "io"
function M.read(path, replace)
  local reader = { scopes = { [""] = {} }, includes = {}, replace = replace }
  local done, message, code = read(reader, "", path, 0)
  if not done then
    return nil, message, code
  end
  return reader.scopes, reader.includes
end

return M
