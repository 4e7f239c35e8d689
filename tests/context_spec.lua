-- The state folder: who makes it, who may see it, what is refused; what a crash or
-- another version left there.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local file = require "core.file"
local process = require "core.process"
local store = require "core.store"
local json = require "dkjson"

describe("the state folder", function()
  local desk

  setup(function() desk = Desk.new "state" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function sql(...)
    local db <close> = assert(store.open(desk.state .. "/store.db"))
    return assert(db:rows(...))
  end

  it("is made by the first command that writes, for its owner alone", function()
    for _, words in ipairs { { "list" }, { "check" }, { "help" },
      { "new-request", "--domain", "a.test", "--dry-run" } } do
      desk:done(table.unpack(words))
      assert.is_nil(file.stat(desk.state))
    end
    desk:refuses(1, "missing", "there is no request or certificate 1; see certwright list", "show", "1")
    assert.is_nil(file.stat(desk.state))
    desk:ask("--domain", "a.test")
    for _, name in ipairs { "", "/keys", "/requests", "/locks" } do
      assert.equal("0700", desk:mode(desk.state .. name))
    end
  end)

  it("is refused where another user could put another one in its place", function()
    desk:ask("--domain", "a.test")
    local refusal = "refused to keep the state in '%s': owner %d, mode %s: others could have written it; to mend it: %s"
    local function tool(...) assert.equal(0, process.run({ ... }).status) end
    tool("chown", "65534", desk.state)
    desk:refuses(1, "denied", refusal:format("STATE", 65534, "0700", "chown 0 'STATE'"), "new-request", "--domain",
      "b.test")
    tool("chown", "0", desk.state)
    tool("chmod", "777", desk.path)
    desk:refuses(1, "denied", refusal:format("LAB", 0, "0777", "chmod go-w 'LAB'"), "new-request", "--domain",
      "b.test")
    tool("chmod", "755", desk.path)
    desk:ask("--domain", "b.test")
  end)

  it("is made below folders that are missing, too", function()
    local deep = desk.path .. "/a/b/c"
    local result = desk:run("--state", deep, "new-request", "--domain", "a.test")
    assert.equal(0, result.status)
    assert.same({ "0700", "0700" }, { desk:mode(deep), desk:mode(desk.path .. "/a") })
    process.run { "rm", "-r", desk.path .. "/a" }
  end)

  it("that others may enter is refused by what writes, and nothing is made in it", function()
    for mode, shown in pairs { ["755"] = "0755", ["750"] = "0750", ["701"] = "0701" } do
      desk:clear()
      assert(file.mkdir(desk.state, tonumber(mode, 8)))
      local message = ("the state folder 'STATE' can be entered by others (mode %s); to mend it: chmod 700 'STATE'")
        :format(shown)
      for _, words in ipairs { { "new-request", "--domain", "a.test" }, { "ca", "init" }, { "cancel", "1" },
        { "enroll", "--domain", "a.test" } } do
        desk:refuses(1, "denied", message, table.unpack(words))
      end
      assert.equal("", process.run({ "ls", "-A", desk.state }).stdout)
      assert.equal(0, process.run({ "chmod", "700", desk.state }).status)
      desk:ask("--domain", "a.test")
    end
  end)

  it("that is no folder is refused", function()
    desk:write("state", "a file")
    desk:refuses(1, "exists", "cannot make folder 'STATE': File exists", "new-request", "--domain", "a.test")
    os.remove(desk.state)
  end)

  it("is left as it is by every --dry-run", function()
    local web = desk.lab:nginx { names = { "a.test" }, pair = desk.lab:certificate { names = { "a.test" } } }
    desk.lab:site { services = { web = web.service } }
    desk:done("new-request", "--self-signed", "--services", "web")
    desk:done("new-request", "--self-signed", "--services", "web")
    desk:done("assign-services", "1", "--services", "web")
    local shown = desk.lab:presented(web.endpoints[1], "a.test")
    local before, files = desk:snapshot(), process.run({ "ls", "-lR", web.service.dir }).stdout
    for _, words in ipairs {
      { "assign-services", "1", "--services", "web" }, { "assign-services", "2", "--services", "web" },
      { "assign-services", "2", "--cancel" }, { "check" }, { "adopt", "web" }, { "remove", "2" }, { "ca", "root" },
      { "new-request", "--from", "1" }, { "enroll", "--services", "web" }, { "enroll", "1" }, { "cancel", "1" },
    } do
      local result = desk:run("--dry-run", table.unpack(words))
      assert.is_true(result.status == 0 or words[1] == "cancel" or words[1] == "ca", result.stderr)
      assert.is_true(before == desk:snapshot(), table.concat(words, " "))
    end
    assert.equal(files, process.run({ "ls", "-lR", web.service.dir }).stdout)
    assert.equal(shown, desk.lab:presented(web.endpoints[1], "a.test"))
    web:stop()
  end)

  it("keeps nothing secret anywhere but in keys/ and ca/", function()
    local inner <close> = Desk.new "secret"
    inner:done("ca", "init")
    inner:done("enroll", "--domain", "a.test")
    local found = process.run({ "grep", "-rl", "PRIVATE KEY", inner.path }).stdout
    local list = {}
    for path in found:gmatch "[^\n]+" do list[#list + 1] = inner:shown(path) end
    table.sort(list)
    assert.same({ "STATE/ca/issuing.key", "STATE/ca/root.key", "STATE/keys/1.pem" }, list)
  end)

  describe("with a store of a newer certwright", function()
    it("is refused by every command, and left as it is", function()
      desk:ask("--domain", "a.test")
      sql "PRAGMA user_version = 99"
      local before = desk:snapshot()
      for _, words in ipairs { { "list" }, { "show", "1" }, { "check" }, { "new-request", "--domain", "b.test" },
        { "cancel", "1" }, { "remove", "1", "--yes" }, { "new-request", "--domain", "b.test", "--dry-run" } } do
        desk:refuses(1, "unsupported", "cannot use 'STATE/store.db': it was written by a newer certwright; "
          .. "use that one", table.unpack(words))
      end
      assert.is_true(before == desk:snapshot())
      assert.equal(99, sql("PRAGMA user_version")[1].user_version)
    end)
  end)

  it("with a store that is none is refused", function()
    desk:ask("--domain", "a.test")
    desk:write("state/store.db", ("no store "):rep(1000), "600")
    for _, words in ipairs { { "list" }, { "new-request", "--domain", "b.test" } } do
      local value = json.decode(desk:run("--json", table.unpack(words)).stdout)
      assert.equal("io", value.error.code)
      assert.is_truthy(desk:shown(value.error.message):find("STATE/store.db", 1, true), value.error.message)
    end
    assert.equal(("no store "):rep(1000), desk:read(desk.state .. "/store.db"))
  end)

  it("with an empty store, as a crash while it was made leaves it, is taken up", function()
    assert(file.mkdir(desk.state, tonumber("700", 8)))
    desk:write("state/store.db", "", "600")
    assert.same({}, (desk:done "list"))
    assert.equal("1", (desk:ask("--domain", "a.test")))
  end)

  it("is kept as the design of the store says: WAL, full synchronous, foreign keys", function()
    desk:ask("--domain", "a.test")
    assert.equal("wal", sql("PRAGMA journal_mode")[1].journal_mode)
    desk:done("remove", "1", "--yes")
    assert.same({}, sql "SELECT * FROM names")
  end)

  it("of root is mentioned to a user who has none", function()
    local line = [[mount -t tmpfs none /var/lib && mkdir -m 700 /var/lib/certwright && exec setpriv --reuid 65534 ]]
      .. [[--regid 65534 --clear-groups "$0" list]]
    local result = assert(process.run({ "unshare", "-m", "sh", "-c", line, desk:installed() },
      { env = { HOME = desk.path .. "/nobody" } }))
    if result.stderr:find "unshare" or result.stderr:find "mount:" then
      pending("no mount namespace: " .. result.stderr)
    end
    assert.same({ 0, ("there is no store in '%s/nobody/.local/share/certwright'; root's is in '/var/lib/certwright': "
      .. "use sudo to see it\n"):format(desk.path) }, { result.status, result.stderr })
  end)
end)
