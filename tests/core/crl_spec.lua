-- cert.issue_crl: revocation lists, judged by openssl and by cert.verify.

local cert = require "core.cert"
local key = require "core.key"
local process = require "core.process"

local NOW = os.time()

describe("cert.issue_crl", function()
  local signer, issuer, leaf

  setup(function()
    signer = key.generate "ec:P-256"
    issuer = assert(cert.issue { key = signer, public = signer, subject = { CN = "CA" }, ca = true,
      key_usage = { "keyCertSign", "cRLSign" }, not_before = NOW - 60, not_after = NOW + 86400 })
    local own <close> = key.generate "ec:P-256"
    leaf = assert(cert.issue { key = signer, issuer = issuer, public = own, subject = { CN = "a.test" }, ca = false,
      domains = { "a.test" }, not_before = NOW - 60, not_after = NOW + 3600 })
  end)

  local function order(fields)
    local all = { key = signer, issuer = issuer, entries = {}, number = 1, this_update = NOW - 60, next_update = NOW + 60 }
    for field, value in pairs(fields or {}) do all[field] = value end
    return all
  end

  it("is a list of version 2 with its number and its issuer's key, in PEM and in DER", function()
    for name, made in pairs { ec = signer, rsa = key.generate "rsa:2048", ed = key.generate "ed25519" } do
      local ca = made == signer and issuer or assert(cert.issue { key = made, public = made, subject = { CN = name },
        ca = true, not_before = NOW - 60, not_after = NOW + 60 })
      local pem, der = cert.issue_crl(order { key = made, issuer = ca, number = 4711, entries = {
        { serial = "0a", at = NOW, reason = "superseded" }, { serial = ("7f"):rep(20), at = NOW } } })
      for form, bytes in pairs { PEM = pem, DER = der } do
        local result = assert(process.run({ "openssl", "crl", "-noout", "-text", "-inform", form }, { stdin = bytes }))
        local text = result.stdout
        assert.equal(0, result.status, result.stderr)
        assert.is_truthy(text:find "Version 2")
        assert.is_truthy(text:find "CRL Number: \n%s*4711\n")
        assert.is_truthy(text:find "Authority Key Identifier")
        assert.is_truthy(text:find "Serial Number: 0A\n")
        assert.is_truthy(text:find("Serial Number: " .. ("7F"):rep(20)))
        assert.equal(1, select(2, text:gsub("Superseded", "")))
        assert.equal(1, select(2, text:gsub("Reason Code", "")))
      end
    end
  end)

  it("is believed by cert.verify", function()
    local function verify(entries)
      return select(3, cert.verify { chain = { leaf }, anchors = { issuer }, name = "a.test", purpose = "server",
        crls = (cert.issue_crl(order { entries = entries })) })
    end
    assert.is_nil(verify {})
    assert.equal("revoked", verify { { serial = leaf:fields().serial, at = NOW - 5, reason = "keyCompromise" } })
  end)

  it("is refused with another key than the issuer's", function()
    local other <close> = key.generate "ec:P-256"
    assert.same({ nil, "cannot issue a revocation list: the key is not that of the issuer \"CA\"", "mismatch" },
      { cert.issue_crl(order { key = other }) })
  end)

  it("raises for what is none of its options", function()
    for wanted, fields in pairs {
      ["next_update is not later"] = { next_update = NOW - 60 },
      ["field 'number': a whole number is needed"] = { number = -1 },
      ["whole number expected, got string"] = { number = "x" },
      ["entries are needed"] = { entries = 7 },
      ["an entry is no table"] = { entries = { 7 } },
      ["a serial is not hexadecimal"] = { entries = { { serial = "xy", at = 1 } } },
      ["of at most 20 octets"] = { entries = { { serial = ("1"):rep(41), at = 1 } } },
      ["an entry has no time"] = { entries = { { serial = "1" } } },
      ["invalid option 'removeFromCRL'"] = { entries = { { serial = "1", at = 1, reason = "removeFromCRL" } } },
      ["typo"] = { typo = true },
    } do
      local ok, message = pcall(cert.issue_crl, order(fields))
      assert.is_false(ok)
      assert.is_truthy(message:find(wanted, 1, true), message)
    end
  end)
end)
