-- reference.lua: the documentation of a function, from the comment above its
-- definition: `--- ...` in Lua, `/* module.name(...) ... */` in C.

local file = require "core.file"

local M = {}

local SOURCE_LIMIT = 4 * 1024 * 1024 -- bytes

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

--- The comment of a C function, by the name that Lua code calls it by.
-- @param name "cert.parse"
function M.of_c(home, name)
  for comment in c_text(home):gmatch "/%*(.-)%*/" do
    local lines = {}
    for line in comment:gmatch "[^\n]+" do
      line = line:gsub("^%s*%*? ?", ""):gsub("%s+$", "")
      if line ~= "" then lines[#lines + 1] = line end
    end
    local first = lines[1] or ""
    if first:sub(1, #name + 1) == name .. "(" or first:match "^%w+:([%w_]+)%(" == name then
      return table.concat(lines, "\n")
    end
  end
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
