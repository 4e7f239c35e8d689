-- selection.lua: which certificate serves a name, of several that cover it.
--
-- What was observed for the name is what clients get.  Else it is as Exchange's
-- SMTP chooses: the newest valid one of a CA, otherwise a self-signed one; then
-- what cannot serve.

local object = require "object"

local M = {}

-- When a name was last observed to get this certificate; nil: it does not.
local function observed_at(row, assignments, name)
  local latest
  for _, assignment in ipairs(assignments or {}) do
    if assignment.state == "observed" and assignment.observed == row.fingerprint and assignment.name == name then
      latest = math.max(latest or 0, assignment.observed_at or 0)
    end
  end
  return latest
end

-- 1 is served first.
local function rank(row, observed, now)
  local status = object.status(row, now)
  if observed then return 1 end
  if row.state ~= "completed" then return status == "PendingRequest" and 5 or 6 end
  local is_usable = row.has_private_key and (status == "Valid" or status == "Untrusted")
  if is_usable and row.self_signed then return 3 end
  return is_usable and status == "Valid" and 2 or 4
end

--- Sorts objects that cover a name: first the one that would be served.
-- @param rows as certificates.lua reads them
-- @param by_object { [id] = array of assignments }
function M.sort(rows, by_object, name)
  local keys, now = {}, os.time()
  name = name:lower():gsub("(.)%.$", "%1")
  for _, row in ipairs(rows) do
    local observed = observed_at(row, by_object[row.id], name)
    keys[row] = { rank(row, observed, now), -(observed or row.not_before or 0), -row.id }
  end
  table.sort(rows, function(a, b)
    for i, key in ipairs(keys[a]) do
      if key ~= keys[b][i] then return key < keys[b][i] end
    end
    return false
  end)
end

return M
