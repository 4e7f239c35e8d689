/*
 * revocation.c: core.revocation, what a revocation list (RFC 5280, section 5)
 * or an OCSP response (RFC 6960) says of a certificate.
 *
 * Here is read, and checked who signed it; what is fetched, how old an answer
 * may be and which one counts is the caller's to say.
 */
#include "cert.h"

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <string.h>

#define LIST_LIMIT (32 * 1024 * 1024) /* bytes of a revocation list */
#define RESPONSE_LIMIT (256 * 1024)   /* bytes of an OCSP response */

/* Two certificates at 2 and 3, as copies whose keys can be decoded. */
struct pair {
  X509 *subject, *issuer;
  STACK_OF(X509) * both;
};

/* What is said; the times are of what it was read from. */
struct verdict {
  const char *status;
  int reason; /* CRLReason, -1: none is given */
  const ASN1_TIME *revoked, *this_update, *next_update;
};

static struct pair push_pair(lua_State *L, int first) {
  struct pair pair;
  core_cert_check(L, first);
  core_cert_check(L, first + 1);
  lua_createtable(L, 2, 0);
  lua_pushvalue(L, first);
  lua_rawseti(L, -2, 1);
  lua_pushvalue(L, first + 1);
  lua_rawseti(L, -2, 2);
  pair.both = cert_push_twins(L, -1, "certificates", NULL);
  pair.subject = sk_X509_value(pair.both, 0);
  pair.issuer = sk_X509_value(pair.both, 1);
  return pair;
}

static void set_time(lua_State *L, const char *field, const ASN1_TIME *time) {
  lua_Integer seconds;
  if (!core_time(time, &seconds))
    return;
  lua_pushinteger(L, seconds);
  lua_setfield(L, -2, field);
}

static void push_verdict(lua_State *L, const struct verdict *verdict) {
  lua_createtable(L, 0, 6);
  lua_pushstring(L, verdict->status);
  lua_setfield(L, -2, "status");
  if (verdict->reason >= 0) {
    lua_pushstring(L, OCSP_crl_reason_str(verdict->reason));
    lua_setfield(L, -2, "reason");
  }
  set_time(L, "revoked_at", verdict->revoked);
  set_time(L, "this_update", verdict->this_update);
  set_time(L, "next_update", verdict->next_update);
}

/* Revocation lists */

static void free_list(void *value) {
  X509_CRL_free(value);
}

static X509_CRL *read_list(const char *bytes, size_t length) {
  static char no_password[] = ""; /* instead of a question */
  bool pem = memmem(bytes, length, "-----BEGIN ", 11) != NULL;
  BIO *in = BIO_new_mem_buf(bytes, (int)length);
  X509_CRL *list = NULL;
  ERR_clear_error();
  if (in != NULL)
    list = pem ? PEM_read_bio_X509_CRL(in, NULL, NULL, no_password)
               : d2i_X509_CRL_bio(in, NULL);
  BIO_free(in);
  return list;
}

/* Why a list was not made by the issuer, or NULL. */
static const char *forgery(X509_CRL *list, X509 *issuer) {
  EVP_PKEY *key = X509_get0_pubkey(issuer);
  if (X509_NAME_cmp(X509_CRL_get_issuer(list), X509_get_subject_name(issuer)))
    return "it is another issuer's";
  if ((X509_get_key_usage(issuer) & KU_CRL_SIGN) == 0)
    return "its issuer may not sign such lists";
  return key != NULL && X509_CRL_verify(list, key) == 1
             ? NULL
             : "its signature is not the issuer's";
}

/* Why the scope of a list (RFC 5280, section 5.2.5) leaves a certificate out,
 * or is not understood; NULL: it does not. */
static const char *scope_fault(const ISSUING_DIST_POINT *scope, bool ca) {
  if (scope->indirectCRL > 0)
    return "it is an indirect list";
  if (scope->onlysomereasons != NULL)
    return "it covers some reasons only";
  if (scope->distpoint != NULL && scope->distpoint->type != 0)
    return "its distribution point is a relative name";
  if (scope->onlyattr > 0 || (ca ? scope->onlyuser : scope->onlyCA) > 0)
    return "it is about certificates of another kind";
  return NULL;
}

/* What of a list's critical extensions is not understood; section 5.2 forbids
 * to use it then. */
static const char *extension_fault(const X509_CRL *list) {
  int i;
  for (i = 0; i < X509_CRL_get_ext_count(list); i++) {
    X509_EXTENSION *extension = X509_CRL_get_ext(list, i);
    int kind = OBJ_obj2nid(X509_EXTENSION_get_object(extension));
    if (kind == NID_delta_crl)
      return "it is a delta of another list";
    if (kind != NID_issuing_distribution_point &&
        X509_EXTENSION_get_critical(extension))
      return "it has a critical extension that is not understood";
  }
  return NULL;
}

/* The scope of a list in a box, its item NULL where it names none; NULL: it
 * cannot be read. */
static const ISSUING_DIST_POINT *push_scope(lua_State *L, X509_CRL *list) {
  core_holder *box = core_push_holder(L, NULL);
  int times;
  box->item = ASN1_ITEM_rptr(ISSUING_DIST_POINT);
  box->value =
      X509_CRL_get_ext_d2i(list, NID_issuing_distribution_point, &times, NULL);
  if (box->value == NULL && times == -1)
    box->value = ASN1_item_new(box->item);
  return box->value;
}

/* Sets urls, where the list says that it is to be found (or no such field). */
static void set_urls(lua_State *L, const ISSUING_DIST_POINT *scope) {
  const GENERAL_NAMES *names;
  int i;
  if (scope->distpoint == NULL)
    return;
  names = scope->distpoint->name.fullname;
  lua_newtable(L);
  for (i = 0; i < sk_GENERAL_NAME_num(names); i++) {
    int type;
    void *value =
        GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
    if (type != GEN_URI)
      continue;
    core_push_string(L, value);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
  }
  lua_setfield(L, -2, "urls");
}

static void look_up(X509_CRL *list, X509 *subject, struct verdict *verdict) {
  X509_REVOKED *entry = NULL;
  ASN1_ENUMERATED *reason;
  verdict->reason = -1;
  verdict->this_update = X509_CRL_get0_lastUpdate(list);
  verdict->next_update = X509_CRL_get0_nextUpdate(list);
  verdict->status =
      X509_CRL_get0_by_cert(list, &entry, subject) == 1 ? "revoked" : "good";
  if (strcmp(verdict->status, "good") == 0)
    return;
  verdict->revoked = X509_REVOKED_get0_revocationDate(entry);
  reason = X509_REVOKED_get_ext_d2i(entry, NID_crl_reason, NULL, NULL);
  if (reason != NULL)
    verdict->reason = (int)ASN1_ENUMERATED_get(reason);
  ASN1_ENUMERATED_free(reason);
}

/*
 * revocation.list(bytes, cert, issuer) -> { status = "good" | "revoked",
 *   this_update=, next_update=, revoked_at=, reason=, urls= } | nil, message,
 *   "parse" | "limit" | "untrusted" | "unsupported"
 * What a revocation list, DER or PEM, of at most 32 MiB says of a certificate.
 * It must be signed by the issuer, a cert; delta and indirect lists and those
 * of some reasons only are unsupported.  urls: where a list that is one of
 * several parts says that it is found.  Dates are read, not judged.
 */
static int l_list(lua_State *L) {
  struct verdict verdict = {0};
  const ISSUING_DIST_POINT *scope;
  core_holder *holder;
  const char *bytes, *fault;
  struct pair pair;
  size_t length;
  bytes = luaL_checklstring(L, 1, &length);
  pair = push_pair(L, 2);
  if (length > LIST_LIMIT)
    return core_fail(L, "limit", "the revocation list has more than %d bytes",
                     LIST_LIMIT);
  holder = core_push_holder(L, free_list);
  holder->value = read_list(bytes, length);
  scope = holder->value != NULL ? push_scope(L, holder->value) : NULL;
  if (scope == NULL)
    return core_fail(L, "parse", "cannot read the revocation list: %s",
                     core_reason());
  fault = forgery(holder->value, pair.issuer);
  ERR_clear_error();
  if (fault != NULL)
    return core_fail(L, "untrusted", "the revocation list is not of \"%s\": %s",
                     cert_push_label(L, pair.issuer), fault);
  fault = extension_fault(holder->value);
  if (fault == NULL)
    fault = scope_fault(scope, X509_check_ca(pair.subject) > 0);
  if (fault != NULL)
    return core_fail(L, "unsupported", "cannot use the revocation list: %s",
                     fault);
  look_up(holder->value, pair.subject, &verdict);
  push_verdict(L, &verdict);
  set_urls(L, scope);
  return 1;
}

/* OCSP */

/*
 * revocation.request(cert, issuer) -> DER
 * An OCSP request for one certificate, as RFC 5019, section 2.1, has it:
 * unsigned, its CertID by SHA-1, without a nonce, so that what responders have
 * prepared answers it.
 */
static int l_request(lua_State *L) {
  struct pair pair = push_pair(L, 1);
  OCSP_REQUEST *request = core_push_item(L, ASN1_ITEM_rptr(OCSP_REQUEST));
  OCSP_CERTID *id = OCSP_cert_to_id(EVP_sha1(), pair.subject, pair.issuer);
  if (id == NULL || OCSP_request_add0_id(request, id) == NULL) {
    OCSP_CERTID_free(id);
    return luaL_error(L, "cannot make a request: %s", core_reason());
  }
  core_push_der(L, request, ASN1_ITEM_rptr(OCSP_REQUEST));
  return 1;
}

static void free_response(void *value) {
  OCSP_RESPONSE_free(value);
}

static void free_basic(void *value) {
  OCSP_BASICRESP_free(value);
}

/* Whether the issuer has signed a response, or one that it has delegated this
 * to (RFC 6960, section 4.2.2.2): OpenSSL builds a chain to the only anchor. */
static bool signed_by(OCSP_BASICRESP *basic, const struct pair *pair) {
  X509_STORE *store = X509_STORE_new();
  bool good = store != NULL && X509_STORE_add_cert(store, pair->issuer) &&
              X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) &&
              OCSP_basic_verify(basic, pair->both, store, 0) == 1;
  X509_STORE_free(store);
  return good;
}

static bool is_about(const OCSP_SINGLERESP *single, const struct pair *pair) {
  const OCSP_CERTID *id = OCSP_SINGLERESP_get0_id(single);
  ASN1_OBJECT *object = NULL;
  const EVP_MD *digest;
  OCSP_CERTID *own = NULL;
  bool same;
  OCSP_id_get0_info(NULL, &object, NULL, NULL, (OCSP_CERTID *)id);
  digest = EVP_get_digestbyobj(object);
  if (digest != NULL)
    own = OCSP_cert_to_id(digest, pair->subject, pair->issuer);
  same = own != NULL && OCSP_id_cmp(own, id) == 0;
  OCSP_CERTID_free(own);
  return same;
}

/* Takes what is said of the certificate; false when nothing is. */
static bool find(OCSP_BASICRESP *basic, const struct pair *pair,
                 struct verdict *verdict) {
  static const char *const statuses[] = {"good", "revoked", "unknown"};
  int i, status, count = OCSP_resp_count(basic);
  for (i = 0; i < count; i++) {
    OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
    if (!is_about(single, pair))
      continue;
    status = OCSP_single_get0_status(
        single, &verdict->reason, (ASN1_GENERALIZEDTIME **)&verdict->revoked,
        (ASN1_GENERALIZEDTIME **)&verdict->this_update,
        (ASN1_GENERALIZEDTIME **)&verdict->next_update);
    if (status >= 0 && status < (int)COUNT(statuses))
      verdict->status = statuses[status];
    if (status != V_OCSP_CERTSTATUS_REVOKED)
      verdict->reason = -1;
    return verdict->status != NULL;
  }
  return false;
}

/*
 * revocation.response(bytes, cert, issuer) -> { status = "good" | "revoked" |
 *   "unknown", this_update=, next_update=, revoked_at=, reason= } | nil,
 *   message, "parse" | "limit" | "refused" | "untrusted" | "mismatch"
 * What an OCSP response in DER of at most 256 KiB, fetched or stapled, says of
 * a certificate.  It must be signed by the issuer, a cert, or by a responder
 * whose certificate the issuer has made for that.  "refused": it is no answer
 * but an error.  Dates are read, not judged.
 */
static int l_response(lua_State *L) {
  struct verdict verdict = {.reason = -1};
  core_holder *holder, *inner;
  const unsigned char *der;
  struct pair pair;
  size_t length;
  int status;
  der = (const unsigned char *)luaL_checklstring(L, 1, &length);
  pair = push_pair(L, 2);
  if (length > RESPONSE_LIMIT)
    return core_fail(L, "limit", "the OCSP response has more than %d bytes",
                     RESPONSE_LIMIT);
  ERR_clear_error();
  holder = core_push_holder(L, free_response);
  holder->value = d2i_OCSP_RESPONSE(NULL, &der, (long)length);
  if (holder->value == NULL)
    return core_fail(L, "parse", "cannot read the OCSP response: %s",
                     core_reason());
  status = OCSP_response_status(holder->value);
  if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL)
    return core_fail(L, "refused", "the OCSP responder refuses: %s",
                     OCSP_response_status_str(status));
  inner = core_push_holder(L, free_basic);
  inner->value = OCSP_response_get1_basic(holder->value);
  if (inner->value == NULL)
    return core_fail(L, "parse", "cannot read the OCSP response: %s",
                     core_reason());
  if (!signed_by(inner->value, &pair))
    return core_fail(L, "untrusted",
                     "the OCSP response is not signed for \"%s\": %s",
                     cert_push_label(L, pair.issuer), core_reason());
  if (!find(inner->value, &pair, &verdict))
    return core_fail(L, "mismatch", "the OCSP response says nothing of \"%s\"",
                     cert_push_label(L, pair.subject));
  push_verdict(L, &verdict);
  return 1;
}

/* revocation.digest(bytes) -> hex of their SHA-256 */
static int l_digest(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 1);
  core_push_fingerprint(L);
  return 1;
}

static const luaL_Reg functions[] = {{"digest", l_digest},
                                     {"list", l_list},
                                     {"request", l_request},
                                     {"response", l_response},
                                     {NULL, NULL}};

int luaopen_core_revocation(lua_State *L) {
  luaL_requiref(L, "core.cert", luaopen_core_cert, 0);
  lua_pop(L, 1);
  luaL_newlib(L, functions);
  return 1;
}
