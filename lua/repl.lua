-- repl.lua: a bare `certwright` on a terminal: explore what there is.
--
-- Line editing is readline's (Debian's lua-readline).  This file reads, runs
-- and shows; the program's streams are handed to it by cli.lua.

local file = require "core.file"
local interrupt = require "core.interrupt"
local pretty = require "pretty"

local M = {}

local PROMPT, MORE = "> ", ">> "
local KEPT = 1000 -- lines of history

local function traceback(problem)
  local lines = {}
  for line in debug.traceback(tostring(problem), 2):gmatch "[^\n]+" do
    if line:find "repl%.lua" or line:find "%[C%]: in function 'core" then break end
    lines[#lines + 1] = line
    if #lines == 8 then break end
  end
  if lines[#lines] == "stack traceback:" then lines[#lines] = nil end
  return table.concat(lines, "\n")
end

-- A chunk from what was typed, as an expression if it is one.
-- @return function | nil, message, whether more lines are needed
local function compile(source)
  local chunk = load("return " .. source, "=input", "t") or nil
  local message
  if not chunk then chunk, message = load(source, "=input", "t") end
  return chunk, message, message ~= nil and message:find "<eof>$" ~= nil
end

-- Where completion looks: the value that "a.b:" names, without running code.
local function resolve(path)
  local value = _G
  for name in path:gmatch "[^.:]+" do
    local meta = type(value) ~= "table" and getmetatable(value)
    if type(meta) == "table" and type(meta.__index) == "table" then value = meta.__index end
    if type(value) ~= "table" then return nil end
    value = rawget(value, name) or (value == _G.core and value[name]) or nil
  end
  return value
end

local function names_in(value)
  local meta = getmetatable(value)
  local names = {}
  for _, source in ipairs { type(value) == "table" and value or {}, type(meta) == "table" and meta.__index or {} } do
    if type(source) == "table" then
      for name in pairs(source) do
        if type(name) == "string" then names[#names + 1] = name end
      end
    end
  end
  if value == _G.core then table.move(M.modules, 1, #M.modules, #names + 1, names) end
  return names
end

--- The words that complete what stands before the cursor.
-- @param word as far as it was typed, with its dots
-- @return array of words, sorted, each once
function M.complete(word)
  local path, separator, start = word:match "^(.-)([.:]?)([%w_]*)$"
  local value = separator == "" and _G or resolve(path)
  local found, seen = {}, {}
  for _, name in ipairs(value ~= nil and names_in(value) or {}) do
    if name:sub(1, #start) == start and not seen[name] then
      seen[name] = true
      found[#found + 1] = path .. separator .. name
    end
  end
  table.sort(found)
  return found
end

-- Makes the history file, for its owner's eyes only, before it is written.
local function open_history(readline, path)
  if not file.stat(path) then
    if path:match "^(.*)/" then file.mkdirs(path:match "^(.*)/", 448) end -- 0700
    if not file.write(path, "", { mode = 384 }) then return end -- 0600
  end
  readline.set_options { histfile = path, keeplines = KEPT, auto_add = false, completion = true }
end

local function setup(readline, history)
  if history then open_history(readline, history) end
  readline.set_readline_name "certwright"
  readline.set_complete_function(function(text, from, to) return M.complete(text:sub(from, to)) end)
  readline.set_completion_append_character ""
end

-- Runs what was typed and shows what came of it.
-- @return whether more lines are needed
local function run(source, out)
  local chunk, message, more = compile(source)
  if more then return true end
  if not chunk then
    out.problem(message)
    return false
  end
  local results = table.pack(interrupt.run(chunk, traceback))
  if not results[1] then
    out.problem(tostring(results[2]))
  elseif results.n > 1 then
    out.value(pretty.results(table.pack(table.unpack(results, 2, results.n))))
  end
  return false
end

local ENDED = {} -- what the handler of lines raises at the end of input

-- A handler of lines for readline's callbacks.  It is never removed: Debian's
-- lua-readline 3.2 closes the terminal's stream before readline is done with
-- it there.  Installing it anew begins a new line, which is all that is needed.
local function handler(readline, options)
  local self = {}
  local source
  function self.prompt()
    readline.handler_install(source and MORE or PROMPT, self.line)
  end
  function self.abandon()
    source = nil
    options.value ""
    self.prompt()
  end
  function self.line(line)
    if line == nil then error(ENDED) end
    if line:find "%S" then readline.add_history(line) end
    local before = source
    source = source and source .. "\n" .. line or line
    if not run(source, options) then source = nil end
    if (before == nil) ~= (source == nil) then self.prompt() end
  end
  return self
end

--- Reads, runs and shows until the end of input.
-- @param options { history = path or nil, value = function(text), problem =
--   function(text), modules = names of core's modules }
function M.loop(options)
  local readline = require "readline"
  M.modules = options.modules
  setup(readline, options.history)
  interrupt.watch(true)
  local lines = handler(readline, options)
  lines.prompt()
  while true do
    if not interrupt.wait(0) then
      lines.abandon()
    else
      local ok, problem = pcall(readline.read_char)
      if not ok then
        if problem ~= ENDED then options.problem(tostring(problem)) end
        break
      end
    end
  end
  options.value ""
  interrupt.watch(false)
  if options.history then readline.save_history() end
end

return M
