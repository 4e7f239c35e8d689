--- A desk: a lab without servers, for the specs of the workflow and the command
-- line. It runs certwright as users do, and judges each run: exit status, JSON,
-- error code and text, and that nothing secret was printed. The openssl command
-- line is the CA outside and the judge of requests, certificates and chains.
--
--     local desk <close> = Desk.new "list"
--     local object = desk:done("new-request", "--domain", "a.test")   -- exit 0
--     desk:waits("submit-request", "1")                               -- exit 3
--     desk:refuses(2, "usage", "--wildcard needs --root-domain", "new-request", "--wildcard")

local assert = require "luassert"
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local Lab = dofile(here .. "/lab.lua")
local file = require "core.file"
local process = require "core.process"
local sqlite = require "core.store"
local json = require "dkjson"
local lfs = require "lfs"

local Desk = {}
Desk.__index = Desk

--- The certwright that runs this, and the folder of its lua/ and scripts/.
Desk.program = assert(lfs.symlinkattributes("/proc/self/exe", "target"))
Desk.home = package.searchpath("cli", package.path):match "^(.*)/lua/cli%.lua$"

function Desk.new(name)
  local lab = Lab.new { name = name }
  return setmetatable({ lab = lab, path = lab.path, site = lab.site_path, state = lab.state_path }, Desk)
end

--- Writes a file below the desk's folder, its folders made; returns its path.
function Desk:write(name, text, mode)
  local path = self.path .. "/" .. name
  assert(file.mkdirs(path:match "^(.*)/", tonumber("755", 8)))
  assert(file.write(path, text, { mode = tonumber(mode or "644", 8), exclusive = false }))
  return path
end

function Desk.read(_, path)
  local stream = assert(io.open(path, "rb"))
  local bytes = stream:read "a"
  stream:close()
  return bytes
end

--- "0600", the mode of a file or folder.
function Desk.mode(_, path)
  return ("%04o"):format(assert(file.stat(path)).mode)
end

-- The lines of base64 of every private key that there is.
local function secrets(self)
  local lines = {}
  for _, folder in ipairs { self.state .. "/keys", self.state .. "/ca" } do
    if lfs.attributes(folder, "mode") == "directory" then
      for name in lfs.dir(folder) do
        local path = folder .. "/" .. name
        local text = name ~= "." and name ~= ".." and lfs.attributes(path, "mode") == "file" and self:read(path) or ""
        for body in text:gmatch "PRIVATE KEY%-%-%-%-%-\n(.-)%-%-%-%-%-END" do
          for line in body:gmatch "[^\n]+" do
            lines[#lines + 1] = #line > 15 and line or nil
          end
        end
      end
    end
  end
  return lines
end

local function judge(self, result)
  local printed = result.stdout .. result.stderr
  assert.is_nil(printed:find("PRIVATE KEY", 1, true), "a private key was printed")
  for _, line in ipairs(secrets(self)) do
    assert.is_nil(printed:find(line, 1, true), "a line of a private key was printed")
  end
  assert.is_nil(result.stderr:find "[\27\r]", "escapes or carriage returns without a terminal")
  return result
end

--- Runs certwright with the desk's site and state; see Lab:run.
function Desk:run(...)
  return judge(self, self.lab:run(...))
end

-- The one JSON value on standard output.
local function decode(text)
  local value, after = json.decode(text, 1, json.null)
  assert.is_truthy(value, "no JSON: " .. text)
  assert.is_nil(text:find("%S", after), "more than one JSON value: " .. text)
  return value
end

local function run_json(self, expected, ...)
  local result = self:run("--json", ...)
  assert.equal(expected, result.status, ("exit status of %s: %s"):format(table.concat({ ... }, " ", 1,
    select("#", ...) - (type(select(-1, ...)) == "table" and 1 or 0)), result.stderr))
  return decode(result.stdout), result
end

--- Runs it with --json, which has to succeed: the value, and the result.
function Desk:done(...)
  return run_json(self, 0, ...)
end

--- The same, which has to say "not yet": exit 3, with the object on standard output.
function Desk:waits(...)
  return run_json(self, 3, ...)
end

--- A text with what differs from run to run as words: STATE, SITE, LAB, HOME, TIME, HEX.
function Desk:shown(text)
  local words = { { self.state, "STATE" }, { self.site, "SITE" }, { self.path, "LAB" }, { self.home, "HOME" } }
  for _, pair in ipairs(words) do
    text = text:gsub(pair[1]:gsub("%p", "%%%0"), pair[2])
  end
  text = text:gsub("%d+%-%d%d%-%d%dT%d%d:%d%d:%d%dZ", "TIME")
  return (text:gsub("%f[%x]" .. ("%x"):rep(16) .. "%x*%f[%X]", "HEX"))
end

--- Runs it with --json, which has to fail with this exit status, code and message
-- (as `shown`): one JSON error on standard output, the message on standard error.
function Desk:refuses(status, code, message, ...)
  local value, result = run_json(self, status, ...)
  assert.same({ code = code, message = message },
    { code = value.error and value.error.code, message = value.error and self:shown(value.error.message) })
  assert.is_nil(next(value, next(value)), "more than an error in the JSON")
  assert.equal("certwright: " .. message .. "\n", self:shown(result.stderr):sub(-#message - 13))
  return result
end

--- Runs the openssl command line, which has to succeed; an argument that is a
-- table is the options of core.process.run. Returns its standard output.
function Desk.openssl(_, ...)
  local argv, options = { "openssl", ... }, nil
  if type(argv[#argv]) == "table" then
    options = table.remove(argv)
  end
  local result = assert(process.run(argv, options))
  assert.equal(0, result.status, ("%s: %s"):format(table.concat(argv, " "), result.stderr))
  return result.stdout, result.stderr
end

-- What openssl's -text says: subject (RFC 2253), names in their order, key, usages.
local function describe(text)
  local names = text:match "Subject Alternative Name: ?c?r?i?t?i?c?a?l?\n%s*([^\n]*)" or ""
  local list = {}
  for name in names:gmatch "[^,]+" do
    list[#list + 1] = name:match "^%s*(.-)%s*$"
  end
  local curve = text:match "ASN1 OID: (%S+)"
  local bits = text:match "Public%-Key: %((%d+) bit%)"
  return {
    subject = text:match "Subject: ([^\n]*)", names = list, text = text,
    key = curve or text:find "ED25519" and "ED25519" or "RSA " .. tostring(bits),
    key_usage = text:match "X509v3 Key Usage: critical\n%s*([^\n]*)",
    extended_key_usage = text:match "X509v3 Extended Key Usage: \n%s*([^\n]*)",
    basic_constraints = text:match "X509v3 Basic Constraints: ?c?r?i?t?i?c?a?l?\n%s*([^\n]*)",
  }
end

--- What a request asks for, in openssl's words, when its signature is good.
function Desk:request(bytes, form)
  local text, said = self:openssl("req", "-verify", "-noout", "-text", "-nameopt", "RFC2253,-esc_msb,utf8",
    "-inform", form or "PEM", { stdin = bytes })
  assert.is_truthy((said .. text):find "verify OK")
  return describe(text)
end

--- What a certificate says, in openssl's words.
function Desk:certificate(pem)
  return describe((self:openssl("x509", "-noout", "-text", "-nameopt", "RFC2253,-esc_msb,utf8", { stdin = pem })))
end

--- The certificate of a completed object and what goes with it, as they are kept.
function Desk:kept(id)
  local store = assert(require("core.store").open(self.state .. "/store.db", { readonly = true }))
  local row = assert(store:rows("SELECT certificate, chain FROM objects WHERE id = ?1", math.tointeger(id)))[1]
  store:close()
  return row.certificate, row.chain
end

--- Whether openssl verifies what is kept of an object up to a root: strictly, for a
-- server, for this name. Returns true, or what it said.
function Desk:verifies(id, root, name)
  local certificate, chain = self:kept(id)
  local leaf, others = self:write("verify/leaf.pem", certificate), self:write("verify/chain.pem", chain)
  local result = assert(process.run { "openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname",
    name, "-CAfile", root, "-untrusted", others, leaf })
  return result.status == 0 or result.stdout .. result.stderr
end

--- The SHA-256 of a certificate or of the public key of a request, in hex.
function Desk:digest(kind, pem)
  local der
  if kind == "certificate" then
    der = self:openssl("x509", "-outform", "DER", { stdin = pem })
  else
    local public = self:openssl("req", "-pubkey", "-noout", { stdin = pem })
    der = self:openssl("pkey", "-pubin", "-outform", "DER", { stdin = public })
  end
  return (self:openssl("dgst", "-sha256", "-r", { stdin = der }):match "^%x+")
end

--- The CA outside, below a root of its own: a folder as Lab:authority makes it.
function Desk:outside()
  if not self.authority then
    self.root = self.lab:authority { name = "Outside root" }
    self.authority = self.lab:authority { name = "Outside issuing", ca = self.root }
  end
  return self.authority
end

local signing = [[
[ca]
default_ca = outside
[outside]
database = %s/index
new_certs_dir = %s
rand_serial = yes
default_md = %s
policy = any
unique_subject = no
copy_extensions = %s
x509_extensions = extensions
preserve = yes
[any]
countryName = optional
stateOrProvinceName = optional
localityName = optional
organizationName = optional
organizationalUnitName = optional
commonName = optional
[extensions]
basicConstraints = critical, CA:%s
authorityKeyIdentifier = keyid
%s
]]

--- What the CA outside makes of a request file: the path of the certificate.
-- @param options { from =, to = days from now (-1, 90), is_ca = true, names = other
--   names than were asked for, extensions = lines of openssl's configuration,
--   digest = "sha1", ca = the folder of another CA, arguments = more for openssl ca }
function Desk:sign(request, options)
  options = options or {}
  local ca, folder = options.ca or self:outside(), self.lab:folder "signed"
  local extensions = options.extensions or ""
  if options.names then
    extensions = extensions .. "\nsubjectAltName = DNS:" .. table.concat(options.names, ", DNS:")
  end
  local config = folder .. "/ca.cnf"
  assert(file.write(folder .. "/index", ""))
  assert(file.write(config, signing:format(folder, folder, options.digest or "sha256", (options.names or options.extensions) and "none" or "copy",
    options.is_ca and "true" or "false", extensions)))
  local function date(days)
    return os.date("!%Y%m%d%H%M%SZ", os.time() + math.floor(days * 86400))
  end
  self:openssl("ca", "-batch", "-notext", "-config", config, "-in", request, "-out", folder .. "/cert.pem",
    "-keyfile", ca .. "/key.pem", "-cert", ca .. "/cert.pem", "-startdate", date(options.from or -1),
    "-enddate", date(options.to or 90), table.unpack(options.arguments or {}))
  return folder .. "/cert.pem"
end

--- Makes a request; its id as text, the object, and the path of its file.
function Desk:ask(...)
  local object = self:done("new-request", ...)
  return tostring(object.id), object, object.request_file
end

--- Starts certwright and does not wait: a function that waits, and returns its exit
-- status and what it printed.
function Desk:start(...)
  self.started = (self.started or 0) + 1
  local path = ("%s/output%d"):format(self.path, self.started)
  local child = assert(process.start({ self.program, "--site", self.site, "--state", self.state, ... },
    { output = path }))
  return function()
    local status = assert(child:wait(60)).status
    local text = self.lab:plain(self:read(path))
    assert.is_nil(text:find("PRIVATE KEY", 1, true), "a private key was printed")
    os.remove(path)
    return status, text
  end
end

--- A copy of the program that any user may run, wherever the tree is: its path.
function Desk:installed()
  local copy = self.path .. "/installed"
  if not lfs.attributes(copy) then
    for _, argv in ipairs { { "mkdir", copy }, { "cp", "-R", self.home .. "/lua", self.home .. "/scripts", copy },
      { "cp", self.program, copy .. "/certwright" },
      { "sh", "-c", 'cd "$1" && cp -R --parents $(ls -d build/modules build/*/modules 2>/dev/null) "$2"', "sh", self.home,
        copy }, { "chmod", "-R", "u=rwX,go=rX", copy },
      { "chmod", "755", copy .. "/certwright" } } do
      assert.equal(0, process.run(argv).status)
    end
  end
  return copy .. "/certwright"
end

-- What a store holds, but for the last line of the audit record.
local function rows_of(path)
  local db <close> = assert(sqlite.open(path))
  local lines = {}
  for _, entry in ipairs(assert(db:rows "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")) do
    for _, row in ipairs(entry.name == "audit" and {} or assert(db:rows(("SELECT * FROM %s"):format(entry.name)))) do
      local cells = {}
      for column, value in pairs(row) do cells[#cells + 1] = ("%s=%s"):format(column, value) end
      table.sort(cells)
      lines[#lines + 1] = entry.name .. " " .. table.concat(cells, " ")
    end
  end
  return table.concat(lines, "\n")
end

--- Every file and folder below the state folder with what it holds, as one text:
-- what a command that changes nothing leaves as it was. (What SQLite keeps beside
-- the store comes and goes; the audit record tells of refused commands, too.)
function Desk:snapshot()
  local lines = {}
  local function walk(path)
    for name in lfs.dir(path) do
      local inner = path .. "/" .. name
      if name == "store.db" then
        lines[#lines + 1] = inner .. " " .. rows_of(inner)
      elseif name ~= "." and name ~= ".." and name ~= "audit.jsonl" and not name:find "^store%.db%-" then
        local status = assert(lfs.symlinkattributes(inner))
        lines[#lines + 1] = ("%s %s %s"):format(inner, status.mode, status.mode == "file" and self:read(inner) or "")
        if status.mode == "directory" then
          walk(inner)
        end
      end
    end
  end
  if lfs.attributes(self.state, "mode") then
    walk(self.state)
  end
  table.sort(lines)
  return table.concat(lines, "\n")
end

--- Forgets all objects, and what the site says.
function Desk:clear()
  assert.equal(0, process.run({ "rm", "-rf", "--", self.state, self.site }).status)
  assert(file.mkdirs(self.site, tonumber("755", 8)))
end

function Desk:close()
  self.lab:close()
end

Desk.__close = Desk.close

return Desk
