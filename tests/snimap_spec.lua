-- Postfix's table of which certificate is for which name; what Postfix makes of
-- it, sni_spec.lua asks it.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local Lab = dofile(here .. "/support/lab.lua")
local file = require "core.file"
local process = require "core.process"
local snimap = require "snimap"

describe("the table of names", function()
  local lab, service

  setup(function()
    lab = Lab.new { name = "snimap" }
    local dir = lab:folder "ssl"
    assert(file.mkdirs(dir .. "/current", tonumber("755", 8)))
    service = { name = "smtp", dir = dir }
    assert(file.write(dir .. "/current/sni", snimap.text {
      { path = "/g/sni-1.pem", names = { "mail.a.test", "*.b.test" } },
      { path = "/g/sni-2.pem", names = { "*.a.test" } },
    }))
  end)
  teardown(function() lab:close() end)

  -- What Postfix finds for a name.
  local function found(name)
    local result = process.run { "postmap", "-c", lab.path, "-q", name, "regexp:" .. service.dir .. "/current/sni" }
    return result.stdout:match "[^\n]+"
  end

  it("is read by Postfix: exact names, one label for a wildcard, the first first", function()
    assert(file.write(lab.path .. "/main.cf", "compatibility_level = 3.6\n"))
    assert.same({ "/g/sni-1.pem", "/g/sni-1.pem", "/g/sni-2.pem" }, { found "mail.a.test", found "x.b.test",
      found "x.a.test" })
    for _, name in ipairs { "mailxa.test", "a.test", "b.test", "x.y.b.test", "x.b.test.evil", ".b.test", "b" } do
      assert.is_nil(found(name), name)
    end
  end)

  it("gives back its names, with those of a site's own text", function()
    local own = lab.path .. "/own"
    assert(file.write(own, "# comment\nOwn.test /x.pem\n.below.test /y.pem\n"))
    local names = {}
    assert.is_nil(snimap.add_names(service, names, snimap.of(service) .. ", texthash:" .. own .. " static:none"))
    assert.same({ "mail.a.test", "*.b.test", "*.a.test", "own.test", "*.below.test" }, names)
  end)

  it("is found in a list of tables", function()
    local ours = snimap.of(service)
    for _, maps in ipairs { ours, "hash:/x, " .. ours, ours .. ",static:none" } do
      assert.is_true(snimap.is_in(service, maps), maps)
    end
    for _, maps in ipairs { "", ours .. "x", "texthash:" .. service.dir .. "/current/sni" } do
      assert.is_false(snimap.is_in(service, maps), maps)
    end
  end)
end)
