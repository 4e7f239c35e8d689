-- policy.lua: asks the site's policy functions, and remembers who decided.

local loader = require "loader"

local M = {}
M.__index = M

local FUNCTIONS = {
  friendly_name = true, common_name = true, extra_domains = true, key = true, subject = true, ca = true,
  validate = true, renew_at = true,
}

local function read(path)
  local chunk, message, code = loader.file(path)
  if not chunk then return nil, message, code end
  local ok, functions = pcall(chunk)
  if not ok then return nil, ("'%s' failed: %s"):format(path, tostring(functions)), "parse" end
  if type(functions) ~= "table" then return nil, ("'%s' returns no table of functions"):format(path), "parse" end
  for name, value in pairs(functions) do
    if not FUNCTIONS[name] then
      return nil, ("'%s': there is no policy function '%s'"):format(path, tostring(name)), "parse"
    elseif type(value) ~= "function" then
      return nil, ("'%s': '%s' must be a function"):format(path, name), "parse"
    end
  end
  return functions
end

--- The policy of a site over the shipped one.
-- @param home the program's folder; site_dir the site's
-- @return policy | nil, message, "parse" | "denied" | "io"
function M.load(home, site_dir)
  local shipped_path, site_path = home .. "/lua/defaults/policy.lua", site_dir .. "/policy.lua"
  local shipped, message, code = read(shipped_path)
  if not shipped then return nil, message, code end
  local own
  own, message, code = read(site_path)
  if not own then
    if code ~= "missing" then return nil, message, code end
    own = {}
  end
  return setmetatable({ shipped = shipped, own = own, shipped_path = shipped_path, site_path = site_path }, M)
end

--- Which file decides a value: the site's policy, or the shipped one.
function M:source(name)
  return self.own[name] and self.site_path or self.shipped_path
end

--- Asks one policy function.
-- @return what it returns | nil, message, "refused" when it refuses or fails
function M:ask(name, argument)
  local results = table.pack(pcall(self.own[name] or self.shipped[name], argument))
  if not results[1] then
    return nil, ("%s in '%s' failed: %s"):format(name, self:source(name), tostring(results[2])), "refused"
  end
  if results[2] == nil and results[3] ~= nil then return nil, tostring(results[3]), "refused" end
  return results[2]
end

--- Asks for a value of one type.
-- @return value | nil, message, "refused"
function M:value(name, argument, kind)
  local value, message, code = self:ask(name, argument)
  if message then return nil, message, code end
  if type(value) ~= kind then
    return nil, ("%s in '%s' must return a %s, not %s"):format(name, self:source(name), kind, type(value)), "refused"
  end
  return value
end

return M
