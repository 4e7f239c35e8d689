-- complete-request: brings the CA's certificate to the request that waits for
-- it (article: "Complete Pending Request").

local cert = require "core.cert"
local completion = require "completion"
local file = require "core.file"
local flow = require "flow"
local object = require "object"
local submission = require "submission"
local text = require "text"

local function add_certificates(pile, bytes, source)
  local list, message, code = cert.parse(bytes)
  if not list then return nil, ("'%s': %s"):format(source, message), code end
  table.move(list, 1, #list, #pile + 1, pile)
  return pile
end

local function from_files(paths)
  local pile = {}
  for _, path in ipairs(paths) do
    local bytes <close>, message, code = file.secret(path) -- some send the key along
    if not bytes then return nil, message, code end
    local ok
    ok, message, code = add_certificates(pile, bytes, path)
    if not ok then return nil, message, code end
  end
  return pile
end

local function from_ca(context, row)
  local bytes, message, code = submission.collect(context, row)
  if not bytes then return nil, message, code end
  return add_certificates({}, bytes, "the answer of " .. row.ca)
end

local function cure(warning)
  return warning.code == "untrusted" and "; if clients trust its root, name that in 'anchors' of config.lua; a missing "
    .. "link of the chain goes into a further --file; then complete-request again" or ""
end

return {
  summary = "complete a pending request with the CA's certificate",
  role = "operator",
  from = completion.from,
  to = "completed",
  options = {
    { "id", "the request; without it, it is found by its key", argument = "ID", optional = true },
    { "--file", "what the CA sent (repeat; - is standard input)", argument = "FILE", many = true },
    { "--password-file", "for encrypted files, which are not supported yet", argument = "FILE" },
  },
  notes = [[
Without --file the request's CA is asked: exit status 3 while it has not
issued.  For example:
   certwright complete-request --file from-the-ca.pem]],
  text = object.text,

  run = function(args, context)
    if args.password_file then
      return nil, "--password-file is not supported yet: FILE holds certificates in PEM or DER, which have no password",
        "unsupported", 2
    end
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row
    if args.id then
      row, message, code = object.find(db, args.id)
      if not row then return nil, message, code end
      if row.state == "completed" and #args.file == 0 then return object.fields(context, row) end
      if row.state ~= "completed" and not flow.holds(completion.from, row.state) then
        return nil, ("cannot complete %d: it was %s"):format(row.id, row.state), "mismatch"
      end
    elseif #args.file == 0 then
      return nil, "complete-request needs an ID, or --file FILE", "usage"
    end
    local pile
    if #args.file > 0 then
      pile, message, code = from_files(args.file)
    else
      pile, message, code = from_ca(context, row)
    end
    if not pile then
      if code == "pending" then return object.fields(context, row), message, code end
      return nil, message, code
    end
    local leaf, found
    leaf, found, code = completion.match(db, pile, row)
    if not leaf then return nil, found, code end
    local ok
    ok, message, code = flow.locked(context, found.id, function()
      return completion.complete(context, found, leaf, pile)
    end)
    if not ok then return nil, message, code end
    if context.dry_run then
      context:say("would complete request %d with certificate %s", found.id, leaf:fingerprint())
      return object.fields(context, found)
    end
    local result
    result, message, code = object.read(context, found.id)
    if not result then return nil, message, code end
    context:say("request %d is completed: valid until %s, SHA-256 %s", found.id, result.not_after,
      result.fingerprint:sub(1, 16))
    for _, warning in ipairs(result.warnings) do context:warn("%s%s", text.escape(warning.message), cure(warning)) end
    context:next(found.wish and "certwright enroll %d" or "certwright assign-services %d --services LIST", found.id)
    return result
  end,
}
