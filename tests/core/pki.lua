--- Certification authorities made by the openssl command line, for the specs:
-- it is the independent judge of what core.cert reads, builds and refuses.
-- Everything lies in one private folder, which pki:close() removes.

local cert = require "core.cert"

local M = {}
M.__index = M

local CONFIG = [[
[ca]
default_ca = d
[d]
database = DIR/NAME.index
serial = DIR/NAME.serial
crlnumber = DIR/NAME.crlnumber
new_certs_dir = DIR
certificate = DIR/NAME.pem
private_key = DIR/NAME.key
default_md = sha256
default_days = 90
default_crl_days = 30
policy = p
unique_subject = no
email_in_dn = yes
[p]
countryName = optional
organizationName = optional
commonName = optional
[req]
distinguished_name = n
prompt = no
[n]
]]

local EXTENSIONS = {
  ca = [[
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
]],
  server = [[
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
]],
}

local ALGORITHMS = {
  ["ec:P-256"] = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
  ["ec:P-384"] = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
  ["rsa:1024"] = "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
  ["rsa:2048"] = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
  ["ed25519"] = "-algorithm ED25519",
  ["ed448"] = "-algorithm ED448",
}

function M.new()
  local dir = os.tmpname()
  os.remove(dir)
  assert(os.execute("mkdir -m 0700 " .. dir))
  return setmetatable({ dir = dir }, M)
end

function M:close()
  os.execute("rm -rf " .. self.dir)
end

M.__close = M.close

function M:path(name)
  return self.dir .. "/" .. name
end

function M:read(name)
  local file <close> = assert(io.open(self:path(name), "rb"))
  return file:read("a")
end

function M:write(name, text)
  local file <close> = assert(io.open(self:path(name), "wb"))
  file:write(text)
end

--- Runs a shell command in the folder; returns what it printed.
function M:run(command, ...)
  command = command:format(...)
  local pipe = io.popen(("cd %s && { %s ; } 2>&1 </dev/null"):format(self.dir, command))
  local output = pipe:read("a")
  local ok = pipe:close()
  return ok and output or error(command .. "\n" .. output, 2)
end

function M:key(name, algorithm)
  self:run("openssl genpkey %s -out %s.key", ALGORITHMS[algorithm or "ec:P-256"], name)
end

--- Prepares name, which has a key and a certificate, for issuing.
function M:authority(name)
  self:write(name .. ".conf", (CONFIG:gsub("DIR", self.dir):gsub("NAME", name)))
  self:write(name .. ".index", "")
  self:write(name .. ".serial", "1000\n")
  self:write(name .. ".crlnumber", "01\n")
end

--- A self-signed certificate.  options: key, subject, extensions, days, digest.
function M:root(name, options)
  options = options or {}
  self:key(name, options.key)
  self:authority(name)
  self:write(name .. ".ext", CONFIG .. "[x]\n" .. (options.extensions or EXTENSIONS.ca))
  self:run("openssl req -x509 -new -config %s.ext -key %s.key -%s -subj '%s' -days %d -extensions x -out %s.pem",
    name, name, options.digest or "sha256", options.subject or "/CN=" .. name, options.days or 3650, name)
end

--- A certificate from an authority.  options: key, subject, kind ("server" or
-- "ca"), extensions (more lines), only (all lines), from, to (YYYYMMDDHHMMSSZ),
-- digest.
function M:issue(issuer, name, options)
  options = options or {}
  self:key(name, options.key)
  self:write(name .. ".ext", options.only or EXTENSIONS[options.kind or "server"] .. (options.extensions or ""))
  self:run("openssl req -new -config %s.conf -key %s.key -subj '%s' -out %s.csr",
    issuer, name, options.subject or "/CN=" .. name, name)
  self:run("openssl ca -batch -notext -config %s.conf -in %s.csr -out %s.pem -extfile %s.ext -md %s %s %s %s",
    issuer, name, name, name, options.digest or "default",
    options.kind == "ca" and "-days 3650" or "", options.from and "-startdate " .. options.from or "", options.to and "-enddate " .. options.to or "")
  if options.kind == "ca" then self:authority(name) end
end

function M:revoke(issuer, name)
  self:run("openssl ca -config %s.conf -revoke %s.pem", issuer, name)
end

--- The revocation list of an authority, as PEM.
function M:crl(issuer, options)
  self:run("openssl ca -config %s.conf -gencrl %s -out %s.crl", issuer, options or "", issuer)
  return self:read(issuer .. ".crl")
end

--- The certificates in NAME.pem of each name, in order.
function M:certificates(...)
  local list = {}
  for _, name in ipairs { ... } do
    for _, certificate in ipairs(assert(cert.parse(self:read(name .. ".pem")))) do
      list[#list + 1] = certificate
    end
  end
  return list
end

return M
