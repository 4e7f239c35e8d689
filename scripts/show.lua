-- show: everything that is known of one request or certificate.

local certificates = require "certificates"
local json = require "json"
local object = require "object"
local particulars = require "particulars"
local text = require "text"

-- Two paths through `current` can be read as a torn pair around a switch.
local function warn_of_two_paths(context, fields)
  local site = context:site()
  for _, name in ipairs(site and fields.services or {}) do
    local service = site:service(name)
    local settings = service and service.how.settings(service)
    if settings and settings.way == "two paths" then
      table.insert(fields.warnings, { code = "mismatch", message = ("'%s' reads its certificate and its key by two "
        .. "paths through %s/current/, which a switch between them tears; better: %s"):format(name, service.dir,
        settings.lines[1]) })
    end
  end
end

return {
  summary = "show one request or certificate",
  role = "auditor",
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint", argument = "CERT" },
    { "--revocation", "ask its CA, by OCSP and its revocation list, whether it is revoked" },
  },
  notes = [[
With --revocation OCSP is asked, then revocation lists, then what services
staple: for 10 seconds at most; answers are kept until they expire.  A
revocation is remembered, a failure to find out is not; the exit status is 0.]],

  text = function(fields, context)
    local lines = { object.text(fields, context), table.unpack(particulars.lines(fields, context.columns)) }
    lines[#lines + 1] = "\nHistory"
    for _, entry in ipairs(fields.history) do
      local detail = entry.detail ~= json.null and ": " .. text.escape(entry.detail) or ""
      lines[#lines + 1] = text.wrap(("  %s  %s  %s%s"):format(entry.at, text.escape(entry.who), entry.event, detail),
        context.columns, 4)
    end
    return table.concat(lines, "\n")
  end,

  run = function(args, context)
    local db, message, code = context:read()
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.cert)
    if not row then return nil, message, code end
    local ok, fields = true, nil
    if args.revocation and row.certificate then
      ok, message, code = require("revocation").check(require("answers").session(context), row)
    end
    if ok then fields, message, code = object.fields(context, row) end
    if fields then ok, message, code = particulars.add(context, row, fields) end
    if not ok or not fields then return nil, message, code end
    local history
    history, message, code = certificates.history(db, row.id)
    if not history then return nil, message, code end
    for _, entry in ipairs(history) do
      entry.at, entry.detail = text.time(entry.at), entry.detail or json.null
      json.object(entry, { "at", "who", "event", "detail" })
    end
    fields.history = json.array(history)
    warn_of_two_paths(context, fields)
    require("assignments").mention(context)
    return fields
  end,
}
