/*
 * process.h: what spawn.c, run.c and process.c, which are core.process, share.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include "core.h"

/* spawn.c: a child process, from the command that Lua gives to its exec */
struct process_command {
  char *const *argv;
  char *const *environment;
  char *const *files; /* tried in order until one can be executed */
  const char *folder; /* NULL: the caller's working folder */
  bool has_user, has_group;
  uid_t user;
  gid_t group;
  int streams[3]; /* what the child gets as 0, 1 and 2 */
};
/* Fills all but streams from the argv at 1 and env, cwd, uid and gid of the
 * options at 2; what the command points to is kept on the stack. */
void process_check_command(lua_State *L, struct process_command *command);
/* A string of the options at 2, or NULL; it is kept on the stack. */
const char *process_string_option(lua_State *L, const char *name);
/* A number of the options at 2, which must lie between lowest and highest. */
lua_Number process_number_option(lua_State *L, const char *name,
                                 lua_Number missing, lua_Number lowest,
                                 lua_Number highest, bool whole);
/* Starts the command in a session of its own, and waits until it is executed
 * or deadline (on core_clock) has passed.  0 and the pid; or an errno value
 * and the step that failed, with no child left. */
int process_spawn(const struct process_command *command, double deadline,
                  pid_t *pid, const char **step);
/* nil, message, code of a command that process_spawn did not bring to run. */
int process_fail_spawn(lua_State *L, const struct process_command *command,
                       int error, const char *step);

/* process.c: a child from its start until it is reaped */

#define PROCESS_LONGEST 1e9 /* seconds, the highest time limit */
#define PROCESS_SLICE 0.01  /* seconds between looks, without a pidfd */

/* What the child wrote to one of its outputs. */
struct process_output {
  int descriptor; /* -1 when closed */
  char *bytes;
  size_t length, capacity;
};

/* The box: a child from its start until it is reaped. */
struct process {
  pid_t pid;  /* 0: none; stays when the child is reaped */
  bool alive; /* not reaped */
  bool known; /* status was had */
  int status; /* as waitpid gives it */
  int pidfd;  /* -1: none */
  int input;  /* where we write the child's stdin; -1 when closed */
  struct process_output outputs[2];
};

/* Pushes the box of a process that was not started yet. */
struct process *process_new(lua_State *L);
/* Leaves argv and options on the stack, an empty table when there are none;
 * raises when there are other options than these. */
void process_options(lua_State *L, const char *const names[]);
/* Starts the child; 0, or an errno value and the step that failed. */
int process_start(struct process *p, const struct process_command *command,
                  double deadline, const char **step);
/* Milliseconds for poll until deadline, rounded up; at most a minute. */
int process_left(double deadline);
/* Whether the child has exited; it is not reaped by this. */
bool process_ended(const struct process *p);
/* Takes the status of a child that has exited. */
void process_reap(struct process *p);
/* Closes what the box holds, kills what is left of the child and its group,
 * and reaps it; may run twice. */
void process_release(struct process *p);
/* Pushes { status = } or { signal = }. */
void process_push_status(lua_State *L, const struct process *p);
void process_close(int *descriptor);

/* run.c: process.run */
int process_run(lua_State *L);

#endif
