-- The workflow: four steps, in this order.  `certwright enroll` runs them all;
-- each is a script of its own beside this file.  A site that needs another
-- step (an approval, a ticket) copies this file to its scripts/ and adds it.
return {
  "new-request",      -- key and request: created
  "submit-request",   -- to the CA: submitted
  "complete-request", -- the CA's certificate: completed
  "assign-services",  -- on every service, observed
}
