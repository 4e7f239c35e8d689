/*
 * zip.c: core.zip, the files in a ZIP archive (PKWARE's APPNOTE.TXT, 4.3), as
 * secrets, for a key may be among them.
 *
 * Nothing is written anywhere; zlib inflates, and what it held is cleansed.
 * Numbers are unsigned, the lowest octet first (4.4.1.1).  Which entries are
 * read, and what is said of them, is Lua's business.
 */
#include "core.h"

#include <openssl/crypto.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#define LOCAL_SIZE 30     /* of the header before a file's data */
#define CENTRAL_SIZE 46   /* of one in the list of all files */
#define END_SIZE 22       /* of the record after that list */
#define COMMENT_MAX 65535 /* octets that may follow it */

enum { STORED = 0, DEFLATED = 8 };

static uint32_t number(const unsigned char *at, int octets) {
  uint32_t value = 0;
  while (octets-- > 0)
    value = value << 8 | at[octets];
  return value;
}

/* The header of that size and signature at an offset, or NULL. */
static const unsigned char *header(const unsigned char *bytes, size_t length,
                                   uint64_t offset, size_t size,
                                   const char *signature) {
  if (offset > length || length - offset < size ||
      memcmp(bytes + offset, signature, 4) != 0)
    return NULL;
  return bytes + offset;
}

/* The record at the end, or NULL. */
static const unsigned char *find_end(const unsigned char *bytes,
                                     size_t length) {
  size_t i;
  for (i = END_SIZE; i <= length && i <= END_SIZE + COMMENT_MAX; i++)
    if (memcmp(bytes + length - i, "PK\5\6", 4) == 0)
      return bytes + length - i;
  return NULL;
}

static void set_number(lua_State *L, const char *name, const unsigned char *at,
                       int octets) {
  lua_pushinteger(L, number(at, octets));
  lua_setfield(L, -2, name);
}

static void push_entry(lua_State *L, const unsigned char *at) {
  lua_createtable(L, 0, 7);
  core_pushtext(L, (const char *)at + CENTRAL_SIZE, number(at + 28, 2));
  lua_setfield(L, -2, "name");
  lua_pushboolean(L, (at[8] & 1) != 0);
  lua_setfield(L, -2, "is_encrypted");
  set_number(L, "method", at + 10, 2);
  set_number(L, "crc", at + 16, 4);
  set_number(L, "packed", at + 20, 4);
  set_number(L, "size", at + 24, 4);
  set_number(L, "offset", at + 42, 4);
}

/*
 * zip.entries(bytes) -> array of { name =, is_encrypted =, method =, crc =,
 *   packed =, size =, offset = } | nil, message, "parse" | "limit"
 * The list of files in an archive of at most 100 (a string or a secret): sizes
 * in octets, as they lie there and inflated; nothing of that is checked.
 */
static int l_entries(lua_State *L) {
  size_t length;
  const unsigned char *bytes =
      (const unsigned char *)core_check_bytes(L, 1, &length);
  const unsigned char *at = find_end(bytes, length);
  lua_Integer i, count = at != NULL ? number(at + 10, 2) : 0;
  uint64_t offset = at != NULL ? number(at + 16, 4) : 0;
  if (at == NULL)
    return core_fail(L, "parse", "its list of entries is missing");
  if (count > CORE_PILE_LIMIT)
    return core_fail(L, "limit", "more than %d entries", CORE_PILE_LIMIT);
  lua_createtable(L, (int)count, 0);
  for (i = 1; i <= count; i++) {
    at = header(bytes, length, offset, CENTRAL_SIZE, "PK\1\2");
    if (at == NULL || length - offset - CENTRAL_SIZE < number(at + 28, 2))
      return core_fail(L, "parse", "entry %d is malformed", (int)i);
    push_entry(L, at);
    lua_rawseti(L, -2, i);
    offset += CENTRAL_SIZE + number(at + 28, 2) + number(at + 30, 2) +
              number(at + 32, 2);
  }
  return 1;
}

static voidpf take(voidpf unused, uInt count, uInt size) {
  (void)unused;
  return OPENSSL_zalloc((size_t)count * size);
}

static void give_back(voidpf unused, voidpf block) {
  (void)unused;
  OPENSSL_free(block); /* cleansed, see memory.c */
}

/* Inflates into just so many octets. */
static bool inflated(const unsigned char *data, size_t packed, void *out,
                     size_t size) {
  z_stream stream = {.zalloc = take, .zfree = give_back};
  bool done;
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK)
    return false;
  stream.next_in = (unsigned char *)data;
  stream.avail_in = (uInt)packed;
  stream.next_out = out;
  stream.avail_out = (uInt)size;
  done = inflate(&stream, Z_FINISH) == Z_STREAM_END && stream.avail_out == 0;
  inflateEnd(&stream);
  return done;
}

/* A number of the entry at index 2; raises unless it has 32 bits. */
static uint32_t check_number(lua_State *L, const char *name) {
  lua_Integer value;
  lua_getfield(L, 2, name);
  value = luaL_checkinteger(L, -1);
  luaL_argcheck(L, value >= 0 && value <= UINT32_MAX, 2, "out of range");
  lua_pop(L, 1);
  return (uint32_t)value;
}

/*
 * zip.extract(bytes, entry) -> secret
 *   | nil, message, "parse" | "limit" | "unsupported"
 * The data of an entry as entries gives it, whole and of its checksum.
 */
static int l_extract(lua_State *L) {
  size_t length, size, packed, method;
  uint64_t first;
  const unsigned char *at, *bytes;
  core_secret *secret;
  luaL_checktype(L, 2, LUA_TTABLE);
  method = check_number(L, "method");
  packed = check_number(L, "packed");
  size = check_number(L, "size");
  first = check_number(L, "offset");
  if (size > CORE_BUNDLE_LIMIT)
    return core_fail(L, "limit", "more than 16 MiB");
  if (method != STORED && method != DEFLATED)
    return core_fail(L, "unsupported", "unknown way of compression");
  secret = core_secret_new(L, size);
  bytes = (const unsigned char *)core_check_bytes(L, 1, &length);
  at = header(bytes, length, first, LOCAL_SIZE, "PK\3\4");
  if (at != NULL)
    first += LOCAL_SIZE + number(at + 26, 2) + number(at + 28, 2);
  if (at == NULL || first > length || length - first < packed ||
      (method == STORED && packed != size))
    return core_fail(L, "parse", "damaged");
  if (method == STORED)
    memcpy(secret->bytes, bytes + first, size);
  else if (!inflated(bytes + first, packed, secret->bytes, size))
    return core_fail(L, "parse", "damaged");
  secret->length = size;
  secret->bytes[size] = '\0';
  if (crc32(0, (const unsigned char *)secret->bytes, (uInt)size) !=
      check_number(L, "crc"))
    return core_fail(L, "parse", "damaged");
  return 1;
}

static const luaL_Reg functions[] = {
    {"entries", l_entries}, {"extract", l_extract}, {NULL, NULL}};

int luaopen_core_zip(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
