/*
 * spawn.c: a child process, from the command that Lua gives to its exec.
 *
 * Other threads may hold any lock at the fork, so between fork and exec only
 * async-signal-safe calls are made; all that the child needs is prepared
 * before.  The child gets a session without a terminal, default signals,
 * umask 022, and the three descriptors that it was given, no more.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT 60.0            /* seconds */
#define LIMIT (1 << 20)         /* bytes of each output */
#define HIGHEST_LIMIT (1 << 30) /* that can be asked for */
#define NOBODY 4294967295.0     /* (uid_t)-1, which leaves an id as it is */

/* The C library's set*id() signal all threads, which is not for a forked
 * child; where 16-bit calls exist too, the numbers ending in 32 are meant. */
#ifndef SYS_setresuid32
#define SYS_setgroups32 SYS_setgroups
#define SYS_setresgid32 SYS_setresgid
#define SYS_setresuid32 SYS_setresuid
#endif

/* The value on top; raises unless it is a string without NUL. */
static const char *check_string(lua_State *L, int index, const char *what) {
  size_t length;
  const char *text;
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_argerror(L, index,
                  lua_pushfstring(L, "%s: string expected, got %s", what,
                                  luaL_typename(L, -1)));
  text = lua_tolstring(L, -1, &length);
  if (strlen(text) != length)
    luaL_argerror(L, index, lua_pushfstring(L, "%s holds a NUL", what));
  return text;
}

/* Pushes an array of the strings above bottom, with NULL after the last. */
static char *const *push_array(lua_State *L, int bottom) {
  int count = lua_gettop(L) - bottom, i;
  const char **array =
      lua_newuserdatauv(L, ((size_t)count + 1) * sizeof *array, 0);
  for (i = 0; i < count; i++)
    array[i] = lua_tostring(L, bottom + 1 + i);
  array[count] = NULL;
  return (char *const *)array;
}

static char *const *check_argv(lua_State *L) {
  int bottom = lua_gettop(L);
  lua_Unsigned count, i;
  luaL_checktype(L, 1, LUA_TTABLE);
  count = lua_rawlen(L, 1);
  for (i = 1; i <= count; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i);
    check_string(L, 1, "argument");
    luaL_checkstack(L, LUA_MINSTACK, "too many arguments");
  }
  if (count == 0 || lua_rawlen(L, bottom + 1) == 0)
    luaL_argerror(L, 1, "no program named");
  return push_array(L, bottom);
}

/* Where the program may lie: as it is named, or in SEARCH_PATH. */
static const char *push_files(lua_State *L, const char *program) {
  size_t size = strlen(program) + 1, length;
  const char *from = SEARCH_PATH;
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  if (strchr(program, '/') != NULL) {
    luaL_addlstring(&buffer, program, size);
    from = "";
  }
  for (; *from != '\0'; from += length + (from[length] == ':')) {
    length = strcspn(from, ":");
    luaL_addlstring(&buffer, from, length);
    luaL_addchar(&buffer, '/');
    luaL_addlstring(&buffer, program, size);
  }
  luaL_pushresult(&buffer); /* every Lua string has a NUL after its end */
  return lua_tostring(L, -1);
}

/* "NAME=value" of what env has, else of PATH and LC_ALL. */
static char *const *check_environment(lua_State *L) {
  static const char *const fixed[][2] = {{"PATH", "PATH=" SEARCH_PATH},
                                         {"LC_ALL", "LC_ALL=" LOCALE}};
  size_t length, i;
  int env;
  if (lua_getfield(L, 2, "env") == LUA_TNIL)
    lua_newtable(L);
  else if (!lua_istable(L, -1))
    luaL_argerror(L, 2, "env: table expected");
  env = lua_gettop(L);
  for (lua_pushnil(L); lua_next(L, env) != 0;) {
    const char *name;
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_argerror(L, 2, "env: a name is no string");
    name = lua_tolstring(L, -2, &length);
    if (length == 0 || strcspn(name, "=") != length)
      luaL_argerror(L, 2, "env: a name is empty, or holds '=' or a NUL");
    lua_pushfstring(L, "%s=%s", name, check_string(L, 2, "env"));
    lua_replace(L, -2);
    lua_insert(L, -2); /* the key on top again, for lua_next */
    luaL_checkstack(L, LUA_MINSTACK, "too many variables");
  }
  for (i = 0; i < COUNT(fixed); i++) {
    bool missing = lua_getfield(L, env, fixed[i][0]) == LUA_TNIL;
    lua_pop(L, 1);
    if (missing)
      lua_pushstring(L, fixed[i][1]);
  }
  return push_array(L, env);
}

/* A string of the options, or NULL; it is kept on the stack. */
static const char *string_option(lua_State *L, const char *name) {
  return lua_getfield(L, 2, name) == LUA_TNIL ? NULL : check_string(L, 2, name);
}

/* A number of the options; a whole one unless lowest is a fraction. */
static lua_Number number_option(lua_State *L, const char *name,
                                lua_Number missing, lua_Number lowest,
                                lua_Number highest) {
  int type = lua_getfield(L, 2, name);
  lua_Number value = lua_tonumber(L, -1);
  bool whole = lowest == floor(lowest);
  lua_pop(L, 1);
  if (type == LUA_TNIL)
    return missing;
  if (type != LUA_TNUMBER || (whole && value != floor(value)))
    luaL_argerror(L, 2,
                  lua_pushfstring(L, "%s: %s expected", name,
                                  whole ? "whole number" : "number"));
  if (!(value >= lowest && value <= highest))
    luaL_argerror(L, 2, lua_pushfstring(L, "%s: out of range", name));
  return value;
}

void process_check_command(lua_State *L, const char *const names[],
                           struct process_command *command) {
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  core_check_fields(L, 2, names);
  command->argv = check_argv(L);
  command->files = push_files(L, command->argv[0]);
  command->environment = check_environment(L);
  command->folder = string_option(L, "cwd");
  if (command->folder == NULL &&
      lua_getfield(L, LUA_REGISTRYINDEX, PROCESS_FOLDER) == LUA_TSTRING)
    command->folder = lua_tostring(L, -1);
  command->output = string_option(L, "output");
  if (lua_getfield(L, 2, "stdin") != LUA_TNIL && lua_type(L, -1) != LUA_TSTRING)
    luaL_argerror(L, 2, "stdin: string expected");
  command->input = lua_tolstring(L, -1, &command->length);
  command->timeout =
      number_option(L, "timeout", TIMEOUT, 0.001, PROCESS_LONGEST);
  command->limit = (size_t)number_option(L, "limit", LIMIT, 0, HIGHEST_LIMIT);
  command->user = (uid_t)number_option(L, "uid", NOBODY, 0, NOBODY - 1);
  command->group = (gid_t)number_option(L, "gid", NOBODY, 0, NOBODY - 1);
  if (command->user != (uid_t)-1 && command->group == (gid_t)-1)
    luaL_argerror(L, 2, "uid without gid");
}

/* The child */

static void reset_signals(void) {
  sigset_t none;
  int number;
  for (number = 1; number < NSIG; number++)
    signal(number, SIG_DFL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Puts the streams at 0, 1 and 2, where none of ours lies (see main.c), and
 * closes all others but the report. */
static bool place_streams(const struct process *p, int report) {
  int i;
  for (i = 0; i < 3; i++) {
    int theirs = p->theirs[i];
    if (theirs < 0)
      theirs = open("/dev/null", O_RDWR);
    if (theirs < 0 || dup2(theirs, i) < 0)
      return false;
  }
  if (report > 3 && syscall(SYS_close_range, 3U, report - 1U, 0U) != 0)
    return false;
  return syscall(SYS_close_range, report + 1U, ~0U, 0U) == 0;
}

static bool become(const struct process_command *command) {
  uid_t user = command->user;
  gid_t group = command->group;
  if (group == (gid_t)-1)
    return true;
  return syscall(SYS_setgroups32, 0, NULL) == 0 &&
         syscall(SYS_setresgid32, group, group, group) == 0 &&
         syscall(SYS_setresuid32, user, user, user) == 0;
}

/* Returns why none of the files could be executed. */
static int execute(const struct process_command *command) {
  const char *file;
  int error = ENOENT;
  for (file = command->files; *file != '\0'; file += strlen(file) + 1) {
    execve(file, command->argv, command->environment);
    if (errno == EACCES)
      error = EACCES;
    else if (errno != ENOENT && errno != ENOTDIR)
      return errno;
  }
  return error;
}

/* What a child that was not executed reports. */
struct report {
  int step, error;
};

/* The child: ends in the program, or reports and exits. */
_Noreturn static void run_child(const struct process *p,
                                const struct process_command *command,
                                int descriptor) {
  struct report report = {STEP_RUN, 0};
  reset_signals();
  setsid();
  umask(022);
  if (!place_streams(p, descriptor))
    report.error = errno;
  else if (!become(command))
    report = (struct report){STEP_BECOME, errno};
  else if (command->folder != NULL && chdir(command->folder) != 0)
    report = (struct report){STEP_ENTER, errno};
  else
    report.error = execute(command);
  _exit(write(descriptor, &report, sizeof report) < 0 ? 126 : 127);
}

/* Waits for the child's report, which exec closes; 0 or an errno value. */
static int await_exec(struct process *p, int descriptor) {
  struct report report = {STEP_RUN, 0};
  p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0U);
  if (p->pidfd < 0) {
    report.error = errno;
    kill(p->pid, SIGKILL);
    waitpid(p->pid, NULL, 0);
  } else if (!process_await(descriptor, p->deadline)) {
    report.error = ETIMEDOUT;
  } else if (read(descriptor, &report, sizeof report) < 0) {
    report.error = errno;
  }
  p->step = report.step;
  return report.error;
}

int process_start(struct process *p, const struct process_command *command) {
  int ends[2], error, i;
  if (pipe2(ends, O_CLOEXEC) != 0)
    return errno;
  p->pid = fork();
  if (p->pid == 0)
    run_child(p, command, ends[1]);
  error = errno;
  close(ends[1]);
  for (i = 0; i < 3; i++)
    process_close(&p->theirs[i]);
  if (p->pid > 0)
    error = await_exec(p, ends[0]);
  close(ends[0]);
  return error;
}

int process_fail(lua_State *L, const struct process_command *command,
                 const struct process *p, int error) {
  const char *program = command->argv[0];
  char seconds[32];
  snprintf(seconds, sizeof seconds, "%g", command->timeout);
  if (error == ETIMEDOUT)
    return core_fail(L, "timeout", "'%s' was killed: not done in %s seconds",
                     program, seconds);
  if (error == EFBIG)
    return core_fail(L, "limit", "'%s' was killed: over %d bytes of output",
                     program, (int)command->limit);
  if (error == ECHILD)
    return core_fail(L, "busy",
                     "cannot tell how '%s' ended: another process traces it",
                     program);
  if (p->step == STEP_BECOME)
    return core_fail(L, error == EPERM ? "denied" : "io",
                     "cannot run '%s' as another user: %s", program,
                     strerror(error));
  if (p->step == STEP_ENTER)
    program = lua_pushfstring(L, "%s' in '%s", program, command->folder);
  return core_fail_errno(L, error, "run", program);
}
