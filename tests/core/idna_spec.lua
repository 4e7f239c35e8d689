-- core.idna: names in and out, and how it is loaded.

local here = debug.getinfo(1, "S").source:match "^@(.-)core/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local idna = require "core.idna"
local process = require "core.process"

describe("core.idna", function()
  local function refused(code, message, ...)
    assert.are.same({ nil, message, code }, { ... })
  end

  it("maps a name and gives its A-label form", function()
    for name, ascii in pairs {
      ["bücher.example"] = "xn--bcher-kva.example", ["BÜCHER.Example"] = "xn--bcher-kva.example",
      ["bu\u{308}cher.example"] = "xn--bcher-kva.example", ["faß.test"] = "xn--fa-hia.test",
      ["ü。test"] = "xn--tda.test", ["mail.例え.テスト"] = "mail.xn--r8jz45g.xn--zckzah",
      ["नी\u{94D}\u{200D}.test"] = "xn--l2b2cwb267n.test", ["xn--bcher-kva.example"] = "xn--bcher-kva.example",
    } do
      assert.are.same({ ascii }, { idna.ascii(name) })
    end
  end)

  it("refuses what IDNA 2008 does not have", function()
    for name, message in pairs {
      ["☃.test"] = "string contains a disallowed character",
      ["ab--cd.ü.test"] = "string contains forbidden two hyphens pattern",
      ["אבa.test"] = "string has forbidden bi-directional properties",
      ["a\u{200D}b.ü.test"] = "string contains a forbidden context-j character",
      ["-ü.test"] = "string start/ends with forbidden hyphen",
      ["\u{301}ü.test"] = "string contains a forbidden leading combining character",
      ["xn--zz--.test"] = "string contains invalid punycode data",
      ["\xFFa.test"] = "string encoding error",
      ["ü\0.test"] = "a NUL in it",
    } do
      refused("parse", message, idna.ascii(name))
    end
  end)

  it("names its limits", function()
    refused("limit", "a label is longer than 63 octets (RFC 1035)", idna.ascii(("ü"):rep(60) .. ".test"))
    refused("limit", "it is longer than 253 octets (RFC 1035)", idna.ascii(("ü."):rep(100) .. "test"))
    refused("limit", "more than 4096 bytes", idna.ascii(("a"):rep(4097)))
    refused("limit", "more than 4096 bytes", idna.label(("a"):rep(4097)))
  end)

  it("decodes an A-label that may be registered, and no other", function()
    for label, text in pairs { ["xn--bcher-kva"] = "bücher", ["xn--fa-hia"] = "faß", ["xn--zckzah"] = "テスト" } do
      assert.are.same({ text }, { idna.label(label) })
    end
    for label, message in pairs {
      ["mail"] = "input A-label is not valid", ["xn--"] = "input A-label is not valid",
      ["xn--n3h"] = "string contains a disallowed character", ["xn--a"] = "string contains a disallowed character",
      ["xn--zzz---"] = "string contains invalid punycode data",
      ["xn--_-eeha"] = "string contains a disallowed character",
      ["xn--ab-3n4a"] = "string contains a forbidden context-o character",
      ["xn--99999999999"] = "punycode conversion resulted in overflow",
    } do
      refused("parse", message, idna.label(label))
    end
  end)

  it("is a library that only its use loads", function()
    for chunk, found in pairs { ["core.key.generate 'ec:P-256'"] = false, ["core.idna.ascii 'ü'"] = true } do
      local trace = assert(process.run { "strace", "-f", "-e", "trace=openat", Desk.program, "-e", chunk })
      assert.are.same({ 0, found, found }, { trace.status, trace.stderr:find("libidn2", 1, true) ~= nil,
        trace.stderr:find("/idna.so", 1, true) ~= nil })
    end
  end)

  it("is run from no file that others may write", function()
    local desk <close> = Desk.new "idna"
    local copy = desk:installed()
    local function run() return process.run { copy, "-e", "print(core.idna.ascii 'ü')" } end
    assert.are.equal("xn--tda\n", run().stdout)
    local path = process.run({ "find", copy:match "^(.*)/", "-name", "idna.so" }).stdout
    for place in path:gmatch "[^\n]+" do assert.are.equal(0, process.run({ "chmod", "666", place }).status) end
    local result = run()
    assert.are.same({ 1, "" }, { result.status, result.stdout })
    assert.is_truthy(result.stderr:find("/modules/idna.so': owner 0, mode 0666: others could have written it", 1, true),
      result.stderr)
  end)
end)
