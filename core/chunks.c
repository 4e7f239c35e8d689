/*
 * chunks.c: the program's own Lua files as compiled when it was built.
 *
 * To compile them takes longer than most commands have to do.  Their text is
 * what counts, and it is read in any case: what stands here is used only for a
 * file of the same name and the same text, by the same release of Lua, so that
 * an edited file has effect at once.  core/chunks.lua writes the file, which is
 * trusted as the program's libraries are, beside which it lies: the release,
 * then name, text and bytecode of each; each of these is a length of 32 bits
 * and the bytes.
 */
#include "core.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct piece {
  const char *bytes;
  size_t length;
};

static struct piece chunks; /* the mapped file, from the first name on */

/* Takes the next piece off; false where the file is at its end, or cut. */
static bool take(struct piece *from, struct piece *piece) {
  uint32_t length;
  if (from->length < sizeof length)
    return false;
  memcpy(&length, from->bytes, sizeof length);
  if (from->length - sizeof length < length)
    return false;
  *piece = (struct piece){from->bytes + sizeof length, length};
  from->bytes = piece->bytes + length;
  from->length -= sizeof length + length;
  return true;
}

static bool is(const struct piece *piece, const char *bytes, size_t length) {
  return piece->length == length && memcmp(piece->bytes, bytes, length) == 0;
}

/* Maps the file path, if others could not have written it. */
static bool map(lua_State *L, const char *path, struct piece *file) {
  struct stat found, status;
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  void *at = MAP_FAILED;
  if (descriptor < 0)
    return false;
  if (fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) &&
      core_check_way(L, path, "run code from", &found) == 0 &&
      found.st_dev == status.st_dev && found.st_ino == status.st_ino)
    at = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor,
              0);
  close(descriptor);
  if (at == MAP_FAILED)
    return false;
  *file = (struct piece){at, (size_t)status.st_size};
  return true;
}

void core_open_chunks(lua_State *L, const char *path) {
  struct piece file, release;
  int top = lua_gettop(L);
  if (map(L, path, &file) && take(&file, &release) &&
      is(&release, lua_ident, strlen(lua_ident)))
    chunks = file;
  lua_settop(L, top);
}

bool core_push_chunk(lua_State *L, const char *name, const char *text,
                     size_t length) {
  struct piece rest = chunks, called, source, code;
  while (take(&rest, &called) && take(&rest, &source) && take(&rest, &code))
    if (is(&called, name, strlen(name)) && is(&source, text, length)) {
      if (luaL_loadbufferx(L, code.bytes, code.length, name, "b") == LUA_OK)
        return true;
      lua_pop(L, 1);
    }
  return false;
}
