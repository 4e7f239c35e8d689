-- An object as the outside sees it: its JSON fields, and how the command line
-- names it.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local cert = require "core.cert"
local key = require "core.key"
local request = require "core.request"
local json = require "dkjson"

-- Every field of an object, with its type: "?" for one that may be null.
local FIELDS = {
  id = "number", state = "string", status = "string", friendly_name = "string", subject = "string",
  common_name = "string?", domains = "table", key = "string", fingerprint = "string?", thumbprint = "string?",
  serial = "string?", issuer = "string?", not_before = "string?", not_after = "string?", renew_at = "string?",
  services = "table", request_file = "string?", ca = "string?", ticket = "string?", self_signed = "boolean",
  exportable = "boolean", has_private_key = "boolean", warnings = "table", assignments = "table",
}

local ASSIGNMENT_FIELDS = {
  server = "string", service = "string", endpoint = "string?", address = "string?", name = "string?",
  desired = "string", written = "string?", observed = "string?", observed_at = "string?", error = "string?",
  state = "string",
}

describe("the fields of an object", function()
  local desk

  setup(function() desk = Desk.new "fields" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function complete(value, fields)
    for name, kind in pairs(fields) do
      local is_null = value[name] == json.null and kind:find "%?$"
      assert.is_truthy(is_null or type(value[name]) == kind:match "%a+", name .. " is " .. tostring(value[name]))
    end
  end

  -- The text of what `show` prints for each empty list and null, as it stands in the JSON.
  local function text_of(id)
    return desk:run("--json", "show", tostring(id)).stdout
  end

  it("are all there for a request, null or [] where they do not apply", function()
    local id, object = desk:ask("--domain", "a.test")
    complete(object, FIELDS)
    local null = json.null
    assert.same({ 1, "created", "PendingRequest", null, null, null, null, null, null, null, null },
      { object.id, object.state, object.status, object.fingerprint, object.thumbprint, object.serial, object.issuer,
        object.not_before, object.not_after, object.renew_at, object.ticket })
    assert.same({ "CN=a.test", "a.test", { "a.test" }, "ec:P-256", false, false, true, "manual" }, { object.subject,
      object.common_name, object.domains, object.key, object.self_signed, object.exportable, object.has_private_key,
      object.ca })
    assert.equal(desk.state .. "/requests/1.csr", object.request_file)
    for _, field in ipairs { "services", "warnings", "assignments" } do
      assert.is_truthy(text_of(id):find(('"%s":[]'):format(field), 1, true), field)
    end
  end)

  it("are all there for a certificate, with times in RFC 3339 and hex in lower case", function()
    desk:done("ca", "init")
    local object = desk:done("enroll", "--domain", "a.test")
    complete(object, FIELDS)
    for _, field in ipairs { "not_before", "not_after", "renew_at" } do
      assert.is_truthy(object[field]:find "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$", object[field])
    end
    assert.is_truthy(object.not_before < object.renew_at and object.renew_at < object.not_after)
    assert.is_truthy(#object.fingerprint == 64 and #object.thumbprint == 40)
    for _, field in ipairs { "fingerprint", "thumbprint", "serial" } do
      assert.is_truthy(object[field]:find "^[0-9a-f]+$")
    end
    os.remove(object.request_file)
    assert.equal(json.null, desk:done("show", "1").request_file)
  end)

  it("are the same in every command that prints an object", function()
    desk:done("ca", "init")
    local printed = {
      desk:done("new-request", "--domain", "a.test"), desk:done("submit-request", "1"),
      desk:done("complete-request", "1"), desk:done("list")[1], desk:done("show", "1"),
      desk:done("enroll", "--domain", "b.test"), desk:done("new-request", "--self-signed", "--domain", "c.test"),
      desk:done("new-request", "--domain", "d.test"), desk:done("cancel", "4"), (desk:done("remove", "4")),
    }
    assert.equal(10, #printed)
    for _, object in ipairs(printed) do complete(object, FIELDS) end
    assert.same(printed[3], printed[4])
  end)

  it("have a warning's code and message", function()
    local id, _, path = desk:ask("--domain", "a.test")
    local object = desk:done("complete-request", id, "--file", desk:sign(path))
    assert.equal(1, #object.warnings)
    complete(object.warnings[1], { code = "string", message = "string" })
    assert.same(object.warnings, desk:done("show", id).warnings)
  end)

  it("have one assignment for each endpoint, address and name, with all of its fields", function()
    local web = desk.lab:nginx { names = { "a.test", "b.test" },
      pair = desk.lab:certificate { names = { "a.test" } } }
    desk.lab:site { services = { web = web.service } }
    local object = desk:done("enroll", "--self-signed", "--services", "web")
    assert.equal(2, #object.assignments)
    for i, assignment in ipairs(object.assignments) do
      complete(assignment, ASSIGNMENT_FIELDS)
      assert.same({ "web", web.endpoints[1], "127.0.0.1", ({ "a.test", "b.test" })[i], object.fingerprint,
        object.fingerprint, object.fingerprint, json.null, "observed" }, { assignment.service, assignment.endpoint,
        assignment.address, assignment.name, assignment.desired, assignment.written, assignment.observed,
        assignment.error, assignment.state })
    end
    local second = desk:done("new-request", "--self-signed", "--services", "web")
    second = desk:done("assign-services", tostring(second.id), "--services", "web", "--no-observe")
    assert.equal(2, #second.assignments)
    for _, assignment in ipairs(second.assignments) do
      complete(assignment, ASSIGNMENT_FIELDS)
      assert.same({ second.fingerprint, second.fingerprint, json.null, json.null, "written" }, { assignment.desired,
        assignment.written, assignment.observed, assignment.observed_at, assignment.state })
    end
    assert.equal("replaced", desk:done("show", "1").assignments[1].state)
    web:stop()
  end)

  it("tell the status by the clock", function()
    local object = require "object"
    local row = { state = "completed", not_before = 100, not_after = 200 }
    local function status(now, changes)
      local changed = setmetatable(changes or {}, { __index = row })
      return { object.status(changed, now) }
    end
    assert.same({ "Valid", "chains to a trust anchor" }, status(150))
    assert.same({ "Valid", "chains to a trust anchor" }, status(200))
    assert.same({ "DateInvalid", "expired on 1970-01-01T00:03:20Z" }, status(201))
    assert.same({ "DateInvalid", "not valid before 1970-01-01T00:01:40Z" }, status(99))
    local unknown = 'no trusted issuer for "a.test": "CA" is not in the chain and is not a known anchor'
    assert.same({ "Untrusted", unknown }, status(150, { untrusted = unknown }))
    local broken = 'certificate "a.test" is not trusted: path length constraint exceeded'
    assert.same({ "Invalid", broken }, status(150, { untrusted = broken }))
    assert.same({ "RevocationCheckFailure", "no answer" }, status(150, { revocation = { state = "failed", message = "no answer" } }))
    assert.same({ "Untrusted", unknown }, status(150, { untrusted = unknown, revocation = { state = "failed", message = "x" } }))
    assert.same({ "Valid", "chains to a trust anchor; not revoked" }, status(150, { revocation = { state = "good",
      message = "not revoked" } }))
    assert.same({ "Revoked", "revoked on 1970-01-01: keyCompromise" }, status(250, { revoked_at = 120,
      warnings = { { code = "revoked", message = "revoked on 1970-01-01: keyCompromise" } } }))
    assert.same({ "DateInvalid", "expired on 1970-01-01T00:03:20Z" }, status(201, { untrusted = "nobody knows it" }))
    assert.same({ "Revoked", "revoked on 1970-01-01" }, status(150, { revoked_at = 120 }))
    assert.same({ "PendingRequest", "waits for the CA's certificate" }, status(150, { state = "submitted" }))
    assert.same({ "PendingRequest", "not submitted to a CA yet" }, status(150, { state = "created" }))
    assert.same({ "Unknown", "the request was rejected" }, status(150, { state = "rejected" }))
  end)
end)

describe("an object is named", function()
  local desk

  setup(function() desk = Desk.new "names" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function found(word)
    return desk:done("show", word).id
  end

  local function missing(word)
    desk:refuses(1, "missing", ("there is no request or certificate '%s'; see certwright list"):format(
      desk:shown(word)), "show", "--", word)
  end

  it("by its id", function()
    desk:ask("--domain", "a.test")
    assert.same({ 1, 1 }, { found "1", found "01" })
    desk:refuses(1, "missing", "there is no request or certificate 2; see certwright list", "show", "2")
    desk:refuses(1, "missing", "there is no request or certificate 0; see certwright list", "show", "0")
    missing "99999999999999999999"
    missing "-1"
    missing "1x"
  end)

  it("by its exact friendly name", function()
    desk:ask("--domain", "a.test", "--name", "Contoso mail")
    assert.equal(1, found "Contoso mail")
    missing "contoso mail"
    missing "Contoso"
    missing "Contoso mai_"
    missing "Contoso%"
  end)

  it("by a name that several have had: the newest completed one", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test", "--name", "mail")
    desk:ask("--from", "mail")
    assert.equal(1, found "mail") -- 2 is pending
    desk:done("new-request", "--self-signed", "--from", "1")
    assert.equal(3, found "mail")
    desk:done("remove", "3")
    desk:done("remove", "1")
    assert.equal(2, found "mail") -- the only pending one
  end)

  it("by a name that several requests have: exit 2, listing them", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test", "--name", "mail")
    desk:ask("--from", "1")
    desk:ask("--from", "1")
    desk:done("remove", "1")
    for _, words in ipairs { { "show" }, { "cancel" }, { "submit-request" }, { "enroll" }, { "remove", "--yes" },
      { "assign-services", "--services=x" }, { "complete-request", "--file=x" }, { "new-request", "--from" } } do
      words[#words + 1] = "mail"
      desk:refuses(2, "usage", "'mail' names several requests; say which by its id:\n  3  mail  created  -\n"
        .. "  2  mail  created  -", table.unpack(words))
    end
    desk:done("cancel", "3")
    assert.equal(2, found "mail")
  end)

  it("by 6 or more hex digits of its SHA-256 or SHA-1, in whatever case", function()
    desk:done("new-request", "--self-signed", "--domain", "a.test")
    local object = desk:done("new-request", "--self-signed", "--domain", "b.test")
    for _, digits in ipairs { object.fingerprint, object.thumbprint } do
      if not digits:sub(1, 6):find "^%d+$" then -- else it is an id
        assert.equal(2, found(digits:sub(1, 6)))
      end
      assert.same({ 2, 2 }, { found(digits), found(digits:upper()) })
      missing(digits:sub(1, 5):gsub("^%d+$", "abcde"))
      missing(digits .. "00")
    end
  end)

  it("by a name rather than by digits of a fingerprint", function()
    local object = desk:done("new-request", "--self-signed", "--domain", "a.test")
    local five = object.fingerprint:sub(1, 5)
    if not five:find "^%d+$" then
      desk:ask("--domain", "b.test", "--name", five)
      assert.equal(2, found(five))
    end
  end)

  it("by digits that are the beginning of several: exit 2, listing them", function()
    -- certificates of two requests, made until two of them begin alike
    local signer = assert(key.generate "ed25519")
    local made, clash, other = {}, nil, nil
    local ids = { desk:ask("--domain", "a.test"), (desk:ask("--domain", "b.test")) }
    local asked = {}
    for i, id in ipairs(ids) do
      asked[i] = assert(request.parse(desk:read(("%s/requests/%s.csr"):format(desk.state, id))))
    end
    local root = assert(cert.issue { key = signer, subject = { CN = "Root" }, ca = true, not_before = os.time() - 100,
      not_after = os.time() + 1000 })
    repeat
      for i = 1, 2 do
        local leaf = assert(cert.issue { key = signer, issuer = root, request = asked[i], not_before = os.time() - 100,
          not_after = os.time() + 1000 })
        local digits = leaf:fingerprint():sub(1, 6)
        made[digits] = made[digits] or {}
        made[digits][i] = leaf
        if made[digits][3 - i] and not digits:find "^%d+$" then
          clash, other = digits, made[digits]
        end
      end
    until clash
    for i, id in ipairs(ids) do
      desk:done("complete-request", id, "--file", desk:write("clash.pem", other[i]:pem()))
    end
    local function line(i)
      return ("  %d  %s.test  completed  %s"):format(i, ("ab"):sub(i, i), other[i]:fingerprint():sub(1, 16))
    end
    local result = desk:run("show", clash)
    assert.same({ 2, ("certwright: '%s' is the beginning of several fingerprints:\n%s\n%s\n"):format(clash, line(1),
      line(2)) }, { result.status, result.stderr })
    assert.equal(1, found(other[1]:fingerprint()))
  end)
end)
