--- A lab: real servers on free loopback ports, in a private folder, as foreground
-- children that are stopped by their process handle. Used by tests and by
-- `make demo`; certificates in it are made and read by the openssl command line,
-- which is the independent judge of what the program does.
--
--     local lab <close> = Lab.new { name = "demo" }
--     local web = lab:nginx { names = { "www.lab.test" } }
--     lab:site { services = { web = web.service } }
--     lab:run("assign-services", "1", "--services", "web")
--
-- What does not work raises: a lab that is not whole is of no use.

local file = require "core.file"
local host = require "core.host"
local process = require "core.process"
local json = require "dkjson"
local lfs = require "lfs"

local Lab = {}
Lab.__index = Lab

local START = 20 -- seconds for a server to listen

-- The certwright that runs this.
local function program()
  return assert(lfs.symlinkattributes("/proc/self/exe", "target"))
end

-- Runs a tool that has to succeed.
local function tool(argv, options)
  local result = assert(process.run(argv, options))
  if result.status ~= 0 then
    error(("%s: exit status %s: %s"):format(table.concat(argv, " "), result.status, result.stderr), 2)
  end
  return result.stdout
end

local function write(path, text, mode)
  assert(file.write(path, text, { mode = mode or tonumber("644", 8), exclusive = false }))
  return path
end

local function read(path)
  local stream = assert(io.open(path, "rb"))
  local bytes = stream:read "a"
  stream:close()
  return bytes
end

local function folder(path)
  assert(file.mkdirs(path, tonumber("755", 8)))
  return path
end

--- Makes a lab: a folder of mode 0755 (daemons of other users must reach it) with a
-- short path (UNIX sockets in it must fit), below $TMPDIR or /tmp.
function Lab.new(options)
  local base = os.getenv "TMPDIR" or "/tmp"
  base = #base <= 30 and base or "/tmp"
  local tag = host.random(3):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  local path = ("%s/cw-%s-%s"):format(base, (options or {}).name or "lab", tag)
  assert(file.mkdir(path, tonumber("755", 8)))
  return setmetatable({
    path = path, site_path = folder(path .. "/site"), state_path = path .. "/state",
    servers = {}, ports = {}, count = 0,
  }, Lab)
end

--- A new folder in the lab.
function Lab:folder(name)
  self.count = self.count + 1
  return folder(("%s/%s%d"):format(self.path, name, self.count))
end

-- The loopback ports that something listens on, as a set.
local function listening()
  local set = {}
  for _, table_file in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
    for line in io.lines(table_file) do
      local port, state = line:match "^%s*%d+: %x+:(%x+) %x+:%x+ (%x%x)"
      if state == "0A" then
        set[tonumber(port, 16)] = true
      end
    end
  end
  return set
end

--- A loopback port that is free, and that no other call was given.
function Lab:port()
  local taken = listening()
  local port
  repeat
    port = math.random(20000, 32000)
  until not taken[port] and not self.ports[port]
  self.ports[port] = true
  return port
end

local ca_settings = [[
[ca]
default_ca = lab
[lab]
database = %s/index
new_certs_dir = %s
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
x509_extensions = extensions
[any]
CN = supplied
[extensions]
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
%s
]]

-- Makes a pair by openssl: a folder with cert.pem, key.pem, chain.pem (what
-- issued it, without a root), fullchain.pem and root.pem.
local function issue(self, options, extensions)
  local path, ca = self:folder "pair", options.ca
  local algorithm = options.key or "ec:P-256"
  local kind, size = algorithm:match "^(%w+):?(.*)$"
  local option = kind == "ec" and { "-pkeyopt", "ec_paramgen_curve:" .. size }
    or kind == "rsa" and { "-pkeyopt", "rsa_keygen_bits:" .. size } or {}
  tool { "openssl", "genpkey", "-algorithm", kind, "-out", path .. "/key.pem", table.unpack(option) }
  tool { "openssl", "req", "-new", "-key", path .. "/key.pem", "-out", path .. "/request.pem",
         "-subj", "/CN=" .. options.names[1] }
  write(path .. "/index", "")
  write(path .. "/ca.cnf", ca_settings:format(path, path, extensions))
  local function date(days)
    return os.date("!%Y%m%d%H%M%SZ", os.time() + math.floor(days * 86400))
  end
  local days = options.days or 90
  local signer = ca and { "-keyfile", ca .. "/key.pem", "-cert", ca .. "/cert.pem" }
    or { "-selfsign", "-keyfile", path .. "/key.pem" }
  tool { "openssl", "ca", "-batch", "-notext", "-config", path .. "/ca.cnf",
         "-in", path .. "/request.pem", "-out", path .. "/cert.pem",
         "-startdate", date(math.min(-1, days - 1)), "-enddate", date(days), table.unpack(signer) }
  local chain = ca and lfs.attributes(ca .. "/issued") and read(ca .. "/fullchain.pem") or ""
  write(path .. "/chain.pem", chain)
  write(path .. "/fullchain.pem", read(path .. "/cert.pem") .. chain)
  write(path .. "/root.pem", read(ca and ca .. "/root.pem" or path .. "/cert.pem"))
  if ca then
    write(path .. "/issued", "")
  end
  return path
end

--- A CA: a root, or below another one when options.ca is that one's folder.
function Lab:authority(options)
  options = options or {}
  return issue(self, { names = { options.name or "Lab root" }, ca = options.ca, key = options.key, days = 3650 },
    "basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign")
end

--- A server certificate: names = { DNS names and IP addresses }, days = 90 (fewer
-- than 0: expired), ca = an authority's folder (else self-signed), key = "ec:P-256",
-- "rsa:2048" ...  Returns its folder.
function Lab:certificate(options)
  local names = {}
  for i, name in ipairs(options.names) do
    local ip = name:find "^[%d.]+$" or name:find ":"
    names[i] = (ip and "IP:" or "DNS:") .. name
  end
  return issue(self, options, "basicConstraints = critical, CA:false\nextendedKeyUsage = serverAuth\n"
    .. "keyUsage = critical, digitalSignature, keyEncipherment\nsubjectAltName = " .. table.concat(names, ", "))
end

--- Writes the generation dir/name from a pair, as the program would (without the
-- file of a driver that cannot name the folder), and points dir/current at it.
function Lab.generation(_, dir, name, pair)
  local path = folder(dir .. "/" .. name)
  local key, secret = read(pair .. "/key.pem"), tonumber("600", 8)
  for _, part in ipairs { "fullchain", "cert", "chain" } do
    write(("%s/%s.pem"):format(path, part), read(("%s/%s.pem"):format(pair, part)))
  end
  write(path .. "/privkey.pem", key, secret)
  write(path .. "/combined.pem", key .. read(pair .. "/fullchain.pem"), secret)
  for _, driver in ipairs { "nginx", "dovecot" } do
    for extra, text in pairs(require("service." .. driver).files({}, path) or {}) do
      write(path .. "/" .. extra, text)
    end
  end
  os.remove(dir .. "/current")
  assert(lfs.link(name, dir .. "/current", true))
  return path
end

-- The service's dir, and a pair of the server's own that the program knows nothing
-- of; a first generation is made when the configuration will name one.
local function prepare(self, name, options)
  local dir = options.dir or self.path .. "/ssl/" .. name
  local own = options.pair or self:certificate { names = options.names or { "before.lab.test" } }
  if options.style ~= "none" and options.style ~= "bare" and not lfs.symlinkattributes(dir .. "/current", "mode") then
    self:generation(dir, "before", own)
  end
  return dir, own
end

local Server = {}
Server.__index = Server

function Server:start()
  self.process = assert(process.start(self.argv, { output = self.folder .. "/output.log", uid = self.uid,
    gid = self.gid }))
  local deadline = host.clock() + START
  repeat
    local open, all = listening(), true
    for _, port in ipairs(self.ports) do
      all = all and open[port]
    end
    if all then
      return self
    end
    host.sleep(0.02)
  until host.clock() > deadline or not self.process:running()
  local log = self:log()
  self:stop()
  error(("%s did not start: %s"):format(self.argv[1], log), 2)
end

-- The master that a restart by the program left behind, if any.
local function daemon(server)
  local service = setmetatable({ name = server.service.driver }, { __index = server.service })
  return require("service." .. service.driver).pid(service)
end

function Server:running()
  return self.process ~= nil and self.process:running() or daemon(self) ~= nil
end

--- Stops it, and what was started in its place, and waits until they have ended.
function Server:stop()
  if self.process then
    self.process:stop("TERM", 10)
    self.process = nil
  end
  local pid = daemon(self)
  if pid then
    host.signal(pid, "TERM")
    local deadline = host.clock() + 10
    while daemon(self) and host.clock() < deadline do
      host.sleep(0.02)
    end
  end
end

--- Ends it as a crash does.
function Server:kill()
  self.process:stop("KILL")
  self.process = nil
end

--- What it has logged so far.
function Server:log()
  local text = ""
  for _, path in ipairs { self.folder .. "/output.log", self.log_file } do
    text = text .. (lfs.attributes(path, "mode") and read(path) or "")
  end
  return text
end

-- Starts a server (unless start = false), and keeps it for close.
local function serve(self, server, options)
  setmetatable(server, Server)
  server.service.endpoints = server.endpoints
  server.service.names = server.service.names or { external = options.names or { "before.lab.test" } }
  self.servers[#self.servers + 1] = server
  return options.start == false and server or server:start()
end

--- nginx: style = "conf" (default), "two paths", "none" (a certificate of its own),
-- or "bare" (names none; reads conf.d/*.conf, and does not start before that names
-- one); names = server names; ipv6 = on [::1] as well; dir, pair, start = false.
function Lab:nginx(options)
  options = options or {}
  local dir, own = prepare(self, "web", options)
  local path, port = self:folder "nginx", self:port()
  for _, name in ipairs { "tmp", "conf.d" } do
    folder(path .. "/" .. name)
  end
  local from = options.style == "two paths" and dir .. "/current" or own
  local certificate = ("ssl_certificate %s/fullchain.pem; ssl_certificate_key %s/%s.pem;")
    :format(from, from, from == own and "key" or "privkey")
  if options.style == "bare" then
    certificate = ""
  elseif options.style == nil or options.style == "conf" then
    certificate = ("include %s/current/nginx.conf;"):format(dir)
  end
  local temporary = {}
  for _, kind in ipairs { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" } do
    temporary[#temporary + 1] = ("%s_temp_path tmp/%s;"):format(kind, kind)
  end
  write(path .. "/nginx.conf", ([[
worker_processes 1;
error_log %s/error.log info;
pid nginx.pid;
events { worker_connections 512; }
http {
  access_log off;
  %s
  include conf.d/*.conf;
  server {
    listen 127.0.0.1:%d ssl;%s
    server_name %s;
    %s
    location / { return 200 "ok\n"; }
  }
}
]]):format(path, table.concat(temporary, "\n  "), port, options.ipv6 and (" listen [::1]:%d ssl;"):format(port) or "",
    table.concat(options.names or { "before.lab.test" }, " "), certificate))
  local endpoints = { "https://127.0.0.1:" .. port }
  endpoints[2] = options.ipv6 and "https://[::1]:" .. port or nil
  return serve(self, {
    folder = path, ports = { port }, endpoints = endpoints, log_file = path .. "/error.log",
    argv = { "nginx", "-p", path, "-c", path .. "/nginx.conf", "-g", "daemon off;" },
    service = { driver = "nginx", dir = dir, prefix = path, config = path .. "/nginx.conf" },
  }, options)
end

--- Postfix, which needs root: smtp with STARTTLS, and smtps; style = "combined"
-- (default), "two paths", "none" (a certificate of its own), "off" (no TLS).
function Lab:postfix(options)
  options = options or {}
  if options.style == "off" then
    options.style = "bare"
  end
  local dir, own = prepare(self, "smtp", options)
  local path, smtp, smtps = self:folder "postfix", self:port(), self:port()
  for _, name in ipairs { "conf", "queue", "data" } do
    folder(path .. "/" .. name)
  end
  tool { "chown", "postfix", path .. "/data" }
  write(path .. "/own.pem", read(own .. "/key.pem") .. read(own .. "/fullchain.pem"), tonumber("600", 8))
  local tls = {
    ["two paths"] = "smtpd_tls_cert_file = %s/current/fullchain.pem\nsmtpd_tls_key_file = %s/current/privkey.pem\n",
    none = "smtpd_tls_chain_files = " .. path .. "/own.pem\n",
    bare = "",
  }
  local certificate = (tls[options.style] or "smtpd_tls_chain_files = %s/current/combined.pem\n"):gsub("%%s", dir)
  if options.style ~= "bare" then
    certificate = certificate .. "smtpd_tls_security_level = may\n"
  end
  write(path .. "/conf/main.cf", ([[
compatibility_level = 3.6
queue_directory = %s/queue
data_directory = %s/data
command_directory = /usr/sbin
meta_directory = /etc/postfix
myhostname = %s
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_transport = error:none
notify_classes =
smtpd_relay_restrictions = permit_mynetworks, reject
maillog_file = %s/mail.log
maillog_file_prefixes = %s
%s]]):format(path, path, (options.names or { "before.lab.test" })[1], path, path, certificate))
  local lines = { ("127.0.0.1:%d inet n - n - - smtpd"):format(smtp),
                  ("127.0.0.1:%d inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes"):format(smtps),
                  "postlog unix-dgram n - n - 1 postlogd", "pickup unix n - n 60 1 pickup",
                  "qmgr unix n - n 300 1 qmgr", "tlsmgr unix - - n 1000? 1 tlsmgr",
                  "cleanup unix n - n - 0 cleanup", "rewrite unix - - n - - trivial-rewrite" }
  for _, name in ipairs { "bounce", "error", "anvil", "proxymap" } do
    lines[#lines + 1] = name .. " unix - - n - 0 " .. name
  end
  write(path .. "/conf/master.cf", table.concat(lines, "\n") .. "\n")
  for _, name in ipairs { "main.cf", "master.cf" } do -- Postfix waits until these are 2 seconds old
    assert(lfs.touch(path .. "/conf/" .. name, os.time() - 10))
  end
  tool { "postfix", "-c", path .. "/conf", "check" } -- makes the queue
  local daemons = tool { "postconf", "-c", path .. "/conf", "-h", "daemon_directory" }:match "[^\n]+"
  return serve(self, {
    folder = path, ports = { smtp, smtps }, log_file = path .. "/mail.log",
    endpoints = { "smtp://127.0.0.1:" .. smtp, "smtps://127.0.0.1:" .. smtps },
    argv = { daemons .. "/master", "-c", path .. "/conf", "-d" },
    service = { driver = "postfix", dir = dir, config_directory = path .. "/conf" },
  }, options)
end

--- Dovecot: imap, imaps, pop3, pop3s (or protocols = { "imap" }); style = "conf"
-- (default), "two paths", "none" (a certificate of its own); reads local.conf last.
function Lab:dovecot(options)
  options = options or {}
  local dir, own = prepare(self, "mail", options)
  local path, ports, endpoints, listeners = self:folder "dovecot", {}, {}, {}
  for _, protocol in ipairs(options.protocols or { "imap", "pop3" }) do
    local plain, wrapped = self:port(), self:port()
    listeners[#listeners + 1] = ([[
service %s-login {
  inet_listener %s {
    port = %d
  }
  inet_listener %ss {
    port = %d
    ssl = yes
  }
}
]]):format(protocol, protocol, plain, protocol, wrapped)
    table.move({ plain, wrapped }, 1, 2, #ports + 1, ports)
    table.move({ ("%s://127.0.0.1:%d"):format(protocol, plain), ("%ss://127.0.0.1:%d"):format(protocol, wrapped) },
      1, 2, #endpoints + 1, endpoints)
  end
  local from = options.style == "two paths" and dir .. "/current" or own
  local certificate = ("ssl_cert = <%s/fullchain.pem\nssl_key = <%s/%s.pem")
    :format(from, from, from == own and "key" or "privkey")
  if options.style == nil or options.style == "conf" then
    certificate = ("!include_try %s/current/dovecot.conf"):format(dir)
  end
  write(path .. "/dovecot.conf", ([[
base_dir = %s/run
state_dir = %s/run
log_path = %s/dovecot.log
protocols = %s
listen = 127.0.0.1
ssl = yes
passdb {
  driver = static
  args = nopassword=y
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=%s/mail
}
%s%s
!include_try local.conf
]]):format(path, path, path, table.concat(options.protocols or { "imap", "pop3" }, " "), path,
    table.concat(listeners), certificate))
  return serve(self, {
    folder = path, ports = ports, endpoints = endpoints, log_file = path .. "/dovecot.log",
    argv = { "dovecot", "-F", "-c", path .. "/dovecot.conf" },
    service = { driver = "dovecot", dir = dir, config = path .. "/dovecot.conf" },
  }, options)
end

-- A value as Lua text, keys sorted.
local function serialise(value, indent)
  if type(value) ~= "table" then
    return ("%q"):format(value)
  end
  local keys, lines = {}, {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b)
    return math.type(a) and math.type(b) and a < b or not (math.type(a) and math.type(b)) and tostring(a) < tostring(b)
  end)
  for _, key in ipairs(keys) do
    local name = math.type(key) and "" or ("[%q] = "):format(key)
    lines[#lines + 1] = indent .. "  " .. name .. serialise(value[key], indent .. "  ") .. ",\n"
  end
  return "{\n" .. table.concat(lines) .. indent .. "}"
end

--- Writes the site's config.lua from a table, and its policy.lua from text.
function Lab:site(config, policy)
  write(self.site_path .. "/config.lua", "return " .. serialise(config, "") .. "\n")
  if policy then
    write(self.site_path .. "/policy.lua", policy)
  end
end

--- What was printed, without the folders in the commands that it suggests: any
-- lab's are others.
function Lab:plain(printed)
  local named = ("certwright --site %s --state %s"):format(self.site_path, self.state_path)
  return (printed:gsub(named:gsub("%p", "%%%0"), "certwright"))
end

--- Runs certwright as a user would, with the lab's site and state. A last argument
-- that is a table is the options of core.process.run. What was printed is plain.
function Lab:run(...)
  local argv, options = { program(), "--site", self.site_path, "--state", self.state_path, ... }, nil
  if type(argv[#argv]) == "table" then
    options = table.remove(argv)
  end
  local result = assert(process.run(argv, options))
  result.stdout, result.stderr = self:plain(result.stdout), self:plain(result.stderr)
  return result
end

--- The same with --json: what it printed, decoded, and the result.
function Lab:json(...)
  local result = self:run("--json", ...)
  return json.decode(result.stdout, 1, json.null), result
end

--- The SHA-256 fingerprint of the certificate that an endpoint shows to who asks
-- for name; nil and what openssl said when it shows none.
function Lab:presented(endpoint, name)
  local scheme, address = endpoint:match "^(%w+)://(.*)$"
  local protocol = scheme:match "^smtp$" or scheme:match "^imap$" or scheme:match "^pop3$"
  local argv = { "openssl", "s_client", "-connect", address, name and "-servername" or "-noservername", name }
  table.move(protocol and { "-starttls", protocol } or {}, 1, 2, #argv + 1, argv)
  local client = assert(process.run(argv, { timeout = 20 }))
  local pem = client.stdout:match "%-%-%-%-%-BEGIN CERTIFICATE.-END CERTIFICATE%-%-%-%-%-"
  if not pem then
    return nil, client.stderr
  end
  return self:fingerprint(pem .. "\n")
end

--- The SHA-256 fingerprint of a PEM certificate, or of the one in a pair's folder.
function Lab.fingerprint(_, pem)
  if not pem:find "^%-%-%-%-%-" then
    pem = read(pem .. "/cert.pem")
  end
  local text = tool({ "openssl", "x509", "-noout", "-fingerprint", "-sha256" }, { stdin = pem })
  return (text:match "=(%S+)":gsub(":", ""):lower())
end

--- Calls what(); again until it returns a true value, at most for some seconds (10).
function Lab.eventually(_, what, seconds)
  local deadline = host.clock() + (seconds or 10)
  while true do
    local value, message = what()
    if value or host.clock() > deadline then
      return value, message
    end
    host.sleep(0.05)
  end
end

--- Stops all servers, in the order opposite to their start, and removes the folder.
function Lab:close()
  for i = #self.servers, 1, -1 do
    self.servers[i]:stop()
  end
  self.servers = {}
  if self.path then
    tool { "rm", "-rf", "--", self.path }
    self.path = nil
  end
end

Lab.__close = Lab.close
Lab.__gc = Lab.close

return Lab
