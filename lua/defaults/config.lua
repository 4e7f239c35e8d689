-- The values a site starts from.  Copy this file to the site folder
-- (/etc/certwright/config.lua) and say there what is different; what a site
-- does not say stays as it is here.
return {
  -- Subject of new requests: O, OU, L, ST, C.
  organization = {},
  -- Key of new requests: rsa:2048, rsa:3072, rsa:4096, ec:P-256, ec:P-384, ed25519.
  key = "ec:P-256",
  -- The CA to submit to, one of `cas`.  Unset: the local one if `certwright ca
  -- init` has made it, else `manual`.
  ca = nil,
  -- Where the revocation list of a local CA is published (certwright ca crl):
  -- cas = { ["local"] = { adapter = "local", crl_url = "http://pki.contoso.com/local.crl" } }
  cas = {
    ["local"] = { adapter = "local" },
    manual = { adapter = "manual" },
  },
  -- Roots to trust, as files, beside the system's and the local CA's.
  anchors = {},
  -- Domains that mail is accepted for (--include-accepted-domains).
  accepted_domains = {},
  -- The HTTP proxy to CAs, and hosts to reach without it (those of the environment
  -- mean nothing): "http://proxy.contoso.com:3128", { "corp.contoso.com" }.
  proxy = nil,
  no_proxy = {},
  -- Days that a self-signed certificate is valid.
  self_signed_days = 365,
  -- Services by name: { driver =, dir =, names =, endpoints =, ... }.
  services = {},
}
