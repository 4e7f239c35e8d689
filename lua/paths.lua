--- Paths as text, and the file name patterns that servers' include lines use.
-- A pattern is glob(7)'s: `*`, `?`, `[...]`, none of which matches a `/` or a
-- leading dot.  Nothing here is opened or changed.

local lfs = require "lfs"

local M = {}

--- A path without doubled slashes and `/./`, and without a slash at its end.
function M.clean(path)
  path = path:gsub("/+", "/"):gsub("/%.%f[/\0]", "")
  return path == "" and "/" or #path > 1 and path:gsub("/$", "") or path
end

--- The folder that holds path.
function M.parent(path)
  local parent = path:match "^(.*)/[^/]*$"
  return parent == "" and "/" or parent or "."
end

--- path as it is meant by somebody who stands in folder.
function M.join(folder, path)
  return M.clean(path:sub(1, 1) == "/" and path or folder .. "/" .. path)
end

--- Whether path lies in folder, by its name alone.
function M.inside(path, folder)
  folder = M.clean(folder) .. "/"
  return M.clean(path):sub(1, #folder) == folder
end

--- Whether a path has characters that make it a pattern.
function M.is_pattern(path)
  return path:find "[*?%[]" ~= nil
end

-- The Lua pattern of one component of a glob pattern.
local function translate(component)
  local out, position = {}, 1
  while position <= #component do
    local c = component:sub(position, position)
    local negated, set, after = component:match("^%[([!^]?)(%]?[^%]]*)%]()", position)
    if c == "*" then
      out[#out + 1] = ".*"
    elseif c == "?" then
      out[#out + 1] = "."
    elseif set and set ~= "" then
      set = set:gsub("[%%%]^]", "%%%0")
      out[#out + 1] = "[" .. (negated ~= "" and "^" or "") .. set .. "]"
      position = after - 1
    else
      out[#out + 1] = c:gsub("%W", "%%%0")
    end
    position = position + 1
  end
  return "^" .. table.concat(out) .. "$"
end

--- Whether a file name matches one component of a pattern.
function M.matches(name, component)
  if name:sub(1, 1) == "." and component:sub(1, 1) ~= "." then
    return false
  end
  return name:find(translate(component)) ~= nil
end

-- The names in folder that match, sorted by their bytes; {} where it cannot
-- be read, as glob(3) has it.
local function matching(folder, component)
  local names = {}
  local readable, next_name, state = pcall(lfs.dir, folder)
  if readable then
    for name in next_name, state do
      if name ~= "." and name ~= ".." and M.matches(name, component) then
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  return names
end

--- What is there that an absolute pattern matches, sorted.
function M.glob(pattern)
  local found = { "" }
  for component in M.clean(pattern):gmatch "[^/]+" do
    local deeper = {}
    for _, folder in ipairs(found) do
      local names = { component }
      if M.is_pattern(component) then
        names = matching(folder == "" and "/" or folder, component)
      end
      for _, name in ipairs(names) do
        if lfs.symlinkattributes(folder .. "/" .. name, "mode") then
          deeper[#deeper + 1] = folder .. "/" .. name
        end
      end
    end
    found = deeper
  end
  return found
end

return M
