-- Which services warn of a wildcard.

local wildcards = require "wildcards"

describe("a wildcard", function()
  local function row(service, endpoint, name, state)
    return { service = service, endpoint = endpoint or "", name = name or "", state = state or "observed" }
  end

  local function warned(domains, ...)
    local list = {}
    for i, warning in ipairs(wildcards.warnings(domains, { ... })) do
      assert.equal("wildcard", warning.code)
      list[i] = warning.message
    end
    return list
  end

  it("is warned of where IMAP and POP clients connect, once a service", function()
    assert.same({ "'mail': some IMAP clients do not accept a wildcard, and imap.a.test is covered by *.a.test only",
      "'pop': some POP clients do not accept a wildcard, and pop.a.test is covered by *.a.test only" },
      warned({ "*.a.test" }, row("mail", "imap://h:143", "imap.a.test"), row("mail", "imaps://h:993", "imap.a.test"),
        row("pop", "pop3s://h:995", "pop.a.test")))
  end)

  it("is fine for web and smtp", function()
    assert.same({}, warned({ "*.a.test" }, row("web", "https://h:443", "www.a.test"),
      row("smtp", "smtp://h:25", "mx.a.test")))
  end)

  it("is not warned of where the name stands on the certificate, or is another's", function()
    assert.same({}, warned({ "*.a.test", "IMAP.a.test" }, row("imap", "imap://h:143", "imap.a.test")))
    assert.same({}, warned({ "*.a.test", "b.test" }, row("imap", "imap://h:143", "b.test")))
    assert.same({}, warned({ "*.a.test" }, row("imap", "imap://h:143", "x.y.a.test"))) -- one label only
    assert.same({}, warned({ "*.a.test" }, row("imap", "imap://h:143", "imap.a.test", "replaced")))
  end)

  it("is warned of by the service's name where nobody looks, and without a name", function()
    assert.equal(1, #warned({ "*.a.test" }, row("imap", "", "imap.a.test", "written")))
    assert.same({ "'pop': some POP clients do not accept a wildcard, and its name is covered by *.a.test only" },
      warned({ "*.a.test" }, row("pop", "pop3://127.0.0.1:110")))
  end)

  it("is what a site's table says", function()
    local before = wildcards.refused_by
    wildcards.refused_by = { smtp = "our partners" }
    local list = warned({ "*.a.test" }, row("smtp", "smtp://h:25", "mx.a.test"), row("imap", "imap://h:143", "i.a.test"))
    wildcards.refused_by = before
    assert.same({ "'smtp': our partners do not accept a wildcard, and mx.a.test is covered by *.a.test only" }, list)
  end)
end)
