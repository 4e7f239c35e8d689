-- The command line: what is read from it, what is printed where, with which exit
-- status; whose code is run.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")
local file = require "core.file"
local process = require "core.process"
local json = require "dkjson"
local lfs = require "lfs"

local script = [[return { summary = "say what it was given", options = {
  { "--word", "a word", argument = "W" }, { "rest", "others", argument = "R", optional = true, many = true } },
  text = function(fields) return fields.said end,
  run = function(args, context)
    return { said = ("%s|%s|%s|%s|%s"):format(tostring(args.word), table.concat(args.rest or {}, ","),
      tostring(context.yes), tostring(context.dry_run), tostring(context.json)) }
  end }]]

describe("the command line", function()
  local desk

  setup(function() desk = Desk.new "cli" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  -- Runs the program as it is, without the desk's --site and --state.
  local function bare(...)
    local argv, options = { Desk.program, ... }, nil
    if type(argv[#argv]) == "table" then
      options = table.remove(argv)
    end
    return assert(process.run(argv, options))
  end

  local function site_script(name, text, mode)
    return desk:write("site/scripts/" .. name .. ".lua", text, mode)
  end

  describe("global options", function()
    before_each(function() site_script("say", script) end)

    it("stand anywhere before --", function()
      assert.equal("w|a,b|true|true|nil\n", desk:run("--yes", "say", "--dry-run", "a", "--word", "w", "b").stdout)
      assert.equal("w|a|true|nil|nil\n", desk:run("say", "a", "--word", "w", "--yes").stdout)
      assert.equal("nil|a|nil|nil|nil\n", desk:run("say", "a").stdout)
    end)

    it("are arguments like others after --", function()
      assert.equal("nil|--yes,--json|nil|true|nil\n", desk:run("say", "--dry-run", "--", "--yes", "--json").stdout)
      assert.equal("w|--yes|nil|nil|nil\n", desk:run("--", "say", "--word", "w", "--", "--yes").stdout)
    end)

    it("take a value as the next argument or after =", function()
      local state = desk.path .. "/other"
      for _, words in ipairs { { "--state", state }, { "--state=" .. state } } do
        local result = bare("new-request", "--domain", "a.test", "--site", desk.site, table.unpack(words))
        assert.equal(0, result.status)
        assert.is_truthy(lfs.attributes(state .. "/keys/1.pem"))
        assert(process.run { "rm", "-r", state })
      end
    end)

    it("need the value that they take", function()
      desk:refuses(2, "usage", "--state needs a value", "list", "--state")
      desk:refuses(2, "usage", "--site needs a value", "list", "--site", "")
      desk:refuses(2, "usage", "--server needs a value", "list", "--server=")
    end)

    it("tell the version, whatever else is said", function()
      local result = desk:run("say", "--version")
      assert.equal(0, result.status)
      local version = result.stdout:match "^certwright (%d+%.%d+%.%d+)\n$"
      assert.is_truthy(version)
      assert.same({ version = version }, (desk:done "--version"))
      assert.equal("", result.stderr)
    end)

    it("refuse --server until servers are there", function()
      desk:refuses(2, "unsupported", "--server is not supported yet: certwright acts on this machine only",
        "list", "--server", "mx1")
    end)

    it("--quiet leaves the result and takes the talk", function()
      local talk = desk:run("new-request", "--domain", "a.test", "--out", desk.path .. "/q1.csr")
      assert.is_truthy(talk.stderr:find("next: certwright submit-request 1", 1, true))
      local quiet = desk:run("new-request", "--domain", "a.test", "--out", desk.path .. "/q2.csr", "--quiet")
      assert.equal("", quiet.stderr)
      assert.is_truthy(quiet.stdout:find "^Id  ")
    end)
  end)

  describe("wrong usage is exit 2 and names what is wrong:", function()
    it("an unknown command", function()
      desk:refuses(2, "usage", "there is no command 'nonesuch'; see certwright help", "nonesuch")
      desk:refuses(2, "usage", "there is no command '..'; see certwright help", "..")
      desk:refuses(2, "usage", "there is no command 'Assign' (did you mean 'assign-services'?); see certwright help", "Assign")
      desk:refuses(2, "usage", "there is no command 'request'; see certwright help", "request") -- three have that in them
    end)

    it("an unknown option", function()
      desk:refuses(2, "usage", "unknown option '--nonesuch'; see certwright help", "--nonesuch", "list")
      desk:refuses(2, "usage", "unknown option '--nonesuch'; see certwright help list", "list", "--nonesuch")
    end)

    it("an argument too many, or one that is missing", function()
      desk:refuses(2, "usage", "too many arguments: list takes none; see certwright help list", "list", "1")
      desk:refuses(2, "usage", "show needs CERT: id, friendly name, or 6 or more hex digits of a fingerprint; "
        .. "see certwright help show", "show")
      desk:refuses(2, "usage", "too many arguments: new-request takes none, but --domain NAME; see certwright help "
        .. "new-request", "new-request", "a.test")
      desk:refuses(2, "usage", "too many arguments: assign-services takes CERT, and --services A,B; see certwright help "
        .. "assign-services", "assign-services", "1", "web")
      desk:refuses(2, "usage", "too many arguments: show takes CERT; see certwright help show", "show", "1", "2")
      desk:refuses(2, "usage", "unknown option '--stats' (did you mean '--status'?); see certwright help list", "list",
        "--stats")
      desk:refuses(2, "usage", "option '--status' requires an argument; see certwright help list", "list", "--status")
      desk:refuses(2, "usage", "--domain needs a value that is not empty", "list", "--domain", "")
    end)

    it("a command of a command", function()
      desk:refuses(2, "usage", "ca needs a command: crl, init, root", "ca")
      desk:refuses(2, "usage", "ca has no command 'nonesuch'; there are: crl, init, root", "ca", "nonesuch")
      desk:refuses(2, "usage", "ca has no command 'nonesuch'; there are: crl, init, root", "help", "ca", "nonesuch")
    end)

    it("check that goes on for ever and prints one JSON value", function()
      desk:refuses(2, "usage", "--watch goes on for ever, --json prints one value: give one of them", "check", "--watch")
    end)

    it("a file of scripts/ that is no command", function()
      desk:refuses(2, "usage", "there is no command 'workflow'; see certwright help", "workflow")
    end)

    it("and nothing was made", function()
      assert.is_nil(lfs.attributes(desk.state))
    end)
  end)

  describe("results", function()
    it("go to standard output as one JSON value, errors there and to standard error", function()
      local value, result = desk:done "list"
      assert.same({}, value)
      assert.equal("[]\n", result.stdout)
      assert.equal("", result.stderr)
      desk:refuses(1, "missing", "there is no request or certificate 1; see certwright list", "show", "1")
    end)

    it("are plain text without --json, and errors on standard error alone", function()
      local result = desk:run("show", "1")
      assert.same({ 1, "", "certwright: there is no request or certificate 1; see certwright list\n" },
        { result.status, result.stdout, result.stderr })
    end)

    it("that cannot be written are a failure", function()
      local result = bare("--state", desk.state, "list")
      assert.equal(0, result.status)
      result = assert(process.run { "sh", "-c", 'exec "$0" --state "$1" list > /dev/full', Desk.program, desk.state })
      assert.same({ 1, "certwright: cannot write the result: No space left on device\n" },
        { result.status, result.stderr })
    end)

    it("of a program of one's own that cannot be written are a failure, too", function()
      for _, words in ipairs { "--version", "-e 'print(1)'", "-e 'io.write(1)'" } do
        local result = assert(process.run { "sh", "-c", 'exec "$0" ' .. words .. " > /dev/full", Desk.program })
        assert.same({ words, 1, "certwright: cannot write the result: No space left on device\n" },
          { words, result.status, result.stderr })
      end
    end)

    it("hold no escapes, whatever an argument is", function()
      for word, shown in pairs { ["\27[31m"] = "\\u{001B}[31m", ["\xff"] = "\u{FFFD}", ["a\8b"] = "a\\u{0008}b" } do
        desk:refuses(2, "usage", ("there is no command '%s'; see certwright help"):format(shown), word)
        desk:refuses(2, "usage", ("there is no service '%s' in 'SITE/config.lua', which names none"):format(shown),
          "new-request", "--services", word)
      end
    end)

    it("refuse a name that could deceive", function()
      desk:refuses(2, "usage", "the friendly name '\\u{202E}evil' may not hold the character U+202E, which cannot be seen",
        "new-request", "--domain", "a.test", "--name", "\u{202E}evil")
    end)
  end)

  describe("core.*", function()
    it("is what the program was built with, whatever the site has", function()
      desk:write("site/lua/core/key.lua", "return 'shadow'")
      desk:write("site/lua/core/own.lua", "return 'shadow'")
      local chunk = "print(type(require 'core.key'), pcall(require, 'core.own'))"
      assert.equal("table\tfalse\tmodule 'core.own' not found: the program has none of that name\n",
        desk:run("-e", chunk).stdout)
    end)
  end)

  describe("-e and FILE", function()
    -- core, arg and ..., as a user's own program has them
    local program = 'print(core.host.pid() > 0, select("#", ...), ..., arg[1], arg[2], #arg)'

    it("run with core as a global, arguments in arg and ..., options untouched", function()
      local result = desk:run("-e", program, "--json", "x")
      assert.same({ 0, "true\t2\t--json\t--json\tx\t2\n" }, { result.status, result.stdout })
      local path = desk:write("own.lua", "#!/usr/bin/env certwright\n" .. program)
      result = desk:run(path, "--json", "x")
      assert.same({ 0, "true\t2\t--json\t--json\tx\t2\n", "" }, { result.status, result.stdout, result.stderr })
      result = desk:run("own.lua", "--", "x", { cwd = desk.path })
      assert.equal("true\t2\t--\t--\tx\t2\n", result.stdout)
    end)

    it("are exit 1 for a raise and for a returned nil, message, whatever the code", function()
      for _, code in ipairs { "'usage'", "'pending'", "'unrestored'", "'no such code'", "nil" } do
        local result = desk:run("-e", ("return nil, 'no luck today', %s"):format(code))
        assert.same({ 1, "certwright: no luck today\n" }, { result.status, result.stderr })
      end
      local result = desk:run("-e", "error 'no luck'")
      assert.equal(1, result.status)
      assert.is_truthy(result.stderr:find "^certwright: %-e:1: no luck\nstack traceback:")
      desk:refuses(1, "limit", "enough", "-e", "return nil, 'enough', 'limit'")
    end)

    it("are exit 0 for whatever else they return", function()
      for _, chunk in ipairs { "", "return 7", "return nil", "return false, 'text'", "return true, 'text', 'io'" } do
        assert.equal(0, desk:run("-e", chunk).status)
      end
    end)

    it("are exit 1 for what is no Lua, and for a file that is not there", function()
      desk:refuses(1, "parse", "-e:1: syntax error near <eof>", "-e", "x")
      desk:refuses(1, "missing", "cannot read './nonesuch': No such file or directory", "./nonesuch",
        { cwd = desk.path })
      desk:refuses(1, "missing", "cannot read 'nonesuch.lua': No such file or directory", "nonesuch.lua",
        { cwd = desk.path })
      desk:refuses(2, "usage", "-e needs a chunk of Lua", "-e")
    end)

    it("make no folder and open no store", function()
      local home = desk.path .. "/home"
      local environment = { HOME = home, XDG_DATA_HOME = home .. "/data", XDG_CONFIG_HOME = home .. "/config" }
      local path = desk:write("nothing.lua", "print 'ran'")
      for _, words in ipairs { { "-e", "print 'ran'" }, { path } } do
        local result = bare("--state", desk.state, "--site", desk.path .. "/nosite", words[1], words[2],
          { env = environment })
        assert.same({ 0, "ran\n" }, { result.status, result.stdout })
      end
      for _, folder in ipairs { desk.state, home, desk.path .. "/nosite" } do
        assert.is_nil(lfs.attributes(folder))
      end
    end)

    it("are not strict, so that foreign libraries run", function()
      local result = desk:run("-e", "a_global = 1; print(another, a_global, require 'lfs' ~= nil)")
      assert.same({ 0, "nil\t1\ttrue\n" }, { result.status, result.stdout })
    end)

    it("find the site's modules before those that ship", function()
      desk:write("site/lua/text.lua", "return { mine = 'the site’s own' }")
      assert.equal("the site’s own\n", desk:run("-e", "print(require('text').mine)").stdout)
    end)
  end)

  describe("the environment", function()
    it("brings no code: LUA_INIT, LUA_PATH and LUA_CPATH mean nothing", function()
      desk:write("planted/dkjson.lua", "error 'planted'")
      desk:write("planted/lfs.so", "planted")
      local where = desk.path .. "/planted/?"
      local result = desk:run("--json", "list", { env = {
        LUA_INIT = "error 'planted'", LUA_INIT_5_4 = "error 'planted'", LUA_PATH = where .. ".lua",
        LUA_PATH_5_4 = where .. ".lua", LUA_CPATH = where .. ".so", LUA_CPATH_5_4 = where .. ".so" } })
      assert.same({ 0, "[]\n", "" }, { result.status, result.stdout, result.stderr })
    end)

    it("brings no code from the working folder", function()
      desk:write("here/dkjson.lua", "error 'planted'")
      desk:write("here/text.lua", "error 'planted'")
      local result = desk:run("--json", "list", { cwd = desk.path .. "/here" })
      assert.same({ 0, "[]\n" }, { result.status, result.stdout })
    end)

    it("says where the folders of a user who is not root are", function()
      local program, home = desk:installed(), desk.path .. "/nobody"
      assert(file.mkdir(home, tonumber("755", 8)))
      assert.equal(0, process.run({ "chown", "65534", home }).status)
      local function as_nobody(environment, ...)
        return assert(process.run({ program, "--json", ... }, { uid = 65534, gid = 65534,
          env = environment }))
      end
      local plain = { HOME = home }
      local xdg = { HOME = home, XDG_DATA_HOME = home .. "/data", XDG_CONFIG_HOME = home .. "/config" }
      local result = as_nobody(plain, "new-request", "--domain", "a.test")
      assert.equal(0, result.status, result.stderr)
      assert.equal(home .. "/.local/share/certwright/requests/1.csr", json.decode(result.stdout).request_file)
      assert.equal("0700", desk:mode(home .. "/.local/share/certwright"))
      result = as_nobody(xdg, "new-request", "--domain", "a.test")
      assert.equal(home .. "/data/certwright/requests/1.csr", json.decode(result.stdout).request_file)
      assert(process.run({ "mkdir", "-p", home .. "/config/certwright" }, { uid = 65534, gid = 65534 }))
      assert(file.write(home .. "/config/certwright/config.lua", "return { nonsense = 1 }"))
      result = as_nobody(xdg, "new-request", "--domain", "b.test")
      assert.equal(("'%s/config/certwright/config.lua': there is no setting 'nonsense'"):format(home),
        json.decode(result.stdout).error.message)
    end)
  end)

  describe("help", function()
    it("is the same for no command, help and --help", function()
      local text = desk:run("help").stdout
      assert.equal(text, desk:run().stdout)
      assert.equal(text, desk:run("--help").stdout)
      assert.equal(text, desk:run("-h").stdout)
      for _, name in ipairs { "new-request", "submit-request", "complete-request", "assign-services", "enroll", "list",
        "show", "check", "cancel", "remove", "ca", "adopt", "help" } do
        assert.is_truthy(text:find("\n  " .. name .. " ", 1, true), name)
      end
    end)

    it("explains a command from its declaration, and says where it comes from", function()
      local result = desk:run("help", "list")
      assert.equal(0, result.status)
      assert.is_truthy(result.stdout:find("Usage: certwright list", 1, true))
      assert.is_truthy(result.stdout:find("--expiring DAYS", 1, true))
      assert.is_truthy(result.stdout:find("\n\nThis is " .. Desk.home .. "/scripts/list.lua\n", 1, true))
      assert.equal(result.stdout, desk:run("list", "--help").stdout)
      assert.equal(result.stdout, desk:run("list", "--status", "nonsense", "-h").stdout)
    end)

    it("names the commands of a command, and explains each", function()
      local text = desk:run("help", "ca").stdout
      assert.is_truthy(text:find "\n   init +make the local CA")
      assert.is_truthy(text:find "\n   root +write the local CA's root")
      assert.equal(text, desk:run("ca", "--help").stdout)
      text = desk:run("help", "ca", "root").stdout
      assert.is_truthy(text:find("Usage: certwright ca root [--out FILE]", 1, true))
      assert.equal(text, desk:run("ca", "root", "--help").stdout)
    end)

    it("is JSON with --json", function()
      local list = desk:done("help")
      local of = {}
      for _, entry in ipairs(list) do of[entry.name] = entry end
      assert.same({ name = "list", summary = "list requests and certificates", path = Desk.home .. "/scripts/list.lua",
        site = false }, of.list)
      assert.is_nil(of.workflow)
      local one = desk:done("list", "--help")
      assert.same({ "list", false, Desk.home .. "/scripts/list.lua" }, { one.name, one.site, one.path })
    end)

    it("refuses a command that is not there", function()
      desk:refuses(2, "usage", "there is no command 'nonesuch'; see certwright help", "help", "nonesuch")
      desk:refuses(2, "usage", "there is no command 'nonesuch'; see certwright help", "nonesuch", "--help")
    end)
  end)

  describe("a site's script", function()
    it("adds a command, which help shows as the site's", function()
      local path = site_script("say", script)
      assert.equal("w||nil|nil|true\n", (desk:done("say", "--word", "w")).said .. "\n")
      assert.is_truthy(desk:run("help").stdout:find "\n  say +site +say what it was given\n")
      assert.is_truthy(desk:run("help", "say").stdout:find("\n\nThis is " .. path, 1, true))
    end)

    it("shadows the shipped one of its name, and help says so", function()
      local path = site_script("list", script)
      assert.equal("w||nil|nil|nil\n", desk:run("list", "--word", "w").stdout)
      local of = {}
      for _, entry in ipairs(desk:done("help")) do of[entry.name] = entry end
      assert.same({ path, true }, { of.list.path, of.list.site })
      assert.is_truthy(desk:run("help").stdout:find "\n  list +site +say what it was given\n")
    end)

    it("may fail with a code of its own", function()
      for code, status in pairs { usage = 2, pending = 3, unrestored = 4, busy = 1, rejected = 1 } do
        site_script("say", ("return { summary = 's', options = {}, run = function() return nil, 'no: x', '%s' end }")
          :format(code))
        desk:refuses(status, code, "no: x", "say")
      end
    end)

    it("that is not what a script is, is refused by file and field", function()
      local function refuses(text, message)
        site_script("say", text)
        desk:refuses(1, "parse", message, "say")
      end
      local run = "run = function() return {} end"
      refuses("return 7", "'SITE/scripts/say.lua' is not a script: it returns no table")
      refuses("return {}", "'SITE/scripts/say.lua' is not a script: it has no summary")
      refuses("return { summary = 's' }", "'SITE/scripts/say.lua' is not a script: it has neither run nor commands")
      refuses("return { summary = 7, " .. run .. " }", "'SITE/scripts/say.lua' is not a script: "
        .. "'summary' must be a string")
      refuses("return { summary = 's', runs = 1, " .. run .. " }", "'SITE/scripts/say.lua' is not a script: "
        .. "unknown field 'runs'")
      refuses("return { summary = 's', commands = { x = {} } }", "'SITE/scripts/say.lua (command x)' is not a script: "
        .. "it has no summary")
      refuses("return {", "SITE/scripts/say.lua:1: unexpected symbol near <eof>")
      refuses("error('no', 0)", "'SITE/scripts/say.lua' failed: no")
    end)

    it("is strict: an undeclared global is an error that names it", function()
      site_script("say", "return { summary = 's', options = {}, run = function() return typo end }")
      desk:refuses(1, "io", "SITE/scripts/say.lua:1: undeclared global 'typo'", "say")
      site_script("say", "return { summary = 's', options = {}, run = function() typo = 1; return {} end }")
      desk:refuses(1, "io", "SITE/scripts/say.lua:1: assignment to undeclared global 'typo'", "say")
      site_script("say", "local M = { summary = typo } return M")
      desk:refuses(1, "parse", "'SITE/scripts/say.lua' failed: SITE/scripts/say.lua:1: undeclared global 'typo'", "say")
    end)

    it("that is broken breaks neither help nor the other commands", function()
      site_script("say", "error('no', 0)")
      local of = {}
      for _, entry in ipairs(desk:done("help")) do of[entry.name] = entry end
      assert.equal("cannot be run: 'SITE/scripts/say.lua' failed: no", desk:shown(of.say.summary))
      assert.same({}, (desk:done("list")))
    end)

    it("gives the workflow another order, which has to chain", function()
      site_script("workflow", "return 7")
      desk:refuses(1, "parse", "'SITE/scripts/workflow.lua' returns no list of steps", "enroll", "--domain", "a.test")
      site_script("workflow", "return { 'new-request', 'complete-request', 'submit-request' }")
      desk:refuses(1, "parse", "'SITE/scripts/workflow.lua': the workflow cannot go from 'complete-request', which "
        .. "ends as completed, to 'submit-request', which begins as created or submitted or rejected", "enroll",
        "--domain", "a.test")
      site_script("workflow", "return { 'new-request', 'list' }")
      desk:refuses(1, "parse", "'HOME/scripts/list.lua': a step of the workflow needs 'from' and 'to'", "enroll",
        "--domain", "a.test")
      assert.is_nil(lfs.attributes(desk.state))
    end)

    it("may be a step of the workflow, such as an approval", function()
      site_script("approve", [[return { summary = "ask a person", from = { "created" }, to = "created",
        options = { { "id", "which", argument = "ID" } },
        run = function() return nil, "nobody has approved it yet", "pending" end }]])
      site_script("workflow", "return { 'new-request', 'approve', 'submit-request', 'complete-request' }")
      desk:refuses(3, "pending", "nobody has approved it yet\nto go on then: certwright enroll 1", "enroll", "--domain", "a.test")
      assert.equal("created", desk:done("show", "1").state)
    end)
  end)

  describe("code that others could have written is refused, with file, owner, mode and what mends it:", function()
    local path

    before_each(function() path = site_script("say", script) end)

    local function refused(message, ...)
      desk:refuses(1, "denied", "refused to run code from " .. message, ...)
    end

    -- What the message says to do, done; then the command runs.
    local function mended(message, ...)
      local command = message:gsub("LAB", desk.path):gsub("SITE", desk.site):match "to mend it: (.*)$"
      refused(message, ...)
      assert.equal(0, process.run({ "sh", "-c", command }).status)
      assert.equal(0, desk:run(...).status)
    end

    local function chmod(mode, what)
      assert.equal(0, process.run({ "chmod", mode, what }).status)
    end

    local function chown(owner, what)
      assert.equal(0, process.run({ "chown", owner, what }).status)
    end

    it("a script that a group or all may write", function()
      chmod("664", path)
      mended("'SITE/scripts/say.lua': owner 0, mode 0664: others could have written it; to mend it: "
        .. "chmod go-w 'SITE/scripts/say.lua'", "say")
      chmod("646", path)
      mended("'SITE/scripts/say.lua': owner 0, mode 0646: others could have written it; to mend it: "
        .. "chmod go-w 'SITE/scripts/say.lua'", "say")
    end)

    it("a script of another user", function()
      chown("65534", path)
      mended("'SITE/scripts/say.lua': owner 65534, mode 0644: others could have written it; to mend it: "
        .. "chown 0 'SITE/scripts/say.lua'", "say")
    end)

    it("a folder above it that others may write, or that is another user's", function()
      chmod("777", desk.site .. "/scripts")
      mended("'SITE/scripts': owner 0, mode 0777: others could have written it; to mend it: "
        .. "chmod go-w 'SITE/scripts'", "say")
      chown("65534", desk.site)
      mended("'SITE': owner 65534, mode 0755: others could have written it; to mend it: chown 0 'SITE'", "say")
      chmod("1777", desk.site) -- sticky, as /tmp is
      assert.equal(0, desk:run("say").status)
    end)

    it("what a link leads to", function()
      local target = desk:write("far/away.lua", script)
      os.remove(path)
      assert(lfs.link(target, path, true))
      assert.equal(0, desk:run("say").status)
      chmod("777", desk.path .. "/far")
      refused("'LAB/far': owner 0, mode 0777: others could have written it; to mend it: chmod go-w 'LAB/far'", "say")
    end)

    it("config.lua, policy.lua, modules, adapters, drivers and FILE as well", function()
      local function check(name, text, ...)
        local inner = desk:write("site/" .. name, text, "666")
        refused(("'SITE/%s': owner 0, mode 0666: others could have written it; to mend it: chmod go-w 'SITE/%s'")
          :format(name, name), ...)
        os.remove(inner)
      end
      check("config.lua", "return {}", "new-request", "--domain", "a.test")
      check("policy.lua", "return {}", "new-request", "--domain", "a.test")
      check("own.lua", "", desk.site .. "/own.lua")
      site_script("say", "local own = require 'own' " .. script)
      desk:write("site/lua/own.lua", "return {}", "666")
      local result = desk:run("say")
      assert.equal(1, result.status)
      assert.is_truthy(desk:shown(result.stderr):find("refused to run code from 'SITE/lua/own.lua': owner 0, "
        .. "mode 0666: others could have written it; to mend it: chmod go-w 'SITE/lua/own.lua'", 1, true))
      desk:done("new-request", "--domain", "a.test")
      desk:write("site/ca/mine.lua", "return {}", "666")
      desk:write("site/config.lua", "return { cas = { mine = { adapter = 'mine' } } }")
      result = desk:run("submit-request", "1", "--ca", "mine")
      assert.equal(1, result.status)
      assert.is_truthy(desk:shown(result.stderr):find("refused to run code from 'SITE/ca/mine.lua'", 1, true))
      desk:write("site/service/mine.lua", "return {}", "666")
      desk:write("site/config.lua", "return { services = { web = { driver = 'mine' } } }")
      result = desk:run("new-request", "--services", "web")
      assert.is_true(result.status > 0)
      assert.is_truthy(desk:shown(result.stderr):find("refused to run code from 'SITE/service/mine.lua'", 1, true))
    end)

    it("bytecode, from whomever", function()
      site_script("say", string.dump(load(script)))
      refused("'SITE/scripts/say.lua': it is bytecode", "say")
      local own = desk:write("own.lua", string.dump(load "return 1"))
      refused("'LAB/own.lua': it is bytecode", own)
      desk:write("site/config.lua", string.dump(load "return {}"))
      refused("'SITE/config.lua': it is bytecode", "new-request", "--domain", "a.test")
      desk:refuses(1, "parse", "attempt to load a binary chunk (mode is 't')", "-e", "\27Lua")
    end)

    it("and help says it of the command", function()
      chmod("666", path)
      local of = {}
      for _, entry in ipairs(desk:done("help")) do of[entry.name] = entry end
      assert.is_truthy(of.say.summary:find("cannot be run: refused to run code from", 1, true))
    end)
  end)
end)
