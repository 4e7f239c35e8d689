/*
 * names.c: subjects, from Lua tables into X.501 names and back to text.
 *
 * Used by request.c and cert.c.  What goes in is checked here against X.520's
 * bounds; what comes out is data of strangers: valid UTF-8, and escaped as
 * RFC 4514 has it.
 */
#include "core.h"

#include <openssl/err.h>
#include <string.h>

#define ATTRIBUTES_LIMIT 64 /* of a subject that is made here */
#define EXCERPT 64          /* bytes of a value that a message quotes */

/* --- text */

int core_control(const char *bytes, size_t length) {
  const unsigned char *s = (const unsigned char *)bytes;
  size_t i;
  for (i = 0; i < length; i++) {
    if (s[i] < 0x20 || s[i] == 0x7F)
      return s[i];
    if (s[i] == 0xC2 && i + 1 < length && s[i + 1] >= 0x80 && s[i + 1] < 0xA0)
      return s[i + 1];
  }
  return -1;
}

void core_push_excerpt(lua_State *L, const char *bytes, size_t length) {
  char text[EXCERPT] = "";
  size_t n = length < sizeof text ? length : sizeof text, i;
  if (n < length) /* not within a character */
    while (n > 0 && (bytes[n] & 0xC0) == 0x80)
      n--;
  memcpy(text, bytes, n);
  for (i = 0; i < n; i++)
    if (core_control(text + i, 1) >= 0)
      text[i] = '?';
  core_pushtext(L, text, n);
  if (n < length) {
    lua_pushfstring(L, "%s...", lua_tostring(L, -1));
    lua_remove(L, -2);
  }
}

/* --- a subject in */

static void free_name(void *value) {
  X509_NAME_free(value);
}

static int refuse(lua_State *L, const char *type, size_t length,
                  const char *value, const char *code, const char *reason) {
  core_push_excerpt(L, value, length);
  return core_fail(L, code, "cannot use %s '%s' in a subject: %s", type,
                   lua_tostring(L, -1), reason);
}

/* Says why OpenSSL did not take an attribute. */
static int explain(lua_State *L, const char *type, const char *value,
                   size_t length) {
  const ASN1_STRING_TABLE *bounds = ASN1_STRING_TABLE_get(OBJ_txt2nid(type));
  unsigned long error = ERR_peek_error();
  int reason = ERR_GET_LIB(error) == ERR_LIB_ASN1 ? ERR_GET_REASON(error) : 0;
  if (OBJ_txt2nid(type) == NID_undef && strchr(type, '.') == NULL)
    return refuse(L, type, length, value, "unsupported",
                  "an unknown type of attribute");
  if (bounds != NULL && reason == ASN1_R_STRING_TOO_LONG)
    return refuse(
        L, type, length, value, "limit",
        lua_pushfstring(L, "longer than %d characters", (int)bounds->maxsize));
  if (bounds != NULL && reason == ASN1_R_STRING_TOO_SHORT)
    return refuse(
        L, type, length, value, "limit",
        lua_pushfstring(L, "shorter than %d characters", (int)bounds->minsize));
  return refuse(L, type, length, value, "parse", core_reason());
}

/* Adds the attribute whose type and value are on top of the stack, and pops
 * them; false with a failure pushed. */
static bool add_attribute(lua_State *L, X509_NAME *name) {
  const char *type, *value;
  size_t length;
  if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "a subject's types and values must be strings");
  type = lua_tostring(L, -2);
  value = lua_tolstring(L, -1, &length);
  ERR_clear_error();
  if (length == 0)
    refuse(L, type, length, value, "parse", "empty");
  else if (core_control(value, length) >= 0)
    refuse(L, type, length, value, "parse",
           lua_pushfstring(L, "control character %d in it",
                           core_control(value, length)));
  else if (length > 1 << 20)
    refuse(L, type, length, value, "limit", "longer than 1 MiB");
  else if (!X509_NAME_add_entry_by_txt(name, type, MBSTRING_UTF8,
                                       (const unsigned char *)value,
                                       (int)length, -1, 0))
    explain(L, type, value, length);
  else {
    lua_pop(L, 2);
    return true;
  }
  return false;
}

/* Where an attribute stands in a subject that was given without an order. */
static int rank(const char *type) {
  switch (OBJ_txt2nid(type)) {
  case NID_countryName:
    return 0;
  case NID_stateOrProvinceName:
    return 1;
  case NID_localityName:
    return 2;
  case NID_organizationName:
    return 3;
  case NID_organizationalUnitName:
    return 4;
  case NID_commonName:
    return 6;
  default:
    return 5;
  }
}

static bool before(const char *a, const char *b) {
  int order = rank(a) - rank(b);
  return order != 0 ? order < 0 : strcmp(a, b) < 0;
}

/* { CN = "...", O = "..." } */
static bool add_map(lua_State *L, int index, X509_NAME *name) {
  const char *types[ATTRIBUTES_LIMIT];
  int count = 0, i;
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "a subject's types and values must be strings");
    if (count == ATTRIBUTES_LIMIT) {
      core_fail(L, "limit", "a subject of more than %d attributes",
                ATTRIBUTES_LIMIT);
      return false;
    }
    for (i = count++; i > 0 && before(lua_tostring(L, -2), types[i - 1]); i--)
      types[i] = types[i - 1];
    types[i] = lua_tostring(L, -2);
  }
  for (i = 0; i < count; i++) {
    lua_pushstring(L, types[i]);
    lua_getfield(L, index, types[i]);
    if (!add_attribute(L, name))
      return false;
  }
  return true;
}

/* { { "C", "US" }, { type = "O", value = "Contoso" } } */
static bool add_array(lua_State *L, int index, X509_NAME *name) {
  lua_Integer count = luaL_len(L, index), i;
  if (count > ATTRIBUTES_LIMIT) {
    core_fail(L, "limit", "a subject of more than %d attributes",
              ATTRIBUTES_LIMIT);
    return false;
  }
  for (i = 1; i <= count; i++) {
    if (lua_geti(L, index, i) != LUA_TTABLE)
      luaL_error(L, "a subject must be an array of { type, value }");
    if (lua_geti(L, -1, 1) == LUA_TNIL) {
      lua_pop(L, 1);
      lua_getfield(L, -1, "type");
      lua_getfield(L, -2, "value");
    } else {
      lua_geti(L, -2, 2);
    }
    if (!add_attribute(L, name))
      return false;
    lua_pop(L, 1);
  }
  return true;
}

bool core_add_subject(lua_State *L, int index, X509_NAME *name) {
  index = lua_absindex(L, index);
  if (lua_isnoneornil(L, index))
    return true;
  if (!lua_istable(L, index))
    luaL_error(L, "a subject must be a table, not a %s",
               luaL_typename(L, index));
  luaL_checkstack(L, 20, "subject");
  return lua_rawlen(L, index) > 0 ? add_array(L, index, name)
                                  : add_map(L, index, name);
}

X509_NAME *core_push_subject(lua_State *L, int index) {
  core_holder *holder;
  index = lua_absindex(L, index);
  holder = core_push_holder(L, free_name);
  holder->value = X509_NAME_new();
  if (holder->value == NULL)
    luaL_error(L, "not enough memory");
  return core_add_subject(L, index, holder->value) ? holder->value : NULL;
}

/* --- a subject out */

/* Bytes of a character in a string of this type; 0: UTF-8 or ASCII, -1: it is
 * no character string. */
static int character_width(int type) {
  switch (type) {
  case V_ASN1_UTF8STRING:
  case V_ASN1_PRINTABLESTRING:
  case V_ASN1_IA5STRING:
  case V_ASN1_NUMERICSTRING:
  case V_ASN1_VISIBLESTRING:
    return 0;
  case V_ASN1_T61STRING: /* Latin-1 in practice */
    return 1;
  case V_ASN1_BMPSTRING:
    return 2;
  case V_ASN1_UNIVERSALSTRING:
    return 4;
  default:
    return -1;
  }
}

static void push_wide(lua_State *L, const unsigned char *bytes, size_t length,
                      size_t width) {
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (; length >= width; bytes += width, length -= width) {
    unsigned long code = 0;
    size_t i;
    for (i = 0; i < width; i++)
      code = code << 8 | bytes[i];
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      code = 0xFFFD;
    lua_pushfstring(L, "%U", code);
    luaL_addvalue(&buffer);
  }
  luaL_pushresult(&buffer);
}

/* "#" and the DER of a value in hex (RFC 4514, section 2.4). */
static void push_dump(lua_State *L, const ASN1_STRING *value) {
  int length = i2d_ASN1_PRINTABLE(value, NULL);
  unsigned char *der = lua_newuserdatauv(L, length > 0 ? (size_t)length : 1, 0);
  unsigned char *p = der;
  lua_pushstring(L, "#");
  if (length > 0)
    length = i2d_ASN1_PRINTABLE(value, &p);
  core_pushhex(L, der, length > 0 ? (size_t)length : 0);
  lua_concat(L, 2);
  lua_remove(L, -2);
}

static void push_value(lua_State *L, const ASN1_STRING *value) {
  const unsigned char *bytes = ASN1_STRING_get0_data(value);
  size_t length = (size_t)ASN1_STRING_length(value);
  int width = character_width(ASN1_STRING_type(value));
  if (width < 0)
    push_dump(L, value);
  else if (width == 0)
    core_pushtext(L, (const char *)bytes, length);
  else
    push_wide(L, bytes, length, (size_t)width);
}

/* Pushes the short name of a type, or its OID; false: the OID. */
static bool push_type(lua_State *L, const X509_NAME_ENTRY *entry) {
  const ASN1_OBJECT *object = X509_NAME_ENTRY_get_object(entry);
  int nid = OBJ_obj2nid(object);
  char oid[128];
  if (nid != NID_undef) {
    lua_pushstring(L, OBJ_nid2sn(nid));
    return true;
  }
  if (OBJ_obj2txt(oid, sizeof oid, object, 1) < 0)
    strcpy(oid, "?");
  lua_pushstring(L, oid);
  return false;
}

/* Escapes one attribute value (RFC 4514, section 2.4), control characters as
 * \ and two hex digits for each octet. */
static void add_escaped(luaL_Buffer *buffer, const char *s, size_t length) {
  static const char digits[] = "0123456789ABCDEF";
  size_t i, control = 0; /* octets to come of a control character */
  for (i = 0; i < length; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c < 0x20 || c == 0x7F)
      control = 1;
    else if (c == 0xC2 && i + 1 < length && (unsigned char)s[i + 1] < 0xA0)
      control = 2;
    if (control > 0) {
      control--;
      luaL_addchar(buffer, '\\');
      luaL_addchar(buffer, digits[c >> 4]);
      luaL_addchar(buffer, digits[c & 15]);
      continue;
    }
    if (strchr("\"+,;<>\\", c) != NULL || (i == 0 && (c == ' ' || c == '#')) ||
        (i == length - 1 && c == ' '))
      luaL_addchar(buffer, '\\');
    luaL_addchar(buffer, (char)c);
  }
}

static void push_escaped(lua_State *L, const char *s, size_t length) {
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  add_escaped(&buffer, s, length);
  luaL_pushresult(&buffer);
}

/* Pushes TYPE=VALUE. */
static void push_attribute(lua_State *L, const X509_NAME_ENTRY *entry) {
  const ASN1_STRING *value = X509_NAME_ENTRY_get_data(entry);
  bool known = push_type(L, entry);
  if (!known || character_width(ASN1_STRING_type(value)) < 0) {
    push_dump(L, value);
  } else {
    size_t length;
    const char *text;
    push_value(L, value);
    text = lua_tolstring(L, -1, &length);
    push_escaped(L, text, length);
    lua_remove(L, -2);
  }
  lua_pushfstring(L, "%s=%s", lua_tostring(L, -2), lua_tostring(L, -1));
  lua_replace(L, -3);
  lua_pop(L, 1);
}

void core_push_name_text(lua_State *L, const X509_NAME *name) {
  int i, set = -1, count = X509_NAME_entry_count(name);
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (i = count - 1; i >= 0; i--) {
    const X509_NAME_ENTRY *entry = X509_NAME_get_entry(name, i);
    if (i < count - 1)
      luaL_addchar(&buffer, X509_NAME_ENTRY_set(entry) == set ? '+' : ',');
    set = X509_NAME_ENTRY_set(entry);
    push_attribute(L, entry);
    luaL_addvalue(&buffer);
  }
  luaL_pushresult(&buffer);
}

void core_push_name_parts(lua_State *L, const X509_NAME *name) {
  int i, count = X509_NAME_entry_count(name);
  lua_createtable(L, count, 0);
  for (i = 0; i < count; i++) {
    const X509_NAME_ENTRY *entry = X509_NAME_get_entry(name, i);
    lua_createtable(L, 0, 2);
    push_type(L, entry);
    lua_setfield(L, -2, "type");
    push_value(L, X509_NAME_ENTRY_get_data(entry));
    lua_setfield(L, -2, "value");
    lua_seti(L, -2, i + 1);
  }
}

void core_push_common_name(lua_State *L, const X509_NAME *name) {
  int last = -1, next;
  while ((next = X509_NAME_get_index_by_NID(name, NID_commonName, last)) >= 0)
    last = next;
  if (last < 0)
    lua_pushnil(L);
  else
    push_value(L, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, last)));
}
