/*
 * pbe.c: what password-based encryption (RFC 8018, RFC 7292 appendix B) would
 * cost, told before anything is derived: OpenSSL itself has no cap.
 */
#include "core.h"

#include <math.h>
#include <openssl/err.h>
#include <openssl/x509.h>

/* Seconds that a slow core takes for an iteration of PBKDF2, for one of
 * PKCS #12's own derivation, and for a block of scrypt (N times r times p). */
#define PBKDF2_SECONDS 1e-6
#define PKCS12_SECONDS 0.5e-6
#define SCRYPT_SECONDS 0.4e-6

static double number(const ASN1_INTEGER *integer) {
  int64_t value = 1;
  if (integer != NULL && !ASN1_INTEGER_get_int64(&value, integer))
    return HUGE_VAL;
  return value < 0 ? HUGE_VAL : (double)value;
}

double core_mac_seconds(const ASN1_INTEGER *iterations) {
  return number(iterations) * PKCS12_SECONDS;
}

#define PARAMETERS(type, algorithm)                                            \
  ((type *)ASN1_TYPE_unpack_sequence(ASN1_ITEM_rptr(type),                     \
                                     (algorithm)->parameter))

/* Of a key derivation of PBES2. */
static double derivation(const X509_ALGOR *algorithm) {
  bool scrypt = OBJ_obj2nid(algorithm->algorithm) == NID_id_scrypt;
  PBKDF2PARAM *p = scrypt ? NULL : PARAMETERS(PBKDF2PARAM, algorithm);
  SCRYPT_PARAMS *s = scrypt ? PARAMETERS(SCRYPT_PARAMS, algorithm) : NULL;
  double seconds = p != NULL ? number(p->iter) * PBKDF2_SECONDS : 0;
  if (s != NULL)
    seconds = number(s->costParameter) * number(s->blockSize) *
              number(s->parallelizationParameter) * SCRYPT_SECONDS;
  PBKDF2PARAM_free(p);
  SCRYPT_PARAMS_free(s);
  return seconds;
}

double core_pbe_seconds(const X509_ALGOR *algorithm) {
  bool pbes2 = OBJ_obj2nid(algorithm->algorithm) == NID_pbes2;
  PBE2PARAM *two = pbes2 ? PARAMETERS(PBE2PARAM, algorithm) : NULL;
  PBEPARAM *one = pbes2 ? NULL : PARAMETERS(PBEPARAM, algorithm);
  double seconds = one != NULL ? number(one->iter) * PKCS12_SECONDS : 0;
  if (two != NULL)
    seconds = derivation(two->keyfunc);
  PBE2PARAM_free(two);
  PBEPARAM_free(one);
  ERR_clear_error();
  return seconds;
}

bool core_pbe_unsupported(void) {
  unsigned long error = ERR_peek_error();
  int reason = ERR_GET_REASON(error);
  return reason == ERR_R_UNSUPPORTED ||
         (ERR_GET_LIB(error) == ERR_LIB_EVP &&
          (reason == EVP_R_UNKNOWN_PBE_ALGORITHM ||
           reason == EVP_R_UNSUPPORTED_CIPHER ||
           reason == EVP_R_UNSUPPORTED_PRF));
}
