-- Roles: a user of each, through a real sudo, in a realm of their own.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local Desk = dofile(here .. "/support/desk.lua")
local Lab = dofile(here .. "/support/lab.lua")
local Realm = dofile(here .. "/support/realm.lua")
local json = require "dkjson"

local missing = Realm.missing()
if missing then
  describe("roles", function() pending(missing) end)
  return
end

local ROLES = [[roles = { auditor = "auditors", requester = { "certs", "helpdesk" }, operator = "mailops",
  ["organization-management"] = "pki" }]]

describe("roles", function()
  local realm, desk

  -- A site with these roles, and more settings.
  local function site(more, roles)
    realm:site(("return { %s, %s }"):format(roles or ROLES, more or ""))
  end

  setup(function()
    realm, desk = Realm.new(), Desk.new "roles"
    realm:user("aud", "auditors")
    realm:user("req", "helpdesk")
    realm:user("ope", "mailops", "auditors")
    realm:user("org", "pki")
    realm:user("out", "strangers")
    realm:user("boss", "sudo")
    realm:user("both", "certs", "sudo")
    realm:run("groupadd", "certs")
    site()
  end)

  teardown(function()
    realm:close()
    desk:close()
  end)

  before_each(function()
    realm:must("rm", "-rf", "/var/lib/certwright", "/etc/certwright")
    site()
    realm:sudoers()
    realm:must("rm", "-f", "/etc/sudoers.d/loose")
  end)

  -- Lets everybody run certwright with any arguments: only its own door is left.
  local function loosen()
    realm:sudoers("ALL ALL = (root) /usr/local/bin/certwright\n", "loose")
  end

  -- What sudo certwright ... printed, which has to succeed.
  local function done(user, ...)
    local result = realm:sudo(user, ...)
    assert.equal(0, result.status, result.stderr)
    return result.stdout
  end

  local function parsed(user, ...)
    local args = { ... }
    local place = type(args[#args]) == "table" and #args or #args + 1
    table.insert(args, place, "--json")
    return json.decode(done(user, table.unpack(args)), 1, json.null)
  end

  -- The lines of the audit record.
  local function recorded()
    local list = {}
    for line in realm:read "/var/lib/certwright/audit.jsonl":gmatch "[^\n]+" do list[#list + 1] = json.decode(line) end
    return list
  end

  -- sudo certwright ..., which certwright has to refuse, and to put on record.
  local function refused(message, user, ...)
    local result = realm:sudo(user, ...)
    assert.same({ 1, "", "certwright: " .. message .. "\n" }, { result.status, result.stdout, result.stderr })
    local lines = recorded()
    local last = lines[#lines]
    assert.same({ "refused", "denied", message, user, 0 },
      { last.result, last.code, last.message, last.who.sudo_user, last.who.uid })
    return last
  end

  -- The same, which sudo has to refuse before certwright runs.
  local function barred(user, ...)
    local result = realm:sudo(user, ...)
    assert.equal(1, result.status)
    assert.is_truthy(result.stderr:find(("Sorry, user %s is not allowed to execute"):format(user), 1, true),
      result.stderr)
  end

  local function role(name, user, needed, has)
    return ("'%s' may not run %s: it takes the role %s, and '%s' has the role %s"):format(user, name, needed, user, has)
  end

  -- The object 1: a request, completed by the CA outside.
  local function completed(...)
    realm:must("certwright", "new-request", "--domain", "www.test", "--out", "/var/lib/1.csr", "--yes", ...)
    local csr = desk:write("roles.csr", realm:read "/var/lib/1.csr")
    return desk:sign(csr)
  end

  it("are printed as a sudoers file that visudo accepts, with just each group's scripts", function()
    local said, text = realm:sudoers()
    assert.equal("/etc/sudoers.d/certwright: parsed OK\n", said)
    local lists = {}
    for alias, body in text:gmatch "Cmnd_Alias CERTWRIGHT_(%u[%u_]*) = \\\n(.-)\n\n" do
      lists[alias] = {}
      for name in body:gmatch "/usr/local/bin/certwright (%S+) %*" do table.insert(lists[alias], name) end
      for line in body:gmatch "[^\n]+" do
        assert.is_truthy(line:match "^    /usr/local/bin/certwright ([%w-]+), /usr/local/bin/certwright ([%w-]+) %*,? ?\\?$",
          line)
      end
    end
    local json_ = json.decode(realm:must("certwright", "roles", "--json"))
    for _, entry in ipairs(json_) do
      assert.same(entry.commands, lists[entry.role:upper():gsub("-", "_")])
    end
    assert.is_truthy(text:find('\n"%auditors" ALL = (root) NOSETENV: CERTWRIGHT_AUDITOR\n', 1, true))
    assert.is_truthy(text:find('\n"%certs" ALL = (root) NOSETENV: CERTWRIGHT_AUDITOR, CERTWRIGHT_REQUESTER\n', 1, true))
    assert.is_truthy(text:find('\n"%pki" ALL = (root) NOSETENV: CERTWRIGHT_AUDITOR, CERTWRIGHT_REQUESTER, '
      .. 'CERTWRIGHT_OPERATOR, CERTWRIGHT_ORGANIZATION_MANAGEMENT\n', 1, true))
    assert.equal(text, parsed("aud", "roles", "--sudoers").sudoers)
  end)

  it("are taken as the README has them", function()
    local readme = Desk:read(here .. "/../README.md")
    realm:site(assert(readme:match "\n## Who may do what\n.-\n```lua\n(.-)\n```"))
    for _, group in ipairs { "audit", "helpdesk", "mailops", "webops", "pki" } do realm:must("groupadd", "-f", group) end
    local line = assert(readme:match "\n(certwright roles %-%-sudoers > [^\n]+)\n")
    assert.equal("sudoers: parsed OK\n", realm:must("sh", "-c", "cd /var/lib && " .. line))
    assert.equal("root 440\n", realm:must("stat", "-c", "%U %a", "/etc/sudoers.d/certwright"))
    assert.equal("[]\n", done("req", "list", "--json"))
    assert.is_truthy(done("req", "roles"):find("\nrequester                groups: helpdesk (yours)\n", 1, true))
    realm:must("groupdel", "audit")
  end)

  it("auditor: reads, and nothing else", function()
    realm:must("certwright", "new-request", "--domain", "www.test", "--self-signed")
    realm:must("certwright", "ca", "init")
    local before = recorded()
    assert.equal("www.test", parsed("aud", "list")[1].common_name)
    assert.equal("www.test", parsed("aud", "show", "1").common_name)
    assert.is_truthy(done("aud", "export", "1"):find "^%-%-%-%-%-BEGIN CERTIFICATE")
    assert.is_truthy(done("aud", "ca", "root"):find "^%-%-%-%-%-BEGIN CERTIFICATE")
    assert.is_truthy(done("aud", "help"):find("assign-services", 1, true))
    assert.is_truthy(done("aud", "services", "--help"):find("This is /usr/local/share/certwright/scripts/services.lua", 1, true))
    done("aud", "check")
    assert.same(before, recorded())
    for _, name in ipairs { "new-request", "complete-request", "assign-services", "remove", "import", "adopt" } do
      barred("aud", name)
      barred("aud", name, "1", "--json")
    end
    barred("aud")
    barred("aud", "-e", "print(1)")
    barred("aud", "--json", "list")
  end)

  it("auditor: is stopped by certwright, too, where sudo lets more pass", function()
    realm:must("certwright", "new-request", "--domain", "www.test", "--exportable", "--self-signed")
    loosen()
    local last = refused(role("new-request", "aud", "requester", "auditor"), "aud", "new-request", "--domain", "b.test")
    assert.same({ "new-request", { "--domain", "b.test" } }, { last.command, last.arguments })
    refused(role("ca init", "aud", "organization-management", "auditor"), "aud", "ca", "init")
    refused(role("remove", "aud", "organization-management", "auditor"), "aud", "remove", "1", "--dry-run")
    realm:write("/home/aud/password", "secret\n", "aud")
    refused(role("export in this way", "aud", "organization-management", "auditor"), "aud", "export", "1", "--form", "pfx",
      "--password-file", "password", "--out", "x.pfx")
    refused(role("export in this way", "aud", "organization-management", "auditor"), "aud", "export", "1", "--pfx",
      "modern", "--password-file", "password", "--out", "x.pfx")
    assert.is_nil(realm:must("ls", "/home/aud"):find "pfx")
    assert.equal(1, #parsed("aud", "list"))
  end)

  it("requester: makes requests and submits them; does not complete or assign", function()
    local made = parsed("req", "new-request", "--domain", "www.test", "--out", "www.csr")
    assert.equal("req req 644\n", realm:must("stat", "-c", "%U %G %a", "/home/req/www.csr"))
    assert.is_truthy(realm:read("/home/req/www.csr"):find "^%-%-%-%-%-BEGIN CERTIFICATE REQUEST")
    local result = realm:sudo("req", "submit-request", tostring(made.id), "--ca", "manual")
    assert.equal(3, result.status, result.stderr)
    assert.equal("submitted", parsed("req", "show", "1").state)
    assert.is_truthy(done("req", "show", "1"):find("req (sudo)", 1, true))
    barred("req", "complete-request", "1", "--file", "x.pem")
    barred("req", "assign-services", "1", "--services", "web")
    loosen()
    refused(role("complete-request", "req", "operator", "requester"), "req", "complete-request", "1", "--file", "x.pem")
    refused(role("assign-services", "req", "operator", "requester"), "req", "assign-services", "1", "--services", "web")
    refused(role("enroll", "req", "operator", "requester"), "req", "enroll", "1")
    assert.equal("cancelled", parsed("req", "cancel", "1").state)
  end)

  it("operator: completes and assigns, and it is observed", function()
    local lab <close> = Lab.new { name = "roles" }
    local web = lab:nginx { names = { "www.test" }, pair = lab:certificate { names = { "www.test" } } }
    site(([[services = { web = { driver = "nginx", dir = %q, prefix = %q, config = %q, endpoints = { %q },
      names = { external = "www.test" } } }]]):format(web.service.dir, web.service.prefix, web.service.config,
      web.endpoints[1]))
    local from_ca = completed()
    realm:write("/home/ope/www.pem", Desk.read(nil, from_ca), "ope", "600")
    assert.equal("completed", parsed("ope", "complete-request", "--file", "www.pem").state)
    local object = parsed("ope", "assign-services", "1", "--services", "web")
    assert.equal("observed", object.assignments[1].state)
    assert.equal(object.fingerprint, lab:presented(web.endpoints[1], "www.test"))
    done("aud", "check")
    barred("ope", "remove", "1")
    barred("ope", "import", "www.pem")
    loosen()
    refused(role("remove", "ope", "organization-management", "operator"), "ope", "remove", "1")
    refused(role("import", "ope", "organization-management", "operator"), "ope", "import", "www.pem")
    refused(role("adopt", "ope", "organization-management", "operator"), "ope", "adopt", "web")
  end)

  it("organization-management: everything, but for what would make it root", function()
    parsed("org", "ca", "init")
    assert.equal(1, parsed("org", "new-request", "--domain", "www.test", "--self-signed", "--exportable").id)
    realm:write("/home/org/password", "secret\n", "org", "600")
    parsed("org", "export", "1", "--form", "pfx", "--password-file", "password", "--out", "www.pfx")
    assert.equal("org 600\n", realm:must("stat", "-c", "%U %a", "/home/org/www.pfx"))
    done("org", "remove", "1")
    assert.equal(2, parsed("org", "import", "www.pfx", "--password-file", "password").id)
    barred("org", "-e", "os.execute 'id'")
    loosen()
    local function beyond(what) return ("'org' may not use %s through sudo: it is root's alone"):format(what) end
    local last = refused(beyond "-e", "org", "-e", "print(1)")
    assert.same({ "-e", { "-e", "print(1)" } }, { last.command, last.arguments })
    realm:write("/home/org/mine.lua", "print(1)", "org")
    refused(beyond "FILE", "org", "./mine.lua")
    refused(beyond "FILE", "org", "mine.lua")
    refused(beyond "--site", "org", "list", "--site", "/home/org")
    refused(beyond "--site", "org", "--site=/etc/certwright", "list")
    refused(beyond "--state", "org", "list", "--state", "/home/org")
  end)

  it("a sudoer with ALL is as root, in whatever group", function()
    for _, user in ipairs { "boss", "both" } do
      assert.equal("2\n", done(user, "-e", "print(1 + 1)"))
      done(user, "ca", "init", "--state", "/var/lib/state-of-" .. user)
      done(user, "list")
    end
    site(nil, "roles = {}")
    assert.equal("2\n", done("boss", "-e", "print(1 + 1)"))
    local result = realm:as("boss", "sudo -n sh -c 'certwright list --json'")
    assert.same({ 0, "[]\n" }, { result.status, result.stdout })
  end)

  it("nobody else: without a role, or where none is configured, a line in sudoers opens nothing", function()
    loosen()
    local in_none = "'%s' may not run certwright through sudo: in no group that 'roles' in "
      .. "'/etc/certwright/config.lua' names"
    local no_roles = "'%s' may not run certwright through sudo: '/etc/certwright/config.lua' names no 'roles', "
      .. "so only root may"
    refused(in_none:format "out", "out", "list")
    refused(in_none:format "out", "out", "help")
    refused(in_none:format "out", "out", "nonsense")
    site(nil, 'roles = { operator = "pki" }') -- the sudoers file is as it was
    refused(in_none:format "aud", "aud", "list")
    refused(role("adopt", "org", "organization-management", "operator"), "org", "adopt", "web")
    site(nil, "key = 'ed25519'")
    refused(no_roles:format "org", "org", "list")
    realm:must("rm", "-rf", "/etc/certwright")
    refused(no_roles:format "org", "org", "list")
  end)

  it("count the groups that the system knows now, not those of a login", function()
    loosen()
    realm:must("gpasswd", "-a", "out", "certs")
    assert.equal("[]\n", done("out", "list", "--json"))
    realm:must("gpasswd", "-d", "out", "certs")
    -- a process that still has the group
    local line = 'exec setpriv --reuid out --regid out --groups "$(getent group certs | cut -d: -f3)" '
      .. "sudo -n certwright list"
    local result = realm:run("sh", "-c", line)
    assert.equal(1, result.status)
    assert.is_truthy(result.stderr:find("in no group that 'roles'", 1, true), result.stderr)
  end)

  it("leave a record of what was refused, which they cannot write to", function()
    loosen()
    realm:sudo("aud", "new-request", "--domain", "www.test")
    realm:sudo("out", "list")
    realm:sudo("req", "-e", "print(1)", "--json")
    local shown = done("aud", "audit")
    for number, row in ipairs { "aud %(sudo%)  new%-request  %-   refused", "out %(sudo%)  list         %-   refused",
      "req %(sudo%)  %-e           %-   refused" } do
      assert.is_truthy(shown:find(("\n%d   %%S+  %s"):format(number, row)), shown)
    end
    assert.is_true(parsed("aud", "audit", "--verify").whole)
    for _, line in ipairs { "echo x >> /var/lib/certwright/audit.jsonl", "cat /var/lib/certwright/audit.jsonl" } do
      assert.not_equal(0, realm:as("org", line).status)
    end
    assert.equal(3, #recorded())
  end)

  it("are told by roles, with groups that nobody knows", function()
    site(nil, 'roles = { operator = { "mailops", "nogroups" } }')
    local result = realm:run("certwright", "roles")
    assert.equal("certwright: warning: 'roles.operator' names the group 'nogroups', which this machine does not know\n",
      result.stderr)
    assert.is_truthy(result.stdout:find("\noperator                 groups: mailops, nogroups\n", 1, true), result.stdout)
    assert.is_truthy(result.stdout:find("\norganization-management  no group\n", 1, true))
    local text = realm:must("certwright", "roles", "--sudoers")
    assert.is_truthy(text:find('"%mailops"', 1, true))
    assert.is_nil(text:find("nogroups", 1, true))
    site(nil, 'roles = { operator = "nogroups" }')
    result = realm:run("certwright", "roles", "--sudoers", "--quiet")
    assert.same({ 1, "" }, { result.status, result.stdout })
    assert.is_truthy(result.stderr:find(
      "certwright: no group that is there has a role: name some under 'roles' in config.lua\n", 1, true))
  end)

  it("of scripts: the site's own have one, too; none is organization-management; an unknown one is an error", function()
    local script = 'return { summary = "says it", %s options = {}, run = function() return "said" end, '
      .. "text = function(result) return result end }"
    realm:write("/etc/certwright/scripts/for-requesters.lua", script:format 'role = "requester",')
    realm:write("/etc/certwright/scripts/for-nobody.lua", script:format "")
    realm:write("/etc/certwright/scripts/wrong.lua", script:format 'role = "root",')
    local result = realm:run("certwright", "roles", "--sudoers")
    local fault = "'/etc/certwright/scripts/wrong.lua' is not a script: there is no role 'root'; there are: auditor, "
      .. "requester, operator, organization-management"
    assert.equal("certwright: warning: left out: " .. fault .. "\n", result.stderr)
    realm:sudoers(result.stdout)
    assert.equal("said\n", done("req", "for-requesters"))
    assert.equal("said\n", done("org", "for-nobody"))
    barred("ope", "for-nobody")
    barred("aud", "for-requesters")
    loosen()
    refused(role("for-nobody", "ope", "organization-management", "operator"), "ope", "for-nobody")
    refused(role("for-requesters", "aud", "requester", "auditor"), "aud", "for-requesters")
    local wrong = realm:sudo("org", "wrong")
    assert.same({ 1, "certwright: " .. fault .. "\n" }, { wrong.status, wrong.stderr })
  end)

  it("hold for each step that enroll runs", function()
    realm:must("certwright", "new-request", "--domain", "www.test")
    realm:write("/etc/certwright/scripts/approve.lua", 'return { summary = "approves", role = "organization-management", '
      .. 'options = {}, from = { "created" }, to = "created", run = function() return {} end }')
    realm:write("/etc/certwright/scripts/workflow.lua",
      'return { "new-request", "approve", "submit-request", "complete-request", "assign-services" }')
    refused(role("approve", "ope", "organization-management", "operator"), "ope", "enroll", "1")
    assert.equal("created", parsed("aud", "show", "1").state)
  end)

  it("in config.lua are checked, and a faulty one lets nobody in", function()
    for roles, message in pairs {
      ['{ operators = "x" }'] = "there is no setting 'roles.operators'",
      ["{ operator = 1 }"] = "'roles.operator' must be a string or table, not a number",
      ["{ operator = { 1 } }"] = "'roles.operator[1]' must be a string, not a number",
      ['{ operator = "a,b" }'] = "'roles.operator': 'a,b' is no name of a group",
      ['{ operator = "%wheel" }'] = "'roles.operator': '%wheel' is no name of a group",
      ['{ operator = "x\\nALL" }'] = "'roles.operator': 'x\nALL' is no name of a group",
      ['{ operator = "" }'] = "'roles.operator': '' is no name of a group",
    } do
      site(nil, "roles = " .. roles)
      local result = realm:run("certwright", "roles")
      assert.same({ 1, "certwright: '/etc/certwright/config.lua': " .. message .. "\n" }, { result.status, result.stderr })
      result = realm:sudo("org", "list")
      assert.same({ 1, "certwright: '/etc/certwright/config.lua': " .. message .. "\n" }, { result.status, result.stderr })
    end
  end)

  it("give no sudoers file for a program that others could change", function()
    realm:must("chown", "org", "/usr/local/bin/certwright")
    local result = realm:run("certwright", "roles", "--sudoers")
    realm:must("chown", "root", "/usr/local/bin/certwright")
    local uid = realm:must("id", "-u", "org"):match "%d+"
    assert.equal(("certwright: cannot let others run '/usr/local/bin/certwright' as root: it belongs to user %s; "
      .. "install it first: make install\n"):format(uid), result.stderr)
    realm:must("chmod", "g+w", "/usr/local/bin")
    result = realm:run("certwright", "roles", "--sudoers")
    realm:must("chmod", "g-w", "/usr/local/bin")
    assert.equal("certwright: refused to let others run '/usr/local/bin': owner 0, mode 0775: others could have written "
      .. "it; to mend it: chmod go-w '/usr/local/bin'\n", result.stderr)
    realm:must("mkdir", "-p", "/usr/local/a b")
    realm:must("sh", "-c", "cp -R /usr/local/share /usr/local/bin '/usr/local/a b/'")
    result = realm:run("/usr/local/a b/bin/certwright", "roles", "--sudoers")
    assert.equal("certwright: cannot name '/usr/local/a b/bin/certwright' in a sudoers file: install it where the path "
      .. "is plain letters and digits\n", result.stderr)
  end)
end)
