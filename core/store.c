/*
 * store.c: core.store, a handle on an SQLite file.  It knows SQL and no table.
 *
 * SQL is code: what SQLite calls an error in it raises, while what the world
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
#define CACHE 32     /* prepared statements kept */
#define TIMEOUT 5000 /* milliseconds to wait for another writer */

typedef struct {
  sqlite3 *handle;            /* NULL: closed */
  sqlite3_stmt *cache[CACHE]; /* prepared; the oldest gives its place */
  unsigned int oldest;
  sqlite3_stmt *running; /* NULL: none */
  bool transaction;      /* db:transaction runs */
} store;

static store *check_store(lua_State *L) {
  store *db = luaL_checkudata(L, 1, STORE);
  luaL_argcheck(L, db->handle != NULL, 1, "store is closed");
  return db;
}

/* failures */

/* "cannot VERB 'PATH': REASON" for the connection's last result. */
static int fail(lua_State *L, sqlite3 *handle, int result, const char *verb,
                const char *path) {
  static const struct {
    int result;
    const char *code;
  } codes[] = {{SQLITE_BUSY, "busy"},
               {SQLITE_CONSTRAINT, "constraint"},
               {SQLITE_MISMATCH, "constraint"}, /* text for a rowid */
               {SQLITE_READONLY, "denied"},
               {SQLITE_TOOBIG, "limit"}};
  const char *code = "io";
  int error = sqlite3_system_errno(handle);
  size_t i;
  result &= 0xFF;
  if (error != 0 && (result == SQLITE_CANTOPEN || result == SQLITE_IOERR))
    return core_fail_errno(L, error, verb, path);
  for (i = 0; i < COUNT(codes); i++)
    if (codes[i].result == result)
      code = codes[i].code;
  return core_fail(L, code, "cannot %s '%s': %s", verb, path,
                   sqlite3_errmsg(handle));
}

static const char *store_path(const store *db) {
  const char *path = sqlite3_db_filename(db->handle, "main");
  return path != NULL && path[0] != '\0' ? path : ":memory:";
}

static int fail_statement(lua_State *L, const store *db, int result) {
  const char *verb = db->running == NULL                  ? "use"
                     : sqlite3_stmt_readonly(db->running) ? "read"
                                                          : "write";
  if ((result & 0xFF) == SQLITE_ERROR)
    return luaL_error(L, "%s", sqlite3_errmsg(db->handle));
  return fail(L, db->handle, result, verb, store_path(db));
}

/* statements */

static int prepare(store *db, const char *sql) {
  sqlite3_stmt **place = &db->cache[db->oldest % CACHE];
  int i, result;
  for (i = 0; i < CACHE && db->cache[i] != NULL; i++)
    if (strcmp(sqlite3_sql(db->cache[i]), sql) == 0) {
      db->running = db->cache[i];
      return SQLITE_OK;
    }
  sqlite3_finalize(*place);
  result = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT,
                              place, NULL);
  db->running = *place;
  db->oldest += *place != NULL;
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
    result = lua_isinteger(L, index)
                 ? sqlite3_bind_int64(handle, number, lua_tointeger(L, index))
                 : sqlite3_bind_double(handle, number, lua_tonumber(L, index));
    break;
  case LUA_TSTRING: /* stays on the stack as long as the statement runs */
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

static void stop(void *value) {
  store *db = value;
  sqlite3_reset(db->running);
  sqlite3_clear_bindings(db->running);
  db->running = NULL;
}

/* Starts the SQL at index 2 with the parameters that follow it; the box that
 * it pushes stops it, however the function that runs it ends.  NULL, with nil,
 * message, code pushed, when the world refuses. */
static store *start(lua_State *L) {
  size_t length;
  const char *sql = luaL_checklstring(L, 2, &length);
  int given = lua_gettop(L) - 2, count, result, i;
  core_holder *holder = core_push_holder(L, stop);
  store *db = check_store(L); /* now: a finalizer may have closed it */
  lua_toclose(L, -1);
  luaL_argcheck(L, strlen(sql) == length, 2, "SQL holds a NUL");
  if (db->running != NULL)
    luaL_error(L, "the store is in use");
  if (db->transaction && sqlite3_get_autocommit(db->handle)) {
    core_fail(L, "io", "cannot write '%s': the transaction has ended",
              store_path(db));
    return NULL;
  }
  result = prepare(db, sql);
  if (result != SQLITE_OK) {
    fail_statement(L, db, result);
    return NULL;
  }
  if (db->running != NULL) {
    holder->value = db;
    sql += strlen(sqlite3_sql(db->running));
  }
  if (db->running == NULL || sql[strspn(sql, " \t\r\n;")] != '\0')
    luaL_argerror(L, 2, "not one SQL statement");
  count = sqlite3_bind_parameter_count(db->running);
  if (count != given)
    luaL_error(L, "the SQL statement has %d parameters, not %d", count, given);
  for (i = 1; i <= count; i++)
    bind(L, db->running, i, i + 2);
  return db;
}

/*
 * db:run(sql, ...) -> changes, last_id
 *   | nil, message, "constraint" | "busy" | "denied" | "limit" | "io"
 * Runs one SQL statement with its parameters ?1, ?2, ...: nil, boolean (0 or
 * 1), integer, float, string (text).  changes: the rows that it inserted,
 * changed or deleted itself; last_id: the rowid of the last insert.  Raises on
 * wrong SQL, more than one statement, and another number of parameters.
 */
static int l_run(lua_State *L) {
  const store *db = start(L);
  sqlite3_int64 before, changes = 0;
  int result;
  if (db == NULL)
    return 3;
  before = sqlite3_total_changes64(db->handle);
  do
    result = sqlite3_step(db->running);
  while (result == SQLITE_ROW);
  if (result != SQLITE_DONE)
    return fail_statement(L, db, result);
  if (sqlite3_total_changes64(db->handle) != before)
    changes = sqlite3_changes64(db->handle);
  lua_pushinteger(L, changes);
  lua_pushinteger(L, sqlite3_last_insert_rowid(db->handle));
  return 2;
}

static void push_value(lua_State *L, sqlite3_stmt *handle, int column) {
  const unsigned char *text;
  switch (sqlite3_column_type(handle, column)) {
  case SQLITE_NULL:
    lua_pushnil(L);
    break;
  case SQLITE_INTEGER:
    lua_pushinteger(L, sqlite3_column_int64(handle, column));
    break;
  case SQLITE_FLOAT:
    lua_pushnumber(L, sqlite3_column_double(handle, column));
    break;
  default: /* of a blob, the bytes as they are */
    text = sqlite3_column_text(handle, column);
    lua_pushlstring(L, (const char *)text,
                    (size_t)sqlite3_column_bytes(handle, column));
  }
}

/*
 * db:rows(sql, ...) -> { { column = value, ... }, ... }
 *   | nil, message, "constraint" | "busy" | "denied" | "limit" | "io"
 * As db:run, with every row; NULL is an absent field, text and blobs are
 * strings, byte for byte.
 */
static int l_rows(lua_State *L) {
  const store *db = start(L);
  lua_Integer count = 0;
  int result, i, columns, names;
  if (db == NULL)
    return 3;
  result = sqlite3_step(db->running); /* prepares again after a schema change */
  columns = sqlite3_column_count(db->running);
  luaL_checkstack(L, columns + 4, "too many columns");
  names = lua_gettop(L) + 1;
  for (i = 0; i < columns; i++)
    lua_pushstring(L, sqlite3_column_name(db->running, i));
  lua_newtable(L);
  for (; result == SQLITE_ROW; result = sqlite3_step(db->running)) {
    lua_createtable(L, 0, columns);
    for (i = 0; i < columns; i++) {
      lua_pushvalue(L, names + i);
      push_value(L, db->running, i);
      lua_rawset(L, -3);
    }
    lua_rawseti(L, -2, ++count);
  }
  return result == SQLITE_DONE ? 1 : fail_statement(L, db, result);
}

/* transactions */

static int execute(const store *db, const char *sql) {
  return sqlite3_exec(db->handle, sql, NULL, NULL, NULL);
}

static void roll_back(void *value) {
  store *db = value;
  db->transaction = false;
  if (db->handle != NULL && !sqlite3_get_autocommit(db->handle))
    execute(db, "ROLLBACK");
}

/*
 * db:transaction(work) -> what work returns
 *   | nil, message, "constraint" | "busy" | "denied" | "io"
 * Runs work() between BEGIN IMMEDIATE and COMMIT; ROLLBACK when it raises or
 * returns nil, message, code.  Raises inside another transaction.
 */
static int l_transaction(lua_State *L) {
  core_holder *holder;
  store *db;
  int result;
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_settop(L, 2);
  holder = core_push_holder(L, roll_back);
  db = check_store(L);
  lua_toclose(L, -1);
  if (db->transaction || !sqlite3_get_autocommit(db->handle))
    luaL_error(L, "a transaction inside another one");
  if (db->running != NULL)
    luaL_error(L, "the store is in use");
  result = execute(db, "BEGIN IMMEDIATE");
  if (result == SQLITE_OK) {
    holder->value = db;
    db->transaction = true;
    lua_pushvalue(L, 2);
    lua_call(L, 0, LUA_MULTRET);
    if (db->handle == NULL)
      luaL_error(L, "the store was closed inside its transaction");
    if (lua_isnil(L, 4) && !lua_isnoneornil(L, 5))
      return lua_gettop(L) - 3;
    result = execute(db, "COMMIT");
  }
  if (result != SQLITE_OK)
    return fail(L, db->handle, result, "write", store_path(db));
  return lua_gettop(L) - 3;
}

/* opening and closing */

static void release(store *db) {
  int i;
  for (i = 0; i < CACHE; i++)
    sqlite3_finalize(db->cache[i]);
  sqlite3_close(db->handle);
  memset(db, 0, sizeof *db);
}

/* Makes an empty file for its owner only; SQLite gives the others the same
 * mode.  One that is there is not opened: that would drop its locks. */
static int create(const char *path) {
  int flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  int descriptor = open(path, flags, 0600);
  if (descriptor < 0)
    return errno == EEXIST ? 0 : errno;
  return core_finish(descriptor, core_errno(fchmod(descriptor, 0600)));
}

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
  return execute(db, "PRAGMA schema_version");
}

/*
 * store.open(path[, { readonly =, timeout = }]) -> db
 *   | nil, message, "missing" | "denied" | "busy" | "io"
 * Opens an SQLite file, made with mode 0600 when missing unless readonly.
 * timeout: milliseconds to wait for another writer, 5000 unless given.
 * ":memory:" is a store of its own that no file holds.
 */
static int l_open(lua_State *L) {
  static const char *const fields[] = {"readonly", "timeout", NULL};
  const char *path = core_check_path(L, 1), *real = path;
  bool memory = strcmp(path, ":memory:") == 0, readonly = false;
  lua_Integer timeout = TIMEOUT;
  store *db;
  int error = 0;
  if (!lua_isnoneornil(L, 2)) {
    core_check_fields(L, 2, fields);
    lua_getfield(L, 2, "readonly");
    readonly = lua_toboolean(L, -1);
    lua_getfield(L, 2, "timeout");
    timeout = luaL_optinteger(L, -1, TIMEOUT);
    luaL_argcheck(L, timeout >= 0 && timeout <= INT_MAX, 2,
                  "timeout out of range");
  }
  if (!memory && path[0] != '/') /* "file:x" and "" mean more to SQLite */
    real = lua_pushfstring(L, "./%s", path);
  db = lua_newuserdatauv(L, sizeof *db, 0);
  memset(db, 0, sizeof *db);
  luaL_setmetatable(L, STORE);
  if (!memory && !readonly)
    error = create(real);
  if (error != 0)
    return core_fail_errno(L, error, "open", path);
  error = connect(db, real, readonly, (int)timeout);
  if (error != SQLITE_OK)
    fail(L, db->handle, error, "open", path);
  else if (!readonly && sqlite3_db_readonly(db->handle, "main") != 0)
    core_fail_errno(L, EACCES, "write", path);
  else
    return 1;
  release(db);
  return 3;
}

/* db:close(): may be called again.  Also __close and __gc. */
static int l_close(lua_State *L) {
  store *db = luaL_checkudata(L, 1, STORE);
  if (db->running != NULL)
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

static const luaL_Reg methods[] = {
    {"close", l_close}, {"rows", l_rows},
    {"run", l_run},     {"transaction", l_transaction},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {{"__close", l_close},
                                       {"__gc", l_close},
                                       {"__tostring", l_tostring},
                                       {NULL, NULL}};

int luaopen_core_store(lua_State *L) {
  core_type(L, STORE, methods, metamethods);
  luaL_newlib(L, functions);
  return 1;
}
