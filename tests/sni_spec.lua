-- A certificate beside Postfix's default one, for its own names: the answer No to
-- "Overwrite the existing default SMTP certificate?".  What Postfix presents,
-- openssl says.

local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
package.path = here .. "/support/?.lua;" .. package.path
local deploy = require "deploy"
local file = require "core.file"
local killer = require "killer"
local Terminal = require "terminal"

local NAME = deploy.name
local program = assert(file.link "/proc/self/exe")

local function ends(status, result)
  assert.equal(status, result.status, result.stderr)
  return result
end

local function says(result, text)
  assert.is_truthy(result.stderr:find(text, 1, true), ("no %q in:\n%s"):format(text, result.stderr))
end

-- A lab with one Postfix, which has a default certificate; `table` = whether it
-- names the table.
local function new_lab(with_table)
  local lab = deploy.lab(function(new)
    new.smtp = new:postfix { names = { NAME } }
    return { smtp = new.smtp.service }
  end)
  lab.endpoints, lab.dir = lab.smtp.endpoints, lab.services.smtp.dir
  lab.id, lab.default = deploy.issue(lab)
  ends(0, deploy.assign(lab, lab.id, "smtp", "--overwrite"))
  if with_table then ends(0, lab:run("adopt", "smtp")) end
  return lab
end

local function maps(lab)
  local conf = lab.services.smtp.config_directory
  return deploy.tool { "postconf", "-c", conf, "-h", "tls_server_sni_maps" }:match "[^\n]*"
end

-- What clients get at every endpoint that ask for each of these names; "" none.
local function assert_presented(lab, wanted)
  for name, fingerprint in pairs(wanted) do
    assert.same(deploy.all(lab.endpoints, fingerprint), deploy.presented(lab, lab.endpoints, name ~= "" and name or nil),
      name)
  end
end

local function sorted(list)
  table.sort(list)
  return list
end

local function states(lab, id)
  local list = {}
  for i, row in ipairs(lab:json("show", id).assignments) do
    list[i] = ("%s %s"):format(type(row.name) == "string" and row.name or "-", row.state)
  end
  return sorted(list)
end

describe("a certificate beside the default one", function()
  local lab, number = nil, 0

  setup(function() lab = new_lab(true) end)
  teardown(function() lab:close() end)

  -- A name that no other test uses.
  local function fresh()
    number = number + 1
    return ("n%d.beside.test"):format(number)
  end

  local function beside(names, ...)
    local id, fingerprint = deploy.issue(lab, names)
    return id, fingerprint, ends(0, deploy.assign(lab, id, "smtp", "--no-overwrite", ...))
  end

  -- A new default certificate.
  local function renew_default()
    local id, fingerprint = deploy.issue(lab)
    ends(0, deploy.assign(lab, id, "smtp", "--overwrite"))
    lab.id, lab.default = id, fingerprint
    return id
  end

  it("is for its names only, a wildcard of one label; the default one stays", function()
    renew_default()
    local name, wild = fresh(), fresh()
    local id, fingerprint, result = beside { name, "*." .. wild }
    assert.equal("assigned: smtp (for its own names only)", lab:run("show", id).stdout:match "root  (assigned: [^\n]*)")
    says(result, ("observed %s for %s: %s (was %s)"):format(lab.endpoints[1], name, fingerprint:sub(1, 16),
      lab.default:sub(1, 16)))
    says(result, ("observed %s for %s: %s\n"):format(lab.endpoints[1], NAME, lab.default:sub(1, 16)))
    assert_presented(lab, { [name] = fingerprint, [name:upper()] = fingerprint, ["a." .. wild] = fingerprint,
      [NAME] = lab.default, [""] = lab.default, ["a.b." .. wild] = lab.default, [wild] = lab.default,
      ["a." .. name] = lab.default, ["x" .. name] = lab.default, [name:gsub("%.", "x")] = lab.default })
    assert.same({ name .. " observed", name .. " observed" }, states(lab, id))
    assert.same({ "- observed", "- observed", NAME .. " observed", NAME .. " observed" }, states(lab, lab.id))
    ends(0, lab:run "check")
    ends(0, deploy.assign(lab, id, "smtp")) -- once more: nothing to ask, nothing to do
    assert_presented(lab, { [name] = fingerprint, [""] = lab.default })
  end)

  it("has its key in a file of its generation that nobody else can read, and nowhere else", function()
    beside { fresh() }
    local current = lab.dir .. "/current"
    assert.equal(lab.default, (deploy.pair(lab.dir)))
    for _, path in ipairs { "sni-1.pem", "combined.pem", "privkey.pem" } do
      assert.equal(tonumber("600", 8), assert(file.stat(current .. "/" .. path, true)).mode, path)
    end
    assert.is_nil(file.read(current .. "/sni"):find("PRIVATE", 1, true))
  end)

  it("stays when the default one is renewed, and is renewed without touching that", function()
    renew_default()
    local name = fresh()
    local id, fingerprint = beside { name }
    local new = lab:json("renew", lab.id)
    assert_presented(lab, { [name] = fingerprint, [NAME] = new.fingerprint, [""] = new.fingerprint })
    assert.same({ name .. " observed", name .. " observed" }, states(lab, id))
    lab.id, lab.default = tostring(math.tointeger(new.id)), new.fingerprint

    local renewed = lab:json("renew", id, "--yes")
    assert_presented(lab, { [name] = renewed.fingerprint, [NAME] = lab.default, [""] = lab.default })
    assert.same({ name .. " replaced", name .. " replaced" }, states(lab, id))
    renewed = lab:json("renew", tostring(math.tointeger(renewed.id)))
    assert_presented(lab, { [name] = renewed.fingerprint, [NAME] = lab.default, [""] = lab.default })
    ends(0, lab:run("remove", id))
    ends(1, lab:run("remove", lab.id))
    ends(0, lab:run "check")
  end)

  it("gives way to a newer one for the names that this has, and keeps the others", function()
    local one, two, three = fresh(), fresh(), fresh()
    local first, of_first = beside { one, two }
    local second, of_second = beside { two, three }
    assert_presented(lab, { [one] = of_first, [two] = of_second, [three] = of_second, [""] = lab.default })
    assert.same(sorted { one .. " observed", one .. " observed", two .. " replaced", two .. " replaced" },
      states(lab, first))
    local third, of_third = beside { one, two, three }
    assert_presented(lab, { [one] = of_third, [two] = of_third, [three] = of_third, [""] = lab.default })
    for _, id in ipairs { first, second } do ends(0, lab:run("remove", id)) end
    says(ends(1, lab:run("remove", third)), "assigned to smtp")
    ends(0, lab:run "check")
    local count = 0
    for line in file.read(lab.dir .. "/current/sni"):gmatch "[^\n]+" do
      count = count + (line:find(one:match "^n%d+" .. "\\.", 1, true) and 1 or 0)
    end
    assert.equal(1, count)
  end)

  it("takes a name of the default one, which stays for all others", function()
    renew_default()
    local id, fingerprint = beside { NAME }
    assert_presented(lab, { [NAME] = fingerprint, [""] = lab.default })
    assert.same({ "- observed", "- observed", NAME .. " replaced", NAME .. " replaced" }, states(lab, lab.id))
    says(ends(1, lab:run("remove", lab.id)), "assigned to smtp")
    local result = ends(0, deploy.assign(lab, deploy.issue(lab), "smtp", "--overwrite"))
    says(result, ("%s stays with %s, which is there for its names"):format(NAME, fingerprint:sub(1, 16)))
    assert_presented(lab, { [NAME] = fingerprint })
    -- and becomes the default one itself
    ends(0, deploy.assign(lab, id, "smtp", "--overwrite"))
    assert_presented(lab, { [NAME] = fingerprint, [""] = fingerprint })
    lab.id, lab.default = id, fingerprint
    assert.is_nil(file.read(lab.dir .. "/current/sni"):find(NAME:gsub("%.", "\\."), 1, true))
    ends(0, lab:run "check")
  end)

  it("is put back when the service refuses it, and stays wanted beside", function()
    local name = fresh()
    local before = deploy.contents(lab.dir)
    local id, fingerprint = deploy.issue(lab, { name })
    do
      local _ <close> = deploy.change(lab, "smtp", { check = { "false" } })
      says(ends(1, deploy.assign(lab, id, "smtp", "--no-overwrite")), "everything is as before")
    end
    assert.same(before, deploy.contents(lab.dir))
    assert_presented(lab, { [name] = lab.default, [NAME] = lab.default, [""] = lab.default })
    assert.same({ name .. " failed", name .. " failed" }, states(lab, id))
    ends(1, lab:run "check")
    ends(0, lab:run("assign-services", id)) -- what was answered is known
    assert_presented(lab, { [name] = fingerprint, [NAME] = lab.default, [""] = lab.default })
    ends(0, lab:run "check")
  end)

  it("is put back when the default one would change", function()
    local name = fresh()
    local before = deploy.contents(lab.dir)
    local id = deploy.issue(lab, { name })
    local other = deploy.issue(lab)
    local folder = lab:folder "other"
    ends(0, lab:run("export", other, "--out", folder .. "/cert.pem"))
    -- a reload that presents another certificate by default, once
    local conf = lab.services.smtp.config_directory
    deploy.write(folder .. "/pair.pem", file.read(lab.state_path .. "/keys/" .. other .. ".pem")
      .. file.read(folder .. "/cert.pem"), "600")
    local script = ([[
if [ -e %s/done ]; then postconf -c %s -e smtpd_tls_chain_files=%s/current/combined.pem
else postconf -c %s -e smtpd_tls_chain_files=%s/pair.pem,; touch %s/done; fi
touch -d '10 seconds ago' %s/main.cf; postfix -c %s reload]]):format(folder, conf, lab.dir, conf, folder, folder, conf, conf)
    do
      local _ <close> = deploy.change(lab, "smtp", { reload = { "sh", "-c", script }, observe_timeout = 2 })
      local result = ends(1, deploy.assign(lab, id, "smtp", "--no-overwrite"))
      says(result, "not observed")
      says(result, "everything is as before")
    end
    assert.same(before, deploy.contents(lab.dir))
    assert_presented(lab, { [name] = lab.default, [NAME] = lab.default, [""] = lab.default })
    ends(0, lab:run("assign-services", id, "--cancel"))
  end)

  it("is recorded as written with --no-observe, and checked by its file", function()
    local name = fresh()
    local _ <close> = deploy.change(lab, "smtp", { endpoints = {} })
    local id, fingerprint = beside({ name }, "--no-observe")
    assert.same({ name .. " written" }, states(lab, id))
    ends(0, lab:run "check")
    assert_presented(lab, { [name] = fingerprint, [NAME] = lab.default, [""] = lab.default })
  end)

  it("needs a choice without a terminal, and one choice only", function()
    local name = fresh()
    local before = deploy.contents(lab.dir)
    local id = deploy.issue(lab, { name })
    local result = ends(2, deploy.assign(lab, id, "smtp"))
    says(result, "or --no-overwrite to present that only to clients that ask for its names")
    says(ends(2, deploy.assign(lab, id, "smtp", "--overwrite", "--no-overwrite")), "give one of them")
    assert.same(before, deploy.contents(lab.dir))
    assert.same({}, states(lab, id))
  end)

  it("is asked for on a terminal, with both fingerprints and expiry dates", function()
    renew_default()
    local name = fresh()
    local id, fingerprint = deploy.issue(lab, { name })
    local function assign()
      return Terminal.new { program, "--site", lab.site_path, "--state", lab.state_path, "assign-services", id,
        "--services", "smtp" }
    end
    local QUESTION = "Overwrite the existing default SMTP certificate%? %[Y/n%]:"
    do
      local terminal <close> = assign()
      local screen = terminal:expect(QUESTION)
      local new, old = lab:json("show", id), lab:json("show", lab.id)
      for _, object in ipairs { old, new } do
        for _, field in ipairs { "fingerprint", "thumbprint", "not_after" } do
          assert.is_truthy(screen:find(object[field], 1, true), field .. " in:\n" .. screen)
        end
      end
      for line in screen:gmatch "[^\n]+" do assert.is_true(utf8.len(line) <= 80, line) end
      terminal:type "maybe\n"
      terminal:expect "Answer y or n"
      terminal:type "?\n"
      terminal:expect "No: the default stays"
      terminal:key "C-c"
      assert.equal(1, terminal:ended())
      terminal:expect "abandoned: nothing was changed"
    end
    assert.same({}, states(lab, id))
    assert_presented(lab, { [name] = lab.default, [""] = lab.default })
    do
      local terminal <close> = assign()
      terminal:expect(QUESTION)
      terminal:type "n\n"
      assert.equal(0, terminal:ended(60))
    end
    assert_presented(lab, { [name] = fingerprint, [NAME] = lab.default, [""] = lab.default })
    do -- the default answer is yes
      local other, of_other = deploy.issue(lab, { NAME })
      id = other
      local terminal <close> = assign()
      terminal:expect(QUESTION)
      terminal:type "\n"
      assert.equal(0, terminal:ended(60))
      assert_presented(lab, { [name] = fingerprint, [NAME] = of_other, [""] = of_other })
      lab.id, lab.default = other, of_other
    end
  end)

  describe("that is killed", function()
    setup(function() killer.shadow(lab) end)

    local UNDONE, FINISHED, PUT_BACK = "was undone", "was finished", "was put back"

    for _, case in ipairs {
      { "after stage smtp", UNDONE }, { "at switch smtp", UNDONE }, { "after switch smtp", PUT_BACK },
      { "at reload smtp", PUT_BACK }, { "at observe", FINISHED }, { "at commit", FINISHED },
    } do
      it(case[1] .. " tears nothing, and is finished or undone by the next command", function()
        local name, kept = fresh(), fresh()
        local first, of_first = beside { kept, name }
        local before = deploy.contents(lab.dir)
        local id, new = deploy.issue(lab, { name })
        killer.run(lab, case[1], "assign-services", id, "--services", "smtp", "--no-overwrite")
        assert.equal(lab.default, (deploy.pair(lab.dir)))
        assert_presented(lab, { [NAME] = lab.default, [""] = lab.default, [kept] = of_first })
        for _, seen in ipairs(deploy.presented(lab, lab.endpoints, name)) do
          assert.is_true(seen == of_first or seen == new, seen)
        end
        local result = lab:run "check"
        says(result, case[2])
        if case[2] == FINISHED then
          ends(0, result)
          assert_presented(lab, { [name] = new, [kept] = of_first, [NAME] = lab.default, [""] = lab.default })
          assert.same({ name .. " observed", name .. " observed" }, states(lab, id))
          assert.same(sorted { kept .. " observed", kept .. " observed", name .. " replaced", name .. " replaced" },
            states(lab, first))
        else
          assert.same(before, deploy.contents(lab.dir))
          assert_presented(lab, { [name] = of_first, [kept] = of_first, [NAME] = lab.default, [""] = lab.default })
          assert.same(case[2] == PUT_BACK and { name .. " failed", name .. " failed" } or {}, states(lab, id))
          assert.same(sorted { kept .. " observed", kept .. " observed", name .. " observed", name .. " observed" },
            states(lab, first))
          lab:run("assign-services", id, "--cancel")
        end
        ends(0, lab:run "check")
      end)
    end

    it("while the default one is renewed keeps what stands beside it", function()
      local name = fresh()
      local _, fingerprint = beside { name }
      local id, new = deploy.issue(lab)
      killer.run(lab, "after switch smtp", "assign-services", id, "--services", "smtp", "--overwrite")
      says(lab:run "check", PUT_BACK)
      assert_presented(lab, { [name] = fingerprint, [NAME] = lab.default, [""] = lab.default })
      killer.run(lab, "at observe", "assign-services", id, "--services", "smtp", "--overwrite")
      says(ends(0, lab:run "check"), FINISHED)
      assert_presented(lab, { [name] = fingerprint, [NAME] = new, [""] = new })
      lab.id, lab.default = id, new
    end)
  end)
end)

describe("a Postfix that does not name the table", function()
  it("is refused with the command that makes it, which adopt runs and undoes", function()
    local lab <close> = new_lab(false)
    local before = deploy.contents(lab.dir)
    local id, fingerprint = deploy.issue(lab, { "other.lab.test" })
    local answer, result = lab:json("assign-services", id, "--services", "smtp", "--no-overwrite")
    ends(1, result)
    assert.equal("missing", answer.error.code)
    local conf = lab.services.smtp.config_directory
    says(result, ("postconf -c %s -e 'tls_server_sni_maps = regexp:%s/current/sni'\n"):format(conf, lab.dir))
    assert.same(before, deploy.contents(lab.dir))
    assert.same({}, states(lab, id))

    ends(0, lab:run("adopt", "smtp"))
    assert.equal(("regexp:%s/current/sni"):format(lab.dir), maps(lab))
    ends(0, deploy.assign(lab, id, "smtp", "--no-overwrite"))
    assert_presented(lab, { ["other.lab.test"] = fingerprint, [NAME] = lab.default, [""] = lab.default })
    ends(0, lab:run("adopt", "smtp")) -- twice is once
    ends(0, lab:run("adopt", "smtp", "--undo"))
    assert.equal("", maps(lab))
    assert_presented(lab, { ["other.lab.test"] = lab.default, [NAME] = lab.default })
    says(ends(1, lab:run "check"), "presents " .. lab.default:sub(1, 16))

    -- the line itself does it as well, and a table of the site's own stays behind ours
    deploy.tool { "postconf", "-c", conf, "-e", "tls_server_sni_maps = static:none" }
    deploy.tool { "touch", "-d", "10 seconds ago", conf .. "/main.cf" }
    says(ends(1, deploy.assign(lab, id, "smtp", "--no-overwrite")), ("'tls_server_sni_maps = regexp:%s/current/sni, static:none'\n"):format(lab.dir))
    ends(0, lab:run("adopt", "smtp"))
    ends(0, lab:run("adopt", "smtp", "--undo"))
    assert.equal("static:none", maps(lab))
  end)

  it("is not made to name one that is not there", function()
    local lab <close> = deploy.lab(function(new)
      new.smtp = new:postfix { names = { NAME } }
      return { smtp = new.smtp.service }
    end)
    ends(0, lab:run("adopt", "smtp"))
    assert.equal("", maps(lab))
  end)
end)
