/*
 * store.c: core.store, a handle on an SQLite file.  It knows SQL and no table.
 *
 * The box owns the connection and a small cache of prepared statements.  SQL
 * is code: what SQLite calls an error in it raises, while what the world
 * refuses (a constraint, a lock, a disk) is nil, message, code.  Nobody else
 * may open and close the file in this process: that drops SQLite's locks.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STORE "core.store"
#define CURSOR "core.store.cursor"
#define TRANSACTION "core.store.transaction"
#define CACHE 32     /* prepared statements kept */
#define TIMEOUT 5000 /* milliseconds to wait for another writer */

typedef struct {
  sqlite3_stmt *handle;
  unsigned long used; /* when: counts up */
} statement;

typedef struct {
  sqlite3 *handle; /* NULL: closed */
  statement cache[CACHE];
  unsigned long uses;
  bool stepping;    /* a statement is between its first and last step */
  bool transaction; /* db:transaction runs */
} store;

/* Resets a statement of a store, however the function that runs it ends. */
typedef struct {
  store *owner;
  sqlite3_stmt *handle;
} cursor;

static store *check_store(lua_State *L) {
  store *db = luaL_checkudata(L, 1, STORE);
  luaL_argcheck(L, db->handle != NULL, 1, "store is closed");
  return db;
}

/* failures */

static const char *error_code(int result, int error) {
  switch (result & 0xFF) {
  case SQLITE_CONSTRAINT:
  case SQLITE_MISMATCH: /* text for a rowid */
    return "constraint";
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
    return "busy";
  case SQLITE_READONLY:
  case SQLITE_PERM:
  case SQLITE_AUTH:
    return "denied";
  case SQLITE_TOOBIG:
    return "limit";
  case SQLITE_CANTOPEN:
    return error == ENOENT || error == ENOTDIR ? "missing"
           : error == EACCES || error == EPERM ? "denied"
                                               : "io";
  default:
    return "io";
  }
}

/* "cannot VERB 'PATH': REASON" for the connection's last result. */
static int fail(lua_State *L, sqlite3 *handle, int result, const char *verb,
                const char *path) {
  int error = sqlite3_system_errno(handle);
  bool system = error != 0 && ((result & 0xFF) == SQLITE_CANTOPEN ||
                               (result & 0xFF) == SQLITE_IOERR);
  return core_fail(L, error_code(result, error), "cannot %s '%s': %s", verb,
                   path, system ? strerror(error) : sqlite3_errmsg(handle));
}

static const char *store_path(const store *db) {
  const char *path = sqlite3_db_filename(db->handle, "main");
  return path != NULL && path[0] != '\0' ? path : ":memory:";
}

/* The failure of a statement, or of one that could not be prepared (NULL). */
static int fail_statement(lua_State *L, const store *db, int result,
                          sqlite3_stmt *handle) {
  const char *verb = handle == NULL                  ? "use"
                     : sqlite3_stmt_readonly(handle) ? "read"
                                                     : "write";
  if ((result & 0xFF) == SQLITE_ERROR)
    return luaL_error(L, "%s", sqlite3_errmsg(db->handle));
  return fail(L, db->handle, result, verb, store_path(db));
}

/* statements */

/* The place of the statement with this text, else the longest unused one. */
static statement *find_statement(store *db, const char *sql) {
  statement *oldest = &db->cache[0];
  size_t i;
  for (i = 0; i < CACHE; i++) {
    statement *s = &db->cache[i];
    if (s->handle != NULL && strcmp(sqlite3_sql(s->handle), sql) == 0)
      return s;
    if (s->used < oldest->used)
      oldest = s;
  }
  sqlite3_finalize(oldest->handle);
  oldest->handle = NULL;
  oldest->used = 0;
  return oldest;
}

/* The prepared statement of one SQL text, from the cache or into it. */
static int prepare(store *db, const char *sql, const char **tail,
                   sqlite3_stmt **handle) {
  statement *s = find_statement(db, sql);
  int result = SQLITE_OK;
  *tail = "";
  if (s->handle == NULL)
    result = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                &s->handle, tail);
  if (result == SQLITE_OK && s->handle != NULL)
    s->used = ++db->uses;
  *handle = s->handle;
  return result;
}

static void bind(lua_State *L, sqlite3_stmt *handle, int number, int index) {
  int result = SQLITE_OK;
  const char *text;
  size_t length;
  switch (lua_type(L, index)) {
  case LUA_TNIL:
    break;
  case LUA_TBOOLEAN:
    result = sqlite3_bind_int(handle, number, lua_toboolean(L, index));
    break;
  case LUA_TNUMBER:
    if (lua_isinteger(L, index))
      result = sqlite3_bind_int64(handle, number, lua_tointeger(L, index));
    else
      result = sqlite3_bind_double(handle, number, lua_tonumber(L, index));
    break;
  case LUA_TSTRING: /* stays on the stack until the cursor is closed */
    text = lua_tolstring(L, index, &length);
    result = sqlite3_bind_text64(handle, number, text, length, SQLITE_STATIC,
                                 SQLITE_UTF8);
    break;
  default:
    luaL_argerror(L, index, "a parameter is nil, boolean, number or string");
  }
  if (result != SQLITE_OK)
    luaL_argerror(L, index, sqlite3_errstr(result));
}

static int cursor_close(lua_State *L) {
  cursor *c = luaL_checkudata(L, 1, CURSOR);
  if (c->handle != NULL) {
    sqlite3_reset(c->handle);
    sqlite3_clear_bindings(c->handle);
    c->owner->stepping = false;
  }
  c->handle = NULL;
  return 0;
}

/* Pushes a cursor on the statement at index 2 with the parameters that follow
 * it; NULL with nil, message, code pushed when the world refuses. */
static cursor *push_cursor(lua_State *L, store *db) {
  size_t length;
  const char *sql = luaL_checklstring(L, 2, &length), *tail;
  int last = lua_gettop(L), result, count, i;
  cursor *c = lua_newuserdatauv(L, sizeof *c, 0);
  c->owner = db;
  c->handle = NULL;
  luaL_setmetatable(L, CURSOR);
  lua_toclose(L, -1);
  check_store(L); /* again: a finalizer could have closed it just now */
  luaL_argcheck(L, strlen(sql) == length, 2, "SQL holds a NUL");
  if (db->stepping)
    luaL_error(L, "the store is in use");
  if (db->transaction && sqlite3_get_autocommit(db->handle)) {
    core_fail(L, "io", "cannot write '%s': the transaction has ended",
              store_path(db));
    return NULL;
  }
  result = prepare(db, sql, &tail, &c->handle);
  if (result != SQLITE_OK) {
    fail_statement(L, db, result, NULL);
    return NULL;
  }
  db->stepping = c->handle != NULL;
  if (c->handle == NULL || tail[strspn(tail, " \t\r\n;")] != '\0')
    luaL_argerror(L, 2, "not one SQL statement");
  count = sqlite3_bind_parameter_count(c->handle);
  if (count != last - 2)
    luaL_error(L, "the SQL statement has %d parameters, not %d", count,
               last - 2);
  for (i = 1; i <= count; i++)
    bind(L, c->handle, i, i + 2);
  return c;
}

/*
 * db:run(sql, ...) -> changes, last_id
 *   | nil, message, "constraint" | "busy" | "denied" | "limit" | "io"
 * Runs one SQL statement, its parameters ?1, ?2, ... bound to the values that
 * follow: nil, boolean (0 or 1), integer, float, string (text).  changes are
 * the rows that it inserted, changed or deleted itself; last_id is the rowid
 * of the last insert.  Rows that it returns are discarded.  Raises on wrong
 * SQL, more than one statement, and another number of parameters.
 */
static int l_run(lua_State *L) {
  store *db = check_store(L);
  const cursor *c = push_cursor(L, db);
  sqlite3_int64 before, changes = 0;
  int result;
  if (c == NULL)
    return 3;
  before = sqlite3_total_changes64(db->handle);
  do
    result = sqlite3_step(c->handle);
  while (result == SQLITE_ROW);
  if (result != SQLITE_DONE)
    return fail_statement(L, db, result, c->handle);
  if (sqlite3_total_changes64(db->handle) != before)
    changes = sqlite3_changes64(db->handle);
  lua_pushinteger(L, (lua_Integer)changes);
  lua_pushinteger(L, (lua_Integer)sqlite3_last_insert_rowid(db->handle));
  return 2;
}

static void push_value(lua_State *L, sqlite3_stmt *handle, int column) {
  const void *bytes;
  switch (sqlite3_column_type(handle, column)) {
  case SQLITE_NULL:
    lua_pushnil(L);
    break;
  case SQLITE_INTEGER:
    lua_pushinteger(L, (lua_Integer)sqlite3_column_int64(handle, column));
    break;
  case SQLITE_FLOAT:
    lua_pushnumber(L, sqlite3_column_double(handle, column));
    break;
  default:
    bytes = sqlite3_column_type(handle, column) == SQLITE_TEXT
                ? sqlite3_column_text(handle, column)
                : sqlite3_column_blob(handle, column);
    lua_pushlstring(L, bytes != NULL ? bytes : "",
                    (size_t)sqlite3_column_bytes(handle, column));
  }
}

/*
 * db:rows(sql, ...) -> { { column = value, ... }, ... }
 *   | nil, message, "constraint" | "busy" | "denied" | "limit" | "io"
 * As db:run, but hands over every row, NULL being an absent field.  Text and
 * blobs are strings, byte for byte.
 */
static int l_rows(lua_State *L) {
  store *db = check_store(L);
  const cursor *c = push_cursor(L, db);
  lua_Integer count = 0;
  int result, i, columns, names;
  if (c == NULL)
    return 3;
  result = sqlite3_step(c->handle); /* prepares again after a schema change */
  columns = sqlite3_column_count(c->handle);
  luaL_checkstack(L, columns + 4, "too many columns");
  names = lua_gettop(L) + 1;
  for (i = 0; i < columns; i++)
    lua_pushstring(L, sqlite3_column_name(c->handle, i));
  lua_newtable(L);
  for (; result == SQLITE_ROW; result = sqlite3_step(c->handle)) {
    lua_createtable(L, 0, columns);
    for (i = 0; i < columns; i++) {
      lua_pushvalue(L, names + i);
      push_value(L, c->handle, i);
      lua_rawset(L, -3);
    }
    lua_rawseti(L, -2, ++count);
  }
  return result == SQLITE_DONE ? 1 : fail_statement(L, db, result, c->handle);
}

/* transactions */

static int transaction_close(lua_State *L) {
  store **owner = luaL_checkudata(L, 1, TRANSACTION);
  store *db = *owner;
  *owner = NULL;
  if (db == NULL)
    return 0;
  db->transaction = false;
  if (db->handle != NULL && !sqlite3_get_autocommit(db->handle))
    sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
  return 0;
}

/* Runs the function on top of the stack inside the transaction; whether it
 * wants what it did kept.  Its results are then above base. */
static bool call(lua_State *L, store *db, int base) {
  lua_call(L, 0, LUA_MULTRET);
  if (db->handle == NULL)
    luaL_error(L, "the store was closed inside its transaction");
  return lua_gettop(L) < base + 2 || !lua_isnil(L, base + 1) ||
         lua_isnil(L, base + 2);
}

/*
 * db:transaction(work) -> what work returns
 *   | nil, message, "constraint" | "busy" | "denied" | "io"
 * Runs work() between BEGIN IMMEDIATE and COMMIT.  ROLLBACK when it raises
 * (the error goes on) or returns nil, message, code (returned).  Raises inside
 * another transaction.
 */
static int l_transaction(lua_State *L) {
  store *db = check_store(L), **owner;
  int result;
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  owner = lua_newuserdatauv(L, sizeof *owner, 0);
  *owner = NULL;
  luaL_setmetatable(L, TRANSACTION);
  lua_toclose(L, -1);
  check_store(L);
  if (db->transaction || !sqlite3_get_autocommit(db->handle))
    luaL_error(L, "a transaction inside another one");
  if (db->stepping)
    luaL_error(L, "the store is in use");
  result = sqlite3_exec(db->handle, "BEGIN IMMEDIATE", NULL, NULL, NULL);
  if (result != SQLITE_OK)
    return fail(L, db->handle, result, "write", store_path(db));
  *owner = db;
  db->transaction = true;
  lua_pushvalue(L, 2);
  if (call(L, db, 3)) {
    result = sqlite3_exec(db->handle, "COMMIT", NULL, NULL, NULL);
    if (result != SQLITE_OK)
      return fail(L, db->handle, result, "write", store_path(db));
  }
  return lua_gettop(L) - 3;
}

/* opening and closing */

static void release(store *db) {
  size_t i;
  for (i = 0; i < CACHE; i++)
    sqlite3_finalize(db->cache[i].handle);
  sqlite3_close(db->handle);
  memset(db, 0, sizeof *db);
}

/* Makes an empty store that only its owner may read; SQLite gives its other
 * files the same mode.  A file that is there is not even opened: closing it
 * would drop the locks of another handle. */
static int create(const char *path) {
  int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, error = 0;
  int descriptor = open(path, flags, 0600);
  if (descriptor < 0)
    return errno == EEXIST ? 0 : errno;
  if (fchmod(descriptor, 0600) != 0)
    error = errno;
  close(descriptor);
  return error;
}

/* Opens the connection, which may do no more than the SQL says. */
static int connect(store *db, const char *path, bool readonly, int timeout) {
  int flags = readonly ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE;
  int result =
      sqlite3_open_v2(path, &db->handle, flags | SQLITE_OPEN_NOMUTEX, NULL);
  if (result != SQLITE_OK)
    return result;
  sqlite3_extended_result_codes(db->handle, 1);
  sqlite3_busy_timeout(db->handle, timeout);
  sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  sqlite3_db_config(db->handle, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
  return sqlite3_exec(db->handle, "PRAGMA schema_version", NULL, NULL, NULL);
}

/* The options table at index. */
static void check_options(lua_State *L, int index, bool *readonly,
                          int *timeout) {
  static const char *const fields[] = {"readonly", "timeout", NULL};
  lua_Integer milliseconds;
  if (lua_isnoneornil(L, index))
    return;
  core_check_fields(L, index, fields);
  lua_getfield(L, index, "readonly");
  *readonly = lua_toboolean(L, -1);
  lua_getfield(L, index, "timeout");
  milliseconds = luaL_optinteger(L, -1, TIMEOUT);
  luaL_argcheck(L, milliseconds >= 0 && milliseconds <= INT_MAX, index,
                "timeout out of range");
  *timeout = (int)milliseconds;
  lua_pop(L, 2);
}

/*
 * store.open(path[, { readonly =, timeout = }]) -> db
 *   | nil, message, "missing" | "denied" | "busy" | "io"
 * Opens an SQLite file as it is, made with mode 0600 when missing unless
 * readonly.  timeout: milliseconds to wait for another writer, 5000 unless
 * given.  ":memory:" is a store of its own that no file holds.
 */
static int l_open(lua_State *L) {
  const char *path = core_check_path(L, 1), *real = path;
  bool memory = strcmp(path, ":memory:") == 0, readonly = false;
  int timeout = TIMEOUT, error, result;
  store *db;
  check_options(L, 2, &readonly, &timeout);
  if (!memory && path[0] != '/') /* "file:x" and "" mean more to SQLite */
    real = lua_pushfstring(L, "./%s", path);
  db = lua_newuserdatauv(L, sizeof *db, 0);
  memset(db, 0, sizeof *db);
  luaL_setmetatable(L, STORE);
  if (!memory && !readonly && (error = create(real)) != 0)
    return core_fail_errno(L, error, "open", path);
  result = connect(db, real, readonly, timeout);
  if (result == SQLITE_OK &&
      (readonly || sqlite3_db_readonly(db->handle, "main") == 0))
    return 1;
  if (result != SQLITE_OK)
    fail(L, db->handle, result, "open", path);
  else
    core_fail_errno(L, EACCES, "write", path);
  release(db);
  return 3;
}

/* db:close(): may be called again.  Also __close and __gc. */
static int l_close(lua_State *L) {
  store *db = luaL_checkudata(L, 1, STORE);
  if (db->stepping)
    luaL_error(L, "the store is in use");
  release(db);
  return 0;
}

static int l_tostring(lua_State *L) {
  const store *db = luaL_checkudata(L, 1, STORE);
  if (db->handle == NULL)
    lua_pushstring(L, "store (closed)");
  else
    lua_pushfstring(L, "store \"%s\"", store_path(db));
  return 1;
}

static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};

static const luaL_Reg no_methods[] = {{NULL, NULL}};

static const luaL_Reg methods[] = {{"close", l_close},
                                   {"rows", l_rows},
                                   {"run", l_run},
                                   {"transaction", l_transaction},
                                   {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__close", l_close},
                                       {"__gc", l_close},
                                       {"__tostring", l_tostring},
                                       {NULL, NULL}};

static const luaL_Reg cursor_metamethods[] = {{"__close", cursor_close},
                                              {NULL, NULL}};

static const luaL_Reg transaction_metamethods[] = {
    {"__close", transaction_close}, {NULL, NULL}};

int luaopen_core_store(lua_State *L) {
  core_type(L, STORE, methods, metamethods);
  core_type(L, CURSOR, no_methods, cursor_metamethods);
  core_type(L, TRANSACTION, no_methods, transaction_metamethods);
  luaL_newlib(L, functions);
  return 1;
}
