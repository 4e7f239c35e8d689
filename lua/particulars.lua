-- particulars.lua: all that a certificate and its chain say, as data and as text
-- for `show`.
--
-- OpenSSL's words stand for what is not known here; an extension that nobody
-- knows is shown by its number and the beginning of its bytes.

local cert = require "core.cert"
local file = require "core.file"
local json = require "json"
local text = require "text"
local trust = require "trust"

local M = {}

local LISTS = { "key_usage", "extended_key_usage", "ocsp", "issuers", "crls" }
local VALUES = {
  "version", "signature_algorithm", "public_key", "ca", "path_length", "must_staple", "subject_key_id",
  "authority_key_id",
}
local ORDER = { table.unpack(VALUES) }
table.move(LISTS, 1, #LISTS, #ORDER + 1, ORDER)
ORDER[#ORDER + 1] = "names"
ORDER[#ORDER + 1] = "extensions"

local function details_of(certificate)
  local said, details = certificate:fields(), { names = json.array(), extensions = json.array() }
  for _, name in ipairs(VALUES) do details[name] = json.or_null(said[name]) end
  for _, name in ipairs(LISTS) do details[name] = json.array(said[name]) end
  for i, name in ipairs(said.names or {}) do details.names[i] = json.object(name, { "type", "value" }) end
  for i, extension in ipairs(certificate:extensions()) do
    local order = { "oid", "name", "critical", "size", "text", "hex" }
    for _, name in ipairs(order) do extension[name] = json.or_null(extension[name]) end
    details.extensions[i] = json.object(extension, order)
  end
  return json.object(details, ORDER)
end

local function link_of(certificate)
  local said = certificate:fields()
  return json.object({
    subject = said.subject, issuer = said.issuer, not_before = text.time(said.not_before),
    not_after = text.time(said.not_after), fingerprint = said.fingerprint,
  }, { "subject", "issuer", "not_before", "not_after", "fingerprint" })
end

local function root_of(certificate, kind)
  local said = certificate:fields()
  return json.object({ subject = said.subject, fingerprint = said.fingerprint, kind = kind },
    { "subject", "fingerprint", "kind" })
end

-- Where the private key is, or why there is none.
local function set_key(context, row, fields)
  local path = context:path("keys", row.id .. ".pem")
  local is_there = file.stat(path, true) ~= nil
  fields.private_key = is_there and path or json.null
  if row.has_private_key and not is_there and row.state ~= "cancelled" then
    table.insert(fields.warnings, { code = "missing", message = ("its private key '%s' is gone"):format(path) })
  end
end

--- Sets, in the fields of an object: private_key (a path), and of a completed one
-- details, chain (from its issuer up, the root too where it is known) and root
-- { subject, fingerprint, kind = "system" | "site" | "local CA" | "self-signed" }.
-- @return true | nil, message, code
function M.add(context, row, fields)
  fields.root, fields.chain, fields.details = json.null, json.array(), json.null
  set_key(context, row, fields)
  if not row.certificate then return true end
  local chain, message, code = cert.parse(row.certificate .. (row.chain or ""))
  if not chain then return nil, message, code end
  local path, kind
  path, kind, code = trust.path(context, chain)
  if path == nil then return nil, kind, code end
  if path then
    fields.root = root_of(path[#path], kind)
  elseif row.self_signed then
    fields.root = root_of(chain[1], "self-signed")
  end
  for i = 2, #(path or chain) do fields.chain[i - 1] = link_of((path or chain)[i]) end
  fields.details = details_of(chain[1])
  return true
end

-- "Label: value", the value below it where it does not fit beside it.
local function entry(lines, label, value, columns)
  local line = ("  %s: %s"):format(label, value)
  if not value:find "\n" and (not columns or utf8.len(line) <= columns) then
    lines[#lines + 1] = line
    return
  end
  lines[#lines + 1] = ("  %s:"):format(label)
  for part in value:gmatch "[^\n]+" do
    local indent = 4 + #part:match "^ *"
    lines[#lines + 1] = text.wrap((" "):rep(indent) .. part:match "^ *(.*)$", columns, indent)
  end
end

local function names_of(details)
  local shown = {}
  for i, name in ipairs(details.names) do
    local known = name.type == "dns" or name.type == "ip"
    shown[i] = known and name.value or ("%s:%s"):format(name.type, name.value)
  end
  return text.names(shown)
end

local function urls_of(details)
  local lines = {}
  for _, url in ipairs(details.ocsp) do lines[#lines + 1] = "OCSP " .. text.escape(url) end
  for _, url in ipairs(details.issuers) do lines[#lines + 1] = "issuer " .. text.escape(url) end
  return table.concat(lines, "\n")
end

local function points_of(details)
  local lines = {}
  for i, url in ipairs(details.crls) do lines[i] = text.escape(url) end
  return table.concat(lines, "\n")
end

-- Extensions whose value is shown by what was read of it, by their numbers.
local READ = {
  ["2.5.29.17"] = names_of, ["1.3.6.1.5.5.7.1.1"] = urls_of, ["2.5.29.31"] = points_of,
  ["1.3.6.1.4.1.11129.2.4.2"] = function(_, said) -- RFC 6962, section 3.3
    local _, count = said:gsub("Signed Certificate Timestamp", "")
    return text.count(count, "signed certificate timestamp")
  end,
}

-- The bytes of an extension in groups, which a line can be broken between.
local function bytes_of(extension)
  local groups = extension.hex:gsub("%x%x%x?%x?", "%0 "):gsub(" $", "")
  return ("%s%s"):format(groups, extension.size * 2 > #extension.hex and " ..." or "")
end

local function add_extension(lines, details, extension, columns)
  local name = extension.name ~= json.null and extension.name:gsub("^X509v3 ", "") or extension.oid
  local said, reader = extension.text ~= json.null and extension.text or nil, READ[extension.oid]
  local value = reader and said and reader(details, said) or ""
  if value == "" and said then value = text.escape_lines(said) end
  if not said then
    name, value = ("%s, %s"):format(name, text.count(extension.size, "byte")), bytes_of(extension)
  end
  entry(lines, name .. (extension.critical and " (critical)" or ""), value, columns)
end

--- What is said beyond the fields of an object, as lines for people.
-- @param columns the terminal's width, or nil
function M.lines(fields, columns)
  local lines, details = {}, fields.details
  if #fields.chain > 0 then lines[#lines + 1] = "\nChain" end
  for i, link in ipairs(fields.chain) do
    local is_root = fields.root ~= json.null and fields.root.fingerprint == link.fingerprint
    lines[#lines + 1] = text.wrap(("  %d  %s%s"):format(i, text.escape(link.subject),
      is_root and (" (root: %s)"):format(fields.root.kind) or ""), columns, 5)
    lines[#lines + 1] = text.wrap(("     issued by %s"):format(text.escape(link.issuer)), columns, 7)
    lines[#lines + 1] = ("     from %s until %s"):format(link.not_before, link.not_after)
    lines[#lines + 1] = "     SHA-256 " .. link.fingerprint
  end
  if details == json.null then return lines end
  lines[#lines + 1] = "\nCertificate"
  entry(lines, "Version", tostring(details.version), columns)
  entry(lines, "Signature algorithm", text.escape(details.signature_algorithm), columns)
  entry(lines, "Public key", "SHA-256 " .. details.public_key, columns)
  for _, extension in ipairs(details.extensions) do add_extension(lines, details, extension, columns) end
  return lines
end

return M
