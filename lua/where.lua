-- where.lua: where the site folder and the state folder are when nobody says.

local host = require "core.host"

local M = {}

-- The user's home; sudo's caller has no say in root's.
local function home()
  local user = os.getenv "SUDO_UID" and host.lookup((host.user()))
  return os.getenv "HOME" or user and user.home or nil
end

-- A folder below the user's own (XDG Base Directory Specification 0.8).
local function own(variable, fallback)
  local base = os.getenv(variable)
  if not base or base:sub(1, 1) ~= "/" then
    base = (home() or "") .. fallback
  end
  return base .. "/certwright"
end

local function is_root()
  return (host.user()) == 0
end

--- The site folder: root's, or the user's own.
function M.site()
  return is_root() and "/etc/certwright" or own("XDG_CONFIG_HOME", "/.config")
end

--- The state folder: root's, or the user's own.
function M.state()
  return is_root() and M.root_state or own("XDG_DATA_HOME", "/.local/share")
end

--- The history of the REPL; nil where there is no home.
function M.history()
  return home() and own("XDG_STATE_HOME", "/.local/state") .. "/history" or nil
end

--- Root's state folder, which a user without a store of his own is told about.
M.root_state = "/var/lib/certwright"

return M
