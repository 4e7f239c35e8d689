-- import: takes in a certificate that was made elsewhere, with its key
-- (Exchange: Import-ExchangeCertificate).

local certificates = require "certificates"
local completion = require "completion"
local json = require "json"
local key = require "core.key"
local object = require "object"
local text = require "text"
local theirs = require("caller").file -- for files that the user names
local transfer = require "transfer"
local unpacking = require "unpacking"
local wish = require "wish"

local function read(args)
  local password, message, code = unpacking.password(args.password_file)
  if password == nil then return nil, message, code end
  local pile
  pile, message, code = unpacking.files({ args.file }, { password = password or nil, with_key = not args.key })
  if not pile or not args.key then return pile, message, code end
  local bytes <close>, why, what = theirs.secret(args.key)
  if not bytes then return nil, why, what end
  pile.key, message, code = key.load(bytes, password or nil)
  if not pile.key then
    message = message:gsub("private key", function(words) return ("%s in '%s'"):format(words, args.key) end, 1)
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

local DONE = {
  imported = "is imported", completed = "waited for this certificate and is completed,", key = "is here already, now",
  there = "is here already,",
}

-- A certificate as a person knows it.
local function shown(leaf)
  local fields = leaf:fields()
  return ("certificate '%s', valid until %s,"):format(
    text.label(fields), text.time(fields.not_after))
end

-- What --dry-run says, and the object that is there, or would be.
local function plan(context, id, leaf, what, pile, args)
  if what == "completed" then
    context:say("would complete request %d with certificate %s", id, leaf:fingerprint())
  else
    context:say("would %s %s %s its key", what == "imported" and "import" or ("find as %d"):format(id), shown(leaf),
      pile.key and "with" or "without")
  end
  if id ~= 0 then return object.read(context, id) end
  local columns, message, code = completion.columns(context, { leaf })
  if not columns then return nil, message, code end
  completion.say_renewal(context, columns)
  return preview(leaf:fields(), pile, args)
end

return {
  summary = "take in a certificate made elsewhere, with its key",
  role = "organization-management",
  options = {
    { "file", "certificate, chain and key: PEM, DER, PKCS #7, PKCS #12 or a ZIP (- is standard input)",
      argument = "FILE" },
    { "--key", "the private key, where it is not in FILE", argument = "FILE" },
    { "--password-file", "its first line is the password of the PKCS #12 or the key", argument = "FILE" },
    { "--name", "friendly name; else the one in FILE, or the common name", argument = "NAME" },
    { "--exportable", "the key may be exported later" },
  },
  text = function(fields, context) return fields.id and object.text(fields, context) end,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local pile
    pile, message, code = read(args)
    if not pile then return nil, message, code end
    local id, leaf, what
    id, leaf, what = transfer.import(context, pile, args)
    if not id then return nil, leaf, what end
    if context.dry_run then return plan(context, id, leaf, what, pile, args) end
    local row
    row, message, code = certificates.get(db, id)
    if not row then return nil, message, code end
    context:say("%d '%s' %s %s its key: valid until %s, SHA-256 %s", id, text.escape(row.friendly_name), DONE[what],
      row.has_private_key and "with" or "without", text.time(row.not_after), row.fingerprint)
    for _, warning in ipairs(row.warnings) do context:warn("%s", text.escape(warning.message)) end
    if row.has_private_key then
      context:next(wish.next_of(row), id)
    end
    return object.fields(context, row)
  end,
}
