/* zip.c: ZIP archives, and all that is in them. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("zip", data, size);
}
