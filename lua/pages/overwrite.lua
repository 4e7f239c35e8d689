-- overwrite.lua: the page that asks *Overwrite the existing default SMTP
-- certificate?*

local sni = require "sni"
local text = require "text"
local wizard = require "wizard"

local M = {}

M.title = "Default SMTP Certificate"

M.help = "The default certificate is the one for clients that ask for no name, or for a name that no other "
  .. "certificate has.\nYes: the new one becomes the default.\nNo: the default stays; the new one is presented only "
  .. "to clients that ask for one of its names (SNI)."

local function describe(ui, label, certificate)
  local fields = certificate:fields()
  ui:say(("%s: %s"):format(label, text.label(fields)))
  ui:show("  SHA-256  " .. certificate:fingerprint())
  ui:show("  SHA-1    " .. certificate:fingerprint "sha1")
  ui:show("  Expires  " .. text.time(fields.not_after))
end

--- Shows both certificates and asks.
-- @param there the default certificate of a service; new the other one
-- @param default the answer, if Enter is not to mean yes
-- @return whether to overwrite it
function M.ask_with(ui, service, there, new, default)
  describe(ui, ("Default certificate of '%s'"):format(service.name), there)
  describe(ui, "New certificate", new)
  local yes = ui:yes { prompt = "Overwrite the existing default SMTP certificate?", default = default ~= false }
  if not yes then
    ui:say(("The default stays; the new one is for clients that ask for %s."):format(
      text.names(sni.names { fields = new:fields() })))
  end
  return yes
end

--- What deployment.assign takes to ask a person at a terminal.
function M.ask(context)
  return function(service, there, new)
    local answer
    local page = { title = M.title, help = M.help, run = function(_, ui)
      answer = M.ask_with(ui, service, there, new)
    end }
    local state, message, code = wizard.new(context:dialogue()):run({ page }, {})
    if not state then return nil, message, code end
    return answer
  end
end

return M
