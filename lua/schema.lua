-- schema.lua: every table of the store, and the migrations that made them.
--
-- A migration is a list of statements; it runs once, in one transaction, and
-- PRAGMA user_version counts how many have run.  Never change one that has
-- been released: add another.

local host = require "core.host"

local M = {}

local WAIT = 5 -- seconds for another process that makes the same store

M.migrations = {
  {
    -- A request and the certificate that completes it are one row.  What
    -- `list` shows and filters by stands in columns, so that no certificate
    -- is read for it.
    [[CREATE TABLE objects (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      state TEXT NOT NULL
        CHECK (state IN ('created','submitted','completed','rejected','cancelled')),
      friendly_name TEXT NOT NULL,
      subject TEXT NOT NULL,
      common_name TEXT,
      key TEXT NOT NULL,
      public_key TEXT NOT NULL,
      has_private_key INTEGER NOT NULL DEFAULT 1,
      exportable INTEGER NOT NULL DEFAULT 0,
      self_signed INTEGER NOT NULL DEFAULT 0,
      ca TEXT, ticket TEXT, wish TEXT,
      replaces INTEGER,
      certificate TEXT, chain TEXT,
      fingerprint TEXT, thumbprint TEXT, serial TEXT, issuer TEXT,
      not_before INTEGER, not_after INTEGER, renew_at INTEGER,
      untrusted TEXT, revoked_at INTEGER,
      warnings TEXT NOT NULL DEFAULT '[]',
      created_at INTEGER NOT NULL)]],
    "CREATE INDEX objects_friendly_name ON objects (friendly_name)",
    "CREATE INDEX objects_public_key ON objects (public_key)",
    "CREATE INDEX objects_fingerprint ON objects (fingerprint)",
    "CREATE INDEX objects_thumbprint ON objects (thumbprint)",
    "CREATE INDEX objects_not_after ON objects (not_after)",
    [[CREATE TABLE names (
      object_id INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
      position INTEGER NOT NULL,
      name TEXT NOT NULL,
      PRIMARY KEY (object_id, position)) WITHOUT ROWID]],
    "CREATE INDEX names_name ON names (name)",
    [[CREATE TABLE assignments (
      object_id INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
      service TEXT NOT NULL,
      endpoint TEXT NOT NULL DEFAULT '',
      address TEXT NOT NULL DEFAULT '',
      name TEXT NOT NULL DEFAULT '',
      server TEXT NOT NULL,
      desired TEXT NOT NULL,
      written TEXT,
      observed TEXT,
      observed_at INTEGER,
      error TEXT,
      state TEXT NOT NULL CHECK (state IN
        ('written','observed','differs','unreachable','failed','replaced')),
      PRIMARY KEY (object_id, service, endpoint, address, name)) WITHOUT ROWID]],
    "CREATE INDEX assignments_service ON assignments (service)",
    -- The journal of deployments: one row each, its stage written before
    -- the stage is entered.  An unfinished row was cut short.
    [[CREATE TABLE deployments (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      object_id INTEGER NOT NULL,
      fingerprint TEXT NOT NULL,
      plan TEXT NOT NULL,
      stage TEXT NOT NULL,
      started_at INTEGER NOT NULL,
      finished_at INTEGER,
      outcome TEXT,
      message TEXT)]],
    "CREATE INDEX deployments_open ON deployments (id) WHERE finished_at IS NULL",
    -- What `adopt` changed in a service's configuration, for `--undo`.
    [[CREATE TABLE adoptions (
      service TEXT PRIMARY KEY,
      record TEXT NOT NULL,
      adopted_at INTEGER NOT NULL)]],
    [[CREATE TABLE history (
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      object_id INTEGER NOT NULL,
      at INTEGER NOT NULL,
      who TEXT NOT NULL,
      event TEXT NOT NULL,
      detail TEXT)]],
    "CREATE INDEX history_object ON history (object_id)",
  },
  {
    -- The last line of the audit record, so that one cut off at its end shows.
    [[CREATE TABLE audit (
      id INTEGER PRIMARY KEY CHECK (id = 1),
      seq INTEGER NOT NULL,
      hash TEXT NOT NULL)]],
  },
  {
    -- What failed and is to be tried again: how often in a row, and when next.
    [[CREATE TABLE attempts (
      object_id INTEGER PRIMARY KEY REFERENCES objects (id) ON DELETE CASCADE,
      failures INTEGER NOT NULL,
      next_at INTEGER NOT NULL,
      message TEXT NOT NULL)]],
    "CREATE INDEX objects_renew_at ON objects (renew_at)",
    "CREATE INDEX objects_replaces ON objects (replaces)",
  },
  {
    -- 1: the certificate stands beside the service's default one, for the
    -- clients that ask for its names.
    "ALTER TABLE assignments ADD COLUMN sni INTEGER NOT NULL DEFAULT 0 CHECK (sni IN (0, 1))",
  },
}

local function version_of(db)
  local rows, message, code = db:rows "PRAGMA user_version"
  if not rows then return nil, message, code end
  return rows[1].user_version
end

-- Runs the migrations that have not run, each in its transaction.
local function migrate(db)
  for number, statements in ipairs(M.migrations) do
    local done, message, code = db:transaction(function()
      local version, why, what = version_of(db)
      if not version then return nil, why, what end
      if version >= number then return true end
      for _, statement in ipairs(statements) do
        local ok
        ok, why, what = db:run(statement)
        if not ok then return nil, why, what end
      end
      return db:run("PRAGMA user_version = " .. number)
    end)
    if not done then return nil, message, code end
  end
  return true
end

-- Turns to the write-ahead log, once for all.  While another process writes, SQLite
-- refuses that at once, whatever the store's own timeout is.
local function use_wal(db)
  local until_ = host.clock() + WAIT
  while true do
    local rows, message, code = db:rows "PRAGMA journal_mode = WAL"
    if rows or code ~= "busy" or host.clock() > until_ then return rows, message, code end
    host.sleep(0.02)
  end
end

--- Brings an open store up to date.
-- @param db a core.store handle
-- @return db | nil, message, "io" | "busy" | "unsupported" (a newer store)
function M.prepare(db, writable)
  local version, message, code = version_of(db)
  if not version then return nil, message, code end
  if version > #M.migrations then
    return nil, "it was written by a newer certwright; use that one", "unsupported"
  end
  local ok
  if writable then
    ok, message, code = use_wal(db)
    if ok then ok, message, code = db:run "PRAGMA synchronous = FULL" end
    if not ok then return nil, message, code end
  end
  ok, message, code = db:run "PRAGMA foreign_keys = ON"
  if not ok then return nil, message, code end
  if version < #M.migrations then
    ok, message, code = migrate(db)
    if not ok then return nil, message, code end
  end
  return db
end

return M
