/*
 * rehearse.c: probe.rehearse, a TLS handshake in memory: whether a chain and
 * its key would serve, before a server is given them.
 *
 * The server's side has OpenSSL's own settings, as most servers have; the
 * client's is the prober's.
 */
#include "cert.h"
#include "probe.h"

#include <openssl/err.h>

#define TURNS 64 /* a handshake takes about five of each side */

/* Gives the context the chain and the key, as a server does; NULL, or what is
 * wrong with them. */
static const char *equip(SSL_CTX *context, STACK_OF(X509) * chain,
                         EVP_PKEY *key) {
  int i;
  if (SSL_CTX_use_certificate(context, sk_X509_value(chain, 0)) != 1)
    return "the certificate is refused";
  for (i = 1; i < sk_X509_num(chain); i++)
    if (SSL_CTX_add1_chain_cert(context, sk_X509_value(chain, i)) != 1)
      return "the chain is refused";
  return SSL_CTX_use_PrivateKey(context, key) == 1 ? NULL
                                                   : "the key is refused";
}

/* Lets both sides talk by turns. */
static bool talk(SSL *client, SSL *server) {
  int i;
  for (i = 0; i < TURNS; i++) {
    SSL *side = i % 2 == 0 ? client : server;
    int result = SSL_do_handshake(side), error = SSL_get_error(side, result);
    if (result != 1 && error != SSL_ERROR_WANT_READ &&
        error != SSL_ERROR_WANT_WRITE)
      return false;
  }
  return SSL_is_init_finished(client) && SSL_is_init_finished(server);
}

static bool shake_hands(SSL_CTX *context, const char *name, int version) {
  SSL *client = SSL_new(probe_context()), *server = SSL_new(context);
  BIO *here, *there;
  bool good = client != NULL && server != NULL &&
              SSL_set_min_proto_version(server, version) == 1 &&
              SSL_set_max_proto_version(server, version) == 1 &&
              (name[0] == '\0' || SSL_set_tlsext_host_name(client, name) == 1);
  if (good && BIO_new_bio_pair(&here, 0, &there, 0) == 1) {
    SSL_set_bio(client, here, here);
    SSL_set_bio(server, there, there);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
  }
  good = good && talk(client, server);
  SSL_free(client);
  SSL_free(server);
  return good;
}

/* NULL, or what is wrong; then OpenSSL's queue says why. */
static const char *rehearse(STACK_OF(X509) * chain, EVP_PKEY *key,
                            const char *name) {
  SSL_CTX *context;
  const char *trouble;
  ERR_clear_error();
  context = SSL_CTX_new(TLS_server_method());
  trouble =
      context != NULL ? equip(context, chain, key) : "nothing to rehearse with";
  if (trouble == NULL && !shake_hands(context, name, TLS1_3_VERSION))
    trouble = "no handshake with TLS 1.3";
  if (trouble == NULL && !shake_hands(context, name, TLS1_2_VERSION))
    trouble = "no handshake with TLS 1.2";
  SSL_CTX_free(context);
  return trouble;
}

/*
 * probe.rehearse{ chain=, key=[, name=] } -> true
 *   | nil, message, "mismatch" | "refused" | "usage"
 * Whether a server with this chain (core.cert boxes, leaf first) and key would
 * complete a TLS 1.3 and a TLS 1.2 handshake.  "mismatch": the key is not the
 * certificate's; "refused": OpenSSL would not serve them (too weak, or the
 * handshake fails); "usage": no name to ask for.  Neither dates nor trust nor
 * the name are judged.
 */
int probe_rehearse(lua_State *L) {
  static const char *const fields[] = {"chain", "key", "name", NULL};
  char name[HOST_SIZE] = "";
  const char *text, *trouble;
  size_t length;
  EVP_PKEY *key;
  STACK_OF(X509) * chain;
  core_check_fields(L, 1, fields);
  lua_settop(L, 1);
  lua_getfield(L, 1, "key");
  key = core_key_check(L, 2);
  lua_getfield(L, 1, "name");
  text = luaL_optlstring(L, 3, NULL, &length);
  lua_getfield(L, 1, "chain");
  chain = cert_push_twins(L, 4, "chain", NULL);
  luaL_argcheck(L, sk_X509_num(chain) > 0, 1, "the chain has no certificate");
  if (text != NULL && !endpoint_name(name, text, length))
    return core_fail(L, "usage",
                     "cannot rehearse: the name to ask for is not "
                     "a DNS name");
  if (!cert_has_key(sk_X509_value(chain, 0), key))
    return core_fail(L, "mismatch",
                     "cannot serve this chain: the key is not "
                     "the certificate's");
  trouble = rehearse(chain, key, name);
  if (trouble != NULL)
    return core_fail(L, "refused", "cannot serve this chain: %s: %s", trouble,
                     core_reason());
  lua_pushboolean(L, 1);
  return 1;
}
