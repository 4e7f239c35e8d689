-- The wizard of new-request, as a person drives it on a terminal: page by page,
-- back and forth, with wrong answers.

local here = debug.getinfo(1, "S").source:match "^@(.-)tests/" or ""
local Desk = dofile(here .. "tests/support/desk.lua")
local Terminal = dofile(here .. "tests/support/terminal.lua")
local process = require "core.process"
local json = require "dkjson"
local lfs = require "lfs"

local SITE = [[
return {
  organization = { O = "Contoso", OU = "Mail", C = "US" }, accepted_domains = { "contoso.com" },
  services = {
    web = { driver = "nginx", config = "/no/such/nginx.conf", names = { internal = "mail.corp.contoso.com",
            external = { "mail.contoso.com", "www.contoso.com" } } },
    imap = { driver = "dovecot", config = "/no/such/dovecot.conf", names = { external = "imap.contoso.com" } },
  },
}]]

local NAMES = { "mail.contoso.com", "autodiscover.contoso.com", "imap.contoso.com", "autoconfig.contoso.com",
  "mta-sts.contoso.com", "www.contoso.com", "mail.corp.contoso.com" }

describe("the wizard of new-request", function()
  local desk, terminal

  setup(function() desk = Desk.new "wizard" end)
  teardown(function() desk:close() end)
  before_each(function()
    desk:clear()
    process.run { "rm", "-rf", "--", desk.path .. "/cwd" }
    assert(lfs.mkdir(desk.path .. "/cwd"))
  end)
  after_each(function()
    if terminal then terminal:close() end
    terminal = nil
  end)

  -- Starts it where the program takes the terminal for one of 80 columns, and
  -- shows what it writes unbroken.
  local function start(site, ...)
    if site then desk:write("site/config.lua", site) end
    local words = { Desk.program, "--site", desk.site, "--state", desk.state, "new-request", ... }
    for i, word in ipairs(words) do words[i] = "'" .. word .. "'" end
    terminal = Terminal.new({ "sh", "-c", ("cd '%s/cwd' && stty cols 80 && exec %s"):format(desk.path,
      table.concat(words, " ")) }, { columns = 250, rows = 50, env = { NO_COLOR = "1" } })
  end

  local function pattern(text)
    return (text:gsub("%p", "%%%0"))
  end

  -- Waits for each prompt and answers it: { prompt, answer, prompt, answer, ... }; a
  -- last prompt without an answer is waited for. Returns what the screen shows.
  local function answer(...)
    local words = { ... }
    local screen
    for i = 1, #words, 2 do
      screen = terminal:expect(pattern(words[i]) .. "%s*$")
      if words[i + 1] then terminal:type(words[i + 1] .. "\n") end
    end
    return screen
  end

  local FRIENDLY, ROOT = "Friendly name [from the common name]:", "Root domain [contoso.com]:"
  local WILDCARD, ROW = "Ask for a wildcard certificate of the root domain? [y/N]:", "Row to change [next]:"
  local CHANGE, MAKE = "Change [next]:", "Make the request? [Y/n]:"
  local ORGANIZATION = "Organization [Contoso]:"

  -- Takes so many defaults at once, and waits for the prompt that comes then.
  local function defaults(count, prompt)
    local keys = {}
    for i = 1, count do keys[i] = "Enter" end
    terminal:expect(pattern(FRIENDLY) .. "%s*$")
    terminal:key(table.unpack(keys))
    return answer(prompt)
  end

  local function to_rows() return defaults(3, ROW) end
  local function to_list() return defaults(4, CHANGE) end
  local function to_organization() return defaults(5, ORGANIZATION) end
  local function to_summary(prompt) return defaults(11, prompt or MAKE) end

  -- A screen as one line, for what is broken where the terminal ends.
  local function flat(screen)
    return (screen:gsub("%s+", " "))
  end

  -- The command that the screen shows, and what comes of it with more words.
  local function paste(screen, ...)
    local command = screen:match "\nThe same on the command line:\n(.-)\n *\n"
    assert.is_truthy(command, "no command on the screen:\n" .. screen)
    local folder = desk.path .. "/bin"
    if not lfs.attributes(folder) then
      assert(lfs.mkdir(folder))
      assert(lfs.link(Desk.program, folder .. "/certwright", true))
    end
    command = command:gsub(" +\n", "\n"):gsub("\n$", "")
    local result = assert(process.run({ "sh", "-c", ("cd '%s/cwd' && PATH='%s':$PATH && %s %s"):format(desk.path, folder,
      command, table.concat({ ... }, " ")) }, { timeout = 30 }))
    assert.equal(0, result.status, command .. "\n" .. result.stderr)
    return json.decode(result.stdout, 1, json.null), command
  end

  -- What the command would make is what the wizard makes at Enter: the object.
  local function made_as_pasted(screen)
    local would = paste(screen, "--dry-run", "--json")
    terminal:type "\n"
    assert.equal(0, terminal:ended())
    local object = assert(desk:done("list")[1])
    for _, field in ipairs { "friendly_name", "common_name", "domains", "key", "ca" } do
      assert.same(would[field], object[field], field)
    end
    local parts = {}
    for attribute, value in pairs(would.subject) do parts[#parts + 1] = attribute .. "=" .. value:gsub('[,+"\\<>;]', "\\%0") end
    table.sort(parts)
    local subject = {}
    for part in (object.subject .. ","):gmatch "(%u+=.-),%f[%u\0]" do subject[#subject + 1] = part end
    table.sort(subject)
    assert.same(parts, subject)
    return object
  end

  it("leads through the article's pages, each with its defaults, to a request", function()
    start(SITE)
    local screen = answer(FRIENDLY, "", ROOT, "", WILDCARD, "", ROW, "", CHANGE, "", ORGANIZATION, "", "Organizational unit [Mail]:", "",
      "Country [US]:", "", "City or locality [none]:", "", "State or province [none]:", "",
      "Certificate request file [mail.contoso.com.csr]:", "", MAKE)
    for i, title in ipairs { "Introduction", "Domain Scope", "Service Configuration", "Certificate Domains",
      "Organization and Location", "Certificate Configuration" } do
      assert.is_truthy(screen:find(("\n%s (page %d of 7)\n"):format(title, i), 1, true), title)
    end
    assert.is_truthy(screen:find(("\nDomains +%s"):format(pattern(NAMES[1]))))
    assert.is_truthy(screen:find "\nSubject +CN=mail%.contoso%.com,OU=Mail,O=Contoso,C=US\n")
    local object = made_as_pasted(screen)
    assert.same(NAMES, object.domains)
    assert.equal("mail.contoso.com", object.friendly_name)
    assert.equal("CN=mail.contoso.com,OU=Mail,O=Contoso,C=US", object.subject)
    assert.equal(desk:read(object.request_file), desk:read(desk.path .. "/cwd/mail.contoso.com.csr"))
    screen = terminal:screen()
    assert.is_truthy(screen:find("\nCompletion (page 7 of 7)\nrequest 1 'mail.contoso.com' for mail.contoso.com, ", 1, true))
    assert.is_truthy(screen:find "\nnext:\n  certwright %-%-site .- submit%-request 1\n")
    assert.is_truthy(screen:find("\nState +created\n"))
  end)

  it("has everything changed on its way, and gives a command that a shell takes apart rightly", function()
    start(SITE, "--key", "rsa:2048", "--exportable")
    answer(FRIENDLY, "it's \"friendly\" -- $HOME *", ROOT, "fabrikam.com", WILDCARD, "n", ROW, "skip", ROW, "use 7-8, 9", ROW, "",
      CHANGE, "add www.fabrikam.com, 192.0.2.7", CHANGE, "2", "Name [www.fabrikam.com]:", "shop.fabrikam.com", CHANGE, "common 2", CHANGE, "",
      ORGANIZATION, "O'Brien & Söhne \\ \"GmbH\" `x` $(y)", "Organizational unit [Mail]:", "-", "Country [US]:", "de",
      "City or locality [none]:", "-x", "State or province [none]:", "--json", "Certificate request file [shop.fabrikam.com.csr]:",
      "it's here.csr")
    local object = made_as_pasted(answer(MAKE))
    assert.same({ "shop.fabrikam.com", "imap.contoso.com", "192.0.2.7" }, object.domains)
    assert.equal("it's \"friendly\" -- $HOME *", object.friendly_name)
    assert.equal("rsa:2048", object.key)
    assert.is_true(object.exportable)
    local request = desk:request(desk:read(desk.path .. "/cwd/it's here.csr"))
    assert.equal([[CN=shop.fabrikam.com,O=O'Brien & Söhne \\ \"GmbH\" `x` $(y),L=-x,ST=--json,C=DE]], request.subject)
    assert.same({ "DNS:shop.fabrikam.com", "DNS:imap.contoso.com", "IP Address:192.0.2.7" }, request.names)
  end)

  it("makes, when its command is pasted, the same request", function()
    start(SITE)
    local screen = to_summary()
    local object = paste(screen, "--json")
    local pasted = desk:request(desk:read(object.request_file))
    terminal:key "C-c"
    assert.equal(1, terminal:ended())
    terminal:close()
    desk:clear()
    os.remove(desk.path .. "/cwd/mail.contoso.com.csr")
    start(SITE)
    to_summary()
    terminal:type "\n"
    assert.equal(0, terminal:ended())
    local request = desk:request(desk:read(desk:done("show", "1").request_file))
    for _, field in ipairs { "subject", "names", "key", "key_usage", "extended_key_usage" } do
      assert.same(pasted[field], request[field])
    end
  end)

  it("skips the two pages of names for a wildcard, on the way forth and back", function()
    start(SITE)
    answer(FRIENDLY, "", ROOT, "com", WILDCARD, "y", "Root domain [com]:", "*.contoso.com",
      "Ask for a wildcard certificate of the root domain? [Y/n]:", "", ORGANIZATION, "<", ROOT, "", "Ask for a wildcard certificate of the root domain? [Y/n]:", "")
    terminal:key("Enter", "Enter", "Enter", "Enter", "Enter", "Enter")
    local screen = answer(MAKE)
    assert.is_truthy(flat(screen):find("'*.com': a wildcard needs at least two labels after it.", 1, true))
    assert.is_truthy(screen:find("\nWarning: mail.corp.contoso.com is used by web, and is not on the list.\n", 1, true))
    assert.is_nil(screen:find("Warning: mail.contoso.com", 1, true))
    assert.is_nil(screen:find("Service Configuration", 1, true))
    assert.is_nil(screen:find("Certificate Domains", 1, true))
    assert.is_truthy(screen:find("Certificate Configuration (page 4 of 5)", 1, true))
    assert.same({ "*.contoso.com" }, made_as_pasted(screen).domains)
  end)

  it("goes back from each page without losing anything", function()
    start(SITE)
    answer(FRIENDLY, "<", FRIENDLY, "my label", ROOT, "fabrikam.com", WILDCARD, "<", "Root domain [fabrikam.com]:", "<",
      "Friendly name [my label]:", "", "Root domain [fabrikam.com]:", "", WILDCARD, "n", ROW, "8",
      "IMAP, internal names [none]:", "in.corp.test", "IMAP, external names [imap.contoso.com]:", "<",
      "IMAP, internal names [in.corp.test]:", "", "IMAP, external names [imap.contoso.com]:", "imap.fabrikam.com", ROW, "skip 15", ROW, "<",
      "Root domain [fabrikam.com]:", "", WILDCARD, "")
    answer(ROW, "", CHANGE, "remove 4", CHANGE, "add extra.test", CHANGE, "common 3", CHANGE, "<", ROW, "", CHANGE, "",
      ORGANIZATION, "Fabrikam", "Organizational unit [Mail]:", "-", "Country [US]:", "<", "Organizational unit [none]:", "<",
      "Organization [Fabrikam]:", "<", CHANGE, "", "Organization [Fabrikam]:", "", "Organizational unit [none]:", "", "Country [US]:", "AT",
      "City or locality [none]:", "Linz", "State or province [none]:", "OÖ",
      "Certificate request file [imap.fabrikam.com.csr]:", "-", MAKE, "<", "Organization [Fabrikam]:", "",
      "Organizational unit [none]:", "", "Country [AT]:", "", "City or locality [Linz]:", "", "State or province [OÖ]:", "",
      "Certificate request file [printed here]:", "")
    local object = made_as_pasted(answer(MAKE))
    assert.same({ "imap.fabrikam.com", "mail.contoso.com", "autodiscover.contoso.com", "mta-sts.contoso.com",
      "mail.corp.contoso.com", "in.corp.test", "extra.test" }, object.domains)
    assert.equal("my label", object.friendly_name)
    assert.equal("CN=imap.fabrikam.com,O=Fabrikam,L=Linz,ST=OÖ,C=AT", object.subject)
    assert.is_truthy(terminal:screen():find("\n-----BEGIN CERTIFICATE REQUEST-----\n", 1, true) or
      terminal:screen():find "\nRequest +")
  end)

  it("keeps rows that were changed when the root domain is another one", function()
    start "return {}"
    local root = "Root domain [none]:"
    local screen = answer(FRIENDLY, "", root, "contoso.com", WILDCARD, "", ROW)
    assert.is_truthy(screen:find "\n 7  yes  POP +%- +mail%.contoso%.com *\n")
    screen = answer(ROW, "7", "POP, internal names [none]:", "", "POP, external names [mail.contoso.com]:", "pop.contoso.com", ROW, "<",
      ROOT, "fabrikam.com", WILDCARD, "", ROW)
    screen = screen:match ".*(Service Configuration.*)"
    assert.is_truthy(screen:find "\n 7  yes  POP +%- +pop%.contoso%.com *\n")
    assert.is_truthy(screen:find "\n 8  yes  IMAP +%- +mail%.fabrikam%.com *\n")
    assert.is_truthy(screen:find "\n 5  yes  Autodiscover +%- +autodiscover%.fabrikam%.com *\n")
  end)

  it("asks again after wrong answers, and says why", function()
    desk:write("site/config.lua", SITE)
    desk:done("new-request", "--name", "taken", "--domain", "a.test")
    desk:write("cwd/there.csr", "x")
    start()
    answer(FRIENDLY, "taken", FRIENDLY, "7", FRIENDLY, "a/b", FRIENDLY, "", ROOT, "a b", ROOT, "192.0.2.1", ROOT, "", WILDCARD, "maybe",
      WILDCARD, "", ROW, "99", ROW, "0", ROW, "empty", ROW, "skip x", ROW, "what?", ROW, "8", "IMAP, internal names [none]:", "a b_c",
      "IMAP, internal names [none]:", "", "IMAP, external names [imap.contoso.com]:", "", ROW, "", CHANGE, "add", CHANGE, "add *.*.test", CHANGE, "remove 99", CHANGE,
      "common", CHANGE, "common 1,2", CHANGE, "delete 2", CHANGE, "2", "Name [autodiscover.contoso.com]:", "a..b", "Name [autodiscover.contoso.com]:", "<", CHANGE, "",
      ORGANIZATION, ("x"):rep(65), ORGANIZATION, "", "Organizational unit [Mail]:", "", "Country [US]:", "USA", "Country [US]:", "XX", "Country [US]:", "",
      "City or locality [none]:", ("x"):rep(129), "City or locality [none]:", "", "State or province [none]:", "",
      "Certificate request file [mail.contoso.com.csr]:", "there.csr", "Certificate request file [mail.contoso.com.csr]:", ".",
      "Certificate request file [mail.contoso.com.csr]:", "no/such/file", "Certificate request file [mail.contoso.com.csr]:", "")
    local screen = flat(answer(MAKE, "perhaps", MAKE))
    for _, told in ipairs {
      "the friendly name 'taken' is in use by 1.", "the friendly name '7' may not be digits only", "the friendly name 'a/b' may not hold",
      "a root domain is no IP address.", "Answer y or n.", "'99' is no row: type a number from 1 to 15.", "'0' is no row",
      "say which row, by its number.", "'x' is no row", "'what?' is no row", "'b_c' is not a domain name",
      "say which name to add, with add and the name.", "'*.*.test': a wildcard may only", "'99' is no line: type a number from 1 to 7.",
      "say which line, by its number.", "say one number.", "that is neither a name nor a number; ? explains.",
      "'a..b' is not a domain name: it has an empty label.", "has 65 characters, and may have 64 (X.520",
      "the country 'USA' is not a two-letter code of ISO 3166-1, such as US (United States is US).", "the country 'XX' is not",
      "has 129 characters, and may have 128", "'there.csr' is there already.", "'.' is there already, and is a folder.",
      "there is no folder 'no/such'.",
    } do
      assert.is_truthy(screen:find(told, 1, true), told .. "\n" .. screen)
    end
  end)

  it("does not remove the common name before another one is set", function()
    start(SITE)
    to_list()
    local screen = answer(CHANGE, "remove 1", CHANGE)
    assert.is_truthy(flat(screen):find("mail.contoso.com is the common name: set another one first", 1, true))
    screen = answer(CHANGE, "remove 2,1", CHANGE)
    assert.is_truthy(screen:find("autodiscover.contoso.com", 1, true))
    screen = answer(CHANGE, "common 3", CHANGE, "remove 1", CHANGE)
    screen = screen:match ".*Change %[next%]: remove 1(.*)"
    assert.is_nil(screen:find("mail.contoso.com\n", 1, true))
    assert.is_truthy(screen:find("imap.contoso.com (common name)", 1, true))
  end)

  it("has a name again that was edited or taken off, and what stands in its place", function()
    start(SITE)
    to_list()
    local screen = answer(CHANGE, "2", "Name [autodiscover.contoso.com]:", "one.test", CHANGE, "autodiscover.contoso.com", CHANGE,
      "remove 3", CHANGE, "<", ROW, "8", "IMAP, internal names [none]:", "", "IMAP, external names [imap.contoso.com]:",
      "imap.contoso.com, www.contoso.com", ROW, "", CHANGE)
    local list = screen:match ".*Certificate Domains.-%)%.\n(.*)Change"
    assert.same({ "mail.contoso.com", "autodiscover.contoso.com", "www.contoso.com", "autoconfig.contoso.com", "mta-sts.contoso.com",
      "mail.corp.contoso.com", "one.test" }, (function()
      local names = {}
      for name in list:gmatch "%d+  (%S+)" do names[#names + 1] = name end
      return names
    end)())
    answer(CHANGE, "edit 7", "Name [one.test]:", "two.test", CHANGE, "2", "Name [autodiscover.contoso.com]:", "one.test", CHANGE, "one.test")
    screen = answer(CHANGE)
    list = screen:match ".*\n 1 (.*)Change"
    assert.is_truthy(list:find("two.test", 1, true))
    assert.is_truthy(list:find("one.test", 1, true))
  end)

  it("takes names and texts in other scripts as they are written", function()
    start((SITE:gsub('"contoso%.com"', '"bücher.example"')))
    local joined = "می\u{200C}خواهم"
    answer(FRIENDLY, joined, "Root domain [bücher.example]:", "", WILDCARD, "", ROW, "skip", ROW, "", "Name to add:", "Müller.example, www.BÜCHER.example",
      CHANGE, "", ORGANIZATION, joined, "Organizational unit [Mail]:", "a\u{202E}b", "Organizational unit [Mail]:", "-", "Country [US]:", "", "City or locality [none]:", "",
      "State or province [none]:", "", "Certificate request file [xn--mller-kva.example.csr]:", "-")
    local screen = answer(MAKE)
    assert.is_truthy(screen:find("autodiscover.xn--bcher-kva.example", 1, true))
    assert.is_truthy(screen:find("\n 1  xn--mller-kva.example (müller.example) (common name)\n", 1, true))
    assert.is_truthy(screen:find("That held invisible characters; type it again.", 1, true))
    local object = made_as_pasted(screen)
    assert.same({ "xn--mller-kva.example", "www.xn--bcher-kva.example" }, object.domains)
    assert.equal(joined, object.friendly_name)
  end)

  it("names another common name when the worksheet has it no more", function()
    start(SITE)
    to_list()
    answer(CHANGE, "common 3", CHANGE, "<", ROW, "empty 8", ROW, "")
    local screen = answer(CHANGE)
    assert.is_truthy(flat(screen):find(
      "imap.contoso.com is not on the list any more: the common name is mail.contoso.com now.", 1, true))
  end)

  it("warns of each name that a service uses and the list lacks", function()
    start(SITE)
    local screen = to_list()
    assert.is_nil(screen:match("Certificate Domains.*"):find("Warning", 1, true))
    screen = answer(CHANGE, "remove 3,6", CHANGE)
    assert.is_truthy(screen:find("\nWarning: imap.contoso.com is used by imap, and is not on the list.\n", 1, true))
    assert.is_truthy(screen:find("\nWarning: www.contoso.com is used by web, and is not on the list.\n", 1, true))
    screen = answer(CHANGE, "*.contoso.com", CHANGE)
    assert.is_nil(screen:match(".*%*%.contoso%.com(.*)"):find("Warning", 1, true))
  end)

  it("says which service's own names it could not read, and goes on", function()
    start(SITE)
    local screen = flat(to_rows())
    assert.is_truthy(screen:find("Warning: the names that 'imap' has are not known: cannot read '/no/such/dovecot.conf'", 1, true))
    assert.is_truthy(screen:find("Warning: the names that 'web' has are not known: ", 1, true))
  end)

  it("explains every question at ?", function()
    start(SITE)
    answer(FRIENDLY, "?", FRIENDLY, "", ROOT, "?", ROOT, "", WILDCARD, "?", WILDCARD, "", ROW, "?", ROW, "", CHANGE, "?", CHANGE, "",
      ORGANIZATION, "?", ORGANIZATION, "")
    answer("Organizational unit [Mail]:", "", "Country [US]:", "?", "Country [US]:", "", "City or locality [none]:", "",
      "State or province [none]:", "", "Certificate request file [mail.contoso.com.csr]:", "?",
      "Certificate request file [mail.contoso.com.csr]:", "", MAKE, "?")
    local screen = answer(MAKE)
    for _, told in ipairs { "The friendly name is a label for people", "The root domain is the one below which", "Compare each row with the names",
      "skip 3    do not use its names", "common 2   set it as the common name", "Country is a code of ISO 3166-1", "- alone means: printed here.",
      "Nothing is made before you say yes." } do
      assert.is_truthy(screen:find(told, 1, true), told)
    end
  end)

  local PAGES = {
    { "Introduction", function() return answer(FRIENDLY) end },
    { "Domain Scope", function() return answer(FRIENDLY, "", ROOT) end },
    { "Service Configuration", function() return to_rows() end },
    { "a row", function() to_rows() return answer(ROW, "1", "Outlook Web App, internal names [mail.corp.contoso.com]:") end },
    { "Certificate Domains", function() return to_list() end },
    { "Organization and Location", function() return to_organization() end },
    { "Certificate Configuration", function() return to_summary() end },
  }

  for _, page in ipairs(PAGES) do
    it("leaves nothing behind at Ctrl-C: " .. page[1], function()
      start(SITE)
      page[2]()
      terminal:type "half a line"
      terminal:key "C-c"
      assert.equal(1, terminal:ended())
      assert.is_truthy(terminal:screen():find("\ncertwright: abandoned: nothing was changed\n", 1, true))
      assert.is_nil(lfs.attributes(desk.state))
      for name in lfs.dir(desk.path .. "/cwd") do assert.is_truthy(name:find "^%.+$", name) end
    end)
  end

  it("leaves nothing behind at n, and at the end of input", function()
    start(SITE)
    to_summary()
    answer(MAKE, "n")
    assert.equal(1, terminal:ended())
    terminal:close()
    start()
    answer(FRIENDLY)
    terminal:key "C-d"
    assert.equal(1, terminal:ended())
    assert.is_nil(lfs.attributes(desk.state))
  end)

  it("ends at Ctrl-C while a service's program hangs", function()
    local program = desk:write("slow", "#!/bin/sh\nwhile [ -e $0 ]; do sleep 0.1; done\n", "755")
    start(("return { services = { web = { driver = 'nginx', program = '%s' } } }"):format(program))
    terminal:expect "looking at what the services' own configuration says of names\n"
    terminal:key "C-c"
    assert.equal(-2, terminal:ended())
    os.remove(program) -- which ends it
    assert.is_nil(lfs.attributes(desk.state))
  end)

  it("writes no line that is wider than 80 columns, whatever the names are", function()
    local long = ("a"):rep(30) .. "." .. ("b"):rep(21) .. ".contoso.com"
    start((SITE:gsub("www%.contoso%.com", long)))
    answer(FRIENDLY, "", ROOT, "", WILDCARD, "", ROW, "?", ROW, "1")
    answer("Outlook Web App, internal names [mail.corp.contoso.com]:", "", "Outlook Web App, external names [mail.contoso.com]:", "",
      ROW, "15", ("Service web, external names\n  [%s]:"):format(long) and "Service web, internal names [none]:", "")
    terminal:expect(pattern(long) .. "%]:%s*$")
    terminal:type "\n"
    answer(ROW, "", CHANGE, "?", CHANGE, "", ORGANIZATION, ("Oo "):rep(21))
    answer("Organizational unit [Mail]:", "", "Country [US]:", "?", "Country [US]:", "", "City or locality [none]:", ("Lll "):rep(15),
      "State or province [none]:", "", "Certificate request file [mail.contoso.com.csr]:", "", MAKE, "?", MAKE, "")
    assert.equal(0, terminal:ended())
    for line in terminal:screen():gmatch "[^\n]+" do
      line = line:gsub("%]: .*$", "]: "):gsub("%s+$", "") -- without what was typed
      assert.is_true(utf8.len(line) <= 80, "wider than 80 columns: " .. line)
    end
  end)

  it("writes no escapes with NO_COLOR, and none but bold titles without", function()
    desk:write("site/config.lua", SITE)
    local function raw(variable)
      local result = assert(process.run({ "script", "-qec", ("cd '%s/cwd'; stty cols 80; TERM=xterm %s exec %s --site %s --state %s new-request")
        :format(desk.path, variable, Desk.program, desk.site, desk.state), "/dev/null" }, { timeout = 60, stdin = ("\n"):rep(11) .. "n\n" }))
      assert.is_truthy(result.stdout:find("abandoned: nothing was changed", 1, true), result.stdout)
      return result.stdout
    end
    assert.is_nil(raw("NO_COLOR=1"):find("\27", 1, true))
    local coloured, count = raw("NO_COLOR="):gsub("\27%[1m[%w ]+\27%[0m %(page %d of 7%)", "")
    assert.equal(6, count)
    assert.is_nil(coloured:find("\27", 1, true))
  end)

  it("asks nothing when names are given, with --json or --yes, or without a terminal", function()
    desk:write("site/config.lua", SITE)
    local missing = "no name to ask for: give --domain NAME (repeat), --services LIST, or --root-domain D --wildcard"
    desk:refuses(2, "usage", missing, "new-request")
    local result = desk:run "new-request"
    assert.equal(2, result.status)
    assert.equal("certwright: " .. missing .. "\n", result.stderr)
    for _, words in ipairs { { "--yes" }, { "--json" } } do
      start(nil, table.unpack(words))
      assert.equal(2, terminal:ended())
      assert.is_truthy(terminal:screen():find("no name to ask for", 1, true))
      terminal:close()
    end
    start(nil, "--domain", "a.test")
    assert.equal(0, terminal:ended())
    assert.is_nil(terminal:screen():find("Introduction", 1, true))
  end)

  it("needs a name where it proposes none", function()
    start "return {}"
    local none = "Name to add:"
    answer(FRIENDLY, "", "Root domain [none]:", "", ROW, "", none, "", none, "next", none, "list", none, "?", none, "remove 1",
      none, "common", none, "mail.example.org", CHANGE, "")
    local screen = flat(answer "Organization [none]:")
    for _, told in ipairs { "This needs an answer; ? explains.", "a certificate needs a name; ? explains.",
      "'1' is no line: there are none", "say which line, by its number.", "1 mail.example.org (common name)" } do
      assert.is_truthy(screen:find(told, 1, true), told)
    end
  end)

  it("is recorded with the options that it made, not at all when it is abandoned", function()
    start(SITE)
    answer(FRIENDLY)
    terminal:key "C-c"
    assert.equal(1, terminal:ended())
    assert.is_nil(lfs.attributes(desk.state))
    terminal:close()
    start()
    answer(FRIENDLY, "my mail", ROOT, "fabrikam.com", WILDCARD, "y", ORGANIZATION)
    terminal:key("Enter", "Enter", "Enter", "Enter", "Enter")
    answer("Certificate request file [wildcard.fabrikam.com.csr]:", "-", MAKE, "")
    assert.equal(0, terminal:ended())
    local record = json.decode(desk:read(desk.state .. "/audit.jsonl"):match "^[^\n]+")
    assert.same({ "new-request", { "--name", "my mail", "--root-domain", "fabrikam.com", "--wildcard" } },
      { record.command, record.arguments })
  end)

  it("starts from the options that were given", function()
    start(SITE, "--name", "given", "--root-domain", "fabrikam.com", "--organization", "Fabrikam", "--out", "my.csr")
    answer("Friendly name [given]:", "", "Root domain [fabrikam.com]:", "", WILDCARD, "y", "Organization [Fabrikam]:", "",
      "Organizational unit [Mail]:", "", "Country [US]:", "", "City or locality [none]:", "", "State or province [none]:", "",
      "Certificate request file [my.csr]:", "")
    local object = made_as_pasted(answer(MAKE))
    assert.same({ "given", "CN=*.fabrikam.com,OU=Mail,O=Fabrikam,C=US" }, { object.friendly_name, object.subject })
    assert.is_truthy(lfs.attributes(desk.path .. "/cwd/my.csr"))
  end)

  it("changes nothing in a dry run", function()
    start(SITE, "--dry-run")
    to_summary "Show what would be made? [Y/n]:"
    terminal:key "Enter"
    assert.equal(0, terminal:ended())
    assert.is_truthy(terminal:screen():find "\nVALUE +WOULD BE")
    assert.is_nil(lfs.attributes(desk.state))
  end)

  it("makes a self-signed certificate without asking for a file", function()
    start(SITE, "--self-signed")
    defaults(10, "Make the certificate? [Y/n]:")
    terminal:key "Enter"
    assert.equal(0, terminal:ended())
    assert.is_true(desk:done("show", "1").self_signed)
  end)

  it("writes DER into a file only", function()
    start(SITE, "--form", "der")
    defaults(10, "Certificate request file [mail.contoso.com.csr]:")
    answer("Certificate request file [mail.contoso.com.csr]:", "-", "Certificate request file [mail.contoso.com.csr]:", "~", "Certificate request file [mail.contoso.com.csr]:",
      "~/a.der", MAKE, "")
    assert.equal(0, terminal:ended())
    assert.same(NAMES, desk:done("show", "1").domains)
    desk:request(desk:read(terminal.path .. "/a.der"), "DER")
  end)

  it("says what the site's policy adds, decides and refuses", function()
    desk:write("site/policy.lua", [[
      local M = {}
      function M.extra_domains() return { "extra.contoso.com" } end
      function M.common_name() return "imap.contoso.com" end
      function M.validate(draft) return draft.subject.O == "Contoso" or nil, "the organization is Contoso here" end
      return M]])
    start(SITE)
    local screen = to_list()
    assert.is_truthy(screen:find("\n 3  imap.contoso.com (common name)\n", 1, true))
    assert.is_truthy(screen:find("\n    extra.contoso.com (added by the site's policy)\n", 1, true))
    answer(CHANGE, "", ORGANIZATION, "Other", "Organizational unit [Mail]:", "", "Country [US]:", "",
      "City or locality [none]:", "", "State or province [none]:", "", "Certificate request file [imap.contoso.com.csr]:", "")
    screen = answer("Go back and change it? [Y/n]:", "", "Organization [Other]:", "-")
    assert.is_truthy(screen:find("\nWarning: the organization is Contoso here\n", 1, true))
    terminal:key "C-c"
    assert.equal(1, terminal:ended())
  end)

  it("shows rows that a site adds, and names what is wrong in its worksheet", function()
    desk:write("site/worksheet.lua", "return { { row = 'chat', label = 'Chat', external = 'chat.contoso.com' } }")
    start(SITE)
    assert.is_truthy(to_rows():find "\n15  yes  Chat +%- +chat%.contoso%.com *\n")
    terminal:close()
    desk:write("site/worksheet.lua", "return { { row = 'chat' } }")
    start(SITE)
    assert.equal(1, terminal:ended())
    assert.is_truthy(flat(terminal:screen()):find("row 1 ('chat'): it needs 'label', a text", 1, true))
  end)

  it("proposes what running servers say", function()
    local lab = desk.lab
    local web, smtp = lab:nginx { names = { "shop.lab.test" } }, lab:postfix { names = { "mx.lab.test" } }
    web.service.names, smtp.service.names = nil, nil
    lab:site { services = { web = web.service, smtp = smtp.service } }
    start()
    local screen = answer(FRIENDLY, "", "Root domain [none]:", "", ROW)
    assert.is_truthy(screen:find "\n 1  yes  Outlook Web App +%- +shop%.lab%.test *\n")
    assert.is_truthy(screen:find "\n10  yes  Hub Transport/SMTP +%- +mx%.lab%.test *\n")
  end)
end)
