--- What the specs of deployments share: labs with servers behind services,
-- certificates for them, and what openssl and the file system, who know nothing
-- of the program, say of it all.

local file = require "core.file"
local generation = require "core.generation"
local process = require "core.process"
local Lab = require "lab"

local M = {}

M.name = "mail.lab.test"

-- Runs a tool that has to succeed.
local function tool(argv, options)
  local result = assert(process.run(argv, options))
  if result.status ~= 0 then
    error(("%s: exit status %s: %s"):format(table.concat(argv, " "), result.status, result.stderr), 2)
  end
  return result.stdout
end
M.tool = tool

--- Writes a file, over one that is there.
function M.write(path, text, mode)
  assert(file.write(path, text, { exclusive = false, mode = mode and tonumber(mode, 8) }))
  return path
end

--- A copy of a service's table with other fields; false takes one away.
function M.with(service, fields)
  local copy = {}
  for field, value in pairs(service) do copy[field] = value end
  for field, value in pairs(fields) do copy[field] = value or nil end
  return copy
end

--- A lab with a site that names these services, and a local CA.
-- @param start function(lab) -> table of services
function M.lab(start)
  local lab = Lab.new { name = "deploy" }
  local ok, services = xpcall(start, debug.traceback, lab)
  if not ok then
    lab:close()
    error(services, 0)
  end
  M.site(lab, services)
  local made = lab:run("ca", "init")
  assert(made.status == 0, made.stderr)
  return lab
end

--- Writes the site of a lab: these services.
function M.site(lab, services)
  lab.services = services
  lab:site { ca = "internal", cas = { internal = { adapter = "local" }, paper = { adapter = "manual" } },
    services = services }
end

--- Writes the site again with other fields of one service, for as long as the
-- value returned is not closed.
function M.change(lab, name, fields)
  local before = lab.services
  local changed = M.with(before, { [name] = M.with(before[name], fields) })
  M.site(lab, changed)
  return setmetatable({}, { __close = function() M.site(lab, before) end })
end

--- nginx, Postfix and Dovecot as the services web, smtp and imap.
function M.three(options)
  options = options or {}
  return M.lab(function(lab)
    options.names = options.names or { M.name }
    lab.web, lab.smtp = lab:nginx(options.web or options), lab:postfix(options.smtp or options)
    lab.mail = lab:dovecot(options.mail or { names = options.names, protocols = { "imap" } })
    lab.endpoints = {}
    for _, server in ipairs { lab.web, lab.smtp, lab.mail } do
      table.move(server.endpoints, 1, #server.endpoints, #lab.endpoints + 1, lab.endpoints)
    end
    return { web = lab.web.service, smtp = lab.smtp.service, imap = lab.mail.service }
  end)
end

--- A completed certificate of the local CA for these names.
-- @return its id as text, its fingerprint
function M.issue(lab, names, ...)
  local argv = { "enroll", ... }
  for _, name in ipairs(names or { M.name }) do table.move({ "--domain", name }, 1, 2, #argv + 1, argv) end
  local object, result = lab:json(table.unpack(argv))
  assert(result.status == 0, result.stderr)
  return tostring(math.tointeger(object.id)), object.fingerprint
end

--- Runs assign-services.
function M.assign(lab, id, services, ...)
  return lab:run("assign-services", id, "--services", services, ...)
end

local NOTHING = tool({ "sha256sum" }, { stdin = "" }):match "^%x+"
local STARTTLS = { smtp = "smtp", imap = "imap", pop3 = "pop3" }

--- What openssl sees at endpoints, all at once: an array of SHA-256 fingerprints,
-- "" where it sees no certificate.
function M.presented(lab, endpoints, name)
  local folder = lab:folder "seen"
  local lines = {}
  for i, endpoint in ipairs(endpoints) do
    local scheme, address = endpoint:match "^(%w+)://(.*)$"
    lines[i] = ("timeout 20 openssl s_client -connect '%s' %s %s </dev/null 2>/dev/null | sed -n "
      .. "'/BEGIN CERT/,/END CERT/{/CERT/!p}' | base64 -d | sha256sum >%s/%d &"):format(address, name
      and "-servername " .. name or "-noservername", STARTTLS[scheme] and "-starttls " .. STARTTLS[scheme] or "", folder,
      i)
  end
  lines[#lines + 1] = "wait"
  tool({ "sh", "-c", table.concat(lines, "\n") })
  local seen = {}
  for i in ipairs(endpoints) do
    local hash = file.read(("%s/%d"):format(folder, i)):match "^%x+"
    seen[i] = hash == NOTHING and "" or hash
  end
  return seen
end

--- As many of one value as there are endpoints, to compare with what is presented.
function M.all(endpoints, fingerprint)
  local list = {}
  for i in ipairs(endpoints) do list[i] = fingerprint end
  return list
end

--- What the folder of a service holds: its names, sorted, and its `current`.
function M.contents(dir)
  local names = {}
  for name in tool({ "ls", "-A1", dir }):gmatch "[^\n]+" do names[#names + 1] = name end
  return { names = names, current = generation.current(dir, "current") or false }
end

local PAIR = [[
cd "$1" || exit 1
leaf=$(openssl x509 -noout -fingerprint -sha256 -pubkey -in fullchain.pem) &&
key=$(openssl pkey -pubout -in privkey.pem) && [ -n "$key" ] &&
cat cert.pem chain.pem | cmp - fullchain.pem && cat privkey.pem fullchain.pem | cmp - combined.pem &&
case $leaf in *"$key"*) echo "$leaf" ;; *) echo "the key is another one"; exit 1 ;; esac
]]

--- The fingerprint of the certificate in <dir>/current, all of whose files belong
-- together, or nil and why they do not.
function M.pair(dir)
  local result = assert(process.run { "sh", "-c", PAIR, "sh", dir .. "/current" })
  if result.status ~= 0 then return nil, "torn: " .. result.stdout .. result.stderr end
  return (result.stdout:match "Fingerprint=(%S+)":gsub(":", ""):lower())
end

--- The assignments of an object, as show has them: each as
-- "service endpoint name state desired".
function M.states(lab, id)
  local object = lab:json("show", id)
  local list = {}
  for i, row in ipairs(object.assignments) do list[i] = row.service .. " " .. row.state end
  return list, object.assignments
end

local SIGN = [[
[ca]
default_ca = lab
[lab]
database = %s/index
new_certs_dir = %s
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
x509_extensions = extensions
[any]
CN = supplied
[extensions]
%s
]]

--- Signs a request of the program by openssl.
-- @param options { ca = an authority's folder, names =, from, to = days from now,
--   extensions = lines in place of a server's }
-- @return the certificate as PEM
function M.sign(lab, id, options)
  local folder = lab:folder "signed"
  local names = {}
  for i, name in ipairs(options.names or { M.name }) do names[i] = "DNS:" .. name end
  local extensions = (options.extensions or "basicConstraints = critical, CA:false\nextendedKeyUsage = serverAuth")
    .. "\nsubjectAltName = " .. table.concat(names, ", ")
  M.write(folder .. "/index", "")
  M.write(folder .. "/ca.cnf", SIGN:format(folder, folder, extensions))
  local function date(days) return os.date("!%Y%m%d%H%M%SZ", os.time() + math.floor(days * 86400)) end
  tool { "openssl", "ca", "-batch", "-notext", "-config", folder .. "/ca.cnf", "-in",
    ("%s/requests/%s.csr"):format(lab.state_path, id), "-out", folder .. "/cert.pem", "-keyfile",
    options.ca .. "/key.pem", "-cert", options.ca .. "/cert.pem", "-startdate", date(options.from or -1), "-enddate",
    date(options.to or 90) }
  return file.read(folder .. "/cert.pem")
end

--- Runs SQL on the lab's store: what no command of the program would do.
function M.sql(lab, ...)
  local store = require "core.store"
  local db <close> = assert(store.open(lab.state_path .. "/store.db"))
  return assert(db:rows(...))
end

return M
