-- loader.lua: how Lua code is found and loaded, for the whole program.
--
-- `require` looks in the site folder first, then in what ships, then in the
-- distribution's folders; core.* is what the program was built with, and never a
-- file.  Everything comes in through core.load, which reads
-- text only, from files that nobody else could have written.  Our own code and
-- the site's run in a strict environment: using an undeclared global is an
-- error.  Foreign libraries see the ordinary _G, which keeps no metatable.

local load = require "core.load"

local M = {}

-- What Lua itself defines is found without a call; what is defined later, in _G.
local standard = {}
for name, value in pairs(_G) do standard[name] = value end
setmetatable(standard, {
  __index = function(_, name)
    local value = rawget(_G, name)
    if value == nil then
      error(("undeclared global '%s'"):format(tostring(name)), 2)
    end
    return value
  end,
})

local strict = setmetatable({}, {
  __index = standard,
  __newindex = function(_, name)
    error(("assignment to undeclared global '%s'"):format(tostring(name)), 2)
  end,
})

--- The strict environment that our own code runs in.
M.strict = strict

--- Loads a file of ours or of the site's, strictly.
-- @return a function | nil, message, "missing" | "denied" | "parse" | "io"
function M.file(path)
  return load.file(path, strict)
end

local function is_ours(path, folders)
  for _, folder in ipairs(folders) do
    if path:sub(1, #folder + 1) == folder .. "/" then return true end
  end
  return false
end

-- Iterates over the paths to try for a module: the site's ca/ and service/ folders
-- stand beside its lua/ and shadow lua/ca/ and lua/service/.
local function candidates(name, site)
  local file, next_template = name:gsub("%.", "/"), package.path:gmatch "[^;]+"
  local is_kind = name:match "^ca%.[%w_-]+$" or name:match "^service%.[%w_-]+$"
  local first = site and is_kind and ("%s/%s.lua"):format(site, file)
  local escaped = file:gsub("%%", "%%%%")
  return function()
    if first then
      local path = first
      first = nil
      return path
    end
    local template = next_template()
    return template and (template:gsub("%?", escaped))
  end
end

--- Makes `require` look in site/lua, then home/lua, then the distribution's
-- folders (which package.path holds already, after home's).
-- @param home the folder that holds lua/ and scripts/
-- @param site the site folder, or nil
function M.install(home, site)
  if site then
    package.path = ("%s/lua/?.lua;%s/lua/?/init.lua;%s"):format(site, site, package.path)
  end
  local ours = { home, site }
  package.searchers[2] = function(name)
    if name:match "^core%." then error(("module '%s' not found: the program has none of that name"):format(name), 0) end
    local tried = {}
    for path in candidates(name, site) do
      local chunk, message, code = load.file(path, is_ours(path, ours) and strict or nil)
      if chunk then return chunk, path end
      if code ~= "missing" then error(message, 0) end
      tried[#tried + 1] = "no file '" .. path .. "'"
    end
    return "\n\t" .. table.concat(tried, "\n\t")
  end
  package.loaded.loader = M
end

return M
