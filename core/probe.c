/*
 * probe.c: core.probe, what services show their clients.  As many probes at
 * once as asked for, in one poll loop (one probe is handshake.c's).
 *
 * The loop runs without Lua; all that it owns hangs on the box of its run.
 */
#include "probe.h"
#include "core.h"

#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_AT_ONCE 512 /* half of the usual limit of descriptors */
#define LONGEST_STEP 3600

struct run {
  struct probe *first;
  lua_Integer most; /* at once */
  double limit;     /* of one step, seconds */
  bool staple;      /* whether to ask for one */
};

static void free_run(void *value) {
  struct run *run = value;
  while (run->first != NULL) {
    struct probe *p = run->first;
    run->first = p->next;
    probe_finish(p);
    lookup_drop(p->lookup);
    sk_X509_pop_free(p->chain, X509_free);
    free(p->staple);
    free(p);
  }
  free(run);
}

/* An event, then the clock: a step that does not end is late all the same. */
static void advance(struct probe *p, bool event) {
  char reason[64];
  if (event)
    probe_steps[p->step].act(p);
  if (p->done || core_clock() < p->deadline)
    return;
  snprintf(reason, sizeof reason, "not within %g seconds", p->limit);
  if (p->step == PROBE_FAREWELL)
    probe_finish(p);
  else
    probe_fail(p, "timeout", reason);
}

/* Begins as many from this one on as may go on at once, and waits for their
 * events; how many they are. */
static int wait_for_events(struct run *run, struct probe *p,
                           struct probe *active[], struct pollfd polled[]) {
  double left = LONGEST_STEP, now = core_clock();
  int count = 0;
  for (; p != NULL && count < run->most; p = p->next) {
    if (p->step == PROBE_WAITING && !p->done)
      probe_begin(p, run->first);
    if (p->done)
      continue;
    left = fmin(left, p->deadline - now);
    polled[count] = (struct pollfd){.fd = p->descriptor, .events = p->events};
    active[count++] = p;
  }
  if (count > 0)
    poll(polled, (nfds_t)count, (int)ceil(fmax(left, 0) * 1000));
  return count;
}

/* Ends those that go on or wait from this one on. */
static void give_up(struct probe *p) {
  for (; p != NULL; p = p->next)
    if (!p->done)
      probe_fail(p, "io", "interrupted");
}

/* A server that hangs up must not end the program: libssl writes to sockets
 * with write(). */
static void loop(struct run *run) {
  const struct sigaction ignore = {.sa_handler = SIG_IGN};
  struct sigaction before;
  struct probe *active[MOST_AT_ONCE], *from = run->first;
  struct pollfd polled[MOST_AT_ONCE];
  int i, count;
  sigaction(SIGPIPE, &ignore, &before);
  while ((count = wait_for_events(run, from, active, polled)) > 0) {
    if (core_interrupted()) {
      give_up(from);
      break;
    }
    for (i = 0; i < count; i++)
      advance(active[i], polled[i].revents != 0);
    while (from->done && from->next != NULL)
      from = from->next;
  }
  sigaction(SIGPIPE, &before, NULL);
}

/* Lua */

static void read_options(lua_State *L, int index, struct run *run) {
  static const char *const fields[] = {"name", "timeout", "concurrency",
                                       "staple", NULL};
  core_check_fields(L, index, fields);
  lua_getfield(L, index, "name");
  luaL_optstring(L, -1, NULL);
  lua_getfield(L, index, "timeout");
  run->limit = luaL_optnumber(L, -1, 30);
  luaL_argcheck(L, run->limit > 0 && run->limit <= LONGEST_STEP, index,
                "timeout is not a number of seconds up to 3600");
  lua_getfield(L, index, "concurrency");
  run->most = luaL_optinteger(L, -1, 64);
  luaL_argcheck(L, run->most > 0 && run->most <= MOST_AT_ONCE, index,
                "concurrency is not a number from 1 to 512");
  lua_getfield(L, index, "staple");
  run->staple = lua_toboolean(L, -1);
  lua_pop(L, 4);
}

/* Fills in the URL, address and name on top of the stack; NULL, or why the
 * probe cannot be done, with the code. */
static const char *set_probe(lua_State *L, struct probe *p, const char **code) {
  size_t length;
  const char *text = lua_tolstring(L, -3, &length), *trouble;
  dialogue_escape(p->url, sizeof p->url, text, length);
  if (length >= sizeof p->url)
    return "it has more than 511 characters";
  trouble = endpoint_parse(&p->endpoint, text, length, code);
  if (trouble != NULL)
    return trouble;
  strcpy(p->url, text);
  text = lua_tostring(L, -2);
  if (text != NULL && !endpoint_address(text, &p->address, &p->address_length))
    return "the address to use is not an IP address";
  text = lua_tolstring(L, -1, &length);
  if (text != NULL && length == 0)
    p->endpoint.name[0] = '\0';
  else if (text != NULL && !endpoint_name(p->endpoint.name, text, length))
    return "the name to ask for is not a DNS name";
  return NULL;
}

/* Makes a probe of the endpoint on top of the stack, a URL or a table. */
static struct probe *read_endpoint(lua_State *L, int options,
                                   const struct run *run) {
  static const char *const fields[] = {"endpoint", "name", "address", NULL};
  const char *code = "usage", *trouble;
  int item = lua_gettop(L);
  struct probe *p;
  if (!lua_istable(L, item)) {
    lua_createtable(L, 0, 1);
    lua_insert(L, item);
    lua_setfield(L, item, "endpoint");
  }
  core_check_fields(L, item, fields);
  if (lua_getfield(L, item, "endpoint") != LUA_TSTRING)
    luaL_error(L, "an endpoint is neither a URL nor a table with one");
  lua_getfield(L, item, "address");
  luaL_optstring(L, -1, NULL);
  if (lua_getfield(L, item, "name") == LUA_TNIL) {
    lua_pop(L, 1);
    lua_getfield(L, options, "name");
  }
  luaL_optstring(L, -1, NULL);
  p = calloc(1, sizeof *p);
  if (p == NULL)
    luaL_error(L, "not enough memory");
  p->descriptor = -1;
  p->limit = run->limit;
  p->wants_staple = run->staple;
  trouble = set_probe(L, p, &code);
  if (trouble != NULL)
    probe_fail(p, code, trouble);
  lua_settop(L, item);
  return p;
}

/* Sets a field of the table on top. */
static void set_text(lua_State *L, const char *field, const char *text) {
  core_pushtext(L, text, strlen(text));
  lua_setfield(L, -2, field);
}

static void set_seen(lua_State *L, struct probe *p) {
  unsigned char digest[32];
  X509_digest(sk_X509_value(p->chain, 0), EVP_sha256(), digest, NULL);
  core_pushhex(L, digest, sizeof digest);
  lua_setfield(L, -2, "fingerprint");
  core_push_certificates(L, p->chain);
  lua_setfield(L, -2, "chain");
  if (p->staple != NULL) {
    lua_pushlstring(L, (const char *)p->staple, (size_t)p->staple_length);
    lua_setfield(L, -2, "staple");
  }
  set_text(L, "protocol", p->protocol);
  set_text(L, "cipher", p->cipher);
  lua_pushnumber(L, p->seconds);
  lua_setfield(L, -2, "seconds");
}

static void push_result(lua_State *L, struct probe *p) {
  char address[64] = ""; /* an IPv6 address and its zone */
  if (p->address_length > 0)
    getnameinfo((const struct sockaddr *)&p->address, p->address_length,
                address, sizeof address, NULL, 0, NI_NUMERICHOST);
  lua_createtable(L, 0, 9);
  lua_pushinteger(L, p->index);
  lua_setfield(L, -2, "index");
  set_text(L, "endpoint", p->url);
  if (address[0] != '\0')
    set_text(L, "address", address);
  if (p->endpoint.name[0] != '\0')
    set_text(L, "name", p->endpoint.name);
  if (p->code == NULL) {
    set_seen(L, p);
    return;
  }
  if (strcmp(address, p->endpoint.host) == 0)
    address[0] = '\0';
  lua_pushfstring(L, "%s '%s'%s%s: %s", probe_steps[p->step].trouble, p->url,
                  address[0] != '\0' ? " at " : "", address, p->reason);
  lua_setfield(L, -2, "error");
  set_text(L, "code", p->code);
  set_text(L, "step", probe_steps[p->step].name);
}

/*
 * probe.run(endpoints[, { name=, timeout=, concurrency=, staple= }]) -> results
 * Each endpoint is a URL (https, smtp, smtps, imap, imaps, pop3, pop3s) or
 * { endpoint=URL, name=, address=IP address instead of a look-up }.  name is
 * the server name to ask for (the URL's host; none for an address; "" for none
 * at all), timeout the seconds of one step (30), concurrency how many go on at
 * once (64), staple whether an OCSP response is asked for.
 *
 * One result for each endpoint and address, in their order, { index
 * (which endpoint), endpoint, address, name } with { fingerprint (SHA-256 of
 * the first certificate), chain (core.cert boxes as sent), staple (bytes, where
 * one came), protocol, cipher, seconds (from its start to the certificate) },
 * or with { error (a message), code, step }: step "url": code "usage" |
 * "unsupported" step "resolve": "missing" | "timeout" | "io" step "connect":
 * "refused" | "timeout" | "denied" | "io" steps "greeting", "starttls",
 * "handshake": "refused" | "timeout" | "parse" | "limit" | "io", and
 * "unsupported" where STARTTLS is not offered Nothing is verified: what is
 * expired, weak or not for that name is a result, and so is a server that wants
 * the client's certificate.  A URL that is none comes back escaped and
 * shortened.
 */
static int l_run(lua_State *L) {
  core_holder *holder;
  struct run *run;
  struct probe **end, *p;
  lua_Integer i, count;
  luaL_checktype(L, 1, LUA_TTABLE);
  count = luaL_len(L, 1);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  holder = core_push_holder(L, free_run);
  holder->value = run = calloc(1, sizeof *run);
  if (run == NULL)
    return luaL_error(L, "not enough memory");
  read_options(L, 2, run);
  for (i = 1, end = &run->first; i <= count; i++, end = &(*end)->next) {
    lua_geti(L, 1, i);
    *end = read_endpoint(L, 2, run);
    (*end)->index = (int)i;
    lua_pop(L, 1);
  }
  loop(run);
  lua_newtable(L);
  for (i = 1, p = run->first; p != NULL; p = p->next, i++) {
    push_result(L, p);
    lua_rawseti(L, -2, i);
  }
  core_release(holder);
  return 1;
}

static const luaL_Reg functions[] = {
    {"rehearse", probe_rehearse}, {"run", l_run}, {NULL, NULL}};

int luaopen_core_probe(lua_State *L) {
  luaL_requiref(L, "core.cert", luaopen_core_cert, 0); /* what chains hold */
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
