-- Ctrl-C in the middle of an assignment.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/" or ""
local Lab = dofile(here .. "tests/support/lab.lua")
local file, host, process = require "core.file", require "core.host", require "core.process"
local lfs = require "lfs"

describe("an assignment that is interrupted", function()
  local lab, web

  setup(function()
    lab = Lab.new { name = "int" }
    web = lab:nginx { names = { "a.lab.test" } }
  end)

  teardown(function() lab:close() end)

  local function interrupted(change, times)
    local service = {}
    for field, value in pairs(web.service) do service[field] = value end
    for field, value in pairs(change) do service[field] = value end
    lab:site { ca = "internal", cas = { internal = { adapter = "local" } }, services = { web = service } }
    lab:run("ca", "init")
    local id = tostring(lab:json("enroll", "--domain", "a.lab.test").id)
    local log = lab:folder "log" .. "/out"
    local program = assert(lfs.symlinkattributes("/proc/self/exe", "target"))
    local before = lfs.symlinkattributes(service.dir .. "/current", "target")
    local started = assert(process.start({ program, "--site", lab.site_path, "--state", lab.state_path,
      "assign-services", id, "--services", "web" }, { output = log }))
    assert(lab:eventually(function()
      return lfs.symlinkattributes(service.dir .. "/current", "target") ~= before
    end))
    local deadline = host.clock() + 30
    repeat -- once, or again and again
      started:signal "INT"
      local ended = started:wait(times == 1 and 30 or 0.1)
      if ended then return ended, file.read(log), before end
    until host.clock() > deadline
    error "it does not end"
  end

  it("is put back at once, observed, and says so", function()
    local shown = lab:presented(web.endpoints[1], "a.lab.test")
    local ended, told, before = interrupted({ reload = { "sleep", "1" } }, 1)
    assert.same({ status = 1 }, ended)
    assert.is_truthy(told:find("interrupted", 1, true), told)
    assert.is_truthy(told:find("everything is as before", 1, true), told)
    assert.equal(before, lfs.symlinkattributes(web.service.dir .. "/current", "target"))
    assert.equal(shown, lab:presented(web.endpoints[1], "a.lab.test"))
    local result = lab:run("list")
    assert.is_nil(result.stderr:find("cut short", 1, true))
  end)

  it("is put back although it is interrupted again and again", function()
    local ended, told, before = interrupted({ reload = { "sleep", "1" } }, 2)
    assert.same({ status = 1 }, ended, told)
    assert.is_truthy(told:find("everything is as before", 1, true), told)
    assert.equal(before, lfs.symlinkattributes(web.service.dir .. "/current", "target"))
  end)
end)
