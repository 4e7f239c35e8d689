-- context.lua: what every script is handed: the global options, the site, the
-- store, and a way to say what is going on.
--
-- The site and the store are opened when they are first asked for.

local file = require "core.file"
local host = require "core.host"
local invocation = require "invocation"
local text = require "text"

local M = {}
M.__index = M

--- A context for one run of the program.
-- @param what { home=, version=, globals= } as cli.lua has them
function M.new(what)
  local globals = what.globals
  local self = setmetatable({
    home = what.home, version = what.version,
    caller = globals.caller or nil, -- the role user who acts; their role is set when it is known
    site_dir = globals.site, state_dir = globals.state,
    json = globals.json, yes = globals.yes, dry_run = globals.dry_run,
    quiet = globals.quiet, verbose = globals.verbose,
    terminal = host.terminal(0) and host.terminal(1) and not globals.json and not globals.yes,
    columns = host.terminal(1) and host.columns() or nil, -- nil: results go into a file or a pipe
    plan = {}, -- what a dry run would do
  }, M)
  invocation.settle(self)
  return self
end

-- A terminal's lines are broken between words; files and pipes get them whole.
local function tell(prose)
  local columns = host.terminal(2) and host.columns() or nil
  io.stderr:write(text.wrap(text.escape_lines(prose), columns, #prose:match "^ *" + 2), "\n")
end

--- Says on standard error what is being done; nothing with --quiet.  What a dry
-- run says that it "would" do stands in its JSON result as well.
function M:say(format, ...)
  local prose = format:format(...)
  if self.dry_run and prose:find "^would " then table.insert(self.plan, prose) end
  if not self.quiet then tell(prose) end
end

--- Says which command comes next, where it is for a person to give.
-- @param format what follows "certwright", as of string.format
function M:next(format, ...)
  if not self.in_workflow then self:say("next: %s", invocation.suggest(format, ...)) end
end

--- Warns on standard error, even with --quiet.
function M.warn(_, format, ...)
  tell("certwright: warning: " .. format:format(...))
end

--- A person's terminal, for wizard.lua.  What is asked is no result: it goes to
-- standard error, unless that is somewhere else.
-- @return { columns(), colour, read() -> line | nil, write(text) }
function M.dialogue()
  local stream = host.terminal(2) and io.stderr or io.stdout
  return {
    columns = function() return host.columns() or 80 end,
    colour = (os.getenv "NO_COLOR" or "") == "" and os.getenv "TERM" ~= "dumb",
    read = function() return io.stdin:read "l" end,
    write = function(prose)
      stream:write(prose)
      stream:flush()
    end,
  }
end

--- The site: its configuration and policy, over the shipped defaults.
-- @return site | nil, message, code
function M:site()
  if not self.loaded_site then
    local site, message, code = require("site").load(self)
    if not site then return nil, message, code end
    self.loaded_site = site
  end
  return self.loaded_site
end

--- Who acts: the user behind sudo where there is one, by the name that the
-- system has for the number that sudo says.
function M.who()
  local effective, _, real = host.user()
  local behind = effective == 0 and math.tointeger(tonumber((os.getenv "SUDO_UID" or ""):match "^%d+$")) or 0
  local uid = behind > 0 and behind or real or effective
  local user = host.lookup(uid)
  return (user and user.name or tostring(uid)) .. (behind > 0 and " (sudo)" or "")
end

--- Asks a person on a terminal whether to go on; --yes answers.  Elsewhere nobody
-- is asked.
-- @param matter what is at stake, a sentence without its end
-- @param instead what else could be done, or nil
-- @return true | nil, message, "usage" (nobody to ask) | "refused" (No)
function M:agree(matter, instead)
  if self.yes or self.dry_run then return true end
  instead = instead and "; or " .. instead or ""
  if not self.terminal then return nil, ("%s; say --yes if that is meant%s"):format(matter, instead), "usage" end
  tell(matter .. ".")
  io.stderr:write "Go on? [y/N] "
  local answer = (io.stdin:read "l" or ""):lower():match "^%s*(.-)%s*$"
  if answer == "y" or answer == "yes" then return true end
  return nil, "nothing was done", "refused"
end

--- Whether who acts may do what takes a role.  Root has no role and needs none.
function M:may(role)
  return not self.caller or self.role ~= nil and require("roles").includes(self.role, role)
end

--- A path in the state folder.
function M:path(...)
  return table.concat({ self.state_dir, ... }, "/")
end

-- File systems on which SQLite's locks cannot be relied on: the magic numbers
-- of statfs(2) for NFS, SMB, CIFS, SMB2, AFS, Coda, NCP, 9P, Ceph, FUSE-less.
local NETWORK = {
  [0x6969] = "NFS", [0x517B] = "SMB", [0xFF534D42] = "CIFS", [0xFE534D42] = "SMB2",
  [0x5346414F] = "AFS", [0x73757245] = "Coda", [0x564C] = "NCP", [0x00C36400] = "Ceph",
}

-- Other users may not look into the state folder, which holds keys, nor put
-- another one in its place.
local function check_state_folder(self)
  local ok, message, code = file.guard(self.state_dir, "keep the state in")
  if not ok then return nil, message, code end
  local status = file.stat(self.state_dir, true)
  if status and status.mode & 63 ~= 0 then -- 0077
    return nil, ("the state folder '%s' can be entered by others (mode %04o); to mend it: chmod 700 '%s'")
      :format(self.state_dir, status.mode, self.state_dir), "denied"
  end
  return true
end

--- Makes the state folder; one that is there is checked.
-- @return true | nil, message, "denied" | "unsupported" | "io"
function M:make_state_folder()
  local ok, message, code = file.mkdirs(self.state_dir, 448) -- 0700
  if not ok then return nil, message, code end
  local system
  system, message, code = file.filesystem(self.state_dir)
  if not system then return nil, message, code end
  if NETWORK[system.type] then
    return nil, ("cannot keep the state in '%s': it is on a network file system (%s), where a "
      .. "database's locks cannot be relied on; choose a local folder with --state"):format(
      self.state_dir, NETWORK[system.type]), "unsupported"
  end
  ok, message, code = check_state_folder(self)
  if not ok then return nil, message, code end
  for _, name in ipairs { "keys", "requests", "locks" } do
    ok, message, code = file.mkdirs(self:path(name), 448)
    if not ok then return nil, message, code end
  end
  return true
end

--- Opens the store, in the state folder unless elsewhere.
-- @return a core.store handle | nil, message, code
function M:open_store(path)
  path = path or self:path "store.db"
  local store = require "core.store"
  local db, message, code = store.open(path)
  if not db then return nil, message, code end
  db, message, code = require("schema").prepare(db, true)
  if not db then return nil, ("cannot use '%s': %s"):format(path, message), code end
  self.db = db
  return db
end

--- The store, for reading.  One that does not exist yet is an empty one.
-- @return a core.store handle | nil, message, code
function M:read()
  if self.db then return self.db end
  local status, message, code = file.stat(self:path "store.db", true)
  if status then
    self.is_read_only = true
    return self:open_store()
  elseif code ~= "missing" then
    return nil, message, code
  end
  local root = require("where").root_state
  if (host.user()) ~= 0 and self.state_dir ~= root and file.stat(root) then
    self:say("there is no store in '%s'; root's is in '%s': use sudo to see it", self.state_dir, root)
  end
  return self:open_store ":memory:"
end

--- The store, for writing: made when it is missing.  That something begins is
-- put into the audit record, and what a crash cut short is finished or undone
-- first.  A dry run reads: it changes nothing.
-- @param options { unrecorded = true: nothing but observations will be written;
--   or audit.begin is called once there is something to change }
-- @return a core.store handle | nil, message, code
function M:write(options)
  if self.dry_run then return self:read() end
  if self.is_writing then return self.db end
  if self.db then
    self.db:close()
    self.db = nil
  end
  local ok, message, code = self:make_state_folder()
  if not ok then return nil, message, code end
  local db
  db, message, code = self:open_store()
  if not db then return nil, message, code end
  self.is_writing = true
  if not (options and options.unrecorded) then
    ok, message, code = require("audit").begin(self)
    if not ok then return nil, message, code end
  end
  ok, message, code = require("recovery").run(self)
  if not ok then return nil, message, code end
  return db
end

--- Changes the store that a command has open which only looks, with a record of its
-- own where that has none.
-- @param work function -> true | nil, message, code
-- @return the same
function M:change(work)
  local audit, is_recorded = require "audit", self.record ~= nil
  self.is_writing = true
  local ok, message, code = audit.begin(self, true)
  if not ok then return nil, message, code end
  ok, message, code = work()
  if not is_recorded then audit.finish(self, ok and 0 or 1, message, code) end
  return ok, message, code
end

--- Closes the store.
function M:close()
  if self.db then self.db:close() end
  self.db = nil
end

return M
