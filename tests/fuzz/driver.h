/*
 * driver.h: a fuzz target for a reader of tests/support/readers.lua is one
 * function, in a file named as the reader:
 *
 *   int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
 *     return driver_read("certificate", data, size);
 *   }
 *
 * Its seeds are the files below that name in the corpus (tests/corpus).
 */
#ifndef DRIVER_H
#define DRIVER_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Has the reader of that name read the bytes, in one Lua state for all of them,
 * whose collector never rests.  What it raises ends the process. */
int driver_read(const char *reader, const uint8_t *data, size_t size);

#endif
