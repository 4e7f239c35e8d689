/*
 * interrupt.c: core.interrupt, Ctrl-C as something that a program outlives.
 *
 * While it is watched, SIGINT sets a flag: running Lua code stops with the
 * error "interrupted", and a wait for input ends.  What that means is Lua's.
 */
#include "core.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

static volatile sig_atomic_t interrupted;
static lua_State *running; /* the state whose code a signal may stop */

static void stop(lua_State *L, lua_Debug *record) {
  (void)record;
  lua_sethook(L, NULL, 0, 0);
  luaL_error(L, "interrupted");
}

static void on_signal(int number) {
  const int all = LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT;
  (void)number;
  interrupted = 1;
  if (running != NULL)
    lua_sethook(running, stop, all, 1); /* may be called from a handler */
}

/*
 * interrupt.watch(on)
 * From now on SIGINT does not end the program (true), or does again (false).
 */
static int l_watch(lua_State *L) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = lua_toboolean(L, 1) ? on_signal : SIG_DFL;
  sigaction(SIGINT, &action, NULL);
  interrupted = 0;
  return 0;
}

/*
 * interrupt.run(function, ...) -> what pcall returns, "interrupted" as the
 * error when SIGINT came; the handler of errors adds a traceback.
 * The first argument after the function is the error handler.
 */
static int l_run(lua_State *L) {
  int status;
  luaL_checktype(L, 1, LUA_TFUNCTION);
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_rotate(L, 1, 1); /* the handler below the function */
  interrupted = 0;
  running = L;
  status = lua_pcall(L, lua_gettop(L) - 2, LUA_MULTRET, 1);
  running = NULL;
  lua_sethook(L, NULL, 0, 0);
  lua_pushboolean(L, status == LUA_OK);
  lua_replace(L, 1);
  return lua_gettop(L);
}

/*
 * interrupt.wait(descriptor) -> true when there is input or its end,
 *   false when SIGINT came | nil, message, "io"
 */
static int l_wait(lua_State *L) {
  struct pollfd entry = {(int)luaL_checkinteger(L, 1), POLLIN, 0};
  int n = 0;
  interrupted = 0;
  do
    n = poll(&entry, 1, -1);
  while (n < 0 && errno == EINTR && !interrupted);
  if (n < 0 && !interrupted)
    return core_fail_errno(L, errno, "wait for", "input");
  lua_pushboolean(L, n > 0);
  return 1;
}

static const luaL_Reg functions[] = {
    {"watch", l_watch}, {"run", l_run}, {"wait", l_wait}, {NULL, NULL}};

int luaopen_core_interrupt(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
