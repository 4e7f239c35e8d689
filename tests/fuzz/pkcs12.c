/* pkcs12.c: PKCS #12, with a password and without. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("pkcs12", data, size);
}
