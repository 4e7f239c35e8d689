-- The pages of assign-services, on a real terminal of 80 columns, before a real
-- nginx and a real Postfix.

local here = debug.getinfo(1, "S").source:match "^@(.-)pages/[^/]*$"
package.path = here .. "support/?.lua;" .. package.path
local deploy = require "deploy"
local file = require "core.file"
local pages = require "pages_driver"

local NAME = deploy.name

describe("assign-services on a terminal", function()
  local lab, desk

  setup(function()
    lab = deploy.lab(function(new)
      new.web, new.smtp = new:nginx { names = { NAME } }, new:postfix { names = { NAME } }
      return { web = new.web.service, smtp = new.smtp.service }
    end)
    desk = { program = assert(file.link "/proc/self/exe"), site = lab.site_path, state = lab.state_path }
    lab.id, lab.default = deploy.issue(lab)
    assert.equal(0, deploy.assign(lab, lab.id, "smtp", "--overwrite").status)
    assert.equal(0, lab:run("adopt", "smtp").status)
  end)
  teardown(function() lab:close() end)

  local function presented(server, name)
    return deploy.presented(lab, server.endpoints, name)[1]
  end

  local function without_question(screen)
    return (screen:match ".*The same on the command line:\n(.-)\n *\nAssign it now":gsub(" \\\n *", " "))
  end

  it("asks for certificate, services and what becomes of the default one", function()
    local id, fingerprint = deploy.issue(lab, { "other.test", NAME }, "--name", "both names")
    local web = presented(lab.web, NAME)
    local default = presented(lab.smtp)
    do
      local terminal <close> = pages.start(desk, "assign-services")
      pages.answer(terminal, {
        { "Certificate (page 1 of 3)" }, { ("1  both names (id %s), %s, until "):format(id, fingerprint:sub(1, 16)) },
        { "Certificate:", "" }, { "This needs an answer" }, { "Certificate:", "9" }, { "'9' is none of them" },
        { "Certificate:", "1" },
        { "Services (page 2 of 3)" }, { "1  smtp (postfix) presents " .. default:sub(1, 16) },
        { "2  web (nginx) presents " .. web:sub(1, 16) }, { "Services [1,2]:", "ftp" }, { "'ftp' is none of them" },
        { "Services [1,2]:", "?" }, { "all of them or, if one fails," }, { "Services [1,2]:", "smtp" },
        { "Default SMTP Certificate (page 3 of 4)" }, { default }, { "SHA-1" }, { "Expires" }, { fingerprint },
        { "Overwrite the existing default SMTP certificate? [Y/n]:", "n" },
        { "the new one is for clients that ask for other.test," },
        { "Summary (page 4 of 4)" }, { "SMTP default  of 'smtp': stays" }, { "Assign it now? [Y/n]:", "<" },
        { "Overwrite the existing default SMTP certificate? [y/N]:", "<" },
        { "Services [1]:", "<" }, { "Certificate [1]:", "" },
        { "Services [1]:", "web" }, -- no question about that one
        { "Summary (page 3 of 3)" }, { "Services     web" }, { "Assign it now? [Y/n]:", "<" },
        { "Services [2]:", "all" }, { "Overwrite the existing default SMTP certificate? [y/N]:", "" },
        { "Services      smtp, web" }, { "Assign it now? [Y/n]:" },
      })
      local command = without_question(terminal:screen())
      assert.is_truthy(command:find "assign%-services %-%-services smtp,web %-%-no%-overwrite " , command)
      assert.same({ web, default }, { presented(lab.web, NAME), presented(lab.smtp) })
      assert.same({}, deploy.states(lab, id))
      terminal:type "y\n"
      assert.equal(0, terminal:ended(60), terminal:screen())
      local screen = terminal:screen()
      assert.is_truthy(screen:find(("Completion\nCertificate %s is on smtp, web."):format(id), 1, true), screen)
      assert.is_truthy(screen:find((" without a name: %s\n"):format(default:sub(1, 16)), 1, true), screen)
      pages.assert_plain(screen:match "^(.-)assigning " )
    end
    assert.same({ fingerprint, fingerprint, default }, { presented(lab.web, NAME), presented(lab.smtp, "other.test"),
      presented(lab.smtp) })
    assert.equal(0, lab:run("check").status)
  end)

  it("asks only for the services when the certificate is given; yes overwrites", function()
    local id, fingerprint = deploy.issue(lab, { "mx.test" })
    local terminal <close> = pages.start(desk, "assign-services", id)
    pages.answer(terminal, {
      { "Services (page 1 of 2)" }, { "Services:", "<" }, { "This is the first page; Ctrl-C leaves." },
      { "Services:", "1" }, { "Warning: the certificate covers none of the names of 'smtp': " .. NAME },
      { "Overwrite the existing default SMTP certificate? [Y/n]:", "" },
      { "'smtp': overwritten" }, { "--overwrite" }, { "Assign it now?", "" },
    })
    terminal:expect("covers none of the names of 'smtp'", 30) -- which is refused, as without pages
    assert.equal(1, terminal:ended(60))
    assert.is_truthy(presented(lab.smtp) ~= fingerprint)
    assert.same({}, deploy.states(lab, id))
  end)

  it("leaves nothing behind when it is left", function()
    local id = deploy.issue(lab)
    local before = { deploy.contents(lab.services.smtp.dir), deploy.contents(lab.services.web.dir) }
    for _, steps in ipairs {
      { { "Certificate:", key = "C-c" } },
      { { "Certificate:", "1" }, { "Services [1,2]:", "" }, { "Overwrite", key = "C-d" } },
      { { "Certificate:", "1" }, { "Services [1,2]:", "2" }, { "Assign it now?", "no" } },
    } do
      local terminal <close> = pages.start(desk, "assign-services")
      pages.answer(terminal, steps)
      assert.equal(1, terminal:ended())
      terminal:expect "abandoned: nothing was changed"
    end
    assert.same({}, deploy.states(lab, id))
    assert.same(before, { deploy.contents(lab.services.smtp.dir), deploy.contents(lab.services.web.dir) })
  end)

  it("asks nobody without a terminal", function()
    local result = lab:run "assign-services"
    assert.equal(2, result.status)
    assert.is_truthy(result.stderr:find("assign-services needs CERT, and --services LIST", 1, true), result.stderr)
    local id = deploy.issue(lab)
    result = lab:run("assign-services", id)
    assert.equal(2, result.status)
    assert.is_truthy(result.stderr:find("assign-services needs --services LIST; the site has: smtp, web", 1, true),
      result.stderr)
  end)

  it("has an answer for a site without services, or without a certificate", function()
    local Desk = require "desk"
    local empty <close> = Desk.new "empty"
    do
      local terminal <close> = pages.start(empty, "assign-services")
      assert.equal(1, terminal:ended())
      terminal:expect "there is no valid certificate with a key here to assign; see"
    end
    empty:done("new-request", "--domain", "a.test", "--self-signed")
    local terminal <close> = pages.start(empty, "assign-services")
    assert.equal(1, terminal:ended())
    terminal:expect "names no services"
  end)
end)
