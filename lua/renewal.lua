-- renewal.lua: what is due, and a certificate's renewal: a new request with its
-- names and settings, gone on with until it stands where the old one stands.
--
-- A renewal that is under way is gone on with; never is there a second request
-- for it.

local attempts = require "attempts"
local audit = require "audit"
local certificates = require "certificates"
local generation = require "core.generation"
local invocation = require "invocation"
local object = require "object"
local outcome = require "outcome"
local submission = require "submission"
local text = require "text"
local wish = require "wish"

local M = {}

local LOCK_TIMEOUT = 60 -- seconds to wait for another `renew`
local RENEW = require("json").compact { renew = true }

-- Whether a renewal is under way or done, and not itself to be renewed.
local function is_live(row, now)
  return row.state ~= "completed" or (not row.revoked_at and now < row.renew_at)
end

-- Whether one object can stand where another does.  Who may make a request may
-- not say what is assigned: what begins as a renewal of somebody's own has to be
-- for the same names at least, and from a CA where the old one was.
local function stands_in(new, old)
  if wish.of(new).renew then return true end
  local names = {}
  for _, name in ipairs(new.domains) do names[name:lower()] = true end
  for _, name in ipairs(old.domains) do
    if not names[name:lower()] then return false end
  end
  return old.self_signed or not new.self_signed
end

-- The object that renews this one, or renews what did: the newest.
-- @return row | false | nil, message, code
local function successor(db, old, now)
  local rows, message, code = certificates.successors(db, old.id)
  if not rows then return nil, message, code end
  for _, row in ipairs(rows) do
    if stands_in(row, old) then
      if is_live(row, now) then return row end
      local later
      later, message, code = successor(db, row, now)
      if later or later == nil then return later, message, code end
    end
  end
  return false
end

-- Says where a renewal goes when that is not where its certificate is from.
local function say_ca(context, old, new)
  if new.self_signed or new.ca == old.ca then return end
  local from = old.ca and ("the site has no CA '%s' any more"):format(text.escape(old.ca)) or "it was made elsewhere"
  context:say("%d: %s; its renewal goes to the CA '%s'", old.id, from, new.ca)
end

-- What a dry run says of a renewal that is not begun yet.
local function preview(context, old, made)
  local groups = wish.groups(context, { id = 0, replaces = old.id, wish = RENEW }, { renew = true }) or {}
  local services = {}
  for i, group in ipairs(groups) do services[i] = table.concat(group.services, ", ") end
  context:say("would renew %d '%s' for %s: %s%s", old.id, text.escape(old.friendly_name), text.names(made.domains),
    old.self_signed and "self-signed" or ("from the CA '%s'"):format(made.ca),
    #services > 0 and ", on " .. table.concat(services, "; ") or "")
end

-- Makes the request, or for a self-signed one the certificate at once.
local function begin(context, steps, old, args)
  if not context.dry_run then context:say("renewing %d '%s'", old.id, text.escape(old.friendly_name)) end
  local made, message, code = steps[1].run({
    from = tostring(old.id), reuse_key = args.reuse_key, self_signed = old.self_signed or nil, domain = {},
    wish = { renew = true },
  }, context)
  if not made then return nil, message, code end
  context.printed = nil
  if context.dry_run then
    preview(context, old, made)
    return old
  end
  local row
  row, message, code = certificates.get(context.db, made.id)
  if not row then return nil, message, code end
  attempts.clear(context.db, old.id)
  say_ca(context, old, row)
  return row
end

-- The one key of a renewal is chosen when it is begun.
local function check_key(old, new, args)
  if not args.reuse_key or new.public_key == old.public_key then return true end
  return nil, ("%d renews %d already, with a key of its own; to begin again with the old key: %s"):format(
    new.id, old.id, invocation.suggest("%s %d", new.state == "completed" and "remove" or "cancel", new.id)), "exists"
end

-- What a request that somebody made in order to renew is wanted for, if nobody
-- said.
local function adopt(context, row)
  local wanted = wish.of(row)
  if wanted.services or wanted.renew then return true end
  wanted.renew = true
  row.wish = require("json").compact(wanted)
  return wish.keep(context, row.id, wanted)
end

--- Goes on with an object; a failure is kept in mind, so that it is not tried
-- again too soon.
-- @return { id =, fields =, message =, code = }
function M.pursue(context, steps, row)
  local before = attempts.of(context.db, row.id)
  if context.dry_run then return { id = row.id, fields = wish.explain(context, steps, row, wish.of(row)) } end
  local begun, fields, message, code, is_done
  begun, message, code = audit.begin(context)
  if begun then fields, message, code, is_done = wish.go_on(context, steps, row.id) end
  local is_final = code == "rejected" and not wish.of(row).renew -- a person's to submit again
  if message and code ~= "pending" and not is_done and not is_final then
    local next_at = attempts.failed(context.db, row.id, before or 0, message)
    if next_at then
      local now = certificates.get(context.db, row.id) or row
      local who = (now.state == "completed" or wish.of(now).renew) and "renew and poll try" or "poll tries"
      message = ("%s\n%s %d again after %s"):format(message, who, row.id, text.time(next_at))
    end
  end
  return { id = row.id, fields = fields or object.read(context, row.id), message = message, code = code }
end

-- Renews a certificate, or goes on where that stopped.
local function renew(context, steps, old, args)
  local row, message, code = successor(context.db, old, os.time())
  if row == nil then return nil, message, code end
  local begun
  begun, message, code = audit.begin(context)
  if not begun then return nil, message, code end
  if not row then
    row, message, code = begin(context, steps, old, args)
    if not row then return nil, message, code end
    if context.dry_run then return { id = old.id, fields = object.fields(context, old) } end
  else
    local ok
    ok, message, code = check_key(old, row, args)
    if ok then ok, message, code = adopt(context, row) end
    if not ok then return nil, message, code end
    context:say("%d renews %d already", row.id, old.id)
  end
  return M.pursue(context, steps, row)
end

-- Whether an object is a renewal that has not come to its end.
local function is_under_way(row)
  return row.replaces and (row.state ~= "completed" or wish.of(row).renew)
end

--- Renews the certificate that a person names, due or not; or goes on with it if
-- it is a renewal that is under way.
-- @param args { reuse_key = } optional
-- @return { id =, fields =, message =, code = } | nil, message, code
function M.one(context, steps, row, args)
  if is_under_way(row) and row.state ~= "cancelled" then
    local ok, message, code = adopt(context, row)
    if not ok then return nil, message, code end
    return M.pursue(context, steps, row)
  elseif row.state ~= "completed" then
    local next_one = row.state ~= "cancelled" and "; to go on with it: " .. invocation.suggest("enroll %d", row.id)
      or ""
    return nil, ("cannot renew %d: it has no certificate, it is %s%s"):format(row.id, row.state, next_one), "mismatch"
  end
  return renew(context, steps, row, args)
end

-- Runs one try whose failure may come before there is a new object.
local function try(context, id, work)
  local before = attempts.of(context.db, id) or 0
  local result, message, code = work()
  if result then return result end
  if not context.dry_run then attempts.failed(context.db, id, before, message) end
  return { id = id, fields = object.read(context, id), message = ("%d: %s"):format(id, message), code = code }
end

-- Whether the time of another attempt has come.
local function is_time(context, id)
  local failures, next_at = attempts.of(context.db, id)
  return not failures or failures == 0 or next_at <= os.time()
end

local function is_stopped(done)
  return #done > 0 and outcome.is_interrupted(done[#done].message)
end

-- Renews what is due.  What one renewal replaces may end that another is due: so
-- each is looked at again.
local function renew_due(context, steps, done, seen)
  local due, message, code = certificates.due(context.db, os.time())
  if not due then return nil, message, code end
  for _, row in ipairs(due) do
    if is_stopped(done) then return true end
    local still = certificates.due(context.db, os.time(), row.id)
    local later = still and still[1] and successor(context.db, row, os.time())
    local id = later and later.id or row.id
    if still and still[1] and not seen[id] and is_time(context, id) then
      local result = try(context, id, function() return renew(context, steps, row, {}) end)
      done[#done + 1], seen[id], seen[result.id] = result, true, true
    end
  end
  return true
end

-- Whether `renew` goes on with it: a renewal that nothing has overtaken, and
-- what failed on a service.
local function is_ours(db, row)
  if row.state == "completed" then return true end
  if not (row.replaces and wish.of(row).renew) then return false end
  local latest = successor(db, certificates.get(db, row.replaces) or { id = row.replaces, domains = {} }, os.time())
  return latest and latest.id == row.id
end

-- Whether `poll` goes on with it.  A CA that nobody can ask is only waited for.
local function is_owed(context, row)
  if row.state == "rejected" then return false end
  if row.state ~= "submitted" or not submission.by_hand(context, row) then return true end
  context:say("%d '%s' waits for a person: %s", row.id, text.escape(row.friendly_name),
    invocation.suggest("complete-request %d --file FILE", row.id))
  return false
end

local function go_on_with(context, steps, done, seen, is_wanted)
  local rows, message, code = certificates.unfinished(context.db)
  if not rows then return nil, message, code end
  for _, row in ipairs(rows) do
    if is_stopped(done) then return true end
    if not seen[row.id] and is_wanted(row) and is_time(context, row.id) then
      done[#done + 1] = M.pursue(context, steps, row)
    end
  end
  return true
end

--- Renews everything that is due, and tries again what failed.
-- @return array of { id =, fields =, message =, code = } | nil, message, code
function M.all(context, steps)
  local done, seen = {}, {}
  local ok, message, code = renew_due(context, steps, done, seen)
  if ok then
    ok, message, code = go_on_with(context, steps, done, seen, function(row) return is_ours(context.db, row) end)
  end
  if not ok then return nil, message, code end
  return done
end

--- Asks every CA that owes an answer, and goes on with what is wanted.
-- @return array of { id =, fields =, message =, code = } | nil, message, code
function M.poll(context, steps)
  local done = {}
  local ok, message, code = go_on_with(context, steps, done, {}, function(row) return is_owed(context, row) end)
  if not ok then return nil, message, code end
  return done
end

--- What happens next, and when, in words.
function M.next(db)
  local now, lines = os.time(), {}
  local row = certificates.next_due(db, now)
  if row then
    lines[1] = ("%d '%s' is due on %s"):format(row.id, text.escape(row.friendly_name), text.time(row.renew_at))
  end
  local id, at = attempts.next(db)
  if id then lines[#lines + 1] = ("%d is tried again after %s"):format(id, text.time(at)) end
  return #lines > 0 and table.concat(lines, "; ") or "there is no certificate to renew"
end

--- Runs a function while no other process renews.
-- @return what the function returns | nil, message, "busy" | ...
function M.alone(context, work)
  if context.dry_run then return work() end
  local lock <close>, message, code = generation.lock(context:path("locks", "renewal"), LOCK_TIMEOUT)
  if not lock then
    if code == "busy" then message = "another command is renewing certificates" end
    return nil, message, code
  end
  return work()
end

return M
