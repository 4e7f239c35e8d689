-- What certwright costs beside its peers and the limit, as ratios measured in
-- this one run: `make bench`.  Machines are noisy: each pair is measured in
-- turns, and the medians are compared.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/support/?.lua;" .. package.path
local Lab = require "lab"
local file, host, process = core.file, core.host, core.process

local program = assert(require("lfs").symlinkattributes("/proc/self/exe", "target"))
local rows = {}

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

-- Seconds that a whole process takes; it has to succeed.
local function timed(argv)
  local from = host.clock()
  local result = assert(process.run(argv, { limit = 16 * 1024 * 1024 }))
  local seconds = host.clock() - from
  assert(result.status == 0, table.concat(argv, " ") .. ": " .. result.stderr)
  return seconds, result.stdout
end

-- Medians of two things measured in turns; each is a function that returns a
-- number.
local function paired(times, a, b)
  local as, bs = {}, {}
  a() b()
  for i = 1, times do as[i], bs[i] = a(), b() end
  return median(as), median(bs)
end

local function row(what, ours, theirs, peer, ratio, wanted, good)
  rows[#rows + 1] = { what, ours, theirs, peer, ratio, wanted, good and "yes" or "NO" }
  io.write((good and "ok      " or "MISSED  "), what, ": ", ours, " against ", theirs, " (", peer, "): ", ratio, ", wanted ",
    wanted, "\n")
end

local function ms(seconds)
  return ("%.1f ms"):format(seconds * 1000)
end

local function start_up()
  local ours, theirs = paired(31, function() return (timed { program, "-e", "" }) end,
    function() return (timed { "lua5.4", "-e", "" }) end)
  row("start-up", ms(ours), ms(theirs), "lua5.4 -e ''", ("%.2f x"):format(ours / theirs), "<= 3 x", ours / theirs <= 3)
end

local OURS = [[
local from = os.clock()
for i = 1, 1000 do
  local name = ("host%d.contoso.com"):format(i)
  local r = assert(core.request.create { key = core.key.generate "ec:P-256", subject = { CN = name },
    domains = { name, "a." .. name, "b." .. name, "c." .. name, "d." .. name } })
  assert(#r:pem() > 400)
end
print(os.clock() - from)]]

local THEIRS = [[
local pkey, csr, altname, x509name, ext = require "openssl.pkey", require "openssl.x509.csr", require "openssl.x509.altname",
  require "openssl.x509.name", require "openssl.x509.extension"
local from = os.clock()
for i = 1, 1000 do
  local name = ("host%d.contoso.com"):format(i)
  local key = pkey.new { type = "EC", curve = "prime256v1" }
  local r, subject, names = csr.new(), x509name.new(), altname.new()
  subject:add("CN", name)
  for _, n in ipairs { name, "a." .. name, "b." .. name, "c." .. name, "d." .. name } do names:add("DNS", n) end
  r:setSubject(subject)
  r:setPublicKey(key)
  r:setSubjectAlt(names)
  r:sign(key)
  assert(#r:toPEM() > 400)
end
print(os.clock() - from)]]

local function requests()
  local function run(argv)
    return function()
      local _, out = timed(argv)
      return tonumber(out)
    end
  end
  local ours, theirs = paired(11, run { program, "-e", OURS }, run { "lua5.4", "-e", THEIRS })
  row("1,000 requests", ("%.0f/s"):format(1000 / ours), ("%.0f/s"):format(1000 / theirs), "luaossl",
    ("%.2f x"):format(theirs / ours), ">= 1.5 x", theirs / ours >= 1.5)
end

local READ = [[
local from = os.clock()
for i = 1, 1000 do
  local f = assert(core.cert.parse(assert(core.file.read(("%s/%d.pem"):format(arg[1], i)))))[1]:fields()
  assert(f.not_after > 0)
end
print(os.clock() - from)]]

local READ_THEIRS = [[
local x509 = require "openssl.x509"
local from = os.clock()
for i = 1, 1000 do
  local f = assert(io.open(("%s/%d.pem"):format(arg[1], i)))
  local c = x509.new(f:read "a")
  f:close()
  local _, to = c:getLifetime()
  assert(to > 0 and c:getSubject() and c:getIssuer() and c:getSerial() and c:getSubjectAlt() and c:digest "sha256")
end
print(os.clock() - from)]]

local function reading(lab)
  local folder = lab:folder "certs"
  for i = 1, 1000 do
    local key = core.key.generate "ec:P-256"
    local name = ("host%d.contoso.com"):format(i)
    local c = assert(core.cert.issue { key = key, public = key, subject = { CN = name }, domains = { name, "www." .. name },
      not_before = os.time(), not_after = os.time() + 86400 })
    assert(file.write(("%s/%d.pem"):format(folder, i), c:pem()))
  end
  assert(file.write(folder .. "/ours.lua", READ))
  assert(file.write(folder .. "/theirs.lua", READ_THEIRS))
  local function run(argv)
    return function()
      local _, out = timed(argv)
      return tonumber(out)
    end
  end
  local ours, theirs = paired(9, run { program, folder .. "/ours.lua", folder },
    run { "lua5.4", folder .. "/theirs.lua", folder })
  row("reading a certificate file", ("%.1f us"):format(ours * 1000), ("%.1f us"):format(theirs * 1000), "luaossl",
    ("%.2f x"):format(theirs / ours), "<= 47 us", ours * 1000 <= 47)
end

-- A store with so many objects, of which every hundredth... expires soon.
local function fill(state, count, soon)
  assert(file.mkdirs(state, 448))
  local db <close> = assert(core.store.open(state .. "/store.db"))
  assert(require("schema").prepare(db, true))
  local now = os.time()
  assert(db:transaction(function()
    for i = 1, count do
      local print_ = ("%064x"):format(i * 2654435761)
      local name = ("host%d.contoso.com"):format(i)
      assert(db:run([[INSERT INTO objects (state, friendly_name, subject, common_name, key, public_key, fingerprint,
        thumbprint, serial, issuer, not_before, not_after, renew_at, created_at, certificate, chain) VALUES ('completed',
        ?1, ?2, ?1, 'ec:P-256', ?3, ?3, ?4, ?4, 'CN=Issuing', ?5, ?6, ?6, ?5, ?7, ?7)]], name, "CN=" .. name, print_,
        print_:sub(1, 40), now - 86400, now + (i % (count // soon) == 0 and 10 or 60) * 86400, ("x"):rep(1000)))
      for position = 1, 2 do
        assert(db:run("INSERT INTO names VALUES (?1, ?2, ?3)", i, position, position == 1 and name or "www." .. name))
      end
    end
    return true
  end))
end

local function listing(lab)
  local small, large = lab.path .. "/small", lab.path .. "/large"
  fill(small, 1000, 100)
  fill(large, 100000, 100)
  local empty = function() return (timed { program, "--state", lab.path .. "/none", "list" }) end
  local all, base = paired(15, function()
    local seconds, out = timed { program, "--state", small, "list" }
    assert(select(2, out:gsub("\n", "")) == 1001)
    return seconds
  end, empty)
  row("list of 1,000", ms(all), ms(base), "an empty list", ("%.1f x"):format(all / base), "<= 40 ms", all <= 0.040)
  local few, again = paired(15, function()
    local seconds, out = timed { program, "--state", large, "list", "--expiring", "30" }
    assert(select(2, out:gsub("\n", "")) == 101)
    return seconds
  end, empty)
  row("100 expiring of 100,000", ms(few), ms(again), "an empty list", ("%.1f x"):format(few / again), "<= 30 ms", few <= 0.030)
end

local function probing(lab, web)
  local port = web.endpoints[1]:match ":(%d+)$"
  local one, client = paired(51, function()
    return (timed { program, "-e", ("assert(core.probe.run({ 'https://127.0.0.1:%s' }, { name = 'bench.lab.test' })[1].fingerprint)")
      :format(port) })
  end, function()
    return (timed { "openssl", "s_client", "-connect", "127.0.0.1:" .. port, "-servername", "bench.lab.test", "-no-CAfile",
      "-no-CApath", "-no-CAstore" })
  end)
  row("one probe, whole process", ms(one), ms(client), "openssl s_client, no CAs", ("%.2f x"):format(one / client), "<= 1 x",
    one <= client)
  local limit = lab.path .. "/probe_limit"
  assert(process.run({ "gcc", "-O2", "-o", limit, here .. "/bench/probe_limit.c", "-lssl", "-lcrypto" }).status == 0)
  local many = {}
  for i = 1, 64 do many[i] = web.endpoints[1] end
  local ours, theirs = paired(15, function()
    local from = host.clock()
    for _, result in ipairs(core.probe.run(many, { name = "bench.lab.test" })) do assert(result.fingerprint, result.error) end
    return host.clock() - from
  end, function()
    local _, out = timed { limit, port, "64", "1" }
    return tonumber(out:match "^%S+")
  end)
  row("64 probes at once", ms(ours), ms(theirs), "C straight on libssl", ("%.0f %%"):format(theirs / ours * 100), ">= 90 %",
    theirs / ours >= 0.9)
end

-- What assigning costs beyond the server's own reload, steadiness aside: the
-- whole command, less its reload stage (nginx's own command) and its observe
-- stage (waiting for nginx, and being sure).
local function assigning(lab, web)
  lab:site { ca = "internal", cas = { internal = { adapter = "local" } }, services = { web = web.service } }
  assert(lab:run("ca", "init").status == 0)
  local beyond, waited = {}, {}
  for i = 1, 9 do
    local name = "bench " .. i
    assert(lab:run("enroll", "--domain", "bench.lab.test", "--name", name).status == 0)
    local from = host.clock()
    local result = lab:run("--verbose", "assign-services", name, "--services", "web")
    local whole = host.clock() - from
    assert(result.status == 0, result.stderr)
    waited[i] = result.stderr:match "reload took ([%d.]+) s" + result.stderr:match "observe took ([%d.]+) s"
    beyond[i] = whole - waited[i]
  end
  local ours, theirs = median(beyond), median(waited)
  row("assigning", ms(ours), ms(theirs), "its reload and observing", ("%.2f x"):format(ours / theirs), "<= 50 ms",
    ours <= 0.050)
end

local lab <close> = Lab.new { name = "bench" }
start_up()
requests()
reading(lab)
listing(lab)
local web = lab:nginx { names = { "bench.lab.test" } }
probing(lab, web)
assigning(lab, web)

io.write "\n"
table.insert(rows, 1, { "WHAT", "CERTWRIGHT", "PEER", "", "RATIO", "WANTED", "HOLDS" })
io.write(require("text").table(rows), "\n")
