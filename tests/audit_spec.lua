-- The audit record: what is in it, that it cannot be changed unseen (but for
-- what is said plainly), and that nothing is done that is not in it.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
package.path = here .. "support/?.lua;" .. package.path
local Desk = dofile(here .. "support/desk.lua")
local deploy = require "deploy"
local file = require "core.file"
local host = require "core.host"
local json = require "dkjson"
local log = require "core.log"
local process = require "core.process"

describe("the audit record", function()
  local desk, path

  setup(function()
    desk = Desk.new "audit"
    path = desk.state .. "/audit.jsonl"
  end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  local function sh(script, ...)
    local result = assert(process.run { "sh", "-euc", script, "sh", ... })
    assert.equal(0, result.status, result.stderr)
    return result.stdout
  end

  local function lines()
    local list = {}
    for line in desk:read(path):gmatch "([^\n]*)\n" do list[#list + 1] = line end
    return list
  end

  local function records()
    local list = {}
    for i, line in ipairs(lines()) do list[i] = assert(json.decode(line, 1, json.null), line) end
    return list
  end

  local function write(list)
    assert(file.write(path, table.concat(list, "\n") .. (#list > 0 and "\n" or ""), { exclusive = false }))
  end

  -- A line with its own hash made again.
  local function forge(line)
    local bytes = line:sub(1, -76)
    return ('%s,"hash":"%s"}'):format(bytes, log.sha256(bytes))
  end

  -- The same lines from one on with all hashes made again, as root could.
  local function forge_all(list, from)
    for i = from, #list do
      local before = i > 1 and list[i - 1]:match '"hash":"(%x+)"}$' or ("0"):rep(64)
      list[i] = forge((list[i]:gsub('"previous":"%x+"', ('"previous":"%s"'):format(before))))
    end
    return list
  end

  local function whole(...)
    local result = desk:run("--json", "audit", "--verify", ...)
    assert.equal(0, result.status, result.stderr)
    return json.decode(result.stdout), result.stderr
  end

  local function wrong(message, ...)
    desk:refuses(1, "mismatch", ("'STATE/audit.jsonl': %s"):format(message), "audit", "--verify", ...)
  end

  -- Three commands, six lines.
  local function some()
    desk:ask("--domain", "a.test")
    desk:ask("--domain", "b.test")
    desk:done("cancel", "1")
  end

  describe("has", function()
    it("two lines of each command that changes something: who, what, on what, before and after, and how it ended", function()
      local id, _, request = desk:ask("--domain", "a.test", "--name", "mail")
      local object = desk:done("complete-request", id, "--file", desk:sign(request))
      local list = records()
      assert.equal(4, #list)
      local begun, done = list[3], list[4]
      assert.same({ 3, 4, "begun", "done", 3, 0 }, { begun.seq, done.seq, begun.result, done.result, done.begun, done.status })
      assert.same({ "complete-request", 1, "mail" }, { done.command, done.object, done.name })
      assert.same({ "complete-request", 1, "mail" }, { begun.command, begun.object, begun.name })
      assert.same(begun.arguments, done.arguments)
      assert.same({ "1", "--file" }, { done.arguments[1], done.arguments[2] })
      assert.same({ objects = { ["1"] = { state = "created", fingerprint = json.null } } }, done.before)
      assert.same({ objects = { ["1"] = { state = "completed", fingerprint = object.fingerprint } } }, done.after)
      assert.same({ 0, "root", host.name() }, { done.who.uid, done.who.user, done.host })
      assert.is_truthy(done.at:find "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$")
      assert.equal("0600", desk:mode(path))
      for i, line in ipairs(lines()) do -- as anybody can make sure
        local sum = desk:openssl("dgst", "-sha256", "-r", { stdin = line:match '^(.*),"hash":"' })
        assert.equal(list[i].hash, sum:match "^%x+")
        assert.equal(i > 1 and list[i - 1].hash or ("0"):rep(64), list[i].previous)
      end
      desk:done("remove", id)
      assert.same({ objects = { ["1"] = json.null } }, records()[6].after)
    end)

    it("the user behind sudo, who cannot be made up by who is not root", function()
      local env = { SUDO_UID = "0", SUDO_USER = "somebody-else", SUDO_GID = "0" }
      assert.equal(0, desk:run("new-request", "--domain", "a.test", { env = env }).status)
      local who = records()[2].who
      assert.same({ 0, 0, "root" }, { who.uid, who.sudo_uid, who.sudo_user })
      local folder = desk.lab:folder "user"
      assert.equal(0, process.run({ "chown", "65534:65534", folder }).status)
      local result = assert(process.run({ desk:installed(), "--site", folder, "--state", folder .. "/state", "new-request",
        "--domain", "a.test" }, { env = env, uid = 65534, gid = 65534 }))
      assert.equal(0, result.status, result.stderr)
      who = json.decode(desk:read(folder .. "/state/audit.jsonl"):match "^[^\n]+").who
      assert.same({ 65534, nil }, { who.uid, who.sudo_uid })
    end)

    it("what failed, what was refused and what is pending, with code, message and exit status", function()
      desk:run("cancel", "7")
      desk:ask("--domain", "a.test")
      desk:run("remove", "1")
      desk:waits("submit-request", "1")
      local list = records()
      local function ending(i) return { list[i].result, list[i].code, list[i].status, list[i].object } end
      assert.same({ "failed", "missing", 1 }, ending(2))
      assert.equal("there is no request or certificate 7; see certwright list", desk.lab:plain(list[2].message))
      assert.same({ "refused", "usage", 2, 1 }, ending(6))
      assert.same({ "pending", "pending", 3, 1 }, ending(8))
      assert.same({ "created", "submitted" }, { list[8].before.objects["1"].state, list[8].after.objects["1"].state })
    end)

    it("what is revoked, and what the CA signs for that", function()
      desk:done("ca", "init")
      local object = desk:done("enroll", "--domain", "a.test", "--ca", "local")
      desk:done("revoke", "1")
      desk:done("ca", "crl")
      local list = records()
      assert.same({ "enroll", "done", 0, 1 }, { list[4].command, list[4].result, list[4].status, list[4].object })
      assert.same({ objects = { ["1"] = { state = "completed", fingerprint = object.fingerprint } } }, list[6].before)
      assert.same({ objects = { ["1"] = { state = "completed", fingerprint = object.fingerprint, revoked = true } } }, list[6].after)
      assert.same({ "ca crl", "done" }, { list[8].command, list[8].result })
      assert.is_truthy(desk:run("audit").stdout:find("1: completed -> revoked\n", 1, true))
    end)

    it("two lines of each thing that a command changes which only looks", function()
      desk:done("new-request", "--domain", "a.test", "--self-signed")
      desk:done("new-request", "--domain", "b.test", "--self-signed")
      desk:write("site/scripts/finds.lua", [[return { summary = "finds", options = {}, run = function(_, context)
        local db = context:read()
        for id = 1, 2 do
          assert(context:change(function() return db:run("UPDATE objects SET revoked_at = 5 WHERE id = ?1", id) end))
        end
        return {} end }]])
      desk:done "finds"
      local list = records()
      assert.equal(8, #list)
      for id = 1, 2 do
        local begun, done = list[3 + id * 2], list[4 + id * 2]
        assert.same({ "begun", "done", "finds", id, true }, { begun.result, done.result, done.command, done.object,
          done.after.objects[tostring(id)].revoked })
        assert.is_nil(done.after.objects[tostring(3 - id)])
      end
      desk:done("audit", "--verify")
    end)

    it("how a command ended whose output nobody reads", function()
      sh([[{ (trap "" PIPE; while printf x; do :; done) 2>&-; "$@" 2>&1; } | true]], Desk.program, "--site", desk.site,
        "--state", desk.state, "new-request", "--domain", "a.test", "--self-signed")
      local last = records()[2]
      assert.same({ "done", 0, 1 }, { last.result, last.status, last.object })
      assert.equal("completed", last.after.objects["1"].state)
    end)

    it("a command that raises, and one of the site's own", function()
      assert(file.mkdirs(desk.site .. "/scripts", 493))
      desk:write("site/scripts/bad.lua", [[return { summary = "raises", run = function(_, context)
        assert(context:write()) error "a defect of its own" end }]])
      assert.equal(1, desk:run("bad").status)
      local last = records()[2]
      assert.same({ "bad", "failed", "io", 1 }, { last.command, last.result, last.code, last.status })
      assert.is_truthy(last.message:find("a defect of its own", 1, true))
    end)

    it("no reading, no dry run, and no looking", function()
      desk:ask("--domain", "a.test")
      for _, words in ipairs { { "list" }, { "show", "1" }, { "check" }, { "audit" }, { "help" }, { "export", "1" },
        { "cancel", "1", "--dry-run" }, { "new-request", "--domain", "b.test", "--dry-run" } } do
        assert.equal(0, desk:run(table.unpack(words)).status, words[1])
      end
      assert.equal(2, #records())
    end)

    it("nothing secret, and text of others as JSON", function()
      desk:write("password", "correct horse\n")
      desk:write("evil.pem", desk:openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-keyout", desk.path .. "/key.pem", "-utf8", "-subj", "/CN=evil\27[2J\226\128\174x.test", "-days", "9", "-addext",
        "basicConstraints=critical,CA:FALSE"))
      desk:done("import", desk.path .. "/evil.pem", "--key", desk.path .. "/key.pem", "--exportable", "--name", 'é"vil\\')
      desk:done("export", "1", "--form", "pfx", "--password-file", desk.path .. "/password", "--out", desk.path .. "/x.pfx")
      desk:run("cancel", "\27]0;x\7\226\128\174\255", ("y"):rep(10))
      desk:run("cancel", ("z"):rep(5000))
      local text = desk:read(path)
      assert.is_nil(text:gsub("\n", ""):find "%c")
      assert.is_nil(text:find("PRIVATE KEY", 1, true))
      assert.is_nil(text:find("correct horse", 1, true))
      for line in desk:read(desk.path .. "/key.pem"):gmatch "[^\n]+" do assert.is_nil(text:find(line, 1, true)) end
      local many = {}
      for i = 1, 40 do many[i * 2 - 1], many[i * 2] = "--domain", "a" .. i .. ".test" end
      desk:run("new-request", table.unpack(many))
      local list = records()
      assert.same({ 65, "a32.test", "... 16 more" }, { #list[#list].arguments, list[#list].arguments[64],
        list[#list].arguments[65] })
      list[#list], list[#list - 1] = nil, nil
      assert.equal('é"vil\\', list[2].name)
      assert.equal(259, #list[#list].arguments[1])
      assert.is_truthy(#lines()[#list] < 4096)
      local shown = desk:run "audit"
      assert.equal(0, shown.status)
      assert.is_nil(shown.stdout:find "[\27\226]")
      whole()
    end)
  end)

  describe("of what was cut short", function()
    local KILLED = [[return { summary = "is killed", run = function(_, context)
      assert(context:write()) local host = require "core.host" host.signal(host.pid(), "KILL") end }]]

    it("says that it began", function()
      desk:write("site/scripts/killed.lua", KILLED)
      assert.equal(9, desk:run("killed").signal)
      assert.same({ "killed", "begun" }, { records()[1].command, records()[1].result })
      local shown = desk:run("audit").stdout
      assert.is_truthy(shown:find "killed +%- +cut short")
      desk:ask("--domain", "a.test")
      assert.equal(3, whole().records)
    end)

    it("while its own line was written: no tampering, and the next line says so", function()
      some()
      local piece = lines()[6]:sub(1, 100)
      assert(file.write(path, desk:read(path) .. piece, { exclusive = false }))
      local found, said = whole()
      assert.equal(6, found.records)
      local warning = "the last line is a piece of one that was cut short while it was written; the next record will say so"
      assert.same({ warning }, found.warnings)
      assert.equal("certwright: warning: " .. warning .. "\n", said)
      desk:done("cancel", "2")
      local list = lines()
      assert.equal(piece, list[7])
      assert.same({ bytes = 100, sha256 = log.sha256(piece) }, json.decode(list[8]).torn)
      assert.same({ "line 7 is a piece of one that was cut short while it was written; record 7 says so" }, whole().warnings)
      list[7] = piece .. "x"
      write(list)
      wrong "line 7 is no record"
      assert.equal(8, #json.decode(desk:run("--json", "audit").stdout))
    end)

    it("between the file and the store: a warning", function()
      some()
      local before = desk:read(desk.state .. "/store.db")
      desk:done("cancel", "2")
      assert(file.write(desk.state .. "/store.db", before, { exclusive = false }))
      assert.same({ "the store remembers record 6 as the last, and the file goes on to 8: a crash came between the two, "
        .. "or the store was put back from a copy" }, whole().warnings)
      desk:done("cancel", "2")
      assert.same({}, whole().warnings)
    end)
  end)

  describe("shows", function()
    it("a line that was changed, at whatever place", function()
      some()
      local good = lines()
      for i = 1, #good do
        local list = { table.unpack(good) }
        list[i] = list[i]:gsub("root", "toor", 1)
        write(list)
        wrong(("line %d, record %d, was changed: its hash is not that of what it says"):format(i, i))
      end
      local list = { table.unpack(good) }
      list[3] = forge((list[3]:gsub("root", "toor", 1)))
      write(list)
      wrong "line 4, record 4, follows another line than the one before it, which was replaced"
      write(good)
      whole()
    end)

    it("lines that were removed, at the beginning, in the middle and at the end", function()
      some()
      local good = lines()
      local function without(from, to)
        local list = { table.unpack(good) }
        for _ = from, to do table.remove(list, from) end
        write(list)
      end
      without(1, 1)
      wrong "line 1 is record 2: record 1 was removed before it"
      without(3, 4)
      wrong "line 3 is record 5: records 3 to 4 were removed before it"
      without(6, 6)
      wrong "the end was cut off: the last whole line is record 5, and the store remembers record 6"
      without(1, 6)
      wrong "the end was cut off: no record is left, and the store remembers record 6"
      os.remove(path)
      wrong "the end was cut off: no record is left, and the store remembers record 6"
      local text = table.concat(good, "\n")
      assert(file.write(path, text:sub(1, -20), { exclusive = false }))
      wrong "the end was cut off: the last whole line is record 5, and the store remembers record 6"
    end)

    it("lines that were inserted, repeated or moved", function()
      some()
      local good = lines()
      local function with(change)
        local list = { table.unpack(good) }
        change(list)
        write(list)
      end
      with(function(list) table.insert(list, 3, list[2]) end)
      wrong "line 3 is record 2, where record 3 should be: it was inserted or moved"
      with(function(list) table.insert(list, 3, (forge(list[3]:gsub("root", "toor", 1)))) end)
      wrong "line 4 is record 3, where record 4 should be: it was inserted or moved"
      with(function(list) list[3], list[4] = list[4], list[3] end)
      wrong "line 3 is record 4, and record 3 comes further down: lines were moved"
      with(function(list) table.insert(list, 4, "{}") end)
      wrong "line 4 is no record"
      with(function(list) table.insert(list, 7, "") end)
      wrong "line 7 is no record"
      with(function(list) table.insert(list, 2, '"torn":{"bytes":9}') table.insert(list, 2, "") end)
      wrong "line 2 is no record"
    end)

    it("a chain that was made again, by what the store remembers", function()
      some()
      local list = lines()
      list[2] = list[2]:gsub("root", "toor", 1)
      write(forge_all(list, 2))
      wrong "line 6, record 6, is not the one that the store remembers: lines up to it were made again"
    end)

    it("what was changed for ever: the next line follows what the store remembers", function()
      some()
      local list = lines()
      write { table.unpack(list, 1, 4) }
      local result = desk:run("cancel", "2")
      assert.equal(0, result.status)
      assert.is_truthy(desk:shown(result.stderr):find("certwright: warning: STATE/audit.jsonl was changed by others than certwright: "
        .. "certwright audit --verify says where\n", 1, true), result.stderr)
      assert.equal("", (desk:run("cancel", "2").stderr))
      wrong "line 5 is record 7: records 5 to 6 were removed before it"
      list = lines()
      list[#list] = list[#list]:gsub("root", "toor", 1)
      write(list)
      assert.is_truthy(desk:run("cancel", "2").stderr:find("audit.jsonl was changed by others than certwright", 1, true))
    end)

    it("a chain and a store that were made again, to who noted a number and a hash", function()
      some()
      local noted = desk:run("audit", "--head").stdout
      assert.is_truthy(noted:find "^6:%x+\n$")
      noted = noted:sub(1, -2)
      local list = lines()
      list[2] = list[2]:gsub("root", "toor", 1)
      write(forge_all(list, 2))
      local store <close> = assert(require("core.store").open(desk.state .. "/store.db"))
      store:run("UPDATE audit SET hash = ?1", list[6]:match '"hash":"(%x+)"}$')
      assert.same({}, whole().warnings)
      wrong("line 6, record 6, is not the one that --expect names: lines up to it were made again", "--expect", noted)
      wrong("the end was cut off: the last whole line is record 6, and --expect names record 9", "--expect", "9:" .. noted:sub(3))
    end)
  end)

  describe("is kept", function()
    it("by many processes at once, in one chain", function()
      desk:ask("--domain", "a.test")
      local ends = {}
      for i = 1, 10 do ends[i] = desk:start("cancel", tostring(i)) end
      for _, wait in ipairs(ends) do wait() end
      assert.same({ 22, {} }, { whole().records, whole().warnings })
      local begun = {}
      for _, record in ipairs(records()) do
        if record.result == "begun" then begun[record.pid] = record.seq else assert.equal(begun[record.pid], record.begun) end
      end
    end)

    it("or nothing is done: where it cannot be written, where the disk is full", function()
      local id = desk:ask("--domain", "a.test")
      local text = desk:read(path)
      os.remove(path)
      sh('ln -s "$1" "$2"', desk.path .. "/elsewhere", path)
      local note = "; what is not in the audit record is not done"
      desk:refuses(1, "io", "cannot write 'STATE/audit.jsonl': Too many levels of symbolic links" .. note, "cancel", id)
      os.remove(path)
      assert(file.write(path, text))
      local full = desk.lab:folder "full"
      if process.run({ "mount", "-t", "tmpfs", "-o", "size=64k", "none", full }).status ~= 0 then return pending "cannot mount here" end
      local _ <close> = setmetatable({}, { __close = function() process.run { "umount", path, full } end })
      sh('cp "$1" "$2/audit" && chmod 600 "$2/audit" && mount --bind "$2/audit" "$1"', path, full)
      desk:refuses(1, "io", "cannot write 'STATE/audit.jsonl': No space left on device" .. note, "cancel", id)
      assert.equal("created", desk:done("show", id).state)
      assert.equal(text, desk:read(path))
    end)

    it("when nothing has been recorded yet: whole", function()
      assert.same({ 0, {} }, { whole().records, whole().warnings })
      assert.equal("0:" .. ("0"):rep(64) .. "\n", desk:run("audit", "--head").stdout)
      assert.equal("nothing has been recorded yet\n", desk:run("audit").stdout)
      assert.is_nil(file.stat(desk.state))
    end)
  end)

  it("goes to the system's log as well, a line each with number and hash", function()
    local folder = desk.lab:folder "log"
    local script = [[
      mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9
      socat -u UNIX-RECV:/dev/log,mode=666 OPEN:"$1/got",creat,append & receiver=$!
      for i in $(seq 100); do [ -S /dev/log ] && break; sleep 0.05; done
      shift
      "$@" || true
      kill $receiver]]
    local result = process.run { "unshare", "-m", "sh", "-uc", script, "sh", folder, desk.program, "--site", desk.site, "--state",
      desk.state, "cancel", "%s%n\27 \"x" }
    if result.stderr:find "unshare failed" then return pending "no mount namespaces here" end
    local got = desk:read(folder .. "/got")
    local list = records()
    for i, of in ipairs { "<85>%u%l%l +%d+ [%d:]+ certwright%[%d+%]: seq=1 hash=(%x+) result=begun user=root command=",
      "<84>%u%l%l +%d+ [%d:]+ certwright%[%d+%]: seq=2 hash=(%x+) result=failed user=root command=" } do
      assert.equal(list[i].hash, got:match(of), got)
    end
    assert.is_truthy(got:find([[command="cancel %s%n\u{001B} 'x"]], 1, true), got)
    assert.is_nil(got:find "\27")
  end)
end)

describe("the audit record of a deployment", function()
  local lab, first, old

  -- The site's own lua/assignments.lua kills the process at a stage.
  local function kill_at(stage)
    local program = assert(file.link "/proc/self/exe")
    assert(file.mkdirs(lab.site_path .. "/lua", 493))
    deploy.write(lab.site_path .. "/lua/assignments.lua", ([[
      local M, host = assert(require("loader").file "%s/lua/assignments.lua")(), require "core.host"
      local stage = M.stage
      function M.stage(db, id, name)
        if name == "%s" then host.signal(host.pid(), "KILL") end
        return stage(db, id, name)
      end
      return M]]):format(program:match "^(.*)/", stage))
  end

  local function records(last)
    local list = {}
    for line in io.lines(lab.state_path .. "/audit.jsonl") do list[#list + 1] = assert(json.decode(line, 1, json.null)) end
    return { table.unpack(list, #list - last + 1) }
  end

  setup(function()
    lab = deploy.lab(function(new)
      new.web = new:nginx { names = { deploy.name } }
      return { web = new.web.service }
    end)
    old = lab:presented(lab.web.endpoints[1], deploy.name)
    first = { deploy.issue(lab) }
    assert.equal(0, deploy.assign(lab, first[1], "web").status)
  end)
  teardown(function() lab:close() end)

  it("has what each service presented before, and after", function()
    local list = records(2)
    assert.same({ "begun", "done" }, { list[1].result, list[2].result })
    assert.same({ "assign-services", tonumber(first[1]) }, { list[1].command, list[1].object })
    assert.same({ services = { web = { old } } }, list[2].before)
    assert.same({ services = { web = { first[2] } } }, list[2].after)
    assert.is_truthy(lab:run("audit").stdout:find(("web: %s -> %s"):format(old:sub(1, 8), first[2]:sub(1, 8)), 1, true))
  end)

  it("has one that was put back: the same before and after", function()
    local id = deploy.issue(lab)
    local _ <close> = deploy.change(lab, "web", { check = { "false" } })
    assert.equal(1, deploy.assign(lab, id, "web").status)
    local last = records(1)[1]
    assert.same({ "failed", 1, { services = { web = { first[2] } } } }, { last.result, last.status, last.before })
    assert.same(last.before, last.after)
    assert.equal(0, lab:run("assign-services", id, "--cancel").status)
  end)

  it("has what the next command recovered, also where that is check", function()
    local id, new = deploy.issue(lab)
    for round, expected in ipairs { "undone", "finished" } do
      kill_at(round == 1 and "switch" or "commit")
      assert.equal(9, deploy.assign(lab, id, "web").signal)
      assert(file.remove(lab.site_path .. "/lua/assignments.lua"))
      assert.is_truthy(lab:run("audit", id).stdout:find "assign%-services +%d+ +cut short")
      lab:run "check"
      local list = records(2)
      assert.same({ "assign-services", "begun" }, { list[1].command, list[1].result })
      assert.same({ "recovery", "done", tonumber(id), {} }, { list[2].command, list[2].result, list[2].object, list[2].arguments })
      assert.is_truthy(list[2].message:find(("cut short at '.*' was %s$"):format(expected)), list[2].message)
      if expected == "finished" then
        assert.same({ { services = { web = { first[2] } } }, { services = { web = { new } } } }, { list[2].before, list[2].after })
      end
    end
    assert.equal(0, lab:run("audit", "--verify").status)
  end)

  it("has what was only written: its files", function()
    local id, new = deploy.issue(lab)
    local _ <close> = deploy.change(lab, "web", { endpoints = {} })
    local result = deploy.assign(lab, id, "web", "--no-observe")
    assert.equal(0, result.status, result.stderr)
    assert.same({ services = { web = { new } } }, records(1)[1].after)
    assert.equal(1, #records(1)[1].before.services.web)
  end)
end)
