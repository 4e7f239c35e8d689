-- The REPL, on a real terminal.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/" or ""
local Terminal = dofile(here .. "tests/support/terminal.lua")
local lfs = require "lfs"
local program = assert(lfs.symlinkattributes("/proc/self/exe", "target"))

describe("the REPL", function()
  local terminal

  before_each(function()
    terminal = Terminal.new({ program, "--state", "/tmp/cw-no-such-state", "--site", "/tmp/cw-no-such-site" },
      { columns = 80, rows = 50 })
    terminal:expect "help%(%) says what there is"
  end)

  after_each(function() terminal:close() end)

  it("shows values as a person reads them", function()
    terminal:type "1 + 1\n"
    terminal:expect "\n2\n"
    terminal:type '{ 1, "two", three = { 4 } }\n'
    terminal:expect '\n{ 1, "two", three = { 4 } }\n'
    terminal:type 'core.key.generate "ec:P-256"\n'
    terminal:expect '\nkey "ec:P%-256" %x+\n'
  end)

  it("shows nil, message, code as the refusal that it is", function()
    terminal:type 'core.key.open "/no/such/file"\n'
    terminal:expect "\nrefused %(missing%): cannot read '/no/such/file': No such file or directory\n"
  end)

  it("takes a statement of several lines", function()
    terminal:type "for i = 1, 2 do\n"
    terminal:expect "\n>> "
    terminal:type "print(i * 10)\nend\n"
    terminal:expect "\n10\n20\n"
  end)

  it("says what is wrong, with a short traceback", function()
    terminal:type "local function f() error 'broken' end f()\n"
    local screen = terminal:expect "input:1: broken\nstack traceback:\n"
    assert.is_nil(screen:find("repl.lua", 1, true))
    terminal:type "x y\n"
    terminal:expect "syntax error near 'y'"
  end)

  it("completes globals, fields and methods", function()
    terminal:type "core.cert.pa"
    terminal:key "Tab"
    terminal:expect "core%.cert%.parse"
    terminal:key "C-c"
    terminal:expect "core%.cert%.parse *%^?C?\n\n?> "
    terminal:type 'k = core.key.generate "ed25519"\nk:finger'
    terminal:key "Tab"
    terminal:expect "k:fingerprint"
  end)

  it("tells what is written above a definition", function()
    terminal:type "help(core.cert.parse)\n"
    terminal:expect "cert%.parse%(bytes%) %-> array of cert | nil, message"
    terminal:type 'help "cert:covers"\n'
    terminal:expect "cert:covers%(name%) %-> boolean"
    terminal:type "help(require 'names'.check)\n"
    terminal:expect "RFC\n?%s*9525"
  end)

  it("has certificates, services and probe ready", function()
    terminal:type "certificates\nservices\n"
    terminal:expect "there are no certificates yet"
    terminal:expect "the site names no services"
    terminal:type "probe 'https://127.0.0.1:1'\n"
    terminal:expect 'step = "connect"'
  end)

  it("leaves the line, and what runs, at Ctrl-C, and ends at Ctrl-D", function()
    terminal:type "abandoned"
    terminal:expect "> abandoned"
    terminal:key "C-c"
    terminal:type "2 + 3\n"
    terminal:expect "\n5\n"
    terminal:type "while true do end\n"
    terminal:expect "while true do end"
    terminal:key "C-c"
    terminal:expect "\n%^?C?interrupted"
    terminal:type "for i = 1, 3 do\n"
    terminal:key "C-c"
    terminal:type "6 * 7\n"
    terminal:expect "\n42\n"
    terminal:key "C-d"
    assert.equal(0, terminal:ended())
  end)

  it("keeps its history for its owner alone", function()
    terminal:type "'kept for later'\n"
    terminal:expect '\n"kept for later"\n'
    terminal:key "C-d"
    assert.equal(0, terminal:ended())
    local path = terminal.path .. "/.local/state/certwright/history"
    assert.equal("rw-------", lfs.attributes(path, "permissions"))
    local file = assert(io.open(path))
    assert.equal("'kept for later'\n", file:read "a")
    file:close()
  end)
end)
