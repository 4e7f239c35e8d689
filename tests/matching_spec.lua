-- matching: which of several certificates is for which request, on the command
-- line; openssl is the CA outside.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")

describe("of several certificates in an answer", function()
  local desk, issuer

  setup(function()
    desk = Desk.new "matching"
    issuer = desk:outside() .. "/cert.pem"
  end)
  teardown(function() desk:close() end)
  before_each(function()
    desk:clear()
    desk:write("site/config.lua", ("return { anchors = { %q } }"):format(desk.root .. "/cert.pem"))
  end)

  -- A file that holds all of these.
  local function answer(...)
    local texts = {}
    for i, path in ipairs { ... } do texts[i] = desk:read(path) end
    return desk:write("answer.pem", table.concat(texts))
  end
  local function print_of(path) return desk:digest("certificate", desk:read(path)) end

  it("each goes to its request, one command after the other, and the rest is named", function()
    local _, _, first = desk:ask("--domain", "a.test")
    local second, _, other = desk:ask("--domain", "b.test")
    local one, two = desk:sign(first), desk:sign(other)
    local file = answer(issuer, two, one)
    local object, result = desk:done("complete-request", "--file", file)
    assert.same({ 2, print_of(two), {} }, { object.id, object.fingerprint, object.warnings })
    assert.is_truthy(result.stderr:find("request 1 'a.test' waits for another certificate in it: give "
      .. "complete-request 1 the same --file\n", 1, true), result.stderr)
    object, result = desk:done("complete-request", "--file", file)
    assert.same({ 1, print_of(one), {} }, { object.id, object.fingerprint, object.warnings })
    assert.is_nil(result.stderr:find("waits for", 1, true))
    local before = desk:snapshot()
    assert.equal(2, desk:done("complete-request", "--file", file).id)
    assert.equal(2, desk:done("complete-request", second, "--file", file).id)
    assert.is_true(before == desk:snapshot())
  end)

  it("the one that is here already is not taken for a renewal with its key", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local old = desk:sign(request, { to = 30 })
    desk:done("complete-request", "--file", old)
    local renewal, _, again = desk:ask("--from", id, "--reuse-key")
    local new = desk:sign(again)
    for _, words in ipairs { { "--dry-run" }, { "--dry-run", renewal } } do
      words[#words + 1] = "--file"
      for _, file in ipairs { { old, new, issuer }, { new, old, issuer } } do
        words[#words + 1] = answer(table.unpack(file))
        local result = desk:run("complete-request", table.unpack(words))
        assert.is_truthy(result.stderr:find("would complete request 2 with certificate " .. print_of(new), 1, true),
          result.stderr)
        words[#words] = nil
      end
    end
    local object = desk:done("complete-request", "--file", answer(old, new, issuer))
    assert.same({ 2, print_of(new) }, { object.id, object.fingerprint })
    object = desk:done("complete-request", id, "--file", answer(new, old, issuer))
    assert.same({ 1, print_of(old) }, { object.id, object.fingerprint })
  end)

  it("that is taken which can serve now, and the newest that can", function()
    local id, _, request = desk:ask("--domain", "a.test")
    local expired, older, newer, later = desk:sign(request, { from = -20, to = -10 }),
      desk:sign(request, { from = -3 }), desk:sign(request, { from = -1 }), desk:sign(request, { from = 2 })
    local file = answer(expired, older, later, newer, issuer)
    for _, words in ipairs { { "--file", file }, { id, "--file", file } } do
      local result = desk:run("complete-request", "--dry-run", table.unpack(words))
      assert.is_truthy(result.stderr:find("would complete request 1 with certificate " .. print_of(newer), 1, true),
        result.stderr)
    end
    local object = desk:done("complete-request", "--file", file)
    assert.same({ print_of(newer), {} }, { object.fingerprint, object.warnings })
  end)

  it("one for a key that nobody has here is warned of, and its name cannot look like two", function()
    local _, _, request = desk:ask("--domain", "a.test")
    desk:openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
      desk.path .. "/stray.key", "-subj", "/CN=x' (key 0), 'y", "-addext", "subjectAltName=DNS:x.test", "-out",
      desk.path .. "/stray.csr")
    local stray = desk:sign(desk.path .. "/stray.csr")
    local object = desk:done("complete-request", "--file", answer(stray, desk:sign(request), issuer))
    local key = desk:digest("request", desk:read(desk.path .. "/stray.csr")):sub(1, 16)
    assert.same({ { code = "mismatch",
      message = ("it came with what is for another key: 'x\\' (key 0), \\'y' (key %s)"):format(key) } }, object.warnings)
    local result = desk:run("complete-request", "--file", stray)
    assert.equal(("certwright: no request has the key of 'x\\' (key 0), \\'y' (key %s); no request is pending\n"):format(
      key), result.stderr)
  end)
end)
