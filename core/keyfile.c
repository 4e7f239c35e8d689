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
    return d2i_AutoPrivateKey(NULL, &p, length);
  secret->asked = true;
  X509_SIG_get0(sealed, &algorithm, NULL);
  secret->slow = core_pbe_seconds(algorithm) > CORE_PBE_LIMIT;
  if (!secret->slow && secret->bytes != NULL && secret->length <= INT_MAX) {
    info = PKCS8_decrypt(sealed, secret->bytes, (int)secret->length);
    secret->unsupported = info == NULL && core_pbe_unsupported();
  }
  if (info != NULL)
    key = EVP_PKCS82PKEY(info);
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

static void refuse(password *secret, const char *code, const char *reason) {
  secret->code = code;
  secret->reason = reason;
}

/* Says why OpenSSL made no key of what it was given. */
static void explain(password *secret, bool found) {
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

const char *core_key_refusal(EVP_PKEY *key) {
  return EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA &&
                 EVP_PKEY_get_bits(key) > RSA_BITS_LIMIT
             ? "an RSA key of more than 16384 bits"
             : NULL;
}

/* A private key from PEM or DER, to be freed; or NULL, and why in secret. */
static EVP_PKEY *read_key(const char *bytes, size_t length, password *secret) {
  EVP_PKEY *key = NULL;
  bool found = false;
  if (length > 0 && bytes[0] == 0x30)
    key = from_der((const unsigned char *)bytes, (long)length, secret);
  if (key == NULL && !secret->asked)
    key = from_pem(bytes, length, secret, &found);
  if (key == NULL) {
    explain(secret, found);
  } else if (core_key_refusal(key) != NULL) {
    refuse(secret, "limit", core_key_refusal(key));
    EVP_PKEY_free(key);
    key = NULL;
  }
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
