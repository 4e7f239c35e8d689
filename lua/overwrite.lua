-- overwrite.lua: *Overwrite the existing default SMTP certificate?*
--
-- Yes: the new certificate becomes what the service presents to everyone.  No:
-- it is presented beside the default one, to the clients that ask for its names.
-- A service without a default one, or without a driver that tells, has no such
-- question.

local assignments = require "assignments"
local cert = require "core.cert"
local generation = require "core.generation"
local sni = require "sni"
local staging = require "staging"

local M = {}

-- The certificate that the service presents by default, if that is another one
-- and no stand-in.
local function existing(run, service)
  if not service.how.default or generation.current(service.dir, "current") == staging.STAND_IN then return nil end
  local settings = service.how.settings(service)
  if not (settings and settings.uses_current) then return nil end -- refused before there is a question
  local found = service.how.default(service)
  local list = found and cert.open(found.certificate)
  if list and list[1]:fingerprint() ~= run.material.wanted.fingerprint then return list[1] end
end

-- Whether the certificate, or the one that it renews, stands on the service
-- beside the default one, and only so.
local function stands_beside(run, service)
  local rows, message, code = assignments.on_service(run.context.db, service.name)
  if not rows then return nil, message, code end
  local beside, default = false, false
  for _, row in ipairs(rows) do
    if row.object_id == run.row.id or row.object_id == run.row.replaces then
      beside, default = beside or row.sni == 1, default or row.sni == 0
    end
  end
  return beside and not default
end

-- Whether the default certificate of a service is to be replaced, as far as that
-- is known: true, false, or "ask".
local function known(run, service)
  local options = run.options
  if options.overwrite or options.no_overwrite then return options.overwrite or false end
  local beside, message, code = stands_beside(run, service)
  if beside == nil then return nil, message, code end
  if beside then return false end
  return (run.context.yes or run.row.replaces) and true or "ask"
end

--- The default certificate of a service, where somebody has to be asked whether
-- to replace it.
-- @param run { context =, row =, material =, options = } as of a deployment
-- @return core.cert | false: there is no question | nil, message, code
function M.question(run, service)
  local there = existing(run, service)
  if not there then return false end
  local yes, message, code = known(run, service)
  if yes == nil then return nil, message, code end
  return yes == "ask" and there
end

-- Asks somebody, if there is somebody.
local function ask(run, service, there)
  if not run.options.ask then
    return nil, ("'%s' has a default certificate already (%s): say --overwrite to replace it with %s, or "
      .. "--no-overwrite to present that only to clients that ask for its names"):format(service.name,
      there:fingerprint():sub(1, 16), run.material.wanted.fingerprint:sub(1, 16)), "usage"
  end
  return run.options.ask(service, there, run.material.chain[1])
end

--- Asks what there is to ask about the services of a run.
-- @return true | nil, message, "usage" | "refused" | ...
function M.ask(run)
  if run.options.overwrite and run.options.no_overwrite then
    return nil, "--overwrite and --no-overwrite: give one of them", "usage"
  end
  run.answers = {}
  for _, service in ipairs(run.services) do
    local there, message, code = M.question(run, service)
    if there == nil then return nil, message, code end
    if there then
      local yes
      yes, message, code = ask(run, service, there)
      if yes == nil then return nil, message, code end
      run.answers[service.name] = { there = there:fingerprint(), yes = yes }
    end
  end
  return true
end

-- Whether the default certificate of a service is to be replaced; an answer holds
-- for the one that was asked about.
local function decide(run, service)
  local there = existing(run, service)
  if not there then return true end
  local yes, message, code = known(run, service)
  if yes ~= "ask" then return yes, message, code end
  local answer = run.answers[service.name]
  if answer and answer.there == there:fingerprint() then return answer.yes end
  return nil, ("the default certificate of '%s' was changed meanwhile; do it again"):format(service.name), "mismatch"
end

-- A certificate stands beside the default one where the driver has a table of
-- names, every service that shares the folder does the same, and it has a name.
local function check_beside(run, unit)
  for _, service in ipairs(unit.services) do
    local settings = service.how.settings(service)
    if not service.sni or not settings or settings.uses_sni == nil then
      return nil, ("'%s' cannot present a certificate for its own names only%s: say --overwrite"):format(service.name,
        #unit.services > 1 and ", or shares its folder with one that is not to" or ""), "unsupported"
    end
  end
  if #sni.names(run.material) > 0 then return true end
  return nil, ("the certificate has no name that a client could ask for: '%s' cannot present it beside its default one")
    :format(unit.services[1].name), "mismatch"
end

--- Decides for every service of a run, when nobody else can deploy any more:
-- those that keep their default certificate, and their units, get the field `sni`.
-- @return true | nil, message, "mismatch" | "unsupported" | ...
function M.decide(run)
  for _, unit in ipairs(run.units) do
    for _, service in ipairs(unit.services) do
      local yes, message, code = decide(run, service)
      if yes == nil then return nil, message, code end
      service.sni = not yes
      unit.sni = unit.sni or service.sni or nil
    end
    local ok, message, code = true, nil, nil
    if unit.sni then ok, message, code = check_beside(run, unit) end
    if not ok then return nil, message, code end
  end
  return true
end

return M
