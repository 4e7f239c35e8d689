/*
 * keyfile.c: the part of core.key that reads private keys and writes them to
 * files.
 *
 * Buffers that held a secret are cleansed before they are freed; nobody is ever
 * asked for a password.
 */
#include "core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <string.h>

#define BYTES_LIMIT (1024 * 1024) /* of what a key is read from */
#define RSA_BITS_LIMIT 16384      /* OpenSSL verifies with none above */
#define KEY_LIMIT (16 * 1024) /* of PKCS #8; the longest RSA key has 9,300 */
#define LONG "a key of more than 16384 bits"
#define IDLE "a DSA or DH key, which serves no TLS"
#define ITERATIONS 600000 /* PBKDF2 with HMAC-SHA-256, as OWASP asks for */

typedef struct {
  const char *bytes; /* NULL: none was given */
  size_t length;
  bool asked;                /* something was encrypted */
  bool unsupported;          /* in a way unknown to OpenSSL */
  bool slow;                 /* beyond CORE_PBE_LIMIT */
  const char *code, *reason; /* why there is no key */
} password;

static password opt_password(lua_State *L, int index) {
  password secret = {0};
  if (!lua_isnoneornil(L, index))
    secret.bytes = core_check_bytes(L, index, &secret.length);
  return secret;
}

/* --- reading a key */

static void refuse(password *secret, const char *code, const char *reason) {
  secret->code = code;
  secret->reason = reason;
}

/* Kinds of key that serve no TLS, and whose public half OpenSSL computes while
 * it reads them, which takes minutes for a long one. */
static bool is_idle(int kind) {
  return kind == NID_dsa || kind == NID_dsa_2 || kind == NID_dhKeyAgreement ||
         kind == NID_dhpublicnumber;
}

/* Why a key that was read is not used; NULL: it is. */
static const char *refusal(EVP_PKEY *key, const char **code) {
  int kind = EVP_PKEY_get_base_id(key);
  *code = is_idle(kind) ? "parse" : "limit";
  if (is_idle(kind))
    return IDLE;
  return kind == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) > RSA_BITS_LIMIT
             ? "an RSA key of more than 16384 bits"
             : NULL;
}

EVP_PKEY *core_key_take(const PKCS8_PRIV_KEY_INFO *info, const char **code,
                        const char **reason) {
  const ASN1_OBJECT *kind;
  EVP_PKEY *key;
  *reason = NULL;
  *code = "parse";
  PKCS8_pkey_get0(&kind, NULL, NULL, NULL, info);
  if (is_idle(OBJ_obj2nid(kind)))
    *reason = IDLE;
  else if (i2d_PKCS8_PRIV_KEY_INFO(info, NULL) > KEY_LIMIT) {
    *code = "limit";
    *reason = LONG;
  }
  key = *reason == NULL ? EVP_PKCS82PKEY(info) : NULL;
  if (key != NULL)
    *reason = refusal(key, code);
  if (key == NULL || *reason == NULL)
    return key;
  EVP_PKEY_free(key);
  return NULL;
}

/* A pem_password_cb; never a prompt. */
static int give_password(char *buffer, int size, int writing, void *data) {
  password *secret = data;
  (void)writing;
  secret->asked = true;
  if (secret->bytes == NULL || secret->length > (size_t)size)
    return -1;
  memcpy(buffer, secret->bytes, secret->length);
  return (int)secret->length;
}

/* PKCS #8 (RFC 5958), or one of the traditional forms. */
static EVP_PKEY *from_plain_der(const unsigned char *der, long length,
                                password *secret) {
  const unsigned char *p = der;
  PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, length);
  EVP_PKEY *key = NULL;
  ERR_clear_error();
  p = der;
  if (info != NULL)
    key = core_key_take(info, &secret->code, &secret->reason);
  else if (length > KEY_LIMIT)
    refuse(secret, "limit", LONG);
  else if ((key = d2i_AutoPrivateKey(NULL, &p, length)) != NULL)
    secret->reason = refusal(key, &secret->code);
  PKCS8_PRIV_KEY_INFO_free(info);
  if (key == NULL || secret->reason == NULL)
    return key;
  EVP_PKEY_free(key);
  return NULL;
}

/* Any private key, or EncryptedPrivateKeyInfo (RFC 5958, section 3). */
static EVP_PKEY *from_der(const unsigned char *der, long length,
                          password *secret) {
  const unsigned char *p = der;
  X509_SIG *sealed = d2i_X509_SIG(NULL, &p, length);
  const X509_ALGOR *algorithm;
  PKCS8_PRIV_KEY_INFO *info = NULL;
  EVP_PKEY *key = NULL;
  ERR_clear_error();
  p = der;
  if (sealed == NULL)
    return from_plain_der(der, length, secret);
  secret->asked = true;
  X509_SIG_get0(sealed, &algorithm, NULL);
  secret->slow = core_pbe_seconds(algorithm) > CORE_PBE_LIMIT;
  if (!secret->slow && secret->bytes != NULL && secret->length <= INT_MAX) {
    info = PKCS8_decrypt(sealed, secret->bytes, (int)secret->length);
    secret->unsupported = info == NULL && core_pbe_unsupported();
  }
  if (info != NULL)
    key = core_key_take(info, &secret->code, &secret->reason);
  PKCS8_PRIV_KEY_INFO_free(info);
  X509_SIG_free(sealed);
  return key;
}

/* The first private key of a PEM text; found says whether there is a block. */
static EVP_PKEY *from_pem(const char *bytes, size_t length, password *secret,
                          bool *found) {
  BIO *text = BIO_new_mem_buf(bytes, (int)length);
  EVP_PKEY *key = NULL;
  char *name, *header;
  unsigned char *der;
  long size;
  while (!*found &&
         PEM_read_bio_ex(text, &name, &header, &der, &size,
                         PEM_FLAG_SECURE | PEM_FLAG_EAY_COMPATIBLE)) {
    long plain = size;
    EVP_CIPHER_INFO cipher;
    const char *kind = strstr(name, "PRIVATE KEY");
    *found = kind != NULL && strcmp(kind, "PRIVATE KEY") == 0;
    if (*found && PEM_get_EVP_CIPHER_INFO(header, &cipher) &&
        PEM_do_header(&cipher, der, &plain, give_password, secret))
      key = from_der(der, plain, secret);
    OPENSSL_secure_free(name);
    OPENSSL_secure_free(header);
    OPENSSL_secure_clear_free(der, (size_t)size);
  }
  BIO_free(text);
  return key;
}

/* Says why OpenSSL made no key of what it was given. */
static void explain(password *secret, bool found) {
  if (secret->reason != NULL)
    return;
  if (secret->slow)
    refuse(secret, "limit", CORE_PBE_REASON);
  else if (secret->asked && secret->bytes == NULL)
    refuse(secret, "denied", "it is encrypted and no password was given");
  else if (secret->unsupported)
    refuse(secret, "parse", "its encryption is unsupported");
  else if (secret->asked)
    refuse(secret, "denied", "wrong password");
  else if (found)
    refuse(secret, "parse", "malformed, or of an unsupported kind");
  else
    refuse(secret, "parse", "no private key in PEM or DER");
}

/* A private key from PEM or DER, to be freed; or NULL, and why in secret. */
static EVP_PKEY *read_key(const char *bytes, size_t length, password *secret) {
  EVP_PKEY *key = NULL;
  bool found = false;
  if (length > 0 && bytes[0] == 0x30)
    key = from_der((const unsigned char *)bytes, (long)length, secret);
  if (key == NULL && !secret->asked && secret->reason == NULL)
    key = from_pem(bytes, length, secret, &found);
  if (key == NULL)
    explain(secret, found);
  ERR_clear_error();
  return key;
}

/*
 * key.load(bytes[, password]) -> key
 *   | nil, message, "parse" | "denied" | "limit"
 * Reads PEM (the first private key in it, as UTF-8 or UTF-16), DER, or its
 * base64 alone; PKCS #8 or traditional.  Both arguments are a string or a
 * secret (see file.secret).  "denied": it is encrypted, and the password is
 * missing or wrong.  "limit": over 1 MiB or 16384 bits, or an iteration count
 * that would take over 2 seconds.
 */
int core_key_load(lua_State *L) {
  size_t length;
  const char *bytes = core_check_bytes(L, 1, &length);
  password secret = opt_password(L, 2);
  EVP_PKEY **box;
  if (length > BYTES_LIMIT)
    return core_fail(L, "limit",
                     "cannot read the private key: more than 1 MiB");
  bytes = core_push_plain(L, 1, &length);
  box = core_key_new(L);
  *box = read_key(bytes, length, &secret);
  if (*box != NULL)
    return 1;
  return core_fail(L, secret.code, "cannot read the private key: %s",
                   secret.reason);
}

/*
 * key.open(path[, password]) -> key
 *   | nil, message, "missing" | "denied" | "io" | "parse" | "limit"
 * As key.load, from a regular file whose bytes Lua never sees.
 */
int core_key_open(lua_State *L) {
  const char *path = core_check_path(L, 1);
  password secret = opt_password(L, 2);
  const char *bytes;
  core_secret *text;
  EVP_PKEY **box;
  size_t length;
  if (!core_push_secret(L, path, BYTES_LIMIT))
    return 3;
  text = lua_touserdata(L, -1);
  bytes = core_push_plain(L, -1, &length);
  box = core_key_new(L);
  *box = read_key(bytes, length, &secret);
  OPENSSL_cleanse(text->bytes, text->length);
  if (*box == NULL)
    return core_fail(L, secret.code, "cannot read the private key in '%s': %s",
                     path, secret.reason);
  return 1;
}

/* --- writing a key */

/* PKCS #8 in PEM, to be freed, or NULL. */
static BIO *encode(EVP_PKEY *key, const password *secret) {
  PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
  BIO *text = BIO_new(BIO_s_secmem());
  X509_SIG *sealed = NULL;
  bool done = false;
  if (info != NULL && text != NULL && secret->bytes == NULL) {
    done = PEM_write_bio_PKCS8_PRIV_KEY_INFO(text, info);
  } else if (info != NULL && text != NULL) {
    sealed = PKCS8_encrypt(-1, EVP_aes_256_cbc(), secret->bytes,
                           (int)secret->length, NULL, 16, ITERATIONS, info);
    done = sealed != NULL && PEM_write_bio_PKCS8(text, sealed);
  }
  X509_SIG_free(sealed);
  PKCS8_PRIV_KEY_INFO_free(info);
  if (done)
    return text;
  BIO_free(text);
  return NULL;
}

int core_key_write(int descriptor, EVP_PKEY *key) {
  BIO *text = encode(key, &(password){0});
  char *bytes;
  long length = text != NULL ? BIO_get_mem_data(text, &bytes) : 0;
  int error = EINVAL;
  if (text != NULL)
    error = core_write(descriptor, bytes, (size_t)length);
  BIO_free(text);
  return error;
}

static int save_key(const char *path, EVP_PKEY *key, const password *secret) {
  const core_access access = {0600, (uid_t)-1, (gid_t)-1};
  BIO *text = encode(key, secret);
  core_part part = {NULL, NULL, 0};
  const char *name;
  int folder, error = EINVAL;
  if (text != NULL && (folder = core_open_parent(path, &name)) >= 0) {
    part.length = (size_t)BIO_get_mem_data(text, (char **)&part.bytes);
    error = core_write_file(folder, name, &access, &part, 1);
    error = core_finish(folder, error);
  } else if (text != NULL) {
    error = errno;
  }
  BIO_free(text);
  return error;
}

/*
 * key:save(path[, password]) -> true
 *   | nil, message, "exists" | "denied" | "missing" | "io"
 * Writes a new file of mode 0600: PKCS #8 in PEM, with a password PBES2 with
 * AES-256-CBC (RFC 8018).  True once it is on the disk; else there is no file.
 */
int core_key_save(lua_State *L) {
  EVP_PKEY *key = core_key_check(L, 1);
  const char *path = luaL_checkstring(L, 2);
  password secret = opt_password(L, 3);
  int error;
  luaL_argcheck(L, secret.bytes == NULL || secret.length > 0, 3,
                "the password is empty");
  luaL_argcheck(L, secret.length <= INT_MAX, 3, "the password is too long");
  ERR_clear_error();
  error = save_key(path, key, &secret);
  if (error == EINVAL && ERR_peek_error() != 0)
    return core_fail(L, "io", "cannot write '%s': %s", path, core_reason());
  if (error != 0)
    return core_fail_errno(L, error, "write", path);
  lua_pushboolean(L, 1);
  return 1;
}
