-- core.revocation: lists and responses made by openssl, read and checked here.

local here = debug.getinfo(1, "S").source:match "^@(.-)core/[^/]*$"
local PKI = dofile(here .. "core/pki.lua")
local cert = require "core.cert"
local revocation = require "core.revocation"

describe("core.revocation", function()
  local pki, root, leaf, other, gone

  -- A list of root's: its extensions are lines of openssl's configuration.
  local function list(name, extensions, more)
    local config = pki:read "root.conf" .. "\n[x]\nauthorityKeyIdentifier = keyid\n" .. (extensions or "")
    pki:write(name .. ".conf", config)
    pki:run("openssl ca -config %s.conf -gencrl -crlexts x %s -out %s.crl", name, more or "", name)
    pki:run("openssl crl -in %s.crl -outform DER -out %s.der", name, name)
    return pki:read(name .. ".der"), pki:read(name .. ".crl")
  end

  -- A response of openssl's responder about a certificate.
  local function respond(name, signer, more)
    pki:run("openssl ocsp -issuer root.pem -cert %s.pem -reqout %s.req -no_nonce", name, name)
    pki:run("openssl ocsp -index root.index -CA root.pem -rsigner %s.pem -rkey %s.key -reqin %s.req -respout %s.resp %s",
      signer, signer, name, name, more or "-nmin 5")
    return pki:read(name .. ".resp")
  end

  local function read(name)
    return assert(cert.parse(pki:read(name .. ".pem")))[1]
  end

  setup(function()
    pki = PKI.new()
    pki:root("root", { subject = "/CN=Root" })
    pki:root("stranger", { subject = "/CN=Root" })
    for _, name in ipairs { "leaf", "gone", "held" } do pki:issue("root", name, { subject = "/CN=" .. name }) end
    pki:issue("root", "responder", { subject = "/CN=responder", only = [[
basicConstraints = critical,CA:FALSE
extendedKeyUsage = OCSPSigning
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
]] })
    pki:run "openssl ca -config root.conf -revoke gone.pem -crl_reason keyCompromise"
    pki:run "openssl ca -config root.conf -revoke held.pem -crl_hold holdInstructionReject"
    root, leaf, gone, other = read "root", read "leaf", read "gone", read "stranger"
  end)
  teardown(function() pki:close() end)

  local function fails(message, code, nothing, said, kind)
    assert.same({ nil, message, code }, { nothing, said, kind })
  end

  describe("list", function()
    it("says good of what it does not have, with its dates, in DER and PEM", function()
      for _, bytes in ipairs { list "plain" } do
        local verdict = assert(revocation.list(bytes, leaf, root))
        assert.equal("good", verdict.status)
        assert.is_true(math.abs(verdict.this_update - os.time()) < 60)
        assert.is_true(math.abs(verdict.next_update - verdict.this_update - 30 * 86400) < 5)
        assert.same({}, { verdict.revoked_at, verdict.reason, verdict.urls })
      end
    end)

    it("says revoked, when and why", function()
      local verdict = assert(revocation.list(list "plain", gone, root))
      assert.same({ "revoked", "keyCompromise" }, { verdict.status, verdict.reason })
      assert.is_true(math.abs(verdict.revoked_at - os.time()) < 60)
      verdict = assert(revocation.list(list "plain", read "held", root))
      assert.same({ "revoked", "certificateHold" }, { verdict.status, verdict.reason })
    end)

    it("refuses what another has signed, or another name", function()
      fails('the revocation list is not of "Root": its signature is not the issuer\'s', "untrusted",
        revocation.list(list "plain", leaf, other))
      fails('the revocation list is not of "leaf": it is another issuer\'s', "untrusted", revocation.list(list "plain", leaf, leaf))
      local bytes = list "plain"
      fails('the revocation list is not of "Root": its signature is not the issuer\'s', "untrusted",
        revocation.list(bytes:sub(1, -2) .. string.char(bytes:byte(-1) ~ 1), leaf, root))
    end)

    it("refuses an issuer that may not sign lists", function()
      pki:root("mute", { subject = "/CN=Mute", extensions = "basicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n" })
      pki:run "openssl ca -config mute.conf -gencrl -out mute.crl"
      fails('the revocation list is not of "Mute": its issuer may not sign such lists', "untrusted",
        revocation.list(pki:read "mute.crl", leaf, read "mute"))
    end)

    it("refuses delta and indirect lists, those of some reasons, and what is critical and unknown", function()
      for lines, why in pairs {
        ["deltaCRL = critical,ASN1:INTEGER:1"] = "it is a delta of another list",
        ["issuingDistributionPoint = critical,@i\n[i]\nindirectCRL = TRUE"] = "it is an indirect list",
        ["issuingDistributionPoint = critical,@i\n[i]\nonlysomereasons = keyCompromise"] = "it covers some reasons only",
        ["issuingDistributionPoint = critical,@i\n[i]\nonlyCA = TRUE"] = "it is about certificates of another kind",
        ["issuingDistributionPoint = critical,@i\n[i]\nrelativename = r\n[r]\nCN = x"]
          = "its distribution point is a relative name",
        ["1.2.3.4 = critical,ASN1:NULL"] = "it has a critical extension that is not understood",
      } do
        fails("cannot use the revocation list: " .. why, "unsupported", revocation.list(list("odd", lines), leaf, root))
      end
      assert.equal("good", assert(revocation.list(list("users", "issuingDistributionPoint = critical,@i\n[i]\nonlyuser = TRUE"), leaf,
        root)).status)
    end)

    it("says where a list that is a part is found", function()
      local bytes = list("part", "issuingDistributionPoint = critical,@i\n[i]\nfullname = URI:http://a.test/1.crl,URI:http://b.test/1.crl")
      assert.same({ "http://a.test/1.crl", "http://b.test/1.crl" }, assert(revocation.list(bytes, leaf, root)).urls)
    end)

    it("refuses what is no list, and too much", function()
      fails("cannot read the revocation list: bad end line", "parse", revocation.list("-----BEGIN X-----\n", leaf, root))
      local nothing, message, code = revocation.list("<html>", leaf, root)
      assert.same({ nil, "parse" }, { nothing, code })
      assert.is_truthy(message:find "^cannot read the revocation list: ")
      fails("the revocation list has more than 33554432 bytes", "limit", revocation.list(("x"):rep(32 * 1024 * 1024 + 1), leaf, root))
    end)
  end)

  describe("response", function()
    it("says good, revoked and why, or unknown, signed by the CA or by whom it delegated this to", function()
      for _, signer in ipairs { "root", "responder" } do
        local verdict = assert(revocation.response(respond("leaf", signer), leaf, root))
        assert.equal("good", verdict.status)
        assert.is_true(math.abs(verdict.next_update - verdict.this_update - 300) < 5)
        verdict = assert(revocation.response(respond("gone", signer), gone, root))
        assert.same({ "revoked", "keyCompromise" }, { verdict.status, verdict.reason })
        assert.is_true(math.abs(verdict.revoked_at - os.time()) < 60)
      end
      pki:run "cp root.index kept.index; : > root.index"
      assert.equal("unknown", assert(revocation.response(respond("leaf", "root"), leaf, root)).status)
      pki:run "cp kept.index root.index"
    end)

    it("has no next_update where none is said", function()
      assert.is_nil(assert(revocation.response(respond("leaf", "root", " "), leaf, root)).next_update)
    end)

    it("is read whatever the digest of its CertID", function()
      pki:run "openssl ocsp -sha256 -issuer root.pem -cert leaf.pem -reqout s.req -no_nonce"
      pki:run "openssl ocsp -index root.index -CA root.pem -rsigner root.pem -rkey root.key -reqin s.req -respout s.resp -nmin 5"
      assert.equal("good", assert(revocation.response(pki:read "s.resp", leaf, root)).status)
    end)

    it("refuses a signer that the CA has not delegated this to", function()
      fails('the OCSP response is not signed for "Root": missing ocspsigning usage', "untrusted",
        revocation.response(respond("leaf", "held"), leaf, root))
      local nothing, message, code = revocation.response(respond("leaf", "stranger"), leaf, root)
      assert.same({ nil, "untrusted" }, { nothing, code })
      assert.is_truthy(message:find '^the OCSP response is not signed for "Root": ')
    end)

    it("refuses what is about another certificate, an error, no response, and too much", function()
      fails('the OCSP response says nothing of "gone"', "mismatch", revocation.response(respond("leaf", "root"), gone, root))
      fails("the OCSP responder refuses: trylater", "refused", revocation.response("\48\3\10\1\3", leaf, root))
      local nothing, message, code = revocation.response("<html>", leaf, root)
      assert.same({ nil, "parse" }, { nothing, code })
      assert.is_truthy(message:find "^cannot read the OCSP response: ")
      fails("the OCSP response has more than 262144 bytes", "limit", revocation.response(("x"):rep(256 * 1024 + 1), leaf, root))
    end)
  end)

  it("request is what openssl's own request is", function()
    pki:run "openssl ocsp -issuer root.pem -cert leaf.pem -reqout q.req -no_nonce"
    assert.equal(pki:read "q.req", revocation.request(leaf, root))
  end)

  it("digest is SHA-256", function()
    assert.equal("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", revocation.digest "abc")
  end)
end)
