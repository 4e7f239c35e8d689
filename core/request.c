/*
 * request.c: core.request, PKCS #10 signing requests (RFC 2986): made, signed
 * and read.  A box owns one X509_REQ.  Whether what a request asks for is right
 * is nobody's business here.
 */
#include "core.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>

#define BYTES_LIMIT (1024 * 1024) /* of what a request is read from */

static X509_REQ **new_box(lua_State *L) {
  X509_REQ **box = lua_newuserdatauv(L, sizeof *box, 1); /* its DER, if made */
  *box = NULL;
  luaL_setmetatable(L, CORE_REQUEST);
  return box;
}

X509_REQ *core_request_check(lua_State *L, int index) {
  X509_REQ **box = luaL_checkudata(L, index, CORE_REQUEST);
  luaL_argcheck(L, *box != NULL, index, "the request is closed");
  return *box;
}

/* --- making one */

static const char *opt_digest(lua_State *L) {
  int type = lua_getfield(L, 1, "digest");
  luaL_argcheck(L, type == LUA_TNIL || type == LUA_TSTRING, 1,
                "field 'digest' must be a string");
  return type == LUA_TNIL ? "sha256" : lua_tostring(L, -1);
}

/* Beside what is signed: two headers, the algorithm and the signature's own. */
#define ALGORITHM_LIMIT 160
#define FRAME 32

/* A request while it is signed: what stands in its DER, one after the other. */
struct signing {
  unsigned char algorithm[ALGORITHM_LIMIT];
  size_t algorithm_length, signature_length;
  unsigned char *signed_part, *signature; /* the latter has room for any */
  int signed_length;
};

static bool sign(struct signing *s, EVP_PKEY *key, const EVP_MD *digest) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  EVP_PKEY_CTX *inner;
  OSSL_PARAM wanted[] = {
      OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID, s->algorithm,
                              sizeof s->algorithm),
      OSSL_PARAM_END};
  bool done = context != NULL &&
              EVP_DigestSignInit(context, &inner, digest, NULL, key) == 1 &&
              EVP_PKEY_CTX_get_params(inner, wanted) > 0 &&
              EVP_DigestSign(context, s->signature, &s->signature_length,
                             s->signed_part, (size_t)s->signed_length) == 1;
  s->algorithm_length = wanted[0].return_size;
  EVP_MD_CTX_free(context);
  return done && OSSL_PARAM_modified(&wanted[0]);
}

/* Gives the request the signature too, for those who ask it. */
static bool keep(X509_REQ *request, const struct signing *s) {
  const unsigned char *at = s->algorithm;
  X509_ALGOR *algorithm = d2i_X509_ALGOR(NULL, &at, (long)s->algorithm_length);
  ASN1_BIT_STRING *bits = ASN1_BIT_STRING_new();
  bool done = algorithm != NULL && bits != NULL &&
              X509_REQ_set1_signature_algo(request, algorithm) &&
              ASN1_BIT_STRING_set(bits, s->signature, (int)s->signature_length);
  X509_ALGOR_free(algorithm);
  if (!done) {
    ASN1_BIT_STRING_free(bits);
    return false;
  }
  bits->flags |= ASN1_STRING_FLAG_BITS_LEFT; /* none is unused */
  X509_REQ_set0_signature(request, bits);
  return true;
}

static unsigned char *append(unsigned char *at, const void *bytes,
                             size_t size) {
  memcpy(at, bytes, size);
  return at + size;
}

/* CertificationRequest of RFC 2986, section 4.2; returns its end. */
static unsigned char *assemble(unsigned char *at, const struct signing *s) {
  int bits = (int)s->signature_length + 1;
  int inside = s->signed_length + (int)s->algorithm_length +
               ASN1_object_size(0, bits, V_ASN1_BIT_STRING);
  ASN1_put_object(&at, 1, inside, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL);
  at = append(at, s->signed_part, (size_t)s->signed_length);
  at = append(at, s->algorithm, s->algorithm_length);
  ASN1_put_object(&at, 0, bits, V_ASN1_BIT_STRING, V_ASN1_UNIVERSAL);
  *at++ = 0;
  return append(at, s->signature, s->signature_length);
}

/* Signs a request and pushes its DER, which X509_REQ_sign and i2d_X509_REQ
 * would encode twice over. */
static bool push_signed(lua_State *L, X509_REQ *request, EVP_PKEY *key,
                        const EVP_MD *digest) {
  struct signing s = {.signed_length = i2d_re_X509_REQ_tbs(request, NULL),
                      .signature_length = (size_t)EVP_PKEY_get_size(key)};
  size_t room = 2 * (size_t)s.signed_length + 2 * s.signature_length +
                ALGORITHM_LIMIT + FRAME;
  unsigned char *out, *at;
  if (s.signed_length <= 0)
    return false;
  at = s.signed_part = lua_newuserdatauv(L, room, 0);
  i2d_re_X509_REQ_tbs(request, &at);
  s.signature = at;
  out = s.signature + s.signature_length;
  if (!sign(&s, key, digest) || !keep(request, &s))
    return false;
  lua_pushlstring(L, (char *)out, (size_t)(assemble(out, &s) - out));
  return true;
}

static bool complete(X509_REQ *request, STACK_OF(X509_EXTENSION) * extensions) {
  return X509_REQ_set_version(request, X509_REQ_VERSION_1) &&
         (sk_X509_EXTENSION_num(extensions) == 0 ||
          X509_REQ_add_extensions(request, extensions));
}

static int fail_create(lua_State *L) {
  return core_fail(L, "unsupported", "cannot create a request: %s",
                   core_reason());
}

/*
 * request.create{ key = key, subject = , domains = , emails = , uris = ,
 *     key_usage = , extended_key_usage = , ca = , path_length = ,
 *     subject_key_id = true, must_staple = , digest = "sha256" } -> request
 *   | nil, message, "parse" | "limit" | "unsupported"
 * subject: { CN = "..", O = ".." }, written in the order C, ST, L, O, OU,
 * others, CN; or { { "C", "US" }, { "O", ".." } }, written as given.
 * domains: DNS names and IP literals.  Usages have the names of RFC 5280
 * (sections 4.2.1.3 and 4.2.1.12) or are OIDs; must_staple is RFC 7633's.
 */
static int l_create(lua_State *L) {
  static const char *const names[] = {
      "key",    "subject",        "domains",     "emails",
      "uris",   "key_usage",      "ca",          "extended_key_usage",
      "digest", "subject_key_id", "path_length", "must_staple",
      NULL};
  STACK_OF(X509_EXTENSION) * extensions;
  const EVP_MD *digest;
  const char *digest_name;
  X509_REQ **box;
  EVP_PKEY *key;
  core_check_fields(L, 1, names);
  lua_getfield(L, 1, "key");
  key = core_key_test(L, -1);
  luaL_argcheck(L, key != NULL, 1, "field 'key' must be a key");
  digest_name = opt_digest(L);
  if (!core_key_digest(key, digest_name, &digest))
    return core_fail(L, "unsupported",
                     "cannot create a request: unknown digest '%s'",
                     digest_name);
  box = new_box(L);
  core_clear_errors();
  *box = X509_REQ_new();
  if (*box == NULL ||
      (!core_key_put_public(key, X509_REQ_get_X509_PUBKEY(*box)) &&
       !X509_REQ_set_pubkey(*box, key)))
    return fail_create(L);
  lua_getfield(L, 1, "subject");
  if (!core_add_subject(L, -1, X509_REQ_get_subject_name(*box)))
    return 3;
  extensions = core_push_extensions(L, 1, X509_REQ_get_X509_PUBKEY(*box));
  if (extensions == NULL)
    return 3;
  if (!complete(*box, extensions))
    return fail_create(L);
  core_drop(L);
  lua_pop(L, 1);
  if (!push_signed(L, *box, key, digest))
    return fail_create(L);
  lua_setiuservalue(L, -3, 1);
  lua_pop(L, 1);
  return 1;
}

/* --- reading one */

/* One request that fills all of der. */
static X509_REQ *from_der(const unsigned char *der, long length) {
  const unsigned char *p = der;
  X509_REQ *request = d2i_X509_REQ(NULL, &p, length);
  if (request != NULL && p == der + length)
    return request;
  X509_REQ_free(request);
  return NULL;
}

/* The first request in a PEM text, of either name (RFC 7468, section 7), with
 * scratch for its DER; found says whether there is a block of one. */
static X509_REQ *from_pem(const char *at, const char *end, unsigned char *der,
                          bool *found) {
  static const char kind[] = "CERTIFICATE REQUEST";
  const char *label;
  size_t length, size;
  while (core_next_block(&at, end, &label, &length))
    if ((length == sizeof kind - 1 && strncmp(label, kind, length) == 0) ||
        (length == sizeof kind + 3 && strncmp(label, "NEW ", 4) == 0 &&
         strncmp(label + 4, kind, length - 4) == 0)) {
      *found = true;
      return core_read_block(at, end, label, length, der, &size) == NULL
                 ? from_der(der, (long)size)
                 : NULL;
    }
  return NULL;
}

/*
 * request.parse(bytes) -> request | nil, message, "parse" | "limit"
 * Reads DER, or the first request in a PEM text ("CERTIFICATE REQUEST" or "NEW
 * CERTIFICATE REQUEST") as UTF-8 or UTF-16, or base64 alone.  The signature is
 * request:verify's business.
 */
static int l_parse(lua_State *L) {
  size_t length;
  const char *bytes = core_check_bytes(L, 1, &length);
  X509_REQ **box;
  bool binary, found = false;
  if (length > BYTES_LIMIT)
    return core_fail(L, "limit", "cannot read the request: more than 1 MiB");
  lua_settop(L, 1);
  bytes = core_push_plain(L, 1, &length);
  binary = length > 0 && bytes[0] == 0x30;
  box = new_box(L);
  if (binary)
    *box = from_der((const unsigned char *)bytes, (long)length);
  if (*box == NULL)
    *box = from_pem(bytes, bytes + length, lua_newuserdatauv(L, length + 3, 0),
                    &found);
  ERR_clear_error();
  if (*box == NULL)
    return core_fail(L, "parse", "cannot read the request: %s",
                     found || binary ? "malformed DER" : "none in PEM or DER");
  lua_settop(L, 3); /* without the scratch */
  return 1;
}

/* --- using one */

/* request:der() -> bytes */
static int l_der(lua_State *L) {
  X509_REQ *request = core_request_check(L, 1);
  if (lua_getiuservalue(L, 1, 1) == LUA_TNIL)
    core_push_der(L, request, ASN1_ITEM_rptr(X509_REQ));
  return 1;
}

/* request:pem() -> PEM text, "CERTIFICATE REQUEST" */
static int l_pem(lua_State *L) {
  size_t length;
  const char *der;
  l_der(L);
  der = lua_tolstring(L, -1, &length);
  core_push_pem(L, PEM_STRING_X509_REQ, (const unsigned char *)der, length);
  return 1;
}

/* request:fingerprint() -> SHA-256 of the DER, in hex */
static int l_fingerprint(lua_State *L) {
  l_der(L);
  core_push_fingerprint(L);
  return 1;
}

static bool verify(X509_REQ *request) {
  EVP_PKEY *key = core_key_decode(X509_REQ_get_X509_PUBKEY(request));
  bool valid = key != NULL && X509_REQ_verify(request, key) == 1;
  EVP_PKEY_free(key);
  return valid;
}

/*
 * request:verify() -> true | nil, message, "mismatch"
 * Whether the request is signed with the private half of the key in it: proof
 * that who asks possesses it (RFC 2986, section 3).
 */
static int l_verify(lua_State *L) {
  bool valid = verify(core_request_check(L, 1));
  ERR_clear_error();
  if (!valid) {
    luaL_tolstring(L, 1, NULL);
    return core_fail(L, "mismatch", "%s is not signed with its own key",
                     lua_tostring(L, -1));
  }
  lua_pushboolean(L, 1);
  return 1;
}

static void push_algorithm(lua_State *L, const X509_REQ *request) {
  const X509_ALGOR *algorithm;
  const ASN1_OBJECT *object;
  char name[128];
  X509_REQ_get0_signature(request, NULL, &algorithm);
  X509_ALGOR_get0(&object, NULL, NULL, algorithm);
  OBJ_obj2txt(name, sizeof name, object, 0);
  lua_pushstring(L, name);
}

/* Sets what the extensions of the request say in the table on top. */
static void set_extensions(lua_State *L, X509_REQ *request) {
  core_holder *box = core_push_holder(L, NULL);
  box->item = ASN1_ITEM_rptr(X509_EXTENSIONS);
  box->value = X509_REQ_get_extensions(request);
  lua_insert(L, -2);
  core_set_extensions(L, box->value);
  lua_insert(L, -2);
  core_drop(L);
}

/*
 * request:fields() -> { subject = text (RFC 4514), subject_parts = { { type = ,
 *   value = }, .. }, common_name, domains = { .. }, names = { { type = "dns" |
 *   "ip" | "email" | "uri" | "other", value = }, .. }, key = "ec:P-256",
 *   public_key = SHA-256 of the SPKI, key_usage = { .. }, extended_key_usage =
 *   { .. }, ca, path_length, must_staple, subject_key_id = hex,
 *   signature_algorithm }
 * What the request does not say is {} for lists, else nil.
 */
static int l_fields(lua_State *L) {
  X509_REQ *request = core_request_check(L, 1);
  const X509_NAME *subject = X509_REQ_get_subject_name(request);
  X509_PUBKEY *public_key = X509_REQ_get_X509_PUBKEY(request);
  lua_createtable(L, 0, 16);
  core_push_name_text(L, subject);
  lua_setfield(L, -2, "subject");
  core_push_name_parts(L, subject);
  lua_setfield(L, -2, "subject_parts");
  core_push_common_name(L, subject);
  lua_setfield(L, -2, "common_name");
  core_push_spki_keytype(L, public_key);
  lua_setfield(L, -2, "key");
  core_push_spki_fingerprint(L, public_key);
  lua_setfield(L, -2, "public_key");
  push_algorithm(L, request);
  lua_setfield(L, -2, "signature_algorithm");
  set_extensions(L, request);
  return 1;
}

/* request:close()  frees it; a second time does nothing */
static int l_close(lua_State *L) {
  X509_REQ **box = luaL_checkudata(L, 1, CORE_REQUEST);
  X509_REQ_free(*box);
  *box = NULL;
  return 0;
}

/* tostring(request) -> 'request "mail.contoso.com"': its common name, else its
 * first domain, else its subject */
static int l_tostring(lua_State *L) {
  X509_REQ **box = luaL_checkudata(L, 1, CORE_REQUEST);
  if (*box == NULL) {
    lua_pushstring(L, "request (closed)");
    return 1;
  }
  core_push_common_name(L, X509_REQ_get_subject_name(*box));
  if (lua_isnil(L, -1)) {
    lua_newtable(L);
    set_extensions(L, *box);
    lua_getfield(L, -1, "domains");
    lua_geti(L, -1, 1);
  }
  if (lua_isnil(L, -1))
    core_push_name_text(L, X509_REQ_get_subject_name(*box));
  lua_pushfstring(L, "request \"%s\"", lua_tostring(L, -1));
  return 1;
}

static const luaL_Reg functions[] = {
    {"create", l_create}, {"parse", l_parse}, {NULL, NULL}};

static const luaL_Reg methods[] = {
    {"pem", l_pem},       {"der", l_der},
    {"verify", l_verify}, {"fingerprint", l_fingerprint},
    {"fields", l_fields}, {"close", l_close},
    {NULL, NULL}};

static const luaL_Reg metamethods[] = {{"__gc", l_close},
                                       {"__close", l_close},
                                       {"__tostring", l_tostring},
                                       {NULL, NULL}};

int luaopen_core_request(lua_State *L) {
  core_type(L, CORE_REQUEST, methods, metamethods);
  luaL_newlib(L, functions);
  return 1;
}
