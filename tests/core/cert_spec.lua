-- core.cert: certificates read, matched, chained, verified and issued.
-- OpenSSL's command line makes the chains, and judges what is issued here.

local cert = require "core.cert"
local key = require "core.key"
local process = require "core.process"
local request = require "core.request"
local pki = dofile(debug.getinfo(1, "S").source:match("^@(.*)cert_spec%.lua$") .. "pki.lua")

local DAY = 24 * 3600
local now = os.time()

--- Asserts nil, message, code.
local function fails(message, code, ...)
  assert.are.same({ n = 3, nil, message, code }, table.pack(...))
end

local function labels(list)
  local names = {}
  for i, c in ipairs(list) do names[i] = tostring(c):match('^cert "(.*)" until') end
  return table.concat(names, " < ")
end

describe("core.cert", function()
  local p, root, middle, leaf

  setup(function()
    p = pki.new()
    p:root("Root")
    p:issue("Root", "Middle", { kind = "ca", key = "ec:P-384", subject = "/C=US/O=Contoso/CN=Middle" })
    p:issue("Middle", "mail.contoso.com", { key = "rsa:2048", extensions = [[
subjectAltName = DNS:mail.contoso.com,DNS:*.contoso.com,DNS:*.com,DNS:f*.partial.org,IP:192.0.2.7,IP:2001:db8::1,email:admin@contoso.com
authorityInfoAccess = OCSP;URI:http://ocsp.example/,caIssuers;URI:http://ca.example/middle.cer
crlDistributionPoints = URI:http://ca.example/middle.crl,URI:ldap://ca.example/cn=x
tlsfeature = status_request
]] })
    root, middle, leaf = table.unpack(p:certificates("Root", "Middle", "mail.contoso.com"))
  end)

  teardown(function()
    p:close()
  end)

  describe("parse", function()
    it("reads a pile with text around, CRLF, a byte order mark and other kinds", function()
      local pile = "\xEF\xBB\xBFSubject: Root\n" .. p:read("Root.key") .. p:read("Root.pem") ..
        "\nBag Attributes\n" .. p:read("Middle.csr") .. p:read("Middle.pem"):gsub("\n", "\r\n")
      local list = assert(cert.parse(pile))
      assert.are.equal("Root < Middle", labels(list))
      assert.is_true(list[1] == root and list[2] == middle)
    end)

    it("reads DER, and OpenSSL's other two kinds of PEM", function()
      p:run("openssl x509 -in Root.pem -outform DER -out root.der; openssl x509 -in Root.pem -trustout -addtrust serverAuth -out root.trusted")
      assert.is_true(cert.parse(p:read("root.der"))[1] == root)
      assert.is_true(cert.parse(p:read("root.trusted"))[1] == root)
      assert.is_true(cert.parse((p:read("Root.pem"):gsub("CERTIFICATE", "X509 CERTIFICATE")))[1] == root)
    end)

    it("reads base64 on a single line and without a last newline", function()
      local body = root:pem():match("\n(.*)\n%-"):gsub("\n", "")
      local text = "-----BEGIN CERTIFICATE-----\n" .. body .. "\n-----END CERTIFICATE-----"
      assert.is_true(cert.parse(text)[1] == root)
    end)

    it("refuses what holds no certificate", function()
      for _, text in ipairs { "", "hello", p:read("Root.key"), "-----BEGIN ", "-----BEGIN CERTIFICATE", "\x30", "\x30\x80\0\0" } do
        fails("cannot read certificates: none is there", "parse", cert.parse(text))
      end
    end)

    it("refuses a pile of which one is damaged, and says which", function()
      local good = root:pem()
      fails("cannot read certificate 2: its END line is missing", "parse", cert.parse(good .. good:sub(1, -30)))
      fails("cannot read certificate 1: its END line is missing", "parse", cert.parse(good:sub(1, -30) .. good))
      fails("cannot read certificate 2: bad base64", "parse", cert.parse(good .. good:gsub("\nM", "\n!")))
      fails("cannot read certificate 1: too long", "parse",
        cert.parse((good:gsub("\nMI..", "\nMIIZ"))))
      local longer = "-----BEGIN CERTIFICATE-----\n" .. "MAMCAQE=" .. "\n-----END CERTIFICATE-----\n"
      local list, message, code = cert.parse(longer)
      assert.is_nil(list)
      assert.are.equal("parse", code)
      assert.matches("^cannot read certificate 1: ", message)
    end)

    it("refuses bytes after the end of a certificate", function()
      fails("cannot read certificates: none is there", "parse", cert.parse(root:der() .. "x"))
      local bytes = p:run("{ openssl x509 -in Root.pem -outform DER; printf 'abc'; } | openssl base64")
      fails("cannot read certificate 1: bytes after its end", "parse",
        cert.parse("-----BEGIN CERTIFICATE-----\n" .. bytes .. "-----END CERTIFICATE-----\n"))
    end)

    it("refuses a DER sequence that is no certificate", function()
      local list, message, code = cert.parse("\x30\x03\x02\x01\x01")
      assert.is_nil(list)
      assert.are.equal("parse", code)
      assert.matches("^cannot read the certificate: ", message)
    end)

    it("stops at 1 MiB and at 100 certificates", function()
      fails("cannot read certificates: more than 1048576 bytes", "limit", cert.parse(("x"):rep(1048577)))
      fails("cannot read certificates: more than 100 of them", "limit", cert.parse(root:pem():rep(101)))
      assert.are.equal(100, #cert.parse(root:pem():rep(100)))
    end)

    it("is through with a pile of nothing but marker lines at once", function()
      local started = os.clock()
      fails("cannot read certificates: none is there", "parse", cert.parse(("-----BEGIN X-----"):rep(61000)))
      fails("cannot read certificates: none is there", "parse", cert.parse(("-----BEGIN "):rep(95000)))
      assert.is_true(os.clock() - started < 1)
    end)

    it("raises without bytes", function()
      assert.has_error(function() cert.parse() end)
      assert.has_error(function() cert.parse({}) end)
    end)
  end)

  describe("open", function()
    local file = require "core.file"

    local function write(bytes)
      local path = p:path "opened"
      assert(file.write(path, bytes, { exclusive = false }))
      return path
    end

    it("reads the certificates of a file that holds a key as well", function()
      local list = assert(cert.open(write(p:read("Root.key") .. p:read("Root.pem") .. p:read("Middle.key") ..
        p:read("Middle.pem"):gsub("\n$", ""))))
      assert.are.equal("Root < Middle", labels(list))
      assert.is_true(list[1] == root and list[2] == middle)
    end)

    it("reads DER and OpenSSL's trusted kind", function()
      p:run("openssl x509 -in Root.pem -trustout -addtrust serverAuth -out root.trusted")
      assert.is_true(cert.open(write(root:der()))[1] == root)
      assert.is_true(cert.open(p:path "root.trusted")[1] == root)
    end)

    it("says what is wrong, and with which file", function()
      local path = write(p:read("Root.key"))
      fails(("'%s': cannot read certificates: none is there"):format(path), "parse", cert.open(path))
      write(root:pem():sub(1, -30))
      fails(("'%s': cannot read certificate 1: its END line is missing"):format(path), "parse", cert.open(path))
      write(("x"):rep(1048577))
      fails(("cannot read '%s': more than 1048576 bytes"):format(path), "limit", cert.open(path))
      fails("cannot read '/no/such': No such file or directory", "missing", cert.open("/no/such"))
      fails("cannot read '/tmp': not a regular file", "io", cert.open("/tmp"))
      assert.has_error(function() cert.open() end)
    end)
  end)

  describe("a certificate", function()
    it("gives the fields that openssl shows", function()
      local f = leaf:fields()
      local function shown(option)
        return p:run("openssl x509 -in mail.contoso.com.pem -noout %s", option):gsub("\n$", "")
      end
      assert.are.equal("CN=mail.contoso.com", f.subject)
      assert.are.same({ { type = "CN", value = "mail.contoso.com" } }, f.subject_parts)
      assert.are.equal("mail.contoso.com", f.common_name)
      assert.are.equal("CN=Middle,O=Contoso,C=US", f.issuer)
      assert.are.equal(shown("-issuer -nameopt RFC2253"), "issuer=" .. f.issuer)
      assert.are.same({ "C", "O", "CN" }, { f.issuer_parts[1].type, f.issuer_parts[2].type, f.issuer_parts[3].type })
      assert.is_false(f.self_issued)
      assert.are.equal(shown("-serial"):lower(), "serial=" .. f.serial)
      assert.are.equal(shown("-dates -dateopt iso_8601"),
        os.date("!notBefore=%Y-%m-%d %H:%M:%SZ\n", f.not_before) .. os.date("!notAfter=%Y-%m-%d %H:%M:%SZ", f.not_after))
      assert.are.equal(shown("-fingerprint -sha256"):gsub(":", ""):lower(), "sha256 fingerprint=" .. f.fingerprint)
      assert.are.equal(shown("-fingerprint -sha1"):gsub(":", ""):lower(), "sha1 fingerprint=" .. f.thumbprint)
      local spki = p:run("openssl x509 -in mail.contoso.com.pem -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum")
      assert.are.equal(spki:match("%x+"), f.public_key)
      assert.are.equal("rsa:2048", f.key)
      assert.are.equal("ecdsa-with-SHA256", f.signature_algorithm)
      assert.are.same({ "digitalSignature" }, f.key_usage)
      assert.are.same({ "serverAuth" }, f.extended_key_usage)
      assert.are.same({ "mail.contoso.com", "*.contoso.com", "*.com", "f*.partial.org", "192.0.2.7", "2001:db8::1" }, f.domains)
      assert.are.same({ type = "email", value = "admin@contoso.com" }, f.names[7])
      assert.is_false(f.ca)
      assert.is_true(f.must_staple)
      assert.are.same({ "http://ocsp.example/" }, f.ocsp)
      assert.are.same({ "http://ca.example/middle.cer" }, f.issuers)
      assert.are.same({ "http://ca.example/middle.crl", "ldap://ca.example/cn=x" }, f.crls)
      assert.are.equal(middle:fields().subject_key_id, f.authority_key_id)
      assert.are.equal(3, f.version)
    end)

    it("gives empty lists and nil for what it does not say", function()
      p:key("bare")
      p:run("openssl req -x509 -new -config Root.conf -key bare.key -subj / -set_serial 0x00ff -days 1 -out bare.pem")
      local f = p:certificates("bare")[1]:fields()
      for _, name in ipairs { "domains", "names", "ocsp", "issuers", "crls", "key_usage", "extended_key_usage", "subject_parts" } do
        assert.are.same({}, f[name])
      end
      for _, name in ipairs { "common_name", "ca", "path_length", "authority_key_id", "must_staple", "subject_key_id" } do
        assert.is_nil(f[name])
      end
      assert.are.equal("ff", f.serial)
      assert.is_true(f.self_issued)
      assert.are.equal("", f.subject)
      assert.are.equal(("cert \"serial ff\" until %s"):format(os.date("!%Y-%m-%d", f.not_after)), tostring(p:certificates("bare")[1]))
    end)

    it("names the type of each kind of key", function()
      for _, kind in ipairs { "rsa:1024", "ec:P-384", "ed25519", "ed448" } do
        p:root("kind", { key = kind })
        assert.are.equal(kind, p:certificates("kind")[1]:fields().key)
      end
      p:run("openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out pss.key; openssl req -x509 -new -config Root.conf -key pss.key -subj /CN=pss -out pss.pem")
      local f = p:certificates("pss")[1]:fields()
      assert.are.equal("rsa-pss rsassaPss", f.key .. " " .. f.signature_algorithm)
    end)

    it("takes any digest for its fingerprint and raises for one that is none", function()
      assert.are.equal(leaf:fields().thumbprint, leaf:fingerprint("sha1"))
      assert.are.equal(128, #leaf:fingerprint("sha512"))
      assert.has_error(function() leaf:fingerprint("nonsense") end, "bad argument #1 to 'fingerprint' (no such digest)")
    end)

    it("encodes as openssl does", function()
      assert.are.equal(p:run("openssl x509 -in mail.contoso.com.pem"), leaf:pem())
      assert.are.equal(p:run("openssl x509 -in mail.contoso.com.pem -outform DER"), leaf:der())
      assert.are.equal(leaf:fields().public_key, leaf:public_key())
    end)

    it("is equal to another of the same DER only", function()
      assert.is_true(cert.parse(leaf:pem())[1] == leaf)
      assert.is_false(leaf == middle)
      assert.is_false(leaf == io.stdout)
    end)

    it("shows its name and its last day", function()
      assert.are.equal(os.date('!cert "mail.contoso.com" until %Y-%m-%d', leaf:fields().not_after), tostring(leaf))
    end)

    it("matches its own key and request, and no other", function()
      for _, kind in ipairs { "ec:P-256", "rsa:2048", "ed25519", "ec:P-384" } do
        p:root("own", { key = kind })
        p:run("openssl req -new -config Root.conf -key own.key -subj /CN=x -out own.csr")
        local own = p:certificates("own")[1]
        assert.is_true(own:matches(key.load(p:read("own.key"))))
        assert.is_true(own:matches(request.parse(p:read("own.csr"))))
        assert.is_false(own:matches(key.load(p:read("Root.key"))))
        assert.is_false(own:matches(request.parse(p:read("Middle.csr"))))
      end
      assert.has_error(function() leaf:matches("key") end)
    end)

    it("matches an EC key whose point is compressed in the certificate", function()
      p:run("openssl ecparam -name prime256v1 -genkey -noout -conv_form compressed -out squeezed.key")
      p:run("openssl req -x509 -new -config Root.conf -key squeezed.key -subj /CN=x -out squeezed.pem")
      p:run("openssl ec -in squeezed.key -conv_form uncompressed -out plain.key")
      assert.is_true(p:certificates("squeezed")[1]:matches(key.load(p:read("plain.key"))))
    end)
  end)

  describe("covers", function()
    local function covers(yes, names)
      for _, name in ipairs(names) do
        assert.are.equal(yes, leaf:covers(name), name)
      end
    end

    it("takes DNS names regardless of case and of a trailing dot", function()
      covers(true, { "mail.contoso.com", "MAIL.Contoso.COM", "mail.contoso.com." })
      covers(false, { "", ".", "contoso.com", "mail.contoso.com..", "mail.contoso.com\0", "mail.contoso.com\0.evil.org", "mail.contoso.co" })
    end)

    it("takes a wildcard for exactly one whole label", function()
      covers(true, { "x.contoso.com", "*.contoso.com", "xn--bcher-kva.contoso.com" })
      covers(false, { "a.b.contoso.com", ".contoso.com", "contoso.com", "x.contoso.com.evil.org" })
    end)

    it("takes no wildcard above a single label, and no part of a label", function()
      covers(false, { "example.com", "foo.partial.org" })
    end)

    it("takes addresses from iPAddress only, in any spelling", function()
      covers(true, { "192.0.2.7", "2001:db8::1", "2001:0DB8:0:0::1" })
      covers(false, { "192.0.2.8", "2001:db8::2", "::ffff:192.0.2.7", "192.0.2.7.", "[2001:db8::1]" })
      p:issue("Middle", "address", { extensions = "subjectAltName = DNS:192.0.2.9,DNS:*.0.2.10" })
      assert.is_false(p:certificates("address")[1]:covers("192.0.2.9"))
      assert.is_false(p:certificates("address")[1]:covers("192.0.2.10"))
    end)

    it("never takes the common name", function()
      p:issue("Middle", "named.contoso.com")
      assert.is_false(p:certificates("named.contoso.com")[1]:covers("named.contoso.com"))
    end)

    it("takes no name at all from two SAN extensions, or from a malformed one", function()
      p:issue("Middle", "twice", { extensions = "2.5.29.99 = DER:30058203612e62\nsubjectAltName = DNS:c.d\n" })
      p:issue("Middle", "broken", { extensions = "2.5.29.17 = DER:30098203612e628220632e64\n" })
      local once, broken = table.unpack(p:certificates("twice", "broken"))
      local twice = cert.parse((once:der():gsub("\x55\x1D\x63", "\x55\x1D\x11")))[1]
      assert.is_true(once:covers("c.d"))
      assert.is_false(twice:covers("a.b"))
      assert.is_false(twice:covers("c.d"))
      assert.is_false(broken:covers("c.d"))
      assert.is_table(twice:fields())
      assert.are.same({}, broken:fields().domains)
    end)
  end)

  describe("chain", function()
    it("puts a pile in order from the leaf to the root", function()
      assert.are.equal("mail.contoso.com < Middle < Root", labels(cert.chain { root, leaf, middle }))
      assert.are.equal("mail.contoso.com < Middle < Root", labels(cert.chain { middle, middle, leaf, root, leaf, root }))
      assert.are.equal("Middle < Root", labels(cert.chain { root, middle }))
      assert.are.equal("Root", labels(cert.chain { root }))
    end)

    it("hands back the certificates of the pile themselves", function()
      local chain = cert.chain { middle, leaf }
      assert.is_true(rawequal(chain[1], leaf) and rawequal(chain[2], middle))
    end)

    it("ends where an issuer is not in the pile", function()
      assert.are.equal("mail.contoso.com", labels(cert.chain { root, leaf }))
      assert.are.equal("mail.contoso.com < Middle", labels(cert.chain { leaf, middle }))
    end)

    it("starts from the leaf that is given, in the pile or not", function()
      p:issue("Root", "other")
      local other = p:certificates("other")[1]
      assert.are.equal("other < Root", labels(cert.chain({ leaf, middle, root, other }, other)))
      assert.are.equal("other < Root", labels(cert.chain({ leaf, middle, root }, other)))
      assert.are.equal("other", labels(cert.chain({}, other)))
    end)

    it("cannot tell the leaf of a pile with two", function()
      p:issue("Root", "other")
      fails('cannot tell which certificate is the leaf: "other", "mail.contoso.com"', "mismatch",
        cert.chain { p:certificates("other")[1], middle, leaf })
    end)

    it("finds none in an empty pile", function()
      fails("cannot build a chain: no certificate was given", "missing", cert.chain {})
    end)

    it("takes an issuer by its signature, not by its name", function()
      local q <close> = pki.new()
      q:root("Root") -- same name, other key, no identifiers that could tell
      p:root("Nameless", { subject = "/CN=Nameless", extensions = "basicConstraints = CA:TRUE\n" })
      q:root("Nameless", { subject = "/CN=Nameless", extensions = "basicConstraints = CA:TRUE\n" })
      p:issue("Nameless", "end", { only = "basicConstraints = CA:FALSE\n" })
      local good, bad, last = p:certificates("Nameless")[1], q:certificates("Nameless")[1], p:certificates("end")[1]
      assert.are.equal("end", labels(cert.chain { bad, last }))
      assert.is_true(cert.chain({ bad, last, good })[2] == good)
    end)

    it("ends at certificates that issued each other", function()
      p:root("A")
      p:root("B")
      p:run("openssl x509 -in A.pem -x509toreq -signkey A.key -out A.csr; openssl x509 -in B.pem -x509toreq -signkey B.key -out B.csr")
      p:write("cross.ext", "basicConstraints = critical,CA:TRUE\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n")
      p:run("openssl ca -batch -notext -config B.conf -in A.csr -extfile cross.ext -out A2.pem")
      p:run("openssl ca -batch -notext -config A.conf -in B.csr -extfile cross.ext -out B2.pem")
      local a, b = table.unpack(p:certificates("A2", "B2"))
      fails("cannot build a chain: each certificate issued another", "missing", cert.chain { a, b })
      assert.are.equal("A < B", labels(cert.chain({ a, b }, a)))
    end)

    it("raises for what is no pile", function()
      assert.has_error(function() cert.chain() end, "pile: an array of certificates expected, got nil")
      assert.has_error(function() cert.chain { leaf, "x" } end, "pile[2]: a certificate expected, got string")
    end)
  end)

  describe("extensions", function()
    it("are all there, in their order, with what openssl says of them", function()
      p:issue("Middle", "extended", { only = "basicConstraints = critical,CA:FALSE\n1.3.6.1.4.1.99999.7 = DER:0402cafe\n"
        .. "subjectAltName = DNS:a.b\n1.3.6.1.4.1.99999.8 = DER:" .. ("30"):rep(100) .. "\n2.5.29.31 = DER:0500\n" })
      local list = p:certificates("extended")[1]:extensions()
      assert.same({ oid = "2.5.29.19", name = "X509v3 Basic Constraints", critical = true, text = "CA:FALSE", size = 2, hex = "3000" }, list[1])
      assert.same({ oid = "1.3.6.1.4.1.99999.7", critical = false, size = 4, hex = "0402cafe" }, list[2])
      assert.same({ oid = "2.5.29.17", name = "X509v3 Subject Alternative Name", critical = false, text = "DNS:a.b", size = 7,
        hex = "30058203612e62" }, list[3])
      assert.same({ oid = "1.3.6.1.4.1.99999.8", critical = false, size = 100, hex = ("30"):rep(64) }, list[4])
      assert.same({ "2.5.29.31", nil, "0500" }, { list[5].oid, list[5].text, list[5].hex }) -- malformed
    end)

    it("are none where there are none", function()
      local one = key.generate "ed25519"
      local bare = assert(cert.issue { key = one, public = one, subject = { CN = "x" }, not_before = 0, not_after = 1, subject_key_id = false })
      assert.same({}, bare:extensions())
    end)
  end)

  describe("verify", function()
    local function verify(options, chain)
      options.chain = chain or { leaf, middle }
      options.anchors = options.anchors or { root }
      return cert.verify(options)
    end

    it("trusts a chain to an anchor, in whatever order the help comes", function()
      assert.is_true(verify { name = "mail.contoso.com", purpose = "server" })
      assert.is_true(verify({}, { leaf, root, p:certificates("Root")[1], middle }))
      assert.is_true(verify { anchors = { "system", root } })
    end)

    it("returns the path from the leaf to the anchor", function()
      local ok, path = verify({}, { leaf, root, middle })
      assert.is_true(ok)
      assert.equal(3, #path)
      for i, one in ipairs { leaf, middle, root } do assert.is_true(path[i] == one) end
      ok, path = verify({ anchors = { middle } }, { leaf })
      assert.same({ true, 2, true }, { ok, #path, path[2] == middle })
    end)

    it("trusts an intermediate and a leaf as anchors", function()
      assert.is_true(verify({ anchors = { middle } }, { leaf }))
      assert.is_true(verify({ anchors = { leaf } }, { leaf }))
    end)

    it("trusts RSA, EC and Ed25519 alike", function()
      for _, kind in ipairs { "rsa:2048", "ec:P-256", "ed25519", "ed448" } do
        p:root("anchor", { key = kind })
        p:issue("anchor", "link", { kind = "ca", key = kind })
        p:issue("link", "end.org", { key = kind, extensions = "subjectAltName = DNS:end.org" })
        local list = p:certificates("end.org", "link", "anchor")
        assert.is_true(cert.verify { chain = list, anchors = { list[3] }, name = "end.org", purpose = "server" })
      end
    end)

    it("does not trust a chain to an unknown root", function()
      local q <close> = pki.new()
      q:root("Stranger")
      local anchors = q:certificates("Stranger")
      fails('no trusted issuer for "mail.contoso.com": "Root" is not a known anchor', "untrusted",
        verify({ anchors = anchors }, { leaf, middle, root }))
      fails('no trusted issuer for "Middle": "Root" is not in the chain and is not a known anchor', "untrusted",
        verify({ anchors = anchors }))
      fails('no trusted issuer for "Root": it is self-signed and is not a known anchor', "untrusted",
        verify({ anchors = {} }, { root }))
      fails('no trusted issuer for "Middle": "Root" is not in the chain and is not a known anchor', "untrusted",
        verify { anchors = "system" })
    end)

    it("misses an intermediate", function()
      fails('no trusted issuer for "mail.contoso.com": "Middle" is not in the chain and is not a known anchor', "untrusted",
        verify({}, { leaf }))
    end)

    it("finds anchors in a folder of hashed certificates", function()
      p:run("mkdir -p hashed && cp Root.pem hashed/ && openssl rehash hashed")
      assert.is_true(verify { anchors = "system", anchors_directory = p:path("hashed") })
      fails('no trusted issuer for "Middle": "Root" is not in the chain and is not a known anchor', "untrusted",
        verify { anchors = "system", anchors_directory = p:path("nowhere") })
    end)

    it("refuses what has expired and what is not valid yet", function()
      p:issue("Middle", "old", { from = "20200101000000Z", to = "20200301000000Z" })
      p:issue("Middle", "new", { from = "20490101000000Z", to = "20500301000000Z" })
      local old, new = table.unpack(p:certificates("old", "new"))
      fails('certificate "old" expired on 2020-03-01', "expired", verify({}, { old, middle }))
      fails('certificate "new" is not valid before 2049-01-01', "expired", verify({}, { new, middle }))
      p:issue("Root", "Aged", { kind = "ca", from = "20200101000000Z", to = "20210101000000Z" })
      p:issue("Aged", "young")
      fails('certificate "Aged" expired on 2021-01-01', "expired", verify({}, p:certificates("young", "Aged")))
    end)

    it("judges at the time that is given", function()
      local ends = leaf:fields().not_after
      assert.is_true(verify { at = ends - 1 })
      fails(os.date('!certificate "mail.contoso.com" expired on %Y-%m-%d', ends), "expired", verify { at = ends + 1 })
    end)

    it("refuses a name that is not covered", function()
      fails('certificate "mail.contoso.com" does not cover "mail.fabrikam.com"', "mismatch", verify { name = "mail.fabrikam.com" })
      fails('certificate "mail.contoso.com" does not cover ""', "mismatch", verify { name = "" })
      assert.is_true(verify { name = "192.0.2.7" })
      assert.is_true(verify { name = "admin@contoso.com" })
      fails('certificate "mail.contoso.com" does not cover "root@contoso.com"', "mismatch", verify { name = "root@contoso.com" })
    end)

    it("takes a name from the common name only when it is not strict", function()
      p:issue("Middle", "named.contoso.com")
      local chain = { p:certificates("named.contoso.com")[1], middle }
      fails('certificate "named.contoso.com" does not cover "named.contoso.com"', "mismatch", verify({ name = "named.contoso.com" }, chain))
      assert.is_true(verify({ name = "named.contoso.com.", strict = false }, chain))
      assert.is_not_true((verify({ name = "other.contoso.com", strict = false }, chain)))
    end)

    it("refuses a certificate for another purpose", function()
      fails('certificate "mail.contoso.com" is not meant for purpose "client"', "mismatch", verify { purpose = "client" })
      fails('certificate "mail.contoso.com" is not meant for purpose "email"', "mismatch", verify { purpose = "email" })
      assert.is_true(verify { purpose = "any" })
      p:issue("Middle", "person", { only = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=clientAuth,emailProtection\nauthorityKeyIdentifier=keyid\n" })
      local chain = { p:certificates("person")[1], middle }
      assert.is_true(verify({ purpose = "client" }, chain))
      assert.is_true(verify({ purpose = "email" }, chain))
      fails('certificate "person" is not meant for purpose "server"', "mismatch", verify({ purpose = "server" }, chain))
    end)

    it("refuses an issuer that is no CA, and a path longer than allowed", function()
      p:issue("Middle", "NoCA", { extensions = "", only = "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n" })
      p:authority("NoCA")
      p:issue("NoCA", "bastard")
      local chain = p:certificates("bastard", "NoCA", "Middle")
      fails('certificate "NoCA" is not trusted: invalid CA certificate', "untrusted", verify({}, chain))
      p:issue("Root", "Short", { kind = "ca", extensions = "", only = [[
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
]] })
      p:issue("Short", "Beyond", { kind = "ca" })
      p:issue("Beyond", "far")
      fails('certificate "Short" is not trusted: path length constraint exceeded', "untrusted",
        verify({}, p:certificates("far", "Beyond", "Short")))
    end)

    it("takes no more intermediates than depth", function()
      assert.is_true(verify { depth = 1 })
      local ok, message, code = verify { depth = 0 }
      assert.is_nil(ok)
      assert.are.equal("untrusted", code)
      assert.matches("certificate chain too long", message)
    end)

    it("keeps to name constraints", function()
      p:issue("Root", "Bound", { kind = "ca", extensions = "nameConstraints = critical,permitted;DNS:contoso.com,excluded;DNS:hr.contoso.com\n" })
      local function trial(name, domain)
        p:issue("Bound", name, { extensions = "subjectAltName = DNS:" .. domain })
        return verify({ name = domain }, p:certificates(name, "Bound"))
      end
      assert.is_true(trial("inside", "mail.contoso.com"))
      fails('certificate "outside" is not trusted: permitted subtree violation', "untrusted", trial("outside", "mail.fabrikam.com"))
      fails('certificate "excluded" is not trusted: excluded subtree violation', "untrusted", trial("excluded", "x.hr.contoso.com"))
    end)

    it("refuses a forged signature", function()
      local der = leaf:der()
      local forged = cert.parse(der:sub(1, -2) .. string.char(der:byte(-1) ~ 1))[1]
      fails('certificate "mail.contoso.com" is not trusted: certificate signature failure', "untrusted", verify({}, { forged, middle }))
    end)

    it("refuses keys and digests of less than 112 bits when it is strict", function()
      p:issue("Middle", "weak", { key = "rsa:1024" })
      local weak = { p:certificates("weak")[1], middle }
      fails('certificate "weak" is not trusted: EE certificate key too weak', "untrusted", verify({}, weak))
      assert.is_true(verify({ strict = false }, weak))
      p:issue("Middle", "sha", { digest = "sha1" })
      local sha = { p:certificates("sha")[1], middle }
      fails('certificate "sha" is not trusted: CA signature digest algorithm too weak', "untrusted", verify({}, sha))
      assert.is_true(verify({ strict = false }, sha))
    end)

    it("asks RFC 5280's forms of the chain when it is strict", function()
      p:issue("Middle", "informal", { only = "basicConstraints = CA:FALSE\nauthorityKeyIdentifier = none\n" })
      local informal = { p:certificates("informal")[1], middle }
      fails('certificate "informal" is not trusted: Missing Authority Key Identifier', "untrusted", verify({}, informal))
      assert.is_true(verify({ strict = false }, informal))
    end)

    it("trusts an anchor without key usage and identifiers even when it is strict", function()
      p:root("Elder", { extensions = "basicConstraints = CA:TRUE\n" })
      p:issue("Elder", "heir")
      assert.is_true(verify({ anchors = p:certificates("Elder") }, p:certificates("heir")))
      p:run("openssl req -new -config Elder.conf -key Elder.key -subj /CN=First -out First.csr; openssl x509 -req -in First.csr -signkey Elder.key -days 99 -out First.pem")
      assert.are.equal(1, p:certificates("First")[1]:fields().version)
      local first = p:certificates("First")[1]
      local child = assert(cert.issue { key = key.load(p:read("Elder.key")), issuer = first, public = key.generate("ec:P-256"), subject = { CN = "child" },
        not_before = now - DAY, not_after = now + DAY })
      assert.is_true(verify({ anchors = { first } }, { child }))
    end)

    it("says that extensions are malformed rather than that an issuer is missing", function()
      p:issue("Middle", "broken", { extensions = "2.5.29.31 = DER:30060604\n" })
      fails('certificate "broken" is not trusted: an extension is malformed', "untrusted",
        verify({}, { p:certificates("broken")[1], middle }))
    end)

    it("says that a key is of an unknown kind", function()
      p:issue("Middle", "future", { key = "ed25519" })
      local der = p:certificates("future")[1]:der():gsub("\x30\x05\x06\x03%+\x65\x70", "\x30\x05\x06\x03\x2B\x65\x7A")
      local future = cert.parse(der)[1]
      assert.are.equal("1.3.101.122", future:fields().key)
      assert.is_false(future:matches(key.load(p:read("future.key"))))
      fails('certificate "future" is not trusted: its public key cannot be read', "untrusted", verify({}, { future, middle }))
      fails('certificate "future" is not trusted: its public key cannot be read', "untrusted", verify({ strict = false }, { future, middle }))
    end)

    it("refuses what is revoked, and does with the lists that are there", function()
      p:issue("Middle", "gone")
      p:issue("Middle", "here")
      p:revoke("Middle", "gone")
      local crls = p:crl("Middle")
      local gone, here = table.unpack(p:certificates("gone", "here"))
      fails(os.date('!certificate "gone" was revoked on %Y-%m-%d'), "revoked", verify({ crls = crls }, { gone, middle }))
      assert.is_true(verify({}, { gone, middle }))
      assert.is_true(verify({ crls = crls }, { here, middle }))
      assert.is_true(verify({ crls = "text\n" .. p:crl("Root") .. crls }, { here, middle }))
      p:run("openssl crl -in Middle.crl -outform DER -out crl.der")
      fails(os.date('!certificate "gone" was revoked on %Y-%m-%d'), "revoked", verify({ crls = p:read("crl.der") }, { gone, middle }))
    end)

    it("refuses an intermediate that is revoked", function()
      p:issue("Root", "Lost", { kind = "ca" })
      p:issue("Lost", "orphan")
      p:revoke("Root", "Lost")
      fails(os.date('!certificate "Lost" was revoked on %Y-%m-%d'), "revoked",
        verify({ crls = p:crl("Root") .. p:crl("Lost") }, p:certificates("orphan", "Lost")))
    end)

    it("leaves it open when the leaf's list is missing, stale or forged", function()
      fails('no usable revocation list for "mail.contoso.com": unable to get certificate CRL', "missing", verify { crls = p:crl("Root") })
      fails('no usable revocation list for "mail.contoso.com": CRL has expired', "missing",
        verify { crls = p:crl("Middle", "-crl_lastupdate 20200101000000Z -crl_nextupdate 20200102000000Z") })
      local crl = p:crl("Middle")
      p:run("openssl crl -in Middle.crl -outform DER -out crl.der")
      local der = p:read("crl.der")
      fails('no usable revocation list for "mail.contoso.com": CRL signature failure', "missing",
        verify { crls = der:sub(1, -2) .. string.char(der:byte(-1) ~ 1) })
      assert.is_true(verify { crls = crl })
    end)

    it("needs no list for an anchor that is an intermediate", function()
      assert.is_true(verify({ anchors = { middle }, crls = p:crl("Middle") .. p:crl("Root") }, { leaf }))
    end)

    it("refuses revocation lists that it cannot read", function()
      fails("cannot read the revocation lists: more than 67108864 bytes", "limit", verify { crls = ("x"):rep(67108865) })
      fails("cannot read the revocation lists: none is there", "parse", verify { crls = root:pem() })
      fails("cannot read the revocation lists: bad base64 decode", "parse",
        verify { crls = p:crl("Middle") .. "-----BEGIN X509 CRL-----\n!!!!\n-----END X509 CRL-----\n" })
      local _, message, code = verify { crls = "" }
      assert.are.equal("parse", code)
      assert.matches("^cannot read the revocation lists: ", message)
    end)

    it("asks nobody for the password of a revocation list that is encrypted", function()
      local sealed = p:crl("Middle"):gsub("\n", "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC," .. ("0"):rep(32) .. "\n\n", 1)
      local code = ([[local all = core.cert.parse(%q)
        print(core.cert.verify { chain = all, anchors = all, crls = %q })]]):format(root:pem(), sealed)
      local result = assert(process.run({ require("core.file").link "/proc/self/exe", "-e", code }, { stdin = "password\n" }))
      assert.are.equal("", result.stderr)
      assert.matches("^nil\tcannot read the revocation lists: [%l ]+\tparse\n$", result.stdout)
    end)

    it("raises for options of another kind", function()
      local function raises(message, options)
        assert.has_error(function() verify(options) end, message)
      end
      raises("bad argument #1 to 'verify' (unknown field 'host')", { host = "x" })
      raises("field 'purpose': no purpose 'web'", { purpose = "web" })
      raises("field 'at': whole number expected, got string", { at = "1" })
      raises("field 'at': whole number expected, got number", { at = 1.5 })
      raises("field 'name': string expected, got number", { name = 1 })
      raises("field 'anchors'[1]: a certificate expected, got string", { anchors = { "x" } })
      raises("bad argument #1 to 'verify' (field 'depth': 0 to 100 expected)", { depth = -1 })
      assert.has_error(function() verify({}, {}) end, "bad argument #1 to 'verify' (the chain is empty)")
      assert.has_error(function() cert.verify { chain = { leaf } } end, "field 'anchors': an array of certificates expected, got nil")
    end)
  end)

  describe("issue", function()
    local authority, own
    local times = { not_before = now - DAY, not_after = now + 90 * DAY }

    local function issue(options)
      for name, value in pairs(times) do
        if options[name] == nil then options[name] = value end
      end
      return cert.issue(options)
    end

    setup(function()
      authority = key.load(p:read("Middle.key"))
      own = key.generate("ec:P-256")
    end)

    it("makes a chain that openssl trusts strictly", function()
      for _, kind in ipairs { "ec:P-256", "rsa:2048", "ed25519" } do
        local keys = { key.generate(kind), key.generate(kind), key.generate(kind) }
        local usage = { "keyCertSign", "cRLSign" }
        local top = assert(issue { key = keys[1], subject = { CN = "Top" }, ca = true, key_usage = usage })
        local mid = assert(issue { key = keys[1], issuer = top, public = keys[2], subject = { CN = "Mid" }, ca = true, path_length = 0, key_usage = usage })
        local wish = request.create { key = keys[3], subject = { CN = "www.contoso.com", O = "Contoso" }, domains = { "www.contoso.com", "192.0.2.1" } }
        local last = assert(issue { key = keys[2], issuer = mid, request = wish, ca = false, key_usage = { "digitalSignature" }, extended_key_usage = { "serverAuth" } })
        p:write("top.pem", top:pem())
        p:write("mid.pem", mid:pem())
        p:write("last.pem", last:pem())
        assert.matches("last.pem: OK", p:run("openssl verify -x509_strict -auth_level 2 -purpose sslserver -verify_hostname www.contoso.com -CAfile top.pem -untrusted mid.pem last.pem"))
        assert.is_true(cert.verify { chain = { last, mid }, anchors = { top }, name = "192.0.2.1", purpose = "server" })
        assert.is_true(last:matches(keys[3]) and last:matches(wish))
        assert.are.equal("CN=www.contoso.com,O=Contoso", last:fields().subject)
        assert.are.same({ "www.contoso.com", "192.0.2.1" }, last:fields().domains)
        assert.are.same(last:fields(), cert.parse(last:der())[1]:fields())
      end
    end)

    it("puts in what is asked, and nothing else", function()
      local f = assert(issue { key = authority, issuer = middle, public = own, subject = { { "C", "US" }, { "CN", "Übung" } },
        domains = { "a.org", "*.b.org" }, emails = { "x@a.org" }, uris = { "urn:x:1" }, serial = "00AbC", must_staple = true,
        crls = { "http://c/1", "http://c/2" }, ocsp = { "http://o/" }, issuers = { "http://i/" }, digest = "sha384" }):fields()
      assert.are.equal("CN=Übung,C=US", f.subject)
      assert.are.equal("CN=Middle,O=Contoso,C=US", f.issuer)
      assert.are.equal("0abc", f.serial)
      assert.are.equal(now - DAY, f.not_before)
      assert.are.equal(now + 90 * DAY, f.not_after)
      assert.are.same({ "a.org", "*.b.org" }, f.domains)
      assert.are.equal(4, #f.names)
      assert.are.same({ "http://c/1", "http://c/2" }, f.crls)
      assert.are.same({ "http://o/" }, f.ocsp)
      assert.are.same({ "http://i/" }, f.issuers)
      assert.is_true(f.must_staple)
      assert.are.equal("ecdsa-with-SHA384", f.signature_algorithm)
      assert.are.equal(middle:fields().subject_key_id, f.authority_key_id)
      assert.are.equal(40, #f.subject_key_id)
      assert.is_nil(f.ca)
      assert.are.same({}, f.key_usage)
    end)

    it("writes extensions that openssl reads", function()
      local c = assert(issue { key = own, subject = { CN = "x" }, crls = { "http://c/1", "http://c/2" }, ocsp = { "http://o/" }, issuers = { "http://i/" } })
      p:write("text.pem", c:pem())
      local text = p:run("openssl x509 -in text.pem -noout -ext crlDistributionPoints,authorityInfoAccess")
      assert.matches("Full Name:%s+URI:http://c/1%s+URI:http://c/2", text)
      assert.matches("OCSP %- URI:http://o/%s+CA Issuers %- URI:http://i/", text)
    end)

    it("takes the subject and the names of a request only where none are given", function()
      local wish = request.create { key = own, subject = { CN = "wish" }, domains = { "wish.org" }, key_usage = { "keyEncipherment" } }
      local f = issue({ key = authority, issuer = middle, request = wish, subject = { CN = "other" } }):fields()
      assert.are.equal("CN=other wish.org", f.subject .. " " .. table.concat(f.domains, ","))
      f = issue({ key = authority, issuer = middle, request = wish, emails = { "a@b.org" } }):fields()
      assert.are.same({}, f.domains)
      assert.are.equal("CN=wish", f.subject)
      assert.are.same({}, f.key_usage)
    end)

    it("marks the names as critical when they stand in for the subject", function()
      local wish = request.create { key = own, domains = { "wish.org" } }
      p:write("bare.pem", issue({ key = authority, issuer = middle, request = wish }):pem())
      assert.matches("Subject Alternative Name: critical", p:run("openssl x509 -in bare.pem -noout -ext subjectAltName"))
    end)

    it("takes 16 random octets for a serial number, never the same", function()
      local seen = {}
      for _ = 1, 50 do
        local serial = issue({ key = own, subject = { CN = "x" } }):fields().serial
        assert.matches("^[4-7]" .. ("%x"):rep(31) .. "$", serial)
        assert.is_nil(seen[serial])
        seen[serial] = true
      end
    end)

    it("refuses serial numbers that RFC 5280 does not allow", function()
      local function refuses(serial, why, code)
        fails(("cannot issue a certificate: serial '%s' is %s"):format(serial, why), code, issue { key = own, subject = { CN = "x" }, serial = serial })
      end
      refuses("0", "not positive", "parse")
      refuses("", "not positive", "parse")
      refuses("12x", "not hexadecimal", "parse")
      refuses("-1", "not hexadecimal", "parse")
      refuses(("f"):rep(40), "longer than 20 octets", "limit")
      assert.are.equal(("7f"):rep(20), issue({ key = own, subject = { CN = "x" }, serial = ("7f"):rep(20) }):fields().serial)
    end)

    it("refuses times that a certificate cannot hold", function()
      fails("cannot issue a certificate: it would end before it begins", "limit",
        issue { key = own, subject = { CN = "x" }, not_before = 10, not_after = 9 })
      local range = "cannot issue a certificate: it has to be valid within the years 1970 to 9999"
      fails(range, "limit", issue { key = own, subject = { CN = "x" }, not_before = -1 })
      fails(range, "limit", issue { key = own, subject = { CN = "x" }, not_after = 253402300800 })
      local f = issue({ key = own, subject = { CN = "x" }, not_before = 0, not_after = 253402300799 }):fields()
      assert.are.equal(0, f.not_before)
      assert.are.equal(253402300799, f.not_after)
    end)

    it("refuses a key that is not the issuer's", function()
      fails('cannot issue a certificate: the key is not that of the issuer "Middle"', "mismatch",
        issue { key = own, issuer = middle, subject = { CN = "x" } })
      fails("cannot issue a self-signed certificate: its key is not the one that signs", "mismatch",
        issue { key = own, public = authority, subject = { CN = "x" } })
    end)

    it("refuses a request whose signature is wrong", function()
      local der = request.create({ key = own, subject = { CN = "x" } }):der()
      local forged = request.parse((der:gsub("\x0C\x01x", "\x0C\x01y")))
      fails("cannot issue a certificate for the request: its signature is wrong", "mismatch",
        issue { key = authority, issuer = middle, request = forged })
    end)

    it("refuses to sign without a name, with an unknown digest, or a URL that is none", function()
      fails("cannot issue a certificate: its issuer would have no name", "parse", issue { key = own })
      fails("cannot sign with digest 'sha3000': unknown", "unsupported", issue { key = own, subject = { CN = "x" }, digest = "sha3000" })
      fails("cannot issue a certificate: 'http://a b' is no URL", "parse", issue { key = own, subject = { CN = "x" }, crls = { "http://a b" } })
      fails("cannot issue a certificate: '' is no URL", "parse", issue { key = own, subject = { CN = "x" }, ocsp = { "" } })
    end)

    it("cannot sign with a key for agreement", function()
      local _, message, code = issue { key = assert(key.generate("x25519")), subject = { CN = "x" } }
      assert.are.equal("unsupported", code)
      assert.matches("^cannot sign a certificate: ", message)
    end)

    it("hands on what is wrong with the subject and the names", function()
      local _, _, code = issue { key = own, subject = { CN = ("x"):rep(65) } }
      assert.are.equal("limit", code)
      _, _, code = issue { key = own, subject = { CN = "x" }, domains = { "a b" } }
      assert.are.equal("parse", code)
    end)

    it("raises for options of another kind", function()
      local function raises(message, options)
        assert.has_error(function() issue(options) end, message)
      end
      raises("bad argument #1 to 'issue' (unknown field 'days')", { key = own, days = 3 })
      raises("field 'crls': an array of URLs expected", { key = own, subject = { CN = "x" }, crls = "http://c" })
      raises("field 'crls': an array of URLs expected", { key = own, subject = { CN = "x" }, crls = { 1 } })
      raises("bad argument #1 to 'issue' (either request or public, not both)",
        { key = own, request = request.create { key = own }, public = own })
      raises("bad argument #1 to 'issue' (a key is needed)", {})
      raises("field 'key': core.key expected, got string", { key = "rsa" })
      raises("field 'issuer': core.cert expected, got userdata", { key = own, issuer = own })
      raises("field 'not_after': whole number expected, got string", { key = own, not_after = "soon" })
      assert.has_error(function() cert.issue { key = own } end, "bad argument #1 to 'issue' (not_before and not_after are needed)")
    end)

    it("uses nothing that its options close on the way", function()
      for _, field in ipairs { "subject", "domains", "key_usage" } do
        for _, what in ipairs { "key", "request" } do
          local used = { key = key.generate("ed25519") }
          used.request = request.create { key = used.key, subject = { CN = "x" }, domains = { "x.test" } }
          local options = { key = used.key, request = used.request, not_before = 0, not_after = 1, subject = { CN = "x" } }
          options[field] = setmetatable({ field == "subject" and { "CN", "x" } or nil }, { __len = function()
            used[what]:close()
            return field == "subject" and 1 or 0
          end })
          if what == "request" and field == "domains" then -- whose names are not asked for then
            assert(cert.issue(options))
          else
            assert.error_matches(function() cert.issue(options) end, ("the %s is closed"):format(what))
          end
        end
      end
    end)
  end)
end)
