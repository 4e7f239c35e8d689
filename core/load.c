/*
 * load.c: core.load, the one way by which code comes into the program.
 *
 * A chunk is read as text, never as bytecode, and only from a file that nobody
 * but its trusted owners may write, below folders of which the same holds.
 * What is checked is the open descriptor and the resolved path, so that a
 * change of name between check and use changes nothing.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_LIMIT (1024 * 1024) /* bytes of source text */

/* Helpers that return 0, or the 3 of nil, message, code pushed */

/* Whether others could not have written what has this status: its owner must
 * be root, the user, or who owns the program's own file. */
static int check_trust(lua_State *L, const char *path,
                       const struct stat *status) {
  bool sticky = S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX) != 0;
  const char *mend = "chmod go-w";
  char mode[8];
  struct stat program;
  if (status->st_uid != 0 && status->st_uid != geteuid() &&
      (stat("/proc/self/exe", &program) != 0 ||
       status->st_uid != program.st_uid))
    mend = lua_pushfstring(L, "chown %d", (int)geteuid());
  else if (sticky || (status->st_mode & (S_IWGRP | S_IWOTH)) == 0)
    return 0;
  snprintf(mode, sizeof mode, "%04o", (unsigned)(status->st_mode & 07777));
  return core_fail(L, "denied",
                   "refused to run code from '%s': owner %d, mode %s: others "
                   "could have written it; to mend it: %s '%s'",
                   path, (int)status->st_uid, mode, mend, path);
}

/* Checks an open file and every folder above it. */
static int check_file(lua_State *L, const char *path, int descriptor) {
  char folder[PATH_MAX], link[64], *slash;
  struct stat status;
  ssize_t length;
  int refused;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  length = readlink(link, folder, sizeof folder - 1);
  if (length < 0 || fstat(descriptor, &status) != 0)
    return core_fail_errno(L, errno, "read", path);
  if (!S_ISREG(status.st_mode))
    return core_fail(L, "io", "cannot read '%s': not a regular file", path);
  folder[length] = '\0';
  refused = check_trust(L, path, &status);
  while (refused == 0 && (slash = strrchr(folder, '/')) != NULL) {
    *slash = '\0';
    path = slash == folder ? "/" : folder;
    if (stat(path, &status) != 0)
      return core_fail_errno(L, errno, "check", path);
    refused = check_trust(L, path, &status);
  }
  return refused;
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
  const char *path = luaL_checkstring(L, 1), *text;
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
  lua_pushfstring(L, "@%s", path);
  if (luaL_loadbufferx(L, text + skipped, length - skipped, lua_tostring(L, -1),
                       "t") != LUA_OK)
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

int luaopen_core_load(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
