-- domains.lua: the page of new-request that shows the list of names which the
-- worksheet makes, to add to, edit and remove from, and to choose the common
-- name of (article: "Certificate Domains").  What was changed here stays when the
-- worksheet is changed.

local lines = require "pages.lines"
local names = require "names"
local worksheet = require "worksheet"

local M = {}

-- The names on the list: the worksheet's as they were edited, then those added.
local function listed(state)
  local list, seen = {}, {}
  local function put(name)
    if state.changed[name] ~= nil then name = state.changed[name] end
    if name and not seen[name] then
      seen[name] = true
      list[#list + 1] = name
    end
  end
  for _, name in ipairs(worksheet.merged(state.rows)) do put(name) end
  for _, name in ipairs(state.added) do put(name) end
  return list
end

-- Puts another name, or none (false), in the place of one on the list.
local function replace(state, old, new)
  for name, current in pairs(state.changed) do
    if current == old then state.changed[name] = new end
  end
  state.changed[old] = new
  if new then lines.want(state, new) end
  if state.common_name == old then state.common_name = new end
end

local function add_names(state, line)
  local list, message = lines.names(line)
  if not list then return message end
  if #list == 0 then return "say which name to add, with add and the name" end
  for _, name in ipairs(list) do
    lines.want(state, name)
    state.added[#state.added + 1] = name
  end
end

local function edit_name(state, ui, old)
  ui:within(function()
    local new = ui:ask { prompt = "Name", default = old, check = names.check }
    if new ~= old then replace(state, old, new) end
  end)
end

local function remove_names(state, list, which)
  for _, number in ipairs(which) do
    if list[number] == state.common_name then
      return ("%s is the common name: set another one first, with common and its number"):format(list[number])
    end
  end
  for _, number in ipairs(which) do replace(state, list[number], false) end
end

-- Whether names are all that a line holds: words with a dot, or addresses.
local function are_names(line)
  for word in line:gmatch "[^,%s]+" do
    if not word:find "[.:]" then return false end
  end
  return true
end

-- Does what a line says to the list; what is wrong with it, or nil.
local function change_list(state, ui, list, line)
  local verb, rest = lines.command(line, { add = true, edit = true, remove = true, common = true })
  if verb == "add" or not verb and are_names(line) then return add_names(state, rest) end
  if not verb and not line:find "^%d+$" then return "that is neither a name nor a number; ? explains" end
  local which, message = lines.numbers(rest, #list, "line")
  if not which then return message end
  if verb == "remove" then return remove_names(state, list, which) end
  if #which > 1 then return "say one number" end
  if verb == "common" then
    state.common_name = list[which[1]]
  else
    edit_name(state, ui, list[which[1]])
  end
end

local LIST_HELP = [[
All these names will be on the certificate.
  add NAME   add a name; the name alone does so, too
  2          edit line 2
  remove 2   take it off
  common 2   set it as the common name, which is also on the list
  list       show the list again]]

-- The common name: the one that was set, while it is on the list.
local function settle_common_name(state, ui, ask, list)
  for _, name in ipairs(list) do
    if name == state.common_name then return end
  end
  local before = state.common_name
  state.common_name = ask.common_name(state, list)
  if before and state.common_name then
    ui:say(("%s is not on the list any more: the common name is %s now."):format(before, state.common_name))
  end
end

--- Warns of each name that a service uses and a list lacks.
function M.warn(ui, facts, list)
  for _, entry in ipairs(worksheet.lacking(facts, list)) do
    ui:warn(("%s is used by %s, and is not on the list."):format(names.shown { entry.name },
      table.concat(entry.services, ", ")))
  end
end

local function show_list(state, ui, ask, list)
  for i, name in ipairs(list) do
    ui:say(("%2d  %s%s"):format(i, names.shown { name }, name == state.common_name and " (common name)" or ""), 4)
  end
  local all = { table.unpack(list) }
  for _, name in ipairs(ask.extra(state, list)) do
    ui:say(("    %s (added by the site's policy)"):format(names.shown { name }), 4)
    all[#all + 1] = name
  end
  M.warn(ui, ask.facts, all)
end

--- The page.
-- @param ask { facts = of worksheet.facts, common_name(state, list) -> the one that
--   is proposed, extra(state, list) -> names that the site's policy adds }
function M.page(ask)
  return {
    title = "Certificate Domains", help = LIST_HELP,
    skip = function(state) return state.wildcard end,
    run = function(state, ui)
      local shown
      ui:say "These names will be on the certificate: add NAME, edit N, remove N, common N (set as common name)."
      while true do
        local list = listed(state)
        state.domains = list
        settle_common_name(state, ui, ask, list)
        local now = table.concat(list, "\0") .. "\0\0" .. tostring(state.common_name)
        if now ~= shown then show_list(state, ui, ask, list) end
        shown = now
        local line = ui:ask { prompt = #list == 0 and "Name to add" or "Change", default = #list > 0 and "next" or nil }
        if line == "next" and #list > 0 then return true end
        local message
        if line == "list" then
          shown = nil
        elseif line == "next" then
          message = "a certificate needs a name; ? explains"
        else
          message = change_list(state, ui, list, line)
        end
        if message then ui:say(message .. ".") end
      end
    end,
  }
end

return M
