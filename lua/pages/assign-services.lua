-- assign-services.lua: the pages of assign-services: the certificate, the
-- services with what each presents now, the default SMTP certificate, summary.

local assignments = require "assignments"
local cert = require "core.cert"
local certificates = require "certificates"
local commandline = require "commandline"
local invocation = require "invocation"
local object = require "object"
local options = require "options"
local overwrite = require "overwrite"
local overwrite_question = require "pages.overwrite"
local presented = require "presented"
local staging = require "staging"
local text = require "text"
local wizard = require "wizard"

local M = {}

-- The certificates that could be assigned, the newest first.
local function candidates(db)
  local rows, message, code = certificates.list(db, {})
  if not rows then return nil, message, code end
  local list = {}
  for i = #rows, 1, -1 do
    local row = rows[i]
    local status = object.status(row)
    local usable = status == "Valid" or status == "Untrusted" or status == "RevocationCheckFailure"
    if row.state == "completed" and row.has_private_key and usable then list[#list + 1] = row end
  end
  if #list > 0 then return list end
  return nil, "there is no valid certificate with a key here to assign; see " .. invocation.suggest "list", "missing"
end

local function describe(row)
  local status = object.status(row)
  return ("%s (id %d), %s, until %s%s"):format(text.escape(row.friendly_name), row.id, row.fingerprint:sub(1, 16),
    text.day(row.not_after), status ~= "Valid" and ", " .. status or "")
end

-- The page is left out where the certificate was given.
local function certificate_page(db, rows, given)
  return {
    title = "Certificate",
    help = "The certificate that the services are to present. Those that are valid and have their key here are listed.",
    skip = function() return given ~= nil end,
    run = function(state, ui)
      local items, default = {}, #rows == 1 and 1 or nil
      for i, row in ipairs(rows) do
        items[i] = { label = describe(row), name = row.friendly_name }
        if state.row and row.id == state.row.id then default = i end
      end
      local id = rows[ui:choose { prompt = "Certificate", items = items, default = default }].id
      if not state.row or state.row.id ~= id then
        state.row, state.chosen = assert(certificates.get(db, id)), nil
      end
    end,
  }
end

-- What a service presents now, as a few words.
local function shown(db, seen)
  local list, known = {}, {}
  for _, result in ipairs(seen) do
    local word = result.error and "does not answer" or "presents " .. result.fingerprint:sub(1, 16)
    if not known[word] then
      known[word] = true
      local rows = result.fingerprint and certificates.with_fingerprint(db, result.fingerprint)
      local row = rows and rows[1]
      list[#list + 1] = word .. (row and (" (%s, id %d)"):format(text.escape(row.friendly_name), row.id) or "")
    end
  end
  if #list > 0 then return table.concat(list, ", ") end
  return seen.error and text.escape(seen.error) or "no endpoint is known"
end

-- The numbers of the services to offer: those that the certificate is on or
-- should be, else those of whose names it has one.
local function usual(db, row, services)
  local on, list = {}, {}
  for _, assignment in ipairs(assignments.of(db, row.id) or {}) do
    if assignment.state ~= "replaced" then on[assignment.service] = true end
  end
  local leaf = cert.parse(row.certificate)[1]
  for i, service in ipairs(services) do
    local wanted = on[service.name]
    for _, name in ipairs(next(on) and {} or service.domain_names) do wanted = wanted or leaf:covers(name:lower()) end
    if wanted then list[#list + 1] = i end
  end
  return list
end

-- The names of the chosen services, with those that share a folder with one.
local function take(state, ui, site, services)
  local names = {}
  for i, number in ipairs(state.chosen) do names[i] = services[number].name end
  local all, message = site:services(names)
  if not all then return nil, message end
  state.names, state.asked = {}, {}
  local leaf = cert.parse(state.row.certificate)[1]
  for i, service in ipairs(all) do
    state.names[i], state.asked[service.name] = service.name, true
    if i > #names then ui:say(("'%s' comes along: it shares a folder with one of them."):format(service.name)) end
    local covered = service.domain_names[1] == nil
    for _, name in ipairs(service.domain_names) do covered = covered or leaf:covers(name:lower()) end
    if not covered then
      ui:warn(("the certificate covers none of the names of '%s': %s"):format(service.name,
        text.names(service.domain_names)))
    end
  end
  return true
end

-- The page is left out where the services were given.
local function services_page(context, site, services, given)
  local seen
  return {
    title = "Services",
    help = "The services that are to present the certificate: all of them or, if one fails, none.",
    skip = function() return given ~= nil end,
    run = function(state, ui)
      if not seen then
        ui:say "Looking at what the services present ..."
        seen = presented.of(services)
      end
      local items = {}
      for i, service in ipairs(services) do
        items[i] = { name = service.name, label = ("%s (%s) %s"):format(service.name, service.driver,
          shown(context.db, seen[service.name])) }
      end
      state.chosen = ui:choose_some { prompt = "Services", items = items,
        default = state.chosen or usual(context.db, state.row, services) }
      local ok, message = take(state, ui, site, services)
      if not ok then
        ui:say(message)
        ui.back()
      end
    end,
  }
end

-- What there is to ask for a service: { there =, new = }, or false.
local function find_question(context, row, service, args)
  local material, message, code = staging.material(context, row)
  if not material then return nil, message, code end
  local run = { context = context, row = row, material = material, options = args }
  local there
  there, message, code = overwrite.question(run, service)
  if not there then return there, message, code end
  return { there = there, new = material.chain[1] }
end

-- The page that asks for one service, where there is a question.
local function overwrite_page(context, service, args)
  local found = {} -- by the certificate's id
  local function question(state)
    if not state.row or not state.asked[service.name] then return false end
    local id = state.row.id
    if found[id] == nil then found[id] = find_question(context, state.row, service, args) or false end
    return found[id]
  end
  return {
    title = overwrite_question.title, help = overwrite_question.help,
    skip = function(state) return not question(state) end,
    run = function(state, ui)
      local about = question(state)
      local before = state.overwrite[service.name]
      state.overwrite[service.name] = { there = about.there:fingerprint(),
        yes = overwrite_question.ask_with(ui, service, about.there, about.new, before and before.yes) }
    end,
  }
end

-- The commands that do the same: one, or where the answers differ two.
local function commands(context, flags, state, columns)
  local groups, order = {}, {}
  for _, name in ipairs(state.names) do
    local answer = state.asked[name] and state.overwrite[name]
    local flag = answer and (answer.yes and "overwrite" or "no_overwrite") or "none"
    if not groups[flag] then order[#order + 1] = flag end
    groups[flag] = groups[flag] or {}
    table.insert(groups[flag], name)
  end
  local first = order[1] == "none" and order[2] or order[1] -- what has no question goes along with one that has
  if groups.none and first ~= "none" then
    table.move(groups.none, 1, #groups.none, #groups[first] + 1, groups[first])
  end
  local lines = {}
  for _, flag in ipairs(order) do
    if flag ~= "none" or first == "none" then
      local words = commandline.words(context, { name = "assign-services", options = flags },
        { services = groups[flag], [flag] = true })
      words[#words + 1] = { tostring(state.row.id) }
      lines[#lines + 1] = commandline.lines(words, columns)
    end
  end
  return table.concat(lines, "\n")
end

local function summary_page(context, flags)
  return {
    title = "Summary", help = "Nothing has been changed yet. Yes assigns the certificate and observes it there.",
    run = function(state, ui)
      local columns = ui.dialogue.columns()
      local summary = { { "Certificate", describe(state.row) }, { "Services", table.concat(state.names, ", ") } }
      for _, name in ipairs(state.names) do
        local answer = state.asked[name] and state.overwrite[name]
        summary[#summary + 1] = answer and { "SMTP default", ("of '%s': %s"):format(name,
          answer.yes and "overwritten" or "stays") }
      end
      ui:show(text.fields(summary, columns))
      ui:same(commands(context, flags, state, columns))
      if not ui:yes { prompt = "Assign it now?", default = true } then ui.abandon() end
    end,
  }
end

-- The services of the site that can be had, sorted.
local function services_of(context, site)
  local list = {}
  for name in options.sorted(site.config.services) do
    local service, message = site:service(name)
    if service then list[#list + 1] = service else context:warn("%s", message) end
  end
  if #list > 0 then return list end
  return nil, ("'%s' names no services"):format(site.path), "missing"
end

-- What was answered, as deployment.assign takes it.
local function give(state, args)
  args.services = state.names
  args.ask = function(service, there)
    local answer = state.overwrite[service.name]
    if answer and answer.there == there:fingerprint() then return answer.yes end
    return nil, ("the default certificate of '%s' was changed meanwhile; do it again"):format(service.name), "mismatch"
  end
end

--- Asks for what was not given on the command line, and puts it into args.
-- @param flags the options of assign-services, for the command that does the same
-- @param row the certificate, if it was given
-- @return { row =, completed = function() that says what was done } | nil, message,
--   code
function M.run(context, flags, args, row)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local rows = { row }
  if not row then rows, message, code = candidates(context.db) end
  if not rows then return nil, message, code end
  local services
  services, message, code = services_of(context, site)
  if not services then return nil, message, code end
  local pages = { certificate_page(context.db, rows, row), services_page(context, site, services, args.services) }
  for _, service in ipairs(services) do pages[#pages + 1] = overwrite_page(context, service, args) end
  pages[#pages + 1] = summary_page(context, flags)
  local state = { row = row, names = args.services, asked = {}, overwrite = {} }
  for _, name in ipairs(args.services or {}) do state.asked[name] = true end
  local ui = wizard.new(context:dialogue())
  state, message, code = ui:run(pages, state)
  if not state then return nil, message, code end
  give(state, args)
  return { row = state.row, completed = function()
    ui:title "Completion"
    ui:say(("Certificate %d is on %s."):format(state.row.id, table.concat(state.names, ", ")))
  end }
end

return M
