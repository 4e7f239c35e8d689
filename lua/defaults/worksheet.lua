-- The worksheet that a site starts from: a row for each way by which clients
-- reach its services, with the names that they use.  new-request asks about each
-- row on a terminal.  A site's own worksheet.lua returns rows as well: one with
-- the `row` of a row here takes its place, the others come after these.
--
--   row        what the row is called in these files
--   label      what it is called on the page
--   services   propose the names of these services, as config.lua and the
--              services' own configuration have them
--   hosts      of those names, the ones that begin with one of these labels, if
--              any does: "mail" takes mail.contoso.com
--   prefix     propose this label before each accepted domain
--   suggest    propose this label before the root domain, in a site that has no
--              services yet
--   internal, external   names to propose, a text or a list
--   use        false: the names are shown, but not used unless somebody says so
--   hidden     true: no such row
local web = { "web" }

return {
  { row = "owa", label = "Outlook Web App", services = web, hosts = { "owa", "webmail", "mail" }, suggest = "mail" },
  { row = "oab", label = "Offline address book", services = web, hosts = { "oab", "mail", "owa" } },
  { row = "ews", label = "Web services", services = web, hosts = { "ews", "mail", "owa" } },
  { row = "activesync", label = "ActiveSync", services = web, hosts = { "activesync", "eas", "mail", "owa" } },
  { row = "autodiscover", label = "Autodiscover", prefix = "autodiscover" },
  { row = "anywhere", label = "Outlook Anywhere", services = web, hosts = { "anywhere", "mail", "owa" } },
  { row = "pop", label = "POP", services = { "pop", "pop3" }, suggest = "mail" },
  { row = "imap", label = "IMAP", services = { "imap" }, suggest = "mail" },
  { row = "sip", label = "Unified Messaging/SIP", services = { "sip" } },
  { row = "smtp", label = "Hub Transport/SMTP", services = { "smtp", "submission" }, suggest = "mail" },
  { row = "legacy", label = "Legacy host", prefix = "legacy", use = false },
  { row = "federation", label = "Federated sharing", use = false },
  { row = "autoconfig", label = "Autoconfig", prefix = "autoconfig" },
  { row = "mta-sts", label = "MTA-STS policy", prefix = "mta-sts" },
}
