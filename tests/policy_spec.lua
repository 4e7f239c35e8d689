-- policy.lua: the site's functions over the shipped ones; what they decide, what
-- they refuse, and what is said when they are wrong.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")

describe("policy.lua", function()
  local desk

  setup(function() desk = Desk.new "policy" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  -- A policy of one function, its body given.
  local function policy(name, body)
    desk:write("site/policy.lua", ("return { %s = function(draft) %s end }"):format(name, body))
  end

  local function asked(...)
    local object = desk:done("new-request", ...)
    return desk:request(desk:read(object.request_file)), object
  end

  describe("of five lines, as the README has it,", function()
    local text

    setup(function()
      text = desk:read(here .. "../README.md"):match "\n```lua\n(local M = {}\n.-\nreturn M\n)```"
    end)
    before_each(function() desk:write("site/policy.lua", text) end)

    it("has five lines", function()
      assert.equal(5, select(2, text:gsub("\n", "\n")))
    end)

    it("names by a convention and asks for extra names", function()
      local request, object = asked("--domain", "mail.contoso.com", "--domain", "www.contoso.com")
      assert.equal("tls-mail-contoso-com", object.friendly_name)
      assert.same({ "DNS:mail.contoso.com", "DNS:www.contoso.com", "DNS:autodiscover.contoso.com" }, request.names)
    end)

    it("refuses in its own words, and nothing is made", function()
      desk:refuses(1, "refused", "only names of contoso.com", "new-request", "--domain", "mail.fabrikam.com")
      assert.equal("certwright: only names of contoso.com\n",
        desk:run("new-request", "--domain", "mail.fabrikam.com").stderr)
      assert.same({}, (desk:done "list"))
    end)

    it("gives way to what the command line says", function()
      local object = desk:done("new-request", "--domain", "mail.contoso.com", "--name", "mine")
      assert.equal("mine", object.friendly_name)
    end)
  end)

  describe("decides", function()
    it("the common name, which stands first in the SAN", function()
      policy("common_name", "return draft.domains[#draft.domains]")
      local request = asked("--domain", "a.test", "--domain", "b.test")
      assert.same({ "CN=b.test", { "DNS:b.test", "DNS:a.test" } }, { request.subject, request.names })
      policy("common_name", "return 'New.Test'")
      request = asked("--domain", "a.test")
      assert.same({ "CN=new.test", { "DNS:new.test", "DNS:a.test" } }, { request.subject, request.names })
    end)

    it("extra names, each once, in lower case", function()
      policy("extra_domains", "return { 'X.test', draft.domains[1] }")
      assert.same({ "DNS:a.test", "DNS:x.test" }, asked("--domain", "a.test").names)
    end)

    it("the key", function()
      policy("key", "return draft.domains[1]:find '^mail' and 'rsa:2048' or 'ed25519'")
      assert.same({ "RSA 2048", "ED25519" }, { asked("--domain", "mail.test").key, asked("--domain", "a.test").key })
    end)

    it("the subject", function()
      desk:write("site/config.lua", "return { organization = { O = 'Contoso' } }")
      policy("subject", "return { O = draft.config.organization.O, OU = draft.services[1] or 'none', C = 'US' }")
      assert.equal("CN=a.test,OU=none,O=Contoso,C=US", asked("--domain", "a.test").subject)
    end)

    it("the CA: one for names inside, another for names outside", function()
      desk:write("site/config.lua", "return { cas = { paper = { adapter = 'manual' } }, ca = 'manual' }")
      policy("ca", "return draft.domains[1]:find '%.corp%.' and 'local' or 'paper'")
      desk:done("ca", "init")
      assert.equal("local", desk:done("enroll", "--domain", "a.corp.test").ca)
      assert.equal("paper", desk:waits("enroll", "--domain", "a.test").ca)
      assert.equal("manual", desk:waits("enroll", "--domain", "a.test", "--ca", "manual").ca)
    end)

    it("when to renew", function()
      policy("renew_at", "return draft.not_after - 86400")
      local object = desk:done("new-request", "--self-signed", "--domain", "a.test")
      local function seconds(text)
        local y, m, d, h, min, s = text:match "(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)Z"
        return os.time { year = y, month = m, day = d, hour = h, min = min, sec = s }
      end
      assert.equal(86400, seconds(object.not_after) - seconds(object.renew_at))
    end)

    it("from a draft that holds what is known so far", function()
      desk.lab:site { services = { web = { driver = "nginx", names = { external = "w.test" } } } }
      policy("validate", [[return nil, table.concat({ draft.friendly_name, draft.common_name,
        table.concat(draft.domains, "+"), draft.key, draft.subject.O, draft.ca, draft.services[1], draft.root_domain,
        tostring(draft.wildcard), tostring(draft.local_ca), draft.config.key }, "|")]])
      desk:refuses(1, "refused", "mine|w.test|w.test|ed25519|Contoso|manual|web|test|false|false|ec:P-256",
        "new-request", "--services", "web", "--root-domain", "test", "--key", "ed25519", "--organization", "Contoso",
        "--name", "mine")
    end)
  end)

  describe("validate", function()
    it("refuses with nil and a message, or false; nothing returned is consent", function()
      policy("validate", "if draft.domains[1] == 'a.test' then return nil, 'Bitte «b» nehmen: 50 % billiger' end")
      desk:refuses(1, "refused", "Bitte «b» nehmen: 50 % billiger", "new-request", "--domain", "a.test")
      asked("--domain", "b.test")
      policy("validate", "return false")
      desk:refuses(1, "refused", "validate in 'SITE/policy.lua' refuses this request", "new-request", "--domain",
        "a.test")
      policy("validate", "return true, 'no message of a refusal'")
      asked("--domain", "a.test")
    end)

    it("is asked for self-signed certificates, renewals, enroll and --dry-run as well", function()
      desk:done("new-request", "--self-signed", "--domain", "a.test")
      policy("validate", "return nil, 'no'")
      for _, words in ipairs { { "new-request", "--self-signed", "--domain", "a.test" },
        { "new-request", "--from", "1" }, { "enroll", "--domain", "a.test" },
        { "new-request", "--domain", "a.test", "--dry-run" } } do
        desk:refuses(1, "refused", "no", table.unpack(words))
      end
      assert.equal(1, #desk:done "list")
    end)
  end)

  describe("that is wrong is named, with the function:", function()
    local function refuses(message)
      desk:refuses(1, "refused", message, "new-request", "--domain", "a.test")
      assert.same({}, (desk:done "list"))
    end

    it("one that fails", function()
      policy("key", "error('no key today', 0)")
      refuses "key in 'SITE/policy.lua' failed: no key today"
      policy("validate", "return typo")
      refuses "validate in 'SITE/policy.lua' failed: SITE/policy.lua:1: undeclared global 'typo'"
    end)

    it("one that refuses", function()
      policy("friendly_name", "return nil, 'nobody is called that'")
      refuses "nobody is called that"
    end)

    for name, case in pairs {
      friendly_name = { "string", "7" }, common_name = { "string", "{}" }, extra_domains = { "table", "'x.test'" },
      key = { "string", "nil" }, subject = { "table", "'CN=x'" }, ca = { "string", "{}" },
    } do
      it(("%s that returns no %s"):format(name, case[1]), function()
        policy(name, "return " .. case[2])
        refuses(("%s in 'SITE/policy.lua' must return a %s, not %s"):format(name, case[1],
          type(load("return " .. case[2])())))
      end)
    end

    for name, case in pairs {
      friendly_name = { "'1234'", "the friendly name '1234' may not be digits only: that is an id; choose one with "
        .. "--name" },
      common_name = { "'a b'", "'a b' is not a domain name: 'a b' may hold letters, digits and inner hyphens only" },
      extra_domains = { "{ 'x..test' }", "'x..test' is not a domain name: it has an empty label" },
      subject = { "{ O = 7 }", "it holds a number, not only strings" },
      ca = { "'nonesuch'", "there is no CA 'nonesuch' in 'SITE/config.lua'; there are: local, manual" },
    } do
      it(("%s that returns what cannot be"):format(name), function()
        policy(name, "return " .. case[1])
        refuses(("%s in 'SITE/policy.lua': %s"):format(name, case[2]))
      end)
    end

    it("extra_domains that returns no names, and renew_at that returns no time", function()
      policy("extra_domains", "return { 7 }")
      refuses "extra_domains in 'SITE/policy.lua': it holds a number, not only strings"
      for _, value in ipairs { "1/0", "-1/0", "0/0" } do
        policy("renew_at", "return " .. value)
        desk:refuses(1, "refused", "renew_at in 'SITE/policy.lua' must return a time, in seconds", "new-request",
          "--self-signed", "--domain", "a.test")
      end
      policy("renew_at", "return 'soon'")
      desk:refuses(1, "refused", "renew_at in 'SITE/policy.lua' must return a number, not string", "new-request",
        "--self-signed", "--domain", "a.test")
    end)

    it("a file that returns no functions", function()
      local function broken(text, message)
        desk:write("site/policy.lua", text)
        desk:refuses(1, "parse", message, "new-request", "--domain", "a.test")
      end
      broken("return 7", "'SITE/policy.lua' returns no table of functions")
      broken("return { validate = true }", "'SITE/policy.lua': 'validate' must be a function")
      broken("return { names = function() end }", "'SITE/policy.lua': there is no policy function 'names'")
      broken("return typo", "'SITE/policy.lua' failed: SITE/policy.lua:1: undeclared global 'typo'")
      broken("return {", "SITE/policy.lua:1: unexpected symbol near <eof>")
    end)
  end)

  it("may require the site's own modules", function()
    desk:write("site/lua/convention.lua", "return { name = function(host) return 'x-' .. host end }")
    desk:write("site/policy.lua", "local c = require 'convention'\n"
      .. "return { friendly_name = function(draft) return c.name(draft.common_name) end }")
    assert.equal("x-a.test", desk:done("new-request", "--domain", "a.test").friendly_name)
  end)

  describe("as it ships", function()
    local shipped = require "defaults.policy"

    it("renews a third of the lifetime before the end, half of it when that is ten days or less", function()
      local day = 86400
      local function left(days)
        return (days * day - shipped.renew_at { not_before = 0, not_after = days * day }) / day
      end
      assert.same({ 30.0, 3.5, 5.0, 365 / 3 }, { left(90), left(7), left(10), left(365) })
    end)

    it("chooses the local CA where there is one, unless the site says otherwise", function()
      assert.same({ "manual", "local", "paper" }, { shipped.ca { config = {}, local_ca = false },
        shipped.ca { config = {}, local_ca = true }, shipped.ca { config = { ca = "paper" }, local_ca = true } })
    end)
  end)
end)
