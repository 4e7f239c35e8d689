/*
 * main.c: the host.  One Lua state, the core.* modules preloaded (opened when
 * they are required, some from libraries of their own), and lua/cli.lua run
 * protected.
 *
 * It finds the program's own files and decides nothing else: the command
 * line, the site and every message to the user are cli.lua's.
 */
#include "core.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <lualib.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER(path) path "/?.lua;" path "/?/init.lua"

static const luaL_Reg modules[] = {
    {"core.bundle", luaopen_core_bundle},
    {"core.caller", luaopen_core_caller},
    {"core.cert", luaopen_core_cert},
    {"core.file", luaopen_core_file},
    {"core.generation", luaopen_core_generation},
    {"core.host", luaopen_core_host},
    {"core.interrupt", luaopen_core_interrupt},
    {"core.key", luaopen_core_key},
    {"core.load", luaopen_core_load},
    {"core.log", luaopen_core_log},
    {"core.probe", luaopen_core_probe},
    {"core.process", luaopen_core_process},
    {"core.request", luaopen_core_request},
    {"core.revocation", luaopen_core_revocation},
    {NULL, NULL},
};

/* Modules that are libraries of their own, since they need others that are not
 * worth loading, or not there, where nobody uses them. */
static const char *const libraries[] = {"core.http", "core.idna", "core.store",
                                        "core.zip", NULL};

/*
 * require "core.NAME" of such a module; upvalue 1 is the folder of NAME.so.
 * Raises what the dynamic linker said, which names a library that is missing.
 */
static int open_library(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  const char *path =
      lua_pushfstring(L, "%s/%s.so", lua_tostring(L, lua_upvalueindex(1)),
                      name + strlen("core."));
  struct stat found;
  lua_CFunction opener;
  void *library;
  if (core_check_way(L, path, "run code from", &found) != 0)
    return luaL_error(L, "%s", lua_tostring(L, -2));
  library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL)
    return luaL_error(L, "cannot load '%s': %s", path, dlerror());
  luaL_gsub(L, lua_pushfstring(L, "luaopen_%s", name), ".", "_");
  *(void **)&opener = dlsym(library, lua_tostring(L, -1));
  if (opener == NULL)
    return luaL_error(L, "cannot load '%s': %s", path, dlerror());
  return opener(L);
}

/* Pushes the folder that holds lua/ and scripts/, and that of the libraries:
 * beside the program in the tree, below PREFIX once installed. */
static const char *push_home(lua_State *L, const char **folder) {
  static const char *const places[][2] = {
      {"%s", "%s/" MODULES}, {"%s/share/certwright", "%s/lib/certwright"}};
  char program[PATH_MAX] = "";
  size_t i;
  if (readlink("/proc/self/exe", program, sizeof program - 1) < 0)
    *program = '\0';
  for (i = 0; i < COUNT(places); i++) {
    char *slash = strrchr(program, '/'); /* its folder, then that one's */
    const char *home;
    if (slash != NULL)
      *slash = '\0';
    home = lua_pushfstring(L, places[i][0], program);
    *folder = lua_pushfstring(L, places[i][1], program);
    if (access(lua_pushfstring(L, "%s/lua/cli.lua", home), R_OK) == 0)
      return home;
  }
  luaL_error(L, "cannot find lua/cli.lua beside the program or in "
                "../share/certwright");
  return NULL;
}

/* What the caller may have left behind: a standard stream that is closed (the
 * next file would take its number), or SIGCHLD ignored (no child's status
 * could be had).  A limit of a file's size makes a write fail, as a full disk
 * does, and does not kill.  A core file could hold a private key, also one that
 * is piped to a program, for which its limit means nothing; nor may a process
 * of the same user look into this one. */
static void settle(void) {
  const struct rlimit none = {0, 0};
  int descriptor;
  core_cleanse_freed();
  core_settle_caller();
  do
    descriptor = open("/dev/null", O_RDONLY);
  while (descriptor >= 0 && descriptor <= 2);
  if (descriptor >= 0)
    close(descriptor);
  signal(SIGCHLD, SIG_DFL);
  signal(SIGXFSZ, SIG_IGN);
  /* The system takes back what OpenSSL holds, at once. */
  OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
  setrlimit(RLIMIT_CORE, &none);
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void set_paths(lua_State *L, const char *home, const char *folder) {
  size_t i;
  lua_getglobal(L, "package");
  lua_pushfstring(
      L, "%s/lua/?.lua;%s/lua/?/init.lua;%s", home, home,
      FOLDER("/usr/share/lua/5.4") ";" FOLDER("/usr/local/share/lua/5.4"));
  lua_setfield(L, -2, "path");
  lua_pushliteral(L, LUA_CMODULES "/?.so;/usr/lib/lua/5.4/?.so;"
                                  "/usr/local/lib/lua/5.4/?.so");
  lua_setfield(L, -2, "cpath");
  lua_getfield(L, -1, "preload");
  luaL_setfuncs(L, modules, 0);
  for (i = 0; libraries[i] != NULL; i++) {
    lua_pushstring(L, folder);
    lua_pushcclosure(L, open_library, 1);
    lua_setfield(L, -2, libraries[i]);
  }
  lua_pop(L, 2);
}

/* Runs lua/cli.lua with home, version, and the arguments; its result is the
 * exit status.  Called protected, with argc and argv on the stack. */
static int run(lua_State *L) {
  int argc = (int)lua_tointeger(L, 1), i;
  char **argv = lua_touserdata(L, 2);
  const char *folder, *home = push_home(L, &folder);
  lua_pushboolean(L, 1); /* LUA_PATH, LUA_CPATH and LUA_INIT mean nothing */
  lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
  luaL_openlibs(L);
  set_paths(L, home, folder);
  core_open_chunks(L, lua_pushfstring(L, "%s/chunks", folder));
  luaL_requiref(L, "core.load", luaopen_core_load, 0);
  lua_getfield(L, -1, "file");
  lua_pushfstring(L, "%s/lua/cli.lua", home);
  lua_call(L, 1, 2);
  if (lua_isnil(L, -2))
    return lua_error(L);
  lua_pop(L, 1);
  lua_pushstring(L, home);
  lua_pushstring(L, VERSION);
  luaL_checkstack(L, argc, "too many arguments");
  for (i = 1; i < argc; i++)
    lua_pushstring(L, argv[i]);
  lua_call(L, i + 1, 1);
  return 1;
}

int main(int argc, char **argv) {
  lua_State *L;
  int status = 1;
  settle();
  L = luaL_newstate();
  if (L == NULL)
    return status;
  lua_pushcfunction(L, run);
  lua_pushinteger(L, argc);
  lua_pushlightuserdata(L, argv);
  if (lua_pcall(L, 2, 1, 0) == LUA_OK)
    status = (int)lua_tointeger(L, -1);
  else
    fprintf(stderr, "certwright: %s\n", luaL_tolstring(L, -1, NULL));
  lua_close(L);
  if (status == 0 && (fflush(stdout) != 0 || ferror(stdout) != 0)) {
    perror("certwright: cannot write the result");
    status = 1;
  }
  return status;
}
