-- README.md is true: its config.lua and its policy.lua are run as they stand there,
-- its commands on an nginx, a Postfix and a Dovecot, and print what it shows; every
-- command and option that it names is there; the exit statuses hold.

local here = debug.getinfo(1, "S").source:match "^@(.-)[^/]*$"
local Desk = dofile(here .. "support/desk.lua")

local readme = assert(Desk:read(here .. "../README.md"))
local SERVICES = { "web", "smtp", "imap" }

-- The text below a heading.
local function section(title)
  return assert(readme:match("\n## " .. title .. "\n(.-)\n## "), "README.md has no section " .. title)
end

-- The fenced blocks of a text, of a language ("" for none).
local function blocks(text, language)
  local list = {}
  for kind, block in text:gmatch "\n```(%w*)\n(.-)\n```" do
    if kind == language then
      list[#list + 1] = block
    end
  end
  return list
end

-- The commands in a text's blocks: { words, what it prints as lines }.
local function commands(text)
  local list = {}
  for _, block in ipairs(blocks(text, "")) do
    for line in (block .. "\n"):gmatch "(.-)\n" do
      local typed = line:match "^# certwright (.*)"
      if typed then
        local words = {}
        for word in typed:gmatch "%S+" do
          words[#words + 1] = word
        end
        list[#list + 1] = { words = words, lines = {} }
      elseif #list > 0 then
        table.insert(list[#list].lines, line)
      end
    end
  end
  return list
end

-- A line without what differs from run to run: paths, prints, days, ports, blanks.
local function plain(desk, line)
  for name, path in pairs { [desk.state] = "/var/lib/certwright", [desk.path .. "/ssl"] = "/etc/ssl/certwright",
    [desk.path .. "/contoso.csr"] = "contoso.csr" } do
    line = line:gsub(name:gsub("%p", "%%%0"), path)
  end
  line = desk:shown(line):gsub("(://127%.0%.0%.1):%d+", "%1"):gsub("%d%d%d%d%-%d%d%-%d%d", "DAY")
  return (line:gsub(" +", " "))
end

local config = blocks(section "Set up", "lua")[1]
local policy, worksheet = table.unpack(blocks(section "A site's own rules", "lua"))

describe("README.md:", function()
  local desk

  setup(function() desk = Desk.new "readme" end)
  teardown(function() desk:close() end)
  before_each(function() desk:clear() end)

  describe("config.lua", function()
    it("is taken as it stands, and says what is asked for", function()
      desk:write("site/config.lua", config)
      local object = desk:done("new-request", "--services", table.concat(SERVICES, ","))
      assert.same({ "mail.contoso.com", "www.contoso.com" }, object.domains)
      assert.equal("CN=mail.contoso.com,O=Contoso,C=US", object.subject)
      for _, service in ipairs(desk:done "services") do
        assert.equal("/etc/ssl/certwright/" .. service.service, service.dir)
      end
    end)
  end)

  describe("policy.lua", function()
    before_each(function() desk:write("site/policy.lua", policy) end)

    it("is five lines", function()
      assert.equal(5, select(2, (policy .. "\n"):gsub("\n", "")))
    end)

    it("gives the request its name and another domain", function()
      local object = desk:done("new-request", "--domain", "mail.contoso.com")
      assert.equal("tls-mail-contoso-com", object.friendly_name)
      assert.same({ "mail.contoso.com", "autodiscover.contoso.com" }, object.domains)
      local text = desk:openssl("req", "-noout", "-text", "-in", object.request_file)
      assert.is_truthy(text:find("DNS:mail.contoso.com, DNS:autodiscover.contoso.com\n", 1, true))
    end)

    it("refuses in its own words, and nothing is made", function()
      desk:refuses(1, "refused", "only names of contoso.com", "new-request", "--domain", "mail.fabrikam.com")
      assert.same({}, (desk:done "list"))
    end)

    it("is what --dry-run names", function()
      local text = desk:shown(desk:run("new-request", "--domain", "mail.contoso.com", "--dry-run").stdout)
      assert.is_truthy(text:find "\nfriendly_name +tls%-mail%-contoso%-com +SITE/policy%.lua\n")
      assert.is_truthy(text:find "\ndomains +mail%.contoso%.com, autodiscover%.contoso%.com +SITE/policy%.lua\n")
      assert.is_truthy(text:find "\nkey +ec:P%-256 +lua/defaults/policy%.lua\n")
    end)
  end)

  it("worksheet.lua adds a row and hides one", function()
    desk:write("site/worksheet.lua", worksheet)
    local labels = {}
    for _, row in ipairs(assert(require("worksheet").load(Desk.home, desk.site))) do labels[row.row] = row.label end
    assert.same({ "Chat", nil, "IMAP" }, { labels.chat, labels.federation, labels.imap })
  end)

  describe("the commands", function()
    local servers

    -- The README's config.lua, with where the lab's servers are.
    local function site(changes)
      local values = assert(load(config))()
      for name, server in pairs(servers) do
        for field, value in pairs(server.service) do
          values.services[name][field] = field ~= "names" and value or values.services[name].names
        end
      end
      values.services.smtp.endpoints = { servers.smtp.endpoints[1] }
      values.anchors = { desk.root .. "/cert.pem" }
      for name, fields in pairs(changes or {}) do
        for field, value in pairs(fields) do
          values.services[name][field] = value
        end
      end
      desk.lab:site(values)
    end

    setup(function()
      local lab = desk.lab
      desk:outside()
      local dir = desk.path .. "/ssl/"
      servers = {
        web = lab:nginx { dir = dir .. "web", names = { "mail.contoso.com", "www.contoso.com" } },
        smtp = lab:postfix { dir = dir .. "smtp", style = "none" },
        imap = lab:dovecot { dir = dir .. "imap", protocols = { "imap" } },
      }
    end)

    -- A FILE is in the desk's folder; what the CA sends is made when it is asked for.
    local function argument(word)
      if word == "from-the-ca.pem" then
        return desk:write(word, desk:read(desk:sign(desk.path .. "/contoso.csr")) ..
          desk:read(desk:outside() .. "/cert.pem"))
      end
      return word:find "%.csr$" and desk.path .. "/" .. word or word
    end

    -- Runs a command of the README: it has to print the lines there, in their order.
    local function follow(command, status)
      local words = {}
      for i, word in ipairs(command.words) do
        words[i] = argument(word)
      end
      local result = desk:run(table.unpack(words))
      assert.equal(status, result.status, result.stderr)
      local printed, from = "\n", 1
      for line in (result.stderr .. result.stdout):gmatch "[^\n]+" do
        printed = printed .. plain(desk, line) .. "\n"
      end
      for _, line in ipairs(command.lines) do
        local first, last = printed:find("\n" .. plain(desk, line) .. "\n", from, true)
        assert.is_truthy(first, ("%q is not in what `certwright %s` prints:\n%s"):format(line,
          table.concat(command.words, " "), printed))
        from = last
      end
    end

    it("do what is written, and print what is shown", function()
      site()
      for _, command in ipairs(commands(section "Set up")) do
        follow(command, 0)
      end
      local steps = commands(section "The four steps")
      local names = {}
      for i, command in ipairs(steps) do
        names[i] = command.words[1]
        follow(command, command.words[1] == "submit-request" and 3 or 0)
      end
      assert.same({ "new-request", "submit-request", "complete-request", "assign-services", "list" }, names)
      for _, name in ipairs(SERVICES) do
        assert.equal(desk:done("show", "1").fingerprint,
          desk.lab:presented(servers[name].endpoints[1], "mail.contoso.com"))
      end
      for typed in section "The four steps":gmatch "`certwright ([^`]+)`" do
        local words = {}
        for word in typed:gmatch "%S+" do
          words[#words + 1] = word
        end
        if not typed:find "COMMAND" and words[2] or typed == "check" then
          follow({ words = words, lines = {} }, 0)
        end
      end
      assert.equal(desk:done("show", "3").fingerprint, desk.lab:presented(servers.imap.endpoints[1], "mail.contoso.com"))
    end)

    it("end with the exit status that is listed", function()
      site()
      assert.is_truthy(readme:find("0 done; 1 failed,\neverything as before; 2 wrong usage; 3 not yet (the CA has not "
        .. "issued it); 4 failed **and could not be put back**.", 1, true))
      desk:done("ca", "init")
      desk:done("enroll", "--ca", "local", "--services", "web")
      local old = desk:done("show", "1").fingerprint
      site { web = { check = { "false" } } }
      assert.equal(1, desk:run("enroll", "--from", "1", "--ca", "local", "--services", "web").status)
      assert.equal(old, desk.lab:presented(servers.web.endpoints[1], "mail.contoso.com"))
      assert.equal(2, desk:run("assign-services", "1", "--services", "nonesuch").status)
      assert.equal(3, desk:run("enroll", "--from", "1", "--ca", "manual").status)
      site { web = { check = { "true" }, reload = { "sh", "-c", "kill $(cat " .. servers.web.folder .. "/nginx.pid); false" },
        restart = { "true" }, observe_timeout = 1 } }
      local failed = desk:run("enroll", "--from", "1", "--ca", "local", "--services", "web")
      assert.equal(4, failed.status, failed.stderr)
    end)
  end)

  describe("every", function()
    local help = {}

    setup(function()
      for _, entry in ipairs(desk:done "help") do
        help[entry.name] = desk:run("help", entry.name).stdout
      end
      help.ca = help.ca .. desk:run("help", "ca", "init").stdout .. desk:run("help", "ca", "root").stdout
        .. desk:run("help", "ca", "crl").stdout
    end)

    it("`certwright COMMAND` is one", function()
      local count = 0
      for name in readme:gmatch "[`#] ?certwright ([%a][%w-]*)%f[%s`]" do
        assert.is_truthy(help[name], name)
        count = count + 1
      end
      assert.is_true(count >= 15, count .. " commands are named")
    end)

    it("option of a command is in its help, every other in the list of options", function()
      local everywhere = desk:run("help").stdout
      for line in readme:gmatch "certwright ([^`\n]+)" do
        local name = line:match "^[%a][%w-]*"
        for option in line:gmatch "%f[-]%-%-[%a][%w-]*" do
          local known = name and (help[name] or ""):find(option, 1, true) or everywhere:find(option, 1, true)
          assert.is_truthy(known, ("certwright %s has no %s"):format(tostring(name), option))
        end
      end
      for option in readme:gmatch "`(%-%-[%a][%w-]*)[^`]*`" do
        local known = everywhere:find(option, 1, true)
        for _, text in pairs(help) do
          known = known or text:find(option, 1, true)
        end
        assert.is_truthy(known, "no command has " .. option)
      end
    end)

    it("feature of Exchange is answered once, with a command", function()
      local number = 0
      for line in section("What Exchange has, and what is here"):gmatch "\n(| F[^\n]+)" do
        number = number + 1
        local id, command = line:match "^| (F%d%d) | [^|]+ | (.-) | [^|]+ |$"
        assert.equal(("F%02d"):format(number), id, line)
        assert.is_truthy(command:find("certwright ", 1, true), line)
      end
      assert.equal(35, number)
    end)

    it("file and folder of the tree that it names is there", function()
      for name in readme:gmatch "`([%l]+/[%w_/-]*%.?%l*)`" do
        local top = name:match "^%l+"
        if not name:find "NAME" and (top == "lua" or top == "scripts" or top == "core" or top == "tests") then
          assert.is_truthy(require("lfs").attributes(Desk.home .. "/" .. name:gsub("/$", "")), name)
        end
      end
    end)
  end)
end)
