-- observation.lua: what clients see: real handshakes at every endpoint,
-- address and name, compared with what should be there.
--
-- Observing compares fingerprints and the chain as sent; it does not judge
-- trust, and it sees weak and expired certificates too.

local host = require "core.host"
local probe = require "core.probe"

local M = {}

-- Old and new alternate while a server hands over to new workers (nginx: the
-- last old one was seen 176 ms after a reload).  So success means: this many
-- rounds in a row, over this many seconds past the last round that was not.
local STEADY_ROUNDS = 3
local STEADY_SECONDS = 0.3
local GRACE = 2 -- seconds for a place to answer that did not before
local STEP_TIMEOUT = 10 -- seconds for each step of one probe
local PAUSE = { 0.01, 0.02, 0.05, 0.1, 0.2 } -- seconds between rounds

--- Names one place: what a row of assignments is about.
function M.key(place)
  return table.concat({ place.service, place.endpoint, place.address or "", place.name or "" }, " ")
end

--- The place as a person reads it.
function M.describe(place)
  local shown = place.endpoint
  if place.address and not shown:find(place.address, 1, true) then
    shown = ("%s [%s]"):format(shown, place.address)
  end
  if (place.name or "") ~= "" then shown = ("%s for %s"):format(shown, place.name) end
  return shown
end

local function chain_of(result)
  local prints = {}
  for i, certificate in ipairs(result.chain or {}) do prints[i] = certificate:fingerprint() end
  return prints
end

-- The places of targets, each once, and of each the services seen there.
local function places_of(targets)
  local list, services, known = {}, {}, {}
  for _, target in ipairs(targets) do
    local place = { endpoint = target.endpoint, name = target.name, address = target.address }
    local key = ("%s %s %s"):format(place.endpoint, place.address, place.name)
    if not known[key] then
      known[key] = #list + 1
      list[#list + 1], services[#list + 1] = place, {}
    end
    table.insert(services[known[key]], target.service)
  end
  return list, services
end

--- Probes every target once, all at once.
-- @param targets array of { service, endpoint, name, address }: without a name
--   the endpoint's host is asked for, without an address it is looked up
-- @return array of { service, endpoint, address, name (asked for, so never an
--   address), fingerprint, chain = fingerprints as sent, at = epoch, error,
--   code, step }, one for each service and address
function M.look(targets, timeout)
  local list, services = places_of(targets)
  local seen, results = {}, {}
  for _, result in ipairs(probe.run(list, { timeout = timeout or STEP_TIMEOUT })) do
    for _, service in ipairs(services[result.index]) do
      local row = {
        service = service, endpoint = result.endpoint, address = result.address, name = result.name,
        fingerprint = result.fingerprint, chain = chain_of(result), at = os.time(), error = result.error,
        code = result.code, step = result.step,
      }
      if not seen[M.key(row)] then
        seen[M.key(row)] = true
        results[#results + 1] = row
      end
    end
  end
  return results
end

local function same_list(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

--- Why a result is not what is wanted; nil when it is.
-- @param wanted { fingerprint =, chain = fingerprints or nil }
function M.difference(result, wanted)
  if result.error then return result.error end
  if result.fingerprint ~= wanted.fingerprint then
    return ("presents %s, not %s"):format(result.fingerprint:sub(1, 16), wanted.fingerprint:sub(1, 16))
  elseif wanted.chain and not same_list(result.chain, wanted.chain) then
    return ("presents %s with a chain of %d certificates that is not the one written (%d)"):format(
      result.fingerprint:sub(1, 16), #result.chain, #wanted.chain)
  end
end

-- Whether a round shows all that it must, and for how many seconds since the
-- first one is waited: for what must be and is not, until the first service's
-- time is over; else for the rest.  A place that did not answer before cannot
-- veto; but one that answers now, and not yet as wanted, gets all of its
-- service's time, a silent one a little.
local function judge(results, wanted_of, required, timeouts)
  local good, patience, left = true, 0, math.huge
  for _, result in ipairs(results) do
    local wanted, timeout = wanted_of(result), timeouts[result.service]
    if wanted and M.difference(result, wanted) then
      if required(result) then
        good, left = false, math.min(left, timeout)
      else
        patience = math.max(patience, result.error and math.min(GRACE, timeout) or timeout)
      end
    end
  end
  return good, good and patience or left
end

--- Each service's seconds to be observed in, by its name.
function M.timeouts(services)
  local list = {}
  for _, service in ipairs(services) do list[service.name] = service.observe_timeout end
  return list
end

local function longest(timeouts)
  local seconds = 0
  for _, timeout in pairs(timeouts) do seconds = math.max(seconds, timeout) end
  return seconds
end

--- Polls until every place shows what is wanted there, steadily.
-- @param targets as for look
-- @param wanted_of function(result) -> { fingerprint, chain } or nil (anything)
-- @param required function(result) -> whether it must be so
-- @param timeouts seconds, by the service's name
-- @return the last results, whether all that must be is so
function M.wait(targets, wanted_of, required, timeouts)
  local started = host.clock()
  local last_bad, rounds = started, 0
  while true do
    local results = M.look(targets, math.min(STEP_TIMEOUT, math.max(1, longest(timeouts))))
    local good, patience = judge(results, wanted_of, required, timeouts)
    local now = host.clock()
    if good then
      rounds = rounds + 1
    else
      rounds, last_bad = 0, now
    end
    local steady = rounds >= STEADY_ROUNDS and now - last_bad >= STEADY_SECONDS
    if steady and now - started >= patience then return results, true end
    if not good and now - started > patience then return results, false end
    host.sleep(PAUSE[math.min(#PAUSE, 1 + math.floor((now - started) * 2))])
  end
end

--- The state of an assignment that a result shows.
function M.state(result, wanted)
  if result.error then return "unreachable" end
  return M.difference(result, wanted) and "differs" or "observed"
end

return M
