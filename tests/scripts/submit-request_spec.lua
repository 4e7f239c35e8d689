-- submit-request: to the local CA, to a person, and to adapters of a site's own.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local json = require "dkjson"

describe("submit-request", function()
  local desk

  setup(function() desk = Desk.new "submit" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  -- An adapter of the site's own, and a CA that uses it, the default.
  local function adapter(submit, collect)
    desk:write("site/ca/mine.lua", ("return { summary = 'mine', submit = function(ca, order, context) %s end, "
      .. "collect = function(ca, order, context) %s end }"):format(submit, collect or ""))
    desk:write("site/config.lua", "return { ca = 'mine', cas = { mine = { adapter = 'mine' } } }")
  end

  describe("to the local CA", function()
    it("is answered at once with a ticket", function()
      desk:done("ca", "init")
      local id = desk:ask("--domain", "a.test")
      local object, result = desk:done("submit-request", id)
      assert.same({ "submitted", "PendingRequest", "local" }, { object.state, object.status, object.ca })
      assert.is_truthy(object.ticket:find "^%x+$")
      assert.equal(("request 1: the CA 'local' has issued it (ticket %s)\nnext: certwright complete-request 1\n")
        :format(object.ticket), result.stderr)
    end)

    it("needs one", function()
      local id = desk:ask("--domain", "a.test")
      desk:refuses(1, "missing", "there is no local CA here; make one with: certwright ca init", "submit-request", id,
        "--ca", "local")
      assert.equal("created", desk:done("show", id).state)
    end)

    it("is refused for good for what it does not issue, and may be tried elsewhere", function()
      desk:done("ca", "init")
      local id, _, path = desk:ask("--domain", "a.test")
      local key = desk.state .. "/keys/1.pem"
      desk:openssl("req", "-new", "-key", key, "-subj", "/CN=none", "-out", path)
      desk:refuses(1, "rejected", "the local CA refuses: the request has no domain name", "submit-request", id)
      local object = desk:done("show", id)
      assert.same({ "rejected", "Unknown", "local" }, { object.state, object.status, object.ca })
      desk:waits("submit-request", id, "--ca", "manual")
      assert.equal("submitted", desk:done("show", id).state)
    end)
  end)

  describe("to a person", function()
    it("is pending: exit 3, the object, and what to do next", function()
      local id = desk:ask("--domain", "a.test", "--name", "mail")
      local object, result = desk:waits("submit-request", "mail")
      assert.same({ "submitted", "PendingRequest", "manual", json.null },
        { object.state, object.status, object.ca, object.ticket })
      assert.equal("certwright: send STATE/requests/1.csr to the CA 'manual'; when its certificate has come:\n"
        .. "  certwright complete-request 1 --file FILE\n", desk:shown(result.stderr))
      local text = desk:run("submit-request", id)
      assert.equal(3, text.status)
      assert.is_truthy(text.stdout:find "^Id +1\n.*\nState +submitted\n")
    end)

    it("may be done again, and elsewhere", function()
      desk:write("site/config.lua", "return { cas = { paper = { adapter = 'manual' } } }")
      local id = desk:ask("--domain", "a.test")
      desk:waits("submit-request", id)
      local object = desk:waits("submit-request", id, "--ca", "paper")
      assert.equal("paper", object.ca)
      local events = {}
      for i, entry in ipairs(desk:done("show", id).history) do events[i] = { entry.event, entry.detail } end
      assert.same({ { "created", json.null }, { "submitted", "to manual" }, { "submitted", "to paper" } }, events)
    end)
  end)

  describe("to an adapter of the site's own", function()
    it("hands over the request, its names and its settings", function()
      adapter([[return { ticket = ("%s|%s|%s|%d"):format(ca.name, table.concat(order.domains, ","),
        order.request:fields().common_name, order.id), issued = false, advice = "ask again tomorrow" }]])
      local id = desk:ask("--domain", "a.test", "--domain", "b.test")
      local object, result = desk:waits("submit-request", id)
      assert.same({ "mine|a.test,b.test|a.test|1", "mine" }, { object.ticket, object.ca })
      assert.equal("certwright: ask again tomorrow\n", result.stderr)
    end)

    it("says what it says, and the request stays as it was", function()
      for code, status in pairs { timeout = 1, refused = 1, io = 1 } do
        adapter(("return nil, 'the CA is asleep', '%s'"):format(code))
        local id = desk:ask("--domain", "a.test")
        desk:refuses(status, code, "the CA is asleep", "submit-request", id)
        assert.equal("created", desk:done("show", id).state)
      end
    end)

    it("is checked when it is loaded, and named with its setting", function()
      local id = desk:ask("--domain", "a.test")
      local function refuses(text, message)
        desk:write("site/ca/mine.lua", text)
        desk:refuses(1, "parse", "'SITE/config.lua': 'cas.mine.adapter': " .. message, "submit-request", id)
      end
      desk:write("site/config.lua", "return { ca = 'mine', cas = { mine = { adapter = 'mine' } } }")
      desk:refuses(1, "missing", "'SITE/config.lua': 'cas.mine.adapter': there is no adapter 'mine'",
        "submit-request", id, "--ca", "mine")
      desk:waits("submit-request", id) -- the CA that was chosen when it was made
      desk:done("cancel", id)
      id = desk:ask("--domain", "a.test")
      refuses("return 7", "adapter ca/mine.lua: 'collect' must be a function")
      refuses("return { summary = 's', submit = 7, collect = function() end }",
        "adapter ca/mine.lua: 'submit' must be a function")
      refuses("return typo", "SITE/ca/mine.lua:1: undeclared global 'typo'")
    end)
  end)

  it("orders again from a CA that has the request only when that is meant", function()
    adapter([[return { ticket = "order " .. os.time(), issued = false, advice = "wait" }]])
    local id = desk:ask("--domain", "a.test")
    local ticket = desk:waits("submit-request", id).ticket
    local before = desk:snapshot()
    for _, words in ipairs { {}, { "--ca", "mine" } } do
      desk:refuses(2, "usage", ("request 1 is with the CA 'mine' already (ticket %s); submitting it again orders another "
        .. "certificate; say --yes if that is meant; or ask for the answer with: certwright complete-request 1"):format(ticket),
        "submit-request", id, table.unpack(words))
    end
    assert.is_true(before == desk:snapshot())
    assert.equal("submitted", desk:waits("submit-request", id, "--yes").state)
    assert.equal("manual", desk:waits("submit-request", id, "--ca", "manual").ca)
  end)

  it("submits again what was rejected, without a question", function()
    adapter "return nil, 'never', 'rejected'"
    local id = desk:ask("--domain", "a.test")
    desk:refuses(1, "rejected", "never", "submit-request", id)
    adapter "return { ticket = 'x', advice = 'well' }"
    assert.equal("submitted", desk:waits("submit-request", id).state)
  end)

  it("takes a CA that the site has", function()
    local id = desk:ask("--domain", "a.test")
    desk:refuses(2, "usage", "there is no CA 'nonesuch' in 'SITE/config.lua'; there are: local, manual",
      "submit-request", id, "--ca", "nonesuch")
  end)

  it("takes only what may be submitted", function()
    local id = desk:ask("--domain", "a.test")
    desk:done("cancel", id)
    desk:refuses(1, "mismatch", "cannot submit 1: it was cancelled", "submit-request", id)
    desk:done("new-request", "--self-signed", "--domain", "a.test")
    desk:refuses(1, "exists", "2 is completed already; renew it with: certwright renew 2",
      "submit-request", "2")
    desk:refuses(1, "missing", "there is no request or certificate 3; see certwright list", "submit-request", "3")
  end)

  it("says what is wrong with a request file that is gone or damaged", function()
    local id, _, path = desk:ask("--domain", "a.test")
    desk:write("state/requests/1.csr", "no request")
    local result = desk:run("--json", "submit-request", id)
    assert.equal("parse", json.decode(result.stdout).error.code)
    os.remove(path)
    desk:refuses(1, "missing", "cannot read 'STATE/requests/1.csr': No such file or directory", "submit-request", id)
  end)

  it("--dry-run submits nothing", function()
    desk:done("ca", "init")
    local id = desk:ask("--domain", "a.test")
    local before = desk:snapshot()
    local object, result = desk:done("submit-request", id, "--dry-run")
    assert.same({ "created", json.null }, { object.state, object.ticket })
    assert.equal("would submit request 1 to the CA 'local' (the CA in the state folder, made by certwright ca init), "
      .. "which was chosen when the request was made\n", result.stderr)
    assert.is_true(before == desk:snapshot())
  end)

  it("is told in the history: who, when, what", function()
    desk:done("ca", "init")
    local id = desk:ask("--domain", "a.test")
    local ticket = desk:done("submit-request", id).ticket
    local history = desk:done("show", id).history
    assert.same({ "created", "submitted" }, { history[1].event, history[2].event })
    assert.same({ "root", "to local, ticket " .. ticket }, { history[2].who, history[2].detail })
    assert.is_truthy(history[2].at:find "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$")
  end)
end)
