/*
 * keyfile.c: private keys from bytes and files, and into files.
 *
 * Nothing here knows Lua.  Buffers that held a secret are cleansed before they
 * are freed; nobody is ever asked for a password.
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

/* --- reading a key */

/* A pem_password_cb; never a prompt. */
static int give_password(char *buffer, int size, int writing, void *data) {
  core_secret *secret = data;
  (void)writing;
  secret->asked = true;
  if (secret->bytes == NULL || secret->length > (size_t)size)
    return -1;
  memcpy(buffer, secret->bytes, secret->length);
  return (int)secret->length;
}

/* Whether OpenSSL's first error is about the way of encryption, and so not
 * about the password. */
static bool unsupported(void) {
  unsigned long error = ERR_peek_error();
  int reason = ERR_GET_REASON(error);
  return reason == ERR_R_UNSUPPORTED ||
         (ERR_GET_LIB(error) == ERR_LIB_EVP &&
          (reason == EVP_R_UNKNOWN_PBE_ALGORITHM ||
           reason == EVP_R_UNSUPPORTED_CIPHER ||
           reason == EVP_R_UNSUPPORTED_PRF));
}

/* EncryptedPrivateKeyInfo (RFC 5958, section 3). */
static EVP_PKEY *from_sealed(const X509_SIG *sealed, core_secret *secret) {
  EVP_PKEY *key = NULL;
  PKCS8_PRIV_KEY_INFO *info = NULL;
  secret->asked = true;
  if (secret->bytes != NULL && secret->length <= INT_MAX)
    info = PKCS8_decrypt(sealed, secret->bytes, (int)secret->length);
  if (info != NULL)
    key = EVP_PKCS82PKEY(info);
  else
    secret->unsupported = unsupported();
  PKCS8_PRIV_KEY_INFO_free(info);
  return key;
}

static EVP_PKEY *from_der(const unsigned char *der, long length,
                          core_secret *secret) {
  const unsigned char *p = der;
  EVP_PKEY *key;
  X509_SIG *sealed = d2i_X509_SIG(NULL, &p, length);
  ERR_clear_error();
  p = der;
  key = sealed != NULL ? from_sealed(sealed, secret)
                       : d2i_AutoPrivateKey(NULL, &p, length);
  X509_SIG_free(sealed);
  return key;
}

/* The first private key of a PEM text; found says whether there is a block. */
static EVP_PKEY *from_pem(BIO *text, core_secret *secret, bool *found) {
  static const char kind[] = "PRIVATE KEY";
  EVP_PKEY *key = NULL;
  char *name, *header;
  unsigned char *der;
  long size;
  while (!*found &&
         PEM_read_bio_ex(text, &name, &header, &der, &size,
                         PEM_FLAG_SECURE | PEM_FLAG_EAY_COMPATIBLE)) {
    size_t length = strlen(name);
    long plain = size;
    EVP_CIPHER_INFO cipher;
    if (length >= sizeof kind - 1 &&
        strcmp(name + length - (sizeof kind - 1), kind) == 0) {
      *found = true;
      if (PEM_get_EVP_CIPHER_INFO(header, &cipher) &&
          PEM_do_header(&cipher, der, &plain, give_password, secret))
        key = from_der(der, plain, secret);
    }
    OPENSSL_secure_free(name);
    OPENSSL_secure_free(header);
    OPENSSL_secure_clear_free(der, (size_t)size);
  }
  return key;
}

/* Says why OpenSSL made no key of what it was given. */
static core_failure explain(const core_secret *secret, bool found) {
  if (secret->asked && secret->bytes == NULL)
    return (core_failure){"denied",
                          "it is encrypted and no password was given"};
  if (secret->unsupported)
    return (core_failure){"parse", "its encryption is unsupported"};
  if (secret->asked)
    return (core_failure){"denied", "wrong password"};
  if (!found)
    return (core_failure){"parse", "no private key in PEM or DER"};
  return (core_failure){"parse", "malformed, or of an unsupported kind"};
}

EVP_PKEY *core_key_read(const char *bytes, size_t length, core_secret *secret,
                        core_failure *why) {
  EVP_PKEY *key = NULL;
  BIO *text;
  bool found = false;
  ERR_clear_error();
  bytes = core_skip_mark(bytes, &length);
  if (length > BYTES_LIMIT) {
    *why = (core_failure){"limit", "more than 1 MiB"};
    return NULL;
  }
  if (length > 0 && bytes[0] == 0x30)
    key = from_der((const unsigned char *)bytes, (long)length, secret);
  if (key == NULL && !secret->asked) {
    text = BIO_new_mem_buf(bytes, (int)length);
    if (text != NULL)
      key = from_pem(text, secret, &found);
    BIO_free(text);
  }
  if (key == NULL) {
    *why = explain(secret, found);
  } else if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA &&
             EVP_PKEY_get_bits(key) > RSA_BITS_LIMIT) {
    *why = (core_failure){"limit", "an RSA key of more than 16384 bits"};
    EVP_PKEY_free(key);
    key = NULL;
  }
  ERR_clear_error();
  return key;
}

/* Reads a regular file into bytes, which holds one more than the limit; sets
 * its length.  0, or an errno value; EINVAL: it is not a regular file. */
static int read_file(const char *path, char *bytes, size_t *length) {
  struct stat status;
  ssize_t n = 1;
  int error = 0;
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  *length = 0;
  if (descriptor < 0)
    return errno;
  if (fstat(descriptor, &status) != 0)
    error = errno;
  else if (!S_ISREG(status.st_mode))
    error = EINVAL;
  while (error == 0 && n > 0 && *length <= BYTES_LIMIT) {
    n = read(descriptor, bytes + *length, BYTES_LIMIT + 1 - *length);
    if (n > 0)
      *length += (size_t)n;
    else if (n < 0 && errno != EINTR)
      error = errno;
  }
  close(descriptor);
  return error;
}

/* 0 with a key or the reason why there is none, or an errno value. */
int core_key_open(const char *path, core_secret *secret, EVP_PKEY **key,
                  core_failure *why) {
  size_t length;
  char *bytes = OPENSSL_malloc(BYTES_LIMIT + 1);
  int error = bytes != NULL ? read_file(path, bytes, &length) : ENOMEM;
  if (error == 0)
    *key = core_key_read(bytes, length, secret, why);
  if (bytes != NULL)
    OPENSSL_cleanse(bytes, length);
  OPENSSL_free(bytes);
  return error;
}

/* --- writing a key */

static bool put_pem(BIO *text, EVP_PKEY *key, const core_secret *secret) {
  PKCS8_PRIV_KEY_INFO *info = EVP_PKEY2PKCS8(key);
  X509_SIG *sealed = NULL;
  bool done = false;
  if (info == NULL)
    goto out;
  if (secret->bytes == NULL) {
    done = PEM_write_bio_PKCS8_PRIV_KEY_INFO(text, info);
    goto out;
  }
  sealed = PKCS8_encrypt(-1, EVP_aes_256_cbc(), secret->bytes,
                         (int)secret->length, NULL, 16, ITERATIONS, info);
  done = sealed != NULL && PEM_write_bio_PKCS8(text, sealed);
out:
  X509_SIG_free(sealed);
  PKCS8_PRIV_KEY_INFO_free(info);
  return done;
}

/* 0, or an errno value; EINVAL: OpenSSL cannot encode the key. */
static int write_pem(int descriptor, EVP_PKEY *key, const core_secret *secret) {
  BIO *text = BIO_new(BIO_s_secmem());
  char *bytes;
  long left;
  int error = 0;
  if (text == NULL)
    return ENOMEM;
  if (!put_pem(text, key, secret))
    error = EINVAL;
  left = BIO_get_mem_data(text, &bytes);
  while (error == 0 && left > 0) {
    ssize_t n = write(descriptor, bytes, (size_t)left);
    if (n < 0 && errno != EINTR)
      error = errno;
    bytes += n > 0 ? n : 0;
    left -= n > 0 ? n : 0;
  }
  BIO_free(text);
  return error;
}

int core_key_write(int descriptor, EVP_PKEY *key) {
  const core_secret none = {NULL, 0, false, false};
  return write_pem(descriptor, key, &none);
}

/* Makes the name of a new file durable. */
static int sync_folder(const char *path) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  size_t length = slash == NULL ? 0 : (size_t)(slash - path);
  int descriptor, error = 0;
  if (length >= sizeof folder)
    return ENAMETOOLONG;
  memcpy(folder, path, length);
  folder[length] = '\0';
  if (length == 0)
    strcpy(folder, slash == NULL ? "." : "/");
  descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0)
    return errno;
  if (fsync(descriptor) != 0 && errno != EINVAL)
    error = errno;
  close(descriptor);
  return error;
}

int core_key_save(const char *path, EVP_PKEY *key, const core_secret *secret) {
  int error = 0;
  int descriptor =
      open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (descriptor < 0)
    return errno;
  if (fchmod(descriptor, 0600) != 0)
    error = errno;
  if (error == 0)
    error = write_pem(descriptor, key, secret);
  if (error == 0 && fsync(descriptor) != 0)
    error = errno;
  if (close(descriptor) != 0 && error == 0)
    error = errno;
  if (error == 0)
    error = sync_folder(path);
  if (error != 0)
    unlink(path);
  return error;
}
