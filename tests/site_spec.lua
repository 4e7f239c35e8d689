-- The site folder: config.lua, whose faults are named with file and setting, over
-- the shipped values; services and CAs.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local file = require "core.file"

describe("config.lua", function()
  local desk

  setup(function() desk = Desk.new "site" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function config(text)
    desk:write("site/config.lua", text)
  end

  local function refuses(text, message, code, ...)
    config(text)
    local words = { ... }
    if #words == 0 then words = { "new-request", "--domain", "a.test", "--dry-run" } end
    desk:refuses(1, code or "parse", message, table.unpack(words))
  end

  it("may be missing, with its folder, or return nothing of its own", function()
    desk:done("--site", desk.path .. "/nosite", "new-request", "--domain", "a.test")
    desk:done("new-request", "--domain", "a.test")
    config "return {}"
    local value = desk:done("new-request", "--domain", "a.test", "--dry-run")
    assert.same({ "ec:P-256", "manual", { CN = "a.test" } }, { value.key, value.ca, value.subject })
  end)

  it("says what is otherwise, and only that", function()
    config "return { key = 'ed25519', organization = { O = 'Contoso' }, cas = { paper = { adapter = 'manual' } } }"
    local value = desk:done("new-request", "--domain", "a.test", "--dry-run")
    assert.same({ "ed25519", "manual", { CN = "a.test", O = "Contoso" } }, { value.key, value.ca, value.subject })
    local id = desk:ask("--domain", "a.test")
    for _, ca in ipairs { "paper", "manual" } do desk:waits("submit-request", id, "--ca", ca) end
  end)

  describe("runs in an empty environment:", function()
    it("nothing of Lua is there", function()
      for _, name in ipairs { "os", "io", "require", "print", "core", "_G", "load", "package" } do
        refuses(("return { key = %s }"):format(name), ("'SITE/config.lua' may hold values only: SITE/config.lua:1: "
          .. "'%s' is defined nowhere; a text stands in quotes"):format(name))
      end
    end)

    it("a value whose quotes were forgotten is no silent nothing", function()
      refuses("return {\n  organization = { O = Contoso },\n}", "'SITE/config.lua' may hold values only: "
        .. "SITE/config.lua:2: 'Contoso' is defined nowhere; a text stands in quotes")
      refuses("key = 'ed25519'\nreturn {}", "'SITE/config.lua' may hold values only: SITE/config.lua:1: "
        .. "'key' is assigned outside the returned table")
    end)

    it("and what it does reaches nobody else", function()
      config "local t = {} for i = 1, 3 do t[i] = ('a%d.test'):format(i) end return { accepted_domains = t }"
      assert.same({ "a1.test", "a2.test", "a3.test" }, desk:done("new-request", "--include-accepted-domains").domains)
    end)
  end)

  describe("is refused by file and setting when", function()
    it("it is no Lua, or returns no table", function()
      refuses("return {", "SITE/config.lua:1: unexpected symbol near <eof>")
      refuses("return 7", "'SITE/config.lua' returns no table of values")
      refuses("", "'SITE/config.lua' returns no table of values")
      refuses("local x = nil; return x.y", "'SITE/config.lua' may hold values only: SITE/config.lua:1: attempt to "
        .. "index a nil value (local 'x')")
    end)

    it("it cannot be read", function()
      assert(file.mkdir(desk.site .. "/config.lua", tonumber("755", 8)))
      desk:refuses(1, "io", "cannot read 'SITE/config.lua': not a regular file", "new-request", "--domain", "a.test")
    end)

    for setting, case in pairs {
      ["an unknown setting"] = { "{ keys = 'x' }", "there is no setting 'keys'" },
      ["a setting without a name"] = { "{ 'x' }", "there is no setting '1'" },
      ["key"] = { "{ key = 256 }", "'key' must be a string, not a number" },
      ["ca"] = { "{ ca = 'nonesuch' }", "'ca' is 'nonesuch', which is none of 'cas'" },
      ["cas"] = { "{ cas = { x = 'manual' } }", "'cas.x' must be a table" },
      ["cas without adapter"] = { "{ cas = { x = {} } }", "'cas.x' needs 'adapter', a string" },
      ["a CA's name"] = { "{ cas = { ['a b'] = { adapter = 'manual' } } }", "'a b' is not a name for an entry of cas" },
      ["organization"] = { "{ organization = 'Contoso' }", "'organization' must be a table, not a string" },
      ["organization.O"] = { "{ organization = { O = 7 } }", "'organization.O' must be a string, not a number" },
      ["anchors"] = { "{ anchors = { 7 } }", "'anchors[1]' must be a string, not a number" },
      ["accepted_domains"] = { "{ accepted_domains = { 7 } }", "'accepted_domains[1]' must be a string, not a number" },
      ["an accepted domain"] = { "{ accepted_domains = { 'a b' } }",
        "'accepted_domains': 'a b' is not a domain name: 'a b' may hold letters, digits and inner hyphens only" },
      ["proxy"] = { "{ proxy = 'proxy.contoso.com' }", "'proxy' must be a URL, such as http://proxy.contoso.com:3128" },
      ["no_proxy"] = { "{ no_proxy = { 7 } }", "'no_proxy[1]' must be a string, not a number" },
      ["self_signed_days"] = { "{ self_signed_days = 'many' }", "'self_signed_days' must be a number, not a string" },
      ["self_signed_days, a part"] = { "{ self_signed_days = 1.5 }",
        "'self_signed_days' must be a whole number of days, 1 or more" },
      ["self_signed_days, none"] = { "{ self_signed_days = 0 }",
        "'self_signed_days' must be a whole number of days, 1 or more" },
      ["services"] = { "{ services = { 'web' } }", "'1' is not a name for an entry of services" },
      ["a service"] = { "{ services = { web = 'nginx' } }", "'services.web' must be a table" },
      ["a service's name"] = { "{ services = { ['../web'] = { driver = 'nginx' } } }",
        "'../web' is not a name for an entry of services" },
      ["a service's driver"] = { "{ services = { web = {} } }", "'services.web' needs 'driver', a string" },
      ["a service's dir"] = { "{ services = { web = { driver = 'nginx', dir = 'ssl' } } }",
        "'services.web.dir' must be an absolute path, without control characters" },
      ["a service's dir, a number"] = { "{ services = { web = { driver = 'nginx', dir = 7 } } }",
        "'services.web.dir' must be an absolute path, without control characters" },
    } do
      it(setting .. " is wrong", function()
        refuses("return " .. case[1], "'SITE/config.lua': " .. case[2])
      end)
    end

    for setting, case in pairs {
      ["a setting that no service has"] = { "nmaes = {}", "there is no setting 'services.web.nmaes'" },
      ["a setting of another driver"] = { "config_directory = '/etc'",
        "there is no setting 'services.web.config_directory'" },
      ["names"] = { "names = 'a.test'", "'services.web.names' must be a table, not a string" },
      ["one of the names"] = { "names = { external = { 'a.test', 7 } }",
        "'services.web.names.external[2]' must be a string, not a number" },
      ["one of the names, a word"] = { "names = { internal = 'a b' }",
        "'services.web.names.internal': 'a b' is not a domain name: 'a b' may hold letters, digits and inner hyphens "
          .. "only" },
      ["endpoints"] = { "endpoints = { 443 }", "'services.web.endpoints[1]' must be a string, not a number" },
      ["reload"] = { "reload = 'systemctl reload x'", "'services.web.reload' must be a table, not a string" },
      ["reload without words"] = { "reload = {}",
        "'services.web.reload' must be a list of words, the first of them a program" },
      ["reload without a program"] = { "reload = { '' }",
        "'services.web.reload' must be a list of words, the first of them a program" },
      ["check with a NUL"] = { "check = { 'a', 'b\\0' }",
        "'services.web.check' must be a list of words, the first of them a program" },
      ["restart with a gap"] = { "restart = { 'a', [3] = 'b' }",
        "'services.web.restart' must be a list of words, the first of them a program" },
      ["reload's words"] = { "reload = { 'true', {} }", "'services.web.reload[2]' must be a string, not a table" },
      ["observe_timeout"] = { "observe_timeout = 0", "'services.web.observe_timeout' must be more than 0 seconds" },
    } do
      it("a service's " .. setting .. " is wrong, when the service is used", function()
        refuses(("return { services = { web = { driver = 'nginx', %s } } }"):format(case[1]),
          "'SITE/config.lua': " .. case[2], "parse", "new-request", "--services", "web")
      end)
    end

    it("a driver or an adapter is not there", function()
      refuses("return { services = { web = { driver = 'nonesuch' } } }",
        "'SITE/config.lua': 'services.web.driver': there is no service driver 'nonesuch'", "missing", "new-request",
        "--services", "web")
      local id = desk:ask("--domain", "a.test")
      refuses("return { cas = { x = { adapter = 'nonesuch' } } }",
        "'SITE/config.lua': 'cas.x.adapter': there is no adapter 'nonesuch'", "missing", "submit-request", id, "--ca",
        "x")
    end)

    it("an anchor cannot be read", function()
      refuses(("return { anchors = { '%s/none.pem' } }"):format(desk.path), "'SITE/config.lua': 'anchors': cannot read "
        .. "'LAB/none.pem': No such file or directory", "missing", "new-request", "--self-signed", "--domain", "a.test")
      local path = desk:write("anchor.pem", "no certificate")
      refuses(("return { anchors = { '%s' } }"):format(path), "'SITE/config.lua': 'anchors': 'LAB/anchor.pem': cannot "
        .. "read certificates: none is there", "parse", "new-request", "--self-signed", "--domain", "a.test")
      assert.same({}, (desk:done "list"))
    end)

    it("the kind of key cannot be made", function()
      desk:write("site/config.lua", "return { key = 'rsa:12' }")
      desk:refuses(2, "usage", "key in 'SITE/config.lua': cannot generate a key of kind 'rsa:12': not 2048 to 8192 "
        .. "bits", "new-request", "--domain", "a.test")
      desk:write("site/config.lua", "return { key = 'dsa' }")
      desk:refuses(2, "usage", "key in 'SITE/config.lua': unknown kind of key 'dsa': use rsa:2048, rsa:3072, rsa:4096, "
        .. "ec:P-256, ec:P-384 or ed25519", "new-request", "--domain", "a.test")
    end)
  end)

  it("that is wrong does not keep anybody from looking", function()
    desk:ask("--domain", "a.test")
    config "return 7"
    assert.equal(1, #desk:done "list")
    assert.equal(1, desk:done("show", "1").id)
    desk:done "help"
  end)

  it("gives anchors, beside the local CA's root", function()
    desk:done("ca", "init")
    config(("return { anchors = { %q } }"):format((function()
      desk:outside()
      return desk.root .. "/cert.pem"
    end)()))
    assert.equal("Valid", desk:done("enroll", "--domain", "a.test").status)
    local id, _, request = desk:ask("--domain", "b.test", "--domain", "c.test")
    local chain = desk:write("chain.pem", desk:read(desk:sign(request)) .. desk:read(desk:outside() .. "/cert.pem"))
    assert.equal("Valid", desk:done("complete-request", id, "--file", chain).status)
  end)
end)
