-- wildcards.lua: where clients may not accept a wildcard.  A site that knows
-- better copies this file into its own lua/ folder and changes the table.

local M = {}

--- By the scheme of an endpoint, else the name of a service: whose clients.  web
-- and smtp are not here: theirs accept a wildcard.
M.refused_by = {
  imap = "some IMAP clients", imaps = "some IMAP clients", pop = "some POP clients", pop3 = "some POP clients",
  pop3s = "some POP clients",
}

-- The wildcard that alone covers a name; one stands for one label only (RFC 9525,
-- section 6.3).  No name: any wildcard that there is.
local function wildcard_for(domains, name)
  local found
  for _, domain in ipairs(domains) do
    local plain = domain:lower()
    if plain == name then return nil end
    local is_wildcard = plain:sub(1, 2) == "*."
    if is_wildcard and (name == "" or plain:sub(2) == name:match "^[^.]+(%..+)$") then found = found or plain end
  end
  return found
end

--- Warnings about the services that a certificate is on.
-- @param domains of the certificate
-- @param rows its assignments
-- @return array of { code = "wildcard", message = }, one a service
function M.warnings(domains, rows)
  local list, seen = {}, {}
  for _, row in ipairs(rows) do
    local whose = M.refused_by[row.endpoint:match "^%w+://" and row.endpoint:match "^%w+" or row.service]
    local stands = row.state ~= "replaced" and row.state ~= "failed"
    local wildcard = whose and stands and wildcard_for(domains, row.name)
    if wildcard and not seen[row.service] then
      seen[row.service] = true
      list[#list + 1] = { code = "wildcard", message = ("'%s': %s do not accept a wildcard, and %s is covered by %s "
        .. "only"):format(row.service, whose, row.name ~= "" and row.name or "its name", wildcard) }
    end
  end
  return list
end

return M
