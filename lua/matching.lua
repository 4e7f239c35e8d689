-- matching.lua: which of the certificates that a CA sent is for which request: by
-- its public key alone.
--
-- A CA may send several: with the old certificate of the same key, for several
-- requests at once, for a key of somebody else.

local certificates = require "certificates"
local flow = require "flow"
local text = require "text"

local M = {}

--- The states in which a request may be completed: a person may have carried
-- it to the CA without saying so.
M.from = { "created", "submitted" }

-- Whether of two certificates the first is the one that is meant: it can serve
-- now, or is the newer of two that can.
local function is_better(one, other)
  local now = os.time()
  local function rank(certificate)
    local fields = certificate:fields()
    local from, to = fields.not_before or math.maxinteger, fields.not_after or 0
    return not fields.ca and from <= now and now <= to, from
  end
  local serves, from = rank(one)
  local other_serves, other_from = rank(other)
  if serves ~= other_serves then return serves end
  return from > other_from
end

-- The best of those certificates for which is_fit(certificate) holds, or nil.
local function best(pile, is_fit)
  local found
  for _, certificate in ipairs(pile) do
    if is_fit(certificate) and (not found or is_better(certificate, found)) then found = certificate end
  end
  return found
end

-- What is here of each certificate of a pile: the objects that have its key, and
-- whether one of these has it already.
local function known_of(db, pile)
  local known = {}
  for _, certificate in ipairs(pile) do
    local rows, message, code = certificates.with_key(db, certificate:public_key())
    if not rows then return nil, message, code end
    local entry = { rows = rows }
    for _, row in ipairs(rows) do
      if row.fingerprint == certificate:fingerprint() then entry.owner = row end
      if flow.holds(M.from, row.state) then entry.pending = entry.pending or row end
    end
    known[certificate] = entry
  end
  return known
end

-- The certificate of a pile that belongs to a request, and that request: one that
-- nobody has yet, for a request that is pending; else one that is here already;
-- else whichever has the key of an object.
local function match_any(pile, known)
  local fits = {
    function(entry) return not entry.owner and entry.pending end,
    function(entry) return entry.owner end,
    function(entry) return entry.rows[1] end,
  }
  for _, row_of in ipairs(fits) do
    local first -- of several requests that which the pile has first
    for _, certificate in ipairs(pile) do first = first or row_of(known[certificate]) end
    if first then
      return best(pile, function(certificate)
        local row = row_of(known[certificate])
        return row and row.id == first.id
      end), first
    end
  end
  return false
end

-- The certificate for a request that was named, or nil.
local function match_row(pile, known, row)
  local fits = {
    function(certificate) return certificate:fingerprint() == row.fingerprint end,
    function(certificate) return certificate:public_key() == row.public_key and not known[certificate].owner end,
    function(certificate) return certificate:public_key() == row.public_key end,
  }
  for _, is_fit in ipairs(fits) do
    local found = best(pile, is_fit)
    if found then return found end
  end
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
    shown[i] = ("'%s' (key %s)"):format(text.label(certificate:fields()), certificate:public_key():sub(1, 16))
  end
  return table.concat(shown, ", ")
end

--- Finds the certificate for a request in a pile, and the request for it.
-- @param pile array of core.cert in any order
-- @param row the request that was named, or nil: any, a pending one first
-- @return certificate, row | nil, message, "mismatch" | ...
function M.match(db, pile, row)
  local known, message, code = known_of(db, pile)
  if not known then return nil, message, code end
  if row then
    local certificate = match_row(pile, known, row)
    if certificate then return certificate, row end
    return nil, ("no certificate here has the key of request %d (%s): there is %s; %s"):format(row.id,
      row.public_key:sub(1, 16), keys_of(pile), waiting_keys(db)), "mismatch"
  end
  local certificate, found = match_any(pile, known)
  if not certificate then
    return nil, ("no request has the key of %s; %s"):format(keys_of(pile), waiting_keys(db)), "mismatch"
  end
  return certificate, found
end

--- The pending requests for which a pile has a certificate that nobody has yet.
-- @return array of rows | nil, message, code
function M.waiting(db, pile)
  local known, message, code = known_of(db, pile)
  if not known then return nil, message, code end
  local rows, seen = {}, {}
  for _, certificate in ipairs(pile) do
    local row = not known[certificate].owner and known[certificate].pending
    if row and not seen[row.id] then
      rows[#rows + 1] = row
      seen[row.id] = true
    end
  end
  return rows
end

--- What a CA sent for keys that are nobody's here: of the certificates that are
-- neither a CA's nor in the chain.
-- @param chain array of core.cert
-- @return a warning { code =, message = }, or nil
function M.stray(db, pile, chain)
  local known = known_of(db, pile)
  if not known then return nil end -- what is wrong with the store, who writes into it says
  local strays = {}
  for _, certificate in ipairs(pile) do
    local is_known = #known[certificate].rows > 0 or certificate:fields().ca
    for _, link in ipairs(chain) do is_known = is_known or link == certificate end
    for _, stray in ipairs(strays) do is_known = is_known or stray == certificate end
    if not is_known then strays[#strays + 1] = certificate end
  end
  if #strays == 0 then return nil end
  return { code = "mismatch", message = "it came with what is for another key: " .. keys_of(strays) }
end

return M
