--- Postfix's settings, read and changed through its own `postconf` alone: main.cf,
-- and what master.cf says of the lines that answer clients.

local drivers = require "service"

local M = {}

--- argv of one of Postfix's programs, with the service's configuration.
function M.command(service, name, ...)
  local program = service.program or "postfix"
  local argv = { name == "postfix" and program or drivers.beside(program, name) }
  if service.config_directory then
    table.move({ "-c", service.config_directory }, 1, 2, 2, argv)
  end
  return table.move({ ... }, 1, select("#", ...), #argv + 1, argv)
end

--- Runs postconf; what it prints as "name = value" lines, as a table.
-- @return table | nil, message, code
function M.read(service, ...)
  local result, message, code = drivers.run(M.command(service, "postconf", ...))
  if not result then
    return nil, message, code
  end
  local values = {}
  for name, value in result.stdout:gmatch "([^\n]-) =[ \t]*([^\n]*)" do
    values[name] = value
  end
  return values
end

--- The settings of main.cf that matter here, defaults included, $names expanded.
-- @return table | nil, message, code
function M.main(service)
  return M.read(service, "-x", "tls_server_sni_maps", "smtpd_tls_chain_files", "smtpd_tls_cert_file",
    "smtpd_tls_key_file", "smtpd_tls_security_level", "smtpd_tls_wrappermode", "smtpd_use_tls", "smtpd_enforce_tls",
    "myhostname", "inet_interfaces", "inet_protocols", "config_directory", "queue_directory", "process_id_directory")
end

--- Whether settings have TLS offered.
function M.uses_tls(settings)
  local level = settings.smtpd_tls_security_level
  if level ~= "" then
    return level ~= "none"
  end
  return settings.smtpd_use_tls == "yes" or settings.smtpd_enforce_tls == "yes"
end

--- The files that settings name, and the way if they are <dir>/current's.
-- @return { certificate =, key = } or nil, way or nil
function M.certificate_of(service, settings)
  local found
  for path in settings.smtpd_tls_chain_files:gmatch "[^%s,]+" do
    if drivers.in_current(service, path) then
      return { certificate = path, key = path }, "combined"
    end
    found = found or { certificate = path, key = path }
  end
  local certificate, key = settings.smtpd_tls_cert_file, settings.smtpd_tls_key_file
  if not found and certificate ~= "" then
    found = { certificate = certificate, key = key }
    if drivers.in_current(service, certificate) and drivers.in_current(service, key) then
      return found, "two paths"
    end
  end
  return found
end

--- The lines of master.cf that answer SMTP clients over the network with TLS: `at`
-- ("smtp", "127.0.0.1:10025"), `settings` (main.cf's with its own), `found`, `way`.
-- @param main main.cf's settings
-- @return array | nil, message, code
function M.listeners(service, main)
  local services, message, code = drivers.run(M.command(service, "postconf", "-M", "*/inet"))
  if not services then
    return nil, message, code
  end
  local own
  own, message, code = M.read(service, "-x", "-P", "*/inet/*")
  if not own then
    return nil, message, code
  end
  local list = {}
  for at, program in services.stdout:gmatch "(%S+)[ \t]+inet[ \t]+%S+[ \t]+%S+[ \t]+%S+[ \t]+%S+[ \t]+%S+[ \t]+(%S+)" do
    local entry = { at = at, settings = setmetatable({}, { __index = main }) }
    for name, value in pairs(own) do
      local of, setting = name:match "^(.*)/inet/(.*)$"
      if of == at then
        entry.settings[setting] = value
      end
    end
    entry.wrapped = entry.settings.smtpd_tls_wrappermode == "yes"
    entry.found, entry.way = M.certificate_of(service, entry.settings)
    if (program == "smtpd" or program == "postscreen") and M.uses_tls(entry.settings) then
      list[#list + 1] = entry
    end
  end
  return list
end

--- Sets (a value) or removes (false) settings of main.cf.
-- @return true | nil, message, code
function M.apply(service, values)
  local set, removed = {}, {}
  for name, value in pairs(values) do
    local list = value and set or removed
    list[#list + 1] = value and name .. "=" .. value or name
  end
  for option, list in pairs { ["-e"] = set, ["-X"] = removed } do
    local done, message, code = true, nil, nil
    if #list > 0 then
      done, message, code = drivers.run(M.command(service, "postconf", option, table.unpack(list)))
    end
    if not done then
      return nil, message, code
    end
  end
  return true
end

return M
