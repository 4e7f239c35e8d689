/*
 * probe.c: core.probe, what services show their clients.  As many probes at
 * once as asked for, in one poll loop (one probe is handshake.c's).
 *
 * The loop runs without Lua; all that it owns hangs on the box of its run.
 */
#include "probe.h"
#include "core.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define RUN "core.probe.run"
#define MOST_AT_ONCE 512 /* half of the usual limit of descriptors */
#define LONGEST_STEP 3600

struct run {
  struct probe *first, *last;
  struct probe *waiting; /* none before it waits */
  struct lookup **lookups;
  size_t lookup_count;
  struct probe **active;
  struct pollfd *polled;
  size_t active_count, most;
  double limit;
};

static void free_probe(struct probe *p) {
  probe_finish(p);
  sk_X509_pop_free(p->chain, X509_free);
  free(p);
}

static void free_run(struct run *run) {
  struct probe *p, *next;
  size_t i;
  for (p = run->first; p != NULL; p = next) {
    next = p->next;
    free_probe(p);
  }
  for (i = 0; i < run->lookup_count; i++)
    lookup_drop(run->lookups[i]);
  free(run->lookups);
  free(run->active);
  free(run->polled);
  memset(run, 0, sizeof *run);
}

/* A new probe after another one, or at the end; NULL: no memory. */
static struct probe *add_probe(struct run *run, struct probe *after) {
  struct probe *p = calloc(1, sizeof *p);
  if (p == NULL)
    return NULL;
  p->descriptor = -1;
  p->limit = run->limit;
  if (after == NULL)
    after = run->last;
  if (after != NULL) {
    p->next = after->next;
    after->next = p;
  } else {
    run->first = p;
  }
  if (after == run->last)
    run->last = p;
  return p;
}

/* The look-up of a host, one for all its probes; NULL: errno. */
static struct lookup *find_lookup(struct run *run, const char *host) {
  struct lookup **grown;
  size_t i;
  for (i = 0; i < run->lookup_count; i++)
    if (strcmp(lookup_host(run->lookups[i]), host) == 0)
      return run->lookups[i];
  grown = realloc(run->lookups, (i + 1) * sizeof *grown);
  if (grown == NULL)
    return NULL;
  run->lookups = grown;
  grown[i] = lookup_start(host);
  if (grown[i] != NULL)
    run->lookup_count++;
  return grown[i];
}

static void set_address(struct probe *p, const struct addrinfo *item) {
  memcpy(&p->address, item->ai_addr, item->ai_addrlen);
  p->address_length = item->ai_addrlen;
}

/* Whether an earlier item of the list is the same address. */
static bool repeated(const struct addrinfo *list, const struct addrinfo *item) {
  for (; list != item; list = list->ai_next)
    if (list->ai_addrlen == item->ai_addrlen &&
        memcmp(list->ai_addr, item->ai_addr, item->ai_addrlen) == 0)
      return true;
  return false;
}

/* The first address becomes the probe's own; every other gets a new one. */
static void take_addresses(struct run *run, struct probe *p,
                           const struct addrinfo *list) {
  const struct addrinfo *item;
  struct probe *last = p;
  for (item = list->ai_next; item != NULL; item = item->ai_next) {
    struct probe *other;
    if (repeated(list, item))
      continue;
    other = add_probe(run, last);
    if (other == NULL) {
      probe_fail_errno(p, ENOMEM);
      return;
    }
    memcpy(other->url, p->url, sizeof p->url);
    memcpy(other->name, p->name, sizeof p->name);
    other->endpoint = p->endpoint;
    set_address(other, item);
    if (last == p)
      run->waiting = other;
    last = other;
  }
  set_address(p, list);
  probe_connect(p);
}

static void resolved(struct run *run, struct probe *p) {
  const struct addrinfo *list;
  int status;
  if (!lookup_done(p->lookup, &status, &list))
    return;
  if (status == 0 && list != NULL)
    take_addresses(run, p, list);
  else if (status == EAI_NONAME || status == EAI_NODATA || status == 0)
    probe_fail(p, "missing", "%s", gai_strerror(EAI_NONAME));
  else
    probe_fail(p, "io", "%s", gai_strerror(status));
}

static void begin(struct run *run, struct probe *p) {
  p->began = core_clock();
  if (p->address_length > 0 ||
      endpoint_address(p->endpoint.host, &p->address, &p->address_length)) {
    probe_connect(p);
    return;
  }
  probe_enter(p, PROBE_RESOLVE, POLLIN);
  p->lookup = find_lookup(run, p->endpoint.host);
  if (p->lookup == NULL) {
    probe_fail_errno(p, errno);
    return;
  }
  p->descriptor = lookup_descriptor(p->lookup);
}

static void fill(struct run *run) {
  struct probe *p;
  while (run->active_count < run->most && (p = run->waiting) != NULL) {
    run->waiting = p->next;
    if (p->step != PROBE_WAITING)
      continue;
    begin(run, p);
    if (p->step != PROBE_FINISHED)
      run->active[run->active_count++] = p;
  }
}

static void wait_for_events(struct run *run) {
  double first = run->active[0]->deadline, left;
  size_t i;
  for (i = 0; i < run->active_count; i++) {
    const struct probe *p = run->active[i];
    first = p->deadline < first ? p->deadline : first;
    run->polled[i] = (struct pollfd){.fd = p->descriptor, .events = p->events};
  }
  left = first - core_clock();
  if (poll(run->polled, run->active_count,
           left > 0 ? (int)ceil(left * 1000) : 0) < 0)
    for (i = 0; i < run->active_count; i++)
      run->polled[i].revents = 0;
}

/* An event, then the clock: a step that does not end is late all the same. */
static void advance(struct run *run, struct probe *p, bool event) {
  enum probe_step step = p->step;
  if (event && step == PROBE_RESOLVE)
    resolved(run, p);
  else if (event)
    probe_advance(p);
  if (p->step != step || core_clock() < p->deadline)
    return;
  if (step == PROBE_FAREWELL)
    probe_finish(p);
  else
    probe_fail(p, "timeout", "not within %g seconds", p->limit);
}

static void loop(struct run *run) {
  size_t i, kept;
  run->waiting = run->first;
  for (fill(run); run->active_count > 0; fill(run)) {
    wait_for_events(run);
    for (i = kept = 0; i < run->active_count; i++) {
      struct probe *p = run->active[i];
      advance(run, p, run->polled[i].revents != 0);
      if (p->step != PROBE_FINISHED)
        run->active[kept++] = p;
    }
    run->active_count = kept;
  }
}

/* A server that hangs up must not end the program: libssl writes to sockets
 * with write(). */
static void loop_without_sigpipe(struct run *run) {
  const struct sigaction ignore = {.sa_handler = SIG_IGN};
  struct sigaction before;
  sigaction(SIGPIPE, &ignore, &before);
  loop(run);
  sigaction(SIGPIPE, &before, NULL);
}

/* Lua */

static int l_free(lua_State *L) {
  free_run(luaL_checkudata(L, 1, RUN));
  return 0;
}

static void read_options(lua_State *L, int index, struct run *run) {
  static const char *const fields[] = {"name", "timeout", "concurrency", NULL};
  lua_Integer most;
  core_check_fields(L, index, fields);
  lua_getfield(L, index, "name");
  luaL_optstring(L, -1, NULL);
  lua_getfield(L, index, "timeout");
  run->limit = luaL_optnumber(L, -1, 30);
  luaL_argcheck(L, run->limit > 0 && run->limit <= LONGEST_STEP, index,
                "timeout is not a number of seconds up to 3600");
  lua_getfield(L, index, "concurrency");
  most = luaL_optinteger(L, -1, 64);
  luaL_argcheck(L, most > 0 && most <= MOST_AT_ONCE, index,
                "concurrency is not a number from 1 to 512");
  lua_pop(L, 3);
  run->most = (size_t)most;
}

/* Pushes a field of the endpoint's table, nil when it is a plain URL. */
static const char *push_field(lua_State *L, int item, const char *field,
                              size_t *length) {
  if (!lua_istable(L, item))
    lua_pushnil(L);
  else
    lua_getfield(L, item, field);
  return luaL_optlstring(L, -1, NULL, length);
}

/* Fills in what a probe is told; one that cannot be done fails at once. */
static void set_probe(struct probe *p, const char *url, size_t length,
                      const char *name, size_t name_length,
                      const char *address) {
  const char *code, *trouble;
  dialogue_escape(p->url, sizeof p->url, url, length);
  if (length >= sizeof p->url) {
    probe_fail(p, "usage", "it has more than %d characters", URL_SIZE - 1);
    return;
  }
  trouble = endpoint_parse(&p->endpoint, url, length, &code);
  if (trouble != NULL) {
    probe_fail(p, code, "%s", trouble);
    return;
  }
  memcpy(p->url, url, length);
  p->url[length] = '\0';
  if (name == NULL) {
    name = p->endpoint.host;
    name_length = strlen(name);
  }
  if (!endpoint_name(p->name, name, name_length))
    probe_fail(p, "usage", "the name to ask for is not a DNS name");
  else if (address != NULL &&
           !endpoint_address(address, &p->address, &p->address_length))
    probe_fail(p, "usage", "the address to use is not an IP address");
}

/* Adds the endpoint on top of the stack, a URL or a table. */
static void read_endpoint(lua_State *L, int options, struct run *run) {
  static const char *const fields[] = {"endpoint", "name", "address", NULL};
  const char *url, *name, *address;
  size_t length, name_length = 0;
  int item = lua_gettop(L);
  struct probe *p;
  if (lua_istable(L, item)) {
    core_check_fields(L, item, fields);
    lua_getfield(L, item, "endpoint");
  } else {
    lua_pushvalue(L, item);
  }
  if (lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "an endpoint is neither a URL nor a table with one");
  url = lua_tolstring(L, -1, &length);
  name = push_field(L, item, "name", &name_length);
  if (name == NULL) {
    lua_getfield(L, options, "name");
    name = lua_tolstring(L, -1, &name_length);
  }
  address = push_field(L, item, "address", NULL);
  p = add_probe(run, NULL);
  if (p == NULL)
    luaL_error(L, "not enough memory");
  set_probe(p, url, length, name, name_length, address);
  lua_settop(L, item);
}

static void push_chain(lua_State *L, STACK_OF(X509) * chain) {
  int i;
  lua_createtable(L, sk_X509_num(chain), 0);
  for (i = 1; sk_X509_num(chain) > 0; i++) {
    X509 **box = core_cert_new(L);
    *box = sk_X509_shift(chain);
    lua_rawseti(L, -2, i);
  }
}

static void set_text(lua_State *L, const char *field, const char *text) {
  core_pushtext(L, text, strlen(text));
  lua_setfield(L, -2, field);
}

static void push_result(lua_State *L, struct probe *p) {
  char address[ADDRESS_SIZE];
  probe_address(p, address);
  lua_createtable(L, 0, 8);
  set_text(L, "endpoint", p->url);
  if (address[0] != '\0')
    set_text(L, "address", address);
  if (p->name[0] != '\0')
    set_text(L, "name", p->name);
  if (p->code != NULL) {
    set_text(L, "error", p->message);
    set_text(L, "code", p->code);
    set_text(L, "step", probe_step_name(p->failed));
    return;
  }
  core_pushhex(L, p->fingerprint, sizeof p->fingerprint);
  lua_setfield(L, -2, "fingerprint");
  push_chain(L, p->chain);
  lua_setfield(L, -2, "chain");
  set_text(L, "protocol", p->protocol);
  set_text(L, "cipher", p->cipher);
  lua_pushnumber(L, p->seconds);
  lua_setfield(L, -2, "seconds");
}

/*
 * probe.run(endpoints[, { name=, timeout=, concurrency= }]) -> results
 * Each endpoint is a URL (https, smtp, smtps, imap, imaps, pop3, pop3s) or
 * { endpoint=URL, name=, address=IP address to use instead of a look-up }.
 * name is the server name to ask for (by default the URL's host; none is sent
 * for an address), timeout the seconds each step may take (30), concurrency
 * how many are probed at once (64).
 *
 * One result for each endpoint and address, in the order of the endpoints:
 * { endpoint, address, name, fingerprint (SHA-256 of the first certificate),
 *   chain (core.cert boxes as sent), protocol, cipher, seconds (from its start
 *   to the certificate) }, or
 * { endpoint, address, name, error (a message), code, step }:
 *   step "url": code "usage" | "unsupported"
 *   step "resolve": "missing" | "timeout" | "io"
 *   step "connect": "refused" | "timeout" | "denied" | "io"
 *   steps "greeting", "starttls", "handshake": "refused" | "timeout" | "parse"
 *     | "limit" | "io", and "unsupported" where STARTTLS is not offered
 * Nothing is verified: what is expired, weak or not for that name is a result,
 * and so is a server that wants a certificate of the client.  A URL that is
 * none comes back escaped and shortened.
 */
static int l_run(lua_State *L) {
  struct run *run;
  struct probe *p;
  lua_Integer i, count;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  if (lua_isnil(L, 2)) {
    lua_newtable(L);
    lua_replace(L, 2);
  }
  run = lua_newuserdatauv(L, sizeof *run, 0);
  memset(run, 0, sizeof *run);
  luaL_setmetatable(L, RUN);
  read_options(L, 2, run);
  count = luaL_len(L, 1);
  for (i = 1; i <= count; i++) {
    lua_geti(L, 1, i);
    read_endpoint(L, 2, run);
    lua_pop(L, 1);
  }
  run->active = calloc(run->most, sizeof *run->active);
  run->polled = calloc(run->most, sizeof *run->polled);
  if (run->active == NULL || run->polled == NULL)
    return luaL_error(L, "not enough memory");
  loop_without_sigpipe(run);
  lua_newtable(L);
  for (i = 1, p = run->first; p != NULL; p = p->next, i++) {
    push_result(L, p);
    lua_rawseti(L, -2, i);
  }
  free_run(run);
  return 1;
}

static const luaL_Reg functions[] = {
    {"rehearse", probe_rehearse}, {"run", l_run}, {NULL, NULL}};

static const luaL_Reg methods[] = {{NULL, NULL}};

static const luaL_Reg metamethods[] = {
    {"__close", l_free}, {"__gc", l_free}, {NULL, NULL}};

int luaopen_core_probe(lua_State *L) {
  luaL_requiref(L, "core.cert", luaopen_core_cert, 0); /* what chains hold */
  lua_pop(L, 1);
  core_type(L, RUN, methods, metamethods);
  luaL_newlib(L, functions);
  return 1;
}
