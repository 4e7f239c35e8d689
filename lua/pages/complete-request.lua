-- complete-request.lua: the pages of complete-request: which of the pending
-- requests, what its CA sent, summary.

local certificates = require "certificates"
local commandline = require "commandline"
local completion = require "completion"
local invocation = require "invocation"
local matching = require "matching"
local text = require "text"
local trust = require "trust"
local unpacking = require "unpacking"
local wizard = require "wizard"

local M = {}

local function describe(row)
  return ("%s (id %d), %s %s%s: %s"):format(text.escape(row.friendly_name), row.id, row.state,
    text.day(row.created_at), row.ca and ", CA " .. row.ca or "", text.some(row.domains))
end

local function request_page(db, rows)
  return {
    title = "Pending Request",
    help = "The request that the CA's certificate is for. Its private key waits here for it.",
    run = function(state, ui)
      local items, default = {}, #rows == 1 and 1 or nil
      for i, row in ipairs(rows) do
        items[i] = { label = describe(row), name = row.friendly_name }
        if state.row and row.id == state.row.id then default = i end
      end
      local id = rows[ui:choose { prompt = "Request", items = items, default = default }].id
      if not state.row or state.row.id ~= id then state.row, state.file = assert(certificates.get(db, id)), {} end
    end,
  }
end

-- Whether a request's CA can be asked for the certificate.
local function can_ask(site, row)
  local ca = row.state == "submitted" and row.ca and site:ca(row.ca)
  return ca and ca.adapter ~= "manual"
end

-- What is in the files so far: a pile, or nil and why not.
local function unpack_files(state, paths)
  local password, message, code = unpacking.password(state.password_file)
  if password == nil then return nil, message, code end
  return unpacking.files(paths, { password = password or nil })
end

-- The certificate of a pile that is for the request, if it can serve.
local function fitting(context, state, pile)
  local leaf, message = matching.match(state.db, pile.certificates, state.row)
  if not leaf then return nil, message end
  local warnings, why = completion.foresee(context, state.row, leaf, pile.certificates)
  if not warnings then return nil, why end
  return leaf
end

-- Asks for one file; what cannot be read or serve, or is for another request, is
-- asked for again.  A PKCS #12 may want its password.
local function ask_file(context, state, ui, question, is_leaf)
  while true do
    local path = ui:ask(question)
    if path == "" then return nil end
    local pile, message, code = unpack_files(state, { path })
    if code == "denied" and not state.password_file then
      ui:say(message .. ".")
      state.password_file = ui:ask { prompt = "File with the password in its first line" }
      pile, message, code = unpack_files(state, { path })
      if code then state.password_file = nil end
    end
    local leaf = pile
    if pile and is_leaf then leaf, message = fitting(context, state, pile) end
    if leaf then return path, is_leaf and leaf end
    ui:say(message .. ".")
  end
end

local function file_page(context, site)
  return {
    title = "File from the CA",
    help = "What the CA sent, in any form: PEM, DER, PKCS #7, PKCS #12, ZIP.\nThe rest of the chain may be in further "
      .. "files.",
    run = function(state, ui)
      local asks = can_ask(site, state.row)
      if asks then ui:say(("Without a file the CA '%s' is asked."):format(state.row.ca)) end
      local files, before = {}, state.file
      local first = { prompt = "File", default = before[1], optional = asks }
      local path, leaf = ask_file(context, state, ui, first, true)
      state.leaf = leaf
      while path do
        files[#files + 1] = path
        state.file = table.move(before, #files + 1, #before, #files + 1, { table.unpack(files) }) -- also after `<`
        local further = { prompt = "Further file", default = before[#files + 1], optional = true }
        path = ask_file(context, state, ui, further, false)
      end
      state.file = files
    end,
  }
end

-- The request and its certificate as labels and values, for text.fields.
local function summary(state)
  local list = { { "Request", describe(state.row) } }
  if state.leaf then
    local fields = state.leaf:fields()
    for _, pair in ipairs {
      { "Domains", text.names(fields.domains) }, { "Issuer", text.escape(fields.issuer) },
      { "Valid from", text.time(fields.not_before) }, { "Valid until", text.time(fields.not_after) },
      { "SHA-256", state.leaf:fingerprint() }, { "SHA-1", state.leaf:fingerprint "sha1" },
    } do list[#list + 1] = pair end
  end
  return list
end

-- Warns before it is completed of what it would be warned of afterwards.
local function warn(context, state, ui)
  local pile = unpack_files(state, state.file)
  local warnings = pile and completion.foresee(context, state.row, state.leaf, pile.certificates) or {}
  for _, warning in ipairs(warnings) do
    local cure = warning.message:find(trust.NO_ANCHOR) and "; a missing link of the chain goes into a further file "
      .. "(`<` goes back), a root that clients trust into 'anchors' of config.lua" or ""
    ui:warn(warning.message .. cure)
  end
end

local function summary_page(context, flags)
  return {
    title = "Summary", help = "Nothing has been changed yet. Yes completes the request; no service is touched by it.",
    run = function(state, ui)
      local columns = ui.dialogue.columns()
      ui:show(text.fields(summary(state), columns))
      if state.leaf then warn(context, state, ui) end
      if not state.leaf then ui:say(("The CA '%s' will be asked for the certificate."):format(state.row.ca)) end
      local words = commandline.words(context, { name = "complete-request", options = flags },
        { file = state.file, password_file = state.password_file })
      words[#words + 1] = { tostring(state.row.id) }
      ui:same(commandline.lines(words, columns))
      if not ui:yes { prompt = "Complete it now?", default = true } then ui.abandon() end
    end,
  }
end

--- Asks for the request and its files, and puts them into args.
-- @param flags the options of complete-request, for the command that does the same
-- @return { completed = function() that begins the last page } | nil, message, code
function M.run(context, flags, args)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local rows
  rows, message, code = certificates.pending(context.db)
  if not rows then return nil, message, code end
  if #rows == 0 then return nil, "there is no pending request; see " .. invocation.suggest "list", "missing" end
  local ui = wizard.new(context:dialogue())
  local list = { request_page(context.db, rows), file_page(context, site), summary_page(context, flags) }
  local state
  state, message, code = ui:run(list, { db = context.db, file = {}, password_file = args.password_file })
  if not state then return nil, message, code end
  args.id, args.file, args.password_file = tostring(state.row.id), state.file, state.password_file
  return { completed = function() ui:title "Completion" end }
end

return M
