/*
 * extensions.c: the X.509v3 extensions of requests and certificates, from an
 * options table in, and to plain fields out.
 *
 * Shared by request.c and cert.c.  Which usages a certificate should have is
 * the caller's decision; here are only RFC 5280's names, forms and bounds.
 */
#include "core.h"

#include <openssl/err.h>
#include <openssl/sha.h>
#include <string.h>

#define MUST_STAPLE 5 /* status_request (RFC 7633, section 6) */
#define OID_TEXT 128

/* RFC 5280, section 4.2.1.3: the place is the bit. */
static const char *const usages[] = {
    "digitalSignature", "nonRepudiation", "keyEncipherment",
    "dataEncipherment", "keyAgreement",   "keyCertSign",
    "cRLSign",          "encipherOnly",   "decipherOnly"};

static void free_extensions(void *value) {
  sk_X509_EXTENSION_pop_free(value, X509_EXTENSION_free);
}

static void free_names(void *value) {
  GENERAL_NAMES_free(value);
}

static void free_bits(void *value) {
  ASN1_BIT_STRING_free(value);
}

static void free_purposes(void *value) {
  EXTENDED_KEY_USAGE_free(value);
}

static void free_constraints(void *value) {
  BASIC_CONSTRAINTS_free(value);
}

static void free_features(void *value) {
  TLS_FEATURE_free(value);
}

static void free_octets(void *value) {
  ASN1_OCTET_STRING_free(value);
}

static bool add(core_holder *list, int nid, bool critical, void *value) {
  STACK_OF(X509_EXTENSION) *extensions = list->value;
  return X509V3_add1_i2d(&extensions, nid, value, critical,
                         X509V3_ADD_APPEND) == 1;
}

static bool add_held(lua_State *L, core_holder *list, int nid, bool critical,
                     core_holder *value) {
  if (!add(list, nid, critical, value->value))
    luaL_error(L, "cannot encode an extension: %s", core_reason());
  core_release(value);
  return true;
}

/* Each of these adds one extension where the options ask for it; false with a
 * failure pushed. */

static bool add_alternative_names(lua_State *L, int index, core_holder *list) {
  core_holder *names = core_push_holder(L, free_names);
  names->value = GENERAL_NAMES_new();
  if (names->value == NULL)
    return luaL_error(L, "not enough memory");
  if (!core_add_names(L, index, names->value))
    return false;
  return sk_GENERAL_NAME_num(names->value) == 0 ||
         add_held(L, list, NID_subject_alt_name, false, names);
}

static bool add_key_usage(lua_State *L, int index, core_holder *list) {
  lua_Integer count = core_push_strings(L, index, "key_usage"), i;
  core_holder *bits = core_push_holder(L, free_bits);
  if (count == 0)
    return true;
  bits->value = ASN1_BIT_STRING_new();
  for (i = 1; i <= count; i++) {
    const char *name;
    size_t bit;
    lua_geti(L, -2, i);
    name = lua_tostring(L, -1);
    if (strcmp(name, "contentCommitment") ==
        0) /* its name since X.509 (2005) */
      name = usages[1];
    for (bit = 0; bit < COUNT(usages); bit++)
      if (strcmp(usages[bit], name) == 0)
        break;
    if (bit == COUNT(usages)) {
      core_fail(L, "unsupported", "unknown key usage '%s'", name);
      return false;
    }
    if (!ASN1_BIT_STRING_set_bit(bits->value, (int)bit, 1))
      return luaL_error(L, "not enough memory");
    lua_pop(L, 1);
  }
  return add_held(L, list, NID_key_usage, true, bits);
}

/* Pushes a purpose by its name or OID; false: unknown. */
static bool push_purpose(EXTENDED_KEY_USAGE *purposes, const char *name) {
  ASN1_OBJECT *object = OBJ_txt2obj(name, 0);
  if (object != NULL && sk_ASN1_OBJECT_push(purposes, object))
    return true;
  ASN1_OBJECT_free(object);
  ERR_clear_error();
  return false;
}

static bool add_purposes(lua_State *L, int index, core_holder *list) {
  lua_Integer count = core_push_strings(L, index, "extended_key_usage"), i;
  core_holder *purposes = core_push_holder(L, free_purposes);
  if (count == 0)
    return true;
  purposes->value = EXTENDED_KEY_USAGE_new();
  for (i = 1; i <= count; i++) {
    lua_geti(L, -2, i);
    if (!push_purpose(purposes->value, lua_tostring(L, -1))) {
      core_fail(L, "unsupported", "unknown extended key usage '%s'",
                lua_tostring(L, -1));
      return false;
    }
    lua_pop(L, 1);
  }
  return add_held(L, list, NID_ext_key_usage, false, purposes);
}

static bool add_constraints(lua_State *L, int index, core_holder *list) {
  core_holder *holder = core_push_holder(L, free_constraints);
  bool given = lua_getfield(L, index, "ca") != LUA_TNIL;
  bool ca = lua_toboolean(L, -1), bounded;
  BASIC_CONSTRAINTS *constraints;
  bounded = lua_getfield(L, index, "path_length") != LUA_TNIL;
  if (bounded && (!ca || !lua_isinteger(L, -1) || lua_tointeger(L, -1) < 0))
    return luaL_error(L, "field 'path_length' must be an integer from 0, and "
                         "needs ca = true");
  if (!given)
    return true;
  holder->value = constraints = BASIC_CONSTRAINTS_new();
  if (constraints == NULL)
    return luaL_error(L, "not enough memory");
  constraints->ca = ca ? 0xFF : 0;
  if (bounded) {
    constraints->pathlen = ASN1_INTEGER_new();
    if (constraints->pathlen == NULL ||
        !ASN1_INTEGER_set_int64(constraints->pathlen, lua_tointeger(L, -1)))
      return luaL_error(L, "not enough memory");
  }
  return add_held(L, list, NID_basic_constraints, true, holder);
}

static bool add_must_staple(lua_State *L, int index, core_holder *list) {
  core_holder *features = core_push_holder(L, free_features);
  ASN1_INTEGER *status_request;
  lua_getfield(L, index, "must_staple");
  if (!lua_toboolean(L, -1))
    return true;
  features->value = TLS_FEATURE_new();
  status_request = ASN1_INTEGER_new();
  if (features->value == NULL || status_request == NULL ||
      !ASN1_INTEGER_set(status_request, MUST_STAPLE) ||
      !sk_ASN1_INTEGER_push(features->value, status_request)) {
    ASN1_INTEGER_free(status_request);
    return luaL_error(L, "not enough memory");
  }
  return add_held(L, list, NID_tlsfeature, false, features);
}

/* RFC 5280, section 4.2.1.2, method (1). */
static bool add_subject_key_id(lua_State *L, int index, core_holder *list,
                               const X509_PUBKEY *subject) {
  core_holder *octets = core_push_holder(L, free_octets);
  unsigned char digest[SHA_DIGEST_LENGTH];
  const unsigned char *bytes;
  int length;
  bool wanted = lua_getfield(L, index, "subject_key_id") == LUA_TNIL ||
                lua_toboolean(L, -1);
  if (!wanted || subject == NULL)
    return true;
  octets->value = ASN1_OCTET_STRING_new();
  if (octets->value == NULL ||
      !X509_PUBKEY_get0_param(NULL, &bytes, &length, NULL, subject) ||
      SHA1(bytes, (size_t)length, digest) == NULL ||
      !ASN1_OCTET_STRING_set(octets->value, digest, sizeof digest))
    return luaL_error(L, "cannot make a key identifier: %s", core_reason());
  return add_held(L, list, NID_subject_key_identifier, false, octets);
}

STACK_OF(X509_EXTENSION) *
    core_push_extensions(lua_State *L, int index, X509_PUBKEY *subject) {
  core_holder *list;
  int top;
  index = lua_absindex(L, index);
  luaL_checkstack(L, 30, "extensions");
  list = core_push_holder(L, free_extensions);
  list->value = sk_X509_EXTENSION_new_null();
  if (list->value == NULL)
    luaL_error(L, "not enough memory");
  top = lua_gettop(L);
  ERR_clear_error();
  if (!add_subject_key_id(L, index, list, subject) ||
      !add_constraints(L, index, list) || !add_key_usage(L, index, list) ||
      !add_purposes(L, index, list) || !add_alternative_names(L, index, list) ||
      !add_must_staple(L, index, list))
    return NULL;
  lua_settop(L, top);
  return list->value;
}

/* --- extensions out */

/* Decodes one extension into a holder that it pushes; NULL: there is none, or
 * none that is well formed and single. */
static void *decode(lua_State *L, const STACK_OF(X509_EXTENSION) * list,
                    int nid, void (*release)(void *)) {
  core_holder *holder = core_push_holder(L, release);
  holder->value = X509V3_get_d2i(list, nid, NULL, NULL);
  return holder->value;
}

/* Pops what decode pushed. */
static void drop(lua_State *L) {
  core_release(lua_touserdata(L, -1));
  lua_pop(L, 1);
}

static void set_names(lua_State *L, int fields,
                      const STACK_OF(X509_EXTENSION) * list) {
  core_set_names(L, fields, decode(L, list, NID_subject_alt_name, free_names));
  drop(L);
}

static void set_key_usage(lua_State *L, int fields,
                          const STACK_OF(X509_EXTENSION) * list) {
  const ASN1_BIT_STRING *bits = decode(L, list, NID_key_usage, free_bits);
  int count = 0;
  size_t bit;
  lua_newtable(L);
  for (bit = 0; bits != NULL && bit < COUNT(usages); bit++)
    if (ASN1_BIT_STRING_get_bit(bits, (int)bit)) {
      lua_pushstring(L, usages[bit]);
      lua_seti(L, -2, ++count);
    }
  lua_setfield(L, fields, "key_usage");
  drop(L);
}

static void set_purposes(lua_State *L, int fields,
                         const STACK_OF(X509_EXTENSION) * list) {
  const EXTENDED_KEY_USAGE *purposes =
      decode(L, list, NID_ext_key_usage, free_purposes);
  int count = purposes != NULL ? sk_ASN1_OBJECT_num(purposes) : 0, i;
  char oid[OID_TEXT];
  lua_createtable(L, count, 0);
  for (i = 0; i < count; i++) {
    const ASN1_OBJECT *object = sk_ASN1_OBJECT_value(purposes, i);
    int nid = OBJ_obj2nid(object);
    if (nid == NID_undef && OBJ_obj2txt(oid, sizeof oid, object, 1) < 0)
      strcpy(oid, "?");
    lua_pushstring(L, nid != NID_undef ? OBJ_nid2sn(nid) : oid);
    lua_seti(L, -2, i + 1);
  }
  lua_setfield(L, fields, "extended_key_usage");
  drop(L);
}

static void set_constraints(lua_State *L, int fields,
                            const STACK_OF(X509_EXTENSION) * list) {
  const BASIC_CONSTRAINTS *constraints =
      decode(L, list, NID_basic_constraints, free_constraints);
  int64_t length;
  if (constraints != NULL) {
    lua_pushboolean(L, constraints->ca != 0);
    lua_setfield(L, fields, "ca");
    if (constraints->pathlen != NULL &&
        ASN1_INTEGER_get_int64(&length, constraints->pathlen)) {
      lua_pushinteger(L, length);
      lua_setfield(L, fields, "path_length");
    }
  }
  drop(L);
}

static void set_must_staple(lua_State *L, int fields,
                            const STACK_OF(X509_EXTENSION) * list) {
  const TLS_FEATURE *features = decode(L, list, NID_tlsfeature, free_features);
  int i;
  for (i = 0; features != NULL && i < sk_ASN1_INTEGER_num(features); i++)
    if (ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == MUST_STAPLE) {
      lua_pushboolean(L, 1);
      lua_setfield(L, fields, "must_staple");
    }
  drop(L);
}

static void set_subject_key_id(lua_State *L, int fields,
                               const STACK_OF(X509_EXTENSION) * list) {
  const ASN1_OCTET_STRING *octets =
      decode(L, list, NID_subject_key_identifier, free_octets);
  if (octets != NULL) {
    core_pushhex(L, ASN1_STRING_get0_data(octets),
                 (size_t)ASN1_STRING_length(octets));
    lua_setfield(L, fields, "subject_key_id");
  }
  drop(L);
}

void core_set_extensions(lua_State *L, const STACK_OF(X509_EXTENSION) * list) {
  int fields = lua_gettop(L);
  luaL_checkstack(L, 20, "extensions");
  set_names(L, fields, list);
  set_key_usage(L, fields, list);
  set_purposes(L, fields, list);
  set_constraints(L, fields, list);
  set_must_staple(L, fields, list);
  set_subject_key_id(L, fields, list);
  ERR_clear_error();
}
