/*
 * cert.c: core.cert, X.509 certificates: the box, reading and encoding.
 *
 * A certificate is read in a library context without decoders, which leaves
 * its public key alone: most certificates are only listed.  What needs the
 * key decodes it (core_key_decode), what verifies works on a copy
 * (cert_twin).  fields.c, chain.c, verify.c and issue.c are the rest of it.
 */
#include "cert.h"

#include <openssl/err.h>
#include <openssl/provider.h>
#include <string.h>

#define PILE_LIMIT (1024 * 1024) /* bytes that are read as certificates */
#define COUNT_LIMIT 100          /* certificates in one pile */

/* The box */

static int l_gc(lua_State *L) {
  X509 **box = luaL_checkudata(L, 1, CORE_CERT);
  X509_free(*box);
  *box = NULL;
  return 0;
}

static void make_type(lua_State *L);

X509 **core_cert_new(lua_State *L) {
  X509 **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  if (luaL_getmetatable(L, CORE_CERT) == LUA_TNIL) {
    lua_pop(L, 1);
    make_type(L);
    luaL_getmetatable(L, CORE_CERT);
  }
  lua_setmetatable(L, -2);
  return box;
}

X509 *core_cert_check(lua_State *L, int index) {
  X509 **box = luaL_checkudata(L, index, CORE_CERT);
  if (*box == NULL)
    luaL_argerror(L, index, "the certificate has been freed");
  return *box;
}

/* Reading */

/* The context lives as long as the program: certificates point at it. */
static OSSL_LIB_CTX *bare_context(void) {
  static OSSL_LIB_CTX *context = NULL;
  if (context == NULL && (context = OSSL_LIB_CTX_new()) != NULL)
    OSSL_PROVIDER_load(context, "null");
  return context;
}

X509 *core_cert_read(const unsigned char **der, long length) {
  X509 *certificate = X509_new_ex(bare_context(), NULL);
  if (d2i_X509(&certificate, der, length) == NULL) {
    X509_free(certificate);
    return NULL;
  }
  return certificate;
}

X509 *cert_twin(X509 *certificate) {
  unsigned char *der = NULL;
  const unsigned char *at;
  X509 *twin = NULL;
  int length = i2d_X509(certificate, &der);
  at = der;
  if (length > 0)
    twin = d2i_X509(NULL, &at, length);
  OPENSSL_free(der);
  return twin;
}

/* One certificate of a pile: the text between its two marker lines. */
struct block {
  const char *body;
  size_t length;
  bool trusted; /* OpenSSL's own kind, with trust settings after the DER */
};

static const char *find(const char *from, const char *end, const char *text) {
  return memmem(from, (size_t)(end - from), text, strlen(text));
}

static bool is_label(const char *label, size_t length, const char *text) {
  return length == strlen(text) && memcmp(label, text, length) == 0;
}

/* Finds the next certificate in PEM (RFC 7468, section 2) and moves *cursor
 * behind it; blocks of other kinds are passed over where they lie.  1, 0 when
 * there is none, -1 when it has no end.  A block ends before the next begins,
 * so that the search is over after one pass. */
static int next_block(const char **cursor, const char *end,
                      struct block *block) {
  static const char begin[] = "-----BEGIN ", dashes[] = "-----";
  const char *label, *body, *next, *stop;
  char line[96];
  while ((label = find(*cursor, end, begin)) != NULL) {
    size_t length;
    *cursor = label += sizeof begin - 1;
    next = find(label, end, begin);
    next = next != NULL ? next : end;
    body = find(label, next, dashes);
    if (body == NULL || body - label > 64)
      continue;
    length = (size_t)(body - label);
    body += sizeof dashes - 1;
    block->trusted = is_label(label, length, "TRUSTED CERTIFICATE");
    if (!block->trusted && !is_label(label, length, "CERTIFICATE") &&
        !is_label(label, length, "X509 CERTIFICATE"))
      continue;
    memcpy(line, "-----END ", 9);
    memcpy(line + 9, label, length);
    memcpy(line + 9 + length, dashes, sizeof dashes);
    stop = find(body, next, line);
    block->body = body;
    block->length = stop != NULL ? (size_t)(stop - body) : 0;
    return stop != NULL ? 1 : -1;
  }
  return 0;
}

/* Decodes the base64 of a block; the number of bytes, or -1. */
static long decode(const struct block *block, unsigned char *out) {
  EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
  int length = 0, last = 0;
  bool good = context != NULL;
  if (good) {
    EVP_DecodeInit(context);
    good = EVP_DecodeUpdate(context, out, &length,
                            (const unsigned char *)block->body,
                            (int)block->length) >= 0 &&
           EVP_DecodeFinal(context, out + length, &last) == 1;
  }
  EVP_ENCODE_CTX_free(context);
  return good ? length + last : -1;
}

/* Reads all of der as one certificate: NULL, or what was wrong. */
static const char *read_whole(X509 **out, const unsigned char *der, long length,
                              bool more_allowed) {
  const unsigned char *at = der;
  ERR_clear_error();
  *out = core_cert_read(&at, length);
  if (*out == NULL)
    return core_reason();
  ERR_clear_error();
  if (at != der + length && !more_allowed)
    return "bytes after its end";
  return NULL;
}

/* Whether bytes are one DER SEQUENCE from the first to the last. */
static bool is_der(const char *bytes, size_t length) {
  const unsigned char *at = (const unsigned char *)bytes;
  long inner;
  int tag, class, flags;
  if (length == 0)
    return false;
  flags = ASN1_get_object(&at, &inner, &tag, &class, (long)length);
  ERR_clear_error();
  return (flags & 0x80) == 0 && tag == V_ASN1_SEQUENCE &&
         at + inner == (const unsigned char *)bytes + length;
}

/* Appends the certificates of a PEM pile to the table on top; 0, or 3 pushed.
 */
static int read_pile(lua_State *L, const char *bytes, size_t length) {
  const char *cursor = bytes, *end = bytes + length, *reason = NULL;
  int table = lua_gettop(L), found, count = 0;
  unsigned char *der = lua_newuserdatauv(L, length + 3, 0);
  struct block block;
  while ((found = next_block(&cursor, end, &block)) != 0) {
    X509 **box = core_cert_new(L);
    if (++count > COUNT_LIMIT)
      return core_fail(L, "limit",
                       "cannot read certificates: more than %d of them",
                       COUNT_LIMIT);
    if (found < 0) {
      reason = "its END line is missing";
    } else {
      long size = decode(&block, der);
      reason =
          size >= 0 ? read_whole(box, der, size, block.trusted) : "bad base64";
    }
    if (reason != NULL)
      return core_fail(L, "parse", "cannot read certificate %d: %s", count,
                       reason);
    lua_rawseti(L, table, count);
  }
  if (count == 0)
    return core_fail(L, "parse", "cannot read certificates: none is there");
  lua_settop(L, table);
  return 0;
}

/*
 * cert.parse(bytes) -> array of cert | nil, message, "parse" | "limit"
 * Reads one certificate in DER, or all that are in a pile of PEM blocks
 * (RFC 7468) with any text around them; blocks of other kinds, such as a
 * private key, are passed over and never copied.  At most 1 MiB and 100
 * certificates.  One that cannot be read fails the whole pile.
 */
static int l_parse(lua_State *L) {
  size_t length;
  const char *bytes = luaL_checklstring(L, 1, &length);
  lua_settop(L, 1);
  if (length > PILE_LIMIT)
    return core_fail(L, "limit", "cannot read certificates: more than %d bytes",
                     PILE_LIMIT);
  lua_newtable(L);
  if (is_der(bytes, length)) {
    X509 **box = core_cert_new(L);
    const char *reason =
        read_whole(box, (const unsigned char *)bytes, (long)length, false);
    if (reason != NULL)
      return core_fail(L, "parse", "cannot read the certificate: %s", reason);
    lua_rawseti(L, 2, 1);
  } else if (read_pile(L, bytes, length) != 0) {
    return 3;
  }
  return 1;
}

/* Encoding */

const unsigned char *cert_push_der(lua_State *L, X509 *certificate,
                                   size_t *length) {
  int size = i2d_X509(certificate, NULL);
  unsigned char *der, *at;
  if (size <= 0)
    luaL_error(L, "cannot encode the certificate: %s", core_reason());
  at = der = lua_newuserdatauv(L, (size_t)size, 0);
  i2d_X509(certificate, &at);
  *length = (size_t)size;
  return der;
}

void cert_push_digest(lua_State *L, const unsigned char *bytes, size_t length,
                      const EVP_MD *digest) {
  unsigned char hash[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (EVP_Digest(bytes, length, hash, &size, digest, NULL) != 1)
    luaL_error(L, "cannot digest: %s", core_reason());
  core_pushhex(L, hash, size);
}

/* Fetched once: OpenSSL would look it up again at every use. */
const EVP_MD *cert_sha256(void) {
  static EVP_MD *digest = NULL;
  if (digest == NULL)
    digest = EVP_MD_fetch(NULL, "SHA256", NULL);
  return digest != NULL ? digest : EVP_sha256();
}

/* cert:fingerprint([digest = "sha256"]) -> hex of the digest of the DER */
static int l_fingerprint(lua_State *L) {
  X509 *certificate = core_cert_check(L, 1);
  const char *name = luaL_optstring(L, 2, "sha256");
  const EVP_MD *digest =
      strcmp(name, "sha256") == 0 ? cert_sha256() : EVP_get_digestbyname(name);
  size_t length;
  const unsigned char *der;
  luaL_argcheck(L, digest != NULL, 2, "no such digest");
  der = cert_push_der(L, certificate, &length);
  cert_push_digest(L, der, length, digest);
  return 1;
}

/* cert:der() -> bytes */
static int l_der(lua_State *L) {
  size_t length;
  const unsigned char *der = cert_push_der(L, core_cert_check(L, 1), &length);
  lua_pushlstring(L, (const char *)der, length);
  return 1;
}

/* cert:pem() -> text (RFC 7468) */
static int l_pem(lua_State *L) {
  size_t length;
  const unsigned char *der = cert_push_der(L, core_cert_check(L, 1), &length);
  core_push_pem(L, "CERTIFICATE", der, length);
  return 1;
}

/* cert:public_key() -> SHA-256 of the SubjectPublicKeyInfo in hex */
static int l_public_key(lua_State *L) {
  core_push_spki_fingerprint(L, X509_get_X509_PUBKEY(core_cert_check(L, 1)));
  return 1;
}

/* Options */

const char *cert_string_field(lua_State *L, const char *field, size_t *length) {
  int type = lua_getfield(L, 1, field);
  if (type != LUA_TNIL && type != LUA_TSTRING)
    luaL_error(L, "field '%s': string expected, got %s", field,
               luaL_typename(L, -1));
  return lua_tolstring(L, -1, length);
}

bool cert_integer_field(lua_State *L, const char *field, lua_Integer *number) {
  int whole = 0;
  if (lua_getfield(L, 1, field) == LUA_TNIL)
    return false;
  if (lua_type(L, -1) == LUA_TNUMBER)
    *number = lua_tointegerx(L, -1, &whole);
  if (!whole)
    luaL_error(L, "field '%s': whole number expected, got %s", field,
               luaL_typename(L, -1));
  return true;
}

/* Comparing */

static bool same_spki(X509_PUBKEY *one, X509_PUBKEY *other) {
  unsigned char *a = NULL, *b = NULL;
  int length = i2d_X509_PUBKEY(one, &a);
  bool same = length > 0 && i2d_X509_PUBKEY(other, &b) == length &&
              memcmp(a, b, (size_t)length) == 0;
  OPENSSL_free(a);
  OPENSSL_free(b);
  return same;
}

bool cert_has_key(X509 *certificate, EVP_PKEY *key) {
  EVP_PKEY *own = core_key_decode(X509_get_X509_PUBKEY(certificate));
  bool same = own != NULL && EVP_PKEY_eq(own, key) == 1;
  EVP_PKEY_free(own);
  ERR_clear_error();
  return same;
}

/*
 * cert:matches(key_or_request) -> boolean
 * Whether its public key is that of the key or of the request.
 */
static int l_matches(lua_State *L) {
  X509 *certificate = core_cert_check(L, 1);
  EVP_PKEY *key = core_key_test(L, 2);
  bool same;
  if (key != NULL)
    same = cert_has_key(certificate, key);
  else
    same = same_spki(X509_get_X509_PUBKEY(certificate),
                     X509_REQ_get_X509_PUBKEY(core_request_check(L, 2)));
  lua_pushboolean(L, same);
  return 1;
}

/*
 * cert:covers(name) -> boolean
 * Whether a subject alternative name covers a host name or an IP address
 * (RFC 9525, section 6): DNS names regardless of case, "*" only as the whole
 * left-most label before at least two more and for exactly one label, an IP
 * literal only by an iPAddress; never the common name.  A trailing dot of the
 * name means nothing; a wildcard covers itself.
 */
static int l_covers(lua_State *L) {
  X509 *certificate = core_cert_check(L, 1);
  size_t length;
  const char *name = luaL_checklstring(L, 2, &length);
  lua_pushboolean(L, cert_covers(certificate, name, length));
  return 1;
}

/* Two certificates are equal when their DER is. */
static int l_eq(lua_State *L) {
  X509 **one = luaL_testudata(L, 1, CORE_CERT);
  X509 **other = luaL_testudata(L, 2, CORE_CERT);
  bool same = false;
  if (one != NULL && other != NULL && *one != NULL && *other != NULL) {
    size_t length, size;
    const unsigned char *a = cert_push_der(L, *one, &length);
    const unsigned char *b = cert_push_der(L, *other, &size);
    same = length == size && memcmp(a, b, length) == 0;
  }
  lua_pushboolean(L, same);
  return 1;
}

/* cert "mail.contoso.com" until 2027-02-20 */
static int l_tostring(lua_State *L) {
  X509 *certificate = core_cert_check(L, 1);
  cert_push_label(L, certificate);
  cert_push_date(L, X509_get0_notAfter(certificate));
  lua_pushfstring(L, "cert \"%s\" until %s", lua_tostring(L, -2),
                  lua_tostring(L, -1));
  return 1;
}

static const luaL_Reg methods[] = {
    {"covers", l_covers},         {"der", l_der},
    {"fields", cert_fields},      {"fingerprint", l_fingerprint},
    {"matches", l_matches},       {"pem", l_pem},
    {"public_key", l_public_key}, {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__eq", l_eq}, {"__gc", l_gc}, {"__tostring", l_tostring}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"chain", cert_chain},   {"issue", cert_issue}, {"parse", l_parse},
    {"verify", cert_verify}, {NULL, NULL},
};

static void make_type(lua_State *L) {
  core_type(L, CORE_CERT, methods, metamethods);
}

int luaopen_core_cert(lua_State *L) {
  make_type(L);
  luaL_newlib(L, functions);
  return 1;
}
