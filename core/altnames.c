/*
 * altnames.c: subject alternative names, from an options table in, and to plain
 * fields out (RFC 5280, section 4.2.1.6).
 *
 * What goes in is only what the RFC lets through; what comes out is data of
 * strangers as valid UTF-8.
 */
#include "core.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>

#define DNS_NAME_LIMIT 253 /* octets (RFC 1035, section 2.3.4) */
#define DNS_LABEL_LIMIT 63
#define TEXT_LIMIT 4096 /* octets of an e-mail address or a URI */
#define OID_TEXT 128

/* Why text cannot be a dNSName, as RFC 1034, section 3.5, RFC 1123, section
 * 2.1 (with the underscores and asterisks of today); NULL: it can. */
static const char *domain_fault(const char *s, size_t length,
                                const char **code) {
  size_t i, label = 0;
  *code = "parse";
  for (i = 0; i < length; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c != '.' && c != '-' && c != '_' && c != '*' &&
        (c > 127 || !isalnum(c)))
      return c > 127 ? "not ASCII" : "a character that no DNS name has";
    if (c == '.' && label == 0)
      return "an empty label";
    label = c == '.' ? 0 : label + 1;
    if (label > DNS_LABEL_LIMIT) {
      *code = "limit";
      return "a label of more than 63 octets";
    }
  }
  if (label == 0)
    return length == 0 ? "empty" : "an empty label";
  *code = "limit";
  return length > DNS_NAME_LIMIT ? "more than 253 octets" : NULL;
}

/* The same for an e-mail address (separator '@') or a URI (':'). */
static const char *text_fault(const char *s, size_t length, char separator,
                              const char **code) {
  const char *at = memchr(s, separator, length);
  size_t i;
  *code = "parse";
  if (length == 0)
    return "empty";
  for (i = 0; i < length; i++)
    if ((unsigned char)s[i] > 127)
      return "not ASCII";
    else if (s[i] <= ' ' || s[i] == 0x7F)
      return "a space or a control character in it";
  if (at == NULL || at == s || at == s + length - 1)
    return separator == '@' ? "no local part and domain" : "no scheme";
  *code = "limit";
  return length > TEXT_LIMIT ? "more than 4096 octets" : NULL;
}

static bool add_name(GENERAL_NAMES *names, int type, const void *bytes,
                     size_t length) {
  GENERAL_NAME *name = GENERAL_NAME_new();
  ASN1_STRING *value = ASN1_STRING_type_new(
      type == GEN_IPADD ? V_ASN1_OCTET_STRING : V_ASN1_IA5STRING);
  if (name == NULL || value == NULL ||
      !ASN1_STRING_set(value, bytes, (int)length))
    goto out;
  GENERAL_NAME_set0_value(name, type, value);
  value = NULL;
  if (!sk_GENERAL_NAME_push(names, name))
    goto out;
  return true;
out:
  ASN1_STRING_free(value);
  GENERAL_NAME_free(name);
  return false;
}

/* Octets of an IPv4 or IPv6 literal, 0 when it is none. */
static size_t address(const char *text, size_t length, unsigned char out[16]) {
  if (strlen(text) != length)
    return 0;
  if (inet_pton(AF_INET, text, out) == 1)
    return 4;
  return inet_pton(AF_INET6, text, out) == 1 ? 16 : 0;
}

/* Adds the string on top of the stack as what field holds; false with a
 * failure pushed. */
static bool add_text(lua_State *L, GENERAL_NAMES *names, const char *field) {
  unsigned char octets[16];
  const char *fault, *code;
  size_t length, n = 0;
  const char *text = lua_tolstring(L, -1, &length);
  bool domain = strcmp(field, "domains") == 0;
  bool email = strcmp(field, "emails") == 0;
  if (domain && (n = address(text, length, octets)) > 0)
    return add_name(names, GEN_IPADD, octets, n) ||
           luaL_error(L, "not enough memory");
  fault = domain ? domain_fault(text, length, &code)
                 : text_fault(text, length, email ? '@' : ':', &code);
  if (fault != NULL) {
    core_push_excerpt(L, text, length);
    core_fail(L, code, "cannot use '%s' as %s: %s", lua_tostring(L, -1),
              domain  ? "a DNS name"
              : email ? "an e-mail address"
                      : "a URI",
              fault);
    return false;
  }
  return add_name(names,
                  domain  ? GEN_DNS
                  : email ? GEN_EMAIL
                          : GEN_URI,
                  text, length) ||
         luaL_error(L, "not enough memory");
}

lua_Integer core_push_strings(lua_State *L, int index, const char *field) {
  lua_Integer count, i;
  if (lua_getfield(L, index, field) == LUA_TNIL)
    return 0;
  if (!lua_istable(L, -1))
    return luaL_error(L, "field '%s' must be an array of strings", field);
  count = luaL_len(L, -1);
  for (i = 1; i <= count; i++) {
    if (lua_geti(L, -1, i) != LUA_TSTRING)
      return luaL_error(L, "field '%s' must be an array of strings", field);
    lua_pop(L, 1);
  }
  return count;
}

bool core_add_names(lua_State *L, int index, GENERAL_NAMES *names) {
  static const char *const fields[] = {"domains", "emails", "uris"};
  size_t f;
  for (f = 0; f < COUNT(fields); f++) {
    lua_Integer count = core_push_strings(L, index, fields[f]), i;
    for (i = 1; i <= count; i++) {
      lua_geti(L, -1, i);
      if (!add_text(L, names, fields[f]))
        return false;
      lua_pop(L, 1);
    }
    lua_pop(L, 1);
  }
  return true;
}

static void push_other_name(lua_State *L, const OTHERNAME *other) {
  char oid[OID_TEXT];
  const ASN1_TYPE *value = other->value;
  if (OBJ_obj2txt(oid, sizeof oid, other->type_id, 1) < 0)
    strcpy(oid, "?");
  lua_pushfstring(L, "%s:", oid);
  if (value->type == V_ASN1_UTF8STRING || value->type == V_ASN1_IA5STRING) {
    core_pushtext(L,
                  (const char *)ASN1_STRING_get0_data(value->value.asn1_string),
                  (size_t)ASN1_STRING_length(value->value.asn1_string));
    lua_concat(L, 2);
  }
}

/* Pushes the text of an address (RFC 5952), or of what is none. */
static void push_address(lua_State *L, const ASN1_OCTET_STRING *octets) {
  const unsigned char *bytes = ASN1_STRING_get0_data(octets);
  int length = ASN1_STRING_length(octets);
  char text[INET6_ADDRSTRLEN];
  if (length == 4 || length == 16) {
    inet_ntop(length == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text);
    lua_pushstring(L, text);
  } else {
    core_pushhex(L, bytes, (size_t)length);
  }
}

/* Pushes the text of a name, and gives its type. */
static const char *push_name(lua_State *L, const GENERAL_NAME *name) {
  char oid[OID_TEXT];
  int type;
  const void *value = GENERAL_NAME_get0_value(name, &type);
  switch (type) {
  case GEN_DNS:
  case GEN_EMAIL:
  case GEN_URI:
    core_pushtext(L, (const char *)ASN1_STRING_get0_data(value),
                  (size_t)ASN1_STRING_length(value));
    return type == GEN_DNS ? "dns" : type == GEN_EMAIL ? "email" : "uri";
  case GEN_IPADD:
    push_address(L, value);
    return ASN1_STRING_length(value) == 4 || ASN1_STRING_length(value) == 16
               ? "ip"
               : "other";
  case GEN_DIRNAME:
    core_push_name_text(L, value);
    return "other";
  case GEN_OTHERNAME:
    push_other_name(L, value);
    return "other";
  case GEN_RID:
    OBJ_obj2txt(oid, sizeof oid, value, 1);
    lua_pushstring(L, oid);
    return "other";
  default:
    lua_pushstring(L, "");
    return "other";
  }
}

void core_set_names(lua_State *L, int fields, const GENERAL_NAMES *names) {
  int count = names != NULL ? sk_GENERAL_NAME_num(names) : 0, domains = 0, i;
  lua_createtable(L, count, 0);
  lua_createtable(L, count, 0);
  for (i = 0; i < count; i++) {
    const char *type;
    lua_createtable(L, 0, 2);
    type = push_name(L, sk_GENERAL_NAME_value(names, i));
    if (strcmp(type, "dns") == 0 || strcmp(type, "ip") == 0) {
      lua_pushvalue(L, -1);
      lua_seti(L, -4, ++domains);
    }
    lua_setfield(L, -2, "value");
    lua_pushstring(L, type);
    lua_setfield(L, -2, "type");
    lua_seti(L, -3, i + 1);
  }
  lua_setfield(L, fields, "domains");
  lua_setfield(L, fields, "names");
}
