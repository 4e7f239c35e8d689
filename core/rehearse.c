/*
 * rehearse.c: probe.rehearse, a TLS handshake in memory: whether a chain and
 * its key would serve, before a server is given them.
 *
 * The server's side has OpenSSL's own settings, as most servers have; the
 * client's is the prober's.
 */
#include "core.h"
#include "probe.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>

#define ROUNDS 32 /* a handshake takes about five */
#define CHAIN_LIMIT 100

struct rehearsal {
  EVP_PKEY *key; /* Lua's */
  const char *name;
  X509 *leaf;
  STACK_OF(X509) * others;
  const char *code; /* of a failure */
  char reason[256];
};

static bool fail(struct rehearsal *r, const char *code, const char *what) {
  if (strcmp(code, "mismatch") == 0)
    snprintf(r->reason, sizeof r->reason, "%s", what);
  else
    snprintf(r->reason, sizeof r->reason, "%s: %s", what, core_reason());
  r->code = code;
  return false;
}

/* A copy whose public key can be decoded: a box's cannot (core_cert_read). */
static X509 *copy(X509 *certificate) {
  unsigned char *der = NULL;
  const unsigned char *at;
  int length = i2d_X509(certificate, &der);
  X509 *result;
  at = der;
  result = length > 0 ? d2i_X509(NULL, &at, length) : NULL;
  OPENSSL_free(der);
  return result;
}

/* Gives the context the chain and the key, as a server does. */
static bool equip(struct rehearsal *r, SSL_CTX *context) {
  if (SSL_CTX_use_certificate(context, r->leaf) != 1)
    return fail(r, "refused", "the certificate is refused");
  if (X509_check_private_key(r->leaf, r->key) != 1)
    return fail(r, "mismatch", "the key is not the certificate's");
  if (SSL_CTX_use_PrivateKey(context, r->key) != 1)
    return fail(r, "refused", "the key is refused");
  if (SSL_CTX_set1_chain(context, r->others) != 1)
    return fail(r, "refused", "the chain is refused");
  return true;
}

/* Whether the client was sent exactly the chain. */
static bool same_chain(const struct rehearsal *r, SSL *client) {
  STACK_OF(X509) *sent = SSL_get_peer_cert_chain(client);
  int i, count = sk_X509_num(r->others);
  if (sk_X509_num(sent) != count + 1 ||
      X509_cmp(sk_X509_value(sent, 0), r->leaf) != 0)
    return false;
  for (i = 0; i < count; i++)
    if (X509_cmp(sk_X509_value(sent, i + 1), sk_X509_value(r->others, i)) != 0)
      return false;
  return true;
}

/* One side's turn; false when it has failed. */
static bool turn(SSL *side, bool *done) {
  int result = SSL_do_handshake(side), error = SSL_get_error(side, result);
  *done = result == 1;
  return *done || error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
}

/* Lets both sides talk; true when both are done. */
static bool talk(SSL *client, SSL *server) {
  bool client_done = false, server_done = false;
  int i;
  for (i = 0; i < ROUNDS && !(client_done && server_done); i++)
    if (!turn(client, &client_done) || !turn(server, &server_done))
      return false;
  return client_done && server_done;
}

/* Makes both sides, joined by a pair of BIOs that they own. */
static bool make_sides(const struct rehearsal *r, SSL_CTX *context, int version,
                       SSL **client, SSL **server) {
  SSL_CTX *theirs = probe_context();
  BIO *here, *there;
  *client = theirs != NULL ? SSL_new(theirs) : NULL;
  *server = *client != NULL ? SSL_new(context) : NULL;
  if (*server == NULL || BIO_new_bio_pair(&here, 0, &there, 0) != 1)
    return false;
  SSL_set_bio(*client, here, here);
  SSL_set_bio(*server, there, there);
  SSL_set_connect_state(*client);
  SSL_set_accept_state(*server);
  return SSL_set_min_proto_version(*server, version) == 1 &&
         SSL_set_max_proto_version(*server, version) == 1 &&
         (r->name[0] == '\0' ||
          SSL_set_tlsext_host_name(*client, r->name) == 1);
}

static bool try_version(struct rehearsal *r, SSL_CTX *context, int version) {
  const char *what = version == TLS1_3_VERSION ? "no handshake with TLS 1.3"
                                               : "no handshake with TLS 1.2";
  SSL *client, *server;
  bool good = false;
  if (!make_sides(r, context, version, &client, &server))
    fail(r, "io", what);
  else if (!talk(client, server))
    fail(r, "refused", what);
  else if (!same_chain(r, client))
    fail(r, "mismatch", "another chain was sent");
  else
    good = true;
  SSL_free(client);
  SSL_free(server);
  return good;
}

/* Takes copies of the certificates, and tries them in both versions. */
static bool rehearse(struct rehearsal *r, X509 *const *chain, int count) {
  SSL_CTX *context;
  int i;
  bool good = false;
  ERR_clear_error();
  context = SSL_CTX_new(TLS_server_method());
  r->leaf = copy(chain[0]);
  r->others = sk_X509_new_reserve(NULL, count);
  if (context == NULL || r->leaf == NULL || r->others == NULL) {
    fail(r, "io", "nothing to rehearse with");
    goto out;
  }
  for (i = 1; i < count; i++) {
    X509 *other = copy(chain[i]);
    if (other == NULL) {
      fail(r, "io", "the chain cannot be read");
      goto out;
    }
    sk_X509_push(r->others, other);
  }
  good = equip(r, context) && try_version(r, context, TLS1_3_VERSION) &&
         try_version(r, context, TLS1_2_VERSION);
out:
  sk_X509_pop_free(r->others, X509_free);
  X509_free(r->leaf);
  SSL_CTX_free(context);
  ERR_clear_error();
  return good;
}

/*
 * probe.rehearse{ chain=, key=[, name=] } -> true
 *   | nil, message, "mismatch" | "refused" | "usage" | "io"
 * Whether a server with this chain (core.cert boxes, leaf first) and key would
 * complete a TLS 1.3 and a TLS 1.2 handshake and send the chain as it is.
 * "mismatch": the key is not the certificate's; "refused": OpenSSL would not
 * serve them (too weak, or the handshake fails); "usage": no name to ask for.
 * Neither dates nor trust nor the name are judged.
 */
int probe_rehearse(lua_State *L) {
  static const char *const fields[] = {"chain", "key", "name", NULL};
  struct rehearsal r = {.code = NULL};
  char name[HOST_SIZE] = "";
  X509 *chain[CHAIN_LIMIT];
  lua_Integer i, count;
  const char *text;
  size_t length;
  core_check_fields(L, 1, fields);
  lua_settop(L, 1);
  lua_getfield(L, 1, "key");
  r.key = core_key_check(L, 2);
  lua_getfield(L, 1, "name");
  text = luaL_optlstring(L, 3, NULL, &length);
  r.name = name;
  lua_getfield(L, 1, "chain");
  luaL_checktype(L, 4, LUA_TTABLE);
  count = (lua_Integer)lua_rawlen(L, 4);
  luaL_argcheck(L, count > 0 && count <= CHAIN_LIMIT, 1,
                "the chain has not 1 to 100 certificates");
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, 4, i + 1);
    chain[i] = core_cert_check(L, -1);
    lua_pop(L, 1);
  }
  if (text != NULL && !endpoint_name(name, text, length))
    return core_fail(L, "usage",
                     "cannot rehearse: the name to ask for is not "
                     "a DNS name");
  if (!rehearse(&r, chain, (int)count))
    return core_fail(L, r.code, "cannot serve this chain: %s", r.reason);
  lua_pushboolean(L, 1);
  return 1;
}
