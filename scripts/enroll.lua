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

local function is_wanted(step, wish)
  return step.name ~= "assign-services" or wish.services ~= nil
end

-- Runs the steps that an object has before it; stops where one must wait.
local function go_on(context, steps, row, wish)
  local state, result = row.state, nil
  for i = 2, #steps do
    local step = steps[i]
    if flow.holds(step.from, state) and is_wanted(step, wish) then
      local note, code
      result, note, code = step.run(arguments_for(step, row.id, wish), context)
      if result == nil or code then return result, note, code end
      state = step.to
    end
  end
  return result or object.read(context, row.id)
end

-- Makes the object, and keeps the wish for when it has to be gone on with.
local function start(args, context, steps)
  args.assign = true
  local result, message, code = steps[1].run(args, context)
  if result == nil or context.dry_run then return result, message, code end
  local wish = { ca = args.ca, services = args.services, overwrite = args.overwrite }
  local ok
  ok, message, code = certificates.set(context.db, result.id, { wish = json.compact(wish) })
  if not ok then return nil, message, code end
  return result, wish
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
  list[#list + 1] = { "--ca", "the CA, one of the site's `cas`", argument = "NAME" }
  list[#list + 1] = { "--overwrite", "replace an existing default SMTP certificate" }
  return list
end

return {
  summary = "request, submit, complete and assign in one go",
  role = "organization-management",
  options = declared(),
  text = object.text,

  run = function(args, context)
    local steps, message, code = flow.steps(context)
    if not steps then return nil, message, code end
    local db
    if args.id then
      db, message, code = context:write()
      if not db then return nil, message, code end
      local row
      row, message, code = object.find(db, args.id)
      if not row then return nil, message, code end
      local wish = row.wish and json.decode(row.wish) or {}
      for _, key in ipairs { "ca", "services", "overwrite" } do
        if args[key] ~= nil then wish[key] = args[key] end
      end
      return go_on(context, steps, row, wish)
    end
    local made, wish, what = start(args, context, steps)
    if made == nil or context.dry_run then return made, wish, what end
    context.printed = nil
    return go_on(context, steps, assert(certificates.get(context.db, made.id)), wish)
  end,
}
