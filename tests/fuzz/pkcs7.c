/* pkcs7.c: PKCS #7, in DER and PEM. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("pkcs7", data, size);
}
