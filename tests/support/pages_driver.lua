--- Drives the pages of a command on a real terminal, as a person would.

local Terminal = require "terminal"
local host = require "core.host"

local M = {}

--- A terminal on which a command of the program runs.
-- @param desk anything with `site` and `state` folders, and `program`
function M.start(desk, ...)
  return Terminal.new({ desk.program, "--site", desk.site, "--state", desk.state, ... }, { rows = 50 })
end

--- Answers one question after the other: { "what the screen shows", "answer" };
-- each is looked for below what was answered last.
function M.answer(terminal, steps)
  local seen = 0
  for _, step in ipairs(steps) do
    local found
    local deadline = host.clock() + 60
    repeat
      local screen = terminal:screen():gsub("%s+$", "")
      found = select(2, screen:find(step[1], seen + 1, true))
      if not found then host.sleep(0.03) end
      if not found and host.clock() > deadline then
        error(("no '%s' below what was answered on the screen:\n%s"):format(step[1], screen), 2)
      end
    until found
    seen = found
    if step[2] then terminal:type(step[2] .. "\n") end
    if step.key then terminal:key(step.key) end
  end
end

--- That no line is wider than the terminal, and nothing but text is there.
function M.assert_plain(screen)
  for line in screen:gmatch "[^\n]+" do
    assert(utf8.len(line) <= 80 or not line:find " ", "wider than 80 columns: " .. line)
    assert(not line:find "[\27\r]", "an escape: " .. line)
  end
end

return M
