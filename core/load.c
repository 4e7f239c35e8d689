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
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_LIMIT (1024 * 1024) /* bytes of source text */

/* The owner of the program's own file, whom its user trusts already. */
static uid_t program_owner(void) {
  static bool known = false;
  static uid_t owner = 0;
  struct stat status;
  if (!known && stat("/proc/self/exe", &status) == 0)
    owner = status.st_uid;
  known = true;
  return owner;
}

static bool owner_trusted(const struct stat *status) {
  return status->st_uid == 0 || status->st_uid == geteuid() ||
         status->st_uid == program_owner();
}

static bool trusted(const struct stat *status) {
  if (!owner_trusted(status))
    return false;
  if ((status->st_mode & (S_IWGRP | S_IWOTH)) == 0)
    return true;
  return S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX) != 0;
}

static int refuse(lua_State *L, const char *path, const struct stat *status) {
  const char *mend =
      owner_trusted(status)
          ? lua_pushfstring(L, "chmod go-w '%s'", path)
          : lua_pushfstring(L, "chown %d '%s'", (int)geteuid(), path);
  char mode[8];
  snprintf(mode, sizeof mode, "%04o", (unsigned)(status->st_mode & 07777));
  return core_fail(L, "denied",
                   "refused to run code from '%s': owner %d, mode %s: others "
                   "could have written it; to mend it: %s",
                   path, (int)status->st_uid, mode, mend);
}

/* Checks every folder above path, which it cuts on its way; 0 or 3 pushed. */
static int check_parents(lua_State *L, char *path) {
  char *slash;
  struct stat status;
  while ((slash = strrchr(path, '/')) != NULL) {
    const char *folder = slash == path ? "/" : path;
    *slash = '\0';
    if (stat(folder, &status) != 0)
      return core_fail_errno(L, errno, "check", folder);
    if (!trusted(&status))
      return refuse(L, folder, &status);
  }
  return 0;
}

/* Opens path for reading when it may be trusted: a descriptor, or -1 with
 * nil, message, code pushed. */
static int open_trusted(lua_State *L, const char *path) {
  char resolved[PATH_MAX], link[64];
  struct stat status;
  ssize_t length;
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (descriptor < 0 || fstat(descriptor, &status) != 0) {
    core_fail_errno(L, errno, "read", path);
  } else if (!S_ISREG(status.st_mode)) {
    core_fail(L, "io", "cannot read '%s': not a regular file", path);
  } else if (!trusted(&status)) {
    refuse(L, path, &status);
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    length = readlink(link, resolved, sizeof resolved - 1);
    resolved[length > 0 ? length : 0] = '\0';
    if (check_parents(L, resolved) == 0)
      return descriptor;
  }
  if (descriptor >= 0)
    close(descriptor);
  return -1;
}

/* Reads all of a descriptor, and closes it; pushes the text or a failure. */
static bool push_text(lua_State *L, int descriptor, const char *path) {
  static char text[CHUNK_LIMIT + 1];
  size_t length = 0;
  ssize_t n;
  while ((n = read(descriptor, text + length, sizeof text - length)) > 0)
    length += (size_t)n;
  close(descriptor);
  if (n < 0)
    core_fail_errno(L, errno, "read", path);
  else if (length > CHUNK_LIMIT)
    core_fail(L, "limit", "cannot read '%s': more than %d bytes of code", path,
              CHUNK_LIMIT);
  else
    lua_pushlstring(L, text, length);
  return n >= 0 && length <= CHUNK_LIMIT;
}

/*
 * load.file(path[, env]) -> function
 *   | nil, message, "missing" | "denied" | "parse" | "limit" | "io"
 * Loads the text chunk in path, which must be trusted; its _ENV is env when
 * one is given.  A first line that starts with # is skipped, as lua does.
 */
static int l_file(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *text;
  size_t length;
  int descriptor;
  lua_settop(L, 2);
  descriptor = open_trusted(L, path);
  if (descriptor < 0 || !push_text(L, descriptor, path))
    return 3;
  text = lua_tolstring(L, -1, &length);
  if (length > 0 && text[0] == '#') {
    const char *line = memchr(text, '\n', length);
    line = line != NULL ? line : text + length;
    length -= (size_t)(line - text);
    text = line;
  }
  lua_pushfstring(L, "@%s", path);
  if (luaL_loadbufferx(L, text, length, lua_tostring(L, -1), "t") != LUA_OK)
    return core_fail(L, "parse", "%s", lua_tostring(L, -1));
  if (!lua_isnoneornil(L, 2)) {
    lua_pushvalue(L, 2);
    if (lua_setupvalue(L, -2, 1) == NULL)
      lua_pop(L, 1);
  }
  return 1;
}

/*
 * load.trusted(path) -> true | nil, message, "missing" | "denied" | "io"
 * Whether code in path would be run.
 */
static int l_trusted(lua_State *L) {
  int descriptor = open_trusted(L, luaL_checkstring(L, 1));
  if (descriptor < 0)
    return 3;
  close(descriptor);
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg functions[] = {
    {"file", l_file}, {"trusted", l_trusted}, {NULL, NULL}};

int luaopen_core_load(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
