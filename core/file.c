/*
 * file.c: core.file, the file system calls that Lua lacks, and whole files.
 *
 * A file that is written appears under its name complete, with its owner and
 * mode, and on the disk; no output follows a symbolic link.  Private keys are
 * read and written by key.c and generation.c, not here.  Reading a file and
 * closing it drops this process's fcntl locks on it: lock files and SQLite's
 * files are nothing to read.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BUFFER "core.file.buffer"
#define READ_LIMIT (1024 * 1024)
#define LIMIT_MAX (1024 * 1024 * 1024)
#define NOT_REGULAR (-1) /* beside the errno values */

typedef struct {
  char *bytes;
  size_t length, capacity;
} buffer;

/* Opens the folder that holds path, whose last component is *name (with its
 * trailing slashes); -1 with errno set on a failure. */
static int open_parent(const char *path, const char **name) {
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
  return open(end > 0 ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int sync_parent(const char *path) {
  const char *name;
  int folder = open_parent(path, &name), error;
  if (folder < 0)
    return errno;
  error = core_sync_folder(folder);
  close(folder);
  return error;
}

/* reading */

static int buffer_close(lua_State *L) {
  buffer *b = luaL_checkudata(L, 1, BUFFER);
  OPENSSL_clear_free(b->bytes, b->capacity);
  b->bytes = NULL;
  b->length = b->capacity = 0;
  return 0;
}

/* Makes room, never for more than one byte over limit. */
static bool grow(buffer *b, size_t limit, size_t hint) {
  size_t capacity = b->capacity > 0 ? 2 * b->capacity : hint + 1;
  char *bytes;
  if (capacity > limit + 1)
    capacity = limit + 1;
  bytes = OPENSSL_clear_realloc(b->bytes, b->capacity, capacity);
  if (bytes == NULL)
    return false;
  b->bytes = bytes;
  b->capacity = capacity;
  return true;
}

static int read_all(int descriptor, size_t limit, size_t hint, buffer *b) {
  for (;;) {
    ssize_t n;
    if (b->length == b->capacity && !grow(b, limit, hint))
      return ENOMEM;
    n = read(descriptor, b->bytes + b->length, b->capacity - b->length);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? errno : 0;
    b->length += (size_t)n;
    if (b->length > limit)
      return EFBIG;
  }
}

static int read_file(const char *path, size_t limit, buffer *b) {
  struct stat status;
  int error,
      descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (descriptor < 0)
    return errno;
  if (fstat(descriptor, &status) != 0)
    error = errno;
  else if (!S_ISREG(status.st_mode))
    error = NOT_REGULAR;
  else
    error = read_all(descriptor, limit, (size_t)status.st_size, b);
  close(descriptor);
  return error;
}

/*
 * file.read(path[, limit]) -> bytes
 *   | nil, message, "missing" | "denied" | "limit" | "io"
 * All of a regular file, or of standard input, whatever it is, when path is
 * "-"; limit is in bytes, 1 MiB unless given.
 */
static int l_read(lua_State *L) {
  const char *path = core_check_path(L, 1);
  lua_Integer limit = luaL_optinteger(L, 2, READ_LIMIT);
  buffer *b;
  int error;
  luaL_argcheck(L, limit >= 0 && limit <= LIMIT_MAX, 2, "limit out of range");
  b = lua_newuserdatauv(L, sizeof *b, 0);
  memset(b, 0, sizeof *b);
  luaL_setmetatable(L, BUFFER);
  lua_toclose(L, -1);
  if (strcmp(path, "-") == 0) {
    path = "standard input";
    error = read_all(STDIN_FILENO, (size_t)limit, BUFSIZ, b);
  } else {
    error = read_file(path, (size_t)limit, b);
  }
  if (error == EFBIG)
    return core_fail(L, "limit", "cannot read '%s': more than %I bytes", path,
                     limit);
  if (error == NOT_REGULAR)
    return core_fail(L, "io", "cannot read '%s': not a regular file", path);
  if (error != 0)
    return core_fail_errno(L, error, "read", path);
  lua_pushlstring(L, b->bytes != NULL ? b->bytes : "", b->length);
  return 1;
}

/* writing */

/* Whether a file may be renamed onto name: nothing but a file is replaced. */
static int replaceable(int folder, const char *name) {
  struct stat status;
  if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
    return errno == ENOENT ? 0 : errno;
  return S_ISREG(status.st_mode) ? 0 : NOT_REGULAR;
}

static int write_in(int folder, const char *name, const char *bytes,
                    size_t length, const core_access *access, bool exclusive) {
  char temporary[CORE_TEMPORARY_SIZE];
  int descriptor, error = exclusive ? 0 : replaceable(folder, name);
  if (error != 0 || (error = core_temporary(temporary, name)) != 0 ||
      (error = core_create(folder, temporary, access, &descriptor)) != 0)
    return error;
  error = core_write(descriptor, bytes, length);
  if (error == 0 && fsync(descriptor) != 0)
    error = errno;
  if (close(descriptor) != 0 && error == 0)
    error = errno;
  if (error == 0 && exclusive)
    error = core_rename_new(folder, temporary, name);
  else if (error == 0 && renameat(folder, temporary, folder, name) != 0)
    error = errno;
  if (error != 0)
    unlinkat(folder, temporary, 0);
  return error != 0 ? error : core_sync_folder(folder);
}

static int write_file(const char *path, const char *bytes, size_t length,
                      const core_access *access, bool exclusive) {
  const char *name;
  int folder = open_parent(path, &name), error;
  if (folder < 0)
    return errno;
  error = write_in(folder, name, bytes, length, access, exclusive);
  close(folder);
  return error;
}

/* The options table at index. */
static void check_manner(lua_State *L, int index, core_access *access,
                         bool *exclusive) {
  static const char *const fields[] = {"exclusive", "group", "mode", "owner",
                                       NULL};
  if (lua_isnoneornil(L, index))
    return;
  core_check_fields(L, index, fields);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1))
    if (!core_take_access(L, lua_tostring(L, -2), access)) {
      luaL_argcheck(L, lua_isboolean(L, -1), index, "exclusive is no boolean");
      *exclusive = lua_toboolean(L, -1);
    }
}

/*
 * file.write(path, bytes[, { mode =, exclusive =, owner =, group = }]) -> true
 *   | nil, message, "exists" | "missing" | "denied" | "io"
 * Writes a whole file, seen by nobody before it is complete.  exclusive (true
 * unless given) refuses a path that exists; else a regular file is replaced,
 * and anything else, such as a link or a device, refused ("exists").  mode is
 * 0644 unless given, whatever the umask; owner and group are numbers.  File
 * and folder are on the disk when it returns.
 */
static int l_write(lua_State *L) {
  const char *path = core_check_path(L, 1);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  core_access access = {0644, (uid_t)-1, (gid_t)-1};
  bool exclusive = true;
  int error;
  lua_settop(L, 3);
  check_manner(L, 3, &access, &exclusive);
  error = write_file(path, bytes, length, &access, exclusive);
  if (error == NOT_REGULAR)
    return core_fail(L, "exists", "cannot write '%s': not a regular file",
                     path);
  if (error != 0)
    return core_fail_errno(L, error, "write", path);
  lua_pushboolean(L, 1);
  return 1;
}

/* folders */

static mode_t check_mode(lua_State *L, int index) {
  lua_Integer mode = luaL_checkinteger(L, index);
  luaL_argcheck(L, mode >= 0 && mode <= 07777, index, "no mode of a folder");
  return (mode_t)mode;
}

static int make_folder(const char *path, mode_t mode) {
  int folder, error = 0;
  if (mkdir(path, 0700) != 0)
    return errno;
  folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0 || fchmod(folder, mode) != 0)
    error = errno;
  else
    error = core_sync_folder(folder);
  if (folder >= 0)
    close(folder);
  if (error == 0)
    error = sync_parent(path);
  else
    rmdir(path);
  return error;
}

/* Makes what is missing of path, which it cuts and mends on its way. */
static int make_folders(char *path, mode_t mode) {
  struct stat status;
  char *end = path, cut;
  int error = 0;
  do {
    end += strspn(end, "/");
    end += strcspn(end, "/");
    cut = *end;
    *end = '\0';
    if (stat(path, &status) != 0) {
      error = errno == ENOENT ? make_folder(path, mode) : errno;
      if (error == EEXIST && stat(path, &status) == 0)
        error = S_ISDIR(status.st_mode) ? 0 : EEXIST;
    } else if (!S_ISDIR(status.st_mode)) {
      error = EEXIST;
    }
    if (error == 0)
      *end = cut;
  } while (error == 0 && cut != '\0');
  return error;
}

/*
 * file.mkdir(path, mode) -> true
 *   | nil, message, "exists" | "missing" | "denied" | "io"
 * One folder with exactly that mode, whatever the umask.
 */
static int l_mkdir(lua_State *L) {
  const char *path = core_check_path(L, 1);
  int error = make_folder(path, check_mode(L, 2));
  if (error != 0)
    return core_fail_errno(L, error, "make folder", path);
  lua_pushboolean(L, 1);
  return 1;
}

/*
 * file.mkdirs(path, mode) -> true
 *   | nil, message, "exists" | "denied" | "io"
 * The folder and the missing ones above it, each with that mode; folders that
 * are there stay as they are.  "exists": something there is no folder.
 */
static int l_mkdirs(lua_State *L) {
  const char *path = core_check_path(L, 1);
  mode_t mode = check_mode(L, 2);
  char copy[PATH_MAX];
  int error = ENAMETOOLONG;
  if (strlen(path) < sizeof copy)
    error = make_folders(strcpy(copy, path), mode);
  if (error != 0)
    return core_fail_errno(L, error, "make folder",
                           error == ENAMETOOLONG ? path : copy);
  lua_pushboolean(L, 1);
  return 1;
}

/* asking */

/*
 * file.stat(path[, follow]) -> { kind =, size =, mode =, owner =, group =,
 *   modified = } | nil, message, "missing" | "denied" | "io"
 * kind is "file", "folder", "link" or "other", size in bytes, mode without
 * the kind, owner and group numbers, modified epoch seconds.  A link itself,
 * unless follow is true.
 */
static int l_stat(lua_State *L) {
  const char *path = core_check_path(L, 1);
  struct stat status;
  int flags = lua_toboolean(L, 2) ? 0 : AT_SYMLINK_NOFOLLOW;
  if (fstatat(AT_FDCWD, path, &status, flags) != 0)
    return core_fail_errno(L, errno, "look at", path);
  lua_createtable(L, 0, 6);
  lua_pushstring(L, S_ISREG(status.st_mode)   ? "file"
                    : S_ISDIR(status.st_mode) ? "folder"
                    : S_ISLNK(status.st_mode) ? "link"
                                              : "other");
  lua_setfield(L, -2, "kind");
  lua_pushinteger(L, (lua_Integer)status.st_size);
  lua_setfield(L, -2, "size");
  lua_pushinteger(L, (lua_Integer)(status.st_mode & 07777));
  lua_setfield(L, -2, "mode");
  lua_pushinteger(L, (lua_Integer)status.st_uid);
  lua_setfield(L, -2, "owner");
  lua_pushinteger(L, (lua_Integer)status.st_gid);
  lua_setfield(L, -2, "group");
  lua_pushinteger(L, (lua_Integer)status.st_mtime);
  lua_setfield(L, -2, "modified");
  return 1;
}

/*
 * file.filesystem(path) -> { type =, free =, inodes = }
 *   | nil, message, "missing" | "denied" | "io"
 * type is f_type of statfs(2), free the bytes that the caller may still
 * write, inodes the free ones (nil where the file system counts none).
 */
static int l_filesystem(lua_State *L) {
  const char *path = core_check_path(L, 1);
  struct statfs status;
  if (statfs(path, &status) != 0)
    return core_fail_errno(L, errno, "look at the file system of", path);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, (lua_Integer)(uint32_t)status.f_type);
  lua_setfield(L, -2, "type");
  lua_pushinteger(L, (lua_Integer)status.f_bavail *
                         (lua_Integer)(status.f_frsize > 0 ? status.f_frsize
                                                           : status.f_bsize));
  lua_setfield(L, -2, "free");
  if (status.f_files > 0) {
    lua_pushinteger(L, (lua_Integer)status.f_ffree);
    lua_setfield(L, -2, "inodes");
  }
  return 1;
}

/* file.resolve(path) -> absolute path without links
 *   | nil, message, "missing" | "denied" | "io" */
static int l_resolve(lua_State *L) {
  const char *path = core_check_path(L, 1);
  char resolved[PATH_MAX];
  if (realpath(path, resolved) == NULL)
    return core_fail_errno(L, errno, "resolve", path);
  lua_pushstring(L, resolved);
  return 1;
}

/* file.link(path) -> what the symbolic link says
 *   | nil, message, "missing" | "denied" | "io" (also: it is no link) */
static int l_link(lua_State *L) {
  const char *path = core_check_path(L, 1);
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

/* file.remove(path) -> true | nil, message, "missing" | "denied" | "io"
 * A file, a link itself, or an empty folder; gone from the disk as well. */
static int l_remove(lua_State *L) {
  const char *path = core_check_path(L, 1);
  int error = remove(path) == 0 ? sync_parent(path) : errno;
  if (error != 0)
    return core_fail_errno(L, error, "remove", path);
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg functions[] = {
    {"filesystem", l_filesystem},
    {"link", l_link},
    {"mkdir", l_mkdir},
    {"mkdirs", l_mkdirs},
    {"read", l_read},
    {"remove", l_remove},
    {"resolve", l_resolve},
    {"stat", l_stat},
    {"write", l_write},
    {NULL, NULL},
};

static const luaL_Reg methods[] = {{NULL, NULL}};

static const luaL_Reg metamethods[] = {
    {"__close", buffer_close}, {"__gc", buffer_close}, {NULL, NULL}};

int luaopen_core_file(lua_State *L) {
  core_type(L, BUFFER, methods, metamethods);
  luaL_newlib(L, functions);
  return 1;
}
