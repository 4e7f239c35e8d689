/*
 * probe.h: what the files of core.probe share: endpoint.c (URLs, look-ups),
 * handshake.c (one probe), probe.c (many at once, and Lua), rehearse.c (a
 * handshake in memory).
 */
#ifndef PROBE_H
#define PROBE_H

#include "dialogue.h"

#include <lua.h>
#include <netdb.h>
#include <openssl/ssl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>

/* endpoint.c: where a service is seen */

#define HOST_SIZE 256 /* a DNS name has 253 octets (RFC 1035, 2.3.4) */

struct endpoint {
  char host[HOST_SIZE]; /* an address without its brackets */
  char name[HOST_SIZE]; /* to ask for; none is sent when it is empty */
  unsigned port;
  enum dialogue_protocol protocol;
  bool starttls;
};

/* Reads SCHEME://HOST[:PORT][/], name being the host's.  NULL, or why not, with
 * the code. */
const char *endpoint_parse(struct endpoint *endpoint, const char *url,
                           size_t length, const char **code);

/* The server name indication for a host: without a last dot, empty when the
 * host is an address (RFC 6066, section 3).  False: no name at all. */
bool endpoint_name(char name[HOST_SIZE], const char *host, size_t length);

/* Reads an address; false when it is none. */
bool endpoint_address(const char *text, struct sockaddr_storage *address,
                      socklen_t *length);

/* A look-up in a thread of its own: getaddrinfo can take minutes, and the
 * thread may outlive all others.  The last owner frees it. */
struct lookup {
  atomic_int owners;
  int descriptor;    /* readable when it is done; from then on: */
  atomic_int status; /* getaddrinfo's */
  struct addrinfo *list;
  char host[HOST_SIZE];
};
struct lookup *lookup_start(const char *host); /* NULL: errno */
void lookup_drop(struct lookup *lookup);

/* handshake.c */

enum {
  PROBE_WAITING,
  PROBE_RESOLVE,
  PROBE_CONNECT,
  PROBE_GREETING,
  PROBE_STARTTLS,
  PROBE_HANDSHAKE,
  PROBE_FAREWELL
};

/* One endpoint at one address under one name. */
struct probe {
  struct probe *next;
  int index; /* of what it was made from, from 1 */
  char url[512];
  struct endpoint endpoint;
  struct sockaddr_storage address;
  socklen_t address_length; /* 0: not known yet */
  int step;
  bool done;                     /* in this step */
  double began, deadline, limit; /* seconds, monotonic; limit of one step */
  struct lookup *lookup;
  int descriptor; /* to be polled: of the socket, or the look-up's */
  short events;
  struct dialogue dialogue;
  SSL *ssl;
  bool wants_staple;
  /* what was seen */
  STACK_OF(X509) * chain;
  unsigned char *staple; /* an OCSP response, or NULL */
  long staple_length;
  const char *protocol, *cipher;
  double seconds;
  /* or why nothing was */
  const char *code;
  char reason[512];
};

extern const struct probe_step {
  const char *name, *trouble;
  void (*act)(struct probe *p); /* on an event */
} probe_steps[];

/* Begins, sharing the look-ups of the probes from other on; the loop then acts
 * on each event, until the probe is done. */
void probe_begin(struct probe *p, const struct probe *other);
void probe_finish(struct probe *p);
void probe_fail(struct probe *p, const char *code, const char *reason);

/* The client's side of every handshake, kept from its first use on.  NULL:
 * OpenSSL's queue says why. */
SSL_CTX *probe_context(void);

/* rehearse.c */
int probe_rehearse(lua_State *L);

#endif
