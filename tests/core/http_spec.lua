-- core.http: HTTP over libcurl, against a real nginx.

local here = debug.getinfo(1, "S").source:match "^@(.-)core/[^/]*$"
local Lab = dofile(here .. "support/lab.lua")
local Publisher = dofile(here .. "support/publisher.lua")
local file = require "core.file"
local host = require "core.host"
local process = require "core.process"

describe("core.http", function()
  local lab, publisher, http, root

  setup(function()
    lab = Lab.new { name = "http" }
    root = lab:authority()
    publisher = Publisher.new(lab, { pair = lab:certificate { names = { "127.0.0.1" }, ca = root } })
    http = require "core.http"
  end)
  teardown(function()
    publisher:close()
    lab:close()
  end)

  local function get(path, options)
    local request = { url = publisher.url .. path }
    for name, value in pairs(options or {}) do request[name] = value end
    return http.request(request)
  end

  local function fails(message, code, nothing, said, kind)
    assert.same({ nil, message, code }, { nothing, said, kind })
  end

  it("is loaded when it is required, and libcurl with it", function()
    local program = file.link "/proc/self/exe"
    local chunk = "local function has() local f <close> = io.open '/proc/self/maps' return f:read 'a':find('libcurl', 1, true) ~= nil end "
      .. "local before = has() local http = core.http print(before, type(http.request), has())"
    assert.equal("false\tfunction\ttrue\n", process.run({ program, "-e", chunk }).stdout)
  end)

  it("gets a page: its status, its headers by names in lower case, its body", function()
    local answer = assert(get "/hello")
    assert.same({ 200, "hello", "5" }, { answer.status, answer.body, answer.headers["content-length"] })
    answer = assert(get("/agent", { headers = { ["X-Asked"] = " yes" } }))
    assert.is_truthy(answer.body:find "^certwright/%d.* ?yes$")
    assert.equal("one, two", answer.headers["x-twice"])
    assert.equal(404, assert(get "/nothing").status)
    assert.equal("", assert(get("/hello", { method = "HEAD" })).body)
  end)

  it("sends a body by POST, or by what method is said", function()
    assert.equal("GET", assert(get "/method").body)
    assert.equal("POST", assert(get("/method", { body = "a\0b" })).body)
    assert.equal("PUT", assert(get("/method", { body = "x", method = "PUT" })).body)
    assert.equal("POST", assert(get("/post", { body = "x" })).body)
  end)

  it("follows redirects, a few, and to HTTP only", function()
    assert.equal("hello", assert(get "/redirect").body)
    assert.equal(302, assert(get("/redirect", { redirects = 0 })).status)
    fails(("cannot fetch '%s/loop': Maximum (5) redirects followed"):format(publisher.url), "limit", get "/loop")
    fails(("cannot fetch '%s/elsewhere': Protocol \"file\" not supported or disabled in libcurl"):format(publisher.url),
      "unsupported", get "/elsewhere")
    local nothing, message, code = http.request { url = publisher.tls_url .. "/redirect", anchors = file.read(root .. "/cert.pem") }
    fails(("cannot fetch '%s/redirect': Protocol \"http\" not supported or disabled in libcurl"):format(publisher.tls_url),
      "unsupported", nothing, message, code)
  end)

  it("speaks http and https only", function()
    for url, scheme in pairs { ["file:///etc/hostname"] = "file", ["ftp://127.0.0.1/"] = "ftp", ["ldap://127.0.0.1/x"] = "ldap" } do
      fails(("cannot fetch '%s': Protocol \"%s\" not supported or disabled in libcurl"):format(url, scheme), "unsupported",
        http.request { url = url })
    end
    fails("cannot fetch '?[31m': URL using bad/illegal format or missing URL", "usage", http.request { url = "\27[31m" })
  end)

  it("takes no more than the limit", function()
    publisher:put("large", ("x"):rep(100000))
    fails(("cannot fetch '%s/large': more than 99999 bytes"):format(publisher.url), "limit", get("/large", { limit = 99999 }))
    assert.equal(100000, #assert(get("/large", { limit = 100000 })).body)
    assert.is_nil(assert(get "/unknown_length").headers["content-length"])
    fails(("cannot fetch '%s/unknown_length': more than 99999 bytes"):format(publisher.url), "limit", get("/unknown_length", { limit = 99999 }))
    assert.equal(("x"):rep(100000), assert(get("/unknown_length", { limit = 100000 })).body)
  end)

  it("waits no longer than the time limit", function()
    publisher:put("slow", ("x"):rep(100))
    local from = host.clock()
    local nothing, message, code = get("/slow", { timeout = 1 })
    assert.is_true(host.clock() - from < 5)
    assert.same({ nil, "timeout" }, { nothing, code })
    assert.is_truthy(message:find "Operation timed out after %d+ milliseconds with %d+ .*bytes received$", message)
  end)

  it("says who does not answer", function()
    local port = lab:port()
    local nothing, message, code = http.request { url = ("http://127.0.0.1:%d/"):format(port) }
    assert.same({ nil, "refused" }, { nothing, code })
    assert.is_truthy(message:find "Couldn't connect to server$")
    nothing, message, code = http.request { url = "http://no-such-host.invalid/", timeout = 20 }
    assert.is_nil(nothing)
    if code ~= "timeout" then
      assert.same({ "cannot fetch 'http://no-such-host.invalid/': Could not resolve host: no-such-host.invalid", "missing" }, { message, code })
    end
  end)

  it("trusts the system's anchors, or those it is given", function()
    local url = publisher.tls_url .. "/hello"
    assert.equal("hello", assert(http.request { url = url, anchors = file.read(root .. "/cert.pem") }).body)
    fails(("cannot fetch '%s': SSL certificate problem: unable to get local issuer certificate"):format(url), "untrusted",
      http.request { url = url })
  end)

  it("uses the proxy that it is told, and none of the environment's", function()
    local program, port = file.link "/proc/self/exe", lab:port()
    local chunk = ("local a = assert(core.http.request { url = '%s/hello' }) print(a.body)"):format(publisher.url)
    local dead = "http://127.0.0.1:" .. port
    local result = process.run({ program, "-e", chunk }, { env = { http_proxy = dead, HTTPS_PROXY = dead, ALL_PROXY = dead } })
    assert.equal("hello\n", result.stdout)
    assert.equal("hello", assert(http.request { url = "http://no-such-host.invalid/hello", proxy = publisher.url }).body)
    assert.equal("hello", assert(get("/hello", { proxy = dead, no_proxy = "localhost,127.0.0.1" })).body)
    local nothing, _, code = get("/hello", { proxy = dead })
    assert.same({ nil, "refused" }, { nothing, code })
  end)

  it("refuses misuse", function()
    local function raises(message, options)
      local ok, said = pcall(http.request, options)
      assert.is_false(ok)
      assert.is_truthy(tostring(said):find(message, 1, true), said)
    end
    raises("(field 'url' is missing)", {})
    raises("unknown field 'uri'", { url = "http://a/", uri = "x" })
    raises("field 'url' holds a NUL", { url = "http://a\0b/" })
    raises("field 'timeout': a number from 1 to 3600 expected", { url = "http://a/", timeout = 0 })
    raises("field 'headers': a line break in a header", { url = "http://a/", headers = { A = "b\r\nC: d" } })
    raises("field 'headers': names and values must be strings", { url = "http://a/", headers = { A = true } })
    raises("field 'body': string expected, got table", { url = "http://a/", body = {} })
  end)
end)
