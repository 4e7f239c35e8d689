--- Postfix, by what postconf.lua reads and changes.  The way in is
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
local postconf = require "postconf"
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

-- main.cf's settings, and the TLS listeners that this service is: those that use
-- <dir>/current, else all.
local function understand(service)
  local main, message, code = postconf.main(service)
  if not main then
    return nil, message, code
  end
  local list
  list, message, code = postconf.listeners(service, main)
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
  local now, message, code = postconf.read(service, "-n", "tls_server_sni_maps")
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
  if not postconf.uses_tls(main) then
    said.lines[2] = "smtpd_tls_security_level = may"
  end
  said.found, said.way = postconf.certificate_of(service, main)
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
    local words = postconf.command(service, "postconf", "-e", "tls_server_sni_maps = " .. maps)
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
  local main = postconf.main(service)
  local found = main and postconf.certificate_of(service, main)
  if found and lfs.attributes(found.certificate, "mode") == "file" then
    return { certificate = found.certificate }
  end
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
  after.smtpd_tls_security_level = not postconf.uses_tls(main) and "may" or nil
  return after
end

-- All new values for main.cf, and what they replace.  The table of names is left
-- out while it is not there: Postfix would refuse every client that sends one.
local function changes(service, main, said)
  local result, message, code = drivers.run(postconf.command(service, "postconf", "-n"))
  local overrides = result and drivers.run(postconf.command(service, "postconf", "-P"))
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
  done, message, code = postconf.apply(service, after)
  if not done then
    postconf.apply(service, before)
    return nil, message, code
  end
  return { before = before, written = after.smtpd_tls_chain_files, sni = after.tls_server_sni_maps }
end

--- Puts main.cf back, unless somebody has named something else since.
function M.undo(service, record)
  if next(record.before) == nil then
    return true
  end
  local now, message, code = postconf.read(service, "-n", "smtpd_tls_chain_files", "tls_server_sni_maps")
  if not now then
    return nil, message, code
  end
  for name, written in pairs { smtpd_tls_chain_files = record.written, tls_server_sni_maps = record.sni } do
    if now[name] ~= written then
      return nil, ("%s was changed to '%s' since: change it by hand"):format(name,
        drivers.telling(now[name] or "")), "mismatch"
    end
  end
  return postconf.apply(service, record.before)
end

function M.check(service)
  return postconf.command(service, "postfix", "check")
end

function M.reload(service)
  return postconf.command(service, "postfix", "reload")
end

function M.restart(service)
  local own = service.config_directory or service.program
  return not own and drivers.systemctl "postfix" or postconf.command(service, "postfix", "start")
end

function M.pid(service)
  local main = postconf.main(service)
  local folder = main and paths.join(main.queue_directory, main.process_id_directory)
  return folder and drivers.pid(folder .. "/master.pid")
end

return M
