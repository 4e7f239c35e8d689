-- The lab itself: what it makes is what its users are told.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/support/"
local Lab = dofile(here .. "tests/support/lab.lua")
local process = require "core.process"
local lfs = require "lfs"

describe("lab", function()
  local lab

  before_each(function() lab = Lab.new { name = "lab" } end)
  after_each(function() lab:close() end)

  local function openssl(...)
    return process.run { "openssl", ... }
  end

  it("is a short folder that others may enter, and is gone when closed", function()
    local path = lab.path
    assert.is_true(#path < 60)
    assert.equal("rwxr-xr-x", lfs.attributes(path, "permissions"))
    lab:close()
    assert.is_nil(lfs.attributes(path))
    lab:close()
  end)

  it("is gone when its variable is, also after an error", function()
    local path
    pcall(function()
      local inner <close> = Lab.new {}
      path = inner.path
      error "failed"
    end)
    assert.is_nil(lfs.attributes(path))
  end)

  it("gives no port twice", function()
    assert.are_not.equal(lab:port(), lab:port())
  end)

  it("makes a chain that openssl verifies up to its root", function()
    local root = lab:authority { name = "Lab root" }
    local below = lab:authority { name = "Lab issuer", ca = root }
    local pair = lab:certificate { names = { "a.lab.test", "192.0.2.7", "2001:db8::1" }, ca = below, key = "rsa:2048" }
    local result = openssl("verify", "-x509_strict", "-CAfile", pair .. "/root.pem", "-untrusted", pair .. "/chain.pem",
      "-verify_hostname", "a.lab.test", "-verify_ip", "2001:db8::1", pair .. "/cert.pem")
    assert.equal("", result.stderr)
    assert.equal(0, result.status)
    local _, count = io.open(pair .. "/fullchain.pem"):read "a":gsub("BEGIN CERT", "")
    assert.equal(2, count)
  end)

  it("makes a certificate that has expired", function()
    local pair = lab:certificate { names = { "old.lab.test" }, days = -3, key = "ed25519" }
    assert.equal(1, openssl("x509", "-checkend", "0", "-noout", "-in", pair .. "/cert.pem").status)
  end)

  it("keeps what was there in a generation of mode 0600 keys", function()
    local dir = lab:folder "ssl"
    local path = lab:generation(dir, "1", lab:certificate { names = { "a.lab.test" } })
    assert.equal("1", lfs.symlinkattributes(dir .. "/current", "target"))
    assert.equal("rw-------", lfs.attributes(path .. "/combined.pem", "permissions"))
    assert.is_truthy(lfs.attributes(path .. "/nginx.conf"))
    lab:generation(dir, "2", lab:certificate { names = { "a.lab.test" } })
    assert.equal("2", lfs.symlinkattributes(dir .. "/current", "target"))
  end)

  it("writes a site that reads back as it was given", function()
    local config = { organization = { O = "Lab \"x\"\n" }, services = {
       web = { names = { "a", "b", "c", "d", "e", "f", "g", "h", "i", "j" }, mode = 384 } } }
    lab:site(config, "return {}\n")
    assert.same(config, dofile(lab.site_path .. "/config.lua"))
    assert.same({}, dofile(lab.site_path .. "/policy.lua"))
  end)

  it("says why a server does not start, and leaves none behind", function()
    local server = lab:nginx { style = "bare", start = false }
    local started, message = pcall(server.start, server)
    assert.is_false(started)
    assert.matches('no "ssl_certificate" is defined', message, 1, true)
    assert.is_false(server:running())
  end)

  it("stops its servers when it is closed", function()
    local server = lab:nginx {}
    local pid = server.process:pid()
    assert.equal(server.endpoints[1]:match ":(%d+)$", tostring(server.ports[1]))
    lab:close()
    assert.is_nil(lfs.attributes("/proc/" .. pid))
  end)
end)
