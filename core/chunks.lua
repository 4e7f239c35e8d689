-- chunks.lua: writes the file that chunks.c reads, when the program is built or
-- installed:
--
--     certwright core/chunks.lua FILE TREE HOME
--
-- all Lua files of TREE, named as those of the folder HOME (TREE itself, or where
-- they will be installed), and the libraries they use, where these are found.

local write, release = require("core.file").write, require("core.load").release
local lfs = require "lfs"

local file, tree, home = table.unpack(arg)
local LIBRARIES = { "argparse", "dkjson" }

local pieces = { ("s4"):pack(release) }

-- What cannot be read or compiled is left out: to whoever uses it, the program
-- says why.
local function add(path, name)
  local stream <close> = io.open(path, "rb")
  local text = stream and stream:read "a"
  text = text and text:gsub("^#[^\n]*", "") -- as core.load skips it
  local chunk = text and load(text, "@" .. name, "t")
  if chunk then pieces[#pieces + 1] = ("s4s4s4"):pack("@" .. name, text, string.dump(chunk)) end
end

local function add_folder(name)
  local entries = {}
  for entry in lfs.dir(tree .. "/" .. name) do entries[#entries + 1] = entry end
  table.sort(entries)
  for _, entry in ipairs(entries) do
    local path = name .. "/" .. entry
    if entry:find "%.lua$" then
      add(tree .. "/" .. path, home .. "/" .. path)
    elseif not entry:find "^%." and lfs.attributes(tree .. "/" .. path, "mode") == "directory" then
      add_folder(path)
    end
  end
end

add_folder "lua"
add_folder "scripts"
for _, name in ipairs(LIBRARIES) do
  local path = package.searchpath(name, package.path)
  if path then add(path, path) end
end
assert(write(file, table.concat(pieces), { mode = tonumber("644", 8), exclusive = false }))
