-- Names that are made to deceive, in a certificate that nobody signed, and every
-- command that shows them: nothing that nobody could see, nothing that looks
-- like another name or a line of its own.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local der = dofile(here .. "corpus/der.lua")
local text = require "text"

local EC, CN, O, SAN = "1.2.840.10045.4.3.2", "2.5.4.3", "2.5.4.10", "2.5.29.17"

-- Names as they are, and as they are shown.
local NAMES = {
  { "a.test", "a.test" },
  { "good.test, evil.test", '"good.test, evil.test"' },
  { "good.test\u{FF0C}evil.test", '"good.test\u{FF0C}evil.test"' },
  { "line\nId 7.test", '"line\\\\u{000A}Id 7.test"' },
  { "\27[31mred.test", "\\u{001B}[31mred.test" },
  { "\u{202E}tset.live", "\\u{202E}tset.live" },
  { "zero\u{200B}width.test", "zero\\u{200B}width.test" },
  { "\u{3164}filler.test", "\\u{3164}filler.test" },
  { "tag\u{E0061}.test", "tag\\u{E0061}.test" },
  { 'quo"te.test', '"quo\\"te.test"' },
  { "xn--bcher-kva.test (evil.test)", '"xn--bcher-kva.test (evil.test)"' },
  { "lat\xFCin.test", '"lat\u{FFFD}in.test"' },
  { "xn--pple-43d.test", "xn--pple-43d.test" },
}

-- A certificate of these names for the key of a request; valid from then to then.
local function forged(spki, subject, from, to, names)
  local function name(kind, value)
    return der.set(der.sequence(der.oid(kind), der.utf8(value)))
  end
  local alternatives = {}
  for i, pair in ipairs(names or NAMES) do alternatives[i] = der.implicit(2, pair[1]) end
  local ecdsa = der.sequence(der.oid(EC))
  return der.sequence(der.sequence(der.explicit(0, der.integer(2)), der.integer(77), ecdsa,
    der.sequence(name(O, "Honest\u{202E} CA\n")), der.sequence(der.utc(from), der.utc(to)),
    der.sequence(name(O, "Bank, Inc\u{2066}"), name(CN, subject)), spki,
    der.explicit(3, der.sequence(der.sequence(der.oid(SAN), der.octets(der.sequence(table.unpack(alternatives))))))),
    ecdsa, der.bits(der.sequence(der.integer(5), der.integer(6))))
end

describe("names that are made to deceive", function()
  local desk, file, spki

  local function plain(output)
    for line in output:gmatch "[^\n]+" do
      assert.is_nil(text.hidden(line), ("%q"):format(line))
      assert.is_truthy(utf8.len(line))
    end
    return output
  end
  local function shown(...)
    local result = desk:run(...)
    return plain(result.stdout), plain(result.stderr), result.status
  end
  local function date(days) return os.date("!%y%m%d%H%M%SZ", os.time() + days * 86400) end

  local expected = {}
  for i, pair in ipairs(NAMES) do expected[i] = pair[2] end
  local line = table.concat(expected, ", ")

  setup(function() desk = Desk.new "deception" end)
  teardown(function() desk:close() end)
  before_each(function()
    desk:clear()
    local _, _, request = desk:ask("--domain", "a.test", "--name", "mail")
    spki = desk:openssl("pkey", "-pubin", "-outform", "DER", { stdin = desk:openssl("req", "-in", request, "-noout",
      "-pubkey") })
    file = desk:write("forged.der", forged(spki, "Your\u{202E}\rBank, CN=evil", date(-1), date(90)))
  end)

  it("are shown as what they are when a request is completed, and from then on", function()
    local out, err, status = shown("complete-request", "--file", file)
    assert.equal(0, status, err)
    assert.is_truthy(err:find("in the certificate but not asked for: " .. line:match "^a%.test, (.*)$" .. "\n", 1, true), err)
    for _, said in ipairs { out, (shown("show", "1")) } do
      assert.is_truthy(said:find("\nDomains      " .. line .. "\n", 1, true) or said:find("\nDomains  " .. line .. "\n", 1,
        true), said)
      assert.is_truthy(said:find([[CN=Your\u{202E}\0DBank\, CN\=evil,O=Bank\, Inc\u{2066}]], 1, true)
        or said:find([[CN=Your\u{202E}\0DBank\, CN=evil,O=Bank\, Inc\u{2066}]], 1, true), said)
      assert.is_truthy(said:find([[O=Honest\u{202E} CA\0A]], 1, true), said)
    end
    local listed = shown "list"
    assert.is_truthy(listed:find("  " .. line .. "\n", 1, true), listed)
    assert.equal(2, select(2, listed:gsub("\n", "\n")))
  end)

  it("are refused with a NUL in them", function()
    local name, seen = "nul.test\0.evil.test", "nul.test\\u{0000}.evil.test"
    for subject, names in pairs { ["a.test"] = { NAMES[1], { name } }, [name] = { NAMES[1] } } do
      local path = desk:write("nul.der", forged(spki, subject, date(-1), date(90), names))
      local message = ("the certificate '%s' is for the name '%s': no name has a NUL (RFC 5280, section 4.2.1.6)"):format(
        subject == name and seen or subject, seen)
      for _, words in ipairs { { "complete-request", "--file", path }, { "import", path } } do
        local out, err, status = shown(table.unpack(words))
        assert.same({ 1, "", "certwright: " .. message .. "\n" }, { status, out, err })
      end
    end
    assert.equal("created", desk:done("show", "1").state)
  end)

  it("are whole in JSON, which has no character that nobody would see", function()
    local object, result = desk:done("complete-request", "--file", file)
    local want = {}
    for i, pair in ipairs(NAMES) do want[i] = pair[1]:gsub("\xFC", "\u{FFFD}") end
    assert.same(want, object.domains)
    plain(result.stdout)
    assert.is_truthy(result.stdout:find("tag\\udb40\\udc61.test", 1, true))
    assert.equal("Your\u{202E}\rBank, CN=evil", object.common_name)
    for _, words in ipairs { { "--json", "list" }, { "--json", "show", "1" } } do shown(table.unpack(words)) end
  end)

  it("are shown so when one is imported, and become no friendly name", function()
    desk:done("remove", "1", "--yes")
    local out, err, status = shown("import", file)
    assert.equal(0, status, err)
    assert.is_truthy(err:find("^2 'a%.test' is imported without its key: "), err)
    assert.is_truthy(out:find(line, 1, true), out)
  end)

  it("are shown so in what is refused", function()
    desk:done("remove", "1", "--yes")
    local out, err, status = shown("complete-request", "--file", file)
    assert.same({ 1, "" }, { status, out })
    assert.is_truthy(err:find("no request has the key of 'Your\\u{202E}\\u{000D}Bank, CN=evil' (key ", 1, true), err)
    desk:ask("--domain", "b.test")
    local _, _, request = desk:ask("--domain", "c.test")
    spki = desk:openssl("pkey", "-pubin", "-outform", "DER", { stdin = desk:openssl("req", "-in", request, "-noout",
      "-pubkey") })
    out, err, status = shown("complete-request", "--file", desk:write("old.der", forged(spki, "x\27[2J\nok", date(-9),
      date(-8))))
    assert.same({ 1, "" }, { status, out })
    assert.is_truthy(err:find("the certificate 'x\\u{001B}[2J\\u{000A}ok' expired on ", 1, true), err)
  end)

  it("take no longer to show for the blanks in them", function()
    local blanks = (" "):rep(200000)
    local began = require("core.host").clock()
    assert.equal("a" .. blanks .. "b", text.escape_lines("a" .. blanks .. "b \n"))
    assert.equal("A\na" .. blanks .. "b", text.table { { "A" }, { "a" .. blanks .. "b  " } })
    assert.equal("a\n  b", text.wrap("a" .. blanks .. "b" .. blanks, 80, 2))
    assert.is_true(require("core.host").clock() - began < 10)
  end)

  it("are cut nowhere within a character on a narrow terminal", function()
    desk:done("complete-request", "--file", file)
    local rows = { { "NAME" } }
    for i, pair in ipairs(NAMES) do rows[i + 1] = { text.names { pair[1] } } end
    plain(text.fitted(rows, 14, { text.cut "NAME" }))
  end)
end)
