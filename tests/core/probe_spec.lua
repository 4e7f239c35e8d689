--- core.probe against real servers: nginx, postfix, dovecot, openssl s_server,
-- and socat with scripted peers for what real servers do not do.  Everything
-- runs in a private folder, on free loopback ports, in the foreground.

local probe, process, host = core.probe, core.process, core.host

local D -- the private folder
local P = {} -- ports by name
local running = {} -- what after_all stops

local function run(...)
  local result = assert(process.run({ ... }, { cwd = D, timeout = 60 }))
  assert(result.status == 0, table.concat({ ... }, " ") .. ": " .. result.stderr)
  return result.stdout
end

local function write(name, text)
  local file <close> = assert(io.open(D .. "/" .. name, "w"))
  file:write(text)
  return D .. "/" .. name
end

local function read(name)
  local file <close> = assert(io.open(D .. "/" .. name))
  return file:read("a")
end

-- A port that nobody listens on.
local last_port = 20000 + host.pid() * 37 % 20000
local function port(name)
  repeat
    last_port = last_port + 1
    local seen = probe.run({ "https://127.0.0.1:" .. last_port, "https://[::1]:" .. last_port })
  until seen[1].code == "refused" and seen[2].step == "connect"
  P[name] = last_port
  return last_port
end

local function start(argv, ready)
  local child = assert(process.start(argv, { cwd = D, output = D .. "/output" }))
  running[#running + 1] = child
  for _ = 1, 500 do
    local seen = probe.run({ "https://127.0.0.1:" .. ready }, { timeout = 0.1 })[1]
    if seen.step ~= "connect" then
      return child
    end
    host.sleep(0.02)
  end
  error("did not start: " .. table.concat(argv, " ") .. "\n" .. read("output"))
end

-- A self-signed certificate NAME.pem with its key NAME.key.
local function certificate(name, ...)
  run(
    "openssl", "req", "-x509", "-nodes", "-keyout", name .. ".key", "-out", name .. ".pem",
    "-subj", "/CN=" .. name, "-addext", "subjectAltName=DNS:" .. name, ...
  )
  write(name .. ".combined", read(name .. ".key") .. read(name .. ".pem"))
  return (run("openssl", "x509", "-in", name .. ".pem", "-noout", "-fingerprint", "-sha256")
    :match("=(%S+)"):gsub(":", ""):lower())
end

local EC = { "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256" }

local function serve(name, ...)
  local at = port(name)
  start({ "openssl", "s_server", "-accept", "127.0.0.1:" .. at, "-quiet", ... }, at)
end

local nginx = [[
worker_processes 1; error_log %s/nginx.log info; pid %s/nginx.pid;
events { worker_connections 256; }
http { access_log off; ssl_protocols TLSv1.2 TLSv1.3; client_body_temp_path %s/b; proxy_temp_path %s/p;
  fastcgi_temp_path %s/f; uwsgi_temp_path %s/u; scgi_temp_path %s/s;
  server { listen 127.0.0.1:%d ssl; listen [::1]:%d ssl; server_name mail.test;
    ssl_certificate mail.test.pem; ssl_certificate_key mail.test.key; }
  server { listen 127.0.0.1:%d ssl; server_name other.test;
    ssl_certificate other.test.pem; ssl_certificate_key other.test.key; } }
]]

local main_cf = [[
compatibility_level=3.6
queue_directory=%s/queue
data_directory=%s/data
command_directory=/usr/sbin
daemon_directory=/usr/lib/postfix/sbin
meta_directory=/etc/postfix
mail_owner=postfix
setgid_group=postdrop
myhostname=mail.test
inet_interfaces=all
inet_protocols=all
alias_maps=
alias_database=
local_transport=error:none
notify_classes=
smtpd_relay_restrictions=permit_mynetworks,reject
smtpd_client_connection_count_limit=0
smtpd_tls_security_level=may
smtpd_tls_chain_files=%s/mail.test.combined
maillog_file=%s/mail.log
maillog_file_prefixes=/
]]

local master_cf = [[
127.0.0.1:%d inet n - n - 200 smtpd
[::1]:%d inet n - n - 200 smtpd
127.0.0.1:%d inet n - n - 200 smtpd
  -o smtpd_tls_wrappermode=yes
127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_chain_files=%s/torn.combined
127.0.0.1:%d inet n - n - - smtpd
  -o smtpd_tls_security_level=none
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
error unix - - n - - error
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
]]

local dovecot = [[
base_dir=%s/run
state_dir=%s/state
log_path=%s/dovecot.log
protocols=imap pop3
listen=127.0.0.1, ::1
ssl=yes
ssl_cert=<%s/mail.test.pem
ssl_key=<%s/mail.test.key
passdb {
  driver=static
  args=nopassword=y
}
userdb {
  driver=static
  args=uid=nobody gid=nogroup home=%s
}
service imap-login {
  process_limit=200
  inet_listener imap {
    port=%d
  }
  inet_listener imaps {
    port=%d
    ssl=yes
  }
}
service pop3-login {
  process_limit=200
  inet_listener pop3 {
    port=%d
  }
  inet_listener pop3s {
    port=%d
    ssl=yes
  }
}
]]

-- One peer for each behaviour: run by socat for every connection.
local peer = [[
io.stdout:setvbuf("no")
local function say(text) io.write((text:gsub("\n", "\r\n"))) end
local function hear() return (io.read("L"):gsub("\r?\n", "")) end
local function hang() io.read("a") end
local peers = {
  silent = hang,
  closing = function() end,
  greets = function() say "220 hello\n" hang() end,
  closes_after_greeting = function() say "220 hello\n" hear() end,
  garbage = function() say "SSH-2.0-OpenSSH_9.2\n" hang() end,
  escapes = function() io.write("\27[2J\"\\\200\255\r\n") hang() end,
  refuses = function() say "554 5.7.1 go away\n" hear() end,
  mixed = function() say "220-hello\n250 there\n" hang() end,
  endless_line = function() say "220 " while true do io.write(("x"):rep(4096)) end end,
  long_line = function() say("220 " .. ("x"):rep(4092) .. "\n") hear() say "250 x\n" hang() end,
  longer_line = function() say("220 " .. ("x"):rep(4093) .. "\n") hang() end,
  endless_reply = function() while true do say "220-more\n" end end,
  long_reply = function() say(("220-more\n"):rep(99) .. "220 done\n") hear() say "250 x\n" hang() end,
  longer_reply = function() say(("220-more\n"):rep(100) .. "220 done\n") hang() end,
  drips = function() say "220-" for _ = 1, 600 do io.write("x") core.host.sleep(0.05) end end,
  ahead = function() say "220 hello\n250-x\n250 STARTTLS\n220 go\n" hang() end,
  injects = function()
    say "220 hello\n" hear() say "250-x\n250 STARTTLS\n" hear()
    say "220 go\n250 injected\n" hang()
  end,
  no_ehlo = function() say "220 hello\n" hear() say "502 what?\n" hear() end,
  offers_less = function() say "220 hello\n" hear() say "250-x\n250-STARTTLSX\n250 XSTARTTLS\n" hear() end,
  echoes_hello = function() say "220 hello\n" local line = hear() say("554 " .. line .. "\n") hear() end,
  silent_after_starttls = function()
    say "220 hello\n" hear() say "250-x\n250 starttls\n" hear() say "220 go\n" hang()
  end,
  imap_bye = function() say "* BYE not now\n" hear() end,
  imap_preauth = function() say "* PREAUTH you are in\n" hear() end,
  imap_no = function() say "* OK hi\n* CAPABILITY X\n" hear() say "* 1 EXISTS\na1 NO never\n" hear() end,
  imap_bad = function() say "* OK hi\n" hear() say "a1 BAD never\n" hear() end,
  imap_other_tag = function() say "* OK hi\n" hear() say "a2 OK\n" hang() end,
  imap_injects = function() say "* OK hi\n" hear() say "a1 OK go\n* OK injected\n" hang() end,
  imap_garbage = function() say "+OK pop\n" hang() end,
  pop3_err = function() say "+OK hi\n" hear() say "-ERR never\n" hear() end,
  pop3_refuses = function() say "-ERR busy\n" hear() end,
  pop3_garbage = function() say "220 smtp\n" hang() end,
  pop3_injects = function() say "+OK hi\n" hear() say "+OK go\nx" hang() end,
  http = function() io.read(5) say "HTTP/1.1 400 Bad Request\n\n" hang() end,
}
peers[arg[1] ]()
]]

local function probe_one(endpoint, options)
  local results = probe.run({ endpoint }, options or { timeout = 10 })
  assert.equal(1, #results)
  return results[1]
end

local function assert_seen(fingerprint, result)
  assert.equal(nil, result.error)
  assert.equal(fingerprint, result.fingerprint)
  assert.equal(fingerprint, result.chain[1]:fingerprint())
end

-- What a probe of a scripted peer ends with.
local function provoke(scheme, behaviour, options)
  local name = "peer " .. behaviour
  if not P[name] then
    local at = port(name)
    start({ "socat", "TCP-LISTEN:" .. at .. ",bind=127.0.0.1,reuseaddr,fork",
      "EXEC:" .. P.program .. " " .. D .. "/peer.lua " .. behaviour }, at)
  end
  local url = ("%s://127.0.0.1:%d"):format(scheme, P[name])
  local result = probe_one(url, options or { timeout = 10 })
  return result.step, result.code, (result.error or ""):gsub(":%d+'", "'")
end

-- Waits until a log has as many lines of a kind; fails after ten seconds.
local function count_lines(log, pattern, wanted)
  local count
  for _ = 1, 500 do
    count = select(2, read(log):gsub(pattern, ""))
    if count >= wanted then
      break
    end
    host.sleep(0.02)
  end
  assert.equal(wanted, count, read(log))
end

-- Empties a log once nothing has been written to it for a while.
local function empty(log)
  local before, now
  repeat
    before = now
    host.sleep(0.3)
    now = #read(log)
  until now == before
  write(log, "")
end

local mail, other

setup(function()
  local made = assert(process.run({ "mktemp", "-d", "/tmp/certwright-probe.XXXXXX" }))
  D = made.stdout:gsub("\n", "")
  run("chmod", "755", D) -- postfix and dovecot have users of their own
  P.program = run("readlink", "/proc/" .. host.pid() .. "/exe"):gsub("\n", "")
  write("peer.lua", peer)
  mail = certificate("mail.test", table.unpack(EC))
  other = certificate("other.test", table.unpack(EC))
  write("torn.combined", read("other.test.key") .. read("mail.test.pem"))

  local https, https2 = port "https", port "https2"
  write("nginx.conf", nginx:format(D, D, D, D, D, D, D, https, https, https2))
  start({ "nginx", "-p", D, "-c", "nginx.conf", "-e", D .. "/nginx.log", "-g", "daemon off;" }, https)

  local smtp, smtps, torn, plain = port "smtp", port "smtps", port "torn", port "plain"
  run("mkdir", "-p", "conf", "queue", "data")
  run("chown", "postfix", "data")
  write("conf/main.cf", main_cf:format(D, D, D, D))
  write("conf/master.cf", master_cf:format(smtp, smtp, smtps, torn, D, plain))
  write("mail.log", "")
  start({ "postfix", "-c", D .. "/conf", "start-fg" }, smtp)

  local imap, imaps, pop3, pop3s = port "imap", port "imaps", port "pop3", port "pop3s"
  write("dovecot.conf", dovecot:format(D, D, D, D, D, D, imap, imaps, pop3, pop3s))
  start({ "dovecot", "-F", "-c", D .. "/dovecot.conf" }, imap)
end)

teardown(function()
  process.run({ "postfix", "-c", D .. "/conf", "stop" }) -- its master has a session of its own
  for i = #running, 1, -1 do
    running[i]:stop("TERM", 5)
  end
  process.run({ "rm", "-rf", D })
end)

local function all_services(address)
  local list = {}
  for _, scheme in ipairs { "https", "smtp", "smtps", "imap", "imaps", "pop3", "pop3s" } do
    list[#list + 1] = ("%s://%s:%d"):format(scheme, address, P[scheme])
  end
  return list
end

describe("core.probe.run with real servers", function()
  it("sees nginx's certificate, protocol and cipher", function()
    local result = probe_one("https://127.0.0.1:" .. P.https)
    assert_seen(mail, result)
    assert.equal("TLSv1.3", result.protocol)
    assert.equal("TLS_AES_256_GCM_SHA384", result.cipher)
    assert.equal("127.0.0.1", result.address)
    assert.equal("https://127.0.0.1:" .. P.https, result.endpoint)
    assert.equal(nil, result.name)
    assert.is_true(result.seconds > 0 and result.seconds < 5)
  end)

  for _, scheme in ipairs { "https", "smtp", "smtps", "imap", "imaps", "pop3", "pop3s" } do
    it("sees the certificate of " .. scheme, function()
      assert_seen(mail, probe_one(scheme .. "://127.0.0.1:" .. P[scheme]))
    end)
  end

  it("speaks IPv6", function()
    for _, scheme in ipairs { "https", "smtp", "imap", "pop3s" } do
      local result = probe_one(("%s://[::1]:%d/"):format(scheme, P[scheme]))
      assert_seen(mail, result)
      assert.equal("::1", result.address)
      assert.equal(nil, result.name)
    end
  end)

  it("asks for the name of the options, of the endpoint, of the URL", function()
    local url = "https://127.0.0.1:" .. P.https2
    local results = probe.run({
      url,
      { endpoint = url, name = "mail.test" },
      { endpoint = "https://Mail.Test.:" .. P.https2, name = nil, address = "127.0.0.1" },
    }, { name = "other.test" })
    assert.same({ "other.test", "mail.test", "other.test" },
      { results[1].name, results[2].name, results[3].name })
    assert.same({ 1, 2, 3 }, { results[1].index, results[2].index, results[3].index })
    local seen = probe_one { endpoint = "https://other.test.:" .. P.https2, address = "127.0.0.1" }
    assert.equal("other.test", seen.name)
    assert.equal("127.0.0.1", seen.address)
    assert_seen(other, seen)
  end)

  it("gets by SNI what the server keeps for the name", function()
    local at = port "sni"
    start({ "openssl", "s_server", "-accept", "127.0.0.1:" .. at, "-quiet",
      "-cert", "mail.test.pem", "-key", "mail.test.key", "-servername", "other.test",
      "-cert2", "other.test.pem", "-key2", "other.test.key" }, at)
    local url = "https://127.0.0.1:" .. at
    assert_seen(mail, probe_one(url))
    assert_seen(other, probe_one({ endpoint = url, name = "other.test" }))
    assert_seen(mail, probe_one({ endpoint = url, name = "third.test" }))
  end)

  it("looks a name up, and gives each address once", function()
    local seen = probe_one("https://localhost:" .. P.https)
    assert_seen(mail, seen)
    assert.equal("localhost", seen.name)
    local listed = run("getent", "ahosts", "localhost")
    local first = listed:match("^%S+")
    assert.equal(first, seen.address)
  end)

  it("keeps the order of the endpoints", function()
    local list = { "https://127.0.0.1:1", "imap://127.0.0.1:" .. P.imap, "bad", "https://localhost:" .. P.https }
    local results = probe.run(list)
    for i = 1, #list do
      assert.equal(list[i], results[i].endpoint)
    end
    assert.equal(4, #results)
    assert.same({}, probe.run({}))
  end)

  it("parts without a complaint in the logs of postfix and dovecot", function()
    empty "mail.log"
    empty "dovecot.log"
    for _, result in ipairs(probe.run(all_services "127.0.0.1")) do
      assert_seen(mail, result)
    end
    count_lines("mail.log", "disconnect from localhost%[127.0.0.1%] ehlo=1 starttls=1 quit=1 commands=3", 1)
    count_lines("mail.log", "disconnect from localhost%[127.0.0.1%] quit=1 commands=1", 1)
    count_lines("mail.log", "lost connection", 0)
    count_lines("mail.log", "SSL_accept error", 0)
    count_lines("dovecot.log", "Aborted login by logging out", 4)
    count_lines("dovecot.log", "\n", 4)
    count_lines("nginx.log", "%[error%]", 0)
    count_lines("nginx.log", "SSL_do_handshake", 0)
  end)

  it("quits politely when postfix has no TLS to offer", function()
    empty "mail.log"
    local torn = probe_one("smtp://127.0.0.1:" .. P.torn)
    assert.equal("starttls", torn.step)
    assert.equal("refused", torn.code)
    assert.equal(("no STARTTLS with 'smtp://127.0.0.1:%d': the server said "
      .. '"454 4.7.0 TLS not available due to local problem"'):format(P.torn), torn.error)
    local plain = probe_one("smtp://127.0.0.1:" .. P.plain)
    assert.equal("starttls", plain.step)
    assert.equal("unsupported", plain.code)
    assert.equal(("no STARTTLS with 'smtp://127.0.0.1:%d': the server does not offer STARTTLS")
      :format(P.plain), plain.error)
    count_lines("mail.log", "ehlo=1 starttls=0/1 quit=1 commands=2/3", 1)
    count_lines("mail.log", "ehlo=1 quit=1 commands=2", 1)
    count_lines("mail.log", "lost connection", 0)
  end)

  it("probes 64 endpoints at once", function()
    local list = {}
    for i = 1, 64 do
      list[i] = all_services("127.0.0.1")[i % 7 + 1]
    end
    local before = host.clock()
    for _, result in ipairs(probe.run(list)) do
      assert_seen(mail, result)
    end
    assert.is_true(host.clock() - before < 10)
  end)

  it("probes more endpoints than at once", function()
    local list = {}
    for i = 1, 20 do
      list[i] = "https://127.0.0.1:" .. (i % 5 == 0 and 1 or P.https)
    end
    for _, most in ipairs { 1, 3, 512 } do
      for i, result in ipairs(probe.run(list, { concurrency = most })) do
        assert.equal(i % 5 == 0 and "refused" or nil, result.code)
      end
    end
  end)
end)

describe("core.probe.run with what should not be used", function()
  it("sees an expired certificate", function()
    local index = write("index.txt", "")
    write("ca.cnf", "[ca]\ndefault_ca=x\n[x]\ndatabase=" .. index .. "\nnew_certs_dir=" .. D
      .. "\nserial=serial\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n")
    write("serial", "01\n")
    run("openssl", "req", "-new", "-nodes", "-keyout", "old.key", "-out", "old.csr", "-subj", "/CN=old",
      table.unpack(EC))
    run("openssl", "ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", "old.key", "-in", "old.csr",
      "-out", "old.pem", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-notext")
    serve("old", "-cert", "old.pem", "-key", "old.key")
    local result = probe_one("https://127.0.0.1:" .. P.old)
    assert.equal(nil, result.error)
    assert.equal(1580515200, result.chain[1]:fields().not_after)
  end)

  it("sees RSA-1024 with SHA-1 over TLS 1.2", function()
    local weak = certificate("weak.test", "-newkey", "rsa:1024", "-sha1")
    serve("weak", "-cert", "weak.test.pem", "-key", "weak.test.key", "-tls1_2", "-cipher", "ALL:@SECLEVEL=0")
    local result = probe_one("https://127.0.0.1:" .. P.weak)
    assert_seen(weak, result)
    assert.equal("TLSv1.2", result.protocol)
    assert.truthy(result.cipher:find("^ECDHE%-RSA"))
  end)

  it("sees a server of TLS 1.0", function()
    serve("ancient", "-cert", "weak.test.pem", "-key", "weak.test.key", "-tls1", "-cipher", "ALL:@SECLEVEL=0")
    local result = probe_one("https://127.0.0.1:" .. P.ancient)
    assert.equal(nil, result.error)
    assert.equal("TLSv1", result.protocol)
  end)

  it("sees the whole chain as it was sent", function()
    serve("chain", "-cert", "mail.test.pem", "-key", "mail.test.key", "-cert_chain", "other.test.pem")
    local result = probe_one("https://127.0.0.1:" .. P.chain)
    assert_seen(mail, result)
    assert.equal(2, #result.chain)
    assert.equal(other, result.chain[2]:fingerprint())
  end)

  it("sees a server that asks for a client's certificate", function()
    serve("mutual", "-cert", "mail.test.pem", "-key", "mail.test.key", "-Verify", "1")
    assert_seen(mail, probe_one("https://127.0.0.1:" .. P.mutual))
    serve("mutual12", "-cert", "mail.test.pem", "-key", "mail.test.key", "-Verify", "1", "-tls1_2")
    local result = probe_one("https://127.0.0.1:" .. P.mutual12)
    assert_seen(mail, result)
    assert.equal("TLSv1.2", result.protocol)
  end)
end)

describe("core.probe.run with bad peers", function()
  local step, code, message

  it("says that nobody listens", function()
    local result = probe_one("smtp://127.0.0.1:1")
    assert.same({ "connect", "refused" }, { result.step, result.code })
    assert.equal("cannot connect to 'smtp://127.0.0.1:1': Connection refused", result.error)
    assert.equal("127.0.0.1", result.address)
    result = probe_one("smtp://localhost:1")
    assert.equal("cannot connect to 'smtp://localhost:1' at " .. result.address .. ": Connection refused",
      result.error)
  end)

  it("says that a host is unknown", function()
    local result = probe_one("https://no-such-host.invalid")
    assert.equal("resolve", result.step)
    assert.truthy(result.code == "missing" or result.code == "io")
    assert.truthy(result.error:find("^cannot resolve the host of 'https://no%-such%-host.invalid': %a"))
    assert.equal(nil, result.address)
  end)

  it("does not wait for a look-up that takes long", function()
    write("resolv.conf", "nameserver 127.0.0.77\n")
    write("look-up.lua", [[
      local before = core.host.clock()
      local results = core.probe.run({ "https://a.test", "smtp://127.0.0.1:1", "imap://a.test" }, { timeout = 0.3 })
      for _, result in ipairs(results) do print(result.step, result.code, result.error, result.name) end
      print(core.host.clock() - before < 2)]])
    running[#running + 1] = process.start { "socat", "-u", "UDP-RECV:53,bind=127.0.0.77", "/dev/null" }
    local printed = run("unshare", "-m", "sh", "-c", 'mount --bind resolv.conf /etc/resolv.conf && exec "$@"',
      "-", P.program, D .. "/look-up.lua")
    assert.equal("resolve\ttimeout\tcannot resolve the host of 'https://a.test': not within 0.3 seconds\ta.test\n"
      .. "connect\trefused\tcannot connect to 'smtp://127.0.0.1:1': Connection refused\tnil\n"
      .. "resolve\ttimeout\tcannot resolve the host of 'imap://a.test': not within 0.3 seconds\ta.test\n"
      .. "true\n", printed)
  end)

  it("says that a connection is not made in time", function()
    local at = port "full"
    start({ "socat", "TCP-LISTEN:" .. at .. ",bind=127.0.0.1,backlog=1,fork,max-children=1",
      "EXEC:" .. P.program .. " " .. D .. "/peer.lua silent" }, at)
    local list, late = {}, nil
    for i = 1, 12 do
      list[i] = "https://127.0.0.1:" .. at
    end
    for _, result in ipairs(probe.run(list, { timeout = 0.5 })) do
      assert.equal("timeout", result.code)
      late = result.step == "connect" and result or late
    end
    assert.equal(("cannot connect to 'https://127.0.0.1:%d': not within 0.5 seconds"):format(at), late.error)
  end)

  local function expects(name, scheme, behaviour, wanted_step, wanted_code, wanted, options)
    it(name, function()
      step, code, message = provoke(scheme, behaviour, options)
      assert.same({ wanted_step, wanted_code, wanted }, { step, code, message })
    end)
  end
  local short = { timeout = 0.3 }

  expects("gives up on a silent server", "smtp", "silent", "greeting", "timeout",
    "no greeting from 'smtp://127.0.0.1': not within 0.3 seconds", short)
  expects("gives up on one that is silent after EHLO", "smtp", "greets", "starttls", "timeout",
    "no STARTTLS with 'smtp://127.0.0.1': not within 0.3 seconds", short)
  expects("gives up on one that is silent in the handshake", "https", "silent", "handshake", "timeout",
    "no TLS handshake with 'https://127.0.0.1': not within 0.3 seconds", short)
  expects("gives up on one that is silent after STARTTLS", "smtp", "silent_after_starttls", "handshake", "timeout",
    "no TLS handshake with 'smtp://127.0.0.1': not within 0.3 seconds", short)
  expects("gives up on one that drips", "smtp", "drips", "greeting", "timeout",
    "no greeting from 'smtp://127.0.0.1': not within 0.3 seconds", short)
  expects("says that the server hung up at once", "imap", "closing", "greeting", "io",
    "no greeting from 'imap://127.0.0.1': the server closed the connection")
  expects("says that the server hung up after its greeting", "smtp", "closes_after_greeting", "starttls", "io",
    "no STARTTLS with 'smtp://127.0.0.1': the server closed the connection")
  expects("quotes what is no SMTP", "smtp", "garbage", "greeting", "parse",
    "no greeting from 'smtp://127.0.0.1': not a reply: \"SSH-2.0-OpenSSH_9.2\"")
  expects("escapes what it quotes", "smtp", "escapes", "greeting", "parse",
    "no greeting from 'smtp://127.0.0.1': not a reply: \"\\x1b[2J\\x22\\x5c\\xc8\\xff\"")
  expects("quotes a refusal", "smtp", "refuses", "greeting", "refused",
    "no greeting from 'smtp://127.0.0.1': the server said \"554 5.7.1 go away\"")
  expects("refuses a reply of two codes", "smtp", "mixed", "greeting", "parse",
    "no greeting from 'smtp://127.0.0.1': not a reply: \"250 there\"")
  expects("refuses an endless line", "smtp", "endless_line", "greeting", "limit",
    "no greeting from 'smtp://127.0.0.1': a line of more than 4096 bytes")
  expects("refuses a line of 4097 bytes", "smtp", "longer_line", "greeting", "limit",
    "no greeting from 'smtp://127.0.0.1': a line of more than 4096 bytes")
  expects("takes a line of 4096 bytes", "smtp", "long_line", "starttls", "unsupported",
    "no STARTTLS with 'smtp://127.0.0.1': the server does not offer STARTTLS")
  expects("refuses an endless reply", "smtp", "endless_reply", "greeting", "limit",
    "no greeting from 'smtp://127.0.0.1': a reply of more than 100 lines")
  expects("refuses a reply of 101 lines", "smtp", "longer_reply", "greeting", "limit",
    "no greeting from 'smtp://127.0.0.1': a reply of more than 100 lines")
  expects("takes a reply of 100 lines", "smtp", "long_reply", "starttls", "unsupported",
    "no STARTTLS with 'smtp://127.0.0.1': the server does not offer STARTTLS")
  expects("refuses answers that come before the questions", "smtp", "ahead", "starttls", "parse",
    "no STARTTLS with 'smtp://127.0.0.1': answered before it was asked: \"250 STARTTLS\"")
  expects("refuses what is injected after STARTTLS", "smtp", "injects", "starttls", "parse",
    "no STARTTLS with 'smtp://127.0.0.1': sent in clear after STARTTLS: \"250 injected\\x0d\\x0a\"")
  expects("quotes a refused EHLO", "smtp", "no_ehlo", "starttls", "refused",
    "no STARTTLS with 'smtp://127.0.0.1': the server said \"502 what?\"")
  expects("takes no other word for STARTTLS", "smtp", "offers_less", "starttls", "unsupported",
    "no STARTTLS with 'smtp://127.0.0.1': the server does not offer STARTTLS")
  expects("introduces itself by its address", "smtp", "echoes_hello", "starttls", "refused",
    "no STARTTLS with 'smtp://127.0.0.1': the server said \"554 EHLO [127.0.0.1]\"")

  expects("quotes IMAP's BYE", "imap", "imap_bye", "greeting", "refused",
    "no greeting from 'imap://127.0.0.1': the server said \"* BYE not now\"")
  expects("has no STARTTLS for IMAP's PREAUTH", "imap", "imap_preauth", "greeting", "refused",
    "no greeting from 'imap://127.0.0.1': the server said \"* PREAUTH you are in\"")
  expects("quotes IMAP's NO after untagged lines", "imap", "imap_no", "starttls", "refused",
    "no STARTTLS with 'imap://127.0.0.1': the server said \"a1 NO never\"")
  expects("quotes IMAP's BAD", "imap", "imap_bad", "starttls", "refused",
    "no STARTTLS with 'imap://127.0.0.1': the server said \"a1 BAD never\"")
  expects("refuses another tag", "imap", "imap_other_tag", "starttls", "parse",
    "no STARTTLS with 'imap://127.0.0.1': not a reply: \"a2 OK\"")
  expects("refuses what is injected into IMAP", "imap", "imap_injects", "starttls", "parse",
    "no STARTTLS with 'imap://127.0.0.1': sent in clear after STARTTLS: \"* OK injected\\x0d\\x0a\"")
  expects("quotes what is no IMAP", "imap", "imap_garbage", "greeting", "parse",
    "no greeting from 'imap://127.0.0.1': not a reply: \"+OK pop\"")

  expects("quotes POP3's refusal of STLS", "pop3", "pop3_err", "starttls", "refused",
    "no STARTTLS with 'pop3://127.0.0.1': the server said \"-ERR never\"")
  expects("quotes POP3's refusal to talk", "pop3", "pop3_refuses", "greeting", "refused",
    "no greeting from 'pop3://127.0.0.1': the server said \"-ERR busy\"")
  expects("quotes what is no POP3", "pop3", "pop3_garbage", "greeting", "parse",
    "no greeting from 'pop3://127.0.0.1': not a reply: \"220 smtp\"")
  expects("refuses what is injected into POP3", "pop3", "pop3_injects", "starttls", "parse",
    "no STARTTLS with 'pop3://127.0.0.1': sent in clear after STARTTLS: \"x\"")

  expects("says that the server hung up in the handshake", "https", "closing", "handshake", "io",
    "no TLS handshake with 'https://127.0.0.1': the server closed the connection")
  expects("says that the server speaks no TLS", "https", "http", "handshake", "parse",
    "no TLS handshake with 'https://127.0.0.1': wrong version number")

  it("says what alert the server sent", function()
    serve("picky", "-cert", "mail.test.pem", "-key", "mail.test.key", "-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA")
    local result = probe_one("https://127.0.0.1:" .. P.picky)
    assert.same({ "handshake", "refused" }, { result.step, result.code })
    assert.truthy(result.error:find("alert handshake failure", 1, true))
  end)

  it("refuses a chain without end", function()
    write("long.pem", read("mail.test.pem"):rep(300))
    serve("long", "-cert", "mail.test.pem", "-key", "mail.test.key", "-cert_chain", "long.pem")
    local result = probe_one("https://127.0.0.1:" .. P.long)
    assert.same({ "handshake", "limit" }, { result.step, result.code })
    assert.equal("no TLS handshake with 'https://127.0.0.1:" .. P.long .. "': excessive message size", result.error)
  end)

  it("does not wait for one that never answers a farewell", function()
    serve("rude", "-cert", "mail.test.pem", "-key", "mail.test.key")
    local before = host.clock()
    assert_seen(mail, probe_one("smtps://127.0.0.1:" .. P.rude))
    assert.is_true(host.clock() - before < 3)
  end)

  it("keeps the others going beside bad ones", function()
    provoke("smtp", "silent", short)
    local list = {}
    for i = 1, 10 do
      list[2 * i - 1] = "https://127.0.0.1:" .. P.https
      list[2 * i] = "smtp://127.0.0.1:" .. P["peer silent"]
    end
    local before = host.clock()
    for i, result in ipairs(probe.run(list, { timeout = 1 })) do
      assert.equal(i % 2 == 0 and "timeout" or nil, result.code)
    end
    assert.is_true(host.clock() - before < 3)
  end)
end)

describe("core.probe.run with bad arguments", function()
  local function refused(endpoint, code, why)
    local result = probe_one(endpoint)
    assert.same({ "url", code }, { result.step, result.code })
    local url = type(endpoint) == "table" and endpoint.endpoint or endpoint
    assert.equal("cannot probe '" .. url .. "': " .. why, result.error)
    assert.equal(url, result.endpoint)
  end

  it("says what is wrong with a URL", function()
    refused("ldap://h", "unsupported", "its protocol is not supported")
    for _, url in ipairs { "", "h", "h:443", "https:/h", "https" } do
      refused(url, "usage", "it is not of the form SCHEME://HOST:PORT")
    end
    for _, url in ipairs { "https://", "https://:443", "https://[::1", "https://[127.0.0.1]", "https://[x]" } do
      refused(url, "usage", "its host is neither a name nor an address")
    end
    for _, url in ipairs { "https://h:", "https://h:0", "https://h:65536", "https://h:x", "https://h:99999999999" } do
      refused(url, "usage", "its port is not a number from 1 to 65535")
    end
    for _, url in ipairs { "https://h:1/x", "https://h?", "https://u@h", "https://h:1:2", "https://[::1]x",
      "https://::1" } do
      local result = probe_one(url)
      assert.same({ "url", "usage" }, { result.step, result.code }, url)
    end
    refused("https://a b", "usage", "a URL has neither spaces nor characters beyond ASCII")
  end)

  it("escapes a URL that is none, and shortens it", function()
    assert.equal("https://m\\xc3\\xbcller", probe_one("https://m\195\188ller").endpoint)
    assert.equal("https://a\\x00b", probe_one("https://a\0b").endpoint)
    local result = probe_one("https://" .. ("x"):rep(600))
    assert.equal("usage", result.code)
    assert.truthy(result.error:find("it has more than 511 characters", 1, true))
    assert.equal("usage", probe_one("https://" .. ("x"):rep(300)).code)
  end)

  it("says that a name or an address is none", function()
    local url = "https://127.0.0.1:1"
    for _, name in ipairs { ".", "a b", "a\0b", "m\195\188ller", ("x"):rep(254) } do
      refused({ endpoint = url, name = name }, "usage", "the name to ask for is not a DNS name")
    end
    for _, address in ipairs { "", "localhost", "127.1", "[::1]", "1.2.3.4.5" } do
      refused({ endpoint = url, address = address }, "usage", "the address to use is not an IP address")
    end
    assert.equal(nil, probe_one({ endpoint = url, name = "192.0.2.1" }).name)
    assert.equal(nil, probe_one({ endpoint = url, name = "::1" }).name)
  end)

  it("takes schemes and names in whatever case", function()
    assert_seen(mail, probe_one("HTTPS://LOCALHOST:" .. P.https))
  end)

  it("knows the usual ports", function()
    local ports = { https = 443, smtp = 25, smtps = 465, imap = 143, imaps = 993, pop3 = 110, pop3s = 995 }
    for scheme, usual in pairs(ports) do
      local short = probe_one(scheme .. "://127.9.9.9")
      local long = probe_one(scheme .. "://127.9.9.9:" .. usual)
      assert.same({ short.step, short.code }, { long.step, long.code })
    end
  end)

  it("raises on misuse", function()
    assert.has_error(function() probe.run() end)
    assert.has_error(function() probe.run("https://h") end)
    assert.has_error(function() probe.run({ 1 }) end)
    assert.has_error(function() probe.run({ {} }) end)
    assert.has_error(function() probe.run({ { endpoint = "https://h", port = 1 } }) end)
    assert.has_error(function() probe.run({ { endpoint = "https://h", name = {} } }) end)
    assert.has_error(function() probe.run({}, { names = "x" }) end)
    assert.has_error(function() probe.run({}, { timeout = 0 }) end)
    assert.has_error(function() probe.run({}, { timeout = 0 / 0 }) end)
    assert.has_error(function() probe.run({}, { timeout = 3601 }) end)
    assert.has_error(function() probe.run({}, { concurrency = 0 }) end)
    assert.has_error(function() probe.run({}, { concurrency = 513 }) end)
    assert.has_error(function() probe.run({}, { name = {} }) end)
  end)
end)

describe("core.probe.rehearse", function()
  local function load(name)
    return core.cert.parse(read(name .. ".pem")), assert(core.key.load(read(name .. ".key")))
  end

  it("serves a chain with its key", function()
    local chain, key = load "mail.test"
    assert.is_true(probe.rehearse { chain = chain, key = key, name = "mail.test" })
    assert.is_true(probe.rehearse { chain = chain, key = key, name = "192.0.2.1" })
    chain[2] = core.cert.parse(read "other.test.pem")[1]
    assert.is_true(probe.rehearse { chain = chain, key = key })
  end)

  it("serves RSA and Ed25519", function()
    for kind, arguments in pairs { ["rsa.test"] = { "-newkey", "rsa:2048" }, ["ed.test"] = { "-newkey", "ed25519" } } do
      certificate(kind, table.unpack(arguments))
      local chain, key = load(kind)
      assert.is_true(probe.rehearse { chain = chain, key = key })
    end
  end)

  it("refuses another key", function()
    local chain = load "mail.test"
    local _, key = load "other.test"
    local good, message, code = probe.rehearse { chain = chain, key = key }
    assert.same({ nil, "mismatch" }, { good, code })
    assert.equal("cannot serve this chain: the key is not the certificate's", message)
    _, key = load "rsa.test"
    good, message, code = probe.rehearse { chain = chain, key = key }
    assert.same({ nil, "mismatch" }, { good, code })
    assert.equal("cannot serve this chain: the key is not the certificate's", message)
  end)

  it("refuses what a server of today would not serve", function()
    local chain, key = load "weak.test"
    local good, message, code = probe.rehearse { chain = chain, key = key }
    assert.same({ nil, "refused" }, { good, code })
    assert.equal("cannot serve this chain: the certificate is refused: ee key too small", message)
  end)

  it("refuses a name that is none", function()
    local chain, key = load "mail.test"
    local good, message, code = probe.rehearse { chain = chain, key = key, name = "a b" }
    assert.same({ nil, "usage" }, { good, code })
    assert.equal("cannot rehearse: the name to ask for is not a DNS name", message)
  end)

  it("raises on misuse", function()
    local chain, key = load "mail.test"
    assert.has_error(function() probe.rehearse() end)
    assert.has_error(function() probe.rehearse { chain = chain } end)
    assert.has_error(function() probe.rehearse { key = key } end)
    assert.has_error(function() probe.rehearse { chain = {}, key = key } end)
    assert.has_error(function() probe.rehearse { chain = { key }, key = key } end)
    assert.has_error(function() probe.rehearse { chain = chain, key = key, port = 1 } end)
  end)
end)
