--- Dovecot (IMAP and POP3): reads its configuration to find listeners and the
-- certificates they use; edits none of it.  The way in is one line,
-- `!include_try <dir>/current/dovecot.conf`, whose paths go into their own
-- generation; it is written for Dovecot 2.3 or 2.4, as is installed.
--
-- Its reload never looks at certificates: with a bad pair it ends with status 0,
-- and TLS is gone.

local file = require "core.file"
local lfs = require "lfs"
local paths = require "paths"
local drivers = require "service"

local M = {
  summary = "Dovecot mail server (IMAP, POP3)",
  fields = { config = "string", program = "string" },
}

local DEPTH = 20 -- of includes
local CONFIG = "/etc/dovecot/dovecot.conf"

local function config_of(service)
  return service.config or CONFIG
end

-- The settings that name the pair, before 2.4 and since.
local pair_setting = {
  ssl_cert = "certificate", ssl_server_cert_file = "certificate",
  ssl_key = "key", ssl_server_key_file = "key",
}

local ports = { imap = 143, imaps = 993, pop3 = 110, pop3s = 995 }

-- A line without its comment, which a quote may hold, and outer blanks.
local function strip(line)
  local position = 1
  repeat
    local at, _, c = line:find("([\"'#])", position)
    if c == "#" then
      line = line:sub(1, at - 1)
    elseif c then
      position = at + 1
      while position <= #line and line:sub(position, position) ~= c do
        position = position + (line:sub(position, position) == "\\" and 2 or 1)
      end
      position = position + 1
    end
  until not c or c == "#"
  return line:match "^%s*(.-)%s*$"
end

-- Notes a setting in the table of the scope that it stands in.
local function set(reader, scope, name, value, path)
  local values = reader.scopes[scope] or {}
  reader.scopes[scope] = values
  if pair_setting[name] then
    value = value:match "^<?%s*(.-)$"
    values[pair_setting[name]] = value ~= "" and { path = paths.join(paths.parent(path), value) } or nil
  else
    value = value:match '^"(.*)"$' or value:match "^'(.*)'$" or value
    values[name] = value:gsub("%$([%w_]+)", function(other) return (reader.scopes[""] or {})[other] end)
  end
end

local read

-- What lies in <dir>/current is ours and may not be there yet: it stands for the
-- pair that it will name.
local function include(reader, scope, pattern, optional, path, depth)
  pattern = paths.join(paths.parent(path), pattern)
  if drivers.in_current(reader.service, pattern) then
    set(reader, scope, "ssl_cert", pattern, path)
    set(reader, scope, "ssl_key", pattern, path)
    reader.scopes[scope].certificate.included = true
    return true
  end
  if scope == "" then
    table.insert(reader.includes, pattern)
  end
  local found = paths.glob(pattern)
  if #found == 0 and not optional and not paths.is_pattern(pattern) then
    found = { pattern }
  end
  for _, each in ipairs(found) do
    local done, message, code = read(reader, scope, each, depth + 1)
    if not done then
      return nil, message, code
    end
  end
  return true
end

function read(reader, scope, path, depth)
  local text, message, code = file.read(path)
  if not text then
    return nil, message, code
  elseif depth > DEPTH then
    return nil, ("cannot read '%s': includes nested more than %d deep"):format(path, DEPTH), "limit"
  end
  local outer, done = {}, true
  for line in text:gsub("\\\r?\n", " "):gmatch "[^\r\n]+" do
    line = strip(line)
    local try, pattern = line:match "^!include(%S*)%s+(.+)$"
    local section = line:match "^([^=]-)%s*{$"
    local name, value = line:match "^([^=%s]+)%s*=%s*(.*)$"
    if try then
      done, message, code = include(reader, scope, pattern, try == "_try", path, depth)
    elseif section then
      outer[#outer + 1] = scope
      scope = scope .. "/" .. section:gsub("%s+", " "):gsub('"', "")
    elseif line == "}" and #outer > 0 then
      scope = table.remove(outer)
    elseif name then
      set(reader, scope, name, value, path)
    elseif line ~= "" then
      return nil, ("cannot read '%s': no setting, section or include: %s"):format(path, drivers.telling(line)), "parse"
    end
    if not done then
      return nil, message, code
    end
  end
  return true
end

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

-- The pair in effect in a scope; a file of ours is both.
local function pair_in(service, values, default)
  local certificate, key = values.certificate or default.certificate, values.key or default.key
  if not (certificate and key) then
    return nil
  elseif drivers.in_current(service, certificate.path) and drivers.in_current(service, key.path) then
    return drivers.current_pair(service), certificate.included and "conf" or "two paths"
  end
  return { certificate = certificate.path, key = key.path }
end

-- The configuration: its scopes, and the protocols, each with `pair` and `way`, that
-- this service is: those that use <dir>/current, else all.
local function understand(service)
  local reader = { service = service, scopes = { [""] = {} }, includes = {} }
  local done, message, code = read(reader, "", config_of(service), 0)
  if not done then
    return nil, message, code
  end
  local main, list, names, local_way = reader.scopes[""], {}, {}, nil
  for scope, values in pairs(reader.scopes) do
    for name in (scope:match "^/local_name ([^/]*)" or ""):gmatch "%S+" do
      names[#names + 1] = name:lower()
    end
    if scope:find "^/local" then
      local_way = local_way or select(2, pair_in(service, values, {}))
    end
  end
  for _, protocol in ipairs(protocols_of(service, reader.scopes)) do
    local pair, way = pair_in(service, reader.scopes["/protocol " .. protocol] or {}, main)
    list[#list + 1] = { name = protocol, pair = pair, way = way or local_way }
  end
  table.sort(names)
  reader.main, reader.names = main, drivers.once(names)
  reader.protocols = drivers.preferred(list, function(protocol) return protocol.way end)
  return reader
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

--- Adds the line to a new file that the configuration includes after what it says
-- of certificates itself.
function M.adopt(service)
  local said, message, code = M.settings(service)
  if not said then
    return nil, message, code
  elseif said.uses_current then
    return {}
  end
  local by_hand = ("write it by hand: %s\n  at %s"):format(said.lines[1], said.where)
  local function effective()
    local now = M.settings(service)
    if not (now and now.uses_current) then
      return nil, "Dovecot reads no new file in which a certificate would take effect; " .. by_hand, "unsupported"
    end
    return true
  end
  message, code = select(2, effective())
  for _, path in ipairs(places_for(understand(service).includes, "99-certwright.conf")) do
    if not lfs.symlinkattributes(path, "mode") and lfs.attributes(paths.parent(path), "mode") == "directory" then
      local record
      record, message, code = drivers.drop_in(path, said.lines[1] .. "\n", effective, M.check(service))
      if record or code ~= "unsupported" then
        return record, message, code
      end
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
