/*
 * extensions.c: X.509v3 extensions, from an options table in, and to plain
 * fields out.
 *
 * Which usages and names a certificate should have is the caller's decision;
 * here are only RFC 5280's names, forms and bounds.
 */
#include "core.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <openssl/err.h>
#include <string.h>

#define DNS_NAME_LIMIT 253 /* octets (RFC 1035, section 2.3.4) */
#define DNS_LABEL_LIMIT 63
#define TEXT_LIMIT 4096 /* octets of an e-mail address or a URI */
#define MUST_STAPLE 5   /* status_request (RFC 7633, section 6) */

/* RFC 5280, section 4.2.1.3: the place is the bit. */
static const char *const usages[] = {
    "digitalSignature", "nonRepudiation", "keyEncipherment",
    "dataEncipherment", "keyAgreement",   "keyCertSign",
    "cRLSign",          "encipherOnly",   "decipherOnly"};

void core_open_extension(core_der *der, int nid, bool critical) {
  core_der_open(der, CORE_DER_SEQUENCE);
  core_der_put_object(der, nid);
  if (critical)
    core_der_put(der, CORE_DER_BOOLEAN, "\xFF", 1);
  core_der_open(der, CORE_DER_OCTETS);
}

/* --- lists in: each adds the string on top of the stack, from this field, to
 * the value of an extension; false with a failure pushed */

typedef bool adder(lua_State *L, void *value, const char *field);

/* To bits, of which the first is the highest of 16. */
static bool add_usage(lua_State *L, void *value, const char *field) {
  const char *text = lua_tostring(L, -1);
  unsigned *bits = value;
  size_t bit = 0;
  (void)field;
  if (strcmp(text, "contentCommitment") == 0)
    text = "nonRepudiation"; /* as it was called until X.509 (2005) */
  while (bit < COUNT(usages) && strcmp(usages[bit], text) != 0)
    bit++;
  if (bit == COUNT(usages)) {
    core_fail(L, "unsupported", "unknown key usage '%s'", text);
    return false;
  }
  *bits |= 0x8000U >> bit;
  return true;
}

static bool add_purpose(lua_State *L, void *value, const char *field) {
  const char *text = lua_tostring(L, -1);
  int nid;
  (void)field;
  if (core_der_put_oid(value, text, &nid))
    return true;
  core_fail(L, "unsupported", "unknown extended key usage '%s'", text);
  return false;
}

/* Why text cannot be a dNSName, as RFC 1034, section 3.5, RFC 1123, section
 * 2.1 (with the underscores and asterisks of today); NULL: it can. */
static const char *domain_fault(const char *s, size_t length,
                                const char **code) {
  size_t i, label = 0;
  for (i = 0; i < length; i++) {
    unsigned char c = (unsigned char)s[i];
    if (c > 127)
      return "not ASCII";
    if (!isalnum(c) && (c == '\0' || strchr(".-_*", c) == NULL))
      return "a character that no DNS name has";
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

/* RFC 5280, section 4.2.1.6; IP literals among the domains are iPAddress. */
static bool add_name(lua_State *L, void *value, const char *field) {
  enum { EMAIL = 1, DNS = 2, URI = 6, ADDRESS = 7 } tag = DNS;
  unsigned char octets[16];
  const char *fault = NULL, *code = "parse", *what = "a DNS name";
  size_t length;
  const char *text = lua_tolstring(L, -1, &length);
  const void *bytes = text;
  if (strcmp(field, "domains") != 0) {
    bool email = strcmp(field, "emails") == 0;
    tag = email ? EMAIL : URI;
    what = email ? "an e-mail address" : "a URI";
    fault = text_fault(text, length, email ? '@' : ':', &code);
  } else if (strlen(text) == length &&
             (inet_pton(AF_INET, text, octets) == 1 ||
              inet_pton(AF_INET6, text, octets) == 1)) {
    tag = ADDRESS;
    bytes = octets;
    length = memchr(text, ':', length) == NULL ? 4 : 16;
  } else {
    fault = domain_fault(text, length, &code);
  }
  if (fault != NULL) {
    core_push_excerpt(L, text, length);
    core_fail(L, code, "cannot use '%s' as %s: %s", lua_tostring(L, -1), what,
              fault);
    return false;
  }
  core_der_put(value, CORE_DER_PLAIN | tag, bytes, length);
  return true;
}

/* Adds the strings of a field of the table at index; raises on what is no
 * string. */
static bool add_strings(lua_State *L, int index, const char *field, adder *add,
                        void *value) {
  int type = lua_getfield(L, index, field);
  lua_Integer count = type == LUA_TTABLE ? luaL_len(L, -1) : 0, i;
  if (type != LUA_TTABLE && type != LUA_TNIL)
    luaL_error(L, "field '%s' must be an array of strings", field);
  for (i = 1; i <= count; i++) {
    if (lua_geti(L, -1, i) != LUA_TSTRING)
      luaL_error(L, "field '%s' must be an array of strings", field);
    if (!add(L, value, field))
      return false;
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return true;
}

/* A list of bits that have names, without zeros at its end (X.690, section
 * 11.2.2). */
static bool put_usages(core_der *der, int index) {
  unsigned bits = 0;
  unsigned char octets[3]; /* the first says how many bits are unused */
  size_t length;
  if (!add_strings(der->L, index, "key_usage", add_usage, &bits))
    return false;
  if (bits == 0)
    return true;
  octets[1] = (unsigned char)(bits >> 8);
  octets[2] = (unsigned char)bits;
  length = octets[2] != 0 ? 3 : 2;
  for (octets[0] = 0; (octets[length - 1] >> octets[0] & 1) == 0;)
    octets[0]++;
  core_open_extension(der, NID_key_usage, true);
  core_der_put(der, CORE_DER_BITS, octets, length);
  core_der_close(der, 2);
  return true;
}

/* A sequence of what the fields have; nothing where that is nothing. */
static bool put_list(core_der *der, int index, int nid,
                     const char *const fields[], adder *add) {
  core_open_extension(der, nid, false);
  core_der_open(der, CORE_DER_SEQUENCE);
  for (; *fields != NULL; fields++)
    if (!add_strings(der->L, index, *fields, add, der))
      return false;
  if (!core_der_undo(der, 3))
    core_der_close(der, 3);
  return true;
}

/* --- other extensions in */

/* RFC 5280, section 4.2.1.9; what is false by default is left out (X.690,
 * section 11.5). */
static void put_constraints(core_der *der, int index) {
  lua_State *L = der->L;
  bool given = lua_getfield(L, index, "ca") != LUA_TNIL;
  bool ca = lua_toboolean(L, -1);
  bool bounded = lua_getfield(L, index, "path_length") != LUA_TNIL;
  if (bounded && (!ca || !lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0))
    luaL_error(L, "field 'path_length' must be an integer from 0, and "
                  "needs ca = true");
  if (given) {
    core_open_extension(der, NID_basic_constraints, true);
    core_der_open(der, CORE_DER_SEQUENCE);
    if (ca)
      core_der_put(der, CORE_DER_BOOLEAN, "\xFF", 1);
    if (bounded)
      core_der_put_number(der, (uint64_t)lua_tointeger(L, -1));
    core_der_close(der, 3);
  }
  lua_pop(L, 2);
}

bool core_put_extensions(core_der *der, int index,
                         const unsigned char id[CORE_KEY_ID]) {
  static const char *const purposes[] = {"extended_key_usage", NULL};
  static const char *const names[] = {"domains", "emails", "uris", NULL};
  lua_State *L = der->L;
  luaL_checkstack(L, 20, "extensions");
  index = lua_absindex(L, index);
  core_clear_errors();
  if (lua_getfield(L, index, "subject_key_id") == LUA_TNIL ||
      lua_toboolean(L, -1)) {
    core_open_extension(der, NID_subject_key_identifier, false);
    core_der_put(der, CORE_DER_OCTETS, id, CORE_KEY_ID);
    core_der_close(der, 2);
  }
  put_constraints(der, index);
  lua_getfield(L, index, "must_staple");
  if (lua_toboolean(L, -1)) {
    core_open_extension(der, NID_tlsfeature, false);
    core_der_open(der, CORE_DER_SEQUENCE);
    core_der_put_number(der, MUST_STAPLE);
    core_der_close(der, 3);
  }
  lua_pop(L, 2);
  return put_usages(der, index) &&
         put_list(der, index, NID_ext_key_usage, purposes, add_purpose) &&
         put_list(der, index, NID_subject_alt_name, names, add_name);
}

/* --- extensions out: each sets what one says in the table at index fields;
 * value is NULL where there is none, or none that is well formed and single */

static void push_other_name(lua_State *L, const OTHERNAME *other) {
  const ASN1_TYPE *value = other->value;
  core_push_oid(L, other->type_id, false);
  lua_pushstring(L, ":");
  if (value->type == V_ASN1_UTF8STRING || value->type == V_ASN1_IA5STRING)
    core_push_string(L, value->value.asn1_string);
  else
    lua_pushstring(L, "");
  lua_concat(L, 3);
}

/* Pushes the text of an address (RFC 5952); false: what it is in hex. */
static bool push_address(lua_State *L, const ASN1_OCTET_STRING *octets) {
  const unsigned char *bytes = ASN1_STRING_get0_data(octets);
  int length = ASN1_STRING_length(octets);
  char text[INET6_ADDRSTRLEN];
  if (length != 4 && length != 16) {
    core_pushhex(L, bytes, (size_t)length);
    return false;
  }
  inet_ntop(length == 4 ? AF_INET : AF_INET6, bytes, text, sizeof text);
  lua_pushstring(L, text);
  return true;
}

/* Pushes the text of a name, and gives its type. */
static const char *push_name(lua_State *L, const GENERAL_NAME *name) {
  int type;
  const void *value = GENERAL_NAME_get0_value(name, &type);
  switch (type) {
  case GEN_DNS:
  case GEN_EMAIL:
  case GEN_URI:
    core_push_string(L, value);
    return type == GEN_DNS ? "dns" : type == GEN_EMAIL ? "email" : "uri";
  case GEN_IPADD:
    return push_address(L, value) ? "ip" : "other";
  case GEN_DIRNAME:
    core_push_name_text(L, value);
    break;
  case GEN_OTHERNAME:
    push_other_name(L, value);
    break;
  case GEN_RID:
    core_push_oid(L, value, false);
    break;
  default:
    lua_pushstring(L, "");
  }
  return "other";
}

static void set_names(lua_State *L, int fields, const void *value) {
  const GENERAL_NAMES *names = value;
  int count = sk_GENERAL_NAME_num(names), domains = 0, i;
  lua_newtable(L);
  lua_newtable(L);
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

static void set_usages(lua_State *L, int fields, const void *bits) {
  int count = 0, i;
  lua_newtable(L);
  for (i = 0; i < (int)COUNT(usages); i++)
    if (ASN1_BIT_STRING_get_bit(bits, i)) {
      lua_pushstring(L, usages[i]);
      lua_seti(L, -2, ++count);
    }
  lua_setfield(L, fields, "key_usage");
}

static void set_purposes(lua_State *L, int fields, const void *value) {
  const EXTENDED_KEY_USAGE *purposes = value;
  int i;
  lua_newtable(L);
  for (i = 0; i < sk_ASN1_OBJECT_num(purposes); i++) {
    core_push_oid(L, sk_ASN1_OBJECT_value(purposes, i), true);
    lua_seti(L, -2, i + 1);
  }
  lua_setfield(L, fields, "extended_key_usage");
}

static void set_constraints(lua_State *L, int fields, const void *value) {
  const BASIC_CONSTRAINTS *constraints = value;
  int64_t length;
  if (constraints == NULL)
    return;
  lua_pushboolean(L, constraints->ca != 0);
  lua_setfield(L, fields, "ca");
  if (constraints->pathlen != NULL &&
      ASN1_INTEGER_get_int64(&length, constraints->pathlen)) {
    lua_pushinteger(L, length);
    lua_setfield(L, fields, "path_length");
  }
}

static void set_must_staple(lua_State *L, int fields, const void *value) {
  const TLS_FEATURE *features = value;
  int i;
  for (i = 0; i < sk_ASN1_INTEGER_num(features); i++)
    if (ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == MUST_STAPLE) {
      lua_pushboolean(L, 1);
      lua_setfield(L, fields, "must_staple");
    }
}

static void set_subject_key_id(lua_State *L, int fields, const void *octets) {
  if (octets == NULL)
    return;
  core_pushhex(L, ASN1_STRING_get0_data(octets),
               (size_t)ASN1_STRING_length(octets));
  lua_setfield(L, fields, "subject_key_id");
}

void core_set_extensions(lua_State *L, const STACK_OF(X509_EXTENSION) * list) {
  static const struct {
    int nid;
    void (*set)(lua_State *L, int fields, const void *value);
  } kinds[] = {{NID_subject_alt_name, set_names},
               {NID_key_usage, set_usages},
               {NID_ext_key_usage, set_purposes},
               {NID_basic_constraints, set_constraints},
               {NID_tlsfeature, set_must_staple},
               {NID_subject_key_identifier, set_subject_key_id}};
  int fields = lua_gettop(L);
  size_t i;
  luaL_checkstack(L, 20, "extensions");
  for (i = 0; i < COUNT(kinds); i++) {
    core_holder *box = core_push_holder(L, NULL);
    box->item = ASN1_ITEM_ptr(X509V3_EXT_get_nid(kinds[i].nid)->it);
    box->value = X509V3_get_d2i(list, kinds[i].nid, NULL, NULL);
    kinds[i].set(L, fields, box->value);
    core_drop(L);
  }
  ERR_clear_error();
}
