-- inspection.lua: looks at every standing assignment again and records what
-- clients see now.

local assignments = require "assignments"
local observation = require "observation"
local sni = require "sni"
local staging = require "staging"
local text = require "text"

local M = {}

-- The chain that was written for an object, to compare with what is sent.
local function wanted_of(context, rows)
  local certificates, cert = require "certificates", require "core.cert"
  local wanted = {}
  for _, row in ipairs(rows) do
    if wanted[row.object_id] == nil then
      local object = certificates.get(context.db, row.object_id)
      local chain = object and object.certificate and cert.parse(object.certificate .. (object.chain or ""))
      local prints = {}
      for i, certificate in ipairs(chain or {}) do prints[i] = certificate:fingerprint() end
      wanted[row.object_id] = { fingerprint = row.desired, chain = chain and prints }
    end
  end
  return wanted
end

-- What an assignment is after a look: a failed one stays failed, for the reason
-- that it had, until it is seen.
local function judge(row, result, wanted)
  if result.fingerprint then row.observed, row.observed_at = result.fingerprint, result.at end
  local state = observation.state(result, wanted)
  if row.state == "failed" and row.error and state ~= "observed" then return end
  if row.state ~= "failed" or state == "observed" then row.state = state end
  row.error = observation.difference(result, wanted)
end

-- The place of a row, for a look and for finding what was seen there; the name
-- "" is that of clients that send none.
local function place_of(row)
  return {
    service = row.service, endpoint = row.endpoint, address = row.address ~= "" and row.address or nil,
    name = row.name,
  }
end

local function problem_of(row)
  if row.state == "observed" or row.state == "written" then return nil end
  local place = row.endpoint ~= "" and observation.describe(place_of(row)) .. " is " or ""
  return ("%d on %s: %s%s%s"):format(row.object_id, row.service, place, row.state,
    row.error and ": " .. text.escape(row.error) or "")
end

-- A certificate that was only written has no place to look at: its files are
-- compared with what is desired.
local function judge_written(context, row)
  local site = context:site()
  local service = site and site:service(row.service)
  local folder = service and service.dir .. "/current"
  local there = folder and staging.written(folder)
  if there and row.sni == 1 and sni.holds(folder, row.desired) then there = row.desired end
  if not there or row.state == "failed" then return end
  row.written, row.state, row.error = there, "written", nil
  if there ~= row.desired then
    row.state, row.error = "differs", ("%s/current holds %s"):format(service.dir, there:sub(1, 16))
  end
end

-- What clients see at the places of these rows: a function that finds the
-- result for a row.  A row without an address (it was written only) is about
-- all of them, the worst first; an address that is no longer the endpoint's is
-- not seen.
local function look(rows, wanted)
  local targets, seen = {}, {}
  for _, row in ipairs(rows) do
    if row.endpoint ~= "" then
      targets[#targets + 1] = { service = row.service, endpoint = row.endpoint, name = place_of(row).name }
    end
  end
  for _, result in ipairs(observation.look(targets)) do
    local place = ("%s %s"):format(result.service, result.endpoint)
    seen[place] = seen[place] or {}
    table.insert(seen[place], result)
  end
  return function(row)
    if row.endpoint == "" then return nil end
    local place, worst = place_of(row), nil
    for _, result in ipairs(seen[("%s %s"):format(row.service, row.endpoint)]) do
      local elsewhere = place.address and result.address and result.address ~= place.address
      if (result.name or "") == place.name and not elsewhere then
        local bad = observation.difference(result, wanted[row.object_id])
        if not worst or bad then worst = result end
      end
    end
    return worst or { error = ("'%s' has no address %s any more"):format(row.endpoint, place.address) }
  end
end

local function record(context, rows)
  return context.db:transaction(function()
    for _, row in ipairs(rows) do
      local ok, message, code = assignments.put(context.db, row)
      if not ok then return nil, message, code end
    end
    return true
  end)
end

--- Probes every standing assignment, all at once.
-- @param records whether what was seen is recorded
-- @return ids of the objects that stand somewhere, messages about what is not
--   as it should be | nil, message, code
function M.run(context, records)
  local rows, message, code = assignments.standing(context.db)
  if not rows then return nil, message, code end
  local wanted = wanted_of(context, rows)
  local result_of = look(rows, wanted)
  local ids, seen, problems = {}, {}, {}
  for _, row in ipairs(rows) do
    local result = result_of(row)
    if result then
      judge(row, result, wanted[row.object_id])
    elseif row.endpoint == "" then
      judge_written(context, row)
    end
    problems[#problems + 1] = problem_of(row)
    if not seen[row.object_id] then
      seen[row.object_id] = true
      ids[#ids + 1] = row.object_id
    end
  end
  if records then
    local ok
    ok, message, code = record(context, rows)
    if not ok then return nil, message, code end
  end
  return ids, problems
end

return M
