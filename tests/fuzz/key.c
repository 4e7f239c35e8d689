/* key.c: private keys. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("key", data, size);
}
