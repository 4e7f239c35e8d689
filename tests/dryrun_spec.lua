-- --dry-run: every command says what it would do, and who decided it, and does
-- nothing: no file, folder or lock appears or changes, no CA is told, no server
-- is reloaded.  A new script needs its line in `cases`.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local deploy = require "deploy"
local file = require "core.file"
local json = require "dkjson"
local lfs = require "lfs"
local process = require "core.process"

local home = package.searchpath("cli", package.path):match "^(.*)/lua/cli%.lua$"

-- A CA that leaves a trace of being spoken to.
local TRAP = [[
local function trace(context) assert(require("core.file").write(context.site_dir .. "/spoken-to", "")) end
return { summary = "leaves a trace",
  submit = function(_, _, context) trace(context) return { ticket = "t", issued = false } end,
  collect = function(_, _, context) if not context.dry_run then trace(context) end return nil, "not yet", "pending" end }
]]

local POLICY = [[
return {
  ca = function() return "trap" end,
  renew_at = function(certificate) return certificate.not_after - 86400 end,
}
]]

-- By command: how it is run (OUT is a folder), and what it says on standard
-- error, in this order.  reads: it never changes anything.
local cases = {
  adopt = {
    { "adopt", "imap", says = { "would make DIR/mail/current of ", "would have 'imap' name DIR/mail/current/: in ",
      "would check the configuration of 'imap' and reload it" } },
    { "adopt", "smtp", "--undo", says = { "would put back the configuration of 'smtp', check it and reload it" } },
  },
  ["assign-services"] = {
    { "assign-services", "2", "--services", "web", says = { "would write DIR/web/", "point current at it (now: ",
      "and reload nginx", "would observe https://127.0.0.1:" } },
    { "assign-services", "1", says = { "would record that; no service is touched" } },
    { "assign-services", "2", "--cancel", "--services", "web", says = { "would give up what 2 wants but has not on web" } },
  },
  audit = { { "audit", reads = true }, { "audit", "--verify", reads = true } },
  ["ca crl"] = { { "ca", "crl", "--out", "OUT/crl.pem", says = { "would make the revocation list of the local CA, as OUT/crl.pem" } } },
  ["ca init"] = { { "ca", "init", state = "none", says = { "would make a root and an issuing CA in STATE/ca",
    "would name them 'Contoso certwright root CA' and 'Contoso certwright issuing CA', after 'organization' in 'SITE/config.lua'" } } },
  ["ca root"] = { { "ca", "root", "--out", "OUT/root.pem", says = { "would write OUT/root.pem" } },
    { "ca", "root", "--out", "OUT/there", "--yes", says = { "would replace OUT/there" } },
    { "ca", "root", "--out", "OUT/there", status = 1, says = { "'OUT/there' exists already; say --yes to replace it" } } },
  cancel = { { "cancel", "3", says = { "would cancel request 3" } } },
  check = { { "check", reads = true }, { "check", "--revocation", reads = true } },
  ["complete-request"] = {
    { "complete-request", "--file", "OUT/3.pem", says = { "would have it renewed from TIME on (renew_at in 'SITE/policy.lua')",
      "would warn: ", "would complete request 3 with certificate HEX" } },
    { "complete-request", "1", "--file", "OUT/1.pem", says = { "would find the chain of 1 (HEX) anew" } },
    { "complete-request", "4", status = 3, says = { "not yet" } },
  },
  enroll = {
    { "enroll", "--domain", "x.test", "--services", "web", says = { "would make a key and a request for x.test, below STATE",
      "would run submit-request, to the CA 'trap' (decided by ca in 'SITE/policy.lua')", "would run complete-request",
      "would run assign-services, on web" } },
    { "enroll", "3", "--services", "web", says = { "would run submit-request", "would run complete-request",
      "would run assign-services" } },
  },
  export = {
    { "export", "1", "--out", "OUT/1.out", says = { "would export 1 as pem, ", "would write OUT/1.out" } },
    { "export", "2", "--form", "pfx", "--password-file", "OUT/password", "--out", "OUT/2.pfx",
      says = { "would export 2 as pfx, ", "would write OUT/2.pfx" } },
    { "export", "1", "--out", "OUT/there", status = 1, says = { "'OUT/there' exists already; say --yes to replace it" } },
  },
  help = { { "help", reads = true } },
  import = { { "import", "OUT/pair.pem", says = { "would import ", " with its key",
    "would have it renewed from TIME on (renew_at in 'SITE/policy.lua')" } } },
  list = { { "list", reads = true } },
  ["new-request"] = {
    { "new-request", "--domain", "x.test", "--out", "OUT/x.csr",
      says = { "would make a key and a request for x.test, below STATE", "would write OUT/x.csr" } },
    { "new-request", "--domain", "x.test", "--out", "OUT/there", status = 1,
      says = { "'OUT/there' exists already; say --yes to replace it" } },
    { "new-request", "--from", "1", "--reuse-key", says = { "would make a request for mail.lab.test, below STATE" } },
    { "new-request", "--self-signed", "--domain", "x.test", says = { "would make a key and a self-signed certificate for x.test",
      "would have it renewed when renew_at in 'SITE/policy.lua' says" } },
  },
  poll = { { "poll" } },
  remove = {
    { "remove", "2", says = { "would remove 2 and its key", "would delete STATE/keys/2.pem", "would delete STATE/requests/2.csr" } },
    { "remove", "3", says = { "would remove 3 and its key" } },
    { "remove", "1", status = 1, says = { "cannot remove 1: it is assigned to web" } },
  },
  revoke = { { "revoke", "2", says = { "would " } } },
  renew = { { "renew", "1", says = { "would " } }, { "renew" } },
  roles = { { "roles", reads = true } },
  services = { { "services", reads = true } },
  show = { { "show", "1", reads = true }, { "show", "1", "--revocation", reads = true } },
  ["submit-request"] = {
    { "submit-request", "3", says = { "would submit request 3 to the CA 'trap' (leaves a trace), which was chosen when the request was made" } },
    { "submit-request", "3", "--ca", "local", says = { "would submit request 3 to the CA 'local' ", "which --ca names" } },
  },
}

-- The commands that there are: "list", "ca init" ...
local function commands()
  local scripts = require "scripts"
  local context, list = { home = home, site_dir = home }, {}
  for _, name in ipairs(scripts.names(context)) do
    local script = assert(scripts.load(context, name))
    for command in pairs(script.commands or { [false] = true }) do
      list[#list + 1] = command and name .. " " .. command or name
    end
  end
  return list
end

describe("--dry-run", function()
  local lab, out, before, world

  local function done(...)
    local result = lab:run(...)
    assert.equal(0, result.status, result.stderr)
    return result
  end

  setup(function()
    lab = deploy.lab(function(new)
      new.web, new.mail = new:nginx { names = { deploy.name } }, new:dovecot { names = { deploy.name }, style = "none" }
      new.post = new:postfix { names = { deploy.name }, style = "none" }
      return { web = new.web.service, imap = new.mail.service, smtp = new.post.service }
    end)
    out = lab:folder "out"
    assert(lfs.touch(lab.post.folder .. "/conf/main.cf", os.time() - 10)) -- which Postfix does not read before
    done("adopt", "smtp")
    local first = deploy.issue(lab)
    assert.equal(0, deploy.assign(lab, first, "web").status)
    deploy.issue(lab, nil, "--exportable")
    assert(file.mkdirs(lab.site_path .. "/ca", 493))
    deploy.write(lab.site_path .. "/ca/trap.lua", TRAP)
    deploy.write(lab.site_path .. "/policy.lua", POLICY)
    lab:site { organization = { O = "Contoso" }, services = lab.services,
      cas = { ["local"] = { adapter = "local" }, internal = { adapter = "local" }, trap = { adapter = "trap" } } }
    done("new-request", "--domain", "three.test", "--out", out .. "/3.csr")
    done("new-request", "--domain", "four.test")
    assert.equal(3, lab:run("submit-request", "4").status)
    os.remove(lab.site_path .. "/spoken-to")
    done("export", "1", "--out", out .. "/1.pem")
    deploy.write(out .. "/there", "mine")
    deploy.write(out .. "/password", "secret\n")
    deploy.tool({ "sh", "-euc", [[cd "$1"
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 9 -subj /CN=CA
      openssl x509 -req -in 3.csr -CA ca.pem -CAkey ca.key -days 8 -out 3.pem -copy_extensions copy
      openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout pair.key -out pair.pem -days 9 \
        -subj /CN=pair.test -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:pair.test
      cat pair.key >>pair.pem]], "sh", out })
    before = world()
  end)
  teardown(function() lab:close() end)

  -- Everything that a command could have changed, as one text.  Reading a store
  -- makes and removes files beside it: a folder's time says nothing.
  function world()
    local text = deploy.tool { "sh", "-euc", [[
      for path in "$@"; do
        [ -e "$path" ] || { echo "no $path"; continue; }
        find "$path" \( -type d -printf '%p %M %u %g\n' \) -o -printf '%p %M %u %g %s %T@ %l\n'
        find "$path" -type f -exec sha256sum {} +
      done | sort]], "sh", lab.state_path, lab.site_path, out, lab.web.service.dir, lab.mail.service.dir, lab.post.service.dir,
      lab.web.folder .. "/nginx.conf", lab.web.folder .. "/conf.d", lab.post.folder .. "/conf", lab.mail.folder .. "/local.conf" }
    local workers = assert(process.run { "pgrep", "-P", assert(file.read(lab.web.folder .. "/nginx.pid"):match "%d+") })
    local reloads = select(2, (lab.mail:log() .. lab.post:log()):gsub("reload", ""))
    return ("%s%s%d reloads\n%s"):format(text, workers.stdout, reloads, deploy.tool { "ls", "-A", lab.path })
  end

  -- The lines of the world that went (-) or came (+) since it was asked last.
  local function changes()
    local now, list, lines = world(), {}, {}
    for line in before:gmatch "[^\n]+" do lines[line] = true end
    for line in now:gmatch "[^\n]+" do
      if not lines[line] then list[#list + 1] = "+ " .. line end
      lines[line] = nil
    end
    for line in pairs(lines) do list[#list + 1] = "- " .. line end
    before = now
    return list
  end

  local function shown(text)
    text = text:gsub("%d+%-%d%d%-%d%dT%d%d:%d%d:%d%dZ", "TIME"):gsub("%f[%x]" .. ("%x"):rep(64) .. "%f[%X]", "HEX")
    for _, pair in ipairs { { out, "OUT" }, { lab.state_path, "STATE" }, { lab.path .. "/none", "STATE" }, { lab.site_path, "SITE" },
      { lab.web.service.dir:match "^(.*)/", "DIR" } } do
      text = text:gsub(pair[1]:gsub("%p", "%%%0"), pair[2])
    end
    return text
  end

  local function argv_of(case, ...)
    local argv = { "--state", case.state and lab.path .. "/" .. case.state or lab.state_path, "--json", "--dry-run", ... }
    for _, word in ipairs(case) do argv[#argv + 1] = (word:gsub("^OUT", out)) end
    return argv
  end

  local function run(case)
    local result = lab:run(table.unpack(argv_of(case)))
    assert.equal(case.status or 0, result.status, ("%s: %s"):format(table.concat(case, " "), result.stderr))
    return result
  end

  it("is known of every command", function()
    for _, command in ipairs(commands()) do assert.is_truthy(cases[command], "no case for " .. command) end
  end)

  for _, command in ipairs(commands()) do
    it(("of %s changes nothing, and says what it would do, in JSON as well"):format(command), function()
      for _, case in ipairs(cases[command] or {}) do
        local result = run(case)
        local said, at = shown(result.stderr), 1
        for _, text in ipairs(case.says or {}) do
          local _, last = said:find(text, at, true)
          at = assert(last, ("no %q (in this order) in:\n%s"):format(text, said))
        end
        assert.is_nil(case.reads and said:find "would ", said)
        local value = assert(json.decode(result.stdout), result.stdout)
        local told = {}
        for line in result.stderr:gmatch "%f[^\n\0](would [^\n]*)" do told[#told + 1] = line end
        if case.says and not case.status then
          assert.is_true(#told > 0, said)
          for i, line in ipairs(told) do assert.equal(line, value.would[i]:match "^[^\n]*") end
        end
        assert.same({}, changes(), table.concat(case, " "))
      end
    end)

    it(("of %s makes nothing where there is nothing"):format(command), function()
      local case = assert(cases[command], "no case for " .. command)[1]
      local nowhere = lab:folder "nowhere"
      local argv = argv_of(case, "--site", nowhere .. "/site")
      argv[2] = nowhere .. "/state"
      lab:run(table.unpack(argv))
      assert.same("", deploy.tool { "ls", "-A", nowhere })
      assert(file.remove(nowhere))
    end)
  end
end)
