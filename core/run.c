/*
 * run.c: process.run, a program that is waited for.
 *
 * It is over when the child has exited, not when a daemon that it left behind
 * closes a pipe.  All of its streams are served at once, and none blocks.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define RUN_TIMEOUT 60.0         /* seconds */
#define SHORTEST 0.001           /* seconds, the lowest time limit */
#define OUTPUT_LIMIT (1 << 20)   /* bytes of each stream */
#define OUTPUT_HIGHEST (1 << 30) /* the highest limit that can be asked for */

/* How far a child may go. */
struct limits {
  double seconds, deadline;
  size_t bytes; /* of each output */
};

enum outcome { DONE, NOT_RUN, TOO_LONG, TOO_MUCH, NO_MEMORY };

/* A pipe whose end `ours` (0 or 1) never blocks. */
static bool open_pipe(int ours, int *our_end, int *their_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    return false;
  *our_end = ends[ours];
  *their_end = ends[1 - ours];
  return fcntl(*our_end, F_SETFL, O_NONBLOCK) == 0;
}

/* Starts the child with pipes as its streams; stdin is /dev/null when there
 * is nothing for it.  0 or an errno value. */
static int start_piped(struct process *p, struct process_command *command,
                       bool has_input, double deadline, const char **step) {
  int error = 0, i, *theirs = command->streams;
  *step = "run";
  theirs[0] = theirs[1] = theirs[2] = -1;
  if (!has_input)
    theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if ((has_input ? !open_pipe(1, &p->input, &theirs[0]) : theirs[0] < 0) ||
      !open_pipe(0, &p->outputs[0].descriptor, &theirs[1]) ||
      !open_pipe(0, &p->outputs[1].descriptor, &theirs[2]))
    error = errno;
  if (error == 0)
    error = process_start(p, command, deadline, step);
  for (i = 0; i < 3; i++)
    process_close(&theirs[i]);
  return error;
}

/* Writes what the child's stdin takes; closes it after the last byte, or when
 * nobody reads it. */
static void feed(struct process *p, const char **bytes, size_t *left) {
  ssize_t n = 0;
  if (p->input < 0)
    return;
  while (*left > 0 && (n = write(p->input, *bytes, *left)) > 0) {
    *bytes += n;
    *left -= (size_t)n;
  }
  if (*left == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
    process_close(&p->input);
}

/* Makes room for more of an output, of which limit + 1 bytes are kept. */
static bool make_room(struct process_output *out, size_t limit) {
  size_t capacity = out->capacity == 0 ? 4096 : 2 * out->capacity;
  char *bytes;
  if (out->length < out->capacity)
    return true;
  if (capacity > limit + 1)
    capacity = limit + 1;
  bytes = realloc(out->bytes, capacity);
  if (bytes == NULL)
    return false;
  out->bytes = bytes;
  out->capacity = capacity;
  return true;
}

/* Reads what is in the pipe by now, and not what a daemon goes on writing. */
static enum outcome take(struct process_output *out, size_t limit) {
  int waiting = 0;
  ssize_t n;
  if (out->descriptor < 0 || ioctl(out->descriptor, FIONREAD, &waiting) != 0)
    return DONE;
  do {
    if (!make_room(out, limit))
      return NO_MEMORY;
    n = read(out->descriptor, out->bytes + out->length,
             out->capacity - out->length);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
      process_close(&out->descriptor);
    if (n <= 0)
      return DONE;
    out->length += (size_t)n;
    if (out->length > limit)
      return TOO_MUCH;
    waiting -= (int)n;
  } while (waiting > 0);
  return DONE;
}

/* Serves the child until it has exited, or one of its limits is passed. */
static enum outcome attend(struct process *p, const char *input, size_t left,
                           const struct limits *limits) {
  for (;;) {
    /* looked at first, so that what is read then is all that it wrote */
    bool ended = process_ended(p);
    enum outcome outcome = take(&p->outputs[0], limits->bytes);
    struct pollfd waits[4];
    double until = limits->deadline;
    if (outcome == DONE)
      outcome = take(&p->outputs[1], limits->bytes);
    if (outcome != DONE || ended)
      return outcome;
    feed(p, &input, &left);
    if (core_clock() >= limits->deadline)
      return TOO_LONG;
    if (p->pidfd < 0)
      until = fmin(until, core_clock() + PROCESS_SLICE);
    waits[0] = (struct pollfd){.fd = p->pidfd, .events = POLLIN};
    waits[1] = (struct pollfd){.fd = p->input, .events = POLLOUT};
    waits[2] =
        (struct pollfd){.fd = p->outputs[0].descriptor, .events = POLLIN};
    waits[3] =
        (struct pollfd){.fd = p->outputs[1].descriptor, .events = POLLIN};
    poll(waits, COUNT(waits), process_left(until));
  }
}

/* As attend, without the SIGPIPE of a child that does not read its stdin;
 * takes the status of one that has exited. */
static enum outcome conduct(struct process *p, const char *input, size_t left,
                            const struct limits *limits) {
  const struct sigaction ignore = {.sa_handler = SIG_IGN};
  struct sigaction before;
  enum outcome outcome;
  sigaction(SIGPIPE, &ignore, &before);
  outcome = attend(p, input, left, limits);
  sigaction(SIGPIPE, &before, NULL);
  if (outcome == DONE)
    process_reap(p);
  return outcome;
}

static void push_result(lua_State *L, const struct process *p) {
  static const char *const names[] = {"stdout", "stderr"};
  int i;
  process_push_status(L, p);
  for (i = 0; i < 2; i++) {
    const struct process_output *out = &p->outputs[i];
    lua_pushlstring(L, out->length > 0 ? out->bytes : "", out->length);
    lua_setfield(L, -2, names[i]);
  }
}

static int fail_outcome(lua_State *L, const struct process_command *command,
                        enum outcome outcome, const struct limits *limits) {
  char number[32];
  if (outcome == TOO_LONG || outcome == NOT_RUN) {
    snprintf(number, sizeof number, "%g", limits->seconds);
    return core_fail(L, "timeout", "'%s' was killed: not done in %s seconds",
                     command->argv[0], number);
  }
  if (outcome == TOO_MUCH)
    return core_fail(L, "limit", "'%s' was killed: over %d bytes of output",
                     command->argv[0], (int)limits->bytes);
  return process_fail_spawn(L, command, ENOMEM, "run");
}

/*
 * process.run(argv[, options]) -> { status =, signal =, stdout =, stderr = }
 *   | nil, message, "missing" | "denied" | "timeout" | "limit" | "io"
 * Runs argv[1] (looked for in the compiled-in search path unless it holds a
 * slash) with the arguments argv[2..], and waits until it has exited; either
 * status (0 to 255) or signal (a number) is set.  options:
 *   stdin    bytes for its standard input, else that is /dev/null
 *   timeout  seconds (60), after which its process group is killed
 *   limit    bytes (1 MiB) for each of stdout and stderr; more kills likewise
 *   env      { NAME = value } added to PATH and LC_ALL, its whole environment
 *   cwd      its working folder, entered with its own rights
 *   uid, gid numbers; supplementary groups are dropped then; no uid alone
 */
int process_run(lua_State *L) {
  static const char *const names[] = {"stdin", "timeout", "env",   "cwd",
                                      "uid",   "gid",     "limit", NULL};
  struct process_command command;
  struct limits limits;
  enum outcome outcome;
  const char *input, *step;
  size_t length = 0;
  struct process *p;
  int error;
  process_options(L, names);
  process_check_command(L, &command);
  limits.seconds = process_number_option(L, "timeout", RUN_TIMEOUT, SHORTEST,
                                         PROCESS_LONGEST, false);
  limits.bytes = (size_t)process_number_option(L, "limit", OUTPUT_LIMIT, 0,
                                               OUTPUT_HIGHEST, true);
  if (lua_getfield(L, 2, "stdin") != LUA_TNIL && lua_type(L, -1) != LUA_TSTRING)
    return luaL_argerror(L, 2, "stdin: string expected");
  input = lua_tolstring(L, -1, &length);
  p = process_new(L);
  limits.deadline = core_clock() + limits.seconds;
  error = start_piped(p, &command, input != NULL, limits.deadline, &step);
  outcome = error == 0 ? conduct(p, input, length, &limits) : NOT_RUN;
  if (outcome == DONE)
    push_result(L, p);
  process_release(p); /* kills the group of one that passed a limit */
  if (outcome == DONE)
    return 1;
  if (outcome == NOT_RUN && error != ETIMEDOUT)
    return process_fail_spawn(L, &command, error, step);
  return fail_outcome(L, &command, outcome, &limits);
}
