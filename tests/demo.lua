-- The whole workflow on real servers: run by `make demo`.
--
-- An nginx, a Postfix and a Dovecot are started on free loopback ports in a
-- private folder, with certificates that certwright knows nothing of.  Then the
-- steps of the article, a replacement under load, and a deployment that one
-- service refuses.  Everything is stopped and removed at the end.

local here = arg[0]:match "^(.*)/[^/]*$" or "."
package.path = here .. "/support/?.lua;" .. package.path
local Lab = require "lab"

local failures = 0

local function title(text)
  io.write("\n== ", text, "\n")
end

-- Runs certwright as a user would, shows it, and checks its exit status.
local function run(lab, expected, ...)
  io.write("\n$ certwright ", table.concat({ ... }, " "), "\n")
  local result = lab:run(...)
  io.write(result.stderr, result.stdout)
  if result.status ~= expected then
    failures = failures + 1
    io.write(("!! exit status %s, expected %d\n"):format(result.status, expected))
  end
  return result
end

-- Asks openssl, the independent judge, what every endpoint presents.
local function judge(lab, endpoints, name, expected, what)
  for _, endpoint in ipairs(endpoints) do
    local seen, why = lab:presented(endpoint, name)
    local good = seen == expected
    if not good then failures = failures + 1 end
    io.write(("  openssl %s %s at %s: %s\n"):format(good and "observed" or "DID NOT SEE", what, endpoint,
      seen and seen:sub(1, 16) or why))
  end
end

local lab <close> = Lab.new { name = "demo" }
local host = "mail.contoso.com"
local names = { host, "www.contoso.com" }

title "Three real servers with certificates of their own"
local web = lab:nginx { names = names }
local smtp = lab:postfix { names = names }
local mail = lab:dovecot { names = names }
local function service(server, list)
  server.service.names = { external = list }
  return server.service
end
local imap, pop = service(mail, { host }), {}
for field, value in pairs(imap) do pop[field] = value end
imap.endpoints = { mail.endpoints[1], mail.endpoints[2] }
pop.endpoints = { mail.endpoints[3], mail.endpoints[4] }
lab:site {
  organization = { O = "Contoso", L = "Seattle", ST = "Washington", C = "US" }, ca = "internal",
  cas = { internal = { adapter = "local" } },
  services = { web = service(web, names), smtp = service(smtp, { host }), imap = imap, pop = pop },
}
local endpoints = {}
for _, server in ipairs { web, smtp, mail } do
  table.move(server.endpoints, 1, #server.endpoints, #endpoints + 1, endpoints)
end
for _, endpoint in ipairs(endpoints) do
  io.write(("  %s presents %s\n"):format(endpoint, lab:presented(endpoint, host):sub(1, 16)))
end

title "Create a certificate request"
run(lab, 0, "ca", "init")
run(lab, 0, "new-request", "--name", "Contoso mail", "--domain", names[1], "--domain", names[2], "--out",
  lab.path .. "/contoso.csr")

title "Submit the request to certificate authority"
run(lab, 0, "submit-request", "Contoso mail")

title "Import the certificate: Complete Pending Request"
run(lab, 0, "complete-request", "Contoso mail")

title "Assign Services to Certificate"
run(lab, 0, "assign-services", "Contoso mail", "--services", "web,smtp,imap,pop", "--overwrite")
judge(lab, endpoints, host, lab:json("show", "1").fingerprint, "the first certificate")

title "A second certificate replaces the first everywhere, while clients go on"
local stop, client_log = lab.path .. "/stop", lab.path .. "/client.log"
local program = assert(require("lfs").symlinkattributes("/proc/self/exe", "target"))
local client = assert(core.process.start({ program, here .. "/support/client.lua", stop, host,
  table.unpack(endpoints) }, { output = client_log }))
assert(lab:eventually(function() return core.file.stat(stop .. ".ready") end, 30), "the client did not start")
run(lab, 0, "enroll", "--from", "1", "--services", "web,smtp,imap,pop")
assert(core.file.write(stop, ""))
client:wait(60)
local told = core.file.read(client_log)
io.write("  clients in a loop meanwhile: ", told)
if not told:find ", 0 failed, 2 certificates seen" then failures = failures + 1 end
judge(lab, endpoints, host, lab:json("show", "2").fingerprint, "the second certificate")

title "A third one: nginx refuses, so nothing changes anywhere"
assert(core.file.write(web.folder .. "/conf.d/broken.conf", "no_such_directive on;\n"))
run(lab, 1, "enroll", "--from", "2", "--services", "smtp,imap,pop,web")
judge(lab, endpoints, host, lab:json("show", "2").fingerprint, "the second certificate again")
run(lab, 0, "list")

title(failures == 0 and "Done: every step as it should be" or failures .. " STEPS FAILED")
if failures > 0 then error(failures .. " steps of the demo failed", 0) end
