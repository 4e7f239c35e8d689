-- remove: forgets an object and deletes its key.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local Terminal = dofile(here .. "support/terminal.lua")
local file = require "core.file"

describe("remove", function()
  local desk

  setup(function() desk = Desk.new "remove" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function gone(id)
    assert.is_nil(file.stat(("%s/keys/%d.pem"):format(desk.state, id)))
    assert.is_nil(file.stat(("%s/requests/%d.csr"):format(desk.state, id)))
    desk:refuses(1, "missing", ("there is no request or certificate %d; see certwright list"):format(id), "show", tostring(id))
  end

  it("forgets a certificate and deletes its key and request", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test")
    assert.equal("removed 1\n", desk:run("remove", "a.test").stdout)
    gone(1)
    assert.same({}, (desk:done "list"))
  end)

  it("prints the object that was", function()
    local made = desk:done("new-request", "--self-signed", "--domain", "a.test")
    local object = desk:done("remove", "1")
    assert.same({ 1, made.fingerprint, "completed" }, { object.id, object.fingerprint, object.state })
  end)

  it("of a pending request needs --yes, of a cancelled one does not", function()
    local id = desk:ask("--domain", "a.test")
    desk:refuses(2, "usage", "request 1 is pending: removing it deletes the key that its certificate would need; say "
      .. "--yes if that is meant; or keep its key: certwright cancel 1", "remove", id)
    assert.is_truthy(file.stat(desk.state .. "/keys/1.pem"))
    desk:done("remove", id, "--yes")
    gone(1)
    id = desk:ask("--domain", "a.test")
    desk:done("cancel", id)
    desk:done("remove", id)
    gone(2)
  end)

  it("asks about a pending request on a terminal; only Yes removes it", function()
    local id = desk:ask("--domain", "a.test")
    local function on_terminal(answer)
      local terminal <close> = Terminal.new { Desk.program, "--site", desk.site, "--state", desk.state, "remove", id }
      terminal:expect("request 1 is pending: removing it deletes the key that its certificate would\n *need%.\n"
        .. "Go on%? %[y/N%]")
      terminal:type(answer .. "\n")
      return terminal:ended(), terminal:screen()
    end
    for _, answer in ipairs { "", "n", "yess" } do
      local status, screen = on_terminal(answer)
      assert.equal(1, status)
      assert.is_truthy(screen:find("certwright: nothing was done\n", 1, true))
    end
    assert.is_truthy(file.stat(desk.state .. "/keys/1.pem"))
    local status, screen = on_terminal "Y"
    assert.equal(0, status)
    assert.is_truthy(screen:find("removed 1\n", 1, true))
    gone(1)
  end)

  it("never frees an id", function()
    for id = 1, 3 do
      assert.equal(id, desk:done("new-request", "--self-signed", "--domain", "a.test").id)
      desk:done("remove", tostring(id))
    end
  end)

  it("works when the files are gone already", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test")
    os.remove(desk.state .. "/keys/1.pem")
    os.remove(desk.state .. "/requests/1.csr")
    desk:done("remove", "1")
    gone(1)
  end)

  it("is refused while a service has it", function()
    local web = desk.lab:nginx { names = { "d.test" } }
    web.service.endpoints = nil
    desk.lab:site { services = { web = web.service } }
    desk:done("new-request", "--self-signed", "--domain", "d.test")
    desk:done("assign-services", "1", "--services", "web", "--no-observe")
    for _, words in ipairs { { "1" }, { "1", "--yes" }, { "1", "--dry-run" } } do
      desk:refuses(1, "denied", "cannot remove 1: it is assigned to web; assign another certificate there first",
        "remove", table.unpack(words))
    end
    assert.is_truthy(file.stat(desk.state .. "/keys/1.pem"))
    desk:done("new-request", "--self-signed", "--domain", "d.test")
    desk:done("assign-services", "2", "--services", "web", "--no-observe")
    desk:done("remove", "1")
    gone(1)
  end)

  it("--dry-run removes nothing", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test")
    desk:ask("--domain", "b.test")
    local before = desk:snapshot()
    for id = 1, 2 do
      local _, result = desk:done("remove", tostring(id), "--dry-run")
      assert.equal(("would remove %d and its key\nwould delete STATE/keys/%d.pem\nwould delete STATE/requests/%d.csr\n"):format(id, id, id),
        desk:shown(result.stderr))
    end
    assert.is_true(before == desk:snapshot())
  end)
end)
