-- new-request: every option, judged by what openssl reads in the request.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local file = require "core.file"
local process = require "core.process"
local json = require "dkjson"
local lfs = require "lfs"

describe("new-request", function()
  local desk

  setup(function() desk = Desk.new "new" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  -- Makes a request: what openssl reads in it, and the object.
  local function asked(...)
    local object = desk:done("new-request", ...)
    return desk:request(desk:read(object.request_file)), object
  end

  -- Whether unshare makes a namespace of this kind here.
  local function unshares(option)
    return process.run({ "unshare", option, "true" }).status == 0
  end

  local function host_name(...)
    return (process.run({ "hostname", ... }).stdout:match "%S+")
  end

  describe("without options beyond a name", function()
    it("asks for that name with an EC key, signed, for a TLS server", function()
      local request, object = asked("--domain", "mail.contoso.test")
      assert.same({ "CN=mail.contoso.test", "prime256v1", "Digital Signature", "TLS Web Server Authentication" },
        { request.subject, request.key, request.key_usage, request.extended_key_usage })
      assert.same({ "DNS:mail.contoso.test" }, request.names)
      assert.same({ "created", "PendingRequest", "mail.contoso.test", "mail.contoso.test", "manual" },
        { object.state, object.status, object.friendly_name, object.common_name, object.ca })
    end)

    it("prints the request as PEM, which is also kept", function()
      local result = desk:run("new-request", "--domain", "a.test")
      assert.equal(0, result.status)
      assert.equal(desk:read(desk.state .. "/requests/1.csr"), result.stdout)
      desk:request(result.stdout)
      assert.equal(("request 1 'a.test' for a.test\nkey kept as STATE/keys/1.pem, request as STATE/requests/1.csr\n"
        .. "next: certwright submit-request 1\n"), desk:shown(result.stderr))
    end)

    it("keeps the key to itself: 0600 in folders of 0700, whatever the umask", function()
      for id, mask in ipairs { "000", "077", "777" } do
        local result = assert(process.run { "sh", "-c", 'umask "$1"; shift; exec "$@"', "sh", mask, Desk.program,
          "--site", desk.site, "--state", desk.state, "new-request", "--domain", "a.test" })
        assert.equal(0, result.status, result.stderr)
        assert.equal("0600", desk:mode(("%s/keys/%d.pem"):format(desk.state, id)))
        assert.equal("0600", desk:mode(desk.state .. "/store.db"))
      end
      for _, folder in ipairs { "", "/keys", "/requests", "/locks" } do
        assert.equal("0700", desk:mode(desk.state .. folder))
      end
    end)

    it("makes the key file by itself, never through what is there", function()
      local trace, words = desk.path .. "/trace", { "-f", "-o", desk.path .. "/trace", "-e", "trace=openat,open" }
      local result = assert(process.run { "strace", words[1], words[2], words[3], words[4], words[5], Desk.program,
        "--site", desk.site, "--state", desk.state, "new-request", "--domain", "a.test" })
      assert.equal(0, result.status, result.stderr)
      local line = desk:read(trace):match "[^\n]*%d, \"1%.pem\"[^\n]*O_CREAT[^\n]*"
      assert.is_truthy(line)
      for _, flag in ipairs { "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC", "0600" } do
        assert.is_truthy(line:find(flag, 1, true), line)
      end
    end)

    it("has a key that belongs to the request", function()
      local _, object = asked("--domain", "a.test")
      local public = desk:openssl("pkey", "-in", desk.state .. "/keys/1.pem", "-pubout")
      assert.equal(desk:openssl("req", "-in", object.request_file, "-noout", "-pubkey"), public)
    end)

    it("needs a name", function()
      desk:refuses(2, "usage", "no name to ask for: give --domain NAME (repeat), --services LIST, or --root-domain D "
        .. "--wildcard", "new-request")
      desk:refuses(2, "usage", "no name to ask for: give --domain NAME (repeat), --services LIST, or --root-domain D "
        .. "--wildcard", "new-request", "--root-domain", "contoso.test")
      assert.same({}, (desk:done "list"))
    end)
  end)

  describe("names", function()
    it("are asked for in the order given, each once, in lower case, the common name first", function()
      local request, object = asked("--domain", "b.test", "--domain", "A.Test.", "--domain", "B.TEST",
        "--common-name", "C.test")
      assert.same({ "DNS:c.test", "DNS:b.test", "DNS:a.test" }, request.names)
      assert.equal("CN=c.test", request.subject)
      assert.same({ "c.test", "b.test", "a.test" }, object.domains)
      assert.equal("c.test", object.common_name)
    end)

    it("may be addresses", function()
      local request, object = asked("--domain", "a.test", "--domain", "192.0.2.7", "--domain", "2001:DB8:0:0:0:0:0:1")
      assert.same({ "DNS:a.test", "IP Address:192.0.2.7", "IP Address:2001:DB8:0:0:0:0:0:1" }, request.names)
      assert.same({ "a.test", "192.0.2.7", "2001:db8::1" }, object.domains)
    end)

    it("that are one address are asked for once", function()
      local request = asked("--domain", "2001:db8::1", "--domain", "2001:DB8:0::0:1")
      assert.same({ "IP Address:2001:DB8:0:0:0:0:0:1" }, request.names)
    end)

    it("in another script are asked for as A-labels, however they are written, and shown as both", function()
      local request, object = asked("--domain", "Bücher.Test.", "--domain", "XN--BCHER-KVA.test", "--domain",
        "bu\u{308}cher.test", "--domain", "*.faß.test")
      assert.same({ { "DNS:xn--bcher-kva.test", "DNS:*.xn--fa-hia.test" }, "CN=xn--bcher-kva.test" },
        { request.names, request.subject })
      assert.same({ "xn--bcher-kva.test", "*.xn--fa-hia.test" }, object.domains)
      local shown = "xn--bcher-kva.test (bücher.test), *.xn--fa-hia.test (*.faß.test)"
      assert.is_truthy(desk:run("show", "1").stdout:find("\nDomains      " .. shown .. "\n", 1, true))
      local said = desk:run("new-request", "--domain", "bücher.test", "--domain", "*.faß.test", "--out",
        desk.path .. "/idn.csr").stderr
      assert.is_truthy(said:find(" for " .. shown .. "\n", 1, true), said)
      assert.equal(2, #desk:done("list", "--domain", "BÜCHER.test"))
    end)

    it("that could deceive are shown as A-labels alone", function()
      local object = desk:done("new-request", "--domain", "аpple.test", "--domain", "аррӏе.test", "--domain",
        "אב.test")
      assert.is_truthy(desk:run("show", "1").stdout:find("\nDomains      "
        .. table.concat(object.domains, ", ") .. "\n", 1, true))
    end)

    it("in another script need libidn2, and say so where it is missing", function()
      if not unshares "-m" then return pending "no mount namespaces here" end
      local path = process.run({ "sh", "-c", "ldconfig -p | sed -n 's/.*libidn2.so.0.*=> //p'" }).stdout:match "%S+"
      local function run(...)
        return process.run { "unshare", "-m", "sh", "-c", 'mount --bind /dev/null "$1" && shift && exec "$@"', "sh", path,
          Desk.program, "--site", desk.site, "--state", desk.state, "new-request", ... }
      end
      local result = run("--domain", "bücher.test")
      assert.equal(1, result.status)
      assert.is_truthy(result.stderr:find("certwright: 'bücher.test' is an internationalized name, for which libidn2 is "
        .. "needed (install libidn2-0): cannot load '", 1, true), result.stderr)
      assert.is_truthy(result.stderr:find("libidn2.so.0: file too short", 1, true), result.stderr)
      assert.equal(0, run("--domain", "buecher.test").status)
    end)

    it("may have a wildcard as their whole left-most label", function()
      assert.same({ "DNS:*.contoso.test" }, asked("--domain", "*.contoso.test").names)
    end)

    it("of more than 64 characters stand in the SAN alone", function()
      local long = ("a"):rep(61) .. ".contoso.test"
      local request, object = asked("--domain", long)
      assert.same({ "", { "DNS:" .. long }, long, long:sub(1, 63) },
        { request.subject, request.names, object.common_name, object.friendly_name })
    end)

    for _, case in ipairs {
      { "a b.test", "'a b.test' is not a domain name: 'a b' may hold letters, digits and inner hyphens only" },
      { "-a.test", "'-a.test' is not a domain name: '-a' may hold letters, digits and inner hyphens only" },
      { "a..test", "'a..test' is not a domain name: it has an empty label" },
      { ".test", "'.test' is not a domain name: it has an empty label" },
      { "f*.test", "'f*.test': a wildcard may only be the whole left-most label, as in *.example.com" },
      { "*.test", "'*.test': a wildcard needs at least two labels after it" },
      { "a.*.test", "'a.*.test': a wildcard may only be the whole left-most label, as in *.example.com" },
      { "a_b.test", "'a_b.test' is not a domain name: 'a_b' may hold letters, digits and inner hyphens only, no "
        .. "underscore (CA/Browser Forum)" },
      { "ab--c.test", "'ab--c.test': hyphens as third and fourth character are reserved for IDNA: 'ab--c' (RFC 5890)" },
      { "me@a.test", "'me@a.test' is an e-mail address, not a domain name" },
      { "https://a.test/", "'https://a.test/' is a URL: give the domain name in it alone" },
      { "a\u{202E}b.test", "'a\\u{202E}b.test' is not a domain name: it holds the character U+202E, which cannot be seen" },
      { "a\u{200B}b.test", "'a\\u{200B}b.test' is not a domain name: it holds the character U+200B, which cannot be seen" },
      { "a\27[2Jb.test", "'a\\u{001B}[2Jb.test' is not a domain name: it holds the character U+001B, which cannot be seen" },
      { "b\xFCcher.test", "'b\u{FFFD}cher.test' is not UTF-8" },
      { "☃.test", "'☃.test' is not a domain name of IDNA 2008: string contains a disallowed character" },
      { "ü_a.test", "'ü_a.test' is not a domain name: it holds '_'" },
      { "*.ü", "'*.ü': a wildcard needs at least two labels after it" },
      { "xn--n3h.test", "'xn--n3h.test': 'xn--n3h' is no A-label of IDNA 2008: string contains a disallowed character" },
      { "xn--zzzzzzzzzzzz.test", "'xn--zzzzzzzzzzzz.test': 'xn--zzzzzzzzzzzz' is no A-label of IDNA 2008: string "
        .. "contains invalid punycode data" },
      { ("ü"):rep(60) .. ".test", ("'%s.test': a label is longer than 63 octets (RFC 1035)"):format(("ü"):rep(60)),
        "limit" },
      { ("ü."):rep(60) .. "test", ("'%stest': it is longer than 253 octets (RFC 1035)"):format(("ü."):rep(60)), "limit" },
      { "12345", "'12345' is neither a domain name nor an IP address" },
      { "300.1.1.1", "'300.1.1.1' is neither a domain name nor an IP address" },
      { ("x"):rep(64) .. ".test", ("'%s.test': a label is longer than 63 octets (RFC 1035)"):format(("x"):rep(64)),
        "limit" },
      { ("a."):rep(125) .. "test", ("'%stest' is longer than 253 octets (RFC 1035)"):format(("a."):rep(125)),
        "limit" },
    } do
      it("cannot be such as " .. case[1]:sub(1, 20), function()
        local code = case[3] or "usage"
        desk:refuses(code == "usage" and 2 or 1, code, case[2], "new-request", "--domain=" .. case[1])
        desk:refuses(code == "usage" and 2 or 1, code, case[2], "new-request", "--domain", "a.test",
          "--common-name=" .. case[1])
        assert.same({}, (desk:done "list"))
      end)
    end
  end)

  describe("--wildcard", function()
    it("asks for *.D of --root-domain only, beside what --domain says", function()
      assert.same({ "DNS:*.contoso.test" }, asked("--root-domain", "contoso.test", "--wildcard").names)
      desk:write("site/config.lua", "return { accepted_domains = { 'contoso.test' } }")
      assert.same({ "DNS:*.contoso.test", "DNS:contoso.test" }, asked("--root-domain", "contoso.test", "--wildcard",
        "--domain", "contoso.test", "--include-autodiscover", "--include-accepted-domains").names)
    end)

    it("needs a root domain", function()
      desk:refuses(2, "usage", "--wildcard needs --root-domain", "new-request", "--wildcard")
    end)
  end)

  describe("names from the site", function()
    before_each(function()
      desk.lab:site { accepted_domains = { "contoso.test", "fabrikam.test" }, services = {
        web = { driver = "nginx",
          names = { internal = "mail.corp.test", external = { "mail.contoso.test", "www.test" } } },
        imap = { driver = "dovecot", names = { external = "mail.contoso.test" } } } }
    end)

    it("are those of --services, each once", function()
      assert.same({ "DNS:mail.contoso.test", "DNS:www.test", "DNS:mail.corp.test" },
        asked("--services", "web,imap").names)
      assert.same({ "DNS:a.test", "DNS:mail.contoso.test" }, asked("--services", "imap", "--domain", "a.test").names)
    end)

    it("are the accepted domains, and autodiscover of each", function()
      assert.same({ "DNS:a.test", "DNS:contoso.test", "DNS:fabrikam.test" },
        asked("--domain", "a.test", "--include-accepted-domains").names)
      assert.same({ "DNS:autodiscover.contoso.test", "DNS:autodiscover.fabrikam.test" },
        asked("--include-autodiscover").names)
    end)

    -- The same on a host of another name.
    local function asked_on(host, ...)
      return process.run { "unshare", "-u", "sh", "-c", 'hostname "$1"; shift; exec "$@"', "sh", host, Desk.program,
        "--site", desk.site, "--state", desk.state, "new-request", ... }
    end

    it("are this host's, short and full", function()
      if not unshares "-u" then return pending "no host names of their own here" end
      local result = asked_on("MX1.contoso.test", "--domain", "a.test", "--include-hostname", "--include-fqdn")
      assert.same({ "DNS:a.test", "DNS:mx1.contoso.test", "DNS:mx1" }, desk:request(result.stdout).names)
      assert.same({ "DNS:" .. host_name("-s"):lower() }, asked("--include-hostname").names)
    end)

    it("are not this host's full one where it has none", function()
      if not unshares "-u" then return pending "no host names of their own here" end
      local result = asked_on("lonely", "--domain", "a.test", "--include-fqdn")
      assert.same({ 2, "certwright: --include-fqdn: this host, 'lonely', has no full name: name it in /etc/hosts, or give "
        .. "--domain\n" }, { result.status, result.stderr })
      assert.same({}, (desk:done "list"))
    end)

    it("come each once, in one order, whatever asks for them and however it is written", function()
      if not unshares "-u" then return pending "no host names of their own here" end
      desk.lab:site { accepted_domains = { "Contoso.test", "*.bücher.test", "contoso.TEST." }, services = {
        web = { driver = "nginx", names = { external = { "BÜCHER.test", "Mail.Contoso.test." } } } } }
      local result = asked_on("mail.contoso.test", "--domain", "AUTODISCOVER.contoso.test", "--domain", "Mail.contoso.Test",
        "--include-accepted-domains", "--include-autodiscover", "--include-fqdn", "--include-hostname", "--services", "web")
      assert.same({ "DNS:autodiscover.contoso.test", "DNS:mail.contoso.test", "DNS:contoso.test",
        "DNS:*.xn--bcher-kva.test", "DNS:autodiscover.xn--bcher-kva.test", "DNS:mail", "DNS:xn--bcher-kva.test" },
        desk:request(result.stdout).names)
    end)

    it("are accepted domains only where the site has some", function()
      desk.lab:site {}
      for _, switch in ipairs { "--include-accepted-domains", "--include-autodiscover" } do
        desk:refuses(2, "usage", switch .. ": 'accepted_domains' in 'SITE/config.lua' names none", "new-request", "--domain",
          "a.test", switch)
      end
    end)

    it("are checked in the site's files as well", function()
      desk:write("site/config.lua", "return { accepted_domains = { 'a_b.test' } }")
      desk:refuses(1, "parse", "'SITE/config.lua': 'accepted_domains': 'a_b.test' is not a domain name: 'a_b' may hold "
        .. "letters, digits and inner hyphens only, no underscore (CA/Browser Forum)", "new-request", "--domain", "a.test")
      desk:write("site/config.lua", "return {}")
      desk:write("site/policy.lua", "return { extra_domains = function() return { '☃.test' } end }")
      desk:refuses(1, "refused", "extra_domains in 'SITE/policy.lua': '☃.test' is not a domain name of IDNA 2008: string "
        .. "contains a disallowed character", "new-request", "--domain", "a.test")
    end)

    it("come from services that the site has", function()
      desk:refuses(2, "usage", "there is no service 'smtp' in 'SITE/config.lua'; there are: imap, web", "new-request",
        "--services", "web,smtp")
      desk:refuses(2, "usage", "--services: expected a list such as web,smtp; see certwright help new-request",
        "new-request", "--services", ",")
    end)
  end)

  describe("--key", function()
    for kind, words in pairs {
      ["rsa:2048"] = "RSA 2048", ["rsa:3072"] = "RSA 3072", ["ec:P-256"] = "prime256v1", ["ec:P-384"] = "secp384r1",
      ["ec:P-521"] = "secp521r1", ed25519 = "ED25519",
    } do
      it(("makes a key of the kind %s"):format(kind), function()
        local request, object = asked("--domain", "a.test", "--key", kind)
        assert.same({ words, kind }, { request.key, object.key })
        assert.equal(kind:find "rsa" and "Digital Signature, Key Encipherment" or "Digital Signature",
          request.key_usage)
      end)
    end

    it("refuses a kind that there is not", function()
      desk:refuses(2, "usage", "unknown kind of key 'dsa': use rsa:2048, rsa:3072, rsa:4096, ec:P-256, ec:P-384 or "
        .. "ed25519", "new-request", "--domain", "a.test", "--key", "dsa")
      desk:refuses(2, "usage", "cannot generate a key of kind 'rsa:1024': not 2048 to 8192 bits", "new-request",
        "--domain", "a.test", "--key", "rsa:1024")
      assert.same({}, (desk:done "list"))
    end)
  end)

  describe("the subject", function()
    it("has what the options say", function()
      local request, object = asked("--domain", "a.test", "--organization", "Contoso, Ltd", "--unit", "Müll & Söhne",
        "--locality", "Seattle", "--state-name", "Washington", "--country", "US")
      local subject = [[CN=a.test,OU=Müll & Söhne,O=Contoso\, Ltd,L=Seattle,ST=Washington,C=US]]
      assert.same({ subject, subject }, { request.subject, object.subject })
    end)

    it("starts from the site's organization, options over it", function()
      desk:write("site/config.lua", "return { organization = { O = 'Contoso', OU = 'Mail', C = 'US' } }")
      assert.equal("CN=a.test,OU=Web,O=Contoso,C=US", asked("--domain", "a.test", "--unit", "Web").subject)
    end)

    it("refuses what nobody could see in it, and what is no text", function()
      for value, message in pairs {
        ["Con\u{202E}toso"] = "'Con\\u{202E}toso' may not hold the character U+202E, which cannot be seen",
        ["Con\nO=toso"] = "'Con\\u{000A}O=toso' may not hold the character U+000A, which cannot be seen",
        ["M\xFCll"] = "'M\u{FFFD}ll' is not UTF-8",
      } do
        desk:refuses(2, "usage", "the organization " .. message, "new-request", "--domain", "a.test", "--organization", value)
      end
      desk:write("site/config.lua", "return { organization = { L = 'a\\0b' } }")
      desk:refuses(1, "refused", "subject in 'SITE/config.lua': the locality 'a\\u{0000}b' may not hold the "
        .. "character U+0000, which cannot be seen", "new-request", "--domain", "a.test")
      assert.same({}, (desk:done "list"))
    end)

    it("leaves out what is '' though the site has it", function()
      desk:write("site/config.lua", "return { organization = { O = 'Contoso', OU = 'Mail', C = 'US' } }")
      assert.equal("CN=a.test,O=Contoso", asked("--domain", "a.test", "--unit", "", "--country", "").subject)
    end)

    it("refuses a country that ISO 3166 does not have, and a value that is too long, in a dry run as well", function()
      for _, dry in ipairs { "--quiet", "--dry-run" } do
        desk:refuses(2, "usage", "the country 'USA' is not a two-letter code of ISO 3166-1, such as US (United States is US)",
          "new-request", dry, "--domain", "a.test", "--country", "USA")
        desk:refuses(2, "usage", "the country 'ZZ' is not a two-letter code of ISO 3166-1, such as US", "new-request", dry,
          "--domain", "a.test", "--country", "ZZ")
        desk:refuses(1, "limit", "the organization 'üüüüüüüüüüüüüüüüüüüü...' has 65 characters, and may have 64 (X.520; RFC 5280, appendix A.1)",
          "new-request", dry, "--domain", "a.test", "--organization", ("ü"):rep(65))
        desk:refuses(1, "limit", "the state or province 'xxxxxxxxxxxxxxxxxxxx...' has 129 characters, and may have 128 (X.520; RFC 5280, appendix A.1)",
          "new-request", dry, "--domain", "a.test", "--state-name", ("x"):rep(129))
      end
      assert.same({}, (desk:done "list"))
    end)

    it("writes a country in upper case", function()
      assert.equal("CN=a.test,C=DE", asked("--domain", "a.test", "--country", "de").subject)
    end)

    it("that is wrong in the site's own values names where it stands", function()
      desk:write("site/config.lua", "return { organization = { C = 'UK' } }")
      desk:refuses(1, "refused", "subject in 'SITE/config.lua': the country 'UK' is not a two-letter code of "
        .. "ISO 3166-1, such as US (United Kingdom is GB)", "new-request", "--domain", "a.test")
      assert.equal("CN=a.test,C=GB", asked("--domain", "a.test", "--country", "GB").subject)
    end)
  end)

  describe("--out", function()
    it("writes the request there, and prints the object", function()
      local path = desk.path .. "/out.csr"
      local result = desk:run("new-request", "--domain", "a.test", "--out", path)
      assert.equal(0, result.status)
      assert.is_truthy(result.stdout:find "^Id +1\nName +a%.test\n")
      assert.equal(desk:read(desk.state .. "/requests/1.csr"), desk:read(path))
      assert.is_truthy(desk:shown(result.stderr):find("\nwrote the request to LAB/out.csr\nnext: certwright submit-request 1\n", 1, true))
      assert.equal("0644", desk:mode(path))
      os.remove(path)
    end)

    it("refuses a file that is there, but for --yes", function()
      local path = desk:write("there.csr", "something of mine")
      desk:refuses(1, "exists", "'LAB/there.csr' exists already; say --yes to replace it", "new-request", "--domain",
        "a.test", "--out", path)
      assert.equal("something of mine", desk:read(path))
      assert.same({}, (desk:done "list"))
      assert.equal(0, desk:run("new-request", "--domain", "a.test", "--out", path, "--yes").status)
      assert.same({ "DNS:a.test" }, desk:request(desk:read(path)).names)
      os.remove(path)
    end)

    it("never follows a link", function()
      local target, path = desk:write("target", "mine"), desk.path .. "/link.csr"
      assert(lfs.link(target, path, true))
      desk:refuses(1, "exists", "'LAB/link.csr' exists already; say --yes to replace it", "new-request", "--domain",
        "a.test", "--out", path)
      desk:refuses(1, "exists", "cannot write 'LAB/link.csr': not a regular file", "new-request", "--domain",
        "a.test", "--out", path, "--yes")
      assert.equal("mine", desk:read(target))
      assert.same({}, (desk:done "list"))
      os.remove(path)
    end)

    it("that cannot be written leaves no object and no key", function()
      desk:refuses(1, "missing", "cannot write 'LAB/no/out.csr': No such file or directory", "new-request", "--domain",
        "a.test", "--out", desk.path .. "/no/out.csr")
      assert.same({}, (desk:done "list"))
      assert.equal("1", desk:ask("--domain", "a.test"))
    end)

    it("is taken back with the key when the object cannot be stored", function()
      desk:ask("--domain", "a.test")
      do -- a full disk, as far as can be seen: only the COMMIT fails
        local db <close> = assert(require "core.store".open(desk.state .. "/store.db"))
        assert(db:run "CREATE TABLE full (id REFERENCES objects(id) DEFERRABLE INITIALLY DEFERRED)")
        assert(db:run "CREATE TRIGGER fill AFTER INSERT ON history BEGIN INSERT INTO full VALUES (0); END")
      end
      local path = desk.path .. "/stored.csr"
      desk:refuses(1, "constraint", "cannot write 'STATE/store.db': FOREIGN KEY constraint failed", "new-request",
        "--domain", "b.test", "--out", path)
      for _, gone in ipairs { path, desk.state .. "/keys/2.pem", desk.state .. "/requests/2.csr" } do
        assert.is_nil(file.stat(gone), gone)
      end
      assert.is_truthy(file.stat(desk.state .. "/keys/1.pem"))
    end)
  end)

  describe("--form", function()
    it("der writes DER, to a file or byte for byte to standard output", function()
      local path = desk.path .. "/out.der"
      desk:done("new-request", "--domain", "a.test", "--form", "der", "--out", path)
      local expected = desk:openssl("req", "-in", desk.state .. "/requests/1.csr", "-outform", "DER")
      assert.equal(expected, desk:read(path))
      os.remove(path)
      local result = desk:run("new-request", "--domain", "b.test", "--form", "der")
      assert.equal(desk:openssl("req", "-in", desk.state .. "/requests/2.csr", "-outform", "DER"), result.stdout)
      assert.same({ "DNS:b.test" }, desk:request(result.stdout, "DER").names)
      assert.is_truthy(desk:run("new-request", "--domain", "c.test", "--form", "pem").stdout:find "^%-%-%-%-%-BEGIN")
    end)

    it("is one of those that there are", function()
      desk:refuses(2, "usage", "argument for option '--form' must be one of 'pem', 'der'; see certwright help "
        .. "new-request", "new-request", "--domain", "a.test", "--form", "pfx")
    end)
  end)

  describe("--self-signed", function()
    it("makes a certificate at once, which openssl verifies against itself", function()
      local object = desk:done("new-request", "--domain", "a.test", "--domain", "b.test", "--self-signed", "--key",
        "rsa:2048", "--organization", "Contoso")
      assert.same({ "completed", true, "Untrusted", json.null, json.null },
        { object.state, object.self_signed, object.status, object.ca, object.ticket })
      local pem = desk:kept(1)
      local path = desk:write("self.pem", pem)
      assert.is_truthy(desk:openssl("verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "b.test",
        "-CAfile", path, path):find "OK")
      local certificate = desk:certificate(pem)
      assert.same({ "DNS:a.test", "DNS:b.test" }, certificate.names)
      assert.same({ "CN=a.test,O=Contoso", "Digital Signature, Key Encipherment", "TLS Web Server Authentication",
        "CA:FALSE" }, { certificate.subject, certificate.key_usage, certificate.extended_key_usage,
        certificate.basic_constraints })
      assert.equal(object.fingerprint, desk:digest("certificate", pem))
    end)

    it("is valid for the days that the site says", function()
      local function days(object)
        local function time(text)
          local year, month, day, hour, minute, second = text:match "(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)Z"
          return os.time { year = year, month = month, day = day, hour = hour, min = minute, sec = second }
        end
        return (time(object.not_after) - time(object.not_before)) // 86400
      end
      assert.equal(365, days(desk:done("new-request", "--domain", "a.test", "--self-signed")))
      desk:write("site/config.lua", "return { self_signed_days = 7 }")
      assert.equal(7, days(desk:done("new-request", "--domain", "a.test", "--self-signed")))
    end)

    it("is for this host, full name and short, where no name is given", function()
      local object = desk:done("new-request", "--self-signed")
      local full = assert(process.run { "hostname", "-f" }).stdout:match "^%S+"
      local short = assert(process.run { "hostname" }).stdout:match "^[^.%s]+"
      local wanted = full and full:find(".", 1, true) and { full:lower(), short:lower() } or { short:lower() }
      assert.same({ wanted, wanted[1] }, { object.domains, object.friendly_name })
      assert.equal(0, desk:run("enroll", "--self-signed").status)
      desk:refuses(2, "usage", "no name to ask for: give --domain NAME (repeat), --services LIST, or --root-domain D "
        .. "--wildcard", "new-request")
    end)

    it("that fails leaves nothing", function()
      desk:write("site/policy.lua", "return { renew_at = function() error('no', 0) end }")
      desk:refuses(1, "refused", "renew_at in 'SITE/policy.lua' failed: no", "new-request", "--domain", "a.test",
        "--self-signed")
      assert.same({}, (desk:done "list"))
      assert.is_nil(file.stat(desk.state .. "/keys/1.pem"))
    end)

    it("asks nobody: there is nothing to submit", function()
      desk:done("new-request", "--domain", "a.test", "--self-signed")
      desk:refuses(1, "exists", "1 is completed already; renew it with: certwright renew 1",
        "submit-request", "1")
    end)
  end)

  describe("--from", function()
    it("asks for the same names, subject and kind of key with a new key, and takes the name over", function()
      desk:write("site/config.lua", "return { organization = { O = 'Site', C = 'US' } }")
      local old = desk:done("new-request", "--self-signed", "--name", "mine", "--domain", "b.test", "--domain",
        "a.test", "--key", "rsa:2048", "--organization", "Contoso", "--unit", "Mail", "--locality", "Seattle",
        "--country", "DE")
      desk:write("site/config.lua", "return { key = 'ed25519' }")
      local request, object = asked("--from", "mine")
      assert.same({ "DNS:b.test", "DNS:a.test" }, request.names)
      assert.same({ "RSA 2048", "CN=b.test,OU=Mail,O=Contoso,L=Seattle,C=DE", "mine", 2 },
        { request.key, request.subject, object.friendly_name, object.id })
      assert.equal(old.subject, object.subject)
      assert.are_not.equal(desk:read(desk.state .. "/keys/1.pem"), desk:read(desk.state .. "/keys/2.pem"))
    end)

    it("takes options over what was", function()
      desk:done("new-request", "--self-signed", "--domain", "b.test", "--organization", "Contoso", "--unit", "Mail")
      local request, object = asked("--from", "1", "--domain", "c.test", "--unit", "Web", "--key", "ec:P-384",
        "--name", "other")
      assert.same({ "DNS:c.test" }, request.names)
      assert.same({ "CN=c.test,OU=Web,O=Contoso", "secp384r1", "other" },
        { request.subject, request.key, object.friendly_name })
    end)

    it("keeps the key with --reuse-key", function()
      desk:done("new-request", "--self-signed", "--domain", "b.test", "--key", "ec:P-384")
      local _, object = asked("--from", "1", "--reuse-key")
      assert.equal(desk:digest("request", desk:read(desk.state .. "/requests/1.csr")),
        desk:digest("request", desk:read(object.request_file)))
      assert.equal("0600", desk:mode(desk.state .. "/keys/2.pem"))
    end)

    it("makes no kept key exportable that was not", function()
      desk:done("new-request", "--self-signed", "--domain", "a.test")
      for _, more in ipairs { "--quiet", "--dry-run", "--self-signed" } do
        desk:refuses(1, "denied", "cannot make the key of 1 exportable: it was made or imported without --exportable",
          "new-request", "--from", "1", "--reuse-key", "--exportable", more)
      end
      assert.equal(1, #desk:done "list")
      assert.is_true(desk:done("new-request", "--self-signed", "--from", "1", "--exportable").exportable)
      assert.is_true(desk:done("new-request", "--self-signed", "--from", "2", "--reuse-key", "--exportable").exportable)
      assert.is_false(desk:done("new-request", "--self-signed", "--from", "1", "--reuse-key").exportable)
    end)

    it("needs a certificate, and --reuse-key needs --from", function()
      desk:ask("--domain", "a.test")
      desk:refuses(1, "mismatch", "cannot renew 1: it has no certificate yet, it is created", "new-request", "--from",
        "1")
      desk:refuses(1, "missing", "there is no request or certificate 7; see certwright list", "new-request", "--from", "7")
      desk:refuses(2, "usage", "--reuse-key needs --from CERT", "new-request", "--domain", "a.test", "--reuse-key")
      desk:done("new-request", "--self-signed", "--domain", "a.test")
      desk:refuses(2, "usage", "--reuse-key keeps the key: --key cannot be given with it", "new-request", "--from", "2",
        "--reuse-key", "--key", "ed25519")
    end)

    it("cannot reuse a key that is gone", function()
      desk:done("new-request", "--self-signed", "--domain", "a.test")
      os.remove(desk.state .. "/keys/1.pem")
      desk:refuses(1, "missing", "cannot read 'STATE/keys/1.pem': No such file or directory",
        "new-request", "--from", "1", "--reuse-key")
      assert.equal(1, #desk:done "list")
    end)
  end)

  describe("the friendly name", function()
    it("may be in use by nobody else", function()
      desk:ask("--name", "mail", "--domain", "a.test")
      desk:refuses(1, "exists", "the friendly name 'mail' is in use by 1; choose another with --name", "new-request",
        "--name", "mail", "--domain", "b.test")
      assert.equal(1, #desk:done "list")
      desk:done("cancel", "1")
      assert.equal("mail", desk:done("new-request", "--name", "mail", "--domain", "b.test").friendly_name)
    end)

    it("is one of several at once: only one command gets it", function()
      local ends, done = {}, 0
      for i = 1, 6 do
        ends[i] = desk:start("new-request", "--name", "mail", "--domain", "a.test", "--key", "rsa:2048")
      end
      for _, wait in ipairs(ends) do
        local status, text = wait()
        done = done + (status == 0 and 1 or 0)
        assert.is_truthy(status == 0 or text:find("the friendly name 'mail' is in use by 1;", 1, true), text)
      end
      assert.equal(1, done)
      assert.equal(1, #desk:done "list")
      assert.equal("1.pem", process.run({ "ls", desk.state .. "/keys" }).stdout:match "%S+")
    end)

    it("is made free where it was only suggested", function()
      desk:ask("--domain", "a.test")
      assert.equal("a.test (2)", desk:done("new-request", "--domain", "a.test").friendly_name)
      assert.equal("a.test (3)", desk:done("new-request", "--domain", "a.test").friendly_name)
      desk:write("site/policy.lua", ("return { friendly_name = function() return '%s' end }"):format(("ü"):rep(63)))
      assert.equal(("ü"):rep(63), desk:done("new-request", "--domain", "a.test").friendly_name)
      assert.equal(("ü"):rep(59) .. " (2)", desk:done("new-request", "--domain", "a.test").friendly_name)
    end)

    it("may be 63 characters long, of any script", function()
      local name = ("Ω"):rep(63)
      assert.equal(name, desk:done("new-request", "--domain", "a.test", "--name", name).friendly_name)
    end)

    for _, case in ipairs {
      { ("Ω"):rep(64), "must have 1 to 63 characters" }, { "1234", "may not be digits only: that is an id" },
      { "deadbeef", "may not be hex digits only: that is a fingerprint" },
      { "ABCDEF", "may not be hex digits only: that is a fingerprint" },
      { "a/b", "may not hold a control character or a /" }, { "a\tb", "may not hold a control character or a /" },
      { "a\u{9B}b", "may not hold a control character or a /" }, { "\xff", "is not UTF-8" },
      { "-a", "may not begin with -" },
    } do
      it(("cannot be one that %s: %s"):format(case[2], case[1]:gsub("%c", "?"):gsub("\xff", "?"):sub(1, 20)), function()
        local shown = case[1]:gsub("\t", "\\u{0009}"):gsub("\u{9B}", "\\u{009B}"):gsub("\xff", "\u{FFFD}")
        desk:refuses(2, "usage", ("the friendly name '%s' %s"):format(shown, case[2]), "new-request", "--domain",
          "a.test", "--name=" .. case[1])
        assert.same({}, (desk:done "list"))
      end)
    end

    it("may be five hex digits", function()
      assert.equal("beef5", desk:done("new-request", "--domain", "a.test", "--name", "beef5").friendly_name)
    end)
  end)

  it("--exportable is remembered", function()
    assert.is_true(desk:done("new-request", "--domain", "a.test", "--exportable").exportable)
    assert.is_false(desk:done("new-request", "--domain", "a.test").exportable)
  end)

  it("refuses --out and --form with --self-signed: there is no request to write", function()
    for option, value in pairs { ["--out"] = desk.path .. "/a.csr", ["--form"] = "pem" } do
      desk:refuses(2, "usage", option .. " is for a request, and --self-signed makes a certificate: certwright show "
        .. "tells of it", "new-request", "--domain", "a.test", "--self-signed", option, value)
    end
  end)

  describe("--dry-run", function()
    it("says every value and who decided it, and changes nothing", function()
      desk:write("site/config.lua", "return { key = 'ec:P-384', organization = { O = 'Contoso' } }")
      desk:write("site/policy.lua", "return { friendly_name = function(draft) return 'tls ' .. draft.common_name end }")
      local value = desk:done("new-request", "--domain", "a.test", "--dry-run")
      assert.same({ friendly_name = "tls a.test", common_name = "a.test", domains = { "a.test" }, key = "ec:P-384",
        subject = { CN = "a.test", O = "Contoso" }, ca = "manual", decided = {
          friendly_name = desk.site .. "/policy.lua", common_name = Desk.home .. "/lua/defaults/policy.lua",
          key = desk.site .. "/config.lua", subject = desk.site .. "/config.lua",
          ca = Desk.home .. "/lua/defaults/policy.lua" },
        would = { "would make a key and a request for a.test, below " .. desk.state } }, value)
      assert.is_nil(lfs.attributes(desk.state))
      local text = desk:shown(desk:run("new-request", "--domain", "a.test", "--dry-run", "--key", "ed25519").stdout)
      assert.is_truthy(text:find "\nfriendly_name +tls a%.test +SITE/policy%.lua\n")
      assert.is_truthy(text:find "\nkey +ed25519 +option\n")
      assert.is_truthy(text:find "\nca +manual +lua/defaults/policy%.lua\n")
    end)

    it("refuses what would be refused", function()
      desk:ask("--domain", "a.test", "--name", "mail")
      local before = desk:snapshot()
      desk:refuses(1, "exists", "the friendly name 'mail' is in use by 1; choose another with --name", "new-request",
        "--name", "mail", "--domain", "b.test", "--dry-run")
      assert.is_true(before == desk:snapshot())
    end)
  end)

  it("passes over the ids of keys that are there: they are never deleted, followed nor used", function()
    desk:ask("--domain", "a.test")
    local target = desk:write("elsewhere", "mine")
    assert(file.write(desk.state .. "/keys/2.pem", "half a key", { mode = tonumber("600", 8) }))
    assert(lfs.link(target, desk.state .. "/keys/3.pem", true))
    assert(file.write(desk.state .. "/requests/2.csr", "half a request"))
    for id = 4, 5 do
      local request, object = asked("--domain", "a.test")
      assert.same({ id, { "DNS:a.test" } }, { object.id, request.names })
      local path = ("%s/keys/%d.pem"):format(desk.state, id)
      assert.same({ "file", "0600" }, { lfs.symlinkattributes(path, "mode"), desk:mode(path) })
      assert.equal(desk:openssl("req", "-in", object.request_file, "-noout", "-pubkey"),
        desk:openssl("pkey", "-in", path, "-pubout"))
    end
    assert.equal("mine", desk:read(target))
    assert.equal("half a key", desk:read(desk.state .. "/keys/2.pem"))
    assert.equal("link", lfs.symlinkattributes(desk.state .. "/keys/3.pem", "mode"))
  end)

  it("killed at any moment leaves a store that works, and no object without its key", function()
    for i = 1, 8 do
      local child = assert(process.start { Desk.program, "--site", desk.site, "--state", desk.state, "new-request",
        "--domain", "a.test", "--quiet" })
      require("core.host").sleep(0.002 * i)
      child:stop("KILL", 10)
    end
    for _, object in ipairs(desk:done "list") do
      assert.equal(desk:openssl("req", "-in", object.request_file, "-noout", "-pubkey"),
        desk:openssl("pkey", "-in", ("%s/keys/%d.pem"):format(desk.state, object.id), "-pubout"))
    end
    asked("--domain", "b.test")
  end)
end)
