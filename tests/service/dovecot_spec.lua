-- The Dovecot driver against real Dovecot processes.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/service/"
local Lab = dofile(here .. "tests/support/lab.lua")
local drivers = require "service"
local dovecot = assert(drivers.load "dovecot")
local file = require "core.file"
local lfs = require "lfs"

describe("dovecot", function()
  local lab

  setup(function() lab = Lab.new { name = "dovecot" } end)
  teardown(function() lab:close() end)

  -- A service with a configuration that no process uses; DIR in it is the dir.
  local function service_of(text, name)
    local path = lab:folder "text"
    local service = { name = name or "mail", dir = path .. "/ssl", config = path .. "/dovecot.conf" }
    assert(file.write(service.config, (text:gsub("DIR", service.dir))))
    return service, path
  end

  local function server_of(options)
    options.dir = options.dir or lab:folder "ssl"
    local server = lab:dovecot(options)
    server.service.name = "mail"
    return server, server.service
  end

  describe("endpoints", function()
    it("are Dovecot's own ports unless the configuration says others", function()
      assert.same({ "imap://127.0.0.1:143", "imaps://127.0.0.1:993", "pop3://127.0.0.1:110", "pop3s://127.0.0.1:995" },
        dovecot.endpoints(service_of "protocols = imap pop3 lmtp\n"))
    end)

    it("follow listeners, their addresses, and those that are off", function()
      local list = dovecot.endpoints(service_of [[
protocols = imap # comment
protocols = $protocols pop3
listen = 192.0.2.7
service imap-login {
  inet_listener imap {
    port = 144
  }
  inet_listener imaps {
    port = 1993
  }
  inet_listener other {
    address = ::
    port = 2993
    ssl = yes
  }
  inet_listener proxied {
    port = 3993
    haproxy = yes
  }
}
service pop3-login {
  inet_listener pop3 {
    port = 0
  }
}
]])
      table.sort(list)
      assert.same({ "imap://192.0.2.7:144", "imaps://192.0.2.7:1993", "imaps://[::1]:2993", "pop3s://192.0.2.7:995" },
        list)
    end)

    it("are one protocol's for a service of that name", function()
      local text = "protocols = imap pop3\n"
      assert.same({ "imap://127.0.0.1:143", "imaps://127.0.0.1:993" }, dovecot.endpoints(service_of(text, "imap")))
      assert.same({ "pop3://127.0.0.1:110", "pop3s://127.0.0.1:995" }, dovecot.endpoints(service_of(text, "pop")))
      assert.same({}, dovecot.endpoints(service_of("protocols = imap\n", "pop")))
    end)

    it("are those of the protocols that use current, if any do", function()
      assert.same({ "pop3://127.0.0.1:110", "pop3s://127.0.0.1:995" }, dovecot.endpoints(service_of [[
protocols = imap pop3
ssl_cert = </x.pem
ssl_key = </x.key
protocol pop3 {
  !include_try DIR/current/dovecot.conf
}
]]))
    end)

    it("are none without TLS", function()
      assert.same({}, dovecot.endpoints(service_of "ssl = no\n"))
    end)

    it("fail with the file that cannot be read", function()
      local _, message, code = dovecot.endpoints(service_of "!include nothing.conf\n")
      assert.equal("missing", code)
      assert.matches("nothing.conf", message, 1, true)
      _, message, code = dovecot.endpoints(service_of "what is this\n")
      assert.equal("parse", code)
      assert.matches("no setting, section or include: what is this", message, 1, true)
      message, code = select(2, dovecot.endpoints(service_of "!include dovecot.conf\n"))
      assert.equal("limit", code)
      assert.matches("nested more than 20 deep", message, 1, true)
    end)

    it("can be read from the distribution's configuration", function()
      local said = assert(dovecot.settings { name = "mail", dir = "/etc/ssl/certwright/mail" })
      assert.is_false(said.uses_current)
      assert.equal("table", type(dovecot.endpoints { name = "mail", dir = "/etc/ssl/certwright/mail" }))
    end)
  end)

  describe("names", function()
    it("are those of the local_name sections, inside of local ones, too", function()
      assert.same({ "*.wild.test", "a.test", "b.test", "c.test" }, dovecot.names(service_of [[
local_name B.test a.test {
  ssl_cert = </b.pem
  ssl_key = </b.key
}
local_name "*.wild.test" {
  protocol imap {
    mail_max_userip_connections = 1
  }
}
local 192.0.2.1 {
  local_name c.test {
    ssl_key = </c.key
  }
}
]]))
      assert.same({}, dovecot.names(service_of ""))
      assert.equal("missing", select(3, dovecot.names { name = "mail", config = lab.path .. "/none" }))
    end)

    it("are read from a server that runs, which presents them", function()
      local server, service = server_of { style = "none" }
      local pair = lab:certificate { names = { "imap.lab.test" } }
      assert(file.write(server.folder .. "/local.conf", ("local_name imap.lab.test {\n  ssl_cert = <%s/cert.pem\n"
        .. "  ssl_key = <%s/key.pem\n}\n"):format(pair, pair)))
      server:stop()
      server:start()
      assert.equal(lab:fingerprint(pair), lab:presented(server.endpoints[1], "imap.lab.test"))
      assert.same({ "imap.lab.test" }, dovecot.names(service))
    end)
  end)

  describe("settings", function()
    it("see current by an include that is not there yet, in any file", function()
      local service, path = service_of "!include conf.d/*.conf\n!include_try none.conf\n"
      lfs.mkdir(path .. "/conf.d")
      assert(file.write(path .. "/conf.d/a.conf", "!include_try " .. service.dir .. "//current/dovecot.conf\n"))
      local said = assert(dovecot.settings(service))
      assert.is_true(said.uses_current)
      assert.equal("conf", said.way)
      assert.equal(service.dir .. "/current/fullchain.pem", said.found.certificate)
    end)

    it("see two paths, of Dovecot 2.3 and 2.4", function()
      for _, text in ipairs {
        "ssl_cert = < DIR/current/fullchain.pem # here\nssl_key = \\\n <ssl/current/privkey.pem\n",
        "ssl_server_cert_file = DIR/current/fullchain.pem\nssl_server_key_file = DIR/current/privkey.pem\n",
      } do
        assert.equal("two paths", dovecot.settings(service_of("protocols = imap\n" .. text)).way)
      end
    end)

    it("do not take a comment, a later setting or half a pair for it", function()
      for _, text in ipairs {
        "#!include_try DIR/current/dovecot.conf\n",
        "!include_try DIR/current/dovecot.conf\nssl_cert = </x.pem\nssl_key = </x.key\n",
        "ssl_cert = <DIR/current/fullchain.pem\nssl_key = </x.key\n",
        "passdb {\n  ssl_cert = <DIR/current/fullchain.pem\n  ssl_key = <DIR/current/privkey.pem\n}\n",
      } do
        assert.is_false(dovecot.settings(service_of(text)).uses_current)
      end
    end)

    it("see a name's own block, and give the names", function()
      local said = dovecot.settings(service_of [[
ssl_cert = </x.pem
ssl_key = </x.key
local_name "imap.lab.test pop.lab.test" {
  !include_try DIR/current/dovecot.conf
}
]])
      assert.is_true(said.uses_current)
      assert.same({ "imap.lab.test", "pop.lab.test" }, said.names)
    end)

    it("say the line to write, where, and what is there now", function()
      local service = service_of "ssl_cert = <x.pem\nssl_key = </y\n"
      local said = assert(dovecot.settings(service))
      assert.same({ "!include_try " .. service.dir .. "/current/dovecot.conf" }, said.lines)
      assert.matches("the end of " .. service.config, said.where, 1, true)
      assert.same({ certificate = service.config:gsub("dovecot.conf$", "x.pem"), key = "/y" }, said.found)
    end)

    it("refuse a dir that Dovecot would read otherwise", function()
      for _, dir in ipairs { "/a#b", "/a\"b", "/a*b", "/a{b", "/a\\b", "/a\nb", "a" } do
        local service = service_of ""
        service.dir = dir
        local _, message, code = dovecot.settings(service)
        assert.equal("usage", code)
        assert.matches("cannot be named", message, 1, true)
        assert.equal("usage", select(3, dovecot.files(service, dir)))
      end
    end)
  end)

  it("says that the program is not there", function()
    assert.equal("missing", select(3, dovecot.files({ program = "/nowhere/dovecot" }, "/x")))
  end)

  it("writes files that the installed Dovecot takes, for a folder with blanks as well", function()
    local server, service = server_of { dir = lab:folder "a b;c" }
    local before = service.dir .. "/before"
    assert.matches("<" .. before .. "/fullchain.pem", file.read(before .. "/dovecot.conf"), 1, true)
    assert.equal(lab:fingerprint(before), lab:presented(server.endpoints[2]))
    server:stop()
  end)

  it("presents a new generation after a reload, by each way", function()
    for way, style in pairs { ["conf"] = "conf", ["two paths"] = "two paths" } do
      local server, service = server_of { style = style, names = { "imap.lab.test" } }
      assert.equal(way, dovecot.settings(service).way)
      assert.same(server.endpoints, dovecot.endpoints(service))
      local new = lab:certificate { names = { "imap.lab.test" } }
      lab:generation(service.dir, "2", new)
      assert(drivers.run(dovecot.check(service)))
      assert(drivers.run(dovecot.reload(service)))
      for _, endpoint in ipairs(server.endpoints) do
        assert.is_true(lab:eventually(function()
          return lab:presented(endpoint, "imap.lab.test") == lab:fingerprint(new)
        end))
      end
      server:stop()
    end
  end)

  it("checks that the key can be opened, and does not print it", function()
    local server, service = server_of { start = false }
    local result = assert(drivers.run(dovecot.check(service)))
    assert.is_nil(result.stdout:find("PRIVATE KEY", 1, true))
    os.remove(service.dir .. "/before/privkey.pem")
    local _, message, code = drivers.run(dovecot.check(service))
    assert.equal("refused", code)
    assert.matches("exit status 89.*privkey.pem", message)
    assert.is_false(server:running())
  end)

  it("knows the running master, and starts it again after it exited", function()
    local server, service = server_of { protocols = { "imap" } }
    assert.equal(server.process:pid(), dovecot.pid(service))
    server:stop()
    assert.is_nil(dovecot.pid(service))
    assert.equal("refused", select(3, drivers.run(dovecot.reload(service))))
    assert(drivers.run(dovecot.restart(service)))
    assert.is_true(lab:eventually(function() return dovecot.pid(service) ~= nil end))
    assert.is_truthy(lab:presented(server.endpoints[2]))
    server:stop()
    assert.is_false(server:running())
  end)

  it("looks for the pid where Dovecot was built to write it", function()
    assert.is_nil(dovecot.pid(service_of "protocols = imap\n"))
  end)

  describe("adopt", function()
    it("makes a running Dovecot present current, and undo takes it back", function()
      local server, service = server_of { style = "none" }
      local own = lab:presented(server.endpoints[1])
      local pair = lab:certificate { names = { "imap.lab.test" } }
      lab:generation(service.dir, "1", pair)
      local record = assert(dovecot.adopt(service))
      assert.equal(server.folder .. "/local.conf", record.file)
      assert(drivers.run(dovecot.reload(service)))
      for _, endpoint in ipairs(server.endpoints) do
        assert.is_true(lab:eventually(function() return lab:presented(endpoint) == lab:fingerprint(pair) end))
      end
      assert.same({}, dovecot.adopt(service))
      assert.is_true(dovecot.undo(service, record))
      assert(drivers.run(dovecot.reload(service)))
      assert.is_true(lab:eventually(function() return lab:presented(server.endpoints[1]) == own end))
      server:stop()
    end)

    it("takes the folder of drop-ins where that comes last", function()
      local service, path = service_of "!include conf.d/*.conf\n!include_try local.conf\n"
      lfs.mkdir(path .. "/conf.d")
      assert(file.write(path .. "/conf.d/10-ssl.conf", "ssl_cert = </etc/hostname\nssl_key = </etc/hostname\n"))
      lab:generation(service.dir, "1", lab:certificate { names = { "imap.lab.test" } })
      assert.equal(path .. "/conf.d/99-certwright.conf", assert(dovecot.adopt(service)).file)
    end)

    it("gives the line where a later setting would overrule every file", function()
      local service, path = service_of "!include conf.d/*.conf\nssl_cert = </etc/hostname\nssl_key = </etc/hostname\n"
      lfs.mkdir(path .. "/conf.d")
      lab:generation(service.dir, "1", lab:certificate { names = { "imap.lab.test" } })
      local record, message, code = dovecot.adopt(service)
      assert.is_nil(record)
      assert.equal("unsupported", code)
      assert.matches("!include_try " .. service.dir .. "/current/dovecot.conf", message, 1, true)
      assert.is_nil(file.stat(path .. "/conf.d/99-certwright.conf"))
    end)

    it("gives the line where no file is read", function()
      assert.equal("unsupported", select(3, dovecot.adopt(service_of "protocols = imap\n")))
    end)
  end)
end)
