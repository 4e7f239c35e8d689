-- outcome.lua: several results of one command: what is said of them, and the
-- one exit status: what could not be put back, then what failed, then what has
-- to wait.

local json = require "json"

local M = {}

local RANK = { unrestored = 3, pending = 1 } -- any other code: 2

--- The worst of some failures, and what is said of all.
-- @param list array of { message =, code = }; one without a message is a success
-- @return message, code | nil when nothing failed
function M.worst(list)
  local lines, code, rank = {}, nil, 0
  for _, outcome in ipairs(list) do
    if outcome.message then
      lines[#lines + 1] = outcome.message
      local own = RANK[outcome.code] or 2
      if own > rank then code, rank = outcome.code, own end
    end
  end
  if #lines == 0 then return nil end
  if rank == 2 and code == "usage" then code = "refused" end -- of one among many: no misuse of the command
  return table.concat(lines, "\n"), code
end

--- The objects that some results are about, each once.
-- @param list array of { id =, fields = }
function M.fields(list)
  local array, seen = json.array(), {}
  for _, result in ipairs(list) do
    if not seen[result.id] then array[#array + 1] = result.fields end
    seen[result.id] = true
  end
  return array
end

--- Whether Ctrl-C ended what was done: then nothing more is begun.  The word alone
-- may be a server's or a CA's.
function M.is_interrupted(message)
  return message ~= nil and (message:find "^interrupted" or message:find "%.lua:%d+: interrupted") ~= nil
end

return M
