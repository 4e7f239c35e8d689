-- staging.lua through assign-services: what is refused before a server is handed
-- it, what is written for whom, and under which names it is observed.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local cert = require "core.cert"
local deploy = require "deploy"
local file = require "core.file"
local host = require "core.host"
local json = require "dkjson"
local key = require "core.key"
local lfs = require "lfs"
local process = require "core.process"

local NAME = deploy.name

local function ends(status, result)
  assert.equal(status, result.status, result.stderr)
  return result
end

local function says(result, text)
  assert.is_truthy(result.stderr:find(text, 1, true), ("no %q in:\n%s"):format(text, result.stderr))
end

-- A lab with one nginx, as the service web.
local function web_lab(options)
  return deploy.lab(function(lab)
    lab.web = lab:nginx(options or { names = { NAME } })
    lab.dir = lab.web.service.dir
    return { web = lab.web.service }
  end)
end

-- Asserts that assigning is refused, and that nothing has changed by that.
local function refused(lab, id, code, text)
  local contents, log = deploy.contents(lab.dir), lab.web:log()
  local presented = lab:presented(lab.web.endpoints[1])
  local answer, result = lab:json("assign-services", id, "--services", "web")
  assert.is_truthy(answer.error, "it was not refused")
  assert.equal(code, answer.error.code, answer.error.message)
  assert.is_truthy(answer.error.message:find(text, 1, true), ("no %q in: %s"):format(text, answer.error.message))
  says(result, text)
  ends(code == "usage" and 2 or 1, result)
  assert.same(contents, deploy.contents(lab.dir))
  assert.equal(presented, lab:presented(lab.web.endpoints[1]))
  assert.is_nil(lab.web:log():sub(#log + 1):find "SIGHUP")
  assert.same({}, (deploy.states(lab, id)))
  assert.same({}, deploy.sql(lab, "SELECT * FROM deployments WHERE finished_at IS NULL"))
end

describe("the preflight", function()
  local lab, root

  setup(function()
    lab = web_lab()
    root = lab:authority {}
  end)
  teardown(function() lab:close() end)

  -- A request that openssl signs; its certificate is completed, or forced into the
  -- store where no command would take it.
  local function signed(options)
    local object, result = lab:json("new-request", "--domain", NAME)
    ends(0, result)
    local id = tostring(math.tointeger(object.id))
    local pem = deploy.sign(lab, id, { ca = options.ca or root, from = not options.forced and options.from or nil,
      to = not options.forced and options.to or nil, extensions = not options.forced and options.extensions or nil })
    local path = deploy.write(lab:folder "cert" .. "/cert.pem", pem)
    ends(0, lab:run("complete-request", id, "--file", path, "--file", (options.ca or root) .. "/fullchain.pem"))
    if options.forced then
      options.ca = options.ca or root
      deploy.sql(lab, "UPDATE objects SET certificate = ?1 WHERE id = ?2", deploy.sign(lab, id, options),
        tonumber(id))
    end
    return id
  end

  it("refuses a key that is not the certificate's", function()
    local id = signed {}
    deploy.tool { "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out",
      ("%s/keys/%s.pem"):format(lab.state_path, id) }
    refused(lab, id, "mismatch", "the key does not belong to the certificate '" .. NAME .. "'")
  end)

  it("refuses a certificate whose key is not there", function()
    local id = signed {}
    local path = ("%s/keys/%s.pem"):format(lab.state_path, id)
    assert(file.remove(path))
    refused(lab, id, "missing", ("cannot read '%s': No such file or directory"):format(path))
  end)

  it("refuses an expired certificate", function()
    refused(lab, signed { forced = true, from = -3, to = -1 }, "expired", "the certificate '" .. NAME .. "' expired on ")
  end)

  it("refuses a certificate that is not valid yet", function()
    refused(lab, signed { forced = true, from = 1, to = 3 }, "expired", "the certificate '" .. NAME
      .. "' is not valid before ")
  end)

  it("refuses the certificate of a CA", function()
    refused(lab, signed { forced = true, extensions = "basicConstraints = critical, CA:true" }, "mismatch", "'" .. NAME
      .. "' is the certificate of a CA, not of a server")
  end)

  it("refuses a certificate for clients only", function()
    refused(lab, signed { extensions = "extendedKeyUsage = clientAuth, emailProtection" }, "mismatch",
      "the certificate '" .. NAME .. "' is not for servers: its extended key usage is clientAuth, emailProtection")
  end)

  it("takes a certificate for any purpose, and one that names none", function()
    for _, extensions in ipairs { "extendedKeyUsage = anyExtendedKeyUsage", "basicConstraints = CA:false" } do
      ends(0, deploy.assign(lab, signed { extensions = extensions }, "web"))
    end
  end)

  it("refuses a chain out of order, and one with a stranger in it", function()
    local upper = lab:authority { name = "Upper", ca = root }
    local lower = lab:authority { name = "Lower", ca = upper }
    local id = signed { ca = lower }
    local function force(...)
      local pile = {}
      for i, folder in ipairs { ... } do pile[i] = file.read(folder .. "/cert.pem") end
      deploy.sql(lab, "UPDATE objects SET chain = ?1 WHERE id = ?2", table.concat(pile), tonumber(id))
    end
    force(upper, lower)
    refused(lab, id, "mismatch", "the chain is out of order or does not belong together: certificate 2 of 3 did not "
      .. "issue the one before it")
    force(lower, upper, lab:authority { name = "Stranger" })
    refused(lab, id, "mismatch", "certificate 4 of 4 did not issue the one before it")
    force(lower, upper)
    ends(0, deploy.assign(lab, id, "web"))
    assert.equal(file.read(lab.dir .. "/current/cert.pem") .. file.read(lower .. "/cert.pem")
      .. file.read(upper .. "/cert.pem"), file.read(lab.dir .. "/current/fullchain.pem"))
    assert.equal(0, process.run({ "openssl", "verify", "-CAfile", root .. "/cert.pem", "-untrusted",
      lab.dir .. "/current/chain.pem", lab.dir .. "/current/cert.pem" }).status)
  end)

  it("refuses what OpenSSL would not serve", function()
    local id = signed {}
    local path = ("%s/keys/%s.pem"):format(lab.state_path, id)
    local folder = lab:folder "weak"
    deploy.tool { "openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-keyout", path, "-subj", "/CN=" .. NAME,
      "-addext", "subjectAltName=DNS:" .. NAME, "-addext", "basicConstraints=critical,CA:false", "-out",
      folder .. "/cert.pem" }
    deploy.sql(lab, "UPDATE objects SET certificate = ?1, chain = '' WHERE id = ?2", file.read(folder .. "/cert.pem"),
      tonumber(id))
    refused(lab, id, "refused", "cannot serve this chain: the certificate is refused: ee key too small")
  end)

  it("refuses a request without a certificate", function()
    local object = lab:json("new-request", "--domain", NAME)
    refused(lab, tostring(math.tointeger(object.id)), "mismatch", "has no certificate yet: it is created; next:\n  "
      .. "certwright submit-request " .. math.tointeger(object.id))
  end)

  it("refuses a folder that others may write, and says how to mend it", function()
    local id = deploy.issue(lab)
    local refusal = "refused to write keys below '%s': owner 0, mode %04d: others could %s; to mend it: chmod %s '%s'"
    for mode, rest in pairs { [775] = { "have written it", "go-w" }, [757] = { "have written it", "go-w" },
      [1777] = { "write there", "755" } } do
      deploy.tool { "chmod", tostring(mode), lab.dir }
      refused(lab, id, "denied", refusal:format(lab.dir, mode, rest[1], rest[2], lab.dir))
    end
    deploy.tool { "chmod", "755", lab.dir }
    deploy.tool { "chown", "nobody", lab.dir }
    refused(lab, id, "denied", "refused to write keys below '" .. lab.dir .. "': owner 65534")
    deploy.tool { "chown", "0", lab.dir }
    ends(0, deploy.assign(lab, id, "web"))
  end)

  it("refuses a folder below one that others may write, or that a link of another user's leads to", function()
    local id = deploy.issue(lab)
    local above = lab.dir:match "^(.*)/"
    deploy.tool { "chmod", "777", above }
    refused(lab, id, "denied", ("refused to write keys below '%s': owner 0, mode 0777: others could have written it; "
      .. "to mend it: chmod go-w '%s'"):format(above, above))
    deploy.tool { "chmod", "755", above }
    deploy.tool { "mv", lab.dir, lab.dir .. ".moved" }
    deploy.tool { "ln", "-s", lab.dir .. ".moved", lab.dir }
    deploy.tool { "chown", "-h", "nobody", lab.dir }
    refused(lab, id, "denied", ("refused to write keys below '%s': owner 65534, mode 0777: others could have written "
      .. "it; to mend it: chown -h 0 '%s'"):format(lab.dir, lab.dir))
    deploy.tool { "chown", "-h", "root", lab.dir }
    ends(0, deploy.assign(lab, id, "web"))
    deploy.tool { "rm", lab.dir }
    deploy.tool { "mv", lab.dir .. ".moved", lab.dir }
  end)

  it("refuses a `current` that is no link of its folder", function()
    local id = deploy.issue(lab)
    local before = assert(file.link(lab.dir .. "/current"))
    assert(file.remove(lab.dir .. "/current"))
    assert(lfs.link(lab.dir .. "/" .. before, lab.dir .. "/current", true))
    refused(lab, id, "io", "cannot use link '" .. lab.dir .. "/current'")
    assert(file.remove(lab.dir .. "/current"))
    assert(lfs.link(before, lab.dir .. "/current", true))
  end)

  it("refuses services that it does not know, by name", function()
    local id = deploy.issue(lab)
    local answer, result = lab:json("assign-services", id, "--services", "web,ftp")
    ends(2, result)
    assert.equal("usage", answer.error.code)
    says(result, ("there is no service 'ftp' in '%s/config.lua'; there are: web"):format(lab.site_path))
  end)

  it("refuses an endpoint that is none", function()
    local _ <close> = deploy.change(lab, "web", { endpoints = { lab.web.endpoints[1], "gopher://127.0.0.1:70" } })
    refused(lab, deploy.issue(lab), "usage", "gopher://127.0.0.1:70")
  end)

  -- Runs the program where `where` is a file system of its own, of that size.
  local function in_tmpfs(where, size, ...)
    local script = ("mount -t tmpfs -o size=%s,mode=755 none '%s' && exec \"$@\""):format(size, where)
    return assert(process.run { "unshare", "-m", "sh", "-c", script, "sh", file.link "/proc/self/exe", "--site",
      lab.site_path, "--state", lab.state_path, ... })
  end

  local function can_mount()
    return process.run({ "unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt" }).status == 0
  end

  it("refuses a disk that is full", function()
    if not can_mount() then return pending "no mount namespaces here" end
    local id = deploy.issue(lab)
    local contents = deploy.contents(lab.dir)
    local result = ends(1, in_tmpfs(lab.dir, "512k", "assign-services", id, "--services", "web"))
    says(result, ("cannot write below '%s': the disk is full (524288 bytes free, 1048576 wanted)"):format(lab.dir))
    assert.same(contents, deploy.contents(lab.dir))
    assert.same({}, (deploy.states(lab, id)))
  end)
end)

describe("a disk that becomes full while staging", function()
  it("undoes what was staged for the others", function()
    if process.run({ "unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt" }).status ~= 0 then
      return pending "no mount namespaces here"
    end
    local lab <close> = deploy.lab(function(lab)
      local services = {}
      for i = 1, 3 do
        services["web" .. i] = lab:nginx({ names = { NAME }, dir = lab.path .. "/ssl/web" .. i, start = false }).service
      end
      return services
    end)
    local id = deploy.issue(lab)
    -- a chain so large that three generations do not fit where one would
    local names, issuer, signer, chain = {}, nil, nil, {}
    for i = 1, 480 do names[i] = ("%s%03d.lab.test"):format(("x"):rep(50), i) end
    for i = 1, 4 do
      local own = assert(key.generate "ec:P-256")
      local made = assert(cert.issue { key = signer or own, issuer = issuer, public = own, subject = { CN = "CA " .. i },
        ca = true, key_usage = { "keyCertSign" }, domains = i > 1 and names or nil, not_before = os.time() - 60,
        not_after = os.time() + 86400 })
      issuer, signer = made, own
      table.insert(chain, 1, i > 1 and made:pem() or "")
    end
    local leaf = assert(cert.issue { key = signer, issuer = issuer, subject = { CN = NAME }, domains = { NAME },
      public = assert(key.open(("%s/keys/%s.pem"):format(lab.state_path, id))), not_before = os.time() - 60,
      not_after = os.time() + 86400 })
    deploy.sql(lab, "UPDATE objects SET certificate = ?1, chain = ?2 WHERE id = ?3", leaf:pem(), table.concat(chain),
      tonumber(id))
    local script = "mount -t tmpfs -o size=1028k,mode=755 none '%s/ssl'; \"$@\"; status=$?; find '%s/ssl' -mindepth 2; exit $status"
    local result = assert(process.run { "unshare", "-m", "sh", "-c", script:format(lab.path, lab.path), "sh",
      file.link "/proc/self/exe", "--site", lab.site_path, "--state", lab.state_path, "assign-services", id,
      "--services", "web1,web2,web3", "--no-observe" })
    ends(1, result)
    says(result, ".pem': No space left on device")
    assert.is_nil(result.stdout:find(lab.path, 1, true), result.stdout)
    assert.same({}, deploy.sql(lab, "SELECT * FROM deployments WHERE finished_at IS NULL"))
  end)
end)

describe("the files of a generation", function()
  local lab

  setup(function() lab = web_lab() end)
  teardown(function() lab:close() end)

  local function access(name)
    local status = assert(file.stat(lab.dir .. "/current/" .. name, true))
    return { status.owner, status.group, ("%04o"):format(status.mode) }
  end

  local function assigned(fields)
    local _ <close> = deploy.change(lab, "web", fields)
    return deploy.assign(lab, deploy.issue(lab), "web")
  end

  it("are root's, with keys for nobody else", function()
    ends(0, assigned {})
    assert.same({ 0, 0, "0600" }, access "privkey.pem")
    assert.same({ 0, 0, "0600" }, access "combined.pem")
    for _, name in ipairs { "fullchain.pem", "cert.pem", "chain.pem", "nginx.conf" } do
      assert.same({ 0, 0, "0644" }, access(name))
    end
    assert.same({ 0, 0, "0755" }, access "")
    assert.equal("PRIVATE KEY", file.read(lab.dir .. "/current/combined.pem"):match "^%-%-%-%-%-BEGIN ([%u ]+)%-")
  end)

  it("hold an empty chain where there is none", function()
    local object, result = lab:json("new-request", "--domain", NAME, "--self-signed")
    ends(0, result)
    ends(0, deploy.assign(lab, tostring(math.tointeger(object.id)), "web"))
    assert.equal("", file.read(lab.dir .. "/current/chain.pem"))
    assert.equal(object.fingerprint, deploy.pair(lab.dir))
    assert.equal(object.fingerprint, lab:presented(lab.web.endpoints[1], NAME))
  end)

  it("have the site's owner, group and mode, of the keys only", function()
    local nobody, mail = assert(host.lookup "nobody").uid, assert(host.group "mail").gid
    ends(0, assigned { owner = "nobody" })
    assert.same({ nobody, 0, "0600" }, access "privkey.pem")
    ends(0, assigned { group = "mail" })
    assert.same({ 0, mail, "0640" }, access "privkey.pem")
    assert.same({ 0, mail, "0640" }, access "combined.pem")
    ends(0, assigned { owner = "nobody", group = "mail", mode = "0440" })
    assert.same({ nobody, mail, "0440" }, access "combined.pem")
    assert.same({ 0, 0, "0644" }, access "fullchain.pem")
    ends(0, assigned { mode = 256 }) -- 0400
    assert.same({ 0, 0, "0400" }, access "privkey.pem")
  end)

  it("have no mode that gives more, or that was meant in octal and is not", function()
    for value, shown in pairs { ["0644"] = "0644", ["0660"] = "0660", ["rw"] = "rw", [640] = "640", [600] = "600",
      [440] = "440", [400] = "400" } do
      says(ends(1, assigned { mode = value }), ("'%s/config.lua': 'services.web.mode' must be octal digits in quotes, at "
        .. "most \"0640\", not %s"):format(lab.site_path, shown))
    end
  end)

  it("have no owner or group that does not exist", function()
    says(ends(1, assigned { owner = "no-such-user" }), "service 'web': owner: no user 'no-such-user'")
    says(ends(1, assigned { group = "no-such-group" }), "service 'web': group: no group 'no-such-group'")
  end)

  it("are never readable by others while they are written", function()
    if process.run({ "strace", "-e", "trace=none", "true" }).status ~= 0 then return pending "no strace here" end
    local _ <close> = deploy.change(lab, "web", { owner = "nobody", group = "mail" })
    local trace = lab.path .. "/trace"
    deploy.tool { "strace", "-f", "-o", trace, "-e", "trace=openat,fchown,fchmod,chmod,write,mkdirat,renameat2,close",
      file.link "/proc/self/exe", "--site", lab.site_path, "--state", lab.state_path, "assign-services",
      (deploy.issue(lab)), "--services", "web" }
    local seen, open, folders = {}, {}, 0
    for line in assert(file.read(trace, 64 * 1024 * 1024)):gmatch "[^\n]+" do
      local name, mode, descriptor = line:match 'openat%(%d+, "([^"]+%.pem)", O_WRONLY|O_CREAT|O_EXCL[^,]*, (%d+)%) = (%d+)'
      local call, of, what = line:match "(%l+)%((%d+), ([^)]*)%) += [^-]"
      if name == "privkey.pem" or name == "combined.pem" then
        assert.equal("0600", mode)
        open[descriptor] = name
        seen[name] = ""
      elseif line:find "close%(%d+%)" then
        open[line:match "close%((%d+)%)"] = nil
      elseif open[of] then
        seen[open[of]] = seen[open[of]] .. call:sub(1, 6) .. " " .. (call == "fchmod" and what .. " " or "")
      end
      folders = folders + (line:find 'mkdirat%(%d+, "%.%d+T%d+Z[^"]*", 0700%)' and 1 or 0)
    end
    assert.equal(1, folders) -- that nobody else can enter before all is written
    for _, name in ipairs { "privkey.pem", "combined.pem" } do
      assert.matches("^fchown fchmod 0640 write ", seen[name])
    end
  end)
end)

describe("a service that runs as another user", function()
  local lab, user

  setup(function()
    user = assert(host.lookup "nobody")
    lab = deploy.lab(function(new)
      local server = new:nginx { names = { NAME }, start = false }
      deploy.tool { "chown", "-R", "nobody", server.folder, server.service.dir .. "/before" }
      server.uid, server.gid = user.uid, user.gid
      new.web, new.dir = server:start(), server.service.dir
      return { web = server.service }
    end)
  end)
  teardown(function() lab:close() end)

  it("and could not read its key is refused", function()
    local name = deploy.contents(lab.dir).current
    refused(lab, deploy.issue(lab), "denied", "it runs as nobody; give its key an owner or group in the site's "
      .. "config.lua")
    assert.equal(name, deploy.contents(lab.dir).current)
  end)

  it("reads its key when it owns it", function()
    local _ <close> = deploy.change(lab, "web", { owner = "nobody" })
    local id, fingerprint = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, "web"))
    assert.equal(fingerprint, lab:presented(lab.web.endpoints[1], NAME))
  end)

  it("reads its key by a group that is not its first", function()
    local mail = assert(host.group "mail").gid
    local argv = lab.web.argv
    lab.web:stop()
    lab.web.uid, lab.web.gid = nil, nil
    lab.web.argv = { "setpriv", "--reuid", tostring(user.uid), "--regid", tostring(user.gid), "--groups",
      ("%d,%d"):format(user.gid, mail), table.unpack(argv) }
    deploy.tool { "chown", "-R", "nobody", lab.dir .. "/" .. deploy.contents(lab.dir).current .. "/" }
    lab.web:start()
    do
      local _ <close> = deploy.change(lab, "web", { group = "mail" })
      local id, fingerprint = deploy.issue(lab)
      ends(0, deploy.assign(lab, id, "web"))
      assert.equal(fingerprint, lab:presented(lab.web.endpoints[1], NAME))
    end
    local _ <close> = deploy.change(lab, "web", { group = "adm" })
    refused(lab, deploy.issue(lab), "denied", "'web' could not read ")
    lab.web.argv = argv
  end)
end)

describe("the names", function()
  local lab

  setup(function() lab = web_lab { names = { NAME }, ipv6 = true } end)
  teardown(function() lab:close() end)

  local function assigned(fields, domains)
    local _ <close> = deploy.change(lab, "web", fields)
    local id, fingerprint = deploy.issue(lab, domains)
    local object, result = lab:json("assign-services", id, "--services", "web")
    return result, object, fingerprint, id
  end

  -- "endpoint's address name state" of every assignment.
  local function places(object)
    local list = {}
    for i, row in ipairs(object.assignments) do
      list[i] = ("%s %s %s"):format(row.address, row.name == json.null and "-" or row.name, row.state)
    end
    return list
  end

  it("of which none is covered are refused", function()
    local _ <close> = deploy.change(lab, "web", { names = { internal = "in.lab.test", external = NAME } })
    refused(lab, deploy.issue(lab, { "other.lab.test", "x.in.lab.test" }), "mismatch",
      "the certificate covers none of the names of 'web': " .. NAME .. ", in.lab.test; it covers other.lab.test, "
      .. "x.in.lab.test")
    local _ <close> = deploy.change(lab, "web", { names = { external = "192.0.2.7" } })
    refused(lab, deploy.issue(lab, { "192.0.2.8", NAME }), "mismatch", "covers none of the names of 'web': 192.0.2.7")
    local _ <close> = deploy.change(lab, "web", { names = { external = "*.lab.test" } })
    refused(lab, deploy.issue(lab, { NAME }), "mismatch", "covers none of the names of 'web': *.lab.test")
  end)

  it("of which some are not covered are warned of, and not asked for", function()
    local result, object = assigned({ names = { internal = "in.lab.test", external = { NAME, "Two.Lab.Test." } } },
      { "two.lab.test", NAME })
    ends(0, result)
    says(result, "certwright: warning: the certificate does not cover in.lab.test, a name of 'web'")
    assert.same({ "127.0.0.1 " .. NAME .. " observed", "127.0.0.1 two.lab.test observed", "::1 " .. NAME .. " observed",
      "::1 two.lab.test observed" }, places(object))
  end)

  it("are covered by a wildcard, which is itself not asked for", function()
    local result, object, fingerprint = assigned({ names = { external = { NAME, "*.lab.test" } } }, { "*.lab.test" })
    ends(0, result)
    assert.same({ "127.0.0.1 " .. NAME .. " observed", "::1 " .. NAME .. " observed" }, places(object))
    assert.same({ fingerprint, fingerprint }, deploy.presented(lab, lab.web.endpoints, NAME))
    assert.is_nil(result.stderr:find "warning")
  end)

  it("that are addresses are covered, and never asked for", function()
    local fields = { names = { external = { "127.0.0.1", "::1" } } }
    local result, object, fingerprint, id = assigned(fields, { "127.0.0.1", "::1" })
    ends(0, result)
    assert.same({ "127.0.0.1 - observed", "::1 - observed" }, places(object))
    assert.same({ fingerprint, fingerprint }, deploy.presented(lab, lab.web.endpoints))
    ends(0, lab:run("check"))
    local _ <close> = deploy.change(lab, "web", fields)
    says(ends(0, deploy.assign(lab, id, "web")), "observed " .. lab.web.endpoints[1] .. " without a name: " .. fingerprint:sub(1, 16))
  end)

  it("that are addresses only do not hide a service that does not show it", function()
    local fields = { names = { external = "127.0.0.1" }, reload = { "true" }, observe_timeout = 1 }
    local result = assigned(fields, { "127.0.0.1" })
    ends(1, result)
    says(result, "not observed: " .. lab.web.endpoints[1] .. ": presents ")
  end)

  it("are the common name where the service has none", function()
    local result, object = assigned({ names = {} }, { "first.lab.test", "second.lab.test" })
    ends(0, result)
    assert.same({ "127.0.0.1 first.lab.test observed", "::1 first.lab.test observed" }, places(object))
  end)

  it("are the endpoint's own where nothing else can be asked for", function()
    local port = lab.web.endpoints[1]:match "%d+$"
    local fields = { names = {}, endpoints = { "https://localhost:" .. port } }
    local result, object, fingerprint = assigned(fields, { "*.lab.test" })
    ends(0, result)
    assert.is_true(#object.assignments > 0)
    for _, row in ipairs(object.assignments) do
      assert.same({ "localhost", "observed", fingerprint }, { row.name, row.state, row.observed })
    end
    fields.reload, fields.observe_timeout = { "true" }, 1
    says(ends(1, (assigned(fields, { "*.lab.test" }))), "not observed: https://localhost:" .. port)
  end)

  it("on one endpoint must each show it", function()
    local other = lab:certificate { names = { "two.lab.test" } }
    local port = lab.web.endpoints[1]:match "%d+$"
    local second = deploy.write(lab.web.folder .. "/conf.d/second.conf", ("server { listen 127.0.0.1:%s ssl; "
      .. "server_name two.lab.test; ssl_certificate %s/fullchain.pem; ssl_certificate_key %s/key.pem; }\n"):format(port,
      other, other))
    deploy.tool { "nginx", "-p", lab.web.folder, "-c", lab.web.folder .. "/nginx.conf", "-s", "reload" }
    assert(lab:eventually(function()
      return lab:presented(lab.web.endpoints[1], "two.lab.test") == lab:fingerprint(other)
    end))
    local before = lab:presented(lab.web.endpoints[1], NAME)
    local fields = { names = { external = { NAME, "two.lab.test" } }, endpoints = { lab.web.endpoints[1] },
      observe_timeout = 1 }
    local result = assigned(fields, { NAME, "two.lab.test" })
    assert(file.remove(second))
    ends(1, result)
    says(result, ("not observed: %s for two.lab.test: presents %s"):format(lab.web.endpoints[1],
      lab:fingerprint(other):sub(1, 16)))
    assert.equal(before, lab:presented(lab.web.endpoints[1], NAME))
    fields.observe_timeout = nil
    result = assigned(fields, { NAME, "two.lab.test" })
    ends(0, result)
  end)

  it("are those of the service's own endpoints where the site gives none", function()
    local result, object, fingerprint = assigned({ endpoints = false }, { NAME })
    ends(0, result)
    local seen = {}
    for i, row in ipairs(object.assignments) do seen[i] = row.endpoint end
    table.sort(seen)
    local wanted = { table.unpack(lab.web.endpoints) }
    table.sort(wanted)
    assert.same(wanted, seen)
    assert.same({ fingerprint, fingerprint }, deploy.presented(lab, lab.web.endpoints, NAME))
  end)
end)
