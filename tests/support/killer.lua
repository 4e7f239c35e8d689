--- kill -9 at a journaled stage of a deployment, or just before the next one.
--
-- The program has no hook for this: the site's own lua/assignments.lua shadows
-- the shipped one, loads it, and kills its process where the site's file `kill`
-- says so.

local assert = require "luassert"
local deploy = require "deploy"
local file = require "core.file"

local M = {}

local SHADOW = [[
local file, generation, host = require "core.file", require "core.generation", require "core.host"
local M = assert(require("loader").file "HOME/lua/assignments.lua")()
local wanted = file.read "SITE/kill" or ""
local entered, begin, stage, finish, remove = nil, M.begin, M.stage, M.finish, generation.remove

local function entering(name)
  if entered and wanted == "after " .. entered then host.signal(host.pid(), "KILL") end
  return name
end

local function have_entered(name)
  entered = name
  local trace <close> = assert(io.open("SITE/trace", "a"))
  trace:write(name, "\n")
  trace:flush()
  if wanted == "at " .. name then host.signal(host.pid(), "KILL") end
end

function M.begin(...)
  local id, message, code = begin(...)
  have_entered "begin"
  return id, message, code
end

function M.stage(db, id, name)
  entering(name)
  local done, message, code = stage(db, id, name)
  have_entered(name)
  return done, message, code
end

function M.finish(...)
  entering "finish"
  entered = "finish"
  return finish(...)
end

function generation.remove(...) -- the first thing that is done after the end of the journal
  if entered == "finish" then entering "nothing" end
  return remove(...)
end

return M
]]

--- Puts the shadow into a lab's site.
function M.shadow(lab)
  local program = assert(file.link "/proc/self/exe")
  assert(file.mkdirs(lab.site_path .. "/lua", tonumber("755", 8)))
  deploy.write(lab.site_path .. "/lua/assignments.lua", (SHADOW:gsub("%u+", {
    HOME = program:match "^(.*)/", SITE = lab.site_path })))
end

--- Runs a command that kills itself `at` a stage, or `after` it.
function M.run(lab, where, ...)
  deploy.write(lab.site_path .. "/kill", where)
  local result = lab:run(...)
  assert(file.remove(lab.site_path .. "/kill"))
  assert.equal(9, result.signal, result.stderr)
end

return M
