/*
 * dialogue.c: the STARTTLS dialogues of SMTP, IMAP and POP3 (see dialogue.h).
 *
 * The bytes come from a server that nobody has authenticated yet: lines and
 * replies have a limit, what is no reply is refused, and so is anything that
 * was sent ahead of the handshake, which would else count as protected
 * (RFC 3207, section 4.2; RFC 9051, section 6.2.1).
 */
#include "dialogue.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

/* What a line of a reply means. */
enum meaning { GOES_ON, GOOD, BAD, ALIEN };

void dialogue_escape(char *out, size_t size, const char *bytes, size_t length) {
  const size_t room = (size < DIALOGUE_QUOTE ? size : DIALOGUE_QUOTE) - 4;
  size_t used = 0, i;
  for (i = 0; i < length; i++) {
    unsigned char c = (unsigned char)bytes[i];
    bool plain = c >= 0x20 && c < 0x7F && c != '\\' && c != '"';
    if (used + (plain ? 1 : 4) > room)
      break;
    used += (size_t)snprintf(out + used, 5, plain ? "%c" : "\\x%02x", c);
  }
  strcpy(out + used, i < length ? "..." : "");
}

/* Whether a line begins with these words, in whatever case. */
static bool says(const char *line, const char *text) {
  size_t length = strlen(text);
  return strncasecmp(line, text, length) == 0 &&
         (line[length] == '\0' || line[length] == ' ');
}

/* RFC 5321, section 4.2: three digits and a space, or a hyphen in each line
 * but the last. */
static enum meaning read_smtp(struct dialogue *d) {
  static const char *const expected[] = {"220", "250", "220"};
  const char *line = d->line;
  if (strspn(line, "0123456789") != 3 || strchr(" -", line[3]) == NULL)
    return ALIEN;
  if (d->lines == 1)
    memcpy(d->number, line, 3);
  else if (memcmp(d->number, line, 3) != 0)
    return ALIEN;
  if (d->stage == HELLO && d->lines > 1 && line[3] != '\0' &&
      says(line + 4, "STARTTLS"))
    d->offered = true;
  if (line[3] == '-')
    return GOES_ON;
  return memcmp(line, expected[d->stage], 3) == 0 ? GOOD : BAD;
}

/* RFC 9051, section 7.1: a greeting is untagged; after a command untagged
 * lines may come before the tagged one.  PREAUTH is too late for TLS (6.2.1).
 */
static enum meaning read_imap(struct dialogue *d) {
  const char *line = d->line;
  bool greeting = d->stage == GREETING;
  if (says(line, greeting ? "* OK" : "a1 OK"))
    return GOOD;
  if (greeting)
    return says(line, "* BYE") || says(line, "* PREAUTH") ? BAD : ALIEN;
  if (says(line, "*"))
    return GOES_ON;
  return says(line, "a1 NO") || says(line, "a1 BAD") ? BAD : ALIEN;
}

/* RFC 1939, section 3. */
static enum meaning read_pop3(struct dialogue *d) {
  if (says(d->line, "+OK"))
    return GOOD;
  return says(d->line, "-ERR") ? BAD : ALIEN;
}

static const struct {
  const char *starttls, *farewell;
  enum meaning (*read)(struct dialogue *d);
} protocols[] = {
    [NO_MAIL] = {"", "", NULL},
    [SMTP] = {"STARTTLS\r\n", "QUIT\r\n", read_smtp},
    [IMAP] = {"a1 STARTTLS\r\n", "a1 LOGOUT\r\n", read_imap},
    [POP3] = {"STLS\r\n", "QUIT\r\n", read_pop3},
};

/* Fails, with what the server sent or NULL. */
static enum dialogue_result fail(struct dialogue *d, const char *code,
                                 const char *reason, const char *bytes,
                                 size_t length) {
  char quoted[DIALOGUE_QUOTE];
  d->code = code;
  d->out = protocols[d->protocol].farewell;
  snprintf(d->reason, sizeof d->reason, "%s", reason);
  if (bytes != NULL) {
    dialogue_escape(quoted, sizeof quoted, bytes, length);
    snprintf(d->reason, sizeof d->reason, "%s \"%s\"", reason, quoted);
  }
  return DIALOGUE_FAILED;
}

static void say(struct dialogue *d, enum dialogue_stage stage,
                const char *text) {
  d->stage = stage;
  d->out = text;
}

void dialogue_farewell(struct dialogue *d) {
  say(d, FAREWELL, protocols[d->protocol].farewell);
}

/* Goes on after a reply that granted what was asked. */
static enum dialogue_result proceed(struct dialogue *d) {
  if (d->stage == STARTTLS)
    return DIALOGUE_READY;
  if (d->stage == HELLO && !d->offered)
    return fail(d, "unsupported", "the server does not offer STARTTLS", NULL,
                0);
  if (d->leaving)
    dialogue_farewell(d);
  else if (d->stage == GREETING && d->protocol == SMTP)
    say(d, HELLO, d->hello);
  else
    say(d, STARTTLS, protocols[d->protocol].starttls);
  return DIALOGUE_MORE;
}

/* Acts on the whole line that is in the buffer. */
static enum dialogue_result take_line(struct dialogue *d) {
  enum meaning meaning;
  size_t length = d->line_length;
  if (length > 0 && d->line[length - 1] == '\r')
    length--;
  d->line[length] = '\0';
  d->line_length = 0;
  if (++d->lines > DIALOGUE_LINES)
    return fail(d, "limit", "a reply of more than 100 lines", NULL, 0);
  meaning = protocols[d->protocol].read(d);
  if (meaning == GOES_ON)
    return DIALOGUE_MORE;
  if (meaning == ALIEN)
    return fail(d, "parse", "not a reply:", d->line, length);
  if (meaning == BAD)
    return fail(d, "refused", "the server said", d->line, length);
  if (d->out[0] != '\0')
    return fail(d, "parse", "answered before it was asked:", d->line, length);
  d->lines = 0;
  return proceed(d);
}

enum dialogue_result dialogue_feed(struct dialogue *d, const char *bytes,
                                   size_t length) {
  enum dialogue_result result = DIALOGUE_MORE;
  size_t i;
  for (i = 0; i < length && result == DIALOGUE_MORE; i++) {
    if (d->stage == FAREWELL)
      break;
    if (bytes[i] == '\n')
      result = take_line(d);
    else if (d->line_length == DIALOGUE_LINE)
      result = fail(d, "limit", "a line of more than 4096 bytes", NULL, 0);
    else
      d->line[d->line_length++] = bytes[i];
  }
  if (result == DIALOGUE_READY && i < length)
    return fail(d, "parse", "sent in clear after STARTTLS:", bytes + i,
                length - i);
  return result;
}

void dialogue_open(struct dialogue *d, enum dialogue_protocol protocol,
                   const char *self) {
  memset(d, 0, sizeof *d);
  d->protocol = protocol;
  d->leaving = self == NULL;
  d->out = "";
  if (self != NULL)
    snprintf(d->hello, sizeof d->hello, "EHLO %s\r\n", self);
}
