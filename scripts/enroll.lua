-- enroll: the whole workflow in one go: the steps of scripts/workflow.lua, one
-- after the other.  Pending at a CA: exit 3, and `enroll ID` goes on later.

local attempts = require "attempts"
local certificates = require "certificates"
local flow = require "flow"
local invocation = require "invocation"
local object = require "object"
local options = require "options"
local roles = require "roles"
local scripts = require "scripts"
local text = require "text"
local wish = require "wish"

-- What cannot come true is said before anything is ordered.
local function check(context, wanted)
  local site, message, code = context:site()
  local ok = site
  if ok and wanted.ca then ok, message, code = site:ca(wanted.ca) end
  if ok and wanted.services then ok, message, code = site:services(wanted.services) end
  if not ok then return nil, message, code end
  return true
end

-- The first option given that only a new request takes.
local function misplaced(args, step)
  for _, option in ipairs(step.options) do
    local key = options.key(option)
    local value = args[key]
    if value and key ~= "services" and (type(value) ~= "table" or #value > 0) then return option[1] end
  end
end

-- What becomes of an object with which it went wrong, and what can be done.
local function later(context, id)
  local row = certificates.get(context.db, id)
  if not row then return "" end
  local again = invocation.suggest("enroll %d", id)
  if row.state == "rejected" then
    return ("\nrequest %d is not tried again by itself; to submit it again: %s"):format(id, again)
  elseif row.state ~= "completed" then
    return ("\nrequest %d is kept, and poll tries again; to go on now: %s\nto give it up: %s"):format(id, again,
      invocation.suggest("cancel %d", id))
  end
  local failures, next_at = attempts.of(context.db, id)
  return ("\nrenew and poll try %d again%s; to go on now: %s\nto give it up: %s"):format(id,
    (failures or 0) > 0 and " after " .. text.time(next_at) or "", again,
    invocation.suggest("assign-services %d --cancel", id))
end

-- Goes on with an object as it is wished for; says what comes of a failure.
local function go_on(context, steps, id, again)
  local result, message, code, is_done = wish.go_on(context, steps, id, again)
  local is_others = code == "pending" or code == "busy" or code == "denied" and context.caller
  if message and not is_others and not is_done and not context.dry_run then
    message = message .. later(context, id)
  end
  return result, message, code
end

-- Goes on with a request, as it was wished for and is wished for now.
local function resume(args, context, steps)
  local option = misplaced(args, steps[1])
  if option then return nil, ("%s is for a new request; enroll ID goes on with one"):format(option), "usage" end
  local db, message, code = context:write()
  if not db then return nil, message, code end
  local row
  row, message, code = object.find(db, args.id)
  if not row and code == "missing" and not args.id:find "^%d+$" then
    message = message:gsub("^(.*); see ", "%1 (names to ask for are given with --domain); see ")
  end
  if not row then return nil, message, code end
  if row.state == "cancelled" then return nil, ("cannot go on with %d: it was cancelled"):format(row.id), "mismatch" end
  local wanted = wish.of(row)
  for _, key in ipairs { "ca", "services", "overwrite", "no_overwrite" } do
    if args[key] ~= nil then wanted[key] = args[key] end
  end
  if args.services then wanted.renew = nil end
  if args.overwrite then wanted.no_overwrite = nil end
  if args.no_overwrite then wanted.overwrite = nil end
  local ok
  ok, message, code = check(context, wanted)
  if ok then ok, message, code = wish.keep(context, row.id, wanted) end
  if not ok then return nil, message, code end
  if context.dry_run then return wish.explain(context, steps, row, wanted, args.services) end
  return go_on(context, steps, row.id, args.services ~= nil)
end

-- What a dry run says of the steps that come after new-request.
local function foresee(context, steps, made, wanted)
  for i = 2, #steps do
    local name = steps[i].name
    if name == "submit-request" then
      context:say("would run submit-request, to the CA '%s' (decided by %s)", made.ca,
        made.decided.ca == "option" and "--ca" or ("ca in '%s'"):format(made.decided.ca))
    elseif name ~= "assign-services" then
      context:say("would run %s", name)
    elseif wanted.services then
      context:say("would run assign-services, on %s", table.concat(wanted.services, ", "))
    end
  end
  return made
end

local function begin(args, context, steps)
  args.assign = true
  args.wish = { ca = args.ca, services = args.services, overwrite = args.overwrite, no_overwrite = args.no_overwrite }
  local ok, message, code = check(context, args.wish)
  if ok then ok, message, code = roles.allow(context, steps[1], steps[1]) end
  if not ok then return nil, message, code end
  local made
  made, message, code = steps[1].run(args, context)
  if made == nil then return nil, message, code end
  if context.dry_run then return foresee(context, steps, made, args.wish) end
  context.printed = nil
  return go_on(context, steps, made.id)
end

-- The options of new-request, and those of the later steps.
local function declared()
  local list = { { "id", "go on with this pending request", argument = "ID", optional = true } }
  local context = { home = package.searchpath("cli", package.path):match "^(.*)/lua/cli%.lua$" }
  context.site_dir = context.home
  local first = assert(scripts.load(context, "new-request"))
  for _, option in ipairs(first.options) do
    if option[1] == "--services" then
      option = { "--services", "assign it to these; their names, if no others are given", argument = "A,B",
        convert = options.list }
    end
    list[#list + 1] = option
  end
  list[#list + 1] = { "--ca", "the CA, as config.lua names it", argument = "NAME" }
  list[#list + 1] = { "--overwrite", "replace an existing default SMTP certificate" }
  list[#list + 1] = { "--no-overwrite", "leave it; present this one for its own names (SNI)" }
  return list
end

return {
  summary = "request, submit, complete and assign in one go",
  role = "operator",
  options = declared(),
  notes = [[
Exit status 3: the CA has not issued yet; enroll ID goes on later, with what
was asked for now, after a failure as well; poll does so by itself.
For example:
   certwright enroll --services web,smtp,imap --ca local
   certwright enroll --from 1 --services web,smtp,imap]],
  text = function(result, context) return context.printed or object.text(result, context) end,

  run = function(args, context)
    context.in_workflow = true
    local steps, message, code = flow.steps(context)
    if not steps then return nil, message, code end
    local result
    result, message, code = (args.id and resume or begin)(args, context, steps)
    context.in_workflow = nil
    if result and not code and not context.dry_run and result.state == "completed" and #result.assignments == 0 then
      context:next("assign-services %d --services LIST", result.id)
    end
    return result, message, code
  end,
}
