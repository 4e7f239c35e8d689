/*
 * endpoint.c: URLs of endpoints and the look-up of their hosts without
 * holding anybody up.  No Lua.
 */
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const struct {
  const char *name;
  unsigned port;
  enum dialogue_protocol protocol;
  bool starttls;
} schemes[] = {
    {"https", 443, NO_MAIL, false}, {"smtp", 25, SMTP, true},
    {"smtps", 465, SMTP, false},    {"imap", 143, IMAP, true},
    {"imaps", 993, IMAP, false},    {"pop3", 110, POP3, true},
    {"pop3s", 995, POP3, false},    {NULL, 0, NO_MAIL, false},
};

/* Whether it is ASCII without spaces and control characters. */
static bool is_printable(const char *text, size_t length) {
  while (length > 0 && text[length - 1] > ' ' && text[length - 1] <= '~')
    length--;
  return length == 0;
}

/* HOST or [IPv6 ADDRESS]: what follows it, or NULL. */
static const char *read_host(struct endpoint *e, const char *text) {
  bool bracket = *text == '[';
  const char *start = text + bracket;
  size_t length = strcspn(start, bracket ? "]" : ":/?#@[]");
  if (!endpoint_name(e->name, start, length))
    return NULL;
  memcpy(e->host, start, length);
  e->host[length] = '\0';
  if (!bracket)
    return start + length;
  if (start[length] != ']' || e->name[0] != '\0' || !strchr(e->host, ':'))
    return NULL;
  return start + length + 1;
}

const char *endpoint_parse(struct endpoint *e, const char *url, size_t length,
                           const char **code) {
  const char *colon = strstr(url, "://"), *rest;
  size_t i = 0, digits;
  *code = "usage";
  if (!is_printable(url, length))
    return "a URL has neither spaces nor characters beyond ASCII";
  if (colon == NULL)
    return "it is not of the form SCHEME://HOST:PORT";
  while (schemes[i].name != NULL &&
         (strlen(schemes[i].name) != (size_t)(colon - url) ||
          strncasecmp(schemes[i].name, url, (size_t)(colon - url)) != 0))
    i++;
  if (schemes[i].name == NULL) {
    *code = "unsupported";
    return "its protocol is not supported";
  }
  e->port = schemes[i].port;
  e->protocol = schemes[i].protocol;
  e->starttls = schemes[i].starttls;
  rest = read_host(e, colon + 3);
  if (rest == NULL)
    return "its host is neither a name nor an address";
  if (*rest == ':') {
    digits = strspn(++rest, "0123456789");
    e->port = digits < 6 ? (unsigned)atoi(rest) : 0;
    if (digits == 0 || e->port == 0 || e->port > 65535)
      return "its port is not a number from 1 to 65535";
    rest += digits;
  }
  if (*rest == '/')
    rest++;
  return *rest == '\0' ? NULL : "an endpoint ends after its host and port";
}

bool endpoint_name(char name[HOST_SIZE], const char *host, size_t length) {
  struct sockaddr_storage address;
  socklen_t size;
  if (length > 0 && host[length - 1] == '.')
    length--;
  if (length == 0 || length > 253 || !is_printable(host, length))
    return false;
  memcpy(name, host, length);
  name[length] = '\0';
  if (endpoint_address(name, &address, &size))
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
  atomic_store(&lookup->status,
               getaddrinfo(lookup->host, NULL, &hints, &lookup->list));
  eventfd_write(lookup->descriptor, 1);
  lookup_drop(lookup);
  return NULL;
}

/* The thread is detached and gets no signal of the process. */
struct lookup *lookup_start(const char *host) {
  struct lookup *lookup = calloc(1, sizeof *lookup);
  pthread_t thread;
  sigset_t all, before;
  int error;
  if (lookup == NULL)
    return NULL;
  atomic_init(&lookup->owners, 2);
  strcpy(lookup->host, host);
  lookup->descriptor = eventfd(0, EFD_CLOEXEC);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  error = lookup->descriptor < 0
              ? errno
              : pthread_create(&thread, NULL, look_up, lookup);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error == 0) {
    pthread_detach(thread);
    return lookup;
  }
  atomic_store(&lookup->owners, 1);
  lookup_drop(lookup);
  errno = error;
  return NULL;
}
