-- core.request: PKCS #10 requests, built, signed, read and shown.
-- OpenSSL's command line is the judge of what comes out.

local key = require "core.key"
local request = require "core.request"

local folder, ec

local function run(command, ...)
  local pipe = io.popen("cd '" .. folder .. "' && { " .. command:format(...) .. "; } 2>&1")
  local text = pipe:read("a")
  return text, select(3, pipe:close())
end

local function write(name, bytes)
  local file <close> = assert(io.open(folder .. "/" .. name, "wb"))
  file:write(bytes)
end

local function read(name)
  local file <close> = assert(io.open(folder .. "/" .. name, "rb"))
  return file:read("a")
end

-- A request with these options, and what openssl says about it.
local function judged(options)
  options.key = options.key or ec
  local made = assert(request.create(options))
  write("judged.csr", made:pem())
  local text, status = run("openssl req -in judged.csr -noout -verify -text -nameopt RFC2253,-esc_msb,utf8")
  assert.equal(0, status, text)
  assert.matches("self%-signature verify OK", text)
  return text, made
end

local function refused(code, message, options)
  options.key = options.key or ec
  local made, why, how = request.create(options)
  assert.is_nil(made)
  assert.equal(message, why)
  assert.equal(code, how)
end

describe("core.request", function()
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir -m 700 '" .. folder .. "'"))
    ec = assert(key.generate("ec:P-256"))
  end)

  teardown(function()
    os.execute("rm -rf '" .. folder .. "'")
  end)

  describe("create", function()
    for _, kind in ipairs { "rsa:2048", "ec:P-256", "ec:P-384", "ec:P-521", "ed25519", "ed448" } do
      it("makes a request for a key of kind " .. kind .. " that openssl verifies", function()
        local own = key.generate(kind)
        local _, made = judged { key = own, subject = { CN = "mail.contoso.com" }, domains = { "mail.contoso.com" } }
        assert.equal(own:public(), (run("openssl req -in judged.csr -noout -pubkey")))
        assert.is_true(made:verify())
        local fields = made:fields()
        assert.equal(kind, fields.key)
        assert.equal(own:fingerprint(), fields.public_key)
      end)
    end

    it("signs with the digest that is named", function()
      assert.matches("Signature Algorithm: ecdsa%-with%-SHA384", (judged { digest = "sha384" }))
      assert.matches("Signature Algorithm: sha512WithRSAEncryption",
        (judged { key = key.generate("rsa:2048"), digest = "sha512" }))
      assert.matches("Signature Algorithm: ED25519", (judged { key = key.generate("ed25519"), digest = "sha1" }))
      refused("unsupported", "cannot create a request: unknown digest 'sha0815'", { digest = "sha0815" })
    end)

    it("refuses a key that cannot sign", function()
      local made, message, code = request.create { key = key.generate("x25519"), subject = { CN = "x" } }
      assert.is_nil(made)
      assert.matches("^cannot create a request: ", message)
      assert.equal("unsupported", code)
    end)

    it("writes a subject without an order as C, ST, L, O, OU, others, CN", function()
      local text, made = judged { subject = { CN = "mail", OU = "Mail", organizationName = "Contoso", L = "Seattle",
        stateOrProvinceName = "Washington", C = "US", serialNumber = "7", GN = "Ann" } }
      assert.matches("Subject: CN=mail,serialNumber=7,GN=Ann,OU=Mail,O=Contoso,L=Seattle,ST=Washington,C=US\n", text)
      assert.equal("CN=mail,serialNumber=7,GN=Ann,OU=Mail,O=Contoso,L=Seattle,ST=Washington,C=US",
        made:fields().subject)
    end)

    it("writes a subject with an order as it is given", function()
      local parts = { { "CN", "first" }, { "DC", "com" }, { "DC", "contoso" }, { "OU", "b" }, { "OU", "a" },
        { "1.2.3.4", "x" } }
      local text, made = judged { subject = parts }
      assert.matches("Subject: 1%.2%.3%.4=#0C0178,OU=a,OU=b,DC=contoso,DC=com,CN=first\n", text)
      local fields = made:fields()
      assert.equal("1.2.3.4=#0c0178,OU=a,OU=b,DC=contoso,DC=com,CN=first", fields.subject)
      assert.equal("first", fields.common_name)
      local back = {}
      for i, part in ipairs(fields.subject_parts) do back[i] = { part.type, part.value } end
      assert.same(parts, back)
      assert.equal(fields.subject, request.create { key = ec, subject = fields.subject_parts }:fields().subject)
    end)

    it("uses the string types of RFC 5280", function()
      judged { subject = { C = "US", O = "Bücher", emailAddress = "a@contoso.com", CN = "x" } }
      local text = run("openssl asn1parse -in judged.csr")
      assert.matches(":countryName%s.-PRINTABLESTRING%s+:US", text)
      assert.matches(":organizationName%s.-UTF8STRING%s+:Bücher", text)
      assert.matches(":emailAddress%s.-IA5STRING%s+:a@contoso.com", text)
      assert.matches(":commonName%s.-UTF8STRING%s+:x", text)
    end)

    it("needs neither subject nor names", function()
      local text, made = judged {}
      assert.matches("Subject: \n", text)
      assert.not_matches("Alternative", text)
      assert.same("", made:fields().subject)
    end)

    it("refuses values that X.520 does not allow", function()
      local long = ("o"):rep(65)
      refused("limit", "cannot use O '" .. ("o"):rep(64) .. "...' in a subject: longer than 64 characters",
        { subject = { O = long } })
      judged { subject = { O = ("ü"):rep(64) } }
      refused("limit", "cannot use C 'USA' in a subject: longer than 2 characters", { subject = { C = "USA" } })
      refused("limit", "cannot use C 'U' in a subject: shorter than 2 characters", { subject = { C = "U" } })
      refused("parse", "cannot use C 'Ü1' in a subject: illegal characters", { subject = { C = "Ü1" } })
      refused("parse", "cannot use O '' in a subject: empty", { subject = { O = "" } })
      refused("parse", "cannot use CN 'a?b' in a subject: control character 0 in it", { subject = { CN = "a\0b" } })
      refused("parse", "cannot use CN 'a?b' in a subject: control character 10 in it", { subject = { CN = "a\nb" } })
      refused("parse", "cannot use CN 'a?b' in a subject: control character 127 in it",
        { subject = { CN = "a\127b" } })
      refused("parse", "cannot use CN 'a\u{85}b' in a subject: control character 133 in it",
        { subject = { CN = "a\u{85}b" } })
      refused("parse", "cannot use CN 'a\u{FFFD}b' in a subject: invalid utf8string", { subject = { CN = "a\xFFb" } })
      refused("unsupported", "cannot use XY 'a' in a subject: an unknown type of attribute",
        { subject = { XY = "a" } })
      local many = {}
      for i = 1, 65 do many[i] = { "OU", "x" } end
      refused("limit", "a subject of more than 64 attributes", { subject = many })
      local mebi = 1024 * 1024
      refused("limit", "cannot use 1.2.3.4 '" .. ("v"):rep(64) .. "...' in a subject: longer than 1 MiB",
        { subject = { ["1.2.3.4"] = ("v"):rep(mebi + 1) } })
      refused("limit", "a subject of more than 1 MiB", { subject = { ["1.2.3.4"] = ("v"):rep(mebi) } })
      local large = request.create { key = ec, subject = { ["1.2.3.4"] = ("v"):rep(mebi - 25) } }
      assert.equal(mebi - 25, #large:fields().subject_parts[1].value)
      refused("limit", "a subject of more than 1 MiB", { subject = { ["1.2.3.4"] = ("v"):rep(mebi - 24) } })
    end)

    it("refuses types and usages that have a name, but no object identifier", function()
      refused("parse", "cannot use HKDF 'x' in a subject: invalid field name", { subject = { HKDF = "x" } })
      refused("unsupported", "unknown extended key usage 'HKDF'", { extended_key_usage = { "HKDF" } })
    end)

    it("puts names and addresses into the subject alternative name, in their order", function()
      local text, made = judged { domains = { "mail.contoso.com", "192.0.2.7", "*.contoso.com", "2001:DB8:0::1",
        "_x.Contoso.COM", "::ffff:192.0.2.1" }, emails = { "postmaster@contoso.com" },
        uris = { "https://contoso.com/x" } }
      assert.matches("DNS:mail.contoso.com, IP Address:192.0.2.7, DNS:%*.contoso.com, IP Address:2001:DB8:0:0:0:0:0:1, "
        .. "DNS:_x.Contoso.COM, IP Address:0:0:0:0:0:FFFF:C000:201, email:postmaster@contoso.com, "
        .. "URI:https://contoso.com/x\n", text)
      local fields = made:fields()
      assert.same({ "mail.contoso.com", "192.0.2.7", "*.contoso.com", "2001:db8::1", "_x.Contoso.COM",
        "::ffff:192.0.2.1" }, fields.domains)
      assert.same({ type = "ip", value = "192.0.2.7" }, fields.names[2])
      assert.same({ type = "email", value = "postmaster@contoso.com" }, fields.names[7])
      assert.same({ type = "uri", value = "https://contoso.com/x" }, fields.names[8])
    end)

    it("takes thousands of names", function()
      local domains = {}
      for i = 1, 2000 do domains[i] = "h" .. i .. ".contoso.com" end
      local _, made = judged { domains = domains }
      assert.same(domains, request.parse(made:pem()):fields().domains)
    end)

    -- What openssl writes for a value of 1.2.3.4 and URIs, with the same key, whose signatures have nothing random.
    local function written(value, uris)
      local lines = { "[req]\ndistinguished_name = dn\nprompt = no\nreq_extensions = ext\nstring_mask = utf8only\n[dn]",
        "0.1.2.3.4 = " .. value, "[ext]\nsubjectKeyIdentifier = hash\nsubjectAltName = @names\n[names]" }
      for i, uri in ipairs(uris) do lines[#lines + 1] = ("URI.%d = %s"):format(i, uri) end
      write("config", table.concat(lines, "\n") .. "\n")
      local text, status = run("openssl req -new -key lengths.pem -config config -outform DER -out theirs.csr")
      assert.equal(0, status, text)
      return read("theirs.csr")
    end

    it("writes lengths as openssl does, where they begin to take more octets, and around there", function()
      local own = key.generate("ed25519")
      os.remove(folder .. "/lengths.pem")
      assert(own:save(folder .. "/lengths.pem"))
      local function same(value, uris, what)
        local made = assert(request.create { key = own, subject = { ["1.2.3.4"] = value }, uris = uris })
        assert(made:der() == written(value, uris), what)
        assert.equal(value, made:fields().subject_parts[1].value, what)
        assert.equal(#uris, #made:fields().names, what)
        assert.is_true(made:verify())
      end
      for _, length in ipairs { 127, 128, 255, 256 } do
        for less = 0, 40 do -- each element within another is a few octets longer
          same(("v"):rep(length - less), { "u:" .. ("x"):rep(length - less - 2) }, length .. " less " .. less)
        end
      end
      for _, length in ipairs { 65535, 65536 } do
        for _, less in ipairs { 0, 4, 8, 12, 16, 20, 24 } do
          local uris, left = {}, length - less
          while left > 0 do -- each URI is an element of four octets more
            local size = left > 8000 and 4000 or left > 4000 and left // 2 or left
            uris[#uris + 1], left = "u:" .. ("x"):rep(size - 6), left - size
          end
          same(("v"):rep(length - less), uris, length .. " less " .. less)
        end
      end
    end)

    it("refuses what no DNS name can be", function()
      local label = ("a"):rep(64)
      local long = (("a"):rep(60) .. "."):rep(4) .. "contoso.co" -- 254 octets
      assert.equal(254, #long)
      for name, why in pairs {
        ["a b.com"] = "a character that no DNS name has", ["a/b"] = "a character that no DNS name has",
        ["192.0.2.7:443"] = "a character that no DNS name has", ["[::1]"] = "a character that no DNS name has",
        ["fe80::1%eth0"] = "a character that no DNS name has", ["bücher.de"] = "not ASCII", [""] = "empty",
        ["a..b"] = "an empty label", [".a"] = "an empty label", ["a."] = "an empty label",
      } do
        refused("parse", "cannot use '" .. name .. "' as a DNS name: " .. why, { domains = { "ok.com", name } })
      end
      refused("parse", "cannot use 'a?b.com' as a DNS name: a character that no DNS name has",
        { domains = { "a\0b.com" } })
      refused("parse", "cannot use '192.0.2.7?' as a DNS name: a character that no DNS name has",
        { domains = { "192.0.2.7\0" } })
      refused("limit", "cannot use '" .. label .. "...' as a DNS name: a label of more than 63 octets",
        { domains = { label .. ".com" } })
      refused("limit", "cannot use '" .. long:sub(1, 64) .. "...' as a DNS name: more than 253 octets",
        { domains = { long } })
      judged { domains = { long:sub(2), ("a"):rep(63) .. ".com" } }
    end)

    it("refuses what no e-mail address or URI can be", function()
      for address, why in pairs {
        [""] = "empty", ["a"] = "no local part and domain", ["@b"] = "no local part and domain",
        ["a@"] = "no local part and domain", ["a b@c"] = "a space or a control character in it", ["ü@c"] = "not ASCII",
      } do
        refused("parse", "cannot use '" .. address .. "' as an e-mail address: " .. why, { emails = { address } })
      end
      for uri, why in pairs {
        [""] = "empty", ["/x"] = "no scheme", [":x"] = "no scheme",
        ["http://a b"] = "a space or a control character in it", ["http://ü"] = "not ASCII",
      } do
        refused("parse", "cannot use '" .. uri .. "' as a URI: " .. why, { uris = { uri } })
      end
      refused("parse", "cannot use 'x:a?b' as a URI: a space or a control character in it", { uris = { "x:a\0b" } })
      refused("limit", "cannot use '" .. ("a"):rep(64) .. "...' as an e-mail address: more than 4096 octets",
        { emails = { ("a"):rep(4096) .. "@b" } })
      refused("limit", "cannot use 'x:" .. ("a"):rep(62) .. "...' as a URI: more than 4096 octets",
        { uris = { "x:" .. ("a"):rep(4096) } })
    end)

    it("asks for usages by the names of RFC 5280, or by OID", function()
      local options = {
        key_usage = { "digitalSignature", "nonRepudiation", "keyEncipherment", "dataEncipherment", "keyAgreement",
          "keyCertSign", "cRLSign", "encipherOnly", "decipherOnly" },
        extended_key_usage = { "serverAuth", "clientAuth", "codeSigning", "emailProtection", "timeStamping",
          "OCSPSigning", "1.3.6.1.4.1.311.20.2.2", "1.2.3.4" },
      }
      local text, made = judged(options)
      assert.matches("Key Usage: critical\n%s+Digital Signature, Non Repudiation, Key Encipherment, "
        .. "Data Encipherment, Key Agreement, Certificate Sign, CRL Sign, Encipher Only, Decipher Only\n", text)
      assert.matches("Extended Key Usage: \n%s+TLS Web Server Authentication, TLS Web Client Authentication, "
        .. "Code Signing, E%-mail Protection, Time Stamping, OCSP Signing, Microsoft Smartcard Login, 1.2.3.4\n", text)
      local fields = made:fields()
      assert.same(options.key_usage, fields.key_usage)
      assert.same({ "serverAuth", "clientAuth", "codeSigning", "emailProtection", "timeStamping", "OCSPSigning",
        "msSmartcardLogin", "1.2.3.4" }, fields.extended_key_usage)
      assert.same({ "nonRepudiation" }, select(2, judged { key_usage = { "contentCommitment" } }):fields().key_usage)
    end)

    it("refuses usages that it does not know", function()
      refused("unsupported", "unknown key usage 'sign'", { key_usage = { "sign" } })
      refused("unsupported", "unknown extended key usage 'server'", { extended_key_usage = { "server" } })
      refused("unsupported", "unknown extended key usage '1.2.x'", { extended_key_usage = { "1.2.x" } })
    end)

    it("asks for basic constraints when ca is said", function()
      local text, made = judged { ca = true, path_length = 0 }
      assert.matches("Basic Constraints: critical\n%s+CA:TRUE, pathlen:0\n", text)
      assert.is_true(made:fields().ca)
      assert.equal(0, made:fields().path_length)
      text, made = judged { ca = true }
      assert.matches("Basic Constraints: critical\n%s+CA:TRUE\n", text)
      assert.is_nil(made:fields().path_length)
      text, made = judged { ca = false }
      assert.matches("Basic Constraints: critical\n%s+CA:FALSE\n", text)
      assert.is_false(made:fields().ca)
      assert.not_matches("Basic Constraints", (judged {}))
    end)

    it("asks for must-staple", function()
      local text, made = judged { must_staple = true }
      assert.matches("TLS Feature: \n%s+status_request\n", text)
      assert.is_true(made:fields().must_staple)
      assert.not_matches("TLS Feature", (judged { must_staple = false }))
    end)

    it("names the key as openssl does, unless that is not wanted", function()
      local _, made = judged {}
      write("own.pem", "")
      os.remove(folder .. "/own.pem")
      assert(ec:save(folder .. "/own.pem"))
      local theirs = run("openssl req -x509 -new -key own.pem -subj /CN=x"
        .. " | openssl x509 -noout -ext subjectKeyIdentifier")
      assert.equal(theirs:match("[%x:]+%s*$"):gsub("[:%s]", ""):lower(), made:fields().subject_key_id)
      local text
      text, made = judged { subject_key_id = false }
      assert.not_matches("Key Identifier", text)
      assert.is_nil(made:fields().subject_key_id)
    end)

    it("raises on misuse", function()
      local function raises(message, options)
        assert.error_matches(function() request.create(options) end, message)
      end
      raises("table expected")
      raises("field 'key' must be a key", {})
      raises("field 'key' must be a key", { key = "ec:P-256" })
      raises("unknown field 'domain'", { key = ec, domain = { "x" } })
      raises("a field has no name", { key = ec, "x" })
      raises("field 'domains' must be an array of strings", { key = ec, domains = "x" })
      raises("field 'domains' must be an array of strings", { key = ec, domains = { 1 } })
      raises("field 'emails' must be an array of strings", { key = ec, emails = { {} } })
      raises("field 'key_usage' must be an array of strings", { key = ec, key_usage = "digitalSignature" })
      raises("field 'extended_key_usage' must be an array of strings", { key = ec, extended_key_usage = { true } })
      raises("field 'path_length' must be an integer from 0, and needs ca = true", { key = ec, path_length = 1 })
      raises("field 'path_length' must be an integer from 0, and needs ca = true",
        { key = ec, ca = true, path_length = -1 })
      raises("field 'digest' must be a string", { key = ec, digest = 256 })
      raises("a subject must be a table, not a string", { key = ec, subject = "CN=x" })
      raises("a subject's types and values must be strings", { key = ec, subject = { CN = 1 } })
      raises("a subject's types and values must be strings", { key = ec, subject = { [2] = "x" } })
      raises("a subject must be an array of { type, value }", { key = ec, subject = { "CN" } })
      local closed = key.generate("ed25519")
      closed:close()
      raises("the key is closed", { key = closed })
      for _, field in ipairs { "subject", "domains" } do
        local own = key.generate("ed25519")
        raises("the key is closed", { key = own, [field] = setmetatable({ { "CN", "x" } }, { __len = function()
          own:close()
          return 0
        end }) })
      end
    end)
  end)

  describe("parse", function()
    local made

    setup(function()
      made = request.create { key = ec, subject = { CN = "mail.contoso.com" }, domains = { "mail.contoso.com" } }
    end)

    it("reads what create wrote, byte for byte", function()
      for _, bytes in ipairs { made:pem(), made:der() } do
        local back = assert(request.parse(bytes))
        assert.equal(made:der(), back:der())
        assert.equal(made:pem(), back:pem())
        assert.same(made:fields(), back:fields())
        assert.is_true(back:verify())
      end
    end)

    it("reads PEM as people and other programs pass it on", function()
      local pem = made:pem()
      for _, bytes in ipairs {
        (pem:gsub("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")), (pem:gsub("\n", "\r\n")),
        "\xEF\xBB\xBF" .. pem, "Dear CA,\n\n" .. pem .. "\nregards\n", (pem:gsub("\n$", "")),
        (pem:gsub("\n", " \n")), "\n\n" .. pem,
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" .. pem,
      } do
        assert.equal(made:der(), assert(request.parse(bytes)):der())
      end
    end)

    it("writes the PEM that openssl writes", function()
      write("x.csr", made:der())
      assert.equal((run("openssl req -inform DER -in x.csr")), made:pem())
    end)

    it("has the fingerprint of its DER", function()
      write("x.csr", made:der())
      assert.equal((run("sha256sum x.csr")):match("^%x+"), made:fingerprint())
    end)

    it("refuses what is no request", function()
      for _, bytes in ipairs {
        "", "hello", "\xEF\xBB\xBF", ec:public(),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ec:sign("x"):sub(2),
      } do
        local parsed, message, code = request.parse(bytes)
        assert.is_nil(parsed)
        assert.equal("cannot read the request: none in PEM or DER", message)
        assert.equal("parse", code)
      end
    end)

    it("refuses DER that is cut, goes on, or is something else", function()
      for _, bytes in ipairs {
        made:der():sub(1, -2), made:der() .. "x", "\x30\0", ("\x30\x80"):rep(1000), ec:sign("x"),
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        (ec:public():gsub("PUBLIC KEY", "CERTIFICATE REQUEST")),
      } do
        local parsed, message, code = request.parse(bytes)
        assert.is_nil(parsed)
        assert.equal("cannot read the request: malformed DER", message)
        assert.equal("parse", code)
      end
    end)

    it("reads UTF-16 of either order, with or without a mark, and base64 without armour", function()
      local wide = assert(request.create { key = assert(key.generate "ec:P-256"), subject = { CN = "wide.test" } })
      local text = wide:pem()
      local low, high = text:gsub("[%s%S]", "%0\0"), text:gsub("[%s%S]", "\0%0")
      for i, bytes in ipairs { low, high, "\xFF\xFE" .. low, "\xFE\xFF" .. high, "\xEF\xBB\xBF" .. text,
        text:match "%-\n(.-)\n%-", (text:gsub("CERTIFICATE REQUEST", "NEW %0")), "Hello\r\n" .. text:gsub("\n", "\r\n") } do
        assert.equal(wide:der(), assert(request.parse(bytes)):der(), "form " .. i)
      end
    end)

    it("refuses more than 1 MiB", function()
      local parsed, message, code = request.parse((" "):rep(1024 * 1024 + 1))
      assert.is_nil(parsed)
      assert.equal("cannot read the request: more than 1 MiB", message)
      assert.equal("limit", code)
    end)

    it("survives every octet that is changed", function()
      local der = made:der()
      for i = 1, #der do
        local spoilt = der:sub(1, i - 1) .. string.char(der:byte(i) ~ 0xFF) .. der:sub(i + 1)
        local parsed = request.parse(spoilt)
        if parsed then
          assert.is_table(parsed:fields())
          assert.is_string(tostring(parsed))
          assert.is_nil(parsed:verify())
        end
      end
    end)
  end)

  describe("verify", function()
    it("finds a signature by another key", function()
      local other = key.generate("ec:P-256")
      local mine = request.create { key = ec, subject = { CN = "mail.contoso.com" } }
      local theirs = request.create { key = other, subject = { CN = "mail.contoso.com" } }
      local der = mine:der()
      local point = theirs:der():match("\x03\x42\0(" .. ("."):rep(65) .. ")")
      local start = der:find("\x03\x42\0", 1, true) + 3
      local forged = assert(request.parse(der:sub(1, start - 1) .. point .. der:sub(start + 65)))
      assert.equal(other:fingerprint(), forged:fields().public_key)
      local valid, message, code = forged:verify()
      assert.is_nil(valid)
      assert.equal('request "mail.contoso.com" is not signed with its own key', message)
      assert.equal("mismatch", code)
    end)
  end)

  describe("fields", function()
    it("are empty where the request says nothing", function()
      local bare = request.create { key = ec, subject_key_id = false }
      assert.same({ subject = "", subject_parts = {}, domains = {}, names = {}, key_usage = {},
        extended_key_usage = {}, key = "ec:P-256", public_key = ec:fingerprint(),
        signature_algorithm = "ecdsa-with-SHA256" }, bare:fields())
    end)

    it("read what openssl wrote", function()
      write("config", [[
[req]
distinguished_name = dn
prompt = no
req_extensions = ext
string_mask = utf8only
utf8 = yes
[dn]
C = US
O = Contoso, \"Ltd\" + Sons; <x> \\ y
0.CN = first
1.CN = \#last
[ext]
subjectAltName = @names
[names]
DNS = a.contoso.com
IP = 2001:db8::2:1
otherName = 1.3.6.1.4.1.311.20.2.3;UTF8:ann@contoso.com
dirName = dn2
RID = 1.2.3
email = a@b
URI = ldap://x
[dn2]
CN = in side
O = Contoso
]])
      assert.equal("", (run("openssl req -new -newkey rsa:2048 -nodes -keyout theirs.pem -config config"
        .. " -out theirs.csr -batch 2>log || cat log")))
      local fields = assert(request.parse(read("theirs.csr"))):fields()
      local said = run("openssl req -in theirs.csr -noout -subject -nameopt RFC2253")
      assert.equal(said, "subject=" .. fields.subject .. "\n")
      assert.equal('CN=\\#last,CN=first,O=Contoso\\, \\"Ltd\\" \\+ Sons\\; \\<x\\> \\\\ y,C=US', fields.subject)
      assert.equal("#last", fields.common_name)
      assert.equal("rsa:2048", fields.key)
      assert.equal("sha256WithRSAEncryption", fields.signature_algorithm)
      assert.same({ "a.contoso.com", "2001:db8::2:1" }, fields.domains)
      assert.same({
        { type = "dns", value = "a.contoso.com" }, { type = "ip", value = "2001:db8::2:1" },
        { type = "other", value = "1.3.6.1.4.1.311.20.2.3:ann@contoso.com" },
        { type = "other", value = "O=Contoso,CN=in side" }, { type = "other", value = "1.2.3" },
        { type = "email", value = "a@b" }, { type = "uri", value = "ldap://x" },
      }, fields.names)
    end)

    -- The fields of a request whose common name (with this tag) and domain have
    -- these octets, or why it was not read.
    local function spoilt(octets, tag)
      local made = request.create { key = ec, subject = { CN = ("X"):rep(#octets) },
        domains = { ("Y"):rep(#octets) } }
      local head, size = "\x55\x04\x03", string.char(#octets)
      local function replace(bytes, old, new)
        local first, last = bytes:find(old, 1, true)
        return bytes:sub(1, first - 1) .. new .. bytes:sub(last + 1)
      end
      local der = replace(made:der(), head .. "\x0C" .. size .. ("X"):rep(#octets),
        head .. string.char(tag or 0x0C) .. size .. octets)
      der = replace(der, "\x82" .. size .. ("Y"):rep(#octets), "\x82" .. size .. octets)
      local parsed, message = request.parse(der)
      return parsed and parsed:fields() or message
    end

    it("escape control characters and edges in the subject, and keep UTF-8", function()
      assert.equal("CN=a\\0A\\00\\1B\\7Fz", spoilt("a\n\0\27\127z").subject)
      assert.equal("CN=a\\C2\\85ü\u{A0}", spoilt("a\u{85}ü\u{A0}").subject)
      assert.equal("CN=\\ a\\ ", spoilt(" a ").subject)
      assert.equal("CN=\\ ", spoilt(" ").subject)
      assert.equal("CN=\\##", spoilt("##").subject)
      assert.equal("CN=%s=", spoilt("%s=").subject)
    end)

    it("hold names whole that have a NUL in them", function()
      local fields = spoilt("good.com\0.evil")
      assert.equal("good.com\0.evil", fields.common_name)
      assert.same({ "good.com\0.evil" }, fields.domains)
    end)

    it("are valid UTF-8 whatever the request holds", function()
      local fields = spoilt("a\xFF\xC0\x80\xED\xA0\x80b", 0x13) -- PrintableString
      assert.equal("a" .. ("\u{FFFD}"):rep(6) .. "b", fields.common_name)
      assert.equal("CN=" .. fields.common_name, fields.subject)
      assert.equal(fields.common_name, fields.domains[1])
    end)

    it("read the older string types", function()
      assert.equal("ü\u{20AC}", spoilt("\0\xFC\x20\xAC", 0x1E).common_name) -- BMPString
      assert.equal("\u{1F512}", spoilt("\0\1\xF5\x12", 0x1C).common_name) -- UniversalString
      assert.equal("Bü", spoilt("B\xFC", 0x14).common_name) -- T61String
      assert.equal("CN=#03020078", spoilt("\0x", 0x03).subject) -- BIT STRING
    end)

    it("are not to be had where OpenSSL cannot compare a name that is malformed", function()
      for octets, tag in pairs { ["a\xFFb"] = 0x0C, ["\xD8\0\0x"] = 0x1E, ["\xFF\1\xF5\x12"] = 0x1C } do
        assert.equal("cannot read the request: malformed DER", spoilt(octets, tag))
      end
    end)
  end)

  describe("a request", function()
    it("shows its common name, else its first domain, else its subject", function()
      local function shown(subject, domains)
        return tostring(request.create { key = ec, subject = subject, domains = domains })
      end
      assert.equal('request "mail.contoso.com"', shown({ CN = "mail.contoso.com" }, { "x" }))
      assert.equal('request "192.0.2.7"', shown({ O = "Contoso" }, { "192.0.2.7", "x" }))
      assert.equal('request "O=Contoso"', shown { O = "Contoso" })
    end)

    it("is of no use once it is closed, and may be closed twice", function()
      local kept
      do
        local made <close> = request.create { key = ec }
        kept = made
      end
      kept:close()
      assert.equal("request (closed)", tostring(kept))
      for _, method in ipairs { "pem", "der", "fingerprint", "verify", "fields" } do
        assert.error_matches(function() kept[method](kept) end, "the request is closed")
      end
    end)

    it("outlives its key", function()
      local own = key.generate("ed25519")
      local made = request.create { key = own }
      own:close()
      collectgarbage()
      assert.is_true(made:verify())
    end)
  end)
end)
