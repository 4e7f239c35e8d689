/*
 * core.c: failures, text and types that every C file of certwright uses.
 *
 * Nothing here knows what a certificate is for.
 */
#include "core.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

int core_fail(lua_State *L, const char *code, const char *format, ...) {
  va_list arguments;
  lua_pushnil(L);
  va_start(arguments, format);
  lua_pushvfstring(L, format, arguments);
  va_end(arguments);
  lua_pushstring(L, code);
  return 3;
}

int core_fail_errno(lua_State *L, int error, const char *verb,
                    const char *object) {
  static const struct {
    int error;
    const char *code;
  } codes[] = {{ENOENT, "missing"}, {ENOTDIR, "missing"},  {EACCES, "denied"},
               {EPERM, "denied"},   {EEXIST, "exists"},    {EAGAIN, "busy"},
               {EBUSY, "busy"},     {ETIMEDOUT, "timeout"}};
  const char *code = "io";
  size_t i;
  for (i = 0; i < COUNT(codes); i++)
    if (codes[i].error == error)
      code = codes[i].code;
  return core_fail(L, code, "cannot %s '%s': %s", verb, object,
                   strerror(error));
}

const char *core_reason(void) {
  unsigned long error = ERR_get_error();
  const char *reason = NULL;
  ERR_clear_error();
  if (ERR_SYSTEM_ERROR(error))
    reason = strerror(ERR_GET_REASON(error));
  else if (error != 0)
    reason = ERR_reason_error_string(error);
  return reason != NULL ? reason : "no reason given";
}

void core_clear_errors(void) {
  if (ERR_peek_error() != 0)
    ERR_clear_error();
}

/* Length of the well-formed UTF-8 sequence at s (RFC 3629, section 4), or 0. */
static size_t sequence(const unsigned char *s, size_t left) {
  size_t length, i;
  if (s[0] < 0x80)
    return 1;
  if (s[0] < 0xC2 || s[0] > 0xF4)
    return 0;
  length = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
  if (left < length)
    return 0;
  if ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
      (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
    return 0;
  for (i = 1; i < length; i++)
    if ((s[i] & 0xC0) != 0x80)
      return 0;
  return length;
}

void core_pushtext(lua_State *L, const char *bytes, size_t length) {
  const unsigned char *s = (const unsigned char *)bytes;
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  while (length > 0) {
    size_t n = sequence(s, length);
    if (n > 0)
      luaL_addlstring(&buffer, (const char *)s, n);
    else
      luaL_addstring(&buffer, "\xEF\xBF\xBD");
    s += n > 0 ? n : 1;
    length -= n > 0 ? n : 1;
  }
  luaL_pushresult(&buffer);
}

void core_pushhex(lua_State *L, const unsigned char *bytes, size_t length) {
  static const char digits[] = "0123456789abcdef";
  luaL_Buffer buffer;
  char *out = luaL_buffinitsize(L, &buffer, 2 * length);
  size_t i;
  for (i = 0; i < length; i++) {
    out[2 * i] = digits[bytes[i] >> 4];
    out[2 * i + 1] = digits[bytes[i] & 15];
  }
  luaL_pushresultsize(&buffer, 2 * length);
}

void core_push_der(lua_State *L, const void *value, const ASN1_ITEM *item) {
  luaL_Buffer buffer;
  int size = ASN1_item_i2d(value, NULL, item);
  unsigned char *p =
      (unsigned char *)luaL_buffinitsize(L, &buffer, size > 0 ? size : 0);
  if (size <= 0 || ASN1_item_i2d(value, &p, item) != size)
    luaL_error(L, "cannot encode a value: %s", core_reason());
  luaL_pushresultsize(&buffer, (size_t)size);
}

void core_push_fingerprint(lua_State *L) {
  unsigned char digest[32];
  size_t length;
  const char *der = lua_tolstring(L, -1, &length);
  if (!EVP_Digest(der, length, digest, NULL, EVP_sha256(), NULL))
    luaL_error(L, "cannot digest: %s", core_reason());
  core_pushhex(L, digest, sizeof digest);
  lua_replace(L, -2);
}

const char *core_check_bytes(lua_State *L, int index, size_t *length) {
  const core_secret *secret = luaL_testudata(L, index, CORE_SECRET);
  if (secret == NULL)
    return luaL_checklstring(L, index, length);
  *length = secret->length;
  return secret->bytes;
}

bool core_time(const ASN1_TIME *time, lua_Integer *seconds) {
  struct tm parts;
  if (time == NULL || ASN1_TIME_to_tm(time, &parts) != 1)
    return false;
  *seconds = (lua_Integer)timegm(&parts);
  return true;
}

void core_release(core_holder *holder) {
  if (holder->value != NULL && holder->release != NULL)
    holder->release(holder->value);
  else if (holder->value != NULL)
    ASN1_item_free(holder->value, holder->item);
  holder->value = NULL;
}

static int l_release(lua_State *L) {
  core_release(lua_touserdata(L, 1));
  return 0;
}

core_holder *core_push_holder(lua_State *L, void (*release)(void *value)) {
  static const luaL_Reg metamethods[] = {
      {"__gc", l_release}, {"__close", l_release}, {NULL, NULL}};
  core_holder *holder = lua_newuserdatauv(L, sizeof *holder, 0);
  *holder = (core_holder){NULL, release, NULL};
  if (luaL_newmetatable(L, "core.holder"))
    luaL_setfuncs(L, metamethods, 0);
  lua_setmetatable(L, -2);
  return holder;
}

void *core_push_item(lua_State *L, const ASN1_ITEM *item) {
  core_holder *holder = core_push_holder(L, NULL);
  holder->item = item;
  holder->value = ASN1_item_new(item);
  if (holder->value == NULL)
    luaL_error(L, "not enough memory");
  return holder->value;
}

void core_drop(lua_State *L) {
  core_release(lua_touserdata(L, -1));
  lua_pop(L, 1);
}

void core_type(lua_State *L, const char *name, const luaL_Reg *methods,
               const luaL_Reg *metamethods) {
  luaL_newmetatable(L, name);
  luaL_setfuncs(L, metamethods, 0);
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 1);
}

void core_check_fields(lua_State *L, int index, const char *const names[]) {
  index = lua_absindex(L, index);
  luaL_checktype(L, index, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    const char *name;
    size_t i = 0;
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_argerror(L, index, "a field has no name");
    name = lua_tostring(L, -2);
    while (names[i] != NULL && strcmp(names[i], name) != 0)
      i++;
    if (names[i] == NULL)
      luaL_argerror(L, index, lua_pushfstring(L, "unknown field '%s'", name));
  }
}
