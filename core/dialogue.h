/*
 * dialogue.h: what a client and a mail server say around a TLS handshake: up
 * to STARTTLS before it, the farewell after it.
 *
 * A state machine over bytes.  It knows no socket, no TLS and no Lua, waits
 * for nothing and allocates nothing: its caller carries the bytes.
 */
#ifndef DIALOGUE_H
#define DIALOGUE_H

#include <stdbool.h>
#include <stddef.h>

#define DIALOGUE_LINE 4097 /* bytes of a line, with its CR */
#define DIALOGUE_LINES 100 /* of one reply */
#define DIALOGUE_QUOTE 200 /* bytes of a server's text in a message */

enum dialogue_protocol { NO_MAIL, SMTP, IMAP, POP3 };

/* EHLO is SMTP's; what the server says after the farewell is not read. */
enum dialogue_stage { GREETING, HELLO, STARTTLS, FAREWELL };

enum dialogue_result {
  DIALOGUE_MORE,  /* send out, then feed more */
  DIALOGUE_READY, /* the TLS handshake may begin */
  DIALOGUE_FAILED /* code and reason say why; out is the farewell */
};

struct dialogue {
  enum dialogue_protocol protocol;
  enum dialogue_stage stage;
  bool leaving;   /* the farewell follows the greeting */
  bool offered;   /* STARTTLS was among the lines after EHLO */
  char number[3]; /* the code of this SMTP reply's first line */
  unsigned lines; /* of this reply */
  char hello[96];
  const char *out; /* to be sent; whoever sends it sets it to "" */
  const char *code;
  char reason[2 * DIALOGUE_QUOTE];
  size_t line_length; /* of the line that is not whole yet */
  char line[DIALOGUE_LINE + 1];
};

/* Expects the greeting.  In clear it goes on to STARTTLS (SMTP: RFC 3207, IMAP
 * and POP3: RFC 2595), self being EHLO's argument (RFC 5321, 4.1.3); within
 * TLS self is NULL, and the farewell follows. */
void dialogue_open(struct dialogue *d, enum dialogue_protocol protocol,
                   const char *self);

/* Takes what the server sent; there is a protocol. */
enum dialogue_result dialogue_feed(struct dialogue *d, const char *bytes,
                                   size_t length);

/* Puts the farewell into out; without a protocol it is "". */
void dialogue_farewell(struct dialogue *d);

/* Writes bytes as printable ASCII, the rest as \xHH, shortened with "..." to
 * what fits into size (4 at least) and DIALOGUE_QUOTE; out ends with NUL. */
void dialogue_escape(char *out, size_t size, const char *bytes, size_t length);

#endif
