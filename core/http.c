/*
 * http.c: core.http, HTTP over libcurl.  A shared object of its own, loaded
 * when it is first required, so that no other command pays for libcurl.
 *
 * http and https only, whole answers only, with a cap and a time limit; the
 * environment's proxies mean nothing.  What is asked, and what an answer
 * means, is the caller's business.
 */
#include "core.h"

#include <ctype.h>
#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#define BODY_LIMIT (16 * 1024 * 1024) /* bytes, where the caller says none */
#define HEAD_LIMIT (64 * 1024)        /* bytes of headers, redirects' too */
#define LONGEST 3600                  /* seconds */
#define REDIRECTS 5

/* What grows while an answer comes in. */
struct pile {
  char *bytes;
  size_t length, size, limit; /* used, allocated, allowed */
  bool full;                  /* more came than may */
};

/* All that a request owns. */
struct transfer {
  CURL *easy;
  struct curl_slist *headers;
  struct pile head, body;
  char reason[CURL_ERROR_SIZE];
};

static void free_transfer(void *value) {
  struct transfer *t = value;
  curl_easy_cleanup(t->easy);
  curl_slist_free_all(t->headers);
  free(t->head.bytes);
  free(t->body.bytes);
  free(t);
}

/* Called by libcurl with each piece; another count than was given stops it. */
static size_t take(char *bytes, size_t size, size_t count, void *to) {
  struct pile *pile = to;
  size_t length = size * count;
  char *more;
  pile->full = length > pile->limit - pile->length;
  if (pile->full)
    return 0;
  if (length > pile->size - pile->length) {
    pile->size = 2 * (pile->length + length);
    if ((more = realloc(pile->bytes, pile->size)) == NULL)
      return 0;
    pile->bytes = more;
  }
  memcpy(pile->bytes + pile->length, bytes, length);
  pile->length += length;
  return length;
}

static const struct {
  CURLcode result;
  const char *code;
} codes[] = {
    {CURLE_URL_MALFORMAT, "usage"},
    {CURLE_UNSUPPORTED_PROTOCOL, "unsupported"},
    {CURLE_COULDNT_RESOLVE_HOST, "missing"},
    {CURLE_COULDNT_RESOLVE_PROXY, "missing"},
    {CURLE_COULDNT_CONNECT, "refused"},
    {CURLE_OPERATION_TIMEDOUT, "timeout"},
    {CURLE_TOO_MANY_REDIRECTS, "limit"},
    {CURLE_PEER_FAILED_VERIFICATION, "untrusted"},
    {CURLE_SSL_CACERT_BADFILE, "parse"},
};

static int fail(lua_State *L, const struct transfer *t, const char *url,
                CURLcode result) {
  const char *reason =
      t->reason[0] != '\0' ? t->reason : curl_easy_strerror(result);
  const char *code = "io";
  size_t i;
  for (i = 0; i < COUNT(codes); i++)
    if (codes[i].result == result)
      code = codes[i].code;
  if (t->head.full || t->body.full || result == CURLE_FILESIZE_EXCEEDED) {
    code = "limit";
    reason = lua_pushfstring(
        L, "more than %I bytes%s",
        (lua_Integer)(t->head.full ? t->head.limit : t->body.limit),
        t->head.full ? " of headers" : "");
  }
  core_pushtext(L, reason, strlen(reason));
  core_push_excerpt(L, url, strlen(url));
  return core_fail(L, code, "cannot fetch '%s': %s", lua_tostring(L, -1),
                   lua_tostring(L, -2));
}

/* Options */

static const char *text_field(lua_State *L, const char *name, size_t *length) {
  int type = lua_getfield(L, 1, name);
  if (type != LUA_TNIL && type != LUA_TSTRING)
    luaL_error(L, "field '%s': string expected, got %s", name,
               luaL_typename(L, -1));
  if (length == NULL && lua_rawlen(L, -1) > 0 &&
      strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1))
    luaL_error(L, "field '%s' holds a NUL", name);
  return lua_tolstring(L, -1, length);
}

static lua_Integer number_field(lua_State *L, const char *name,
                                lua_Integer usual, lua_Integer least,
                                lua_Integer most) {
  lua_Integer number = usual;
  if (lua_getfield(L, 1, name) != LUA_TNIL)
    number = luaL_checkinteger(L, -1);
  if (number < least || number > most)
    luaL_error(L, "field '%s': a number from %I to %I expected", name, least,
               most);
  return number;
}

/* Adds { name = value }; a line break in one would begin another header. */
static void set_headers(lua_State *L, struct transfer *t) {
  if (lua_getfield(L, 1, "headers") == LUA_TNIL)
    return;
  luaL_checktype(L, -1, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, -2) != 0; lua_pop(L, 1)) {
    const char *line;
    struct curl_slist *longer;
    if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
      luaL_error(L, "field 'headers': names and values must be strings");
    line =
        lua_pushfstring(L, "%s: %s", lua_tostring(L, -2), lua_tostring(L, -1));
    if (line[strcspn(line, "\r\n")] != '\0')
      luaL_error(L, "field 'headers': a line break in a header");
    longer = curl_slist_append(t->headers, line);
    if (longer == NULL)
      luaL_error(L, "not enough memory");
    t->headers = longer;
    lua_pop(L, 1);
  }
  curl_easy_setopt(t->easy, CURLOPT_HTTPHEADER, t->headers);
}

static void set_method(lua_State *L, struct transfer *t) {
  size_t length = 0;
  const char *method = text_field(L, "method", NULL);
  const char *body = text_field(L, "body", &length);
  if (body != NULL) {
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)length);
    curl_easy_setopt(t->easy, CURLOPT_POSTFIELDS, body);
  }
  if (method != NULL && strcmp(method, "HEAD") == 0)
    curl_easy_setopt(t->easy, CURLOPT_NOBODY, 1L);
  else if (method != NULL && strcmp(method, body != NULL ? "POST" : "GET") != 0)
    curl_easy_setopt(t->easy, CURLOPT_CUSTOMREQUEST, method);
}

/* Anchors: the system's hashed folder, or those that the caller has. */
static void set_trust(lua_State *L, struct transfer *t) {
  size_t length;
  const char *anchors = text_field(L, "anchors", &length);
  struct curl_blob blob = {(void *)anchors, length, CURL_BLOB_NOCOPY};
  curl_easy_setopt(t->easy, CURLOPT_CAINFO, NULL);
  curl_easy_setopt(t->easy, CURLOPT_CAPATH,
                   anchors != NULL ? NULL : X509_get_default_cert_dir());
  if (anchors != NULL)
    curl_easy_setopt(t->easy, CURLOPT_CAINFO_BLOB, &blob);
}

static int is_unwanted(void *data, curl_off_t a, curl_off_t b, curl_off_t c,
                       curl_off_t d) {
  (void)data, (void)a, (void)b, (void)c, (void)d;
  return core_interrupted();
}

/* Sets all that Lua's table says; the strings stay on the stack. */
static void set_options(lua_State *L, struct transfer *t, const char *url) {
  static const char *const fields[] = {
      "url",     "method",    "body",  "headers",  "timeout", "limit",
      "anchors", "redirects", "proxy", "no_proxy", NULL};
  const char *text;
  bool tls = strncasecmp(url, "https:", 6) == 0;
  lua_Integer redirects;
  core_check_fields(L, 1, fields);
  curl_easy_setopt(t->easy, CURLOPT_URL, url);
  curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->reason);
  curl_easy_setopt(t->easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(t->easy, CURLOPT_REDIR_PROTOCOLS_STR,
                   tls ? "https" : "http,https");
  redirects = number_field(L, "redirects", REDIRECTS, 0, 20);
  curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, redirects > 0 ? 1L : 0L);
  curl_easy_setopt(t->easy, CURLOPT_MAXREDIRS, (long)redirects);
  curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS,
                   1000L * (long)number_field(L, "timeout", 30, 1, LONGEST));
  t->body.limit = (size_t)number_field(L, "limit", BODY_LIMIT, 0, 1L << 30);
  curl_easy_setopt(t->easy, CURLOPT_MAXFILESIZE_LARGE,
                   (curl_off_t)t->body.limit);
  t->head.limit = HEAD_LIMIT;
  curl_easy_setopt(t->easy, CURLOPT_WRITEFUNCTION, take);
  curl_easy_setopt(t->easy, CURLOPT_WRITEDATA, &t->body);
  curl_easy_setopt(t->easy, CURLOPT_HEADERFUNCTION, take);
  curl_easy_setopt(t->easy, CURLOPT_HEADERDATA, &t->head);
  curl_easy_setopt(t->easy, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(t->easy, CURLOPT_XFERINFOFUNCTION, is_unwanted);
  text = text_field(L, "proxy", NULL);
  curl_easy_setopt(t->easy, CURLOPT_PROXY, text != NULL ? text : "");
  text = text_field(L, "no_proxy", NULL);
  curl_easy_setopt(t->easy, CURLOPT_NOPROXY, text != NULL ? text : "");
  curl_easy_setopt(t->easy, CURLOPT_USERAGENT, "certwright/" VERSION);
  set_trust(L, t);
  set_method(L, t);
  set_headers(L, t);
}

/* Answers */

/* Adds a header line to the table on top, its name in lower case; one that is
 * there already is joined (RFC 9110, section 5.3). */
static void add_header(lua_State *L, const char *at, const char *end) {
  const char *colon = memchr(at, ':', (size_t)(end - at)), *value;
  luaL_Buffer buffer;
  char *name;
  if (colon == NULL)
    return;
  name = luaL_buffinitsize(L, &buffer, (size_t)(colon - at));
  for (value = at; value < colon; value++)
    *name++ = (char)tolower((unsigned char)*value);
  luaL_pushresultsize(&buffer, (size_t)(colon - at));
  do
    value++;
  while (value < end && isspace((unsigned char)*value));
  lua_pushvalue(L, -1);
  if (lua_gettable(L, -3) == LUA_TNIL)
    lua_pushliteral(L, "");
  else
    lua_pushliteral(L, ", ");
  if (lua_isnil(L, -2)) {
    lua_pushliteral(L, "");
    lua_replace(L, -3);
  }
  core_pushtext(L, value, (size_t)(end - value));
  lua_concat(L, 3);
  lua_settable(L, -3);
}

/* Pushes the headers of the last answer; redirects come before it. */
static void push_headers(lua_State *L, const struct pile *head) {
  const char *at = head->bytes, *end = at + head->length, *stop, *last;
  lua_newtable(L);
  while (at < end) {
    stop = memchr(at, '\n', (size_t)(end - at));
    last = stop = stop != NULL ? stop : end;
    while (last > at && isspace((unsigned char)last[-1]))
      last--;
    if (last - at > 5 && memcmp(at, "HTTP/", 5) == 0) {
      lua_pop(L, 1);
      lua_newtable(L);
    } else {
      add_header(L, at, last);
    }
    at = stop + 1;
  }
}

static void push_answer(lua_State *L, const struct transfer *t) {
  long status = 0;
  curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
  lua_createtable(L, 0, 3);
  lua_pushinteger(L, status);
  lua_setfield(L, -2, "status");
  lua_pushlstring(L, t->body.bytes != NULL ? t->body.bytes : "",
                  t->body.length);
  lua_setfield(L, -2, "body");
  push_headers(L, &t->head);
  lua_setfield(L, -2, "headers");
}

/*
 * http.request{ url=, method=, headers=, body=, timeout=, limit=, redirects=,
 *   anchors=, proxy=, no_proxy= } -> { status=, headers=, body= } | nil,
 *   message, "usage" | "unsupported" | "missing" | "refused" | "timeout" |
 *   "untrusted" | "limit" | "io"
 * url: http or https.  method: GET, or POST with a body, where none is said.
 * headers: { name = value }, those of the answer in lower case.  timeout: whole
 * seconds for all of it (30).  limit: bytes of a body (16 MiB).  redirects: how
 * many are followed (5; from https to https only; 0: none is).  anchors: PEM,
 * in place of the system's.  proxy: a URL, for all hosts but those in no_proxy
 * ("a,b"); the environment's are never used.  A status such as 404 is an
 * answer.
 */
static int l_request(lua_State *L) {
  core_holder *holder;
  struct transfer *t;
  const char *url;
  CURLcode result;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  luaL_checkstack(L, 30, NULL);
  url = text_field(L, "url", NULL);
  luaL_argcheck(L, url != NULL, 1, "field 'url' is missing");
  holder = core_push_holder(L, free_transfer);
  holder->value = t = calloc(1, sizeof *t);
  if (t == NULL || (t->easy = curl_easy_init()) == NULL)
    return luaL_error(L, "not enough memory");
  set_options(L, t, url);
  result = curl_easy_perform(t->easy);
  if (result != CURLE_OK)
    return fail(L, t, url, result);
  push_answer(L, t);
  core_release(holder);
  return 1;
}

static const luaL_Reg functions[] = {{"request", l_request}, {NULL, NULL}};

int luaopen_core_http(lua_State *L) {
  unsetenv("SSLKEYLOGFILE"); /* libcurl would write session secrets there */
  if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
    return luaL_error(L, "cannot begin to use libcurl");
  luaL_newlib(L, functions);
  return 1;
}
