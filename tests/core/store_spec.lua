local file = require "core.file"
local store = require "core.store"

local program = file.link("/proc/self/exe")
local folder, path

local function child(code, before)
  local pipe = assert(io.popen(("%s '%s' -e '%s' 2>&1"):format(before or "", program, code)))
  local text = pipe:read("a")
  pipe:close()
  return (text:gsub("\n$", ""))
end

local POWERLESS = "setpriv --bounding-set=-all --inh-caps=-all"

local function refused(message, code, ...)
  local result, got, got_code = ...
  assert.is_nil(result)
  assert.equal(message, got)
  assert.equal(code, got_code)
end

before_each(function()
  folder = os.tmpname()
  os.remove(folder)
  assert(file.mkdir(folder, tonumber("700", 8)))
  path = folder .. "/a.db"
end)

after_each(function()
  collectgarbage()
  os.execute("rm -rf '" .. folder .. "'")
end)

-- A store with a table of one row.
local function example(options)
  local db = assert(store.open(path, options))
  assert(db:run("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, name TEXT UNIQUE) STRICT"))
  assert(db:run("INSERT OR IGNORE INTO t VALUES (1, 'one')"))
  return db
end

local function count(db)
  return db:rows("SELECT count(*) AS n FROM t")[1].n
end

describe("store.open", function()
  it("makes a file that only its owner can read, and its companions likewise", function()
    child(([[local db = core.store.open("%s") db:run("PRAGMA journal_mode = WAL")
      db:run("CREATE TABLE t (a)") os.execute("cd %s && stat -c \"%%a %%n\" a.db* > modes")]]):format(path, folder),
      "umask 0;")
    assert.equal("600 a.db\n600 a.db-shm\n600 a.db-wal\n", file.read(folder .. "/modes"))
  end)

  it("opens a file that is there as it is", function()
    example():close()
    os.execute("chmod 640 '" .. path .. "'")
    local db <close> = store.open(path)
    assert.equal(1, count(db))
    assert.equal(tonumber("640", 8), file.stat(path).mode)
  end)

  it("takes every path as the name of a file", function()
    for _, name in ipairs { "file:a?mode=memory", "a b%20c", ".db" } do
      assert.equal("", child(('local db = core.store.open("%s") db:run("CREATE TABLE t (a)") db:close()'):format(name),
        ("cd '%s';"):format(folder)))
      assert.equal("file", file.stat(folder .. "/" .. name).kind)
    end
    local db <close> = store.open(":memory:")
    assert.same({ { x = 1 } }, db:rows("SELECT 1 AS x"))
    assert.equal('store ":memory:"', tostring(db))
  end)

  it("reads only when it is told so", function()
    refused(("cannot open '%s': No such file or directory"):format(path), "missing",
      store.open(path, { readonly = true }))
    example():close()
    local db <close> = store.open(path, { readonly = true })
    assert.equal(1, count(db))
    refused(("cannot write '%s': attempt to write a readonly database"):format(path), "denied", db:run("DELETE FROM t"))
  end)

  it("says why it does not open", function()
    refused(("cannot open '%s/x/a.db': No such file or directory"):format(folder), "missing",
      store.open(folder .. "/x/a.db"))
    refused(("cannot open '%s': Is a directory"):format(folder), "io", store.open(folder))
    file.write(folder .. "/text", ("no database "):rep(100))
    refused(("cannot open '%s/text': file is not a database"):format(folder), "io", store.open(folder .. "/text"))
    os.execute(("ln -s nowhere '%s/dangling'"):format(folder))
    refused(("cannot open '%s/dangling': No such file or directory"):format(folder), "missing",
      store.open(folder .. "/dangling"))
    assert.equal("link", file.stat(folder .. "/dangling").kind)
    assert.is_nil(file.stat(folder .. "/nowhere"))
  end)

  it("says that it lacks the rights", function()
    file.mkdir(folder .. "/shut", tonumber("500", 8))
    assert.equal(("nil\tcannot open '%s/shut/a': Permission denied\tdenied"):format(folder),
      child(('print(core.store.open("%s/shut/a"))'):format(folder), POWERLESS))
    example():close()
    os.execute("chmod 400 '" .. path .. "'")
    assert.equal(("nil\tcannot write '%s': Permission denied\tdenied"):format(path),
      child(('print(core.store.open("%s"))'):format(path), POWERLESS))
    os.execute("chmod 0 '" .. path .. "'")
    assert.equal(("nil\tcannot open '%s': Permission denied\tdenied"):format(path),
      child(('print(core.store.open("%s"))'):format(path), POWERLESS))
  end)

  it("waits no longer than its timeout for another writer", function()
    local one <close> = example()
    one:run("BEGIN EXCLUSIVE")
    local started = os.time()
    refused(("cannot open '%s': database is locked"):format(path), "busy", store.open(path, { timeout = 50 }))
    assert.is_true(os.time() - started < 3)
  end)

  it("raises on wrong options", function()
    assert.error_matches(function() store.open(path, { mode = 1 }) end, "unknown field 'mode'")
    assert.error_matches(function() store.open(path, { timeout = -1 }) end, "timeout out of range")
    assert.error_matches(function() store.open("") end, "a path is empty")
    assert.error_matches(function() store.open("a\0b") end, "a path holds a NUL")
    assert.is_nil(file.stat(path))
  end)

  it("loads no extension and lets nobody write the schema by hand", function()
    local db <close> = example()
    assert.error_matches(function() db:run("SELECT load_extension('x')") end, "not authorized")
    db:run("PRAGMA writable_schema = ON")
    assert.error_matches(function() db:run("DELETE FROM sqlite_schema") end, "may not be modified")
    assert.equal(0, db:rows("PRAGMA trusted_schema")[1].trusted_schema)
  end)
end)

describe("db:run and db:rows", function()
  it("give back every value as it was", function()
    local db <close> = example()
    local bytes = {}
    for i = 0, 255 do
      bytes[#bytes + 1] = string.char(i)
    end
    db:run("CREATE TABLE v (a, b, c, d, e, f, g, h)")
    assert.same({ 1, 1 }, { db:run("INSERT INTO v VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, x'00ff')", nil, true, false,
      math.mininteger, 0.5, table.concat(bytes), "") })
    assert.same({ { b = 1, c = 0, d = math.mininteger, e = 0.5, f = table.concat(bytes), g = "", h = "\0\255" } },
      db:rows("SELECT * FROM v"))
    assert.equal("integer", math.type(db:rows("SELECT d FROM v")[1].d))
    assert.equal("float", math.type(db:rows("SELECT 2.0 AS x")[1].x))
    assert.equal(1, db:rows("SELECT count(*) AS n FROM v WHERE f = ? AND typeof(f) = 'text'", table.concat(bytes))[1].n)
  end)

  it("count what one statement changed, and name its last row", function()
    local db <close> = example()
    assert.same({ 1, 2 }, { db:run("INSERT INTO t (name) VALUES (?)", "two") })
    assert.equal(2, (db:run("UPDATE t SET name = name || '!'")))
    assert.equal(0, (db:run("UPDATE t SET name = 'x' WHERE id = 99")))
    assert.equal(0, (db:run("CREATE TABLE u (a)")))
    assert.equal(0, (db:run("INSERT OR IGNORE INTO t VALUES (1, 'again')")))
    assert.equal(0, (db:run("SELECT * FROM t")))
    assert.equal(2, (db:run("DELETE FROM t")))
  end)

  it("hand over rows in order, and those of RETURNING", function()
    local db <close> = example()
    assert.same({ { id = 2 }, { id = 3 } }, db:rows("INSERT INTO t (name) VALUES ('b'), ('c') RETURNING id"))
    assert.same({ { name = "c" }, { name = "b" }, { name = "one" } }, db:rows("SELECT name FROM t ORDER BY id DESC"))
    assert.same({}, db:rows("SELECT * FROM t WHERE id > ?", 3))
    assert.same({}, db:rows("CREATE TABLE u (a)"))
  end)

  it("see a column that another handle adds", function()
    local one <close> = example()
    local other <close> = store.open(path)
    assert.same({ { id = 1, name = "one" } }, one:rows("SELECT * FROM t"))
    other:run("ALTER TABLE t ADD COLUMN more INTEGER DEFAULT 7")
    assert.same({ { id = 1, name = "one", more = 7 } }, one:rows("SELECT * FROM t"))
  end)

  it("keep more statements in use than are cached", function()
    local db <close> = example()
    for round = 1, 3 do
      for i = 1, 100 do
        assert.equal(i * round, db:rows(("SELECT %d * ? AS x"):format(i), round)[1].x)
      end
    end
  end)

  it("forget the parameters of the call before", function()
    local db <close> = example()
    assert.same({ { x = "a" } }, db:rows("SELECT ? AS x", "a"))
    assert.same({ {} }, db:rows("SELECT ? AS x", nil))
  end)

  it("refuse what a constraint forbids", function()
    local db <close> = example()
    refused(("cannot write '%s': UNIQUE constraint failed: t.name"):format(path), "constraint",
      db:run("INSERT INTO t (name) VALUES ('one')"))
    refused(("cannot write '%s': UNIQUE constraint failed: t.name"):format(path), "constraint",
      db:rows("INSERT INTO t (name) VALUES ('one') RETURNING id"))
    refused(("cannot write '%s': datatype mismatch"):format(path), "constraint",
      db:run("UPDATE t SET id = 'x'"))
    db:run("CREATE TABLE u (a INTEGER) STRICT")
    refused(("cannot write '%s': cannot store TEXT value in INTEGER column u.a"):format(path), "constraint",
      db:run("INSERT INTO u VALUES ('x')"))
    assert.equal(1, count(db))
  end)

  it("give up when another writer does not", function()
    local one <close> = example()
    local two <close> = store.open(path, { timeout = 20 })
    assert.equal(1, count(two))
    one:run("BEGIN EXCLUSIVE")
    refused(("cannot write '%s': database is locked"):format(path), "busy",
      two:run("INSERT INTO t (name) VALUES ('b')"))
    refused(("cannot read '%s': database is locked"):format(path), "busy", two:rows("SELECT * FROM t"))
    one:run("COMMIT")
    assert.equal(1, (two:run("INSERT INTO t (name) VALUES ('b')")))
  end)

  it("say that the disk is full and that a text is too long", function()
    local db <close> = example()
    db:rows("PRAGMA max_page_count = 4")
    refused(("cannot write '%s': database or disk is full"):format(path), "io",
      db:run("INSERT INTO t (name) VALUES (?)", ("x"):rep(100000)))
    refused(("cannot read '%s': string or blob too big"):format(path), "limit",
      db:rows("SELECT length(zeroblob(2000000000)) AS x"))
    assert.equal(1, count(db))
  end)

  it("say that the file is damaged", function()
    local db = example()
    db:run("CREATE INDEX i ON t (name)")
    db:close()
    local handle = io.open(path, "r+b")
    handle:seek("set", 4096)
    handle:write(("\255"):rep(4096))
    handle:close()
    local damaged <close> = store.open(path)
    refused(("cannot read '%s': database disk image is malformed"):format(path), "io", damaged:rows("SELECT * FROM t"))
  end)

  it("raise on SQL that is wrong, more than one statement, or none", function()
    local db <close> = example()
    assert.error_matches(function() db:run("SELEC 1") end, 'near "SELEC": syntax error')
    assert.error_matches(function() db:rows("SELECT * FROM none") end, "no such table: none")
    assert.error_matches(function() db:run("DELETE FROM t; DELETE FROM t") end, "not one SQL statement")
    assert.error_matches(function() db:run("-- nothing") end, "not one SQL statement")
    assert.error_matches(function() db:run("") end, "not one SQL statement")
    assert.error_matches(function() db:run("SELECT 1\0; x") end, "SQL holds a NUL")
    assert.equal(0, (db:run("SELECT 1 ; \n ")))
    assert.equal(1, count(db))
  end)

  it("raise on another number or another type of parameters", function()
    local db <close> = example()
    assert.error_matches(function() db:run("SELECT ?, ?", 1) end, "has 2 parameters, not 1")
    assert.error_matches(function() db:run("SELECT ?", 1, nil) end, "has 1 parameters, not 2")
    assert.error_matches(function() db:run("SELECT 1", {}) end, "has 0 parameters, not 1")
    assert.error_matches(function() db:run("SELECT ?", {}) end, "a parameter is nil, boolean, number or string")
    assert.same({ { x = 1 } }, db:rows("SELECT ? AS x", 1))
  end)
end)

describe("db:transaction", function()
  it("keeps what its function did, and returns what that returns", function()
    local db <close> = example()
    assert.same({ 7, nil, "x", n = 3 }, table.pack(db:transaction(function()
      db:run("INSERT INTO t (name) VALUES ('b')")
      return 7, nil, "x"
    end)))
    assert.equal(0, select("#", db:transaction(function() db:run("INSERT INTO t (name) VALUES ('c')") end)))
    assert.is_false(db:transaction(function() return false, "x" end))
    local other <close> = store.open(path)
    assert.equal(3, count(other))
  end)

  it("undoes what its function did before it raised", function()
    local db <close> = example()
    local oops = {}
    local ok, message = pcall(db.transaction, db, function()
      db:run("DELETE FROM t")
      error(oops)
    end)
    assert.is_false(ok)
    assert.equal(oops, message)
    assert.equal(1, count(db))
    assert.equal(1, db:transaction(function() return count(db) end))
  end)

  it("undoes what its function did before it was refused something", function()
    local db <close> = example()
    refused(("cannot write '%s': UNIQUE constraint failed: t.name"):format(path), "constraint",
      db:transaction(function()
        db:run("INSERT INTO t (name) VALUES ('b')")
        return db:run("INSERT INTO t (name) VALUES ('b')")
      end))
    assert.equal(1, count(db))
  end)

  it("holds the write lock from its start", function()
    local one <close> = example()
    local two <close> = store.open(path, { timeout = 20 })
    local called = false
    one:transaction(function()
      refused(("cannot write '%s': database is locked"):format(path), "busy",
        two:transaction(function() called = true end))
    end)
    assert.is_false(called)
    assert.is_true(two:transaction(function() return true end))
  end)

  it("is undone when it cannot be committed", function()
    local db <close> = example()
    db:run("PRAGMA foreign_keys = ON")
    db:run("CREATE TABLE u (t REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
    refused(("cannot write '%s': FOREIGN KEY constraint failed"):format(path), "constraint",
      db:transaction(function() db:run("INSERT INTO u VALUES (99)") end))
    assert.same({}, db:rows("SELECT * FROM u"))
    local readonly <close> = store.open(path, { readonly = true })
    refused(("cannot write '%s': attempt to write a readonly database"):format(path), "denied",
      readonly:transaction(function() return readonly:run("DELETE FROM t") end))
  end)

  it("does nothing more once SQLite has undone it", function()
    local db <close> = example()
    local results = table.pack(db:transaction(function()
      db:run("INSERT INTO t (name) VALUES ('b')")
      db:run("INSERT OR ROLLBACK INTO t (name) VALUES ('b')")
      refused(("cannot write '%s': the transaction has ended"):format(path), "io",
        db:run("INSERT INTO t (name) VALUES ('c')"))
      return true
    end))
    refused(("cannot write '%s': cannot commit - no transaction is active"):format(path), "io", table.unpack(results))
    assert.equal(1, count(db))
  end)

  it("raises inside another one, and on what is no function", function()
    local db <close> = example()
    assert.error_matches(function() db:transaction(function() db:transaction(function() end) end) end,
      "a transaction inside another one")
    assert.error_matches(function() db:transaction(function() db:run("BEGIN") end) end,
      "cannot start a transaction within a transaction")
    assert.error_matches(function() db:transaction(1) end, "function expected")
    assert.error_matches(function() coroutine.wrap(function() db:transaction(coroutine.yield) end)() end, "yield")
    assert.is_true(db:transaction(function() return true end))
    db:run("BEGIN")
    assert.error_matches(function() db:transaction(function() end) end, "a transaction inside another one")
  end)

  it("raises when the store is closed inside it, and keeps nothing", function()
    local db = example()
    assert.error_matches(function()
      db:transaction(function()
        db:run("DELETE FROM t")
        db:close()
      end)
    end, "the store was closed inside its transaction")
    local again <close> = store.open(path)
    assert.equal(1, count(again))
  end)
end)

describe("a store", function()
  it("is closed once and for all", function()
    local db = example()
    assert.equal(('store "%s"'):format(path), tostring(db))
    db:close()
    db:close()
    assert.equal("store (closed)", tostring(db))
    assert.error_matches(function() db:run("SELECT 1") end, "store is closed")
    assert.error_matches(function() db:rows("SELECT 1") end, "store is closed")
    assert.error_matches(function() db:transaction(function() end) end, "store is closed")
  end)

  it("is closed by the end of its scope and by the collector", function()
    do
      local db <close> = example()
      db:rows("SELECT * FROM t")
    end
    example()
    collectgarbage()
    collectgarbage()
    local pipe = io.popen("ls -l /proc/self/fd /proc/$PPID/fd 2>/dev/null")
    assert.is_nil(pipe:read("a"):find(path, 1, true))
    pipe:close()
  end)

  it("refuses to be used by a finalizer in the middle of its rows", function()
    local db <close> = example()
    local armed, met = false, 0
    db:run("CREATE TABLE u (a)")
    db:run("INSERT INTO t (name) WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000) "
      .. "SELECT x FROM c")
    local function trap()
      setmetatable({}, { __gc = function()
        if not armed then return end
        local ok, message = pcall(db.run, db, "INSERT INTO u VALUES (1)")
        if not ok and message:find("the store is in use", 1, true) then
          met = met + (pcall(db.close, db) and 0 or 1)
        end
        trap()
      end })
    end
    collectgarbage("incremental", 1, 1000) -- a cycle at once after the last
    collectgarbage() -- else the next one waits for as much as earlier tests left
    trap()
    armed = true
    local rows = db:rows("SELECT * FROM t")
    armed = false
    collectgarbage("incremental", 200, 100)
    assert.equal(2001, #rows)
    assert.is_true(met > 0)
  end)
end)
