/*
 * verify.c: cert.verify, whether a chain is to be trusted, and why not.
 *
 * The rules are OpenSSL's (RFC 5280, section 6), names are cert_covers's (RFC
 * 9525).  judge owns the store and the context and knows no Lua; it leaves the
 * certificate that failed in a box.  Who is trusted, for what and when is the
 * caller's to say.
 */
#include "cert.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <time.h>

#define STRICT_LEVEL 2                /* security of 112 bits */
#define DEPTH_LIMIT 100               /* intermediates */
#define CRLS_LIMIT (64 * 1024 * 1024) /* bytes of revocation lists */

/* What is asked; everything in it is the caller's. */
struct question {
  STACK_OF(X509) * chain, *anchors; /* copies */
  const char *name, *crls, *folder; /* NULL where there is none */
  size_t name_length, crls_length;
  const char *use; /* what purpose was called */
  int purpose;
  lua_Integer depth, at;
  bool system, strict;
};

struct answer {
  int error;
  const char *reason; /* where OpenSSL's does not say enough, or NULL */
  bool bad_crls;      /* they cannot be read */
  bool open;          /* whether the certificate is revoked is left open */
  X509 **culprit;     /* a box */
  core_holder *chain; /* what was built, of copies */
  char revoked[CERT_DATE_SIZE];
};

/* Whether a failure does not count.  Above the leaf a certificate is looked up
 * in those lists that are there, and an anchor in none.  RFC 5280, section
 * 6.1.1 (d), takes no more from an anchor than its name and its key: roots
 * older than the profile's rules for CAs are as good. */
static bool forgiven(X509_STORE_CTX *context, bool open) {
  int error = X509_STORE_CTX_get_error(context);
  int depth = X509_STORE_CTX_get_error_depth(context);
  int last = sk_X509_num(X509_STORE_CTX_get0_chain(context)) - 1;
  if (open)
    return depth > 0 &&
           (depth == last || error == X509_V_ERR_UNABLE_TO_GET_CRL);
  switch (error) {
  case X509_V_ERR_CA_BCONS_NOT_CRITICAL:
  case X509_V_ERR_CA_CERT_MISSING_KEY_USAGE:
  case X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3:
  case X509_V_ERR_MISSING_SUBJECT_KEY_IDENTIFIER:
  case X509_V_ERR_PATHLEN_WITHOUT_KU_KEY_CERT_SIGN:
    return depth == last;
  case X509_V_ERR_INVALID_CA:
    return depth == last &&
           X509_check_ca(X509_STORE_CTX_get_current_cert(context)) != 0;
  default:
    return false;
  }
}

/* Called by OpenSSL for each step: the first failure ends it.  While a list is
 * judged or is not found, failures are the list's. */
static int on_step(int good, X509_STORE_CTX *context) {
  struct answer *answer = X509_STORE_CTX_get_app_data(context);
  int error = X509_STORE_CTX_get_error(context);
  X509 *current = X509_STORE_CTX_get_current_cert(context);
  X509_CRL *list = X509_STORE_CTX_get0_current_crl(context);
  bool revoked = error == X509_V_ERR_CERT_REVOKED;
  bool open =
      !revoked && (list != NULL || error == X509_V_ERR_UNABLE_TO_GET_CRL);
  X509_REVOKED *entry;
  if (good)
    return 1;
  if (forgiven(context, open)) {
    X509_STORE_CTX_set_error(context, X509_V_OK);
    return 1;
  }
  answer->open = open;
  if (revoked && X509_CRL_get0_by_cert(list, &entry, current) > 0)
    cert_date(answer->revoked, X509_REVOKED_get0_revocationDate(entry));
  return 0;
}

/* Adds all revocation lists in bytes, PEM or one in DER: NULL, or what was
 * wrong. */
static const char *add_crls(X509_STORE *store, const char *bytes,
                            size_t length) {
  static char no_password[] = ""; /* instead of a question */
  BIO *in = BIO_new_mem_buf(bytes, (int)length);
  bool pem = memmem(bytes, length, "-----BEGIN ", 11) != NULL;
  bool more = in != NULL, any = false;
  while (more) {
    X509_CRL *list = pem ? PEM_read_bio_X509_CRL(in, NULL, NULL, no_password)
                         : d2i_X509_CRL_bio(in, NULL);
    any = (list != NULL && X509_STORE_add_crl(store, list)) || any;
    more = pem && list != NULL;
    X509_CRL_free(list);
  }
  BIO_free(in);
  if (pem && ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE)
    ERR_clear_error(); /* the end of the text */
  if (ERR_peek_error() != 0)
    return core_reason();
  return any ? NULL : "none is there";
}

static bool add_anchors(X509_STORE *store, const struct question *question) {
  int i;
  for (i = 0; i < sk_X509_num(question->anchors); i++)
    if (!X509_STORE_add_cert(store, sk_X509_value(question->anchors, i)))
      return false;
  return !question->system ||
         (X509_STORE_load_path(store, X509_get_default_cert_dir()) &&
          (question->folder == NULL ||
           X509_STORE_load_path(store, question->folder)));
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
  X509_VERIFY_PARAM_set_purpose(rules, question->purpose);
  X509_VERIFY_PARAM_set_depth(rules, (int)question->depth);
  X509_VERIFY_PARAM_set_time(rules, (time_t)question->at);
}

static bool name_matches(X509 *leaf, const struct question *question) {
  const char *name = question->name;
  size_t length = question->name_length;
  if (memchr(name, '@', length) == NULL)
    return cert_covers(leaf, name, length, question->strict);
  return X509_check_email(leaf, name, length,
                          question->strict ? X509_CHECK_FLAG_NEVER_CHECK_SUBJECT
                                           : 0) == 1;
}

/* Why OpenSSL could not work with a certificate, or NULL: it could. */
static const char *malformation(X509 *twin) {
  if ((X509_get_extension_flags(twin) & EXFLAG_INVALID) != 0)
    return "an extension is malformed";
  return X509_get0_pubkey(twin) == NULL ? "its public key cannot be read"
                                        : NULL;
}

/* OpenSSL calls a key weak that it cannot read, and finds no issuer for what
 * is malformed, nor takes that for an issuer: says what is the matter, and
 * returns the certificate to blame. */
static X509 *name_malformed(const STACK_OF(X509) * chain, X509 *culprit,
                            struct answer *answer) {
  bool weak = answer->error == X509_V_ERR_EE_KEY_TOO_SMALL ||
              answer->error == X509_V_ERR_CA_KEY_TOO_SMALL;
  int i;
  if (weak || answer->error == X509_V_ERR_UNSPECIFIED ||
      answer->error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT ||
      answer->error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY)
    for (i = 0; i < sk_X509_num(chain); i++) {
      X509 *twin = sk_X509_value(chain, i);
      answer->reason = !weak || twin == culprit ? malformation(twin) : NULL;
      if (answer->reason != NULL) {
        answer->error = X509_V_ERR_UNSPECIFIED;
        return twin;
      }
    }
  return culprit;
}

/* Answers the question: true, or what failed in *answer. */
static bool judge(const struct question *question, struct answer *answer) {
  X509_STORE *store = X509_STORE_new();
  X509_STORE_CTX *context = X509_STORE_CTX_new();
  X509 *leaf = sk_X509_value(question->chain, 0), *culprit;
  bool good = false;
  answer->error = X509_V_ERR_OUT_OF_MEM;
  if (store == NULL || context == NULL || !add_anchors(store, question))
    goto out;
  ERR_clear_error();
  if (question->crls != NULL)
    answer->reason = add_crls(store, question->crls, question->crls_length);
  answer->bad_crls = answer->reason != NULL;
  if (answer->bad_crls ||
      !X509_STORE_CTX_init(context, store, leaf, question->chain))
    goto out;
  X509_STORE_CTX_set_app_data(context, answer);
  X509_STORE_CTX_set_verify_cb(context, on_step);
  set_rules(context, question);
  if (X509_verify_cert(context) != 1) {
    answer->error = X509_STORE_CTX_get_error(context);
    culprit = X509_STORE_CTX_get_current_cert(context);
    culprit = name_malformed(question->chain, culprit, answer);
    if (culprit != NULL && X509_up_ref(culprit))
      *answer->culprit = culprit;
  } else {
    good = question->name == NULL || name_matches(leaf, question);
    answer->error = X509_V_ERR_HOSTNAME_MISMATCH;
    answer->chain->value = X509_STORE_CTX_get1_chain(context);
  }
out:
  X509_STORE_CTX_free(context);
  X509_STORE_free(store);
  ERR_clear_error();
  return good;
}

static int fail(lua_State *L, const struct question *question,
                const struct answer *answer) {
  X509 *leaf = sk_X509_value(question->chain, 0);
  X509 *culprit = *answer->culprit != NULL ? *answer->culprit : leaf;
  const char *reason = answer->reason != NULL
                           ? answer->reason
                           : X509_verify_cert_error_string(answer->error);
  const char *label = cert_push_label(L, culprit);
  char date[CERT_DATE_SIZE];
  if (answer->bad_crls)
    return core_fail(L, "parse", "cannot read the revocation lists: %s",
                     reason);
  if (answer->open)
    return core_fail(L, "missing", "no usable revocation list for \"%s\": %s",
                     label, reason);
  switch (answer->error) {
  case X509_V_ERR_CERT_HAS_EXPIRED:
    cert_date(date, X509_get0_notAfter(culprit));
    return core_fail(L, "expired", "certificate \"%s\" expired on %s", label,
                     date);
  case X509_V_ERR_CERT_NOT_YET_VALID:
    cert_date(date, X509_get0_notBefore(culprit));
    return core_fail(L, "expired", "certificate \"%s\" is not valid before %s",
                     label, date);
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
  case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    return core_fail(L, "untrusted",
                     "no trusted issuer for \"%s\": it is self-signed and is "
                     "not a known anchor",
                     label);
  case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    return core_fail(L, "untrusted",
                     "no trusted issuer for \"%s\": \"%s\" is not a known "
                     "anchor",
                     cert_push_label(L, leaf), label);
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
  case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    core_push_common_name(L, X509_get_issuer_name(culprit));
    if (lua_isnil(L, -1))
      core_push_name_text(L, X509_get_issuer_name(culprit));
    return core_fail(L, "untrusted",
                     "no trusted issuer for \"%s\": \"%s\" is not in the "
                     "chain and is not a known anchor",
                     label, core_quotable(L));
  default:
    return core_fail(L, "untrusted", "certificate \"%s\" is not trusted: %s",
                     label, reason);
  }
}

static void read_purpose(lua_State *L, struct question *question) {
  static const char *const uses[] = {"any", "server", "client", "email"};
  static const int purposes[] = {X509_PURPOSE_ANY, X509_PURPOSE_SSL_SERVER,
                                 X509_PURPOSE_SSL_CLIENT,
                                 X509_PURPOSE_SMIME_SIGN};
  const char *name = cert_string_field(L, "purpose", NULL);
  size_t i = 0;
  while (name != NULL && i < COUNT(uses) && strcmp(name, uses[i]) != 0)
    i++;
  if (i == COUNT(uses))
    luaL_error(L, "field 'purpose': no purpose '%s'", name);
  question->use = uses[i];
  question->purpose = purposes[i];
}

static void read_question(lua_State *L, struct question *question) {
  static const char *const fields[] = {"chain", "anchors", "anchors_directory",
                                       "name",  "purpose", "at",
                                       "crls",  "depth",   "strict",
                                       NULL};
  core_check_fields(L, 1, fields);
  lua_getfield(L, 1, "chain");
  question->chain = cert_push_twins(L, -1, "field 'chain'", NULL);
  luaL_argcheck(L, sk_X509_num(question->chain) > 0, 1, "the chain is empty");
  lua_getfield(L, 1, "anchors");
  question->anchors =
      cert_push_twins(L, -1, "field 'anchors'", &question->system);
  question->folder = cert_string_field(L, "anchors_directory", NULL);
  question->name = cert_string_field(L, "name", &question->name_length);
  question->crls = cert_string_field(L, "crls", &question->crls_length);
  question->at = (lua_Integer)time(NULL);
  cert_integer_field(L, "at", &question->at);
  question->depth = DEPTH_LIMIT;
  cert_integer_field(L, "depth", &question->depth);
  luaL_argcheck(L, question->depth >= 0 && question->depth <= DEPTH_LIMIT, 1,
                "field 'depth': 0 to 100 expected");
  question->strict =
      lua_getfield(L, 1, "strict") == LUA_TNIL || lua_toboolean(L, -1);
  read_purpose(L, question);
}

/*
 * cert.verify{ chain=, anchors=, anchors_directory=, name=, purpose=, at=,
 *   crls=, depth=, strict= } -> true, path | nil, message, "untrusted" |
 *   "expired" | "mismatch" | "revoked" | "missing" | "parse" | "limit"
 * path: the certificates from the leaf to the anchor, as they were verified.
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
  struct answer answer = {.revoked = "?"};
  lua_settop(L, 1);
  luaL_checkstack(L, 40, NULL); /* the options stay on it */
  read_question(L, &question);
  answer.culprit = core_cert_new(L);
  answer.chain = core_push_holder(L, cert_free_list);
  if (question.crls_length > CRLS_LIMIT)
    return core_fail(L, "limit",
                     "cannot read the revocation lists: more than %d bytes",
                     CRLS_LIMIT);
  if (!judge(&question, &answer))
    return fail(L, &question, &answer);
  lua_pushboolean(L, 1);
  core_push_certificates(L, answer.chain->value);
  core_release(answer.chain);
  return 2;
}
