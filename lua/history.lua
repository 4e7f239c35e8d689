-- history.lua: the lines that were typed at the prompt, kept in a file that its
-- owner alone may read.
--
-- Written as each input is run, by appending, so that it outlives a terminal
-- that is closed, and two prompts do not lose each other's.  What begins with a
-- blank is not kept, nor anything with a private key in it.

local file = require "core.file"
local host = require "core.host"

local M = {}
M.__index = M

local KEPT = 1000 -- lines
local LONGEST = 4096 -- bytes of a line that is kept
local LIMIT = 4 * 1024 * 1024 -- bytes that are read

local function lines_of(bytes)
  local lines = {}
  for line in bytes:gmatch "[^\n]+" do
    if #line <= LONGEST and not line:find "%z" then lines[#lines + 1] = line end
  end
  return table.move(lines, math.max(1, #lines - KEPT + 1), #lines, 1, {})
end

-- Makes sure that the file is one of this user's own, whatever stands there.
-- @return its status, or false when there is none | nil, message, code
local function inspect(path)
  local status, message, code = file.stat(path)
  if not status then
    if code == "missing" then return false end
    return nil, message, code
  end
  if status.kind ~= "file" then return nil, ("'%s' is no regular file"):format(path), "denied" end
  if status.owner ~= (host.user()) then return nil, ("'%s' is another user's"):format(path), "denied" end
  return status
end

local function write(path, lines)
  local text = #lines > 0 and table.concat(lines, "\n") .. "\n" or ""
  return file.write(path, text, { mode = 384, exclusive = false }) -- 0600
end

--- Opens the history, with its folder made where that is missing.
-- @return history, with lines | nil, message, code
function M.open(path)
  local ok, message, code = file.mkdirs(path:match "^(.*)/", 448) -- 0700
  if not ok then return nil, message, code end
  local status
  status, message, code = inspect(path)
  if status == nil then return nil, message, code end
  local bytes = ""
  if status then
    bytes, message, code = file.read(path, LIMIT)
    if code == "limit" then bytes = "" elseif not bytes then return nil, message, code end
  end
  local lines = lines_of(bytes)
  local _, count = bytes:gsub("\n", "")
  local is_cut = bytes:find "[^\n]$" -- what is added would go on with that line
  if not status or status.mode & 511 ~= 384 or count > #lines or is_cut or status.size > LIMIT then
    ok, message, code = write(path, lines)
    if not ok then return nil, message, code end
  end
  return setmetatable({ path = path, lines = lines }, M)
end

--- Keeps an input, of one line or several.
-- @return true | nil, message, code
function M:add(input)
  if input:find "^%s" or input:find("PRIVATE KEY", 1, true) then return true end
  local lines = lines_of(input)
  if #lines == 0 then return true end
  local status, message, code = inspect(self.path)
  if status == nil then return nil, message, code end
  if not status then return write(self.path, lines) end
  local stream
  stream, message = io.open(self.path, "a")
  if not stream then return nil, message, "io" end
  stream:write(table.concat(lines, "\n"), "\n")
  local ok, why = stream:close()
  if not ok then return nil, why, "io" end
  return true
end

return M
