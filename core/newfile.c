/*
 * newfile.c: what every C file needs that makes files: paths and access out
 * of Lua, files that have their owner and mode before the first byte, names
 * that replace nothing, folders on the disk.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_SHOWN 240 /* bytes of a name kept in its temporary one */

const char *core_check_path(lua_State *L, int index) {
  size_t length;
  const char *path = luaL_checklstring(L, index, &length);
  luaL_argcheck(L, length > 0, index, "a path is empty");
  luaL_argcheck(L, strlen(path) == length, index, "a path holds a NUL");
  return path;
}

static lua_Integer check_number(lua_State *L, const char *name,
                                lua_Integer maximum) {
  int is_integer;
  lua_Integer value = lua_tointegerx(L, -1, &is_integer);
  if (!is_integer || value < 0 || value > maximum)
    luaL_error(L, "%s is no whole number from 0 to %I", name, maximum);
  return value;
}

bool core_take_access(lua_State *L, const char *name, core_access *access) {
  if (strcmp(name, "mode") == 0)
    access->mode = (mode_t)check_number(L, name, 0777);
  else if (strcmp(name, "owner") == 0)
    access->owner = (uid_t)check_number(L, name, UINT32_MAX - 1);
  else if (strcmp(name, "group") == 0)
    access->group = (gid_t)check_number(L, name, UINT32_MAX - 1);
  else
    return false;
  return true;
}

int core_temporary(char out[CORE_TEMPORARY_SIZE], const char *name) {
  unsigned char random[3];
  if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
    return errno;
  snprintf(out, CORE_TEMPORARY_SIZE, ".%.*s.%02x%02x%02x", NAME_SHOWN, name,
           random[0], random[1], random[2]);
  return 0;
}

int core_create(int folder, const char *name, const core_access *access,
                int *descriptor) {
  int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, error;
  *descriptor = openat(folder, name, flags, 0600);
  if (*descriptor < 0)
    return errno;
  if (fchown(*descriptor, access->owner, access->group) == 0 &&
      fchmod(*descriptor, access->mode) == 0)
    return 0;
  error = errno;
  close(*descriptor);
  unlinkat(folder, name, 0);
  return error;
}

int core_write(int descriptor, const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t n = write(descriptor, bytes, length);
    if (n < 0 && errno != EINTR)
      return errno;
    bytes += n > 0 ? n : 0;
    length -= n > 0 ? (size_t)n : 0;
  }
  return 0;
}

int core_rename_new(int folder, const char *from, const char *to) {
  struct stat status;
  if (renameat2(folder, from, folder, to, RENAME_NOREPLACE) == 0)
    return 0;
  if (errno != EINVAL && errno != ENOSYS)
    return errno;
  /* NFS and old kernels: link(2) is as exclusive, but not for folders */
  if (linkat(folder, from, folder, to, 0) == 0)
    return unlinkat(folder, from, 0) == 0 ? 0 : errno;
  if (errno == EEXIST || fstatat(folder, from, &status, 0) != 0 ||
      !S_ISDIR(status.st_mode))
    return errno;
  if (fstatat(folder, to, &status, AT_SYMLINK_NOFOLLOW) == 0)
    return EEXIST;
  return renameat(folder, from, folder, to) == 0 ? 0 : errno;
}

int core_sync_folder(int folder) {
  return fsync(folder) == 0 || errno == EINVAL ? 0 : errno;
}
