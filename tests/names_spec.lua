-- names: what new-request's spec does not see from outside.

local names = require "names"

describe("names", function()
  it("are addresses only when they are", function()
    for name, expected in pairs { ["192.0.2.7"] = true, ["2001:db8::1"] = true, ["::ffff:192.0.2.7"] = true,
      ["300.1.1.1"] = false, ["ab:cd"] = false, ["fe80::1%eth0"] = false, ["a.test"] = false, ["192.0.2.7\0"] = false } do
      assert.same({ name, expected }, { name, names.is_address(name) })
    end
  end)

  it("have the lengths that DNS gives them, and not an octet more", function()
    local label = ("a"):rep(63)
    local longest = ("%s.%s.%s.%s"):format(label, label, label, ("a"):rep(61))
    assert.same({ 253, longest }, { #longest, names.check(longest) })
    assert.equal(longest, names.check(longest .. "."))
    assert.same({ nil, ("'%sa' is longer than 253 octets (RFC 1035)"):format(longest), "limit" },
      { names.check(longest .. "a") })
    assert.same({ nil, ("'*.%s' is longer than 253 octets (RFC 1035)"):format(longest), "limit" },
      { names.check("*." .. longest) })
  end)

  describe("shown", function()
    it("have their U-labels beside, where those cannot deceive", function()
      for name, expected in pairs {
        ["a.test"] = "a.test", ["xn--bcher-kva.test"] = "xn--bcher-kva.test (bücher.test)",
        ["*.XN--BCHER-KVA.test"] = "*.XN--BCHER-KVA.test (*.bücher.test)",
        ["xn--r8jz45g.xn--zckzah"] = "xn--r8jz45g.xn--zckzah (例え.テスト)",
        ["xn--pple-43d.test"] = "xn--pple-43d.test", -- Cyrillic а among Latin letters
        ["xn--80ak6aa92e.test"] = "xn--80ak6aa92e.test", -- Cyrillic that looks like "apple"
        ["xn--4dbcagdahymbxekheh6e0a7fei0b.test"] = "xn--4dbcagdahymbxekheh6e0a7fei0b.test", -- Hebrew
        ["xn--n3h.test"] = "xn--n3h.test", ["xn--\0.test"] = "xn--\\u{0000}.test",
        ["a.test, xn--bcher-kva.test"] = '"a.test, xn--bcher-kva.test"',
      } do
        assert.equal(expected, names.shown { name })
      end
      assert.equal("a.test, xn--fa-hia.test (faß.test)", names.shown { "a.test", "xn--fa-hia.test" })
    end)
  end)

  describe("friendly", function()
    for name, message in pairs {
      [""] = "the friendly name '' must have 1 to 63 characters",
      [("ü"):rep(64)] = ("the friendly name '%s' must have 1 to 63 characters"):format(("ü"):rep(64)),
      ["a/b"] = "the friendly name 'a/b' may not hold a control character or a /",
      ["a\0b"] = "the friendly name 'a\\u{0000}b' may not hold a control character or a /",
      ["a\u{85}"] = "the friendly name 'a\\u{0085}' may not hold a control character or a /",
      ["\u{202E}a"] = "the friendly name '\\u{202E}a' may not hold the character U+202E, which cannot be seen",
      ["a\u{FEFF}"] = "the friendly name 'a\\u{FEFF}' may not hold the character U+FEFF, which cannot be seen",
      ["a\xFC"] = "the friendly name 'a\u{FFFD}' is not UTF-8",
      ["-a"] = "the friendly name '-a' may not begin with -",
      ["12"] = "the friendly name '12' may not be digits only: that is an id",
      ["abcdef"] = "the friendly name 'abcdef' may not be hex digits only: that is a fingerprint",
    } do
      it("are never such as " .. message, function()
        assert.same({ nil, message, "usage" }, { names.friendly(name) })
      end)
    end

    it("may have 63 characters, and those that join letters", function()
      for _, name in ipairs { ("ü"):rep(63), "می\u{200C}خواهم", "Mail, Contoso" } do
        assert.equal(name, names.friendly(name))
      end
    end)
  end)
end)
