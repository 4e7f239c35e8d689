-- worksheet.lua: the page of new-request that shows the worksheet, each row to
-- verify, edit, empty or skip (article: "Exchange Configuration").  What was
-- changed stays when the page is visited again.

local lines = require "pages.lines"
local names = require "names"
local options = require "options"
local text = require "text"
local worksheet = require "worksheet"

local M = {}

-- One row in a line of its own, with all its names.
local function describe(number, row)
  local parts = {}
  for _, kind in ipairs { "internal", "external" } do
    parts[#parts + 1] = ("%s %s"):format(kind, #row[kind] > 0 and names.shown(row[kind]) or "none")
  end
  return ("%2d  %s%s: %s"):format(number, row.label, row.use and "" or " (skipped)", table.concat(parts, "; "))
end

local function show_rows(ui, rows)
  local cells = { { "NO", "USE", "CLIENT ACCESS", "INTERNAL", "EXTERNAL" } }
  for i, row in ipairs(rows) do
    local has_names = #row.internal + #row.external > 0
    cells[i + 1] = { ("%2d"):format(i), not has_names and "-" or row.use and "yes" or "no", row.label,
      #row.internal > 0 and text.some(row.internal) or "-", #row.external > 0 and text.some(row.external) or "-" }
  end
  local whole, columns = text.table(cells), ui.dialogue.columns()
  local fits = true
  for line in whole:gmatch "[^\n]+" do fits = fits and (utf8.len(line) or #line) <= columns end
  if fits then return ui:show(whole) end
  for i, row in ipairs(rows) do ui:say(describe(i, row), 4) end
end

local function edit_row(state, ui, row)
  local typed = { internal = text.names(row.internal), external = text.names(row.external) }
  local function checked(line)
    local list, message = lines.names(line)
    return list and table.concat(list, ", "), message
  end
  local help = "The names that clients of this service use, with commas between them."
  if not ui:within(function()
    ui:form(typed, {
      { key = "internal", prompt = row.label .. ", internal names", optional = true, check = checked,
        help = help, apart = true },
      { key = "external", prompt = row.label .. ", external names", optional = true, check = checked,
        help = help, apart = true },
    })
  end) then return end
  local before = worksheet.merged { row }
  row.internal, row.external = lines.names(typed.internal), lines.names(typed.external)
  row.use, row.edited = true, true
  for _, name in ipairs(worksheet.merged { row }) do -- one that is new here is wanted on the list again
    local is_new = true
    for _, other in ipairs(before) do is_new = is_new and other ~= name end
    if is_new then lines.want(state, name) end
  end
end

local ROW_HELP = [[
Compare each row with the names that clients really use, inside and outside.
  3         edit row 3
  empty 3   take its names away
  skip 3    do not use its names; use 3 takes them back; skip all skips all rows
  list      show the rows again
The rows are those of worksheet.lua; a site may add some in its own.]]

-- Does what a line says to the rows; returns the numbers of those that it changed,
-- or nil, message.
local function change_rows(state, ui, line)
  local rows = state.rows
  local verb, rest = lines.command(line, { empty = true, skip = true, use = true })
  local which, message
  if verb and verb ~= "empty" and (rest == "all" or rest == "") then
    which = {}
    for i = 1, #rows do which[i] = i end
  else
    which, message = lines.numbers(rest, #rows, "row")
  end
  if not which then return nil, message end
  for _, number in ipairs(which) do
    local row = rows[number]
    if not verb then
      edit_row(state, ui, row)
    elseif verb == "empty" then
      row.internal, row.external, row.edited = {}, {}, true
    else
      row.use, row.edited = verb == "use", true
    end
  end
  return which
end

-- The rows, filled anew when the root domain is another one; what somebody has
-- changed stays.
local function rows_of(state, ask)
  if not state.rows or state.rows_of ~= state.root_domain then
    local kept = {}
    for _, row in ipairs(state.rows or {}) do kept[row.row] = row.edited and row or nil end
    state.rows = worksheet.fill(ask.rows, ask.facts, ask.accepted_domains,
      state.root_domain ~= "" and state.root_domain or nil)
    for i, row in ipairs(state.rows) do state.rows[i] = kept[row.row] or row end
    state.rows_of = state.root_domain
  end
  return state.rows
end

--- The page.
-- @param ask { rows = of the site, facts = of worksheet.facts, accepted_domains }
function M.page(ask)
  return {
    title = "Service Configuration", help = ROW_HELP,
    skip = function(state) return state.wildcard end,
    run = function(state, ui)
      local rows = rows_of(state, ask)
      ui:say "Verify the names by which clients reach each service: a row's number edits it; empty N, skip N."
      for name, fact in options.sorted(ask.facts) do
        if fact.problem then ui:warn(("the names that '%s' has are not known: %s"):format(name, fact.problem)) end
      end
      show_rows(ui, rows)
      while true do
        local line = ui:ask { prompt = "Row to change", default = "next" }
        if line == "next" then return true end
        if line == "list" then
          show_rows(ui, rows)
        else
          local which, message = change_rows(state, ui, line)
          if message then ui:say(message .. ".") end
          for _, number in ipairs(which or {}) do ui:say(describe(number, rows[number]), 4) end
        end
      end
    end,
  }
end

return M
