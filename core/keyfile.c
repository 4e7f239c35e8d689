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
#include <sys/stat.h>
#include <unistd.h>

#define BYTES_LIMIT (1024 * 1024) /* of what a key is read from */
#define RSA_BITS_LIMIT 16384      /* OpenSSL verifies with none above */
#define ITERATIONS 600000 /* PBKDF2 with HMAC-SHA-256, as OWASP asks for */

typedef struct {
  const char *bytes; /* NULL: none was given */
  size_t length;
  bool asked;                /* something was encrypted */
  bool unsupported;          /* in a way unknown to OpenSSL */
  const char *code, *reason; /* why there is no key */
} password;

static password opt_password(lua_State *L, int index) {
  password secret = {0};
  secret.bytes = luaL_optlstring(L, index, NULL, &secret.length);
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

/* Whether OpenSSL's first error is about the way of encryption. */
static bool unsupported(void) {
  unsigned long error = ERR_peek_error();
  int reason = ERR_GET_REASON(error);
  return reason == ERR_R_UNSUPPORTED ||
         (ERR_GET_LIB(error) == ERR_LIB_EVP &&
          (reason == EVP_R_UNKNOWN_PBE_ALGORITHM ||
           reason == EVP_R_UNSUPPORTED_CIPHER ||
           reason == EVP_R_UNSUPPORTED_PRF));
}

/* Any private key, or EncryptedPrivateKeyInfo (RFC 5958, section 3). */
static EVP_PKEY *from_der(const unsigned char *der, long length,
                          password *secret) {
  const unsigned char *p = der;
  X509_SIG *sealed = d2i_X509_SIG(NULL, &p, length);
  PKCS8_PRIV_KEY_INFO *info = NULL;
  EVP_PKEY *key = NULL;
  ERR_clear_error();
  p = der;
  if (sealed == NULL)
    return d2i_AutoPrivateKey(NULL, &p, length);
  secret->asked = true;
  if (secret->bytes != NULL && secret->length <= INT_MAX) {
    info = PKCS8_decrypt(sealed, secret->bytes, (int)secret->length);
    secret->unsupported = info == NULL && unsupported();
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
  if (secret->asked && secret->bytes == NULL)
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
  if (length > BYTES_LIMIT) {
    refuse(secret, "limit", "more than 1 MiB");
    return NULL;
  }
  bytes = core_skip_mark(bytes, &length);
  if (length > 0 && bytes[0] == 0x30)
    key = from_der((const unsigned char *)bytes, (long)length, secret);
  if (key == NULL && !secret->asked)
    key = from_pem(bytes, length, secret, &found);
  if (key == NULL) {
    explain(secret, found);
  } else if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA &&
             EVP_PKEY_get_bits(key) > RSA_BITS_LIMIT) {
    refuse(secret, "limit", "an RSA key of more than 16384 bits");
    EVP_PKEY_free(key);
    key = NULL;
  }
  ERR_clear_error();
  return key;
}

/*
 * key.load(bytes[, password]) -> key
 *   | nil, message, "parse" | "denied" | "limit"
 * Reads PEM (the first private key in it) or DER, a string or a secret (see
 * file.secret); PKCS #8 or traditional.  "denied": it is encrypted, and the
 * password is missing or wrong.
 */
int core_key_load(lua_State *L) {
  size_t length;
  const char *bytes = core_check_bytes(L, 1, &length);
  password secret = opt_password(L, 2);
  EVP_PKEY **box = core_key_new(L);
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
  EVP_PKEY **box = core_key_new(L);
  core_secret *text;
  if (!core_push_secret(L, path, BYTES_LIMIT))
    return 3;
  text = lua_touserdata(L, -1);
  *box = read_key(text->bytes, text->length, &secret);
  OPENSSL_cleanse(text->bytes, text->length);
  if (*box == NULL)
    return core_fail(L, secret.code, "cannot read the private key in '%s': %s",
                     path, secret.reason);
  lua_pop(L, 1);
  return 1;
}

/* --- writing a key */

static bool put_pem(BIO *text, EVP_PKEY *key, const password *secret) {
  PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
  X509_SIG *sealed = NULL;
  bool done = false;
  if (info != NULL && secret->bytes == NULL) {
    done = PEM_write_bio_PKCS8_PRIV_KEY_INFO(text, info);
  } else if (info != NULL) {
    sealed = PKCS8_encrypt(-1, EVP_aes_256_cbc(), secret->bytes,
                           (int)secret->length, NULL, 16, ITERATIONS, info);
    done = sealed != NULL && PEM_write_bio_PKCS8(text, sealed);
  }
  X509_SIG_free(sealed);
  PKCS8_PRIV_KEY_INFO_free(info);
  return done;
}

/* 0, or an errno value; EINVAL: OpenSSL cannot encode the key. */
static int write_pem(int descriptor, EVP_PKEY *key, const password *secret) {
  BIO *text = BIO_new(BIO_s_secmem());
  char *bytes;
  long left;
  int error = 0;
  if (text == NULL)
    return ENOMEM;
  if (!put_pem(text, key, secret))
    error = EINVAL;
  left = BIO_get_mem_data(text, &bytes);
  if (error == 0)
    error = core_write(descriptor, bytes, (size_t)left);
  BIO_free(text);
  return error;
}

int core_key_write(int descriptor, EVP_PKEY *key) {
  return write_pem(descriptor, key, &(password){0});
}

static int save_key(const char *path, EVP_PKEY *key, const password *secret) {
  int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  int error, descriptor = open(path, flags, 0600);
  if (descriptor < 0)
    return errno;
  error = core_errno(fchmod(descriptor, 0600));
  if (error == 0)
    error = write_pem(descriptor, key, secret);
  error = core_finish(descriptor, error);
  if (error == 0)
    error = core_sync_parent(path);
  if (error != 0)
    unlink(path);
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
