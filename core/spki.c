/*
 * spki.c: the public half of a key, SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
 *
 * OpenSSL's encoder and decoder for public keys cost some 300 microseconds
 * each: named curves and the keys of RFC 8410 are put in by hand here, and what
 * can be told from the algorithm is told without decoding.
 */
#include "core.h"

#include <ctype.h>
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
  bool ec = EVP_PKEY_is_a(key, "EC");
  bool raw =
      !ec && (EVP_PKEY_is_a(key, "ED25519") || EVP_PKEY_is_a(key, "ED448"));
  bool done =
      (ec && put_ec(key, public_key)) || (raw && put_raw(key, public_key));
  core_clear_errors();
  return done;
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

void core_push_spki_fingerprint(lua_State *L, X509_PUBKEY *public_key) {
  core_push_der(L, public_key, ASN1_ITEM_rptr(X509_PUBKEY));
  core_push_fingerprint(L);
}

/* Bits of the modulus in an RSAPublicKey (RFC 8017, A.1.1); 0: malformed. */
static int modulus_bits(const unsigned char *der, long length) {
  ASN1_INTEGER *number = NULL;
  BIGNUM *modulus = NULL;
  int tag, class, bits = 0;
  if ((ASN1_get_object(&der, &length, &tag, &class, length) & 0x80) == 0 &&
      (number = d2i_ASN1_INTEGER(NULL, &der, length)) != NULL &&
      (modulus = ASN1_INTEGER_to_BN(number, NULL)) != NULL)
    bits = BN_num_bits(modulus);
  BN_free(modulus);
  ASN1_INTEGER_free(number);
  ERR_clear_error();
  return bits;
}

void core_push_spki_keytype(lua_State *L, const X509_PUBKEY *public_key) {
  const unsigned char *bytes;
  const ASN1_OBJECT *algorithm;
  const void *parameter;
  X509_ALGOR *identifier;
  const char *name;
  char text[80], *c;
  int length, type, nid;
  X509_PUBKEY_get0_param(NULL, &bytes, &length, &identifier, public_key);
  X509_ALGOR_get0(&algorithm, &type, &parameter, identifier);
  switch (OBJ_obj2nid(algorithm)) {
  case NID_rsaEncryption:
    lua_pushfstring(L, "rsa:%d", modulus_bits(bytes, length));
    break;
  case NID_X9_62_id_ecPublicKey:
    nid = type == V_ASN1_OBJECT ? OBJ_obj2nid(parameter) : NID_undef;
    name = EC_curve_nid2nist(nid);
    if (name == NULL)
      name = nid != NID_undef ? OBJ_nid2sn(nid) : "explicit";
    lua_pushfstring(L, "ec:%s", name);
    break;
  case NID_rsassaPss:
    lua_pushstring(L, "rsa-pss");
    break;
  case NID_dsa:
    lua_pushstring(L, "dsa");
    break;
  default:
    OBJ_obj2txt(text, sizeof text, algorithm, 0);
    for (c = text; *c != '\0'; c++)
      *c = (char)tolower((unsigned char)*c);
    lua_pushstring(L, text);
  }
}
