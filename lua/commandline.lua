-- commandline.lua: a command with its options, as a person would type it: for
-- pasting into a POSIX shell, and for reading.

local options = require "options"

local M = {}

local PLAIN = "^[%w@%%+=:,./_-]+$" -- what no shell reads anything into

--- A word as a shell takes it for one word.
function M.quote(word)
  return word:find(PLAIN) and word or "'" .. word:gsub("'", "'\\''") .. "'"
end

-- What an option is given by, as quoted words: a name and a value. One that
-- begins with a hyphen would be taken for an option itself.
local function given(option, value)
  if value == true then return { option[1] } end
  if type(value) == "table" then value = table.concat(value, ",") end
  value = tostring(value)
  if value:sub(1, 1) == "-" then return { M.quote(option[1] .. "=" .. value) } end
  return { option[1], M.quote(value) }
end

--- The words of a command, a group for each that belong together.
-- @param context whose site and state folders are named where they are not the
--   usual ones
-- @param script as scripts.load returns it
-- @param args its options by key
-- @return array of arrays of quoted words
function M.words(context, script, args)
  local where, words = require "where", { context.caller and { "sudo", "certwright" } or { "certwright" } }
  if context.site_dir ~= where.site() then words[2] = { "--site", M.quote(context.site_dir) } end
  if context.state_dir ~= where.state() then words[#words + 1] = { "--state", M.quote(context.state_dir) } end
  words[#words + 1] = { script.name }
  for _, option in ipairs(script.options) do
    local value = args[options.key(option)]
    for _, each in ipairs(option.many and value or { value or nil }) do words[#words + 1] = given(option, each) end
  end
  return words
end

--- Words as lines: broken between groups, else within one, where a line would be
-- wider than so many columns.
function M.lines(words, columns)
  local lines, line = {}, ""
  local function add(word, is_apart)
    local longer = line == "" and word or line .. " " .. word
    if line ~= "" and (is_apart or utf8.len(longer) + 2 > columns) then
      lines[#lines + 1] = line .. " \\"
      longer = "  " .. word
    end
    line = longer
  end
  for _, group in ipairs(words) do
    local whole = table.concat(group, " ")
    local is_whole = utf8.len(whole) + 4 <= columns
    for i, word in ipairs(is_whole and { whole } or group) do add(word, not is_whole and i == 1) end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n")
end

return M
