/*
 * fields.c: what a certificate says, as Lua values, and the names it covers.
 *
 * What extensions.c does not know is read here where it lies in the
 * certificate, element by element: nothing is decoded or owned, so that listing
 * many certificates stays fast.  What is malformed is left out.
 */
#include "cert.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <string.h>
#include <time.h>

#define CONTEXT(number) (V_ASN1_CONTEXT_SPECIFIC | (number))
#define NAME_URI CONTEXT(6)
#define MEANING_LIMIT (64 * 1024) /* bytes of text of an extension */
#define HEX_LIMIT 64              /* bytes of one that is shown as such */

/* Where values lie in an extension (RFC 5280, sections 4.2.1.6, 4.2.1.13 and
 * 4.2.2.1). */
static const int dns_names[] = {CONTEXT(2), 0};
static const int list_urls[] = {V_ASN1_SEQUENCE, CONTEXT(0), CONTEXT(0),
                                NAME_URI, 0};
static const int access_urls[] = {V_ASN1_SEQUENCE, NAME_URI, 0};

/* Reading DER */

int cert_take(struct cert_span *span, struct cert_span *contents) {
  long length;
  int tag, class, flags;
  const unsigned char *at = span->at;
  if (at >= span->end)
    return -1;
  flags = ASN1_get_object(&at, &length, &tag, &class, span->end - at);
  if ((flags & 0x81) != 0) { /* an error, or an indefinite length */
    ERR_clear_error();
    span->at = span->end;
    return -1;
  }
  contents->at = at;
  contents->end = span->at = at + length;
  return class | tag;
}

int cert_open(const X509 *certificate, int nid, struct cert_span *contents) {
  const ASN1_OCTET_STRING *value;
  struct cert_span whole;
  int index = X509_get_ext_by_NID(certificate, nid, -1);
  if (index < 0 || X509_get_ext_by_NID(certificate, nid, index) >= 0)
    return -1;
  value = X509_EXTENSION_get_data(X509_get_ext(certificate, index));
  whole.at = ASN1_STRING_get0_data(value);
  whole.end = whole.at + ASN1_STRING_length(value);
  return cert_take(&whole, contents);
}

static size_t length_of(const struct cert_span *span) {
  return (size_t)(span->end - span->at);
}

/* Whether it is that object identifier; the undefined one has no bytes, and is
 * none. */
static bool is_object(const struct cert_span *span, const ASN1_OBJECT *object) {
  size_t length = OBJ_length(object);
  return length > 0 && length_of(span) == length &&
         memcmp(span->at, OBJ_get0_data(object), length) == 0;
}

/* Values of fields */

/* Appends to the array on top what lies at the end of a path of tags, which a
 * 0 ends; where an object identifier comes before it, only if that is wanted.
 */
static void collect(lua_State *L, struct cert_span *span, const int *path,
                    const ASN1_OBJECT *wanted) {
  struct cert_span inside;
  int tag;
  while ((tag = cert_take(span, &inside)) >= 0)
    if (tag == V_ASN1_OBJECT && !is_object(&inside, wanted)) {
      return;
    } else if (tag == path[0] && path[1] != 0) {
      collect(L, &inside, path + 1, wanted);
    } else if (tag == path[0]) {
      core_pushtext(L, (const char *)inside.at, length_of(&inside));
      lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    }
}

/* Pushes an array of what collect finds in an extension. */
static void push_list(lua_State *L, const X509 *certificate, int nid,
                      const int *path, int wanted) {
  struct cert_span list;
  lua_newtable(L);
  if (cert_open(certificate, nid, &list) == V_ASN1_SEQUENCE)
    collect(L, &list, path, OBJ_nid2obj(wanted));
}

/* Pushes the identifier of the issuer's key in hex, or nil (4.2.1.1). */
static void push_authority_key_id(lua_State *L, const X509 *certificate) {
  struct cert_span list, id;
  if (cert_open(certificate, NID_authority_key_identifier, &list) ==
          V_ASN1_SEQUENCE &&
      cert_take(&list, &id) == CONTEXT(0))
    core_pushhex(L, id.at, length_of(&id));
  else
    lua_pushnil(L);
}

static void push_signature_algorithm(lua_State *L, const X509 *certificate) {
  const X509_ALGOR *algorithm;
  const ASN1_OBJECT *object;
  char name[80];
  X509_get0_signature(NULL, &algorithm, certificate);
  X509_ALGOR_get0(&object, NULL, NULL, algorithm);
  OBJ_obj2txt(name, sizeof name, object, 0);
  lua_pushstring(L, name);
}

/* The digest of an RSASSA-PSS signature (RFC 4055, section 3.1), or NULL. */
static const char *pss_digest(const X509 *certificate) {
  const char *name = NULL;
  const X509_ALGOR *algorithm;
  RSA_PSS_PARAMS *pss = NULL;
  X509_get0_signature(NULL, &algorithm, certificate);
  if (OBJ_obj2nid(algorithm->algorithm) == NID_rsassaPss)
    pss = ASN1_TYPE_unpack_sequence(ASN1_ITEM_rptr(RSA_PSS_PARAMS),
                                    algorithm->parameter);
  if (pss != NULL)
    name = pss->hashAlgorithm == NULL
               ? SN_sha1
               : OBJ_nid2sn(OBJ_obj2nid(pss->hashAlgorithm->algorithm));
  RSA_PSS_PARAMS_free(pss);
  ERR_clear_error();
  return name;
}

/* Pushes the serial number in hex, after a prefix. */
static void push_serial(lua_State *L, const char *prefix,
                        const X509 *certificate) {
  const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
  bool negative = ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER;
  lua_pushfstring(L, "%s%s", prefix, negative ? "-" : "");
  core_pushhex(L, ASN1_STRING_get0_data(serial),
               (size_t)ASN1_STRING_length(serial));
  lua_concat(L, 2);
}

static void push_time(lua_State *L, const ASN1_TIME *time) {
  lua_Integer seconds;
  if (core_time(time, &seconds))
    lua_pushinteger(L, seconds);
  else
    lua_pushnil(L);
}

void cert_date(char text[CERT_DATE_SIZE], const ASN1_TIME *time) {
  struct tm parts;
  if (ASN1_TIME_to_tm(time, &parts) != 1 ||
      strftime(text, CERT_DATE_SIZE, "%Y-%m-%d", &parts) == 0)
    strcpy(text, "?");
}

const char *cert_push_label(lua_State *L, const X509 *certificate) {
  const X509_NAME *subject = X509_get_subject_name(certificate);
  int place = lua_gettop(L) + 1;
  core_push_common_name(L, subject);
  if (lua_isnil(L, -1)) {
    push_list(L, certificate, NID_subject_alt_name, dns_names, NID_undef);
    lua_rawgeti(L, -1, 1);
  }
  if (lua_isnil(L, -1) && X509_NAME_entry_count(subject) > 0)
    core_push_name_text(L, subject);
  if (lua_isnil(L, -1))
    push_serial(L, "serial ", certificate);
  lua_copy(L, -1, place);
  lua_settop(L, place);
  return core_quotable(L);
}

/* Fetched once: OpenSSL would look it up again at every use. */
static const EVP_MD *sha256(void) {
  static EVP_MD *digest = NULL;
  if (digest == NULL)
    digest = EVP_MD_fetch(NULL, "SHA256", NULL);
  return digest != NULL ? digest : EVP_sha256();
}

/*
 * cert:fields() -> table
 * subject, issuer (RFC 4514), subject_parts, issuer_parts, common_name,
 * domains, names, serial (hex), not_before, not_after (seconds since 1970,
 * UTC), key ("ec:P-256"), public_key (SHA-256 of the SubjectPublicKeyInfo),
 * fingerprint (SHA-256), thumbprint (SHA-1), signature_algorithm, pss_digest
 * ("SHA256"; of an RSASSA-PSS signature), key_usage,
 * extended_key_usage, ca, path_length, must_staple, subject_key_id,
 * authority_key_id (hex), self_issued, ocsp, issuers, crls (URLs), version.
 * A list that is absent is empty, anything else that is absent is nil.
 */
int cert_fields(lua_State *L) {
  static const char *const names[] = {
      "subject",     "issuer",      "subject_parts", "issuer_parts",
      "common_name", "self_issued", "fingerprint",   "thumbprint",
      "public_key",  "key",         "serial",        "signature_algorithm",
      "not_before",  "not_after",   "version",       "authority_key_id",
      "ocsp",        "issuers",     "crls",          "pss_digest",
      NULL};
  X509 *certificate = core_cert_check(L, 1);
  X509_PUBKEY *public_key = X509_get_X509_PUBKEY(certificate);
  const X509_NAME *subject = X509_get_subject_name(certificate);
  const X509_NAME *issuer = X509_get_issuer_name(certificate);
  size_t length, i = COUNT(names) - 1;
  const unsigned char *der = cert_push_der(L, certificate, &length);
  luaL_checkstack(L, 2 * COUNT(names), NULL);
  lua_createtable(L, 0, 28);
  core_push_name_text(L, subject); /* all in the order of names */
  core_push_name_text(L, issuer);
  core_push_name_parts(L, subject);
  core_push_name_parts(L, issuer);
  core_push_common_name(L, subject);
  lua_pushboolean(L, X509_NAME_cmp(subject, issuer) == 0);
  cert_push_digest(L, der, length, sha256());
  cert_push_digest(L, der, length, EVP_sha1());
  core_push_spki_fingerprint(L, public_key);
  core_push_spki_keytype(L, public_key);
  push_serial(L, "", certificate);
  push_signature_algorithm(L, certificate);
  push_time(L, X509_get0_notBefore(certificate));
  push_time(L, X509_get0_notAfter(certificate));
  lua_pushinteger(L, X509_get_version(certificate) + 1);
  push_authority_key_id(L, certificate);
  push_list(L, certificate, NID_info_access, access_urls, NID_ad_OCSP);
  push_list(L, certificate, NID_info_access, access_urls, NID_ad_ca_issuers);
  push_list(L, certificate, NID_crl_distribution_points, list_urls, NID_undef);
  lua_pushstring(L, pss_digest(certificate));
  while (i-- > 0)
    lua_setfield(L, -2 - (int)i, names[i]);
  core_set_extensions(L, X509_get0_extensions(certificate));
  return 1;
}

static void free_bio(void *value) {
  BIO_free(value);
}

/* Pushes what OpenSSL says of an extension, or nil where it knows none. */
static void push_meaning(lua_State *L, X509_EXTENSION *extension) {
  core_holder *out = core_push_holder(L, free_bio);
  char *bytes;
  long length = 0;
  out->value = BIO_new(BIO_s_mem());
  if (out->value != NULL &&
      X509V3_EXT_print(out->value, extension, X509V3_EXT_DEFAULT, 0))
    length = BIO_get_mem_data((BIO *)out->value, &bytes);
  if (length > 0 && length <= MEANING_LIMIT)
    core_pushtext(L, bytes, (size_t)length);
  else
    lua_pushnil(L);
  core_release(out);
  lua_remove(L, -2);
  ERR_clear_error();
}

/*
 * cert:extensions() -> array of { oid=, name=, critical=, text=, size=, hex= }
 * Every extension in its order: name is OpenSSL's long one where it has one,
 * text what it says (nil where that is not known, or over 64 KiB), size the
 * bytes of its value, hex the first 64 of them.
 */
int cert_extensions(lua_State *L) {
  const X509 *certificate = core_cert_check(L, 1);
  int i, count = X509_get_ext_count(certificate);
  lua_createtable(L, count, 0);
  for (i = 0; i < count; i++) {
    X509_EXTENSION *extension = X509_get_ext(certificate, i);
    const ASN1_OBJECT *object = X509_EXTENSION_get_object(extension);
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(extension);
    int size = ASN1_STRING_length(value);
    lua_createtable(L, 0, 6);
    core_push_oid(L, object, false);
    lua_setfield(L, -2, "oid");
    if (OBJ_obj2nid(object) != NID_undef) {
      lua_pushstring(L, OBJ_nid2ln(OBJ_obj2nid(object)));
      lua_setfield(L, -2, "name");
    }
    lua_pushboolean(L, X509_EXTENSION_get_critical(extension));
    lua_setfield(L, -2, "critical");
    push_meaning(L, extension);
    lua_setfield(L, -2, "text");
    lua_pushinteger(L, size);
    lua_setfield(L, -2, "size");
    core_pushhex(L, ASN1_STRING_get0_data(value),
                 size < HEX_LIMIT ? (size_t)size : HEX_LIMIT);
    lua_setfield(L, -2, "hex");
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

/* Covering a name */

bool cert_covers(X509 *certificate, const char *name, size_t length,
                 bool strictly) {
  unsigned flags = strictly ? X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
                                  X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
                            : 0;
  unsigned char address[16];
  size_t size;
  if (length == 0 || name[0] == '.' || memchr(name, '\0', length) != NULL)
    return false;
  size = inet_pton(AF_INET, name, address) == 1 ? 4 : 0;
  if (size == 0 && inet_pton(AF_INET6, name, address) == 1)
    size = 16;
  if (size > 0 && X509_check_ip(certificate, address, size, 0) == 1)
    return true;
  if (size > 0 && strictly)
    return false;
  if (name[length - 1] == '.')
    length--;
  return X509_check_host(certificate, name, length, flags, NULL) == 1;
}
