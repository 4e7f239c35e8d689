-- The corpus (tests/corpus/make.lua): whatever strangers send, each reader ends
-- in a value or in nil, message, code, soon, and in little memory.

local process = require "core.process"
local file = require "core.file"

local program = file.link "/proc/self/exe"
local here = debug.getinfo(1, "S").source:match "^@(.*)corpus_spec%.lua$"
local SECONDS, KIBIBYTES = 5, 256 * 1024

-- AddressSanitizer reserves more than any limit: there it is the judge.
local sanitized = io.open("/proc/self/maps"):read("a"):find("libasan", 1, true) ~= nil

local function tool(argv, options)
  local result = assert(process.run(argv, options))
  assert(result.status == 0, result.stdout .. result.stderr)
  return result.stdout
end

describe("the corpus", function()
  local folder

  setup(function()
    folder = tool({ "mktemp", "-d" }):match "%S+"
    tool { program, here .. "corpus/make.lua", folder .. "/corpus" }
  end)

  teardown(function() tool { "rm", "-rf", "--", folder } end)

  it("is the same every time it is made", function()
    tool { program, here .. "corpus/make.lua", folder .. "/again" }
    assert.equal("", tool { "diff", "-rq", folder .. "/corpus", folder .. "/again" })
    local _, count = tool({ "find", folder .. "/corpus", "-type", "f" }):gsub("\n", "")
    assert.is_true(count > 300, "files: " .. count)
  end)

  -- What came of each file, once the promises of all were kept.
  local function read(reader)
    local argv = { program, here .. "corpus/read.lua", reader, folder .. "/corpus" }
    if not sanitized then
      table.move({ "sh", "-c", ('ulimit -v %d; exec "$0" "$@"'):format(KIBIBYTES), table.unpack(argv) }, 1, #argv + 3,
        1, argv)
    end
    local result, message = process.run(argv, { timeout = 240, limit = 16 * 1024 * 1024 })
    assert(result, message)
    assert.equal("", result.stderr)
    assert.equal(0, result.status, result.stdout:match "[^\n]*$")
    local by_file, wrong = {}, {}
    for name, outcome, seconds in result.stdout:gmatch "([^\t\n]+)\t([^\t]+)\t([%d.]+)\n" do
      by_file[name] = outcome
      if outcome:find "^raised" or tonumber(seconds) > SECONDS then
        wrong[#wrong + 1] = ("%s: %s after %s s"):format(name, outcome, seconds)
      end
    end
    assert.same({}, wrong)
    return by_file
  end

  -- Asserts what came of files, by kind and pattern.
  local function came(by_file, expected, pattern)
    local found = 0
    for name, outcome in pairs(by_file) do
      if name:find(pattern) then
        found = found + 1
        assert.equal(expected, outcome, name)
      end
    end
    assert.is_true(found > 0, "no file " .. pattern)
  end

  it("is read by cert.parse, or refused, within 5 s and 256 MiB", function()
    local by_file = read "certificate"
    for _, name in ipairs { "whole%.%l+", "crlf%.pem", "mark%.pem", "limit%.pem", "name%-bidi%.der", "name%-nul%.der",
                            "extension%-many%.der", "extension%-thousands_of_names%.der",
                            "public%-rsa_both_giant%.der" } do
      came(by_file, "read", "^certificate/" .. name .. "$")
    end
    came(by_file, "parse", "^certificate/name%-bad_utf8%.der$")
    came(by_file, "read", "^pile/certificates%-100%.pem$")
    came(by_file, "limit", "^pile/certificates%-101%.pem$")
    came(by_file, "limit", "/limit%-and%-one%.")
    came(by_file, "parse", "^certificate/cut%-%d%.der$")
    came(by_file, "parse", "^certificate/length%-1%-[^l]")
  end)

  it("is read by request.parse, or refused, within 5 s and 256 MiB", function()
    local by_file = read "request"
    came(by_file, "read", "^request/whole%.%l+$")
    came(by_file, "read", "^request/extension%-thousands_of_names%.der$")
    came(by_file, "limit", "/limit%-and%-one%.")
    came(by_file, "parse", "^request/cut%-%d%.der$")
    came(by_file, "parse", "^certificate/whole")
  end)

  it("is read by key.load, or refused, within 5 s and 256 MiB", function()
    local by_file = read "key"
    came(by_file, "read", "^key/whole%.%l+$")
    came(by_file, "limit", "/limit%-and%-one%.")
    came(by_file, "limit", "^key/rsa_16392")
    came(by_file, "denied", "^key/encrypted_pbkdf2%.%l+$")
    came(by_file, "limit", "^key/absurd_pbkdf2%.der$")
    came(by_file, "parse", "^key/cut%-%d%.der$")
  end)

  it("is read by key.load with a password, or refused, within 5 s and 256 MiB", function()
    local by_file = read "sealed_key"
    came(by_file, "read", "^key/whole%.%l+$")
    came(by_file, "denied", "^key/encrypted_pbkdf2%.%l+$")
    came(by_file, "parse", "^key/encrypted_unknown%.%l+$")
  end)

  it("is read by core.revocation, or refused, within 5 s and 256 MiB", function()
    local by_file = read "revocation"
    came(by_file, "untrusted", "^list/whole%.%l+$")
    came(by_file, "untrusted", "^response/whole%.der$")
    came(by_file, "refused", "^response/status%-[1-6]%.der$")
    came(by_file, "limit", "^response/limit%-and%-one%.der$")
    came(by_file, "parse", "^list/cut%-%d%.der$")
    came(by_file, "parse", "^response/cut%-%d%.der$")
    came(by_file, "parse", "^certificate/whole")
  end)

  it("is read by core.zip, or refused, within 5 s and 256 MiB", function()
    local by_file = read "zip"
    for _, name in ipairs { "whole", "deflated", "several", "empty", "hundred", "comment", "nested", "name_%l+", "same",
                            "record_alone" } do
      came(by_file, "read", "^zip/" .. name .. "%.zip$")
    end
    came(by_file, "limit", "^zip/too_many%.zip$")
    came(by_file, "limit", "^zip/count_most%.zip$")
    came(by_file, "unsupported", "^zip/method%.zip$")
    for _, name in ipairs { "count_more", "start_far", "offset_%l+", "packed_%l+", "size_less", "size_more",
                            "stored_less", "noise", "cut%-%d" } do
      came(by_file, "parse", "^zip/" .. name .. "%.zip$")
    end
    came(by_file, "parse", "^certificate/whole")
  end)

  it("is read by bundle.pkcs7, or refused, within 5 s and 256 MiB", function()
    local by_file = read "pkcs7"
    for _, name in ipairs { "whole%.%l+", "crlf%.pem", "mark%.pem", "utf%-16le%.pem", "endless%.der", "many%.der" } do
      came(by_file, "read", "^pkcs7/" .. name .. "$")
    end
    came(by_file, "limit", "^pkcs7/too_many%.der$")
    came(by_file, "limit", "^pkcs7/thousands%.der$")
    came(by_file, "parse", "^pkcs7/cut%-%d%.der$")
    came(by_file, "parse", "^pkcs12/")
  end)

  it("is read by bundle.pkcs12, or refused, within 5 s and 256 MiB", function()
    local by_file = read "pkcs12"
    for _, name in ipairs { "no_mac", "plain_key", "nested" } do came(by_file, "read", "^pkcs12/" .. name .. "%.der$") end
    for _, name in ipairs { "absurd_%w+", "absurd_mac_giant", "count_negative", "too_many", "thousands" } do
      came(by_file, "limit", "^pkcs12/" .. name .. "%.der$")
    end
    came(by_file, "denied", "^pkcs12/encrypted%.der$")
    came(by_file, "parse", "^pkcs7/")
  end)

  it("is looked through by bundle.parts within 5 s and 256 MiB", function()
    local by_file = read "parts"
    for _, name in ipairs { "whole", "quoted", "twice", "a_pem_within" } do
      came(by_file, "read", "^mail/" .. name .. "$")
    end
    came(by_file, "limit", "^mail/many$")
    for _, name in ipairs { "cut", "lines", "endings", "marks", "signs", "giant%-line" } do
      came(by_file, "parse", "^mail/" .. name .. "$")
    end
  end)

  it("refuses absurd iteration counts with the code limit, whether or not there is a password", function()
    for _, reader in ipairs { "key", "sealed_key" } do came(read(reader), "limit", "^key/absurd_pbkdf2") end
  end)
end)
