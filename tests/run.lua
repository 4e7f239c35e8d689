-- Runs the specs with busted inside the program, where core.* is:
--   ./certwright tests/run.lua [--filter PATTERN] [--shuffle[=SEED]] [--verbose] [--jobs N] [FILE or FOLDER...]
-- Without files: all of tests/.  Each file has a process of its own, some at a
-- time (tests/support/jobs.lua); a single file runs in this one.  The last line is "N passed, N failed"; exit status 1 when
-- anything failed or nothing ran.

local busted = require "busted.core"()
require "busted"(busted)
require "busted.languages.en"

local folder = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" or "."
local files, filter, shuffle, seed, verbose, jobs = {}, nil, false, os.time(), false, nil
local arguments, index = { ... }, 1
while arguments[index] do
  local argument = arguments[index]
  if argument == "--filter" and arguments[index + 1] then
    index = index + 1
    filter = arguments[index]
  elseif argument == "--jobs" and arguments[index + 1] then
    index = index + 1
    jobs = assert(math.tointeger(tonumber(arguments[index])), "--jobs takes a number")
  elseif argument == "--shuffle" or argument:find "^%-%-shuffle=%d+$" then
    shuffle, seed = true, tonumber(argument:match "%d+") or seed
  elseif argument == "--verbose" then
    verbose = true
  elseif argument:find "^%-" then
    error("unknown option or missing value: " .. argument, 0)
  else
    files[#files + 1] = argument
  end
  index = index + 1
end

if #files ~= 1 or not files[1]:find "%.lua$" then
  local words = { filter and "--filter", filter, shuffle and "--shuffle=" .. seed or nil, verbose and "--verbose" or nil }
  local given = {}
  for i = 1, 4 do given[#given + 1] = words[i] or nil end
  local good = dofile(folder .. "/support/jobs.lua").run {
    runner = folder .. "/run.lua", roots = #files > 0 and files or { folder }, options = given, jobs = jobs,
    shuffle = shuffle and seed,
  }
  os.exit(good, true)
end

local passed, failed, before, clock = 0, 0, 0, 0
local function say(...)
  io.stdout:write(string.format(...), "\n")
  io.stdout:flush()
end

local function full_name(element)
  local names = {}
  while element and element.descriptor and element.descriptor ~= "suite" do
    table.insert(names, 1, element.name or element.descriptor)
    element = busted.context.parent(element)
  end
  return table.concat(names, " > ")
end

-- Hooks and files that fail count, but for before_each: its test counts.
local function complain(element, _, message, trace)
  local descriptor = element.descriptor
  if descriptor ~= "it" and descriptor ~= "before_each" then
    failed = failed + 1
  end
  say("FAILED %s\n%s", full_name(element), tostring(message):gsub("^", "  "):gsub("\n", "\n  "))
  if verbose and trace and trace.traceback then
    say("%s", trace.traceback)
  end
  return nil, true
end

busted.subscribe({ "failure" }, complain)
busted.subscribe({ "error" }, complain)
busted.subscribe({ "test", "start" }, function(element)
  if verbose then
    say("run    %s", full_name(element))
  end
  return nil, true
end)
busted.subscribe({ "test", "end" }, function(element, _, status)
  if status == "success" then
    passed = passed + 1
  elseif status == "pending" then
    say("skipped %s", full_name(element))
  else
    failed = failed + 1
  end
  return nil, true
end)
busted.subscribe({ "file", "start" }, function()
  before, clock = passed, busted.monotime()
  return nil, true
end)
busted.subscribe({ "file", "end" }, function(element)
  if passed > before then
    say("%4d passed in %5.1f s  %s", passed - before, busted.monotime() - clock, element.name)
  end
  return nil, true
end)

if filter then
  require "busted.modules.filter_loader"()(busted, { filter = { filter } })
end
if shuffle then
  say("shuffled: --shuffle=%d", seed)
  busted.randomize, busted.randomseed = true, seed
end
local load_files = require "busted.modules.test_file_loader"(busted, { "lua" })
load_files(files, { "_spec%.lua$" }, { excludes = {}, recursive = true })
require "busted.execute"(busted)(1, { seed = seed, shuffle = shuffle })

say("%d passed, %d failed", passed, failed)
os.exit(failed == 0 and passed > 0, true)
