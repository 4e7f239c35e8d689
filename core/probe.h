/*
 * probe.h: what the files of core.probe share: probe.c (many probes at once,
 * and Lua), handshake.c (one probe), rehearse.c (a handshake in memory).
 */
#ifndef PROBE_H
#define PROBE_H

#include "endpoint.h"

#include <lua.h>
#include <openssl/ssl.h>
#include <stdbool.h>

#define URL_SIZE 512
#define ADDRESS_SIZE 64 /* an IPv6 address and its zone */

enum probe_step {
  PROBE_WAITING,
  PROBE_RESOLVE,
  PROBE_CONNECT,
  PROBE_GREETING,
  PROBE_STARTTLS,
  PROBE_HANDSHAKE,
  PROBE_FAREWELL,
  PROBE_FINISHED
};

/* One endpoint at one address under one name. */
struct probe {
  struct probe *next;
  char url[URL_SIZE], name[HOST_SIZE]; /* an empty name is not sent */
  struct endpoint endpoint;
  struct sockaddr_storage address;
  socklen_t address_length; /* 0: not known yet */
  enum probe_step step;
  double began, deadline, limit; /* seconds, monotonic; limit of one step */
  struct lookup *lookup;         /* its run's */
  int descriptor;                /* to be polled: the look-up's or a socket */
  short events;
  struct dialogue *dialogue;
  SSL *ssl;
  bool asked;     /* the server wanted a certificate of ours */
  bool closing;   /* close_notify was sent */
  size_t drained; /* bytes read since the handshake */
  /* what was seen */
  STACK_OF(X509) * chain;
  unsigned char fingerprint[32];
  const char *protocol, *cipher;
  double seconds;
  /* or why nothing was */
  enum probe_step failed;
  const char *code;
  char message[URL_SIZE + 512];
};

/* handshake.c */

/* Starts connecting to the address; the loop then calls probe_advance on each
 * event, until the step is PROBE_FINISHED. */
void probe_connect(struct probe *p);
void probe_advance(struct probe *p);

void probe_enter(struct probe *p, enum probe_step step, short events);
void probe_finish(struct probe *p);
void probe_fail(struct probe *p, const char *code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void probe_fail_errno(struct probe *p, int error);

const char *probe_step_name(enum probe_step step);
void probe_address(const struct probe *p, char text[ADDRESS_SIZE]);

/* The client's side of every handshake, made on first use and kept until the
 * program ends.  NULL: OpenSSL's queue says why. */
SSL_CTX *probe_context(void);

/* rehearse.c */
int probe_rehearse(lua_State *L);

#endif
