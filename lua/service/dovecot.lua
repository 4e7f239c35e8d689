--- Dovecot (IMAP and POP3): reads its configuration (sections.lua) to find listeners
-- and the certificates they use; edits none of it.  The way in is one line,
-- `!include_try <dir>/current/dovecot.conf`, whose paths go into their own
-- generation; it is written for Dovecot 2.3 or 2.4, as is installed.
--
-- Its reload never looks at certificates: with a bad pair it ends with status 0,
-- and TLS is gone.

local invocation = require "invocation"
local lfs = require "lfs"
local paths = require "paths"
local sections = require "sections"
local drivers = require "service"

local M = {
  summary = "Dovecot mail server (IMAP, POP3)",
  fields = { config = "string", program = "string" },
}

local CONFIG = "/etc/dovecot/dovecot.conf"

local function config_of(service)
  return service.config or CONFIG
end

local ports = { imap = 143, imaps = 993, pop3 = 110, pop3s = 995 }

-- The protocols that a service is: "imap" or "pop" by its name, else all that
-- Dovecot speaks and clients of certificates see.
local function protocols_of(service, scopes)
  local spoken, list = scopes[""].protocols or "imap pop3", {}
  for name, value in pairs(scopes["/protocols"] or {}) do -- 2.4 has a section, too
    spoken = spoken .. (value == "yes" and " " .. name or "")
  end
  for _, protocol in ipairs { "imap", "pop3" } do
    local other = service.name == "imap" and "pop3" or service.name:find "^pop3?$" and "imap"
    if protocol ~= other and spoken:find("%f[%w]" .. protocol .. "%f[^%w]") then
      list[#list + 1] = protocol
    end
  end
  return list
end

-- The pair in effect in a scope, whose settings are named otherwise since 2.4, and
-- the way if it is <dir>/current's.
local function pair_in(service, values, default)
  local function path_of(old, new)
    local value = values[old] or values[new] or default[old] or default[new] or ""
    return value ~= "" and paths.join(paths.parent(config_of(service)), (value:gsub("^<", ""))) or nil
  end
  local certificate = path_of("ssl_cert", "ssl_server_cert_file")
  local key = path_of("ssl_key", "ssl_server_key_file")
  if not (certificate and key) then
    return nil
  elseif drivers.in_current(service, certificate) and drivers.in_current(service, key) then
    return drivers.current_pair(service), certificate:find "%.conf$" and "conf" or "two paths"
  end
  return { certificate = certificate, key = key }
end

-- The configuration: its scopes, and the protocols, each with `pair` and `way`, that
-- this service is: those that use <dir>/current, else all.
local function understand(service)
  -- What lies in <dir>/current is ours and may not be there yet: it stands for the
  -- pair that it will name.
  local scopes, includes, code = sections.read(config_of(service), function(path)
    return drivers.in_current(service, path) and { ssl_cert = path, ssl_key = path } or nil
  end)
  if not scopes then
    return nil, includes, code
  end
  local main, list, names, local_way = scopes[""], {}, {}, nil
  for scope, values in pairs(scopes) do
    for name in (scope:match "/local_name ([^/]*)" or ""):gmatch "%S+" do
      names[#names + 1] = name:lower()
    end
    if scope:find "^/local" then
      local_way = local_way or select(2, pair_in(service, values, {}))
    end
  end
  for _, protocol in ipairs(protocols_of(service, scopes)) do
    local pair, way = pair_in(service, scopes["/protocol " .. protocol] or {}, main)
    list[#list + 1] = { name = protocol, pair = pair, way = way or local_way }
  end
  table.sort(names)
  return { main = main, scopes = scopes, includes = includes, names = drivers.once(names),
           protocols = drivers.preferred(list, function(protocol) return protocol.way end) }
end

-- The listeners of a protocol: { port =, ssl =, address = }, by name.
local function listeners(scopes, protocol)
  local wrapped = protocol .. "s"
  local list = { [protocol] = { port = ports[protocol] }, [wrapped] = { port = ports[wrapped], ssl = "yes" } }
  local prefix = ("/service %s-login/inet_listener "):format(protocol)
  for scope, values in pairs(scopes) do
    if scope:sub(1, #prefix) == prefix then
      local name = scope:sub(#prefix + 1)
      list[name] = setmetatable(values, { __index = list[name] })
    end
  end
  return list
end

-- Adds where a client on this machine reaches a listener, unless it is off or
-- expects a PROXY header.
local function add_endpoints(list, scheme, listener, main)
  local listen = listener.address or main.listen or "*, ::"
  local here = { ["*"] = "127.0.0.1", ["::"] = listen:find("*", 1, true) and "127.0.0.1" or "::1" }
  local port = math.tointeger(tonumber(listener.port)) or 0
  if port == 0 or listener.haproxy == "yes" then
    return
  end
  for address in listen:gmatch "[^%s,]+" do
    address = here[address] or address
    list[#list + 1] = (address:find ":" and "%s://[%s]:%d" or "%s://%s:%d"):format(scheme, address, port)
  end
end

--- Where its IMAP and POP3 listeners are reached; none when `ssl = no`.
function M.endpoints(service)
  local config, message, code = understand(service)
  if not config then
    return nil, message, code
  end
  local endpoints = {}
  for _, protocol in ipairs(config.main.ssl ~= "no" and config.protocols or {}) do
    local some = {}
    for _, listener in pairs(listeners(config.scopes, protocol.name)) do
      add_endpoints(some, protocol.name .. (listener.ssl == "yes" and "s" or ""), listener, config.main)
    end
    table.sort(some)
    table.move(some, 1, #some, #endpoints + 1, endpoints)
  end
  return drivers.once(endpoints)
end

-- A path as the rest of a line of Dovecot's; it has no quotes for these.
local function word(path)
  return drivers.plain_path(path, "#\"'\\$*?%[%]{}~<>")
end

--- What its configuration says of certificates.
function M.settings(service)
  local config, message, code = understand(service)
  if not config then
    return nil, message, code
  end
  local path
  path, message, code = word(service.dir .. "/current/dovecot.conf")
  if not path then
    return nil, message, code
  end
  local said = { uses_current = false, lines = { "!include_try " .. path }, names = config.names,
                 where = ("the end of %s, after every ssl_cert and ssl_key"):format(config_of(service)) }
  for _, protocol in ipairs(config.protocols) do
    said.uses_current = said.uses_current or protocol.way ~= nil
    said.way = said.way ~= "two paths" and protocol.way or said.way
    said.found = said.found or protocol.pair
  end
  return said
end

--- The names of its local_name sections.
function M.names(service)
  local config, message, code = understand(service)
  if not config then
    return nil, message, code
  end
  return config.names
end

--- The include file of a generation.
function M.files(service, folder)
  local path, message, code = word(folder)
  if not path then
    return nil, message, code
  end
  local result
  result, message, code = drivers.run { service.program or "dovecot", "--version" }
  if not result then
    return nil, message, code
  end
  local major, minor = result.stdout:match "^(%d+)%.(%d+)"
  local new = (tonumber(major) or 2) * 1000 + (tonumber(minor) or 3) >= 2004
  local text = new and "ssl_server_cert_file = %s/fullchain.pem\nssl_server_key_file = %s/privkey.pem\n"
    or "ssl_cert = <%s/fullchain.pem\nssl_key = <%s/privkey.pem\n"
  return { ["dovecot.conf"] = text:format(path, path) }
end

-- Files that the main configuration would read, if they were there.
local function places_for(includes, name)
  local list = {}
  for _, path in ipairs(includes) do
    local folder, pattern = path:match "^(.*)/([^/]*)$"
    if not paths.is_pattern(pattern) then
      list[#list + 1] = not paths.is_pattern(path) and path or nil
    elseif not paths.is_pattern(folder) and paths.matches(name, pattern) then
      list[#list + 1] = folder .. "/" .. name
    end
  end
  return list
end

local function no_drop_in(service, said)
  return ("no drop-in file would give Dovecot this certificate; write by hand, at %s:\n  %s\nthen reload it; "
    .. "%s says whether it is adopted"):format(said.where, said.lines[1],
    invocation.suggest("services %s", service.name)),
    "unsupported"
end

-- The files that an include would read, and that are not there.
local function drop_ins_of(service)
  local list = {}
  for _, path in ipairs(places_for(understand(service).includes, "99-certwright.conf")) do
    if not lfs.symlinkattributes(path, "mode") and lfs.attributes(paths.parent(path), "mode") == "directory" then
      list[#list + 1] = path
    end
  end
  return list
end

function M.adoptable(service)
  local said, message, code = M.settings(service)
  if not said then
    return nil, message, code
  elseif not said.uses_current and #drop_ins_of(service) == 0 then
    return nil, no_drop_in(service, said)
  end
  return true
end

--- Adds the line to a new file that the configuration includes after what it says
-- of certificates itself.
function M.adopt(service)
  local said, message, code = M.settings(service)
  if not said then
    return nil, message, code
  elseif said.uses_current then
    return {}
  end
  local function effective()
    local now = M.settings(service)
    if not (now and now.uses_current) then
      return nil, no_drop_in(service, said)
    end
    return true
  end
  message, code = no_drop_in(service, said)
  for _, path in ipairs(drop_ins_of(service)) do
    local record
    record, message, code = drivers.drop_in(path, said.lines[1] .. "\n", effective, M.check(service))
    if record or code ~= "unsupported" then
      return record, message, code
    end
  end
  return nil, message, code
end

function M.undo(_, record)
  return drivers.undo_drop_in(record)
end

--- Reads all files that the configuration names (-x), among them key and
-- certificate, and prints a setting that is no secret: status 89 when it cannot.
function M.check(service)
  return { drivers.beside(service.program, "doveconf"), "-x", "-h", "-c", config_of(service), "base_dir" }
end

function M.reload(service)
  return { drivers.beside(service.program, "doveadm"), "-c", config_of(service), "reload" }
end

function M.restart(service)
  local own = service.config or service.program
  return not own and drivers.systemctl "dovecot" or { service.program or "dovecot", "-c", config_of(service) }
end

function M.pid(service)
  local config = understand(service)
  local folder = config and config.main.base_dir
  if not folder then
    local result = drivers.run { drivers.beside(service.program, "doveconf"), "-d", "-h", "base_dir" }
    folder = result and result.stdout:match "[^\n]+"
  end
  return folder and drivers.pid(folder .. "/master.pid")
end

return M
