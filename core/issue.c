/*
 * issue.c: cert.issue, which makes and signs a certificate.
 *
 * The certificate lies in its box from the beginning, so that whatever raises
 * on the way frees it; each step puts something into it and returns 0, or 3
 * with a failure pushed.  What the certificate may say, and for how long, is
 * the caller's to say.
 */
#include "cert.h"

#include <openssl/err.h>
#include <openssl/rand.h>
#include <string.h>

#define SERIAL_OCTETS 16         /* of a random serial number */
#define LAST_SECOND 253402300799 /* of the year 9999, the last there is */

/* Of a general name, and of a key identifier in another's certificate: [6] and
 * [0] (RFC 5280, sections 4.2.1.6 and 4.2.1.1). */
enum { URI = CORE_DER_PLAIN | 6, KEY_ID = CORE_DER_PLAIN };

/* What is asked: places on the stack, of boxes; 0: none.  They are looked into
 * anew at each use, as metamethods of options may have closed one. */
struct order {
  int key, public_key; /* that signs; of the subject */
  int request;
  int issuer; /* none: self-signed */
};

static int fail(lua_State *L, const char *code, const char *reason) {
  return core_fail(L, code, "cannot issue a certificate: %s", reason);
}

/* Reading the options */

/* Pushes a field of the options that is a box of that type, and gives its
 * place; 0: nil. */
static int push_box(lua_State *L, const char *field, const char *type) {
  if (lua_getfield(L, 1, field) == LUA_TNIL)
    return 0;
  if (luaL_testudata(L, -1, type) == NULL)
    luaL_error(L, "field '%s': %s expected, got %s", field, type,
               luaL_typename(L, -1));
  return lua_gettop(L);
}

static void read_order(lua_State *L, struct order *order) {
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
  core_check_fields(L, 1, fields);
  order->key = push_box(L, "key", CORE_KEY);
  order->request = push_box(L, "request", CORE_REQUEST);
  order->public_key = push_box(L, "public", CORE_KEY);
  order->issuer = push_box(L, "issuer", CORE_CERT);
  luaL_argcheck(L, order->key != 0, 1, "a key is needed");
  luaL_argcheck(L, order->request == 0 || order->public_key == 0, 1,
                "either request or public, not both");
}

static X509_REQ *request_of(lua_State *L, const struct order *order) {
  return order->request != 0 ? core_request_check(L, order->request) : NULL;
}

static X509 *issuer_of(lua_State *L, const struct order *order) {
  return order->issuer != 0 ? core_cert_check(L, order->issuer) : NULL;
}

/* Extensions */

/* The identifier of the issuer's key, by which chains are built (4.2.1.1);
 * the digest of the key where the issuer states none. */
static void put_authority_key_id(core_der *der, X509 *issuer) {
  unsigned char digest[CORE_KEY_ID];
  struct cert_span id;
  if (cert_open(issuer, NID_subject_key_identifier, &id) !=
      V_ASN1_OCTET_STRING) {
    if (!core_key_id(X509_get_X509_PUBKEY(issuer), digest))
      luaL_error(der->L, "cannot digest a public key: %s", core_reason());
    id = (struct cert_span){digest, digest + sizeof digest};
  }
  core_open_extension(der, NID_authority_key_identifier, false);
  core_der_open(der, CORE_DER_SEQUENCE);
  core_der_put(der, KEY_ID, id.at, (size_t)(id.end - id.at));
  core_der_close(der, 3);
}

/* Puts the URLs in a field as general names (4.2.1.6), with a method each as
 * an access description (4.2.2.1); false: a failure pushed. */
static bool put_urls(core_der *der, const char *field, int method) {
  static const char misuse[] = "field '%s': an array of URLs expected";
  lua_State *L = der->L;
  int count, i;
  if (lua_getfield(L, 1, field) != LUA_TNIL && !lua_istable(L, -1))
    luaL_error(L, misuse, field);
  count = lua_isnil(L, -1) ? 0 : (int)lua_rawlen(L, -1);
  for (i = 1; i <= count; i++) {
    const char *text;
    size_t length, n = 0;
    if (lua_rawgeti(L, -1, i) != LUA_TSTRING)
      luaL_error(L, misuse, field);
    text = lua_tolstring(L, -1, &length);
    while (n < length && text[n] > ' ' && text[n] < 0x7F)
      n++;
    if (n < length || length == 0) {
      core_push_excerpt(L, text, length);
      core_fail(L, "parse", "cannot issue a certificate: '%s' is no URL",
                lua_tostring(L, -1));
      return false;
    }
    if (method != NID_undef) {
      core_der_open(der, CORE_DER_SEQUENCE);
      core_der_put_object(der, method);
    }
    core_der_put(der, URI, text, length);
    if (method != NID_undef)
      core_der_close(der, 1);
    lua_pop(L, 1);
  }
  lua_pop(L, 1);
  return true;
}

/* Where its revocation list (one of which the URLs are places: the fullName of
 * one point, 4.2.1.13), its status and its issuer are found. */
static bool put_places(core_der *der) {
  core_open_extension(der, NID_crl_distribution_points, false);
  core_der_open(der, CORE_DER_SEQUENCE);
  core_der_open(der, CORE_DER_SEQUENCE);
  core_der_open(der, CORE_DER_WITHIN);
  core_der_open(der, CORE_DER_WITHIN);
  if (!put_urls(der, "crls", NID_undef))
    return false;
  if (!core_der_undo(der, 6))
    core_der_close(der, 6);
  core_open_extension(der, NID_info_access, false);
  core_der_open(der, CORE_DER_SEQUENCE);
  if (!put_urls(der, "ocsp", NID_ad_OCSP) ||
      !put_urls(der, "issuers", NID_ad_ca_issuers))
    return false;
  if (!core_der_undo(der, 3))
    core_der_close(der, 3);
  return true;
}

/* The names that the request asks for. */
static void put_names(core_der *der, X509_REQ *request) {
  core_holder *box = core_push_holder(der->L, NULL);
  X509_EXTENSION *names;
  unsigned char *at;
  int length;
  box->item = ASN1_ITEM_rptr(X509_EXTENSIONS);
  box->value = X509_REQ_get_extensions(request);
  names = X509v3_get_ext(
      box->value, X509v3_get_ext_by_NID(box->value, NID_subject_alt_name, -1));
  length = names != NULL ? i2d_X509_EXTENSION(names, NULL) : 0;
  if (length > 0) {
    at = core_der_room(der, (size_t)length);
    der->length += (size_t)i2d_X509_EXTENSION(names, &at);
  }
  core_drop(der->L);
}

/* Gives the certificate the Extensions in the writer. */
static bool add_extensions(X509 *certificate, const core_der *der) {
  const unsigned char *at = der->bytes;
  STACK_OF(X509_EXTENSION) *list =
      d2i_X509_EXTENSIONS(NULL, &at, (long)der->length);
  bool good = list != NULL;
  int i;
  for (i = 0; good && i < sk_X509_EXTENSION_num(list); i++)
    good = X509_add_ext(certificate, sk_X509_EXTENSION_value(list, i), -1);
  sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
  return good;
}

/* Steps */

static int set_times(lua_State *L, X509 *certificate) {
  lua_Integer from, to;
  if (!cert_integer_field(L, "not_before", &from) ||
      !cert_integer_field(L, "not_after", &to))
    return luaL_argerror(L, 1, "not_before and not_after are needed");
  if (from < 0 || to > LAST_SECOND)
    return fail(L, "limit", "it has to be valid within the years 1970 to 9999");
  if (to < from)
    return fail(L, "limit", "it would end before it begins");
  if (!ASN1_TIME_set(X509_getm_notBefore(certificate), (time_t)from) ||
      !ASN1_TIME_set(X509_getm_notAfter(certificate), (time_t)to))
    return luaL_error(L, "not enough memory");
  return 0;
}

static int set_serial(lua_State *L, ASN1_INTEGER *serial) {
  unsigned char octets[20];
  size_t length, digits, count;
  const char *text = cert_string_field(L, "serial", &length), *hex;
  const char *wrong = NULL, *code = "parse";
  if (text == NULL) {
    if (RAND_bytes(octets, SERIAL_OCTETS) != 1)
      return luaL_error(L, "cannot make a serial number: %s", core_reason());
    octets[0] = (octets[0] & 0x7F) | 0x40; /* always of the same length */
    core_pushhex(L, octets, SERIAL_OCTETS);
    text = lua_tolstring(L, -1, &length);
  }
  hex = text + strspn(text, "0");
  digits = strspn(hex, "0123456789abcdefABCDEF");
  if (hex + digits != text + length) {
    wrong = "not hexadecimal";
  } else if (digits == 0) {
    wrong = "not positive";
  } else if (digits >= 40 && (digits > 40 || hex[0] >= '8')) {
    wrong = "longer than 20 octets"; /* RFC 5280, section 4.1.2.2 */
    code = "limit";
  }
  if (wrong != NULL) {
    core_push_excerpt(L, text, length);
    return core_fail(L, code, "cannot issue a certificate: serial '%s' is %s",
                     lua_tostring(L, -1), wrong);
  }
  hex = lua_pushfstring(L, "%s%s", digits % 2 == 0 ? "" : "0", hex);
  if (!OPENSSL_hexstr2buf_ex(octets, sizeof octets, &count, hex, '\0') ||
      !ASN1_STRING_set(serial, octets, (int)count))
    return luaL_error(L, "not enough memory");
  return 0;
}

/* Puts the subject's key in: that of a request whose signature is good (RFC
 * 2986, section 3), or else key.  NULL, or what was wrong. */
static const char *put_key(X509 *certificate, X509_REQ *request,
                           EVP_PKEY *key) {
  EVP_PKEY *own = NULL;
  const char *reason = NULL;
  if (request != NULL)
    key = own = core_key_decode(X509_REQ_get_X509_PUBKEY(request));
  if (key == NULL)
    reason = "its public key cannot be read";
  else if (request != NULL && X509_REQ_verify(request, key) != 1)
    reason = "its signature is wrong";
  else if (!core_key_put_public(key, X509_get_X509_PUBKEY(certificate)) &&
           !X509_set_pubkey(certificate, key))
    reason = core_reason();
  EVP_PKEY_free(own);
  ERR_clear_error();
  return reason;
}

/* Puts the subject's key in, and sees to it that the key that signs is the
 * issuer's. */
static int set_key(lua_State *L, const struct order *order, X509 *certificate) {
  X509_REQ *request = request_of(L, order);
  X509 *issuer = issuer_of(L, order);
  EVP_PKEY *key = core_key_check(L, order->key);
  const char *reason = put_key(
      certificate, request,
      order->public_key != 0 ? core_key_check(L, order->public_key) : key);
  if (reason != NULL)
    return core_fail(L, request != NULL ? "mismatch" : "unsupported",
                     "cannot issue a certificate%s: %s",
                     request != NULL ? " for the request" : "", reason);
  if (issuer == NULL && !cert_has_key(certificate, key))
    return core_fail(L, "mismatch",
                     "cannot issue a self-signed certificate: "
                     "its key is not the one that signs");
  if (issuer != NULL && !cert_has_key(issuer, key))
    return core_fail(L, "mismatch",
                     "cannot issue a certificate: the key is not that of the "
                     "issuer \"%s\"",
                     cert_push_label(L, issuer));
  return 0;
}

static bool put_subject(X509 *certificate, const core_der *der) {
  const unsigned char *at = der->bytes;
  X509_NAME *name = d2i_X509_NAME(NULL, &at, (long)der->length);
  bool good = name != NULL && X509_set_subject_name(certificate, name);
  X509_NAME_free(name);
  return good;
}

static int set_names(lua_State *L, const struct order *order,
                     X509 *certificate) {
  const X509_NAME *issuer;
  core_der der;
  bool good;
  core_der_begin(&der, L);
  if (lua_getfield(L, 1, "subject") == LUA_TNIL && order->request != 0)
    good = X509_set_subject_name(
        certificate, X509_REQ_get_subject_name(request_of(L, order)));
  else if (core_put_subject(&der, -1))
    good = put_subject(certificate, &der);
  else
    return 3;
  issuer = X509_get_subject_name(order->issuer != 0 ? issuer_of(L, order)
                                                    : certificate);
  if (X509_NAME_entry_count(issuer) == 0)
    return fail(L, "parse", "its issuer would have no name");
  if (!good || !X509_set_issuer_name(certificate, issuer))
    return luaL_error(L, "not enough memory");
  return 0;
}

static int set_extensions(lua_State *L, const struct order *order,
                          X509 *certificate) {
  unsigned char id[CORE_KEY_ID];
  core_der der;
  int index;
  if (!core_key_id(X509_get_X509_PUBKEY(certificate), id))
    return luaL_error(L, "cannot digest a public key: %s", core_reason());
  core_der_begin(&der, L);
  core_der_open(&der, CORE_DER_SEQUENCE);
  if (!core_put_extensions(&der, 1, id))
    return 3;
  if (order->request != 0 && lua_getfield(L, 1, "domains") == LUA_TNIL &&
      lua_getfield(L, 1, "emails") == LUA_TNIL &&
      lua_getfield(L, 1, "uris") == LUA_TNIL)
    put_names(&der, request_of(L, order));
  if (order->issuer != 0)
    put_authority_key_id(&der, issuer_of(L, order));
  if (!put_places(&der))
    return 3;
  core_der_close(&der, 1);
  if (!add_extensions(certificate, &der))
    return luaL_error(L, "cannot add an extension: %s", core_reason());
  index = X509_get_ext_by_NID(certificate, NID_subject_alt_name, -1);
  if (index >= 0 && /* names that stand in for an empty subject (4.2.1.6) */
      X509_NAME_entry_count(X509_get_subject_name(certificate)) == 0)
    X509_EXTENSION_set_critical(X509_get_ext(certificate, index), 1);
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
  const EVP_MD *digest;
  const char *name;
  X509 *certificate;
  lua_settop(L, 1);
  luaL_checkstack(L, 60, NULL); /* the options stay on it */
  certificate = *core_cert_new(L) = X509_new();
  if (certificate == NULL || !X509_set_version(certificate, X509_VERSION_3))
    return luaL_error(L, "not enough memory");
  read_order(L, &order);
  name = cert_string_field(L, "digest", NULL);
  name = name != NULL ? name : "sha256";
  if (!core_key_digest(core_key_check(L, order.key), name, &digest)) {
    core_push_excerpt(L, name, strlen(name));
    return core_fail(L, "unsupported", "cannot sign with digest '%s': unknown",
                     lua_tostring(L, -1));
  }
  if (set_times(L, certificate) != 0 ||
      set_serial(L, X509_get_serialNumber(certificate)) != 0 ||
      set_key(L, &order, certificate) != 0 ||
      set_names(L, &order, certificate) != 0 ||
      set_extensions(L, &order, certificate) != 0)
    return 3;
  ERR_clear_error();
  if (X509_sign(certificate, core_key_check(L, order.key), digest) <= 0)
    return core_fail(L, "unsupported", "cannot sign a certificate: %s",
                     core_reason());
  lua_settop(L, 2);
  return 1;
}
