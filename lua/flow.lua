-- flow.lua: the workflow: loads its steps, checks that they chain, and is the
-- only writer of an object's state.
--
-- A change of state is a compare-and-set in one transaction, with the object
-- locked by a file lock while a step works on it.  A step may be run again.

local certificates = require "certificates"
local file = require "core.file"
local generation = require "core.generation"
local scripts = require "scripts"

local M = {}

--- Loads the steps that scripts/workflow.lua names, in order, and checks that
-- each begins in a state in which the one before may end.
-- @return array of scripts | nil, message, "parse" | ...
function M.steps(context)
  local path = scripts.find(context, "workflow")
  local chunk, message, code = require("loader").file(path)
  if not chunk then return nil, message, code end
  local ran, names = pcall(chunk)
  if not ran or type(names) ~= "table" or #names == 0 then
    return nil, ("'%s' returns no list of steps%s"):format(path, ran and "" or ": " .. tostring(names)), "parse"
  end
  local steps = {}
  for i, name in ipairs(names) do
    local step
    step, message, code = scripts.load(context, name)
    if not step then return nil, message, code end
    if not step.to or not step.from then
      return nil, ("'%s': a step of the workflow needs 'from' and 'to'"):format(step.path), "parse"
    end
    local before = steps[i - 1]
    if before and not M.holds(step.from, before.to) then
      return nil, ("'%s': the workflow cannot go from '%s', which ends as %s, to '%s', which begins as %s")
        :format(path, before.name, before.to, name, table.concat(step.from, " or ")), "parse"
    end
    steps[i] = step
  end
  return steps
end

--- Whether a list holds a value.
function M.holds(list, wanted)
  for _, item in ipairs(list) do
    if item == wanted then return true end
  end
  return false
end

--- Runs a function while an object (or "ca", the local CA) is locked against
-- other processes.  A dry run, which changes nothing, locks nothing.
-- @return what the function returns | nil, message, "busy"
function M.locked(context, id, work)
  if context.dry_run then return work() end
  local lock <close>, message, code = generation.lock(context:path("locks", tostring(id)), 10)
  if not lock then
    if code == "busy" then message = ("another command is working on %s"):format(id) end
    return nil, message, code
  end
  return work()
end

-- The next id whose files are not there.  A crash leaves such files before
-- their row is committed, but so does a store that was put back from an older
-- copy: a key is never deleted on a guess.
local function unused_id(context)
  local id, message, code = certificates.next_id(context.db)
  if not id then return nil, message, code end
  while file.stat(context:path("keys", id .. ".pem")) or file.stat(context:path("requests", id .. ".csr")) do
    id = id + 1
  end
  return id
end

--- Makes an object in its first state; inside one transaction.
-- @param fields columns of the object, with its state
-- @param names its domains
-- @param begin called with the fields first: settles its friendly name there
-- @param finish called with the new id before the commit; each may refuse
-- @return id | nil, message, code
function M.create(context, fields, names, begin, finish)
  return context.db:transaction(function()
    local ok, message, code = begin(fields)
    if not ok then return nil, message, code end
    fields.created_at = os.time()
    fields.id, message, code = unused_id(context)
    if not fields.id then return nil, message, code end
    local id
    id, message, code = certificates.add(context.db, fields, names, context:who())
    if not id then return nil, message, code end
    ok, message, code = finish(id)
    if not ok then return nil, message, code end
    return id
  end)
end

--- Moves an object from one of the states `from` to `state`.
-- @param changes other columns written with it
-- @param options { names = array or nil, detail = text for the history,
--   also = function run in the same transaction }
-- @return true | nil, message, "mismatch" | ...
function M.advance(context, id, from, state, changes, options)
  options = options or {}
  changes = changes or {}
  changes.state = state
  return context.db:transaction(function()
    local ok, message, code = certificates.advance(context.db, id, from, changes, options.names)
    if ok then
      ok, message, code = certificates.record(context.db, id, context:who(), state, options.detail)
    end
    if ok and options.also then ok, message, code = options.also() end
    if not ok then return nil, message, code end
    return true
  end)
end

return M
