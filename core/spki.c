/*
 * spki.c: the public half of a key, SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
 *
 * OpenSSL's encoder and decoder for public keys cost some 300 microseconds
 * each: named curves and the keys of RFC 8410 are put in by hand here, and what
 * can be told from the algorithm is told without decoding.
 */
#include "core.h"

#include <ctype.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <string.h>

#define POINT_LIMIT 256 /* octets; of P-521 133 */

/* A named curve's point as it goes into the SPKI (RFC 5480, section 2); all
 * is asked for at once, since every question costs OpenSSL an export. */
static bool put_ec(EVP_PKEY *key, X509_PUBKEY *public_key) {
  char curve[64] = "", encoding[32] = "";
  unsigned char *point = OPENSSL_malloc(POINT_LIMIT);
  OSSL_PARAM wanted[] = {
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof curve),
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_ENCODING, encoding,
                             sizeof encoding),
      OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, POINT_LIMIT),
      OSSL_PARAM_END};
  if (point != NULL && EVP_PKEY_get_params(key, wanted) &&
      OSSL_PARAM_modified(&wanted[2]) &&
      strcmp(encoding, OSSL_PKEY_EC_ENCODING_GROUP) == 0 &&
      OBJ_sn2nid(curve) != NID_undef &&
      X509_PUBKEY_set0_param(public_key, OBJ_nid2obj(NID_X9_62_id_ecPublicKey),
                             V_ASN1_OBJECT, OBJ_nid2obj(OBJ_sn2nid(curve)),
                             point, (int)wanted[2].return_size))
    return true;
  OPENSSL_free(point);
  return false;
}

/* The keys of RFC 8410: no parameters, the raw key. */
static bool put_raw(EVP_PKEY *key, X509_PUBKEY *public_key) {
  size_t length = 64;
  unsigned char *raw = OPENSSL_malloc(length);
  if (raw != NULL && EVP_PKEY_get_raw_public_key(key, raw, &length) &&
      X509_PUBKEY_set0_param(public_key, OBJ_nid2obj(EVP_PKEY_get_id(key)),
                             V_ASN1_UNDEF, NULL, raw, (int)length))
    return true;
  OPENSSL_free(raw);
  return false;
}

bool core_key_put_public(EVP_PKEY *key, X509_PUBKEY *public_key) {
  bool done = false;
  if (EVP_PKEY_is_a(key, "EC"))
    done = put_ec(key, public_key);
  else if (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"))
    done = put_raw(key, public_key);
  ERR_clear_error();
  return done;
}

X509_PUBKEY *core_key_public(EVP_PKEY *key) {
  X509_PUBKEY *public_key = X509_PUBKEY_new();
  if (public_key != NULL && !core_key_put_public(key, public_key) &&
      !X509_PUBKEY_set(&public_key, key)) {
    X509_PUBKEY_free(public_key);
    return NULL;
  }
  return public_key;
}

EVP_PKEY *core_key_decode(X509_PUBKEY *public_key) {
  EVP_PKEY *key = X509_PUBKEY_get(public_key);
  unsigned char *der = NULL;
  const unsigned char *p;
  int length;
  ERR_clear_error();
  if (key != NULL)
    return key;
  length = i2d_X509_PUBKEY(public_key, &der);
  p = der;
  if (length > 0)
    key = d2i_PUBKEY(NULL, &p, length);
  OPENSSL_free(der);
  return key;
}

bool core_spki_digest(X509_PUBKEY *public_key, unsigned char digest[32]) {
  unsigned char *der = NULL;
  int length = i2d_X509_PUBKEY(public_key, &der);
  bool done = length > 0 && EVP_Digest(der, (size_t)length, digest, NULL,
                                       EVP_sha256(), NULL) == 1;
  OPENSSL_free(der);
  return done;
}

void core_push_spki_fingerprint(lua_State *L, X509_PUBKEY *public_key) {
  unsigned char digest[32];
  if (!core_spki_digest(public_key, digest))
    luaL_error(L, "cannot digest a public key: %s", core_reason());
  core_pushhex(L, digest, sizeof digest);
}

static void push_lower(lua_State *L, const char *name) {
  luaL_Buffer buffer;
  luaL_buffinit(L, &buffer);
  for (; *name != '\0'; name++)
    luaL_addchar(&buffer, (char)tolower((unsigned char)*name));
  luaL_pushresult(&buffer);
}

static void push_curve(lua_State *L, int nid) {
  const char *name = EC_curve_nid2nist(nid);
  if (name == NULL)
    name = nid != NID_undef ? OBJ_nid2sn(nid) : "explicit";
  lua_pushfstring(L, "ec:%s", name);
}

static void push_other(lua_State *L, int nid, const char *name) {
  if (nid == NID_rsassaPss)
    lua_pushstring(L, "rsa-pss");
  else if (nid == NID_dsa)
    lua_pushstring(L, "dsa");
  else
    push_lower(L, name);
}

void core_push_keytype(lua_State *L, EVP_PKEY *key) {
  char curve[64] = "";
  int id = EVP_PKEY_get_base_id(key);
  if (id == EVP_PKEY_RSA) {
    lua_pushfstring(L, "rsa:%d", EVP_PKEY_get_bits(key));
  } else if (id == EVP_PKEY_EC) {
    EVP_PKEY_get_group_name(key, curve, sizeof curve, NULL);
    push_curve(L, OBJ_txt2nid(curve));
  } else {
    const char *name = EVP_PKEY_get0_type_name(key);
    push_other(L, id, name != NULL ? name : "unknown");
  }
}

/* Bits of the modulus in an RSAPublicKey (RFC 8017, A.1.1); 0: malformed. */
static int modulus_bits(const unsigned char *der, long length) {
  const unsigned char *end = der + length;
  int tag, class, bits;
  long size;
  if (ASN1_get_object(&der, &size, &tag, &class, end - der) & 0x80 ||
      tag != V_ASN1_SEQUENCE ||
      ASN1_get_object(&der, &size, &tag, &class, end - der) & 0x80 ||
      tag != V_ASN1_INTEGER)
    return 0;
  for (; size > 0 && *der == 0; size--)
    der++;
  if (size <= 0 || size > INT_MAX / 8)
    return 0;
  bits = (int)size * 8;
  for (tag = 0x80; (*der & tag) == 0; tag >>= 1)
    bits--;
  return bits;
}

void core_push_spki_keytype(lua_State *L, const X509_PUBKEY *public_key) {
  const unsigned char *bytes;
  const ASN1_OBJECT *algorithm;
  const void *parameter;
  X509_ALGOR *identifier;
  char name[80];
  int length, type, nid;
  X509_PUBKEY_get0_param(NULL, &bytes, &length, &identifier, public_key);
  X509_ALGOR_get0(&algorithm, &type, &parameter, identifier);
  nid = OBJ_obj2nid(algorithm);
  if (nid == NID_rsaEncryption) {
    lua_pushfstring(L, "rsa:%d", modulus_bits(bytes, length));
    ERR_clear_error();
  } else if (nid == NID_X9_62_id_ecPublicKey) {
    push_curve(L, type == V_ASN1_OBJECT ? OBJ_obj2nid(parameter) : NID_undef);
  } else {
    OBJ_obj2txt(name, sizeof name, algorithm, 0);
    push_other(L, nid, name);
  }
}
