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
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESS "core.process"
#define STOP_TIMEOUT 10.0  /* seconds */
#define KILL_TIMEOUT 5.0   /* seconds for a killed child to end */
#define TRACER_TIMEOUT 1.0 /* for who traces a child to see that it ended */

static struct process *new_process(lua_State *L,
                                   const struct process_command *command) {
  struct process *p = lua_newuserdatauv(L, sizeof *p, 1);
  *p = (struct process){.pidfd = -1,
                        .status = -1,
                        .deadline = core_clock() + command->timeout,
                        .theirs = {-1, -1, -1},
                        .outputs = {{.descriptor = -1}, {.descriptor = -1}}};
  luaL_setmetatable(L, PROCESS);
  lua_pushstring(L, command->argv[0]);
  lua_setiuservalue(L, -2, 1);
  return p;
}

static struct process *check_process(lua_State *L) {
  return luaL_checkudata(L, 1, PROCESS);
}

/* Milliseconds for poll until deadline, rounded up; at most a minute. */
static int time_left(double deadline) {
  double left = deadline - core_clock();
  return left <= 0 ? 0 : left > 60 ? 60000 : (int)(left * 1000) + 1;
}

bool process_await(int descriptor, double deadline) {
  struct pollfd wait = {.fd = descriptor, .events = POLLIN};
  int left;
  do
    left = time_left(deadline);
  while (poll(&wait, 1, left) <= 0 && left > 0);
  return wait.revents != 0;
}

void process_close(int *descriptor) {
  if (*descriptor >= 0)
    close(*descriptor);
  *descriptor = -1;
}

/* Whether the child exits until deadline; it is not reaped by this. */
static bool ended(const struct process *p, double deadline) {
  return p->pidfd < 0 || process_await(p->pidfd, deadline);
}

/* Takes the status of a child that has exited.  Where another process traces
 * it (ptrace(2)), that one has to see it first; nothing tells when it has. */
static void reap(struct process *p, double patience) {
  const struct timespec moment = {0, 1000000};
  double deadline = core_clock() + patience;
  if (p->pidfd < 0)
    return;
  while (waitpid(p->pid, &p->status, WNOHANG) == 0)
    if (core_clock() < deadline)
      nanosleep(&moment, NULL);
    else
      return;
  process_close(&p->pidfd);
}

static bool running(struct process *p) {
  if (ended(p, 0))
    reap(p, 0);
  return p->pidfd >= 0;
}

/* Unless it is reaped, kills the child with its group and reaps it; frees what
 * the box holds. */
static void release(struct process *p) {
  int i;
  if (p->pidfd >= 0) {
    kill(-p->pid, SIGKILL);
    kill(p->pid, SIGKILL);
    if (ended(p, core_clock() + KILL_TIMEOUT)) /* else the kernel holds it: */
      reap(p, TRACER_TIMEOUT);                 /* left to another close() */
  }
  for (i = 0; i < 3; i++)
    process_close(&p->theirs[i]);
  for (i = 0; i < 2; i++) {
    process_close(&p->outputs[i].descriptor);
    free(p->outputs[i].bytes);
    p->outputs[i].bytes = NULL;
  }
}

static void push_status(lua_State *L, const struct process *p) {
  lua_createtable(L, 0, 4);
  if (WIFEXITED(p->status)) {
    lua_pushinteger(L, WEXITSTATUS(p->status));
    lua_setfield(L, -2, "status");
  } else if (WIFSIGNALED(p->status)) {
    lua_pushinteger(L, WTERMSIG(p->status));
    lua_setfield(L, -2, "signal");
  }
}

/* Gives the child its input, all of it at once, and two pipes whose other ends
 * never block; 0 or an errno value. */
static int open_streams(struct process *p,
                        const struct process_command *command) {
  int ends[2], i, error = 0;
  if (command->input != NULL) {
    p->theirs[0] = memfd_create("stdin", MFD_CLOEXEC);
    error = core_write(p->theirs[0], command->input, command->length);
    lseek(p->theirs[0], 0, SEEK_SET);
  }
  for (i = 0; i < 2 && error == 0; i++) {
    if (pipe2(ends, O_CLOEXEC) != 0)
      return errno;
    p->outputs[i].descriptor = ends[0];
    p->theirs[i + 1] = ends[1];
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
  }
  return error;
}

/* Reads what is in the pipe by now, and not what a daemon goes on writing; 0
 * or an errno value, EFBIG beyond the limit. */
static int take(struct process_output *out, size_t limit) {
  int waiting = 0;
  char *bytes;
  ssize_t n;
  if (out->descriptor < 0 || ioctl(out->descriptor, FIONREAD, &waiting) != 0)
    return 0;
  bytes = realloc(out->bytes, out->length + (size_t)waiting + 1);
  if (bytes == NULL)
    return ENOMEM;
  out->bytes = bytes;
  n = read(out->descriptor, bytes + out->length, (size_t)waiting + 1);
  if (n > 0)
    out->length += (size_t)n;
  else if (n == 0 || errno != EAGAIN)
    process_close(&out->descriptor);
  return out->length > limit ? EFBIG : 0;
}

/* Reads what the child writes until it has exited (0), or a limit is passed. */
static int attend(struct process *p, size_t limit) {
  for (;;) {
    struct pollfd waits[] = {
        {.fd = p->pidfd, .events = POLLIN},
        {.fd = p->outputs[0].descriptor, .events = POLLIN},
        {.fd = p->outputs[1].descriptor, .events = POLLIN}};
    /* looked at first, so that what is read then is all that it wrote */
    bool over = ended(p, 0);
    int left, error = take(&p->outputs[0], limit);
    if (error == 0)
      error = take(&p->outputs[1], limit);
    if (error != 0 || over)
      return error;
    left = time_left(p->deadline);
    if (left == 0)
      return ETIMEDOUT;
    if (core_interrupted())
      return EINTR;
    poll(waits, COUNT(waits), left);
  }
}

/*
 * process.run(argv[, options]) -> { status =, signal =, stdout =, stderr = }
 *   | nil, message, "missing" | "denied" | "timeout" | "limit" | "busy" | "io"
 * Runs argv[1], looked for in SEARCH_PATH unless it holds a slash, until it
 * has exited; either status (0 to 255) or signal (a number) is set.  options:
 *   stdin    bytes for its standard input (a file), else that is /dev/null
 *   timeout  seconds (60), after which its process group is killed
 *   limit    bytes (1 MiB) for each of stdout and stderr; more kills likewise
 *   env      { NAME = value } added to PATH and LC_ALL, its whole environment
 *   cwd      its working folder, entered with its own rights
 *   uid, gid numbers; supplementary groups are dropped then; no uid alone
 */
static int l_run(lua_State *L) {
  static const char *const options[] = {"stdin", "timeout", "env",   "cwd",
                                        "uid",   "gid",     "limit", NULL};
  static const char *const names[] = {"stdout", "stderr"};
  struct process_command command;
  struct process *p;
  int error, i;
  process_check_command(L, options, &command);
  p = new_process(L, &command);
  error = open_streams(p, &command);
  if (error == 0)
    error = process_start(p, &command);
  if (error == 0)
    error = attend(p, command.limit);
  if (error == 0) {
    reap(p, TRACER_TIMEOUT); /* what it left behind goes on */
    if (p->pidfd >= 0)
      error = ECHILD; /* who traces it keeps its status */
  }
  if (error == 0) {
    push_status(L, p);
    for (i = 0; i < 2; i++) {
      lua_pushlstring(L, p->outputs[i].bytes, p->outputs[i].length);
      lua_setfield(L, -2, names[i]);
    }
  }
  release(p);
  return error == 0 ? 1 : process_fail(L, &command, p, error);
}

/*
 * process.start(argv[, options]) -> process
 *   | nil, message, "missing" | "denied" | "timeout" | "busy" | "io"
 * Starts argv[1], without input, and returns while it runs; it is killed with
 * its group when the handle is closed or collected.  options: env, cwd, uid,
 * gid as for run, and
 *   output   a file (new: mode 0600) to append stdout and stderr to
 */
static int l_start(lua_State *L) {
  static const char *const options[] = {"env", "cwd",    "uid",
                                        "gid", "output", NULL};
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY;
  struct process_command command;
  struct process *p;
  int error;
  process_check_command(L, options, &command);
  p = new_process(L, &command);
  if (command.output != NULL) {
    p->theirs[1] = open(command.output, flags, 0600);
    if (p->theirs[1] < 0)
      return core_fail_errno(L, errno, "write", command.output);
    p->theirs[2] = fcntl(p->theirs[1], F_DUPFD_CLOEXEC, 0);
  }
  error = process_start(p, &command);
  if (error == 0)
    return 1;
  release(p);
  return process_fail(L, &command, p, error);
}

/* process.folder(path): the working folder of those that are given no cwd,
 * from now on; until then it is the caller's */
static int l_folder(lua_State *L) {
  core_check_path(L, 1);
  lua_pushvalue(L, 1);
  lua_setfield(L, LUA_REGISTRYINDEX, PROCESS_FOLDER);
  return 0;
}

/* The time limit at index in seconds, as a time of core_clock. */
static double check_deadline(lua_State *L, int index, lua_Number missing) {
  lua_Number timeout = luaL_optnumber(L, index, missing);
  luaL_argcheck(L, timeout >= 0 && timeout <= PROCESS_LONGEST, index,
                "out of range");
  return core_clock() + timeout;
}

/* process:pid() -> its number, also when it has ended */
static int l_pid(lua_State *L) {
  lua_pushinteger(L, check_process(L)->pid);
  return 1;
}

/* process:running() -> boolean   whether it has not exited */
static int l_running(lua_State *L) {
  lua_pushboolean(L, running(check_process(L)));
  return 1;
}

/*
 * process:wait([timeout]) -> { status =, signal = } | nil, message, "timeout"
 * Waits until it has exited, at most timeout seconds (else without limit).
 */
static int l_wait(lua_State *L) {
  struct process *p = check_process(L);
  if (!ended(p, check_deadline(L, 2, PROCESS_LONGEST)))
    return core_fail(L, "timeout", "process %d has not ended", (int)p->pid);
  reap(p, TRACER_TIMEOUT);
  if (p->pidfd >= 0)
    return core_fail(L, "timeout", "process %d is held by who traces it",
                     (int)p->pid);
  push_status(L, p);
  return 1;
}

/*
 * process:signal(name) -> true | nil, message, "missing" | "denied"
 * Sends the signal ("TERM", "HUP" ...) to it, and not to its group.
 */
static int l_signal(lua_State *L) {
  struct process *p = check_process(L);
  int number = core_check_signal(L, 2, NULL), error = ESRCH;
  if (running(p))
    error = kill(p->pid, number) == 0 ? 0 : errno;
  return core_push_signalled(L, p->pid, error);
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
  int number = core_check_signal(L, 2, "TERM");
  double deadline = check_deadline(L, 3, STOP_TIMEOUT);
  if (p->pidfd >= 0)
    kill(p->pid, number);
  ended(p, deadline);
  release(p);
  if (p->pidfd >= 0)
    return core_fail(L, "timeout", "process %d was killed and has not ended",
                     (int)p->pid);
  push_status(L, p);
  return 1;
}

/* process:close()   kills it with its group, if it was not seen to have ended;
 * also __gc and __close */
static int l_close(lua_State *L) {
  release(check_process(L));
  return 0;
}

static int l_tostring(lua_State *L) {
  struct process *p = check_process(L);
  lua_getiuservalue(L, 1, 1);
  lua_pushfstring(L, "process \"%s\" %d (%s)", lua_tostring(L, -1), (int)p->pid,
                  running(p) ? "running" : "ended");
  return 1;
}

static const luaL_Reg functions[] = {
    {"folder", l_folder}, {"run", l_run}, {"start", l_start}, {NULL, NULL}};

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
