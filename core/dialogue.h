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

#define DIALOGUE_LINE 4096 /* bytes of a line, without its end */
#define DIALOGUE_LINES 100 /* lines of one reply */
#define DIALOGUE_QUOTE 200 /* bytes of a server's text in a message */

enum dialogue_protocol {
  DIALOGUE_NONE,
  DIALOGUE_SMTP,
  DIALOGUE_IMAP,
  DIALOGUE_POP3
};

enum dialogue_stage {
  DIALOGUE_GREETING,
  DIALOGUE_HELLO, /* SMTP only: EHLO */
  DIALOGUE_STARTTLS,
  DIALOGUE_FAREWELL
};

enum dialogue_result {
  DIALOGUE_MORE,  /* send what is in out, then feed more */
  DIALOGUE_READY, /* the TLS handshake may begin */
  DIALOGUE_OVER,  /* the farewell was answered */
  DIALOGUE_FAILED /* code and reason say why */
};

struct dialogue {
  enum dialogue_protocol protocol;
  enum dialogue_stage stage;
  bool leaving;   /* the farewell follows a greeting, not STARTTLS */
  bool offered;   /* SMTP: STARTTLS was among the lines after EHLO */
  char number[3]; /* SMTP: the code of this reply's first line */
  unsigned lines; /* of this reply */
  char self[80];  /* SMTP: what EHLO says */
  char out[128];  /* to be sent; whoever sent it sets out_length to 0 */
  size_t out_length;
  const char *code; /* of a failure, as core_fail has it */
  char reason[2 * DIALOGUE_QUOTE];
  size_t line_length; /* of the line that is not whole yet */
  char line[DIALOGUE_LINE + 1];
};

/* Before TLS: expects the greeting, goes on to STARTTLS (SMTP: RFC 3207, IMAP
 * and POP3: RFC 2595).  self is the EHLO argument (RFC 5321, 4.1.3). */
void dialogue_open(struct dialogue *d, enum dialogue_protocol protocol,
                   const char *self);

/* Within TLS: the farewell, after a greeting unless the server was greeted
 * before TLS began. */
void dialogue_leave(struct dialogue *d, enum dialogue_protocol protocol,
                    bool greeted);

/* Takes what the server sent. */
enum dialogue_result dialogue_feed(struct dialogue *d, const char *bytes,
                                   size_t length);

/* Puts the farewell into out, whatever was there. */
void dialogue_farewell(struct dialogue *d);

/* Writes bytes as printable ASCII, the rest as \xHH, shortened with "..." to
 * what fits into size (4 at least) and DIALOGUE_QUOTE; out ends with NUL. */
void dialogue_escape(char *out, size_t size, const char *bytes, size_t length);

#endif
