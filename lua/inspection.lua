-- inspection.lua: looks at every standing assignment again and records what
-- clients see now; what the site does not name any more does not count.

local assignments = require "assignments"
local certificates = require "certificates"
local flow = require "flow"
local invocation = require "invocation"
local observation = require "observation"
local sni = require "sni"
local staging = require "staging"
local text = require "text"

local M = {}

-- The chain that was written for an object, to compare with what is sent.
local function wanted_of(context, rows)
  local cert = require "core.cert"
  local wanted = {}
  for _, row in ipairs(rows) do
    if wanted[row.object_id] == nil then
      local object = certificates.get(context.db, row.object_id)
      local chain = object and object.certificate and cert.parse(object.certificate .. (object.chain or ""))
      local prints = {}
      for i, certificate in ipairs(chain or {}) do prints[i] = certificate:fingerprint() end
      wanted[row.object_id] = { fingerprint = row.desired, chain = chain and prints, leaf = chain and chain[1] }
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

local function is_fine(row)
  return row.state == "observed" or row.state == "written"
end

-- Whether a name is one that clients of a service ask for, as assigning sees it:
-- of the service's, those that the certificate covers, if there are any.
local function is_asked_for(service, name, leaf)
  if name == "" or not leaf or flow.holds(service.domain_names, name) then return true end
  for _, other in ipairs(service.domain_names) do
    if leaf:covers(other) then return false end
  end
  return true
end

-- Why the site does not name the place of a row any more, and whether it is to be
-- forgotten: not where all of a service is silent, which may come back.  nil when
-- the site names it, or when that cannot be known.
local function abandoned(context, row, leaf)
  local site = context:site()
  if not site then return nil end
  if not site.config.services[row.service] then
    return ("'%s' names no service '%s' any more"):format(site.path, row.service), row.state == "differs"
  end
  local service = row.endpoint ~= "" and site:service(row.service)
  local endpoints = service and (service.endpoints or service.how.endpoints(service)) or {}
  if #endpoints == 0 then return nil end
  if not flow.holds(endpoints, row.endpoint) then
    return ("that is no endpoint of '%s' any more"):format(row.service), true
  elseif not is_asked_for(service, row.name, leaf) then
    return ("'%s' has no name %s any more"):format(row.service, text.names { row.name }), true
  end
end

local function describe(row)
  local place = row.endpoint ~= "" and ": " .. observation.describe(place_of(row)) or ""
  return ("%d on %s%s"):format(row.object_id, row.service, place)
end

-- What helps, where looking again never will.
local function cure(row, why, result)
  if row.state == "failed" and why then
    return ("; %s; to give it up: %s"):format(why,
      invocation.suggest("assign-services %d --services %s --cancel", row.object_id, row.service))
  elseif result and result.gone then
    return ("; to look where it is now: %s"):format(
      invocation.suggest("assign-services %d --services %s", row.object_id, row.service))
  end
  return ""
end

local function problem_of(row, why, result)
  if is_fine(row) then return nil end
  return ("%s%s%s%s%s"):format(describe(row), row.endpoint ~= "" and " is " or ": ", row.state,
    row.error and ": " .. text.escape(row.error) or "", cure(row, why, result))
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
    return worst or { error = ("'%s' has no address %s any more"):format(row.endpoint, place.address),
      gone = true }
  end
end

local function record(context, rows, dropped)
  return context.db:transaction(function()
    for _, row in ipairs(rows) do
      local ok, message, code = (dropped[row] and assignments.drop or assignments.put)(context.db, row)
      if ok and dropped[row] then
        ok, message, code = certificates.record(context.db, row.object_id, context:who(), "assignment forgotten",
          ("%s; %s"):format(describe(row), dropped[row]))
      end
      if not ok then return nil, message, code end
    end
    return true
  end)
end

-- Judges a row by what was seen at its place.
-- @return why it does not count, or nil; what is not as it should be, or nil;
--   whether it is to be forgotten
local function inspect(context, row, result, wanted)
  if result then
    judge(row, result, wanted)
  elseif row.endpoint == "" then
    judge_written(context, row)
  end
  local why, is_past
  if not is_fine(row) or row.endpoint == "" then why, is_past = abandoned(context, row, wanted.leaf) end
  if why and row.state ~= "failed" then return why, nil, is_past end
  return nil, problem_of(row, why, result), false
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
  local ids, seen, problems, dropped = {}, {}, {}, {}
  for _, row in ipairs(rows) do
    local why, problem, is_past = inspect(context, row, result_of(row), wanted[row.object_id])
    dropped[row], problems[#problems + 1] = is_past and why, problem
    if why then
      context:say("%s; %s: %s", describe(row), why, records and is_past and "forgotten" or "does not count")
    end
    if not seen[row.object_id] then
      seen[row.object_id] = true
      ids[#ids + 1] = row.object_id
    end
  end
  if records then
    local ok
    ok, message, code = record(context, rows, dropped)
    if not ok then return nil, message, code end
  end
  return ids, problems
end

return M
