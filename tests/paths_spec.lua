-- paths: names, and glob patterns, against what the shell makes of them.

local paths = require "paths"
local process = require "core.process"
local lfs = require "lfs"

describe("paths", function()
  it("cleans doubled slashes and dots, and leaves hidden names", function()
    assert.equal("/a/b/c", paths.clean "//a/./b//c/.")
    assert.equal("/a/.b", paths.clean "/a/.b/")
    assert.equal("/", paths.clean "//")
  end)

  it("takes a relative path from its folder, and an absolute one as it is", function()
    assert.equal("/etc/nginx/conf.d", paths.join("/etc/nginx", "conf.d"))
    assert.equal("/srv/x", paths.join("/etc/nginx", "/srv//x"))
    assert.equal("/", paths.parent "/a")
    assert.equal("/a", paths.parent "/a/b")
  end)

  it("takes no folder for inside another that only begins alike", function()
    assert.is_true(paths.inside("/a//b/c", "/a/b/"))
    assert.is_false(paths.inside("/a/bc", "/a/b"))
    assert.is_false(paths.inside("/a/b", "/a/b"))
  end)

  it("reads a pattern as glob(7) does", function()
    assert.is_true(paths.matches("10-ssl.conf", "*.conf"))
    assert.is_true(paths.matches("a-b].conf", "a-b[]].[!x]onf"))
    assert.is_true(paths.matches("a%b", "a%b"))
    assert.is_true(paths.matches("x1", "x[0-9]"))
    assert.is_false(paths.matches("xx", "x[0-9]"))
    assert.is_false(paths.matches(".hidden", "*"))
    assert.is_false(paths.matches("a.confx", "*.conf"))
  end)

  it("finds what the shell finds", function()
    local folder = os.tmpname()
    os.remove(folder)
    lfs.mkdir(folder)
    for _, name in ipairs { "b", "a", "a/x.conf", "a/.y.conf", "b/z w.conf", "b/x.txt" } do
      if name:find "%." then
        io.open(folder .. "/" .. name, "w"):close()
      else
        lfs.mkdir(folder .. "/" .. name)
      end
    end
    for _, pattern in ipairs { "/*/*.conf", "/?/x*", "/[!a]/*", "/a/x.conf", "/nothing/*", "/a/nothing" } do
      local script = 'for f in "$1"' .. pattern .. '; do [ -e "$f" ] && echo "$f"; done'
      local shell = process.run { "sh", "-c", script, "sh", folder }
      local found = table.concat(paths.glob(folder .. pattern), "\n")
      assert.equal(shell.stdout, found == "" and "" or found .. "\n")
    end
    process.run { "rm", "-r", folder }
  end)
end)
