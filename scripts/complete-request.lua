-- complete-request: brings the CA's certificate to the request that waits for
-- it (article: "Complete Pending Request").

local completion = require "completion"
local flow = require "flow"
local invocation = require "invocation"
local matching = require "matching"
local object = require "object"
local submission = require "submission"
local text = require "text"
local theirs = require("caller").file -- for files that the user names
local trust = require "trust"
local unpacking = require "unpacking"
local wish = require "wish"

local function from_ca(_, context, row)
  local bytes, message, code = submission.collect(context, row)
  if not bytes then return nil, message, code end
  return unpacking.add(unpacking.pile(), bytes, "the answer of " .. row.ca)
end

local function from_files(args)
  local password, message, code = unpacking.password(args.password_file)
  if password == nil then return nil, message, code end
  return unpacking.files(args.file, { password = password or nil })
end

local CURE = "; if clients trust its root, name that in 'anchors' of config.lua; a missing link of the chain goes into "
  .. "a further --file; then complete-request again"

local function cure(warning)
  return warning.message:find(trust.NO_ANCHOR) and CURE or ""
end

-- What a dry run says beyond what completion does.
local function plan(context, row, leaf)
  context:say(row.state == "completed" and "would find the chain of %d (%s) anew"
    or "would complete request %d with certificate %s", row.id, leaf:fingerprint())
  return object.fields(context, row)
end

-- What was done, and what comes next.
local function completed(context, found)
  local result, message, code = object.read(context, found.id)
  if not result then return nil, message, code end
  context:say("request %d is completed: valid until %s, SHA-256 %s", found.id, result.not_after,
    result.fingerprint:sub(1, 16))
  for _, warning in ipairs(result.warnings) do context:warn("%s%s", text.escape(warning.message), cure(warning)) end
  context:next(wish.next_of(found), found.id)
  return result
end

-- Says which other requests wait for a certificate in the same answer.
local function mention(context, pile, found)
  local rows = matching.waiting(context.db, pile.certificates)
  for _, row in ipairs(rows or {}) do
    if row.id ~= found.id then
      context:say("request %d '%s' waits for another certificate in it: give complete-request %d the same --file",
        row.id, text.escape(row.friendly_name), row.id)
    end
  end
end

-- Brings the certificate to its request: the one that was named, or any.
local function complete(context, row, pile, pages)
  local leaf, found, code = matching.match(context.db, pile.certificates, row)
  if not leaf and pile.key and code == "mismatch" then
    found = found .. "\nit came with a key of its own: " .. invocation.suggest "import FILE" .. " takes in both"
  end
  if not leaf then return nil, found, code end
  local ok, message
  ok, message, code = flow.locked(context, found.id, function()
    return completion.complete(context, found, leaf, pile.certificates)
  end)
  if not ok then return nil, message, code end
  if context.dry_run then return plan(context, found, leaf) end
  if pages then pages.completed() end
  mention(context, pile, found)
  return completed(context, found)
end

-- The request that is named, if it can be completed, or was.
local function named(db, word, is_file_given)
  local row, message, code = object.find(db, word)
  if not row and is_file_given and theirs.stat(word) then
    message = message .. "; each file goes after a --file of its own"
  end
  if not row then return nil, message, code end
  if row.state == "completed" or flow.holds(completion.from, row.state) then return row end
  return nil, ("cannot complete %d: it was %s"):format(row.id, row.state), "mismatch"
end

local flags = {
  { "--file", "what the CA sent, in any form (repeat; - is standard input)", argument = "FILE", many = true },
  { "--password-file", "its first line is the password of a PKCS #12", argument = "FILE" },
}

return {
  summary = "complete a pending request with the CA's certificate",
  role = "operator",
  from = completion.from,
  to = "completed",
  options = {
    { "id", "the request; without it, it is found by its key", argument = "ID", optional = true },
    table.unpack(flags),
  },
  notes = [[
Without --file the request's CA is asked: exit status 3 while it has not
issued.  Without ID and --file it asks, on a terminal.  For example:
   certwright complete-request --file from-the-ca.pem]],
  text = object.text,

  run = function(args, context)
    local db, message, code = context:write()
    if not db then return nil, message, code end
    local row, pages
    if not args.id and #args.file == 0 and context.terminal then
      pages, message, code = require("pages.complete-request").run(context, flags, args)
      if not pages then return nil, message, code end
    end
    if args.id then
      row, message, code = named(db, args.id, #args.file > 0)
      if not row and code == "missing" and #args.file == 0 and not args.id:find "^%d+$" then
        message = message:gsub("^(.*); see ", "%1 (what a CA sent is given with --file); see ")
      end
      if not row then return nil, message, code end
      if row.state == "completed" and #args.file == 0 then return object.fields(context, row) end
    elseif #args.file == 0 then
      return nil, "complete-request needs an ID, or --file FILE", "usage"
    end
    local pile
    pile, message, code = (#args.file > 0 and from_files or from_ca)(args, context, row)
    if not pile then
      if code == "pending" then return object.fields(context, row), message, code end
      return nil, message, code
    end
    return complete(context, row, pile, pages)
  end,
}
