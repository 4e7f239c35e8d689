-- The program where any user reaches it: a copy in a folder of its own, since a
-- clone may stand below one that only root enters.  It goes when the run ends.

local file, host, process = require "core.file", require "core.host", require "core.process"

local home = assert(file.link("/proc/self/exe")):match "^(.*)/[^/]*$"
local folder = "/tmp/cw-anyone-" .. host.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
local made

local M = {}

--- The path of the copy.
function M.program()
  if not made then
    assert(file.mkdir(folder, 493)) -- 0755
    made = setmetatable({}, { __gc = function() process.run { "rm", "-rf", "--", folder } end })
    for _, argv in ipairs { { "cp", assert(file.link("/proc/self/exe")), folder .. "/certwright" },
      { "cp", "-R", home .. "/lua", home .. "/scripts", folder },
      { "sh", "-c", 'cd "$1" && cp -R --parents $(ls -d build/modules build/*/modules 2>/dev/null) "$2"', "sh", home,
        folder }, { "chmod", "-R", "u=rwX,go=rX", folder } } do
      local result = assert(process.run(argv))
      assert(result.status == 0, result.stderr)
    end
  end
  return folder .. "/certwright"
end

return M
