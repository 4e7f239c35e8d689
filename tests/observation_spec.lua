-- observation.lua on a real nginx: what is looked at, how it is compared, and how
-- long it is waited for.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local deploy = require "deploy"
local file = require "core.file"
local host = require "core.host"
local observation = require "observation"
local process = require "core.process"
local Lab = require "lab"

local NAME, OTHER = deploy.name, "other.lab.test"

describe("observation", function()
  local lab, server, port, first, second

  setup(function()
    lab = Lab.new { name = "observe" }
    local root = lab:authority {}
    local issuer = lab:authority { name = "Lab issuer", ca = root }
    first = lab:certificate { names = { NAME }, ca = issuer }
    second = lab:certificate { names = { NAME, OTHER }, ca = issuer }
    server = lab:nginx { names = { NAME }, pair = first, ipv6 = true }
    port = server.endpoints[1]:match "%d+$"
  end)
  teardown(function() lab:close() end)

  local function reload()
    deploy.tool { "nginx", "-p", server.folder, "-c", server.folder .. "/nginx.conf", "-s", "reload" }
  end

  local count = 0

  -- nginx has this pair from its next reload on.
  local function put(pair)
    count = count + 1
    lab:generation(server.service.dir, "g" .. count, pair)
  end

  -- Makes nginx present this pair, and waits until it does.
  local function present(pair)
    put(pair)
    reload()
    local wanted = { fingerprint = lab:fingerprint(pair) }
    local _, good = observation.wait({ { service = "web", endpoint = server.endpoints[1] } },
      function() return wanted end, function() return true end, { web = 10 })
    assert(good)
  end

  local function key(result) return observation.key(result) end

  describe("look", function()
    it("gives every target its results, one for each address and service", function()
      present(first)
      local results = observation.look {
        { service = "web", endpoint = server.endpoints[1], name = NAME },
        { service = "mail", endpoint = server.endpoints[1], name = NAME },
        { service = "web", endpoint = server.endpoints[1], name = OTHER },
        { service = "web", endpoint = server.endpoints[2], name = NAME },
        { service = "web", endpoint = server.endpoints[1], name = NAME },
      }
      local seen = {}
      for i, result in ipairs(results) do
        seen[i] = key(result)
        assert.equal(lab:fingerprint(first), result.fingerprint)
        assert.equal(2, #result.chain)
        assert.is_true(math.abs(os.time() - result.at) < 30)
      end
      assert.same({ "web " .. server.endpoints[1] .. " 127.0.0.1 " .. NAME, "mail " .. server.endpoints[1] .. " 127.0.0.1 "
        .. NAME, "web " .. server.endpoints[1] .. " 127.0.0.1 " .. OTHER, "web " .. server.endpoints[2] .. " ::1 "
        .. NAME }, seen)
    end)

    it("asks for no address, and for the endpoint's host where there is no name", function()
      local results = observation.look {
        { service = "a", endpoint = server.endpoints[1], name = "192.0.2.7" },
        { service = "b", endpoint = server.endpoints[2] },
        { service = "c", endpoint = "https://localhost:" .. port, address = "127.0.0.1" },
        { service = "d", endpoint = "https://nowhere.invalid:" .. port, name = NAME, address = "::1" },
      }
      local seen = {}
      for i, result in ipairs(results) do
        seen[i] = key(result)
        assert.is_truthy(result.fingerprint, result.error)
      end
      assert.same({ "a " .. server.endpoints[1] .. " 127.0.0.1 ", "b " .. server.endpoints[2] .. " ::1 ",
        "c https://localhost:" .. port .. " 127.0.0.1 localhost", "d https://nowhere.invalid:" .. port .. " ::1 " .. NAME },
        seen)
    end)

    it("says why a place shows nothing", function()
      local silent = "https://127.0.0.1:" .. lab:port()
      local results = observation.look { { service = "web", endpoint = silent, name = NAME },
        { service = "web", endpoint = "https://nowhere.invalid:443", name = NAME },
        { service = "web", endpoint = "gopher://127.0.0.1:70", name = NAME } }
      assert.same({ "connect", "refused", nil }, { results[1].step, results[1].code, results[1].fingerprint })
      assert.matches("Connection refused$", results[1].error)
      assert.equal("resolve", results[2].step)
      assert.is_nil(results[2].address)
      assert.same({ "url", "unsupported" }, { results[3].step, results[3].code })
    end)
  end)

  describe("difference", function()
    local function seen() return observation.look({ { service = "web", endpoint = server.endpoints[1] } })[1] end

    it("compares the fingerprint, and the chain as it is sent", function()
      present(first)
      local result = seen()
      local leaf, issuer = table.unpack(result.chain)
      assert.is_nil(observation.difference(result, { fingerprint = leaf }))
      assert.is_nil(observation.difference(result, { fingerprint = leaf, chain = { leaf, issuer } }))
      local other = lab:fingerprint(second)
      assert.equal(("presents %s, not %s"):format(leaf:sub(1, 16), other:sub(1, 16)),
        observation.difference(result, { fingerprint = other, chain = { other, issuer } }))
      assert.equal(("presents %s with a chain of 2 certificates that is not the one written (1)"):format(leaf:sub(1, 16)),
        observation.difference(result, { fingerprint = leaf, chain = { leaf } }))
      assert.equal(("presents %s with a chain of 2 certificates that is not the one written (2)"):format(leaf:sub(1, 16)),
        observation.difference(result, { fingerprint = leaf, chain = { leaf, other } }))
      assert.equal("no way", observation.difference({ error = "no way" }, { fingerprint = leaf }))
      assert.same({ "observed", "differs", "unreachable" }, { observation.state(result, { fingerprint = leaf }),
        observation.state(result, { fingerprint = other }), observation.state({ error = "x" }, { fingerprint = leaf }) })
    end)

    it("sees what is expired, self-signed and weak", function()
      local old = lab:certificate { names = { NAME }, days = -3, key = "rsa:2048" }
      present(old)
      assert.is_nil(observation.difference(seen(), { fingerprint = lab:fingerprint(old) }))
      present(first)
    end)
  end)

  it("describes a place by its endpoint, address and name", function()
    assert.equal("https://127.0.0.1:443", observation.describe { endpoint = "https://127.0.0.1:443",
      address = "127.0.0.1" })
    assert.equal("https://h.test:443 [192.0.2.7] for a.test", observation.describe { endpoint = "https://h.test:443",
      address = "192.0.2.7", name = "a.test" })
  end)

  describe("wait", function()
    local function targets() return { { service = "web", endpoint = server.endpoints[1], name = NAME } } end
    local function always() return true end
    local function never() return false end

    -- Runs wait; its results, whether it was good, and the seconds that it took.
    local function wait(list, pair, required, seconds)
      local wanted, started = { fingerprint = lab:fingerprint(pair) }, host.clock()
      local results, good = observation.wait(list, function() return wanted end, required, { web = seconds })
      return results, good, host.clock() - started
    end

    it("goes on for at least 150 ms past the last old one", function()
      present(first)
      put(second)
      -- a client of its own writes down when it saw which one
      local log = lab.path .. "/seen"
      local client = assert(process.start({ assert(file.link "/proc/self/exe"), "-e", [[
        local endpoint, name = ...
        while true do
          local result = core.probe.run({ endpoint }, { name = name })[1]
          print(core.host.clock(), result.fingerprint or result.error)
          io.stdout:flush()
        end]], server.endpoints[1], NAME }, { output = log }))
      assert(lab:eventually(function() return file.read(log):find "\n" end))
      reload()
      local results, good = wait(targets(), second, always, 10)
      local ended = host.clock()
      client:stop("KILL")
      assert.is_true(good)
      assert.equal(lab:fingerprint(second), results[1].fingerprint)
      local last = 0
      for clock, fingerprint in file.read(log):gmatch "(%S+)%s(%x+)\n" do
        if fingerprint == lab:fingerprint(first) then last = math.max(last, tonumber(clock)) end
      end
      assert.is_true(last > 0)
      assert.is_true(ended - last >= 0.15, ("it ended %.3f s after the last old one"):format(ended - last))
      present(first)
    end)

    it("looks several times although the first look is good", function()
      local _, good, seconds = wait(targets(), first, always, 10)
      assert.is_true(good)
      assert.is_true(seconds >= 0.3, seconds)
    end)

    it("gives up what must be shown when its service's time is over", function()
      local results, good, seconds = wait(targets(), second, always, 1)
      assert.is_false(good)
      assert.equal(lab:fingerprint(first), results[1].fingerprint)
      assert.is_true(seconds >= 1 and seconds < 10, seconds)
    end)

    it("gives each service its own time", function()
      local wanted, started = { fingerprint = lab:fingerprint(second) }, host.clock()
      local list = targets()
      list[2] = { service = "mail", endpoint = server.endpoints[2], name = NAME }
      local _, good = observation.wait(list, function() return wanted end, always, { web = 30, mail = 1 })
      assert.is_false(good)
      assert.is_true(host.clock() - started < 15)
      assert.same({ web = 30, mail = 1 }, observation.timeouts { { name = "web", observe_timeout = 30 },
        { name = "mail", observe_timeout = 1 } })
    end)

    it("waits for what need not be shown while it answers, and takes what it is", function()
      local results, good, seconds = wait(targets(), second, never, 1)
      assert.is_true(good)
      assert.equal(lab:fingerprint(first), results[1].fingerprint)
      assert.is_true(seconds >= 1 and seconds < 10, seconds)
    end)

    it("waits a little for what was silent", function()
      local silent = { { service = "web", endpoint = "https://127.0.0.1:" .. lab:port(), name = NAME } }
      local results, good, seconds = wait(silent, second, never, 30)
      assert.is_true(good)
      assert.is_truthy(results[1].error)
      assert.is_true(seconds >= 2 and seconds < 15, seconds)
    end)

    it("does not judge places of which nothing is wanted", function()
      local results, good = observation.wait(targets(), function() end, always, { web = 5 })
      assert.is_true(good)
      assert.equal(lab:fingerprint(first), results[1].fingerprint)
    end)
  end)
end)
