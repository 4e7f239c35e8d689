-- repl.lua: a bare `certwright` on a terminal: explore what there is.
--
-- Line editing is readline's (Debian's lua-readline).  This file reads, runs
-- and shows; the program's streams are handed to it by command.lua.

local history = require "history"
local interrupt = require "core.interrupt"
local pretty = require "pretty"
local suggestions = require "suggestions"
local text = require "text"

local M = {}

local PROMPT, MORE = "> ", ">> "
local FRAMES = 8 -- lines of a traceback

-- What an error holds, and where it was raised, without the prompt's own frames.
local function traceback(problem)
  local lines = { type(problem) == "string" and problem or pretty.show(problem) }
  for line in debug.traceback("", 2):gmatch "[^\n]+" do
    if line:find "repl%.lua" or line:find "%[C%]: in function 'core" or #lines == FRAMES then break end
    lines[#lines + 1] = line
  end
  if lines[#lines] == "stack traceback:" then lines[#lines] = nil end
  return table.concat(lines, "\n")
end

-- Whether more lines could make a chunk of what is none yet.  A string that ends
-- with its line cannot be gone on with, unless its line end is escaped.
local function is_unfinished(source, message)
  if not message:find "<eof>$" then return false end
  return not message:find("unfinished string", 1, true) or source:find "\\z?%s*$" ~= nil
end

-- A chunk from what was typed, as an expression if it is one.
-- @return function | nil, message, whether more lines are needed
local function compile(source)
  local chunk = load("return " .. source, "=input", "t") or nil
  local message
  if not chunk then chunk, message = load(source, "=input", "t") end
  return chunk, message, message ~= nil and is_unfinished(source, message)
end

-- Runs a chunk and shows what came of it.
local function run(chunk, out)
  local results = table.pack(interrupt.run(chunk, traceback, true))
  if not results[1] then
    out.problem(text.escape_lines(tostring(results[2])))
  elseif results.n > 1 then
    local shown = table.pack(interrupt.run(function()
      return pretty.results(table.pack(table.unpack(results, 2, results.n)))
    end, traceback, true))
    if shown[1] then out.value(shown[2]) else out.problem(text.escape_lines(tostring(shown[2]))) end
  end
end

-- The library reads the history of other programs when it is loaded, and says
-- something where there is no home: it finds neither.
-- @return the library | nil, message, "missing"
local function load_readline()
  local system, getenv = _G.os, os.getenv
  system.getenv = function(name) return name == "HOME" and "/nonexistent" or getenv(name) end
  local ok, readline = pcall(require, "readline")
  system.getenv = getenv
  if ok then return readline end
  return nil, "the prompt needs a library that edits lines: apt-get install lua-readline (certwright help lists the "
    .. "commands, certwright -e CODE runs a line of Lua)", "missing"
end

local function setup(readline, options)
  local kept, message
  if options.history then kept, message = history.open(options.history) end
  if message then options.problem("the history is not kept: " .. text.escape_lines(message)) end
  readline.set_options { auto_add = false, completion = true }
  readline.set_readline_name "certwright"
  for _, line in ipairs(kept and kept.lines or {}) do readline.add_history(line) end
  readline.set_complete_function(function(line, from, to)
    readline.set_completion_append_character "" -- readline forgets it each time
    return suggestions.words(line:sub(1, to), from, options)
  end)
  return kept
end

local ENDED = {} -- what the handler of lines raises at the end of input

-- A handler of lines for readline's callbacks.  It is never removed: Debian's
-- lua-readline 3.2 closes the terminal's stream before readline is done with
-- it there.  Installing it anew begins a new line, which is all that is needed.
local function handler(readline, options, kept)
  local self = {}
  local source -- of an input that is not finished
  local last   -- the line before

  function self.prompt()
    readline.handler_install(source and MORE or PROMPT, self.line)
  end

  function self.abandon()
    source = nil
    options.value ""
    self.prompt()
  end

  local function keep(input)
    local ok, message = true, nil
    if kept and input:find "%S" then ok, message = kept:add(input) end
    if ok then return end
    kept = nil
    options.problem("the history is not kept any more: " .. text.escape_lines(message))
  end

  local function take(line)
    if line:find "%S" and line ~= last then readline.add_history(line) end
    last = line
    local input = source and source .. "\n" .. line or line
    local chunk, message, more = compile(input)
    source = more and input or nil
    if more then return end
    keep(input)
    if chunk then run(chunk, options) else options.problem(text.escape_lines(message)) end
  end

  -- The end of input leaves what is not finished, then the program.
  local function finish()
    if not source then error(ENDED) end
    local _, message = compile(source)
    source = nil
    options.problem("\n" .. text.escape_lines(message))
    self.prompt()
  end

  function self.line(line)
    if line == nil then return finish() end
    local before = source
    local ok, message = pcall(take, line)
    if not ok then
      source = nil
      options.problem(text.escape_lines(tostring(message)))
    end
    if (before == nil) ~= (source == nil) then self.prompt() end
  end

  return self
end

--- Reads, runs and shows until the end of input.
-- @param options { greeting = text, history = path or nil, value = function(text),
--   problem = function(text), modules = names of core's modules, topics =
--   function -> what help takes as text, as keys }
-- @return true | nil, message, code
function M.loop(options)
  local readline, message, code = load_readline()
  if not readline then return nil, message, code end
  options.value(options.greeting)
  local kept = setup(readline, options)
  interrupt.watch(true)
  local lines = handler(readline, options, kept)
  lines.prompt()
  while true do
    if not interrupt.wait(0) then
      lines.abandon()
    else
      local ok, problem = pcall(readline.read_char)
      if not ok then
        if problem ~= ENDED then options.problem(text.escape_lines(tostring(problem))) end
        break
      end
    end
  end
  options.value ""
  interrupt.watch(false)
  return true
end

return M
