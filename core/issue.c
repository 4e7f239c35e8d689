/*
 * issue.c: cert.issue, which makes and signs a certificate.
 *
 * The certificate lies in its box from the beginning, so that whatever raises
 * on the way frees it; the plain helpers put one thing each into it.  What the
 * certificate may say, and for how long, is the caller's to say.
 */
#include "cert.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>

#define SERIAL_OCTETS 16         /* of a random serial number */
#define LAST_SECOND 253402300799 /* of the year 9999, the last there is */

struct urls {
  const char **items;
  size_t count;
};

/* What is asked; everything in it is the caller's. */
struct order {
  EVP_PKEY *key, *public_key; /* that signs; of the subject, or NULL */
  X509_REQ *request;          /* or NULL */
  X509 *issuer;               /* or NULL: self-signed */
  const char *serial;         /* in hex, or NULL */
  lua_Integer not_before, not_after;
  const EVP_MD *digest;
  bool own_names; /* the request's alternative names */
  struct urls crls, ocsp, issuers;
};

/* Putting it together */

static bool set_public_key(X509 *certificate, EVP_PKEY *key) {
  return core_key_put_public(key, X509_get_X509_PUBKEY(certificate)) ||
         X509_set_pubkey(certificate, key) == 1;
}

/* Takes the request's key over when its signature is good (RFC 2986, section
 * 3): NULL, or what was wrong. */
static const char *take_key(X509 *certificate, X509_REQ *request) {
  EVP_PKEY *key = core_key_decode(X509_REQ_get_X509_PUBKEY(request));
  const char *reason = NULL;
  if (key == NULL)
    reason = "its public key cannot be read";
  else if (X509_REQ_verify_ex(request, key, NULL, NULL) != 1)
    reason = "its signature is wrong";
  else if (!set_public_key(certificate, key))
    reason = core_reason();
  EVP_PKEY_free(key);
  ERR_clear_error();
  return reason;
}

/* Positive, and at most 20 octets (RFC 5280, section 4.1.2.2). */
static bool set_serial(X509 *certificate, const char *hex) {
  unsigned char octets[SERIAL_OCTETS];
  BIGNUM *number = NULL;
  bool good;
  if (hex != NULL) {
    good = BN_hex2bn(&number, hex) > 0;
  } else {
    good = RAND_bytes(octets, sizeof octets) == 1;
    octets[0] = (octets[0] & 0x7F) | 0x40; /* always of the same length */
    good = good && (number = BN_bin2bn(octets, sizeof octets, NULL)) != NULL;
  }
  good = good &&
         BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != NULL;
  BN_free(number);
  return good;
}

static bool copy_extensions(X509 *certificate,
                            const STACK_OF(X509_EXTENSION) * list) {
  int i;
  for (i = 0; i < sk_X509_EXTENSION_num(list); i++)
    if (!X509_add_ext(certificate, sk_X509_EXTENSION_value(list, i), -1))
      return false;
  return true;
}

static bool copy_names(X509 *certificate, X509_REQ *request) {
  STACK_OF(X509_EXTENSION) *list = X509_REQ_get_extensions(request);
  int index = X509v3_get_ext_by_NID(list, NID_subject_alt_name, -1);
  bool good =
      index < 0 || X509_add_ext(certificate, X509v3_get_ext(list, index), -1);
  sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
  return good;
}

/* Names that stand in for an empty subject are critical (4.2.1.6). */
static void mark_names(X509 *certificate) {
  int index = X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1);
  if (index >= 0 &&
      X509_NAME_entry_count(X509_get_subject_name(certificate)) == 0)
    X509_EXTENSION_set_critical(X509_get_ext(certificate, index), 1);
}

/* The identifier of the issuer's key, by which chains are built (4.2.1.1);
 * the digest of the key where the issuer states none. */
static bool add_authority_key_id(X509 *certificate, X509 *issuer) {
  AUTHORITY_KEYID *id = AUTHORITY_KEYID_new();
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length;
  bool good = false;
  if (id == NULL)
    goto out;
  id->keyid = X509_get_ext_d2i(issuer, NID_subject_key_identifier, NULL, NULL);
  if (id->keyid == NULL &&
      ((id->keyid = ASN1_OCTET_STRING_new()) == NULL ||
       !X509_pubkey_digest(issuer, EVP_sha1(), digest, &length) ||
       !ASN1_OCTET_STRING_set(id->keyid, digest, (int)length)))
    goto out;
  good = X509_add1_ext_i2d(certificate, NID_authority_key_identifier, id, 0,
                           X509V3_ADD_DEFAULT) == 1;
out:
  AUTHORITY_KEYID_free(id);
  return good;
}

static GENERAL_NAME *new_url(const char *text) {
  GENERAL_NAME *name = GENERAL_NAME_new();
  ASN1_IA5STRING *value = ASN1_IA5STRING_new();
  if (name != NULL && value != NULL && ASN1_STRING_set(value, text, -1)) {
    GENERAL_NAME_set0_value(name, GEN_URI, value);
    return name;
  }
  ASN1_IA5STRING_free(value);
  GENERAL_NAME_free(name);
  return NULL;
}

static bool push_access(AUTHORITY_INFO_ACCESS *list, int method,
                        const struct urls *urls) {
  size_t i;
  for (i = 0; i < urls->count; i++) {
    ACCESS_DESCRIPTION *access = ACCESS_DESCRIPTION_new();
    GENERAL_NAME *place = new_url(urls->items[i]);
    if (access == NULL || place == NULL ||
        !sk_ACCESS_DESCRIPTION_push(list, access)) {
      ACCESS_DESCRIPTION_free(access);
      GENERAL_NAME_free(place);
      return false;
    }
    access->method = OBJ_nid2obj(method);
    GENERAL_NAME_free(access->location);
    access->location = place;
  }
  return true;
}

/* Where its status and its issuer are found (4.2.2.1). */
static bool add_access(X509 *certificate, const struct order *order) {
  AUTHORITY_INFO_ACCESS *list;
  bool good;
  if (order->ocsp.count + order->issuers.count == 0)
    return true;
  list = AUTHORITY_INFO_ACCESS_new();
  good = list != NULL && push_access(list, NID_ad_OCSP, &order->ocsp) &&
         push_access(list, NID_ad_ca_issuers, &order->issuers) &&
         X509_add1_ext_i2d(certificate, NID_info_access, list, 0,
                           X509V3_ADD_DEFAULT) == 1;
  AUTHORITY_INFO_ACCESS_free(list);
  return good;
}

/* One distribution point: the URLs are places of the same list (4.2.1.13). */
static bool add_crls(X509 *certificate, const struct urls *urls) {
  CRL_DIST_POINTS *list = CRL_DIST_POINTS_new();
  DIST_POINT *point = DIST_POINT_new();
  GENERAL_NAMES *names = NULL;
  size_t i;
  bool good = list != NULL && point != NULL &&
              (point->distpoint = DIST_POINT_NAME_new()) != NULL &&
              (names = GENERAL_NAMES_new()) != NULL;
  if (good) {
    point->distpoint->type = 0; /* fullName */
    point->distpoint->name.fullname = names;
  }
  for (i = 0; good && i < urls->count; i++) {
    GENERAL_NAME *place = new_url(urls->items[i]);
    good = place != NULL && sk_GENERAL_NAME_push(names, place) > 0;
    if (!good)
      GENERAL_NAME_free(place);
  }
  if (good && (good = sk_DIST_POINT_push(list, point) > 0)) {
    point = NULL; /* the list's */
    good = X509_add1_ext_i2d(certificate, NID_crl_distribution_points, list, 0,
                             X509V3_ADD_DEFAULT) == 1;
  }
  DIST_POINT_free(point);
  CRL_DIST_POINTS_free(list);
  return good;
}

/* All but the public key, which is there already, and the signature. */
static bool fill(X509 *certificate, const struct order *order,
                 const X509_NAME *subject,
                 const STACK_OF(X509_EXTENSION) * extensions) {
  const X509_NAME *issuer =
      order->issuer != NULL ? X509_get_subject_name(order->issuer) : subject;
  bool good = X509_set_version(certificate, X509_VERSION_3) &&
              set_serial(certificate, order->serial) &&
              X509_set_subject_name(certificate, subject) &&
              X509_set_issuer_name(certificate, issuer) &&
              ASN1_TIME_set(X509_getm_notBefore(certificate),
                            (time_t)order->not_before) != NULL &&
              ASN1_TIME_set(X509_getm_notAfter(certificate),
                            (time_t)order->not_after) != NULL &&
              copy_extensions(certificate, extensions);
  if (good && order->own_names)
    good = copy_names(certificate, order->request);
  if (good && order->issuer != NULL)
    good = add_authority_key_id(certificate, order->issuer);
  if (good && order->crls.count > 0)
    good = add_crls(certificate, &order->crls);
  if (good)
    good = add_access(certificate, order);
  mark_names(certificate);
  return good;
}

/* Reading the options.  These return 0, or 3 with a failure pushed. */

static int read_urls(lua_State *L, const char *field, struct urls *urls) {
  size_t i;
  int table;
  if (lua_getfield(L, 1, field) == LUA_TNIL)
    return 0;
  if (!lua_istable(L, -1))
    return luaL_error(L, "field '%s': an array of URLs expected", field);
  table = lua_gettop(L);
  urls->count = (size_t)lua_rawlen(L, table);
  urls->items =
      lua_newuserdatauv(L, (urls->count + 1) * sizeof *urls->items, 0);
  for (i = 0; i < urls->count; i++) {
    const char *text;
    size_t length, n = 0;
    if (lua_rawgeti(L, table, (lua_Integer)i + 1) != LUA_TSTRING)
      return luaL_error(L, "field '%s': an array of URLs expected", field);
    text = urls->items[i] = lua_tolstring(L, -1, &length);
    while (n < length && text[n] > ' ' && text[n] < 0x7F)
      n++;
    if (n < length || length == 0) {
      core_push_excerpt(L, text, length);
      return core_fail(L, "parse", "cannot issue a certificate: '%s' is no URL",
                       lua_tostring(L, -1));
    }
    lua_pop(L, 1);
  }
  return 0;
}

static int read_serial(lua_State *L, struct order *order) {
  size_t length, digits;
  const char *text = cert_string_field(L, "serial", &length);
  const char *wrong = NULL, *code = "parse";
  if (text == NULL)
    return 0;
  order->serial = text;
  text += strspn(text, "0");
  digits = strspn(text, "0123456789abcdefABCDEF");
  if (text + digits != order->serial + length)
    wrong = "not hexadecimal";
  else if (digits == 0)
    wrong = "not positive";
  else if (digits > 40 || (digits == 40 && text[0] >= '8'))
    wrong = "longer than 20 octets", code = "limit";
  if (wrong == NULL)
    return 0;
  core_push_excerpt(L, order->serial, length);
  return core_fail(L, code, "cannot issue a certificate: serial '%s' is %s",
                   lua_tostring(L, -1), wrong);
}

static int read_times(lua_State *L, struct order *order) {
  if (!cert_integer_field(L, "not_before", &order->not_before) ||
      !cert_integer_field(L, "not_after", &order->not_after))
    return luaL_argerror(L, 1, "not_before and not_after are needed");
  if (order->not_before < 0 || order->not_after > LAST_SECOND)
    return core_fail(L, "limit",
                     "cannot issue a certificate: it has to be "
                     "valid within the years 1970 to 9999");
  if (order->not_after < order->not_before)
    return core_fail(L, "limit",
                     "cannot issue a certificate: it would end before it "
                     "begins");
  return 0;
}

/* Whether the options give no alternative names. */
static bool without_names(lua_State *L) {
  return lua_getfield(L, 1, "domains") == LUA_TNIL &&
         lua_getfield(L, 1, "emails") == LUA_TNIL &&
         lua_getfield(L, 1, "uris") == LUA_TNIL;
}

/* Pushes a field of the options that is a box of that type; false: nil. */
static bool push_box(lua_State *L, const char *field, const char *type) {
  if (lua_getfield(L, 1, field) == LUA_TNIL)
    return false;
  if (luaL_testudata(L, -1, type) == NULL)
    luaL_error(L, "field '%s': %s expected, got %s", field, type,
               luaL_typename(L, -1));
  return true;
}

static int read_order(lua_State *L, struct order *order) {
  static const char *const fields[] = {"key",         "request",
                                       "public",      "issuer",
                                       "subject",     "domains",
                                       "emails",      "uris",
                                       "not_before",  "not_after",
                                       "serial",      "digest",
                                       "key_usage",   "extended_key_usage",
                                       "ca",          "path_length",
                                       "must_staple", "subject_key_id",
                                       "crls",        "ocsp",
                                       "issuers",     NULL};
  const char *digest;
  core_check_fields(L, 1, fields);
  luaL_argcheck(L, push_box(L, "key", CORE_KEY), 1, "a key is needed");
  order->key = core_key_check(L, -1);
  if (push_box(L, "request", CORE_REQUEST))
    order->request = core_request_check(L, -1);
  if (push_box(L, "public", CORE_KEY))
    order->public_key = core_key_check(L, -1);
  if (push_box(L, "issuer", CORE_CERT))
    order->issuer = core_cert_check(L, -1);
  luaL_argcheck(L, order->request == NULL || order->public_key == NULL, 1,
                "either request or public, not both");
  order->own_names = order->request != NULL && without_names(L);
  if (read_times(L, order) != 0 || read_serial(L, order) != 0 ||
      read_urls(L, "crls", &order->crls) != 0 ||
      read_urls(L, "ocsp", &order->ocsp) != 0 ||
      read_urls(L, "issuers", &order->issuers) != 0)
    return 3;
  digest = cert_string_field(L, "digest", NULL);
  if (!core_key_digest(order->key, digest != NULL ? digest : "sha256",
                       &order->digest)) {
    core_push_excerpt(L, digest, strlen(digest));
    return core_fail(L, "unsupported", "cannot sign with digest '%s': unknown",
                     lua_tostring(L, -1));
  }
  return 0;
}

/* Puts the subject's key into the certificate, and sees to it that the key
 * that signs is the issuer's. */
static int settle_keys(lua_State *L, const struct order *order,
                       X509 *certificate) {
  EVP_PKEY *own = order->public_key != NULL ? order->public_key : order->key;
  const char *reason;
  if (order->request != NULL) {
    reason = take_key(certificate, order->request);
    if (reason != NULL)
      return core_fail(L, "mismatch",
                       "cannot issue a certificate for the request: %s",
                       reason);
  } else if (!set_public_key(certificate, own)) {
    return core_fail(L, "unsupported", "cannot issue a certificate: %s",
                     core_reason());
  }
  if (order->issuer == NULL && !cert_has_key(certificate, order->key))
    return core_fail(L, "mismatch",
                     "cannot issue a self-signed certificate: "
                     "its key is not the one that signs");
  if (order->issuer != NULL && !cert_has_key(order->issuer, order->key)) {
    cert_push_label(L, order->issuer);
    return core_fail(L, "mismatch",
                     "cannot issue a certificate: the key is not that of the "
                     "issuer \"%s\"",
                     lua_tostring(L, -1));
  }
  return 0;
}

/*
 * cert.issue{ key=, request= | public=, issuer=, subject=, domains=, emails=,
 *   uris=, not_before=, not_after=, serial=, digest=, key_usage=,
 *   extended_key_usage=, ca=, path_length=, must_staple=, subject_key_id=,
 *   crls=, ocsp=, issuers= } -> cert | nil, message,
 *   "mismatch" | "parse" | "limit" | "unsupported"
 * Makes a certificate of version 3, signed with key.  Its public key is that
 * of request, or of public (a core.key), or of key itself.  Without issuer it
 * is self-signed.  subject, and domains with emails and uris, are taken from
 * the request where they are not given; nothing else is.  not_before and
 * not_after: seconds since 1970.  serial: hex, at most 20 octets; else 16
 * random octets.  digest: "sha256".  crls, ocsp, issuers: arrays of URLs.  The
 * others as in request.create.  The authority key identifier comes from the
 * issuer.  "mismatch": key is not the issuer's, or not the subject's where it
 * is self-signed, or the request's signature is wrong.
 */
int cert_issue(lua_State *L) {
  struct order order = {0};
  X509 **box;
  int place;
  const X509_NAME *subject;
  const STACK_OF(X509_EXTENSION) * extensions;
  lua_settop(L, 1);
  luaL_checkstack(L, 40, NULL); /* the options stay on it */
  if (read_order(L, &order) != 0)
    return 3;
  ERR_clear_error();
  box = core_cert_new(L);
  place = lua_gettop(L);
  if ((*box = X509_new()) == NULL)
    return luaL_error(L, "out of memory");
  if (settle_keys(L, &order, *box) != 0)
    return 3;
  if (lua_getfield(L, 1, "subject") == LUA_TNIL && order.request != NULL)
    subject = X509_REQ_get_subject_name(order.request);
  else if ((subject = core_push_subject(L, lua_gettop(L))) == NULL)
    return 3;
  if (X509_NAME_entry_count(order.issuer != NULL
                                ? X509_get_subject_name(order.issuer)
                                : subject) == 0)
    return core_fail(L, "parse",
                     "cannot issue a certificate: its issuer "
                     "would have no name");
  extensions = core_push_extensions(L, 1, X509_get_X509_PUBKEY(*box));
  if (extensions == NULL)
    return 3;
  ERR_clear_error();
  if (!fill(*box, &order, subject, extensions))
    return core_fail(L, "unsupported", "cannot issue a certificate: %s",
                     core_reason());
  if (X509_sign(*box, order.key, order.digest) <= 0)
    return core_fail(L, "unsupported", "cannot sign a certificate: %s",
                     core_reason());
  lua_pushvalue(L, place);
  return 1;
}
