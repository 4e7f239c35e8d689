-- deployment.lua, staging.lua, servant.lua and putback.lua through
-- assign-services, on a real nginx, Postfix and Dovecot: all or nothing.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local deploy = require "deploy"
local cert = require "core.cert"
local file = require "core.file"
local host = require "core.host"
local json = require "dkjson"
local lfs = require "lfs"
local process = require "core.process"

local NAME = deploy.name
local ALL = "web,smtp,imap"

local function ends(status, result)
  assert.equal(status, result.status, result.stderr)
  return result
end

local function says(result, text)
  assert.is_truthy(result.stderr:find(text, 1, true), ("no %q in:\n%s"):format(text, result.stderr))
end

local function refused(lab, code, text, ...)
  local answer, result = lab:json(...)
  assert.is_truthy(answer and answer.error, "no refusal: " .. result.stderr)
  assert.equal(code, answer.error.code, answer.error.message)
  assert.is_truthy(answer.error.message:find(text, 1, true), ("no %q in: %s"):format(text, answer.error.message))
  says(result, text)
  return result
end

-- How often each server has been reloaded, by its own log.
local function reloads(lab)
  local counts = {}
  for name, line in pairs { web = "signal 1 %(SIGHUP%) received", smtp = "reload %-%- version", mail = "SIGHUP received" } do
    counts[name] = lab[name] and select(2, lab[name]:log():gsub(line, "")) or nil
  end
  return counts
end

-- Everything that must be as before after a refusal.
local function snapshot(lab)
  local seen = { presented = deploy.presented(lab, lab.endpoints, NAME), dirs = {} }
  for name, service in pairs(lab.services) do seen.dirs[name] = deploy.contents(service.dir) end
  return seen
end

describe("assigning to three services", function()
  local lab

  setup(function() lab = deploy.three() end)
  teardown(function() lab:close() end)

  -- A certificate that is on all services; its id and fingerprint.
  local function assigned(...)
    local id, fingerprint = deploy.issue(lab, { NAME }, ...)
    ends(0, deploy.assign(lab, id, ALL, "--overwrite"))
    return id, fingerprint
  end

  -- The fingerprint of a certificate that is on all services, without a new
  -- assignment if there is one.
  local function settled()
    local seen = {}
    for name, service in pairs(lab.services) do
      local list = assert(cert.open(service.dir .. "/current/fullchain.pem"))
      seen[name] = list[1]:fingerprint()
    end
    if seen.web == seen.smtp and seen.web == seen.imap and lab:run("check").status == 0 then return seen.web end
    return select(2, assigned())
  end

  it("is observed by openssl on every endpoint, and recorded with every field", function()
    local before = deploy.presented(lab, lab.endpoints, NAME)
    local id, fingerprint = deploy.issue(lab)
    local object, result = lab:json("assign-services", id, "--services", ALL, "--overwrite")
    ends(0, result)
    assert.same(deploy.all(lab.endpoints, fingerprint), deploy.presented(lab, lab.endpoints, NAME))
    assert.same({ "imap", "smtp", "web" }, object.services)
    assert.equal(#lab.endpoints, #object.assignments)
    for _, row in ipairs(object.assignments) do
      assert.same({ "observed", fingerprint, fingerprint, fingerprint, "127.0.0.1", NAME, host.name(), json.null },
        { row.state, row.desired, row.written, row.observed, row.address, row.name, row.server, row.error })
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$", row.observed_at)
    end
    for i, endpoint in ipairs(lab.endpoints) do
      says(result, ("observed %s for %s: %s (was %s)"):format(endpoint, NAME, fingerprint:sub(1, 16),
        before[i]:sub(1, 16)))
    end
    ends(0, lab:run("check"))
  end)

  it("writes one generation a service, whole, with keys for nobody else", function()
    local _, fingerprint = assigned()
    for name, extra in pairs { web = "nginx.conf", smtp = "sni", imap = "dovecot.conf" } do
      local dir = lab.services[name].dir
      assert.equal(fingerprint, deploy.pair(dir))
      assert.matches("^%d+T%d+Z%-" .. fingerprint:sub(1, 8), lfs.symlinkattributes(dir .. "/current", "target"))
      assert.equal("rwxr-xr-x", lfs.attributes(dir .. "/current/", "permissions"))
      for entry, mode in pairs { fullchain = "rw-r--r--", cert = "rw-r--r--", chain = "rw-r--r--", privkey = "rw-------",
        combined = "rw-------" } do
        assert.equal(mode, lfs.attributes(("%s/current/%s.pem"):format(dir, entry), "permissions"))
      end
      local _, files = deploy.tool { "ls", "-A1", dir .. "/current/" }:gsub("\n", "")
      assert.equal(6, files)
      assert.is_truthy(lfs.attributes(dir .. "/current/" .. extra))
    end
  end)

  it("keeps what was found there, and the generation before, and prunes older ones", function()
    local _, first = assigned()
    local kept = lfs.symlinkattributes(lab.services.web.dir .. "/current", "target")
    local _, second = assigned()
    local dir = lab.services.web.dir
    local before = lfs.symlinkattributes(dir .. "/current", "target")
    assert.matches(first:sub(1, 8), kept)
    deploy.write(dir .. "/mine.txt", "not ours")
    local half = ("%s/.20200101T000000Z-aaaaaaaa.0a1b2c"):format(dir) -- as a crash leaves it
    assert(file.mkdir(half, tonumber("700", 8)))
    deploy.write(half .. "/privkey.pem", "")
    local _, third = assigned()
    local now = deploy.contents(dir)
    local wanted = { before, now.current, "before", "current", "mine.txt" }
    table.sort(wanted)
    assert.same(wanted, now.names)
    assert.matches(second:sub(1, 8), before)
    assert.equal(third, deploy.pair(dir))
    assert(file.remove(dir .. "/mine.txt"))
  end)

  -- The processes that each server would start anew after a reload.
  local function workers()
    local masters = { web = file.read(lab.web.folder .. "/nginx.pid"):match "%d+", -- it may have been started again
      smtp = lab.smtp.process:pid(), mail = lab.mail.process:pid() }
    local pids = {}
    for name, master in pairs(masters) do
      pids[name] = deploy.tool { "pgrep", "-P", tostring(master), "-f", "worker|config|qmgr" }
    end
    return pids
  end

  it("does nothing when it is observed already", function()
    local id, fingerprint = assigned()
    local before, counts = snapshot(lab), reloads(lab)
    local pids = workers()
    local result = ends(0, deploy.assign(lab, id, ALL))
    says(result, "observed " .. lab.endpoints[1] .. " for " .. NAME .. ": " .. fingerprint:sub(1, 16))
    assert.same(before, snapshot(lab))
    assert.same(counts, reloads(lab))
    assert.same(pids, workers())
  end)

  it("changes nothing with --dry-run, and says what it would do", function()
    local id = assigned()
    local function rows() return deploy.sql(lab, "SELECT * FROM history") end
    local before, counts, history = snapshot(lab), reloads(lab), rows()
    ends(0, deploy.assign(lab, id, ALL, "--dry-run"))
    assert.same(history, rows())
    local other = deploy.issue(lab)
    history = rows()
    local result = ends(0, deploy.assign(lab, other, ALL, "--overwrite", "--dry-run"))
    says(result, "would write " .. lab.services.web.dir)
    says(result, "would observe " .. lab.endpoints[1] .. " for " .. NAME)
    assert.same({ before, counts, history }, { snapshot(lab), reloads(lab), rows() })
    assert.same({}, deploy.states(lab, other))
  end)

  it("asks for --overwrite before it replaces the default SMTP certificate", function()
    local old = settled()
    local before = snapshot(lab)
    local id, new = deploy.issue(lab)
    local result = refused(lab, "usage", ("'smtp' has a default certificate already (%s): say --overwrite to replace "
      .. "it with %s"):format(old:sub(1, 16), new:sub(1, 16)), "assign-services", id, "--services", ALL)
    assert.equal(2, result.status)
    assert.same(before, snapshot(lab))
    assert.same({}, deploy.states(lab, id))
    ends(0, deploy.assign(lab, id, "web"))
    ends(0, deploy.assign(lab, id, ALL, "--yes"))
    assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
  end)

  it("renews without asking, and the old one is replaced", function()
    local old = assigned()
    local new, result = lab:json("enroll", "--from", old, "--services", ALL)
    ends(0, result)
    assert.same(deploy.all(lab.endpoints, new.fingerprint), deploy.presented(lab, lab.endpoints, NAME))
    assert.same({ "imap replaced", "imap replaced", "smtp replaced", "smtp replaced", "web replaced" },
      (deploy.states(lab, old)))
    assert.same({}, lab:json("show", old).services)
    ends(0, lab:run("check"))
  end)

  it("lets one deployment run at a time", function()
    local program = assert(file.link "/proc/self/exe")
    local started, fingerprints = {}, {}
    for i = 1, 2 do
      local id
      id, fingerprints[i] = deploy.issue(lab)
      started[i] = { program, "--site", lab.site_path, "--state", lab.state_path, "assign-services", id, "--services",
        ALL, "--overwrite" }
    end
    local first = assert(process.start(started[1], { output = lab.path .. "/first.log" }))
    local second = assert(process.start(started[2], { output = lab.path .. "/second.log" }))
    assert.equal(0, first:wait(60).status, file.read(lab.path .. "/first.log"))
    assert.equal(0, second:wait(60).status, file.read(lab.path .. "/second.log"))
    local there = deploy.pair(lab.services.web.dir)
    assert.is_true(there == fingerprints[1] or there == fingerprints[2])
    assert.same(deploy.all(lab.endpoints, there), deploy.presented(lab, lab.endpoints, NAME))
    ends(0, lab:run("check"))
  end)

  it("goes on when the reader of its output, or its terminal, goes away", function()
    settled()
    local id, new = deploy.issue(lab)
    local program, status = assert(file.link "/proc/self/exe"), lab.path .. "/status"
    local changed = deploy.change(lab, "web", { reload = { "sh", "-c",
      "kill -HUP $PPID; exec nginx -p $0 -c $0/nginx.conf -s reload", lab.web.folder } })
    deploy.tool { "sh", "-c", [[("$@" >"$0.out"; echo $? >"$0") 2>&1 | true]], status, program, "--site",
      lab.site_path, "--state", lab.state_path, "assign-services", id, "--services", ALL, "--overwrite" }
    getmetatable(changed).__close()
    assert.equal("0\n", assert(lab:eventually(function() return file.read(status) end)))
    assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
  end)

  it("is busy when another one takes too long", function()
    local home = assert(file.link "/proc/self/exe"):match "^(.*)/"
    assert(file.mkdirs(lab.site_path .. "/lua", tonumber("755", 8)))
    local shadow = lab.site_path .. "/lua/recovery.lua" -- as it ships, but for the time that it waits
    deploy.write(shadow, (file.read(home .. "/lua/recovery.lua"):gsub("LOCK_TIMEOUT = 60", "LOCK_TIMEOUT = 0.2")))
    settled()
    local before, id = snapshot(lab), deploy.issue(lab)
    local holder = assert(process.start({ home .. "/certwright", "-e", [[
      local lock = assert(core.generation.lock(...))
      print(tostring(lock))
      io.stdout:flush()
      core.host.sleep(60)
    ]], lab.state_path .. "/locks/deployment" }, { output = lab.path .. "/holder.log" }))
    assert(lab:eventually(function() return file.read(lab.path .. "/holder.log"):find "lock" end))
    local result = refused(lab, "busy", "another deployment is under way", "assign-services", id, "--services", ALL,
      "--overwrite")
    holder:stop()
    assert(file.remove(shadow))
    ends(1, result)
    assert.same(before, snapshot(lab))
    assert.same({}, deploy.states(lab, id))
  end)

  it("undoes what a killed process left behind while the next one waits", function()
    settled()
    local slow = deploy.issue(lab)
    local id, new = deploy.issue(lab)
    local program = assert(file.link "/proc/self/exe")
    local stuck = deploy.change(lab, "web", { reload = { "sleep", "30" } })
    local first = assert(process.start { program, "--site", lab.site_path, "--state", lab.state_path,
      "assign-services", slow, "--services", ALL, "--overwrite" })
    local dir = lab.services.web.dir
    assert(lab:eventually(function()
      return deploy.sql(lab, "SELECT id FROM deployments WHERE stage = 'reload web' AND finished_at IS NULL")[1]
    end))
    getmetatable(stuck).__close()
    local log = lab.path .. "/waiting.log"
    local second = assert(process.start({ program, "--site", lab.site_path, "--state", lab.state_path,
      "assign-services", id, "--services", ALL, "--overwrite" }, { output = log }))
    assert.is_nil(second:wait(0.3)) -- it waits
    says(lab:run("list"), ("a deployment of %s is under way or was cut short at 'reload web'"):format(slow))
    first:stop("KILL")
    assert.equal(0, second:wait(60).status, file.read(log))
    assert.matches("recovered: the deployment of " .. slow .. " that was cut short at 'reload web' was put back",
      file.read(log))
    assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
    assert.same({ dir = "gone" }, { dir = lfs.attributes(dir .. "/.current") and "there" or "gone" })
  end)

  describe("of which one refuses", function()
    local old, before

    before_each(function()
      old = settled()
      before = snapshot(lab)
    end)

    -- Assigns a new certificate, which has to fail and to be put back.
    local function fails(text, code)
      local id, new = deploy.issue(lab)
      local answer, result = lab:json("assign-services", id, "--services", "smtp,web,imap", "--overwrite")
      ends(1, result)
      assert.equal(code, answer.error.code)
      says(result, text)
      says(result, "; everything is as before")
      assert.same(before, snapshot(lab))
      assert.same(deploy.all(lab.endpoints, old), before.presented)
      local states, rows = deploy.states(lab, id)
      assert.same({ "imap failed", "imap failed", "smtp failed", "smtp failed", "web failed" }, states)
      for _, row in ipairs(rows) do
        assert.same({ new, old, old }, { row.desired, row.written, row.observed })
        assert.is_truthy(row.error:find(text, 1, true))
      end
      local checked = ends(1, lab:run("check")) -- which goes on saying why
      says(checked, ("%s on web: %s for %s is failed: "):format(id, lab.endpoints[1], NAME))
      says(checked, text)
      return id
    end

    local function cancelled(id)
      says(ends(0, lab:run("assign-services", id, "--cancel")), id .. " is no longer wanted there")
      assert.same({}, deploy.states(lab, id))
      ends(0, lab:run("check"))
    end

    it("by its own checker, is as before", function()
      local broken = deploy.write(lab.web.folder .. "/conf.d/broken.conf", "no_such_directive on;\n")
      local id = fails("web refused to accept the new files ('nginx -p " .. lab.web.folder, "refused")
      assert(file.remove(broken))
      cancelled(id)
    end)

    it("by the site's check in place of the driver's, is as before", function()
      local _ <close> = deploy.change(lab, "smtp", { check = { "sh", "-c", "echo it is Friday >&2; exit 3" } })
      local id = fails("smtp refused to accept the new files ('sh -c echo it is Friday >&2; exit 3' ended with status "
        .. "3): it is Friday", "refused")
      cancelled(id)
    end)

    it("by a checker that is not there, is as before", function()
      local _ <close> = deploy.change(lab, "web", { check = { "/no/such/checker" } })
      cancelled(fails("web: cannot accept the new files: cannot run '/no/such/checker'", "missing"))
    end)

    it("by an error in a driver of the site's own, is as before", function()
      assert(file.mkdirs(lab.site_path .. "/service", tonumber("755", 8)))
      local path = deploy.write(lab.site_path .. "/service/mine.lua", [[
        local M = {}
        for name, value in pairs(require "service.nginx") do M[name] = value end
        function M.check() error "a bug of mine" end
        return M
      ]])
      local _ <close> = deploy.change(lab, "web", { driver = "mine" })
      local id = fails(path .. ":3: a bug of mine", "io")
      cancelled(id)
    end)

    it("to reload, is as before", function()
      local _ <close> = deploy.change(lab, "imap", { reload = { "sh", "-c", "kill -9 $$" } })
      cancelled(fails("imap refused to reload ('sh -c kill -9 $$' ended with signal 9)", "refused"))
    end)

    it("by not showing the new certificate, is as before", function()
      local _ <close> = deploy.change(lab, "web", { reload = { "true" }, observe_timeout = 2 })
      cancelled(fails("not observed: " .. lab.endpoints[1], "unobserved"))
    end)

    it("by exiting, is started again and as before", function()
      local stop = ("kill $(cat %s/nginx.pid); while [ -e %s/nginx.pid ]; do sleep 0.02; done"):format(lab.web.folder,
        lab.web.folder)
      local _ <close> = deploy.change(lab, "web", { reload = { "sh", "-c", stop }, observe_timeout = 2 })
      cancelled(fails("not observed: " .. lab.endpoints[1], "unobserved"))
    end)

    it("by exiting late, is started again and as before", function()
      local stop = "(sleep 0.3; kill $(cat %s/nginx.pid)) >/dev/null 2>&1 & exit 1"
      local _ <close> = deploy.change(lab, "web", { observe_timeout = 2,
        reload = { "sh", "-c", stop:format(lab.web.folder) } })
      cancelled(fails("web refused to reload", "refused"))
    end)

    -- A driver of the site's own that is nginx's, but raises where it says so.
    local function buggy(verb)
      deploy.write(lab.site_path .. "/service/buggy.lua", ([[
        local driver = {}
        for name, value in pairs(require "service.nginx") do driver[name] = value end
        driver[%q] = function() error("a bug", 0) end
        return driver]]):format(verb))
      return deploy.change(lab, "web", { driver = "buggy" })
    end

    it("by raising, as a driver with a bug does, is as before", function()
      assert(file.mkdirs(lab.site_path .. "/service", tonumber("755", 8)))
      local _ <close> = buggy "check"
      cancelled(fails("a bug", "io"))
    end)

    it("by raising also while it is put back, is not put back until it no longer does: exit 4", function()
      local id = deploy.issue(lab)
      do
        local _ <close> = buggy "reload"
        local answer, result = lab:json("assign-services", id, "--services", "smtp,web,imap", "--overwrite")
        assert.equal("unrestored", answer.error.code)
        ends(4, result)
        says(result, "a bug (in reload); AND NOT PUT BACK: a bug")
      end
      local result = lab:run("check")
      says(result, ("recovered: the deployment of %s that was cut short at 'put back' was put back"):format(id))
      assert.same(before, snapshot(lab))
      cancelled(id)
    end)

    it("is wanted until another one is assigned", function()
      local id
      do
        local _ <close> = deploy.change(lab, "imap", { check = { "false" } })
        id = fails("imap refused to accept", "refused")
      end
      local other, new = deploy.issue(lab)
      ends(0, deploy.assign(lab, other, ALL, "--overwrite"))
      assert.same({}, deploy.states(lab, id))
      assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
      ends(0, lab:run("check"))
    end)

    it("is tried again without --services, where it is wanted", function()
      local id
      do
        local _ <close> = deploy.change(lab, "imap", { check = { "false" } })
        id = fails("imap refused to accept", "refused")
      end
      local object, result = lab:json("assign-services", id, "--overwrite")
      ends(0, result)
      assert.same({ "imap", "smtp", "web" }, object.services)
      ends(0, lab:run("check"))
    end)

    it("is wanted again also where it was replaced before", function()
      local first = deploy.issue(lab)
      ends(0, deploy.assign(lab, first, ALL, "--overwrite"))
      local second, there = deploy.issue(lab)
      ends(0, deploy.assign(lab, second, ALL, "--overwrite"))
      local _ <close> = deploy.change(lab, "web", { check = { "false" } })
      ends(1, deploy.assign(lab, first, ALL, "--overwrite"))
      assert.same({ "imap failed", "imap failed", "smtp failed", "smtp failed", "web failed" },
        (deploy.states(lab, first)))
      assert.same(deploy.all(lab.endpoints, there), deploy.presented(lab, lab.endpoints, NAME))
      ends(1, lab:run("check"))
      cancelled(first)
    end)

    it("and stays stopped, is not put back: exit 4", function()
      local stop = ("kill $(cat %s/nginx.pid); while [ -e %s/nginx.pid ]; do sleep 0.02; done"):format(lab.web.folder,
        lab.web.folder)
      local id, new = deploy.issue(lab)
      do
        local _ <close> = deploy.change(lab, "web", { reload = { "sh", "-c", stop }, restart = { "true" },
          observe_timeout = 1 })
        local answer, result = lab:json("assign-services", id, "--services", ALL, "--overwrite")
        assert.equal("unrestored", answer.error.code)
        ends(4, result)
        says(result, "AND NOT PUT BACK: ")
        says(result, lab.endpoints[1] .. " for " .. NAME .. ": cannot connect to")
      end
      assert.same(before.dirs.web.current, deploy.contents(lab.services.web.dir).current)
      assert.same({ "", old, old, old, old }, deploy.presented(lab, lab.endpoints, NAME))
      assert.same({ "imap failed", "imap failed", "smtp failed", "smtp failed", "web failed" },
        (deploy.states(lab, id)))
      ends(1, lab:run("check"))
      lab.web:stop()
      lab.web:start()
      assert.same(before.presented, deploy.presented(lab, lab.endpoints, NAME))
      ends(0, deploy.assign(lab, id, ALL, "--overwrite"))
      assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
    end)
  end)

  describe("of which one did not answer before", function()
    it("is written everywhere, ends with exit 1, and is not put back", function()
      local silent = "https://127.0.0.1:" .. lab:port()
      local _ <close> = deploy.change(lab, "web", { endpoints = { lab.endpoints[1], silent } })
      local id, new = deploy.issue(lab)
      local answer, result = lab:json("assign-services", id, "--services", ALL, "--overwrite")
      ends(1, result)
      assert.equal("unobserved", answer.error.code)
      says(result, silent .. " for " .. NAME .. " does not answer")
      says(result, "written everywhere, but these did not answer before and still do not show it: " .. silent)
      assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
      local _, rows = deploy.states(lab, id)
      for _, row in ipairs(rows) do
        assert.equal(row.endpoint == silent and "unreachable" or "observed", row.state)
      end
      says(ends(1, lab:run("check")), silent .. " for " .. NAME .. " is unreachable")
    end)

    it("cannot veto either by answering with another certificate", function()
      local other, port = lab:certificate { names = { NAME } }, lab:port()
      local silent = "https://127.0.0.1:" .. port
      local pid = lab.path .. "/other.pid"
      local start = ("nginx -p %s -c %s/nginx.conf -s reload; openssl s_server -accept 127.0.0.1:%d -cert %s/cert.pem "
        .. "-key %s/key.pem -quiet </dev/null >/dev/null 2>&1 & echo $! >%s"):format(lab.web.folder, lab.web.folder,
        port, other, other, pid)
      local stop = setmetatable({}, { __close = function() host.signal(tonumber(file.read(pid)), "TERM") end })
      local _ <close> = deploy.change(lab, "web", { endpoints = { lab.endpoints[1], silent }, observe_timeout = 2,
        reload = { "sh", "-c", start } })
      local id, new = deploy.issue(lab)
      local _ <close> = stop
      ends(1, deploy.assign(lab, id, ALL, "--overwrite"))
      assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
      local _, rows = deploy.states(lab, id)
      for _, row in ipairs(rows) do
        assert.equal(row.endpoint == silent and "differs" or "observed", row.state)
      end
    end)

    it("nor by not running", function()
      lab.mail:stop()
      local id, new = deploy.issue(lab)
      local result = deploy.assign(lab, id, ALL, "--overwrite")
      lab.mail:start()
      ends(1, result)
      says(result, "warning: imap refused to reload")
      assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
      ends(0, lab:run("check"))
    end)
  end)

  describe("without observing", function()
    it("is recorded as written, and found by check", function()
      local id, fingerprint = deploy.issue(lab)
      local object, result = lab:json("assign-services", id, "--services", ALL, "--overwrite", "--no-observe")
      ends(0, result)
      for _, row in ipairs(object.assignments) do
        assert.same({ "written", fingerprint, fingerprint, json.null, json.null },
          { row.state, row.desired, row.written, row.observed, row.observed_at })
      end
      assert.equal(#lab.endpoints, #object.assignments)
      assert.is_true(lab:eventually(function() return lab:run("check").status == 0 end))
      assert.same({ "imap observed", "imap observed", "smtp observed", "smtp observed", "web observed" },
        (deploy.states(lab, id)))
    end)

    it("is put back all the same when a service refuses", function()
      local old = settled()
      local before = snapshot(lab)
      local id = deploy.issue(lab)
      local _ <close> = deploy.change(lab, "imap", { reload = { "false" } })
      ends(1, deploy.assign(lab, id, ALL, "--overwrite", "--no-observe"))
      lab:eventually(function() return (pcall(assert.same, before, snapshot(lab))) end) -- nobody waited for the reload
      assert.same(before, snapshot(lab))
      assert.equal(old, before.presented[1])
      assert.same({ "imap failed", "imap failed", "smtp failed", "smtp failed", "web failed" },
        (deploy.states(lab, id)))
      ends(1, lab:run("check"))
      ends(0, lab:run("assign-services", id, "--cancel"))
    end)

    it("does not need the service to run", function()
      lab.mail:stop()
      local id, new = deploy.issue(lab)
      local result = deploy.assign(lab, id, ALL, "--overwrite", "--no-observe")
      lab.mail:start()
      ends(0, result)
      says(result, "warning: imap refused to reload")
      assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
    end)

    it("needs no endpoint, and observing does", function()
      local _ <close> = deploy.change(lab, "web", { endpoints = {} })
      local id, fingerprint = deploy.issue(lab)
      local result = refused(lab, "usage", "no endpoint of 'web' is known: give services.web.endpoints in the site's "
        .. "config.lua, or --no-observe", "assign-services", id, "--services", "web")
      assert.equal(2, result.status)
      ends(0, deploy.assign(lab, id, "web", "--no-observe"))
      local _, rows = deploy.states(lab, id)
      assert.equal(1, #rows)
      assert.same({ "web", json.null, "written", fingerprint },
        { rows[1].service, rows[1].endpoint, rows[1].state, rows[1].written })
      assert.is_true(lab:eventually(function() return lab:presented(lab.endpoints[1], NAME) == fingerprint end))
    end)
  end)
end)

describe("a first assignment", function()
  local lab, own

  -- Servers that present certificates of their own, and whose configuration has
  -- just been made to name <dir>/current/, which is not there yet.
  before_each(function()
    lab = deploy.lab(function(new)
      new.web = new:nginx { names = { NAME }, style = "none" }
      new.mail = new:dovecot { names = { NAME }, style = "none", protocols = { "imap" } }
      return { web = new.web.service, imap = new.mail.service }
    end)
    lab.endpoints = { lab.web.endpoints[1], table.unpack(lab.mail.endpoints) }
    own = deploy.presented(lab, lab.endpoints, NAME)
    local path = lab.web.folder .. "/nginx.conf"
    deploy.write(path, (file.read(path):gsub("ssl_certificate [^\n]*\n", ("include %s/current/nginx.conf;\n"):format(
      lab.web.service.dir))))
    path = lab.mail.folder .. "/local.conf"
    deploy.write(path, ("!include_try %s/current/dovecot.conf\n"):format(lab.mail.service.dir))
  end)
  after_each(function() lab:close() end)

  it("makes what is missing, and is observed", function()
    local id, fingerprint = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, "web,imap"))
    assert.same(deploy.all(lab.endpoints, fingerprint), deploy.presented(lab, lab.endpoints, NAME))
    for _, service in pairs(lab.services) do
      assert.equal(fingerprint, deploy.pair(service.dir))
      assert.equal(2, #deploy.contents(service.dir).names)
    end
  end)

  it("that one service refuses leaves no `current`", function()
    local id, fingerprint = deploy.issue(lab)
    local _ <close> = deploy.change(lab, "web", { reload = { "false" } })
    local result = ends(1, deploy.assign(lab, id, "imap,web"))
    says(result, "web refused to reload ('false' ended with status 1); everything is as before")
    says(result, ("\nrenew and poll try %s again after 20"):format(id))
    says(result, ("; to give it up: certwright assign-services %s --cancel\n"):format(id))
    assert.same(own, deploy.presented(lab, lab.endpoints, NAME))
    for _, service in pairs(lab.services) do
      assert.same({ names = {}, current = false }, deploy.contents(service.dir))
    end
    local states, rows = deploy.states(lab, id)
    assert.same({ "imap failed", "imap failed", "web failed" }, states)
    assert.same({ fingerprint, json.null }, { rows[1].desired, rows[1].written })
    ends(1, lab:run("check"))
  end)

  it("is not put back, and says so, where the configuration is refused without it", function()
    local id, fingerprint = deploy.issue(lab)
    local _ <close> = deploy.change(lab, "imap", { reload = { "false" } })
    local _ <close> = deploy.change(lab, "web", { observe_timeout = 1 })
    local result = ends(4, deploy.assign(lab, id, "web,imap"))
    says(result, "imap refused to reload ('false' ended with status 1) (in reload); AND NOT PUT BACK: web refused to "
      .. "reload")
    says(result, ("%s for %s: presents %s, not %s"):format(lab.endpoints[1], NAME, fingerprint:sub(1, 16),
      own[1]:sub(1, 16)))
  end)

  it("is observed where TLS was not offered before", function()
    local server = lab:postfix { names = { NAME }, start = false }
    deploy.tool { "rm", "-r", server.service.dir }
    server:start()
    assert.same({ "", "" }, deploy.presented(lab, server.endpoints, NAME))
    deploy.site(lab, { smtp = server.service })
    local id, fingerprint = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, "smtp"))
    assert.same({ fingerprint, fingerprint }, deploy.presented(lab, server.endpoints, NAME))
    ends(0, lab:run("check"))
  end)
end)

describe("services with one folder", function()
  local lab

  after_each(function() lab:close() end)

  it("that are one daemon are assigned together, by one generation and one reload", function()
    lab = deploy.lab(function(new)
      new.mail = new:dovecot { names = { NAME } }
      local ports = new.mail.endpoints
      return { imap = deploy.with(new.mail.service, { endpoints = { ports[1], ports[2] } }),
        pop = deploy.with(new.mail.service, { endpoints = { ports[3], ports[4] },
          dir = new.mail.service.dir:gsub("/", "//"):gsub("//ssl", "/./ssl") .. "/" }) } -- another way to write it
    end)
    local dir = lab.services.imap.dir
    for _, named in ipairs { "imap", "pop" } do
      local generations, log = #deploy.contents(dir).names, #lab.mail:log()
      local id, fingerprint = deploy.issue(lab)
      ends(0, deploy.assign(lab, id, named))
      assert.same(deploy.all(lab.mail.endpoints, fingerprint), deploy.presented(lab, lab.mail.endpoints, NAME))
      assert.same({ "imap observed", "imap observed", "pop observed", "pop observed" }, (deploy.states(lab, id)))
      assert.equal(generations + 1, #deploy.contents(dir).names)
      assert.equal(1, select(2, lab.mail:log():sub(log + 1):gsub("SIGHUP received", "")))
      ends(0, lab:run("check"))
    end
  end)

  it("must agree on the access to its keys", function()
    lab = deploy.lab(function(new)
      local service = new:dovecot({ names = { NAME }, start = false }).service
      return { imap = deploy.with(service, { group = "mail" }), pop = deploy.with(service, { group = "adm" }) }
    end)
    local contents = deploy.contents(lab.services.imap.dir)
    local result = ends(2, deploy.assign(lab, deploy.issue(lab), "pop", "--no-observe"))
    says(result, ("'pop' and 'imap' share '%s', but their 'group' is not the same: adm, mail"):format(
      lab.services.imap.dir))
    assert.same(contents, deploy.contents(lab.services.imap.dir))
  end)

  it("but different daemons are all reloaded", function()
    lab = deploy.lab(function(new)
      local dir = new.path .. "/ssl/all"
      new.web, new.smtp = new:nginx { names = { NAME }, dir = dir }, new:postfix { names = { NAME }, dir = dir }
      return { web = new.web.service, smtp = new.smtp.service }
    end)
    lab.endpoints = { lab.web.endpoints[1], table.unpack(lab.smtp.endpoints) }
    local id, fingerprint = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, "web", "--overwrite"))
    assert.same(deploy.all(lab.endpoints, fingerprint), deploy.presented(lab, lab.endpoints, NAME))
    local _ <close> = deploy.change(lab, "smtp", { check = { "false" } })
    local other = deploy.issue(lab)
    ends(1, deploy.assign(lab, other, "web", "--overwrite"))
    assert.same(deploy.all(lab.endpoints, fingerprint), deploy.presented(lab, lab.endpoints, NAME))
  end)
end)
