/*
 * host.c: core.host, facts about the machine, its users and processes, and
 * the system calls for time, chance and signals that Lua lacks.
 */
#include "core.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define RANDOM_LIMIT (1 << 20) /* bytes of one call */
#define ENTRY_LIMIT (1 << 20)  /* bytes of one user or group entry */

double core_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int core_check_signal(lua_State *L, int index) {
  static const char *const names[] = {"HUP",  "INT",  "QUIT",  "KILL",
                                      "USR1", "USR2", "ALRM",  "TERM",
                                      "CONT", "STOP", "WINCH", NULL};
  static const int numbers[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGKILL,
                                SIGUSR1, SIGUSR2, SIGALRM, SIGTERM,
                                SIGCONT, SIGSTOP, SIGWINCH};
  return numbers[luaL_checkoption(L, index, NULL, names)];
}

int core_signal(lua_State *L, pid_t pid, int number) {
  const char *code = "io";
  if (kill(pid, number) == 0) {
    lua_pushboolean(L, 1);
    return 1;
  }
  if (errno == ESRCH)
    code = "missing";
  else if (errno == EPERM)
    code = "denied";
  return core_fail(L, code, "cannot signal process %d: %s", (int)pid,
                   strerror(errno));
}

/* host.user() -> effective uid, effective gid, real uid */
static int l_user(lua_State *L) {
  lua_pushinteger(L, geteuid());
  lua_pushinteger(L, getegid());
  lua_pushinteger(L, getuid());
  return 3;
}

/* The name or number at 1; a number may be any but (uid_t)-1. */
static const char *check_who(lua_State *L, id_t *number) {
  if (lua_type(L, 1) == LUA_TNUMBER) {
    lua_Integer value = luaL_checkinteger(L, 1);
    luaL_argcheck(L, value >= 0 && value < 4294967295, 1, "out of range");
    *number = (id_t)value;
    return NULL;
  }
  luaL_argexpected(L, lua_type(L, 1) == LUA_TSTRING, 1, "string or integer");
  return lua_tostring(L, 1);
}

/* nil, message, code of an entry that was not found, for which the name
 * services have many words (getpwnam(3)). */
static int fail_entry(lua_State *L, const char *kind, int error) {
  if (error == 0 || error == ENOENT || error == ESRCH || error == EBADF ||
      error == EPERM)
    return core_fail(L, "missing", "no %s '%s'", kind, lua_tostring(L, 1));
  return core_fail(L, "io", "cannot look up %s '%s': %s", kind,
                   lua_tostring(L, 1), strerror(error));
}

static void set_text(lua_State *L, const char *field, const char *text) {
  core_pushtext(L, text, strlen(text));
  lua_setfield(L, -2, field);
}

static void set_integer(lua_State *L, const char *field, lua_Integer value) {
  lua_pushinteger(L, value);
  lua_setfield(L, -2, field);
}

/*
 * host.lookup(name or uid) -> { name =, uid =, gid =, home = }
 *   | nil, message, "missing" | "io"
 * A user of the system's name services.
 */
static int l_lookup(lua_State *L) {
  struct passwd entry, *found = NULL;
  size_t size = 4096;
  id_t uid = 0;
  const char *name = check_who(L, &uid);
  int error;
  do {
    char *buffer = lua_newuserdatauv(L, size, 0);
    error = name != NULL ? getpwnam_r(name, &entry, buffer, size, &found)
                         : getpwuid_r(uid, &entry, buffer, size, &found);
    size *= 2;
  } while (error == ERANGE && size <= ENTRY_LIMIT);
  if (found == NULL)
    return fail_entry(L, "user", error);
  lua_createtable(L, 0, 4);
  set_text(L, "name", entry.pw_name);
  set_integer(L, "uid", entry.pw_uid);
  set_integer(L, "gid", entry.pw_gid);
  set_text(L, "home", entry.pw_dir);
  return 1;
}

/*
 * host.group(name or gid) -> { name =, gid =, members = { name, ... } }
 *   | nil, message, "missing" | "io"
 * A group; its members are those that it names, without the users whose
 * primary group it is.
 */
static int l_group(lua_State *L) {
  struct group entry, *found = NULL;
  size_t size = 4096, i;
  id_t gid = 0;
  const char *name = check_who(L, &gid);
  int error;
  do {
    char *buffer = lua_newuserdatauv(L, size, 0);
    error = name != NULL ? getgrnam_r(name, &entry, buffer, size, &found)
                         : getgrgid_r(gid, &entry, buffer, size, &found);
    size *= 2;
  } while (error == ERANGE && size <= ENTRY_LIMIT);
  if (found == NULL)
    return fail_entry(L, "group", error);
  lua_createtable(L, 0, 3);
  set_text(L, "name", entry.gr_name);
  set_integer(L, "gid", entry.gr_gid);
  lua_newtable(L);
  for (i = 0; entry.gr_mem[i] != NULL; i++) {
    core_pushtext(L, entry.gr_mem[i], strlen(entry.gr_mem[i]));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "members");
  return 1;
}

/* host.name() -> the host's own name, as it was set */
static int l_name(lua_State *L) {
  char name[256] = "";
  if (gethostname(name, sizeof name - 1) != 0)
    return luaL_error(L, "cannot read the host's name: %s", strerror(errno));
  core_pushtext(L, name, strlen(name));
  return 1;
}

/* host.terminal(descriptor) -> boolean   whether 0, 1 or 2 is a terminal */
static int l_terminal(lua_State *L) {
  lua_Integer descriptor = luaL_checkinteger(L, 1);
  luaL_argcheck(L, descriptor >= 0 && descriptor <= 2, 1, "must be 0, 1 or 2");
  lua_pushboolean(L, isatty((int)descriptor));
  return 1;
}

/* host.columns() -> width of the terminal that is standard output, else of
 * that which is standard error | nil */
static int l_columns(lua_State *L) {
  struct winsize size;
  int descriptor;
  for (descriptor = 1; descriptor <= 2; descriptor++)
    if (ioctl(descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
      lua_pushinteger(L, size.ws_col);
      return 1;
    }
  lua_pushnil(L);
  return 1;
}

/* host.clock() -> seconds of a clock that never goes back, a float */
static int l_clock(lua_State *L) {
  lua_pushnumber(L, core_clock());
  return 1;
}

/* host.sleep(seconds)   0 to 86400; fractions count */
static int l_sleep(lua_State *L) {
  lua_Number seconds = luaL_checknumber(L, 1);
  struct timespec until;
  luaL_argcheck(L, seconds >= 0 && seconds <= 86400, 1, "out of range");
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += (time_t)seconds;
  until.tv_nsec += (long)((seconds - (lua_Number)(time_t)seconds) * 1e9);
  if (until.tv_nsec >= 1000000000) {
    until.tv_nsec -= 1000000000;
    until.tv_sec++;
  }
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
    continue;
  return 0;
}

/* host.pid() -> the number of this process */
static int l_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

/* host.random(n) -> n random bytes (at most 1 MiB) of the kernel */
static int l_random(lua_State *L) {
  lua_Integer count = luaL_checkinteger(L, 1);
  luaL_Buffer buffer;
  char *bytes;
  size_t done = 0;
  luaL_argcheck(L, count >= 0 && count <= RANDOM_LIMIT, 1, "out of range");
  bytes = luaL_buffinitsize(L, &buffer, (size_t)count);
  while (done < (size_t)count) {
    ssize_t n = getrandom(bytes + done, (size_t)count - done, 0);
    if (n > 0)
      done += (size_t)n;
    else if (errno != EINTR)
      return luaL_error(L, "no random bytes: %s", strerror(errno));
  }
  luaL_pushresultsize(&buffer, done);
  return 1;
}

/* Reads the start of a file of /proc as a string; 0 or an errno value. */
static int read_proc(pid_t pid, const char *name, char *text, size_t size) {
  char path[64];
  size_t length;
  FILE *file;
  int error;
  snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
  file = fopen(path, "re");
  if (file == NULL)
    return errno;
  errno = 0;
  length = fread(text, 1, size - 1, file);
  error = ferror(file) ? errno : 0;
  text[length] = '\0';
  fclose(file);
  return error;
}

/* The effective (second) number of a line of /proc/PID/status. */
static lua_Integer effective(const char *text, const char *line) {
  unsigned real, id = 0;
  const char *found = strstr(text, line);
  if (found == NULL || sscanf(found + strlen(line), "%u %u", &real, &id) != 2)
    return -1;
  return (lua_Integer)id;
}

/*
 * host.process(pid) -> { uid =, gid =, state =, name =, parent =, start = }
 *   | nil, message, "missing" | "denied" | "io"
 * A process of the kernel's table: effective ids, state ("R", "S", "D", "Z",
 * "T" ...), the first 15 bytes of the program's name, the parent's number, and
 * its start in clock ticks since boot, which with its number is its identity.
 */
static int l_process(lua_State *L) {
  lua_Integer pid = luaL_checkinteger(L, 1);
  char stat[1024], status[4096], state;
  char *name, *rest;
  unsigned long long start;
  int parent, error;
  luaL_argcheck(L, pid > 0 && pid <= INT_MAX, 1, "out of range");
  error = read_proc((pid_t)pid, "stat", stat, sizeof stat);
  if (error == 0)
    error = read_proc((pid_t)pid, "status", status, sizeof status);
  if (error == ENOENT || error == ESRCH)
    return core_fail(L, "missing", "no process %d", (int)pid);
  if (error != 0)
    return core_fail(L, error == EACCES ? "denied" : "io",
                     "cannot read process %d: %s", (int)pid, strerror(error));
  name = strchr(stat, '(');
  rest = strrchr(stat, ')'); /* a name may hold brackets itself */
  if (name == NULL || rest == NULL ||
      sscanf(rest + 1,
             " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
             "%*d %*d %*d %llu",
             &state, &parent, &start) != 3)
    return core_fail(L, "io", "cannot read process %d: not understood",
                     (int)pid);
  lua_createtable(L, 0, 6);
  core_pushtext(L, name + 1, (size_t)(rest - name - 1));
  lua_setfield(L, -2, "name");
  lua_pushlstring(L, &state, 1);
  lua_setfield(L, -2, "state");
  set_integer(L, "uid", effective(status, "\nUid:"));
  set_integer(L, "gid", effective(status, "\nGid:"));
  set_integer(L, "parent", parent);
  set_integer(L, "start", (lua_Integer)start);
  return 1;
}

/*
 * host.signal(pid, name or 0) -> true | nil, message, "missing" | "denied"
 * Sends a signal ("TERM", "HUP" ...) to one process; 0 only asks whether that
 * could be done.
 */
static int l_signal(lua_State *L) {
  lua_Integer pid = luaL_checkinteger(L, 1);
  int number = 0;
  luaL_argcheck(L, pid > 0 && pid <= INT_MAX, 1, "out of range");
  if (!lua_isinteger(L, 2) || lua_tointeger(L, 2) != 0)
    number = core_check_signal(L, 2);
  return core_signal(L, (pid_t)pid, number);
}

static const luaL_Reg functions[] = {
    {"user", l_user},     {"lookup", l_lookup},     {"group", l_group},
    {"name", l_name},     {"terminal", l_terminal}, {"columns", l_columns},
    {"clock", l_clock},   {"sleep", l_sleep},       {"pid", l_pid},
    {"random", l_random}, {"process", l_process},   {"signal", l_signal},
    {NULL, NULL}};

int luaopen_core_host(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
