/*
 * process.c: core.process, programs that are run or kept running.
 *
 * A program is an argv, never a shell's line.  It is over when the child has
 * exited, not when a daemon that it left behind closes a pipe.  The child is
 * reaped by its pid, and its process group is signalled only while the child
 * is not reaped, since its number cannot belong to anybody else until then.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESS "core.process"
#define START_TIMEOUT 60.0 /* seconds until exec */
#define STOP_TIMEOUT 10.0  /* seconds */
#define KILL_TIMEOUT 5.0   /* seconds for a killed child to end */

int process_left(double deadline) {
  double left = deadline - core_clock();
  return left <= 0 ? 0 : left > 60 ? 60000 : (int)(left * 1000) + 1;
}

void process_close(int *descriptor) {
  if (*descriptor >= 0)
    close(*descriptor);
  *descriptor = -1;
}

void process_options(lua_State *L, const char *const names[]) {
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  core_check_fields(L, 2, names);
}

bool process_ended(const struct process *p) {
  siginfo_t info;
  if (!p->alive)
    return true;
  info.si_pid = 0;
  if (waitid(P_PID, (id_t)p->pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
    return errno == ECHILD;
  return info.si_pid != 0;
}

static bool wait_end(const struct process *p, double deadline) {
  struct pollfd end = {.fd = p->pidfd, .events = POLLIN};
  while (!process_ended(p)) {
    int left = process_left(deadline);
    if (left == 0)
      return false;
    if (p->pidfd < 0)
      left = process_left(fmin(deadline, core_clock() + PROCESS_SLICE));
    poll(&end, 1, left);
  }
  return true;
}

void process_reap(struct process *p) {
  pid_t pid;
  if (!p->alive)
    return;
  do
    pid = waitpid(p->pid, &p->status, WNOHANG);
  while (pid < 0 && errno == EINTR);
  if (pid == 0) /* killed, but held by the kernel: close() tries again */
    return;
  p->alive = false;
  p->known = pid == p->pid;
  process_close(&p->pidfd);
}

static void kill_group(const struct process *p) {
  if (p->alive) {
    kill(-p->pid, SIGKILL);
    kill(p->pid, SIGKILL);
  }
}

void process_release(struct process *p) {
  int i;
  kill_group(p);
  wait_end(p, core_clock() + KILL_TIMEOUT);
  process_reap(p);
  process_close(&p->pidfd);
  process_close(&p->input);
  for (i = 0; i < 2; i++) {
    process_close(&p->outputs[i].descriptor);
    free(p->outputs[i].bytes);
    p->outputs[i].bytes = NULL;
  }
}

struct process *process_new(lua_State *L) {
  struct process *p = lua_newuserdatauv(L, sizeof *p, 1);
  memset(p, 0, sizeof *p);
  p->pidfd = p->input = -1;
  p->outputs[0].descriptor = p->outputs[1].descriptor = -1;
  luaL_setmetatable(L, PROCESS);
  return p;
}

static struct process *check_process(lua_State *L) {
  return luaL_checkudata(L, 1, PROCESS);
}

int process_start(struct process *p, const struct process_command *command,
                  double deadline, const char **step) {
  pid_t pid;
  int error = process_spawn(command, deadline, &pid, step);
  if (error != 0)
    return error;
  p->pid = pid;
  p->alive = true;
#ifdef SYS_pidfd_open
  p->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
#endif
  return 0;
}

/* Starts the child with its outputs appended to a file, /dev/null when that
 * is NULL.  0, or an errno value, with step NULL when the file is to blame. */
static int start_beside(struct process *p, struct process_command *command,
                        const char *path, const char **step) {
  int *theirs = command->streams, error = 0;
  *step = NULL;
  theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  theirs[1] =
      path == NULL
          ? open("/dev/null", O_WRONLY | O_CLOEXEC)
          : open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY,
                 0600);
  theirs[2] = theirs[1];
  if (theirs[0] < 0 || theirs[1] < 0)
    error = errno;
  if (path == NULL || theirs[0] < 0)
    *step = "run";
  if (error == 0)
    error = process_start(p, command, core_clock() + START_TIMEOUT, step);
  process_close(&theirs[0]);
  process_close(&theirs[1]);
  return error;
}

/* Lua */

void process_push_status(lua_State *L, const struct process *p) {
  lua_createtable(L, 0, 4);
  if (p->known && WIFEXITED(p->status)) {
    lua_pushinteger(L, WEXITSTATUS(p->status));
    lua_setfield(L, -2, "status");
  } else if (p->known && WIFSIGNALED(p->status)) {
    lua_pushinteger(L, WTERMSIG(p->status));
    lua_setfield(L, -2, "signal");
  }
}

/*
 * process.start(argv[, options]) -> process
 *   | nil, message, "missing" | "denied" | "timeout" | "io"
 * Starts argv[1] as process.run does, and returns while it runs.  Its standard
 * input is /dev/null.  It is killed, with its group, when the handle is closed
 * or collected.  options: env, cwd, uid, gid as for run, and
 *   output   a file to append stdout and stderr to, else that is /dev/null; a
 *            new one gets mode 0600
 */
static int l_start(lua_State *L) {
  static const char *const names[] = {"env", "cwd",    "uid",
                                      "gid", "output", NULL};
  struct process_command command;
  const char *output, *step;
  struct process *p;
  int error;
  process_options(L, names);
  process_check_command(L, &command);
  output = process_string_option(L, "output");
  p = process_new(L);
  lua_pushstring(L, command.argv[0]);
  lua_setiuservalue(L, -2, 1);
  error = start_beside(p, &command, output, &step);
  if (error == 0)
    return 1;
  if (step == NULL)
    return core_fail_errno(L, error, "write", output);
  return process_fail_spawn(L, &command, error, step);
}

/* process:pid() -> its number, also when it has ended */
static int l_pid(lua_State *L) {
  lua_pushinteger(L, check_process(L)->pid);
  return 1;
}

/* process:running() -> boolean   whether it has not exited */
static int l_running(lua_State *L) {
  struct process *p = check_process(L);
  if (process_ended(p))
    process_reap(p);
  lua_pushboolean(L, p->alive);
  return 1;
}

/*
 * process:wait([timeout]) -> { status =, signal = } | nil, message, "timeout"
 * Waits until it has exited, at most timeout seconds (else without limit).
 */
static int l_wait(lua_State *L) {
  struct process *p = check_process(L);
  lua_Number timeout = luaL_optnumber(L, 2, PROCESS_LONGEST);
  luaL_argcheck(L, timeout >= 0 && timeout <= PROCESS_LONGEST, 2,
                "out of range");
  if (!wait_end(p, core_clock() + timeout))
    return core_fail(L, "timeout", "process %d has not ended", (int)p->pid);
  process_reap(p);
  process_push_status(L, p);
  return 1;
}

/*
 * process:signal(name) -> true | nil, message, "missing" | "denied"
 * Sends the signal ("TERM", "HUP" ...) to it, and not to its group.
 */
static int l_signal(lua_State *L) {
  struct process *p = check_process(L);
  int number = core_check_signal(L, 2);
  if (process_ended(p))
    process_reap(p);
  if (!p->alive)
    return core_fail(L, "missing", "cannot signal process %d: %s", (int)p->pid,
                     strerror(ESRCH));
  return core_signal(L, p->pid, number);
}

/*
 * process:stop([signal[, timeout]]) -> { status =, signal = }
 *   | nil, message, "timeout"
 * Sends the signal ("TERM") to it, waits at most timeout seconds (10) until it
 * has exited, and kills then what is left of it and of its group.  The failure
 * is a process that the kernel holds although it was killed.
 */
static int l_stop(lua_State *L) {
  struct process *p = check_process(L);
  int number = lua_isnoneornil(L, 2) ? SIGTERM : core_check_signal(L, 2);
  lua_Number timeout = luaL_optnumber(L, 3, STOP_TIMEOUT);
  luaL_argcheck(L, timeout >= 0 && timeout <= PROCESS_LONGEST, 3,
                "out of range");
  if (p->alive) {
    kill(p->pid, number);
    wait_end(p, core_clock() + timeout);
  }
  process_release(p);
  if (p->alive)
    return core_fail(L, "timeout", "process %d was killed and has not ended",
                     (int)p->pid);
  process_push_status(L, p);
  return 1;
}

/* process:close()   kills it with its group, if it was not seen to have ended;
 * also __gc and __close */
static int l_close(lua_State *L) {
  process_release(check_process(L));
  return 0;
}

static int l_tostring(lua_State *L) {
  struct process *p = check_process(L);
  lua_getiuservalue(L, 1, 1);
  if (process_ended(p))
    process_reap(p);
  lua_pushfstring(L, "process \"%s\" %d (%s)", lua_tostring(L, -1), (int)p->pid,
                  p->alive ? "running" : "ended");
  return 1;
}

static const luaL_Reg functions[] = {
    {"run", process_run}, {"start", l_start}, {NULL, NULL}};

static const luaL_Reg methods[] = {{"pid", l_pid},       {"running", l_running},
                                   {"wait", l_wait},     {"stop", l_stop},
                                   {"signal", l_signal}, {"close", l_close},
                                   {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__gc", l_close},
                                       {"__close", l_close},
                                       {"__tostring", l_tostring},
                                       {NULL, NULL}};

int luaopen_core_process(lua_State *L) {
  core_type(L, PROCESS, methods, metamethods);
  luaL_newlib(L, functions);
  return 1;
}
