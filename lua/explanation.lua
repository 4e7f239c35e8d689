-- explanation.lua: what help(VALUE) says at the prompt: of a function what is
-- written above its definition, of a module or an object what it has, of a
-- command its help.

local file = require "core.file"
local options = require "options"
local reference = require "reference"
local scripts = require "scripts"

local M = {}

local GENERAL = [[
core             the primitives: help(core), help(core.cert)
certificates     what `certwright list` shows; certificates[1] is one of them,
                 certificates["mail.contoso.com"] as well
services         the site's services; services.web is one of them
probe(URL, NAME) a handshake: probe "https://127.0.0.1:443"
help(VALUE)      what is written about a function, module or object:
                 help(core.cert.parse), help "cert:covers" of a method,
                 help "enroll" of a command
A value is shown as it is typed.  Tab completes.  Ctrl-C leaves the line, or
ends what runs; pressed again, also what does not let itself be ended.  Ctrl-D
ends.  What begins with a blank is not kept in the history.]]

local NOTHING = "there is nothing written about that; help() says what there is"

-- Objects by the name of their kind: that in the registry without "core.", but for:
local KINDS = { store = "db" }

local function kinds()
  local list = {}
  for name, meta in pairs(debug.getregistry()) do
    local kind = type(name) == "string" and type(meta) == "table" and name:match "^core%.(.+)$"
    if kind and type(meta.__index) == "table" then list[#list + 1] = { name = KINDS[kind] or kind, meta = meta } end
  end
  return list
end

-- A function of Lua's own, such as "string.format".
local function language_name(value)
  for name, module in pairs(package.loaded) do
    for _, known in ipairs { "_G", "coroutine", "debug", "io", "math", "os", "package", "string", "table", "utf8" } do
      for member, found in pairs(name == known and module or {}) do
        if found == value and debug.getinfo(value, "S").what == "C" then
          return name == "_G" and member or name .. "." .. member
        end
      end
    end
  end
end

local function of_function(home, modules, value)
  for _, module in ipairs(modules) do
    local loaded = package.loaded["core." .. module]
    for name, member in pairs(type(loaded) == "table" and loaded or {}) do
      if member == value then return reference.of_c(home, module .. "." .. name) end
    end
  end
  for _, kind in ipairs(kinds()) do
    for name, member in pairs(kind.meta.__index) do
      if member == value then return reference.of_c(home, kind.name .. ":" .. name) end
    end
  end
  local name = language_name(value)
  if name then return reference.of_language(name) end
  return reference.of_lua(value)
end

local function signatures(home, owner)
  local lines = reference.signatures(home, owner)
  return #lines > 0 and table.concat(lines, "\n") or nil
end

-- What the head of a Lua module's file says.
local function of_module(name)
  local path = package.searchpath(name, package.path)
  local source = path and file.read(path)
  local lines = {}
  for line in (source or ""):gmatch "[^\n]*" do
    if not line:find "^%-%-" then break end
    lines[#lines + 1] = line:gsub("^%-%-%-?%s?", "")
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

local function of_table(home, modules, value)
  if value == _G.core then
    return ("core has: %s\nhelp(core.cert) says what one has"):format(table.concat(modules, ", "))
  end
  for name, module in pairs(package.loaded) do
    if module == value then
      return signatures(home, name:match "^core%.(.+)$" or "") or of_module(name)
    end
  end
end

local function of_script(context, words)
  local name, part = words:match "^(%S+)%s*(%S*)$"
  if not name or not scripts.find(context, name) then return nil end
  local script = scripts.load(context, name)
  local command = script and scripts.command(script, { part })
  if not script or part ~= "" and not script.commands then return nil end
  return options.help(script, command)
end

-- What a name stands for that is written as in Lua: "string.format".
local function named(words)
  local value = _G
  for name in words:gmatch "[^.]+" do
    if type(value) ~= "table" then return nil end
    value = value == _G.core and value[name] or rawget(value, name)
  end
  return value
end

local function of_text(context, modules, words)
  words = words:match "^%s*(.-)%s*$"
  local plain = words:gsub("^core%.", "")
  local found = of_script(context, words) or reference.of_c(context.home, plain) or signatures(context.home, plain)
  local value = not found and named(words)
  if value and type(value) ~= "string" then return M.of(context, modules, value) end
  return found or words:find "^[%a_][%w_.]*$" and of_module(words) or nil
end

--- What is written about a value, or in general.
-- @param modules the names of core's modules
function M.of(context, modules, value)
  local kind, found = type(value), nil
  if kind == "nil" then return GENERAL end
  if kind == "string" then
    found = of_text(context, modules, value)
  elseif kind == "function" then
    found = of_function(context.home, modules, value)
  elseif kind == "table" then
    found = of_table(context.home, modules, value)
  elseif kind == "userdata" then
    for _, entry in ipairs(kinds()) do
      if entry.meta == debug.getmetatable(value) then found = signatures(context.home, entry.name) end
    end
  end
  return found or NOTHING
end

--- What help takes as text, as keys: commands, core's functions, objects' methods.
function M.topics(context)
  local topics = {}
  for _, name in ipairs(scripts.names(context)) do topics[name] = true end
  for _, name in ipairs(reference.names(context.home)) do topics[name] = true end
  return topics
end

return M
