-- What a request's subject may hold.

local countries = require "countries"
local subject = require "subject"

describe("a subject's", function()
  it("country is one of the 249 codes that ISO 3166-1 assigns", function()
    local count = 0
    for code, name in pairs(countries) do
      assert.is_truthy(code:find "^[A-Z][A-Z]$" and #name > 3, code)
      count = count + 1
    end
    assert.equal(249, count)
    assert.equal("DE", subject.check("C", "de"))
    for _, code in ipairs { "XX", "EU", "UK", "D", "", "DEU", "D\u{202E}" } do
      assert.is_nil((subject.check("C", code)))
    end
  end)

  it("country that is written out says its code", function()
    assert.same({ nil, "the country 'germany' is not a two-letter code of ISO 3166-1, such as US (Germany is DE)", "usage" },
      { subject.check("C", "germany") })
  end)

  it("other attributes have the upper bounds of X.520, in characters", function()
    for attribute, limit in pairs { O = 64, OU = 64, L = 128, ST = 128 } do
      local longest = ("ü"):rep(limit)
      assert.equal(longest, subject.check(attribute, longest))
      local value, message, code = subject.check(attribute, longest .. "x")
      assert.is_nil(value)
      assert.is_truthy(message:find(("has %d characters, and may have %d (X.520"):format(limit + 1, limit), 1, true))
      assert.equal("limit", code)
    end
    assert.same({ nil, "the organization 'a\u{FFFD}' is not UTF-8", "usage" }, { subject.check("O", "a\xFF") })
  end)
end)
