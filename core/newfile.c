/*
 * newfile.c: what every C file needs that makes files: paths and access out
 * of Lua, files that have their owner and mode before the first byte, folders
 * on the disk.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_SHOWN 240 /* bytes of a name kept in its temporary one */

int core_errno(int result) {
  return result == 0 ? 0 : errno;
}

int core_done(lua_State *L, int error, const char *verb, const char *object) {
  if (error != 0)
    return core_fail_errno(L, error, verb, object);
  lua_pushboolean(L, 1);
  return 1;
}

const char *core_check_path(lua_State *L, int index) {
  size_t length;
  const char *path = luaL_checklstring(L, index, &length);
  luaL_argcheck(L, length > 0, index, "a path is empty");
  luaL_argcheck(L, strlen(path) == length, index, "a path holds a NUL");
  return path;
}

static unsigned int check_number(lua_State *L, const char *name,
                                 lua_Integer maximum) {
  int is_integer;
  lua_Integer value = lua_tointegerx(L, -1, &is_integer);
  if (!is_integer || value < 0 || value > maximum)
    luaL_error(L, "%s is no whole number from 0 to %I", name, maximum);
  return (unsigned int)value;
}

bool core_take_access(lua_State *L, const char *name, core_access *access) {
  if (strcmp(name, "mode") == 0)
    access->mode = check_number(L, name, 0777);
  else if (strcmp(name, "owner") == 0)
    access->owner = check_number(L, name, UINT32_MAX - 1);
  else if (strcmp(name, "group") == 0)
    access->group = check_number(L, name, UINT32_MAX - 1);
  else
    return false;
  return true;
}

int core_check_kind(int folder, const char *name, mode_t kind) {
  struct stat status;
  if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
    return errno;
  if ((status.st_mode & S_IFMT) == kind)
    return 0;
  return kind == S_IFDIR ? ENOTDIR : EEXIST;
}

int core_push_link(lua_State *L, const char *path) {
  char target[PATH_MAX];
  ssize_t length = readlink(path, target, sizeof target);
  if (length < 0 && errno == EINVAL)
    return core_fail(L, "io", "cannot read link '%s': not a symbolic link",
                     path);
  if (length < 0)
    return core_fail_errno(L, errno, "read link", path);
  lua_pushlstring(L, target, (size_t)length);
  return 1;
}

/* Chance only avoids collisions: whoever uses the name does so exclusively. */
void core_temporary(char out[CORE_TEMPORARY_SIZE], const char *name) {
  unsigned int number;
  if (getrandom(&number, sizeof number, 0) != sizeof number)
    number = (unsigned int)getpid();
  snprintf(out, CORE_TEMPORARY_SIZE, ".%.*s.%06x", NAME_SHOWN, name,
           number & 0xFFFFFF);
}

int core_open_folder(int parent, const char *name) {
  int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  return openat(parent, name, parent == AT_FDCWD ? flags : flags | O_NOFOLLOW);
}

int core_finish(int descriptor, int error) {
  if (error == 0 && fsync(descriptor) != 0 && errno != EINVAL)
    error = errno;
  if (close(descriptor) != 0 && error == 0)
    error = errno;
  return error;
}

int core_open_parent(const char *path, const char **name) {
  char parent[PATH_MAX];
  size_t end = strlen(path);
  while (end > 1 && path[end - 1] == '/')
    end--;
  while (end > 0 && path[end - 1] != '/')
    end--;
  *name = path + end;
  if (end >= sizeof parent) {
    errno = ENAMETOOLONG;
    return -1;
  }
  memcpy(parent, path, end);
  parent[end] = '\0';
  return core_open_folder(AT_FDCWD, end > 0 ? parent : ".");
}

int core_sync_parent(const char *path) {
  const char *name;
  int folder = core_open_parent(path, &name);
  return folder < 0 ? errno : core_finish(folder, 0);
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

int core_write_file(int folder, const char *name, const core_access *access,
                    const core_part *parts, size_t count) {
  int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  int error, descriptor = openat(folder, name, flags, 0600);
  if (descriptor < 0)
    return errno;
  error = core_errno(fchown(descriptor, access->owner, access->group));
  if (error == 0)
    error = core_errno(fchmod(descriptor, access->mode));
  for (; error == 0 && count > 0; parts++, count--)
    error = parts->key != NULL
                ? core_key_write(descriptor, parts->key)
                : core_write(descriptor, parts->bytes, parts->length);
  error = core_finish(descriptor, error);
  if (error != 0)
    unlinkat(folder, name, 0);
  return error;
}
