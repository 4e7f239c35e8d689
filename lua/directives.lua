--- Reads a configuration written in nginx's grammar: words, quotes, comments,
-- blocks, includes with patterns.  It knows no directive but `include`, changes
-- nothing, and does not say whether a server would accept what it reads.

local includes = require "includes"
local paths = require "paths"

local M = {}

local escapes = { t = "\t", r = "\r", n = "\n", ['"'] = '"', ["'"] = "'", ["\\"] = "\\" }

-- The word in quotes that begins at position, and where it ends.
local function quoted(text, position)
  local inside = text:sub(position, position) == '"' and '^[^"\\]*()' or "^[^'\\]*()"
  local to = text:match(inside, position + 1)
  while text:sub(to, to) == "\\" and to < #text do
    to = text:match(inside, to + 2)
  end
  if to >= #text and text:sub(to, to) ~= text:sub(position, position) then
    return nil, "a quote is not closed"
  end
  return text:sub(position + 1, to - 1), to + 1
end

-- The word without quotes that begins at position, and where it ends; a brace
-- ends it, except that of `${`.
local function bare(text, position)
  local to = text:match("^[^%s;{\\]*()", position)
  while true do
    local c = text:sub(to, to)
    local past = c == "\\" and to + 2 or c == "{" and text:sub(to - 1, to - 1) == "$" and to + 1
    if not past then
      return text:sub(position, to - 1), to
    end
    to = text:match("^[^%s;{\\]*()", math.min(past, #text + 1))
  end
end

-- Where the Lua code ends whose opening brace is at position: its strings and
-- comments may hold braces.
local function past_code(text, position)
  local depth = 0
  while position do
    local at, _, c = text:find("([{}\"'%[%-])", position)
    if not at then
      return nil
    elseif c == "{" or c == "}" then
      depth = depth + (c == "{" and 1 or -1)
      position = at + 1
    elseif c == "-" then
      position = select(2, text:match("^%-%-%[(=*)%[.-%]%1%]()", at)) or text:match("^%-%-[^\n]*()", at) or at + 1
    elseif c == "[" then
      position = select(2, text:match("^%[(=*)%[.-%]%1%]()", at)) or at + 1
    else
      position = select(2, quoted(text, at))
      position = math.type(position) and position
    end
    if depth == 0 then
      return position
    end
  end
end

-- Iterates over text as kind, word, line, where kind is "word", ";", "{" or "}".
-- At the end it is nil, and with a message, line where the text is malformed.
-- The code in a `..._by_lua_block` is passed over.
local function tokens(text)
  local position, line, first, line_break = 1, 1, nil, text:find("\n", 1, true)
  local function advance(to)
    while line_break and line_break < to do
      line, line_break = line + 1, text:find("\n", line_break + 1, true)
    end
    position = to
  end
  return function()
    advance(text:match("^%s*()", position))
    while text:sub(position, position) == "#" do
      advance(text:match("^[^\n]*%s*()", position))
    end
    local c, at = text:sub(position, position), line
    if c == "" then
      return nil, nil, line
    elseif c == "{" and first and first:find "_by_lua_block$" then
      local past = past_code(text, position)
      if not past then
        return nil, "a block is not closed", line
      end
      first = nil
      advance(past)
      return ";", ";", at
    elseif c:find "[;{}]" then
      first = nil
      advance(position + 1)
      return c, c, at
    end
    local word, to = (c:find "[\"']" and quoted or bare)(text, position)
    if not word then
      return nil, to, line
    end
    advance(to)
    first = first or word
    word = word:gsub("\\(.)", escapes)
    return "word", word, at
  end
end

local read

-- Reads what an include names into list, after the include itself.
local function include(reader, list, directive, depth)
  local path = paths.join(reader.folder, directive[2] or "")
  directive[2] = path
  list[#list + 1] = directive
  if not reader.follow(path) then
    return true
  end
  for _, found in ipairs(paths.is_pattern(path) and paths.glob(path) or { path }) do
    local done, message, code = read(reader, list, found, depth + 1)
    if not done then
      return nil, message, code
    end
  end
  return true
end

-- Reads a file's directives into list.
function read(reader, list, path, depth)
  local text, message, code = includes.text(path, depth)
  if not text then
    return nil, message, code
  end
  local outer, directive = {}, {}
  local next_token = tokens(text)
  while true do
    local kind, word, line = next_token()
    if not kind then
      if word or #directive > 0 or #outer > 0 then
        return nil, ("cannot read '%s': line %d: %s"):format(path, line,
          word or "it ends inside a directive or a block"), "parse"
      end
      return true
    elseif kind == "word" then
      directive.file, directive.line = path, directive.line or line
      directive[#directive + 1] = word
    elseif kind == "}" and #directive == 0 and #outer > 0 then
      list = table.remove(outer)
    elseif kind == "}" or #directive == 0 then
      return nil, ("cannot read '%s': line %d: unexpected '%s'"):format(path, line, word), "parse"
    elseif kind == ";" and directive[1] == "include" then
      local done
      done, message, code = include(reader, list, directive, depth)
      if not done then
        return nil, message, code
      end
      directive = {}
    else
      list[#list + 1] = directive
      if kind == "{" then
        directive.block = {}
        outer[#outer + 1] = list
        list = directive.block
      end
      directive = {}
    end
  end
end

--- Reads a configuration file and what it includes.
-- @param path absolute
-- @param follow function(path): whether an include's files are to be read
-- @return list of directives: { name, argument ..., file =, line =, block = list
--   of those inside, or nil }; an include's argument is made absolute, and what it
--   names follows it. Or nil, message, "missing" | "denied" | "parse" | "limit" | "io"
function M.read(path, follow)
  local list = {}
  local reader = { folder = paths.parent(path), follow = follow }
  local done, message, code = read(reader, list, path, 0)
  if not done then
    return nil, message, code
  end
  return list
end

--- Those of a list with a name.
function M.named(list, name)
  local found = {}
  for _, directive in ipairs(list) do
    if directive[1] == name then
      found[#found + 1] = directive
    end
  end
  return found
end

return M
