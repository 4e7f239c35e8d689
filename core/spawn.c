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
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILL_TIMEOUT 5.0 /* seconds for a killed child to end */

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

/* The C library's set*id() signal all threads, which is not for a forked
 * child; where 16-bit calls exist too, the numbers ending in 32 are meant. */
#ifdef SYS_setresuid32
#define CALL_SETGROUPS SYS_setgroups32
#define CALL_SETRESGID SYS_setresgid32
#define CALL_SETRESUID SYS_setresuid32
#else
#define CALL_SETGROUPS SYS_setgroups
#define CALL_SETRESGID SYS_setresgid
#define CALL_SETRESUID SYS_setresuid
#endif

/* The value on top, which must be a string without NUL, else it raises. */
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

/* Moves the value on top into the table at anchor. */
static void keep(lua_State *L, int anchor) {
  lua_rawseti(L, anchor, (lua_Integer)lua_rawlen(L, anchor) + 1);
}

/* An array of count pointers, all NULL, kept in the table at anchor. */
static const char **keep_array(lua_State *L, int anchor, size_t count) {
  const char **array = lua_newuserdatauv(L, count * sizeof *array, 0);
  memset(array, 0, count * sizeof *array);
  keep(L, anchor);
  return array;
}

static char *const *check_argv(lua_State *L, int anchor) {
  const char **argv;
  lua_Unsigned count, i;
  luaL_checktype(L, 1, LUA_TTABLE);
  count = lua_rawlen(L, 1);
  luaL_argcheck(L, count > 0, 1, "no program named");
  argv = keep_array(L, anchor, count + 1);
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, 1, (lua_Integer)i + 1);
    argv[i] = check_string(L, 1, "argument");
    keep(L, anchor);
  }
  luaL_argcheck(L, argv[0][0] != '\0', 1, "no program named");
  return (char *const *)argv;
}

/* Where the program may lie: as it is named, or in SEARCH_PATH. */
static char *const *find_files(lua_State *L, int anchor, const char *program) {
  const char **files, *from = SEARCH_PATH;
  size_t count = 2, i = 0;
  for (; *from != '\0'; from++)
    count += *from == ':';
  files = keep_array(L, anchor, count);
  if (strchr(program, '/') != NULL)
    files[i++] = program;
  for (from = SEARCH_PATH; i + 1 < count && files[0] != program;) {
    size_t length = strcspn(from, ":");
    lua_pushlstring(L, from, length);
    files[i++] = lua_pushfstring(L, "%s/%s", lua_tostring(L, -1), program);
    keep(L, anchor);
    lua_pop(L, 1);
    from += length + (from[length] == ':');
  }
  return (char *const *)files;
}

/* Keeps "NAME=value" for what the table on top has; returns how many. */
static size_t keep_variables(lua_State *L, int anchor) {
  size_t count = 0, length;
  for (lua_pushnil(L); lua_next(L, -2) != 0; count++) {
    const char *name;
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_argerror(L, 2, "env: a name is no string");
    name = lua_tolstring(L, -2, &length);
    if (length == 0 || strcspn(name, "=") != length)
      luaL_argerror(L, 2, "env: a name is empty, or holds '=' or a NUL");
    lua_pushfstring(L, "%s=%s", name, check_string(L, 2, "env"));
    keep(L, anchor);
    lua_pop(L, 1);
  }
  return count;
}

/* What env has, and PATH and LC_ALL unless it has them. */
static char *const *check_environment(lua_State *L, int anchor) {
  static const char *const fixed[][2] = {{"PATH", "PATH=" SEARCH_PATH},
                                         {"LC_ALL", "LC_ALL=" LOCALE}};
  lua_Unsigned first = lua_rawlen(L, anchor) + 1;
  const char **variables;
  size_t count = 0, i;
  if (lua_getfield(L, 2, "env") != LUA_TNIL) {
    if (lua_type(L, -1) != LUA_TTABLE)
      luaL_argerror(L, 2, "env: table expected");
    count = keep_variables(L, anchor);
  }
  variables = keep_array(L, anchor, count + COUNT(fixed) + 1);
  for (i = 0; i < count; i++, lua_pop(L, 1)) {
    lua_rawgeti(L, anchor, (lua_Integer)(first + i));
    variables[i] = lua_tostring(L, -1);
  }
  for (i = 0; i < COUNT(fixed); i++) {
    if (lua_isnil(L, -1) || lua_getfield(L, -1, fixed[i][0]) == LUA_TNIL)
      variables[count++] = fixed[i][1];
    lua_settop(L, anchor + 1);
  }
  lua_settop(L, anchor);
  return (char *const *)variables;
}

const char *process_string_option(lua_State *L, const char *name) {
  if (lua_getfield(L, 2, name) == LUA_TNIL)
    return NULL;
  return check_string(L, 2, name);
}

lua_Number process_number_option(lua_State *L, const char *name,
                                 lua_Number missing, lua_Number lowest,
                                 lua_Number highest, bool whole) {
  lua_Number value = missing;
  if (lua_getfield(L, 2, name) != LUA_TNIL) {
    value = lua_tonumber(L, -1);
    if (lua_type(L, -1) != LUA_TNUMBER || (whole && value != floor(value)))
      luaL_argerror(L, 2,
                    lua_pushfstring(L, "%s: %s expected", name,
                                    whole ? "whole number" : "number"));
    if (!(value >= lowest && value <= highest))
      luaL_argerror(L, 2, lua_pushfstring(L, "%s: out of range", name));
  }
  lua_pop(L, 1);
  return value;
}

void process_check_command(lua_State *L, struct process_command *command) {
  const lua_Number highest = 4294967294.0; /* (uid_t)-1 is no user */
  lua_Number user, group;
  int anchor;
  lua_newtable(L);
  anchor = lua_gettop(L);
  memset(command, 0, sizeof *command);
  command->argv = check_argv(L, anchor);
  command->files = find_files(L, anchor, command->argv[0]);
  command->environment = check_environment(L, anchor);
  command->folder = process_string_option(L, "cwd");
  user = process_number_option(L, "uid", -1, 0, highest, true);
  group = process_number_option(L, "gid", -1, 0, highest, true);
  if (user >= 0 && group < 0)
    luaL_argerror(L, 2, "uid without gid");
  command->has_user = user >= 0;
  command->has_group = group >= 0;
  command->user = command->has_user ? (uid_t)user : 0;
  command->group = command->has_group ? (gid_t)group : 0;
}

/* The child */

enum step { STEP_RUN, STEP_ENTER, STEP_BECOME };
static const char *const steps[] = {"run", "enter", "become"};

/* What a child that could not be executed writes to its report pipe. */
struct report {
  enum step step;
  int error;
};

static void reset_signals(void) {
  struct sigaction action = {.sa_handler = SIG_DFL};
  sigset_t none;
  int number;
  for (number = 1; number < NSIG; number++)
    sigaction(number, &action, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Marks every descriptor above 2 to be closed by exec. */
static void close_on_exec(void) {
  struct rlimit limit = {0, 0};
  int descriptor;
#ifdef SYS_close_range
  if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) == 0)
    return;
#endif
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 1048576)
    limit.rlim_cur = 1048576;
  for (descriptor = 3; descriptor < (int)limit.rlim_cur; descriptor++)
    fcntl(descriptor, F_SETFD, FD_CLOEXEC);
}

/* Puts the streams at 0, 1 and 2; they and the report pipe may lie there. */
static bool place_streams(const struct process_command *command, int *report) {
  int copies[3], i = fcntl(*report, F_DUPFD_CLOEXEC, 3);
  if (i < 0)
    return false;
  *report = i;
  for (i = 0; i < 3; i++)
    if ((copies[i] = fcntl(command->streams[i], F_DUPFD_CLOEXEC, 3)) < 0)
      return false;
  for (i = 0; i < 3; i++)
    if (dup2(copies[i], i) < 0)
      return false;
  close_on_exec();
  return true;
}

static bool become(const struct process_command *command) {
  if (!command->has_user && !command->has_group)
    return true;
  if (syscall(CALL_SETGROUPS, 0, NULL) != 0)
    return false;
  if (command->has_group && syscall(CALL_SETRESGID, command->group,
                                    command->group, command->group) != 0)
    return false;
  return !command->has_user || syscall(CALL_SETRESUID, command->user,
                                       command->user, command->user) == 0;
}

/* Returns why none of the files could be executed. */
static int execute(const struct process_command *command) {
  int error = ENOENT;
  size_t i;
  for (i = 0; command->files[i] != NULL; i++) {
    execve(command->files[i], command->argv, command->environment);
    if (errno == EACCES)
      error = EACCES;
    else if (errno != ENOENT && errno != ENOTDIR)
      return errno;
  }
  return error;
}

/* The child: ends in the program, or reports and exits. */
_Noreturn static void run_child(const struct process_command *command,
                                int descriptor) {
  struct report report = {STEP_RUN, 0};
  reset_signals();
  setsid();
  umask(022);
  if (!place_streams(command, &descriptor)) {
    report.error = errno;
  } else if (!become(command)) {
    report = (struct report){STEP_BECOME, errno};
  } else if (command->folder != NULL && chdir(command->folder) != 0) {
    report = (struct report){STEP_ENTER, errno};
  } else {
    report.error = execute(command);
  }
  if (write(descriptor, &report, sizeof report) != (ssize_t)sizeof report)
    _exit(126);
  _exit(127);
}

/* Forks with all signals blocked, so that no handler runs in the child. */
static pid_t fork_blocked(const struct process_command *command, int report) {
  sigset_t all, before;
  int error;
  pid_t pid;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pid = fork();
  if (pid == 0)
    run_child(command, report);
  error = errno;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  errno = error;
  return pid;
}

/* A caller that ignores SIGCHLD would never learn how its child ended. */
static void keep_statuses(void) {
  struct sigaction action;
  if (sigaction(SIGCHLD, NULL, &action) == 0 &&
      (action.sa_handler == SIG_IGN || (action.sa_flags & SA_NOCLDWAIT) != 0)) {
    action.sa_handler = SIG_DFL;
    action.sa_flags &= ~SA_NOCLDWAIT;
    sigaction(SIGCHLD, &action, NULL);
  }
}

/* Reads the report: error 0 when the pipe was closed by exec. */
static struct report await_report(int descriptor, double deadline) {
  struct report report = {STEP_RUN, 0};
  struct pollfd wait = {.fd = descriptor, .events = POLLIN};
  double left;
  ssize_t n;
  while ((left = deadline - core_clock()) > 0)
    if (poll(&wait, 1, left > 60 ? 60000 : (int)(left * 1000) + 1) > 0)
      break;
  if (wait.revents == 0)
    return (struct report){STEP_RUN, ETIMEDOUT};
  do
    n = read(descriptor, &report, sizeof report);
  while (n < 0 && errno == EINTR);
  return n == (ssize_t)sizeof report ? report : (struct report){STEP_RUN, 0};
}

/* Ends a child that was not executed; one that the kernel holds in a call
 * that cannot be interrupted is left behind. */
static void discard(pid_t pid) {
  double deadline = core_clock() + KILL_TIMEOUT;
  kill(pid, SIGKILL);
  kill(-pid, SIGKILL);
  while (waitpid(pid, NULL, WNOHANG) == 0 && core_clock() < deadline)
    poll(NULL, 0, 1);
}

int process_spawn(const struct process_command *command, double deadline,
                  pid_t *pid, const char **step) {
  struct report report = {STEP_RUN, 0};
  int ends[2];
  *step = steps[STEP_RUN];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return errno;
  keep_statuses();
  *pid = fork_blocked(command, ends[1]);
  if (*pid < 0)
    report.error = errno;
  close(ends[1]);
  if (*pid > 0)
    report = await_report(ends[0], deadline);
  close(ends[0]);
  if (*pid > 0 && report.error != 0)
    discard(*pid);
  *step = steps[report.step];
  return report.error;
}

int process_fail_spawn(lua_State *L, const struct process_command *command,
                       int error, const char *step) {
  const char *code = "io", *reason = strerror(error);
  if (error == ENOENT || error == ENOTDIR)
    code = "missing";
  else if (error == EACCES || error == EPERM)
    code = "denied";
  else if (error == ETIMEDOUT)
    code = "timeout";
  if (strcmp(step, "enter") == 0)
    return core_fail(L, code, "cannot run '%s' in '%s': %s", command->argv[0],
                     command->folder, reason);
  if (strcmp(step, "become") == 0)
    return core_fail(L, code, "cannot run '%s' as another user: %s",
                     command->argv[0], reason);
  return core_fail(L, code, "cannot run '%s': %s", command->argv[0], reason);
}
