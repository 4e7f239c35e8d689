/*
 * generation.c: core.generation, folders of files that appear at once.
 *
 * A generation is written under a hidden name, ".NAME.xxxxxx", and renamed
 * when all of it is on the disk, so that what has a whole name is whole.  One
 * rename(2) of a symbolic link chooses between generations.  A process that is
 * killed leaves at most a hidden name behind, which remove takes away.  Writers
 * of one folder take a lock (lock.c); what is written and chosen is Lua's.
 */
#include "core.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER_MODE 0755
#define MODE_UNSET ((mode_t)-1)
#define NAME_LIMIT 240 /* bytes, so that a temporary name has room */

typedef struct {
  const char *name; /* NULL: the end of the list */
  core_access access;
  core_part *parts;
  size_t count;
} file;

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

/* The part at the top of the stack; whether it is a key. */
static bool take_part(lua_State *L, const file *f, lua_Unsigned number) {
  core_part *p;
  if (number < 1 || number > f->count)
    luaL_error(L, "the parts of '%s' have a gap", f->name);
  p = &f->parts[number - 1];
  p->key = core_key_test(L, -1);
  if (p->key != NULL)
    return true;
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "a part of '%s' is neither text nor a key", f->name);
  p->bytes = lua_tolstring(L, -1, &p->length);
  return false;
}

/* The description at the top of the stack. */
static void take_file(lua_State *L, file *f) {
  bool secret = false;
  for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1))
    if (lua_isinteger(L, -2))
      secret |= take_part(L, f, (lua_Unsigned)lua_tointeger(L, -2));
    else if (lua_type(L, -2) != LUA_TSTRING ||
             !core_take_access(L, lua_tostring(L, -2), &f->access))
      luaL_error(L, "'%s' has a field that is no part, mode, owner or group",
                 f->name);
  if (f->access.mode == MODE_UNSET)
    f->access.mode = secret ? 0600 : 0644;
  if (secret && (f->access.mode & S_IRWXO) != 0)
    luaL_error(L, "'%s' holds a key: its mode must give others nothing",
               f->name);
}

/* Pushes what to write.  Names, texts and keys stay the table's at index; Lua
 * allocates nothing until all is written. */
static file *push_files(lua_State *L, int index) {
  size_t count = 1, parts = 0;
  file *f, *files;
  core_part *p;
  luaL_checktype(L, index, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING, index,
                  "a file is unnamed");
    check_name(L, lua_absindex(L, -2));
    luaL_argcheck(L, lua_istable(L, -1), index, "a file is no table");
    count++;
    parts += lua_rawlen(L, -1);
  }
  files = lua_newuserdatauv(L, count * sizeof *f + parts * sizeof *p, 0);
  memset(files, 0, count * sizeof *f + parts * sizeof *p);
  f = files;
  p = (core_part *)(files + count);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1), f++) {
    f->name = lua_tostring(L, -2);
    f->access = (core_access){MODE_UNSET, (uid_t)-1, (gid_t)-1};
    f->parts = p;
    f->count = lua_rawlen(L, -1);
    p += f->count;
    take_file(L, f);
  }
  return files;
}

/* removing */

/* Calls visit for every name in the folder path, until it fails. */
static int walk(int parent, const char *path, const char *name,
                int (*visit)(int folder, const char *entry, const char *name)) {
  int error, folder = core_open_folder(parent, path);
  DIR *list = folder >= 0 ? fdopendir(folder) : NULL;
  const struct dirent *entry;
  if (list == NULL) {
    error = errno;
    if (folder >= 0)
      close(folder);
    return error;
  }
  do {
    errno = 0;
    entry = readdir(list);
    error = entry != NULL ? visit(folder, entry->d_name, name) : errno;
  } while (entry != NULL && error == 0);
  closedir(list);
  return error;
}

static int remove_file(int folder, const char *entry, const char *name) {
  (void)name;
  if (strcmp(entry, ".") == 0 || strcmp(entry, "..") == 0)
    return 0;
  return core_errno(unlinkat(folder, entry, 0));
}

/* Removes a folder of files. */
static int remove_flat(int parent, const char *path) {
  int error = walk(parent, path, NULL, remove_file);
  return error != 0 ? error : core_errno(unlinkat(parent, path, AT_REMOVEDIR));
}

/* Removes the folder or link ".NAME.xxxxxx" that a write, switch or remove of
 * name left. */
static int remove_leftover(int parent, const char *entry, const char *name) {
  size_t length = strlen(name);
  if (entry[0] != '.' || strncmp(entry + 1, name, length) != 0 ||
      entry[length + 1] != '.' || strlen(entry) != length + 8 ||
      strspn(entry + length + 2, "0123456789abcdef") != 6)
    return 0;
  if (core_check_kind(parent, entry, S_IFDIR) == 0)
    return remove_flat(parent, entry);
  if (core_check_kind(parent, entry, S_IFLNK) == 0)
    return core_errno(unlinkat(parent, entry, 0));
  return 0;
}

/* The whole name goes first: half a generation never has one. */
static int remove_in(int parent, const char *name) {
  char temporary[CORE_TEMPORARY_SIZE];
  int error = core_check_kind(parent, name, S_IFDIR);
  core_temporary(temporary, name);
  if (error == 0)
    error = core_errno(renameat(parent, name, parent, temporary));
  if (error != 0 && error != ENOENT)
    return error;
  return walk(parent, ".", name, remove_leftover);
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
  int parent = core_open_folder(AT_FDCWD, dir), error = errno;
  if (parent >= 0)
    error = core_finish(parent, remove_in(parent, name));
  else if (error == ENOENT)
    error = 0;
  return core_done(L, error, "remove", lua_pushfstring(L, "%s/%s", dir, name));
}

/* writing */

/* Writes every file into a folder, and puts it on the disk. */
static int write_files(int parent, const char *name, const file *f,
                       const char **failed) {
  int error = 0, folder = core_open_folder(parent, name);
  if (folder < 0)
    return errno;
  for (; error == 0 && f->name != NULL; f++) {
    error = core_write_file(folder, f->name, &f->access, f->parts, f->count);
    *failed = error != 0 ? f->name : NULL;
  }
  if (error == 0)
    error = core_errno(fchmod(folder, FOLDER_MODE));
  return core_finish(folder, error);
}

/* *failed becomes the file that could not be written, if there is one. */
static int write_in(int parent, const char *name, const file *files,
                    const char **failed) {
  char temporary[CORE_TEMPORARY_SIZE];
  int error;
  core_temporary(temporary, name);
  if (mkdirat(parent, temporary, 0700) != 0)
    return errno;
  error = write_files(parent, temporary, files, failed);
  if (error == 0)
    error = core_errno(
        renameat2(parent, temporary, parent, name, RENAME_NOREPLACE));
  if (error != 0)
    remove_flat(parent, temporary);
  return error;
}

/*
 * generation.write(dir, name, files) -> true
 *   | nil, message, "exists" | "missing" | "denied" | "io"
 * files: { ["name"] = { part, ..., mode =, owner =, group = }, ... }, a part
 * being text or a core.key (as PKCS #8 PEM).  A file that holds a key has mode
 * 0600 unless given, and may give others nothing; another one 0644.  After a
 * failure nothing has the name, but for "io" of the disk itself; after true
 * all is whole and on the disk.
 */
static int l_write(lua_State *L) {
  const char *dir = core_check_path(L, 1), *name = check_name(L, 2);
  const char *failed = NULL;
  const file *files = push_files(L, 3);
  int parent = core_open_folder(AT_FDCWD, dir), error = errno;
  if (parent >= 0)
    error = core_finish(parent, write_in(parent, name, files, &failed));
  if (failed != NULL)
    name = lua_pushfstring(L, "%s/%s", name, failed);
  return core_done(L, error, "write", lua_pushfstring(L, "%s/%s", dir, name));
}

/* switching */

/* *object becomes the one of the two names that the failure is about. */
static int switch_in(int parent, const char *link, const char *name,
                     const char **object) {
  char temporary[CORE_TEMPORARY_SIZE];
  int error = name != NULL ? core_check_kind(parent, name, S_IFDIR) : 0;
  if (error != 0) {
    *object = name;
    return error;
  }
  error = core_check_kind(parent, link, S_IFLNK);
  if (error != 0 && error != ENOENT)
    return error;
  if (name == NULL)
    return error == 0 ? core_errno(unlinkat(parent, link, 0)) : 0;
  core_temporary(temporary, name);
  if (symlinkat(name, parent, temporary) != 0)
    return errno;
  error = core_errno(renameat(parent, temporary, parent, link));
  if (error != 0)
    unlinkat(parent, temporary, 0);
  return error;
}

/*
 * generation.switch(dir, link, name) -> true
 *   | nil, message, "missing" | "exists" | "denied" | "io"
 * Makes dir/link a relative symbolic link to the folder dir/name, at once;
 * name nil takes the link away.  "exists": something else than a link has its
 * name.  A failure leaves the link as it was, but for "io" of the disk itself.
 */
static int l_switch(lua_State *L) {
  const char *dir = core_check_path(L, 1), *link = check_name(L, 2);
  const char *name = lua_isnoneornil(L, 3) ? NULL : check_name(L, 3);
  const char *object = link;
  int parent = core_open_folder(AT_FDCWD, dir), error = errno;
  if (parent >= 0)
    error = core_finish(parent, switch_in(parent, link, name, &object));
  if (error == EEXIST)
    return core_fail(L, "exists", "cannot switch '%s/%s': not a symbolic link",
                     dir, link);
  return core_done(L, error, object == name ? "switch to" : "switch",
                   lua_pushfstring(L, "%s/%s", dir, object));
}

/*
 * generation.current(dir, link) -> name
 *   | nil, message, "missing" | "denied" | "io"
 * The generation that the link names, there or not.  "io": it is no link, or
 * leads to something that is not beside it.
 */
static int l_current(lua_State *L) {
  const char *dir = core_check_path(L, 1), *link = check_name(L, 2);
  const char *path = lua_pushfstring(L, "%s/%s", dir, link), *target;
  int results = core_push_link(L, path);
  size_t length;
  if (results > 1)
    return results;
  target = lua_tostring(L, -1);
  length = strcspn(target, "/");
  if (length == 0 || target[0] == '.' ||
      target[length + strspn(target + length, "/")] != '\0')
    return core_fail(L, "io", "cannot use link '%s': '%s' is no name beside it",
                     path, target);
  lua_pushlstring(L, target, length);
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
