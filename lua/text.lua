-- text.lua: text for people: escaping, dates, fingerprints, tables.

local M = {}

-- Code points that could deceive a reader or drive a terminal: controls,
-- bidirectional marks and overrides, invisible ones (Unicode TR 36, TR 9).
local HIDDEN = {
  { 0x00, 0x1F }, { 0x7F, 0x9F }, { 0xAD, 0xAD }, { 0x61C, 0x61C }, { 0x180E, 0x180E },
  { 0x200B, 0x200F }, { 0x2028, 0x202E }, { 0x2060, 0x206F }, { 0xFE00, 0xFE0F },
  { 0xFEFF, 0xFEFF }, { 0xFFF9, 0xFFFB }, { 0xE0000, 0xE0FFF },
}

local function is_hidden(code)
  for _, range in ipairs(HIDDEN) do
    if code >= range[1] and code <= range[2] then return true end
  end
  return false
end

--- Text from a certificate, a CA or a server, made safe to show.
-- Control, bidirectional and invisible characters become \u{XXXX}; bytes that
-- are no UTF-8 become U+FFFD.
function M.escape(text)
  if not text:find "[^\x20-\x7E]" then return text end
  if not utf8.len(text) then text = text:gsub("[\x80-\xFF]", "\u{FFFD}") end
  return (text:gsub(utf8.charpattern, function(character)
    local code = utf8.codepoint(character)
    if is_hidden(code) then return ("\\u{%04X}"):format(code) end
  end))
end

--- As escape, but keeps line breaks and tabs: for what a program printed.
function M.escape_lines(text)
  local lines = {}
  for line in (text:gsub("\r\n", "\n") .. "\n"):gmatch "(.-)\n" do
    lines[#lines + 1] = line:gsub("[^\t]+", M.escape)
  end
  return (table.concat(lines, "\n"):gsub("%s+$", ""))
end

--- Names in one line; one that holds a comma, quote or blank is quoted, so
-- that it never looks like two.
function M.names(list)
  local shown = {}
  for i, name in ipairs(list) do
    name = M.escape(name)
    shown[i] = name:find '[,"%s]' and '"' .. name:gsub('["\\]', "\\%0") .. '"' or name
  end
  return table.concat(shown, ", ")
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

--- Rows of cells as aligned columns; the first row is the heading.
function M.table(rows)
  local widths = {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width(cell)) end
  end
  local lines = {}
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      cells[i] = i == #row and cell or cell .. (" "):rep(widths[i] - width(cell))
    end
    lines[#lines + 1] = (table.concat(cells, "  "):gsub("%s+$", ""))
  end
  return table.concat(lines, "\n")
end

--- Label and value pairs, one a line; a list stands below its label.
function M.fields(pairs_)
  local lines, widest = {}, 0
  for _, pair in ipairs(pairs_) do widest = math.max(widest, width(pair[1])) end
  for _, pair in ipairs(pairs_) do
    local indent = (" "):rep(widest + 2)
    local value = tostring(pair[2]):gsub("\n", "\n" .. indent)
    lines[#lines + 1] = pair[1] .. (" "):rep(widest - width(pair[1]) + 2) .. value
  end
  return table.concat(lines, "\n")
end

return M
