-- request.lua: turns a draft into an object with its key and its request.
--
-- The key, the request's file and the row appear together or not at all: the
-- files are written inside the transaction that adds the row.

local cert = require "core.cert"
local certificates = require "certificates"
local completion = require "completion"
local file = require "core.file"
local flow = require "flow"
local json = require "json"
local key = require "core.key"
local outfile = require "outfile"
local request = require "core.request"
local text = require "text"
local theirs = require("caller").file -- for files that the user names

local M = {}

local DAY, CLOCK = 86400, 300 -- clocks differ by so many seconds
local ATTRIBUTES = { O = true, OU = true, L = true, ST = true, C = true }
local LAST = 253402300799 -- the end of the year 9999 (RFC 5280, section 4.1.2.5)

-- The first characters of a text.
local function cut(name, length)
  return name:sub(1, (utf8.offset(name, length + 1) or #name + 1) - 1)
end

--- Settles the friendly name: a name that was given must be free, a suggested
-- one is made free; a renewal takes the old one over.  It holds only inside
-- the transaction that adds the object.
-- @return draft | nil, message, "exists" | ...
function M.name(context, draft, args, from)
  if from and draft.friendly_name == from.friendly_name then return draft end
  local base, number = draft.suggested_name or draft.friendly_name, 1
  draft.suggested_name, draft.friendly_name = base, base
  while true do
    local rows, message, code = certificates.named(context.db, draft.friendly_name)
    if not rows then return nil, message, code end
    if #rows == 0 then return draft end
    if args.name then
      return nil, ("the friendly name '%s' is in use by %d; choose another with --name"):format(
        text.escape(args.name), rows[1].id), "exists"
    end
    number = number + 1
    local suffix = (" (%d)"):format(number)
    draft.friendly_name = cut(base, 63 - #suffix) .. suffix
  end
end

-- A kind of key that cannot be made is the fault of who chose it.
local function make_key(draft)
  local made, message, code = key.generate(draft.key)
  if made then return made end
  if code == "unsupported" then
    message = ("unknown kind of key '%s': use rsa:2048, rsa:3072, rsa:4096, ec:P-256, ec:P-384 or ed25519")
      :format(text.escape(draft.key))
  end
  if draft.decided.key ~= "option" then message = ("key in '%s': %s"):format(draft.decided.key, message) end
  return nil, message, "usage"
end

local function obtain_key(context, draft, args, from)
  if not args.reuse_key then return make_key(draft) end
  if not from.has_private_key then
    return nil, ("cannot reuse the key of %d: it is not here"):format(from.id), "missing"
  elseif from.revoked_at then
    return nil, ("cannot reuse the key of %d: its certificate was revoked"):format(from.id), "revoked"
  end
  return key.open(context:path("keys", from.id .. ".pem"))
end

local function usage_of(kind)
  return kind:match "^rsa" and { "digitalSignature", "keyEncipherment" } or { "digitalSignature" }
end

-- The files of a new object, each noted in `written`.
local function write_files(context, id, secret, signed, args, out, written)
  local path = context:path("keys", id .. ".pem")
  local request_path = context:path("requests", id .. ".csr")
  local ok, message, code = secret:save(path)
  if ok then written[1] = path end
  if ok then ok, message, code = file.write(request_path, signed:pem(), { mode = 384 }) end -- 0600
  if ok then written[2] = request_path end
  if ok and args.out then ok, message, code = outfile.write(context, args.out, out) end
  if ok then written.out = args.out end
  return ok, message, code
end

-- A self-signed certificate from the request: for the days that the site gives,
-- or for as long as the self-signed one that it renews.
local function self_sign(context, secret, signed, kind, from)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local not_before = os.time() - CLOCK
  local seconds = site.config.self_signed_days * DAY + CLOCK
  if from and from.self_signed then seconds = from.not_after - from.not_before end
  return cert.issue {
    key = secret, request = signed, not_before = not_before, not_after = math.min(not_before + seconds, LAST),
    key_usage = usage_of(kind), extended_key_usage = { "serverAuth" }, ca = false,
  }
end

-- What a self-signed object has at once: it never waits for a CA.
local function complete_self_signed(context, fields, secret, signed, kind, from)
  local certificate, message, code = self_sign(context, secret, signed, kind, from)
  if not certificate then return nil, message, code end
  local columns
  columns, message, code = completion.columns(context, { certificate })
  if not columns then return nil, message, code end
  for column, value in pairs(columns) do fields[column] = value end
  fields.state, fields.self_signed, fields.ca = "completed", true, nil
  return true
end

--- The attributes of the subject that an object was asked for with, but for its
-- common name; of an imported one those in its certificate that a request may
-- have.
-- @return table | nil, message, code
function M.subject(context, row)
  local bytes, message, code = file.read(context:path("requests", row.id .. ".csr"))
  local parsed
  if bytes then
    parsed, message, code = request.parse(bytes)
  elseif code == "missing" and row.certificate then
    local list = cert.parse(row.certificate)
    parsed = list and list[1]
  end
  if not parsed then return nil, message, code end
  local subject = {}
  for _, part in ipairs(parsed:fields().subject_parts) do
    if part.type ~= "CN" and (bytes or ATTRIBUTES[part.type]) then subject[part.type] = part.value end
  end
  return subject
end

--- Makes the key, the request and the object.
-- @param draft as draft.make returns it; args the options of new-request, and
--   `wish`: what is wanted of the object later
-- @param from the row that is renewed, or nil
-- @return id | nil, message, code
function M.create(context, draft, args, from)
  if args.out then
    local free, why, what = outfile.check(context, args.out)
    if not free and what == "exists" then return nil, why, what end -- else writing it says why not
  end
  local secret <close>, message, code = obtain_key(context, draft, args, from)
  if not secret then return nil, message, code end
  local signed
  signed, message, code = request.create {
    key = secret, subject = draft.subject, domains = draft.domains, key_usage = usage_of(draft.key),
    extended_key_usage = { "serverAuth" },
  }
  if not signed then return nil, "cannot make the request: " .. message, code end
  local fields = signed:fields()
  local out = args.form == "der" and signed:der() or signed:pem()
  local columns = {
    state = "created", subject = fields.subject, common_name = draft.common_name, key = fields.key,
    public_key = fields.public_key, exportable = args.exportable or (from and from.exportable) or false, ca = draft.ca,
    replaces = from and from.id, wish = args.wish and json.compact(args.wish),
  }
  if args.self_signed then
    local ok
    ok, message, code = complete_self_signed(context, columns, secret, signed, draft.key, from)
    if not ok then return nil, message, code end
  elseif not args.out then
    context.printed = out
  end
  local written = {}
  local id, why, what = flow.create(context, columns, fields.domains, function(row)
    local named, reason, kind = M.name(context, draft, args, from)
    if not named then return nil, reason, kind end
    row.friendly_name = named.friendly_name
    return true
  end, function(new)
    return write_files(context, new, secret, signed, args, out, written)
  end)
  if id then return id end
  -- No object, no files: a request that is carried to a CA while its key is gone
  -- would come back as a certificate that nobody can use.
  for _, path in ipairs(written) do file.remove(path) end
  if written.out then theirs.remove(written.out) end
  return nil, why, what
end

return M
