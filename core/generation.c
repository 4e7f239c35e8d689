/*
 * generation.c: core.generation, folders of files that appear at once.
 *
 * A generation is written under a hidden name, ".NAME.xxxxxx", and renamed
 * when every byte of it is on the disk, so that a folder with a whole name is
 * whole.  One rename(2) of a symbolic link chooses between generations.  A
 * process that is killed leaves at most a hidden name behind, which remove
 * takes away.  Writers of one folder keep out of each other's way by a lock
 * (lock.c); what a generation holds, and which one is chosen, is Lua's.
 */
#include "core.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER_MODE 0755
#define NAME_LIMIT 240 /* bytes, so that a temporary name has room */
#define DIGITS 6       /* random digits that end a temporary name */

typedef struct {
  EVP_PKEY *key; /* borrowed; NULL: text */
  const char *bytes;
  size_t length;
} part;

typedef struct {
  const char *name;
  core_access access;
  part *parts;
  size_t count;
  bool secret, has_mode;
} file;

/* What to write.  Names, texts and keys stay the table's, which outlives it:
 * nothing is allocated in Lua between the reading of the table and the end
 * of the writing. */
typedef struct {
  size_t files;
  file *file;
  const char *failed; /* the file that could not be written, or NULL */
} plan;

/* checking arguments */

static const char *check_name(lua_State *L, int index) {
  size_t length;
  const char *name = luaL_checklstring(L, index, &length);
  luaL_argcheck(L,
                length > 0 && length <= NAME_LIMIT && name[0] != '.' &&
                    strcspn(name, "/") == length,
                index, "not one name without a leading dot");
  return name;
}

/* The part at the top of the stack. */
static void take_part(lua_State *L, file *f, part *p) {
  p->key = core_key_test(L, -1);
  if (p->key == NULL && lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "a part of '%s' is neither text nor a key", f->name);
  if (p->key != NULL)
    f->secret = true;
  else
    p->bytes = lua_tolstring(L, -1, &p->length);
}

/* The description at the top of the stack. */
static void take_file(lua_State *L, file *f) {
  for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
    if (lua_isinteger(L, -2)) {
      lua_Unsigned number = (lua_Unsigned)lua_tointeger(L, -2) - 1;
      if (number >= f->count)
        luaL_error(L, "the parts of '%s' have a gap", f->name);
      take_part(L, f, &f->parts[number]);
    } else if (lua_type(L, -2) != LUA_TSTRING ||
               !core_take_access(L, lua_tostring(L, -2), &f->access)) {
      luaL_error(L, "'%s' has a field that is no part, mode, owner or group",
                 f->name);
    } else if (strcmp(lua_tostring(L, -2), "mode") == 0) {
      f->has_mode = true;
    }
  }
  if (!f->has_mode)
    f->access.mode = f->secret ? 0600 : 0644;
  if (f->secret && (f->access.mode & S_IRWXO) != 0)
    luaL_error(L, "'%s' holds a key: its mode must give others nothing",
               f->name);
}

/* Pushes the plan of the table at index, which holds every file and part. */
static plan *push_plan(lua_State *L, int index) {
  size_t files = 0, parts = 0;
  file *f;
  part *p;
  plan *made;
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING, index,
                  "a file is unnamed");
    check_name(L, lua_absindex(L, -2));
    luaL_argcheck(L, lua_istable(L, -1), index, "a file is no table");
    files++;
    parts += lua_rawlen(L, -1);
  }
  made = lua_newuserdatauv(
      L, sizeof *made + files * sizeof *f + parts * sizeof *p, 0);
  made->files = files;
  made->file = f = (file *)(made + 1);
  made->failed = NULL;
  p = (part *)(f + files);
  memset(f, 0, files * sizeof *f + parts * sizeof *p);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1), f++) {
    f->name = lua_tostring(L, -2);
    f->access.owner = (uid_t)-1;
    f->access.group = (gid_t)-1;
    f->parts = p;
    f->count = lua_rawlen(L, -1);
    p += f->count;
    take_file(L, f);
  }
  return made;
}

/* folders */

static int open_folder(int parent, const char *name, int *folder) {
  int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  if (parent != AT_FDCWD)
    flags |= O_NOFOLLOW;
  *folder = openat(parent, name, flags);
  return *folder >= 0 ? 0 : errno;
}

/* What the name itself is: 0 when a folder (or a link), else why not. */
static int check_kind(int parent, const char *name, mode_t kind) {
  struct stat status;
  if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) != 0)
    return errno;
  if ((status.st_mode & S_IFMT) == kind)
    return 0;
  return kind == S_IFDIR ? ENOTDIR : EEXIST;
}

/* Removes every file of an open folder, and closes it. */
static int empty_folder(int folder) {
  DIR *list = fdopendir(folder);
  const struct dirent *entry;
  int error = 0;
  if (list == NULL) {
    error = errno;
    close(folder);
    return error;
  }
  while (error == 0 && (errno = 0, entry = readdir(list)) != NULL)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
        unlinkat(folder, entry->d_name, 0) != 0)
      error = errno;
  if (error == 0)
    error = errno;
  closedir(list);
  return error;
}

/* Removes a folder of files. */
static int remove_flat(int parent, const char *name) {
  int folder, error = open_folder(parent, name, &folder);
  if (error == 0)
    error = empty_folder(folder);
  if (error == 0 && unlinkat(parent, name, AT_REMOVEDIR) != 0)
    error = errno;
  return error;
}

/* writing */

static int write_part(int descriptor, const part *p) {
  if (p->key != NULL)
    return core_key_write(descriptor, p->key);
  return core_write(descriptor, p->bytes, p->length);
}

static int write_file(int folder, const file *f) {
  size_t i;
  int descriptor, error = core_create(folder, f->name, &f->access, &descriptor);
  if (error != 0)
    return error;
  for (i = 0; error == 0 && i < f->count; i++)
    error = write_part(descriptor, &f->parts[i]);
  if (error == 0 && fsync(descriptor) != 0)
    error = errno;
  if (close(descriptor) != 0 && error == 0)
    error = errno;
  return error;
}

/* Writes every file into a folder, and puts it on the disk. */
static int write_files(int parent, const char *name, plan *p) {
  size_t i;
  int folder, error = open_folder(parent, name, &folder);
  if (error != 0)
    return error;
  for (i = 0; error == 0 && i < p->files; i++)
    if ((error = write_file(folder, &p->file[i])) != 0)
      p->failed = p->file[i].name;
  if (error == 0 && fchmod(folder, FOLDER_MODE) != 0)
    error = errno;
  if (error == 0)
    error = core_sync_folder(folder);
  close(folder);
  return error;
}

static int write_in(int parent, const char *name, plan *p) {
  char temporary[CORE_TEMPORARY_SIZE];
  const char *made = temporary;
  struct stat status;
  int error = core_temporary(temporary, name);
  if (error != 0)
    return error;
  if (fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
    return EEXIST;
  if (mkdirat(parent, temporary, 0700) != 0)
    return errno;
  error = write_files(parent, temporary, p);
  if (error == 0 && (error = core_rename_new(parent, temporary, name)) == 0) {
    made = name;
    error = core_sync_folder(parent);
  }
  if (error != 0)
    remove_flat(parent, made);
  return error;
}

static int write_generation(const char *dir, const char *name, plan *p) {
  int parent, error = open_folder(AT_FDCWD, dir, &parent);
  if (error != 0)
    return error;
  error = write_in(parent, name, p);
  close(parent);
  return error;
}

/*
 * generation.write(dir, name, files) -> true
 *   | nil, message, "exists" | "missing" | "denied" | "io"
 * files: { ["name"] = { part, ..., mode =, owner =, group = }, ... }, a part
 * being text or a core.key (as PKCS #8 PEM).  A file that holds a key has mode
 * 0600 unless given, and may give others nothing; another one 0644.  After a
 * failure nothing of it is left; after true it is whole and on the disk.
 */
static int l_write(lua_State *L) {
  const char *dir = core_check_path(L, 1), *name = check_name(L, 2);
  plan *p;
  int error;
  luaL_checktype(L, 3, LUA_TTABLE);
  p = push_plan(L, 3);
  error = write_generation(dir, name, p);
  if (error != 0 && p->failed != NULL)
    name = lua_pushfstring(L, "%s/%s", name, p->failed);
  if (error != 0)
    return core_fail_errno(L, error, "write",
                           lua_pushfstring(L, "%s/%s", dir, name));
  lua_pushboolean(L, 1);
  return 1;
}

/* switching */

static int switch_in(int parent, const char *link, const char *name) {
  char temporary[CORE_TEMPORARY_SIZE];
  int error = check_kind(parent, link, S_IFLNK);
  if (error != 0 && error != ENOENT)
    return error;
  if (name == NULL) {
    if (error == 0 && unlinkat(parent, link, 0) != 0)
      return errno;
    return core_sync_folder(parent);
  }
  error = core_temporary(temporary, link);
  if (error != 0)
    return error;
  if (symlinkat(name, parent, temporary) != 0)
    return errno;
  if (renameat(parent, temporary, parent, link) != 0) {
    error = errno;
    unlinkat(parent, temporary, 0);
    return error;
  }
  return core_sync_folder(parent);
}

/* *object becomes the one of the two names that the failure is about. */
static int switch_link(const char *dir, const char *link, const char *name,
                       const char **object) {
  int parent, error = open_folder(AT_FDCWD, dir, &parent);
  *object = link;
  if (error != 0)
    return error;
  if (name != NULL && (error = check_kind(parent, name, S_IFDIR)) != 0)
    *object = name;
  else
    error = switch_in(parent, link, name);
  close(parent);
  return error;
}

/*
 * generation.switch(dir, link, name) -> true
 *   | nil, message, "missing" | "exists" | "denied" | "io"
 * Makes dir/link a relative symbolic link to the folder dir/name, at once;
 * name nil takes the link away.  "exists": something else than a link has its
 * name.  A failure leaves the link as it was, but "io" of the disk itself.
 */
static int l_switch(lua_State *L) {
  const char *dir = core_check_path(L, 1), *link = check_name(L, 2);
  const char *name = lua_isnoneornil(L, 3) ? NULL : check_name(L, 3);
  const char *object;
  int error = switch_link(dir, link, name, &object);
  if (error == EEXIST)
    return core_fail(L, "exists", "cannot switch '%s/%s': not a symbolic link",
                     dir, link);
  if (error != 0)
    return core_fail_errno(L, error, object == name ? "switch to" : "switch",
                           lua_pushfstring(L, "%s/%s", dir, object));
  lua_pushboolean(L, 1);
  return 1;
}

/*
 * generation.current(dir, link) -> name
 *   | nil, message, "missing" | "denied" | "io"
 * The generation that the link names, there or not.  "io": it is no link, or
 * leads to something that is not beside it.
 */
static int l_current(lua_State *L) {
  const char *dir = core_check_path(L, 1), *link = check_name(L, 2);
  const char *path = lua_pushfstring(L, "%s/%s", dir, link);
  char target[PATH_MAX];
  ssize_t length = readlink(path, target, sizeof target - 1);
  if (length < 0 && errno == EINVAL)
    return core_fail(L, "io", "cannot read link '%s': not a symbolic link",
                     path);
  if (length < 0)
    return core_fail_errno(L, errno, "read link", path);
  while (length > 1 && target[length - 1] == '/')
    length--;
  target[length] = '\0';
  if (target[0] == '.' || strchr(target, '/') != NULL)
    return core_fail(L, "io", "cannot use link '%s': '%s' is no name beside it",
                     path, target);
  lua_pushstring(L, target);
  return 1;
}

/* removing */

/* Whether a name is ".NAME.xxxxxx"; any NAME when name is NULL. */
static bool is_temporary(const char *entry, const char *name) {
  size_t length = strlen(entry);
  if (length < DIGITS + 3 || entry[0] != '.' ||
      entry[length - DIGITS - 1] != '.' ||
      strspn(entry + length - DIGITS, "0123456789abcdef") != DIGITS)
    return false;
  return name == NULL || (length == strlen(name) + DIGITS + 2 &&
                          strncmp(entry + 1, name, strlen(name)) == 0);
}

/* Removes what an interrupted write, switch or remove of name left. */
static int remove_leftover(int parent, const char *entry, const char *name) {
  char target[NAME_LIMIT + 1];
  ssize_t length;
  if (!is_temporary(entry, NULL))
    return 0;
  length = readlinkat(parent, entry, target, sizeof target);
  if (length >= 0) {
    if ((size_t)length != strlen(name) ||
        memcmp(target, name, (size_t)length) != 0)
      return 0;
    return unlinkat(parent, entry, 0) == 0 ? 0 : errno;
  }
  if (!is_temporary(entry, name) || check_kind(parent, entry, S_IFDIR) != 0)
    return 0;
  return remove_flat(parent, entry);
}

static int remove_leftovers(int parent, const char *name) {
  const struct dirent *entry;
  DIR *list;
  int folder, error = open_folder(parent, ".", &folder);
  if (error != 0)
    return error;
  list = fdopendir(folder);
  if (list == NULL) {
    error = errno;
    close(folder);
    return error;
  }
  while (error == 0 && (errno = 0, entry = readdir(list)) != NULL)
    error = remove_leftover(parent, entry->d_name, name);
  if (error == 0)
    error = errno;
  closedir(list);
  return error;
}

/* The whole name goes first: half a generation never has one. */
static int remove_in(int parent, const char *name) {
  char temporary[CORE_TEMPORARY_SIZE];
  int error = check_kind(parent, name, S_IFDIR);
  if (error == 0) {
    error = core_temporary(temporary, name);
    if (error == 0)
      error = core_rename_new(parent, name, temporary);
  }
  if (error != 0 && error != ENOENT)
    return error;
  error = remove_leftovers(parent, name);
  return error != 0 ? error : core_sync_folder(parent);
}

/*
 * generation.remove(dir, name) -> true
 *   | nil, message, "missing" | "denied" | "io"
 * Removes the folder of files dir/name and what an interrupted write, switch
 * or remove of it left; what is not there is removed already.  "missing": it
 * is no folder; "io" also: it holds a folder.
 */
static int l_remove(lua_State *L) {
  const char *dir = core_check_path(L, 1), *name = check_name(L, 2);
  int parent, error = open_folder(AT_FDCWD, dir, &parent);
  if (error == 0) {
    error = remove_in(parent, name);
    close(parent);
  } else if (error == ENOENT) {
    error = 0;
  }
  if (error != 0)
    return core_fail_errno(L, error, "remove",
                           lua_pushfstring(L, "%s/%s", dir, name));
  lua_pushboolean(L, 1);
  return 1;
}

static const luaL_Reg functions[] = {
    {"current", l_current}, {"lock", core_lock}, {"remove", l_remove},
    {"switch", l_switch},   {"write", l_write},  {NULL, NULL},
};

int luaopen_core_generation(lua_State *L) {
  core_lock_type(L);
  luaL_newlib(L, functions);
  return 1;
}
