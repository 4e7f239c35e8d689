-- The nginx driver against real nginx processes.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/service/"
local Lab = dofile(here .. "tests/support/lab.lua")
local drivers = require "service"
local nginx = assert(drivers.load "nginx")
local file = require "core.file"
local lfs = require "lfs"

describe("nginx", function()
  local lab

  setup(function() lab = Lab.new { name = "nginx" } end)
  teardown(function() lab:close() end)

  -- A service with a configuration that no process uses.
  local function service_of(text, names)
    local path = lab:folder "text"
    assert(file.write(path .. "/nginx.conf", text))
    return { name = "web", driver = "nginx", dir = path .. "/ssl", prefix = path, config = "nginx.conf", names = names }
  end

  -- A running server whose service has a name.
  local function server_of(options)
    options.dir = options.dir or lab:folder "ssl"
    local server = lab:nginx(options)
    server.service.name = "web"
    return server, server.service
  end

  describe("endpoints", function()
    it("are what a client on this machine reaches with TLS, once each", function()
      local service = service_of [[
        events {}
        http {
          server { listen 443 ssl default_server; listen [::]:443 ssl; listen 80; }
          server { listen *:443 ssl; listen localhost:8443 ssl http2; listen 192.0.2.7 ssl; }
          server { listen [2001:db8::1]:444 ssl; }
          server { listen unix:/run/x.sock ssl; listen 444 quic; listen 445 ssl proxy_protocol; listen 9000-9001 ssl; }
          server { listen 8080; ssl on; }
          server { listen 8081; }
        }
        stream { server { listen 9999 ssl; } } ]]
      assert.same({ "https://127.0.0.1:443", "https://[::1]:443", "https://localhost:8443", "https://192.0.2.7:80",
        "https://[2001:db8::1]:444", "https://127.0.0.1:9000", "https://127.0.0.1:9001", "https://127.0.0.1:8080" },
        nginx.endpoints(service))
    end)

    it("are those of the servers that answer to the service's names, if any do", function()
      local text = [[ http {
        server { listen 1001 ssl; server_name www.lab.test; }
        server { listen 1002 ssl; server_name Mail.Lab.test; } } ]]
      assert.same({ "https://127.0.0.1:1002" }, nginx.endpoints(service_of(text, { external = { "mail.lab.test" } })))
      assert.same({ "https://127.0.0.1:1001", "https://127.0.0.1:1002" },
        nginx.endpoints(service_of(text, { external = "other.lab.test" })))
    end)

    it("are those of the servers that use current, if any do", function()
      local service = service_of "http { include conf.d/*; }"
      lfs.mkdir(service.prefix .. "/conf.d")
      assert(file.write(service.prefix .. "/conf.d/a",
        "server { listen 1001 ssl; ssl_certificate a; ssl_certificate_key b; }"))
      assert(file.write(service.prefix .. "/conf.d/b",
        ("server { listen 1002 ssl; include '%s/current/nginx.conf'; }"):format(service.dir)))
      assert.same({ "https://127.0.0.1:1002" }, nginx.endpoints(service))
    end)

    it("fail with the place in a file that cannot be read", function()
      local _, message, code = nginx.endpoints(service_of "http {\n server { listen '1; }")
      assert.equal("parse", code)
      assert.matches("nginx.conf': line 2: a quote is not closed", message, 1, true)
      local service = service_of ""
      service.config = "other.conf"
      _, message, code = nginx.endpoints(service)
      assert.equal("missing", code)
      assert.matches("other.conf", message, 1, true)
      service.program = "/nowhere/nginx"
      code = select(3, nginx.endpoints(service))
      assert.equal("missing", code)
    end)

    it("need no prefix and config where the distribution's are meant", function()
      assert.equal("table", type(nginx.endpoints { name = "web", dir = "/etc/ssl/certwright/web" }))
    end)
  end)

  describe("names", function()
    it("are those of the TLS servers that this service is", function()
      local text = [[ http {
        server { listen 1001 ssl; server_name www.lab.test *.lab.test ~^x www.*; }
        server { listen 1002 ssl; server_name Mail.Lab.test .below.test; }
        server { listen 80; server_name plain.lab.test; } } ]]
      assert.same({ "www.lab.test", "*.lab.test", "mail.lab.test", "below.test" }, nginx.names(service_of(text)))
      assert.same({ "mail.lab.test", "below.test" }, nginx.names(service_of(text, { external = "mail.lab.test" })))
    end)

    it("are those of all servers while none speaks TLS", function()
      assert.same({ "a.test", "b.test" }, nginx.names(service_of [[ http {
        server { listen 80; server_name a.test; } server { listen 81; server_name b.test a.test _; } } ]]))
      assert.same({}, nginx.names(service_of "http {}"))
    end)

    it("fail as the configuration does", function()
      assert.equal("parse", select(3, nginx.names(service_of "http {")))
    end)

    it("are read from a server that runs", function()
      local _, service = server_of { names = { "www.lab.test", "mail.lab.test" } }
      assert.same({ "www.lab.test", "mail.lab.test" }, nginx.names(service))
    end)
  end)

  describe("settings", function()
    it("see current by an include that is not there yet", function()
      local service = service_of "http { server { listen 1 ssl; include ssl/current/nginx.conf; } }"
      local said = assert(nginx.settings(service))
      assert.is_true(said.uses_current)
      assert.equal("conf", said.way)
      assert.equal(service.dir .. "/current/fullchain.pem", said.found.certificate)
    end)

    it("see current by two paths, also inherited from http", function()
      local service = service_of [[ http {
        ssl_certificate ssl//current/fullchain.pem; ssl_certificate_key ssl/current/privkey.pem;
        server { listen 1 ssl; } } ]]
      local said = assert(nginx.settings(service))
      assert.equal("two paths", said.way)
      assert.equal(service.dir .. "/current/privkey.pem", said.found.key)
    end)

    it("do not take a comment, an overridden setting or half a pair for it", function()
      for _, text in ipairs {
        "# include ssl/current/nginx.conf;",
        "ssl_certificate a; ssl_certificate_key b; } include ssl/current/nginx.conf; map a b {",
        "ssl_certificate ssl/current/fullchain.pem; ssl_certificate_key other;",
        "ssl_certificate ssl/currently/fullchain.pem; ssl_certificate_key ssl/currently/privkey.pem;",
      } do
        local said = assert(nginx.settings(service_of("http { server { listen 1 ssl; " .. text .. "\n} }")))
        assert.is_false(said.uses_current)
        assert.is_nil(said.way)
      end
    end)

    it("say the line to write, the block it belongs in, and what is there now", function()
      local service = service_of [[
http {
  server { listen 1 ssl; server_name a.lab.test *.b.lab.test .c.lab.test _ ~^x mail.*;
    ssl_certificate x.pem; ssl_certificate_key /y; }
}]]
      local said = assert(nginx.settings(service))
      assert.same({ "include " .. service.dir .. "/current/nginx.conf;" }, said.lines)
      assert.matches("server block of " .. service.prefix .. "/nginx.conf, line 2, in place of", said.where, 1, true)
      assert.same({ certificate = service.prefix .. "/x.pem", key = "/y" }, said.found)
      assert.same({ "a.lab.test", "*.b.lab.test", "c.lab.test" }, said.names)
    end)

    it("say so too where nothing listens with TLS", function()
      local said = assert(nginx.settings(service_of "http { server { listen 80; } }"))
      assert.matches("a server block of .*/nginx.conf that listens with ssl", said.where)
      assert.is_nil(said.found)
    end)

    it("refuse a dir that nginx would read otherwise", function()
      for dir in ("/a$b /a*b /a?b /a[b /a\nb"):gmatch "[^ ]+" do
        local service = service_of "http {}"
        service.dir = dir
        local _, message, code = nginx.settings(service)
        assert.equal("usage", code)
        assert.matches("cannot be named", message, 1, true)
        assert.equal("usage", select(3, nginx.files(service, dir)))
      end
    end)
  end)

  it("presents the pair of a generation whose folder has blanks, quotes and brackets", function()
    local dir = lab:folder "a b;'\"{}#\\"
    lab:generation(dir, "1", lab:certificate { names = { "odd.lab.test" } })
    local server, service = server_of { style = "bare", start = false, dir = dir }
    local line = assert(nginx.settings(service)).lines[1]
    assert(file.write(server.folder .. "/conf.d/a.conf", line .. "\n"))
    assert.is_true(nginx.settings(service).uses_current)
    server:start()
    assert.equal(lab:fingerprint(dir .. "/1"), lab:presented(server.endpoints[1]))
    server:stop()
  end)

  it("presents a new generation after a reload, by each way", function()
    for way, style in pairs { ["conf"] = "conf", ["two paths"] = "two paths" } do
      local server, service = server_of { style = style, ipv6 = true, names = { "www.lab.test" } }
      assert.equal(way, nginx.settings(service).way)
      assert.same(server.endpoints, nginx.endpoints(service))
      local new = lab:certificate { names = { "www.lab.test" } }
      lab:generation(service.dir, "2", new)
      assert(drivers.run(nginx.check(service)))
      assert(drivers.run(nginx.reload(service)))
      for _, endpoint in ipairs(server.endpoints) do
        assert.is_true(lab:eventually(function()
          return lab:presented(endpoint, "www.lab.test") == lab:fingerprint(new)
        end))
      end
      server:stop()
    end
  end)

  it("checks and reloads with a message when the pair does not match", function()
    local server, service = server_of {}
    local path = lab:generation(service.dir, "bad", lab:certificate { names = { "www.lab.test" } })
    local other = lab:certificate { names = { "www.lab.test" } }
    assert(file.write(path .. "/privkey.pem", file.read(other .. "/key.pem"), { exclusive = false }))
    local _, message, code = drivers.run(nginx.check(service))
    assert.equal("refused", code)
    assert.matches("key values mismatch", message, 1, true)
    assert.equal("refused", select(3, drivers.run(nginx.reload(service))))
    assert.is_true(server:running())
    server:stop()
  end)

  it("knows the running master, and starts it again after it was killed", function()
    local server, service = server_of {}
    assert.equal(server.process:pid(), nginx.pid(service))
    server:kill()
    assert.is_nil(nginx.pid(service))
    assert(lab:eventually(function() return drivers.run(nginx.restart(service)) end))
    assert.is_true(lab:eventually(function() return nginx.pid(service) ~= nil end))
    assert.is_truthy(lab:presented(server.endpoints[1]))
    server:stop()
    assert.is_false(server:running())
  end)

  it("leaves the start to whoever keeps it in the foreground", function()
    assert.is_nil(nginx.restart(service_of "daemon off; http {}"))
    local service = service_of "http {}"
    assert.same({ "nginx", "-p", service.prefix, "-c", "nginx.conf" }, nginx.restart(service))
  end)

  it("does not take the empty pid file that its own check leaves for a process", function()
    local service = service_of "pid nginx.pid; events {} http {}"
    assert(file.write(service.prefix .. "/nginx.pid", ""))
    assert.is_nil(nginx.pid(service))
  end)

  describe("adopt", function()
    it("writes a file that http includes, and undo removes it", function()
      local server, service = server_of { style = "bare", start = false }
      local pair = lab:certificate { names = { "www.lab.test" } }
      lab:generation(service.dir, "1", pair)
      local record = assert(nginx.adopt(service))
      assert.equal(server.folder .. "/conf.d/certwright-web.conf", record.file)
      assert.equal("conf", nginx.settings(service).way)
      server:start()
      assert.equal(lab:fingerprint(pair), lab:presented(server.endpoints[1]))
      assert.same({}, nginx.adopt(service))
      server:stop()
      assert.is_true(nginx.undo(service, record))
      assert.is_false(nginx.settings(service).uses_current)
      assert.is_true(nginx.undo(service, {}))
    end)

    it("gives the lines where a server names a certificate of its own", function()
      local server, service = server_of { style = "none" }
      lab:generation(service.dir, "1", lab:certificate { names = { "www.lab.test" } })
      local record, message, code = nginx.adopt(service)
      assert.is_nil(record)
      assert.equal("unsupported", code)
      assert.matches("include " .. service.dir .. "/current/nginx.conf;", message, 1, true)
      assert.matches(server.folder .. "/nginx.conf, line ", message, 1, true)
      assert.same({ nil, message, code }, { nginx.adoptable(service) }) -- before it is tried
      assert.is_nil(file.stat(server.folder .. "/conf.d/certwright-web.conf"))
      server:stop()
    end)

    it("gives the lines where http has a certificate already", function()
      local service = service_of [[ events {} http { ssl_certificate a; ssl_certificate_key b; include conf.d/*.conf;
        server { listen 1 ssl; } } ]]
      lfs.mkdir(service.prefix .. "/conf.d")
      assert.equal("unsupported", select(3, nginx.adopt(service)))
    end)

    it("leaves nothing when nginx refuses the result", function()
      local server, service = server_of { style = "bare", start = false }
      local record, message, code = nginx.adopt(service) -- current is not there
      assert.is_nil(record)
      assert.equal("refused", code)
      assert.matches("current/nginx.conf", message, 1, true)
      assert.is_nil(file.stat(server.folder .. "/conf.d/certwright-web.conf"))
    end)
  end)
end)
