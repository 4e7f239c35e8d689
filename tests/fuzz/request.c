/* request.c: PKCS #10 requests. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("request", data, size);
}
