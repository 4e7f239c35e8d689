/*
 * request.c: core.request, PKCS #10 signing requests (RFC 2986): made, signed
 * and read.  A box owns one X509_REQ; of a request that was made here it has
 * the DER, and reads that when it is asked for more.  Whether what a request
 * asks for is right is nobody's business here.
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

/* One request that fills all of der. */
static X509_REQ *from_der(const unsigned char *der, size_t length) {
  const unsigned char *p = der;
  ASN1_VALUE *request =
      ASN1_item_d2i_ex(NULL, &p, (long)length, ASN1_ITEM_rptr(X509_REQ),
                       core_bare_context(), NULL);
  if (request != NULL && p == der + length)
    return (X509_REQ *)request;
  X509_REQ_free((X509_REQ *)request);
  return NULL;
}

/* Pushes the DER of the request at index if it was made here, else nil. */
static bool push_made(lua_State *L, int index) {
  return lua_getiuservalue(L, index, 1) == LUA_TSTRING;
}

X509_REQ *core_request_check(lua_State *L, int index) {
  X509_REQ **box = luaL_checkudata(L, index, CORE_REQUEST);
  size_t length;
  const char *der;
  if (*box != NULL)
    return *box;
  luaL_argcheck(L, push_made(L, index), index, "the request is closed");
  der = lua_tolstring(L, -1, &length);
  *box = from_der((const unsigned char *)der, length);
  if (*box == NULL)
    luaL_error(L, "cannot read a request that was made: %s", core_reason());
  lua_pop(L, 1);
  return *box;
}

/* --- making one */

static const char *opt_digest(lua_State *L) {
  int type = lua_getfield(L, 1, "digest");
  luaL_argcheck(L, type == LUA_TNIL || type == LUA_TSTRING, 1,
                "field 'digest' must be a string");
  return type == LUA_TNIL ? "sha256" : lua_tostring(L, -1);
}

#define ALGORITHM_LIMIT 160 /* octets of an AlgorithmIdentifier */

static size_t signature_room(EVP_PKEY *key) {
  return ALGORITHM_LIMIT + CORE_DER_HEADER + (size_t)EVP_PKEY_get_size(key);
}

/* Signs what the writer has from there on, and adds the algorithm and the
 * signature (RFC 2986, section 4.2).  The writer has room for both: nothing
 * raises. */
static bool sign(core_der *der, size_t from, EVP_PKEY *key,
                 const EVP_MD *digest) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  EVP_PKEY_CTX *inner;
  size_t size = der->length - from, length = (size_t)EVP_PKEY_get_size(key);
  OSSL_PARAM wanted[] = {
      OSSL_PARAM_octet_string(OSSL_SIGNATURE_PARAM_ALGORITHM_ID,
                              der->bytes + der->length, ALGORITHM_LIMIT),
      OSSL_PARAM_END};
  bool done = context != NULL &&
              EVP_DigestSignInit(context, &inner, digest, NULL, key) == 1 &&
              EVP_PKEY_CTX_get_params(inner, wanted) > 0 &&
              OSSL_PARAM_modified(&wanted[0]);
  if (done) {
    EVP_MD_CTX_set_flags(context, EVP_MD_CTX_FLAG_FINALISE); /* it signs once */
    der->length += wanted[0].return_size;
    core_der_open(der, CORE_DER_BITS);
    core_der_add(der, "", 1); /* none is unused */
    done = EVP_DigestSign(context, der->bytes + der->length, &length,
                          der->bytes + from, size) == 1;
  }
  if (done) {
    der->length += length;
    core_der_close(der, 1);
  }
  EVP_MD_CTX_free(context);
  return done;
}

/* The attribute that asks for extensions (RFC 2985, section 5.4.2), if any. */
static bool put_attributes(core_der *der, const unsigned char id[CORE_KEY_ID]) {
  core_der_open(der, CORE_DER_WITHIN);
  core_der_open(der, CORE_DER_SEQUENCE);
  core_der_put_object(der, NID_ext_req);
  core_der_open(der, CORE_DER_SET);
  core_der_open(der, CORE_DER_SEQUENCE);
  if (!core_put_extensions(der, 1, id))
    return false;
  if (!core_der_undo(der, 3))
    core_der_close(der, 3);
  core_der_close(der, 1);
  return true;
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
  enum { KEY = 2, BOX = 4 }; /* places on the stack */
  unsigned char id[CORE_KEY_ID];
  core_der der;
  size_t from;
  const EVP_MD *digest;
  const char *digest_name;
  EVP_PKEY *key;
  core_check_fields(L, 1, names);
  lua_settop(L, 1);
  lua_getfield(L, 1, "key");
  key = core_key_test(L, KEY);
  luaL_argcheck(L, key != NULL, 1, "field 'key' must be a key");
  digest_name = opt_digest(L);
  if (!core_key_digest(key, digest_name, &digest))
    return core_fail(L, "unsupported",
                     "cannot create a request: unknown digest '%s'",
                     digest_name);
  new_box(L);
  core_clear_errors();
  core_der_begin(&der, L);
  core_der_open(&der, CORE_DER_SEQUENCE);
  from = der.length;
  core_der_open(&der, CORE_DER_SEQUENCE); /* CertificationRequestInfo */
  core_der_put_number(&der, X509_REQ_VERSION_1);
  lua_getfield(L, 1, "subject");
  if (!core_put_subject(&der, -1))
    return 3;
  /* the key is checked again, as metamethods of options may have closed it */
  if (!core_put_public(&der, core_key_check(L, KEY), id))
    return fail_create(L);
  if (!put_attributes(&der, id))
    return 3;
  core_der_close(&der, 1);
  core_der_room(&der, signature_room(core_key_check(L, KEY)));
  if (!sign(&der, from, core_key_check(L, KEY), digest))
    return fail_create(L);
  core_der_close(&der, 1);
  lua_pushlstring(L, (const char *)der.bytes, der.length);
  lua_setiuservalue(L, BOX, 1);
  lua_settop(L, BOX);
  return 1;
}

/* --- reading one */

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
                 ? from_der(der, size)
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
    *box = from_der((const unsigned char *)bytes, length);
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
  luaL_checkudata(L, 1, CORE_REQUEST);
  if (!push_made(L, 1))
    core_push_der(L, core_request_check(L, 1), ASN1_ITEM_rptr(X509_REQ));
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
  lua_pushnil(L);
  lua_setiuservalue(L, 1, 1);
  return 0;
}

/* tostring(request) -> 'request "mail.contoso.com"': its common name, else its
 * first domain, else its subject */
static int l_tostring(lua_State *L) {
  X509_REQ **box = luaL_checkudata(L, 1, CORE_REQUEST);
  const X509_NAME *subject;
  if (*box == NULL && !push_made(L, 1)) {
    lua_pushstring(L, "request (closed)");
    return 1;
  }
  subject = X509_REQ_get_subject_name(core_request_check(L, 1));
  core_push_common_name(L, subject);
  if (lua_isnil(L, -1)) {
    lua_newtable(L);
    set_extensions(L, *box);
    lua_getfield(L, -1, "domains");
    lua_geti(L, -1, 1);
  }
  if (lua_isnil(L, -1))
    core_push_name_text(L, subject);
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
