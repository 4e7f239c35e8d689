-- The worksheet: rows of the site over the shipped ones, and what they propose.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/" or ""
local Desk = dofile(here .. "tests/support/desk.lua")
local worksheet = require "worksheet"

describe("the worksheet", function()
  local desk

  setup(function() desk = Desk.new "worksheet" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function load(text)
    if text then desk:write("site/worksheet.lua", text) end
    return worksheet.load(Desk.home, desk.site)
  end

  local function row_of(rows, name)
    for _, row in ipairs(rows) do
      if row.row == name then return row end
    end
  end

  it("ships with Exchange's rows, in its order, and those of other mail clients", function()
    local labels = {}
    for i, row in ipairs(assert(load())) do labels[i] = row.label end
    assert.same({ "Outlook Web App", "Offline address book", "Web services", "ActiveSync", "Autodiscover",
      "Outlook Anywhere", "POP", "IMAP", "Unified Messaging/SIP", "Hub Transport/SMTP", "Legacy host",
      "Federated sharing", "Autoconfig", "MTA-STS policy" }, labels)
  end)

  it("has a site's rows in place of those of the same name, and others at the end", function()
    local rows = assert(load [[
      return { { row = "chat", label = "Chat", services = { "xmpp" } },
               { row = "owa", label = "Roundcube", external = "webmail.contoso.com" },
               { row = "federation", hidden = true } }
    ]])
    assert.equal("Roundcube", rows[1].label)
    assert.equal("Chat", rows[#rows].label)
    assert.equal(14, #rows)
    assert.is_nil(row_of(rows, "federation"))
  end)

  it("names file, row and field of what is wrong", function()
    local path = desk.site .. "/worksheet.lua"
    for text, message in pairs {
      ["return 7"] = "returns no table of rows",
      ["return { x = {} }"] = "row x: it is no part of a list",
      ["return { 'x' }"] = "row 1: it is no table",
      ["return { { label = 'X' } }"] = "row 1: it needs 'row', a name of letters, digits, - and _",
      ["return { { row = 'x' } }"] = "row 1 ('x'): it needs 'label', a text",
      ["return { { row = 'x', label = 'X', service = 'web' } }"] = "row 1 ('x'): there is no field 'service'",
      ["return { { row = 'x', label = 7 } }"] = "row 1 ('x'): 'label' must be a string, not a number",
      ["return { { row = 'x', label = 'X', services = { 7 } } }"] = "row 1 ('x'): 'services' must be a list of strings",
      ["return { { row = 'x', label = 'X', external = 'a b' } }"] = "row 1 ('x'): 'external': 'a b' is not a domain name",
      ["return { { row = 'x', label = 'X', prefix = 'a b' } }"] = "row 1 ('x'): 'prefix': 'a b.test' is not a domain name",
      ["return { { row = 'x', label = 'X' }, { row = 'x', label = 'X' } }"] = "row 2 ('x'): an earlier row has this name",
    } do
      local rows, said, code = load(text)
      assert.is_nil(rows)
      assert.equal("parse", code)
      assert.equal(("'%s'%s %s"):format(path, message:find "^returns" and "" or ":", message),
        said:sub(1, #path + #message + 3 + (message:find "^returns" and 0 or 1)))
    end
    assert.matches("worksheet.lua:1: undeclared global 'prnt'", select(2, load "return { prnt() }"), 1, true)
    assert.equal("parse", select(3, load "return {"))
  end)

  it("is not run when others could have written it", function()
    desk:write("site/worksheet.lua", "return {}", "666")
    local rows, message, code = worksheet.load(Desk.home, desk.site)
    assert.is_nil(rows)
    assert.equal("denied", code)
    assert.matches("worksheet.lua", message, 1, true)
  end)

  local facts = {
    web = { external = { "mail.contoso.com", "www.contoso.com" }, internal = { "mail.corp.test" } },
    imap = { external = { "imap.contoso.com" }, internal = {} },
    ldap = { external = { "ldap.contoso.com" }, internal = { "dc1" } },
  }

  it("proposes the names of a row's services, those of its hosts first of all", function()
    local rows = worksheet.fill(assert(load()), facts, { "contoso.com", "fabrikam.com" }, nil)
    assert.same({ row = "owa", label = "Outlook Web App", internal = { "mail.corp.test" }, external = { "mail.contoso.com" },
      use = true }, row_of(rows, "owa"))
    assert.same({ "imap.contoso.com" }, row_of(rows, "imap").external)
    assert.same({}, row_of(rows, "smtp").external)
    local site = assert(load [[ return { { row = "x", label = "X", services = { "web" }, hosts = { "none" } },
      { row = "y", label = "Y", services = { "web" }, hosts = { "www", "mail" }, internal = { "Y.test." } } } ]])
    rows = worksheet.fill(site, facts, {}, nil)
    assert.same({ "mail.contoso.com", "www.contoso.com" }, row_of(rows, "x").external)
    assert.same({ "www.contoso.com", "mail.contoso.com" }, row_of(rows, "y").external)
    assert.same({ "y.test", "mail.corp.test" }, row_of(rows, "y").internal)
  end)

  it("has rows for the names of services that no other row has", function()
    local rows = worksheet.fill(assert(load()), facts, {}, nil)
    assert.same({ { row = "service:ldap", label = "Service ldap", internal = { "dc1" }, external = { "ldap.contoso.com" },
      use = true }, { row = "service:web", label = "Service web", internal = {}, external = { "www.contoso.com" },
      use = true } }, { table.unpack(rows, 15) })
  end)

  it("proposes names of the accepted domains, else of the root domain", function()
    local rows = worksheet.fill(assert(load()), facts, { "contoso.com", "*.fabrikam.com" }, "example.com")
    assert.same({ "autodiscover.contoso.com", "autodiscover.fabrikam.com" }, row_of(rows, "autodiscover").external)
    assert.same({ "mta-sts.contoso.com", "mta-sts.fabrikam.com" }, row_of(rows, "mta-sts").external)
    assert.is_false(row_of(rows, "legacy").use)
    rows = worksheet.fill(assert(load()), facts, {}, "example.com")
    assert.same({ "autoconfig.example.com" }, row_of(rows, "autoconfig").external)
    assert.same({}, row_of(rows, "pop").external)
    rows = worksheet.fill(assert(load()), {}, {}, "example.com")
    assert.same({ "mail.example.com" }, row_of(rows, "pop").external)
    assert.same({}, row_of(worksheet.fill(assert(load()), {}, {}, nil), "pop").external)
  end)

  it("merges the rows that are used, each name once, what the world sees first", function()
    local rows = worksheet.fill(assert(load()), facts, { "contoso.com" }, nil)
    assert.same({ "mail.contoso.com", "autodiscover.contoso.com", "imap.contoso.com", "autoconfig.contoso.com",
      "mta-sts.contoso.com", "ldap.contoso.com", "www.contoso.com", "mail.corp.test", "dc1" }, worksheet.merged(rows))
  end)

  it("knows the names that services use and a list lacks", function()
    assert.same({ { name = "imap.contoso.com", services = { "imap" } }, { name = "ldap.contoso.com", services = { "ldap" } },
      { name = "www.contoso.com", services = { "web" } } },
      worksheet.lacking(facts, { "mail.contoso.com", "mail.corp.test", "dc1" }))
    assert.same({ { name = "dc1", services = { "ldap" } }, { name = "mail.corp.test", services = { "web" } } },
      worksheet.lacking(facts, { "*.contoso.com" }))
    assert.same({ { name = "a.test", services = { "one", "two" } } }, worksheet.lacking({
      one = { external = { "a.test" }, internal = { "a.test" } }, two = { external = { "a.test" }, internal = {} } }, {}))
  end)

  it("knows what the site and its running services say", function()
    local lab = desk.lab
    local web = lab:nginx { names = { "www.lab.test", "shop.lab.test" } }
    web.service.names = { external = "www.lab.test", internal = { "www.corp.test" } }
    local smtp = lab:postfix { names = { "mx.lab.test" } }
    smtp.service.names = nil
    lab:site { services = { web = web.service, smtp = smtp.service, odd = { driver = "nginx", config = "/no/such" },
      bad = { driver = "nonesuch" } } }
    local context = require("context").new { home = Desk.home, globals = { site = desk.site, state = desk.state } }
    local known = worksheet.facts(assert(context:site()))
    assert.same({ external = { "www.lab.test", "shop.lab.test" }, internal = { "www.corp.test" }, driver = "nginx" }, known.web)
    assert.same({ external = { "mx.lab.test" }, internal = {}, driver = "postfix" }, known.smtp)
    assert.same({ {}, {} }, { known.odd.external, known.odd.internal })
    assert.matches("/no/such", known.odd.problem, 1, true)
    assert.matches("there is no service driver 'nonesuch'", known.bad.problem, 1, true)
  end)
end)
