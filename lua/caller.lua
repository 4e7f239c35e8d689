-- caller.lua: on whose behalf root runs the program.
--
-- Who comes through sudo and may run everything is root, as far as we are
-- concerned.  Any other such user is a role user: what they may do, roles.lua
-- says; what they name is opened with their rights, and the programs that are
-- run begin in /, not where they stand.  Everything here rests on what sudo and
-- the system say, never on what the user says.

local file = require "core.file"
local host = require "core.host"
local process = require "core.process"
local rights = require "core.caller"

local M = {}

local ANSWER = 20 -- seconds for sudo to say what it allows

local CURE = "; in a shell of root's own: unset SUDO_UID"

-- Whether sudo lets a user run any program as root, who need not be whom it
-- would run one as where nobody says (runas_default).
local function may_everything(name)
  local question = { "sudo", "-n", "-l", "-U", name, "-u", "root", "--", "/bin/sh" }
  local answer, message, code = process.run(question, { timeout = ANSWER })
  if not answer then return nil, ("cannot ask sudo what '%s' may do: %s%s"):format(name, message, CURE), code end
  return answer.status == 0
end

local known -- the role user of this run, if there is one

--- The role user who called, { name =, uid =, gid =, home =, groups = { gid, ... } };
-- false: nobody but root, or a user with rights of their own.
-- @return caller or false | nil, message, code
function M.identify()
  known = nil
  local effective, _, real = host.user()
  if effective ~= 0 then return false end
  if real ~= 0 then return nil, "refused to run as root for another user but through sudo: chmod u-s", "denied" end
  local said = os.getenv "SUDO_UID"
  if not said then return false end
  local uid = math.tointeger(tonumber(said:match "^%d+$"))
  local user = uid and uid < 4294967295 and host.lookup(uid)
  if not user then return nil, "called through sudo by a user whom the system does not know" .. CURE, "denied" end
  if user.uid == 0 then return false end
  local everything, message, code = may_everything(user.name)
  if everything == nil then return nil, message, code end
  if everything then return false end
  local groups
  groups, message, code = host.groups(user.name, user.gid)
  if not groups then return nil, message, code end
  known = { name = user.name, uid = user.uid, gid = user.gid, groups = groups, home = user.home }
  process.folder "/"
  return known
end

--- Calls a function on files that the user named, with the role user's rights;
-- with our own where there is none.
-- @return what the function returns
function M.call(f, ...)
  if not known then return f(...) end
  return rights.call(known, f, ...)
end

--- The home of the user who acts: what `~` in a name means.
function M.home()
  if known then return known.home end
  return os.getenv "HOME"
end

--- core.file's functions for files that the user named.
M.file = {}
for _, name in ipairs { "read", "secret", "password", "write", "remove", "stat" } do
  M.file[name] = function(...) return M.call(file[name], ...) end
end

return M
