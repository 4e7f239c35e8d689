-- check and inspection.lua on real servers: what clients see of every assignment
-- now, whatever was recorded.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local deploy = require "deploy"
local file = require "core.file"
local json = require "dkjson"
local lfs = require "lfs"
local probe = require "core.probe"
local process = require "core.process"

local NAME = deploy.name

local function ends(status, result)
  assert.equal(status, result.status, result.stderr)
  return result
end

local function says(result, text)
  assert.is_truthy(result.stderr:find(text, 1, true), ("no %q in:\n%s"):format(text, result.stderr))
end

describe("check", function()
  local lab, id, fingerprint, endpoint

  setup(function()
    lab = deploy.lab(function(new)
      new.web, new.mail = new:nginx { names = { NAME } }, new:dovecot { names = { NAME }, protocols = { "imap" } }
      return { web = new.web.service, imap = new.mail.service }
    end)
    endpoint = lab.web.endpoints[1]
  end)
  teardown(function() lab:close() end)

  before_each(function()
    deploy.sql(lab, "DELETE FROM assignments")
    id, fingerprint = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, "web"))
  end)

  -- Makes nginx present another pair, as somebody would by hand, until closed.
  local function by_hand(files)
    local current = lab.web.service.dir .. "/current/"
    local kept = {}
    for name, text in pairs(files) do
      kept[name] = file.read(current .. name)
      deploy.write(current .. name, text)
    end
    local function reload()
      local log = #lab.web:log()
      deploy.tool { "nginx", "-p", lab.web.folder, "-c", lab.web.folder .. "/nginx.conf", "-s", "reload" }
      assert(lab:eventually(function() return lab.web:log():find("exited with code 0", log, true) end))
    end
    reload()
    return setmetatable({}, { __close = function()
      for name, text in pairs(kept) do deploy.write(current .. name, text) end
      reload()
    end })
  end

  it("with nothing assigned is content", function()
    deploy.sql(lab, "DELETE FROM assignments")
    assert.equal("nothing is assigned yet; assign with: certwright assign-services CERT --services LIST\n", ends(0, lab:run "check").stdout)
    local list, result = lab:json "check"
    ends(0, result)
    assert.equal("[]\n", result.stdout)
    assert.same({}, list)
  end)

  it("makes no state folder where there is none", function()
    local state = lab.path .. "/nothing"
    local result = ends(0, assert(process.run { file.link "/proc/self/exe", "--site", lab.site_path, "--state", state,
      "check" }))
    assert.equal(("nothing is assigned yet; assign with: certwright --site %s --state %s assign-services CERT --services LIST\n"):format(
      lab.site_path, state), result.stdout)
    assert.is_nil(lfs.attributes(state))
  end)

  it("warns of what has expired or is due to be renewed", function()
    deploy.sql(lab, "UPDATE objects SET renew_at = 1000000000 WHERE id = " .. id)
    says(ends(0, lab:run "check"), ("certwright: warning: %s '%s' is due to be renewed: it expires on "):format(id,
      lab:json("show", tostring(id)).friendly_name))
    deploy.sql(lab, "UPDATE objects SET not_after = 1000000001 WHERE id = " .. id)
    says(ends(0, lab:run "check"), "': expired on 2001-09-09T01:46:41Z\n")
  end)

  it("shows every assignment, and again what was observed", function()
    deploy.sql(lab, "UPDATE assignments SET observed_at = 1000000000")
    local result = ends(0, lab:run "check")
    assert.matches("^ID +SERVICE +ENDPOINT +NAME +STATE +OBSERVED\n", result.stdout)
    assert.is_truthy(result.stdout:find(("\n%s +web +%s +%s +observed +%s\n$"):format(id, endpoint, NAME,
      fingerprint:sub(1, 16))))
    local list = lab:json "check"
    assert.equal(1, #list)
    assert.same({ tonumber(id), fingerprint, { "web" } }, { list[1].id, list[1].fingerprint, list[1].services })
    assert.equal(os.date "!%Y", list[1].assignments[1].observed_at:sub(1, 4))
  end)

  it("finds another certificate, says which, and finds it mended", function()
    local other = lab:certificate { names = { NAME } }
    local seen = lab:fingerprint(other)
    do
      local _ <close> = by_hand { ["fullchain.pem"] = file.read(other .. "/fullchain.pem"),
        ["privkey.pem"] = file.read(other .. "/key.pem") }
      local list, result = lab:json "check"
      ends(1, result)
      assert.equal(("certwright: %s on web: %s for %s is differs: presents %s, not %s\n"):format(id, endpoint, NAME,
        seen:sub(1, 16), fingerprint:sub(1, 16)), result.stderr)
      local row = list[1].assignments[1]
      assert.same({ "differs", seen, fingerprint, ("presents %s, not %s"):format(seen:sub(1, 16), fingerprint:sub(1, 16)) },
        { row.state, row.observed, row.desired, row.error })
      assert.same({ "web differs" }, (deploy.states(lab, id))) -- and it is recorded
    end
    ends(0, lab:run "check")
    local _, rows = deploy.states(lab, id)
    assert.same({ "observed", fingerprint, json.null }, { rows[1].state, rows[1].observed, rows[1].error })
  end)

  it("finds that the chain is not sent", function()
    local _ <close> = by_hand { ["fullchain.pem"] = file.read(lab.web.service.dir .. "/current/cert.pem") }
    says(ends(1, lab:run "check"), ("differs: presents %s with a chain of 1 certificates that is not the one written (2)")
      :format(fingerprint:sub(1, 16)))
  end)

  it("finds a service that does not answer, and keeps what was seen last", function()
    lab.web:stop()
    local list, result = lab:json "check"
    lab.web:start()
    ends(1, result)
    says(result, ("%s on web: %s for %s is unreachable: cannot connect to '%s': Connection refused"):format(id, endpoint,
      NAME, endpoint))
    local row = list[1].assignments[1]
    assert.same({ "unreachable", fingerprint, fingerprint }, { row.state, row.written, row.observed })
    ends(0, lab:run "check")
  end)

  it("records nothing with --dry-run", function()
    lab.web:stop()
    local result = lab:run("check", "--dry-run")
    lab.web:start()
    says(ends(1, result), "is unreachable")
    assert.same({ "web observed" }, (deploy.states(lab, id)))
  end)

  it("goes by the files where there is no endpoint, and finds them changed and mended", function()
    local _ <close> = deploy.change(lab, "web", { endpoints = {} })
    local second = deploy.issue(lab)
    ends(0, deploy.assign(lab, second, "web", "--no-observe"))
    ends(0, lab:run "check")
    local other = lab:certificate { names = { NAME } }
    local path = lab.web.service.dir .. "/current/fullchain.pem"
    local before = file.read(path)
    deploy.write(path, file.read(other .. "/fullchain.pem"))
    says(ends(1, lab:run "check"), ("%s on web: differs: %s/current holds %s"):format(second, lab.web.service.dir,
      lab:fingerprint(other):sub(1, 16)))
    deploy.write(path, before)
    ends(0, lab:run "check")
    assert.same({ "web written" }, (deploy.states(lab, second)))
  end)

  it("leaves what failed where there is no endpoint failed, until it is cancelled", function()
    local _ <close> = deploy.change(lab, "web", { endpoints = {}, reload = { "false" } })
    local second = deploy.issue(lab)
    ends(1, deploy.assign(lab, second, "web", "--no-observe"))
    for _ = 1, 2 do
      says(ends(1, lab:run "check"), second .. " on web: failed: web refused to reload")
      assert.same({ "web failed" }, (deploy.states(lab, second)))
    end
    ends(0, lab:run("assign-services", second, "--cancel"))
    ends(0, lab:run "check")
  end)

  it("looks at certificates on several services, and not at those that were replaced", function()
    local other, second = deploy.issue(lab)
    ends(0, deploy.assign(lab, other, "imap"))
    local third = deploy.issue(lab)
    ends(0, deploy.assign(lab, third, "web"))
    local list, result = lab:json "check"
    ends(0, result)
    assert.equal(2, #list)
    assert.same({ tonumber(other), tonumber(third) }, { list[1].id, list[2].id })
    assert.same({ "web replaced" }, (deploy.states(lab, id)))
    lab.mail:stop()
    result = lab:run "check"
    lab.mail:start()
    ends(1, result)
    local _, lines = result.stderr:gsub("\n", "")
    assert.equal(2, lines)
    says(result, other .. " on imap: " .. lab.mail.endpoints[1] .. " for " .. NAME .. " is unreachable")
    ends(0, lab:run "check")
    assert.equal(second, deploy.pair(lab.mail.service.dir))
  end)

  it("does not take an address for another one of the same endpoint", function()
    local host = "https://localhost:" .. endpoint:match "%d+$"
    local _ <close> = deploy.change(lab, "web", { endpoints = { host, "https://nowhere.invalid:1" } })
    deploy.sql(lab, "UPDATE assignments SET endpoint = ?1, address = '127.0.0.9'", host)
    says(ends(1, lab:run "check"), ("%s on web: %s [127.0.0.9] for %s is unreachable: '%s' has no address 127.0.0.9 any "
      .. "more; to look where it is now: certwright assign-services %s --services web\n"):format(id, host, NAME, host, id))
    deploy.sql(lab, "UPDATE assignments SET endpoint = 'https://nowhere.invalid:1'")
    says(ends(1, lab:run "check"), "https://nowhere.invalid:1 [127.0.0.9] for " .. NAME .. " is unreachable: ")
  end)

  it("forgets what config.lua does not name any more and what does not have it, and says so", function()
    local old = "https://127.0.0.1:1"
    local function stray(fields)
      deploy.sql(lab, ([[INSERT INTO assignments (object_id, server, service, endpoint, address, name, desired, written, state)
        SELECT object_id, server, '%s', '%s', address, name, desired, written, state FROM assignments]]):format(
        fields.service or "web", old))
    end
    local function forgets(text)
      says(ends(0, lab:run("check", "--dry-run")), text .. ": does not count\n")
      says(ends(0, lab:run "check"), text .. ": forgotten\n")
      assert.same({ "web observed" }, (deploy.states(lab, id)))
      assert.equal("", ends(0, lab:run "check").stderr)
      says({ stderr = lab:run("show", id).stdout }, "assignment forgotten")
    end
    stray {}
    forgets(("%s on web: %s for %s; that is no endpoint of 'web' any more"):format(id, old, NAME))
  end)

  it("keeps what a service had that is gone and silent, for it may come back", function()
    deploy.sql(lab, ([[INSERT INTO assignments (object_id, server, service, endpoint, address, name, desired, written, state)
      SELECT object_id, server, 'chat', 'https://127.0.0.1:1', address, name, desired, written, state FROM assignments]]))
    for _ = 1, 2 do
      says(ends(0, lab:run "check"), ("%s on chat: https://127.0.0.1:1 for %s; '%s/config.lua' names no service 'chat' any "
        .. "more: does not count\n"):format(id, NAME, lab.site_path))
      assert.same({ "chat unreachable", "web observed" }, (deploy.states(lab, id)))
    end
    local other, port = lab:certificate { names = { "chat.test" } }, lab:port()
    local server <close> = assert(process.start { "openssl", "s_server", "-quiet", "-accept", "127.0.0.1:" .. port, "-cert",
      other .. "/cert.pem", "-key", other .. "/key.pem" })
    deploy.sql(lab, "UPDATE assignments SET endpoint = ?1 WHERE service = 'chat'", "https://127.0.0.1:" .. port)
    assert.is_truthy(lab:eventually(function() return probe.run({ "https://127.0.0.1:" .. port })[1].fingerprint end))
    assert.is_true(server:running())
    says(ends(0, lab:run "check"), "names no service 'chat' any more: forgotten\n") -- something else answers there
    assert.same({ "web observed" }, (deploy.states(lab, id)))
  end)

  it("forgets a name that a service no longer has, not one that it has", function()
    deploy.sql(lab, [[INSERT INTO assignments (object_id, server, service, endpoint, address, name, desired, written, state)
      SELECT object_id, server, service, endpoint, address, 'old.test', desired, written, state FROM assignments]])
    ends(0, lab:run "check") -- while it presents the certificate there is nothing to say
    assert.same({ "web observed", "web observed" }, (deploy.states(lab, id)))
    local other = lab:certificate { names = { NAME } }
    local _ <close> = by_hand { ["fullchain.pem"] = file.read(other .. "/fullchain.pem"),
      ["privkey.pem"] = file.read(other .. "/key.pem") }
    local result = ends(1, lab:run "check")
    says(result, ("%s on web: %s for old.test; 'web' has no name old.test any more: forgotten\n"):format(id, endpoint))
    says(result, ("%s on web: %s for %s is differs: "):format(id, endpoint, NAME))
    assert.same({ "web differs" }, (deploy.states(lab, id)))
  end)

  it("keeps what still has it, wherever config.lua has it, and what is wanted until that is given up", function()
    do
      local _ <close> = deploy.change(lab, "web", { endpoints = { "https://127.0.0.1:1" } })
      ends(0, lab:run "check")
      assert.same({ "web observed" }, (deploy.states(lab, id)))
      deploy.sql(lab, "UPDATE assignments SET state = 'failed', error = 'why', endpoint = 'https://127.0.0.1:2'")
      local result = ends(1, lab:run "check")
      says(result, ("that is no endpoint of 'web' any more; to give it up: certwright assign-services %s --services web "
        .. "--cancel\n"):format(id))
      ends(0, lab:run("assign-services", id, "--services", "web", "--cancel"))
    end
    ends(0, lab:run "check")
  end)

  it("does not judge trust or dates", function()
    local object, result = lab:json("new-request", "--domain", NAME, "--self-signed")
    ends(0, result)
    local self_signed = tostring(math.tointeger(object.id))
    ends(0, deploy.assign(lab, self_signed, "web"))
    local list
    list, result = lab:json "check"
    ends(0, result)
    assert.same({ "Untrusted", "observed" }, { list[1].status, list[1].assignments[1].state })
  end)

  it("goes on with --watch, a round a minute, and says what it sees", function()
    local log = lab.path .. "/watch.log"
    local watching = assert(process.start({ file.link "/proc/self/exe", "--site", lab.site_path, "--state",
      lab.state_path, "check", "--watch" }, { output = log }))
    assert(lab:eventually(function() return file.read(log):find "\n" end))
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ  every assignment is as it should be\n$", file.read(log))
    assert.is_true(watching:running())
    assert.is_truthy(watching:stop "INT")
  end)
end)
