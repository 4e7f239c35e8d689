-- Commands as they are suggested.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/" or ""
local Desk = dofile(here .. "tests/support/desk.lua")
local file = require "core.file"
local invocation = require "invocation"
local process = require "core.process"
local text = require "text"
local where = require "where"

describe("a command that is suggested", function()
  after_each(function() invocation.settle { site_dir = where.site(), state_dir = where.state() } end)

  local function suggested(context)
    invocation.settle(context)
    return invocation.suggest("renew %d", 7)
  end

  it("names the folders that are not the usual ones", function()
    assert.equal("certwright renew 7", suggested { site_dir = where.site(), state_dir = where.state() })
    assert.equal("certwright --site /tmp/s renew 7", suggested { site_dir = "/tmp/s", state_dir = where.state() })
    assert.equal("certwright --site /tmp/s --state /tmp/t renew 7", suggested { site_dir = "/tmp/s", state_dir = "/tmp/t" })
  end)

  it("is quoted for a shell", function()
    assert.equal([[certwright --state '/tmp/a b'\''s $(x)' renew 7]], suggested { state_dir = "/tmp/a b's $(x)" })
    assert.equal("certwright --state=-x renew 7", suggested { state_dir = "-x" })
  end)

  it("goes through sudo for whom this one did", function()
    assert.equal("sudo certwright renew 7", suggested { caller = { name = "eve" } })
  end)

  it("is one for a shell, whatever the terminal's width", function()
    local said = "1 is completed already; renew it with: certwright --site '/tmp/a b'\\''s' --state /tmp/state renew 1"
    assert.equal("1 is completed already; renew it\n  with:\n  certwright --site \\\n    '/tmp/a b'\\''s' --state \\\n"
      .. "    /tmp/state renew 1", text.wrap(said, 32, 2))
    assert.equal(said, text.wrap(said, 120, 2))
    assert.equal("x\n  certwright renew \\\n    1000000000", text.wrap("x\n  certwright renew 1000000000", 22, 2))
    for _, folder in ipairs { "'/a\\'", "'/a\\'\\'' \\'", "'/a\\  b'", "/a\\'\\  b'" } do
      local command = ("certwright --site %s --state '/b  c  d' renew 1"):format(folder)
      local shown = assert(process.run { "sh", "-c", "certwright() { printf '%s\\n' \"$@\"; }\n" .. text.wrap(command, 24, 0) })
      local whole = assert(process.run { "sh", "-c", "certwright() { printf '%s\\n' \"$@\"; }\n" .. command })
      assert.equal(whole.stdout, shown.stdout)
    end
    assert.equal("x:\n  sudo \\\n    certwright \\\n    list", text.wrap("x: sudo certwright list", 15, 2))
  end)

  it("is told whatever the folders are called, after what went wrong", function()
    local desk <close> = Desk.new "inv"
    local site = desk.path .. "/100%d"
    assert(file.mkdir(site, 448))
    assert(file.write(site .. "/config.lua", 'return { ca = "own", cas = { own = { adapter = "local" } } }'))
    local failed = assert(process.run { desk.program, "--site", site, "--state", desk.path .. "/50%s", "enroll",
      "--domain", "a.test" })
    local named = ("certwright --site %s --state %s/50%%s "):format(site, desk.path)
    assert.equal(1, failed.status)
    assert.is_truthy(failed.stderr:find(("\ncertwright: there is no local CA here; make one with: %sca init\n"
      .. "request 1 is kept, and poll tries again; to go on now: %senroll 1\nto give it up: %scancel 1\n"):format(named,
      named, named), 1, true), failed.stderr)
  end)

  it("acts on the same store when it is pasted into a shell", function()
    local desk <close> = Desk.new "inv"
    local state = desk.path .. "/a folder's"
    local function run(...)
      return assert(process.run { desk.program, "--site", desk.site, "--state", state, ... })
    end
    local first = run("new-request", "--domain", "a.test", "--out", desk.path .. "/a.csr")
    local command = assert(first.stderr:match "\nnext: certwright ([^\n]+)\n$", first.stderr)
    local pasted = assert(process.run { "sh", "-c", desk.program .. " " .. command .. " --ca manual" })
    assert.equal(3, pasted.status, pasted.stderr)
    assert.is_truthy(pasted.stderr:find("\n  certwright --site " .. desk.site .. " --state '" .. desk.path
      .. "/a folder'\\''s' complete-request 1 --file FILE\n", 1, true), pasted.stderr)
    local none = run("show", "x")
    assert.is_truthy(none.stderr:find("see certwright --site " .. desk.site .. " --state ", 1, true), none.stderr)
  end)
end)
