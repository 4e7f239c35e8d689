--- Has one reader of tests/support/readers.lua read every file of the corpus:
--   ./certwright tests/corpus/read.lua READER FOLDER
-- A line for each, before it is read and after: its name, what came of it
-- ("read", the code of the refusal, or what it raised), and the seconds that it
-- took.

local here = debug.getinfo(1, "S").source:match "^@(.*/)[^/]*$" or "./"
local read = assert(dofile(here .. "../support/readers.lua")[arg[1]], "no such reader")
local lfs = require "lfs"
local folder = assert(arg[2])

-- The names in a folder, sorted.
local function names(path)
  local list = {}
  for name in lfs.dir(path) do list[#list + 1] = not name:find "^%." and name or nil end
  table.sort(list)
  return list
end

local function contents(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read "a"
end

for _, kind in ipairs(names(folder)) do
  for _, name in ipairs(names(folder .. "/" .. kind)) do
    local bytes = contents(("%s/%s/%s"):format(folder, kind, name))
    io.write(kind, "/", name, "\t")
    io.flush()
    local start = core.host.clock()
    local ok, code = pcall(read, bytes)
    local seconds = core.host.clock() - start
    io.write(ok and (code or "read") or "raised " .. tostring(code):gsub("%c", " "), "\t", ("%.3f"):format(seconds),
      "\n")
    collectgarbage()
  end
end
