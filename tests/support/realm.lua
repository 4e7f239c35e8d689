--- A realm: this machine with users, groups, a sudoers file, a site and a state
-- of its own, in a mount namespace that nobody else sees. /etc is a copy,
-- /var/lib, /usr/local and /home are empty but for the installed program, and all
-- of it is gone when the process that holds the namespace ends. Needs root.
--
--     local realm <close> = Realm.new()
--     realm:user("alice", "certs")                        -- in that group
--     realm:site 'return { roles = { requester = "certs" } }'
--     realm:sudoers()                                     -- as roles --sudoers prints it
--     realm:sudo("alice", "list")                         -- sudo certwright list

local file = require "core.file"
local host = require "core.host"
local process = require "core.process"
local lfs = require "lfs"

local Realm = {}
Realm.__index = Realm

local program = assert(lfs.symlinkattributes("/proc/self/exe", "target"))
local home = package.searchpath("cli", package.path):match "^(.*)/lua/cli%.lua$"

local SETUP = [[
set -eu
folder=$1 program=$2 home=$3 modules=$4
mount -t tmpfs -o mode=0755 none "$folder/mnt"
cd "$folder/mnt"
mkdir -p local/bin local/share/certwright local/lib lib home
cp -a /etc etc
cp "$program" local/bin/certwright
cp -R "$home/lua" "$home/scripts" local/share/certwright
cp -R "$modules" local/lib/certwright
chown -R root:root local
chmod -R u=rwX,go=rX local
chmod 755 local/bin/certwright
mount --bind etc /etc
mount --bind lib /var/lib
mount --bind local /usr/local
mount --bind home /home
cd /
rm -rf /etc/certwright
mkdir /etc/certwright
echo "127.0.0.1 localhost $(hostname)" > /etc/hosts
rm -f /etc/sudoers.d/*
printf 'Defaults !authenticate, !lecture\n' > /etc/sudoers.d/00-tests
chmod 440 /etc/sudoers.d/00-tests
echo ready > "$folder/ready"
exec sleep 3600
]]

--- Why no realm can be made here, or nil.
function Realm.missing()
  if (host.user()) ~= 0 then return "needs root" end
  if file.read("/proc/self/status"):find "\nNoNewPrivs:%s*1" then return "needs sudo, which no_new_privs forbids" end
  local try = process.run { "unshare", "-m", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/var/lib" }
  if not try or try.status ~= 0 then return "needs a mount namespace: " .. (try and try.stderr or "no unshare") end
end

function Realm.new()
  local tag = host.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  local self = setmetatable({ folder = "/tmp/cw-realm-" .. tag }, Realm)
  assert(file.mkdir(self.folder, tonumber("755", 8)))
  assert(file.mkdir(self.folder .. "/mnt", tonumber("755", 8)))
  self.holder = assert(process.start({ "unshare", "-m", "--propagation", "private", "sh", "-c", SETUP, "sh",
    self.folder, program, home, home .. (program:find "-asan$" and "/build/sanitize/modules" or "/build/modules") },
    { output = self.folder .. "/log" }))
  local deadline = host.clock() + 60
  while not file.stat(self.folder .. "/ready") do
    if host.clock() > deadline or not self.holder:running() then
      error("no realm: " .. tostring(file.read(self.folder .. "/log")))
    end
    host.sleep(0.02)
  end
  return self
end

--- Runs a program in the realm as root; a last argument that is a table is the
-- options of core.process.run.
function Realm:run(...)
  local argv = { "nsenter", ("--mount=/proc/%d/ns/mnt"):format(self.holder:pid()), "--", ... }
  local options = type(argv[#argv]) == "table" and table.remove(argv) or {}
  if options.cwd then -- of the realm
    table.move({ "env", "-C", options.cwd }, 1, 3, 4, table.move(argv, 4, #argv, 7))
    options.cwd = nil
  end
  return assert(process.run(argv, options))
end

--- The same, which has to succeed; its standard output.
function Realm:must(...)
  local result = self:run(...)
  if result.status ~= 0 then
    error(("%s: exit status %s: %s"):format((...), result.status, result.stderr), 2)
  end
  return result.stdout
end

--- Makes a user, with a home, in these groups, which are made too.
function Realm:user(name, ...)
  for _, group in ipairs { ... } do
    self:must("groupadd", "-f", group)
  end
  self:must("useradd", "-m", "-s", "/bin/sh", "-G", table.concat({ ... }, ","), name)
end

--- Writes a file in the realm, as its owner; default root's, mode 0644.
function Realm:write(path, text, owner, mode)
  self:must("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat > "$1" && chown "$2" "$1" && chmod "$3" "$1"', "sh", path,
    owner or "root", mode or "644", { stdin = text })
  return path
end

function Realm:read(path)
  return self:must("cat", path)
end

--- The site's config.lua.
function Realm:site(text)
  self:write("/etc/certwright/config.lua", text)
end

--- Puts in force what `roles --sudoers` prints, or other text; visudo's word on it.
function Realm:sudoers(text, name)
  text = text or self:must("/usr/local/bin/certwright", "roles", "--sudoers")
  local path = self:write("/etc/sudoers.d/" .. (name or "certwright"), text, "root", "440")
  return self:must("visudo", "-c", "-f", path), text
end

--- Runs a shell's line as a user, in the user's home.
function Realm:as(user, line, ...)
  return self:run("setpriv", "--reuid", user, "--regid", user, "--init-groups", "--reset-env", "--", "sh", "-c", line,
    "sh", ...)
end

--- Runs sudo certwright ... as a user.
function Realm:sudo(user, ...)
  local argv = { ... }
  if type(argv[#argv]) ~= "table" then argv[#argv + 1] = {} end
  argv[#argv].cwd = argv[#argv].cwd or "/home/" .. user
  return self:as(user, 'exec sudo -n certwright "$@"', table.unpack(argv))
end

function Realm:close()
  if not self.holder then return end
  self.holder:stop("KILL")
  self.holder = nil
  process.run { "rm", "-rf", "--", self.folder }
end

Realm.__close = Realm.close
Realm.__gc = Realm.close

return Realm
