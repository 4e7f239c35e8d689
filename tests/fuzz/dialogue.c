/*
 * dialogue.c: what a mail server says around a TLS handshake.  The first byte
 * is the protocol and whether TLS is there already; the second how many bytes
 * come at once, and whether what is to be sent is sent in between.
 */
#include "../../core/dialogue.h"
#include "driver.h"

#include <stdlib.h>
#include <string.h>

static void require(bool holds) {
  if (!holds)
    abort();
}

/* Printable ASCII, without what would end a quotation. */
static void check_printable(const char *text) {
  for (; *text != '\0'; text++)
    require(*text >= 0x20 && *text < 0x7F);
}

static void check_failure(const struct dialogue *d) {
  static const char *const codes[] = {"limit", "parse", "refused",
                                      "unsupported"};
  bool known = false;
  size_t i;
  for (i = 0; i < sizeof codes / sizeof codes[0]; i++)
    known = known || strcmp(codes[i], d->code) == 0;
  require(known);
  require(memchr(d->reason, '\0', sizeof d->reason) != NULL);
  require(d->reason[0] != '\0');
  check_printable(d->reason);
}

static void check_escape(const uint8_t *data, size_t size) {
  char *quoted;
  size_t room = size > 0 ? 4 + data[0] : 4;
  quoted = malloc(room); /* to the byte: what is beyond is no one's */
  if (quoted == NULL)
    return;
  dialogue_escape(quoted, room, (const char *)data, size);
  check_printable(quoted);
  free(quoted);
}

/* Feeds pieces as they would come from a socket. */
static void converse(struct dialogue *d, const uint8_t *data, size_t size,
                     size_t piece, bool sends) {
  enum dialogue_result result = DIALOGUE_MORE;
  while (size > 0 && result == DIALOGUE_MORE) {
    size_t length = piece < size ? piece : size;
    char *bytes = malloc(length);
    if (bytes == NULL)
      return;
    memcpy(bytes, data, length);
    result = dialogue_feed(d, bytes, length);
    free(bytes);
    require(d->line_length <= DIALOGUE_LINE && d->lines <= DIALOGUE_LINES + 1);
    require(d->out != NULL);
    if (sends)
      d->out = "";
    data += length;
    size -= length;
  }
  if (result == DIALOGUE_FAILED)
    check_failure(d);
  /* only after the server granted STARTTLS, in clear */
  require(result != DIALOGUE_READY || (d->stage == STARTTLS && !d->leaving));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct dialogue d;
  if (size < 2)
    return 0;
  dialogue_open(&d, (enum dialogue_protocol)(1 + data[0] % 3),
                (data[0] & 0x80) != 0 ? NULL : "[192.0.2.7]");
  converse(&d, data + 2, size - 2, 1 + (data[1] & 0x7F), (data[1] & 0x80) == 0);
  check_escape(data + 2, size - 2);
  return 0;
}
