-- A real terminal for tests: tmux on a socket of its own, in a private folder.
--
--     local terminal <close> = Terminal.new({ "certwright" }, { columns = 80 })
--     terminal:type("1 + 1\n")
--     terminal:expect "\n2\n"

local file = require "core.file"
local host = require "core.host"
local process = require "core.process"

local Terminal = {}
Terminal.__index = Terminal

local function tmux(self, ...)
  local result = assert(process.run({ "tmux", "-S", self.path .. "/socket", "-f", "/dev/null", ... },
    { env = { HOME = self.path, TERM = "xterm-256color" } }))
  return result
end

--- Starts a program on a terminal.  It stays on the screen after its end.
-- @param options { columns = 80, rows = 24, env = {} }
function Terminal.new(argv, options)
  options = options or {}
  local tag = host.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  local self = setmetatable({ path = "/tmp/cw-terminal-" .. tag }, Terminal)
  assert(file.mkdir(self.path, 448)) -- 0700
  local command = { "env", "HOME=" .. self.path }
  for name, value in pairs(options.env or {}) do command[#command + 1] = name .. "=" .. value end
  table.move(argv, 1, #argv, #command + 1, command)
  local result = tmux(self, "new-session", "-d", "-x", tostring(options.columns or 80), "-y",
    tostring(options.rows or 24), ";", "set", "-g", "remain-on-exit", "on", ";", "respawn-pane", "-k", "--",
    table.unpack(command))
  assert(result.status == 0, result.stderr)
  return self
end

--- Types text as it is; "\n" is the Enter key.
function Terminal:type(text)
  for line, newline in text:gmatch "([^\n]*)(\n?)" do
    if line ~= "" then assert(tmux(self, "send-keys", "-l", "--", line).status == 0) end
    if newline ~= "" then self:key "Enter" end
  end
end

--- Presses keys by tmux's names of them: "C-c", "C-d", "Tab", "Up".
function Terminal:key(...)
  assert(tmux(self, "send-keys", "--", ...).status == 0)
end

--- What the screen shows, with what has scrolled off it.
function Terminal:screen()
  return tmux(self, "capture-pane", "-p", "-J", "-S", "-1000").stdout
end

--- Waits until the screen matches a pattern; raises with the screen if not.
function Terminal:expect(pattern, seconds)
  local deadline = host.clock() + (seconds or 10)
  while true do
    local screen = self:screen()
    if screen:find(pattern) then return screen end
    if host.clock() > deadline then error(("no '%s' on the screen:\n%s"):format(pattern, screen), 2) end
    host.sleep(0.03)
  end
end

--- Waits until the program has ended.
-- tmux 3.3 closes the terminal before it knows the status, and sometimes misses
-- its child's signal: the end of another child makes it look again.
-- @return its exit status; the number of the signal that killed it, negative
function Terminal:ended(seconds)
  local deadline = host.clock() + (seconds or 10)
  repeat
    local dead, status, signal = tmux(self, "display-message", "-p",
      "#{pane_dead}|#{pane_dead_status}|#{pane_dead_signal}").stdout:match "^(%d)|(%d*)|(%d*)"
    if status ~= "" then return tonumber(status) end
    if signal ~= "" then return -tonumber(signal) end
    if dead == "1" then tmux(self, "run-shell", "true") end
    host.sleep(0.03)
  until host.clock() > deadline
  error("still running:\n" .. self:screen(), 2)
end

function Terminal:close()
  if self.path then
    tmux(self, "kill-server")
    process.run { "rm", "-rf", "--", self.path }
    self.path = nil
  end
end

Terminal.__close = Terminal.close
Terminal.__gc = Terminal.close

return Terminal
