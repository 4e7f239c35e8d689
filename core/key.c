/*
 * key.c: core.key, private keys: making them, using them.
 *
 * The secret half never becomes a Lua string: it is made or read in C, goes to
 * files that nobody else may read (keyfile.c), and signs.  A box owns one
 * EVP_PKEY.
 */
#include "core.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#define NEW_RSA_BITS_MIN 2048 /* what a new RSA key may have */
#define NEW_RSA_BITS_MAX 8192

EVP_PKEY **core_key_new(lua_State *L) {
  EVP_PKEY **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, CORE_KEY);
  return box;
}

EVP_PKEY *core_key_check(lua_State *L, int index) {
  EVP_PKEY **box = luaL_checkudata(L, index, CORE_KEY);
  if (*box == NULL)
    luaL_argerror(L, index, "the key is closed");
  return *box;
}

EVP_PKEY *core_key_test(lua_State *L, int index) {
  EVP_PKEY **box = luaL_testudata(L, index, CORE_KEY);
  if (box != NULL && *box == NULL)
    luaL_argerror(L, index, "the key is closed");
  return box != NULL ? *box : NULL;
}

/* --- making a key */

static void free_context(void *value) {
  EVP_PKEY_CTX_free(value);
}

/* The bits in "rsa:BITS"; 0 when there is no such number. */
static unsigned long rsa_bits(const char *kind) {
  const char *digits = kind + 4;
  if (*digits == '\0' || digits[strspn(digits, "0123456789")] != '\0')
    return 0;
  return strtoul(digits, NULL, 10);
}

/* What makes keys of a kind, to be freed; NULL on failure. */
static EVP_PKEY_CTX *new_context(const char *kind) {
  bool rsa = strncmp(kind, "rsa:", 4) == 0, ec = strncmp(kind, "ec:", 3) == 0;
  const char *name = rsa ? "RSA" : ec ? "EC" : kind;
  EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, name, NULL);
  if (context != NULL && EVP_PKEY_keygen_init(context) > 0 &&
      (!rsa ||
       EVP_PKEY_CTX_set_rsa_keygen_bits(context, (int)rsa_bits(kind)) > 0) &&
      (!ec || EVP_PKEY_CTX_set_group_name(context, kind + 3) > 0))
    return context;
  EVP_PKEY_CTX_free(context);
  return NULL;
}

/* Pushes the holder of a kind's context.  It is kept, in the function's first
 * upvalue, since setting up a curve costs as much as making a key on it. */
static core_holder *push_context(lua_State *L, const char *kind) {
  core_holder *holder;
  if (lua_getfield(L, lua_upvalueindex(1), kind) == LUA_TUSERDATA)
    return lua_touserdata(L, -1);
  lua_pop(L, 1);
  holder = core_push_holder(L, free_context);
  holder->value = new_context(kind);
  if (holder->value != NULL) {
    lua_pushvalue(L, -1);
    lua_setfield(L, lua_upvalueindex(1), kind);
  }
  return holder;
}

/*
 * key.generate(kind) -> key | nil, message, "unsupported" | "limit"
 * kind: "rsa:BITS" (2048 to 8192), "ec:CURVE" ("ec:P-256", "ec:P-384",
 * "ec:P-521"), "ed25519", or another name by which OpenSSL makes a key.
 */
static int l_generate(lua_State *L) {
  const char *kind = luaL_checkstring(L, 1);
  EVP_PKEY **box;
  core_holder *context;
  lua_settop(L, 1);
  box = core_key_new(L);
  if (strncmp(kind, "rsa:", 4) == 0) {
    unsigned long bits = rsa_bits(kind);
    if (bits == 0)
      return core_fail(L, "unsupported",
                       "cannot generate a key of kind '%s': no number of bits",
                       kind);
    if (bits < NEW_RSA_BITS_MIN || bits > NEW_RSA_BITS_MAX)
      return core_fail(L, "limit",
                       "cannot generate a key of kind '%s': not %d to %d bits",
                       kind, NEW_RSA_BITS_MIN, NEW_RSA_BITS_MAX);
  }
  ERR_clear_error();
  context = push_context(L, kind);
  if (context->value == NULL || EVP_PKEY_generate(context->value, box) <= 0)
    return core_fail(L, "unsupported", "cannot generate a key of kind '%s': %s",
                     kind, core_reason());
  lua_settop(L, 2);
  return 1;
}

/* --- files */

static core_secret opt_password(lua_State *L, int index) {
  core_secret secret = {NULL, 0, false, false};
  secret.bytes = luaL_optlstring(L, index, NULL, &secret.length);
  return secret;
}

/*
 * key.load(bytes[, password]) -> key
 *   | nil, message, "parse" | "denied" | "limit"
 * Reads PEM (the first private key in it) or DER; PKCS #8 or traditional.
 * "denied": it is encrypted, and the password is missing or wrong.
 */
static int l_load(lua_State *L) {
  size_t length;
  const char *bytes = luaL_checklstring(L, 1, &length);
  core_secret secret = opt_password(L, 2);
  core_failure why;
  EVP_PKEY **box = core_key_new(L);
  *box = core_key_read(bytes, length, &secret, &why);
  if (*box == NULL)
    return core_fail(L, why.code, "cannot read the private key: %s",
                     why.reason);
  return 1;
}

/*
 * key.open(path[, password]) -> key
 *   | nil, message, "missing" | "denied" | "io" | "parse" | "limit"
 * As key.load, from a regular file whose bytes Lua never sees.
 */
static int l_open(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  core_secret secret = opt_password(L, 2);
  core_failure why;
  EVP_PKEY **box = core_key_new(L);
  int error = core_key_open(path, &secret, box, &why);
  if (error == EINVAL)
    return core_fail(L, "io", "cannot read '%s': not a regular file", path);
  if (error != 0)
    return core_fail_errno(L, error, "read", path);
  if (*box == NULL)
    return core_fail(L, why.code, "cannot read the private key in '%s': %s",
                     path, why.reason);
  return 1;
}

/*
 * key:save(path[, password]) -> true
 *   | nil, message, "exists" | "denied" | "missing" | "io"
 * Writes a new file of mode 0600: PKCS #8 in PEM, with a password PBES2 with
 * AES-256-CBC (RFC 8018).  True once it is on the disk; else there is no file.
 */
static int l_save(lua_State *L) {
  EVP_PKEY *key = core_key_check(L, 1);
  const char *path = luaL_checkstring(L, 2);
  core_secret secret = opt_password(L, 3);
  int error;
  luaL_argcheck(L, secret.bytes == NULL || secret.length > 0, 3,
                "the password is empty");
  luaL_argcheck(L, secret.length <= INT_MAX, 3, "the password is too long");
  ERR_clear_error();
  error = core_key_save(path, key, &secret);
  if (error == EINVAL && ERR_peek_error() != 0)
    return core_fail(L, "io", "cannot write '%s': %s", path, core_reason());
  if (error != 0)
    return core_fail_errno(L, error, "write", path);
  lua_pushboolean(L, 1);
  return 1;
}

/* --- using a key */

static bool key_digest(EVP_PKEY *key, unsigned char digest[32]) {
  X509_PUBKEY *public_key = core_key_public(key);
  bool done = public_key != NULL && core_spki_digest(public_key, digest);
  X509_PUBKEY_free(public_key);
  return done;
}

/* key:fingerprint() -> SHA-256 of the DER SubjectPublicKeyInfo, in hex */
static int l_fingerprint(lua_State *L) {
  EVP_PKEY *key = core_key_check(L, 1);
  unsigned char digest[32];
  if (!key_digest(key, digest))
    return luaL_error(L, "cannot digest a public key: %s", core_reason());
  core_pushhex(L, digest, sizeof digest);
  return 1;
}

static bool encode_public(EVP_PKEY *key, unsigned char *der, size_t *length) {
  X509_PUBKEY *public_key = core_key_public(key);
  int size = public_key != NULL ? i2d_X509_PUBKEY(public_key, NULL) : -1;
  if (size > 0 && der != NULL)
    i2d_X509_PUBKEY(public_key, &der);
  X509_PUBKEY_free(public_key);
  *length = size > 0 ? (size_t)size : 0;
  return size > 0;
}

/* key:public() -> the SubjectPublicKeyInfo as PEM text */
static int l_public(lua_State *L) {
  EVP_PKEY *key = core_key_check(L, 1);
  unsigned char *der;
  size_t length;
  if (!encode_public(key, NULL, &length))
    return luaL_error(L, "cannot encode a public key: %s", core_reason());
  der = lua_newuserdatauv(L, length, 0);
  encode_public(key, der, &length);
  core_push_pem(L, "PUBLIC KEY", der, length);
  return 1;
}

/* key:type() -> "rsa:3072", "ec:P-256", "ed25519" or the like */
static int l_type(lua_State *L) {
  core_push_keytype(L, core_key_check(L, 1));
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
  if (EVP_PKEY_get_default_digest_name(key, required, sizeof required) == 2 &&
      strcmp(required, "UNDEF") == 0)
    return true;
  *digest = EVP_get_digestbyname(name);
  ERR_clear_error();
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
    core_push_keytype(L, key);
    return core_fail(L, "unsupported",
                     "cannot sign with a key of kind '%s': %s",
                     lua_tostring(L, -1), core_reason());
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
  unsigned char digest[32];
  if (*box == NULL || !key_digest(*box, digest)) {
    lua_pushstring(L, *box == NULL ? "key (closed)" : "key (without public)");
    return 1;
  }
  core_push_keytype(L, *box);
  core_pushhex(L, digest, 6);
  lua_pushfstring(L, "key \"%s\" %s", lua_tostring(L, -2), lua_tostring(L, -1));
  return 1;
}

static const luaL_Reg functions[] = {
    {"generate", l_generate}, {"load", l_load}, {"open", l_open}, {NULL, NULL}};

static const luaL_Reg methods[] = {
    {"save", l_save},     {"fingerprint", l_fingerprint},
    {"public", l_public}, {"type", l_type},
    {"bits", l_bits},     {"sign", l_sign},
    {"close", l_close},   {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__gc", l_close},
                                       {"__close", l_close},
                                       {"__tostring", l_tostring},
                                       {NULL, NULL}};

int luaopen_core_key(lua_State *L) {
  core_type(L, CORE_KEY, methods, metamethods);
  luaL_newlib(L, functions);
  lua_newtable(L);
  lua_pushcclosure(L, l_generate, 1);
  lua_setfield(L, -2, "generate");
  return 1;
}
