-- show: everything that is known of one request or certificate.

local certificates = require "certificates"
local json = require "json"
local object = require "object"
local text = require "text"

return {
  summary = "show one request or certificate",
  role = "auditor",
  options = {
    { "cert", "id, friendly name, or 6 or more hex digits of a fingerprint", argument = "CERT" },
  },

  text = function(fields)
    local lines = { object.text(fields), "", "History" }
    for _, entry in ipairs(fields.history) do
      local detail = entry.detail ~= json.null and ": " .. text.escape(entry.detail) or ""
      lines[#lines + 1] = ("  %s  %s  %s%s"):format(entry.at, text.escape(entry.who), entry.event, detail)
    end
    return table.concat(lines, "\n")
  end,

  run = function(args, context)
    local db, message, code = context:read()
    if not db then return nil, message, code end
    local row
    row, message, code = object.find(db, args.cert)
    if not row then return nil, message, code end
    local fields
    fields, message, code = object.fields(context, row)
    if not fields then return nil, message, code end
    local history
    history, message, code = certificates.history(db, row.id)
    if not history then return nil, message, code end
    for _, entry in ipairs(history) do
      entry.at, entry.detail = text.time(entry.at), entry.detail or json.null
      json.object(entry, { "at", "who", "event", "detail" })
    end
    fields.history = json.array(history)
    require("recovery").mention(context)
    return fields
  end,
}
