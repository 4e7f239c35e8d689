-- reference.lua: the documentation of a function, from the comment above its
-- definition: `--- ...` in Lua, `/* module.name(...) ... */` in C.

local file = require "core.file"

local M = {}

local SOURCE_LIMIT = 4 * 1024 * 1024 -- bytes
local MANUAL = "https://www.lua.org/manual/5.4/manual.html#pdf-"

-- The C sources: in the tree, or as one file where the program is installed.
local function c_text(home)
  local installed = file.read(home .. "/reference.txt", SOURCE_LIMIT)
  if installed then return installed end
  local parts, lfs = {}, require "lfs"
  if not file.stat(home .. "/core", true) then return "" end
  for name in lfs.dir(home .. "/core") do
    if name:match "%.c$" then parts[#parts + 1] = file.read(home .. "/core/" .. name) end
  end
  return table.concat(parts, "\n")
end

-- The comments that describe what Lua code can call: lines, and the name that
-- each begins with: "cert.parse", "cert:covers".
local function described(home)
  local list = {}
  for comment in c_text(home):gmatch "/%*(.-)%*/" do
    local lines = {}
    for line in comment:gmatch "[^\n]+" do
      line = line:gsub("^%s*%*? ?", ""):gsub("%s+$", "")
      if line ~= "" then lines[#lines + 1] = line end
    end
    local name = (lines[1] or ""):match "^(%l[%w_]*[.:]%l[%w_]*) ?[({]"
    if name then list[#list + 1] = { name = name, lines = lines } end
  end
  return list
end

--- The comment of a C function or method, by the name that Lua code calls it by.
-- @param name "cert.parse", "cert:covers", or "covers" alone
function M.of_c(home, name)
  for _, entry in ipairs(described(home)) do
    if entry.name == name or not name:find "[.:]" and entry.name:match ":(.+)$" == name then
      return table.concat(entry.lines, "\n")
    end
  end
end

--- The signatures of all that a C module or a kind of object has.
-- @param owner "cert", "key"
-- @return array of lines, sorted; empty when there is nothing
function M.signatures(home, owner)
  local found = {}
  for _, entry in ipairs(described(home)) do
    if entry.name:match "^(.-)[.:]" == owner then found[#found + 1] = entry.lines[1] end
  end
  table.sort(found)
  return found
end

--- The names of all that is described so.
function M.names(home)
  local list = {}
  for i, entry in ipairs(described(home)) do list[i] = entry.name end
  return list
end

--- Where a function of Lua's own libraries is described.
-- @param name "print", "string.format"
function M.of_language(name)
  return ("%s is Lua's own: %s%s"):format(name, MANUAL, name)
end

--- The comment above a Lua function.
function M.of_lua(value)
  local info = debug.getinfo(value, "S")
  local path = info.source:match "^@(.+)$"
  local source = path and file.read(path, SOURCE_LIMIT)
  if not source then return nil end
  local lines, number = {}, 0
  local comment = {}
  for line in (source .. "\n"):gmatch "(.-)\n" do
    number = number + 1
    if number == info.linedefined then
      table.move(comment, 1, #comment, 1, lines)
      lines[#lines + 1] = line
      break
    elseif line:match "^%s*%-%-" then
      comment[#comment + 1] = line:gsub("^%s*%-%-%-?%s?", "")
    else
      comment = {}
    end
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

return M
