-- completion.lua: from what a CA sent to a completed object: which request it
-- is for, whether it can work, what differs from what was asked for.

local appraisal = require "appraisal"
local cert = require "core.cert"
local certificates = require "certificates"
local file = require "core.file"
local flow = require "flow"
local json = require "json"
local matching = require "matching"
local request = require "core.request"
local text = require "text"
local trust = require "trust"

local M = {}

--- The states in which a request may be completed.
M.from = matching.from

local WAYS_LIMIT = 16 -- chains that are tried for a leaf
local NAME_LIMIT = 253 -- octets of a domain name (RFC 1035, section 2.3.4)

-- A name with a NUL is one name to some clients and another, which ends there, to
-- others: it was made to deceive (CVE-2009-2408).
local function check_nul(fields)
  local list = { fields.common_name }
  for _, name in ipairs(fields.names) do list[#list + 1] = name.value end
  for _, name in ipairs(list) do
    if name:find("\0", 1, true) then
      return nil, ("the certificate '%s' is for the name '%s': no name has a NUL (RFC 5280, section 4.2.1.6)"):format(
        text.label(fields), text.label { common_name = name }), "limit"
    end
  end
  return true
end

--- Whether a certificate could serve at all, whenever that is.
-- @return true | nil, message, "mismatch" (it is a CA's) | "parse" | "limit"
function M.is_usable(fields)
  local shown = text.label(fields)
  if fields.ca then
    return nil, ("'%s' is the certificate of a CA, not of a server"):format(shown), "mismatch"
  elseif not fields.not_before or not fields.not_after then
    return nil, ("cannot read the certificate '%s': the dates of its validity are malformed"):format(shown), "parse"
  end
  for _, name in ipairs(fields.domains) do
    if #name > NAME_LIMIT then
      return nil, ("the certificate '%s' is for a name of %d octets: a domain name has at most %d (RFC 1035)"):format(
        shown, #name, NAME_LIMIT), "limit"
    end
  end
  return check_nul(fields)
end

-- What cannot work is refused before anything changes.
local function refuse(fields, now)
  local ok, message, code = M.is_usable(fields)
  if not ok then return nil, message, code end
  local shown = text.label(fields)
  if now > fields.not_after then
    return nil, ("the certificate '%s' expired on %s"):format(shown, text.time(fields.not_after)), "expired"
  elseif now < fields.not_before then
    return nil, ("the certificate '%s' is not valid before %s"):format(shown, text.time(fields.not_before)), "expired"
  end
  return true
end

-- Certificates of issuers in the order in which a chain takes them: what is valid
-- now, then what is no root of its own (a cross-certificate, which serves those who
-- know only the other root, too), then what is valid for longer.
local function in_order(list)
  local now, order, ranks = os.time(), { table.unpack(list) }, {}
  for i, certificate in ipairs(order) do
    local fields = certificate:fields()
    local from, to = fields.not_before or math.maxinteger, fields.not_after or 0
    ranks[certificate] = { from <= now and now <= to and 1 or 0, fields.self_issued and 0 or 1, to, -i }
  end
  table.sort(order, function(one, other)
    local a, b = ranks[one], ranks[other]
    for i = 1, #a do
      if a[i] ~= b[i] then return a[i] > b[i] end
    end
    return false
  end)
  return order
end

local function without(list, unwanted)
  local others = {}
  for _, certificate in ipairs(list) do
    if certificate ~= unwanted then others[#others + 1] = certificate end
  end
  return others
end

local function shorter(chain)
  local is_root = #chain > 1 and chain[#chain]:fields().self_issued
  return { table.unpack(chain, 1, is_root and #chain - 1 or #chain) }
end

-- The first way from a leaf up that leads to a known anchor, else the first of all.
-- Where one does not, each of its links in turn is done without.
local function find_way(context, leaf, list)
  local piles, first, seen = { list }, nil, {}
  for _ = 1, WAYS_LIMIT do
    local pile = table.remove(piles, 1)
    if not pile then break end
    local chain, message, code = cert.chain(pile, leaf)
    if not chain then return nil, message, code end
    local prints = {}
    for i, link in ipairs(chain) do prints[i] = link:fingerprint() end
    local way = table.concat(prints, " ")
    if not seen[way] then
      local untrusted
      untrusted, message, code = trust.reason(context, shorter(chain))
      if untrusted == nil then return nil, message, code end
      if not untrusted then return shorter(chain) end
      first = first or shorter(chain)
      for i = 1, #chain do seen[table.concat(prints, " ", 1, i)] = true end
      for i = #chain, 2, -1 do piles[#piles + 1] = without(pile, chain[i]) end
    end
  end
  return first
end

--- The chain without its root, built from the pile and from CAs known here; in
-- whatever order they came.
-- @return array of core.cert, leaf first | nil, message, code
function M.chain(context, leaf, pile)
  local all = table.move(pile, 1, #pile, 1, {})
  local help = trust.help(context)
  table.move(help, 1, #help, #all + 1, all)
  return find_way(context, leaf, in_order(without(all, leaf)))
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
  warnings[#warnings + 1] = matching.stray(context.db, pile, chain)
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
  local message, code
  row, message, code = certificates.get(context.db, row.id) -- as it is now, that it is locked
  if not row then return nil, message, code end
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
