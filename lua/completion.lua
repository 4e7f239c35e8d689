-- completion.lua: from what a CA sent to a completed object: which request it
-- is for, whether it can work, what differs from what was asked for.

local appraisal = require "appraisal"
local cert = require "core.cert"
local certificates = require "certificates"
local file = require "core.file"
local flow = require "flow"
local json = require "json"
local request = require "core.request"
local text = require "text"
local trust = require "trust"

local M = {}

--- The states in which a request may be completed: a person may have carried
-- it to the CA without saying so.
M.from = { "created", "submitted" }

-- The certificate of a pile that belongs to a request, and that request: the
-- one that has it already, else one that is pending, else whichever has its key.
local function match_any(db, pile)
  local fits = {
    function(row, certificate) return row.fingerprint == certificate:fingerprint() end,
    function(row) return flow.holds(M.from, row.state) end,
    function() return true end,
  }
  for _, is_fit in ipairs(fits) do
    for _, certificate in ipairs(pile) do
      local rows, message, code = certificates.with_key(db, certificate:public_key())
      if not rows then return nil, message, code end
      for _, row in ipairs(rows) do
        if is_fit(row, certificate) then return certificate, row end
      end
    end
  end
  return false
end

local function waiting_keys(db)
  local rows = certificates.pending(db) or {}
  if #rows == 0 then return "no request is pending" end
  local lines = {}
  for i, row in ipairs(rows) do
    lines[i] = ("  %d  %s  %s  key %s"):format(row.id, text.escape(row.friendly_name), text.names(row.domains),
      row.public_key:sub(1, 16))
  end
  return "these wait:\n" .. table.concat(lines, "\n")
end

local function keys_of(pile)
  local shown = {}
  for i, certificate in ipairs(pile) do
    shown[i] = ("'%s' (key %s)"):format(text.escape(certificate:fields().common_name or "-"),
      certificate:public_key():sub(1, 16))
  end
  return table.concat(shown, ", ")
end

--- Finds the certificate for a request in a pile, and the request for it.
-- @param pile array of core.cert in any order
-- @param row the request that was named, or nil: any, a pending one first
-- @return certificate, row | nil, message, "mismatch" | ...
function M.match(db, pile, row)
  if row then
    for _, certificate in ipairs(pile) do
      if certificate:public_key() == row.public_key then return certificate, row end
    end
    return nil, ("no certificate here has the key of request %d (%s): there is %s; %s"):format(row.id,
      row.public_key:sub(1, 16), keys_of(pile), waiting_keys(db)), "mismatch"
  end
  local certificate, found, code = match_any(db, pile)
  if certificate == nil then return nil, found, code end
  if not certificate then
    return nil, ("no request has the key of %s; %s"):format(keys_of(pile), waiting_keys(db)), "mismatch"
  end
  return certificate, found
end

--- Why a certificate cannot serve at all: "mismatch", it is a CA's.
function M.refuse_ca(fields)
  if not fields.ca then return true end
  local shown = text.escape(fields.common_name or fields.domains[1] or fields.subject)
  return nil, ("'%s' is the certificate of a CA, not of a server"):format(shown), "mismatch"
end

-- What cannot work is refused before anything changes.
local function refuse(fields, now)
  local ok, message, code = M.refuse_ca(fields)
  if not ok then return nil, message, code end
  local shown = text.escape(fields.common_name or fields.domains[1] or fields.subject)
  if now > fields.not_after then
    return nil, ("the certificate '%s' expired on %s"):format(shown, text.time(fields.not_after)), "expired"
  elseif now < fields.not_before then
    return nil, ("the certificate '%s' is not valid before %s"):format(shown, text.time(fields.not_before)), "expired"
  end
  return true
end

--- The chain without its root, built from the pile and from CAs known here.
-- @return array of core.cert, leaf first | nil, message, code
function M.chain(context, leaf, pile)
  local all = { leaf }
  table.move(pile, 1, #pile, 2, all)
  local help = trust.help(context)
  table.move(help, 1, #help, #all + 1, all)
  local chain, message, code = cert.chain(all, leaf)
  if not chain then return nil, message, code end
  local last = chain[#chain]:fields()
  if #chain > 1 and last.self_issued then chain[#chain] = nil end
  return chain
end

--- The columns of an object that come from its certificate.
-- @param chain array of core.cert, leaf first, without the root
-- @return table | nil, message, code
function M.columns(context, chain)
  local site, message, code = context:site()
  if not site then return nil, message, code end
  local fields = chain[1]:fields()
  local renew_at
  renew_at, message, code = site.policy:value("renew_at", fields, "number")
  if not renew_at then return nil, message, code end
  renew_at = math.tointeger(renew_at // 1)
  if not renew_at then
    return nil, ("renew_at in '%s' must return a time, in seconds"):format(site.policy:source "renew_at"), "refused"
  end
  local untrusted
  untrusted, message, code = trust.reason(context, chain)
  if untrusted == nil then return nil, message, code end
  local issuers = {}
  for i = 2, #chain do issuers[#issuers + 1] = chain[i]:pem() end
  return {
    certificate = chain[1]:pem(), chain = table.concat(issuers), fingerprint = fields.fingerprint,
    thumbprint = fields.thumbprint, serial = fields.serial, issuer = fields.issuer, subject = fields.subject,
    common_name = fields.common_name or certificates.NULL, not_before = fields.not_before,
    not_after = fields.not_after, renew_at = renew_at, untrusted = untrusted or certificates.NULL,
  }, fields.domains
end

-- These warnings, but for what was said of trust before, and why the chain is not
-- trusted now.
local function with_trust(columns, warnings, before)
  local list = json.array()
  for _, warning in ipairs(warnings) do
    if warning.message ~= before then list[#list + 1] = warning end
  end
  if columns.untrusted ~= certificates.NULL then
    list[#list + 1] = { code = "untrusted", message = columns.untrusted }
  end
  return list
end

--- The column of warnings: these, but for what was said of trust before, and
-- why the chain is not trusted now.
function M.warnings(columns, warnings, before)
  return json.compact(with_trust(columns, warnings, before))
end

-- What the request itself says, where it is still here and can be read.
local function requested(context, row)
  local bytes = file.read(context:path("requests", row.id .. ".csr"))
  local parsed = bytes and request.parse(bytes)
  return parsed and parsed:fields()
end

-- Completing again with the same certificate: a better chain and a new anchor
-- count; a chain that is known already stays known.
local function refresh(context, row, leaf, pile)
  local known = row.chain ~= "" and cert.parse(row.chain) or {}
  table.move(pile, 1, #pile, #known + 1, known)
  local chain, message, code = M.chain(context, leaf, known)
  if not chain then return nil, message, code end
  local columns
  columns, message, code = M.columns(context, chain)
  if not columns then return nil, message, code end
  local is_same = columns.chain == row.chain and columns.untrusted == (row.untrusted or certificates.NULL)
  if is_same or context.dry_run then return true end
  return certificates.set(context.db, row.id, { chain = columns.chain, untrusted = columns.untrusted,
    warnings = M.warnings(columns, row.warnings, row.untrusted) })
end

-- What a dry run says of what would be known of a certificate.
local function explain(context, columns, warnings)
  M.say_renewal(context, columns)
  for _, warning in ipairs(warnings) do context:say("would warn: %s", text.escape(warning.message)) end
  if columns.untrusted ~= certificates.NULL then context:say("would warn: %s", text.escape(columns.untrusted)) end
  return true
end

--- Says when it would be renewed, and who decided that.
function M.say_renewal(context, columns)
  context:say("would have it renewed from %s on (renew_at in '%s')", text.time(columns.renew_at),
    context:site().policy:source "renew_at")
end

-- What would be known of a certificate, or why it cannot serve.
-- @return columns, names, warnings | nil, message, code
local function judge(context, row, leaf, pile)
  local fields = leaf:fields()
  local ok, message, code = refuse(fields, os.time())
  if not ok then return nil, message, code end
  local chain
  chain, message, code = M.chain(context, leaf, pile)
  if not chain then return nil, message, code end
  local columns, names
  columns, names, code = M.columns(context, chain)
  if not columns then return nil, names, code end
  local warnings = appraisal.differences(row, requested(context, row), fields)
  local doubts = appraisal.doubts(chain)
  table.move(doubts, 1, #doubts, #warnings + 1, warnings)
  return columns, names, warnings
end

--- What completing a request would warn of; changes nothing.
-- @return array of { code =, message = } | nil, message, code: it would be refused
function M.foresee(context, row, leaf, pile)
  local columns, message, warnings = judge(context, row, leaf, pile)
  if not columns then return nil, message, warnings end
  return with_trust(columns, warnings)
end

--- Completes a request with its certificate.  Again with the same one: its chain
-- and whether it is trusted are found anew.
-- @param row the object; leaf its certificate; pile what came with it
-- @return true | nil, message, code; nothing is changed on a refusal
function M.complete(context, row, leaf, pile)
  if row.fingerprint == leaf:fingerprint() then return refresh(context, row, leaf, pile) end
  if row.state == "completed" then
    return nil, ("%d is completed already, with another certificate (%s)"):format(row.id, row.fingerprint), "exists"
  elseif not flow.holds(M.from, row.state) then
    return nil, ("cannot complete %d: it was %s"):format(row.id, row.state), "mismatch"
  end
  local columns, names, warnings = judge(context, row, leaf, pile)
  if not columns then return nil, names, warnings end
  columns.warnings = M.warnings(columns, warnings)
  if context.dry_run then return explain(context, columns, warnings) end
  return flow.advance(context, row.id, M.from, "completed", columns,
    { names = names, detail = "fingerprint " .. columns.fingerprint })
end

return M
