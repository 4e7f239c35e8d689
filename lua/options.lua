-- options.lua: a script's declared options -> argparse -> a plain table.
--
-- A script declares each option once, as
--   { "--domain", "a name the certificate covers", argument = "D", many = true }
--   { "--wildcard", "ask for *.D only" }                        a switch
--   { "id", "id or name", argument = "ID", optional = true }    a positional
-- further fields: choices = {...}, convert = function, secret = true, empty =
-- true where '' is a value.
-- Help, completion and questions come from this declaration.

local argparse = require "argparse"

local M = {}

local GLOBALS = "Options of every command, such as --json and --dry-run: certwright help"

--- The key an option has in the parsed arguments: "--state-name" -> state_name.
function M.key(option)
  return (option[1]:gsub("^%-+", ""):gsub("%-", "_"))
end

local function add_positional(parser, option)
  local positional = parser:argument(M.key(option), option[2])
  if option.many then
    positional:args(option.optional and "*" or "+")
  elseif option.optional then
    positional:args "?"
  end
  if option.argument then positional:argname("<" .. option.argument .. ">") end
end

local function add_option(parser, option)
  if not option.argument then
    parser:flag(option[1], option[2]):target(M.key(option))
    return
  end
  local named = parser:option(option[1], option[2]):target(M.key(option))
  named:argname(option.argument)
  if option.many then named:count "*" end
  if option.choices then named:choices(option.choices) end
  if option.convert then
    named:convert(function(word)
      local value, message = option.convert(word)
      if value == nil then return nil, ("%s: %s"):format(option[1], message) end
      return value
    end)
  end
end

--- Turns "a,b" into { "a", "b" }, for options that take a list.
function M.list(text)
  local items = {}
  for item in text:gmatch "[^,%s]+" do items[#items + 1] = item end
  if #items == 0 then return nil, "expected a list such as web,smtp" end
  return items
end

--- Turns "30" into 30; refuses anything else.
function M.number(text)
  local number = math.tointeger(tonumber(text))
  if not number or number < 0 then return nil, ("'%s' is not a whole number"):format(text) end
  return number
end

local function parser_for(script, command)
  local name = "certwright " .. script.name
  if command and command ~= script then name = name .. " " .. command.name end
  local subject = command or script
  local parser = argparse(name, subject.summary):add_help(false)
  parser:usage_max_width(78):help_max_width(78):help_description_margin(30)
  for _, option in ipairs(subject.options or {}) do
    if option[1]:sub(1, 1) == "-" then
      add_option(parser, option)
    else
      add_positional(parser, option)
    end
  end
  return parser
end

-- What argparse says, in our words: with the name that help shows.
local function complaint(said, script, command)
  local name = command == script and script.name or script.name .. " " .. command.name
  local missing, takes, several = said:match "^missing argument '(.-)'$", {}, nil
  for _, option in ipairs(command.options or {}) do
    if option[1] == missing then
      said = ("%s needs %s: %s"):format(name, option.argument, option[2])
    elseif option[1]:sub(1, 1) ~= "-" then
      takes[#takes + 1] = option.argument
    elseif option.many or option.convert == M.list then -- such values are easily given without their option
      several = several or ("%s %s"):format(option[1], option.argument)
    end
  end
  if said == "too many arguments" then
    local joined = #takes > 0 and table.concat(takes, " ") or "none"
    if several then joined = ("%s%s %s"):format(joined, #takes > 0 and ", and" or ", but", several) end
    said = ("too many arguments: %s takes %s"):format(name, joined)
  end
  said = said:gsub("\nDid you mean (.-)%?$", " (did you mean %1?)")
  return ("%s; see certwright help %s"):format(said, script.name)
end

local function holds_empty(values)
  for _, value in ipairs(values) do
    if value == "" then return true end
  end
  return false
end

--- Parses a command's arguments.
-- @return a table by option key | nil, message
function M.parse(script, command, arguments)
  local parser = parser_for(script, command)
  for _, argument in ipairs(arguments) do
    if argument == "--" then -- else argparse takes it for the end of a positional, too
      parser:flag("--"):hidden(true):target "--"
      break
    end
  end
  local ok, parsed = parser:pparse(arguments)
  if not ok then
    return nil, complaint(parsed, script, command)
  end
  for _, option in ipairs(command.options or {}) do
    local key = M.key(option)
    if option.many then parsed[key] = parsed[key] or {} end
    if not option.empty and (parsed[key] == "" or option.many and holds_empty(parsed[key])) then
      return nil, ("%s needs a value that is not empty"):format(option[1])
    end
  end
  return parsed
end

--- The help text of a script, or of one of its commands.
function M.help(script, command)
  if script.commands and not command then
    local lines = { ("Usage: certwright %s COMMAND ..."):format(script.name), "", script.summary, "", "Commands:" }
    for name, entry in M.sorted(script.commands) do
      lines[#lines + 1] = ("   %-12s %s"):format(name, entry.summary)
    end
    lines[#lines + 1] = ("\ncertwright help %s COMMAND explains one."):format(script.name)
    return table.concat(lines, "\n")
  end
  local parts = { parser_for(script, command):get_help(), (command or script).notes, GLOBALS }
  if not parts[2] then table.remove(parts, 2) end
  return table.concat(parts, "\n\n")
end

--- Like pairs, in the order of the keys.
function M.sorted(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) then return a < b end
    return type(a) < type(b)
  end)
  local i = 0
  return function()
    i = i + 1
    return keys[i], t[keys[i]]
  end
end

return M
