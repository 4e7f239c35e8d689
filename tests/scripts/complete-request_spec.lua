-- complete-request: what a CA outside sent, in whatever form and order, for the
-- request that waits for it; and what cannot be right.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local json = require "dkjson"

describe("complete-request", function()
  local desk, outside

  setup(function()
    desk = Desk.new "complete"
    outside = desk:outside()
  end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  -- The fields of a certificate in openssl's words.
  local function openssl_fields(path)
    local function field(option) return desk:openssl("x509", "-in", path, "-noout", option):match "=%s*(.-)\n" end
    local function time(text)
      local months = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10,
        Nov = 11, Dec = 12 }
      local month, day, clock, year = text:match "(%a+)%s+(%d+) (%S+) (%d+) GMT"
      return ("%s-%02d-%02dT%sZ"):format(year, months[month], day, clock)
    end
    return {
      fingerprint = desk:digest("certificate", desk:read(path)), serial = field("-serial"):lower(),
      thumbprint = field("-fingerprint"):gsub(":", ""):lower(), not_before = time(field "-startdate"),
      not_after = time(field "-enddate"),
    }
  end

  local function completed_with(path, object)
    local expected = openssl_fields(path)
    assert.same({ "completed", expected.fingerprint, expected.thumbprint, expected.serial, expected.not_before,
      expected.not_after }, { object.state, object.fingerprint, object.thumbprint, object.serial, object.not_before,
      object.not_after })
  end

  describe("takes", function()
    it("PEM, by id, and keeps the chain that it came with", function()
      local id, _, request = desk:ask("--domain", "a.test", "--domain", "b.test")
      local path = desk:sign(request)
      local bundle = desk:write("bundle.pem", desk:read(path) .. desk:read(outside .. "/cert.pem"))
      local object, result = desk:done("complete-request", id, "--file", bundle)
      completed_with(path, object)
      assert.same({ "CN=Outside issuing", "CN=a.test" }, { object.issuer, object.subject })
      assert.is_true(desk:verifies(1, desk.root .. "/cert.pem", "b.test"))
      assert.equal(("request 1 is completed: valid until %s, SHA-256 %s\n"):format(object.not_after,
        object.fingerprint:sub(1, 16)), result.stderr:match "[^\n]*\n")
    end)

    it("PEM, found by its key, however many wait", function()
      local ids, paths = {}, {}
      for i, kind in ipairs { "ec:P-256", "rsa:2048", "ed25519" } do
        local id, _, request = desk:ask("--domain", ("host%d.test"):format(i), "--key", kind)
        ids[i], paths[i] = id, desk:sign(request)
      end
      for _, i in ipairs { 2, 3, 1 } do
        local object = desk:done("complete-request", "--file", paths[i])
        assert.same({ ids[i], ("host%d.test"):format(i) }, { tostring(object.id), object.common_name })
        completed_with(paths[i], object)
      end
    end)

    it("DER, PEM from standard input, and pieces in any order with text around them", function()
      local id, _, request = desk:ask("--domain", "a.test")
      local path = desk:sign(request)
      local der = desk:write("leaf.der", desk:openssl("x509", "-in", path, "-outform", "DER"))
      completed_with(path, desk:done("complete-request", id, "--file", der, "--file", outside .. "/cert.pem"))
      assert.is_true(desk:verifies(1, desk.root .. "/cert.pem", "a.test"))

      local second, _, other = desk:ask("--domain", "b.test")
      path = desk:sign(other)
      local mail = "Dear customer,\r\n\n" .. desk:read(desk.root .. "/cert.pem") .. "subject=/CN=x\n"
        .. desk:read(outside .. "/cert.pem") .. desk:read(path) .. "\nYours"
      completed_with(path, desk:done("complete-request", "--file", "-", { stdin = mail }))
      assert.is_true(desk:verifies(2, desk.root .. "/cert.pem", "b.test"))
      assert.equal(desk:read(outside .. "/cert.pem"), select(2, desk:kept(second))) -- without its root
    end)

    describe("what a CA sends by mail, twice, and the chain is whole:", function()
      -- Each makes files of a leaf and its issuer, and gives the words that name them.
      local forms = {
        ["the leaf alone, its issuer in another file"] = function(leaf) return leaf, outside .. "/cert.pem" end,
        ["PEM in wrong order with text and CRLF"] = function(leaf)
          return desk:write("mail.txt", ("Dear customer,\n\n" .. desk:read(desk.root .. "/cert.pem") .. "Issuer:\n"
            .. desk:read(outside .. "/cert.pem") .. "You:\n" .. desk:read(leaf)):gsub("\n", "\r\n"), "644")
        end,
        ["DER"] = function(leaf)
          return desk:write("leaf.cer", desk:openssl("x509", "-in", leaf, "-outform", "DER")),
            desk:write("issuer.cer", desk:openssl("x509", "-in", outside .. "/cert.pem", "-outform", "DER"))
        end,
        ["PKCS #7 in PEM"] = function(leaf)
          return desk:write("reply.p7b", desk:openssl("crl2pkcs7", "-nocrl", "-certfile", outside .. "/cert.pem",
            "-certfile", leaf))
        end,
        ["PKCS #7 in DER, as UTF-16 in a file of the other name"] = function(leaf)
          local text = desk:openssl("crl2pkcs7", "-nocrl", "-certfile", outside .. "/cert.pem", "-certfile", leaf,
            "-outform", "DER")
          return desk:write("reply.pem", text)
        end,
        ["UTF-16 without a mark"] = function(leaf)
          return desk:write("reply.txt", ((desk:read(leaf) .. desk:read(outside .. "/cert.pem")):gsub("[%s%S]", "%0\0")))
        end,
        ["base64 without armour"] = function(leaf)
          return desk:write("reply.txt", desk:read(leaf):match "%-\n(.-)\n%-"), outside .. "/cert.pem"
        end,
        ["PKCS #12"] = function(leaf)
          os.remove(desk.path .. "/reply.p12")
          desk:openssl("pkcs12", "-export", "-nokeys", "-in", leaf, "-certfile", outside .. "/cert.pem", "-passout",
            "pass:from the CA", "-out", desk.path .. "/reply.p12")
          return desk.path .. "/reply.p12"
        end,
        ["a ZIP of both"] = function(leaf)
          os.remove(desk.path .. "/reply.zip")
          local issuer = desk:write("zip/issuer.crt", desk:read(outside .. "/cert.pem"))
          assert(require("core.process").run { "zip", "-q", "-j", desk.path .. "/reply.zip", issuer, leaf })
          return desk.path .. "/reply.zip"
        end,
      }
      for form, make in pairs(forms) do
        it(form, function()
          local _, _, request = desk:ask("--domain", "a.test")
          local leaf, words = desk:sign(request), { "--password-file", desk:write("password", "from the CA\n") }
          for _, path in ipairs { make(leaf) } do
            table.move({ "--file", path }, 1, 2, #words + 1, words)
          end
          local first = desk:done("complete-request", table.unpack(words))
          completed_with(leaf, first)
          assert.is_true(desk:verifies(1, desk.root .. "/cert.pem", "a.test"))
          local before = desk:snapshot()
          assert.same(first, (desk:done("complete-request", table.unpack(words))))
          assert.is_true(before == desk:snapshot())
        end)
      end
    end)

    it("a certificate for a request that was never submitted, as well as one that was", function()
      local id, _, request = desk:ask("--domain", "a.test")
      desk:waits("submit-request", id)
      local path = desk:sign(request)
      completed_with(path, desk:done("complete-request", id, "--file", path))
    end)
  end)

  describe("says what differs from what was asked for:", function()
    it("names that are missing or more", function()
      local id, _, request = desk:ask("--domain", "a.test", "--domain", "b.test")
      local path = desk:sign(request, { names = { "a.test", "c.test", "d.test" } })
      local object, result = desk:done("complete-request", id, "--file", path, "--file", outside .. "/cert.pem")
      assert.same({ "a.test", "c.test", "d.test" }, object.domains)
      assert.same({
        { code = "mismatch", message = "asked for but not in the certificate: b.test" },
        { code = "mismatch", message = "in the certificate but not asked for: c.test, d.test" },
        { code = "untrusted", message = 'no trusted issuer for "Outside issuing": "Outside root" is not in the chain '
          .. 'and is not a known anchor' },
      }, object.warnings)
      assert.is_truthy(result.stderr:find("certwright: warning: asked for but not in the certificate: b.test\n", 1,
        true))
    end)

    it("a purpose that is not a server's", function()
      local id, _, request = desk:ask("--domain", "a.test")
      local path = desk:sign(request, { names = { "a.test" },
        extensions = "extendedKeyUsage = clientAuth, codeSigning" })
      local object = desk:done("complete-request", id, "--file", path)
      assert.same({ code = "mismatch",
        message = "not for servers: its extended key usage is clientAuth, codeSigning" }, object.warnings[1])
    end)

    it("nothing, when it is as it was asked for and its root is an anchor of the site", function()
      desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root .. "/cert.pem"))
      local id, _, request = desk:ask("--domain", "a.test", "--domain", "2001:db8:0:0::1")
      local object = desk:done("complete-request", id, "--file", desk:sign(request), "--file", outside .. "/cert.pem")
      assert.same({ {}, "Valid" }, { object.warnings, object.status })
    end)

    -- The messages of all warnings but that nobody trusts it.
    local function warned(options)
      local id, _, request = desk:ask("--domain", options.domain or "a.test", "--key", options.key or "ec:P-256")
      local object = desk:done("complete-request", id, "--file", desk:sign(request, options), "--file",
        outside .. "/cert.pem")
      local messages = {}
      for _, warning in ipairs(object.warnings) do
        if not warning.message:find "^no trusted issuer" then messages[#messages + 1] = warning.message end
      end
      return messages
    end

    it("a key usage that is missing, more, or not a server's", function()
      assert.same({ "key usage asked for but not in the certificate: keyEncipherment",
        "key usage in the certificate but not asked for: nonRepudiation" },
        warned { names = { "a.test" }, key = "rsa:2048",
          extensions = "keyUsage = critical, digitalSignature, nonRepudiation" })
      assert.same({ "key usage asked for but not in the certificate: digitalSignature",
        "key usage in the certificate but not asked for: keyEncipherment",
        "not for servers: its key usage is keyEncipherment, without digitalSignature" },
        warned { names = { "a.test" }, extensions = "keyUsage = critical, keyEncipherment" })
      assert.same({}, warned { names = { "a.test" }, extensions = "extendedKeyUsage = serverAuth" })
    end)

    it("a validity of over 398 days for a public name, or of less than 5 days", function()
      assert.same({}, warned { domain = "mail.contoso.com", from = -1, to = 397 })
      assert.same({ "valid for 400 days: clients refuse more than 398 for public names such as mail.contoso.com" },
        warned { domain = "mail.contoso.com", from = -1, to = 399 })
      assert.same({}, warned { domain = "mail.corp.internal", from = -1, to = 900 })
      assert.same({}, warned { domain = "192.0.2.7", from = -1, to = 900 })
      local messages = warned { from = -1, to = 2 }
      assert.same({ "unusually short: it is valid for 3 days only, until TIME" }, { desk:shown(messages[1]),
        messages[2] })
      assert.matches("^unusually short: it is valid for 12 hours only", warned({ from = -0.25, to = 0.25 })[1])
    end)

    it("a weak signature", function()
      assert.same({ "'a.test' has a weak signature, which clients refuse: ecdsa-with-SHA1" },
        warned { digest = "sha1" })
    end)

    it("that nobody here trusts it", function()
      local id, _, request = desk:ask("--domain", "a.test")
      local object = desk:done("complete-request", id, "--file", desk:sign(request))
      assert.equal("Untrusted", object.status)
      assert.equal("untrusted", object.warnings[1].code)
      assert.is_truthy(object.warnings[1].message:find("Outside issuing", 1, true))
    end)
  end)

  describe("refuses, and changes nothing:", function()
    local id, request, before

    before_each(function()
      local object
      id, object, request = desk:ask("--domain", "a.test")
      assert.equal("created", object.state)
      before = desk:snapshot()
    end)

    -- Runs it by id and by key: both say the same.
    local function refuses(code, message, path)
      desk:refuses(1, code, message, "complete-request", id, "--file", path)
      desk:refuses(1, code, message, "complete-request", "--file", path)
      desk:refuses(1, code, message, "complete-request", "--file", path, "--dry-run")
      assert.is_true(before == desk:snapshot():gsub("[^\n]*/locks/1 file \n", "")) -- an empty file to lock it by
      assert.equal("created", desk:done("show", id).state)
    end

    it("a certificate that has expired", function()
      refuses("expired", "the certificate 'a.test' expired on TIME", desk:sign(request, { from = -20, to = -10 }))
    end)

    it("a certificate that is not valid yet", function()
      refuses("expired", "the certificate 'a.test' is not valid before TIME", desk:sign(request, { from = 1, to = 90 }))
    end)

    it("the certificate of a CA", function()
      refuses("mismatch", "'a.test' is the certificate of a CA, not of a server", desk:sign(request, { is_ca = true }))
    end)

    it("a certificate of another key, naming both and what waits", function()
      local other = desk.lab:certificate { names = { "a.test" }, ca = outside }
      local key = desk:digest("request", desk:read(request)):sub(1, 16)
      local public = desk:openssl("x509", "-in", other .. "/cert.pem", "-noout", "-pubkey")
      local theirs = desk:openssl("dgst", "-sha256", "-r",
        { stdin = desk:openssl("pkey", "-pubin", "-outform", "DER", { stdin = public }) }):sub(1, 16)
      local waiting = ("these wait:\n  1  a.test  a.test  key %s"):format(key)
      local result = desk:run("complete-request", id, "--file", other .. "/cert.pem")
      assert.same({ 1, ("certwright: no certificate here has the key of request 1 (%s): there is 'a.test' (key %s); "
        .. "%s\n"):format(key, theirs, waiting) }, { result.status, result.stderr })
      result = desk:run("complete-request", "--file", other .. "/cert.pem")
      assert.same({ 1, ("certwright: no request has the key of 'a.test' (key %s); %s\n"):format(theirs, waiting) },
        { result.status, result.stderr })
      local value = json.decode(desk:run("--json", "complete-request", "--file", other .. "/cert.pem").stdout)
      assert.equal("mismatch", value.error.code)
      assert.is_true(before == desk:snapshot())
    end)

    it("a PKCS #12 without its password, or with a wrong one", function()
      desk:openssl("pkcs12", "-export", "-nokeys", "-in", desk:sign(request), "-passout", "pass:secret", "-out",
        desk.path .. "/denied.p12")
      local path = desk.path .. "/denied.p12"
      refuses("denied", "'LAB/denied.p12': cannot read the PKCS #12: no password was given; give it with "
        .. "--password-file FILE", path)
      desk:refuses(1, "denied", "'LAB/denied.p12': cannot read the PKCS #12: wrong password", "complete-request",
        "--file", path, "--password-file", desk:write("wrong", "Secret\n"))
      desk:refuses(1, "missing", "cannot read 'LAB/none': No such file or directory", "complete-request",
        "--file", path, "--password-file", desk.path .. "/none")
      assert.is_true(before == desk:snapshot())
    end)

    it("a certificate that came with a key of its own, and says how to take both", function()
      local other = desk.lab:certificate { names = { "a.test" }, ca = outside }
      desk:openssl("pkcs12", "-export", "-inkey", other .. "/key.pem", "-in", other .. "/cert.pem", "-passout", "pass:",
        "-out", desk.path .. "/own.p12")
      local result = desk:run("complete-request", "--file", desk.path .. "/own.p12")
      assert.equal(1, result.status)
      assert.matches("\nit came with a key of its own: certwright import FILE takes in both\n$", result.stderr)
      assert.is_true(before == desk:snapshot())
    end)

    it("the request itself, for the certificate", function()
      refuses("parse", "'STATE/requests/1.csr': no certificate is there, only a request", request)
    end)

    it("more than a reader takes, naming the limit", function()
      refuses("limit", "cannot read 'LAB/huge': more than 16777216 bytes", desk:write("huge",
        ("x"):rep(16 * 1024 * 1024 + 1)))
      os.remove(desk.path .. "/huge")
      refuses("limit", "'LAB/many.pem': cannot read certificates: more than 100 of them", desk:write("many.pem",
        desk:read(outside .. "/cert.pem"):rep(101)))
      desk:openssl("pkcs12", "-export", "-nokeys", "-in", desk:sign(request), "-passout", "pass:x", "-iter", "2100000",
        "-out", desk.path .. "/slow.p12")
      refuses("limit", "'LAB/slow.p12': cannot read the PKCS #12: its iteration counts would take over 2 seconds",
        desk.path .. "/slow.p12")
    end)

    it("what is no certificate, is empty or is not there", function()
      local path = desk:write("reply.txt", "we are closed on Fridays")
      refuses("parse", "'LAB/reply.txt': cannot read certificates: none is there", path)
      desk:write("reply.txt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
      assert.equal("parse", json.decode(desk:run("--json", "complete-request", id, "--file", path).stdout).error.code)
      desk:refuses(1, "missing", "cannot read 'LAB/none.pem': No such file or directory", "complete-request", id,
        "--file", desk.path .. "/none.pem")
      assert.equal(1, desk:run("complete-request", id, "--file", "-", { stdin = "" }).status)
      assert.is_true(before == desk:snapshot())
    end)

    it("a file in place of the request, and says where it goes", function()
      desk:refuses(1, "missing", "there is no request or certificate 'a.pem' (what a CA sent is given with --file); see "
        .. "certwright list", "complete-request", "a.pem")
      desk:waits("submit-request", id, "--ca", "manual")
      desk:refuses(1, "mismatch", "1 has no certificate yet: it is submitted; next:\n  certwright complete-request 1 --file "
        .. "FILE", "assign-services", id, "--services", "web")
    end)

    it("a request that was cancelled", function()
      local path = desk:sign(request)
      desk:done("cancel", id)
      for _, words in ipairs { { "complete-request", id, "--file", path }, { "complete-request", "--file", path } } do
        desk:refuses(1, "mismatch", "cannot complete 1: it was cancelled", table.unpack(words))
      end
      assert.equal("cancelled", desk:done("show", id).state)
    end)

    it("another certificate for a request that has one", function()
      local first, second = desk:sign(request), desk:sign(request)
      local fingerprint = desk:done("complete-request", id, "--file", first).fingerprint
      for _, words in ipairs { { id, "--file", second }, { "--file", second } } do
        desk:refuses(1, "exists", "1 is completed already, with another certificate (HEX)", "complete-request",
          table.unpack(words))
      end
      assert.equal(fingerprint, desk:done("show", id).fingerprint)
    end)

    it("a file without a name, and files that follow one --file, as a shell's * gives them", function()
      desk:refuses(2, "usage", "--file needs a value that is not empty", "complete-request", "--file", "")
      local path = desk:sign(request)
      desk:refuses(1, "missing", "there is no request or certificate '" .. desk:shown(path) .. "'; see certwright list; "
        .. "each file goes after a --file of its own", "complete-request", "--file", outside .. "/cert.pem", path)
      assert.is_true(before == desk:snapshot())
    end)

    it("neither an ID nor a file", function()
      desk:refuses(2, "usage", "complete-request needs an ID, or --file FILE", "complete-request")
    end)
  end)

  it("may be run twice: the second time changes nothing", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local path = desk:sign(request)
    local first = desk:done("complete-request", id, "--file", path)
    local before = desk:snapshot()
    for _, words in ipairs { { id, "--file", path }, { "--file", path }, { id } } do
      assert.same(first, (desk:done("complete-request", table.unpack(words))))
    end
    assert.is_true(before == desk:snapshot())
  end)

  it("completes the pending one of two with the same key, and knows the older one's certificate", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local old = desk:sign(request)
    desk:done("complete-request", id, "--file", old)
    local renewal, _, again = desk:ask("--from", id, "--reuse-key")
    assert.equal(1, desk:done("complete-request", "--file", old).id)
    assert.equal("created", desk:done("show", renewal).state)
    assert.equal(2, desk:done("complete-request", "--file", desk:sign(again)).id)
  end)

  it("again with the same certificate finds its chain and trust anew", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local path = desk:sign(request)
    local object, result = desk:done("complete-request", id, "--file", path)
    assert.equal("Untrusted", object.status)
    assert.is_truthy(result.stderr:find("name that in 'anchors' of config.lua", 1, true))
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root .. "/cert.pem"))
    object = desk:done("complete-request", id, "--file", path, "--file", outside .. "/cert.pem")
    assert.same({ "Valid", {} }, { object.status, object.warnings })
    assert.is_true(desk:verifies(1, desk.root .. "/cert.pem", "a.test"))
    assert.is_truthy(desk:run("complete-request", id, "--file", path).stderr:find(
      "\nnext: certwright assign-services 1 --services LIST\n", 1, true))
  end)

  describe("without a file", function()
    it("takes what the local CA issued; openssl verifies it up to the root", function()
      desk:write("site/config.lua", "return { organization = { O = 'Contoso', C = 'US' } }")
      desk:done("ca", "init")
      desk:done("ca", "root", "--out", desk.path .. "/root.pem")
      local id = desk:ask("--domain", "a.test", "--domain", "192.0.2.7", "--key", "rsa:2048")
      desk:done("submit-request", id)
      local object = desk:done("complete-request", id)
      assert.same({ "completed", "Valid", {} }, { object.state, object.status, object.warnings })
      assert.is_true(desk:verifies(1, desk.path .. "/root.pem", "a.test"))
      assert.is_truthy(tostring(desk:verifies(1, desk.path .. "/root.pem", "b.test")):find "ostname mismatch")
      local certificate = desk:certificate((desk:kept(id)))
      assert.same({ "DNS:a.test", "IP Address:192.0.2.7" }, certificate.names)
      assert.same({ "CN=a.test,O=Contoso,C=US", "RSA 2048", "Digital Signature, Key Encipherment",
        "TLS Web Server Authentication", "CA:FALSE" }, { certificate.subject, certificate.key, certificate.key_usage,
        certificate.extended_key_usage, certificate.basic_constraints })
      os.remove(desk.path .. "/root.pem")
    end)

    it("needs a request that was submitted", function()
      desk:done("ca", "init")
      local id = desk:ask("--domain", "a.test")
      desk:refuses(1, "missing", "the local CA has issued nothing for this request; submit it first",
        "complete-request", id)
    end)

    it("cannot ask a person", function()
      local id = desk:ask("--domain", "a.test")
      desk:waits("submit-request", id)
      desk:refuses(2, "usage", "the CA 'manual' cannot be asked, for a person carries what it sends; give that with "
        .. "--file:\n  certwright complete-request 1 --file FILE", "complete-request", id)
    end)

    it("is exit 3 with the object while the CA has not issued it, and a refusal is for good", function()
      desk:write("site/config.lua", "return { ca = 'mine', cas = { mine = { adapter = 'mine' } } }")
      local text = "return { summary = 'mine', submit = function() return { ticket = 't7' } end, "
        .. "collect = function(ca, order) return nil, 'no: ' .. order.ticket, '%s' end }"
      desk:write("site/ca/mine.lua", text:format "pending")
      local id = desk:ask("--domain", "a.test")
      desk:waits("submit-request", id)
      local object, result = desk:waits("complete-request", id)
      assert.same({ "submitted", "t7", "certwright: no: t7\n" }, { object.state, object.ticket, result.stderr })
      desk:write("site/ca/mine.lua", text:format "rejected")
      desk:refuses(1, "rejected", "no: t7", "complete-request", id, "--dry-run")
      assert.equal("submitted", desk:done("show", id).state)
      desk:refuses(1, "rejected", "no: t7", "complete-request", id)
      assert.equal("rejected", desk:done("show", id).state)
    end)
  end)

  it("--dry-run says what it would do, and changes nothing", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local path = desk:sign(request)
    local before = desk:snapshot()
    local object, result = desk:done("complete-request", id, "--file", path, "--dry-run")
    assert.equal("created", object.state)
    assert.equal("would have it renewed from TIME on (renew_at in 'HOME/lua/defaults/policy.lua')\nwould warn: no trusted issuer "
      .. "for \"a.test\": \"Outside issuing\" is not in the chain and is not a known anchor\nwould complete request 1 with "
      .. "certificate HEX\n", desk:shown(result.stderr))
    assert.equal("would complete request 1 with certificate " .. openssl_fields(path).fingerprint, object.would[3])
    assert.is_true(before == desk:snapshot())
  end)

  it("shows what a CA put into a certificate as data", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local folder = desk.lab:folder "evil"
    desk:openssl("x509", "-req", "-in", request, "-CA", outside .. "/cert.pem", "-CAkey", outside .. "/key.pem",
      "-days", "9", "-out", folder .. "/cert.pem",
      "-extfile", desk:write("evil.cnf", "subjectAltName = DNS:evil\\ \27[31m.test"))
    local result = desk:run("complete-request", id, "--file", folder .. "/cert.pem")
    assert.equal(0, result.status, result.stderr)
    assert.is_nil((result.stdout .. result.stderr):find "\27")
    assert.is_nil(desk:run("list").stdout:find "\27")
  end)
end)
