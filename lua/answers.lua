-- answers.lua: what a CA answers about one certificate: OCSP responses and
-- revocation lists, fetched, kept in the state folder until their nextUpdate,
-- or stapled by a service.
--
-- What an answer means for an object is revocation.lua's.

local file = require "core.file"
local host = require "core.host"
local reader = require "core.revocation"
local text = require "text"

local M = {}

M.SECONDS = 10 -- for all questions about one object
local SECONDS_EACH = 5 -- for one question, so that a silent server leaves time to ask another
local LIST_LIMIT, RESPONSE_LIMIT = 32 * 1024 * 1024, 256 * 1024 -- bytes, as core.revocation has them
local SKEW = 300 -- seconds that a CA's clock may be ahead
local AGE_LIMIT = 86400 -- seconds that an answer without nextUpdate counts
local KEPT = 60 * 86400 -- seconds after which a file in the cache is of no use

--- Why an answer does not count now, by its own dates; nil when it does.
function M.stale(verdict, now)
  if not verdict.this_update or verdict.this_update > now + SKEW then
    return ("is of %s, which is not yet"):format(text.time(verdict.this_update) or "no time")
  elseif verdict.next_update and verdict.next_update < now then
    return "was good until " .. text.time(verdict.next_update)
  elseif not verdict.next_update and verdict.this_update < now - AGE_LIMIT then
    return ("is of %s and says nothing of its end"):format(text.time(verdict.this_update))
  end
end

--- A run of questions: what did not answer once is not asked again.
function M.session(context)
  return { context = context, silent = {}, deadline = 0 }
end

--- Begins with another object: its questions have SECONDS from now.
function M.begin(session)
  session.deadline = host.clock() + M.SECONDS
end

local function cache_path(session, source)
  return session.context:path("revocation", reader.digest(source.url .. "\0" .. (source.body or "")))
end

local function keep(session, source, bytes)
  local context = session.context
  if context.dry_run or not file.stat(context.state_dir) then return end
  local folder = context:path "revocation"
  if not file.stat(folder, true) then
    file.mkdir(folder, 448) -- 0700
  end
  file.write(cache_path(session, source), bytes, { mode = 384, exclusive = false }) -- 0600
end

--- Forgets answers about what is long gone.
function M.prune(context)
  local lfs, folder = require "lfs", context:path "revocation"
  if context.dry_run or not file.stat(folder, true) then return end
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name:match "^%x+$" and (lfs.symlinkattributes(path, "modification") or 0) < os.time() - KEPT then
      file.remove(path)
    end
  end
end

local function download(session, source)
  if not source.url:match "^[Hh][Tt][Tt][Pp][Ss]?://" then
    return nil, ("'%s' is not fetched: only http and https are"):format(text.escape(source.url))
  elseif session.silent[source.url] then
    return nil, session.silent[source.url]
  end
  local left = session.deadline - host.clock()
  if left <= 0 then
    return nil, ("'%s' was not asked: %d seconds are over"):format(text.escape(source.url), M.SECONDS)
  end
  local site = session.context:site()
  local config = site and site.config or {}
  local answer, message = require("core.http").request {
    url = source.url, body = source.body, headers = source.headers, limit = source.limit,
    timeout = math.max(1, math.min(SECONDS_EACH, left // 1 | 0)), proxy = config.proxy,
    no_proxy = config.no_proxy and table.concat(config.no_proxy, ","),
  }
  if answer and answer.status ~= 200 then
    answer, message = nil, ("cannot fetch '%s': HTTP status %d"):format(source.url, answer.status)
  end
  if not answer then
    session.silent[source.url] = message
    return nil, message
  end
  return answer.body
end

-- Asks one source, the cache first.
-- @return verdict | nil, message
local function ask(session, source)
  local now = os.time()
  local bytes = file.read(cache_path(session, source), source.limit)
  local verdict = bytes and source.read(bytes)
  if verdict and not M.stale(verdict, now) then
    verdict.cached = true
    return verdict
  end
  local message
  bytes, message = download(session, source)
  if not bytes then return nil, message end
  verdict, message = source.read(bytes)
  local why = verdict and M.stale(verdict, now)
  if why then verdict, message = nil, ("the answer %s"):format(why) end
  if not verdict then return nil, ("'%s': %s"):format(text.escape(source.url), message) end
  if verdict.next_update and verdict.status ~= "unknown" then keep(session, source, bytes) end
  return verdict
end

-- A list that is one of several parts has to be the part for this certificate
-- (RFC 5280, section 6.3.3 (b)).
local function read_list(bytes, subject, issuer, urls)
  local verdict, message = reader.list(bytes, subject, issuer)
  if not verdict or not verdict.urls then return verdict, message end
  for _, url in ipairs(verdict.urls) do
    if require("flow").holds(urls, url) then return verdict end
  end
  return nil, "the revocation list is another part than the certificate names"
end

local function sources_of(subject, issuer)
  local fields, list = subject:fields(), {}
  local body = #fields.ocsp > 0 and reader.request(subject, issuer)
  for _, url in ipairs(fields.ocsp) do
    list[#list + 1] = { by = "OCSP", url = url, body = body, limit = RESPONSE_LIMIT,
      headers = { ["Content-Type"] = "application/ocsp-request", Accept = "application/ocsp-response" },
      read = function(bytes) return reader.response(bytes, subject, issuer) end }
  end
  for _, url in ipairs(fields.crls) do
    list[#list + 1] = { by = "CRL", url = url, limit = LIST_LIMIT,
      read = function(bytes) return read_list(bytes, subject, issuer, fields.crls) end }
  end
  return list
end

--- What a stapled OCSP response says.
-- @return verdict | nil, message
function M.staple(bytes, subject, issuer)
  local verdict, message = reader.response(bytes, subject, issuer)
  local why = verdict and M.stale(verdict, os.time())
  if why then return nil, "the stapled answer " .. why end
  return verdict, message
end

--- Asks about one certificate until somebody knows it: OCSP, then lists, then what
-- was stapled.
-- @param staples function that returns an array of { bytes =, endpoint = }, or nil
-- @return verdict with by and url | nil, message | false: nobody to ask
function M.ask(session, subject, issuer, staples)
  local sources, problems = sources_of(subject, issuer), {}
  for _, source in ipairs(sources) do
    local verdict, message = ask(session, source)
    if verdict and verdict.status ~= "unknown" then
      verdict.by, verdict.url = source.by, source.url
      return verdict
    end
    problems[#problems + 1] = message or ("'%s' does not know it"):format(text.escape(source.url))
  end
  for _, staple in ipairs(staples and staples() or {}) do
    local verdict, message
    if staple.bytes then verdict, message = M.staple(staple.bytes, subject, issuer) end
    if verdict and verdict.status ~= "unknown" then
      verdict.by, verdict.url = "stapled OCSP", staple.endpoint
      return verdict
    end
    if staple.bytes then
      problems[#problems + 1] = ("'%s': %s"):format(staple.endpoint, message or "the stapled answer does not know it")
    end
  end
  if #problems == 0 then return false end
  return nil, table.concat(problems, "; ")
end

return M
