-- show: everything that is known of one object.

local here = debug.getinfo(1, "S").source:match "^@(.-)scripts/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local Terminal = dofile(here .. "support/terminal.lua")
local json = require "dkjson"
local process = require "core.process"

describe("show", function()
  local desk

  setup(function() desk = Desk.new "show" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  it("tells everything, with the history", function()
    desk:done("ca", "init")
    desk:done("enroll", "--domain", "a.test", "--name", "mail")
    local text = desk:run("show", "mail").stdout
    for _, pattern in ipairs { "^Id +1\nName +mail\nState +completed\nStatus +Valid %(chains to a trust anchor%)\n",
      "\nSubject +CN=a%.test\nDomains +a%.test\nKey +ec:P%-256\nIssuer +CN=Local certwright issuing CA\n",
      "\nSHA%-256 +%x+\nSHA%-1 +%x+\nCA +local\nTicket +%x+\n",
      "\nHistory\n  %S+  root  created\n  %S+  root  submitted: to local, ticket %x+\n  %S+  root  completed: "
        .. "fingerprint %x+\n$" } do
      assert.is_truthy(text:find(pattern), text)
    end
    local object = desk:done("show", "mail")
    assert.equal(3, #object.history)
    assert.is_nil(desk:done("list")[1].history)
  end)

  -- Completes a request of the CA outside with these extensions; what show says.
  local function completed(lines)
    local id, _, path = desk:ask("--domain", "a.test")
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root .. "/cert.pem"))
    local file = desk:sign(path, { extensions = lines })
    desk:done("complete-request", id, "--file", file, "--file", desk:outside() .. "/cert.pem")
    return desk:done("show", id), desk:read(file)
  end

  -- What openssl prints of extensions: { name, critical, text without line breaks }.
  local function extensions_of(pem)
    local text, list = desk:openssl("x509", "-noout", "-text", { stdin = pem }):match "X509v3 extensions:\n(.*)\n    Signature Algorithm", {}
    for line in text:gmatch "[^\n]+" do
      local name, critical = line:match "^            (%S.-): ?(c?r?i?t?i?c?a?l?)$"
      if name then
        list[#list + 1] = { name = name, critical = critical == "critical", text = "" }
      else
        list[#list].text = list[#list].text .. " " .. line:match "^%s*(.-)%s*$"
      end
    end
    return list
  end

  it("says everything that the certificate says: openssl is the judge", function()
    desk:outside()
    local sct = "00" .. ("ab"):rep(32) .. "0000018c00000000" .. "0000" .. "0403" .. "0008" .. "3006020101020101"
    local one = ("%04x"):format(#sct // 2) .. sct
    local list = ("%04x"):format(#one) .. one .. one
    local object, pem = completed(([[
subjectAltName = DNS:a.test, DNS:*.b.test, IP:192.0.2.7, email:x@a.test, URI:https://a.test/
keyUsage = critical, digitalSignature, keyEncipherment
extendedKeyUsage = serverAuth, clientAuth, 1.2.3.4
subjectKeyIdentifier = hash
authorityInfoAccess = OCSP;URI:http://ocsp.a.test, caIssuers;URI:http://a.test/ca.der
crlDistributionPoints = URI:http://a.test/1.crl, URI:http://a.test/2.crl
certificatePolicies = 2.23.140.1.2.1, 1.3.6.1.4.1.99999.1
1.3.6.1.4.1.11129.2.4.2 = ASN1:FORMAT:HEX,OCTETSTRING:%s
1.3.6.1.4.1.99999.7 = ASN1:FORMAT:HEX,OCTETSTRING:%s
]]):format(list, ("c0de"):rep(70)))
    local details = object.details
    local judged = extensions_of(pem)
    assert.equal(#judged, #details.extensions)
    for i, extension in ipairs(details.extensions) do
      local name = extension.name ~= json.null and extension.name or extension.oid
      assert.same({ judged[i].name, judged[i].critical }, { name, extension.critical })
      if extension.text ~= json.null then
        assert.equal((judged[i].text:gsub("%s+", "")), (extension.text:gsub("%s+", "")))
      end
    end
    assert.same({ 3, "ecdsa-with-SHA256", false, desk:digest("request", desk:read(object.request_file)) },
      { details.version, details.signature_algorithm, details.ca, details.public_key })
    assert.same({ { "http://ocsp.a.test" }, { "http://a.test/ca.der" }, { "http://a.test/1.crl", "http://a.test/2.crl" } },
      { details.ocsp, details.issuers, details.crls })
    assert.same({ "digitalSignature", "keyEncipherment" }, details.key_usage)
    assert.same({ "serverAuth", "clientAuth", "1.2.3.4" }, details.extended_key_usage)
    local text = desk:run("show", tostring(object.id)).stdout
    for _, line in ipairs { "  Version: 3\n", "  Signature algorithm: ecdsa-with-SHA256\n",
      "  Key Usage (critical): Digital Signature, Key Encipherment\n", "  Basic Constraints (critical): CA:FALSE\n",
      "  Subject Alternative Name: a.test, *.b.test, 192.0.2.7, email:x@a.test, uri:https://a.test/\n",
      "  Authority Information Access:\n    OCSP http://ocsp.a.test\n    issuer http://a.test/ca.der\n",
      "  CRL Distribution Points:\n    http://a.test/1.crl\n    http://a.test/2.crl\n",
      "    Policy: 2.23.140.1.2.1\n    Policy: 1.3.6.1.4.1.99999.1\n", "  CT Precertificate SCTs: 2 signed certificate timestamps\n",
      "  1.3.6.1.4.1.99999.7, 143 bytes: 0481 8cc0 dec0 ", " dec0 ...\n" } do
      assert.is_truthy(text:find(line, 1, true), ("no %q in\n%s"):format(line, text))
    end
  end)

  it("shows the chain up to the root, whose root it is, and where the key is", function()
    desk:outside()
    local object = completed "subjectAltName = DNS:a.test"
    local function subject(path) return desk:openssl("x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", path):match "subject=(.-)\n" end
    local issuing, root = desk:outside() .. "/cert.pem", desk.root .. "/cert.pem"
    assert.equal(2, #object.chain)
    assert.same({ subject(issuing), subject(root), desk:digest("certificate", desk:read(issuing)) },
      { object.chain[1].subject, object.chain[1].issuer, object.chain[1].fingerprint })
    assert.same({ subject = subject(root), fingerprint = desk:digest("certificate", desk:read(root)), kind = "site" }, object.root)
    assert.equal(desk.state .. "/keys/1.pem", object.private_key)
    local text = desk:run("show", "1").stdout
    for _, line in ipairs { "\nRoot         CN=Outside root (site)\n", ("\nPrivate key  %s/keys/1.pem (not exportable)\n"):format(desk.state),
      "\nChain\n  1  CN=Outside issuing\n     issued by CN=Outside root\n     from ", "\n  2  CN=Outside root (root: site)\n",
      "\n     SHA-256 " .. object.root.fingerprint .. "\n" } do
      assert.is_truthy(text:find(line, 1, true), ("no %q in\n%s"):format(line, text))
    end
    os.remove(object.private_key)
    object = desk:done("show", "1")
    assert.equal(json.null, object.private_key)
    assert.same({ code = "missing", message = ("its private key '%s/keys/1.pem' is gone"):format(desk.state) }, object.warnings[#object.warnings])
  end)

  it("knows the kinds of roots: the local CA's, the certificate itself, the system's, none", function()
    desk:done("ca", "init")
    desk:done("enroll", "--domain", "l.test", "--ca", "local")
    desk:done("new-request", "--self-signed", "--domain", "s.test")
    desk:ask("--domain", "a.test")
    desk:done("complete-request", "3", "--file", desk:sign(desk.state .. "/requests/3.csr"), "--file", desk:outside() .. "/cert.pem")
    assert.same({ "local CA", "self-signed", json.null }, { desk:done("show", "1").root.kind, desk:done("show", "2").root.kind,
      desk:done("show", "3").root })
    assert.equal(desk:done("show", "2").fingerprint, desk:done("show", "2").root.fingerprint)
    if process.run({ "unshare", "-m", "true" }).status ~= 0 then return end -- no mount of our own here
    local folder = desk.lab:folder "anchors"
    desk:openssl("x509", "-in", desk.root .. "/cert.pem", "-out", folder .. "/root.pem")
    desk:openssl("rehash", folder)
    local result = process.run { "unshare", "-m", "sh", "-c", ('mount --bind "%s" /etc/ssl/certs && exec "$0" "$@"'):format(folder),
      Desk.program, "--site", desk.site, "--state", desk.state, "--json", "show", "3" }
    assert.equal(0, result.status, result.stderr)
    assert.equal("system", json.decode(result.stdout, 1, json.null).root.kind)
  end)

  it("provokes each status but those of revocation, which have a spec of their own", function()
    desk:outside()
    local function status(id)
      local object = desk:done("show", id)
      return object.status, desk:shown(object.status_reason)
    end
    local function is(expected, reason, id) assert.same({ expected, reason }, { status(id) }) end
    assert.equal("Valid", completed("subjectAltName = DNS:a.test").status)
    is("PendingRequest", "not submitted to a CA yet", (desk:ask("--domain", "p.test")))
    desk:done("cancel", "2")
    is("Unknown", "the request was cancelled", "2")
    desk:write("site/config.lua", "return {}")
    local id, _, path = desk:ask("--domain", "a.test", "--name", "untrusted")
    desk:done("complete-request", id, "--file", desk:sign(path), "--file", desk:outside() .. "/cert.pem")
    is("Untrusted", 'no trusted issuer for "Outside issuing": "Outside root" is not in the chain and is not a known anchor', id)
    -- an anchor that may have no CA below it: the chain is whole, and breaks a rule
    local short = desk.lab:folder "short"
    desk:openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", short .. "/key.pem", "-out",
      short .. "/cert.pem", "-subj", "/CN=Short root", "-addext", "basicConstraints=critical,CA:TRUE,pathlen:0", "-addext",
      "keyUsage=critical,keyCertSign,cRLSign", "-config", desk:write("req.cnf", "[req]\ndistinguished_name = n\n[n]\n"))
    desk:write(short:sub(#desk.path + 2) .. "/root.pem", desk:read(short .. "/cert.pem"))
    desk:write(short:sub(#desk.path + 2) .. "/fullchain.pem", "")
    desk.authority = desk.lab:authority { name = "Too deep", ca = short }
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(short .. "/cert.pem"))
    id, _, path = desk:ask("--domain", "a.test", "--name", "invalid")
    desk:done("complete-request", id, "--file", desk:sign(path), "--file", desk.authority .. "/cert.pem")
    desk.authority = nil
    is("Invalid", 'certificate "Short root" is not trusted: path length constraint exceeded', id)
    assert.equal("Invalid", desk:done("list", "--status", "invalid")[1].status)
    local store <close> = assert(require("core.store").open(desk.state .. "/store.db"))
    assert(store:run "UPDATE objects SET not_after = 1000000000 WHERE id = 1")
    is("DateInvalid", "expired on TIME", "1")
  end)

  it("fits 80 columns", function()
    desk:done("ca", "init")
    local names = {}
    for i = 1, 12 do
      names[#names + 1] = "--domain"
      names[#names + 1] = ("server%d.long.corp.contoso.test"):format(i)
    end
    desk:done("enroll", "--ca", "local", table.unpack(names))
    local terminal <close> = Terminal.new({ Desk.program, "--site", desk.site, "--state", desk.state, "show", "1", "--revocation" },
      { columns = 80, rows = 70 })
    assert.equal(0, terminal:ended())
    local screen = terminal:screen()
    local object = desk:done("show", "1")
    for line in screen:gmatch "[^\n]+" do assert.is_true(#line <= 80, line) end
    for _, print_ in ipairs { object.fingerprint, object.chain[2].fingerprint, object.details.public_key } do
      assert.is_truthy(screen:find(print_, 1, true), screen)
    end
  end)

  it("needs to be told which", function()
    desk:refuses(1, "missing", "there is no request or certificate 'x'; see certwright list", "show", "x")
    desk:refuses(1, "missing", "there is no request or certificate '\\u{001B}[31m'; see certwright list", "show",
      "\27[31m")
  end)
end)
