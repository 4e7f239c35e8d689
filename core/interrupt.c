/*
 * interrupt.c: core.interrupt, Ctrl-C as something that a program outlives.
 *
 * While it is watched, SIGINT is blocked: a wait for input reads it from a
 * descriptor, whatever handlers a library has set.  Code that runs is stopped
 * by it with the error "interrupted".  What either means is Lua's business.
 * Where a person insists, waits in C end early as well, and a second SIGINT is
 * not to be caught.
 */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static int descriptor = -1; /* where SIGINT is read while it is watched */
static lua_State *running;  /* the state whose code a signal stops */
static bool insists;        /* on an end, of code that catches errors too */
static volatile sig_atomic_t signals; /* that came while it runs */

/* Instructions; a thread that was stopped once looks as often, but for one. */
enum { LOOK_EVERY = 1000, LOOK_AGAIN = LOOK_EVERY + 1 };

static void stop(lua_State *L, lua_Debug *record) {
  (void)record;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted");
}

/* The hook of code on whose end someone insists; coroutines that it makes have
 * it as well, and keep it: a signal reaches that of the main thread only.  The
 * first signal raises once in each, so that what the error closes can clean up;
 * from the second on, each instruction does. */
static void look(lua_State *L, lua_Debug *record) {
  bool was_stopped = lua_gethookcount(L) == LOOK_AGAIN;
  (void)record;
  if (signals == 0 || (signals == 1 && was_stopped))
    return;
  lua_sethook(L, look, LUA_MASKCOUNT, signals > 1 ? 1 : LOOK_AGAIN);
  luaL_error(L, "interrupted");
}

bool core_interrupted(void) {
  return insists && signals > 0;
}

/* May be called from a handler.  Only between instructions of Lua code: a hook
 * on calls would raise where a __close begins, which then cleans up nothing. */
static void on_signal(int number) {
  (void)number;
  signals++;
  if (running != NULL)
    lua_sethook(running, insists ? look : stop, LUA_MASKCOUNT, 1);
}

static void mask(int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigprocmask(how, &set, NULL);
}

/* Takes a SIGINT that is waiting; whether there was one. */
static bool take(void) {
  struct signalfd_siginfo told;
  return read(descriptor, &told, sizeof told) > 0;
}

/*
 * interrupt.watch(on) -> whether it was watched before
 * From now on SIGINT does not end the program (true), or does again (false);
 * one that is waiting then is forgotten.
 */
static int l_watch(lua_State *L) {
  struct sigaction action, before;
  bool on = lua_toboolean(L, 1);
  sigset_t set;
  memset(&action, 0, sizeof action);
  action.sa_handler = on ? on_signal : SIG_DFL;
  sigaction(SIGINT, &action, &before);
  if (on)
    mask(SIG_BLOCK);
  if (on && descriptor < 0) {
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  take();
  if (!on)
    mask(SIG_UNBLOCK);
  lua_pushboolean(L, before.sa_handler == on_signal);
  return 1;
}

/*
 * interrupt.detach()
 * From now on the program outlives the terminal and the reader of its output:
 * SIGHUP and SIGPIPE do not end it.
 */
static int l_detach(lua_State *L) {
  (void)L;
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
  return 0;
}

/*
 * interrupt.run(function, handler[, insists]) -> true, what it returns
 *   | false, problem
 * As xpcall; SIGINT stops the function with the error "interrupted".  insists:
 * also its coroutines and what it waits for in C (a sleep, a probe, a program,
 * a lock), and a second SIGINT also what catches that error.
 */
static int l_run(lua_State *L) {
  int status;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  insists = lua_toboolean(L, 3);
  lua_settop(L, 2);
  lua_rotate(L, 1, 1); /* the handler below the function */
  signals = 0;
  running = L;
  if (insists)
    lua_sethook(L, look, LUA_MASKCOUNT, LOOK_EVERY);
  mask(SIG_UNBLOCK);
  status = lua_pcall(L, 0, LUA_MULTRET, 1);
  mask(SIG_BLOCK);
  running = NULL;
  lua_sethook(L, NULL, 0, 0);
  if (status == LUA_OK && core_interrupted()) { /* what it waited for ended */
    status = LUA_ERRRUN;
    lua_settop(L, 1);
    lua_pushliteral(L, "interrupted");
  }
  insists = false;
  signals = 0; /* for coroutines that outlive it */
  lua_pushboolean(L, status == LUA_OK);
  lua_replace(L, 1);
  return lua_gettop(L);
}

/*
 * interrupt.wait(descriptor) -> true when there is input or its end,
 *   false when SIGINT came | nil, message, "io"
 */
static int l_wait(lua_State *L) {
  struct pollfd set[2] = {{(int)luaL_checkinteger(L, 1), POLLIN, 0},
                          {descriptor, POLLIN, 0}};
  while (poll(set, COUNT(set), -1) < 0)
    if (errno != EINTR)
      return core_fail_errno(L, errno, "wait for", "input");
  lua_pushboolean(L, !take());
  return 1;
}

static const luaL_Reg functions[] = {{"detach", l_detach},
                                     {"run", l_run},
                                     {"wait", l_wait},
                                     {"watch", l_watch},
                                     {NULL, NULL}};

int luaopen_core_interrupt(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
