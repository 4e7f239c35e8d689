/*
 * process.h: what spawn.c and process.c, which are core.process, share.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include "core.h"

#define PROCESS_LONGEST 1e9 /* seconds, the highest time limit */
/* Where the registry keeps the working folder of those that are given none. */
#define PROCESS_FOLDER "core.process.folder"

/* What Lua asks for; the pointers are kept on its stack. */
struct process_command {
  char *const *argv, *const *environment;
  const char *files;  /* tried in order; each ends in a NUL, the last in two */
  const char *folder; /* NULL: the caller's working folder */
  const char *input;  /* NULL: /dev/null */
  const char *output; /* a path; NULL: /dev/null */
  size_t length;      /* of input */
  size_t limit;       /* bytes of each output */
  double timeout;     /* seconds */
  uid_t user;         /* -1: the caller's */
  gid_t group;        /* -1: the caller's */
};

/* What the child wrote to its stdout or stderr. */
struct process_output {
  int descriptor; /* the pipe; -1: none */
  char *bytes;    /* to be freed */
  size_t length;
};

/* The box: a child from its start until it is reaped. */
struct process {
  pid_t pid;       /* stays when it is reaped */
  int pidfd;       /* -1: reaped, or not started */
  int status;      /* as waitpid gives it; -1: never had */
  double deadline; /* on core_clock; for run until it exits, else until exec */
  int theirs[3];   /* its streams, until it runs; -1: /dev/null */
  struct process_output outputs[2];
  enum { STEP_RUN, STEP_BECOME, STEP_ENTER } step; /* the one that failed */
};

/* spawn.c */

/* Takes the argv at 1 and the options at 2, which may have these names only;
 * raises on misuse. */
void process_check_command(lua_State *L, const char *const names[],
                           struct process_command *command);
/* Starts the command in a session of its own, and waits until it is executed:
 * 0 or an errno value, after which closing the box ends what may be left. */
int process_start(struct process *p, const struct process_command *command);
/* nil, message, code; error is an errno value, EFBIG for too much output. */
int process_fail(lua_State *L, const struct process_command *command,
                 const struct process *p, int error);

/* process.c */

/* Whether the descriptor becomes readable, or is hung up, until deadline. */
bool process_await(int descriptor, double deadline);
void process_close(int *descriptor);

#endif
