/*
 * main.c: the host.  One Lua state, the core.* modules preloaded (opened when
 * they are required), and lua/cli.lua run protected.
 *
 * It finds the program's own files and decides nothing else: the command
 * line, the site and every message to the user are cli.lua's.
 */
#include "core.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION "0"
#endif

#define LUA_SHARE "/usr/share/lua/5.4/?.lua;/usr/share/lua/5.4/?/init.lua"
#define LUA_LOCAL                                                              \
  "/usr/local/share/lua/5.4/?.lua;/usr/local/share/lua/5.4/?/init.lua"
#ifndef LUA_CMODULES
#define LUA_CMODULES "/usr/lib/lua/5.4"
#endif

static const luaL_Reg modules[] = {
    {"core.cert", luaopen_core_cert},
    {"core.file", luaopen_core_file},
    {"core.generation", luaopen_core_generation},
    {"core.host", luaopen_core_host},
    {"core.interrupt", luaopen_core_interrupt},
    {"core.key", luaopen_core_key},
    {"core.load", luaopen_core_load},
    {"core.probe", luaopen_core_probe},
    {"core.process", luaopen_core_process},
    {"core.request", luaopen_core_request},
    {"core.store", luaopen_core_store},
    {NULL, NULL},
};

/* The folder that holds lua/ and scripts/: beside the program in the tree,
 * PREFIX/share/certwright once installed. */
static bool find_home(char *home, size_t size) {
  static const char *const places[] = {"", "/../share/certwright"};
  char program[4096], probe[4400];
  ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  size_t i;
  if (length <= 0)
    return false;
  program[length] = '\0';
  *strrchr(program, '/') = '\0';
  for (i = 0; i < COUNT(places); i++) {
    snprintf(home, size, "%s%s", program, places[i]);
    snprintf(probe, sizeof probe, "%s/lua/cli.lua", home);
    if (access(probe, R_OK) == 0)
      return true;
  }
  return false;
}

static int traceback(lua_State *L) {
  const char *message = luaL_tolstring(L, 1, NULL);
  luaL_traceback(L, L, message, 1);
  return 1;
}

static void set_paths(lua_State *L, const char *home) {
  lua_getglobal(L, "package");
  lua_pushfstring(L, "%s/lua/?.lua;%s/lua/?/init.lua;%s;%s", home, home,
                  LUA_SHARE, LUA_LOCAL);
  lua_setfield(L, -2, "path");
  lua_pushfstring(L, "%s/?.so;/usr/lib/lua/5.4/?.so;/usr/local/lib/lua/5.4/"
                     "?.so", LUA_CMODULES);
  lua_setfield(L, -2, "cpath");
  lua_getfield(L, -1, "preload");
  luaL_setfuncs(L, modules, 0);
  lua_pop(L, 2);
}

/* Runs lua/cli.lua with home, version, and the arguments; its result is the
 * exit status.  Called protected, with argc, argv and home on the stack. */
static int run(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1), i;
  char **argv = lua_touserdata(L, 2);
  const char *home = lua_touserdata(L, 3);
  lua_settop(L, 0);
  lua_pushboolean(L, 1); /* LUA_PATH, LUA_CPATH and LUA_INIT mean nothing */
  lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  luaL_openlibs(L);
  set_paths(L, home);
  luaL_requiref(L, "core.load", luaopen_core_load, 0);
  lua_getfield(L, -1, "file");
  lua_pushfstring(L, "%s/lua/cli.lua", home);
  lua_call(L, 1, 2);
  if (lua_isnil(L, -2))
    return luaL_error(L, "%s", lua_tostring(L, -1));
  lua_pop(L, 1);
  lua_pushstring(L, home);
  lua_pushstring(L, VERSION);
  luaL_checkstack(L, argc, "too many arguments");
  for (i = 1; i < argc; i++)
    lua_pushstring(L, argv[i]);
  lua_call(L, 2 + (argc > 0 ? argc - 1 : 0), 1);
  return 1;
}

int main(int argc, char **argv) {
  const struct rlimit none = {0, 0};
  char home[4300];
  int status = 1;
  lua_State *L = luaL_newstate();
  setrlimit(RLIMIT_CORE, &none); /* a core file could hold a private key */
  if (L == NULL || !find_home(home, sizeof home)) {
    fprintf(stderr, "certwright: cannot find lua/cli.lua beside the program "
                    "or in ../share/certwright\n");
    return 1;
  }
  lua_pushcfunction(L, traceback);
  lua_pushcfunction(L, run);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  lua_pushlightuserdata(L, home);
  if (lua_pcall(L, 3, 1, 1) == LUA_OK)
    status = (int)lua_tointeger(L, -1);
  else
    fprintf(stderr, "certwright: %s\n", lua_tostring(L, -1));
  lua_close(L);
  return status;
}
