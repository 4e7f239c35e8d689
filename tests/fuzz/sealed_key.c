/* sealed_key.c: private keys, decrypted with a password. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("sealed_key", data, size);
}
