/*
 * sanitize.c: what the program that `make test-sanitize` tests has beside its
 * own code.  The options of the sanitizers stand here, since the programs that
 * tests start see none of the caller's environment.
 */
#include <lua.h>
#include <stdio.h>
#include <time.h>

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
const char *__lsan_default_options(void);
const char *__lsan_default_suppressions(void);
int __lsan_is_turned_off(void);
int dlclose(void *library);
/* The linker's --wrap (see Makefile) gives these the calls of our own code. */
lua_State *__real_luaL_newstate(void);
lua_State *__wrap_luaL_newstate(void);
void *__real_lua_newuserdatauv(lua_State *L, size_t size, int values);
void *__wrap_lua_newuserdatauv(lua_State *L, size_t size, int values);
void __real_lua_createtable(lua_State *L, int array, int fields);
void __wrap_lua_createtable(lua_State *L, int array, int fields);
const char *__real_lua_pushlstring(lua_State *L, const char *s, size_t length);
const char *__wrap_lua_pushlstring(lua_State *L, const char *s, size_t length);
const char *__real_lua_pushstring(lua_State *L, const char *s);
const char *__wrap_lua_pushstring(lua_State *L, const char *s);

/* A use after return is found too. */
const char *__asan_default_options(void) {
  return "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1"
         ":check_initialization_order=1:abort_on_error=0:exitcode=86";
}

const char *__ubsan_default_options(void) {
  return "print_stacktrace=1:exitcode=86";
}

const char *__lsan_default_options(void) {
  return "print_suppressions=0";
}

/* Readline hands a line to its handler, which has to free it; lua-readline 3.2
 * does not.  (The stack ends within readline, which has no frame pointers.) */
const char *__lsan_default_suppressions(void) {
  return "leak:libreadline.so";
}

/* Under strace: LeakSanitizer is a tracer itself, and there can be but one. */
int __lsan_is_turned_off(void) {
  FILE *status = fopen("/proc/self/status", "re");
  char line[128];
  int tracer = 0;
  while (status != NULL && fgets(line, sizeof line, status) != NULL)
    if (sscanf(line, "TracerPid: %d", &tracer) == 1)
      break;
  if (status != NULL)
    fclose(status);
  return tracer != 0;
}

/* Libraries stay where they are, as the last thing that lua_close does would be
 * to unload readline: what it and ncurses keep as long as the program lives
 * would count as leaks, since their globals are gone. */
int dlclose(void *library) {
  (void)library;
  return 0;
}

/* Between the cycles of collect() below, another begins soon after each. */
lua_State *__wrap_luaL_newstate(void) {
  lua_State *L = __real_luaL_newstate();
  if (L != NULL)
    lua_gc(L, LUA_GCINC, 120, 200, 10);
  return L;
}

static double cpu_seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* A whole cycle at the places where C code of ours takes memory: what it holds
 * and has not anchored is gone.  Only while that takes no more than half of all
 * time, since in a large heap one takes 50 ms. */
static void collect(lua_State *L) {
  static double spent = 0;
  double now = cpu_seconds();
  if (spent * 2 > now)
    return;
  lua_gc(L, LUA_GCCOLLECT, 0);
  spent += cpu_seconds() - now;
}

void *__wrap_lua_newuserdatauv(lua_State *L, size_t size, int values) {
  void *box = __real_lua_newuserdatauv(L, size, values);
  collect(L);
  return box;
}

void __wrap_lua_createtable(lua_State *L, int array, int fields) {
  __real_lua_createtable(L, array, fields);
  collect(L);
}

const char *__wrap_lua_pushlstring(lua_State *L, const char *s, size_t length) {
  const char *own = __real_lua_pushlstring(L, s, length);
  collect(L);
  return own;
}

const char *__wrap_lua_pushstring(lua_State *L, const char *s) {
  const char *own = __real_lua_pushstring(L, s);
  collect(L);
  return own;
}
