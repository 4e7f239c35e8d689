-- The Postfix driver against real Postfix systems (as root).

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/service/"
local Lab = dofile(here .. "tests/support/lab.lua")
local drivers = require "service"
local postfix = assert(drivers.load "postfix")
local file = require "core.file"
local process = require "core.process"
local lfs = require "lfs"

describe("postfix", function()
  local lab

  setup(function() lab = Lab.new { name = "postfix" } end)
  teardown(function() lab:close() end)

  -- Postfix waits before it reads a file that is younger than two seconds.
  local function aged(path)
    assert(lfs.touch(path, os.time() - 10))
  end

  local function write_main(service, text)
    local path = service.config_directory .. "/main.cf"
    assert(file.write(path, text, { exclusive = false }))
    aged(path)
  end

  -- A service with a configuration that no process uses.
  local function service_of(main, master)
    local path = lab:folder "text"
    assert(file.write(path .. "/main.cf", "compatibility_level = 3.6\nmyhostname = mx.lab.test\n" .. main))
    assert(file.write(path .. "/master.cf", master or "smtp inet n - n - - smtpd\n"))
    aged(path .. "/main.cf")
    aged(path .. "/master.cf")
    return { name = "smtp", driver = "postfix", dir = path .. "/ssl", config_directory = path }
  end

  local function server_of(options)
    options.dir = options.dir or lab:folder "ssl"
    local server = lab:postfix(options)
    server.service.name = "smtp"
    return server, server.service
  end

  local function setting(service, ...)
    aged(service.config_directory .. "/main.cf")
    return process.run({ "postconf", "-c", service.config_directory, "-n", ... }).stdout
  end

  describe("endpoints", function()
    local master = [[
smtp inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
submission inet n - n - - smtpd -o smtpd_tls_security_level=encrypt
submissions inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
[::1]:2525 inet n - n - - smtpd
localhost:10026 inet n - n - - smtpd -o smtpd_tls_security_level=none
127.0.0.1:10027 inet n - n - - spawn user=nobody argv=/bin/true
pickup unix n - n 60 1 pickup
]]

    it("are the smtpd lines of master.cf that offer TLS", function()
      assert.same({ "smtp://127.0.0.1:25", "smtp://127.0.0.1:587", "smtps://127.0.0.1:465", "smtp://[::1]:2525" },
        postfix.endpoints(service_of("smtpd_tls_security_level = may\n", master)))
    end)

    it("are only those that turn TLS on themselves where main.cf has it off", function()
      assert.same({ "smtp://127.0.0.1:587" }, postfix.endpoints(service_of("", master)))
      assert.same({}, postfix.endpoints(service_of "smtpd_tls_security_level = none\nsmtpd_use_tls = yes\n"))
      assert.same({ "smtp://127.0.0.1:25" }, postfix.endpoints(service_of "smtpd_use_tls = yes\n"))
    end)

    it("follow inet_interfaces and inet_protocols", function()
      assert.same({ "smtp://127.0.0.1:25", "smtp://[::1]:25" }, postfix.endpoints(
        service_of "smtpd_tls_security_level = may\ninet_interfaces = 127.0.0.1, [::1]\n"))
      assert.same({ "smtp://[::1]:25" }, postfix.endpoints(
        service_of "smtpd_tls_security_level = may\ninet_interfaces = loopback-only\ninet_protocols = ipv6\n"))
    end)

    it("are those that use current, if any do", function()
      local service = service_of("smtpd_tls_security_level = may\nsmtpd_tls_chain_files = /other.pem\n",
        "smtp inet n - n - - smtpd\n2525 inet n - n - - smtpd -o smtpd_tls_chain_files=$ours\n")
      write_main(service, file.read(service.config_directory .. "/main.cf")
        .. "ours = " .. service.dir .. "/current/combined.pem\n")
      assert.same({ "smtp://127.0.0.1:2525" }, postfix.endpoints(service))
      assert.is_true(postfix.settings(service).uses_current)
    end)

    it("fail with postconf's own words", function()
      local _, message, code = postfix.endpoints { name = "smtp", dir = "/d", config_directory = lab.path .. "/none" }
      assert.equal("refused", code)
      assert.matches("none/main.cf: No such file or directory", message, 1, true)
    end)
  end)

  describe("names", function()
    it("are what it calls itself, and those of its SNI maps", function()
      local service = service_of("tls_server_sni_maps = hash:$config_directory/sni, texthash:$config_directory/more, "
        .. "lmdb:/no/such/map, static:x, regexp:/etc/hosts\n", "smtp inet n - n - - smtpd\n"
        .. "2525 inet n - n - - smtpd -o smtpd_tls_security_level=may -o myhostname=MX2.lab.test\n")
      assert(file.write(service.config_directory .. "/sni", "# comment\n\nOne.lab.test /one.pem\n  /two.pem\n.below.test\t/three.pem\n"))
      assert(file.write(service.config_directory .. "/more", "more.lab.test /more.pem"))
      assert.same({ "mx.lab.test", "one.lab.test", "*.below.test", "more.lab.test", "MX2.lab.test" }, (postfix.names(service)))
    end)

    it("say what could not be read, and give the others", function()
      local service = service_of "tls_server_sni_maps = hash:$config_directory/sni\n"
      assert(file.mkdir(service.config_directory .. "/sni", tonumber("755", 8)))
      local names, message = postfix.names(service)
      assert.same({ "mx.lab.test" }, names)
      assert.matches("cannot read '.*/sni'", message)
      assert.equal("refused", select(3, postfix.names { name = "smtp", dir = "/d", config_directory = lab.path .. "/none" }))
    end)

    it("are read from a server that runs, which presents them", function()
      local server, service = server_of { names = { "mx.lab.test" } }
      local path, pair = service.config_directory .. "/sni", lab:certificate { names = { "sni.lab.test" } }
      assert(file.write(path, ("sni.lab.test %s/key.pem, %s/cert.pem\n"):format(pair, pair)))
      assert.equal(0, process.run({ "postmap", "-c", service.config_directory, "-F", "hash:" .. path }).status)
      assert.equal(0, process.run({ "postconf", "-c", service.config_directory, "-e", "tls_server_sni_maps=hash:" .. path }).status)
      aged(service.config_directory .. "/main.cf")
      server:stop()
      server:start()
      assert.equal(lab:fingerprint(pair), lab:presented(server.endpoints[1], "sni.lab.test"))
      assert.same({ "mx.lab.test", "sni.lab.test" }, (postfix.names(service)))
    end)
  end)

  describe("settings", function()
    local function said_of(main)
      local service = service_of ""
      write_main(service, (main:gsub("DIR", service.dir)))
      return assert(postfix.settings(service)), service
    end

    it("see current before it is there", function()
      local said, service = said_of "smtpd_tls_chain_files = DIR/current/combined.pem\nsmtpd_tls_security_level = may\n"
      assert.is_true(said.uses_current)
      assert.equal("combined", said.way)
      assert.equal(service.dir .. "/current/combined.pem", said.found.key)
      assert.same({ "smtpd_tls_chain_files = " .. service.dir .. "/current/combined.pem" }, said.lines)
      assert.equal(service.config_directory .. "/main.cf", said.where)
    end)

    it("see it among several files, over several lines", function()
      assert.equal("combined", said_of("smtpd_tls_chain_files = /rsa.pem,\n  DIR/current/combined.pem\n").way)
    end)

    it("see two paths", function()
      local said = said_of [[
smtpd_tls_cert_file = DIR/current/fullchain.pem
smtpd_tls_key_file = DIR/current/privkey.pem
]]
      assert.equal("two paths", said.way)
    end)

    it("do not take comments, half a pair or what chain files overrule for it", function()
      for _, main in ipairs {
        "# smtpd_tls_chain_files = DIR/current/combined.pem\n",
        "smtp_tls_chain_files = DIR/current/combined.pem\n",
        "smtpd_tls_cert_file = DIR/current/fullchain.pem\nsmtpd_tls_key_file = /other.key\n",
        "smtpd_tls_chain_files = /a.pem\nsmtpd_tls_cert_file = DIR/current/combined.pem\n",
      } do
        assert.is_false(said_of(main).uses_current)
      end
    end)

    it("ask to turn TLS on where it is off, and give its names", function()
      local said = said_of "myhostname = mx.lab.test\n"
      assert.equal("smtpd_tls_security_level = may", said.lines[2])
      assert.same({ "mx.lab.test" }, said.names)
    end)

    it("refuse a dir that Postfix's list of files would split", function()
      for _, dir in ipairs { "/a b", "/a,b", "/a$b", "/a{b", "/a\nb" } do
        local service = service_of ""
        service.dir = dir
        local _, message, code = postfix.settings(service)
        assert.equal("usage", code)
        assert.matches("cannot be named", message, 1, true)
        assert.equal("usage", select(3, postfix.adopt(service)))
      end
    end)
  end)

  it("presents a new generation after a reload, by each way", function()
    for way, style in pairs { ["combined"] = "combined", ["two paths"] = "two paths" } do
      local server, service = server_of { style = style, names = { "mx.lab.test" } }
      assert.equal(way, postfix.settings(service).way)
      assert.same(server.endpoints, postfix.endpoints(service))
      local new = lab:certificate { names = { "mx.lab.test" } }
      lab:generation(service.dir, "2", new)
      assert(drivers.run(postfix.check(service)))
      assert(drivers.run(postfix.reload(service)))
      for _, endpoint in ipairs(server.endpoints) do
        assert.is_true(lab:eventually(function()
          return lab:presented(endpoint, "mx.lab.test") == lab:fingerprint(new)
        end))
      end
      server:stop()
    end
  end)

  it("knows the running master, and starts it again after it exited", function()
    local server, service = server_of {}
    assert.equal(server.process:pid(), postfix.pid(service))
    server:stop()
    assert.is_nil(postfix.pid(service))
    local _, message, code = drivers.run(postfix.reload(service))
    assert.equal("refused", code)
    assert.matches("exit status 1: it printed no reason", message, 1, true)
    assert(drivers.run(postfix.restart(service)))
    assert.is_true(lab:eventually(function() return postfix.pid(service) ~= nil end))
    assert.is_truthy(lab:presented(server.endpoints[2]))
    server:stop()
    assert.is_false(server:running())
  end)

  it("names as default what all clients get, when it is there", function()
    local service = service_of ""
    assert.is_nil(postfix.default(service))
    local path = service.config_directory .. "/own.pem"
    write_main(service, "smtpd_tls_chain_files = " .. path .. "\n")
    assert.is_nil(postfix.default(service))
    assert(file.write(path, ""))
    assert.same({ certificate = path }, postfix.default(service))
  end)

  describe("adopt", function()
    it("makes a running Postfix present current, and undo puts main.cf back", function()
      local server, service = server_of { style = "none", names = { "mx.lab.test" } }
      local main = service.config_directory .. "/main.cf"
      local own, text = lab:presented(server.endpoints[1]), file.read(main)
      local pair = lab:certificate { names = { "mx.lab.test" } }
      lab:generation(service.dir, "1", pair)
      local record = assert(postfix.adopt(service))
      aged(main)
      assert(drivers.run(postfix.reload(service)))
      for _, endpoint in ipairs(server.endpoints) do
        assert.is_true(lab:eventually(function() return lab:presented(endpoint) == lab:fingerprint(pair) end))
      end
      assert.same({ before = {} }, postfix.adopt(service))
      assert.is_true(postfix.undo(service, record))
      aged(main)
      assert.equal(text, file.read(main))
      assert(drivers.run(postfix.reload(service)))
      assert.is_true(lab:eventually(function() return lab:presented(server.endpoints[1]) == own end))
      server:stop()
    end)

    it("turns TLS on where it was off", function()
      local server, service = server_of { style = "off" }
      assert.is_nil(lab:presented(server.endpoints[1]))
      local pair = lab:certificate { names = { "mx.lab.test" } }
      lab:generation(service.dir, "1", pair)
      local record = assert(postfix.adopt(service))
      assert.equal("smtpd_tls_security_level = may\n", setting(service, "smtpd_tls_security_level"))
      assert(drivers.run(postfix.reload(service)))
      for _, endpoint in ipairs(server.endpoints) do
        assert.is_true(lab:eventually(function() return lab:presented(endpoint) == lab:fingerprint(pair) end))
      end
      assert.is_true(postfix.undo(service, record))
      assert.equal("", setting(service, "smtpd_tls_security_level", "smtpd_tls_chain_files"))
      server:stop()
    end)

    it("clears the legacy settings and remembers them, keeps a stricter level", function()
      local service = service_of [[
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = ${config_directory}/a.pem
smtpd_tls_key_file = $smtpd_tls_cert_file
smtpd_tls_eccert_file = /ec.pem
]]
      local text = setting(service)
      local record = assert(postfix.adopt(service))
      local path = service.dir .. "/current/combined.pem"
      assert.equal("smtpd_tls_chain_files = " .. path .. "\nsmtpd_tls_security_level = encrypt\n",
        setting(service, "smtpd_tls_chain_files", "smtpd_tls_security_level", "smtpd_tls_cert_file",
          "smtpd_tls_key_file", "smtpd_tls_eccert_file"))
      assert.is_true(postfix.undo(service, record))
      assert.equal(text, setting(service))
    end)

    it("leaves a legacy setting that the SMTP client refers to", function()
      local service = service_of "smtpd_tls_cert_file = /a.pem\nsmtp_tls_cert_file = $smtpd_tls_cert_file\n"
      assert(postfix.adopt(service))
      assert.equal("smtpd_tls_cert_file = /a.pem\n", setting(service, "smtpd_tls_cert_file"))
    end)

    it("gives the line where master.cf names a certificate of its own", function()
      local service = service_of("smtpd_tls_security_level = may\n",
        "smtp inet n - n - - smtpd\n465 inet n - n - - smtpd -o smtpd_tls_cert_file=/x.pem\n")
      local record, message, code = postfix.adopt(service)
      assert.is_nil(record)
      assert.equal("unsupported", code)
      assert.matches("'465' in master.cf names a certificate of its own, '/x.pem'", message, 1, true)
      assert.matches("-o smtpd_tls_chain_files=" .. service.dir .. "/current/combined.pem", message, 1, true)
      assert.equal("", setting(service, "smtpd_tls_chain_files"))
    end)

    it("is not undone once somebody has named another certificate", function()
      local service = service_of ""
      local record = assert(postfix.adopt(service))
      process.run { "postconf", "-c", service.config_directory, "-e", "smtpd_tls_chain_files=/new.pem" }
      aged(service.config_directory .. "/main.cf")
      local _, message, code = postfix.undo(service, record)
      assert.equal("mismatch", code)
      assert.matches("was changed to '/new.pem' since", message, 1, true)
    end)
  end)
end)
