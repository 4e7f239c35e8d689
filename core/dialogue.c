/*
 * dialogue.c: the STARTTLS dialogues of SMTP, IMAP and POP3, and their
 * farewells (see dialogue.h).
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

static enum dialogue_result fail(struct dialogue *d, const char *code,
                                 const char *reason) {
  d->code = code;
  snprintf(d->reason, sizeof d->reason, "%s", reason);
  return DIALOGUE_FAILED;
}

/* Fails with the line the server sent. */
static enum dialogue_result fail_line(struct dialogue *d, const char *code,
                                      const char *what) {
  char quoted[DIALOGUE_QUOTE];
  dialogue_escape(quoted, sizeof quoted, d->line, d->line_length);
  d->code = code;
  snprintf(d->reason, sizeof d->reason, "%s \"%s\"", what, quoted);
  return DIALOGUE_FAILED;
}

/* Whether the line has word at this place, whole, in whatever case. */
static bool has_word(const struct dialogue *d, size_t at, const char *word) {
  size_t length = strlen(word);
  return d->line_length >= at + length &&
         strncasecmp(d->line + at, word, length) == 0 &&
         (d->line_length == at + length || d->line[at + length] == ' ');
}

/* RFC 5321, section 4.2: three digits and a space, or a hyphen in each line
 * but the last. */
static enum meaning read_smtp(struct dialogue *d) {
  static const char *const expected[] = {"220", "250", "220", "221"};
  const char *line = d->line;
  size_t digits = 0;
  while (digits < 3 && digits < d->line_length && line[digits] >= '0' &&
         line[digits] <= '9')
    digits++;
  if (digits < 3 || (d->line_length > 3 && line[3] != ' ' && line[3] != '-'))
    return ALIEN;
  if (d->lines == 1)
    memcpy(d->number, line, 3);
  else if (memcmp(d->number, line, 3) != 0)
    return ALIEN;
  if (d->stage == DIALOGUE_HELLO && d->lines > 1 && has_word(d, 4, "STARTTLS"))
    d->offered = true;
  if (d->line_length > 3 && line[3] == '-')
    return GOES_ON;
  return memcmp(line, expected[d->stage], 3) == 0 ? GOOD : BAD;
}

/* RFC 9051, section 7.1: a greeting is untagged; after a command untagged
 * lines may come before the tagged one. */
static enum meaning read_imap(struct dialogue *d) {
  if (d->stage == DIALOGUE_GREETING) {
    if (has_word(d, 0, "* OK"))
      return GOOD;
    if (has_word(d, 0, "* PREAUTH")) /* RFC 9051, 6.2.1: too late for TLS */
      return d->leaving ? GOOD : BAD;
    return has_word(d, 0, "* BYE") ? BAD : ALIEN;
  }
  if (has_word(d, 0, "*"))
    return GOES_ON;
  if (!has_word(d, 0, "a1"))
    return ALIEN;
  if (has_word(d, 3, "OK"))
    return GOOD;
  return has_word(d, 3, "NO") || has_word(d, 3, "BAD") ? BAD : ALIEN;
}

/* RFC 1939, section 3. */
static enum meaning read_pop3(struct dialogue *d) {
  if (has_word(d, 0, "+OK"))
    return GOOD;
  return has_word(d, 0, "-ERR") ? BAD : ALIEN;
}

static enum meaning read_line(struct dialogue *d) {
  switch (d->protocol) {
  case DIALOGUE_SMTP:
    return read_smtp(d);
  case DIALOGUE_IMAP:
    return read_imap(d);
  case DIALOGUE_POP3:
    return read_pop3(d);
  default:
    return ALIEN;
  }
}

static void say(struct dialogue *d, enum dialogue_stage stage,
                const char *words) {
  d->stage = stage;
  d->out_length = strlen(words);
  memcpy(d->out, words, d->out_length);
}

void dialogue_farewell(struct dialogue *d) {
  say(d, DIALOGUE_FAREWELL,
      d->protocol == DIALOGUE_IMAP ? "a1 LOGOUT\r\n" : "QUIT\r\n");
}

static void say_hello(struct dialogue *d) {
  char words[sizeof d->out];
  snprintf(words, sizeof words, "EHLO %s\r\n", d->self);
  say(d, DIALOGUE_HELLO, words);
}

static void say_starttls(struct dialogue *d) {
  say(d, DIALOGUE_STARTTLS,
      d->protocol == DIALOGUE_SMTP   ? "STARTTLS\r\n"
      : d->protocol == DIALOGUE_IMAP ? "a1 STARTTLS\r\n"
                                     : "STLS\r\n");
}

/* Goes on after a reply that granted what was asked. */
static enum dialogue_result proceed(struct dialogue *d) {
  switch (d->stage) {
  case DIALOGUE_GREETING:
    if (d->leaving)
      dialogue_farewell(d);
    else if (d->protocol == DIALOGUE_SMTP)
      say_hello(d);
    else
      say_starttls(d);
    return DIALOGUE_MORE;
  case DIALOGUE_HELLO:
    if (!d->offered)
      return fail(d, "unsupported", "the server does not offer STARTTLS");
    say_starttls(d);
    return DIALOGUE_MORE;
  case DIALOGUE_STARTTLS:
    return DIALOGUE_READY;
  default:
    return DIALOGUE_OVER;
  }
}

/* Acts on the whole line that is in the buffer. */
static enum dialogue_result take_line(struct dialogue *d) {
  enum dialogue_result result;
  enum meaning meaning;
  if (d->line_length > 0 && d->line[d->line_length - 1] == '\r')
    d->line_length--;
  if (d->line_length > DIALOGUE_LINE)
    return fail(d, "limit", "a line of more than 4096 bytes");
  if (++d->lines > DIALOGUE_LINES)
    return fail(d, "limit", "a reply of more than 100 lines");
  meaning = read_line(d);
  if (meaning == ALIEN)
    return fail_line(d, "parse", "not a reply:");
  if (meaning == BAD)
    return fail_line(d, "refused", "the server said");
  if (meaning == GOOD && d->out_length > 0)
    return fail_line(d, "parse", "answered before it was asked:");
  result = meaning == GOOD ? proceed(d) : DIALOGUE_MORE;
  d->lines = meaning == GOOD ? 0 : d->lines;
  d->line_length = 0;
  return result;
}

enum dialogue_result dialogue_feed(struct dialogue *d, const char *bytes,
                                   size_t length) {
  enum dialogue_result result = DIALOGUE_MORE;
  size_t i;
  for (i = 0; i < length && result == DIALOGUE_MORE; i++) {
    if (bytes[i] == '\n')
      result = take_line(d);
    else if (d->line_length == sizeof d->line)
      result = fail(d, "limit", "a line of more than 4096 bytes");
    else
      d->line[d->line_length++] = bytes[i];
  }
  if (result == DIALOGUE_READY && i < length) {
    d->line_length = length - i < sizeof d->line ? length - i : sizeof d->line;
    memcpy(d->line, bytes + i, d->line_length);
    return fail_line(d, "parse", "sent in clear after STARTTLS:");
  }
  return result;
}

void dialogue_open(struct dialogue *d, enum dialogue_protocol protocol,
                   const char *self) {
  memset(d, 0, sizeof *d);
  d->protocol = protocol;
  d->stage = DIALOGUE_GREETING;
  snprintf(d->self, sizeof d->self, "%s", self);
}

void dialogue_leave(struct dialogue *d, enum dialogue_protocol protocol,
                    bool greeted) {
  memset(d, 0, sizeof *d);
  d->protocol = protocol;
  d->stage = DIALOGUE_GREETING;
  d->leaving = true;
  if (greeted)
    dialogue_farewell(d);
}
