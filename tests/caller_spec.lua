-- caller.lua: a role user who wants more than the role: root's rights, root's
-- files, or a record in another's name.  Sudo lets any arguments pass here, and
-- eve has the highest role, so that only certwright's own door is left.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local Realm = dofile(here .. "/support/realm.lua")
local json = require "dkjson"

local missing = Realm.missing()
if missing then
  describe("a role user", function() pending(missing) end)
  return
end

local SECRET = "-----BEGIN NOTHING-----\nthe secret of root\n-----END NOTHING-----\n"

-- A library that leaves a file where it is loaded with rights to do so.
local LIBRARY = [[
#include <stdio.h>
__attribute__((constructor)) static void loaded(void) {
  FILE *file = fopen("/var/lib/loaded", "w");
  if (file != NULL)
    fclose(file);
}
]]

describe("a role user", function()
  local realm

  setup(function()
    realm = Realm.new()
    realm:user("eve", "pki")
    realm:user("mal", "strangers")
    realm:write("/home/eve/evil.c", LIBRARY, "eve")
    realm:must("gcc", "-shared", "-fPIC", "-o", "/home/eve/evil.so", "/home/eve/evil.c")
    realm:write("/home/eve/openssl.cnf", "openssl_conf = init\n[init]\nproviders = list\n[list]\nevil = evil\n"
      .. "[evil]\nmodule = /home/eve/evil.so\nactivate = 1\n", "eve")
    realm:write("/etc/secret", SECRET, "root", "600")
    realm:must("mkdir", "-m", "700", "/etc/closed")
    realm:write("/etc/closed/there", SECRET)
  end)

  teardown(function() realm:close() end)

  before_each(function()
    realm:must("rm", "-rf", "/var/lib/certwright", "/etc/certwright", "/var/lib/loaded")
    realm:site 'return { roles = { ["organization-management"] = "pki" } }'
    realm:sudoers("ALL ALL = (root) /usr/local/bin/certwright\n")
  end)

  local function done(...)
    local result = realm:sudo("eve", ...)
    assert.equal(0, result.status, result.stderr)
    return result.stdout
  end

  local function parsed(...)
    return json.decode(done("--json", ...), 1, json.null)
  end

  -- sudo certwright ... fails and says so, and nothing of root's secret.
  local function fails(message, ...)
    local result = realm:sudo("eve", ...)
    assert.same({ 1, "certwright: " .. message .. "\n" }, { result.status, result.stderr })
    assert.is_nil((result.stdout .. result.stderr):find("secret of root", 1, true))
  end

  -- A shell's line of eve's.
  local function eve(line, ...)
    return realm:as("eve", line, ..., { cwd = "/home/eve", timeout = 60 })
  end

  local function exists(path)
    return realm:run("test", "-e", path).status == 0
  end

  describe("has no say by the environment:", function()
    -- A site whose sudoers file keeps far too much.
    before_each(function()
      realm:write("/etc/sudoers.d/01-kept", 'Defaults env_keep += "OPENSSL_* LUA_* XDG_* SSL_* *_proxy HOME TMPDIR '
        .. 'SQLITE_TMPDIR X LANG LC_ALL LD_LIBRARY_PATH TZ SUDO_UID SUDO_USER"\n', "root", "440")
    end)
    after_each(function() realm:must("rm", "/etc/sudoers.d/01-kept") end)

    it("what sudo hands over is not read", function()
      realm:run("env", "OPENSSL_CONF=/home/eve/openssl.cnf", "certwright", "new-request", "--domain", "a.test")
      assert.is_true(exists "/var/lib/loaded", "the library does nothing: this test could not fail")
      realm:must("rm", "-rf", "/var/lib/loaded", "/var/lib/certwright")
      realm:write("/home/eve/.config/certwright/scripts/list.lua", "io.open('/var/lib/loaded', 'w')", "eve")
      realm:write("/home/eve/.config/certwright/config.lua", "return { key = 'rsa:2048' }", "eve")
      local result = eve([[export OPENSSL_CONF=/home/eve/openssl.cnf OPENSSL_MODULES=/home/eve \
        LUA_INIT='io.open("/var/lib/loaded", "w")' LUA_INIT_5_4='io.open("/var/lib/loaded", "w")' \
        LUA_PATH='/home/eve/?.lua' LUA_CPATH='/home/eve/evil.so;/home/eve/?.so' HOME=/home/eve TMPDIR=/home/eve \
        SQLITE_TMPDIR=/home/eve XDG_CONFIG_HOME=/home/eve/.config XDG_DATA_HOME=/home/eve/.local/share \
        SSL_CERT_FILE=/home/eve/x SSL_CERT_DIR=/home/eve https_proxy=http://localhost:1
        exec sudo -n /usr/local/bin/certwright new-request --domain a.test --json]])
      assert.equal(0, result.status, result.stderr)
      assert.equal("ec:P-256", json.decode(result.stdout).key)
      assert.equal(1, #parsed "list")
      assert.is_false(exists "/var/lib/loaded")
      assert.is_false(exists "/home/eve/.local/share")
      realm:must("rm", "-r", "/home/eve/.config")
    end)

    it("nothing of it is left but who called and what a terminal needs", function()
      realm:write("/etc/certwright/scripts/environment.lua", [[
        return { summary = "says what there is", options = {}, text = function(result) return result end,
          run = function()
            local names = {}
            for _, name in ipairs { "SUDO_UID", "SUDO_USER", "TERM", "LANG", "PATH", "HOME", "MAIL", "SHELL", "USER", "X",
              "LC_ALL", "TZ", "SUDO_COMMAND", "LD_LIBRARY_PATH" } do
              names[#names + 1] = os.getenv(name) and name
            end
            return table.concat(names, " ")
          end }]])
      local result = eve "X=1 LANG=C.UTF-8 LC_ALL=/home/eve/x LD_LIBRARY_PATH=/x TZ=UTC exec sudo -n certwright environment"
      assert.same({ 0, "SUDO_UID SUDO_USER TERM LANG\n" }, { result.status, result.stdout }, result.stderr)
    end)

    it("the sudoers file lets no library in that is to be preloaded, whatever the site keeps", function()
      realm:write("/etc/sudoers.d/01-kept", 'Defaults env_keep += "LD_PRELOAD"\n', "root", "440")
      realm:sudoers()
      local result = eve "LD_PRELOAD=/home/eve/evil.so exec sudo -n certwright list"
      assert.same({ 0, false }, { result.status, exists "/var/lib/loaded" })
      result = eve "exec sudo -n LD_PRELOAD=/home/eve/evil.so certwright list"
      assert.equal("sudo: sorry, you are not allowed to set the following environment variables: LD_PRELOAD\n",
        result.stderr)
      assert.is_false(exists "/var/lib/loaded")
    end)
  end)

  describe("is who sudo says:", function()
    it("SUDO_UID and SUDO_USER cannot be given", function()
      realm:write("/etc/sudoers.d/01-kept", 'Defaults env_keep += "SUDO_UID SUDO_USER SUDO_GID"\n', "root", "440")
      local result = eve "SUDO_UID=0 SUDO_USER=root SUDO_GID=0 exec sudo -n certwright -e 'print(1)'"
      assert.same({ 1, "", "certwright: 'eve' may not use -e through sudo: it is root's alone\n" },
        { result.status, result.stdout, result.stderr })
      eve "SUDO_UID=0 SUDO_USER=root exec sudo -n certwright new-request --domain a.test"
      realm:must("rm", "/etc/sudoers.d/01-kept")
      assert.is_truthy(done("show", "1"):find("  eve (sudo)  ", 1, true))
    end)

    it("also where the user's name is one that a domain gave", function()
      realm:must("useradd", "--badname", "-m", "-G", "pki", "corp\\eve+1")
      local result = realm:as("corp\\eve+1", "exec sudo -n certwright new-request --domain a.test")
      assert.equal(0, result.status, result.stderr)
      assert.is_truthy(done("show", "1"):find("  corp\\eve+1 (sudo)  ", 1, true))
      realm:must("userdel", "-f", "-r", "corp\\eve+1")
    end)

    it("and without sudo has no rights by claiming them", function()
      realm:must("certwright", "new-request", "--domain", "a.test")
      local result = eve "SUDO_UID=0 SUDO_USER=root exec certwright list --state /var/lib/certwright"
      assert.same({ 1, "", "certwright: cannot look at '/var/lib/certwright/store.db': Permission denied\n" },
        { result.status, result.stdout, result.stderr })
      assert.not_equal(0, realm:as("mal", "SUDO_UID=0 exec certwright new-request --domain a.test --state /var/lib/x").status)
      assert.is_false(exists "/var/lib/x")
    end)

    it("where the system does not know them, or sudo cannot be asked, nobody may", function()
      local cure = "; in a shell of root's own: unset SUDO_UID\n"
      for _, uid in ipairs { "4294967295", "54321", "x", "-1", "1e3", "" } do
        local result = realm:run("env", "SUDO_UID=" .. uid, "certwright", "-e", "print(1)")
        assert.same({ 1, "", "certwright: called through sudo by a user whom the system does not know" .. cure },
          { result.status, result.stdout, result.stderr })
      end
      realm:must("mount", "--bind", "/dev/null", "/usr/bin/sudo")
      local result = realm:run("sh", "-c", "SUDO_UID=$(id -u eve) certwright list")
      realm:must("umount", "/usr/bin/sudo")
      assert.same({ 1, "", "certwright: cannot ask sudo what 'eve' may do: cannot run 'sudo': Permission denied" .. cure },
        { result.status, result.stdout, result.stderr })
      assert.equal("1\n", realm:must("env", "SUDO_UID=0", "certwright", "-e", "print(1)"))
    end)

    it("nor is everything allowed who may do everything as somebody else than root", function()
      realm:sudoers("Defaults runas_default = mal\neve ALL = (mal) ALL\n", "mal")
      local whoami, result = eve "sudo -n whoami", eve "sudo -n -u root certwright -e 'print(1)'"
      realm:must("rm", "/etc/sudoers.d/mal")
      assert.equal("mal\n", whoami.stdout)
      assert.same({ 1, "", "certwright: 'eve' may not use -e through sudo: it is root's alone\n" },
        { result.status, result.stdout, result.stderr })
    end)

    it("a program that is set-user-ID does nothing", function()
      realm:must("sh", "-c", "cp -R /usr/local/bin /usr/local/suid && cp -R /usr/local/share/certwright/* /usr/local/suid "
        .. "&& chmod 4755 /usr/local/suid/certwright")
      local result = realm:as("mal", "exec /usr/local/suid/certwright list")
      assert.same({ 1, "", "certwright: refused to run as root for another user but through sudo: chmod u-s\n" },
        { result.status, result.stdout, result.stderr })
    end)
  end)

  describe("brings no code along:", function()
    it("neither by the folder where they stand, nor as a file, nor at a prompt", function()
      local evil = "io.open('/var/lib/loaded', 'w')"
      for _, name in ipairs { "lua/cli.lua", "lua/loader.lua", "lua/list.lua", "scripts/list.lua", "list.lua", "core.lua",
        "core/host.lua", "argparse.lua", "lfs.lua", "config.lua", "list" } do
        realm:write("/home/eve/cwd/" .. name, evil, "eve", "755")
      end
      local result = realm:sudo("eve", "list", { cwd = "/home/eve/cwd" })
      assert.same({ 0, "" }, { result.status, result.stderr })
      for _, name in ipairs { "./list", "/home/eve/cwd/list.lua", "list.lua", "../cwd/list", "scripts/list.lua", "//list" } do
        result = realm:sudo("eve", name, { cwd = "/home/eve/cwd" })
        assert.same({ 1, "certwright: 'eve' may not use FILE through sudo: it is root's alone\n" },
          { result.status, result.stderr })
      end
      for _, name in ipairs { "..", ".", "a b", "list --state x", "workflow", "%2e%2e", "" } do
        result = realm:sudo("eve", name, { cwd = "/home/eve/cwd" })
        assert.same({ 2, ("certwright: there is no command '%s'; see certwright help\n"):format(name) },
          { result.status, result.stderr })
      end
      result = eve [[cd cwd && script -qec "sudo -n certwright" /dev/null </dev/null]]
      assert.is_truthy(result.stdout:find("'eve' may not use the prompt through", 1, true), result.stdout)
      assert.is_false(exists "/var/lib/loaded")
    end)

    it("a site script that others may write is run for nobody", function()
      realm:write("/etc/certwright/scripts/list.lua", "io.open('/var/lib/loaded', 'w')", "root:pki", "664")
      fails("refused to run code from '/etc/certwright/scripts/list.lua': owner 0, mode 0664: others could have written "
        .. "it; to mend it: chmod go-w '/etc/certwright/scripts/list.lua'", "list")
      realm:must("chown", "eve", "/etc/certwright/config.lua")
      local uid = realm:must("id", "-u", "eve"):match "%d+"
      fails(("refused to run code from '/etc/certwright/config.lua': owner %s, mode 0644: others could have written "
        .. "it; to mend it: chown 0 '/etc/certwright/config.lua'"):format(uid), "show", "1")
      assert.is_false(exists "/var/lib/loaded")
    end)

    it("the programs that are run do not begin where the user stands", function()
      realm:write("/etc/certwright/scripts/where.lua", [[
        return { summary = "says where", options = {}, text = function(result) return result end,
          run = function() return require("core.process").run({ "pwd" }).stdout end }]])
      assert.equal("/\n", done "where")
      assert.equal("/home/eve\n", realm:must("env", "-C", "/home/eve", "certwright", "where"))
    end)
  end)

  describe("reads no file of root's:", function()
    local WAYS = {
      ["--file"] = function(path) return "complete-request", "--file", path end,
      ["--password-file"] = function(path) return "complete-request", "--file", "-", "--password-file", path end,
      ["import's FILE"] = function(path) return "import", path end,
      ["--key"] = function(path) return "import", "certificate.pem", "--key", path end,
      ["import's --password-file"] = function(path) return "import", "certificate.pem", "--password-file", path end,
      ["export's --password-file"] = function(path)
        return "export", "1", "--form", "pfx", "--out", "x.pfx", "--password-file", path
      end,
    }

    before_each(function()
      realm:must("sh", "-c", "certwright new-request --domain a.test --self-signed --exportable && certwright export 1 "
        .. ">/home/eve/certificate.pem")
    end)

    for name, way in pairs(WAYS) do
      it("as " .. name, function()
        eve "rm -f link hard folder; ln -s /etc/secret link; ln -s /etc/closed folder"
        local paths = { "/etc/secret", "link", "/etc/closed/nothing" }
        if name == "--file" then -- one way with all the paths
          paths = { "/etc/secret", "/etc/closed/there", "/etc/closed/nothing", "/home/eve/link", "folder/there",
            "/proc/self/root/etc/secret", "/var/lib/certwright/keys/1.pem", "/var/lib/certwright/store.db",
            "/proc/self/environ", "/proc/self/mem" }
        end
        for _, path in ipairs(paths) do
          fails(("cannot read '%s': Permission denied"):format(path), way(path))
        end
      end)
    end

    it("nor one that a hard link leads to, or a pipe that never speaks", function()
      realm:must("sh", "-c", "mkdir -p /var/lib/both/eve && chmod 755 /var/lib/both && cp /etc/secret /var/lib/both/secret && "
        .. "chmod 600 /var/lib/both/secret && ln /var/lib/both/secret /var/lib/both/eve/hard && chown eve /var/lib/both/eve")
      fails("cannot read '/var/lib/both/eve/hard': Permission denied", "import", "/var/lib/both/eve/hard")
      eve "rm -f pipe; mkfifo pipe"
      for _, name in ipairs { "--file", "--password-file", "import's FILE", "--key" } do
        fails("cannot read 'pipe': not a regular file", WAYS[name]("pipe"))
      end
    end)

    it("nor where a process of root's stands, or what only root may ask the system", function()
      realm:must("sh", "-c", "mkdir -p -m 700 /var/lib/shut && mkdir -p /var/lib/shut/in && cp /home/eve/certificate.pem "
        .. "/var/lib/shut/in && chmod 755 /var/lib/shut/in && chmod 644 /var/lib/shut/in/certificate.pem")
      local stands = ("/proc/%s/cwd/certificate.pem"):format(realm:must("sh", "-c",
        "cd /var/lib/shut/in && { sleep 60 >/dev/null 2>&1 & echo $!; }"):match "%d+")
      fails(("cannot read '%s': Permission denied"):format(stands), "import", stands)
      realm:must("kill", stands:match "%d+")
      local key = "/proc/sys/net/ipv4/tcp_fastopen_key" -- 0600, and its own idea of who root is
      if exists(key) then
        fails(("cannot read '%s': Permission denied"):format(key), "export", "1", "--form", "pfx", "--out", "x.pfx",
          "--password-file", key)
      end
    end)

    it("but their own, and what comes on standard input", function()
      eve "chmod 600 certificate.pem || { cp certificate.pem c && mv -f c certificate.pem && chmod 600 certificate.pem; }"
      assert.equal(1, parsed("import", "certificate.pem").id)
      local result = eve "sudo -n certwright import - --json < certificate.pem"
      assert.equal(1, json.decode(result.stdout).id)
    end)
  end)

  describe("writes no file of root's:", function()
    local WAYS = {
      ["new-request"] = function(path) return "new-request", "--domain", "b.test", "--out", path end,
      ["export"] = function(path) return "export", "1", "--out", path end,
      ["ca root"] = function(path) return "ca", "root", "--out", path end,
    }

    before_each(function()
      realm:must("certwright", "new-request", "--domain", "a.test", "--self-signed")
      realm:must("certwright", "ca", "init")
    end)

    for name, way in pairs(WAYS) do
      it("by --out of " .. name, function()
        local denied, there = "cannot write '%s': Permission denied", "'%s' exists already; say --yes to replace it"
        local function try(message, path, ...)
          local arguments = { way(path) }
          table.move({ ... }, 1, select("#", ...), #arguments + 1, arguments)
          fails(message:format(path), table.unpack(arguments))
        end
        eve "rm -f link folder hard out; ln -s /etc/secret link; ln -s /etc/closed folder; ln -s /home/eve/new dangling"
        for _, path in ipairs(name ~= "export" and { "/etc/new", "/etc/closed/there" } or { "/etc/new", "/etc/closed/new",
          "/etc/closed/there", "folder/new", "/var/lib/certwright/keys/99.pem", "/proc/self/root/etc/new" }) do
          try(denied, path)
          try(denied, path, "--yes")
        end
        for _, path in ipairs { "/etc/closed/there", "/etc/closed/nothing" } do
          try("cannot look at '%s': Permission denied", path, "--dry-run", "--quiet")
        end
        try(name == "new-request" and there or denied, "/etc/secret") -- whose folder anybody may read
        try(denied, "/etc/secret", "--yes")
        for _, path in ipairs { "link", "dangling" } do
          try(there, path)
          try("cannot write '%s': not a regular file", path, "--yes")
        end
        assert.equal(SECRET, realm:read "/etc/secret")
        assert.equal(SECRET, realm:read "/etc/closed/there")
        for _, path in ipairs { "/etc/new", "/etc/closed/new", "/var/lib/certwright/keys/99.pem", "/home/eve/new" } do
          assert.is_false(exists(path), path)
        end
        done(way "out")
        assert.equal("eve eve 644\n", realm:must("stat", "-c", "%U %G %a", "/home/eve/out"))
        -- a name of two files is made anew, not written through
        eve "ln out hard"
        local arguments = { way "hard" }
        arguments[#arguments + 1] = "--yes"
        local before = realm:read "/home/eve/out"
        done(table.unpack(arguments))
        assert.equal(before, realm:read "/home/eve/out")
        assert.equal("1\n1\n", realm:must("stat", "-c", "%h", "/home/eve/out", "/home/eve/hard"))
      end)
    end
  end)

  it("leaves nothing half done by limits, umask, or closed streams", function()
    local id = 0
    for _, line in ipairs {
      "umask 0777; exec sudo -n certwright new-request --domain a.test --out out1",
      "ulimit -n 24; umask 0; exec sudo -n certwright new-request --domain a.test --out out2",
      "ulimit -t 9; ulimit -s 1024; exec sudo -n certwright new-request --domain a.test --out out3",
      "exec sudo -n certwright new-request --domain a.test --out out4 <&- >/dev/null 2>&-",
    } do
      local result = eve(line)
      assert.equal(0, result.status, line .. ": " .. result.stderr)
      id = id + 1
      for folder, name in pairs { keys = "pem", requests = "csr" } do
        assert.equal("root 600\n", realm:must("stat", "-c", "%U %a", ("/var/lib/certwright/%s/%d.%s"):format(folder, id, name)))
      end
      assert.equal(realm:read(("/var/lib/certwright/requests/%d.csr"):format(id)), realm:read("/home/eve/out" .. id))
      assert.equal("eve 644\n", realm:must("stat", "-c", "%U %a", "/home/eve/out" .. id))
    end
    local result = eve "exec sudo -n certwright list >&-"
    assert.is_truthy(result.stderr:find("cannot write the result", 1, true), result.stderr)
    -- Of files: lifted where root may, else refused as on a full disk.
    for _, size in ipairs { 0, 1, 8, 64, 200 } do
      result = eve(("ulimit -f %d; exec sudo -n certwright new-request --domain a.test --out limited%d"):format(size, size))
      local list = parsed "list"
      if result.status == 0 then
        id = id + 1
      else
        assert.equal(1, result.status)
        assert.is_truthy(result.stderr:find("File too large", 1, true) or result.stderr:find("full", 1, true), result.stderr)
        assert.is_false(exists("/home/eve/limited" .. size))
      end
      assert.equal(id, #list)
    end
    assert.equal(("%d\n%d\n"):format(id, id),
      realm:must("sh", "-c", "cd /var/lib/certwright; ls keys | wc -l; ls requests | wc -l"))
  end)

  it("hands over no limit, umask or blocked signal that root need not have", function()
    realm:write("/etc/certwright/scripts/limits.lua", [[
      return { summary = "says what there is", options = {}, text = function(result) return result end,
        run = function()
          local file = require "core.file"
          local status, limits = file.read "/proc/self/status", file.read "/proc/self/limits"
          local list = { status:match "\nUmask:%s*(%d+)", status:match "\nSigBlk:%s*0*(%x+)\n" }
          for _, name in ipairs { "cpu time", "file size", "open files", "stack size" } do
            list[#list + 1] = limits:match("\nMax " .. name .. "%s+(%w+)")
          end
          return table.concat(list, " ")
        end }]])
    local result = eve [[umask 0777; ulimit -S -n 24; ulimit -S -f 100; ulimit -S -t 9; ulimit -S -s 1024
      exec env --block-signal=TERM --block-signal=CHLD sudo -n certwright limits]]
    assert.same({ 0, "0022 0 unlimited unlimited 1024 8388608\n" }, { result.status, result.stdout },
      result.stderr)
  end)

  it("reaches nothing by an id or a name that is more than that", function()
    realm:must("certwright", "new-request", "--domain", "a.test")
    local commands = { "show", "cancel", "remove", "export", "complete-request" }
    for i, word in ipairs { "1/../2", "../keys/1", "1 --state /x", "%s%n", "'; DROP TABLE objects; --", "1\n2", "01x",
      "99999999999999999999", "1.0", "0x1" } do
      local result = realm:sudo("eve", commands[i % #commands + 1], word)
      assert.is_true(result.status == 1 or result.status == 2, word)
      assert.equal(1, select(2, result.stderr:gsub("\n", "")), "not escaped: " .. result.stderr)
    end
    for _, word in ipairs { "-1", "--state=/x", "-e" } do
      assert.is_true(realm:sudo("eve", "remove", word).status ~= 0)
    end
    assert.equal("created", parsed("show", "1").state)
    assert.is_false(exists "/x")
  end)

  it("shows root no more than text", function()
    for _, name in ipairs { "\27[2J", "a\nb", "-x", "../x", "a\rb", "--yes" } do
      local result = realm:sudo("eve", "new-request", "--domain", "a.test", "--name=" .. name)
      assert.is_true(result.status == 2, name)
      assert.is_nil(result.stderr:find "[\27\r]")
    end
    local override = "a\u{202E}b"
    for _, words in ipairs { { "--name", override }, { "--organization", override }, { "--domain", override } } do
      local result = realm:sudo("eve", "new-request", "--domain", "a.test", table.unpack(words))
      assert.is_nil(result.stderr:find("\u{202E}", 1, true))
    end
    for _, line in ipairs { "list", "show 1", "audit" } do
      local shown = realm:run("sh", "-c", "certwright " .. line)
      assert.is_nil((shown.stdout .. shown.stderr):find("\u{202E}", 1, true))
    end
    realm:sudo("eve", "show", "\27]0;owned\7")
    assert.is_nil(realm:read("/var/lib/certwright/audit.jsonl"):find "[\27\7]")
  end)
end)
