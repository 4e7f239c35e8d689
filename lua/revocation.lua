-- revocation.lua: whether a CA has revoked a certificate, or one above it, and
-- what becomes of the object then.
--
-- Only done when it is asked for: by OCSP, then by a revocation list, then by
-- what its services staple.  A revocation is remembered; a failure to find out
-- is not.

local answers = require "answers"
local assignments = require "assignments"
local cert = require "core.cert"
local certificates = require "certificates"
local json = require "json"
local text = require "text"
local trust = require "trust"

local M = {}

local SECONDS = 5 -- for each step of a handshake that looks for a staple

local function label_of(certificate)
  local fields = certificate:fields()
  return text.label(fields)
end

local function cannot_tell(certificate, why)
  return ("cannot tell whether '%s' is revoked: %s"):format(label_of(certificate), why)
end

local function said_by(verdict)
  return ("says %s %s of %s%s"):format(verdict.by, text.escape(verdict.url), text.time(verdict.this_update),
    verdict.cached and ", cached" or "")
end

local function revoked(verdict, subject, is_leaf)
  return { state = "revoked", revoked_at = verdict.revoked_at or os.time(), reason = verdict.reason,
    message = ("%srevoked on %s: %s, %s"):format(is_leaf and "" or ("its issuer '%s' was "):format(label_of(subject)),
      text.time(verdict.revoked_at), verdict.reason or "no reason given", said_by(verdict)) }
end

-- The path to the anchor where it is trusted, else what there is of a chain.
local function path_of(context, row)
  local chain, message, code = cert.parse(row.certificate .. (row.chain or ""))
  if not chain then return nil, message, code end
  local path, kind
  path, kind, code = trust.path(context, chain)
  if path == nil then return nil, kind, code end
  return path or chain, path and kind
end

--- Asks whether a certificate, or one above it, is revoked.
-- @param session as answers.session makes it; row the completed object
-- @param staples function that returns what its services staple, where that counts
-- @return { state = "good" | "revoked" | "unchecked" (there is nobody to ask) |
--   "failed", message =, revoked_at =, reason = } | nil, message, code
function M.ask(session, row, staples)
  local path, kind, code = path_of(session.context, row)
  if not path then return nil, kind, code end
  answers.begin(session)
  if #path == 1 and path[1]:fields().self_issued then
    return { state = "unchecked", message = "self-signed: nobody else could revoke it" }
  elseif #path == 1 then
    return { state = "failed", message = cannot_tell(path[1], "its issuer's certificate is not here") }
  elseif kind == "local CA" then
    local is_revoked = row.revoked_at ~= nil
    return { state = is_revoked and "revoked" or "good", revoked_at = row.revoked_at,
      message = is_revoked and "the local CA revoked it" or "not revoked, by the local CA's own records" }
  end
  local result = { state = "unchecked", message = "its CA offers neither OCSP nor a revocation list" }
  for i = 1, #path - 1 do
    local verdict, message = answers.ask(session, path[i], path[i + 1], i == 1 and staples or nil)
    if verdict and verdict.status == "revoked" then
      return revoked(verdict, path[i], i == 1)
    elseif verdict == nil then
      if result.state ~= "failed" then result = { state = "failed", message = cannot_tell(path[i], message) } end
    elseif verdict and i == 1 then
      result = { state = "good", message = ("not revoked, %s"):format(said_by(verdict)) }
    end
  end
  return result
end

-- Its warnings with what is said of revocation now, or without.
local function warnings_with(row, message)
  local list = json.array()
  for _, warning in ipairs(row.warnings) do
    if warning.code ~= "revoked" then list[#list + 1] = warning end
  end
  if message then list[#list + 1] = { code = "revoked", message = message } end
  return list
end

-- Whether a revocation is a hold, which its CA may lift (RFC 5280, 5.3.1).
local function is_on_hold(row)
  for _, warning in ipairs(row.warnings) do
    if warning.code == "revoked" and warning.message:find("certificateHold", 1, true) then return true end
  end
  return false
end

-- What a result changes: a revocation, or the end of a hold.
local function change_of(row, result)
  if result.state == "revoked" and not row.revoked_at then
    return { revoked_at = result.revoked_at }, "revoked", warnings_with(row, result.message)
  elseif result.state == "good" and row.revoked_at and is_on_hold(row) then
    return { revoked_at = certificates.NULL }, "unrevoked", warnings_with(row)
  end
end

-- Writes what changed to the store as it is now.
local function write(context, id, changes, event, result)
  return context.db:transaction(function()
    local fresh, message, code = certificates.get(context.db, id)
    if not fresh then return nil, message, code end
    changes.warnings = json.compact(warnings_with(fresh, event == "revoked" and result.message or nil))
    local ok
    ok, message, code = certificates.set(context.db, id, changes)
    local detail = result.message:gsub("^revoked ", "")
    if ok then ok, message, code = certificates.record(context.db, id, context:who(), event, detail) end
    if not ok then return nil, message, code end
    return true
  end)
end

-- Remembers what changed, in the store and in row.
local function remember(context, row, result)
  local changes, event, warnings = change_of(row, result)
  if not changes then return true end
  row.warnings, row.revoked_at = warnings, event == "revoked" and result.revoked_at or nil
  if context.dry_run or not context:may "operator" then return true end
  return context:change(function() return write(context, row.id, changes, event, result) end)
end

-- What the services of an object staple to it: { bytes =, endpoint = }, bytes nil
-- where none came.
local function staples_of(context, row)
  local targets, seen, list = {}, {}, {}
  for _, assignment in ipairs(assignments.of(context.db, row.id) or {}) do
    local key = ("%s %s %s"):format(assignment.endpoint, assignment.address, assignment.name)
    if assignment.endpoint ~= "" and assignment.state ~= "replaced" and not seen[key] then
      seen[key] = assignment
      targets[#targets + 1] = { endpoint = assignment.endpoint,
        address = assignment.address ~= "" and assignment.address or nil,
        name = assignment.name ~= "" and assignment.name or nil }
    end
  end
  for _, result in ipairs(require("core.probe").run(targets, { timeout = SECONDS, staple = true })) do
    if result.fingerprint == row.fingerprint then
      list[#list + 1] = { bytes = result.staple, endpoint = result.endpoint }
    end
  end
  return list
end

-- Adds what is wrong with what was stapled to an object.
local function judge_staples(context, row, staples, problems)
  local path = path_of(context, row)
  for _, staple in ipairs(path and path[2] and staples or {}) do
    local verdict, message
    if staple.bytes then
      verdict, message = answers.staple(staple.bytes, path[1], path[2])
      if verdict and verdict.status ~= "good" then message = ("the stapled answer is '%s'"):format(verdict.status) end
    elseif path[1]:fields().must_staple then
      message = "staples nothing, which its certificate requires"
    end
    if message then problems[#problems + 1] = ("%d on %s: %s"):format(row.id, staple.endpoint, message) end
  end
end

--- Asks, remembers a revocation, and sets row.revocation for object.status.
-- @param row a completed object; staples as for ask; default: looked at if need be
-- @return the result | nil, message, code
function M.check(session, row, staples)
  local result, message, code = M.ask(session, row, staples or function()
    return staples_of(session.context, row)
  end)
  if not result then return nil, message, code end
  answers.prune(session.context)
  row.revocation = json.object(result, { "state", "message", "revoked_at", "reason" })
  local ok, why = remember(session.context, row, result)
  if not ok then session.context:warn("%d: this is not remembered: %s", row.id, why) end
  return result
end

--- The same, and judges what services staple; what is wrong goes to problems.
-- @return true, whether it is revoked | nil, message, code
function M.inspect(session, row, problems)
  local staples = staples_of(session.context, row)
  local result, message, code = M.check(session, row, function() return staples end)
  if not result then return nil, message, code end
  if result.state == "revoked" or result.state == "failed" then
    problems[#problems + 1] = ("%d: %s"):format(row.id, result.message)
  end
  judge_staples(session.context, row, staples, problems)
  return true, result.state == "revoked"
end

return M
