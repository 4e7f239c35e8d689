--- Makes the corpus: broken and hostile certificates, requests, keys, PKCS #7,
-- PKCS #12 and piles of PEM, always the same, one folder for each kind:
--   ./certwright tests/corpus/make.lua FOLDER
-- Nothing in it was signed by anybody: the readers do not ask.  The key of
-- every certificate is the generator of P-256, whose private half is 1.

local folder = assert(arg[1], "usage: certwright tests/corpus/make.lua FOLDER")
local here = debug.getinfo(1, "S").source:match "^@(.*/)[^/]*$" or "./"
local der = dofile(here .. "der.lua")
local sequence, set, oid, integer, explicit, implicit = der.sequence, der.set, der.oid, der.integer, der.explicit,
  der.implicit
local octets, bits, null = der.octets, der.bits, der.null

local kept, count = {}, 0
local function keep(name, bytes)
  assert(not kept[name], name)
  kept[name], count = true, count + 1
  assert(core.file.mkdirs(folder .. "/" .. name:match "^(.*)/", tonumber("755", 8)))
  local file <close> = assert(io.open(folder .. "/" .. name, "wb"))
  assert(file:write(bytes))
end

-- Bytes that look random and are always the same.
local function noise(length, seed)
  local state, out = seed or 1, {}
  for i = 1, length do
    state = (state * 1103515245 + 12345) & 0x7FFFFFFF
    out[i] = string.char(state >> 16 & 255)
  end
  return table.concat(out)
end

-- What valid files are made of

local OID = {
  CN = "2.5.4.3", C = "2.5.4.6", O = "2.5.4.10", ec = "1.2.840.10045.2.1", p256 = "1.2.840.10045.3.1.7",
  rsa = "1.2.840.113549.1.1.1", ed25519 = "1.3.101.112", ecdsa = "1.2.840.10045.4.3.2", pss = "1.2.840.113549.1.1.10",
  san = "2.5.29.17", constraints = "2.5.29.19", key_usage = "2.5.29.15", purposes = "2.5.29.37", skid = "2.5.29.14",
  akid = "2.5.29.35", crls = "2.5.29.31", access = "1.3.6.1.5.5.7.1.1", features = "1.3.6.1.5.5.7.1.24",
  data = "1.2.840.113549.1.7.1", signed = "1.2.840.113549.1.7.2", encrypted = "1.2.840.113549.1.7.6",
  extensions = "1.2.840.113549.1.9.14", pbes2 = "1.2.840.113549.1.5.13", pbkdf2 = "1.2.840.113549.1.5.12",
  scrypt = "1.3.6.1.4.1.11591.4.11", aes = "2.16.840.1.101.3.4.1.42", hmac = "1.2.840.113549.2.9",
  sha256 = "2.16.840.1.101.3.4.2.1", pbe_old = "1.2.840.113549.1.12.1.3", bag = "1.2.840.113549.1.12.10.1.3",
  x509 = "1.2.840.113549.1.9.22.1", key_bag = "1.2.840.113549.1.12.10.1.2", safe_bag = "1.2.840.113549.1.12.10.1.6",
}

local G = "\x04" .. ("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296" ..
  "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"):gsub("..", function(hex)
    return string.char(tonumber(hex, 16))
  end)
local ONE = ("\0"):rep(31) .. "\1"

local ecdsa = sequence(oid(OID.ecdsa))
local signature = bits(sequence(integer(noise(32, 7)), integer(noise(32, 8))))
local function algorithm(name, parameters) return sequence(oid(OID[name] or name), parameters or "") end
local ec = algorithm("ec", oid(OID.p256))
local spki = sequence(ec, bits(G))
local function rsa_public(n, e) return sequence(algorithm("rsa", null()), bits(sequence(integer(n), integer(e)))) end

-- A name of one attribute; value is an element, or text.
local function name(value, type)
  value = value:find "^[\x0C-\x1E\x03\x30]" and value or der.utf8(value)
  return sequence(set(sequence(oid(type or OID.CN), value)))
end

local function extension(type, contents, critical)
  return sequence(oid(OID[type] or type), critical and der.boolean(true) or "", octets(contents))
end
local function dns(...)
  local names = { ... }
  for i, text in ipairs(names) do names[i] = implicit(2, text) end
  return table.concat(names)
end
local function san(...) return extension("san", sequence(...)) end

-- A certificate; what fields does not say is in order.
local function certificate(fields)
  local f = fields or {}
  local extensions = f.extensions or {
    san(dns("mail.contoso.com", "*.contoso.com"), implicit(7, "\192\0\2\7"), implicit(1, "a@contoso.com")),
    extension("constraints", sequence(), true), extension("key_usage", bits("\x80", 7), true),
    extension("purposes", sequence(oid "1.3.6.1.5.5.7.3.1")), extension("skid", octets(noise(20))),
    extension("akid", sequence(implicit(0, noise(20)))),
    extension("crls", sequence(sequence(explicit(0, explicit(0, implicit(6, "http://crl.contoso.com/1.crl")))))),
    extension("access", sequence(sequence(oid "1.3.6.1.5.5.7.48.1", implicit(6, "http://ocsp.contoso.com")))),
    extension("features", sequence(integer(5))),
  }
  local tbs = sequence(f.version or explicit(0, integer(2)), f.serial or integer(0x1234567890), f.signed_by or ecdsa,
    f.issuer or name "Contoso CA",
    f.validity or sequence(der.utc(f.not_before or "250101000000Z"), der.utc(f.not_after or "350101000000Z")),
    f.subject or name "mail.contoso.com", f.spki or spki,
    f.raw_extensions or (#extensions > 0 and explicit(3, sequence(table.unpack(extensions))) or ""))
  return sequence(tbs, f.signed_by or ecdsa, f.signature or signature)
end

local function request(fields)
  local f = fields or {}
  local extensions = sequence(f.extensions or san(dns("mail.contoso.com", "www.contoso.com")))
  local attributes = f.attributes or explicit(0, sequence(oid(OID.extensions), set(extensions)))
  return sequence(sequence(f.version or integer(0), f.subject or name "mail.contoso.com", f.spki or spki, attributes),
    ecdsa, f.signature or signature)
end

local function ec_private(scalar, ...) return sequence(integer(1), octets(scalar), ...) end
local function pkcs8(parameters, key, ...) return sequence(integer(0), parameters, octets(key), ...) end
local function rsa_private(n, e, other)
  local p, q = other or noise(#n // 2, 3), other or noise(#n // 2, 4)
  return sequence(integer(0), integer(n), integer(e), integer(noise(#n, 5)), integer(p), integer(q), integer(p),
    integer(q), integer(p))
end

-- EncryptedPrivateKeyInfo with what is no cipher text.
local function sealed(parameters, length)
  return sequence(parameters, octets(noise(length or 128, 9)))
end
local function pbes2(derivation)
  return algorithm("pbes2", sequence(derivation, algorithm("aes", octets(noise(16)))))
end
local function pbkdf2(iterations, ...)
  return pbes2(algorithm("pbkdf2", sequence(octets(noise(16)), integer(iterations), ...)))
end
local function scrypt(n, r, p) return pbes2(algorithm("scrypt", sequence(octets(noise(16)), n, r, p))) end

-- Degenerate SignedData: certificates and nothing else (RFC 5652, 5.1).
local function pkcs7(certificates, more)
  return sequence(oid(OID.signed), explicit(0, sequence(integer(1), set(), sequence(oid(OID.data)),
    explicit(0, certificates), more or "", set())))
end

local function pkcs12(contents, iterations, salt)
  local safe = sequence(contents)
  local mac = sequence(sequence(algorithm("sha256", null()), octets(noise(32))), octets(salt or noise(8)),
    integer(iterations or 2048))
  return sequence(integer(3), sequence(oid(OID.data), explicit(0, octets(safe))), iterations ~= false and mac or "")
end
local function safe_data(...) return sequence(oid(OID.data), explicit(0, octets(sequence(...)))) end
local function certificate_bag(bytes)
  return sequence(oid(OID.bag), explicit(0, sequence(oid(OID.x509), explicit(0, octets(bytes)))))
end
local function key_bag(bytes) return sequence(oid(OID.key_bag), explicit(0, bytes)) end
local function safe_encrypted(parameters)
  return sequence(oid(OID.encrypted), explicit(0, sequence(integer(0),
    sequence(oid(OID.data), parameters, implicit(0, noise(256))))))
end

local leaf, plain_request, plain_key = certificate(), request(), pkcs8(ec, ec_private(ONE))
local LIMIT = 1024 * 1024

-- What a CA publishes: a revocation list and an OCSP response; both as unsigned as
-- all else here.
local entry = sequence(integer(5), der.utc "250601000000Z", sequence(extension("2.5.29.21", der.element(0x0A, "\1"))))
local list = sequence(sequence(integer(1), ecdsa, name "Contoso CA", der.utc "250101000000Z", der.utc "350101000000Z",
  sequence(entry, entry), explicit(0, sequence(extension("2.5.29.20", integer(1)),
  extension("2.5.29.28", sequence(explicit(0, explicit(0, implicit(6, "http://crl.contoso.com/1.crl")))), true)))), ecdsa,
  signature)
local function time(text) return der.element(0x18, text) end
local single = sequence(sequence(algorithm("1.3.14.3.2.26", null()), octets(noise(20)), octets(noise(20)), integer(5)),
  explicit(1, time "20250601000000Z", explicit(0, der.element(0x0A, "\1"))), time "20250601000000Z",
  explicit(0, time "20350101000000Z"))
local response = sequence(der.element(0x0A, "\0"), explicit(0, sequence(oid "1.3.6.1.5.5.7.48.1.1", octets(sequence(
  sequence(explicit(1, name "Contoso CA"), time "20250601000000Z", sequence(single, single)), ecdsa, signature,
  explicit(0, sequence(leaf)))))))

-- Every kind, whole, and then broken in every mechanical way.

local whole = {
  { "certificate", "CERTIFICATE", leaf },
  { "request", "CERTIFICATE REQUEST", plain_request },
  { "key", "PRIVATE KEY", plain_key },
  { "pkcs7", "PKCS7", pkcs7(leaf .. certificate { serial = integer(2) }) },
  { "list", "X509 CRL", list },
  { "response", "OCSP RESPONSE", response },
  { "pkcs12", "PKCS12", pkcs12(safe_data(certificate_bag(leaf)) .. safe_data(key_bag(sealed(pkcs8(ec, ""))))) },
}

-- At one length that lies: longer, shorter, endless, of four and of more octets.
local function lies(bytes, element)
  local head, rest = bytes:sub(1, element.at), bytes:sub(element.at + element.header)
  return {
    longer = head .. der.length(element.length + 1) .. rest,
    shorter = head .. der.length(math.max(0, element.length - 1)) .. rest,
    endless = head .. "\x80" .. rest, huge = head .. "\x84\xFF\xFF\xFF\xFF" .. rest,
    long_form = head .. "\x84" .. (">I4"):pack(element.length) .. rest,
    impossible = head .. "\x89" .. ("\xFF"):rep(9) .. rest,
  }
end

for _, each in ipairs(whole) do
  local kind, label, bytes = table.unpack(each)
  keep(kind .. "/whole.der", bytes)
  keep(kind .. "/whole.pem", der.pem(label, bytes))
  for i = 1, 9 do keep(("%s/cut-%d.der"):format(kind, i), bytes:sub(1, #bytes * i // 10)) end
  local text = der.pem(label, bytes)
  for i = 1, 4 do keep(("%s/cut-%d.pem"):format(kind, i), text:sub(1, #text * i // 5)) end
  local elements = der.walk(bytes)
  for i = 1, #elements, math.max(1, #elements // 7) do
    for lie, lying in pairs(lies(bytes, elements[i])) do keep(("%s/length-%d-%s.der"):format(kind, i, lie), lying) end
  end
  for i = 1, #elements, math.max(1, #elements // 9) do
    local at = elements[i].at
    keep(("%s/tag-%d.der"):format(kind, i), bytes:sub(1, at - 1) .. string.char(bytes:byte(at) ~ 0x11)
      .. bytes:sub(at + 1))
  end
  keep(kind .. "/trailing.der", bytes .. "trailing")
  keep(kind .. "/trailing.pem", text .. ("\0\xFF"):rep(100))
  keep(kind .. "/endless.der", "\x30\x80" .. bytes:sub(5) .. "\0\0")
  keep(kind .. "/no-end-line.pem", (text:gsub("%-%-%-%-%-END.*", "")))
  keep(kind .. "/other-end-line.pem", (text:gsub("END [%u%d ]+", "END OTHER")))
  keep(kind .. "/crlf.pem", der.pem(label, bytes, "\r\n"))
  keep(kind .. "/cr.pem", der.pem(label, bytes, "\r"))
  local odd = false
  keep(kind .. "/mixed.pem", (text:gsub("\n", function()
    odd = not odd
    return odd and "\r\n" or " \n"
  end)))
  keep(kind .. "/one-line.pem", (text:gsub("([%w+/=])\n([%w+/=])", "%1%2"):gsub("([%w+/=])\n([%w+/=])", "%1%2")))
  keep(kind .. "/utf-16le.pem", "\xFF\xFE" .. text:gsub(".", "%0\0"))
  keep(kind .. "/utf-16be.pem", "\xFE\xFF" .. text:gsub(".", "\0%0"))
  keep(kind .. "/mark.pem", "\xEF\xBB\xBF" .. text)
  keep(kind .. "/bad-base64.pem", (text:gsub("\nM", "\n!", 1)))
  keep(kind .. "/padding-inside.pem", (text:gsub("\n(....)", "\n%1==", 1)))
  keep(kind .. "/nul-inside.pem", (text:gsub("\n(....)", "\n%1\0", 1)))
  keep(kind .. "/dek-info.pem", der.pem(label, bytes, nil, "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC," ..
    ("0"):rep(32) .. "\n\n"))
  keep(kind .. "/dek-unknown.pem", der.pem(label, bytes, nil, "Proc-Type: 4,ENCRYPTED\nDEK-Info: ROT-13,00\n\n"))
  keep(kind .. "/limit-and-one.der", bytes .. ("\0"):rep(LIMIT + 1 - #bytes))
  keep(kind .. "/limit-and-one.pem", text .. ("\n"):rep(LIMIT + 1 - #text))
  keep(kind .. "/limit.pem", text .. ("\n"):rep(LIMIT - #text))
  keep(kind .. "/noise.der", bytes:sub(1, 40) .. noise(#bytes))
  keep(kind .. "/zero-length.pem", der.pem(label, ""))
end

-- What any reader may be given.

for status = 1, 7 do keep(("response/status-%d.der"):format(status), sequence(der.element(0x0A, string.char(status)))) end

keep("pile/empty", "")
keep("pile/nul", "\0")
keep("pile/zeros", ("\0"):rep(LIMIT))
keep("pile/noise", noise(LIMIT))
keep("pile/begin-lines", ("-----BEGIN CERTIFICATE-----\n"):rep(LIMIT // 28))
keep("pile/begin-only", "-----BEGIN ")
keep("pile/begin-certificate-only", "-----BEGIN CERTIFICATE-----")
keep("pile/dashes", ("-"):rep(LIMIT))
keep("pile/giant-base64-line", "-----BEGIN CERTIFICATE-----\n" .. ("A"):rep(LIMIT - 100)
  .. "\n-----END CERTIFICATE-----\n")
keep("pile/giant-label", "-----BEGIN " .. ("A"):rep(LIMIT - 100) .. "-----\n")
keep("pile/giant-header", der.pem("PRIVATE KEY", plain_key, nil, "X: " .. ("y"):rep(LIMIT // 2) .. "\n\n"))
keep("pile/many-headers", der.pem("PRIVATE KEY", plain_key, nil, ("X: y\n"):rep(10000) .. "\n"))
keep("pile/empty-blocks", ("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"):rep(1000))
keep("pile/nested-sequences", ("\x30\x80"):rep(LIMIT // 2))
keep("pile/nested-sets", ("\x31\x80"):rep(10000))
keep("pile/nested-octets", ("\x24\x80"):rep(100000))
local nested = ""
for _ = 1, 2000 do nested = sequence(nested) end
keep("pile/nested-definite", nested)
keep("pile/html", "<!DOCTYPE html><title>502</title>")
keep("pile/json", '{"certificate":"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n"}')
for _, number in ipairs { 2, 99, 100, 101, 1000 } do
  keep(("pile/certificates-%d.pem"):format(number), der.pem("CERTIFICATE", leaf):rep(number))
end
local function base64(bytes) return (der.pem("X", bytes):match "%-\n(.-)%-%-%-%-%-END") end
local mail = "From: ca\r\nContent-Transfer-Encoding: base64\r\n\r\n" .. base64(leaf):gsub("\n", "\r\n") .. "\r\n--x--\r\n"
keep("mail/whole", mail)
keep("mail/quoted", (("> > " .. mail):gsub("\n", "\n> > ")))
keep("mail/twice", mail .. mail)
keep("mail/a_pem_within", "x\n\n" .. base64(der.pem("CERTIFICATE", leaf)))
keep("mail/many", ("x\n" .. base64(leaf)):rep(150))
keep("mail/cut", mail:sub(1, #mail // 2))
keep("mail/lines", (("A"):rep(76) .. "\n"):rep(LIMIT // 77))
keep("mail/endings", (("A"):rep(59) .. "=\n"):rep(LIMIT // 61))
keep("mail/marks", ("> "):rep(LIMIT // 2))
keep("mail/signs", "-----BEGIN CERTIFICATE-----\n" .. ("=3D"):rep(LIMIT // 4) .. "\n-----END CERTIFICATE-----\n")
keep("mail/giant-line", "x\n" .. ("M"):rep(LIMIT - 2))
local mixture = der.pem("PRIVATE KEY", plain_key) .. "text around\r\n" .. der.pem("X509 CERTIFICATE", leaf, "\r\n") ..
  der.pem("NEW CERTIFICATE REQUEST", plain_request)
  .. der.pem("CERTIFICATE", certificate { subject = name "Contoso CA" })
keep("pile/everything.pem", mixture)
keep("pile/everything-utf-16.pem", "\xFF\xFE" .. mixture:gsub(".", "%0\0"))
keep("pile/trusted.pem", der.pem("TRUSTED CERTIFICATE", leaf .. sequence(sequence(oid "1.3.6.1.5.5.7.3.1"))))
keep("pile/trusted-garbage.pem", der.pem("TRUSTED CERTIFICATE", leaf .. noise(50)))
keep("pile/crl.pem", der.pem("X509 CRL", leaf))
keep("pile/crl-encrypted.pem", der.pem("X509 CRL", leaf, nil, "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC," ..
  ("0"):rep(32) .. "\n\n") .. der.pem("CERTIFICATE", leaf))
keep("pile/loop.pem", der.pem("CERTIFICATE", certificate { subject = name "A", issuer = name "B" }) ..
  der.pem("CERTIFICATE", certificate { subject = name "B", issuer = name "A" }))
local same = {}
for i = 1, 100 do
  same[i] = der.pem("CERTIFICATE", certificate { subject = name "A", issuer = name "A", serial = integer(i) })
end
keep("pile/hundred-issuers.pem", table.concat(same))

-- Names: what they hold, and how it is encoded.

local names = {
  nul = der.utf8 "mail.contoso.com\0.evil.example", newline = der.utf8 "mail\r\nX: y",
  escape = der.utf8 "\27[2J\27]0;x\7",
  c1 = der.utf8 "\xC2\x9B31m", bidi = der.utf8 "mail\u{202E}moc.osotnoc\u{2066}x\u{2069}", invisible =
    der.utf8 "ma\u{200B}il\u{FEFF}\u{2060}.contoso.com",
      bad_utf8 = der.utf8 "\xFF\xFE\xC0\xAF\xED\xA0\x80\xF4\x90\x80\x80",
  half_utf8 = der.utf8 "mail\xE2\x82", comma = der.utf8 "a, DNS:b, c=d", quotes = der.utf8 '"\\+<>;#=',
  empty = der.utf8 "",
  spaces = der.utf8 "  ", giant = der.utf8(("x"):rep(150000)), bmp = der.bmp "\0m\0a", bmp_odd = der.bmp "\0m\0",
  bmp_surrogate = der.bmp "\xD8\x00\xDC\x00\xD8\x00", universal = der.universal "\0\0\0m\0\1\xF6\0",
  universal_wrong = der.universal "\xFF\xFF\xFF\xFF", universal_odd = der.universal "\0\0\0",
  t61 = der.t61 "\xE4\xF6\0",
  ia5_high = der.ia5 "\xE4\xFF", printable_wrong = der.printable "a@*\0\xFF", numeric_wrong = der.numeric "abc",
  bit_string = bits("\xFF", 3), sequence = sequence(integer(1)), bits_empty = "\x03\0", visible = "\x1A\4m\0\xFFx",
  general = "\x1B\4m\0\xFFx", constructed = "\x2C\x05\x0C\x03abc", unknown = "\x1F\x2A\3abc",
}
for what, value in pairs(names) do
  local subject = sequence(set(sequence(oid(OID.CN), value)))
  keep(("certificate/name-%s.der"):format(what), certificate { subject = subject, issuer = subject })
  keep(("request/name-%s.der"):format(what), request { subject = subject })
  local text = value:sub(#value < 130 and 3 or 6)
  keep(("certificate/san-%s.der"):format(what), certificate { extensions = { san(dns(text, "mail.contoso.com"),
    implicit(1, text), implicit(6, text), explicit(4, subject), explicit(0, oid "1.3.6.1.4.1.311.20.2.3",
    explicit(0, value)), implicit(8, "\x2A"), implicit(8, ""), implicit(7, text:sub(1, 5)), explicit(5, value)) } })
  keep(("request/san-%s.der"):format(what),
    request { extensions = san(dns(text), explicit(0, oid "1.2.3", explicit(0, value))) })
end

local subjects = {
  empty = sequence(), empty_set = sequence(set()), no_value = sequence(set(sequence(oid(OID.CN)))),
  country_long = name("USA", OID.C), unknown_type = name("x", "1.2.3.4.5.6"), oid_empty =
    sequence(set(sequence("\x06\0", der.utf8 "x"))),
      oid_endless = sequence(set(sequence("\x06\x03\x80\x80\x80", der.utf8 "x"))),
  oid_giant = sequence(set(sequence(der.element(6, "\x2A" .. ("\xFF"):rep(100000) .. "\1"), der.utf8 "x"))),
  oid_many = sequence(set(sequence(der.element(6, ("\x2A"):rep(5000)), der.utf8 "x"))),
  many = sequence((set(sequence(oid(OID.CN), der.utf8 "x"))):rep(5000)),
  many_in_one = sequence(set((sequence(oid(OID.CN), der.utf8 "x")):rep(5000))),
  several = sequence(set(sequence(oid(OID.CN), der.utf8 "first")), set(sequence(oid(OID.O), der.utf8 "Contoso"),
    sequence(oid(OID.CN), der.utf8 "second"))),
}
for what, subject in pairs(subjects) do
  keep(("certificate/subject-%s.der"):format(what), certificate { subject = subject, issuer = subject })
  keep(("request/subject-%s.der"):format(what), request { subject = subject })
end

-- Extensions

local thousands = {}
for i = 1, 20000 do thousands[i] = implicit(2, ("host-%d.contoso.com"):format(i)) end
local lists = {
  none = {}, thousands_of_names = { san(table.concat(thousands)) },
  duplicate_san = { san(dns "a.contoso.com"), san(dns "b.contoso.com") },
  duplicate_constraints = { extension("constraints", sequence(der.boolean(true))),
    extension("constraints", sequence()) },
  duplicate_crls = { extension("crls", sequence()), extension("crls", sequence()) },
  san_empty = { san() }, san_oid = { san(oid "1.2.3", "\x06\0", dns "x") },
  san_no_sequence = { extension("san", null()) },
  san_nothing = { extension("san", "") }, san_nested = { san(sequence(sequence(dns "x"))) },
  san_directory = { san(explicit(4, sequence())) }, san_other_empty = { san(explicit(0, "")) },
  san_other_number = { san(explicit(0, oid "1.2.3", explicit(0, integer(noise(1000))))) },
  san_trailing = { extension("san", sequence(dns "x") .. "xyz") },
  path_length_huge = { extension("constraints", sequence(der.boolean(true), integer(noise(500)))) },
  path_length_negative = { extension("constraints", sequence(der.boolean(true), integer(-1))) },
  key_usage_empty = { extension("key_usage", "\x03\1\0") },
  key_usage_wrong = { extension("key_usage", "\x03\2\9\xFF") },
  key_usage_long = { extension("key_usage", bits(("\xFF"):rep(10000))) },
  key_usage_no_bits = { extension("key_usage", "\x03\0") },
  purposes_empty = { extension("purposes", sequence()) },
  purposes_many = { extension("purposes", sequence(oid "1.3.6.1.5.5.7.3.1":rep(20000))) },
  purposes_oid_giant = { extension("purposes", sequence(der.element(6, "\x2A" .. ("\x81"):rep(50000) .. "\1"))) },
  features_huge = { extension("features", sequence(integer(noise(100)), integer(-5))) },
  features_many = { extension("features", sequence(integer(5):rep(20000))) },
  skid_empty = { extension("skid", octets "") }, skid_giant = { extension("skid", octets(noise(300000))) },
  akid_all = { extension("akid", sequence(implicit(0, noise(20)), explicit(1, explicit(4, name "x")),
    implicit(2, "\1"))) },
  akid_wrong = { extension("akid", sequence(implicit(1, "x"))) },
  crls_deep = { extension("crls", sequence(sequence(explicit(0, explicit(0, (implicit(6, "http://x"):rep(10000))))))) },
  crls_oid = { extension("crls", sequence("\x06\0", oid "1.2.3", sequence("\x06\0"))) },
  crls_endless = { extension("crls", "\x30\x80\x30\x80\xA0\x80\xA0\x80\x86\1x") },
  access_wrong = { extension("access", sequence(sequence(oid "1.3.6.1.5.5.7.48.1"),
    sequence("\x06\0", implicit(6, "x")))) },
  access_control = { extension("access", sequence(sequence(oid "1.3.6.1.5.5.7.48.1",
    implicit(6, "http://\0\27\xFF")))) },
  unknown_critical = { extension("1.2.3.4", "xyz", true) },
  many = {},
}
for i = 1, 5000 do lists.many[i] = extension("1.2.3." .. i, "x") end
for what, extensions in pairs(lists) do
  keep(("certificate/extension-%s.der"):format(what), certificate { extensions = extensions })
  keep(("request/extension-%s.der"):format(what), request { extensions = table.concat(extensions) })
end
keep("certificate/extensions-empty.der", certificate { raw_extensions = explicit(3, sequence()) })
keep("certificate/extensions-wrong.der", certificate { raw_extensions = explicit(3, octets "x") })
keep("request/attributes-empty.der", request { attributes = explicit(0) })
keep("request/attributes-missing.der", request { attributes = "" })
keep("request/attributes-twice.der", request { attributes = explicit(0, (sequence(oid(OID.extensions),
  set(sequence(san(dns "x"))))):rep(2)) })
keep("request/attributes-two-values.der", request { attributes = explicit(0, sequence(oid(OID.extensions),
  set(sequence(san(dns "x")), sequence(san(dns "y"))))) })
keep("request/attributes-no-value.der", request { attributes = explicit(0, sequence(oid(OID.extensions), set())) })
keep("request/attributes-wrong.der", request { attributes = explicit(0, sequence(oid(OID.extensions), set(null()))) })
keep("request/attributes-thousands.der", request { attributes = explicit(0,
  sequence(oid "1.2.3", set(null())):rep(20000)) })
keep("request/version.der", request { version = integer(noise(20)) })

-- Numbers and dates of certificates

local fields = {
  serial_zero = { serial = integer(0) }, serial_negative = { serial = integer(-1) },
  serial_giant = { serial = integer(noise(200000)) }, serial_empty = { serial = "\x02\0" },
  serial_padded = { serial = der.raw_integer(("\0"):rep(100), "\1") },
  version_1_with_extensions = { version = "" }, version_huge = { version = explicit(0, integer(noise(50))) },
  version_negative = { version = explicit(0, integer(-2)) },
  dates_reversed = { not_before = "350101000000Z", not_after = "250101000000Z" },
  date_month_13 = { not_after = "251301000000Z" }, date_february_30 = { not_after = "250230000000Z" },
  date_no_seconds = { not_after = "2501010000Z" }, date_zone = { not_after = "250101000000+0100" },
  date_empty = { not_after = "" }, date_text = { not_after = "tomorrow" },
  date_nul = { not_after = "250101\00000000Z" },
  date_9999 = { validity = sequence(der.time "00010101000000Z", der.time "99991231235959Z") },
  date_year_0 = { validity = sequence(der.time "00000101000000Z", der.time "00000101000000Z") },
  date_fraction = { validity = sequence(der.time "20250101000000.123Z", der.time "20350101000000.5Z") },
  date_long = { validity = sequence(der.time(("9"):rep(100000)), der.time(("9"):rep(100000))) },
  date_not_a_time = { validity = sequence(integer(1), integer(2)) }, dates_missing = { validity = sequence() },
  date_second_60 = { not_after = "250630235960Z" },
  signature_empty = { signature = bits "" }, signature_giant = { signature = bits(noise(500000)) },
  signature_odd = { signature = bits("\xFF", 7) },
  algorithm_unknown = { signed_by = algorithm "1.2.3.4" }, algorithm_pss = { signed_by = algorithm("pss", sequence()) },
  algorithm_pss_wrong = { signed_by = algorithm("pss", sequence(explicit(2, integer(-1)), explicit(0, null()))) },
  algorithm_empty = { signed_by = sequence "\x06\0" },
}
for what, changed in pairs(fields) do keep(("certificate/field-%s.der"):format(what), certificate(changed)) end

-- Public keys, in certificates and requests

local prime, curve = integer(noise(32)), sequence(octets(noise(32)), octets(noise(32)))
local function parameters(p, order)
  return sequence(integer(1), sequence(oid "1.2.840.10045.1.1", p), curve, octets(G), order, integer(1))
end
local publics = {
  empty = sequence(ec, bits ""), no_parameters = sequence(algorithm "ec", bits(G)), off_curve =
    sequence(ec, bits("\4" .. noise(64))), infinity = sequence(ec, bits "\0"),
  explicit = sequence(algorithm("ec", parameters(prime, prime)), bits(G)),
  explicit_giant = sequence(algorithm("ec", parameters(integer(noise(20000)), integer(noise(20000)))), bits(G)),
  explicit_zero = sequence(algorithm("ec", parameters(integer(0), integer(0))), bits(G)),
  explicit_binary = sequence(algorithm("ec", sequence(integer(1), sequence(oid "1.2.840.10045.1.2", sequence(
    integer(0x7FFFFFFF), oid "1.2.840.10045.1.2.3.2", integer(0x7FFFFFF0))), curve, octets(G), prime)), bits(G)),
  curve_unknown = sequence(algorithm("ec", oid "1.2.3"), bits(G)),
  curve_null = sequence(algorithm("ec", null()), bits(G)),
  rsa_zero = rsa_public(0, 0), rsa_one = rsa_public(1, 1), rsa_negative = rsa_public(-5, -3),
  rsa_even = rsa_public(4, 2),
  rsa_512 = rsa_public(noise(64), 65537), rsa_16384 = rsa_public("\xFF" .. noise(2047), 65537),
  rsa_16392 = rsa_public("\xFF" .. noise(2048), 65537), rsa_giant = rsa_public("\xFF" .. noise(100000), 65537),
  rsa_exponent_giant = rsa_public("\xFF" .. noise(511), "\xFF" .. noise(511)),
  rsa_both_giant = rsa_public("\xFF" .. noise(2047), "\xFF" .. noise(2047)),
  rsa_nothing = sequence(algorithm("rsa", null()), bits ""),
  rsa_no_key = sequence(algorithm("rsa", null()), bits(null())),
  rsa_cut = sequence(algorithm("rsa", null()), bits "\x30\x82\xFF\xFF\x02\x82"),
  rsa_parameters = sequence(algorithm("rsa", sequence(integer(1))), bits(sequence(integer(15), integer(3)))),
  ed25519_short = sequence(algorithm "ed25519", bits "x"),
  ed25519_long = sequence(algorithm "ed25519", bits(noise(1000))),
  ed25519_parameters = sequence(algorithm("ed25519", null()), bits(noise(32))),
  dsa = sequence(algorithm("1.2.840.10040.4.1", sequence(integer(0), integer(0), integer(0))), bits(integer(0))),
  dsa_giant = sequence(algorithm("1.2.840.10040.4.1", sequence(integer(noise(20000)), integer(noise(20000)),
    integer(noise(20000)))), bits(integer(noise(20000)))),
  dh = sequence(algorithm("1.2.840.113549.1.3.1", sequence(integer(noise(5000)), integer(2))), bits(integer(5))),
  unknown = sequence(algorithm "1.2.3.4", bits(noise(32))), oid_empty = sequence(sequence "\x06\0", bits(noise(32))),
  unused_bits = sequence(ec, bits(G, 5)), missing = sequence(),
}
for what, public in pairs(publics) do
  keep(("certificate/public-%s.der"):format(what), certificate { spki = public, issuer = name "mail.contoso.com" })
  keep(("request/public-%s.der"):format(what), request { spki = public })
end

-- Private keys

local rsa = algorithm("rsa", null())
local keys = {
  ec_zero = pkcs8(ec, ec_private(("\0"):rep(32))), ec_ones = pkcs8(ec, ec_private(("\xFF"):rep(32))),
  ec_empty = pkcs8(ec, ec_private ""), ec_long = pkcs8(ec, ec_private(noise(10000))),
  ec_short = pkcs8(ec, ec_private "\1"),
  ec_public = pkcs8(ec, ec_private(ONE, explicit(1, bits(G)))),
  ec_other_public = pkcs8(ec, ec_private(ONE, explicit(1, bits("\4" .. noise(64))))),
  ec_traditional = ec_private(ONE, explicit(0, oid(OID.p256)), explicit(1, bits(G))),
  ec_no_curve = ec_private(ONE), ec_explicit = pkcs8(algorithm("ec", parameters(prime, prime)), ec_private(ONE)),
  ec_explicit_giant = pkcs8(algorithm("ec", parameters(integer(noise(20000)), integer(noise(20000)))), ec_private(ONE)),
  ec_explicit_zero = ec_private(ONE, explicit(0, parameters(integer(0), integer(0)))),
  ed25519 = pkcs8(algorithm "ed25519", octets(noise(32))), ed25519_empty = pkcs8(algorithm "ed25519", octets ""),
  ed25519_long = pkcs8(algorithm "ed25519", octets(noise(100))), ed25519_attributes =
    sequence(integer(1), algorithm "ed25519", octets(octets(noise(32))), explicit(0, ""), implicit(1, noise(33))),
  rsa_zero = pkcs8(rsa, rsa_private("\0", 0, "\0")), rsa_one = pkcs8(rsa, rsa_private("\1", 1, "\1")),
  rsa_2048 = pkcs8(rsa, rsa_private("\xFF" .. noise(255), 65537)),
  rsa_traditional = rsa_private("\xFF" .. noise(255), 65537),
  rsa_16384 = pkcs8(rsa, rsa_private("\xFF" .. noise(2046) .. "\1", 65537)),
  rsa_16392 = pkcs8(rsa, rsa_private("\xFF" .. noise(2047) .. "\1", 65537)),
  rsa_giant = pkcs8(rsa, rsa_private("\xFF" .. noise(60000) .. "\1", 65537)),
  rsa_exponent_giant = pkcs8(rsa, rsa_private("\xFF" .. noise(255), "\xFF" .. noise(50000))),
  rsa_factors_zero = pkcs8(rsa, rsa_private("\xFF" .. noise(255), 3, "\0")),
  rsa_factors_even = pkcs8(rsa, rsa_private("\xFF" .. noise(255), 3, "\4")),
  rsa_primes_many = pkcs8(rsa, sequence(integer(1), integer(noise(256)), integer(3), integer(5), integer(7), integer(9),
    integer(1), integer(1), integer(1), sequence(sequence(integer(3), integer(5), integer(7)):rep(1000)))),
  dsa = pkcs8(algorithm("1.2.840.10040.4.1", sequence(integer(0), integer(0), integer(0))), integer(0)),
  dsa_giant = pkcs8(algorithm("1.2.840.10040.4.1", sequence(integer(noise(9000)), integer(noise(9000)), integer(2))),
    integer(noise(9000))),
  dh_giant = pkcs8(algorithm("1.2.840.113549.1.3.1", sequence(integer(noise(9000)), integer(2))), integer(noise(9000))),
  unknown = pkcs8(algorithm "1.2.3", noise(32)), empty = pkcs8(ec, ""),
  version = sequence(integer(noise(9)), ec, octets ""),
  encrypted_pbkdf2 = sealed(pbkdf2(2048, algorithm("hmac", null()))),
  encrypted_pbkdf2_zero = sealed(pbkdf2(0)), encrypted_pbkdf2_negative = sealed(pbkdf2(-1)),
  encrypted_pbkdf2_length = sealed(pbkdf2(1, integer(0x7FFFFFFF))), encrypted_empty = sealed(pbkdf2(1), 0),
  encrypted_pbkdf2_no_salt = sealed(pbes2(algorithm("pbkdf2", sequence(octets "", integer(1))))),
  encrypted_scrypt = sealed(scrypt(integer(1024), integer(8), integer(1))),
  encrypted_scrypt_zero = sealed(scrypt(integer(0), integer(0), integer(0))),
  encrypted_old = sealed(algorithm("pbe_old", sequence(octets(noise(8)), integer(2048)))),
  encrypted_unknown = sealed(algorithm "1.2.3"), encrypted_no_parameters = sealed(algorithm "pbes2"),
  encrypted_cipher_unknown = sealed(algorithm("pbes2", sequence(algorithm("pbkdf2", sequence(octets "x", integer(1))),
    algorithm "1.2.3"))),
  -- counts that would take minutes or years, or all memory
  absurd_pbkdf2 = sealed(pbkdf2(0x7FFFFFFF)),
  absurd_pbkdf2_sha256 = sealed(pbkdf2(0x7FFFFFFF, algorithm("hmac", null()))),
  absurd_pbkdf2_giant = sealed(pbkdf2(noise(100))),
  absurd_old = sealed(algorithm("pbe_old", sequence(octets(noise(8)), integer(0x7FFFFFFF)))),
  absurd_scrypt = sealed(scrypt(integer(1 << 20), integer(8), integer(1000000))),
  absurd_scrypt_memory = sealed(scrypt(integer(1 << 40), integer(1024), integer(1))),
  absurd_scrypt_giant = sealed(scrypt(integer(noise(50)), integer(noise(50)), integer(noise(50)))),
}
for what, bytes in pairs(keys) do
  keep(("key/%s.der"):format(what), bytes)
  local label = what:find "^encrypted" and "ENCRYPTED PRIVATE KEY"
    or what:find "traditional" and what:match "^%l+":upper() .. " PRIVATE KEY" or "PRIVATE KEY"
  if #bytes < 20000 and not what:find "^absurd" then keep(("key/%s.pem"):format(what), der.pem(label, bytes)) end
end

-- PKCS #7 and PKCS #12

local bundles = {
  empty = pkcs7 "", many = pkcs7(leaf:rep(100)), too_many = pkcs7(leaf:rep(101)), thousands = pkcs7(leaf:rep(15000)),
  other_kinds = pkcs7(explicit(1, leaf) .. explicit(0, leaf)), crls = pkcs7(leaf, explicit(1, sequence(null()))),
  broken_certificate = pkcs7(leaf .. leaf:sub(1, -20)), no_content = sequence(oid(OID.signed)),
  data = sequence(oid(OID.data), explicit(0, octets(leaf))),
  encrypted = sequence(oid(OID.encrypted), explicit(0, sequence())),
  content_null = sequence(oid(OID.signed), explicit(0, null())),
  signed_nothing = sequence(oid(OID.signed), explicit(0, sequence())),
  nested = pkcs7(pkcs7(pkcs7(leaf))), endless_inside = "\x30\x80" .. oid(OID.signed) .. "\xA0\x80"
    .. sequence(integer(1), set(),
    sequence(oid(OID.data)), explicit(0, leaf), set()) .. "\0\0\0\0",
}
for what, bytes in pairs(bundles) do keep(("pkcs7/%s.der"):format(what), bytes) end
local safes = {
  empty = pkcs12 "", no_mac = pkcs12(safe_data(certificate_bag(leaf)), false),
  no_salt = pkcs12(safe_data(certificate_bag(leaf)), 1, ""), count_zero = pkcs12(safe_data(certificate_bag(leaf)), 0),
  count_negative = pkcs12(safe_data(certificate_bag(leaf)), -1),
  too_many = pkcs12(safe_data(certificate_bag(leaf):rep(101)), false),
  thousands = pkcs12(safe_data(certificate_bag(leaf):rep(10000)), false),
  broken_certificate = pkcs12(safe_data(certificate_bag(leaf:sub(1, 100))), false),
  plain_key = pkcs12(safe_data(sequence(oid "1.2.840.113549.1.12.10.1.1", explicit(0, plain_key))), false),
  encrypted = pkcs12(safe_encrypted(pbkdf2(2048))), encrypted_no_mac = pkcs12(safe_encrypted(pbkdf2(2048)), false),
  wrong_content = pkcs12(sequence(oid "1.2.3")),
  version = sequence(integer(99), sequence(oid(OID.data), explicit(0, octets ""))),
  no_octets = sequence(integer(3), sequence(oid(OID.data))), content_null = sequence(integer(3), sequence(oid(OID.data),
    explicit(0, null()))),
  -- counts that would take minutes or years, or all memory
  absurd_mac = pkcs12(safe_data(certificate_bag(leaf)), 0x7FFFFFFF),
  absurd_mac_giant = pkcs12(safe_data(certificate_bag(leaf)), noise(100)),
  absurd_content = pkcs12(safe_encrypted(pbkdf2(0x7FFFFFFF)), false),
  absurd_key = pkcs12(safe_data(key_bag(sealed(pbkdf2(0x7FFFFFFF)))), false),
  absurd_sum = pkcs12(safe_data(key_bag(sealed(pbkdf2(1000000))):rep(1000)), false),
  absurd_scrypt = pkcs12(safe_data(key_bag(sealed(scrypt(integer(1 << 20), integer(8), integer(1000000))))), false),
}
local bags = safe_data(certificate_bag(leaf))
for _ = 1, 200 do bags = safe_data(sequence(oid(OID.safe_bag), explicit(0, sequence(bags)))) end
safes.nested = pkcs12(bags, false)
for what, bytes in pairs(safes) do keep(("pkcs12/%s.der"):format(what), bytes) end

-- ZIP archives

-- CRC-32 (PKWARE's APPNOTE.TXT, 4.4.7).
local function crc32(bytes)
  local crc = 0xFFFFFFFF
  for i = 1, #bytes do
    crc = crc ~ bytes:byte(i)
    for _ = 1, 8 do crc = crc >> 1 ~ (crc & 1 == 1 and 0xEDB88320 or 0) end
  end
  return crc ~ 0xFFFFFFFF
end

-- Deflated without being compressed (RFC 1951, section 3.2.4), in blocks.
local function deflated(bytes)
  local blocks = {}
  for at = 1, #bytes, 65535 do
    local block = bytes:sub(at, at + 65534)
    blocks[#blocks + 1] = ("<I1 I2 I2"):pack(at + 65534 >= #bytes and 1 or 0, #block, ~#block & 0xFFFF) .. block
  end
  return table.concat(blocks)
end

-- Files: { name =, bytes =, and what is not as it should be: data, method, flags,
-- size, packed, offset }; more: { count =, start =, comment = }.
local function zip(files, more)
  local heads, entries, at = {}, {}, 0
  more = more or {}
  for i, file in ipairs(files) do
    local data = file.data or file.method == 8 and deflated(file.bytes) or file.bytes
    local common = ("<I2 I2 I2 I4 I4 I4 I4 I2 I2"):pack(20, file.flags or 0, file.method or 0, 0, crc32(file.bytes),
      file.packed or #data, file.size or #file.bytes, #file.name, 0)
    heads[i] = "PK\3\4" .. common .. file.name .. data
    entries[i] = "PK\1\2" .. ("<I2"):pack(20) .. common .. ("<I2 I2 I2 I4 I4"):pack(0, 0, 0, 0, file.offset or at)
      .. file.name
    at = at + #heads[i]
  end
  local listed, comment = table.concat(entries), more.comment or ""
  return table.concat(heads) .. listed .. "PK\5\6" .. ("<I2 I2 I2 I2 I4 I4 I2"):pack(0, 0, more.count or #files,
    more.count or #files, #listed, more.start or at, #comment) .. comment
end

local inside = der.pem("CERTIFICATE", leaf)
local function one(changes)
  local file = { name = "leaf.pem", bytes = inside }
  for field, value in pairs(changes or {}) do file[field] = value end
  return { file }
end
local hundred = {}
for i = 1, 100 do hundred[i] = { name = i .. ".pem", bytes = inside } end
local archives = {
  whole = zip(one()), deflated = zip(one { method = 8 }), several = zip { one()[1], { name = "folder/", bytes = "" },
    one { method = 8 }[1] }, empty = zip {}, hundred = zip(hundred), count_more = zip(one(), { count = 2 }),
  too_many = zip(hundred, { count = 101 }), count_most = zip(one(), { count = 65535 }),
  comment = zip(one(), { comment = ("x"):rep(65535) }), comment_end = zip(one(), { comment = "PK\5\6" }),
  start_far = zip(one(), { start = 0xFFFFFFFF }), offset_far = zip(one { offset = 0xFFFFFFFF }),
  offset_end = zip(one { offset = #zip(one()) - 10 }), packed_far = zip(one { packed = 0xFFFFFFFF, method = 8 }),
  packed_less = zip(one { packed = 9, method = 8 }), size_less = zip(one { size = 9, method = 8 }),
  size_more = zip(one { size = 1024 * 1024, method = 8 }), size_most = zip(one { size = 0xFFFFFFFF, method = 8 }),
  stored_less = zip(one { size = 9 }), encrypted = zip(one { flags = 1 }), method = zip(one { method = 99 }),
  noise = zip(one { data = noise(2000), method = 8 }), nested = zip { { name = "inner.zip", bytes = zip(one()) } },
  name_long = zip(one { name = ("n"):rep(65535) }), name_hidden = zip(one { name = "../..\0\27[2J\xFF" }),
  same = zip { one()[1], one { offset = 0 }[1], one { offset = 0 }[1] }, record_alone = "PK\5\6" .. ("\0"):rep(18),
}
for what, bytes in pairs(archives) do keep(("zip/%s.zip"):format(what), bytes) end
for cut = 1, 9 do keep(("zip/cut-%d.zip"):format(cut), archives.several:sub(1, #archives.several * cut // 10)) end

-- Dialogues of mail servers, as tests/fuzz/dialogue.c takes them: two bytes, then what the server says.

local dialogues = {
  smtp = "\0\x05220 mail.contoso.com ESMTP\r\n250-mail.contoso.com\r\n250-SIZE 1\r\n250 STARTTLS\r\n220 go ahead\r\n",
  smtp_refused = "\0\x7F554 no\27[2J\r\n", smtp_without = "\0\x7F220 x\r\n250 SIZE\r\n",
  smtp_alien = "\0\x7FHTTP/1.1 400\r\n",
  smtp_ahead = "\0\x7F220 x\r\n250 STARTTLS\r\n220 go\r\n250 injected\r\n", smtp_codes = "\0\x7F220-x\r\n221 y\r\n",
  smtp_many_lines = "\0\x7F" .. ("220-x\r\n"):rep(200), smtp_long_line = "\0\x7F220 " .. ("x"):rep(5000) .. "\r\n",
  smtp_in_tls = "\x80\x7F220 x\r\n221 bye\r\n",
  imap = "\1\x7F* OK [CAPABILITY IMAP4rev1 STARTTLS] x\r\n* x\r\na1 OK go\r\n",
  imap_bye = "\1\x85* BYE x\r\n", imap_preauth = "\1\x7F* PREAUTH x\r\n", imap_no = "\1\x7F* OK\r\na1 NO x\r\n",
  imap_endless = "\1\x7F* OK\r\n" .. ("* x\r\n"):rep(200), pop3 = "\2\x7F+OK x\r\n+OK go\r\n",
  pop3_err = "\2\x7F-ERR x\r\n",
}
for what, bytes in pairs(dialogues) do keep("dialogue/" .. what, bytes) end

print(count .. " files")
