-- enroll: the four steps in one go, waiting for a CA in between, and going on.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local file = require "core.file"
local json = require "dkjson"

describe("enroll", function()
  local desk

  setup(function() desk = Desk.new "enroll" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function events(id)
    local list = {}
    for i, entry in ipairs(desk:done("show", tostring(id)).history) do list[i] = entry.event end
    return table.concat(list, " ")
  end

  -- A CA that counts its orders, and issues them once the file `issued` is there.
  local function slow_ca(config)
    desk:write("site/ca/slow.lua", ([[
      local file = require "core.file"
      local folder = %q
      local M = { summary = "a CA that takes its time" }
      function M.submit()
        local orders = (tonumber(file.read(folder .. "/orders") or "") or 0) + 1
        assert(file.write(folder .. "/orders", tostring(orders), { exclusive = false }))
        return { ticket = "order " .. orders, advice = "it takes its time" }
      end
      function M.collect(_, order)
        if not file.stat(folder .. "/issued") then return nil, order.ticket .. " is in the works", "pending" end
        return file.read(folder .. "/issued")
      end
      return M]]):format(desk.path))
    config = config or {}
    config.cas = { slow = { adapter = "slow" }, other = { adapter = "slow" } }
    config.ca = "slow"
    desk.lab:site(config)
  end

  after_each(function()
    os.remove(desk.path .. "/orders")
    os.remove(desk.path .. "/issued")
  end)

  local function orders()
    return tonumber(desk:read(desk.path .. "/orders"))
  end

  it("makes a completed certificate with a CA that answers at once", function()
    desk:done("ca", "init")
    local object = desk:done("enroll", "--domain", "a.test", "--name", "mail", "--key", "ec:P-384")
    assert.same({ "completed", "Valid", "mail", "ec:P-384", "local", {} },
      { object.state, object.status, object.friendly_name, object.key, object.ca, object.services })
    assert.equal("created submitted completed", events(1))
    assert.is_true(desk:verifies(1, desk.state .. "/ca/root.pem", "a.test"))
    local text = desk:run("enroll", "--domain", "a.test")
    assert.is_truthy(text.stdout:find "^Id +2\nName +a%.test\nState +completed\n")
  end)

  it("takes --ca over what the policy chooses", function()
    desk:done("ca", "init")
    local object = desk:waits("enroll", "--domain", "a.test", "--ca", "manual")
    assert.same({ "submitted", "manual" }, { object.state, object.ca })
  end)

  it("writes the request where --out says as well", function()
    desk:done("ca", "init")
    local _, result = desk:done("enroll", "--domain", "a.test", "--out", desk.path .. "/a.csr")
    assert.is_truthy(result.stderr:find "\nnext: certwright assign%-services 1 %-%-services LIST\n$") -- no service was named
    assert.same({ "DNS:a.test" }, desk:request(desk:read(desk.path .. "/a.csr")).names)
    os.remove(desk.path .. "/a.csr")
  end)

  it("is exit 3 with the object when a person carries the request; completing it lets it go on", function()
    local object, result = desk:waits("enroll", "--domain", "a.test")
    assert.same({ "submitted", "manual" }, { object.state, object.ca })
    assert.is_truthy(desk:shown(result.stderr):find("certwright: send STATE/requests/1.csr to the CA 'manual'; when "
      .. "its certificate has come:\n  certwright complete-request 1 --file FILE\nto go on then: certwright enroll 1\n", 1, true))
    assert.equal("submitted", desk:waits("enroll", "1").state)
    desk:done("complete-request", "1", "--file", desk:sign(object.request_file))
    local before = desk:snapshot()
    assert.equal("completed", desk:done("enroll", "1", "--dry-run").state)
    assert.is_true(before == desk:snapshot())
    assert.equal("completed", desk:done("enroll", "1").state)
  end)

  it("asks a CA that has the order, and does not order again", function()
    slow_ca()
    local object, result = desk:waits("enroll", "--domain", "a.test")
    assert.same({ "submitted", "order 1", 1 }, { object.state, object.ticket, orders() })
    assert.is_truthy(result.stderr:find("certwright: it takes its time\nto go on then: certwright enroll 1\n", 1, true))
    for _ = 1, 2 do
      object, result = desk:waits("enroll", "1")
      assert.same({ "submitted", "order 1", 1, "certwright: order 1 is in the works\nto go on then: certwright enroll 1\n" },
        { object.state, object.ticket, orders(), result.stderr })
    end
    assert(file.write(desk.path .. "/issued", desk:read(desk:sign(object.request_file))))
    assert.equal("completed", desk:done("enroll", "1").state)
    assert.equal(1, orders())
  end)

  it("orders elsewhere when another CA is asked for", function()
    slow_ca()
    desk:waits("enroll", "--domain", "a.test")
    local object = desk:waits("enroll", "1", "--ca", "other")
    assert.same({ "other", "order 2" }, { object.ca, object.ticket })
    assert.equal("order 2", desk:waits("enroll", "1").ticket)
    assert.equal(2, orders())
  end)

  it("says that a request which its CA rejected is not tried again by itself", function()
    slow_ca()
    desk:write("site/ca/slow.lua", "return { summary = 's', submit = function() return nil, 'no', 'rejected' end, "
      .. "collect = function() end }")
    desk:refuses(1, "rejected", "no\nrequest 1 is not tried again by itself; to submit it again: certwright enroll 1",
      "enroll", "--domain", "a.test")
  end)

  describe("with --services", function()
    local web

    setup(function()
      web = desk.lab:nginx { names = { "www.test" }, pair = desk.lab:certificate { names = { "www.test" } } }
    end)

    it("asks for their names if no others are given, and has the certificate observed there", function()
      desk.lab:site { services = { web = web.service } }
      desk:done("ca", "init")
      local object = desk:done("enroll", "--services", "web")
      assert.same({ { "www.test" }, { "web" } }, { object.domains, object.services })
      assert.equal(object.fingerprint, desk.lab:presented(web.endpoints[1], "www.test"))
      assert.equal("observed", object.assignments[1].state)
    end)

    it("is exit 1 where an endpoint answers neither before nor after, though nothing is left to do", function()
      local service = { table.unpack(web.service.endpoints) }
      service[#service + 1] = "https://127.0.0.1:" .. desk.lab:port()
      local changed = {}
      for field, value in pairs(web.service) do changed[field] = value end
      changed.endpoints, changed.observe_timeout = service, 1
      desk.lab:site { services = { web = changed } }
      desk:done("ca", "init")
      local result = desk:run("enroll", "--services", "web")
      assert.equal(1, result.status, result.stderr)
      assert.equal("failed", desk:done("audit")[4].result)
    end)

    it("says when it is tried again where a service refused, and how to give it up", function()
      local refusing = { reload = { "false" } }
      for field, value in pairs(web.service) do refusing[field] = refusing[field] or value end
      desk.lab:site { services = { web = refusing } }
      desk:done("ca", "init")
      local result = desk:run("enroll", "--services", "web")
      assert.equal(1, result.status, result.stderr)
      local object = desk:done("list")[1]
      assert.matches("everything is as before\nrenew and poll try " .. object.id .. " again after %d[^\n]+Z; to go on now: "
        .. "certwright enroll " .. object.id .. "\nto give it up: certwright assign%-services " .. object.id
        .. " %-%-cancel\n$", result.stderr)
      desk:done("assign-services", tostring(object.id), "--cancel")
      assert.same({}, (desk:done "poll"))
    end)

    it("names no option that it does not take where no endpoint is known", function()
      local unseen = { endpoints = {} }
      for field, value in pairs(web.service) do unseen[field] = unseen[field] or value end
      desk.lab:site { services = { web = unseen } }
      desk:done("ca", "init")
      assert.is_truthy(desk:run("enroll", "--services", "web").stderr:find("no endpoint of 'web' is known: give "
        .. "services.web.endpoints in the site's config.lua\nrenew and poll try ", 1, true))
    end)

    it("asks for other names where they are given", function()
      desk.lab:site { services = { web = web.service } }
      desk:done("ca", "init")
      local object = desk:done("enroll", "--services", "web", "--domain", "a.test", "--domain", "www.test")
      assert.same({ "a.test", "www.test" }, object.domains)
      assert.equal(object.fingerprint, desk.lab:presented(web.endpoints[1], "www.test"))
    end)

    it("keeps the wish while it waits, and assigns when the certificate has come", function()
      slow_ca { services = { web = web.service } }
      local object = desk:waits("enroll", "--services", "web")
      assert.same({ "submitted", {} }, { object.state, object.services })
      local path = desk:sign(object.request_file)
      assert(file.write(desk.path .. "/issued", desk:read(path) .. desk:read(desk:outside() .. "/cert.pem")))
      object = desk:done("enroll", "1")
      assert.same({ "completed", { "web" } }, { object.state, object.services })
      assert.equal(object.fingerprint, desk.lab:presented(web.endpoints[1], "www.test"))
      assert.equal("created submitted completed assigned", events(1))
    end)

    it("keeps a wish that comes later, too", function()
      slow_ca { services = { web = web.service } }
      local request = desk:waits("enroll", "--domain", "www.test").request_file
      desk:waits("enroll", "1", "--services", "web")
      assert(file.write(desk.path .. "/issued", desk:read(desk:sign(request))))
      assert.same({ "web" }, desk:done("enroll", "1").services)
    end)

    it("assigns again what was replaced there, when it is asked to", function()
      desk.lab:site { services = { web = web.service } }
      desk:done("ca", "init")
      local first = desk:done("enroll", "--services", "web").fingerprint
      local second = desk:done("enroll", "--services", "web").fingerprint
      desk:done("enroll", "1")
      assert.equal(second, desk.lab:presented(web.endpoints[1], "www.test"))
      assert.same({ "web" }, desk:done("enroll", "1", "--services", "web").services)
      assert.equal(first, desk.lab:presented(web.endpoints[1], "www.test"))
    end)

    it("takes the names of what it renews, not those of the services", function()
      desk.lab:site { services = { web = web.service } }
      desk:done("ca", "init")
      desk:done("enroll", "--domain", "a.test", "--domain", "www.test")
      assert.same({ "a.test", "www.test" }, desk:done("enroll", "--from", "1", "--services", "web").domains)
    end)

    it("makes a self-signed certificate and assigns it", function()
      desk.lab:site { services = { web = web.service } }
      local object = desk:done("enroll", "--self-signed", "--services", "web")
      assert.equal(object.fingerprint, desk.lab:presented(web.endpoints[1], "www.test"))
      assert.is_true(object.self_signed)
    end)
  end)

  describe("refuses, before anything is made or ordered,", function()
    it("a service or a CA that the site does not have", function()
      desk:done("ca", "init")
      desk:refuses(2, "usage", "there is no service 'web' in 'SITE/config.lua', which names none", "enroll", "--domain",
        "a.test", "--services", "web")
      desk:refuses(2, "usage", "there is no CA 'nonesuch' in 'SITE/config.lua'; there are: local, manual", "enroll",
        "--domain", "a.test", "--ca", "nonesuch")
      assert.same({}, (desk:done "list"))
    end)

    it("an object that is not there, or was cancelled", function()
      desk:refuses(1, "missing", "there is no request or certificate 7; see certwright list", "enroll", "7")
      desk:refuses(1, "missing", "there is no request or certificate 'a.test' (names to ask for are given with --domain); "
        .. "see certwright list", "enroll", "a.test")
      local id = desk:ask("--domain", "a.test")
      desk:done("cancel", id)
      desk:refuses(1, "mismatch", "cannot go on with 1: it was cancelled", "enroll", id)
    end)

    it("an ID together with what a new request takes", function()
      local id = desk:ask("--domain", "a.test")
      for _, words in ipairs { { "--domain", "b.test" }, { "--wildcard" }, { "--key=ed25519" }, { "--from", "1" } } do
        desk:refuses(2, "usage", words[1]:match "^[^=]+" .. " is for a new request; enroll ID goes on with one",
          "enroll", id, table.unpack(words))
      end
    end)
  end)

  it("--dry-run says what would be, and changes nothing", function()
    desk:done("ca", "init")
    local id = desk:ask("--domain", "a.test")
    local before = desk:snapshot()
    assert.equal("b.test", desk:done("enroll", "--domain", "b.test", "--dry-run").common_name)
    local object, result = desk:done("enroll", id, "--dry-run")
    assert.same({ "created", json.null }, { object.state, object.ticket })
    assert.equal("would run submit-request\nwould run complete-request\n", result.stderr)
    local text = desk:run("enroll", "--domain", "b.test", "--dry-run").stdout
    assert.is_truthy(text:find "^VALUE +WOULD BE +DECIDED BY\n")
    assert.is_true(before == desk:snapshot())
  end)

  it("goes on after a crash between two steps, at the step where it was", function()
    desk:done("ca", "init")
    local id = desk:ask("--domain", "a.test")
    assert.equal("completed", desk:done("enroll", id).state)
    id = desk:ask("--domain", "b.test")
    local ticket = desk:done("submit-request", id).ticket
    local object = desk:done("enroll", id)
    assert.same({ "completed", ticket }, { object.state, object.ticket })
    assert.equal("created submitted completed", events(2))
  end)
end)
