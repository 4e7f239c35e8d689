/*
 * lock.c: generation.lock, one process at a time, by fcntl(2).
 *
 * The kernel frees such a lock when the process ends, however it ends, and a
 * child does not inherit it.  It is also freed when the process closes any
 * descriptor of the file, so a held file is never opened again: held locks
 * are listed, and lock files are for nothing else.  Nobody removes them.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOCK "core.lock"
#define INTERVAL 0.02 /* seconds between two attempts */

typedef struct lock {
  int descriptor; /* -1: closed */
  pid_t holder;   /* who has it, after EAGAIN; 0: not known */
  dev_t device;
  ino_t inode;
  struct lock *next;
} lock;

static lock *held; /* by this process */

static bool is_held(const struct stat *status) {
  const lock *l;
  for (l = held; l != NULL; l = l->next)
    if (l->device == status->st_dev && l->inode == status->st_ino)
      return true;
  return false;
}

static void release(lock *l) {
  lock **place;
  if (l->descriptor < 0)
    return;
  for (place = &held; *place != NULL; place = &(*place)->next)
    if (*place == l) {
      *place = l->next;
      break;
    }
  close(l->descriptor);
  l->descriptor = -1;
}

/* Locks an open file; EAGAIN when another process has it, and also when path
 * does not name this file any more. */
static int lock_open(lock *l, const char *path, int descriptor) {
  struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  struct stat status, named;
  if (fstat(descriptor, &status) != 0)
    return errno;
  if (!S_ISREG(status.st_mode))
    return EINVAL;
  if (fcntl(descriptor, F_SETLK, &range) != 0) {
    if (errno != EACCES && errno != EAGAIN)
      return errno;
    if (fcntl(descriptor, F_GETLK, &range) == 0 && range.l_type != F_UNLCK)
      l->holder = range.l_pid;
    return EAGAIN;
  }
  if (stat(path, &named) != 0 || named.st_dev != status.st_dev ||
      named.st_ino != status.st_ino)
    return EAGAIN;
  l->device = status.st_dev;
  l->inode = status.st_ino;
  return 0;
}

static int try_lock(lock *l, const char *path) {
  int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
  int descriptor, error;
  struct stat status;
  l->holder = 0;
  if (stat(path, &status) == 0 && is_held(&status)) {
    l->holder = getpid();
    return EDEADLK;
  }
  descriptor = open(path, flags, 0600);
  if (descriptor < 0)
    return errno;
  error = lock_open(l, path, descriptor);
  if (error != 0) {
    close(descriptor);
    return error;
  }
  l->descriptor = descriptor;
  l->next = held;
  held = l;
  return 0;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int acquire(lock *l, const char *path, double timeout) {
  const struct timespec pause = {0, (long)(INTERVAL * 1e9)};
  double deadline = now() + timeout;
  int error;
  while ((error = try_lock(l, path)) == EAGAIN && now() < deadline)
    nanosleep(&pause, NULL);
  return error;
}

/*
 * generation.lock(path[, timeout]) -> lock
 *   | nil, message, "busy" | "missing" | "denied" | "io"
 * Locks the file, made with mode 0600 when missing; waits up to timeout
 * seconds (0 unless given) for another process, never for this one.
 */
int core_lock(lua_State *L) {
  const char *path = core_check_path(L, 1);
  double timeout = luaL_optnumber(L, 2, 0);
  lock *l;
  int error;
  luaL_argcheck(L, timeout >= 0, 2, "no time");
  l = lua_newuserdatauv(L, sizeof *l, 0);
  l->descriptor = -1;
  luaL_setmetatable(L, LOCK);
  error = acquire(l, path, timeout);
  if (error == EDEADLK || (error == EAGAIN && l->holder != 0))
    return core_fail(L, "busy", "cannot lock '%s': process %d holds it", path,
                     (int)l->holder);
  if (error != 0)
    return core_fail_errno(L, error, "lock", path);
  return 1;
}

/* lock:close(): frees it; may be called again.  Also __close and __gc. */
static int l_close(lua_State *L) {
  release(luaL_checkudata(L, 1, LOCK));
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
