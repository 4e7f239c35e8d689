/*
 * host.c: core.host, facts about the machine, its users and processes, and
 * the system calls for time, chance and signals that Lua lacks.
 */
#include "core.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <openssl/rand.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RANDOM_LIMIT (1 << 20) /* bytes of one call */

/* State, parent and start, which are the 3rd, 4th and 22nd of /proc/PID/stat */
#define FIELDS                                                                 \
  " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "    \
  "%*d "                                                                       \
  "%llu"

double core_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

int core_check_signal(lua_State *L, int index, const char *missing) {
  static const char *const names[] = {"HUP",  "INT",  "QUIT",  "KILL",
                                      "USR1", "USR2", "ALRM",  "TERM",
                                      "CONT", "STOP", "WINCH", NULL};
  static const int numbers[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGKILL,
                                SIGUSR1, SIGUSR2, SIGALRM, SIGTERM,
                                SIGCONT, SIGSTOP, SIGWINCH};
  return numbers[luaL_checkoption(L, index, missing, names)];
}

int core_push_signalled(lua_State *L, pid_t pid, int error) {
  if (error != 0)
    return core_fail(L, error == EPERM ? "denied" : "missing",
                     "cannot signal process %d: %s", (int)pid, strerror(error));
  lua_pushboolean(L, 1);
  return 1;
}

/* host.user() -> effective uid, effective gid, real uid */
static int l_user(lua_State *L) {
  lua_pushinteger(L, geteuid());
  lua_pushinteger(L, getegid());
  lua_pushinteger(L, getuid());
  return 3;
}

/* The number at 1, which may be any but (uid_t)-1; false: it is a name. */
static bool check_id(lua_State *L, id_t *number) {
  lua_Integer value;
  int type = lua_type(L, 1);
  luaL_argexpected(L, type == LUA_TNUMBER || type == LUA_TSTRING, 1,
                   "string or integer");
  if (type == LUA_TSTRING)
    return false;
  value = luaL_checkinteger(L, 1);
  luaL_argcheck(L, value >= 0 && value < 4294967295, 1, "out of range");
  *number = (id_t)value;
  return true;
}

/* nil, message, code of an entry that was not found, for which the name
 * services have many words (getpwnam(3)). */
static int fail_entry(lua_State *L, const char *kind, int error) {
  const char *who = lua_tostring(L, 1);
  if (error == 0 || error == ENOENT || error == ESRCH || error == EBADF ||
      error == EPERM)
    return core_fail(L, "missing", "no %s '%s'", kind, who);
  return core_fail(L, "io", "cannot look up %s '%s': %s", kind, who,
                   strerror(error));
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
  const struct passwd *entry;
  id_t uid;
  bool numeric = check_id(L, &uid);
  errno = 0;
  entry = numeric ? getpwuid(uid) : getpwnam(lua_tostring(L, 1));
  if (entry == NULL)
    return fail_entry(L, "user", errno);
  lua_createtable(L, 0, 4);
  set_text(L, "name", entry->pw_name);
  set_integer(L, "uid", entry->pw_uid);
  set_integer(L, "gid", entry->pw_gid);
  set_text(L, "home", entry->pw_dir);
  return 1;
}

/*
 * host.group(name or gid) -> { name =, gid =, members = { name, ... } }
 *   | nil, message, "missing" | "io"
 * A group; its members are those that it names, without the users whose
 * primary group it is.
 */
static int l_group(lua_State *L) {
  const struct group *entry;
  id_t gid;
  bool numeric = check_id(L, &gid);
  size_t i;
  errno = 0;
  entry = numeric ? getgrgid(gid) : getgrnam(lua_tostring(L, 1));
  if (entry == NULL)
    return fail_entry(L, "group", errno);
  lua_createtable(L, 0, 3);
  set_text(L, "name", entry->gr_name);
  set_integer(L, "gid", entry->gr_gid);
  lua_newtable(L);
  for (i = 0; entry->gr_mem[i] != NULL; i++) {
    core_pushtext(L, entry->gr_mem[i], strlen(entry->gr_mem[i]));
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  lua_setfield(L, -2, "members");
  return 1;
}

/*
 * host.groups(name, gid) -> { gid, ... } | nil, message, "io"
 * The groups that the system's name services say a user is in, with that
 * primary one; what a process has may be something else.
 */
static int l_groups(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  lua_Integer primary = luaL_checkinteger(L, 2);
  int count = 0, room, i;
  gid_t *list;
  luaL_argcheck(L, primary >= 0 && primary < 4294967295, 2, "out of range");
  getgrouplist(name, (gid_t)primary, NULL, &count);
  room = count > 0 ? count : 1;
  list = lua_newuserdatauv(L, sizeof *list * (size_t)room, 0);
  if (getgrouplist(name, (gid_t)primary, list, &room) < 0)
    return core_fail(L, "io", "cannot look up the groups of '%s'", name);
  lua_createtable(L, room, 0);
  for (i = 0; i < room; i++) {
    lua_pushinteger(L, list[i]);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* host.name() -> the host's own name, as it was set */
static int l_name(lua_State *L) {
  char name[HOST_NAME_MAX + 1] = "";
  gethostname(name, sizeof name);
  core_pushtext(L, name, strlen(name));
  return 1;
}

/* host.address(text) -> the IPv4 or IPv6 address in its shortest form (RFC
 * 5952) | nil */
static int l_address(lua_State *L) {
  const char *text = luaL_checkstring(L, 1);
  unsigned char octets[16];
  char shortest[INET6_ADDRSTRLEN];
  int family = strchr(text, ':') != NULL ? AF_INET6 : AF_INET;
  if (lua_rawlen(L, 1) == strlen(text) &&
      inet_pton(family, text, octets) == 1 &&
      inet_ntop(family, octets, shortest, sizeof shortest) != NULL)
    lua_pushstring(L, shortest);
  else
    lua_pushnil(L);
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
  struct winsize size = {.ws_col = 0};
  if (ioctl(1, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
    ioctl(2, TIOCGWINSZ, &size);
  lua_pushinteger(L, size.ws_col);
  if (size.ws_col == 0)
    lua_pushnil(L);
  return 1;
}

/* host.clock() -> seconds of a clock that never goes back, a float */
static int l_clock(lua_State *L) {
  lua_pushnumber(L, core_clock());
  return 1;
}

/* host.sleep(seconds)   0 to 86400; fractions count; ends early where Ctrl-C
 * ends what runs (interrupt.run) */
static int l_sleep(lua_State *L) {
  lua_Number until, seconds = luaL_checknumber(L, 1);
  struct timespec time;
  luaL_argcheck(L, seconds >= 0 && seconds <= 86400, 1, "out of range");
  until = core_clock() + seconds;
  time.tv_sec = (time_t)until;
  time.tv_nsec = (long)((until - (lua_Number)time.tv_sec) * 1e9);
  while (!core_interrupted() &&
         clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR)
    continue;
  return 0;
}

/* host.pid() -> the number of this process */
static int l_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

/* host.random(n) -> n random bytes, at most 1 MiB */
static int l_random(lua_State *L) {
  lua_Integer count = luaL_checkinteger(L, 1);
  luaL_Buffer buffer;
  char *bytes;
  luaL_argcheck(L, count >= 0 && count <= RANDOM_LIMIT, 1, "out of range");
  bytes = luaL_buffinitsize(L, &buffer, (size_t)count);
  if (RAND_bytes((unsigned char *)bytes, (int)count) != 1)
    return luaL_error(L, "no random bytes: %s", core_reason());
  luaL_pushresultsize(&buffer, (size_t)count);
  return 1;
}

static pid_t check_pid(lua_State *L) {
  lua_Integer pid = luaL_checkinteger(L, 1);
  luaL_argcheck(L, pid > 0 && pid <= INT_MAX, 1, "out of range");
  return (pid_t)pid;
}

/*
 * host.process(pid) -> { uid =, gid =, state =, name =, parent =, start = }
 *   | nil, message, "missing" | "denied" | "io"
 * A process of the kernel's table: effective ids, state ("R", "S", "D", "Z",
 * "T" ...), the first 15 bytes of the program's name, the parent's number, and
 * its start in clock ticks since boot, which with its number is its identity.
 */
static int l_process(lua_State *L) {
  pid_t pid = check_pid(L);
  char path[64], text[1024] = "", state, *name, *rest;
  unsigned long long start;
  struct stat owner; /* of the folder: the effective ids (proc(5)) */
  FILE *file = NULL;
  int parent;
  snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
  if (stat(lua_pushfstring(L, "/proc/%d", (int)pid), &owner) == 0)
    file = fopen(path, "re");
  if (file == NULL && errno != ENOENT && errno != ESRCH)
    return core_fail_errno(L, errno, "read", path);
  if (file != NULL) {
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
  }
  if (text[0] == '\0')
    return core_fail(L, "missing", "no process %d", (int)pid);
  name = strchr(text, '(');
  rest = strrchr(text, ')'); /* a name may hold brackets itself */
  if (name == NULL || rest == NULL ||
      sscanf(rest + 1, FIELDS, &state, &parent, &start) != 3)
    return core_fail(L, "io", "cannot read '%s': not understood", path);
  lua_createtable(L, 0, 6);
  *rest = '\0';
  set_text(L, "name", name + 1);
  set_text(L, "state", (char[]){state, '\0'});
  set_integer(L, "uid", owner.st_uid);
  set_integer(L, "gid", owner.st_gid);
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
  pid_t pid = check_pid(L);
  bool asks = lua_isinteger(L, 2) && lua_tointeger(L, 2) == 0;
  int number = asks ? 0 : core_check_signal(L, 2, NULL);
  return core_push_signalled(L, pid, kill(pid, number) == 0 ? 0 : errno);
}

static const luaL_Reg functions[] = {
    {"user", l_user},         {"lookup", l_lookup},   {"group", l_group},
    {"groups", l_groups},     {"name", l_name},       {"address", l_address},
    {"terminal", l_terminal}, {"columns", l_columns}, {"clock", l_clock},
    {"sleep", l_sleep},       {"pid", l_pid},         {"random", l_random},
    {"process", l_process},   {"signal", l_signal},   {NULL, NULL}};

int luaopen_core_host(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
