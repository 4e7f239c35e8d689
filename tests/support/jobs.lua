--- Runs spec files side by side, each in a process of its own: what one of them
-- leaves behind, or dies of, is nothing to the others.  Files with failures are
-- run once more, alone: a machine that others load as well is no reason to fail.

local file = require "core.file"
local host = require "core.host"
local process = require "core.process"
local lfs = require "lfs"

local LONGEST = 900 -- seconds for one file
local MOST_AGAIN = 4 -- files: more failures than that are no accident

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

-- What a file's process said, and what it counted.
local function result_of(job)
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
  local is_skipped = tonumber(passed) == 0 and ended.status == 1 and said:find "^skipped " ~= nil
  if ended.status ~= 0 and tonumber(failed) == 0 and not is_skipped then
    failed = 1
    said = ("%sFAILED %s ended with status %s after %d tests\n"):format(said, job.path, ended.status, passed)
  end
  return { path = job.path, said = said, passed = tonumber(passed), failed = tonumber(failed) }
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

-- Runs files, so many at once; calls done(result) for each that has ended.
local function run_all(what, files, limit, done)
  local folder = assert(process.run { "mktemp", "-d" }).stdout:match "%S+"
  local running, next_one = {}, 1
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
        local result = result_of(job)
        io.stdout:write(result.said)
        io.stdout:flush()
        done(result)
      end
    end
    host.sleep(0.02)
  end
  process.run { "rm", "-rf", "--", folder }
end

--- Runs the specs below some roots.
-- @param what { runner = path of run.lua, roots = paths, options = what the
--   runner is given beside a file, jobs = how many at once or nil, shuffle = seed }
-- @return whether all passed
function M.run(what)
  local files, again, passed, failed = {}, {}, 0, 0
  for _, root in ipairs(what.roots) do collect(root, files) end
  order(files, what.shuffle)
  local limit = what.jobs or processors() + 1 -- they wait for servers, mostly
  local function count(result) passed, failed = passed + result.passed, failed + result.failed end
  run_all(what, files, limit, function(result)
    if result.failed > 0 then again[#again + 1] = result else count(result) end
  end)
  if #again > MOST_AGAIN then
    for _, result in ipairs(again) do count(result) end
  else
    run_all(what, again, 1, function(result)
      count(result)
      io.stdout:write(("       %s alone, after a failure: %s\n"):format(result.failed == 0 and "passed" or "FAILED",
        result.path))
    end)
  end
  io.stdout:write(("%d passed, %d failed\n"):format(passed, failed))
  return failed == 0 and passed > 0
end

return M
