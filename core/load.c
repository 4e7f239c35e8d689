/*
 * load.c: core.load, the one way by which code comes into the program.
 *
 * A chunk is read as text, never as bytecode, and only from a file that nobody
 * but its trusted owners may write, found by a way that nobody else could have
 * chosen (see way.c).  What was compiled from just that text when the program
 * was built is taken in its place (chunks.c).
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_LIMIT (1024 * 1024) /* bytes of source text */

/* Helpers that return 0, or the 3 of nil, message, code pushed */

/* Checks an open file, and the way by which it was found. */
static int check_file(lua_State *L, const char *path, int descriptor) {
  struct stat status, found = {0};
  int refused;
  if (fstat(descriptor, &status) != 0)
    return core_fail_errno(L, errno, "read", path);
  if (!S_ISREG(status.st_mode))
    return core_fail(L, "io", "cannot read '%s': not a regular file", path);
  refused = core_check_way(L, path, "run code from", &found);
  if (refused != 0)
    return refused;
  if (found.st_dev != status.st_dev || found.st_ino != status.st_ino)
    return core_fail_errno(L, ESTALE, "read", path);
  return 0;
}

/* Pushes all that a descriptor has. */
static int read_text(lua_State *L, const char *path, int descriptor) {
  static char text[CHUNK_LIMIT + 1];
  size_t length = 0;
  ssize_t n;
  while ((n = read(descriptor, text + length, sizeof text - length)) > 0)
    length += (size_t)n;
  if (n < 0)
    return core_fail_errno(L, errno, "read", path);
  if (length > CHUNK_LIMIT)
    return core_fail(L, "limit", "cannot read '%s': more than %d bytes of code",
                     path, CHUNK_LIMIT);
  lua_pushlstring(L, text, length);
  return 0;
}

/* Pushes the text in path, which must be trusted. */
static int push_text(lua_State *L, const char *path) {
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  int refused;
  if (descriptor < 0)
    return core_fail_errno(L, errno, "read", path);
  refused = check_file(L, path, descriptor);
  if (refused == 0)
    refused = read_text(L, path, descriptor);
  close(descriptor);
  return refused;
}

/*
 * load.file(path[, env]) -> function
 *   | nil, message, "missing" | "denied" | "parse" | "limit" | "io"
 * Loads the text chunk in path, which must be trusted; its _ENV is env when
 * one is given.  A first line that starts with # is skipped, as lua does.
 */
static int l_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *text, *name;
  size_t length, skipped = 0;
  lua_settop(L, 2);
  if (push_text(L, path) != 0)
    return 3;
  text = lua_tolstring(L, -1, &length);
  if (text[0] == '#')
    skipped = strcspn(text, "\n");
  if (text[0] == LUA_SIGNATURE[0])
    return core_fail(L, "denied",
                     "refused to run code from '%s': it is bytecode", path);
  name = lua_pushfstring(L, "@%s", path);
  if (!core_push_chunk(L, name, text + skipped, length - skipped) &&
      luaL_loadbufferx(L, text + skipped, length - skipped, name, "t") !=
          LUA_OK)
    return core_fail(L, "parse", "%s", lua_tostring(L, -1));
  if (!lua_isnil(L, 2)) {
    lua_pushvalue(L, 2);
    if (lua_setupvalue(L, -2, 1) == NULL)
      lua_pop(L, 1);
  }
  return 1;
}

/*
 * load.trusted(path) -> true
 *   | nil, message, "missing" | "denied" | "limit" | "io"
 * Whether code in path would be run.
 */
static int l_trusted(lua_State *L) {
  if (push_text(L, luaL_checkstring(L, 1)) != 0)
    return 3;
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg functions[] = {
    {"file", l_file}, {"trusted", l_trusted}, {NULL, NULL}};

/* load.release: which Lua this is, to the patch */
int luaopen_core_load(lua_State *L) {
  luaL_newlib(L, functions);
  lua_pushstring(L, lua_ident);
  lua_setfield(L, -2, "release");
  return 1;
}
