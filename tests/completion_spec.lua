-- completion: the chain that is built from what came, in whatever order; what is
-- said of it, and what is no certificate that could serve.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local der = dofile(here .. "corpus/der.lua")

local EC, CN, SAN = "1.2.840.10045.4.3.2", "2.5.4.3", "2.5.29.17"
local CA = "basicConstraints = critical, CA:true\nkeyUsage = critical, keyCertSign, cRLSign\n"
  .. "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n"

describe("completion", function()
  local desk, request, spki

  setup(function()
    desk = Desk.new "completion"
    desk:outside()
  end)
  teardown(function() desk:close() end)
  before_each(function()
    desk:clear()
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root .. "/cert.pem"))
    local _, _, path = desk:ask("--domain", "a.test")
    request = path
    spki = desk:openssl("pkey", "-pubin", "-outform", "DER",
      { stdin = desk:openssl("req", "-in", request, "-noout", "-pubkey") })
  end)

  -- A CA: below the folder of another, or a root; options { key = folder of a CA
  -- whose key it has, from, to = days, extensions =, kind = "rsa:1024" }.
  local function authority(name, above, options)
    options = options or {}
    local folder = desk.lab:folder(name:gsub("%W", ""))
    local kind = options.kind and { "-newkey", options.kind } or { "-newkey", "ec", "-pkeyopt",
      "ec_paramgen_curve:P-256" }
    if options.key then kind = { "-new", "-key", options.key .. "/key.pem" } end
    desk:openssl("req", "-nodes", "-subj", "/CN=" .. name, "-keyout", folder .. "/key.pem", "-out",
      folder .. "/request.pem", table.unpack(kind))
    local key = (options.key or folder) .. "/key.pem"
    local function date(days) return os.date("!%Y%m%d%H%M%SZ", os.time() + days * 86400) end
    desk:write("ca.cnf", ("[ca]\ndefault_ca = any\n[any]\ndatabase = %s/index\nnew_certs_dir = %s\nrand_serial = yes\n"
      .. "default_md = sha256\npolicy = policy\nx509_extensions = extensions\n[policy]\ncommonName = supplied\n"
      .. "[extensions]\n%s%s"):format(folder, folder, CA, options.extensions or ""))
    local by = above and { "-cert", above .. "/cert.pem", "-keyfile", above .. "/key.pem" }
      or { "-selfsign", "-keyfile", key }
    assert(io.open(folder .. "/index", "w")):close()
    desk:openssl("ca", "-batch", "-notext", "-config", desk.path .. "/ca.cnf", "-in", folder .. "/request.pem", "-out",
      folder .. "/cert.pem", "-startdate", date(options.from or -5), "-enddate", date(options.to or 900),
      table.unpack(by))
    return folder
  end

  -- Completes the request with files in this order: the object and its chain's subjects.
  local function complete(...)
    local words = {}
    for _, path in ipairs { ... } do table.move({ "--file", path }, 1, 2, #words + 1, words) end
    local object, result = desk:done("complete-request", table.unpack(words))
    local _, chain = desk:kept "1"
    local kept = {}
    for pem in chain:gmatch "%-%-%-%-%-BEGIN.-%-%-%-%-%-END CERTIFICATE%-%-%-%-%-\n" do
      kept[#kept + 1] = desk:digest("certificate", pem)
    end
    return object, kept, result
  end
  local function print_of(folder) return desk:digest("certificate", desk:read(folder .. "/cert.pem")) end
  local function forget()
    desk:clear()
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root .. "/cert.pem"))
  end

  -- Completes a fresh request in each of these orders.
  local function each_order(issuer, expected, status, ...)
    local files = { ... }
    for turn = 1, #files do
      forget()
      local _, _, path = desk:ask("--domain", "a.test")
      local leaf = desk:sign(path, { ca = issuer })
      local turned = { table.unpack(files, turn) }
      table.move(files, 1, turn - 1, #turned + 1, turned)
      for i, folder in ipairs(turned) do turned[i] = folder .. "/cert.pem" end
      table.insert(turned, turn, leaf)
      local object, kept = complete(table.unpack(turned))
      local prints = {}
      for i, folder in ipairs(expected) do prints[i] = print_of(folder) end
      assert.same({ status, prints }, { object.status, kept }, object.status_reason)
    end
  end

  it("builds the chain to a known anchor, whichever certificate of an issuer comes first", function()
    local other = authority "New root"
    local cross = authority("New root", desk.root, { key = other })
    local stale = authority("New root", desk.root, { key = other, from = -30, to = -20 })
    local issuing = authority("New issuing", other)
    each_order(issuing, { issuing, cross }, "Valid", issuing, other, cross, stale)
    each_order(issuing, { issuing, cross }, "Valid", issuing, cross, stale, desk.root)
    each_order(issuing, { issuing }, "Untrusted", issuing, stale, other)
  end)

  it("takes of two ways the one that leads to a known anchor, or is valid", function()
    local nobody = authority "Nobody's root"
    local first = authority("Twice", nobody)
    local second = authority("Twice", desk.root, { key = first })
    each_order(first, { second }, "Valid", first, second, nobody)
    local third = authority("Renewed", desk.root)
    local expired = authority("Renewed", desk.root, { key = third, from = -30, to = -1 })
    each_order(third, { third }, "Valid", expired, third)
    each_order(third, { expired }, "Invalid", expired)
  end)

  -- The warnings of a certificate that a CA below the root makes.
  local function warned(options, issuer)
    local object, _, result = complete(desk:sign(request, { ca = issuer, arguments = options }), issuer .. "/cert.pem")
    assert.equal("Valid", object.status)
    assert.is_nil(result.stderr:find("'anchors'", 1, true), "advice that does not help: " .. result.stderr)
    local messages = {}
    for i, warning in ipairs(object.warnings) do messages[i] = desk:shown(warning.message) end
    return messages
  end

  it("warns of an issuer's weak key", function()
    assert.same({ "'Weak' has a weak key, which clients refuse: rsa:1024" },
      warned({}, authority("Weak", desk.root, { kind = "rsa:1024" })))
  end)

  it("warns of a weak digest in a signature of RSASSA-PSS", function()
    local pss = { "-sigopt", "rsa_padding_mode:pss", "-md", "sha1" }
    local issuer = authority("PSS", desk.root, { kind = "rsa:2048" })
    assert.same({ "'a.test' has a weak signature, which clients refuse: rsassaPss with SHA1" }, warned(pss, issuer))
  end)

  it("takes one of RSASSA-PSS with SHA-256, of Ed25519 and of P-384 without a word", function()
    for _, kind in ipairs { "rsa:2048", "ed25519", "rsa:3072" } do
      forget()
      request = select(3, desk:ask("--domain", "a.test"))
      assert.same({}, warned(kind == "rsa:2048" and { "-sigopt", "rsa_padding_mode:pss" }, authority("Good" .. kind,
        desk.root, { kind = kind })))
    end
  end)

  it("warns of an issuer that is not for servers, and of one that expires before", function()
    assert.same({ "its issuer 'Mail' is not for servers: its extended key usage is emailProtection" },
      warned({}, authority("Mail", desk.root, { extensions = "extendedKeyUsage = emailProtection\n" })))
    forget()
    request = select(3, desk:ask("--domain", "a.test"))
    assert.same({ "its issuer 'Short' expires before it does, on TIME" },
      warned({}, authority("Short", desk.root, { to = 9 })))
  end)

  it("says when the chain breaks a rule, and gives no advice that would not mend it", function()
    local issuer = authority("Narrow", desk.root, { extensions = "nameConstraints = critical, permitted;DNS:b.test\n" })
    local object, _, result = complete(desk:sign(request, { ca = issuer }), issuer .. "/cert.pem")
    assert.equal("Invalid", object.status)
    assert.is_truthy(result.stderr:find('certwright: warning: certificate "a.test" is not trusted: permitted subtree '
      .. "violation\n", 1, true), result.stderr)
  end)

  it("names what is more in the certificate, be it no domain; of very many names the first", function()
    local object = complete(desk:sign(request, { extensions = "subjectAltName = DNS:a.test, email:x@y.test, "
      .. "URI:https://u.test, otherName:1.3.6.1.4.1.311.20.2.3;UTF8:user@x" }))
    assert.equal("in the certificate but not asked for: email:x@y.test, uri:https://u.test, "
      .. "other:1.3.6.1.4.1.311.20.2.3:user@x", object.warnings[1].message)
    forget()
    request = select(3, desk:ask("--domain", "n1.test"))
    local names = {}
    for i = 1, 300 do names[i] = ("n%d.test"):format(i) end
    object = complete(desk:sign(request, { names = names }))
    assert.equal(300, #object.domains)
    assert.equal("in the certificate but not asked for: " .. table.concat(names, ", ", 2, 21) .. " +279 more",
      object.warnings[1].message)
  end)

  it("warns of an IP address that is there as a DNS name", function()
    forget()
    request = select(3, desk:ask("--domain", "192.0.2.7", "--domain", "2001:db8::1", "--domain", "b\u{FC}cher.test"))
    local object = complete(desk:sign(request, { extensions = "subjectAltName = DNS:192.0.2.7, IP:2001:DB8:0:0::1, "
      .. "DNS:XN--BCHER-KVA.test" }), desk:outside() .. "/cert.pem")
    assert.same({ { code = "mismatch", message = "asked for but not in the certificate: 192.0.2.7" },
      { code = "mismatch", message = "in the certificate but not asked for: dns:192.0.2.7" } }, object.warnings)
  end)

  it("warns of must-staple that was not asked for", function()
    local object = complete(desk:sign(request, { extensions = "subjectAltName = DNS:a.test\ntlsfeature = status_request" }),
      desk:outside() .. "/cert.pem")
    assert.same({ { code = "mismatch", message = "in the certificate but not asked for: must-staple, with which clients "
      .. "refuse a service that staples no OCSP response (RFC 7633)" } }, object.warnings)
  end)

  -- A certificate for the key of the request that nobody signed.
  local function forged(options)
    local function name(value) return der.sequence(der.set(der.sequence(der.oid(CN), der.utf8(value)))) end
    local function date(days) return der.utc(os.date("!%y%m%d%H%M%SZ", os.time() + days * 86400)) end
    local ecdsa = der.sequence(der.oid(EC))
    local alternatives = der.octets(der.sequence(der.implicit(2, options.domain or "a.test")))
    return desk:write("forged.der", der.sequence(der.sequence(der.explicit(0, der.integer(2)), der.integer(7), ecdsa,
      name(options.issuer or "Nobody"), der.sequence(options.from or date(-1), options.to or date(90)),
      name(options.subject or "a.test"), spki, der.explicit(3, der.sequence(der.sequence(der.oid(SAN), alternatives)))),
      ecdsa, der.bits(der.sequence(der.integer(5), der.integer(6)))))
  end

  local function state() return (desk:snapshot():gsub("[^\n]*/locks/1 file \n", "")) end
  local function refuses(code, message, path)
    local before = state()
    for _, words in ipairs { { "complete-request", "--file", path }, { "complete-request", "1", "--file", path },
                             { "complete-request", "--dry-run", "--file", path }, { "import", path } } do
      desk:refuses(1, code, message, table.unpack(words))
    end
    assert.is_true(before == state())
  end

  it("refuses malformed dates", function()
    for _, options in ipairs { { to = der.utc "garbage" }, { from = der.utc "garbage" },
                               { to = der.utc "991332999999Z" }, { to = der.time "2027" } } do
      refuses("parse", "cannot read the certificate 'a.test': the dates of its validity are malformed", forged(options))
    end
  end)

  it("refuses a name that is longer than a domain name can be, naming the limit", function()
    refuses("limit", "the certificate 'a.test' is for a name of 254 octets: a domain name has at most 253 (RFC 1035)",
      forged { domain = ("x"):rep(254) })
    assert.equal(("x"):rep(253), desk:done("complete-request", "--file", forged { domain = ("x"):rep(253) }).domains[1])
  end)

  it("quotes a name so that nothing in it looks like the end of it, and not without end", function()
    local object = complete(forged { subject = 'a.test": fine, "b\rc', issuer = 'Good CA": it is fine and "Root\n' })
    assert.equal([[no trusted issuer for "a.test\": fine, \"b\0Dc": "Good CA\": it is fine and \"Root\0A" is not in ]]
      .. "the chain and is not a known anchor", object.warnings[1].message)
    forget()
    desk:ask "--domain=a.test"
    desk:refuses(1, "mismatch", "no request has the key of '" .. ("\u{E4}"):rep(128) .. "...' (key HEX); these wait:\n"
      .. "  1  a.test  a.test  key HEX", "complete-request", "--file", forged { subject = ("\u{E4}"):rep(5000) })
  end)

  -- The site's own certificates.lua, which kills the program after the n-th call of
  -- a function.
  local function kill_after(name, n)
    desk:write("site/lua/certificates.lua", ([[
      local host = require "core.host"
      local M = assert(require("loader").file "%s/lua/certificates.lua")()
      local whole, left = M.%s, %d
      M.%s = function(...)
        local results = table.pack(whole(...))
        left = left - 1
        if left == 0 then host.signal(host.pid(), "KILL") end
        return table.unpack(results, 1, results.n)
      end
      return M]]):format(desk.home, name, n or 1, name))
  end

  it("is done whole or not at all, wherever it is killed", function()
    local leaf = desk:sign(request)
    local before = state()
    for _, name in ipairs { "with_key", "get", "advance", "record" } do
      kill_after(name)
      assert.equal(9, desk:run("complete-request", "--file", leaf).signal)
      assert.is_true(before == state(), "killed after " .. name)
    end
    kill_after("get", 2) -- which is called again when it is done
    assert.equal(9, desk:run("complete-request", "--file", leaf).signal)
    os.remove(desk.site .. "/lua/certificates.lua")
    local object = desk:done("show", "1")
    assert.same({ "completed", desk:digest("certificate", desk:read(leaf)) }, { object.state, object.fingerprint })
    local done = state()
    desk:done("complete-request", "--file", leaf)
    assert.is_true(done == state())
  end)

  it("may be asked for by several at once: one does it, the others find it done", function()
    local leaf = desk:sign(request)
    desk:write("site/lua/certificates.lua", ([[ -- each waits when it has found the request
      local file, host = require "core.file", require "core.host"
      local M = assert(require("loader").file "%s/lua/certificates.lua")()
      local with_key = M.with_key
      M.with_key = function(...)
        local results = table.pack(with_key(...))
        file.write("%s/found." .. host.pid(), "", { exclusive = false })
        while not file.stat "%s/go" do host.sleep(0.02) end
        return table.unpack(results, 1, results.n)
      end
      return M]]):format(desk.home, desk.site, desk.site))
    local waits = {}
    for i = 1, 3 do waits[i] = desk:start("complete-request", "--file", leaf) end
    local host = require "core.host"
    local deadline, found = host.clock() + 60
    repeat
      host.sleep(0.02)
      found = 0
      for name in require("lfs").dir(desk.site) do found = found + (name:find "^found" and 1 or 0) end
    until found == 3 or host.clock() > deadline
    desk:write("site/go", "")
    local outcomes = {}
    for i, wait in ipairs(waits) do outcomes[i] = { wait() } end
    for _, outcome in ipairs(outcomes) do assert.equal(0, outcome[1], outcome[2]) end
    os.remove(desk.site .. "/lua/certificates.lua")
    assert.equal("completed", desk:done("show", "1").state)
  end)
end)
