/* revocation.c: revocation lists and OCSP responses. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("revocation", data, size);
}
