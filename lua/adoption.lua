-- adoption.lua: makes a service's own configuration name <dir>/current/.
--
-- What the service presents now becomes the first generation, so that its
-- configuration is right at every instant, and the first assignment can be put
-- back.  The service's own tool or a drop-in file does the change.

local assignments = require "assignments"
local cert = require "core.cert"
local file = require "core.file"
local generation = require "core.generation"
local invocation = require "invocation"
local json = require "json"
local key = require "core.key"
local recovery = require "recovery"
local servant = require "servant"
local staging = require "staging"

local M = {}

local FOUND = "found" -- the generation that is made of what was there

-- The pair that the service's configuration names now.
local function found_material(found)
  local list, message, code = cert.open(found.certificate)
  if not list then return nil, message, code end
  local secret
  secret, message, code = key.open(found.key or found.certificate)
  if not secret then return nil, message, code end
  return { chain = list, key = secret, fields = list[1]:fields() }
end

-- A pair for a service that has none: self-signed, until the first assignment.
local function placeholder(service)
  local name = service.domain_names[1] or require("core.host").name()
  local secret, message, code = key.generate "ec:P-256"
  if not secret then return nil, message, code end
  local now = os.time()
  local certificate
  certificate, message, code = cert.issue {
    key = secret, public = secret, subject = { CN = name:sub(1, 64) }, domains = { name }, not_before = now - 300,
    not_after = now + 30 * 86400, key_usage = { "digitalSignature" }, extended_key_usage = { "serverAuth" },
  }
  if not certificate then return nil, message, code end
  return { chain = { certificate }, key = secret, fields = certificate:fields() }
end

-- Makes <dir>/current when there is none.  What stands in is named so that the
-- first assignment need not ask whether to replace it.
local function seed(context, service, settings)
  if generation.current(service.dir, "current") then return true end
  local ok, message, code = staging.check_folder(service.dir)
  if not ok then return nil, message, code end
  local material, name
  if settings.found and settings.found.certificate then
    material, message, code = found_material(settings.found)
    name = FOUND
  else
    material, message, code = placeholder(service)
    name = staging.STAND_IN
    context:say("'%s' has no certificate yet: a self-signed one stands in until the first assignment", service.name)
  end
  if not material then return nil, message, code end
  local unit = { dir = service.dir, services = { service }, new = name }
  if file.stat(service.dir .. "/" .. name) then
    ok, message, code = generation.remove(service.dir, name)
    if not ok then return nil, message, code end
  end
  ok, message, code = staging.write(unit, material)
  if ok then ok, message, code = generation.switch(service.dir, "current", name) end
  return ok, message, code
end

-- What was changed in a service's configuration so far, the last first.
local function records_of(context, service)
  local record, message, code = assignments.adoption(context.db, service.name)
  if not record and message and code then return nil, message, code end
  return record and record.records or {}
end

local function remember(context, service, records)
  local record = #records > 0 and { records = json.array(records) } or nil
  return assignments.remember_adoption(context.db, service.name, record)
end

local function take_back(context, service, records, message, code)
  local ok, why = service.how.undo(service, table.remove(records, 1))
  if not ok then return nil, ("%s; and it could not be undone: %s"):format(message, why), "unrestored" end
  remember(context, service, records)
  servant.reload { services = { service } }
  return nil, message .. "; the configuration is as before", code
end

-- What a dry run says, in the order in which it would be done.
local function explain(context, service, settings)
  if not generation.current(service.dir, "current") then
    context:say("would make %s/current of %s", service.dir, settings.found and settings.found.certificate
      or "a self-signed certificate, until the first assignment")
  end
  if service.how.adoptable then
    local ok, message, code = service.how.adoptable(service)
    if not ok then return nil, message, code end
  end
  if not settings.uses_current then
    context:say("would have '%s' name %s/current/: in %s:\n  %s", service.name, service.dir,
      settings.where or "its configuration", table.concat(settings.lines, "\n  "))
  end
  if settings.sni_command then context:say("would run:\n  %s", settings.sni_command) end
  context:say("would check the configuration of '%s' and reload it", service.name)
  return true
end

local function adopt(context, service)
  local settings, message, code = service.how.settings(service)
  if not settings then return nil, message, code end
  local is_there = generation.current(service.dir, "current")
  if settings.uses_current and (settings.uses_sni ~= false or not is_there) then
    context:say("'%s' names %s/current/ already", service.name, service.dir)
    return true
  end
  if context.dry_run then return explain(context, service, settings) end
  local ok
  ok, message, code = seed(context, service, settings)
  if not ok then return nil, message, code end
  local records
  records, message, code = records_of(context, service)
  if not records then return nil, message, code end
  local record
  record, message, code = service.how.adopt(service)
  if not record then return nil, message, code end
  table.insert(records, 1, record)
  ok, message, code = remember(context, service, records)
  if not ok then return take_back(context, service, records, message, code) end
  local unit = { dir = service.dir, services = { service } }
  ok, message, code = servant.check(unit)
  if not ok then return take_back(context, service, records, message, code) end
  if service.how.pid(service) then
    ok, message, code = servant.reload(unit)
    if not ok then return take_back(context, service, records, message, code) end
  end
  context:say("'%s' now names %s/current/", service.name, service.dir)
  context:say("to undo: %s", invocation.suggest("adopt %s --undo", service.name))
  return true
end

local function undo(context, service)
  local records, message, code = records_of(context, service)
  if not records then return nil, message, code end
  if #records == 0 then
    return nil, ("there is nothing to undo: '%s' was not adopted by certwright"):format(service.name), "missing"
  end
  if context.dry_run then
    context:say("would put back the configuration of '%s', check it and reload it", service.name)
    return true
  end
  local ok
  while #records > 0 do
    ok, message, code = service.how.undo(service, table.remove(records, 1))
    if ok then ok, message, code = remember(context, service, records) end
    if not ok then return nil, message, code end
  end
  local unit = { dir = service.dir, services = { service } }
  ok, message, code = servant.check(unit)
  if ok and service.how.pid(service) then ok, message, code = servant.reload(unit) end
  if not ok then return nil, "the configuration is put back, but " .. message, code end
  return true
end

--- Adopts a service; one that is adopted already is left alone.
-- @return true | nil, message, code
function M.adopt(context, service)
  return recovery.alone(context, function() return adopt(context, service) end)
end

--- Puts a service's own configuration back.
-- @return true | nil, message, "missing" | ...
function M.undo(context, service)
  return recovery.alone(context, function() return undo(context, service) end)
end

return M
