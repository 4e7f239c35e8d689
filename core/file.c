/*
 * file.c: core.file, whole files and the file system calls that Lua lacks.
 *
 * A file that is written appears under its name complete, with its owner and
 * mode, and on the disk; no output follows a symbolic link.  Closing a file
 * drops this process's fcntl locks on it: no lock file and no store is read.
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

#define READ_LIMIT (1024 * 1024)
#define PASSWORD_LIMIT 4096
#define LIMIT_MAX (1024 * 1024 * 1024)
#define NOT_REGULAR (-1) /* beside the errno values */

/* reading */

static int read_all(int descriptor, char *bytes, size_t size, size_t *length) {
  ssize_t n;
  do {
    n = read(descriptor, bytes + *length, size - *length);
    if (n < 0 && errno != EINTR)
      return errno;
    *length += n > 0 ? (size_t)n : 0;
  } while (n != 0 && *length < size);
  return 0;
}

static int read_file(const char *path, char *bytes, size_t size,
                     size_t *length) {
  struct stat status;
  int error, flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
  int descriptor = open(path, flags);
  if (descriptor < 0)
    return errno;
  error = core_errno(fstat(descriptor, &status));
  if (error == 0)
    error = S_ISREG(status.st_mode) ? read_all(descriptor, bytes, size, length)
                                    : NOT_REGULAR;
  close(descriptor);
  return error;
}

/* Reads what path names into bytes of limit + 1; false: nil, message, code is
 * pushed. */
static bool read_path(lua_State *L, const char *path, char *bytes, size_t limit,
                      size_t *length) {
  bool is_input = strcmp(path, "-") == 0;
  int error = is_input ? read_all(STDIN_FILENO, bytes, limit + 1, length)
                       : read_file(path, bytes, limit + 1, length);
  path = is_input ? "standard input" : path;
  if (error == NOT_REGULAR)
    core_fail(L, "io", "cannot read '%s': not a regular file", path);
  else if (error != 0)
    core_fail_errno(L, error, "read", path);
  else if (*length > limit)
    core_fail(L, "limit", "cannot read '%s': more than %I bytes", path,
              (lua_Integer)limit);
  return error == 0 && *length <= limit;
}

static size_t opt_limit(lua_State *L, int index) {
  lua_Integer limit = luaL_optinteger(L, index, READ_LIMIT);
  luaL_argcheck(L, limit >= 0 && limit <= LIMIT_MAX, index,
                "limit out of range");
  return (size_t)limit;
}

/*
 * file.read(path[, limit]) -> bytes
 *   | nil, message, "missing" | "denied" | "limit" | "io"
 * All of a regular file, or of standard input, whatever it is, when path is
 * "-"; limit is in bytes, 1 MiB unless given.
 */
static int l_read(lua_State *L) {
  const char *path = core_check_path(L, 1);
  size_t limit = opt_limit(L, 2), length = 0;
  luaL_Buffer buffer; /* the pages that are not read into cost nothing */
  char *bytes = luaL_buffinitsize(L, &buffer, limit + 1);
  if (!read_path(L, path, bytes, limit, &length))
    return 3;
  luaL_pushresultsize(&buffer, length);
  return 1;
}

static int l_forget(lua_State *L) {
  core_secret *secret = luaL_checkudata(L, 1, CORE_SECRET);
  OPENSSL_cleanse(secret->bytes, secret->size);
  free(secret->bytes);
  memset(secret, 0, sizeof *secret);
  return 0;
}

core_secret *core_secret_new(lua_State *L, size_t size) {
  static const luaL_Reg metamethods[] = {
      {"__gc", l_forget}, {"__close", l_forget}, {NULL, NULL}};
  core_secret *secret = lua_newuserdatauv(L, sizeof *secret, 0);
  memset(secret, 0, sizeof *secret);
  if (luaL_newmetatable(L, CORE_SECRET))
    luaL_setfuncs(L, metamethods, 0);
  lua_setmetatable(L, -2);
  secret->bytes = malloc(size + 1); /* of which not all is written to */
  if (secret->bytes == NULL)
    luaL_error(L, "not enough memory");
  secret->bytes[0] = '\0';
  secret->size = size + 1;
  return secret;
}

bool core_push_secret(lua_State *L, const char *path, size_t limit) {
  core_secret *secret = core_secret_new(L, limit);
  if (!read_path(L, path, secret->bytes, limit, &secret->length))
    return false;
  secret->bytes[secret->length] = '\0';
  secret->size = secret->length + 1; /* the rest was never written to */
  return true;
}

/*
 * file.secret(path[, limit]) -> secret
 *   | nil, message, "missing" | "denied" | "limit" | "io"
 * The same as file.read, in a box that Lua cannot look into: key.load,
 * cert.parse, request.parse and core.bundle take it where they take a string.
 */
static int l_secret(lua_State *L) {
  return core_push_secret(L, core_check_path(L, 1), opt_limit(L, 2)) ? 1 : 3;
}

/*
 * file.password(path) -> secret
 *   | nil, message, "missing" | "denied" | "limit" | "parse" | "io"
 * The first line, not empty, of a file of at most 4096 bytes, without its end
 * (LF or CRLF).
 */
static int l_password(lua_State *L) {
  core_secret *secret;
  if (!core_push_secret(L, core_check_path(L, 1), PASSWORD_LIMIT))
    return 3;
  secret = lua_touserdata(L, -1);
  secret->length = strcspn(secret->bytes, "\n");
  if (secret->length > 0 && secret->bytes[secret->length - 1] == '\r')
    secret->length--;
  secret->bytes[secret->length] = '\0';
  if (secret->length == 0)
    return core_fail(L, "parse",
                     "cannot read a password from '%s': its first "
                     "line is empty",
                     lua_tostring(L, 1));
  return 1;
}

/* writing */

static int write_in(int folder, const char *name, const core_part *text,
                    const core_access *access, bool exclusive) {
  char temporary[CORE_TEMPORARY_SIZE];
  unsigned int flags = exclusive ? RENAME_NOREPLACE : 0;
  int error = exclusive ? 0 : core_check_kind(folder, name, S_IFREG);
  if (error != 0 && error != ENOENT)
    return error;
  core_temporary(temporary, name);
  error = core_write_file(folder, temporary, access, text, 1);
  if (error != 0)
    return error;
  error = core_errno(renameat2(folder, temporary, folder, name, flags));
  if (error != 0)
    unlinkat(folder, temporary, 0);
  return error;
}

/*
 * file.write(path, bytes[, { mode =, exclusive =, owner =, group = }]) -> true
 *   | nil, message, "exists" | "missing" | "denied" | "io"
 * A whole file, seen by nobody before it is complete and on the disk.
 * exclusive (true unless given) refuses a path that exists; else a regular
 * file is replaced, anything else refused ("exists").  mode is 0644 unless
 * given, whatever the umask; owner and group are numbers.
 */
static int l_write(lua_State *L) {
  static const char *const fields[] = {"exclusive", "group", "mode", "owner",
                                       NULL};
  const char *path = core_check_path(L, 1), *name;
  core_part text = {NULL, NULL, 0};
  core_access access = {0644, (uid_t)-1, (gid_t)-1};
  bool exclusive = true;
  int folder, error;
  text.bytes = luaL_checklstring(L, 2, &text.length);
  if (!lua_isnoneornil(L, 3)) {
    core_check_fields(L, 3, fields);
    for (lua_pushnil(L); lua_next(L, 3) != 0; lua_pop(L, 1))
      if (!core_take_access(L, lua_tostring(L, -2), &access)) {
        luaL_argcheck(L, lua_isboolean(L, -1), 3, "exclusive is no boolean");
        exclusive = lua_toboolean(L, -1);
      }
  }
  folder = core_open_parent(path, &name);
  error = errno;
  if (folder >= 0)
    error =
        core_finish(folder, write_in(folder, name, &text, &access, exclusive));
  if (error == EEXIST && !exclusive)
    return core_fail(L, "exists", "cannot write '%s': not a regular file",
                     path);
  return core_done(L, error, "write", path);
}

/* folders */

static mode_t check_mode(lua_State *L, int index) {
  lua_Integer mode = luaL_checkinteger(L, index);
  luaL_argcheck(L, mode >= 0 && mode <= 07777, index, "no mode of a folder");
  return (mode_t)mode;
}

static int make_folder(const char *path, mode_t mode) {
  int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, folder, error;
  if (mkdir(path, 0700) != 0 || (folder = open(path, flags)) < 0)
    return errno;
  error = core_finish(folder, core_errno(fchmod(folder, mode)));
  return error != 0 ? error : core_sync_parent(path);
}

/*
 * file.mkdir(path, mode) -> true
 *   | nil, message, "exists" | "missing" | "denied" | "io"
 * One folder with exactly that mode, whatever the umask.
 */
static int l_mkdir(lua_State *L) {
  const char *path = core_check_path(L, 1);
  int error = make_folder(path, check_mode(L, 2));
  return core_done(L, error, "make folder", path);
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
  char copy[PATH_MAX], *end = copy, cut;
  struct stat status;
  int error;
  if (strlen(path) >= sizeof copy)
    return core_fail_errno(L, ENAMETOOLONG, "make folder", path);
  strcpy(copy, path);
  do {
    end += strspn(end, "/");
    end += strcspn(end, "/");
    cut = *end;
    *end = '\0';
    error = make_folder(copy, mode);
    if (error == EEXIST && stat(copy, &status) == 0 && S_ISDIR(status.st_mode))
      error = 0;
    if (error == 0)
      *end = cut;
  } while (error == 0 && cut != '\0');
  return core_done(L, error, "make folder", copy);
}

/* asking */

static void set_integer(lua_State *L, const char *field, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, field);
}

/*
 * file.stat(path[, follow]) -> { kind =, size =, mode =, owner =, group =,
 *   modified = } | nil, message, "missing" | "denied" | "io"
 * kind is "file", "folder", "link" or "other", size in bytes, modified epoch
 * seconds.  A link itself, unless follow is true.
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
  set_integer(L, "size", status.st_size);
  set_integer(L, "mode", status.st_mode & 07777);
  set_integer(L, "owner", status.st_uid);
  set_integer(L, "group", status.st_gid);
  set_integer(L, "modified", status.st_mtime);
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
  set_integer(L, "type", (uint32_t)status.f_type);
  set_integer(L, "free", (lua_Integer)status.f_bavail * status.f_frsize);
  if (status.f_files > 0)
    set_integer(L, "inodes", (lua_Integer)status.f_ffree);
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
  return core_push_link(L, core_check_path(L, 1));
}

/* file.remove(path) -> true | nil, message, "missing" | "denied" | "io"
 * A file, a link itself, or an empty folder; gone from the disk as well. */
static int l_remove(lua_State *L) {
  const char *path = core_check_path(L, 1);
  int error = remove(path) == 0 ? core_sync_parent(path) : errno;
  return core_done(L, error, "remove", path);
}

/*
 * file.guard(path, verb) -> true | nil, message, "denied" | "missing" | "io"
 * Whether only root, the user and the owner of the program's own file could
 * have chosen and changed what path leads to; "refused to VERB 'PATH': ...".
 */
static int l_guard(lua_State *L) {
  const char *path = core_check_path(L, 1);
  struct stat status;
  int refused = core_check_way(L, path, luaL_checkstring(L, 2), &status);
  return refused != 0 ? refused : core_done(L, 0, "", path);
}

static const luaL_Reg functions[] = {
    {"filesystem", l_filesystem},
    {"guard", l_guard},
    {"link", l_link},
    {"mkdir", l_mkdir},
    {"mkdirs", l_mkdirs},
    {"password", l_password},
    {"read", l_read},
    {"remove", l_remove},
    {"resolve", l_resolve},
    {"secret", l_secret},
    {"stat", l_stat},
    {"write", l_write},
    {NULL, NULL},
};

int luaopen_core_file(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
