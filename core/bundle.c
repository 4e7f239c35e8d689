/*
 * bundle.c: core.bundle, certificates and keys in one wrapping: PKCS #7
 * (RFC 2315, certificates only) and PKCS #12 (RFC 7292), in and out.
 *
 * A key goes from wrapping to box without a Lua string in between.  Iteration
 * counts are added up before anything is derived from a password.
 */
#include "cert.h"

#include <openssl/err.h>
#include <openssl/pkcs12.h>
#include <openssl/pkcs7.h>
#include <string.h>

#define PASSWORD_LIMIT 4096
/* Of what is written, each of three times: some readers refuse more than
 * 600,000 in sum.  Old readers get what OpenSSL always wrote. */
#define ITERATIONS 100000
#define LEGACY_ITERATIONS 2048

/* What a bundle holds, and why it could not be read. */
struct contents {
  STACK_OF(X509) * certificates;
  EVP_PKEY *key;
  char *name; /* UTF-8 */
  const char *password;
  int length; /* of the password */
  bool given; /* a password was */
  double seconds;
  bool authentic; /* the password is right */
  const char *code, *reason, *detail;
};

static void free_contents(void *value) {
  struct contents *c = value;
  sk_X509_pop_free(c->certificates, X509_free);
  EVP_PKEY_free(c->key);
  OPENSSL_free(c->name);
  OPENSSL_free(c);
}

static struct contents *push_contents(lua_State *L) {
  core_holder *holder = core_push_holder(L, free_contents);
  struct contents *c = holder->value = OPENSSL_zalloc(sizeof *c);
  if (c == NULL || (c->certificates = sk_X509_new_null()) == NULL)
    luaL_error(L, "not enough memory");
  return c;
}

static bool refuse(struct contents *c, const char *code, const char *reason) {
  c->code = code;
  c->reason = reason;
  return false;
}

/* Takes a copy of a certificate, without its key decoded. */
static bool take_certificate(struct contents *c, X509 *certificate) {
  unsigned char *der = NULL;
  int length = certificate != NULL ? i2d_X509(certificate, &der) : -1;
  const unsigned char *at = der;
  X509 *copy = length > 0 ? core_cert_read(&at, length) : NULL;
  OPENSSL_free(der);
  if (copy == NULL)
    return refuse(c, "parse", "a certificate in it is malformed");
  if (sk_X509_num(c->certificates) >= CORE_PILE_LIMIT) {
    X509_free(copy);
    return refuse(c, "limit", "more than 100 certificates");
  }
  return sk_X509_push(c->certificates, copy) > 0;
}

/* Pushes an array of the certificates. */
static void push_certificates(lua_State *L, struct contents *c) {
  int i;
  lua_newtable(L);
  for (i = 0; i < sk_X509_num(c->certificates); i++) {
    X509 **box = core_cert_new(L);
    *box = sk_X509_value(c->certificates, i);
    X509_up_ref(*box);
    lua_rawseti(L, -2, i + 1);
  }
}

static int fail(lua_State *L, const char *what, const struct contents *c) {
  ERR_clear_error();
  return core_fail(L, c->code, "cannot read the %s: %s%s", what, c->reason,
                   c->detail != NULL ? c->detail : "");
}

/* PKCS #7 */

/* Whether a PKCS #7 in DER has more certificates than are taken; told without
 * decoding one, which takes seconds for thousands.  In another encoding (BER)
 * they are not in sight here. */
static bool is_overfull(const unsigned char *der, size_t length) {
  struct cert_span span = {der, der + length}, inside = {der, der}, one;
  int tag, count = 0;
  cert_take(&span, &inside); /* ContentInfo (RFC 2315, section 7) */
  cert_take(&inside, &one);  /* its type */
  if (cert_take(&inside, &span) != (V_ASN1_CONTEXT_SPECIFIC | 0) ||
      cert_take(&span, &inside) != V_ASN1_SEQUENCE)
    return false;
  while ((tag = cert_take(&inside, &one)) >= 0) /* SignedData (section 9.1) */
    if (tag == (V_ASN1_CONTEXT_SPECIFIC | 0)) {
      span = one;
      while (count <= CORE_PILE_LIMIT && cert_take(&span, &one) >= 0)
        count++;
    }
  return count > CORE_PILE_LIMIT;
}

static bool read_pkcs7(struct contents *c, const unsigned char *der,
                       size_t length) {
  const unsigned char *at = der;
  PKCS7 *bundle;
  bool good = true;
  int i;
  if (is_overfull(der, length))
    return refuse(c, "limit", "more than 100 certificates");
  bundle = d2i_PKCS7(NULL, &at, (long)length);
  if (bundle == NULL || at != der + length)
    good = refuse(c, "parse",
                  bundle == NULL ? core_reason() : "bytes after its end");
  else if (PKCS7_type_is_signed(bundle) && bundle->d.sign != NULL)
    for (i = 0; good && i < sk_X509_num(bundle->d.sign->cert); i++)
      good = take_certificate(c, sk_X509_value(bundle->d.sign->cert, i));
  PKCS7_free(bundle);
  return good;
}

/* All that are in a PEM text, with scratch for their DER. */
static bool read_pkcs7_blocks(struct contents *c, const char *at,
                              const char *end, unsigned char *der) {
  const char *label, *kind;
  size_t length, size;
  bool good = true, found = false;
  while (good && core_next_block(&at, end, &label, &length)) {
    kind = core_block_shape(at, end, label, length, der);
    if (kind == NULL || strcmp(kind, "pkcs7") != 0)
      continue;
    core_read_block(at, end, label, length, der, &size);
    good = read_pkcs7(c, der, size);
    found = true;
  }
  return good && !found ? refuse(c, "parse", "none in PEM or DER") : good;
}

/*
 * bundle.pkcs7(bytes) -> array of cert | nil, message, "parse" | "limit"
 * The certificates in one PKCS #7 (signed data, the signature of which is not
 * looked at) in DER, or in all blocks of a PEM text that hold one, whatever
 * their label says; in the order that they have there.  A string or a secret of
 * at most 16 MiB and 100 certificates.
 */
static int l_pkcs7(lua_State *L) {
  size_t length;
  const char *at = core_check_bytes(L, 1, &length);
  struct contents *c = push_contents(L);
  bool good;
  if (length > CORE_BUNDLE_LIMIT)
    return core_fail(L, "limit", "cannot read the PKCS #7: more than 16 MiB");
  at = core_push_plain(L, 1, &length);
  ERR_clear_error();
  if (core_shape((const unsigned char *)at, length) != NULL)
    good = read_pkcs7(c, (const unsigned char *)at, length);
  else
    good = read_pkcs7_blocks(c, at, at + length,
                             lua_newuserdatauv(L, length + 3, 0));
  if (good && sk_X509_num(c->certificates) == 0)
    good = refuse(c, "parse", "no certificate in it");
  if (!good)
    return fail(L, "PKCS #7", c);
  push_certificates(L, c);
  return 1;
}

/*
 * bundle.write_pkcs7(certificates) -> DER
 * A PKCS #7 of certificates only, in no order that a reader need keep.
 */
static int l_write_pkcs7(lua_State *L) {
  STACK_OF(X509) *list = cert_push_twins(L, 1, "certificates", NULL);
  PKCS7 *bundle = core_push_item(L, ASN1_ITEM_rptr(PKCS7));
  int i;
  bool good = PKCS7_set_type(bundle, NID_pkcs7_signed);
  if (good)
    bundle->d.sign->contents->type = OBJ_nid2obj(NID_pkcs7_data);
  for (i = 0; good && i < sk_X509_num(list); i++)
    good = PKCS7_add_certificate(bundle, sk_X509_value(list, i));
  if (!good)
    return luaL_error(L, "cannot make a PKCS #7: %s", core_reason());
  core_push_der(L, bundle, ASN1_ITEM_rptr(PKCS7));
  return 1;
}

/* PKCS #12 */

/* Whether what it costs so far is not too much. */
static bool affordable(struct contents *c, double seconds) {
  c->seconds += seconds;
  return c->seconds <= CORE_PBE_LIMIT || refuse(c, "limit", CORE_PBE_REASON);
}

static bool refuse_password(struct contents *c) {
  return refuse(c, "denied",
                c->given ? "wrong password" : "no password was given");
}

/* Why something could not be decrypted. */
static bool refuse_secret(struct contents *c, const X509_ALGOR *algorithm) {
  const ASN1_OBJECT *object;
  X509_ALGOR_get0(&object, NULL, NULL, algorithm);
  c->detail = OBJ_nid2ln(OBJ_obj2nid(object));
  if (core_pbe_unsupported())
    return refuse(c, "unsupported", "this OpenSSL cannot decrypt ");
  c->detail = NULL;
  return c->authentic ? refuse(c, "parse", "malformed") : refuse_password(c);
}

static bool take_key(struct contents *c, const PKCS8_PRIV_KEY_INFO *info) {
  if (info != NULL)
    c->key = core_key_take(info, &c->code, &c->reason);
  if (c->key == NULL && c->reason == NULL)
    refuse(c, "parse", "its key is malformed or of an unknown kind");
  return c->key != NULL;
}

/* Keeps the first name. */
static void take_name(struct contents *c, const PKCS12_SAFEBAG *bag) {
  const ASN1_TYPE *name = PKCS12_SAFEBAG_get0_attr(bag, NID_friendlyName);
  if (c->name == NULL && name != NULL && name->type == V_ASN1_BMPSTRING)
    c->name = OPENSSL_uni2utf8(name->value.bmpstring->data,
                               name->value.bmpstring->length);
}

static bool decrypt_key(struct contents *c, const PKCS12_SAFEBAG *bag,
                        const X509_ALGOR *algorithm) {
  PKCS8_PRIV_KEY_INFO *info;
  bool good;
  ERR_clear_error();
  info = PKCS12_decrypt_skey(bag, c->password, c->length);
  good = info != NULL ? take_key(c, info) : refuse_secret(c, algorithm);
  PKCS8_PRIV_KEY_INFO_free(info);
  return good;
}

/* Takes what is in a bag; costs: adds up what it would cost instead. */
static bool take_bag(struct contents *c, const PKCS12_SAFEBAG *bag,
                     bool costs) {
  const X509_ALGOR *algorithm;
  X509 *certificate;
  bool good = true;
  switch (PKCS12_SAFEBAG_get_nid(bag)) {
  case NID_pkcs8ShroudedKeyBag:
    X509_SIG_get0(PKCS12_SAFEBAG_get0_pkcs8(bag), &algorithm, NULL);
    if (costs || c->key != NULL)
      return !costs || affordable(c, core_pbe_seconds(algorithm));
    good = decrypt_key(c, bag, algorithm);
    break;
  case NID_keyBag:
    good =
        costs || c->key != NULL || take_key(c, PKCS12_SAFEBAG_get0_p8inf(bag));
    break;
  case NID_certBag:
    if (costs || PKCS12_SAFEBAG_get_bag_nid(bag) != NID_x509Certificate)
      return true;
    certificate = PKCS12_SAFEBAG_get1_cert(bag);
    good = take_certificate(c, certificate);
    X509_free(certificate);
  }
  take_name(c, bag);
  return good;
}

static bool take_bags(struct contents *c, const STACK_OF(PKCS12_SAFEBAG) * bags,
                      bool costs) {
  bool good = true;
  int i;
  for (i = 0; good && i < sk_PKCS12_SAFEBAG_num(bags); i++)
    good = take_bag(c, sk_PKCS12_SAFEBAG_value(bags, i), costs);
  return good;
}

/* Whether the password is the one that the whole is protected with. */
static bool authenticate(struct contents *c, PKCS12 *bundle) {
  const X509_ALGOR *algorithm;
  const ASN1_INTEGER *iterations;
  const ASN1_OBJECT *object;
  PKCS12_get0_mac(NULL, &algorithm, NULL, &iterations, bundle);
  X509_ALGOR_get0(&object, NULL, NULL, algorithm);
  c->detail = OBJ_nid2ln(OBJ_obj2nid(object));
  if (EVP_get_digestbyobj(object) == NULL)
    return refuse(c, "unsupported", "this OpenSSL cannot check a MAC of kind ");
  c->detail = NULL;
  if (!affordable(c, (c->length == 0 ? 2 : 1) * core_mac_seconds(iterations)))
    return false;
  c->authentic = PKCS12_verify_mac(bundle, c->password, c->length);
  if (!c->authentic && c->length == 0) /* which is written in two ways */
    c->authentic = PKCS12_verify_mac(bundle, c->password = NULL, 0);
  return c->authentic || refuse_password(c);
}

/* Takes what one of the safes holds; costs: only adds up what is in sight. */
static bool take_safe(struct contents *c, PKCS7 *safe, bool costs) {
  STACK_OF(PKCS12_SAFEBAG) *bags = NULL;
  X509_ALGOR *algorithm = NULL;
  bool good;
  ERR_clear_error();
  if (safe->d.ptr == NULL)
    return refuse(c, "parse", "malformed");
  if (PKCS7_type_is_data(safe)) {
    bags = PKCS12_unpack_p7data(safe);
  } else if (PKCS7_type_is_encrypted(safe)) {
    algorithm = safe->d.encrypted->enc_data->algorithm;
    if (costs)
      return affordable(c, core_pbe_seconds(algorithm));
    bags = PKCS12_unpack_p7encdata(safe, c->password, c->length);
  } else {
    return refuse(c, "unsupported", "it is encrypted for a key");
  }
  if (bags == NULL)
    return algorithm != NULL ? refuse_secret(c, algorithm)
                             : refuse(c, "parse", "malformed");
  good = (!costs && algorithm == NULL) || take_bags(c, bags, true);
  if (good && !costs)
    good = take_bags(c, bags, false);
  sk_PKCS12_SAFEBAG_pop_free(bags, PKCS12_SAFEBAG_free);
  return good;
}

static bool read_pkcs12(struct contents *c, const unsigned char *der,
                        size_t length) {
  const unsigned char *at = der;
  PKCS12 *bundle = d2i_PKCS12(NULL, &at, (long)length);
  STACK_OF(PKCS7) *safes = NULL;
  bool good = false;
  int i;
  if (bundle == NULL || at != der + length)
    refuse(c, "parse", bundle == NULL ? core_reason() : "bytes after its end");
  else if ((safes = PKCS12_unpack_authsafes(bundle)) == NULL)
    refuse(c, "unsupported", "it is not protected by a password");
  else
    good = true;
  for (i = 0; good && i < sk_PKCS7_num(safes); i++)
    good = take_safe(c, sk_PKCS7_value(safes, i), true);
  if (good && PKCS12_mac_present(bundle))
    good = authenticate(c, bundle);
  for (i = 0; good && i < sk_PKCS7_num(safes); i++)
    good = take_safe(c, sk_PKCS7_value(safes, i), false);
  sk_PKCS7_pop_free(safes, PKCS7_free);
  PKCS12_free(bundle);
  return good;
}

/*
 * bundle.pkcs12(bytes[, password]) -> { certificates = array of cert, key =
 *   core.key, friendly_name = text, seconds = number } | nil, message, "parse"
 * | "denied" | "limit" | "unsupported" A PKCS #12 in DER; password a string or
 * a secret.  key and friendly_name are the first, nil where there is none;
 * seconds what its iteration counts take on a slow processor. "denied": the
 * password is missing or wrong.  "limit": over 16 MiB, over 100 certificates,
 * or iteration counts that would take over 2 seconds in sum.
 */
static int l_pkcs12(lua_State *L) {
  size_t length, size = 0;
  const char *bytes = core_check_bytes(L, 1, &length);
  bool given = !lua_isnoneornil(L, 2);
  const char *password = given ? core_check_bytes(L, 2, &size) : "";
  struct contents *c = push_contents(L);
  luaL_argcheck(L, size <= PASSWORD_LIMIT, 2, "the password is too long");
  c->password = password;
  c->length = (int)size;
  c->given = given;
  if (length > CORE_BUNDLE_LIMIT)
    return core_fail(L, "limit", "cannot read the PKCS #12: more than 16 MiB");
  bytes = core_push_plain(L, 1, &length);
  ERR_clear_error();
  if (!read_pkcs12(c, (const unsigned char *)bytes, length))
    return fail(L, "PKCS #12", c);
  ERR_clear_error();
  lua_createtable(L, 0, 4);
  push_certificates(L, c);
  lua_setfield(L, -2, "certificates");
  if (c->key != NULL) {
    EVP_PKEY_up_ref(*core_key_new(L) = c->key);
    lua_setfield(L, -2, "key");
  }
  if (c->seconds > 0) {
    lua_pushnumber(L, c->seconds);
    lua_setfield(L, -2, "seconds");
  }
  if (c->name != NULL) {
    core_pushtext(L, c->name, strlen(c->name));
    lua_setfield(L, -2, "friendly_name");
  }
  return 1;
}

static PKCS12 *make_pkcs12(STACK_OF(X509) * list, EVP_PKEY *key,
                           const char *name, const char *password,
                           bool legacy) {
  int nid = legacy ? NID_pbe_WithSHA1And3_Key_TripleDES_CBC : NID_aes_256_cbc;
  int iterations = legacy ? LEGACY_ITERATIONS : ITERATIONS;
  X509 *leaf = sk_X509_shift(list);
  PKCS12 *bundle = PKCS12_create(password, name, key, leaf, list, nid, nid,
                                 iterations, -1, 0);
  X509_free(leaf);
  if (bundle != NULL &&
      PKCS12_set_mac(bundle, password, -1, NULL, 0, iterations,
                     legacy ? EVP_sha1() : EVP_sha256()))
    return bundle;
  PKCS12_free(bundle);
  return NULL;
}

/* Readers turn a password from UTF-8 into UTF-16 (RFC 7292, appendix B.1). */
static bool is_utf8(const char *text, size_t length) {
  unsigned long character;
  int used = 1;
  for (; length > 0 && used > 0; text += used, length -= (size_t)used)
    used = UTF8_getc((const unsigned char *)text, (int)length, &character);
  return used > 0;
}

/*
 * bundle.write_pkcs12{ certificates =, key =, password =, name =,
 *     form = "modern" } -> DER | nil, message, "mismatch" | "parse"
 * The leaf first in certificates; key its key, or nil; password a string or a
 * secret without a 0 in it; name the friendly name.  form "modern" is PBES2
 * with AES-256-CBC and a MAC by HMAC-SHA-256, "legacy" 3DES and SHA-1 for old
 * readers.  "mismatch": the key is not the leaf's; "parse": the password is not
 * UTF-8, in which readers would take it for another.
 */
static int l_write_pkcs12(lua_State *L) {
  static const char *const fields[] = {"certificates", "form",     "key",
                                       "name",         "password", NULL};
  static const char *const forms[] = {"modern", "legacy", NULL};
  STACK_OF(X509) * list;
  const char *password, *name;
  core_holder *holder;
  EVP_PKEY *key;
  size_t length;
  int form;
  core_check_fields(L, 1, fields);
  lua_settop(L, 1);
  lua_getfield(L, 1, "form");
  form = luaL_checkoption(L, 2, "modern", forms);
  lua_getfield(L, 1, "name");
  name = luaL_optstring(L, 3, NULL);
  lua_getfield(L, 1, "password");
  password = core_check_bytes(L, 4, &length);
  luaL_argcheck(L, length <= PASSWORD_LIMIT && strlen(password) == length, 1,
                "the password is too long or has a 0 in it");
  if (!is_utf8(password, length))
    return core_fail(L, "parse",
                     "cannot make a PKCS #12: the password is not UTF-8");
  lua_getfield(L, 1, "key");
  key = lua_isnil(L, 5) ? NULL : core_key_check(L, 5);
  lua_getfield(L, 1, "certificates");
  list = cert_push_twins(L, 6, "field 'certificates'", NULL);
  luaL_argcheck(L, sk_X509_num(list) > 0, 1, "no certificate");
  holder = core_push_holder(L, NULL);
  holder->item = ASN1_ITEM_rptr(PKCS12);
  ERR_clear_error();
  holder->value = make_pkcs12(list, key, name, password, form == 1);
  if (holder->value == NULL)
    return core_fail(L, "mismatch", "cannot make a PKCS #12: %s",
                     core_reason());
  core_push_der(L, holder->value, ASN1_ITEM_rptr(PKCS12));
  return 1;
}

static const luaL_Reg functions[] = {{"kinds", core_kinds},
                                     {"parts", core_parts},
                                     {"pkcs7", l_pkcs7},
                                     {"pkcs12", l_pkcs12},
                                     {"write_pkcs7", l_write_pkcs7},
                                     {"write_pkcs12", l_write_pkcs12},
                                     {NULL, NULL}};

int luaopen_core_bundle(lua_State *L) {
  luaL_requiref(L, "core.cert", luaopen_core_cert, 0); /* what bundles hold */
  luaL_requiref(L, "core.key", luaopen_core_key, 0);
  lua_pop(L, 2);
  luaL_newlib(L, functions);
  return 1;
}
