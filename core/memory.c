/*
 * memory.c: what OpenSSL frees is cleansed.
 *
 * OpenSSL cleanses what it holds a key in, but not each copy that its decoders
 * make on the way: the DER of a key stays in the heap when the key is long
 * gone.  All of its memory goes through here, so nothing does.  What registers
 * held, which the dynamic linker saves on the stack, is in nobody's hands.
 */
#include "core.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a block that is cleansed: no key is longer in any form that OpenSSL
 * copies, but the buffers of its connections are. */
#define LARGEST (16 * 1024)

static void *take(size_t size, const char *file, int line) {
  (void)file, (void)line;
  return malloc(size);
}

static void give_back(void *block, const char *file, int line) {
  size_t size = block != NULL ? malloc_usable_size(block) : 0;
  (void)file, (void)line;
  if (size > 0 && size <= LARGEST)
    explicit_bzero(block, size);
  free(block);
}

/* As realloc, which would leave a copy where a block was. */
static void *resize(void *block, size_t size, const char *file, int line) {
  size_t before = block != NULL ? malloc_usable_size(block) : 0;
  void *other;
  if (block != NULL && size > 0 && size <= before)
    return block;
  other = size > 0 ? malloc(size) : NULL;
  if (other != NULL && before > 0)
    memcpy(other, block, before);
  if (other != NULL || size == 0)
    give_back(block, file, line);
  return other;
}

void core_cleanse_freed(void) {
  CRYPTO_set_mem_functions(take, resize, give_back);
}
