--- Postfix: read and changed through its own `postconf` alone.  The way in is
-- `smtpd_tls_chain_files = <dir>/current/combined.pem`: one file, the key first,
-- so that what is read is always one generation.
--
-- `tls_server_sni_maps` names the table of the others, see snimap.lua.
--
-- Its `check` and `reload` never look at certificates: with a bad pair both end
-- with status 0, and TLS is gone.

local commandline = require "commandline"
local lfs = require "lfs"
local paths = require "paths"
local drivers = require "service"
local snimap = require "snimap"

local M = {
  summary = "Postfix mail server (SMTP)",
  fields = { config_directory = "string", program = "string" },
}

-- The settings of one key and one certificate for each algorithm, which Postfix
-- ignores, with a warning, where chain files are set.
local legacy = {
  smtpd_tls_cert_file = true, smtpd_tls_key_file = true, smtpd_tls_dcert_file = true,
  smtpd_tls_dkey_file = true, smtpd_tls_eccert_file = true, smtpd_tls_eckey_file = true,
}
local own_port = { smtp = 25, smtps = 465, submissions = 465, submission = 587 }

-- argv of one of Postfix's programs, with the service's configuration.
local function command(service, name, ...)
  local program = service.program or "postfix"
  local argv = { name == "postfix" and program or drivers.beside(program, name) }
  if service.config_directory then
    table.move({ "-c", service.config_directory }, 1, 2, 2, argv)
  end
  return table.move({ ... }, 1, select("#", ...), #argv + 1, argv)
end

-- Runs postconf; what it prints as "name = value" lines, as a table.
local function postconf(service, ...)
  local result, message, code = drivers.run(command(service, "postconf", ...))
  if not result then
    return nil, message, code
  end
  local values = {}
  for name, value in result.stdout:gmatch "([^\n]-) =[ \t]*([^\n]*)" do
    values[name] = value
  end
  return values
end

-- The settings of main.cf that matter here, defaults included, $names expanded.
local function main_settings(service)
  return postconf(service, "-x", "tls_server_sni_maps", "smtpd_tls_chain_files", "smtpd_tls_cert_file",
    "smtpd_tls_key_file", "smtpd_tls_security_level", "smtpd_tls_wrappermode", "smtpd_use_tls", "smtpd_enforce_tls",
    "myhostname", "inet_interfaces", "inet_protocols", "config_directory", "queue_directory", "process_id_directory")
end

local function uses_tls(settings)
  local level = settings.smtpd_tls_security_level
  if level ~= "" then
    return level ~= "none"
  end
  return settings.smtpd_use_tls == "yes" or settings.smtpd_enforce_tls == "yes"
end

-- The files that settings name, and the way if they are <dir>/current's.
local function certificate_of(service, settings)
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

-- The lines of master.cf that answer SMTP clients over the network with TLS: `at`
-- ("smtp", "127.0.0.1:10025"), `settings` (main.cf's with its own), `found`, `way`.
local function listeners(service, main)
  local services, message, code = drivers.run(command(service, "postconf", "-M", "*/inet"))
  if not services then
    return nil, message, code
  end
  local own
  own, message, code = postconf(service, "-x", "-P", "*/inet/*")
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
    entry.found, entry.way = certificate_of(service, entry.settings)
    if (program == "smtpd" or program == "postscreen") and uses_tls(entry.settings) then
      list[#list + 1] = entry
    end
  end
  return list
end

-- main.cf's settings, and the TLS listeners that this service is: those that use
-- <dir>/current, else all.
local function understand(service)
  local main, message, code = main_settings(service)
  if not main then
    return nil, message, code
  end
  local list
  list, message, code = listeners(service, main)
  if not list then
    return nil, message, code
  end
  return main, drivers.preferred(list, function(entry) return entry.way end)
end

-- The addresses where a client on this machine reaches inet_interfaces.
local function interfaces(settings)
  local list = {}
  for name in settings.inet_interfaces:gmatch "[^%s,]+" do
    if name == "all" or name == "loopback-only" then
      name = settings.inet_protocols == "ipv6" and "::1" or "127.0.0.1"
    end
    list[#list + 1] = name:find "^[^%[].*:" and "[" .. name .. "]" or name
  end
  return list
end

--- Where its SMTP servers that offer TLS are reached.
function M.endpoints(service)
  local main, list, code = understand(service)
  if not main then
    return nil, list, code
  end
  local endpoints = {}
  for _, entry in ipairs(list) do
    local host, name = entry.at:match "^(.*):([^:%]]+)$"
    local port = tonumber(name or entry.at) or own_port[name or entry.at]
    for _, address in ipairs(port and (host and { host } or interfaces(entry.settings)) or {}) do
      endpoints[#endpoints + 1] = ("%s://%s:%d"):format(entry.wrapped and "smtps" or "smtp", address, port)
    end
  end
  return drivers.once(endpoints)
end

-- What to name; Postfix's list of files has no quotes.
local function chain_file(service)
  return drivers.plain_path(service.dir .. "/current/combined.pem", "%s,${}#\"\\")
end

-- Whether all that answer clients read our table; nil: this Postfix has none.
local function uses_sni(service, main, list)
  if not main.tls_server_sni_maps then
    return nil
  end
  local all = snimap.is_in(service, main.tls_server_sni_maps)
  for _, entry in ipairs(list) do
    all = all and snimap.is_in(service, entry.settings.tls_server_sni_maps)
  end
  return all
end

-- The value of tls_server_sni_maps that names the table before what is there, as
-- it stands in main.cf.
local function sni_maps(service)
  local now, message, code = postconf(service, "-n", "tls_server_sni_maps")
  if not now then
    return nil, message, code
  end
  local others = now.tls_server_sni_maps or ""
  return snimap.of(service) .. (others ~= "" and ", " .. others or "")
end

--- What its configuration says of certificates.
function M.settings(service)
  local main, list, code = understand(service)
  if not main then
    return nil, list, code
  end
  local path, message
  path, message, code = chain_file(service)
  if not path then
    return nil, message, code
  end
  local said = { lines = { "smtpd_tls_chain_files = " .. path }, names = { main.myhostname },
                 where = main.config_directory .. "/main.cf" }
  if not uses_tls(main) then
    said.lines[2] = "smtpd_tls_security_level = may"
  end
  said.found, said.way = certificate_of(service, main)
  for _, entry in ipairs(list) do
    if entry.way and not said.way then
      said.found, said.way = entry.found, entry.way
    end
    said.names[#said.names + 1] = entry.settings.myhostname
  end
  said.names = drivers.once(said.names)
  said.uses_current = said.way ~= nil
  said.uses_sni = uses_sni(service, main, list)
  if said.uses_sni == false then
    local maps
    maps, message, code = sni_maps(service)
    if not maps then
      return nil, message, code
    end
    local words = command(service, "postconf", "-e", "tls_server_sni_maps = " .. maps)
    for i, word in ipairs(words) do
      words[i] = commandline.quote(word)
    end
    said.sni_command = table.concat(words, " ")
  end
  return said
end

--- The names that it calls itself by, and those it has certificates for in
-- tls_server_sni_maps.
function M.names(service)
  local main, list, code = understand(service)
  if not main then
    return nil, list, code
  end
  local names, message = {}, nil
  for _, settings in ipairs { main, table.unpack(list) } do
    settings = settings.settings or settings
    names[#names + 1] = settings.myhostname
    message = snimap.add_names(service, names, settings.tls_server_sni_maps) or message
  end
  return drivers.once(names), message
end

--- Beside combined.pem a generation has the table of the others.
function M.files(_, _, beside)
  return { sni = snimap.text(beside) }
end

--- The file that all clients get now that ask for no other name.
function M.default(service)
  local main = main_settings(service)
  local found = main and certificate_of(service, main)
  if found and lfs.attributes(found.certificate, "mode") == "file" then
    return { certificate = found.certificate }
  end
end

-- Sets (a value) or removes (false) settings of main.cf.
local function apply(service, values)
  local set, removed = {}, {}
  for name, value in pairs(values) do
    local list = value and set or removed
    list[#list + 1] = value and name .. "=" .. value or name
  end
  for option, list in pairs { ["-e"] = set, ["-X"] = removed } do
    local done, message, code = true, nil, nil
    if #list > 0 then
      done, message, code = drivers.run(command(service, "postconf", option, table.unpack(list)))
    end
    if not done then
      return nil, message, code
    end
  end
  return true
end

-- The new values for main.cf (false: to be removed) that name <dir>/current. A
-- legacy setting that another one refers to is left, since that would change too.
local function chain_changes(service, main, now, overrides)
  local after, text = {}, overrides
  for name, value in pairs(now) do
    text = text .. (legacy[name] and "" or value .. "\n")
  end
  for name in pairs(legacy) do
    if now[name] and not text:find("%$[{(]?" .. name .. "%f[^%w_]") then
      after[name] = false
    end
  end
  after.smtpd_tls_chain_files = chain_file(service)
  after.smtpd_tls_security_level = not uses_tls(main) and "may" or nil
  return after
end

-- All new values for main.cf, and what they replace.  The table of names is left
-- out while it is not there: Postfix would refuse every client that sends one.
local function changes(service, main, said)
  local result, message, code = drivers.run(command(service, "postconf", "-n"))
  local overrides = result and drivers.run(command(service, "postconf", "-P"))
  if not overrides then
    return nil, message, code
  end
  local now, after, before = {}, {}, {}
  for name, value in result.stdout:gmatch "([^\n]-) =[ \t]*([^\n]*)" do
    now[name] = value
  end
  if not said.uses_current then
    after = chain_changes(service, main, now, overrides.stdout)
  end
  if said.uses_sni == false and lfs.attributes(service.dir .. "/current/sni", "mode") == "file" then
    after.tls_server_sni_maps, message, code = sni_maps(service)
    if not after.tls_server_sni_maps then
      return nil, message, code
    end
  end
  for name in pairs(after) do
    before[name] = now[name] or false
  end
  return after, before
end

function M.adoptable(service)
  local said, message, code = M.settings(service)
  if not said then
    return nil, message, code
  end
  local _, list = understand(service)
  for _, entry in ipairs(said.uses_current and {} or list) do
    local own = rawget(entry.settings, "smtpd_tls_chain_files") or rawget(entry.settings, "smtpd_tls_cert_file")
    if own then
      return nil, ("'%s' in master.cf names a certificate of its own, '%s'; write by hand: -o %s"):format(
        entry.at, own, said.lines[1]:gsub(" ", "")), "unsupported"
    end
  end
  return true
end

--- Makes main.cf name <dir>/current/combined.pem and the table of names, and
-- nothing that this makes Postfix ignore; where TLS is off it becomes `may`, any
-- other level stays.
function M.adopt(service)
  local said, message, code = M.settings(service)
  if not said then
    return nil, message, code
  end
  local ok
  ok, message, code = M.adoptable(service)
  if not ok then
    return nil, message, code
  end
  local main = understand(service)
  local after, before
  after, before, code = changes(service, main, said)
  if not after then
    return nil, before, code
  end
  local done
  done, message, code = apply(service, after)
  if not done then
    apply(service, before)
    return nil, message, code
  end
  return { before = before, written = after.smtpd_tls_chain_files, sni = after.tls_server_sni_maps }
end

--- Puts main.cf back, unless somebody has named something else since.
function M.undo(service, record)
  if next(record.before) == nil then
    return true
  end
  local now, message, code = postconf(service, "-n", "smtpd_tls_chain_files", "tls_server_sni_maps")
  if not now then
    return nil, message, code
  end
  for name, written in pairs { smtpd_tls_chain_files = record.written, tls_server_sni_maps = record.sni } do
    if now[name] ~= written then
      return nil, ("%s was changed to '%s' since: change it by hand"):format(name,
        drivers.telling(now[name] or "")), "mismatch"
    end
  end
  return apply(service, record.before)
end

function M.check(service)
  return command(service, "postfix", "check")
end

function M.reload(service)
  return command(service, "postfix", "reload")
end

function M.restart(service)
  local own = service.config_directory or service.program
  return not own and drivers.systemctl "postfix" or command(service, "postfix", "start")
end

function M.pid(service)
  local main = main_settings(service)
  local folder = main and paths.join(main.queue_directory, main.process_id_directory)
  return folder and drivers.pid(folder .. "/master.pid")
end

return M
