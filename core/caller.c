/*
 * caller.c: core.caller, acting for the user who called through sudo.
 *
 * What such a user hands over (environment, limits, umask, blocked signals) is
 * put in order before anything is read, and what the user names can be opened
 * with the user's own rights.  Who that is, and what they may do, is Lua's.
 */
#include "core.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FILES 1024              /* that may be open, at least */
#define STACK (8 * 1024 * 1024) /* bytes */
#define NOBODY 4294967295       /* (uid_t)-1 */

/* The system calls, which are for this thread alone; where 16-bit ones exist
 * too, those ending in 32 are meant. */
#ifndef SYS_setresuid32
#define SYS_setgroups32 SYS_setgroups
#define SYS_setresgid32 SYS_setresgid
#define SYS_setresuid32 SYS_setresuid
#endif

/* Whether a variable stays: who called, and what a terminal needs; no path. */
static bool is_kept(const char *entry) {
  static const char *const names[] = {
      "SUDO_UID", "SUDO_GID", "SUDO_USER", "TERM",    "COLORTERM", "NO_COLOR",
      "LANG",     "LC_ALL",   "LC_CTYPE",  "COLUMNS", "LINES"};
  size_t length = strcspn(entry, "="), i;
  for (i = 0; i < COUNT(names); i++)
    if (strlen(names[i]) == length && strncmp(entry, names[i], length) == 0)
      return strpbrk(entry, "/%") == NULL;
  return false;
}

/* Lifts a limit to this, or to what root without CAP_SYS_RESOURCE may. */
static void lift(int kind, rlim_t wanted) {
  struct rlimit limit;
  if (getrlimit(kind, &limit) != 0 || limit.rlim_cur >= wanted)
    return;
  limit.rlim_cur = wanted;
  if (limit.rlim_max < wanted)
    limit.rlim_max = wanted;
  if (setrlimit(kind, &limit) == 0 || getrlimit(kind, &limit) != 0)
    return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(kind, &limit);
}

void core_settle_caller(void) {
  char **from, **to;
  sigset_t none;
  if (geteuid() != 0 || getenv("SUDO_UID") == NULL)
    return;
  for (from = to = environ; *from != NULL; from++)
    if (is_kept(*from))
      *to++ = *from;
  *to = NULL;
  lift(RLIMIT_AS, RLIM_INFINITY); /* these would stop it in the middle */
  lift(RLIMIT_CPU, RLIM_INFINITY);
  lift(RLIMIT_DATA, RLIM_INFINITY);
  lift(RLIMIT_FSIZE, RLIM_INFINITY);
  lift(RLIMIT_NOFILE, FILES);
  lift(RLIMIT_STACK, STACK);
  umask(022);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Whose rights a thread has. */
struct rights {
  uid_t user;
  gid_t group;
  int count;
  gid_t *groups;
};

static int set_groups(const struct rights *rights) {
  return core_errno(
      (int)syscall(SYS_setgroups32, rights->count, rights->groups));
}

static int set_group(const struct rights *rights) {
  return core_errno((int)syscall(SYS_setresgid32, -1, rights->group, -1));
}

/* Away from root it takes root's capabilities along, also those that would let
 * the user go through /proc/PID/cwd; back to root it gives them back.  The ids
 * that say who may signal or trace this process stay root's (kill(2)). */
static int set_user(const struct rights *rights) {
  return core_errno((int)syscall(SYS_setresuid32, -1, rights->user, -1));
}

/* A process whose ids change may be dumped as fs.suid_dumpable says (proc(5));
 * this one never is, as main.c has it. */
static void forbid_dumps(void) {
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

/* 0 or an errno value. */
static int take(const struct rights *rights) {
  int error = set_groups(rights);
  if (error == 0)
    error = set_group(rights);
  if (error == 0)
    error = set_user(rights);
  forbid_dumps();
  return error;
}

static void give_back(const struct rights *own) {
  bool done = set_user(own) == 0 && set_group(own) == 0 && set_groups(own) == 0;
  forbid_dumps();
  if (done)
    return;
  fputs("certwright: cannot take back root's rights\n", stderr);
  abort();
}

static id_t check_id(lua_State *L, const char *what) {
  int is_integer;
  lua_Integer id = lua_tointegerx(L, -1, &is_integer);
  if (!is_integer || id < 0 || id >= NOBODY)
    luaL_argerror(L, 1, lua_pushfstring(L, "%s is no id", what));
  lua_pop(L, 1);
  return (id_t)id;
}

/* The user at 1; its groups are kept in a box that is pushed. */
static struct rights check_user(lua_State *L) {
  struct rights user;
  int i;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_getfield(L, 1, "uid");
  user.user = check_id(L, "uid");
  lua_getfield(L, 1, "gid");
  user.group = check_id(L, "gid");
  if (lua_getfield(L, 1, "groups") != LUA_TTABLE ||
      lua_rawlen(L, -1) > NGROUPS_MAX)
    luaL_argerror(L, 1, "groups is no list of ids");
  user.count = (int)lua_rawlen(L, -1);
  user.groups =
      lua_newuserdatauv(L, sizeof(gid_t) * ((size_t)user.count + 1), 0);
  for (i = 0; i < user.count; i++) {
    lua_rawgeti(L, -2, i + 1);
    user.groups[i] = check_id(L, "a group");
  }
  lua_replace(L, -2);
  return user;
}

/* What this thread has now; its groups are kept in a box that is pushed. */
static struct rights push_own(lua_State *L) {
  struct rights own = {geteuid(), getegid(), getgroups(0, NULL), NULL};
  size_t room = own.count > 0 ? (size_t)own.count : 1;
  own.groups = lua_newuserdatauv(L, sizeof(gid_t) * room, 0);
  own.count = getgroups((int)room, own.groups);
  if (own.count < 0)
    luaL_error(L, "cannot ask for the groups: %s", strerror(errno));
  return own;
}

/*
 * caller.call({ uid =, gid =, groups = { gid, ... } }, f, ...)
 *   -> what f returns | nil, message, "denied" | "io"
 * Calls f with that user's rights, and no others: what f opens, makes or
 * removes is what the user could, and what it makes is theirs.  Also when f
 * raises, the rights are taken back before anything else is done; nothing is
 * collected in between.
 */
static int l_call(lua_State *L) {
  struct rights user, own;
  bool collects = lua_gc(L, LUA_GCISRUNNING);
  int status, error;
  luaL_checktype(L, 2, LUA_TFUNCTION);
  user = check_user(L);
  own = push_own(L);
  lua_rotate(L, 2, 2); /* the boxes below f */
  if (own.user != 0)
    return core_fail_errno(L, EPERM, "act as", "another user");
  lua_gc(L, LUA_GCSTOP);
  error = take(&user);
  status = error == 0 ? lua_pcall(L, lua_gettop(L) - 4, LUA_MULTRET, 0) : 0;
  give_back(&own);
  if (collects)
    lua_gc(L, LUA_GCRESTART);
  if (error != 0)
    return core_fail_errno(L, error, "act as", "another user");
  return status == LUA_OK ? lua_gettop(L) - 3 : lua_error(L);
}

static const luaL_Reg functions[] = {{"call", l_call}, {NULL, NULL}};

int luaopen_core_caller(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
