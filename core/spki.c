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

#define POINT_LIMIT 256 /* octets of a point; on P-521 133 */

/* What SubjectPublicKeyInfo says: an algorithm and its curve (NIDs; NID_undef:
 * no parameters), and the bits of the key. */
struct half {
  int algorithm, curve;
  size_t length;
  unsigned char bits[POINT_LIMIT];
};

/* A point of a named curve (RFC 5480, section 2); all is asked for at once,
 * since every question costs OpenSSL an export. */
static bool take_point(EVP_PKEY *key, struct half *half) {
  char curve[64] = "", encoding[32] = "";
  OSSL_PARAM wanted[] = {
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, curve, sizeof curve),
      OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_ENCODING, encoding,
                             sizeof encoding),
      OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, half->bits, POINT_LIMIT),
      OSSL_PARAM_END};
  if (!EVP_PKEY_get_params(key, wanted) || !OSSL_PARAM_modified(&wanted[2]) ||
      strcmp(encoding, OSSL_PKEY_EC_ENCODING_GROUP) != 0)
    return false;
  half->algorithm = NID_X9_62_id_ecPublicKey;
  half->curve = OBJ_sn2nid(curve);
  half->length = wanted[2].return_size;
  return half->curve != NID_undef && OBJ_length(OBJ_nid2obj(half->curve)) > 0;
}

/* The keys of RFC 8410: no parameters, the raw key. */
static bool take_raw(EVP_PKEY *key, struct half *half) {
  half->algorithm = EVP_PKEY_get_id(key);
  half->curve = NID_undef;
  half->length = sizeof half->bits;
  return EVP_PKEY_get_raw_public_key(key, half->bits, &half->length) == 1;
}

/* false where only OpenSSL's encoder knows how. */
static bool take_half(EVP_PKEY *key, struct half *half) {
  int kind = EVP_PKEY_get_id(key);
  bool done = kind == EVP_PKEY_EC
                  ? take_point(key, half)
                  : (kind == EVP_PKEY_ED25519 || kind == EVP_PKEY_ED448) &&
                        take_raw(key, half);
  core_clear_errors();
  return done;
}

bool core_key_put_public(EVP_PKEY *key, X509_PUBKEY *public_key) {
  struct half half;
  unsigned char *bits;
  bool named;
  if (!take_half(key, &half))
    return false;
  named = half.curve != NID_undef;
  bits = OPENSSL_memdup(half.bits, half.length);
  if (bits != NULL &&
      X509_PUBKEY_set0_param(public_key, OBJ_nid2obj(half.algorithm),
                             named ? V_ASN1_OBJECT : V_ASN1_UNDEF,
                             named ? OBJ_nid2obj(half.curve) : NULL, bits,
                             (int)half.length))
    return true;
  OPENSSL_free(bits);
  return false;
}

/* The digest is kept: looking for it costs more than using it. */
static bool digest_bits(const unsigned char *bits, size_t length,
                        unsigned char id[CORE_KEY_ID]) {
  static EVP_MD *sha1 = NULL;
  if (sha1 == NULL)
    sha1 = EVP_MD_fetch(NULL, "SHA1", NULL);
  return sha1 != NULL && EVP_Digest(bits, length, id, NULL, sha1, NULL);
}

bool core_key_id(const X509_PUBKEY *public_key, unsigned char id[CORE_KEY_ID]) {
  const unsigned char *bits;
  int length;
  X509_PUBKEY_get0_param(NULL, &bits, &length, NULL, public_key);
  return digest_bits(bits, (size_t)length, id);
}

/* What only OpenSSL's encoder knows. */
static bool put_encoded(core_der *der, EVP_PKEY *key,
                        unsigned char id[CORE_KEY_ID]) {
  core_holder *box = core_push_holder(der->L, NULL);
  X509_PUBKEY *public_key = NULL;
  size_t length;
  const char *encoded;
  box->item = ASN1_ITEM_rptr(X509_PUBKEY);
  if (!X509_PUBKEY_set(&public_key, key))
    return false;
  box->value = public_key;
  core_push_der(der->L, public_key, box->item);
  encoded = lua_tolstring(der->L, -1, &length);
  core_der_add(der, encoded, length);
  lua_pop(der->L, 1);
  if (!core_key_id(public_key, id))
    return false;
  core_drop(der->L);
  return true;
}

bool core_put_public(core_der *der, EVP_PKEY *key,
                     unsigned char id[CORE_KEY_ID]) {
  struct half half;
  if (!take_half(key, &half))
    return put_encoded(der, key, id);
  core_der_open(der, CORE_DER_SEQUENCE);
  core_der_open(der, CORE_DER_SEQUENCE);
  core_der_put_object(der, half.algorithm);
  if (half.curve != NID_undef)
    core_der_put_object(der, half.curve);
  core_der_close(der, 1);
  core_der_open(der, CORE_DER_BITS);
  core_der_add(der, "", 1); /* none is unused */
  core_der_add(der, half.bits, half.length);
  core_der_close(der, 2);
  return digest_bits(half.bits, half.length, id);
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
