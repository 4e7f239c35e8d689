-- core.bundle: PKCS #7 and PKCS #12, in and out. The openssl command line makes
-- what is read and is the judge of what is written.

local here = debug.getinfo(1, "S").source:match "^@(.-)core/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local bundle = require "core.bundle"
local cert = require "core.cert"
local file = require "core.file"
local key = require "core.key"

-- DER, by hand.
local function der(tag, ...)
  local content = table.concat { ... }
  local length = #content < 128 and string.char(#content) or "\x82" .. string.pack(">I2", #content)
  return string.char(tag) .. length .. content
end
local function sequence(...) return der(0x30, ...) end
local DATA, CERT_BAG = "\6\9\x2A\x86\x48\x86\xF7\x0D\1\7\1", "\6\11\x2A\x86\x48\x86\xF7\x0D\1\x0C\x0A\1\3"
local KEY_BAG, SHROUDED = CERT_BAG:sub(1, -2) .. "\1", CERT_BAG:sub(1, -2) .. "\2"
local ENCRYPTED, SIGNED = DATA:sub(1, -2) .. "\6", DATA:sub(1, -2) .. "\2"

local function pfx(safes)
  return sequence("\2\1\3", sequence(DATA, der(0xA0, der(4, sequence(safes)))))
end
local function plain_safe(bags)
  return sequence(DATA, der(0xA0, der(4, sequence(bags))))
end

describe("core.bundle", function()
  local desk, folder, chain, secret

  local function path(name) return folder .. "/" .. name end
  local function read(name) return desk:read(path(name)) end

  -- A PKCS #12 of what is in leaf.pem, key.pem and issuer.pem.
  local function export(name, ...)
    desk:openssl("pkcs12", "-export", "-inkey", path "key.pem", "-in", path "leaf.pem", "-certfile", path "issuer.pem",
      "-passout", "pass:secret", "-out", path(name), ...)
    return read(name)
  end

  setup(function()
    desk = Desk.new "bundle"
    folder = desk.lab:folder "bundles"
    local outside = desk:outside()
    local made = desk.lab:certificate { names = { "a.test" }, ca = outside }
    for from, to in pairs { [made .. "/cert.pem"] = "leaf.pem", [made .. "/key.pem"] = "key.pem",
      [outside .. "/cert.pem"] = "issuer.pem" } do
      assert(file.write(path(to), desk:read(from)))
    end
    -- the lab's file of a certificate has its chain, too
    assert(file.write(path "leaf.pem", desk:openssl("x509", "-in", path "leaf.pem"), { exclusive = false }))
    chain = { assert(cert.parse(read "leaf.pem"))[1], assert(cert.parse(read "issuer.pem"))[1] }
    secret = assert(key.load(read "key.pem"))
  end)
  teardown(function() desk:close() end)

  local function refused(code, message, list, why, what)
    assert.same({ nil, message, code }, { list, why, what })
  end

  describe("kinds", function()
    it("tells DER by its shape, whatever a file is called", function()
      local forms = {
        certificate = desk:openssl("x509", "-in", path "leaf.pem", "-outform", "DER"),
        request = desk:openssl("req", "-new", "-key", path "key.pem", "-subj", "/CN=x", "-outform", "DER"),
        key = desk:openssl("pkey", "-in", path "key.pem", "-outform", "DER"),
        pkcs7 = desk:openssl("crl2pkcs7", "-nocrl", "-certfile", path "leaf.pem", "-outform", "DER"),
        pkcs12 = export "kinds.p12",
      }
      for kind, bytes in pairs(forms) do
        assert.same({ [kind] = true }, bundle.kinds(bytes), kind)
      end
      assert.same({ key = true }, bundle.kinds(desk:openssl("pkcs8", "-topk8", "-in", path "key.pem", "-passout",
        "pass:x", "-outform", "DER")))
      assert.same({}, bundle.kinds "Dear customer")
      assert.same({}, bundle.kinds "")
    end)

    it("tells each block of a PEM text, a PKCS #7 under a certificate's label, too", function()
      local pkcs7 = desk:openssl("crl2pkcs7", "-nocrl", "-certfile", path "leaf.pem")
      assert.same({ pkcs7 = true }, bundle.kinds((pkcs7:gsub("PKCS7", "CERTIFICATE"))))
      assert.same({ pkcs7 = true, certificate = true, key = true },
        bundle.kinds("text\r\n" .. pkcs7 .. read "leaf.pem" .. read "key.pem"))
      assert.same({ certificate = true }, bundle.kinds "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    end)

    it("reads a line of very many signs of padding", function()
      assert.same({}, bundle.kinds("MIIA" .. ("MA=3D=3D"):rep(1 << 16)))
      assert.same({}, bundle.parts("MIIA" .. ("MA=3D=3D"):rep(1 << 16)))
    end)

    it("refuses more than 16 MiB", function()
      refused("limit", "cannot read it: more than 16 MiB", bundle.kinds(("x"):rep(16 * 1024 * 1024 + 1)))
    end)
  end)

  describe("pkcs7", function()
    it("reads PEM, DER, UTF-16 of either order, and base64 alone", function()
      local pem = desk:openssl("crl2pkcs7", "-nocrl", "-certfile", path "leaf.pem", "-certfile", path "issuer.pem")
      local binary = desk:openssl("pkcs7", "-outform", "DER", { stdin = pem })
      local forms = {
        pem, binary, "Hello,\n" .. pem:gsub("\n", "\r\n"), (pem:gsub("PKCS7", "CERTIFICATE")),
        (pem:gsub(".", "%0\0")), "\xFF\xFE" .. pem:gsub(".", "%0\0"), "\xFE\xFF" .. pem:gsub(".", "\0%0"),
        pem:match "%-\n(.-)\n%-",
      }
      for i, bytes in ipairs(forms) do
        local list = assert(bundle.pkcs7(bytes))
        assert.same({ 2, chain[1]:pem(), chain[2]:pem() }, { #list, list[1]:pem(), list[2]:pem() }, "form " .. i)
      end
    end)

    it("reads a secret as well as a string", function()
      assert(file.write(path "box.p7b", bundle.write_pkcs7(chain)))
      assert.equal(2, #assert(bundle.pkcs7(assert(file.secret(path "box.p7b")))))
    end)

    it("refuses what is none, has no certificate, or is cut short", function()
      refused("parse", "cannot read the PKCS #7: none in PEM or DER", bundle.pkcs7 "")
      refused("parse", "cannot read the PKCS #7: none in PEM or DER", bundle.pkcs7(read "leaf.pem"))
      local whole = bundle.write_pkcs7(chain)
      refused("parse", "cannot read the PKCS #7: bytes after its end", bundle.pkcs7(whole .. "\0"))
      refused("parse", "cannot read the PKCS #7: no certificate in it", bundle.pkcs7(bundle.write_pkcs7 {}))
      refused("parse", "cannot read the PKCS #7: no certificate in it", bundle.pkcs7(sequence(SIGNED)))
      for length = 1, #whole - 1, 97 do
        local list, _, code = bundle.pkcs7(whole:sub(1, length))
        assert.same({ nil, "parse" }, { list, code })
      end
    end)

    it("refuses more than 100 certificates, and more than 16 MiB", function()
      local many = {}
      for i = 1, 101 do many[i] = chain[1] end
      refused("limit", "cannot read the PKCS #7: more than 100 certificates", bundle.pkcs7(bundle.write_pkcs7(many)))
      many[101] = nil
      assert.equal(100, #assert(bundle.pkcs7(bundle.write_pkcs7(many))))
      refused("limit", "cannot read the PKCS #7: more than 16 MiB", bundle.pkcs7(("x"):rep(16 * 1024 * 1024 + 1)))
    end)
  end)

  it("write_pkcs7 makes what openssl reads", function()
    local text = desk:openssl("pkcs7", "-inform", "DER", "-print_certs", { stdin = bundle.write_pkcs7(chain) })
    local list = assert(cert.parse(text))
    assert.same({ chain[1]:pem(), chain[2]:pem() }, { list[1]:pem(), list[2]:pem() })
    assert.has_error(function() bundle.write_pkcs7 { "x" } end)
  end)

  describe("pkcs12", function()
    it("reads what openssl makes, with AES and with 3DES, its name included", function()
      local forms = {
        export("aes.p12", "-name", "Fröhlich, Ä"),
        export("3des.p12", "-name", "Fröhlich, Ä", "-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg",
          "SHA1"),
        export("open.p12", "-name", "Fröhlich, Ä", "-certpbe", "NONE", "-keypbe", "NONE"),
      }
      for i, bytes in ipairs(forms) do
        local held = assert(bundle.pkcs12(bytes, "secret"))
        assert.same({ 2, true, secret:fingerprint() }, { #held.certificates, held.certificates[1]:matches(held.key),
          held.key:fingerprint() }, "form " .. i)
        assert.is_truthy(utf8.len(held.friendly_name))
      end
    end)

    it("takes bytes and password from boxes that Lua cannot look into", function()
      export "box.p12"
      assert(file.write(path "password", "secret\r\nsecond line\n"))
      local held = assert(bundle.pkcs12(assert(file.secret(path "box.p12")), assert(file.password(path "password"))))
      assert.equal(secret:fingerprint(), held.key:fingerprint())
    end)

    it("reads one without a password, and certificates without a key", function()
      desk:openssl("pkcs12", "-export", "-nokeys", "-in", path "leaf.pem", "-passout", "pass:", "-out", path "bare.p12")
      local held = assert(bundle.pkcs12(read "bare.p12"))
      assert.same({ 1, nil, nil }, { #held.certificates, held.key, held.friendly_name })
      assert.equal(1, #assert(bundle.pkcs12(read "bare.p12", "")).certificates)
    end)

    it("refuses a wrong password, and none", function()
      local bytes = export "denied.p12"
      refused("denied", "cannot read the PKCS #12: wrong password", bundle.pkcs12(bytes, "Secret"))
      refused("denied", "cannot read the PKCS #12: wrong password", bundle.pkcs12(bytes, ""))
      refused("denied", "cannot read the PKCS #12: no password was given", bundle.pkcs12(bytes))
      local unmarked = export("unmarked.p12", "-nomac")
      refused("denied", "cannot read the PKCS #12: wrong password", bundle.pkcs12(unmarked, "Secret"))
    end)

    it("names the encryption that OpenSSL does not have without its legacy provider", function()
      refused("unsupported", "cannot read the PKCS #12: this OpenSSL cannot decrypt pbeWithSHA1And40BitRC2-CBC",
        bundle.pkcs12(export("rc2.p12", "-legacy"), "secret"))
    end)

    it("refuses iteration counts that would take over 2 seconds in sum, before it derives anything", function()
      local message = "cannot read the PKCS #12: its iteration counts would take over 2 seconds"
      local slow = export("slow.p12", "-iter", "1100000", "-nomaciter") -- twice
      local clock = os.clock()
      refused("limit", message, bundle.pkcs12(slow, "secret"))
      -- a count may be larger than any clock could bear
      local found = slow:find("\2\3\x10\xC8\xE0", 1, true)
      refused("limit", message, bundle.pkcs12(slow:sub(1, found + 1) .. "\x7F" .. slow:sub(found + 3), "secret"))
      -- a MAC by SHA-1, over nothing, with 2147483647 iterations
      refused("limit", message, bundle.pkcs12(sequence("\2\1\3", sequence(DATA, der(0xA0, der(4, sequence()))),
        sequence(sequence(sequence("\6\5\x2B\x0E\3\2\x1A", "\5\0"), der(4, ("x"):rep(20))), der(4, "salt"),
          "\2\4\x7F\xFF\xFF\xFF")), "secret"))
      assert.is_true(os.clock() - clock < 1.5)
    end)

    it("refuses what is malformed, empty, or says nothing of itself", function()
      local whole = export "whole.p12"
      refused("parse", "cannot read the PKCS #12: bytes after its end", bundle.pkcs12(whole .. "\0", "secret"))
      for _, bytes in ipairs { "", "0", "Dear customer", whole:sub(1, 500), read "leaf.pem" } do
        local held, message, code = bundle.pkcs12(bytes, "secret")
        assert.same({ nil, "parse" }, { held, code }, message)
      end
      for name, bag in pairs { certificate = CERT_BAG, key = KEY_BAG, shrouded = SHROUDED } do
        local held, message, code = bundle.pkcs12(pfx(plain_safe(sequence(bag))))
        assert.same({ nil, "cannot read the PKCS #12: malformed", "parse" }, { held, message, code }, name)
      end
      for _, type in ipairs { DATA, ENCRYPTED } do
        assert.same({ nil, "parse" }, { (bundle.pkcs12(pfx(sequence(type)))),
          select(3, bundle.pkcs12(pfx(sequence(type)))) })
      end
      refused("unsupported", "cannot read the PKCS #12: it is not protected by a password",
        bundle.pkcs12(sequence("\2\1\3", sequence(SIGNED))))
      assert.same({ certificates = {} }, bundle.pkcs12(pfx ""))
    end)

    it("refuses a key that it would take minutes to read, or that is too long", function()
      local function holding(kind, bytes)
        return pfx(plain_safe(sequence(KEY_BAG, der(0xA0, sequence("\2\1\0", sequence(kind), der(4, bytes))))))
      end
      local big = der(2, "\x7F" .. ("\xFF"):rep(8000))
      refused("parse", "cannot read the PKCS #12: a DSA or DH key, which serves no TLS",
        bundle.pkcs12(holding("\6\7\x2A\x86\x48\xCE\x38\4\1" .. sequence(big, big, "\2\1\3"), big)))
      refused("limit", "cannot read the PKCS #12: a key of more than 16384 bits",
        bundle.pkcs12(holding("\6\9\x2A\x86\x48\x86\xF7\x0D\1\1\1\5\0", ("x"):rep(16384))))
    end)

    it("refuses more than 100 certificates", function()
      local many = {}
      for i = 1, 101 do many[i] = chain[2] end
      local function written() return assert(bundle.write_pkcs12 { certificates = many, password = "x", form = "legacy" }) end
      refused("limit", "cannot read the PKCS #12: more than 100 certificates", bundle.pkcs12(written(), "x"))
      many[101] = nil
      assert.equal(100, #assert(bundle.pkcs12(written(), "x")).certificates)
    end)

    it("refuses more than 16 MiB", function()
      refused("limit", "cannot read the PKCS #12: more than 16 MiB", bundle.pkcs12(("x"):rep(16 * 1024 * 1024 + 1)))
    end)
  end)

  describe("write_pkcs12", function()
    it("makes what openssl reads, modern and legacy, each without the legacy provider", function()
      local said = {
        modern = { "MAC: sha256, Iteration 100000", "PBES2, PBKDF2, AES%-256%-CBC, Iteration 100000, PRF hmacWithSHA256" },
        legacy = { "MAC: sha1, Iteration 2048", "pbeWithSHA1And3%-KeyTripleDES%-CBC, Iteration 2048" },
      }
      for form, patterns in pairs(said) do
        local bytes = assert(bundle.write_pkcs12 { certificates = chain, key = secret, password = "secret",
          name = "a.test", form = form })
        local text, info = desk:openssl("pkcs12", "-info", "-noenc", "-passin", "pass:secret", { stdin = bytes })
        for _, pattern in ipairs(patterns) do assert.matches(pattern, info .. text) end
        assert.matches("friendlyName: a%.test", text)
        assert.equal(secret:fingerprint(), assert(key.load(text)):fingerprint())
        assert.equal(2, #assert(cert.parse(text)))
        local held = assert(bundle.pkcs12(bytes, "secret"))
        assert.same({ "a.test", secret:fingerprint(), 2 }, { held.friendly_name, held.key:fingerprint(),
          #held.certificates })
      end
    end)

    it("refuses a key that is not the leaf's", function()
      local bytes, message, code = bundle.write_pkcs12 { certificates = chain, key = key.generate "ec:P-384",
        password = "x" }
      assert.same({ nil, "mismatch" }, { bytes, code })
      assert.matches("^cannot make a PKCS #12: ", message)
    end)

    it("raises on what is no password, no form, or no certificate", function()
      for _, options in ipairs { { certificates = chain, password = "a\0b" }, { certificates = chain },
        { certificates = {}, password = "x" }, { certificates = chain, password = "x", form = "old" },
        { certificates = chain, password = "x", pass = "x" } } do
        assert.has_error(function() bundle.write_pkcs12(options) end)
      end
    end)
  end)

  describe("encrypted keys", function()
    it("of PBKDF2 and scrypt that would take over 2 seconds are refused before anything is derived", function()
      local message = "cannot read the private key: its iteration counts would take over 2 seconds"
      local clock = os.clock()
      for _, words in ipairs { { "-iter", "2100000" },
        { "-scrypt", "-scrypt_N", "16384", "-scrypt_r", "8", "-scrypt_p", "40" } } do
        desk:openssl("pkcs8", "-topk8", "-in", path "key.pem", "-passout", "pass:x", "-out", path "sealed.pem",
          table.unpack(words))
        refused("limit", message, key.load(read "sealed.pem", "x"))
      end
      assert.is_true(os.clock() - clock < 1)
      desk:openssl("pkcs8", "-topk8", "-in", path "key.pem", "-passout", "pass:x", "-out", path "sealed.pem", "-scrypt")
      assert.equal(secret:fingerprint(), assert(key.load(read "sealed.pem", "x")):fingerprint())
      assert(file.write(path "x", "x\n"))
      assert.equal(secret:fingerprint(), assert(key.open(path "sealed.pem", assert(file.password(path "x")))):fingerprint())
    end)
  end)

  it("file.password refuses a file without a first line, or of more than 4096 bytes", function()
    assert(file.write(path "empty", "\nsecret\n"))
    refused("parse", ("cannot read a password from '%s': its first line is empty"):format(path "empty"),
      file.password(path "empty"))
    assert(file.write(path "long", ("x"):rep(4097)))
    refused("limit", ("cannot read '%s': more than 4096 bytes"):format(path "long"), file.password(path "long"))
  end)
end)
