/* certificate.c: X.509 certificates, one in DER or many in PEM. */
#include "driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return driver_read("certificate", data, size);
}
