-- What is left of a key in the memory of the program when it has closed it:
-- nothing, in no form, but for what the dynamic linker saves of registers on the
-- stack.

local here = debug.getinfo(1, "S").source:match "^@(.-)core/[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local process = require "core.process"

local LARGEST = 64 * 1024 * 1024 -- bytes of a mapping; the sanitizers' own are larger

describe("memory", function()
  local desk

  setup(function() desk = Desk.new "memory" end)
  teardown(function() desk:close() end)

  -- How often each of some texts is in the memory of a process.
  local function count(pid, needles)
    local counts = {}
    for name in pairs(needles) do counts[name] = 0 end
    local memory <close> = assert(io.open(("/proc/%d/mem"):format(pid), "rb"))
    for line in io.lines(("/proc/%d/maps"):format(pid)) do
      local from, to, rights = line:match "^(%x+)-(%x+) (%S+)"
      from, to = tonumber(from, 16), tonumber(to, 16)
      local is_wanted = rights:find "^rw" and to - from <= LARGEST and not line:find("[stack]", 1, true)
      local bytes = is_wanted and memory:seek("set", from) and memory:read(to - from)
      for name, needle in pairs(bytes and needles or {}) do
        local at = bytes:find(needle, 1, true)
        while at do
          counts[name] = counts[name] + 1
          at = bytes:find(needle, at + 1, true)
        end
      end
    end
    return counts
  end

  -- Runs a chunk in a program of its own, then looks into that.
  local function left(code, needles)
    local output = desk.path .. "/ready"
    os.remove(output)
    local child <close> = assert(process.start({ Desk.program, "-e", ([[
      local work = function(...) %s end
      work(table.unpack(arg))
      collectgarbage()
      collectgarbage()
      print "ready"
      io.stdout:flush()
      core.host.sleep(60)]]):format(code), desk.path }, { output = output }))
    local counts
    for _ = 1, 1000 do
      local stream = io.open(output)
      local text = stream and stream:read "a" or ""
      if stream then stream:close() end
      if text:find "ready" then
        counts = count(child:pid(), needles)
        break
      end
      assert(text == "", text)
      process.run { "sleep", "0.01" }
    end
    return assert(counts, "it did not say that it is ready")
  end

  -- A key in PEM and what it looks like in memory: its text, its DER, its number as
  -- OpenSSL computes with it.
  local function make(name, ...)
    desk:openssl("genpkey", "-out", desk.path .. "/" .. name, ...)
    local body = desk:read(desk.path .. "/" .. name):match "%-\n(.-)\n%-"
    local der = desk:openssl("base64", "-d", { stdin = body .. "\n" })
    local secret = #der < 200 and der:match "\4\32(................................)" or der:sub(401, 432)
    return { text = body:sub(70, 110), secret = secret, number = secret:reverse() }
  end

  it("has the number of a key that is held, or the test could not see it", function()
    local needles = make("key.pem", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    assert.equal(1, left("KEY = core.key.open(... .. '/key.pem')", needles).number)
  end)

  local chunks = {
    ["read from a file"] = "core.key.open(... .. '/key.pem'):close()",
    ["used"] = [[local key = core.key.open(... .. '/key.pem')
      key:sign "data"
      core.request.create { key = key, subject = { CN = "a.test" } }:close()
      key:close()]],
    ["read from a secret, also as UTF-16"] = [[for _, name in ipairs { "key.pem", "wide.pem" } do
        local bytes <close> = core.file.secret(arg[1] .. "/" .. name)
        core.key.load(bytes):close()
        core.bundle.kinds(bytes)
        core.bundle.parts(bytes)
        core.cert.parse(bytes)
        core.bundle.pkcs7(bytes)
      end]],
    ["decrypted from a PKCS #12 and from PKCS #8"] = [[
      local password <close> = core.file.password(... .. "/password")
      local bytes <close> = core.file.secret(... .. "/key.p12")
      assert(core.bundle.pkcs12(bytes, password)).key:close()
      assert(core.key.open(... .. "/sealed.pem", password)):close()]],
    ["decrypted from a PKCS #12 and forgotten"] = [[
      assert(core.bundle.pkcs12(core.file.secret(... .. "/key.p12"), core.file.password(... .. "/password")))]],
    ["saved"] = [[local key = core.key.open(... .. '/key.pem')
      os.remove(... .. "/saved.pem")
      assert(key:save(... .. "/saved.pem"))
      key:close()]],
  }
  for kind, options in pairs { ["P-256"] = { "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256" },
                               RSA = { "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048" } } do
    for name, chunk in pairs(chunks) do
      it(("has nothing of a key of kind %s that was %s"):format(kind, name), function()
        local needles = make("key.pem", table.unpack(options))
        needles.password = "Top secret password"
        desk:write("password", needles.password .. "\n")
        desk:write("wide.pem", (desk:read(desk.path .. "/key.pem"):gsub("[%s%S]", "%0\0")))
        desk:openssl("req", "-x509", "-key", desk.path .. "/key.pem", "-subj", "/CN=a.test", "-out", desk.path .. "/cert.pem")
        desk:openssl("pkcs12", "-export", "-inkey", desk.path .. "/key.pem", "-in", desk.path .. "/cert.pem", "-passout",
          "file:" .. desk.path .. "/password", "-out", desk.path .. "/key.p12")
        desk:openssl("pkcs8", "-topk8", "-in", desk.path .. "/key.pem", "-passout", "file:" .. desk.path .. "/password",
          "-out", desk.path .. "/sealed.pem")
        assert.same({ text = 0, secret = 0, number = 0, password = 0 }, left(chunk, needles))
      end)
    end
  end
end)
