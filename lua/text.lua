-- text.lua: text for people: escaping, dates, tables, lines that fit a terminal.

local M = {}

-- Code points that could deceive a reader or drive a terminal: controls,
-- bidirectional marks and overrides (UAX 9), those that nobody sees (Unicode's
-- Default_Ignorable_Code_Point, and the blank of Braille).
local HIDDEN = {
  { 0x00, 0x1F }, { 0x7F, 0x9F }, { 0xAD, 0xAD }, { 0x34F, 0x34F }, { 0x61C, 0x61C }, { 0x115F, 0x1160 },
  { 0x17B4, 0x17B5 }, { 0x180B, 0x180F }, { 0x200B, 0x200F }, { 0x2028, 0x202E }, { 0x2060, 0x206F },
  { 0x2800, 0x2800 }, { 0x3164, 0x3164 }, { 0xFE00, 0xFE0F }, { 0xFEFF, 0xFEFF }, { 0xFFA0, 0xFFA0 },
  { 0xFFF0, 0xFFFB }, { 0x1BCA0, 0x1BCA3 }, { 0x1D173, 0x1D17A }, { 0xE0000, 0xE0FFF },
}

local function is_hidden(code)
  for _, range in ipairs(HIDDEN) do
    if code >= range[1] and code <= range[2] then return true end
  end
  return false
end

--- Replaces the characters of a UTF-8 text that nobody should meet unawares.
-- @param shown function(code point) -> what stands in its place
function M.replace_hidden(text, shown)
  return (text:gsub(utf8.charpattern, function(character)
    local code = utf8.codepoint(character)
    if is_hidden(code) then return shown(code) end
  end))
end

--- Text from a certificate, a CA or a server, made safe to show.
-- Control, bidirectional and invisible characters become \u{XXXX}; bytes that
-- are no UTF-8 become U+FFFD.
function M.escape(text)
  if not text:find "[^\x20-\x7E]" then return text end
  if not utf8.len(text) then text = text:gsub("[\x80-\xFF]", "\u{FFFD}") end
  return M.replace_hidden(text, function(code) return ("\\u{%04X}"):format(code) end)
end

local LABEL_LIMIT = 128 -- characters of a name in a message

--- What a certificate is called in a message, within single quotes: its common
-- name, else its first domain, else its subject.  A quote in it never looks like
-- the end of it.
-- @param fields of the certificate
function M.label(fields)
  local name = fields.common_name or fields.domains[1] or fields.subject
  local length = utf8.len(name)
  if length and length > LABEL_LIMIT then name = name:sub(1, utf8.offset(name, LABEL_LIMIT + 1) - 1) .. "..." end
  return M.escape((name:gsub("['\\]", "\\%0")))
end

--- The first control, bidirectional or invisible character of a UTF-8 text, as a
-- code point, but for those that join letters (U+200C, U+200D): Persian and the
-- scripts of India are written with them.
-- @return number | nil
function M.hidden(text)
  if not text:find "[^\x20-\x7E]" then return nil end
  for _, code in utf8.codes(text) do
    if is_hidden(code) and code ~= 0x200C and code ~= 0x200D then return code end
  end
  return nil
end

-- Without the blanks at its end. A pattern that looks for these would begin anew at
-- each blank before them, of which a certificate may have a million in a row.
local function trimmed(text)
  return text:match "^.*%S" or ""
end

--- As escape, but keeps line breaks and tabs: for what a program printed.
function M.escape_lines(text)
  local lines = {}
  for line in (text:gsub("\r\n", "\n") .. "\n"):gmatch "(.-)\n" do
    lines[#lines + 1] = line:gsub("[^\t]+", M.escape)
  end
  return trimmed(table.concat(lines, "\n"))
end

--- Names in one line; one that holds a comma, quote, blank or what is not ASCII
-- (which has commas and blanks of its own) is quoted, so that it never looks like
-- two.
function M.names(list)
  local shown = {}
  for i, name in ipairs(list) do
    name = M.escape(name)
    shown[i] = name:find '[,"%s\x80-\xFF]' and '"' .. name:gsub('["\\]', "\\%0") .. '"' or name
  end
  return table.concat(shown, ", ")
end

--- The first of some names, and how many more there are.
-- @param count how many are named at most; default 1
function M.some(list, count)
  count = math.min(count or 1, #list)
  local first = M.names { table.unpack(list, 1, count) }
  return #list > count and ("%s +%d more"):format(first, #list - count) or first
end

--- A time as RFC 3339 text, UTC; nil for nil.
function M.time(seconds)
  return seconds and os.date("!%Y-%m-%dT%H:%M:%SZ", seconds)
end

--- A day as text, UTC; "-" for nil.
function M.day(seconds)
  return seconds and os.date("!%Y-%m-%d", seconds) or "-"
end

--- "1 day", "2 days".
function M.count(number, singular, plural)
  return ("%d %s"):format(number, number == 1 and singular or plural or singular .. "s")
end

local function width(text)
  return utf8.len(text) or #text
end

-- The width of each column of a table, and of each cell: of the n-th of all, row by
-- row, one after the other.
local function measure(rows)
  local columns, cells, n = {}, {}, 0
  for _, row in ipairs(rows) do
    for i = 1, #row do
      local wide = utf8.len(row[i]) or #row[i]
      n = n + 1
      cells[n] = wide
      if wide > (columns[i] or -1) then columns[i] = wide end
    end
  end
  return columns, cells
end

--- Rows of cells as aligned columns; the first row is the heading.  rows.below
-- holds, by the number of a row, lines that stand below it.
function M.table(rows)
  local columns, cells = measure(rows)
  local lines, line, cell = {}, {}, 0
  for n, row in ipairs(rows) do
    for i = 1, #row do
      local missing = columns[i] - cells[cell + i]
      line[i] = missing > 0 and i < #row and row[i] .. (" "):rep(missing) or row[i]
    end
    cell = cell + #row
    lines[#lines + 1] = trimmed(table.concat(line, "  ", 1, #row))
    lines[#lines + 1] = rows.below and rows.below[n]
  end
  return table.concat(lines, "\n")
end

--- A table for a terminal: narrowed by one step after the other until it fits.
-- @param columns the terminal's width; nil: no terminal, the table as it is
-- @param steps array of functions(rows, columns too many) -> rows; see drop,
--   replace and cut
function M.fitted(rows, columns, steps)
  for _, step in ipairs(columns and steps or {}) do
    local widest = 0
    for line in M.table(rows):gmatch "[^\n]+" do widest = math.max(widest, width(line)) end
    if widest <= columns then break end
    rows = step(rows, widest - columns)
  end
  return M.table(rows)
end

local function column_of(rows, heading)
  for i, cell in ipairs(rows[1]) do
    if cell == heading then return i end
  end
end

--- A step of fitted: leaves a column out.
function M.drop(heading)
  return function(rows)
    local column, narrower = column_of(rows, heading), {}
    for i, row in ipairs(rows) do
      narrower[i] = { table.unpack(row) }
      if #row >= column then table.remove(narrower[i], column) end
    end
    return narrower
  end
end

--- A step of fitted: other cells in a column.
-- @param cell function(n) -> the n-th cell below the heading
function M.replace(heading, cell)
  return function(rows)
    local column = column_of(rows, heading)
    for i = 2, #rows do rows[i][column] = cell(i - 1) end
    return rows
  end
end

--- A step of fitted: a column's cells stand in lines of their own, below their row.
-- @param unless function(row, cell): whether the row says it already
function M.below(heading, columns, unless)
  return function(rows)
    local column = column_of(rows, heading)
    rows.below = {}
    for i, row in ipairs(rows) do
      local cell = table.remove(row, column)
      if i > 1 and not unless(row, cell) then
        rows.below[i] = "    " .. M.wrap(cell, columns - 4, 0):gsub("\n", "\n    ")
      end
    end
    return rows
  end
end

local SHORTEST = 12 -- what a cell is cut to at most

--- A step of fitted: cuts the cells of a column to what there is room for; the
-- whole of one stands below its row, where that is used and is free.
function M.cut(heading)
  return function(rows, excess)
    local column, widest = column_of(rows, heading), 0
    for _, row in ipairs(rows) do widest = math.max(widest, width(row[column])) end
    local most = math.max(SHORTEST, widest - excess)
    for i, row in ipairs(rows) do
      local cell = row[column]
      if width(cell) > most and rows.below then rows.below[i] = rows.below[i] or "    " .. cell end
      if width(cell) > most then row[column] = cell:sub(1, utf8.offset(cell, most - 2) - 1) .. "..." end
    end
    return rows
  end
end

-- Where a command begins that a line ends with, there to be copied.
local function command_start(line)
  for _, before in ipairs { "^ *", ": ", "see " } do
    for _, program in ipairs { "certwright", "sudo certwright" } do
      local start = line:match(before .. "()" .. program .. " [^;]*$")
      if start then return start end
    end
  end
end

-- Whether no single quote of a shell's word is open at its end.  Within quotes a
-- backslash means nothing.
local function is_closed(word)
  local at = word:match "^[^'\\]*()"
  while at <= #word do
    local past = word:sub(at, at) == "\\" and at + 2 or word:match("^'[^']*'()", at)
    if not past then return false end
    at = word:match("^[^'\\]*()", math.min(past, #word + 1))
  end
  return true
end

-- A command in lines that a shell takes for one: not broken in what is quoted.
local function broken_command(command, columns, indent)
  local lines, line, word = {}, nil, nil
  for blanks, part in command:gmatch "( *)(%S+)" do
    word = word and word .. blanks .. part or part
    if is_closed(word) then
      local longer = line and line .. " " .. word or (" "):rep(indent) .. word
      if line and width(longer) + 2 > columns then
        lines[#lines + 1] = line .. " \\"
        longer = (" "):rep(indent + 2) .. word
      end
      line, word = longer, nil
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n") .. (word and " " .. word or "")
end

-- What stands before the command of a line that is too wide, and that command,
-- broken; nil where there is none.
local function parted(line, columns, indent)
  local start = width(line) > columns and command_start(line)
  if not start then return nil end
  local before = trimmed(line:sub(1, start - 1))
  local command = broken_command(line:sub(start), columns, before == "" and start - 1 or indent)
  return before, before == "" and command or "\n" .. command
end

local function wrapped(line, columns, indent)
  local lines, so_far = {}, nil
  line = line:gsub("(%(%w+) (%x+%))", "%1\0%2") -- "(was 0123456789abcdef)" stays one word
  for blanks, word in line:gmatch "( *)(%S+)" do
    if so_far and width(so_far .. blanks .. word) > columns then
      lines[#lines + 1] = so_far
      so_far = (" "):rep(indent) .. word
    else
      so_far = (so_far or "") .. blanks .. word
    end
  end
  lines[#lines + 1] = so_far
  return (table.concat(lines, "\n"):gsub("%z", " "))
end

--- Prose broken at blanks into lines of so many columns; a word that is wider
-- (a path, a fingerprint) is never broken.  What follows a line break in it
-- stands as it is, as lists do.  A command at the end of a line, there to be
-- copied, stays whole: where it has to be broken, a shell takes it for one.
-- @param columns nil: no terminal, nothing is broken
-- @param indent of the lines after the first
function M.wrap(prose, columns, indent)
  if not columns then return prose end
  local first, rest = prose:match "^([^\n]*)(.*)$"
  rest = rest:gsub("[^\n]+", function(line)
    local before, command = parted(line, columns, indent)
    return before and before .. command
  end)
  if width(first) <= columns then return first .. rest end
  local before, command = parted(first, columns, indent)
  return wrapped(trimmed(before or first), columns, indent) .. (command or "") .. rest
end

--- Label and value pairs, one a line; the lines of a value stand below each other.
-- @param columns a terminal's width, or nil: nothing is broken
function M.fields(pairs_, columns)
  local lines, widest = {}, 0
  for _, pair in ipairs(pairs_) do widest = math.max(widest, width(pair[1])) end
  local indent = (" "):rep(widest + 2)
  for _, pair in ipairs(pairs_) do
    local value = M.wrap(tostring(pair[2]), columns and columns - #indent, 0):gsub("\n", "\n" .. indent)
    lines[#lines + 1] = pair[1] .. (" "):rep(widest - width(pair[1]) + 2) .. value
  end
  return table.concat(lines, "\n")
end

return M
