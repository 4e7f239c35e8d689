/*
 * way.c: whether a path leads where its trusted owners mean it to.
 *
 * A path is walked as the kernel does it, and every folder and link on the way
 * is looked at: a link in a folder that others may write leads wherever they
 * want, however trusted that place is.
 */
#include "core.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINKS 40 /* on one way, as the kernel follows */

/* Whether others could not have written what has this status: its owner must
 * be root, the user, or who owns the program's own file. */
static int check_one(lua_State *L, const char *path, const char *verb,
                     const struct stat *status) {
  bool kept = S_ISLNK(status->st_mode) ||
              (S_ISDIR(status->st_mode) && (status->st_mode & S_ISVTX) != 0);
  const char *mend = "chmod go-w";
  char mode[8];
  struct stat program;
  if (status->st_uid != 0 && status->st_uid != geteuid() &&
      (stat("/proc/self/exe", &program) != 0 ||
       status->st_uid != program.st_uid))
    mend = lua_pushfstring(
        L, "chown%s %d", S_ISLNK(status->st_mode) ? " -h" : "", (int)geteuid());
  else if (kept || (status->st_mode & (S_IWGRP | S_IWOTH)) == 0)
    return 0;
  snprintf(mode, sizeof mode, "%04o", (unsigned)(status->st_mode & 07777));
  return core_fail(L, "denied",
                   "refused to %s '%s': owner %d, mode %s: others could have "
                   "written it; to mend it: %s '%s'",
                   verb, path, (int)status->st_uid, mode, mend, path);
}

/* Takes the first name off left and puts it behind at; whether there was one.
 */
static bool step(char at[PATH_MAX], char *left) {
  char *name = left + strspn(left, "/"), *slash = strrchr(at, '/');
  size_t length = strcspn(name, "/"), end = strlen(at);
  if (length == 2 && strncmp(name, "..", 2) == 0)
    at[slash != NULL ? slash - at : 0] = '\0';
  else if (length != 1 || name[0] != '.')
    snprintf(at + end, PATH_MAX - end, "/%.*s", (int)length, name);
  memmove(left, name + length, strlen(name + length) + 1);
  return length > 0;
}

/* Puts what the link at says before left; 0, or an errno value. */
static int follow(char at[PATH_MAX], char left[PATH_MAX]) {
  char target[PATH_MAX], rest[PATH_MAX];
  ssize_t length = readlink(at, target, sizeof target - 1);
  if (length < 0)
    return errno;
  target[length] = '\0';
  strcpy(rest, left);
  at[target[0] == '/' ? 0 : strrchr(at, '/') - at] = '\0';
  return snprintf(left, PATH_MAX, "%s/%s", target, rest) < PATH_MAX
             ? 0
             : ENAMETOOLONG;
}

int core_check_way(lua_State *L, const char *path, const char *verb,
                   struct stat *found) {
  char at[PATH_MAX] = "", left[PATH_MAX], folder[PATH_MAX] = "";
  int links = 0, refused = 0, error = 0;
  if (path[0] != '/' && getcwd(folder, sizeof folder) == NULL)
    return core_fail_errno(L, errno, "find", path);
  if (snprintf(left, sizeof left, "%s/%s", folder, path) >= PATH_MAX)
    error = ENAMETOOLONG;
  do {
    if (error == 0 && strlen(at) == PATH_MAX - 1)
      error = ENAMETOOLONG;
    if (error == 0)
      error = core_errno(lstat(at[0] != '\0' ? at : "/", found));
    if (error != 0)
      return core_fail_errno(L, error, "look at", path);
    refused = check_one(L, at[0] != '\0' ? at : "/", verb, found);
    if (refused == 0 && S_ISLNK(found->st_mode))
      error = ++links > LINKS ? ELOOP : follow(at, left);
  } while (refused == 0 && (error != 0 || step(at, left)));
  return refused;
}
