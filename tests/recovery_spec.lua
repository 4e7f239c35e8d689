-- recovery.lua: kill -9 at every journaled stage of an assignment to three real
-- services, and just before the next one.  At once nothing is torn and every
-- service answers; the next command finishes or undoes, and says which.
--
-- How a process is killed there: see support/killer.lua.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local cert = require "core.cert"
local deploy = require "deploy"
local file = require "core.file"
local host = require "core.host"
local killer = require "killer"
local process = require "core.process"

local shadow, killed = killer.shadow, killer.run

local NAME = deploy.name
local ALL = "smtp,imap,web" -- nginx last: until its reload it shows the old one, whatever the others do

local STAGES = { "begin", "preflight", "stage", "stage smtp", "stage imap", "stage web", "switch", "switch smtp",
  "switch imap", "switch web", "check", "check smtp", "check imap", "check web", "reload", "reload smtp", "reload imap",
  "reload web", "observe", "commit" }

local UNDONE, FINISHED, PUT_BACK = "was undone; nothing had been switched",
  "was finished; the new certificate is observed everywhere", "was put back; everything is as before"

-- What has to become of a deployment that was killed at or after a stage.
local function outcomes(when, stage)
  local number
  for i, name in ipairs(STAGES) do number = name == stage and i or number end
  if number <= 7 or (stage == "switch smtp" and when == "at") then return { UNDONE } end
  if number >= 19 then return { FINISHED } end
  if stage == "reload web" and when == "after" then return { FINISHED, PUT_BACK } end -- as fast as nginx is
  return { PUT_BACK }
end

local function ends(status, result)
  assert.equal(status, result.status, result.stderr)
  return result
end

local function says(result, text)
  assert.is_truthy(result.stderr:find(text, 1, true), ("no %q in:\n%s"):format(text, result.stderr))
end

local function unfinished(lab)
  return deploy.sql(lab, "SELECT object_id, stage FROM deployments WHERE finished_at IS NULL")
end

-- What must hold at once, before anything is recovered.
local function assert_whole(lab, old, new)
  for name, service in pairs(lab.services) do
    local fingerprint, why = deploy.pair(service.dir)
    assert.is_truthy(fingerprint == old or fingerprint == new, ("%s: %s"):format(name, fingerprint or why))
  end
  for i, fingerprint in ipairs(deploy.presented(lab, lab.endpoints, NAME)) do
    assert.is_truthy(fingerprint == old or fingerprint == new, lab.endpoints[i] .. " presents " .. fingerprint)
  end
end

local function folders(lab)
  local list = {}
  for name, service in pairs(lab.services) do list[name] = deploy.contents(service.dir) end
  return list
end

describe("an assignment to three services that is killed", function()
  local lab, old

  setup(function()
    lab = deploy.three()
    -- `postfix check` runs fifty programs each time; here another one will do
    deploy.site(lab, deploy.with(lab.services, { smtp = deploy.with(lab.services.smtp, {
      check = { "postconf", "-c", lab.services.smtp.config_directory, "-n" } }) }))
    shadow(lab)
    local id
    id, old = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, ALL, "--overwrite"))
  end)
  teardown(function() lab:close() end)

  -- Every endpoint shows one certificate, and every folder holds it.
  local function assert_settled(fingerprint)
    assert.same({}, unfinished(lab))
    assert.same(deploy.all(lab.endpoints, fingerprint), deploy.presented(lab, lab.endpoints, NAME))
    for _, service in pairs(lab.services) do
      assert.equal(fingerprint, assert(cert.open(service.dir .. "/current/fullchain.pem"))[1]:fingerprint())
    end
  end

  -- And nothing is left of the other.
  local function assert_recovered(fingerprint, before)
    assert_settled(fingerprint)
    for _, service in pairs(lab.services) do
      for _, name in ipairs(deploy.contents(service.dir).names) do assert.is_nil(name:find "^%.", name) end
    end
    if before then assert.same(before, folders(lab)) end
  end

  local function recovered(id, stage, wanted, ...)
    local result = lab:run(...)
    local outcome = result.stderr:match(("recovered: the deployment of %s that was cut short at '%s' ([^\n]*)"):format(id,
      stage))
    assert.is_truthy(table.concat(wanted, "\n"):find(outcome or "nothing", 1, true), result.stderr)
    ends(outcome == PUT_BACK and (...) == "check" and 1 or 0, result) -- it is still wanted, and not there
    return outcome
  end

  it("has no other stages than these", function()
    os.remove(lab.site_path .. "/trace")
    local id, new = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, ALL, "--overwrite"))
    assert.equal(table.concat(STAGES, "\n") .. "\n", file.read(lab.site_path .. "/trace"))
    old = new
    assert_recovered(new)
  end)

  for number, stage in ipairs(STAGES) do
    for _, when in ipairs { "at", "after" } do
      it(("%s '%s' tears nothing, and is finished or undone by the next command"):format(when, stage), function()
        local before = folders(lab)
        local id, new = deploy.issue(lab)
        killed(lab, when .. " " .. stage, "assign-services", id, "--services", ALL, "--overwrite")
        assert_whole(lab, old, new)
        assert.same({ { object_id = tonumber(id), stage = stage } }, unfinished(lab))

        local cut = folders(lab)
        local list = ends(0, lab:run(number % 2 == 0 and "list" or "show", number % 2 == 1 and id or nil))
        says(list, ("a deployment of %s is under way or was cut short at '%s'; certwright check finishes or undoes it")
          :format(id, stage))
        assert.same({ { object_id = tonumber(id), stage = stage } }, unfinished(lab))
        assert.same(cut, folders(lab))

        local command = when == "at" and { "check" } or { "new-request", "--domain", NAME }
        local outcome = recovered(id, stage, outcomes(when, stage), table.unpack(command))
        if outcome == FINISHED then old, before = new, nil end
        assert_recovered(old, before)
        local state = ({ [FINISHED] = "observed", [PUT_BACK] = "failed" })[outcome]
        assert.same(state and { "imap " .. state, "imap " .. state, "smtp " .. state, "smtp " .. state, "web " .. state }
          or {}, (deploy.states(lab, id)))
        if outcome == PUT_BACK then ends(0, lab:run("assign-services", id, "--cancel")) end
        assert.is_nil(ends(0, lab:run "check").stderr:find "recovered")
      end)
    end
  end

  for _, when in ipairs { "at", "after" } do
    it(when .. " 'put back', because one refuses, is put back by the next command", function()
      local before = folders(lab)
      local id, new = deploy.issue(lab)
      do
        local _ <close> = deploy.change(lab, "web", { check = { "false" } })
        killed(lab, when .. " put back", "assign-services", id, "--services", ALL, "--overwrite")
      end
      assert_whole(lab, old, new)
      assert.same({ { object_id = tonumber(id), stage = "put back" } }, unfinished(lab))
      recovered(id, "put back", { PUT_BACK }, "check")
      assert_recovered(old, before)
      ends(0, lab:run("assign-services", id, "--cancel"))
    end)
  end

  it("and whose recovery is killed as well, is put back by the one after", function()
    local before = folders(lab)
    local id, new = deploy.issue(lab)
    killed(lab, "at reload imap", "assign-services", id, "--services", ALL, "--overwrite")
    for _, where in ipairs { "at put back", "after put back" } do
      killed(lab, where, "check")
      assert_whole(lab, old, new)
      assert.same({ { object_id = tonumber(id), stage = "put back" } }, unfinished(lab))
    end
    recovered(id, "put back", { PUT_BACK }, "check")
    assert_recovered(old, before)
    ends(0, lab:run("assign-services", id, "--cancel"))
  end)

  it("after its end is whole, and leaves old generations to the next one", function()
    ends(0, deploy.assign(lab, deploy.issue(lab), ALL, "--overwrite")) -- so that there is one to prune
    local id, new = deploy.issue(lab)
    killed(lab, "after finish", "assign-services", id, "--services", ALL, "--overwrite")
    old = new
    assert_recovered(new)
    local generations = #deploy.contents(lab.services.web.dir).names
    ends(0, lab:run "check")
    assert.same({ "imap observed", "imap observed", "smtp observed", "smtp observed", "web observed" },
      (deploy.states(lab, id)))
    local next_id
    next_id, old = deploy.issue(lab)
    ends(0, deploy.assign(lab, next_id, ALL, "--overwrite"))
    assert.is_true(#deploy.contents(lab.services.web.dir).names < generations)
    assert_recovered(old)
  end)

  it("at any moment tears nothing, and is recovered", function()
    local program = assert(file.link "/proc/self/exe")
    for moment = 1, 6 do
      local id, new = deploy.issue(lab)
      local running = assert(process.start { program, "--site", lab.site_path, "--state", lab.state_path,
        "assign-services", id, "--services", ALL, "--overwrite" })
      host.sleep(0.12 * moment)
      running:stop("KILL")
      assert_whole(lab, old, new)
      lab:run "check"
      local there = deploy.pair(lab.services.web.dir)
      assert.is_true(there == old or there == new)
      old = there
      assert_settled(there)
      lab:run("assign-services", id, "--cancel")
      ends(0, lab:run "check")
    end
    local id -- what was cut short while old generations were removed is removed by the next one
    id, old = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, ALL, "--overwrite"))
    assert_recovered(old)
  end)

  it("can be undone without the services that the site no longer names", function()
    local before = folders(lab)
    local id = deploy.issue(lab)
    killed(lab, "at stage web", "assign-services", id, "--services", ALL, "--overwrite")
    local services = lab.services
    deploy.site(lab, { web = services.web })
    recovered(id, "stage web", { UNDONE }, "new-request", "--domain", NAME)
    deploy.site(lab, services)
    assert_recovered(old, before)
  end)

  it("cannot be put back without them, and says so until they are there", function()
    local before = folders(lab)
    local id = deploy.issue(lab)
    killed(lab, "at check", "assign-services", id, "--services", ALL, "--overwrite")
    local services = lab.services
    deploy.site(lab, { web = services.web })
    for _ = 1, 2 do
      says(ends(1, lab:run("new-request", "--domain", NAME)), ("cannot recover the deployment of %s that was cut short: "
        .. "there is no service 'smtp'"):format(id))
    end
    deploy.site(lab, services)
    recovered(id, "check", { PUT_BACK }, "check")
    assert_recovered(old, before)
    ends(0, lab:run("assign-services", id, "--cancel"))
  end)

  it("and cannot be put back is exit 4, once", function()
    local id, new = deploy.issue(lab)
    killed(lab, "at check", "assign-services", id, "--services", ALL, "--overwrite")
    lab.web:stop()
    do
      local _ <close> = deploy.change(lab, "web", { restart = { "true" }, observe_timeout = 1 })
      local answer, result = lab:json "check"
      ends(4, result)
      assert.equal("unrestored", answer.error.code)
      says(result, ("the deployment of %s that was cut short at 'check' could not be put back: %s for %s: cannot connect")
        :format(id, lab.endpoints[1], NAME))
    end
    lab.web:start()
    assert_recovered(old)
    ends(1, lab:run "check")
    ends(0, deploy.assign(lab, id, ALL, "--overwrite"))
    old = new
    assert_recovered(new)
  end)

  it("is left alone by other commands while it is under way", function()
    local program = assert(file.link "/proc/self/exe")
    local id, new = deploy.issue(lab)
    local slow = { reload = { "sh", "-c", ("nginx -p %s -c %s/nginx.conf -s reload; sleep 1"):format(lab.web.folder,
      lab.web.folder) } }
    local _ <close> = deploy.change(lab, "web", slow)
    local running = assert(process.start({ program, "--site", lab.site_path, "--state", lab.state_path,
      "assign-services", id, "--services", ALL, "--overwrite" }, { output = lab.path .. "/slow.log" }))
    assert(lab:eventually(function() return (unfinished(lab)[1] or {}).stage == "reload web" end))
    local result = ends(0, lab:run("new-request", "--domain", NAME))
    assert.is_nil(result.stderr:find "recovered")
    assert.same({ { object_id = tonumber(id), stage = "reload web" } }, unfinished(lab))
    assert.equal(0, running:wait(60).status, file.read(lab.path .. "/slow.log"))
    old = new
    assert_recovered(new)
  end)
end)

describe("a first assignment that is killed", function()
  it("leaves no `current` when it is put back", function()
    local lab <close> = deploy.lab(function(new)
      new.mail = new:dovecot { names = { NAME }, style = "none", protocols = { "imap" } }
      deploy.write(new.mail.folder .. "/local.conf", ("!include_try %s/current/dovecot.conf\n"):format(
        new.mail.service.dir))
      return { imap = new.mail.service }
    end)
    shadow(lab)
    lab.endpoints = lab.mail.endpoints
    local own = deploy.presented(lab, lab.endpoints, NAME)
    local id, new = deploy.issue(lab)
    killed(lab, "at reload imap", "assign-services", id, "--services", "imap")
    assert_whole(lab, own[1], new)
    says(lab:run "check", PUT_BACK)
    assert.same({ names = {}, current = false }, deploy.contents(lab.services.imap.dir))
    assert.same(own, deploy.presented(lab, lab.endpoints, NAME))
    ends(0, deploy.assign(lab, id, "imap"))
    assert.same(deploy.all(lab.endpoints, new), deploy.presented(lab, lab.endpoints, NAME))
  end)
end)
