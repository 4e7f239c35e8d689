/*
 * endpoint.c: URLs of endpoints and the look-up of their hosts (endpoint.h).
 */
#include "endpoint.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const struct scheme schemes[] = {
    {"https", 443, DIALOGUE_NONE, false}, {"smtp", 25, DIALOGUE_SMTP, true},
    {"smtps", 465, DIALOGUE_SMTP, false}, {"imap", 143, DIALOGUE_IMAP, true},
    {"imaps", 993, DIALOGUE_IMAP, false}, {"pop3", 110, DIALOGUE_POP3, true},
    {"pop3s", 995, DIALOGUE_POP3, false},
};

static const struct scheme *find_scheme(const char *name, size_t length) {
  size_t i;
  for (i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
    if (strlen(schemes[i].name) == length &&
        strncasecmp(schemes[i].name, name, length) == 0)
      return &schemes[i];
  return NULL;
}

/* The digits after a colon; sets what follows them. */
static bool read_port(const char *text, const char *end, unsigned *port,
                      const char **rest) {
  unsigned value = 0;
  while (text < end && *text >= '0' && *text <= '9' && value < 65536)
    value = 10 * value + (unsigned)(*text++ - '0');
  *port = value;
  *rest = text;
  return value > 0 && value < 65536;
}

/* HOST or [ADDRESS]; sets what follows it. */
static bool read_host(struct endpoint *endpoint, const char *text,
                      const char *end, const char **rest) {
  struct sockaddr_storage address;
  socklen_t size;
  bool bracket = text < end && *text == '[';
  const char *start = text + (bracket ? 1 : 0), *stop = start;
  while (stop < end && strchr(bracket ? "]" : ":/?#@[]", *stop) == NULL)
    stop++;
  if (stop == start || stop - start >= HOST_SIZE || (bracket && stop == end))
    return false;
  memcpy(endpoint->host, start, (size_t)(stop - start));
  endpoint->host[stop - start] = '\0';
  *rest = stop + (bracket ? 1 : 0);
  return !bracket || (endpoint_address(endpoint->host, &address, &size) &&
                      address.ss_family == AF_INET6);
}

const char *endpoint_parse(struct endpoint *endpoint, const char *url,
                           size_t length, const char **code) {
  const char *end = url + length, *colon = memchr(url, ':', length), *rest;
  size_t i;
  *code = "usage";
  for (i = 0; i < length; i++)
    if (url[i] <= ' ' || url[i] > '~')
      return "a URL has neither spaces nor characters beyond ASCII";
  if (colon == NULL || end - colon < 3 || memcmp(colon, "://", 3) != 0)
    return "it is not of the form SCHEME://HOST:PORT";
  endpoint->scheme = find_scheme(url, (size_t)(colon - url));
  if (endpoint->scheme == NULL) {
    *code = "unsupported";
    return "its protocol is not supported";
  }
  if (!read_host(endpoint, colon + 3, end, &rest))
    return "its host is neither a name nor an address";
  endpoint->port = endpoint->scheme->port;
  if (rest < end && *rest == ':' &&
      !read_port(rest + 1, end, &endpoint->port, &rest))
    return "its port is not a number from 1 to 65535";
  if (rest < end && *rest == '/')
    rest++;
  return rest == end ? NULL : "an endpoint ends after its host and port";
}

/* A last label of digits makes it an address, or a try at one. */
static bool looks_numeric(const char *host) {
  const char *dot = strrchr(host, '.'), *last = dot != NULL ? dot + 1 : host;
  return strchr(host, ':') != NULL || last[strspn(last, "0123456789")] == '\0';
}

bool endpoint_name(char name[HOST_SIZE], const char *host, size_t length) {
  size_t i;
  if (length > 0 && host[length - 1] == '.')
    length--;
  if (length == 0 || length > 253)
    return false;
  for (i = 0; i < length; i++)
    if (host[i] <= ' ' || host[i] > '~')
      return false;
  memcpy(name, host, length);
  name[length] = '\0';
  if (looks_numeric(name))
    name[0] = '\0';
  return true;
}

bool endpoint_address(const char *text, struct sockaddr_storage *address,
                      socklen_t *length) {
  const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST,
                                 .ai_socktype = SOCK_STREAM};
  struct addrinfo *list = NULL;
  struct in_addr plain;
  /* getaddrinfo takes "127.1" as well: only the dotted form is one here */
  if ((strchr(text, ':') == NULL && inet_pton(AF_INET, text, &plain) != 1) ||
      getaddrinfo(text, NULL, &hints, &list) != 0)
    return false;
  memcpy(address, list->ai_addr, list->ai_addrlen);
  *length = list->ai_addrlen;
  freeaddrinfo(list);
  return true;
}

struct lookup {
  atomic_int owners;
  atomic_bool done;
  int descriptor;
  int status;
  struct addrinfo *list;
  char host[HOST_SIZE];
};

void lookup_drop(struct lookup *lookup) {
  if (lookup == NULL || atomic_fetch_sub(&lookup->owners, 1) > 1)
    return;
  if (lookup->list != NULL)
    freeaddrinfo(lookup->list);
  if (lookup->descriptor >= 0)
    close(lookup->descriptor);
  free(lookup);
}

static void *look_up(void *argument) {
  struct lookup *lookup = argument;
  const struct addrinfo hints = {.ai_flags = AI_ADDRCONFIG,
                                 .ai_socktype = SOCK_STREAM};
  const uint64_t one = 1;
  ssize_t written;
  lookup->status = getaddrinfo(lookup->host, NULL, &hints, &lookup->list);
  atomic_store(&lookup->done, true);
  written = write(lookup->descriptor, &one, sizeof one);
  (void)written; /* an eventfd that is at 0 takes a 1 */
  lookup_drop(lookup);
  return NULL;
}

/* Starts a detached thread that gets no signal of the process. */
static int start_thread(struct lookup *lookup) {
  pthread_attr_t attributes;
  pthread_t thread;
  sigset_t all, before;
  int error = pthread_attr_init(&attributes);
  if (error != 0)
    return error;
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  error = pthread_create(&thread, &attributes, look_up, lookup);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return error;
}

struct lookup *lookup_start(const char *host) {
  struct lookup *lookup = calloc(1, sizeof *lookup);
  int error;
  if (lookup == NULL)
    return NULL;
  atomic_init(&lookup->owners, 2);
  strcpy(lookup->host, host);
  lookup->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  error = lookup->descriptor < 0 ? errno : start_thread(lookup);
  if (error == 0)
    return lookup;
  atomic_store(&lookup->owners, 1);
  lookup_drop(lookup);
  errno = error;
  return NULL;
}

const char *lookup_host(const struct lookup *lookup) {
  return lookup->host;
}

int lookup_descriptor(const struct lookup *lookup) {
  return lookup->descriptor;
}

bool lookup_done(const struct lookup *lookup, int *status,
                 const struct addrinfo **list) {
  if (!atomic_load(&lookup->done))
    return false;
  *status = lookup->status;
  *list = lookup->list;
  return true;
}
