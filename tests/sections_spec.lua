-- sections: Dovecot's grammar, and what doveconf makes of the same text.

local sections = require "sections"
local process = require "core.process"
local lfs = require "lfs"

local folder

local function write(name, text)
  local stream = assert(io.open(folder .. "/" .. name, "w"))
  stream:write(text)
  stream:close()
  return folder .. "/" .. name
end

local function read(text, replace)
  return sections.read(write("main.conf", text), replace or function() end)
end

describe("sections", function()
  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    lfs.mkdir(folder)
  end)

  teardown(function()
    process.run { "rm", "-r", folder }
  end)

  it("reads settings, quotes, comments and continued lines as doveconf does", function()
    local text = [[
# ssl = no
login_greeting = "Hello # there"  # a comment
listen = 127.0.0.1
protocols = imap
protocols = $protocols pop3
mail_location = maildir:\
~/Mail
]]
    local scopes = assert(read(text))
    for _, name in ipairs { "login_greeting", "listen", "protocols" } do
      local said = process.run { "doveconf", "-h", "-c", folder .. "/main.conf", name }
      assert.equal(said.stdout, scopes[""][name] .. "\n")
    end
    assert.is_nil(scopes[""].ssl)
  end)

  it("keeps settings by their sections", function()
    local scopes = assert(read 'a = 1\nservice imap-login {\n a = 2\n inet_listener  "x y" {\n a = 3\n }\n}\na = 4\n')
    assert.equal("4", scopes[""].a)
    assert.equal("2", scopes["/service imap-login"].a)
    assert.equal("3", scopes["/service imap-login/inet_listener x y"].a)
  end)

  it("makes the path of a file value absolute, from the file it stands in", function()
    lfs.mkdir(folder .. "/d")
    write("d/1.conf", "ssl_cert = < c.pem\n")
    write("d/2.conf", "ssl_key = </k.pem\n")
    local scopes, includes = assert(read "!include d/*.conf\n!include_try nothing\n")
    assert.equal("<" .. folder .. "/d/c.pem", scopes[""].ssl_cert)
    assert.equal("</k.pem", scopes[""].ssl_key)
    assert.same({ folder .. "/d/*.conf", folder .. "/nothing" }, includes)
  end)

  it("takes what it is told in place of an include, in its order", function()
    local function replace(path) return path == "/ours" and { a = "ours" } or nil end
    assert.equal("ours", (read("a = 1\n!include /ours\n", replace))[""].a)
    assert.equal("1", (read("!include /ours\na = 1\n", replace))[""].a)
  end)

  it("refuses what is not there, what it cannot read, and includes without end", function()
    for text, refusal in pairs {
      ["!include nothing.conf\n"] = { "missing", "nothing.conf" },
      ["what is this\n"] = { "parse", "no setting, section or include: what is this" },
      ["}\n"] = { "parse", "no setting, section or include: }" },
      ["!include main.conf\n"] = { "limit", "nested more than 20 deep" },
      ["!include a\0b\n"] = { "parse", "it holds a NUL" },
    } do
      local scopes, message, code = read(text)
      assert.is_nil(scopes)
      assert.equal(refusal[1], code)
      assert.matches(refusal[2], message, 1, true)
    end
  end)
end)
