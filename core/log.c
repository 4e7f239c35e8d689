/*
 * log.c: core.log, lines that are only ever added: to a file, whole and on the
 * disk, and to the system's log.
 *
 * What a line says, where it goes and how lines hang together is Lua's; so is
 * the lock under which processes take turns.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

/* A regular file of this user that has no other name. */
static int check_file(int descriptor, struct stat *status) {
  if (fstat(descriptor, status) != 0)
    return errno;
  if (!S_ISREG(status->st_mode) || status->st_nlink != 1)
    return EINVAL;
  return status->st_uid == geteuid() ? 0 : EPERM;
}

/* Keeps room on the disk; a file system that cannot is no reason to fail. */
static int reserve(int descriptor, off_t offset, off_t length) {
  if (fallocate(descriptor, FALLOC_FL_KEEP_SIZE, offset, length) == 0 ||
      errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR)
    return 0;
  return errno;
}

/* One write(2).  Of a line that did not get there whole nothing is left, unless
 * the file may only grow (chattr +a). */
static int add(int descriptor, off_t end, const char *bytes, size_t length) {
  ssize_t n;
  do
    n = write(descriptor, bytes, length);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return errno;
  if ((size_t)n < length)
    return ftruncate(descriptor, end) == 0 ? ENOSPC : errno;
  return fsync(descriptor) == 0 || errno == EINVAL ? 0 : errno;
}

/*
 * log.append(path, bytes[, room]) -> true
 *   | nil, message, "missing" | "denied" | "io"
 * Adds bytes to a file, made with mode 0600 when missing, by one write, and has
 * them on the disk.  room: bytes of disk to keep for what is added next.
 */
static int l_append(lua_State *L) {
  const int flags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
  const char *path = core_check_path(L, 1);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  lua_Integer room = luaL_optinteger(L, 3, 0);
  struct stat status;
  int error, descriptor;
  bool made = false;
  luaL_argcheck(L, room >= 0 && room <= INT32_MAX, 3, "out of range");
  descriptor = open(path, flags | O_NONBLOCK);
  if (descriptor < 0 && errno == ENOENT) {
    descriptor = open(path, flags | O_CREAT | O_EXCL, 0600);
    made = descriptor >= 0;
  }
  if (descriptor < 0)
    return core_fail_errno(L, errno, "write", path);
  error = check_file(descriptor, &status);
  if (error == 0)
    error = reserve(descriptor, status.st_size, (off_t)length + (off_t)room);
  if (error == 0)
    error = add(descriptor, status.st_size, bytes, length);
  if (close(descriptor) != 0 && error == 0)
    error = errno;
  if (error == 0 && made)
    error = core_sync_parent(path);
  return core_done(L, error, "write", path);
}

/*
 * log.system(program, text[, level])
 * Sends one line to the system's log, facility authpriv, level "notice" unless
 * given ("warning", "err").  Where no such log runs it is lost, which nobody
 * is told.
 */
static int l_system(lua_State *L) {
  static const char *const names[] = {"notice", "warning", "err", NULL};
  static const int levels[] = {LOG_NOTICE, LOG_WARNING, LOG_ERR};
  const char *program = luaL_checkstring(L, 1), *text = luaL_checkstring(L, 2);
  int level = levels[luaL_checkoption(L, 3, "notice", names)];
  openlog(program, LOG_PID, LOG_AUTHPRIV);
  syslog(LOG_AUTHPRIV | level, "%s", text);
  closelog(); /* it keeps the program's name, which Lua frees */
  return 0;
}

/* log.sha256(bytes) -> 64 hex digits */
static int l_sha256(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 1);
  core_push_fingerprint(L);
  return 1;
}

static const luaL_Reg functions[] = {{"append", l_append},
                                     {"sha256", l_sha256},
                                     {"system", l_system},
                                     {NULL, NULL}};

int luaopen_core_log(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
