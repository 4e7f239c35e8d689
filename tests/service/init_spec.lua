-- service: the contract of drivers, and what drivers share.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/service/"
local Lab = dofile(here .. "tests/support/lab.lua")
local drivers = require "service"
local file = require "core.file"
local host = require "core.host"
local process = require "core.process"

local function preload(name, driver)
  package.preload["service." .. name] = function() return driver end
end

describe("service", function()
  local lab

  setup(function() lab = Lab.new { name = "service" } end)
  teardown(function() lab:close() end)

  after_each(function()
    package.preload["service.site"], package.loaded["service.site"] = nil, nil
  end)

  it("loads each driver that ships", function()
    for _, name in ipairs { "nginx", "postfix", "dovecot" } do
      assert.equal("string", type(assert(drivers.load(name)).summary))
    end
  end)

  it("says that a driver is not there", function()
    local driver, message, code = drivers.load "sendmail"
    assert.is_nil(driver)
    assert.equal("there is no service driver 'sendmail'", message)
    assert.equal("missing", code)
  end)

  it("takes no path for the name of a driver", function()
    local _, message, code = drivers.load "../cli"
    assert.equal("'../cli' is no name of a service driver", message)
    assert.equal("usage", code)
  end)

  it("names the driver that cannot be loaded, and why", function()
    package.preload["service.site"] = function() error("broken here", 0) end
    local _, message, code = drivers.load "site"
    assert.matches("cannot load service driver 'site': .*broken here", message)
    assert.equal("usage", code)
  end)

  it("names file and field of each breach of the contract", function()
    local whole = {}
    for name, value in pairs(drivers.load "nginx") do
      whole[name] = value
    end
    whole.reload, whole.verdict, whole.restrat = nil, true, function() end
    preload("site", whole)
    local _, message, code = drivers.load "site"
    assert.equal("usage", code)
    assert.matches("field 'reload' is no function", message, 1, true)
    assert.matches("field 'verdict' is no function", message, 1, true)
    assert.matches("unknown field 'restrat'", message, 1, true)
    assert.matches("^%S*site", message)
  end)

  it("refuses a driver that is no table", function()
    preload("site", "a string")
    local _, message, code = drivers.load "site"
    assert.matches("returns a string, not a table", message, 1, true)
    assert.equal("usage", code)
  end)

  it("gives the words of a program that failed, not its warnings", function()
    local script = "echo warning: dull >&2; echo fatal: 'no\tdisk' >&2; exit 3"
    local result, message, code = drivers.run { "sh", "-c", script }
    assert.is_nil(result)
    assert.equal("refused", code)
    assert.matches("failed with exit status 3: fatal: no disk$", message)
  end)

  it("names the signal that ended a program", function()
    local _, message, code = drivers.run { "sh", "-c", "kill -9 $$" }
    assert.equal("refused", code)
    assert.matches("failed with signal 9", message, 1, true)
  end)

  it("says that a program is not there", function()
    local _, message, code = drivers.run { "/nowhere/nginx" }
    assert.equal("missing", code)
    assert.matches("/nowhere/nginx", message, 1, true)
  end)

  it("keeps what a program printed valid UTF-8, and short", function()
    assert.equal("a? b", drivers.telling "a\xff\tb")
    local long = drivers.telling(("é"):rep(500))
    assert.is_truthy(utf8.len(long))
    assert.is_true(#long <= 404)
    assert.equal("only warning: this", drivers.telling "only warning: this\n")
  end)

  it("sees the process of a pid file, but no zombie and no rubbish", function()
    local path = lab.path .. "/pid"
    local function says(text)
      file.write(path, text, { exclusive = false })
      return drivers.pid(path)
    end
    assert.equal(host.pid(), says(("  %d\n"):format(host.pid())))
    assert.is_nil(says "")
    assert.is_nil(says "1")
    assert.is_nil(says "twelve")
    assert.is_nil(says "99999999")
    assert.is_nil(drivers.pid(lab.path .. "/none"))
    local ended = assert(process.start { "true" })
    local pid = ended:pid()
    host.sleep(0.1) -- now a zombie: nobody has waited for it
    assert.is_nil(says(tostring(pid)))
    ended:close()
  end)

  it("takes the tools beside the site's program, else the installed ones", function()
    local folder = lab:folder "bin"
    file.write(folder .. "/doveconf", "")
    assert.equal(folder .. "/doveconf", drivers.beside(folder .. "/dovecot", "doveconf"))
    assert.equal("doveadm", drivers.beside(folder .. "/dovecot", "doveadm"))
    assert.equal("doveconf", drivers.beside(nil, "doveconf"))
  end)

  it("refuses to name a path that a configuration would read otherwise", function()
    for path, why in pairs {
      ["/a\nb"] = "it holds a control character", ["/a$b"] = "it holds '$'", ["a/b"] = "it is not absolute",
    } do
      local plain, message, code = drivers.plain_path(path, "$")
      assert.is_nil(plain)
      assert.equal("usage", code)
      assert.matches(why, message, 1, true)
    end
    assert.equal("/a b;c", drivers.plain_path("/a b;c", "$"))
  end)

  describe("drop-in", function()
    local function holds() return true end

    it("stays when it has effect and the checker is content, and is taken back", function()
      local path = lab.path .. "/in.conf"
      local record = assert(drivers.drop_in(path, "x\n", holds, { "test", "-s", path }))
      assert.same({ file = path, text = "x\n" }, record)
      assert.is_true(drivers.undo_drop_in(record))
      assert.is_nil(file.stat(path))
      assert.is_true(drivers.undo_drop_in(record))
    end)

    it("is removed when it has no effect", function()
      local path = lab.path .. "/in.conf"
      local function none() return nil, "why", "unsupported" end
      local record, message, code = drivers.drop_in(path, "x\n", none, { "true" })
      assert.same({ nil, "why", "unsupported" }, { record, message, code })
      assert.is_nil(file.stat(path))
    end)

    it("is removed when the checker refuses", function()
      local path = lab.path .. "/in.conf"
      local record, message, code = drivers.drop_in(path, "x\n", holds, { "sh", "-c", "echo no >&2; exit 1" })
      assert.is_nil(record)
      assert.matches("exit status 1: no", message, 1, true)
      assert.equal("refused", code)
      assert.is_nil(file.stat(path))
    end)

    it("replaces no file", function()
      local path = lab.path .. "/there.conf"
      file.write(path, "theirs")
      local _, message, code = drivers.drop_in(path, "x\n", holds, { "true" })
      assert.equal("exists", code)
      assert.matches(path, message, 1, true)
      assert.equal("theirs", file.read(path))
    end)

    it("is not removed once somebody has changed it", function()
      local path = lab.path .. "/changed.conf"
      local record = assert(drivers.drop_in(path, "x\n", holds, { "true" }))
      file.write(path, "y\n", { exclusive = false })
      local _, message, code = drivers.undo_drop_in(record)
      assert.equal("mismatch", code)
      assert.matches("was changed since it was written", message, 1, true)
    end)
  end)
end)
