--- What CAs publish, by real programs on loopback: files over HTTP by nginx, and
-- OCSP by `openssl ocsp`.
--
--     local publisher <close> = Publisher.new(lab, { pair = folder })   -- https, too
--     publisher:put("ca.crl", bytes)   publisher.url .. "/ca.crl"
--     local responder <close> = publisher:responder { index=, ca=, signer=, key=, port= }

local file = require "core.file"
local host = require "core.host"
local process = require "core.process"

local Publisher = {}
Publisher.__index = Publisher

local function write(path, text)
  assert(file.write(path, text, { mode = 420, exclusive = false })) -- 0644
end

-- Starts a server in the foreground, and waits until it listens.
local function start(argv, port, log)
  local child = assert(process.start(argv, { output = log }))
  local pattern, deadline = ("^%%s*%%d+: %%x+:%04X %%x+:0000 0A"):format(port), host.clock() + 20
  while host.clock() < deadline and child:running() do
    for _, path in ipairs { "/proc/net/tcp", "/proc/net/tcp6" } do
      for line in io.lines(path) do
        if line:find(pattern) then return child end
      end
    end
    host.sleep(0.02)
  end
  child:stop("TERM", 5)
  error(("%s does not listen: %s"):format(argv[1], file.read(log) or ""))
end

local CONFIG = [[
worker_processes 1;
error_log DIR/error.log info;
pid DIR/nginx.pid;
events { worker_connections 64; }
http {
  access_log DIR/access.log;
  TEMPORARY
  server {
    listen 127.0.0.1:PORT;
    TLS
    root DIR/files;
    location /slow { limit_rate 1; }
    location = /method { return 200 $request_method; }
    location = /agent { add_header X-Twice one; add_header X-Twice two; return 200 $http_user_agent$http_x_asked; }
    location = /redirect { return 302 http://127.0.0.1:PORT/hello; }
    location = /loop { return 302 /loop; }
    location = /elsewhere { return 302 file:///etc/hostname; }
    location = /unknown_length { ssi on; ssi_types *; alias DIR/files/large; }
    location = /post { return 308 /method; }
  }
}
]]

--- An nginx that serves the files of a folder.
-- @param options { pair = folder of a certificate, for HTTPS on tls_url }
function Publisher.new(lab, options)
  local dir, port, tls = lab:folder "published", lab:port(), ""
  local temporary = {}
  for _, kind in ipairs { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" } do
    temporary[#temporary + 1] = ("%s_temp_path %s/%s;"):format(kind, dir, kind)
  end
  assert(file.mkdir(dir .. "/files", 493)) -- 0755
  local self = setmetatable({ lab = lab, dir = dir, port = port, url = "http://127.0.0.1:" .. port }, Publisher)
  if options and options.pair then
    local secure = lab:port()
    self.tls_url = "https://127.0.0.1:" .. secure
    tls = ("listen 127.0.0.1:%d ssl; ssl_certificate %s/fullchain.pem; ssl_certificate_key %s/key.pem;"):format(secure,
      options.pair, options.pair)
  end
  write(dir .. "/nginx.conf", (CONFIG:gsub("DIR", dir):gsub("PORT", port):gsub("TLS", tls)
    :gsub("TEMPORARY", table.concat(temporary, " "))))
  self:put("hello", "hello")
  self:start()
  return self
end

function Publisher:start()
  self.child = start({ "nginx", "-p", self.dir, "-c", self.dir .. "/nginx.conf", "-g", "daemon off;" }, self.port,
    self.dir .. "/output.log")
end

function Publisher:put(name, bytes)
  write(self.dir .. "/files/" .. name, bytes)
end

--- How often a path was asked for.
function Publisher:count(path)
  local text = file.read(self.dir .. "/access.log") or ""
  return select(2, text:gsub('"%u+ ' .. path:gsub("%p", "%%%0") .. " ", ""))
end

function Publisher:stop()
  if self.child then self.child:stop("TERM", 10) end
  self.child = nil
end

--- An OCSP responder.
-- @param options { port =, index = of openssl ca, ca = file, signer =, key = files, more = other arguments }
function Publisher.responder(self, options)
  local argv = { "openssl", "ocsp", "-port", tostring(options.port), "-index", options.index, "-CA", options.ca,
    "-rsigner", options.signer, "-rkey", options.key, table.unpack(options.more or { "-nmin", "30" }) }
  local child = start(argv, options.port, self.dir .. "/ocsp.log")
  return setmetatable({}, { __index = { stop = function() child:stop("KILL") end }, __close = function() child:stop("KILL") end })
end

Publisher.close = Publisher.stop
Publisher.__close = Publisher.stop

return Publisher
