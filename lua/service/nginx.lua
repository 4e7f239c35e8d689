--- nginx: reads its configuration (directives.lua) to find TLS servers and the
-- certificates they name; edits none of it.  The way in is one include line,
-- `include <dir>/current/nginx.conf;`, whose paths go into their own generation,
-- so that a certificate and a key of different generations never meet.

local host = require "core.host"
local invocation = require "invocation"
local lfs = require "lfs"
local directives = require "directives"
local paths = require "paths"
local drivers = require "service"

local named = directives.named

local M = {
  summary = "nginx web server",
  fields = { prefix = "string", config = "string", program = "string" },
}

local built_as = {} -- what nginx -V says, by program: the same while this one runs

-- What a program was built with: a function that gives the value of a flag.
local function flags_of(program)
  if not built_as[program] then
    local built, message, code = drivers.run { program, "-V" }
    if not built then
      return nil, message, code
    end
    built_as[program] = function(name)
      return built.stderr:match("%-%-" .. name .. "=(%S+)")
    end
  end
  return built_as[program]
end

-- Where things are: the program says what the site does not.
local function places(service)
  local prefix, config = service.prefix, service.config
  if not (prefix and config) then
    local flag, message, code = flags_of(service.program or "nginx")
    if not flag then
      return nil, message, code
    end
    prefix, config = prefix or flag "prefix" or "/usr/local/nginx", config or flag "conf%-path" or "conf/nginx.conf"
  end
  return { prefix = prefix, config = paths.join(prefix, config) }
end

-- The file that holds its process id.
local function pid_file(service, config)
  local set = config.main and named(config.main, "pid")[1]
  local flag = not set and flags_of(service.program or "nginx")
  return paths.join(config.prefix, set and set[2] or flag and flag "pid%-path" or "logs/nginx.pid")
end

local here = { [""] = "127.0.0.1", ["*"] = "127.0.0.1", ["0.0.0.0"] = "127.0.0.1", ["[::]"] = "[::1]" }

-- Adds where a client on this machine reaches what a listen line opens: no UNIX
-- socket, no QUIC, and nothing that expects a PROXY header.
local function add_endpoints(list, listen, options)
  if listen:find "^unix:" or options:find " proxy_protocol " or options:find " quic " then
    return
  end
  local address, ports = "", listen
  if not listen:find "^[%d-]+$" then
    address, ports = listen:match "^(%[.-%]):?([%d-]*)$"
    if not address then
      address, ports = listen:match "^([^:]*):?([%d-]*)$"
    end
  end
  local first, last = (ports or ""):match "^(%d+)%-?(%d*)$"
  for port = tonumber(first) or 80, tonumber(last) or tonumber(first) or 80 do
    list[#list + 1] = ("https://%s:%d"):format(here[address] or address, port)
  end
end

-- Adds the names of a server_name line that a client could ask for.
local function add_names(list, server_name)
  for _, name in ipairs { table.unpack(server_name, 2) } do
    name = name == "$hostname" and host.name() or name:gsub("^%.", "")
    if name:find "^[%w*]" and not name:find "%*$" then -- no catch-all, no regular expression
      list[#list + 1] = name:lower()
    end
  end
end

-- The certificates and keys that a list of directives names, as paths; ours is
-- true when it includes <dir>/current.
local function pairs_in(service, list, folder)
  local found = { certificates = {}, keys = {} }
  for name, into in pairs { ssl_certificate = found.certificates, ssl_certificate_key = found.keys } do
    for i, directive in ipairs(named(list, name)) do
      into[i] = paths.join(folder, directive[2] or "")
    end
  end
  for _, include in ipairs(named(list, "include")) do
    found.ours = found.ours or drivers.in_current(service, include[2])
  end
  return found
end

-- A server block as a table, when it speaks TLS.
local function tls_server(service, server, http, folder)
  local found = { endpoints = {}, names = {}, file = server.file, line = server.line }
  local always = (named(server.block, "ssl")[1] or named(http, "ssl")[1] or {})[2] == "on"
  for _, listen in ipairs(named(server.block, "listen")) do
    local options = " " .. table.concat(listen, " ", 3) .. " "
    if always or options:find " ssl " then
      found.tls = true
      add_endpoints(found.endpoints, listen[2], options)
    end
  end
  for _, server_name in ipairs(named(server.block, "server_name")) do
    add_names(found.names, server_name)
  end
  local own = pairs_in(service, server.block, folder)
  found.own = own.ours or #own.certificates > 0
  found.pairs = found.own and own or pairs_in(service, http, folder)
  if found.pairs.ours then
    found.way = "conf"
  end
  for i, certificate in ipairs(found.pairs.certificates) do
    local key = found.pairs.keys[i]
    if drivers.in_current(service, certificate) and key and drivers.in_current(service, key) then
      found.way = "two paths"
    end
  end
  return found.tls and found
end

-- The configuration, and of its TLS servers those that this service is: the ones
-- that use <dir>/current, else that answer to the service's names, else all.
local function understand(service)
  local found, message, code = places(service)
  if not found then
    return nil, message, code
  end
  found.main, message, code = directives.read(found.config, function(path)
    return not drivers.in_current(service, path)
  end)
  if not found.main then
    return nil, message, code
  end
  local folder = paths.parent(found.config) -- what relative paths are taken from
  found.http, found.servers = (named(found.main, "http")[1] or {}).block or {}, {}
  for _, server in ipairs(named(found.http, "server")) do
    found.servers[#found.servers + 1] = tls_server(service, server, found.http, folder) or nil
  end
  local wanted = drivers.names(service)
  found.servers = drivers.preferred(found.servers, function(server)
    for _, name in ipairs(server.names) do
      if wanted[name] then
        return true
      end
    end
  end)
  found.servers = drivers.preferred(found.servers, function(server) return server.way end)
  return found
end

-- A path as one word of nginx's; a `$` or a pattern cannot be written in one.
local function word(path)
  local plain, message, code = drivers.plain_path(path, "$*?%[")
  if not plain then
    return nil, message, code
  end
  return path:find "[^%w%-._/+@:=,~]" and '"' .. path:gsub('[\\"]', "\\%0") .. '"' or path
end

--- Where its TLS servers are reached.
function M.endpoints(service)
  local config, message, code = understand(service)
  if not config then
    return nil, message, code
  end
  local list = {}
  for _, server in ipairs(config.servers) do
    table.move(server.endpoints, 1, #server.endpoints, #list + 1, list)
  end
  return drivers.once(list)
end

--- What its configuration says of certificates.
function M.settings(service)
  local config, message, code = understand(service)
  if not config then
    return nil, message, code
  end
  local line
  line, message, code = word(service.dir .. "/current/nginx.conf")
  if not line then
    return nil, message, code
  end
  local said = { uses_current = false, lines = { "include " .. line .. ";" }, names = {} }
  local blocks = {}
  for _, server in ipairs(config.servers) do
    table.move(server.names, 1, #server.names, #said.names + 1, said.names)
    blocks[#blocks + 1] = ("%s, line %d"):format(server.file, server.line)
    said.uses_current = said.uses_current or server.way ~= nil
    said.way = said.way ~= "two paths" and server.way or said.way
    local certificate, key = server.pairs.certificates[1], server.pairs.keys[1]
    if not said.found and certificate and key then
      said.found = { certificate = certificate, key = key }
    elseif not said.found and server.way == "conf" then
      said.found = drivers.current_pair(service)
    end
  end
  said.names = drivers.once(said.names)
  said.where = #blocks == 0 and ("a server block of %s that listens with ssl"):format(config.config)
    or ("the server block of %s, in place of its ssl_certificate and ssl_certificate_key"):format(
      table.concat(blocks, " and of ", 1, math.min(#blocks, 3)))
  return said
end

--- The names of its TLS servers; while there are none, of all its servers.
function M.names(service)
  local config, message, code = understand(service)
  if not config then
    return nil, message, code
  end
  local list = {}
  for _, server in ipairs(config.servers) do
    table.move(server.names, 1, #server.names, #list + 1, list)
  end
  for _, server in ipairs(#config.servers == 0 and named(config.http, "server") or {}) do
    for _, server_name in ipairs(named(server.block, "server_name")) do
      add_names(list, server_name)
    end
  end
  return drivers.once(list)
end

--- The include file of a generation.
function M.files(_, folder)
  local certificate, message, code = word(folder .. "/fullchain.pem")
  if not certificate then
    return nil, message, code
  end
  local key = word(folder .. "/privkey.pem")
  return { ["nginx.conf"] = ("ssl_certificate %s;\nssl_certificate_key %s;\n"):format(certificate, key) }
end

-- A file of that name that an include of the http block would read.
local function place_for(http, name)
  for _, include in ipairs(named(http, "include")) do
    local folder, pattern = include[2]:match "^(.*)/([^/]*)$"
    if paths.is_pattern(pattern) and not paths.is_pattern(folder) and paths.matches(name, pattern)
      and lfs.attributes(folder, "mode") == "directory" then
      return folder .. "/" .. name
    end
  end
end

local function by_hand(service, said)
  return ("write by hand, into %s:\n  %s\nthen reload it; %s says whether it is adopted")
    :format(said.where, said.lines[1], invocation.suggest("services %s", service.name))
end

-- The file that would give all servers the certificate.
local function drop_in_of(service, said)
  local config = assert(understand(service))
  local inherits = #config.servers > 0 and #named(config.http, "ssl_certificate") == 0
  for _, server in ipairs(config.servers) do
    inherits = inherits and not server.own
  end
  local path = inherits and place_for(config.http, "certwright-" .. service.name .. ".conf")
  if path then
    return path
  end
  return nil, "no drop-in file would give nginx this certificate; " .. by_hand(service, said), "unsupported"
end

function M.adoptable(service)
  local said, message, code = M.settings(service)
  if said and not said.uses_current then
    said, message, code = drop_in_of(service, said)
  end
  if not said then
    return nil, message, code
  end
  return true
end

--- Sets the certificate of all servers that name none, by a file that the http
-- block includes.  Servers that name their own are for a person to change.
function M.adopt(service)
  local said, message, code = M.settings(service)
  if not said then
    return nil, message, code
  elseif said.uses_current then
    return {}
  end
  local path
  path, message, code = drop_in_of(service, said)
  if not path then
    return nil, message, code
  end
  return drivers.drop_in(path, said.lines[1] .. "\n", function()
    local now = M.settings(service)
    if not (now and now.uses_current) then
      return nil, ("'%s' would have no effect; %s"):format(path, by_hand(service, said)), "unsupported"
    end
    return true
  end, M.check(service))
end

M.undo = function(_, record)
  return drivers.undo_drop_in(record)
end

-- argv of nginx with the service's own prefix and configuration, then `...`.
local function command(service, ...)
  local argv = { service.program or "nginx" }
  for _, option in ipairs { { "-p", service.prefix }, { "-c", service.config } } do
    table.move(option[2] and option or {}, 1, 2, #argv + 1, argv)
  end
  return table.move({ ... }, 1, select("#", ...), #argv + 1, argv)
end

function M.check(service)
  return command(service, "-t", "-q")
end

--- Checks the configuration itself first; status 1 when it is refused.
function M.reload(service)
  return command(service, "-s", "reload")
end

--- nil when the configuration keeps nginx in the foreground: then whoever
-- supervises it starts it again.
function M.restart(service)
  local config = understand(service)
  if config and (named(config.main, "daemon")[1] or {})[2] == "off" then
    return nil
  end
  local own = service.prefix or service.config or service.program
  return not own and drivers.systemctl "nginx" or command(service)
end

function M.pid(service)
  local config = understand(service) or places(service)
  return config and drivers.pid(pid_file(service, config))
end

return M
