/*
 * cert.c: core.cert, X.509 certificates: the box, reading and encoding.
 *
 * A certificate is read in a library context without decoders, which leaves
 * its public key alone: most are only listed.  What needs the key decodes it
 * (core_key_decode), what verifies works on copies (cert_push_twins).
 */
#include "cert.h"

#include <openssl/err.h>
#include <openssl/provider.h>
#include <string.h>

#define PILE_LIMIT (1024 * 1024) /* bytes that are read as certificates */

/* Kinds of PEM block (RFC 7468, section 5.1); the last is OpenSSL's own, with
 * trust settings after the DER. */
static const char *const kinds[] = {"CERTIFICATE", "X509 CERTIFICATE",
                                    "TRUSTED CERTIFICATE"};
#define TRUSTED kinds[2]

/* The box */

static int l_gc(lua_State *L) {
  X509 **box = luaL_checkudata(L, 1, CORE_CERT);
  X509_free(*box);
  *box = NULL;
  return 0;
}

X509 **core_cert_new(lua_State *L) {
  X509 **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, CORE_CERT);
  return box;
}

X509 *core_cert_check(lua_State *L, int index) {
  X509 **box = luaL_checkudata(L, index, CORE_CERT);
  if (*box == NULL)
    luaL_argerror(L, index, "the certificate has been freed");
  return *box;
}

void core_push_certificates(lua_State *L, STACK_OF(X509) * list) {
  int i;
  lua_createtable(L, sk_X509_num(list), 0);
  for (i = 1; sk_X509_num(list) > 0; i++) {
    X509 **box = core_cert_new(L);
    *box = sk_X509_shift(list);
    lua_rawseti(L, -2, i);
  }
}

/* Reading */

/* The context lives as long as the program: certificates point at it. */
OSSL_LIB_CTX *core_bare_context(void) {
  static OSSL_LIB_CTX *context = NULL;
  if (context == NULL && (context = OSSL_LIB_CTX_new()) != NULL)
    OSSL_PROVIDER_load(context, "null");
  return context;
}

X509 *core_cert_read(const unsigned char **der, long length) {
  X509 *certificate = X509_new_ex(core_bare_context(), NULL);
  if (d2i_X509(&certificate, der, length) != NULL)
    return certificate;
  X509_free(certificate);
  return NULL;
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
  return at == der + length || more_allowed ? NULL : "bytes after its end";
}

/* The kind of a block of certificates, by its label, or NULL. */
static const char *kind_of(const char *label, size_t length) {
  size_t i;
  for (i = 0; i < COUNT(kinds); i++)
    if (strlen(kinds[i]) == length && strncmp(label, kinds[i], length) == 0)
      return kinds[i];
  return NULL;
}

/* Appends the certificates of a PEM pile to the table at 2, and leaves it on
 * top; or pushes a failure.  Returns how many values there are. */
static int read_pile(lua_State *L, const char *at, const char *end) {
  unsigned char *der = lua_newuserdatauv(L, (size_t)(end - at) + 3, 0);
  const char *label, *kind, *reason;
  size_t length, size;
  int array = lua_gettop(L) - 1, count = 0;
  while (core_next_block(&at, end, &label, &length)) {
    X509 **box;
    if ((kind = kind_of(label, length)) == NULL)
      continue;
    if (++count > CORE_PILE_LIMIT)
      return core_fail(L, "limit",
                       "cannot read certificates: more than %d of them",
                       CORE_PILE_LIMIT);
    box = core_cert_new(L);
    reason = core_read_block(at, end, label, length, der, &size);
    if (reason == NULL)
      reason = read_whole(box, der, (long)size, kind == TRUSTED);
    if (reason != NULL)
      return core_fail(L, "parse", "cannot read certificate %d: %s", count,
                       reason);
    lua_rawseti(L, array, count);
  }
  if (count == 0)
    return core_fail(L, "parse", "cannot read certificates: none is there");
  lua_settop(L, array);
  return 1;
}

/* Pushes an array of what the bytes at index hold, or nil, message, code. */
static int parse(lua_State *L, int index) {
  const char *reason, *bytes;
  struct cert_span whole, inside;
  size_t length;
  core_check_bytes(L, index, &length);
  if (length > PILE_LIMIT)
    return core_fail(L, "limit", "cannot read certificates: more than %d bytes",
                     PILE_LIMIT);
  bytes = core_push_plain(L, index, &length);
  whole.at = (const unsigned char *)bytes;
  whole.end = whole.at + length;
  lua_newtable(L);
  if (cert_take(&whole, &inside) != V_ASN1_SEQUENCE || whole.at != whole.end)
    return read_pile(L, bytes, bytes + length);
  reason = read_whole(core_cert_new(L), (const unsigned char *)bytes,
                      (long)length, false);
  if (reason != NULL)
    return core_fail(L, "parse", "cannot read the certificate: %s", reason);
  lua_rawseti(L, -2, 1);
  return 1;
}

/*
 * cert.parse(bytes) -> array of cert | nil, message, "parse" | "limit"
 * Reads one certificate in DER, or all that are in a pile of PEM blocks
 * (RFC 7468) with any text around them, as UTF-8 or UTF-16; base64 alone, too;
 * blocks of other kinds, such as a private key, are passed over and never
 * copied.  A string or a secret (see file.secret) of at most 1 MiB and 100
 * certificates.  One that cannot be read fails the whole pile.
 */
static int l_parse(lua_State *L) {
  return parse(L, 1);
}

/*
 * cert.open(path) -> array of cert
 *   | nil, message, "parse" | "limit" | "missing" | "denied" | "io"
 * The same from a regular file, or from standard input when path is "-"; what
 * else is in it, such as a key, never reaches Lua.
 */
static int l_open(lua_State *L) {
  const char *path = core_check_path(L, 1);
  if (!core_push_secret(L, path, PILE_LIMIT))
    return 3;
  if (parse(L, lua_gettop(L)) == 1)
    return 1;
  lua_pushfstring(L, "'%s': %s", path, lua_tostring(L, -2));
  lua_replace(L, -3);
  return 3;
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

/* cert:fingerprint([digest = "sha256"]) -> hex of the digest of the DER */
static int l_fingerprint(lua_State *L) {
  X509 *certificate = core_cert_check(L, 1);
  const char *name = luaL_optstring(L, 2, "sha256");
  const EVP_MD *digest = EVP_get_digestbyname(name);
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

static bool same_spki(lua_State *L, X509_PUBKEY *one, X509_PUBKEY *other) {
  core_push_spki_fingerprint(L, one);
  core_push_spki_fingerprint(L, other);
  return lua_rawequal(L, -2, -1);
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
  lua_pushboolean(
      L, key != NULL
             ? cert_has_key(certificate, key)
             : same_spki(L, X509_get_X509_PUBKEY(certificate),
                         X509_REQ_get_X509_PUBKEY(core_request_check(L, 2))));
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
  size_t length;
  const char *name = luaL_checklstring(L, 2, &length);
  lua_pushboolean(L, cert_covers(core_cert_check(L, 1), name, length, true));
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
  char date[CERT_DATE_SIZE];
  cert_date(date, X509_get0_notAfter(certificate));
  lua_pushfstring(L, "cert \"%s\" until %s", cert_push_label(L, certificate),
                  date);
  return 1;
}

static const luaL_Reg methods[] = {
    {"covers", l_covers},
    {"der", l_der},
    {"extensions", cert_extensions},
    {"fields", cert_fields},
    {"fingerprint", l_fingerprint},
    {"matches", l_matches},
    {"pem", l_pem},
    {"public_key", l_public_key},
    {NULL, NULL},
};

static const luaL_Reg metamethods[] = {
    {"__eq", l_eq}, {"__gc", l_gc}, {"__tostring", l_tostring}, {NULL, NULL}};

static const luaL_Reg functions[] = {
    {"chain", cert_chain}, {"issue", cert_issue}, {"issue_crl", cert_issue_crl},
    {"open", l_open},      {"parse", l_parse},    {"verify", cert_verify},
    {NULL, NULL},
};

int luaopen_core_cert(lua_State *L) {
  core_type(L, CORE_CERT, methods, metamethods);
  luaL_newlib(L, functions);
  return 1;
}
