--- Runs spec files side by side, each in a process of its own: what one of them
-- leaves behind, or dies of, is nothing to the others.

local file = require "core.file"
local host = require "core.host"
local process = require "core.process"
local lfs = require "lfs"

local LONGEST = 900 -- seconds for one file

local M = {}

-- The spec files below a path, or the path itself, with their sizes.
local function collect(path, found)
  if lfs.attributes(path, "mode") ~= "directory" then
    found[#found + 1] = { path = path, size = assert(lfs.attributes(path, "size"), "no such file: " .. path) }
    return
  end
  for name in lfs.dir(path) do
    local inner = path .. "/" .. name
    if name:find "_spec%.lua$" or (not name:find "^%." and lfs.attributes(inner, "mode") == "directory") then
      collect(inner, found)
    end
  end
end

local function processors()
  local _, count = assert(io.open "/proc/cpuinfo"):read("a"):gsub("\nprocessor%s*:", "")
  return count + 1
end

local function environment()
  local env = {}
  for _, name in ipairs { "HOME", "TMPDIR", "TERM", "USER", "LOGNAME", "CI", "SUDO_USER" } do env[name] = os.getenv(name) end
  return env
end

local function read(path)
  local stream <close> = assert(io.open(path, "rb"))
  return stream:read "a"
end

-- Prints what a file's process said, and adds up what it counted.
local function report(job, sum)
  local ended = job.process:wait(0) or job.process:stop "TERM"
  local said = read(job.output)
  local passed, failed = said:match "(%d+) passed, (%d+) failed\n$"
  if passed then
    said = said:gsub("[^\n]*\n$", "")
  else
    passed, failed = 0, 1
    said = ("FAILED %s ended with %s %s\n%s"):format(job.path, ended.signal and "signal" or "status",
      ended.signal or ended.status, said)
  end
  -- what a sanitizer finds at the end is said after the count, by the status
  if ended.status ~= 0 and tonumber(failed) == 0 and tonumber(passed) > 0 then failed = 1 end
  sum.passed, sum.failed = sum.passed + passed, sum.failed + failed
  io.stdout:write(said)
  io.stdout:flush()
end

-- The files in the order in which they are begun: the longest first, so that
-- none of them is left alone at the end.
local function order(files, seed)
  if seed then
    math.randomseed(seed)
    for i = #files, 2, -1 do
      local j = math.random(i)
      files[i], files[j] = files[j], files[i]
    end
  else
    table.sort(files, function(a, b) return a.size > b.size end)
  end
end

--- Runs the specs below some roots.
-- @param what { runner = path of run.lua, roots = paths, options = what the
--   runner is given beside a file, jobs = how many at once or nil, shuffle = seed }
-- @return whether all passed
function M.run(what)
  local files, running, sum = {}, {}, { passed = 0, failed = 0 }
  for _, root in ipairs(what.roots) do collect(root, files) end
  order(files, what.shuffle)
  local folder = assert(process.run { "mktemp", "-d" }).stdout:match "%S+"
  local limit, next_one = what.jobs or processors() + 1, 1 -- they wait for servers, mostly
  while next_one <= #files or #running > 0 do
    while #running < limit and files[next_one] do
      local job = { path = files[next_one].path, output = ("%s/%d"):format(folder, next_one), since = host.clock() }
      job.process = assert(process.start({ file.link "/proc/self/exe", what.runner, job.path,
        table.unpack(what.options) }, { env = environment(), output = job.output }))
      running[#running + 1], next_one = job, next_one + 1
    end
    for i = #running, 1, -1 do
      local job = running[i]
      if not job.process:running() or host.clock() - job.since > LONGEST then
        table.remove(running, i)
        report(job, sum)
      end
    end
    host.sleep(0.02)
  end
  process.run { "rm", "-rf", "--", folder }
  io.stdout:write(("%d passed, %d failed\n"):format(sum.passed, sum.failed))
  return sum.failed == 0 and sum.passed > 0
end

return M
