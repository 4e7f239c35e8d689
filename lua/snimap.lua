-- snimap.lua: Postfix's tables of which certificate is for which name
-- (tls_server_sni_maps): the one of ours, and the names in all of them.
--
-- Ours is a table of regular expressions, which names files.  smtpd reads both
-- when it starts, still as root.  An indexed one (postmap -F) would hold the keys
-- a second time, and its `.example.com` is more than the one label that a
-- wildcard stands for (RFC 9525, section 6.3).

local file = require "core.file"

local M = {}

--- Ours, as tls_server_sni_maps has it.
function M.of(service)
  return "regexp:" .. service.dir .. "/current/sni"
end

--- Whether a value of tls_server_sni_maps names ours.
function M.is_in(service, maps)
  for map in maps:gmatch "[^%s,]+" do
    if map == M.of(service) then return true end
  end
  return false
end

--- The text of ours: the first line that fits says which file.
-- @param beside array of { path =, names = }, as a driver's files() has it
function M.text(beside)
  local lines = { "# name: certificate and key; every other name gets the default one" }
  for _, entry in ipairs(beside) do
    for _, name in ipairs(entry.names) do
      local pattern = name:gsub("%.", "\\."):gsub("^%*", "[^.]+")
      lines[#lines + 1] = ("/^%s$/ %s"):format(pattern, entry.path)
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

-- The names in ours, read back.
local function names_in(text)
  local names = {}
  for pattern in text:gmatch "\n/%^(%S+)%$/ " do
    names[#names + 1] = pattern:gsub("\\%.", "."):gsub("^%[%^%.%]%+", "*")
  end
  return table.concat(names, "\n")
end

-- Maps that postmap makes of a text, and the one that is a text.
local from_text = { hash = true, btree = true, lmdb = true, cdb = true, dbm = true, sdbm = true, texthash = true }

--- Adds the names that have certificates of their own to a list.  The text that a
-- map is made of is read, never the map: that holds the private keys themselves
-- (postmap -F).
-- @return nothing | why one could not be read
function M.add_names(service, list, maps)
  for kind, path in maps:gmatch "%f[^%s,\0](%w+):(/[^%s,]+)" do
    local ours = kind .. ":" .. path == M.of(service)
    local text, message, code = "", nil, nil
    if from_text[kind] or ours then text, message, code = file.read(path) end
    for name in ("\n" .. (text and ours and names_in(text) or text or "")):gmatch "\n([^%s#]+)" do
      list[#list + 1] = name:lower():gsub("^%.", "*.") -- .D is what is below D
    end
    if not text and code ~= "missing" then return message end
  end
end

return M
