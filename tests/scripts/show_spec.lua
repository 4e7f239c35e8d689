-- show: everything that is known of one object.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")

describe("show", function()
  local desk

  setup(function() desk = Desk.new "show" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  it("tells everything, with the history", function()
    desk:done("ca", "init")
    desk:done("enroll", "--domain", "a.test", "--name", "mail")
    local text = desk:run("show", "mail").stdout
    for _, pattern in ipairs { "^Id +1\nName +mail\nState +completed\nStatus +Valid %(chains to a trust anchor%)\n",
      "\nSubject +CN=a%.test\nDomains +a%.test\nKey +ec:P%-256\nIssuer +CN=Local certwright issuing CA\n",
      "\nSHA%-256 +%x+\nSHA%-1 +%x+\nCA +local\nTicket +%x+\n",
      "\nHistory\n  %S+  root  created\n  %S+  root  submitted: to local, ticket %x+\n  %S+  root  completed: "
        .. "fingerprint %x+\n$" } do
      assert.is_truthy(text:find(pattern), text)
    end
    local object = desk:done("show", "mail")
    assert.equal(3, #object.history)
    assert.is_nil(desk:done("list")[1].history)
  end)

  it("needs to be told which", function()
    desk:refuses(1, "missing", "there is no request or certificate 'x'; see certwright list", "show", "x")
    desk:refuses(1, "missing", "there is no request or certificate '\\u{001B}[31m'; see certwright list", "show",
      "\27[31m")
  end)
end)
