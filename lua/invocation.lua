-- invocation.lua: commands as they are suggested to whoever runs this one: with
-- the site and state folders that were named, through sudo where that was, and
-- quoted for a POSIX shell, so that pasting one acts on the same store.

local where = require "where"

local M = {}

local PLAIN = "^[%w@%%+=:,./_-]+$" -- what no shell reads anything into

local program = { { "certwright" } } -- words, a group for each that belong together

--- A word as a shell takes it for one word.
function M.quote(word)
  return word:find(PLAIN) and word or "'" .. word:gsub("'", "'\\''") .. "'"
end

--- A folder named on the command line, as words; one that begins with a hyphen
-- would be taken for an option itself.
local function named(option, folder)
  if folder:sub(1, 1) == "-" then return { option .. "=" .. folder } end
  return { option, folder }
end

--- The words by which a context's program is called.
-- @param context whose site and state folders are named where they are not the
--   usual ones
-- @return array of arrays, not quoted
function M.program(context)
  local words = { context.caller and { "sudo", "certwright" } or { "certwright" } }
  if context.site_dir and context.site_dir ~= where.site() then
    words[#words + 1] = named("--site", context.site_dir)
  end
  if context.state_dir and context.state_dir ~= where.state() then
    words[#words + 1] = named("--state", context.state_dir)
  end
  return words
end

--- Has suggestions from now on be of this context.
function M.settle(context)
  program = M.program(context)
end

--- A command to suggest.
-- @param format what follows "certwright", as of string.format: "renew %d"
function M.suggest(format, ...)
  local words = {}
  for _, group in ipairs(program) do
    for _, word in ipairs(group) do words[#words + 1] = M.quote(word) end
  end
  words[#words + 1] = format:format(...)
  return table.concat(words, " ")
end

return M
