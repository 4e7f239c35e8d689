/* pile.c: files of PEM blocks, of every kind at once, for every reader. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("pile", data, size);
}
