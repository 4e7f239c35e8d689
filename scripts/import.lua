-- import: takes in a certificate that was made elsewhere, with its key
-- (Exchange: Import-ExchangeCertificate).

local certificates = require "certificates"
local json = require "json"
local key = require "core.key"
local object = require "object"
local text = require "text"
local transfer = require "transfer"
local unpacking = require "unpacking"

local function read(args)
  local password, message, code = unpacking.password(args.password_file)
  if password == nil then return nil, message, code end
  local pile
  pile, message, code = unpacking.files({ args.file }, { password = password or nil, with_key = not args.key })
  if not pile or not args.key then return pile, message, code end
  pile.key, message, code = key.open(args.key, password or nil)
  if not pile.key then
    if code == "denied" and not password then message = message .. "; give it with --password-file FILE" end
    return nil, message, code
  end
  return pile
end

-- What --dry-run says of a certificate that is not here yet.
local function preview(fields, pile, args)
  return json.object({
    subject = fields.subject, domains = json.array(fields.domains), key = fields.key,
    fingerprint = fields.fingerprint, not_before = text.time(fields.not_before),
    not_after = text.time(fields.not_after), has_private_key = pile.key ~= nil, exportable = args.exportable or false,
  }, { "subject", "domains", "key", "fingerprint", "not_before", "not_after", "has_private_key", "exportable" })
end

return {
  summary = "take in a certificate made elsewhere, with its key",
  role = "operator",
  options = {
    { "file", "certificate, chain and key: PEM, DER, PKCS #7, PKCS #12 or a ZIP (- is standard input)",
      argument = "FILE" },
    { "--key", "the private key, where it is not in FILE", argument = "FILE" },
    { "--password-file", "its first line is the password of the PKCS #12 or the key", argument = "FILE" },
    { "--name", "friendly name; else the one in FILE, or the common name", argument = "NAME" },
    { "--exportable", "the key may be exported later" },
  },
  text = function(fields) return fields.id and object.text(fields) end,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local pile
    pile, message, code = read(args)
    if not pile then return nil, message, code end
    local id, leaf
    id, leaf, code = transfer.import(context, pile, args)
    if not id then return nil, leaf, code end
    if context.dry_run then
      context:say("would import %s %s its key", tostring(leaf), pile.key and "with" or "without")
      if id == 0 then return preview(leaf:fields(), pile, args) end
    end
    local row
    row, message, code = certificates.get(db, id)
    if not row then return nil, message, code end
    if not context.dry_run then
      context:say("%d '%s' is imported %s its key: valid until %s, SHA-256 %s", id, text.escape(row.friendly_name),
        row.has_private_key and "with" or "without", text.time(row.not_after), row.fingerprint)
      for _, warning in ipairs(row.warnings) do context:warn("%s", text.escape(warning.message)) end
    end
    return object.fields(context, row)
  end,
}
