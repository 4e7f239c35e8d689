-- transfer.lua: certificates that come from elsewhere with their key, and those
-- that go elsewhere.

local appraisal = require "appraisal"
local bundle = require "core.bundle"
local cert = require "core.cert"
local certificates = require "certificates"
local completion = require "completion"
local file = require "core.file"
local flow = require "flow"
local invocation = require "invocation"
local key = require "core.key"
local names = require "names"
local request = require "request"
local text = require "text"

local M = {}

-- The certificate that is meant: that of the key, else the leaf of the pile.
local function leaf_of(pile)
  if pile.key then
    for _, certificate in ipairs(pile.certificates) do
      if certificate:matches(pile.key) then return certificate end
    end
    return nil, ("the key (%s) is that of no certificate here"):format(pile.key:fingerprint():sub(1, 16)), "mismatch"
  end
  local chain, message, code = cert.chain(pile.certificates)
  if not chain then return nil, message, code end
  return chain[1]
end

-- The pending request that waits for this certificate, or false.
local function pending(db, leaf)
  local rows, message, code = certificates.with_key(db, leaf:public_key())
  if not rows then return nil, message, code end
  for _, row in ipairs(rows) do
    if flow.holds(completion.from, row.state) then return row end
  end
  return false
end

-- A certificate that a request waits for completes it, as it does in Exchange:
-- its key and its name are here.
local function complete(context, row, leaf, pile, args)
  if args.name or args.exportable then
    return nil, ("request %d '%s' waits for this certificate, with a name and a key that stay as they are: import "
      .. "it without %s"):format(row.id, text.escape(row.friendly_name), args.name and "--name" or "--exportable"),
      "exists"
  end
  return flow.locked(context, row.id, function()
    return completion.complete(context, row, leaf, pile.certificates)
  end)
end

-- The first of these that may be a friendly name.
local function suggest(...)
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    if name and names.friendly(name) then return name end
  end
  return "imported certificate"
end

-- The object that has this certificate already, or false.
local function find(db, leaf)
  local rows, message, code = certificates.with_fingerprint(db, leaf:fingerprint())
  if not rows then return nil, message, code end
  return rows[1] or false
end

-- Gives an object that came without its key the key.
local function add_key(context, row, secret, exportable)
  return flow.locked(context, row.id, function()
    return context.db:transaction(function()
      local ok, message, code = certificates.set(context.db, row.id,
        { has_private_key = true, exportable = exportable })
      if ok then ok, message, code = certificates.record(context.db, row.id, context:who(), "imported its key") end
      if ok then ok, message, code = secret:save(context:path("keys", row.id .. ".pem")) end
      if not ok then return nil, message, code end
      return row.id
    end)
  end)
end

local function add_object(context, leaf, pile, args)
  local chain, message, code = completion.chain(context, leaf, pile.certificates)
  if not chain then return nil, message, code end
  local columns, domains
  columns, domains, code = completion.columns(context, chain)
  if not columns then return nil, domains, code end
  local fields = leaf:fields()
  columns.state, columns.key, columns.public_key = "completed", fields.key, fields.public_key
  columns.self_signed = fields.self_issued
  columns.has_private_key, columns.exportable = pile.key ~= nil, pile.key ~= nil and args.exportable or false
  columns.warnings = completion.warnings(columns, appraisal.doubts(chain))
  return flow.create(context, columns, domains, function(row)
    local draft = { friendly_name = args.name or suggest(pile.friendly_name, fields.common_name, domains[1]) }
    local ok, why, what = request.name(context, draft, args)
    if not ok then return nil, why, what end
    row.friendly_name = draft.friendly_name
    return true
  end, function(id)
    local path = context:path("keys", id .. ".pem")
    if pile.key and file.stat(path) then file.remove(path) end -- left by a crash before its row was there
    if not pile.key then return true end
    return pile.key:save(path)
  end)
end

-- Puts the certificate where it belongs: into the request that waits for it, to
-- the object that has it already, or into a new one.
local function put(context, leaf, pile, args)
  local row, message, code = pending(context.db, leaf)
  if row == nil then return nil, message, code end
  if row then
    local ok
    ok, message, code = complete(context, row, leaf, pile, args)
    if not ok then return nil, message, code end
    return row.id, "completed"
  end
  row, message, code = find(context.db, leaf)
  if row == nil then return nil, message, code end
  local id, what = row and row.id or 0, "there"
  if not row then
    what = "imported"
    if not context.dry_run then id, message, code = add_object(context, leaf, pile, args) end
  elseif pile.key and not row.has_private_key then
    what = "key"
    if not context.dry_run then id, message, code = add_key(context, row, pile.key, args.exportable or false) end
  end
  if not id then return nil, message, code end
  return id, what
end

--- Takes in a certificate, with its key where there is one.  A request that
-- waits for it is completed; one that is here already stays as it is, but for a
-- key that it had not.
-- @param pile as unpacking.files returns it
-- @param args { name =, exportable = }
-- @return id (0: a new one, in a dry run), leaf, "imported" | "completed" | "key"
--   | "there" | nil, message, code
function M.import(context, pile, args)
  local leaf, message, code = leaf_of(pile)
  if not leaf then return nil, message, code end
  local ok
  ok, message, code = completion.is_usable(leaf:fields())
  if ok and args.name then ok, message, code = names.friendly(args.name) end
  if not ok then return nil, message, code end
  local id, what
  id, what, code = put(context, leaf, pile, args)
  if not id then return nil, what, code end
  return id, leaf, what
end

-- What a pending object has: its request.
local function export_request(context, row, form)
  if form ~= "pem" and form ~= "der" then
    return nil, ("%d has no certificate, it is %s: its request can be exported as pem or der"):format(row.id,
      row.state), "mismatch"
  end
  local bytes, message, code = file.read(context:path("requests", row.id .. ".csr"))
  if not bytes then return nil, message, code end
  local parsed
  parsed, message, code = require("core.request").parse(bytes)
  if not parsed then return nil, message, code end
  return form == "der" and parsed:der() or parsed:pem()
end

local function export_pfx(context, row, chain, options)
  if not row.has_private_key then
    return nil, ("cannot export %d as pfx: its key is not here"):format(row.id), "missing"
  elseif not row.exportable then
    local better = invocation.suggest("new-request --from %d --exportable", row.id)
    return nil, ("cannot export %d as pfx: its key is not exportable, as it was made or imported without "
      .. "--exportable; one that is: %s"):format(row.id, better), "denied"
  end
  local secret <close>, message, code = key.open(context:path("keys", row.id .. ".pem"))
  if not secret then return nil, message, code end
  local name = row.friendly_name:gsub("[\xF0-\xF4][\x80-\xBF]*", "\u{FFFD}") -- none of which a BMPString can hold
  return bundle.write_pkcs12 {
    certificates = chain, key = secret, name = name, password = options.password, form = options.pfx,
  }
end

--- What goes out: the certificate and its chain, in a form; only "pfx" holds
-- the key. Of an object without a certificate: its request.
-- @param options { form = "pem" | "der" | "p7b" | "pfx", password = core.secret,
--   pfx = "modern" | "legacy" }
-- @return bytes | nil, message, "denied" | "mismatch" | "missing" | ...
function M.export(context, row, options)
  if row.state ~= "completed" then return export_request(context, row, options.form) end
  local chain, message, code = cert.parse(row.certificate .. (row.chain or ""))
  if not chain then return nil, message, code end
  if options.form == "pem" then return row.certificate .. (row.chain or "") end
  if options.form == "der" then return chain[1]:der() end
  if options.form == "p7b" then return bundle.write_pkcs7(chain) end
  return export_pfx(context, row, chain, options)
end

return M
