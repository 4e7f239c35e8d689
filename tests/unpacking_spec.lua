-- unpacking: whatever a CA sends by mail, as one pile of certificates; zip: what
-- is in an archive. openssl and zip make what is read.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local bundle = require "core.bundle"
local cert = require "core.cert"
local file = require "core.file"
local process = require "core.process"
local unpacking = require "unpacking"
local zip = require "zip"

describe("unpacking", function()
  local desk, folder, leaf, issuer

  local function path(name) return folder .. "/" .. name end
  local function write(name, bytes)
    assert(file.write(path(name), bytes, { exclusive = false }))
    return path(name)
  end

  setup(function()
    desk = Desk.new "unpacking"
    folder = desk.lab:folder "mail"
    local outside = desk:outside()
    local made = desk.lab:certificate { names = { "a.test" }, ca = outside }
    leaf, issuer = desk:openssl("x509", "-in", made .. "/cert.pem"), desk:read(outside .. "/cert.pem")
    write("leaf.pem", leaf)
    write("issuer.pem", issuer)
    write("both.pem", leaf .. issuer)
    write("key.pem", desk:read(made .. "/key.pem"))
    write("leaf.der", desk:openssl("x509", "-outform", "DER", { stdin = leaf }))
    write("both.p7b", desk:openssl("crl2pkcs7", "-nocrl", "-certfile", path "both.pem"))
    write("both.der.p7b", desk:openssl("crl2pkcs7", "-nocrl", "-certfile", path "both.pem", "-outform", "DER"))
    desk:openssl("pkcs12", "-export", "-inkey", path "key.pem", "-in", path "both.pem", "-name", "A name", "-passout",
      "pass:secret", "-out", path "both.p12")
    desk:openssl("pkcs12", "-export", "-legacy", "-inkey", path "key.pem", "-in", path "both.pem", "-passout",
      "pass:secret", "-out", path "rc2.p12")
  end)
  teardown(function() desk:close() end)

  local function print_of(bytes) return assert(cert.parse(bytes))[1]:fingerprint() end

  -- Zips files; returns the path of the archive.
  local function archive(name, ...)
    os.remove(path(name))
    local words, first = { "zip", "-q", "-j", path(name) }, 1
    if (...):find "^%-%d$" then words[3], first = words[3] .. (...):sub(2), 2 end
    for _, file_name in ipairs { select(first, ...) } do words[#words + 1] = path(file_name) end
    assert.equal(0, assert(process.run(words)).status)
    return path(name)
  end

  -- Reads files twice: both times these certificates.
  local function gives(expected, files, options)
    for _ = 1, 2 do
      local pile = assert(unpacking.files(files, options))
      local texts = {}
      for i, certificate in ipairs(pile.certificates) do texts[i] = certificate:pem() end
      assert.same(expected, texts)
    end
  end

  local function refuses(code, message, files, options)
    local pile, why, what = unpacking.files(files, options)
    assert.same({ nil, message, code }, { pile, why and desk:shown(why):gsub(folder:match "[^/]*$", "MAIL"), what })
  end

  it("takes PEM, DER and PKCS #7, in any order of files, text around them", function()
    gives({ leaf }, { path "leaf.pem" })
    gives({ leaf }, { path "leaf.der" })
    gives({ leaf, issuer }, { path "both.p7b" })
    gives({ leaf, issuer }, { path "both.der.p7b" })
    gives({ issuer, leaf, leaf, issuer }, { path "issuer.pem", path "leaf.der", path "both.p7b" })
    gives({ issuer, leaf }, { write("mail.txt", ("Dear customer,\n" .. issuer .. "and\n" .. leaf .. "Yours"):gsub("\n",
      "\r\n")) })
  end)

  it("takes UTF-16 with or without a mark, base64 without armour, and DER of any name", function()
    local wide = leaf:gsub("[%s%S]", "%0\0")
    gives({ leaf }, { write("wide.cer", wide) })
    gives({ leaf }, { write("marked.cer", "\xFF\xFE" .. wide) })
    gives({ leaf }, { write("swapped.cer", "\xFE\xFF" .. leaf:gsub("[%s%S]", "\0%0")) })
    gives({ leaf }, { write("utf8.cer", "\xEF\xBB\xBF" .. leaf) })
    gives({ leaf }, { write("bare.txt", leaf:match "%-\n(.-)\n%-") })
    gives({ leaf }, { write("line.txt", (leaf:match "%-\n(.-)\n%-":gsub("\n", ""))) })
    gives({ leaf }, { write("leaf.pfx", desk:read(path "leaf.der")) })
  end)

  describe("takes an e-mail as it was saved:", function()
    local function base64(name) return desk:openssl("base64", { stdin = desk:read(path(name)) }) end
    -- A mail with attachments, as RFC 2045 has them.
    local function mail(...)
      local parts = { "From: ca@ca.test\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"=-x\"\n\n--=-x\n"
        .. "Content-Type: text/plain\n\nDear customer,\n\nHerewithyourcertificate\n" }
      for _, name in ipairs { ... } do
        parts[#parts + 1] = "\n--=-x\nContent-Type: application/octet-stream; name=" .. name
          .. "\nContent-Transfer-Encoding: base64\n\n" .. base64(name)
      end
      return write("saved.eml", (table.concat(parts) .. "\n--=-x--\n"):gsub("\n", "\r\n"))
    end

    it("with PEM in a text that was quoted, once and again", function()
      gives({ leaf, issuer }, { write("quoted.eml", ("Hello\n" .. leaf .. issuer):gsub("([^\n]*)\n", "> %1\n")) })
      gives({ leaf, issuer }, { write("quoted.eml", ("Hello\n" .. leaf .. issuer):gsub("([^\n]*)\n", "> >\t%1 \r\n")) })
      gives({ leaf, issuer }, { write("quoted.p7b", (desk:read(path "both.p7b"):gsub("([^\n]*)\n", ">%1\n"))) })
    end)

    it("with PEM as quoted-printable text has it, and within base64", function()
      gives({ leaf, issuer }, { write("printable.eml", ((leaf .. issuer):gsub("=", "=3D"))) })
      gives({ leaf, issuer }, { mail "both.pem" })
    end)

    it("with each form attached, and several", function()
      for _, name in ipairs { "both.p7b", "both.der.p7b" } do gives({ leaf, issuer }, { mail(name) }) end
      archive("both.zip", "leaf.der", "issuer.pem")
      gives({ leaf, issuer }, { mail "both.zip" })
      gives({ leaf, issuer, leaf }, { mail("leaf.der", "issuer.pem", "leaf.der") })
      gives({ leaf, issuer }, { mail "both.p12" }, { password = "secret" })
      refuses("denied", "'LAB/MAIL/saved.eml': cannot read the PKCS #12: wrong password", { mail "both.p12" },
        { password = "x" })
    end)

    it("with base64 whose lines end with blanks, as text that flows has them (RFC 3676)", function()
      gives({ leaf }, { write("flowed.eml", "Hello \n\n" .. base64("leaf.der"):gsub("\n", " \r\n") .. "\nYours \n") })
    end)

    it("with base64 between other lines, and a ZIP as base64 alone", function()
      local bare = leaf:match "%-\n(.-\n)%-"
      gives({ leaf, issuer }, { write("text.txt", "Yours:\n" .. bare .. "Thanks\nThe issuer's:\n\n"
        .. issuer:match "%-\n(.-\n)%-" .. "Regards") })
      gives({ leaf }, { write("line.txt", "Yours:\n" .. bare:gsub("\n", "") .. "\n\nRegards\n") })
      archive("both.zip", "leaf.der", "issuer.pem")
      gives({ leaf, issuer }, { write("zip.txt", base64 "both.zip") })
    end)

    it("and says when no certificate is attached", function()
      write("words", ("No certificate here. "):rep(50))
      refuses("parse", "'LAB/MAIL/saved.eml': cannot read certificates: none is there", { mail "words" })
      refuses("parse", "'LAB/MAIL/saved.eml': cannot read certificates: none is there", { mail "key.pem" })
      local made = desk.lab:folder "asked"
      desk:openssl("req", "-new", "-key", path "key.pem", "-subj", "/CN=x", "-out", made .. "/x.csr")
      write("x.csr", desk:read(made .. "/x.csr"))
      refuses("parse", "'LAB/MAIL/saved.eml': no certificate is there, only a request", { mail "x.csr" })
      write("cut.der", desk:read(path "leaf.der"):sub(1, -20))
      refuses("parse", "'LAB/MAIL/saved.eml': cannot read certificates: none is there", { mail "cut.der" })
    end)
  end)

  it("takes a PKCS #12 with its key, and says what a password is missing for", function()
    local password = assert(unpacking.password(write("password", "secret\n")))
    gives({ leaf, issuer }, { path "both.p12" }, { password = password })
    local pile = assert(unpacking.files({ path "both.p12" }, { password = password }))
    assert.same({ "A name", true }, { pile.friendly_name, pile.certificates[1]:matches(pile.key) })
    refuses("denied", "'LAB/MAIL/both.p12': cannot read the PKCS #12: no password was given; give it with "
      .. "--password-file FILE", { path "both.p12" })
    refuses("denied", "'LAB/MAIL/both.p12': cannot read the PKCS #12: wrong password", { path "both.p12" },
      { password = "Secret" })
    refuses("unsupported", "'LAB/MAIL/rc2.p12': cannot read the PKCS #12: this OpenSSL cannot decrypt "
      .. "pbeWithSHA1And40BitRC2-CBC; convert it first with: openssl pkcs12 -legacy -nokeys -in FILE -out FILE.pem",
      { path "rc2.p12" }, { password = password })
    assert.is_false(unpacking.password(nil))
  end)

  it("takes a key from a PEM text only where it is wanted", function()
    local both = write("combined.pem", desk:read(path "key.pem") .. leaf)
    assert.is_nil(assert(unpacking.files { both }).key)
    local pile = assert(unpacking.files({ both }, { with_key = true }))
    assert.is_true(pile.certificates[1]:matches(pile.key))
    write("sealed.pem", leaf .. desk:openssl("pkcs8", "-topk8", "-in", path "key.pem", "-passout", "pass:secret"))
    assert.equal(1, #assert(unpacking.files { path "sealed.pem" }).certificates)
    refuses("denied", "'LAB/MAIL/sealed.pem': cannot read the private key: it is encrypted and no password was given; "
      .. "give it with --password-file FILE", { path "sealed.pem" }, { with_key = true })
  end)

  it("takes a ZIP of them, whatever their names, and passes over what is no certificate", function()
    write("readme.txt", ("Read me. "):rep(200))
    write("-rf ..pem", issuer)
    gives({ leaf }, { archive("one.zip", "leaf.pem") })
    gives({ leaf, issuer, leaf, issuer }, { archive("four.zip", "leaf.der", "readme.txt", "issuer.pem", "both.p7b") })
    gives({ leaf, issuer }, { archive("stored.zip", "-0", "leaf.pem", "-rf ..pem") })
    gives({ leaf, issuer }, { archive("p12.zip", "both.p12") }, { password = "secret" })
    refuses("parse", "'LAB/MAIL/none.zip': no certificate in the ZIP", { archive("none.zip", "readme.txt", "key.pem") })
    refuses("parse", "'LAB/MAIL/outer.zip': no certificate in the ZIP, but another ZIP: unpack it first",
      { archive("outer.zip", "one.zip", "readme.txt") })
    refuses("denied", "'LAB/MAIL/p12.zip': 'both.p12' in the ZIP: cannot read the PKCS #12: wrong password",
      { path "p12.zip" }, { password = "x" })
    write("broken.pem", leaf:sub(1, -30))
    refuses("parse", "'LAB/MAIL/broken.zip': 'broken.pem' in the ZIP: cannot read certificate 1: its END line is missing",
      { archive("broken.zip", "broken.pem") })
  end)

  it("writes nothing, however an entry is called", function()
    local evil = desk:read(archive("evil.zip", "leaf.pem")):gsub("leaf%.pem", "../..\0\27x")
    local files = assert(zip.read(evil))
    assert.same({ 1, "../..\0\27x", print_of(leaf) }, { #files, files[1].name, print_of(files[1].bytes) })
    gives({ leaf }, { write("evil.zip", evil) })
    local data, message = zip.read((evil:gsub("(PK\1\2....)..", "%1\1\0")))
    assert.is_nil(data)
    assert.equal("cannot read '../..\\u{0000}\\u{001B}x' in the ZIP: it is encrypted; unpack it first", message)
  end)

  it("refuses a ZIP that is cut short, damaged, or changed anywhere", function()
    local whole = desk:read(archive("whole.zip", "leaf.pem", "issuer.pem"))
    refuses("parse", "'LAB/MAIL/cut.zip': cannot read the ZIP: its list of entries is missing",
      { write("cut.zip", whole:sub(1, 900)) })
    local known = { [print_of(leaf)] = true, [print_of(issuer)] = true }
    for at = 5, #whole, 23 do -- each byte in turn: no error of Lua, and never other certificates
      local changed = whole:sub(1, at - 1) .. string.char(whole:byte(at) ~ 0x55) .. whole:sub(at + 1)
      local files, message, code = zip.read(changed)
      for _, entry in ipairs(files or {}) do
        assert.is_true(known[print_of(entry.bytes)], "byte " .. at)
      end
      assert.is_true(files ~= nil or (type(message) == "string" and code ~= nil), "byte " .. at)
    end
    local one = desk:read(archive("one.zip", "leaf.pem"))
    local middle = #one // 2
    local _, message, code = zip.read(one:sub(1, middle - 1) .. "\0\0\0\0" .. one:sub(middle + 4))
    assert.same({ "cannot read 'leaf.pem' in the ZIP: damaged", "parse" }, { message, code })
    local stored = desk:read(archive("stored.zip", "-0", "leaf.pem"))
    _, message, code = zip.read((stored:gsub("MII", "MIX", 1)))
    assert.same({ "cannot read 'leaf.pem' in the ZIP: damaged", "parse" }, { message, code })
  end)

  it("takes a key out of a ZIP, which Lua never has as text", function()
    for _, way in ipairs { "-0", "-9" } do
      local pile = assert(unpacking.files({ archive("pair.zip", way, "leaf.pem", "key.pem") }, { with_key = true }))
      assert.is_true(pile.certificates[1]:matches(pile.key))
      local bytes <close> = assert(file.secret(path "pair.zip"))
      local box = bundle.kinds(bytes).zip
      assert.equal("userdata", type(box))
      for _, entry in ipairs(assert(zip.read(box))) do assert.equal("userdata", type(entry.bytes)) end
    end
    assert.is_nil(assert(unpacking.files { path "pair.zip" }).key)
  end)

  describe("limits", function()
    it("a file of more than 16 MiB, or of certificates in more than 1 MiB", function()
      refuses("limit", "cannot read 'LAB/MAIL/huge': more than 16777216 bytes",
        { write("huge", ("x"):rep(16 * 1024 * 1024 + 1)) })
      refuses("limit", "'LAB/MAIL/long.pem': cannot read certificates: more than 1048576 bytes",
        { write("long.pem", leaf .. ("x"):rep(1024 * 1024)) })
      os.remove(path "huge")
    end)

    it("more than 100 certificates in all files", function()
      local sixty = write("sixty.pem", leaf:rep(60))
      refuses("limit", ("'LAB/MAIL/sixty.pem': more than 100 certificates"), { sixty, sixty })
      refuses("limit", "'LAB/MAIL/many.pem': cannot read certificates: more than 100 of them",
        { write("many.pem", leaf:rep(101)) })
    end)

    it("more than 100 parts of an e-mail", function()
      local part = "x\n" .. leaf:match "%-\n(.-\n)%-"
      gives({ leaf }, { write("one.eml", part) })
      assert.equal(100, #assert(unpacking.files { write("many.eml", part:rep(100)) }).certificates)
      refuses("limit", "'LAB/MAIL/many.eml': cannot read it: more than 100 parts in base64",
        { write("many.eml", part:rep(101)) })
    end)

    it("PKCS #12 whose iteration counts take over 2 s together, in files or in a ZIP", function()
      local files, names = {}, {}
      for i = 1, 5 do
        files[i], names[i] = path("slow" .. i .. ".p12"), "slow" .. i .. ".p12"
        desk:openssl("pkcs12", "-export", "-nokeys", "-in", path "leaf.pem", "-passout", "pass:x", "-iter", "300000",
          "-out", path("slow" .. i .. ".p12"))
      end
      local options = { password = "x" }
      gives({ leaf, leaf, leaf, leaf }, { table.unpack(files, 1, 4) }, options)
      refuses("limit", "'LAB/MAIL/slow5.p12': the iteration counts of all PKCS #12 would take over 2 seconds", files,
        options)
      refuses("limit", "'LAB/MAIL/slow.zip': 'slow5.p12' in the ZIP: the iteration counts of all PKCS #12 would take "
        .. "over 2 seconds", { archive("slow.zip", table.unpack(names)) }, options)
    end)

    it("more than 100 entries of a ZIP, more than 1 MiB of one, more than 16 MiB of all", function()
      local names = {}
      for i = 1, 101 do
        names[i] = i .. ".txt"
        write(names[i], "x")
      end
      refuses("limit", "'LAB/MAIL/many.zip': cannot read the ZIP: more than 100 entries",
        { archive("many.zip", table.unpack(names)) })
      write("bomb.txt", ("0"):rep(1024 * 1024 + 1))
      refuses("limit", "'LAB/MAIL/bomb.zip': cannot read 'bomb.txt' in the ZIP: more than 1048576 bytes",
        { archive("bomb.zip", "bomb.txt") })
      -- one that lies about its size
      local lie = desk:read(path "bomb.zip"):gsub(string.pack("<I4", 1024 * 1024 + 1), string.pack("<I4", 9))
      refuses("parse", "'LAB/MAIL/lie.zip': cannot read 'bomb.txt' in the ZIP: damaged", { write("lie.zip", lie) })
      for i = 1, 17 do
        names[i] = i .. ".big"
        write(names[i], ("0"):rep(1024 * 1024))
      end
      refuses("limit", "'LAB/MAIL/sum.zip': cannot read the ZIP: more than 16777216 bytes inflated",
        { archive("sum.zip", table.unpack(names, 1, 17)) })
    end)
  end)

  it("refuses what holds no certificate, naming the file", function()
    refuses("parse", "'LAB/MAIL/reply.txt': cannot read certificates: none is there",
      { write("reply.txt", "we are closed on Fridays") })
    refuses("parse", "'LAB/MAIL/key.pem': no certificate is there", { path "key.pem" })
    refuses("missing", "cannot read 'LAB/MAIL/nothing': No such file or directory", { path "nothing" })
    local pile, message, code = unpacking.add(unpacking.pile(), "", "the answer of mine")
    assert.same({ nil, "'the answer of mine': cannot read certificates: none is there", "parse" },
      { pile, message, code })
    assert.equal(1, #assert(unpacking.add(unpacking.pile(), leaf, "x")).certificates)
    assert.equal(leaf, assert(cert.parse(leaf))[1]:pem())
  end)
end)
