-- The pages of complete-request, on a real terminal of 80 columns.

local here = debug.getinfo(1, "S").source:match "^@(.-)pages/[^/]*$"
package.path = here .. "support/?.lua;" .. package.path
local Desk = require "desk"
local pages = require "pages_driver"

describe("complete-request on a terminal", function()
  local desk

  setup(function()
    desk = Desk.new "pages"
    desk:outside()
  end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function pending()
    local one = { desk:ask("--domain", "one.test", "--name", "one") }
    local two = { desk:ask("--domain", "two.test", "--name", "two") }
    return one[1], two[1], desk:sign(one[3]), desk:sign(two[3])
  end

  it("asks which request, for its file, and says what was done", function()
    local _, id, other, path = pending()
    local before = desk:snapshot()
    local terminal <close> = pages.start(desk, "complete-request")
    pages.answer(terminal, {
      { "Pending Request (page 1 of 3)" }, { "1  one (id 1), created" }, { "2  two (id 2), created" },
      { "Request:", "3" }, { "'3' is none of them: type a number from 1 to 2" },
      { "Request:", "?" }, { "The request that the CA's certificate is for." }, { "Request:", "two" },
      { "File from the CA (page 2 of 3)" },
      { "File:", "/nowhere" }, { "cannot read '/nowhere': No such file or directory." },
      { "File:", other }, { "no certificate here has the key of request 2" },
      { "File:", path }, { "Further file [none]:", "" },
      { "Summary (page 3 of 3)" }, { "Domains      two.test" }, { desk:digest("certificate", desk:read(path)) },
      { "Warning: " }, { "a missing link of the chain" }, { "Complete it now? [Y/n]:", "<" },
      { "File from the CA (page 2 of 3)" }, { ("File [%s]:"):format(path), "<" },
      { "Pending Request (page 1 of 3)" }, { "Request [2]:", "" },
      { ("File [%s]:"):format(path), "" }, { "Further file [none]:", "" }, { "The same on the command line:" },
      { "complete-request" }, { "Complete it now? [Y/n]:" },
    })
    assert.equal(before, desk:snapshot())
    terminal:type "y\n"
    assert.equal(0, terminal:ended())
    local screen = terminal:screen()
    pages.assert_plain(screen)
    assert.is_truthy(screen:find("Completion\nrequest 2 is completed: valid until ", 1, true), screen)
    assert.equal("completed", desk:done("show", id).state)
    assert.equal("created", desk:done("show", "1").state)
  end)

  it("warns before it is completed of what clients will not like, and refuses what cannot serve", function()
    local _, _, request = desk:ask("--domain", "a.test", "--domain", "b.test")
    local expired = desk:sign(request, { from = -9, to = -1 })
    local other = desk:sign(request, { names = { "a.test", "c.test" } })
    local before = desk:snapshot()
    local terminal <close> = pages.start(desk, "complete-request")
    pages.answer(terminal, {
      { "Request [1]:", "" }, { "File:", expired }, { "the certificate 'a.test' expired on " },
      { "File:", other }, { "Further file [none]:", "" },
      { "Warning: asked for but not in the certificate: b.test" },
      { "Warning: in the certificate but not asked for: c.test" },
      { "Warning: " }, { "'anchors' of config.lua" }, { "Complete it now? [Y/n]:" },
    })
    assert.equal(before, desk:snapshot())
    terminal:type "y\n"
    assert.equal(0, terminal:ended())
    pages.assert_plain(terminal:screen())
    assert.equal(3, #desk:done("show", "1").warnings)
  end)

  it("leaves nothing behind when it is left", function()
    local _, _, path = pending()
    local before = desk:snapshot()
    for _, at in ipairs { { { "Request:", "1" }, { "File:", key = "C-c" } },
      { { "Request:", "one" }, { "File:", path }, { "Further file [none]:", "" }, { "Complete it now?", "n" } },
      { { "Request:", key = "C-d" } } } do
      local terminal <close> = pages.start(desk, "complete-request")
      pages.answer(terminal, at)
      assert.equal(1, terminal:ended())
      terminal:expect "abandoned: nothing was changed"
      assert.equal(before, desk:snapshot())
    end
  end)

  it("asks for the password of a PKCS #12", function()
    local id, _, path = pending()
    local secret = desk:write("secret", "tea\n", "600")
    desk:write("wrong", "coffee\n", "600")
    desk:openssl("pkcs12", "-export", "-nokeys", "-in", path, "-passout", "file:" .. secret, "-out", desk.path .. "/c.pfx")
    local terminal <close> = pages.start(desk, "complete-request")
    pages.answer(terminal, {
      { "Request:", "1" }, { "File:", desk.path .. "/c.pfx" }, { "File with the password in its first line:",
        desk.path .. "/wrong" }, { "c.pfx" }, { "File:", desk.path .. "/c.pfx" },
      { "File with the password in its first line:", secret }, { "Further file [none]:", "" },
      { "--password-file" }, { "Complete it now?", "" },
    })
    assert.equal(0, terminal:ended())
    assert.equal("completed", desk:done("show", id).state)
  end)

  it("says that nothing is pending; and asks nobody without a terminal", function()
    local terminal <close> = pages.start(desk, "complete-request")
    assert.equal(1, terminal:ended())
    terminal:expect "there is no pending request; see\n  certwright %-%-site "
    desk:refuses(2, "usage", "complete-request needs an ID, or --file FILE", "complete-request")
  end)
end)
