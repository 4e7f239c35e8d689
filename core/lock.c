/*
 * lock.c: generation.lock, one process at a time, by fcntl(2).
 *
 * The kernel frees such a lock when the process ends, and a child does not
 * inherit it.  Closing any descriptor of the file frees it too, so a held file
 * is never opened again: held locks are listed, and lock files, which nobody
 * removes, are for nothing else.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK "core.lock"
#define INTERVAL 20000000 /* nanoseconds between two attempts */

typedef struct lock {
  int descriptor; /* -1: closed */
  pid_t holder;   /* who kept the last attempt out; 0: nobody */
  struct stat status;
  struct lock *next;
} lock;

static lock *held; /* by this process */

/* Locks an open file; EAGAIN when another process has it. */
static int lock_open(lock *l, int descriptor) {
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (fstat(descriptor, &l->status) != 0)
    return errno;
  if (!S_ISREG(l->status.st_mode))
    return EINVAL;
  if (fcntl(descriptor, F_SETLK, &range) == 0)
    return 0;
  if (errno != EACCES && errno != EAGAIN)
    return errno;
  if (fcntl(descriptor, F_GETLK, &range) == 0 && range.l_type != F_UNLCK)
    l->holder = range.l_pid;
  return EAGAIN;
}

/* Whether this process holds the file at path. */
static bool is_held(const char *path) {
  struct stat status;
  const lock *l = held;
  if (stat(path, &status) != 0)
    return false;
  while (l != NULL && (l->status.st_dev != status.st_dev ||
                       l->status.st_ino != status.st_ino))
    l = l->next;
  return l != NULL;
}

static int try_lock(lock *l, const char *path) {
  int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
  int descriptor, error;
  l->holder = is_held(path) ? getpid() : 0;
  if (l->holder != 0)
    return EDEADLK;
  descriptor = open(path, flags, 0600);
  if (descriptor < 0)
    return errno;
  error = lock_open(l, descriptor);
  if (error == 0) {
    l->descriptor = descriptor;
    l->next = held;
    held = l;
  } else {
    close(descriptor);
  }
  return error;
}

/*
 * generation.lock(path[, timeout]) -> lock
 *   | nil, message, "busy" | "missing" | "denied" | "io"
 * Locks the file, made with mode 0600 when missing; waits up to timeout
 * seconds (0 unless given) for another process, never for this one.
 */
int core_lock(lua_State *L) {
  const struct timespec pause = {0, INTERVAL};
  const char *path = core_check_path(L, 1);
  double timeout = luaL_optnumber(L, 2, 0), deadline = core_clock() + timeout;
  lock *l;
  int error;
  luaL_argcheck(L, timeout >= 0, 2, "no time");
  l = lua_newuserdatauv(L, sizeof *l, 0);
  l->descriptor = -1;
  luaL_setmetatable(L, LOCK);
  while ((error = try_lock(l, path)) == EAGAIN && core_clock() < deadline &&
         !core_interrupted())
    nanosleep(&pause, NULL);
  if (l->holder != 0)
    return core_fail(L, "busy", "cannot lock '%s': process %d holds it", path,
                     (int)l->holder);
  return error == 0 ? 1 : core_fail_errno(L, error, "lock", path);
}

/* lock:close(): frees it; may be called again.  Also __close and __gc. */
static int l_close(lua_State *L) {
  lock *l = luaL_checkudata(L, 1, LOCK), **place = &held;
  if (l->descriptor < 0)
    return 0;
  while (*place != l)
    place = &(*place)->next;
  *place = l->next;
  close(l->descriptor);
  l->descriptor = -1;
  return 0;
}

static int l_tostring(lua_State *L) {
  const lock *l = luaL_checkudata(L, 1, LOCK);
  lua_pushstring(L, l->descriptor >= 0 ? "lock" : "lock (closed)");
  return 1;
}

static const luaL_Reg methods[] = {{"close", l_close}, {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__close", l_close},
                                       {"__gc", l_close},
                                       {"__tostring", l_tostring},
                                       {NULL, NULL}};

void core_lock_type(lua_State *L) {
  core_type(L, LOCK, methods, metamethods);
}
