/*
 * der.c: DER (X.690) that is written here: signing requests, extensions, names.
 *
 * One pass, from the outermost element in: an element is opened with one octet
 * for its length (section 8.1.3.4), and only one of 128 octets or more moves
 * its contents when it is closed, to make room for the others (8.1.3.5; always
 * as few as will do, 10.1).  Tags are below 31, so that one octet identifies an
 * element (8.1.2.2).  What does not fit into the writer itself lies in a block
 * of memory in a slot of the Lua stack, so that nothing is left of it, whatever
 * raises.
 */
#include "core.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

void core_der_begin(core_der *der, lua_State *L) {
  lua_pushnil(L);
  der->L = L;
  der->slot = lua_gettop(L);
  der->bytes = der->first;
  der->length = 0;
  der->room = sizeof der->first;
  der->depth = 0;
}

unsigned char *core_der_room(core_der *der, size_t size) {
  size_t wanted = der->length + size;
  unsigned char *bytes;
  if (size <= der->room - der->length)
    return der->bytes + der->length;
  if (wanted < size || wanted > SIZE_MAX / 2)
    luaL_error(der->L, "not enough memory");
  bytes = lua_newuserdatauv(der->L, 2 * wanted, 0);
  memcpy(bytes, der->bytes, der->length);
  lua_replace(der->L, der->slot);
  der->bytes = bytes;
  der->room = 2 * wanted;
  return bytes + der->length;
}

void core_der_add(core_der *der, const void *bytes, size_t length) {
  memcpy(core_der_room(der, length), bytes, length);
  der->length += length;
}

/* Octets that a length takes after the first one. */
static size_t further(size_t length) {
  size_t count = 0;
  if (length >= 0x80)
    for (; length > 0; length >>= 8)
      count++;
  return count;
}

/* Writes a length that takes so many further octets. */
static void write_length(unsigned char *at, size_t length, size_t count) {
  size_t i;
  at[0] = (unsigned char)(count > 0 ? 0x80 | count : length);
  for (i = count; i > 0; i--, length >>= 8)
    at[i] = (unsigned char)length;
}

void core_der_open(core_der *der, int identifier) {
  unsigned char *at = core_der_room(der, 2);
  if (der->depth == CORE_DER_DEPTH)
    luaL_error(der->L, "too many elements within each other");
  at[0] = (unsigned char)identifier;
  der->open[der->depth++] = der->length;
  der->length += 2;
}

void core_der_close(core_der *der, int count) {
  while (count-- > 0) {
    size_t from = der->open[--der->depth];
    size_t length = der->length - from - 2, more = further(length);
    unsigned char *at;
    if (more > 0) {
      core_der_room(der, more);
      at = der->bytes + from + 2;
      memmove(at + more, at, length);
      der->length += more;
    }
    write_length(der->bytes + from + 1, length, more);
  }
}

bool core_der_undo(core_der *der, int count) {
  if (der->length > der->open[der->depth - 1] + 2)
    return false;
  der->depth -= count;
  der->length = der->open[der->depth];
  return true;
}

void core_der_put(core_der *der, int identifier, const void *bytes,
                  size_t length) {
  size_t more = further(length);
  unsigned char *at = core_der_room(der, CORE_DER_HEADER) /* and then all */;
  at[0] = (unsigned char)identifier;
  write_length(at + 1, length, more);
  der->length += 2 + more;
  core_der_add(der, bytes, length);
}

void core_der_put_number(core_der *der, uint64_t number) {
  unsigned char octets[9] = {0};
  size_t i;
  for (i = 8; i > 0; i--, number >>= 8)
    octets[i] = (unsigned char)number;
  while (i < 8 && octets[i] == 0 && octets[i + 1] < 0x80)
    i++;
  core_der_put(der, CORE_DER_INTEGER, octets + i, sizeof octets - i);
}

bool core_der_put_object(core_der *der, int nid) {
  const ASN1_OBJECT *object = OBJ_nid2obj(nid);
  size_t length = object != NULL ? OBJ_length(object) : 0;
  if (length > 0)
    core_der_put(der, CORE_DER_OBJECT, OBJ_get0_data(object), length);
  return length > 0;
}

bool core_der_put_oid(core_der *der, const char *text, int *nid) {
  int size;
  *nid = OBJ_txt2nid(text);
  if (*nid != NID_undef)
    return core_der_put_object(der, *nid);
  if (!isdigit((unsigned char)text[0]) ||
      (size = a2d_ASN1_OBJECT(NULL, 0, text, -1)) <= 0)
    return false;
  core_der_open(der, CORE_DER_OBJECT);
  a2d_ASN1_OBJECT(core_der_room(der, (size_t)size), size, text, -1);
  der->length += (size_t)size;
  core_der_close(der, 1);
  return true;
}
