/*
 * verify.c: cert.verify, whether a chain is to be trusted, and why not.
 *
 * The rules are OpenSSL's (RFC 5280, section 6), names are cert_covers's (RFC
 * 9525).  judge owns the copies, the store and the context and knows no Lua;
 * it leaves the certificate that failed in a box.  Who is trusted, for what
 * and when is the caller's to say.
 */
#include "cert.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <time.h>

#define STRICT_LEVEL 2                /* security of 112 bits */
#define CRLS_LIMIT (64 * 1024 * 1024) /* bytes of revocation lists */

/* What is asked; everything in it is the caller's. */
struct question {
  X509 **chain, **anchors;
  size_t chain_length, anchor_count;
  const char *name, *crls, *folder; /* NULL where there is none */
  size_t name_length, crls_length;
  const char *use; /* what purpose was called */
  int purpose;
  lua_Integer depth, at;
  bool system, strict, deep, timed;
};

struct answer {
  int error;
  const char *reason; /* where OpenSSL's does not say enough, or NULL */
  bool bad_crls;
  X509 **culprit;   /* a box */
  char revoked[16]; /* date */
};

/* RFC 5280, section 6.1.1 (d), takes no more from an anchor than its name and
 * its key: roots older than the profile's rules for CAs are as good. */
static bool concerns_profile(int error, X509 *anchor) {
  switch (error) {
  case X509_V_ERR_CA_BCONS_NOT_CRITICAL:
  case X509_V_ERR_CA_CERT_MISSING_KEY_USAGE:
  case X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3:
  case X509_V_ERR_MISSING_SUBJECT_KEY_IDENTIFIER:
  case X509_V_ERR_PATHLEN_WITHOUT_KU_KEY_CERT_SIGN:
    return true;
  case X509_V_ERR_INVALID_CA:
    return X509_check_ca(anchor) != 0;
  default:
    return false;
  }
}

/* The failures that leave it open whether a certificate is revoked. */
static bool concerns_crl(int error) {
  switch (error) {
  case X509_V_ERR_UNABLE_TO_GET_CRL:
  case X509_V_ERR_UNABLE_TO_DECRYPT_CRL_SIGNATURE:
  case X509_V_ERR_CRL_SIGNATURE_FAILURE:
  case X509_V_ERR_CRL_NOT_YET_VALID:
  case X509_V_ERR_CRL_HAS_EXPIRED:
  case X509_V_ERR_ERROR_IN_CRL_LAST_UPDATE_FIELD:
  case X509_V_ERR_ERROR_IN_CRL_NEXT_UPDATE_FIELD:
  case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
  case X509_V_ERR_KEYUSAGE_NO_CRL_SIGN:
  case X509_V_ERR_UNHANDLED_CRITICAL_CRL_EXTENSION:
  case X509_V_ERR_DIFFERENT_CRL_SCOPE:
  case X509_V_ERR_CRL_PATH_VALIDATION_ERROR:
    return true;
  default:
    return false;
  }
}

static bool concerns_issuer(int error) {
  switch (error) {
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
  case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
  case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
  case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    return true;
  default:
    return false;
  }
}

/* Above the leaf a certificate is looked up in those lists that are there;
 * whoever trusts an anchor needs no list for it. */
static bool forgiven(X509_STORE_CTX *context) {
  int error = X509_STORE_CTX_get_error(context);
  int depth = X509_STORE_CTX_get_error_depth(context);
  int last = sk_X509_num(X509_STORE_CTX_get0_chain(context)) - 1;
  X509 *current = X509_STORE_CTX_get_current_cert(context);
  if (concerns_crl(error))
    return depth > 0 &&
           (depth == last || error == X509_V_ERR_UNABLE_TO_GET_CRL);
  return current != NULL && depth == last && concerns_profile(error, current);
}

static void note_revocation(X509_STORE_CTX *context, X509 *certificate,
                            struct answer *answer) {
  X509_CRL *crl = X509_STORE_CTX_get0_current_crl(context);
  X509_REVOKED *entry = NULL;
  struct tm parts;
  strcpy(answer->revoked, "?");
  if (crl != NULL && X509_CRL_get0_by_cert(crl, &entry, certificate) > 0 &&
      ASN1_TIME_to_tm(X509_REVOKED_get0_revocationDate(entry), &parts) == 1)
    strftime(answer->revoked, sizeof answer->revoked, "%Y-%m-%d", &parts);
}

/* Called by OpenSSL for each step: notes the first failure, and ends there. */
static int on_step(int good, X509_STORE_CTX *context) {
  struct answer *answer = X509_STORE_CTX_get_app_data(context);
  X509 *current = X509_STORE_CTX_get_current_cert(context);
  if (good || forgiven(context))
    return 1;
  answer->error = X509_STORE_CTX_get_error(context);
  if (current != NULL && *answer->culprit == NULL && X509_up_ref(current))
    *answer->culprit = current;
  if (answer->error == X509_V_ERR_CERT_REVOKED && current != NULL)
    note_revocation(context, current, answer);
  return 0;
}

/* Adds all revocation lists in bytes, PEM or one in DER: NULL, or what was
 * wrong. */
static const char *add_crls(X509_STORE *store, const char *bytes,
                            size_t length) {
  BIO *in = BIO_new_mem_buf(bytes, (int)length);
  bool pem = memmem(bytes, length, "-----BEGIN ", 11) != NULL, good = true;
  size_t count = 0;
  X509_CRL *crl;
  while (good && in != NULL && (pem || count == 0)) {
    crl = pem ? PEM_read_bio_X509_CRL(in, NULL, NULL, NULL)
              : d2i_X509_CRL_bio(in, NULL);
    if (crl == NULL)
      break;
    count++;
    good = X509_STORE_add_crl(store, crl) == 1;
    X509_CRL_free(crl);
  }
  BIO_free(in);
  if (pem && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
    ERR_clear_error(); /* the end of the text */
  if (!good || ERR_peek_error() != 0)
    return core_reason();
  return count > 0 ? NULL : "none is there";
}

static bool add_folder(X509_STORE *store, const char *path) {
  X509_LOOKUP *lookup = X509_STORE_add_lookup(store, X509_LOOKUP_hash_dir());
  return lookup != NULL &&
         X509_LOOKUP_add_dir(lookup, path, X509_FILETYPE_PEM) == 1;
}

static bool add_anchors(X509_STORE *store, const struct question *question) {
  size_t i;
  bool good = true;
  for (i = 0; good && i < question->anchor_count; i++) {
    X509 *twin = cert_twin(question->anchors[i]);
    good = twin != NULL && X509_STORE_add_cert(store, twin) == 1;
    X509_free(twin);
  }
  if (good && question->system)
    good = add_folder(store, X509_get_default_cert_dir());
  if (good && question->system && question->folder != NULL)
    good = add_folder(store, question->folder);
  return good;
}

static void set_rules(X509_STORE_CTX *context,
                      const struct question *question) {
  X509_VERIFY_PARAM *rules = X509_STORE_CTX_get0_param(context);
  unsigned long flags = X509_V_FLAG_PARTIAL_CHAIN;
  if (question->crls != NULL)
    flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
  if (question->strict)
    flags |= X509_V_FLAG_X509_STRICT;
  X509_VERIFY_PARAM_set_flags(rules, flags);
  X509_VERIFY_PARAM_set_auth_level(rules, question->strict ? STRICT_LEVEL : 0);
  if (question->purpose != 0)
    X509_VERIFY_PARAM_set_purpose(rules, question->purpose);
  if (question->deep)
    X509_VERIFY_PARAM_set_depth(rules, (int)question->depth);
  if (question->timed)
    X509_VERIFY_PARAM_set_time(rules, (time_t)question->at);
}

static bool name_matches(X509 *leaf, const struct question *question) {
  const char *name = question->name;
  size_t length = question->name_length;
  unsigned flags = question->strict ? X509_CHECK_FLAG_NEVER_CHECK_SUBJECT : 0;
  if (memchr(name, '@', length) != NULL)
    return X509_check_email(leaf, name, length, flags) == 1;
  if (cert_covers(leaf, name, length))
    return true;
  if (length > 0 && name[length - 1] == '.')
    length--;
  return !question->strict && length > 0 &&
         X509_check_host(leaf, name, length, flags, NULL) == 1;
}

static STACK_OF(X509) * copy_chain(const struct question *question) {
  STACK_OF(X509) *chain = sk_X509_new_null();
  size_t i;
  bool good = chain != NULL;
  for (i = 0; good && i < question->chain_length; i++) {
    X509 *twin = cert_twin(question->chain[i]);
    good = twin != NULL && sk_X509_push(chain, twin) > 0;
    if (!good)
      X509_free(twin);
  }
  if (good)
    return chain;
  sk_X509_pop_free(chain, X509_free);
  return NULL;
}

/* Why OpenSSL could not work with a certificate, or NULL: it could. */
static const char *malformation(X509 *twin) {
  if ((X509_get_extension_flags(twin) & EXFLAG_INVALID) != 0)
    return "an extension is malformed";
  return X509_get0_pubkey(twin) == NULL ? "its public key cannot be read"
                                        : NULL;
}

/* OpenSSL calls a key weak that it cannot read, and finds no issuer for what
 * is malformed, nor takes that for an issuer: says what is the matter. */
static void name_malformed(const STACK_OF(X509) * chain,
                           struct answer *answer) {
  bool search = concerns_issuer(answer->error) || *answer->culprit == NULL;
  int i;
  if (!search && answer->error != X509_V_ERR_UNSPECIFIED &&
      answer->error != X509_V_ERR_EE_KEY_TOO_SMALL &&
      answer->error != X509_V_ERR_CA_KEY_TOO_SMALL)
    return;
  if (*answer->culprit != NULL)
    answer->reason = malformation(*answer->culprit);
  for (i = 0; search && answer->reason == NULL && i < sk_X509_num(chain); i++) {
    X509 *twin = sk_X509_value(chain, i);
    answer->reason = malformation(twin);
    if (answer->reason != NULL && X509_up_ref(twin)) {
      X509_free(*answer->culprit);
      *answer->culprit = twin;
    }
  }
  if (answer->reason != NULL)
    answer->error = X509_V_ERR_UNSPECIFIED;
}

/* Answers the question: true, or what failed in *answer. */
static bool judge(const struct question *question, struct answer *answer) {
  X509_STORE *store = X509_STORE_new();
  X509_STORE_CTX *context = X509_STORE_CTX_new();
  STACK_OF(X509) *chain = copy_chain(question);
  X509 *leaf = chain != NULL ? sk_X509_value(chain, 0) : NULL;
  bool good = false;
  answer->error = X509_V_ERR_OUT_OF_MEM;
  if (store == NULL || context == NULL || leaf == NULL ||
      !add_anchors(store, question))
    goto out;
  ERR_clear_error();
  if (question->crls != NULL)
    answer->reason = add_crls(store, question->crls, question->crls_length);
  answer->bad_crls = answer->reason != NULL;
  if (answer->bad_crls)
    goto out;
  if (X509_STORE_CTX_init(context, store, leaf, chain) != 1)
    goto out;
  X509_STORE_CTX_set_app_data(context, answer);
  X509_STORE_CTX_set_verify_cb(context, on_step);
  set_rules(context, question);
  answer->error = X509_V_OK;
  good = X509_verify_cert(context) == 1;
  if (!good && answer->error == X509_V_OK)
    answer->error = X509_STORE_CTX_get_error(context);
  if (!good)
    name_malformed(chain, answer);
  if (good && question->name != NULL && !name_matches(leaf, question)) {
    answer->error = X509_V_ERR_HOSTNAME_MISMATCH;
    good = false;
  }
out:
  X509_STORE_CTX_free(context);
  X509_STORE_free(store);
  sk_X509_pop_free(chain, X509_free);
  ERR_clear_error();
  return good;
}

static void push_issuer_label(lua_State *L, X509 *certificate) {
  const X509_NAME *issuer = X509_get_issuer_name(certificate);
  core_push_common_name(L, issuer);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    core_push_name_text(L, issuer);
  }
}

static int fail_issuer(lua_State *L, const struct question *question,
                       const struct answer *answer, X509 *culprit,
                       const char *label) {
  if (answer->error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT)
    return core_fail(L, "untrusted",
                     "no trusted issuer for \"%s\": it is self-signed and is "
                     "not a known anchor",
                     label);
  if (answer->error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN) {
    cert_push_label(L, question->chain[0]);
    return core_fail(L, "untrusted",
                     "no trusted issuer for \"%s\": \"%s\" is not a known "
                     "anchor",
                     lua_tostring(L, -1), label);
  }
  push_issuer_label(L, culprit);
  return core_fail(L, "untrusted",
                   "no trusted issuer for \"%s\": \"%s\" is not in the chain "
                   "and is not a known anchor",
                   label, lua_tostring(L, -1));
}

static int fail(lua_State *L, const struct question *question,
                const struct answer *answer) {
  X509 *culprit =
      *answer->culprit != NULL ? *answer->culprit : question->chain[0];
  const char *reason = answer->reason != NULL
                           ? answer->reason
                           : X509_verify_cert_error_string(answer->error);
  const char *label;
  if (answer->bad_crls)
    return core_fail(L, "parse", "cannot read the revocation lists: %s",
                     reason);
  cert_push_label(L, culprit);
  label = lua_tostring(L, -1);
  switch (answer->error) {
  case X509_V_ERR_CERT_HAS_EXPIRED:
    cert_push_date(L, X509_get0_notAfter(culprit));
    return core_fail(L, "expired", "certificate \"%s\" expired on %s", label,
                     lua_tostring(L, -1));
  case X509_V_ERR_CERT_NOT_YET_VALID:
    cert_push_date(L, X509_get0_notBefore(culprit));
    return core_fail(L, "expired", "certificate \"%s\" is not valid before %s",
                     label, lua_tostring(L, -1));
  case X509_V_ERR_CERT_REVOKED:
    return core_fail(L, "revoked", "certificate \"%s\" was revoked on %s",
                     label, answer->revoked);
  case X509_V_ERR_HOSTNAME_MISMATCH:
    core_pushtext(L, question->name, question->name_length);
    return core_fail(L, "mismatch", "certificate \"%s\" does not cover \"%s\"",
                     label, lua_tostring(L, -1));
  case X509_V_ERR_INVALID_PURPOSE:
    return core_fail(L, "mismatch",
                     "certificate \"%s\" is not meant for purpose \"%s\"",
                     label, question->use);
  default:
    if (concerns_issuer(answer->error))
      return fail_issuer(L, question, answer, culprit, label);
    if (concerns_crl(answer->error))
      return core_fail(L, "missing", "no usable revocation list for \"%s\": %s",
                       label, reason);
    return core_fail(L, "untrusted", "certificate \"%s\" is not trusted: %s",
                     label, reason);
  }
}

static void read_purpose(lua_State *L, struct question *question) {
  static const struct {
    const char *name;
    int purpose;
  } purposes[] = {{"any", 0},
                  {"server", X509_PURPOSE_SSL_SERVER},
                  {"client", X509_PURPOSE_SSL_CLIENT},
                  {"email", X509_PURPOSE_SMIME_SIGN}};
  const char *name = cert_string_field(L, "purpose", NULL);
  size_t i;
  for (i = 0; name != NULL && strcmp(name, purposes[i].name) != 0; i++)
    if (i + 1 == COUNT(purposes))
      luaL_error(L, "field 'purpose': no purpose '%s'", name);
  question->use = purposes[name != NULL ? i : 0].name;
  question->purpose = purposes[name != NULL ? i : 0].purpose;
}

static void read_question(lua_State *L, struct question *question) {
  static const char *const fields[] = {"chain", "anchors", "anchors_directory",
                                       "name",  "purpose", "at",
                                       "crls",  "depth",   "strict",
                                       NULL};
  core_check_fields(L, 1, fields);
  lua_getfield(L, 1, "chain");
  question->chain =
      cert_push_array(L, -1, "field 'chain'", &question->chain_length, NULL);
  luaL_argcheck(L, question->chain_length > 0, 1, "the chain is empty");
  lua_getfield(L, 1, "anchors");
  if (cert_is_system(L, -1))
    question->system = true;
  else
    question->anchors = cert_push_array(
        L, -1, "field 'anchors'", &question->anchor_count, &question->system);
  question->folder = cert_string_field(L, "anchors_directory", NULL);
  question->name = cert_string_field(L, "name", &question->name_length);
  question->crls = cert_string_field(L, "crls", &question->crls_length);
  question->timed = cert_integer_field(L, "at", &question->at);
  question->deep = cert_integer_field(L, "depth", &question->depth);
  luaL_argcheck(L, question->depth >= 0 && question->depth <= 100, 1,
                "field 'depth': 0 to 100 expected");
  question->strict =
      lua_getfield(L, 1, "strict") == LUA_TNIL || lua_toboolean(L, -1);
  read_purpose(L, question);
}

/*
 * cert.verify{ chain=, anchors=, anchors_directory=, name=, purpose=, at=,
 *   crls=, depth=, strict= } -> true | nil, message, "untrusted" | "expired" |
 *   "mismatch" | "revoked" | "missing" | "parse" | "limit"
 * chain: array of cert, the leaf first, the others untrusted help in any
 * order.  anchors: an array of cert, each of which is trusted, be it a root or
 * an intermediate; or "system", or an array that holds "system": OpenSSL's
 * folder of hashed certificates, and anchors_directory, another of that kind.
 * name: a host name or IP address that the leaf must cover, or an e-mail
 * address.  purpose: "server", "client", "email" or "any" (the default).  at:
 * seconds since 1970, else now.  crls: PEM or DER; then the leaf has to be
 * found in none of them, and its issuer's must be there ("missing" when it is
 * not, or is stale), certificates above it are checked in those that are
 * there.  depth: how many intermediates at most.  strict (true): RFC 5280 to
 * the letter, names in the SAN only, keys and digests of 112 bits or more;
 * an anchor's own shape is not judged.  "expired" says not yet valid, too.
 */
int cert_verify(lua_State *L) {
  struct question question = {0};
  struct answer answer = {0};
  lua_settop(L, 1);
  luaL_checkstack(L, 40, NULL); /* the options stay on it */
  read_question(L, &question);
  answer.culprit = core_cert_new(L);
  if (question.crls_length > CRLS_LIMIT)
    return core_fail(L, "limit",
                     "cannot read the revocation lists: more than %d bytes",
                     CRLS_LIMIT);
  if (!judge(&question, &answer))
    return fail(L, &question, &answer);
  lua_pushboolean(L, 1);
  return 1;
}
