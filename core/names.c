/*
 * names.c: subjects, from Lua tables into X.501 names and back to text.
 *
 * What goes in is checked here against X.520's bounds; what comes out is data
 * of strangers: valid UTF-8, and escaped as RFC 4514 has it.
 */
#include "core.h"

#include <openssl/err.h>
#include <string.h>

#define ATTRIBUTES_LIMIT 64 /* of a subject that is made here */
#define VALUE_LIMIT (1024 * 1024)
#define NAME_LIMIT (1024 * 1024) /* that OpenSSL reads */
#define EXCERPT 64               /* bytes of a value that a message quotes */
#define QUOTED 256               /* bytes of a name that a message quotes */

/* Strings that hold ASCII or UTF-8; strings of wider characters, and of Latin-1
 * in practice (T61String). */
#define NARROW                                                                 \
  (B_ASN1_UTF8STRING | B_ASN1_PRINTABLESTRING | B_ASN1_IA5STRING |             \
   B_ASN1_NUMERICSTRING | B_ASN1_VISIBLESTRING)
#define WIDE (B_ASN1_T61STRING | B_ASN1_BMPSTRING | B_ASN1_UNIVERSALSTRING)

/* Octets of the control character (C0, DEL, C1) that s begins with, or 0. */
static size_t control(const char *s, size_t left) {
  unsigned char first = (unsigned char)s[0];
  unsigned char second = left > 1 ? (unsigned char)s[1] : 0;
  if (first < 0x20 || first == 0x7F)
    return 1;
  return first == 0xC2 && second >= 0x80 && second < 0xA0 ? 2 : 0;
}

void core_push_excerpt(lua_State *L, const char *bytes, size_t length) {
  char text[EXCERPT] = "";
  size_t n = length < EXCERPT ? length : EXCERPT, i;
  while (n > 0 && n < length && (bytes[n] & 0xC0) == 0x80)
    n--; /* not within a character */
  for (i = 0; i < n; i++)
    text[i] = control(bytes + i, 1) > 0 ? '?' : bytes[i];
  core_pushtext(L, text, n);
  lua_pushstring(L, n < length ? "..." : "");
  lua_concat(L, 2);
}

/* --- a subject in */

/* Why OpenSSL did not take an attribute, with the code. */
static const char *explain(lua_State *L, const char *type, const char **code) {
  const ASN1_STRING_TABLE *bounds = ASN1_STRING_TABLE_get(OBJ_txt2nid(type));
  unsigned long error = ERR_peek_error();
  int reason = ERR_GET_LIB(error) == ERR_LIB_ASN1 ? ERR_GET_REASON(error) : 0;
  bool too_long = reason == ASN1_R_STRING_TOO_LONG;
  if (OBJ_txt2nid(type) == NID_undef && strchr(type, '.') == NULL) {
    *code = "unsupported";
    return "an unknown type of attribute";
  }
  if (bounds == NULL || (!too_long && reason != ASN1_R_STRING_TOO_SHORT))
    return core_reason();
  *code = "limit";
  return lua_pushfstring(L, "%s than %d characters",
                         too_long ? "longer" : "shorter",
                         (int)(too_long ? bounds->maxsize : bounds->minsize));
}

/* Adds a value in the type of string that X.520 has for an attribute; false:
 * OpenSSL does not take it. */
static bool put_value(core_der *der, int nid, const char *value,
                      size_t length) {
  ASN1_STRING *string;
  core_der_room(der, CORE_DER_HEADER + 4 * length); /* nothing below raises */
  string = ASN1_STRING_set_by_NID(NULL, (const unsigned char *)value,
                                  (int)length, MBSTRING_UTF8, nid);
  if (string == NULL)
    return false;
  core_der_put(der, ASN1_STRING_type(string), ASN1_STRING_get0_data(string),
               (size_t)ASN1_STRING_length(string));
  ASN1_STRING_free(string);
  return true;
}

/* Adds an attribute; NULL, or why it cannot be used, with the code. */
static const char *put_entry(core_der *der, const char *type, const char *value,
                             size_t length, const char **code) {
  size_t i, n;
  int nid;
  for (i = 0; i < length; i++)
    if ((n = control(value + i, length - i)) > 0)
      return lua_pushfstring(der->L, "control character %d in it",
                             (unsigned char)value[i + n - 1]);
  if (length == 0)
    return "empty";
  if (length > VALUE_LIMIT) {
    *code = "limit";
    return "longer than 1 MiB";
  }
  ERR_clear_error();
  core_der_open(der, CORE_DER_SET);
  core_der_open(der, CORE_DER_SEQUENCE);
  if (!core_der_put_oid(der, type, &nid)) {
    ERR_raise(ERR_LIB_X509, X509_R_INVALID_FIELD_NAME); /* if nothing else */
    return explain(der->L, type, code);
  }
  if (!put_value(der, nid, value, length))
    return explain(der->L, type, code);
  core_der_close(der, 2);
  return NULL;
}

/* Adds the attribute whose type and value are on top of the stack, and pops
 * them; false with a failure pushed. */
static bool put_attribute(core_der *der) {
  lua_State *L = der->L;
  const char *type, *value, *fault, *code = "parse";
  size_t length;
  if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
    luaL_error(L, "a subject's types and values must be strings");
  type = lua_tostring(L, -2);
  value = lua_tolstring(L, -1, &length);
  fault = put_entry(der, type, value, length, &code);
  if (fault == NULL) {
    lua_pop(L, 2);
    return true;
  }
  core_push_excerpt(L, value, length);
  core_fail(L, code, "cannot use %s '%s' in a subject: %s", type,
            lua_tostring(L, -1), fault);
  return false;
}

/* Where an attribute stands in a subject that was given without an order. */
static size_t rank(const char *type) {
  static const int order[] = {NID_countryName,
                              NID_stateOrProvinceName,
                              NID_localityName,
                              NID_organizationName,
                              NID_organizationalUnitName,
                              NID_undef /* all others */,
                              NID_commonName};
  int nid = OBJ_txt2nid(type);
  size_t i = 0;
  while (i < COUNT(order) && order[i] != nid)
    i++;
  return i < COUNT(order) ? i : 5;
}

static bool before(const char *a, const char *b) {
  size_t first = rank(a), second = rank(b);
  return first != second ? first < second : strcmp(a, b) < 0;
}

static bool too_many(lua_State *L) {
  core_fail(L, "limit", "a subject of more than %d attributes",
            ATTRIBUTES_LIMIT);
  return false;
}

/* { CN = "...", O = "..." } */
static bool put_map(core_der *der, int index) {
  lua_State *L = der->L;
  const char *types[ATTRIBUTES_LIMIT];
  int count = 0, i;
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "a subject's types and values must be strings");
    if (count == ATTRIBUTES_LIMIT)
      return too_many(L);
    for (i = count++; i > 0 && before(lua_tostring(L, -2), types[i - 1]); i--)
      types[i] = types[i - 1];
    types[i] = lua_tostring(L, -2);
  }
  for (i = 0; i < count; i++) {
    lua_pushstring(L, types[i]);
    lua_getfield(L, index, types[i]);
    if (!put_attribute(der))
      return false;
  }
  return true;
}

/* { { "C", "US" }, { type = "O", value = "Contoso" } } */
static bool put_array(core_der *der, int index) {
  lua_State *L = der->L;
  lua_Integer count = luaL_len(L, index), i;
  if (count > ATTRIBUTES_LIMIT)
    return too_many(L);
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
    if (!put_attribute(der))
      return false;
    lua_pop(L, 1);
  }
  return true;
}

bool core_put_subject(core_der *der, int index) {
  lua_State *L = der->L;
  size_t from = der->length;
  index = lua_absindex(L, index);
  core_der_open(der, CORE_DER_SEQUENCE);
  if (!lua_isnoneornil(L, index)) {
    if (!lua_istable(L, index))
      luaL_error(L, "a subject must be a table, not a %s",
                 luaL_typename(L, index));
    luaL_checkstack(L, 20, "subject");
    if (!(lua_rawlen(L, index) > 0 ? put_array(der, index)
                                   : put_map(der, index)))
      return false;
  }
  core_der_close(der, 1);
  if (der->length - from <= NAME_LIMIT)
    return true;
  core_fail(L, "limit", "a subject of more than 1 MiB");
  return false;
}

/* --- a subject out */

/* "#" and the DER of a value in hex (RFC 4514, section 2.4). */
static void push_dump(lua_State *L, const ASN1_STRING *value) {
  const char *der;
  size_t length;
  lua_pushstring(L, "#");
  core_push_der(L, value, ASN1_ITEM_rptr(ASN1_PRINTABLE));
  der = lua_tolstring(L, -1, &length);
  core_pushhex(L, (const unsigned char *)der, length);
  lua_remove(L, -2);
  lua_concat(L, 2);
}

void core_push_string(lua_State *L, const ASN1_STRING *value) {
  const unsigned char *bytes = ASN1_STRING_get0_data(value);
  int length = ASN1_STRING_length(value);
  unsigned long type = ASN1_tag2bit(ASN1_STRING_type(value));
  if ((type & (NARROW | WIDE)) == 0) {
    push_dump(L, value);
  } else if ((type & NARROW) != 0) {
    core_pushtext(L, (const char *)bytes, (size_t)length);
  } else {
    ASN1_STRING *text = core_push_item(L, ASN1_ITEM_rptr(ASN1_UTF8STRING));
    ASN1_mbstring_copy(&text, bytes, length,
                       type == B_ASN1_T61STRING   ? MBSTRING_ASC
                       : type == B_ASN1_BMPSTRING ? MBSTRING_BMP
                                                  : MBSTRING_UNIV,
                       B_ASN1_UTF8STRING);
    core_push_string(L, text);
    lua_remove(L, -2);
  }
}

void core_push_oid(lua_State *L, const ASN1_OBJECT *object, bool by_name) {
  int nid = by_name ? OBJ_obj2nid(object) : NID_undef;
  char oid[128];
  if (nid != NID_undef)
    lua_pushstring(L, OBJ_nid2sn(nid));
  else
    lua_pushstring(L, OBJ_obj2txt(oid, sizeof oid, object, 1) > 0 ? oid : "?");
}

/* Escapes special characters of the string on top, of a value in a name those
 * at its ends, and control characters as \ and two hex digits for each octet
 * (RFC 4514, section 2.4). */
static void escape(lua_State *L, const char *special, bool in_name) {
  static const char digits[] = "0123456789ABCDEF";
  luaL_Buffer buffer;
  size_t length, i, hidden = 0; /* octets to come of a control character */
  const char *s = lua_tolstring(L, -1, &length);
  luaL_buffinit(L, &buffer);
  for (i = 0; i < length; i++) {
    unsigned char c = (unsigned char)s[i];
    if (hidden == 0)
      hidden = control(s + i, length - i);
    if (hidden > 0 || strchr(special, c) != NULL ||
        (in_name && c == ' ' && (i == 0 || i == length - 1)) ||
        (in_name && c == '#' && i == 0))
      luaL_addchar(&buffer, '\\');
    if (hidden > 0) {
      hidden--;
      luaL_addchar(&buffer, digits[c >> 4]);
      luaL_addchar(&buffer, digits[c & 15]);
    } else {
      luaL_addchar(&buffer, (char)c);
    }
  }
  luaL_pushresult(&buffer);
  lua_remove(L, -2);
}

const char *core_quotable(lua_State *L) {
  size_t length, n;
  const char *text = lua_tolstring(L, -1, &length);
  n = length < QUOTED ? length : QUOTED;
  while (n > 0 && n < length && (text[n] & 0xC0) == 0x80)
    n--; /* not within a character */
  lua_pushlstring(L, text, n);
  escape(L, "\"\\", false);
  lua_pushstring(L, n < length ? "..." : "");
  lua_concat(L, 2);
  lua_replace(L, -2);
  return lua_tostring(L, -1);
}

/* Pushes TYPE=VALUE. */
static void push_attribute(lua_State *L, const X509_NAME_ENTRY *entry) {
  const ASN1_OBJECT *type = X509_NAME_ENTRY_get_object(entry);
  const ASN1_STRING *value = X509_NAME_ENTRY_get_data(entry);
  core_push_oid(L, type, true);
  lua_pushstring(L, "=");
  if (OBJ_obj2nid(type) == NID_undef ||
      (ASN1_tag2bit(ASN1_STRING_type(value)) & (NARROW | WIDE)) == 0) {
    push_dump(L, value);
  } else {
    core_push_string(L, value);
    escape(L, "\"+,;<>\\", true);
  }
  lua_concat(L, 3);
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
    core_push_oid(L, X509_NAME_ENTRY_get_object(entry), true);
    lua_setfield(L, -2, "type");
    core_push_string(L, X509_NAME_ENTRY_get_data(entry));
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
    core_push_string(L,
                     X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, last)));
}
