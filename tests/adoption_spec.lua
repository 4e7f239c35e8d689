-- adoption.lua through adopt, with assign-services before and after it: whose
-- configuration must say what, on a real nginx, Postfix and Dovecot.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local deploy = require "deploy"
local file = require "core.file"
local lfs = require "lfs"

local NAME = deploy.name

local function ends(status, result)
  assert.equal(status, result.status, result.stderr)
  return result
end

local function says(result, text)
  assert.is_truthy(result.stderr:find(text, 1, true), ("no %q in:\n%s"):format(text, result.stderr))
end

local lab

local function start(name, begin)
  lab = deploy.lab(function(new)
    new.server = begin(new)
    return { [name] = new.server.service }
  end)
  lab.endpoints, lab.dir = lab.server.endpoints, lab.server.service.dir
end

local function presented() return deploy.presented(lab, lab.endpoints, NAME) end

-- Asserts that a certificate cannot be assigned, and that nothing changes.
-- @return the lines to write, as the message has them
local function refused_as_missing(name, id)
  local before = presented()
  local answer, result = lab:json("assign-services", id, "--services", name, "--overwrite")
  ends(1, result)
  assert.equal("missing", answer.error.code)
  says(result, ("the configuration of '%s' does not name %s/current/; put this into "):format(name, lab.dir))
  says(result, "or let certwright do it, where it can: certwright adopt " .. name)
  assert.same(before, presented())
  assert.is_nil(lfs.attributes(lab.dir .. "/current"))
  assert.same({}, (deploy.states(lab, id)))
  return answer.error.message:match "\n\n(.-)\n\nor let":gsub("  ", "")
end

-- Assigns, and asserts that it is observed.
local function assigned(name, ...)
  local id, fingerprint = deploy.issue(lab)
  ends(0, deploy.assign(lab, id, name, ...))
  assert.same(deploy.all(lab.endpoints, fingerprint), presented())
  ends(0, lab:run "check")
  return id, fingerprint
end

describe("adopting", function()
  after_each(function()
    lab:close()
    lab = nil
  end)

  describe("Postfix", function()
    -- Its main.cf, which Postfix does not read before it is 2 seconds old.
    local function settings()
      assert(lfs.touch(lab.server.folder .. "/conf/main.cf", os.time() - 10))
      return deploy.tool { "postconf", "-c", lab.server.folder .. "/conf", "-n" }
    end

    it("keeps what it presents, lets it be replaced, and is undone to the letter", function()
      start("smtp", function(new) return new:postfix { names = { NAME }, style = "none" } end)
      local own, before, id = presented(), settings(), deploy.issue(lab)
      assert.equal(("smtpd_tls_chain_files = %s/current/combined.pem"):format(lab.dir), refused_as_missing("smtp", id))

      local object, result = lab:json("adopt", "smtp")
      ends(0, result)
      settings()
      assert.same({ service = "smtp", dir = lab.dir, adopted = true }, object)
      says(result, ("'smtp' now names %s/current/\nto undo: certwright adopt smtp --undo\n"):format(lab.dir))
      assert.same(own, presented())
      assert.equal(own[1], deploy.pair(lab.dir))
      assert.equal("rw-------", lfs.attributes(lab.dir .. "/current/privkey.pem", "permissions"))
      assert.equal(("%s/current/combined.pem\n"):format(lab.dir), deploy.tool { "postconf", "-c",
        lab.server.folder .. "/conf", "-h", "smtpd_tls_chain_files" })
      says(ends(0, lab:run("adopt", "smtp")), ("'smtp' names %s/current/ already"):format(lab.dir))

      says(ends(2, deploy.assign(lab, id, "smtp")), "'smtp' has a default certificate already (" .. own[1]:sub(1, 16))
      assigned("smtp", "--overwrite")
      assert.is_truthy(lfs.attributes(lab.dir .. "/found"))

      object, result = lab:json("adopt", "smtp", "--undo")
      ends(0, result)
      assert.is_false(object.adopted)
      assert.equal(before, settings())
      assert.same(own, presented())
      local answer
      answer, result = lab:json("adopt", "smtp", "--undo")
      ends(1, result)
      assert.same({ code = "missing", message = "there is nothing to undo: 'smtp' was not adopted by certwright" }, answer.error)
    end)

    it("without TLS gets it, by a certificate that nobody is asked about", function()
      start("smtp", function(new) return new:postfix { names = { NAME }, style = "off" } end)
      local before = settings()
      assert.equal(("smtpd_tls_chain_files = %s/current/combined.pem\nsmtpd_tls_security_level = may"):format(lab.dir),
        refused_as_missing("smtp", (deploy.issue(lab))))
      says(ends(0, lab:run("adopt", "smtp")), "'smtp' has no certificate yet: a self-signed one stands in until the first "
        .. "assignment")
      settings()
      assert.equal(deploy.pair(lab.dir), presented()[1])
      assigned("smtp")
      ends(0, lab:run("adopt", "smtp", "--undo"))
      assert.equal(before, settings())
      assert.equal("", presented()[1])
    end)

    it("needs its certificate and key to be there", function()
      start("smtp", function(new) return new:postfix { names = { NAME }, style = "none" } end)
      local before = settings()
      local path = lab.server.folder .. "/own.pem"
      local pem = file.read(path)
      deploy.write(path, (pem:gsub("^.-END PRIVATE KEY%-+\n", "")))
      local answer, result = lab:json("adopt", "smtp")
      ends(1, result)
      assert.equal("parse", answer.error.code)
      says(result, path)
      assert(file.remove(path))
      answer, result = lab:json("adopt", "smtp")
      ends(1, result)
      assert.equal("missing", answer.error.code)
      says(result, ("cannot read '%s': No such file or directory"):format(path))
      assert.equal(before, settings())
      assert.is_nil(lfs.attributes(lab.dir .. "/current"))
    end)
  end)

  describe("Dovecot", function()
    local function begin(new) return new:dovecot { names = { NAME }, style = "none", protocols = { "imap" } } end

    it("keeps what it presents, lets it be replaced, and is undone", function()
      start("imap", begin)
      local own = presented()
      assert.equal(("!include_try %s/current/dovecot.conf"):format(lab.dir), refused_as_missing("imap",
        (deploy.issue(lab))))
      ends(0, lab:run("adopt", "imap"))
      assert.same(own, presented())
      assert.equal(own[1], deploy.pair(lab.dir))
      assert.equal(("!include_try %s/current/dovecot.conf\n"):format(lab.dir), file.read(lab.server.folder
        .. "/local.conf"))
      assigned "imap"
      ends(0, lab:run("adopt", "imap", "--undo"))
      assert.is_nil(lfs.attributes(lab.server.folder .. "/local.conf"))
      assert.same(own, presented())
      says(ends(1, lab:run "check"), "differs: presents " .. own[1]:sub(1, 16))
      ends(0, lab:run("adopt", "imap")) -- and what was assigned is back
      ends(0, lab:run "check")
    end)

    it("is not undone where somebody has changed what was written", function()
      start("imap", begin)
      ends(0, lab:run("adopt", "imap"))
      local path = lab.server.folder .. "/local.conf"
      local line = file.read(path)
      deploy.write(path, line .. "ssl_min_protocol = TLSv1.2\n")
      local answer, result = lab:json("adopt", "imap", "--undo")
      ends(1, result)
      assert.same({ code = "mismatch", message = ("'%s' was changed since it was written: remove it by hand"):format(path) },
        answer.error)
      deploy.write(path, line)
      ends(0, lab:run("adopt", "imap", "--undo"))
    end)

    it("is as before when it refuses what was changed", function()
      start("imap", begin)
      local own = presented()
      for field, text in pairs { check = "imap refused to accept the new files", reload = "imap refused to reload" } do
        local _ <close> = deploy.change(lab, "imap", { [field] = { "false" } })
        local answer, result = lab:json("adopt", "imap")
        ends(1, result)
        assert.equal("refused", answer.error.code)
        says(result, text .. " ('false' ended with status 1); the configuration is as before")
        assert.is_nil(lfs.attributes(lab.server.folder .. "/local.conf"))
      end
      assert.same(own, presented())
      local answer, result = lab:json("adopt", "imap", "--undo")
      ends(1, result)
      assert.same({ code = "missing", message = "there is nothing to undo: 'imap' was not adopted by certwright" }, answer.error)
    end)

    it("changes nothing with --dry-run", function()
      start("imap", begin)
      local path = lab.server.folder .. "/local.conf"
      says(ends(0, lab:run("adopt", "imap", "--dry-run")), ("would have 'imap' name %s/current/: in the end of %s/dovecot.conf, "
        .. "after every ssl_cert and ssl_key:\n  !include_try %s/current/dovecot.conf"):format(lab.dir,
        lab.server.folder, lab.dir))
      assert.is_nil(lfs.attributes(path))
      assert.is_nil(lfs.attributes(lab.dir))
      ends(0, lab:run("adopt", "imap"))
      says(ends(0, lab:run("adopt", "imap", "--undo", "--dry-run")), "would put back the configuration of 'imap'")
      assert.is_truthy(lfs.attributes(path))
    end)

    it("by hand, with the line that is printed, is as good", function()
      start("imap", begin)
      local line = refused_as_missing("imap", (deploy.issue(lab)))
      deploy.write(lab.server.folder .. "/local.conf", line .. "\n")
      assigned "imap"
    end)

    it("says what to write where it reads no file", function()
      start("imap", begin)
      local path = lab.server.folder .. "/dovecot.conf"
      deploy.write(path, (file.read(path):gsub("!include_try local.conf\n", "")))
      local answer, result = lab:json("adopt", "imap")
      ends(1, result)
      assert.equal("unsupported", answer.error.code)
      says(result, ("write by hand, at the end of %s, after every ssl_cert and ssl_key:\n"
        .. "  !include_try %s/current/dovecot.conf\n"):format(path, lab.dir))
    end)
  end)

  describe("nginx", function()
    it("whose servers name their own certificates is for a person, told the line", function()
      start("web", function(new) return new:nginx { names = { NAME }, style = "none" } end)
      local own, path = presented(), lab.server.folder .. "/nginx.conf"
      local line = refused_as_missing("web", (deploy.issue(lab)))
      assert.equal(("include %s/current/nginx.conf;"):format(lab.dir), line)
      local before = file.read(path)
      local answer, result = lab:json("adopt", "web")
      ends(1, result)
      assert.equal("unsupported", answer.error.code)
      says(result, "write by hand, into the server block of " .. path)
      says(result, "\n  " .. line .. "\n")
      assert.equal(before, file.read(path))
      assert.same(own, presented())

      assert.equal(own[1], deploy.pair(lab.dir)) -- so that the line is right at once
      deploy.write(path, (before:gsub("ssl_certificate [^\n]*\n", line .. "\n")))
      deploy.tool { "nginx", "-p", lab.server.folder, "-c", path, "-s", "reload" }
      says(ends(0, lab:run("adopt", "web")), ("'web' names %s/current/ already"):format(lab.dir))
      assert.same(own, presented())
      assigned "web"
    end)

    it("whose servers name none gets a file that it includes, and loses it again", function()
      start("web", function(new) return new:nginx { names = { NAME }, style = "bare", start = false } end)
      says(ends(0, lab:run("adopt", "web")), "a self-signed one stands in")
      local path = lab.server.folder .. "/conf.d/certwright-web.conf"
      assert.equal(("include %s/current/nginx.conf;\n"):format(lab.dir), file.read(path))
      lab.server:start()
      assert.equal(deploy.pair(lab.dir), presented()[1])
      assigned "web"
      local result = ends(1, lab:run("adopt", "web", "--undo")) -- as it was, it does not start
      says(result, "the configuration is put back, but web refused to accept the new files")
      assert.is_nil(lfs.attributes(path))
    end)

    it("with two paths through current may stay so, and show says what that means", function()
      start("web", function(new) return new:nginx { names = { NAME }, style = "two paths" } end)
      local id = assigned "web"
      local object = lab:json("show", id)
      assert.equal(1, #object.warnings)
      assert.same({ code = "mismatch", message = ("'web' reads its certificate and its key by two paths through "
        .. "%s/current/, which a switch between them tears; better: include %s/current/nginx.conf;"):format(lab.dir,
        lab.dir) }, object.warnings[1])
      assert.is_truthy(lab:run("show", id).stdout:find("by two paths through", 1, true))
      local path = lab.server.folder .. "/nginx.conf"
      deploy.write(path, (file.read(path):gsub("ssl_certificate [^\n]*\n", ("include %s/current/nginx.conf;\n"):format(
        lab.dir))))
      assert.same({}, lab:json("show", id).warnings)
    end)
  end)

  it("needs a service that the site names", function()
    start("web", function(new) return new:nginx { names = { NAME } } end)
    local answer, result = lab:json("adopt", "smtp")
    ends(2, result)
    assert.same({ code = "usage", message = ("there is no service 'smtp' in '%s/config.lua'; there are: web"):format(
      lab.site_path) }, answer.error)
  end)

  it("waits for a deployment that is under way, and recovers one that was cut short", function()
    start("imap", function(new) return new:dovecot { names = { NAME }, protocols = { "imap" } } end)
    local id = deploy.issue(lab)
    local slow = deploy.change(lab, "imap", { reload = { "sleep", "30" } })
    local running = assert(require "core.process".start { file.link "/proc/self/exe", "--site", lab.site_path,
      "--state", lab.state_path, "assign-services", id, "--services", "imap" })
    assert(lab:eventually(function() return deploy.contents(lab.dir).current ~= "before" end))
    getmetatable(slow).__close()
    local log = lab.path .. "/adopt.log"
    local waiting = assert(require "core.process".start({ file.link "/proc/self/exe", "--site", lab.site_path, "--state",
      lab.state_path, "adopt", "imap" }, { output = log }))
    assert.is_nil(waiting:wait(0.3))
    running:stop "KILL"
    assert.equal(0, waiting:wait(60).status, file.read(log))
    assert.equal("before", deploy.contents(lab.dir).current)
  end)
end)
