-- new-request.lua: the wizard of new-request: the pages of the article's "Create
-- a certificate request".  They only make the options of new-request, which then
-- runs as if somebody had typed them; nothing is changed before that.
--
-- The pages keep in their state what answers.lua makes options of, and what
-- worksheet.lua and domains.lua keep.

local answers = require "pages.answers"
local caller = require "caller"
local certificates = require "certificates"
local commandline = require "commandline"
local domains = require "pages.domains"
local names = require "names"
local paths = require "paths"
local subjects = require "subject"
local text = require "text"
local worksheet = require "worksheet"

local M = {}

--- Whether to ask: on a terminal, when nothing says for which names.
function M.wanted(args, context)
  local named = args.common_name or #args.domain > 0 or args.services or args.from or args.reuse_key
    or args.wildcard and args.root_domain
  for key, value in pairs(args) do named = named or key:find "^include_" and value end
  return context.terminal and not context.in_workflow and not named
end

local function introduction(self)
  return {
    title = "Introduction",
    help = "The friendly name is a label for people, which list and show print; it is not in the certificate. "
      .. "Without one, the site's policy makes one of the common name.",
    run = function(state, ui)
      ui:say "This makes a private key, which stays here, and a certificate request for a certificate authority."
      state.name = ui:ask {
        prompt = "Friendly name", default = state.name, optional = true, shown = "from the common name",
        check = function(line)
          local name, message = names.friendly(line)
          if not name then return nil, message end
          local rows
          rows, message = certificates.named(self.context.db, name)
          if rows and #rows == 0 then return name end
          return nil, rows and ("the friendly name '%s' is in use by %d"):format(name, rows[1].id) or message
        end,
      }
      return true
    end,
  }
end

local function scope(self)
  local accepted = (self.site.config.accepted_domains[1] or ""):gsub("^%*%.", "")
  return {
    title = "Domain Scope",
    help = "The root domain is the one below which the names are, such as contoso.com. A wildcard certificate is "
      .. "for *.contoso.com: every name one label below it, but not contoso.com itself. For it, no names are "
      .. "asked for.",
    run = function(state, ui)
      repeat
        ui:form(state, {
          { key = "root_domain", prompt = "Root domain", optional = true, default = accepted,
            check = function(line)
              local domain, message = names.check((line:gsub("^%*%.", "")))
              if domain and names.is_address(domain) then return nil, "a root domain is no IP address" end
              if domain and line:find "^%*%." then state.wildcard = true end
              return domain, message
            end },
          { key = "wildcard", kind = "yes", prompt = "Ask for a wildcard certificate of the root domain?",
            default = false, skip = function(into) return into.root_domain == "" end },
        })
        state.wildcard = state.wildcard and state.root_domain ~= ""
        local ok, message = true, nil
        if state.wildcard then ok, message = names.check("*." .. state.root_domain) end
        if not ok then ui:say(message .. ".") end
      until ok
      return true
    end,
  }
end

-- A file name for the request that is not taken.
local function free_file(name)
  local base = name:gsub("^%*%.", "wildcard."):sub(1, 200)
  local path, number = base .. ".csr", 1
  while caller.file.stat(path) do
    number = number + 1
    path = ("%s-%d.csr"):format(base, number)
  end
  return path
end

local function check_file(line)
  if line == "-" then return nil, "DER is nothing for a terminal: it needs a file" end
  local home = caller.home() or "~"
  local path = line:gsub("^~%f[/\0]", function() return home end)
  local there, folder = caller.file.stat(path, true), caller.file.stat(paths.parent(path), true)
  if there then
    return nil, ("'%s' is there already%s"):format(path, there.kind == "folder" and ", and is a folder" or "")
  elseif not folder or folder.kind ~= "folder" then
    return nil, ("there is no folder '%s'"):format(paths.parent(path))
  end
  return path
end

local function subject_question(key, prompt)
  return { key = key, prompt = prompt, optional = true, check = function(line)
    return subjects.check(answers.SUBJECT[key], line)
  end }
end

local function organization(self)
  return {
    title = "Organization and Location",
    help = "This will stand in the certificate's subject, if the certificate authority takes it over. Country is "
      .. "a code of ISO 3166-1, such as US or DE.",
    run = function(state, ui)
      state.site_subject = answers.site_subject(self, state)
      for key in pairs(answers.SUBJECT) do
        state[key] = state[key] or self.given[key] or state.site_subject[key]
      end
      local name = free_file(state.wildcard and "*." .. state.root_domain or state.common_name)
      if state.out == nil or state.out == state.proposed_file then state.out = name end
      state.proposed_file = name
      local to_print = self.given.form ~= "der"
      ui:form(state, {
        subject_question("organization", "Organization"),
        subject_question("unit", "Organizational unit"),
        subject_question("country", "Country"),
        subject_question("locality", "City or locality"),
        subject_question("state_name", "State or province"),
        { key = "out", prompt = "Certificate request file", optional = to_print, shown = "printed here",
          skip = function() return self.given.self_signed end, check = check_file,
          help = "The request is written into this file, for the certificate authority; it is kept here as well." },
      })
      return true
    end,
  }
end

local function configuration(self)
  return {
    title = "Certificate Configuration",
    help = "Nothing is made before you say yes. The command does the same again, without questions.",
    run = function(state, ui)
      local args = answers.all(self, state)
      local made, message = answers.proposed(self, args)
      if not made then
        ui:warn(message)
        if ui:yes { prompt = "Go back and change it?", default = true } then ui:back() end
        ui:abandon()
      end
      local columns = ui.dialogue.columns()
      ui:show(text.fields(answers.summary(made, args), columns))
      if state.wildcard then domains.warn(ui, self.asked.facts, made.domains) end
      ui:same(commandline.lines(commandline.words(self.context, self.script, args), columns))
      local prompt = self.context.dry_run and "Show what would be made?" or "Make the request?"
      if args.self_signed then prompt = "Make the certificate?" end
      if not ui:yes { prompt = prompt, default = true } then ui:abandon() end
      state.args = args
      return true
    end,
  }
end

-- What the two pages of names ask for.
local function names_asked(self)
  return {
    rows = self.rows, accepted_domains = self.site.config.accepted_domains, facts = worksheet.facts(self.site),
    common_name = function(state, list)
      local free = { name = state.name, root_domain = state.root_domain }
      local made = #list > 0 and answers.proposed(self, answers.options(self, free, list))
      return made and made.common_name or list[1]
    end,
    extra = function(state, list)
      local made, extra = #list > 0 and answers.proposed(self, answers.options(self, state, list)), {}
      for _, name in ipairs(made and made.domains or {}) do
        local known = false
        for _, other in ipairs(list) do known = known or other == name end
        if not known then extra[#extra + 1] = name end
      end
      return extra
    end,
  }
end

--- Asks for everything that a request needs.
-- @param args the options that were given
-- @return options | nil, message, code
function M.ask(args, context)
  local script, db, site, message, code
  script, message, code = require("scripts").load(context, "new-request")
  if script then db, message, code = context:read() end
  if db then site, message, code = context:site() end
  if not site then return nil, message, code end
  local self = { context = context, site = site, given = args, script = script }
  self.rows, message, code = worksheet.load(context.home, site.dir)
  if not self.rows then return nil, message, code end
  if next(site.config.services) then context:say "looking at what the services' own configuration says of names" end
  self.asked = names_asked(self) -- before Ctrl-C is the wizard's: it ends a program that hangs
  local ui = require("wizard").new(context:dialogue())
  local state
  state, message, code = ui:run({
    introduction(self), scope(self), require("pages.worksheet").page(self.asked), domains.page(self.asked),
    organization(self), configuration(self), { title = "Completion" },
  }, {
    name = args.name, root_domain = args.root_domain, wildcard = args.wildcard, out = args.out,
    changed = {}, added = {}, domains = {},
  })
  if not state then return nil, message, code end
  context.arguments = commandline.arguments(script, state.args) -- for the audit record
  return state.args
end

return M
