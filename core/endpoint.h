/*
 * endpoint.h: where a service is seen: the URL, and the addresses of its host,
 * looked up without holding anybody up.  No Lua.
 */
#ifndef ENDPOINT_H
#define ENDPOINT_H

#include "dialogue.h"

#include <netdb.h>
#include <stdbool.h>
#include <sys/socket.h>

#define HOST_SIZE 256 /* a DNS name has 253 octets (RFC 1035, 2.3.4) */

struct scheme {
  const char *name;
  unsigned port;
  enum dialogue_protocol protocol;
  bool starttls;
};

struct endpoint {
  const struct scheme *scheme;
  char host[HOST_SIZE]; /* an address without its brackets */
  unsigned port;
};

/* Reads SCHEME://HOST[:PORT][/].  NULL, or why not, with the code. */
const char *endpoint_parse(struct endpoint *endpoint, const char *url,
                           size_t length, const char **code);

/* The server name indication for a host: without a last dot, empty when the
 * host is an address (RFC 6066, section 3).  False: no name at all. */
bool endpoint_name(char name[HOST_SIZE], const char *host, size_t length);

/* Reads an address; false when it is none. */
bool endpoint_address(const char *text, struct sockaddr_storage *address,
                      socklen_t *length);

/* A look-up in a thread of its own: getaddrinfo can take minutes.  The thread
 * may outlive the look-up's owner; who of the two is last frees it. */
struct lookup;
struct lookup *lookup_start(const char *host); /* NULL: errno */
void lookup_drop(struct lookup *lookup);
const char *lookup_host(const struct lookup *lookup);
int lookup_descriptor(const struct lookup *lookup); /* readable when done */
/* False while it lasts; then getaddrinfo's status and its list. */
bool lookup_done(const struct lookup *lookup, int *status,
                 const struct addrinfo **list);

#endif
