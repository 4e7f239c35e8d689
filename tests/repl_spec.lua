-- The REPL, on a real terminal.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/" or ""
local Terminal = dofile(here .. "tests/support/terminal.lua")
local file, host, process = require "core.file", require "core.host", require "core.process"
local Lab = dofile(here .. "tests/support/lab.lua")
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
    terminal:type "print(60 + 1) while true do end\n"
    terminal:expect "\n61\n" -- it runs; what is typed before that would be lost with the line
    terminal:key "C-c"
    terminal:expect "\n%^?C?interrupted"
    terminal:type "for i = 1, 3 do\n"
    terminal:key "C-c"
    terminal:type "6 * 7\n"
    terminal:expect "\n42\n"
    terminal:key "C-d"
    assert.equal(0, terminal:ended())
  end)

  it("shows no error's text raw, and outlives what raises while it is shown", function()
    terminal:type "error '\\27[31mred'\n"
    terminal:expect "\ninput:1: \\u{001B}%[31mred\n"
    terminal:type "setmetatable({}, { __tostring = function() error 'boo' end })\n"
    terminal:expect "\ntable that cannot be shown: input:1: boo\n"
    terminal:type "error { why = 1 }\n"
    terminal:expect "\n{ why = 1 }\nstack traceback:"
  end)

  it("completes after operators and indices, not within strings, and runs nothing for it", function()
    terminal:type("t = setmetatable({ b = { { deep = 1 } } }, { __index = function() error 'x' end, "
      .. "__eq = function() error 'x' end })\n")
    for _, case in ipairs {
      { "f(1,core.cert.pa", "f%(1,core%.cert%.parse" }, { "1+t.b[1].de", "1%+t%.b%[1%]%.deep" },
      { "help 'cert:cov", "help 'cert:covers'" }, { "x = 'core.cert.pa", "x = 'core%.cert%.pa" },
      { "t.none.a", "t%.none%.a" }, { "fun", "function" },
    } do
      terminal:type(case[1])
      terminal:key "Tab"
      terminal:type "!"
      terminal:expect("> " .. case[2] .. "!\n")
      terminal:key "C-c"
      terminal:expect("> " .. case[2] .. "!\n+> ")
    end
  end)

  it("tells of modules, objects, methods, commands and Lua's own", function()
    for _, case in ipairs {
      { "help(core.cert.verify)", "cert%.verify{ chain=" }, { "help(core.key)", "key%.generate%(kind%)" },
      { "help(core.key.generate 'ed25519')", "key:bits%(%)" },
      { "help(core.key.generate 'ed25519'.close)", "key:close%(%)" }, { "help 'poll'", "Usage: certwright poll" },
      { "help(string.format)", "is Lua's own: https://" }, { "help(nil)", "that is nil" },
      { "help(require 'names')", "names%.lua: what a domain name" }, { "help(core)", "core has: bundle, " },
      { "help(3)", "\nthere is nothing written about that" }, { "help", "\ncore +the primitives: " },
      { "quit", "\nCtrl%-D ends\n" }, { "probe", "\nprobe%(URL, NAME%) is a handshake: " },
    } do
      terminal:type(case[1] .. "\n")
      terminal:expect(case[2])
    end
  end)

  -- Presses Ctrl-C until what runs has ended: presses that come at once are one signal.
  local function insist(printed)
    local began, ended = host.clock(), ("\n%d\n.*interrupted\n"):format(printed)
    repeat terminal:key "C-c"
    until pcall(terminal.expect, terminal, ended, 1) or host.clock() - began > 20
    terminal:expect(ended)
  end

  it("ends at once what waits or catches errors, at Ctrl-C", function()
    terminal:type "print(60 + 2) core.host.sleep(1000)\n"
    terminal:expect "\n62\n"
    insist(62)
    terminal:type "print(60 + 3) core.process.run { 'sleep', '1000' }\n"
    terminal:expect "\n63\n"
    insist(63)
    terminal:type "print(60 + 4) while true do pcall(function() while true do end end) end\n"
    terminal:expect "\n64\n"
    insist(64)
    terminal:type "'still ' .. 'there'\n"
    terminal:expect '\n"still there"\n'
    terminal:type "print(60 + 5) coroutine.wrap(function() while true do end end)()\n"
    terminal:expect "\n65\n"
    insist(65)
    terminal:type "'and ' .. 'here'\n"
    terminal:expect '\n"and here"\n'
    terminal:type "print(60 + 6) coroutine.wrap(function() while true do pcall(function() while true do end end) end end)()\n"
    terminal:expect "\n66\n"
    insist(66)
    terminal:type "'once ' .. 'more'\n"
    terminal:expect '\n"once more"\n'
  end)

  it("gives a server up that never answers, at Ctrl-C", function()
    local lab <close> = Lab.new { name = "repl" }
    local port, probe = lab:port(), require "core.probe"
    local server <close> = assert(process.start { "socat", ("TCP-LISTEN:%d,bind=127.0.0.1,fork"):format(port),
      "SYSTEM:sleep 100" })
    local url = "https://127.0.0.1:" .. port
    assert(lab:eventually(function() return probe.run({ url }, { timeout = 0.3 })[1].step ~= "connect" end))
    assert.is_true(server:running())
    terminal:type "core.http ~= nil\n" -- loaded before it is used
    terminal:expect "\ntrue\n"
    for i, call in ipairs { "probe '%s'", "core.http.request { url = '%s' }" } do
      terminal:type(("print(70 + %d) %s\n"):format(i, call:format(url)))
      terminal:expect(("\n%d\n"):format(70 + i))
      insist(70 + i) -- once it waits; one that comes before is seen after the wait
    end
  end)

  it("undoes a transaction that Ctrl-C ends", function()
    terminal:type "db = core.store.open ':memory:' db:run 'CREATE TABLE t (a)'\n"
    terminal:type "db:transaction(function() db:run 'INSERT INTO t VALUES (1)' print(40 + 2) while true do end end)\n"
    terminal:expect "\n42\n"
    terminal:key "C-c"
    terminal:expect "interrupted"
    terminal:type "#db:rows 'SELECT * FROM t'\n"
    terminal:expect "\n0\n"
  end)

  it("leaves what is not finished at Ctrl-D, and a string that cannot be", function()
    terminal:type "for i = 1, 2 do\n"
    terminal:expect "\n>> "
    terminal:key "C-d"
    terminal:expect "'end' expected near <eof>"
    terminal:type "x = 'abc\n"
    terminal:expect "unfinished string near <eof>\n> "
    terminal:type "'a\\\nb'\n"
    terminal:expect "\na\nb\n"
  end)

  it("keeps its history for its owner alone", function()
    terminal:type "'kept for later'\n"
    terminal:expect '\n"kept for later"\n'
    local path = terminal.path .. "/.local/state/certwright/history"
    assert.equal("rw-------", lfs.attributes(path, "permissions"))
    assert.equal("'kept for later'\n", assert(file.read(path))) -- before its end: a terminal may be closed
    terminal:type " 'begins with a blank'\nkey = [[\n-----BEGIN PRIVATE KEY-----\n]]\n'last'\n"
    terminal:expect '\n"last"\n'
    terminal:key "C-d"
    assert.equal(0, terminal:ended())
    assert.equal("'kept for later'\n'last'\n", assert(file.read(path)))
  end)
end)

describe("the REPL's surroundings", function()
  it("says which library is missing", function()
    local folder = "/tmp/cw-no-readline-" .. tostring(host.pid())
    assert(file.mkdir(folder, 448))
    local terminal <close> = Terminal.new({ "unshare", "-m", "sh", "-c", 'mount --make-rprivate / && '
      .. 'cp -r /usr/share/lua/5.4/. "$1" && rm "$1/readline.lua" && mount --bind "$1" /usr/share/lua/5.4 && exec "$2"',
      "sh", folder, program })
    local ok, problem = pcall(function()
      terminal:expect "the prompt needs a library that edits lines: apt%-get install\n? *lua%-readline"
      assert.equal(1, terminal:ended())
    end)
    terminal:close()
    process.run { "rm", "-rf", "--", folder }
    assert(ok, problem)
  end)

  it("outlives a site that cannot be read", function()
    local folder = "/tmp/cw-bad-site-" .. tostring(host.pid())
    assert(file.mkdir(folder, 448))
    assert(file.write(folder .. "/config.lua", "return {"))
    local terminal <close> = Terminal.new { program, "--state", "/tmp/cw-no-such-state", "--site", folder }
    local ok, problem = pcall(function()
      terminal:type "services\n"
      terminal:expect "config%.lua:1: .-near <eof>"
      terminal:type "6 * 7\n"
      terminal:expect "\n42\n"
    end)
    terminal:close()
    process.run { "rm", "-rf", "--", folder }
    assert(ok, problem)
  end)
end)
