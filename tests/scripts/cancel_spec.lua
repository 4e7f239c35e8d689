-- cancel: gives up a pending request.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local file = require "core.file"

describe("cancel", function()
  local desk

  setup(function() desk = Desk.new "cancel" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  it("gives up a pending request; its key and request stay, its name is free", function()
    local id, _, request = desk:ask("--domain", "a.test", "--name", "mail")
    local object, result = desk:done("cancel", "mail")
    assert.same({ "cancelled", "Unknown", "request 1 is cancelled\n" }, { object.state, object.status, result.stderr })
    assert.is_truthy(file.stat(desk.state .. "/keys/1.pem"))
    assert.is_truthy(file.stat(request))
    assert.equal("cancelled", desk:done("show", id).state)
    desk:refuses(1, "missing", "there is no request or certificate 'mail'; see certwright list", "show", "mail")
  end)

  it("may be run twice, and after a submission", function()
    local id = desk:ask("--domain", "a.test")
    desk:waits("submit-request", id)
    desk:done("cancel", id)
    local before = desk:snapshot()
    assert.equal("cancelled", desk:done("cancel", id).state)
    assert.is_true(before == desk:snapshot())
  end)

  it("is not for certificates", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test")
    desk:refuses(1, "mismatch", "cannot cancel 1: it is completed, not pending", "cancel", "1")
    desk:refuses(1, "missing", "there is no request or certificate 2; see certwright list", "cancel", "2")
  end)

  it("--dry-run cancels nothing", function()
    local id = desk:ask("--domain", "a.test")
    local before = desk:snapshot()
    local object, result = desk:done("cancel", id, "--dry-run")
    assert.same({ "created", "would cancel request 1\n" }, { object.state, result.stderr })
    assert.is_true(before == desk:snapshot())
  end)
end)
