-- wish.lua: what is wanted of an object beyond its next step, kept with it in
-- the store, and how the steps of scripts/workflow.lua go on with it.
--
-- A wish is { ca =, services =, overwrite =, no_overwrite = } as `enroll` was
-- told, or { renew = true }: wherever the certificate stands that this one
-- replaces.  A wish that has come true is forgotten.  One process at a time goes
-- on with an object.

local assignments = require "assignments"
local attempts = require "attempts"
local certificates = require "certificates"
local flow = require "flow"
local generation = require "core.generation"
local invocation = require "invocation"
local json = require "json"
local object = require "object"
local options = require "options"
local outcome = require "outcome"
local roles = require "roles"

local M = {}

local LOCK_TIMEOUT = 60 -- seconds to wait for another process

--- The wish of an object; an empty one when there is none.
function M.of(row)
  return row.wish and json.decode(row.wish) or {}
end

--- What a person does next with a completed object, for context:next.
function M.next_of(row)
  local wanted = M.of(row)
  return wanted.renew and "renew %d" or wanted.services and "enroll %d" or "assign-services %d --services LIST"
end

--- Keeps a wish for when the object has to be gone on with.
function M.keep(context, id, wish)
  if context.dry_run then return true end
  return certificates.set(context.db, id, { wish = json.compact(wish) })
end

--- Gives up the services of a wish, inside a transaction.
-- @param services these, or nil: all
-- @return how many wishes were given up, 0 or 1 | nil, message, code
function M.drop(db, row, services)
  local wanted = M.of(row)
  local left = {}
  for _, name in ipairs(services and wanted.services or {}) do
    if not flow.holds(services, name) then left[#left + 1] = name end
  end
  local changed = wanted.renew or wanted.services and #left < #wanted.services
  if not changed then return 0 end
  wanted.renew, wanted.services = nil, #left > 0 and left or nil
  local ok, message, code = certificates.set(db, row.id,
    { wish = next(wanted) and json.compact(wanted) or certificates.NULL })
  if ok then ok, message, code = attempts.settle(db, row.id) end
  if not ok then return nil, message, code end
  return 1
end

-- Notes services of rows, each once: { name, no_observe = nobody could or should
-- look at it }.
local function note(list, seen, rows, wanted)
  for _, row in ipairs(rows) do
    if row.state ~= "replaced" and wanted(row) then
      if not seen[row.service] then
        seen[row.service] = { name = row.service }
        list[#list + 1] = seen[row.service]
      end
      if row.state == "written" then seen[row.service].no_observe = true end
    end
  end
end

-- Where a renewal goes: where what it replaces stands or is wanted (and what
-- that was to replace, while it has not), and where it is wanted itself.
local function inherited(context, row)
  local list, seen = {}, {}
  local rows, message, code = assignments.of(context.db, row.id)
  if not rows then return nil, message, code end
  note(list, seen, rows, function(assignment) return assignment.state == "failed" end)
  local child = row
  while child and child.replaces and M.of(child).renew do
    rows, message, code = assignments.of(context.db, child.replaces)
    if not rows then return nil, message, code end
    note(list, seen, rows, function() return true end)
    child = certificates.get(context.db, child.replaces)
  end
  return list
end

-- What shares a folder is assigned at once, each folder for itself.
local function by_folder(context, list)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local groups, by_dir = {}, {}
  for _, entry in ipairs(list) do
    local service = site:service(entry.name) -- one that is gone is refused when it is assigned
    local key = service and service.dir or " " .. entry.name
    if not by_dir[key] then
      by_dir[key] = { services = {} }
      groups[#groups + 1] = by_dir[key]
    end
    table.insert(by_dir[key].services, entry.name)
    by_dir[key].no_observe = by_dir[key].no_observe or entry.no_observe
  end
  return groups
end

-- The services on which an object failed, and those of its wish on which it has
-- never been.  What came as far as a service was not refused over the default.
local function missing(rows, wish)
  local group, known = { services = {}, overwrite = wish.overwrite, no_overwrite = wish.no_overwrite }, {}
  for _, row in ipairs(rows) do
    if row.state == "failed" then
      if row.sni == 1 then group.no_overwrite = true end
      group.overwrite, group.no_observe = not group.no_overwrite, group.no_observe or row.endpoint == ""
      if not known[row.service] then table.insert(group.services, row.service) end
    end
    known[row.service] = true
  end
  for _, name in ipairs(wish.services or {}) do
    if not known[name] then table.insert(group.services, name) end
    known[name] = true
  end
  return group
end

--- What is still to be assigned: each a transaction of its own.
-- @return array of { services =, overwrite =, no_observe = }, empty when the
--   object is everywhere it should be | nil, message, code
function M.groups(context, row, wish)
  if wish.renew then
    local list, message, code = inherited(context, row)
    if not list then return nil, message, code end
    return by_folder(context, list)
  end
  local rows, message, code = assignments.of(context.db, row.id)
  if not rows then return nil, message, code end
  local group = missing(rows, wish)
  return #group.services > 0 and { group } or {}
end

-- What a step is given: its object, and those of the wishes it knows.
local function arguments_for(step, id, wish)
  local args = { id = tostring(id), cert = tostring(id), file = {}, domain = {} }
  for _, option in ipairs(step.options) do
    local key = options.key(option)
    if args[key] == nil then args[key] = wish[key] end
  end
  return args
end

-- Whether an object still has a step before it.  A request that is with its CA
-- is asked for there, not handed over a second time.
local function is_ahead(step, row, state, wish)
  if not flow.holds(step.from, state) then return false end
  return not (step.name == "submit-request" and state == step.to and (wish.ca or row.ca) == row.ca)
end

-- The same, or for whoever says so now all that is wished for once more.
local function groups_of(context, row, wish, again)
  if again and wish.services then
    return { { services = wish.services, overwrite = wish.overwrite, no_overwrite = wish.no_overwrite } }
  end
  return M.groups(context, row, wish)
end

-- Assigns, one transaction after the other; none is kept from by another.
local function assign(context, step, row, wish, again)
  local groups, message, code = groups_of(context, row, wish, again)
  if not groups then return nil, message, code end
  if #groups == 0 then return object.read(context, row.id) end
  local outcomes, result = {}, nil
  for i, group in ipairs(groups) do
    result, message, code = step.run(arguments_for(step, row.id, group), context)
    outcomes[i] = { message = message, code = code }
    if outcome.is_interrupted(message) then break end
  end
  if #groups == 1 then return result, message, code end
  message, code = outcome.worst(outcomes)
  if message then return nil, message, code end
  return result
end

-- A CA that a person carries requests to is never asked: it is waited for.
local function wait_for_person(context, row, message, code)
  local current = certificates.get(context.db, row.id)
  if code ~= "usage" or not current or not require("submission").by_hand(context, current) then
    return nil, message, code
  end
  return object.fields(context, current), message, "pending"
end

local function run_step(context, step, row, wish, again)
  local allowed, why, what = roles.allow(context, step, step)
  if not allowed then return nil, why, what end
  if step.name == "assign-services" then return assign(context, step, row, wish, again) end
  local result, message, code = step.run(arguments_for(step, row.id, wish), context)
  if result == nil and step.name == "complete-request" then
    result, message, code = wait_for_person(context, row, message, code)
  end
  if code == "pending" then
    message = ("%s\nto go on then: %s"):format(message,
      invocation.suggest("%s %d", wish.renew and "renew" or "enroll", row.id))
  end
  return result, message, code
end

-- A wish that has come true is forgotten, and so is that it failed before.
-- Returns whether nothing is left to do.
local function forget(context, id)
  local row, message, code = certificates.get(context.db, id)
  if not row then return nil, message, code end
  if row.state ~= "completed" then return false end
  local groups
  groups, message, code = M.groups(context, row, M.of(row))
  if not groups then return nil, message, code end
  if #groups > 0 then return false end
  local ok = true
  if row.wish then ok, message, code = certificates.set(context.db, id, { wish = certificates.NULL }) end
  if not ok then return nil, message, code end
  ok, message, code = attempts.clear(context.db, id)
  if not ok then return nil, message, code end
  return true
end

local function run_steps(context, steps, row, wish, again)
  local state, result = row.state, nil
  for i = 2, #steps do
    local step = steps[i]
    if is_ahead(step, row, state, wish) then
      local message, code
      result, message, code = run_step(context, step, row, wish, again)
      if result == nil or code then return result, message, code end
      state = step.to
    end
  end
  if not result then return object.read(context, row.id) end
  return result
end

--- Runs the steps that an object has before it; stops where one must wait.
-- @param steps as flow.steps returns them
-- @param again whether to assign where it has been already, too
-- @return fields of the object | fields or nil, message, code, whether nothing is
--   left to do in spite of that
function M.go_on(context, steps, id, again)
  local lock <close>, message, code = generation.lock(context:path("locks", id .. ".workflow"), LOCK_TIMEOUT)
  if not lock then
    if code == "busy" then message = ("another command is working on %d"):format(id) end
    return nil, message, code
  end
  local row
  row, message, code = certificates.get(context.db, id) -- as the other command left it
  if not row then return nil, message, code end
  local result
  result, message, code = run_steps(context, steps, row, M.of(row), again)
  local is_done, why, what = forget(context, id)
  if is_done == nil and not message then return nil, why, what end
  return result, message, code, is_done
end

--- Says what going on would do, for a dry run.
function M.explain(context, steps, row, wish, again)
  local state = row.state
  for i = 2, #steps do
    local step = steps[i]
    local groups = step.name == "assign-services" and groups_of(context, row, wish, again)
    if is_ahead(step, row, state, wish) and not (groups and #groups == 0) then
      local services = {}
      for j, group in ipairs(groups or {}) do services[j] = table.concat(group.services, ", ") end
      context:say("would run %s%s", step.name, groups and " on " .. table.concat(services, "; ") or "")
      state = step.to
    end
  end
  return object.fields(context, row)
end

return M
