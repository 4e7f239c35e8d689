/*
 * driver.c: a Lua state with the modules of the program, and the readers of
 * tests/support/readers.lua in it (see driver.h).
 */
#include "driver.h"

#include <stdlib.h>

/* The list of modules is main.c's. */
#define main certwright_main
int certwright_main(int argc, char **argv);
#include "../../core/main.c"
#undef main

static lua_State *start(const char *reader) {
  lua_State *L = luaL_newstate();
  lua_gc(L, LUA_GCINC, 100, 1000, 1);
  luaL_openlibs(L);
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  luaL_setfuncs(L, modules, 0);
  lua_pushcfunction(L, luaopen_core_zip); /* a library of its own otherwise */
  lua_setfield(L, -2, "core.zip");
  lua_settop(L, 0);
  if (luaL_dofile(L, READERS) != LUA_OK) {
    fprintf(stderr, "%s\n", lua_tostring(L, -1));
    abort();
  }
  lua_getfield(L, 1, reader);
  lua_replace(L, 1);
  return L;
}

int driver_read(const char *reader, const uint8_t *data, size_t size) {
  static lua_State *L = NULL; /* the reader is at 1 */
  if (L == NULL)
    L = start(reader);
  lua_pushvalue(L, 1);
  lua_pushlstring(L, (const char *)data, size);
  if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
    fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
    abort();
  }
  lua_gc(L, LUA_GCCOLLECT, 0); /* what is left after this is a leak */
  return 0;
}
