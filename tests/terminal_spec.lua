-- What a person sees on a terminal of 80 columns: nothing is wider, no fingerprint
-- is broken; what goes into a pipe is whole. util-linux's script makes the terminal.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local process = require "core.process"

local NAMES = { "mail.contoso.com", "www.contoso.com", "autodiscover.contoso.com" }

describe("on a terminal of 80 columns", function()
  local desk, fingerprint

  -- What the program shows there, and its exit status; input is typed.
  local function shown(arguments, input)
    local words = { Desk.program, "--site", desk.site, "--state", desk.state, table.unpack(arguments) }
    for i, word in ipairs(words) do
      words[i] = "'" .. word .. "'"
    end
    local result = assert(process.run({ "script", "-qec", "stty cols 80 rows 24; exec " .. table.concat(words, " "),
      "/dev/null" }, { timeout = 30, stdin = input }))
    return (result.stdout:gsub("\r", "")), result.status
  end

  local function fits(text)
    for line in text:gmatch "[^\n]+" do
      assert.is_true(utf8.len(line) <= 80, "wider than 80 columns: " .. line)
    end
    return text
  end

  setup(function()
    desk = Desk.new "terminal"
    local web = desk.lab:nginx { names = NAMES }
    desk.lab:site { services = { web = web.service } }
    desk:done("ca", "init")
    fingerprint = desk:done("enroll", "--services", "web", "--ca", "local").fingerprint
    desk:done("new-request", "--domain", "a.test", "--domain", "b.test", "--domain", "long.test")
  end)
  teardown(function() desk:close() end)

  it("list leaves out what is least missed, breaks no fingerprint, and loses no name", function()
    local text = fits(shown { "list" })
    assert.is_truthy(text:find "^ID  NAME +STATUS +UNTIL +SERVICES +SHA%-256\n")
    assert.is_truthy(text:find("web +" .. fingerprint:sub(1, 16) .. "\n"))
    assert.is_truthy(text:find "\n    mail%.contoso%.com, www%.contoso%.com, autodiscover%.contoso%.com\n2 +a%.test +PendingRequest +%- +%- +%-\n")
    assert.is_truthy(text:find "\n    a%.test, b%.test, long%.test\n")
  end)

  it("list in a pipe is whole", function()
    local text = desk:run("list").stdout
    assert.is_truthy(text:find "^ID +NAME +STATE +STATUS +UNTIL +SERVICES +SHA%-256 +DOMAINS\n")
    for _, name in ipairs(NAMES) do
      assert.is_truthy(text:find(name, 1, true))
    end
  end)

  it("list shortens the domains when that is enough", function()
    local text = fits(shown { "list", "--status", "PendingRequest" })
    assert.is_truthy(text:find "\n2 +a%.test +created +PendingRequest +%- +%- +%- +a%.test %+2 more\n")
  end)

  it("show has the assignments as a table, and the history unbroken", function()
    local text = fits(shown { "show", "1" })
    assert.is_truthy(text:find "\nAssignments\n  SERVICE +ENDPOINT +NAME +STATE +OBSERVED\n  web +https://127.0.0.1:")
    assert.is_truthy(text:find("observed  " .. fingerprint:sub(1, 16) .. "\n", 1, true))
    assert.is_truthy(text:find "\n  last observed %d+%-%d+%-%d+T%d+:%d+:%d+Z\n\nChain\n")
    assert.is_truthy(text:find("completed: fingerprint\n    " .. fingerprint .. "\n", 1, true))
    local whole = desk:run("show", "1").stdout
    assert.is_truthy(whole:find("completed: fingerprint " .. fingerprint .. "\n", 1, true))
  end)

  it("check fits", function()
    local text, status = shown { "check" }
    assert.equal(0, status)
    assert.is_truthy(fits(text):find("observed  " .. fingerprint:sub(1, 16) .. "\n", 1, true))
  end)

  it("a message is broken between words, and a command to copy not at all", function()
    local text, status = shown { "submit-request", "2", "--ca", "manual" }
    assert.equal(3, status)
    fits(text)
    local joined = desk.lab:plain((text:gsub(" \\\n +", " ")))
    assert.is_truthy(joined:find("has come:\n  certwright complete-request 2 --file FILE\n", 1, true), text)
    fits(shown { "show", "nonesuch" })
    fits(shown { "list", "--status", "nonesuch" })
    assert.is_truthy(desk:run("list", "--status", "nonesuch").stderr:find "^[^\n]+\n$")
  end)

  it("every help fits", function()
    fits(shown { "help" })
    for _, entry in ipairs(desk:done "help") do
      local text = shown { "help", entry.name }
      fits((text:gsub("This is [^\n]*", "")))
    end
  end)

  it("a request in DER is refused", function()
    local text, status = shown { "new-request", "--domain", "c.test", "--form", "der" }
    assert.equal(2, status)
    assert.is_truthy(text:find("--form der writes bytes that are nothing for a terminal", 1, true))
  end)

  it("the REPL shows tables as lines", function()
    local text = shown({}, "certificates\nservices\n\4")
    assert.is_truthy(text:find "\nID  NAME +STATE +STATUS +UNTIL +DOMAINS\n1 ")
    assert.is_truthy(text:find "\nSERVICE  DRIVER  FOLDER +NAMES\nweb +nginx ")
  end)
end)
