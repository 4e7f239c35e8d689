-- revocation.lua: whether a CA has revoked a certificate, or one above it, and
-- what becomes of the object then.
--
-- Only done when it is asked for: by OCSP, then by a revocation list, then by
-- what its services staple.  A revocation is remembered; a failure to find out
-- is not.

local answers = require "answers"
local cert = require "core.cert"
local certificates = require "certificates"
local json = require "json"
local text = require "text"
local trust = require "trust"

local M = {}

local function label_of(certificate)
  local fields = certificate:fields()
  return text.escape(fields.common_name or fields.domains[1] or fields.subject)
end

local function cannot_tell(certificate, why)
  return ("cannot tell whether '%s' is revoked: %s"):format(label_of(certificate), why)
end

local function said_by(verdict)
  return ("%s %s of %s%s"):format(verdict.by, text.escape(verdict.url), text.time(verdict.this_update),
    verdict.cached and ", cached" or "")
end

local function revoked(verdict, subject, is_leaf)
  return { state = "revoked", revoked_at = verdict.revoked_at or os.time(), reason = verdict.reason,
    message = ("%srevoked on %s: %s (%s)"):format(is_leaf and "" or ("its issuer '%s' was "):format(label_of(subject)),
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
-- @param staples array of { bytes =, endpoint = } that its services sent
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
    local verdict, message = answers.ask(session, path[i], path[i + 1], i == 1 and staples)
    if verdict and verdict.status == "revoked" then
      return revoked(verdict, path[i], i == 1)
    elseif verdict == nil then
      if result.state ~= "failed" then result = { state = "failed", message = cannot_tell(path[i], message) } end
    elseif verdict and i == 1 then
      result = { state = "good", message = ("not revoked (%s)"):format(said_by(verdict)) }
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

-- Remembers a revocation; and that one which was on hold is none any more.
local function remember(context, row, result)
  local changes, event
  if result.state == "revoked" and not row.revoked_at then
    changes, event = { revoked_at = result.revoked_at }, "revoked"
    row.warnings, row.revoked_at = warnings_with(row, result.message), result.revoked_at
  elseif result.state == "good" and row.revoked_at and is_on_hold(row) then
    changes, event = { revoked_at = certificates.NULL }, "unrevoked"
    row.warnings, row.revoked_at = warnings_with(row), nil
  end
  if not changes or context.dry_run then return true end
  changes.warnings = json.compact(row.warnings)
  return context.db:transaction(function()
    local ok, message, code = certificates.set(context.db, row.id, changes)
    if ok then ok, message, code = certificates.record(context.db, row.id, context:who(), event, result.message) end
    if not ok then return nil, message, code end
    return true
  end)
end

--- What the services of an object staple to it.
-- @param rows its assignments
-- @return array of { bytes =, endpoint =, service = }, bytes nil where none came
function M.staples(row, rows)
  local targets, seen, list = {}, {}, {}
  for _, assignment in ipairs(rows) do
    local key = ("%s %s %s"):format(assignment.endpoint, assignment.address, assignment.name)
    if assignment.endpoint ~= "" and assignment.state ~= "replaced" and not seen[key] then
      seen[key] = assignment
      targets[#targets + 1] = { endpoint = assignment.endpoint,
        address = assignment.address ~= "" and assignment.address or nil,
        name = assignment.name ~= "" and assignment.name or nil }
    end
  end
  for _, result in ipairs(require("core.probe").run(targets, { timeout = answers.SECONDS, staple = true })) do
    if result.fingerprint == row.fingerprint then
      list[#list + 1] = { bytes = result.staple, endpoint = result.endpoint }
    end
  end
  return list
end

--- What is wrong with what was stapled to an object.
-- @return array of messages
function M.staple_problems(context, row, staples)
  local problems, path = {}, path_of(context, row)
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
  return problems
end

--- Asks, remembers a revocation, and sets row.revocation for object.status.
-- @return the result | nil, message, code
function M.check(session, row, staples)
  if not row.certificate then return true end
  local result, message, code = M.ask(session, row, staples)
  if not result then return nil, message, code end
  answers.prune(session.context)
  row.revocation = json.object(result, { "state", "message", "revoked_at", "reason" })
  local ok
  ok, message, code = remember(session.context, row, result)
  if not ok then return nil, message, code end
  return result
end

return M
