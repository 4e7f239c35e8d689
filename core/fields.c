/*
 * fields.c: what a certificate says, as Lua values, and the names it covers.
 *
 * Extensions that names.c does not know are read here where they lie in the
 * certificate, element by element: nothing is decoded or owned, so that
 * listing many certificates stays fast.  What is malformed is left out.
 */
#include "cert.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define CONTEXT(number) (V_ASN1_CONTEXT_SPECIFIC | (number))
#define NAME_DNS CONTEXT(2) /* GeneralName, RFC 5280, section 4.2.1.6 */
#define NAME_URI CONTEXT(6)
#define NAME_IP CONTEXT(7)

/* Bytes inside the certificate. */
struct span {
  const unsigned char *at, *end;
};

static size_t span_length(const struct span *span) {
  return (size_t)(span->end - span->at);
}

/* Takes the next DER element off a span: its class and tag, its contents in
 * *contents; -1 at the end, and for all the rest of a malformed span. */
static int take(struct span *span, struct span *contents) {
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

/* Opens the SEQUENCE that is an extension's value; false when the extension
 * is not there exactly once (RFC 5280, section 4.2). */
static bool open_extension(const X509 *certificate, int nid,
                           struct span *inside) {
  const ASN1_OCTET_STRING *value;
  struct span whole;
  int index = X509_get_ext_by_NID(certificate, nid, -1);
  if (index < 0 || X509_get_ext_by_NID(certificate, nid, index) >= 0)
    return false;
  value = X509_EXTENSION_get_data(X509_get_ext(certificate, index));
  whole.at = ASN1_STRING_get0_data(value);
  whole.end = whole.at + ASN1_STRING_length(value);
  return take(&whole, inside) == V_ASN1_SEQUENCE;
}

/* Appends a span, as text, to the array on top of the stack. */
static void append_text(lua_State *L, const struct span *span) {
  core_pushtext(L, (const char *)span->at, span_length(span));
  lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
}

/* Pushes the URLs of one access method (RFC 5280, section 4.2.2.1). */
static void push_access_urls(lua_State *L, const X509 *certificate,
                             int method) {
  const ASN1_OBJECT *wanted = OBJ_nid2obj(method);
  struct span list, access, oid, place;
  lua_newtable(L);
  if (!open_extension(certificate, NID_info_access, &list))
    return;
  while (take(&list, &access) == V_ASN1_SEQUENCE)
    if (take(&access, &oid) == V_ASN1_OBJECT &&
        span_length(&oid) == OBJ_length(wanted) &&
        memcmp(oid.at, OBJ_get0_data(wanted), OBJ_length(wanted)) == 0 &&
        take(&access, &place) == NAME_URI)
      append_text(L, &place);
}

/* Pushes the URLs of revocation lists (RFC 5280, section 4.2.1.13). */
static void push_crl_urls(lua_State *L, const X509 *certificate) {
  struct span list, point, name, full, place;
  int tag;
  lua_newtable(L);
  if (!open_extension(certificate, NID_crl_distribution_points, &list))
    return;
  while (take(&list, &point) == V_ASN1_SEQUENCE)
    if (take(&point, &name) == CONTEXT(0) && take(&name, &full) == CONTEXT(0))
      while ((tag = take(&full, &place)) >= 0)
        if (tag == NAME_URI)
          append_text(L, &place);
}

/* Pushes the identifier of the issuer's key in hex, or nil (4.2.1.1). */
static void push_authority_key_id(lua_State *L, const X509 *certificate) {
  struct span list, id;
  if (open_extension(certificate, NID_authority_key_identifier, &list) &&
      take(&list, &id) == CONTEXT(0))
    core_pushhex(L, id.at, span_length(&id));
  else
    lua_pushnil(L);
}

static bool open_names(const X509 *certificate, struct span *names) {
  return open_extension(certificate, NID_subject_alt_name, names);
}

static void push_signature_algorithm(lua_State *L, const X509 *certificate) {
  const X509_ALGOR *algorithm = NULL;
  const ASN1_OBJECT *object = NULL;
  char name[80];
  X509_get0_signature(NULL, &algorithm, certificate);
  X509_ALGOR_get0(&object, NULL, NULL, algorithm);
  OBJ_obj2txt(name, sizeof name, object, 0);
  lua_pushstring(L, name);
}

static void push_serial(lua_State *L, const X509 *certificate) {
  const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
  core_pushhex(L, ASN1_STRING_get0_data(serial),
               (size_t)ASN1_STRING_length(serial));
  if (ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER) {
    lua_pushfstring(L, "-%s", lua_tostring(L, -1));
    lua_remove(L, -2);
  }
}

static void push_time(lua_State *L, const ASN1_TIME *time) {
  lua_Integer seconds;
  if (core_time(time, &seconds))
    lua_pushinteger(L, seconds);
  else
    lua_pushnil(L);
}

void cert_push_date(lua_State *L, const ASN1_TIME *time) {
  struct tm parts;
  char text[32] = "?";
  if (time != NULL && ASN1_TIME_to_tm(time, &parts) == 1)
    strftime(text, sizeof text, "%Y-%m-%d", &parts);
  lua_pushstring(L, text);
}

static void push_first_dns_name(lua_State *L, const X509 *certificate) {
  struct span names, name;
  int tag;
  if (open_names(certificate, &names))
    while ((tag = take(&names, &name)) >= 0)
      if (tag == NAME_DNS) {
        core_pushtext(L, (const char *)name.at, span_length(&name));
        return;
      }
  lua_pushnil(L);
}

void cert_push_label(lua_State *L, X509 *certificate) {
  const X509_NAME *subject = X509_get_subject_name(certificate);
  core_push_common_name(L, subject);
  if (!lua_isnil(L, -1))
    return;
  lua_pop(L, 1);
  push_first_dns_name(L, certificate);
  if (!lua_isnil(L, -1))
    return;
  lua_pop(L, 1);
  if (X509_NAME_entry_count(subject) > 0) {
    core_push_name_text(L, subject);
    return;
  }
  push_serial(L, certificate);
  lua_pushfstring(L, "serial %s", lua_tostring(L, -1));
  lua_remove(L, -2);
}

static void set_digests(lua_State *L, X509 *certificate) {
  size_t length;
  const unsigned char *der = cert_push_der(L, certificate, &length);
  cert_push_digest(L, der, length, cert_sha256());
  lua_setfield(L, -3, "fingerprint");
  cert_push_digest(L, der, length, EVP_sha1());
  lua_setfield(L, -3, "thumbprint");
  lua_pop(L, 1);
  core_push_spki_fingerprint(L, X509_get_X509_PUBKEY(certificate));
  lua_setfield(L, -2, "public_key");
}

static void set_names(lua_State *L, const X509 *certificate) {
  const X509_NAME *subject = X509_get_subject_name(certificate);
  const X509_NAME *issuer = X509_get_issuer_name(certificate);
  core_push_name_text(L, subject);
  lua_setfield(L, -2, "subject");
  core_push_name_parts(L, subject);
  lua_setfield(L, -2, "subject_parts");
  core_push_common_name(L, subject);
  lua_setfield(L, -2, "common_name");
  core_push_name_text(L, issuer);
  lua_setfield(L, -2, "issuer");
  core_push_name_parts(L, issuer);
  lua_setfield(L, -2, "issuer_parts");
  lua_pushboolean(L, X509_NAME_cmp(subject, issuer) == 0);
  lua_setfield(L, -2, "self_issued");
}

/*
 * cert:fields() -> table
 * subject, issuer (RFC 4514), subject_parts, issuer_parts, common_name,
 * domains, names, serial (hex), not_before, not_after (seconds since 1970,
 * UTC), key ("ec:P-256"), public_key (SHA-256 of the SubjectPublicKeyInfo),
 * fingerprint (SHA-256), thumbprint (SHA-1), signature_algorithm, key_usage,
 * extended_key_usage, ca, path_length, must_staple, subject_key_id,
 * authority_key_id (hex), self_issued, ocsp, issuers, crls (URLs), version.
 * A list that is absent is empty, anything else that is absent is nil.
 */
int cert_fields(lua_State *L) {
  X509 *certificate = core_cert_check(L, 1);
  lua_createtable(L, 0, 28);
  set_names(L, certificate);
  set_digests(L, certificate);
  push_serial(L, certificate);
  lua_setfield(L, -2, "serial");
  push_time(L, X509_get0_notBefore(certificate));
  lua_setfield(L, -2, "not_before");
  push_time(L, X509_get0_notAfter(certificate));
  lua_setfield(L, -2, "not_after");
  core_push_spki_keytype(L, X509_get_X509_PUBKEY(certificate));
  lua_setfield(L, -2, "key");
  push_signature_algorithm(L, certificate);
  lua_setfield(L, -2, "signature_algorithm");
  push_authority_key_id(L, certificate);
  lua_setfield(L, -2, "authority_key_id");
  push_access_urls(L, certificate, NID_ad_OCSP);
  lua_setfield(L, -2, "ocsp");
  push_access_urls(L, certificate, NID_ad_ca_issuers);
  lua_setfield(L, -2, "issuers");
  push_crl_urls(L, certificate);
  lua_setfield(L, -2, "crls");
  lua_pushinteger(L, X509_get_version(certificate) + 1);
  lua_setfield(L, -2, "version");
  core_set_extensions(L, X509_get0_extensions(certificate));
  return 1;
}

/* Covering a name */

/* Whether "*.example.com" stands for name: one label for the star, and at
 * least two after it (RFC 9525, section 6.3). */
static bool wildcard_covers(const struct span *pattern, const char *name,
                            size_t length) {
  const char *rest = (const char *)pattern->at + 1; /* ".example.com" */
  size_t size = span_length(pattern) - 1;
  const char *dot = memchr(name, '.', length);
  const char *next;
  if (size < 4 || rest[0] != '.' || dot == NULL || dot == name)
    return false;
  next = memchr(rest + 1, '.', size - 1);
  if (next == NULL || next == rest + 1 || next == rest + size - 1)
    return false;
  return (size_t)(name + length - dot) == size &&
         strncasecmp(rest, dot, size) == 0;
}

static bool dns_covers(const struct span *pattern, const char *name,
                       size_t length) {
  size_t size = span_length(pattern);
  if (size == 0 || memchr(pattern->at, '\0', size) != NULL)
    return false;
  if (size == length && strncasecmp((const char *)pattern->at, name, size) == 0)
    return true;
  return *pattern->at == '*' && wildcard_covers(pattern, name, length);
}

/* The address of an IP literal: 4 or 16 bytes, or 0 when name is none. */
static size_t address_of(const char *name, size_t length,
                         unsigned char address[16]) {
  if (memchr(name, '\0', length) != NULL)
    return 0;
  if (inet_pton(AF_INET, name, address) == 1)
    return 4;
  return inet_pton(AF_INET6, name, address) == 1 ? 16 : 0;
}

bool cert_covers(X509 *certificate, const char *name, size_t length) {
  unsigned char address[16];
  size_t size = address_of(name, length, address);
  struct span names, entry;
  int tag;
  if (size == 0 && length > 0 && name[length - 1] == '.')
    length--;
  if (length == 0 || memchr(name, '\0', length) != NULL ||
      !open_names(certificate, &names))
    return false;
  while ((tag = take(&names, &entry)) >= 0)
    if (size > 0 ? tag == NAME_IP && span_length(&entry) == size &&
                       memcmp(entry.at, address, size) == 0
                 : tag == NAME_DNS && dns_covers(&entry, name, length))
      return true;
  return false;
}
