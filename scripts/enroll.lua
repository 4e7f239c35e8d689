-- enroll: the whole workflow in one go: the steps of scripts/workflow.lua, one
-- after the other.  Pending at a CA: exit 3, and `enroll ID` goes on later.

local certificates = require "certificates"
local flow = require "flow"
local json = require "json"
local object = require "object"
local options = require "options"
local scripts = require "scripts"

-- What a step is given: its object, and those of the wishes it knows.
local function arguments_for(step, id, wish)
  local args = { id = tostring(id), cert = tostring(id), file = {}, domain = {} }
  for _, option in ipairs(step.options) do
    local key = options.key(option)
    if args[key] == nil then args[key] = wish[key] end
  end
  return args
end

-- Whether an object still has a step before it.  A request that has a ticket is
-- with its CA: it is asked there, not handed over a second time.
local function is_ahead(step, row, state, wish)
  if not flow.holds(step.from, state) then return false end
  if step.name == "assign-services" then return wish.services ~= nil end
  return not (state == step.to and row.ticket and (wish.ca or row.ca) == row.ca)
end

-- Runs the steps that an object has before it; stops where one must wait.
local function go_on(context, steps, row, wish)
  local state, result = row.state, nil
  for i = 2, #steps do
    local step = steps[i]
    if is_ahead(step, row, state, wish) then
      local note, code
      result, note, code = step.run(arguments_for(step, row.id, wish), context)
      if code == "pending" then note = ("%s\nto go on then: certwright enroll %d"):format(note, row.id) end
      if result == nil or code then return result, note, code end
      state = step.to
    end
  end
  return result or object.read(context, row.id)
end

-- What cannot come true is said before anything is ordered.
local function check(context, wish)
  local site, message, code = context:site()
  local ok = site
  if ok and wish.ca then ok, message, code = site:ca(wish.ca) end
  if ok and wish.services then ok, message, code = site:services(wish.services) end
  if not ok then return nil, message, code end
  return true
end

-- Keeps the wish for when the object has to be gone on with.
local function keep(context, id, wish)
  if context.dry_run then return true end
  return certificates.set(context.db, id, { wish = json.compact(wish) })
end

-- What a dry run says: the steps that an object has before it.
local function explain(context, steps, row, wish)
  local state = row.state
  for i = 2, #steps do
    if is_ahead(steps[i], row, state, wish) then
      context:say("would run %s", steps[i].name)
      state = steps[i].to
    end
  end
  return object.fields(context, row)
end

-- The first option given that only a new request takes.
local function misplaced(args, step)
  for _, option in ipairs(step.options) do
    local key = options.key(option)
    local value = args[key]
    if value and key ~= "services" and (type(value) ~= "table" or #value > 0) then return option[1] end
  end
end

-- Goes on with a request, as it was wished for and is wished for now.
local function resume(args, context, steps)
  local option = misplaced(args, steps[1])
  if option then return nil, ("%s is for a new request; enroll ID goes on with one"):format(option), "usage" end
  local db, message, code = context:write()
  if not db then return nil, message, code end
  local row
  row, message, code = object.find(db, args.id)
  if not row then return nil, message, code end
  if row.state == "cancelled" then return nil, ("cannot go on with %d: it was cancelled"):format(row.id), "mismatch" end
  local wish = row.wish and json.decode(row.wish) or {}
  for _, key in ipairs { "ca", "services", "overwrite", "no_overwrite" } do
    if args[key] ~= nil then wish[key] = args[key] end
  end
  local ok
  ok, message, code = check(context, wish)
  if ok then ok, message, code = keep(context, row.id, wish) end
  if not ok then return nil, message, code end
  if context.dry_run then return explain(context, steps, row, wish) end
  return go_on(context, steps, row, wish)
end

local function begin(args, context, steps)
  local wish = { ca = args.ca, services = args.services, overwrite = args.overwrite,
    no_overwrite = args.no_overwrite }
  local ok, message, code = check(context, wish)
  if not ok then return nil, message, code end
  args.assign = true
  local made
  made, message, code = steps[1].run(args, context)
  if made == nil or context.dry_run then return made, message, code end
  context.printed = nil
  ok, message, code = keep(context, made.id, wish)
  if not ok then return nil, message, code end
  return go_on(context, steps, assert(certificates.get(context.db, made.id)), wish)
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
  role = "organization-management",
  options = declared(),
  notes = [[
Exit status 3: the CA has not issued yet; enroll ID goes on later, with what
was asked for now.  For example:
   certwright enroll --services web,smtp,imap --ca local
   certwright enroll --from 1 --services web,smtp,imap]],
  text = function(result, context) return context.printed or object.text(result, context) end,

  run = function(args, context)
    context.in_workflow = true
    local steps, message, code = flow.steps(context)
    if not steps then return nil, message, code end
    return (args.id and resume or begin)(args, context, steps)
  end,
}
