/*
 * crl.c: cert.issue_crl, which makes and signs a certificate revocation list
 * (RFC 5280, section 5).
 *
 * The list lies in a holder from the beginning, which frees it whatever raises
 * on the way.  What is on it, for how long it holds and its number are the
 * caller's to say.
 */
#include "cert.h"

#include <string.h>

#define LAST_SECOND 253402300799 /* of the year 9999, the last there is */
#define SERIAL_DIGITS 40         /* 20 octets (RFC 5280, section 4.1.2.2) */

/* The reasons that a CA gives for one of its servers' certificates, and their
 * numbers (5.3.1); the first is not written. */
static const char *const reasons[] = {
    "unspecified", "keyCompromise",        "affiliationChanged",
    "superseded",  "cessationOfOperation", "privilegeWithdrawn",
    NULL};
static const long numbers[] = {0, 1, 3, 4, 5, 9};

/* Adds an entry; false: not enough memory. */
static bool add_entry(X509_CRL *list, const char *serial, lua_Integer at,
                      long reason) {
  X509_REVOKED *entry = X509_REVOKED_new();
  ASN1_ENUMERATED *number = ASN1_ENUMERATED_new();
  ASN1_TIME *time = ASN1_TIME_set(NULL, (time_t)at);
  ASN1_INTEGER *integer = NULL;
  BIGNUM *big = NULL;
  bool good = entry != NULL && number != NULL && time != NULL &&
              BN_hex2bn(&big, serial) > 0 &&
              (integer = BN_to_ASN1_INTEGER(big, NULL)) != NULL &&
              X509_REVOKED_set_serialNumber(entry, integer) &&
              X509_REVOKED_set_revocationDate(entry, time) &&
              ASN1_ENUMERATED_set(number, reason) &&
              (reason == 0 || X509_REVOKED_add1_ext_i2d(entry, NID_crl_reason,
                                                        number, 0, 0) == 1) &&
              X509_CRL_add0_revoked(list, entry);
  if (!good)
    X509_REVOKED_free(entry);
  ASN1_ENUMERATED_free(number);
  ASN1_TIME_free(time);
  ASN1_INTEGER_free(integer);
  BN_free(big);
  return good;
}

/* Adds the entry that the table on top describes. */
static void add_described(lua_State *L, X509_CRL *list) {
  const char *serial;
  lua_Integer at;
  size_t length;
  int reason, whole;
  luaL_argcheck(L, lua_istable(L, -1), 1, "an entry is no table");
  lua_getfield(L, -1, "serial");
  serial = luaL_checklstring(L, -1, &length);
  luaL_argcheck(L,
                length > 0 && length <= SERIAL_DIGITS &&
                    strspn(serial, "0123456789abcdefABCDEF") == length,
                1, "a serial is not hexadecimal, of at most 20 octets");
  lua_getfield(L, -2, "at");
  at = lua_tointegerx(L, -1, &whole);
  luaL_argcheck(L, whole && at >= 0 && at <= LAST_SECOND, 1,
                "an entry has no time");
  lua_getfield(L, -3, "reason");
  reason = luaL_checkoption(L, -1, "unspecified", reasons);
  if (!add_entry(list, serial, at, numbers[reason]))
    luaL_error(L, "not enough memory");
  lua_pop(L, 3);
}

static bool set_times(X509_CRL *list, lua_Integer from, lua_Integer to) {
  ASN1_TIME *first = ASN1_TIME_set(NULL, (time_t)from);
  ASN1_TIME *next = ASN1_TIME_set(NULL, (time_t)to);
  bool good = first != NULL && next != NULL &&
              X509_CRL_set1_lastUpdate(list, first) &&
              X509_CRL_set1_nextUpdate(list, next);
  ASN1_TIME_free(first);
  ASN1_TIME_free(next);
  return good;
}

/* The number of the list (5.2.3) and the issuer's key identifier (5.2.1). */
static bool set_extensions(X509_CRL *list, const X509 *issuer,
                           lua_Integer number) {
  AUTHORITY_KEYID *id = AUTHORITY_KEYID_new();
  ASN1_INTEGER *integer = ASN1_INTEGER_new();
  struct cert_span key;
  bool good = id != NULL && integer != NULL &&
              ASN1_INTEGER_set_int64(integer, number) &&
              X509_CRL_add1_ext_i2d(list, NID_crl_number, integer, 0, 0) == 1;
  if (good && cert_open(issuer, NID_subject_key_identifier, &key) ==
                  V_ASN1_OCTET_STRING)
    good = (id->keyid = ASN1_OCTET_STRING_new()) != NULL &&
           ASN1_OCTET_STRING_set(id->keyid, key.at, (int)(key.end - key.at)) &&
           X509_CRL_add1_ext_i2d(list, NID_authority_key_identifier, id, 0,
                                 0) == 1;
  AUTHORITY_KEYID_free(id);
  ASN1_INTEGER_free(integer);
  return good;
}

static lua_Integer integer_field(lua_State *L, const char *field) {
  lua_Integer number = -1;
  if (!cert_integer_field(L, field, &number) || number < 0 ||
      number > LAST_SECOND)
    luaL_error(L, "field '%s': a whole number is needed", field);
  lua_pop(L, 1);
  return number;
}

static void add_entries(lua_State *L, X509_CRL *list) {
  lua_Integer i, count;
  luaL_argcheck(L, lua_getfield(L, 1, "entries") == LUA_TTABLE, 1,
                "entries are needed");
  count = luaL_len(L, -1);
  for (i = 1; i <= count; i++) {
    lua_geti(L, -1, i);
    add_described(L, list);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
}

/*
 * cert.issue_crl{ key=, issuer=, entries=, number=, this_update=,
 *   next_update= } -> PEM, DER | nil, message, "mismatch" | "unsupported"
 * Makes a revocation list of version 2, signed with the key of issuer, a
 * core.cert.  entries: an array of { serial = hex, at = seconds since 1970,
 * reason = "keyCompromise", ... or nil }.  "mismatch": key is not the issuer's.
 */
int cert_issue_crl(lua_State *L) {
  static const char *const fields[] = {
      "key", "issuer", "entries", "number", "this_update", "next_update", NULL};
  lua_Integer number, from, to;
  const EVP_MD *digest;
  EVP_PKEY *key;
  X509 *issuer;
  X509_CRL *list;
  size_t length;
  lua_settop(L, 1);
  core_check_fields(L, 1, fields);
  lua_getfield(L, 1, "key"); /* both stay on the stack */
  key = core_key_check(L, 2);
  lua_getfield(L, 1, "issuer");
  issuer = core_cert_check(L, 3);
  number = integer_field(L, "number");
  from = integer_field(L, "this_update");
  to = integer_field(L, "next_update");
  luaL_argcheck(L, from < to, 1, "next_update is not later");
  if (!cert_has_key(issuer, key))
    return core_fail(L, "mismatch",
                     "cannot issue a revocation list: the key is not that of "
                     "the issuer \"%s\"",
                     cert_push_label(L, issuer));
  list = core_push_item(L, ASN1_ITEM_rptr(X509_CRL));
  if (!X509_CRL_set_version(list, X509_CRL_VERSION_2) ||
      !X509_CRL_set_issuer_name(list, X509_get_subject_name(issuer)) ||
      !set_times(list, from, to) || !set_extensions(list, issuer, number))
    return luaL_error(L, "not enough memory");
  add_entries(L, list);
  core_clear_errors();
  if (!core_key_digest(key, "sha256", &digest) || !X509_CRL_sort(list) ||
      X509_CRL_sign(list, key, digest) <= 0)
    return core_fail(L, "unsupported", "cannot sign a revocation list: %s",
                     core_reason());
  core_push_der(L, list, ASN1_ITEM_rptr(X509_CRL));
  lua_tolstring(L, -1, &length);
  core_push_pem(L, "X509 CRL", (const unsigned char *)lua_tostring(L, -1),
                length);
  lua_insert(L, -2);
  return 2;
}
