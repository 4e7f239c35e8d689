/*
 * key.c: core.key, private keys.  A box owns one EVP_PKEY.
 *
 * The secret half never becomes a Lua string: it is made or read in C, goes to
 * files that nobody else may read (keyfile.c), and signs.
 */
#include "core.h"

#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND_LIMIT 64

EVP_PKEY **core_key_new(lua_State *L) {
  EVP_PKEY **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, CORE_KEY);
  return box;
}

EVP_PKEY *core_key_check(lua_State *L, int index) {
  EVP_PKEY **box = luaL_checkudata(L, index, CORE_KEY);
  luaL_argcheck(L, *box != NULL, index, "the key is closed");
  return *box;
}

EVP_PKEY *core_key_test(lua_State *L, int index) {
  bool is_key = luaL_testudata(L, index, CORE_KEY) != NULL;
  return is_key ? core_key_check(L, index) : NULL;
}

/* --- making a key */

/* The bits of a new RSA key; 0 when there is no such number. */
static unsigned long rsa_bits(const char *digits) {
  bool number = digits[0] != '\0' && digits[strspn(digits, "0123456789")] == 0;
  return number ? strtoul(digits, NULL, 10) : 0;
}

/* What makes keys of a kind, or NULL.  The last is kept, since setting up a
 * curve costs as much as making a key on it. */
static EVP_PKEY_CTX *get_context(const char *kind) {
  static EVP_PKEY_CTX *last = NULL;
  static char last_kind[KIND_LIMIT];
  bool rsa = strncmp(kind, "rsa:", 4) == 0, ec = strncmp(kind, "ec:", 3) == 0;
  const char *name = rsa ? "RSA" : ec ? "EC" : kind;
  if (last != NULL && strcmp(kind, last_kind) == 0)
    return last;
  EVP_PKEY_CTX_free(last);
  last = EVP_PKEY_CTX_new_from_name(NULL, name, NULL);
  snprintf(last_kind, sizeof last_kind, "%s", kind);
  if (last != NULL && EVP_PKEY_keygen_init(last) > 0 &&
      (!rsa ||
       EVP_PKEY_CTX_set_rsa_keygen_bits(last, (int)rsa_bits(kind + 4)) > 0) &&
      (!ec || EVP_PKEY_CTX_set_group_name(last, kind + 3) > 0))
    return last;
  EVP_PKEY_CTX_free(last);
  return last = NULL;
}

/*
 * key.generate(kind) -> key | nil, message, "unsupported" | "limit"
 * kind: "rsa:BITS" (2048 to 8192), "ec:CURVE" ("ec:P-256", "ec:P-384",
 * "ec:P-521"), "ed25519", or another name by which OpenSSL makes a key.
 */
static int l_generate(lua_State *L) {
  const char *kind = luaL_checkstring(L, 1);
  const char *why = NULL, *code = "unsupported";
  EVP_PKEY **box = core_key_new(L);
  EVP_PKEY_CTX *context;
  if (strncmp(kind, "rsa:", 4) == 0) {
    unsigned long bits = rsa_bits(kind + 4);
    if (bits == 0)
      why = "no number of bits";
    else if (bits < 2048 || bits > 8192)
      why = "not 2048 to 8192 bits";
    code = bits == 0 ? "unsupported" : "limit";
  }
  core_clear_errors();
  if (why == NULL && (context = get_context(kind)) != NULL &&
      EVP_PKEY_generate(context, box) > 0)
    return 1;
  return core_fail(L, code, "cannot generate a key of kind '%s': %s", kind,
                   why != NULL ? why : core_reason());
}

/* --- using a key */

/* Pushes a box that owns the public half of the key at index 1. */
static X509_PUBKEY *push_public(lua_State *L) {
  EVP_PKEY *key = core_key_check(L, 1);
  X509_PUBKEY *public_key = core_push_item(L, ASN1_ITEM_rptr(X509_PUBKEY));
  core_holder *box = lua_touserdata(L, -1);
  if (!core_key_put_public(key, public_key) &&
      !X509_PUBKEY_set(&public_key, key))
    luaL_error(L, "cannot encode a public key: %s", core_reason());
  return box->value = public_key;
}

/* key:fingerprint() -> SHA-256 of the DER SubjectPublicKeyInfo, in hex */
static int l_fingerprint(lua_State *L) {
  core_push_spki_fingerprint(L, push_public(L));
  return 1;
}

/* key:public() -> the SubjectPublicKeyInfo as PEM text */
static int l_public(lua_State *L) {
  const char *der;
  size_t length;
  core_push_der(L, push_public(L), ASN1_ITEM_rptr(X509_PUBKEY));
  der = lua_tolstring(L, -1, &length);
  core_push_pem(L, "PUBLIC KEY", (const unsigned char *)der, length);
  return 1;
}

/* key:type() -> "rsa:3072", "ec:P-256", "ed25519" or the like */
static int l_type(lua_State *L) {
  core_push_spki_keytype(L, push_public(L));
  return 1;
}

/* key:bits() -> size of the key in bits, as the algorithm counts them */
static int l_bits(lua_State *L) {
  lua_pushinteger(L, EVP_PKEY_get_bits(core_key_check(L, 1)));
  return 1;
}

bool core_key_digest(EVP_PKEY *key, const char *name, const EVP_MD **digest) {
  char required[32] = "";
  *digest = NULL;
  if (EVP_PKEY_get_id(key) != EVP_PKEY_EC && /* which takes any */
      EVP_PKEY_get_default_digest_name(key, required, sizeof required) == 2 &&
      strcmp(required, "UNDEF") == 0)
    return true;
  *digest =
      strcmp(name, "sha256") == 0 ? EVP_sha256() : EVP_get_digestbyname(name);
  core_clear_errors();
  return *digest != NULL;
}

static bool sign(EVP_PKEY *key, const EVP_MD *digest, const char *data,
                 size_t size, char *signature, size_t *length) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  bool done = context != NULL &&
              EVP_DigestSignInit(context, NULL, digest, NULL, key) == 1 &&
              EVP_DigestSign(context, (unsigned char *)signature, length,
                             (const unsigned char *)data, size) == 1;
  EVP_MD_CTX_free(context);
  return done;
}

/*
 * key:sign(data[, digest = "sha256"]) -> signature
 *   | nil, message, "unsupported"
 * The bytes of the signature (ECDSA: DER, RFC 3279, section 2.2.3; RSA:
 * PKCS #1 v1.5).  Ed25519 signs the data itself and takes no digest.
 */
static int l_sign(lua_State *L) {
  EVP_PKEY *key = core_key_check(L, 1);
  size_t size, length;
  const char *data = luaL_checklstring(L, 2, &size);
  const char *name = luaL_optstring(L, 3, "sha256");
  const EVP_MD *digest;
  luaL_Buffer buffer;
  char *signature;
  if (!core_key_digest(key, name, &digest))
    return core_fail(L, "unsupported", "cannot sign with digest '%s': unknown",
                     name);
  length = (size_t)EVP_PKEY_get_size(key);
  signature = luaL_buffinitsize(L, &buffer, length);
  if (!sign(key, digest, data, size, signature, &length)) {
    const char *reason = core_reason();
    l_type(L);
    return core_fail(L, "unsupported",
                     "cannot sign with a key of kind '%s': %s",
                     lua_tostring(L, -1), reason);
  }
  luaL_pushresultsize(&buffer, length);
  return 1;
}

/* key:close()  frees and cleanses it; a second time does nothing */
static int l_close(lua_State *L) {
  EVP_PKEY **box = luaL_checkudata(L, 1, CORE_KEY);
  EVP_PKEY_free(*box);
  *box = NULL;
  return 0;
}

/* tostring(key) -> 'key "ec:P-256" 1a2b3c4d5e6f' (of its fingerprint) */
static int l_tostring(lua_State *L) {
  EVP_PKEY **box = luaL_checkudata(L, 1, CORE_KEY);
  if (*box == NULL) {
    lua_pushstring(L, "key (closed)");
    return 1;
  }
  l_type(L);
  l_fingerprint(L);
  lua_pushlstring(L, lua_tostring(L, -1), 12);
  lua_pushfstring(L, "key \"%s\" %s", lua_tostring(L, -4), lua_tostring(L, -1));
  return 1;
}

static const luaL_Reg functions[] = {{"generate", l_generate},
                                     {"load", core_key_load},
                                     {"open", core_key_open},
                                     {NULL, NULL}};

static const luaL_Reg methods[] = {
    {"save", core_key_save}, {"fingerprint", l_fingerprint},
    {"public", l_public},    {"type", l_type},
    {"bits", l_bits},        {"sign", l_sign},
    {"close", l_close},      {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__gc", l_close},
                                       {"__close", l_close},
                                       {"__tostring", l_tostring},
                                       {NULL, NULL}};

int luaopen_core_key(lua_State *L) {
  core_type(L, CORE_KEY, methods, metamethods);
  luaL_newlib(L, functions);
  return 1;
}
