/*
 * handshake.c: one probe, from the look-up to the farewell: TCP, STARTTLS where
 * the protocol has it, TLS, and a good-bye that keeps the server's log clean.
 * Nothing here waits: a call goes as far as it can.
 *
 * Nothing is verified: the client is there to see, the weak and the expired
 * too.
 */
#include "core.h"
#include "probe.h"

#include <errno.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAREWELL_SECONDS 1.0

/* The end of a probe */

void probe_finish(struct probe *p) {
  SSL_free(p->ssl);
  p->ssl = NULL;
  if (p->step > PROBE_RESOLVE && p->descriptor >= 0)
    close(p->descriptor);
  p->descriptor = -1;
  p->done = true;
}

void probe_fail(struct probe *p, const char *code, const char *reason) {
  p->code = code;
  snprintf(p->reason, sizeof p->reason, "%s", reason);
  probe_finish(p);
}

/* Fails with an errno value, or 0: the server closed the connection. */
static void fail_errno(struct probe *p, int error) {
  const char *code = error == ECONNREFUSED               ? "refused"
                     : error == EACCES || error == EPERM ? "denied"
                     : error == ETIMEDOUT                ? "timeout"
                                                         : "io";
  probe_fail(p, code,
             error != 0 ? strerror(error) : "the server closed the connection");
}

static void enter(struct probe *p, int step, short events) {
  p->step = step;
  p->events = events;
  p->deadline = core_clock() + p->limit;
}

/* TLS */

static int accept_any(X509_STORE_CTX *store, void *unused) {
  (void)store;
  (void)unused;
  return 1;
}

SSL_CTX *probe_context(void) {
  static SSL_CTX *kept = NULL;
  SSL_CTX *context;
  if (kept != NULL || (context = SSL_CTX_new(TLS_client_method())) == NULL)
    return kept;
  SSL_CTX_set_cert_verify_callback(context, accept_any, NULL);
  SSL_CTX_set_options(context, SSL_OP_LEGACY_SERVER_CONNECT);
  if (SSL_CTX_set_cipher_list(context, "DEFAULT:@SECLEVEL=0") == 1 &&
      SSL_CTX_set_min_proto_version(context, TLS1_VERSION) == 1 &&
      SSL_CTX_set_max_proto_version(context, 0) == 1)
    return kept = context;
  SSL_CTX_free(context);
  return NULL;
}

/* Whether a call on p->ssl that returned result is to be repeated. */
static bool wants(struct probe *p, int result) {
  int error = SSL_get_error(p->ssl, result);
  p->events = error == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
  return error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ;
}

/* The reason of libssl's first error, 0 of any other. */
static int tls_reason(void) {
  unsigned long first = ERR_peek_error();
  return ERR_GET_LIB(first) == ERR_LIB_SSL ? ERR_GET_REASON(first) : 0;
}

static void fail_handshake(struct probe *p) {
  int reason = tls_reason();
  if (ERR_peek_error() == 0)
    fail_errno(p, errno);
  else if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    fail_errno(p, 0);
  else if (reason > SSL_AD_REASON_OFFSET) /* an alert that it sent */
    probe_fail(p, "refused", core_reason());
  else
    probe_fail(p, reason == SSL_R_EXCESSIVE_MESSAGE_SIZE ? "limit" : "parse",
               core_reason());
}

/* Whether the server, having proved that it holds the key, turned us away for
 * want of a certificate: TLS 1.2 ends the handshake so, TLS 1.3 lets it be. */
static bool turned_away(const struct probe *p) {
  const unsigned char *types;
  int type;
  return SSL_get0_certificate_types(p->ssl, &types) > 0 &&
         SSL_get_peer_signature_type_nid(p->ssl, &type) == 1 &&
         tls_reason() > SSL_AD_REASON_OFFSET;
}

/* Sends what the dialogue says, if anything; a failure shows when reading. */
static void say(struct probe *p) {
  const char *words = p->dialogue.out;
  p->dialogue.out = "";
  if (words[0] == '\0')
    return;
  if (p->ssl != NULL)
    SSL_write(p->ssl, words, (int)strlen(words));
  else
    (void)!send(p->descriptor, words, strlen(words), 0);
}

/* Farewell: QUIT or LOGOUT, and the server's end, or close_notify at once. */
static void part(struct probe *p) {
  char bytes[SSL3_RT_MAX_PLAIN_LENGTH]; /* nothing is left that poll misses */
  int n;
  ERR_clear_error();
  n = SSL_read(p->ssl, bytes, sizeof bytes);
  if (n <= 0 && wants(p, n))
    return;
  if (n > 0 && dialogue_feed(&p->dialogue, bytes, (size_t)n) == DIALOGUE_MORE) {
    say(p);
    return;
  }
  SSL_shutdown(p->ssl);
  probe_finish(p);
}

static void leave(struct probe *p) {
  p->limit = fmin(p->limit, FAREWELL_SECONDS);
  enter(p, PROBE_FAREWELL, POLLIN);
  dialogue_open(&p->dialogue, p->endpoint.protocol, NULL);
  if (p->endpoint.starttls || p->endpoint.protocol == NO_MAIL)
    dialogue_farewell(&p->dialogue);
  say(p);
  if (p->endpoint.protocol == NO_MAIL)
    SSL_shutdown(p->ssl);
  part(p);
}

/* What came with the certificate (RFC 6066, section 8). */
static void keep_staple(struct probe *p) {
  const unsigned char *bytes = NULL;
  long length = SSL_get_tlsext_status_ocsp_resp(p->ssl, &bytes);
  if (bytes == NULL || length <= 0 || (p->staple = malloc(length)) == NULL)
    return;
  memcpy(p->staple, bytes, (size_t)length);
  p->staple_length = length;
}

static void shake_hands(struct probe *p) {
  int result;
  ERR_clear_error();
  errno = 0;
  result = SSL_do_handshake(p->ssl);
  if (result != 1 && wants(p, result))
    return;
  if (result != 1 && !turned_away(p)) {
    fail_handshake(p);
    return;
  }
  p->chain = X509_chain_up_ref(SSL_get_peer_cert_chain(p->ssl));
  keep_staple(p);
  p->protocol = SSL_get_version(p->ssl);
  p->cipher = SSL_get_cipher_name(p->ssl);
  p->seconds = core_clock() - p->began;
  if (sk_X509_num(p->chain) < 1)
    probe_fail(p, "parse", "the server sent no certificate");
  else if (result == 1)
    leave(p);
  else
    probe_finish(p);
}

static void start_tls(struct probe *p) {
  enter(p, PROBE_HANDSHAKE, POLLOUT);
  ERR_clear_error();
  p->ssl = SSL_new(probe_context());
  if (p->ssl == NULL || SSL_set_fd(p->ssl, p->descriptor) != 1 ||
      (p->endpoint.name[0] != '\0' &&
       SSL_set_tlsext_host_name(p->ssl, p->endpoint.name) != 1) ||
      (p->wants_staple &&
       SSL_set_tlsext_status_type(p->ssl, TLSEXT_STATUSTYPE_ocsp) != 1)) {
    probe_fail(p, "io", core_reason());
    return;
  }
  SSL_set_connect_state(p->ssl);
  shake_hands(p);
}

/* Before TLS */

static void converse(struct probe *p) {
  struct dialogue *d = &p->dialogue;
  enum dialogue_result result;
  char bytes[4096];
  ssize_t n = recv(p->descriptor, bytes, sizeof bytes, 0);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n <= 0) {
    fail_errno(p, n < 0 ? errno : 0);
    return;
  }
  result = dialogue_feed(d, bytes, (size_t)n);
  if (p->step == PROBE_GREETING && d->stage != GREETING)
    enter(p, PROBE_STARTTLS, POLLIN);
  say(p);
  if (result == DIALOGUE_FAILED)
    probe_fail(p, d->code, d->reason);
  else if (result == DIALOGUE_READY)
    start_tls(p);
}

static void connected(struct probe *p) {
  struct sockaddr_storage own;
  char host[NI_MAXHOST] = "", self[80];
  const int yes = 1;
  int error = 0;
  socklen_t size = sizeof error, length = sizeof own;
  getsockopt(p->descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    fail_errno(p, error);
    return;
  }
  setsockopt(p->descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (!p->endpoint.starttls) {
    start_tls(p);
    return;
  }
  /* EHLO says an address literal (RFC 5321, section 4.1.3) */
  getsockname(p->descriptor, (struct sockaddr *)&own, &length);
  getnameinfo((struct sockaddr *)&own, length, host, sizeof host, NULL, 0,
              NI_NUMERICHOST);
  host[strcspn(host, "%")] = '\0'; /* the zone means nothing elsewhere */
  snprintf(self, sizeof self, "[%s%.64s]", strchr(host, ':') ? "IPv6:" : "",
           host);
  dialogue_open(&p->dialogue, p->endpoint.protocol, self);
  enter(p, PROBE_GREETING, POLLIN);
}

/* The beginning */

static void make_connection(struct probe *p) {
  enter(p, PROBE_CONNECT, POLLOUT);
  /* sin6_port lies at the same place */
  ((struct sockaddr_in *)&p->address)->sin_port =
      htons((in_port_t)p->endpoint.port);
  p->descriptor = socket(p->address.ss_family,
                         SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (p->descriptor < 0 ||
      (connect(p->descriptor, (struct sockaddr *)&p->address,
               p->address_length) != 0 &&
       errno != EINPROGRESS))
    fail_errno(p, errno);
}

/* The first address becomes the probe's own; every other gets a new one. */
static void resolved(struct probe *p) {
  const struct addrinfo *list = p->lookup->list, *item;
  int status = atomic_load(&p->lookup->status);
  struct probe *last = p, *other;
  if (status != 0) {
    probe_fail(p,
               status == EAI_NONAME || status == EAI_NODATA ? "missing" : "io",
               gai_strerror(status));
    return;
  }
  for (item = list; item != NULL; item = item->ai_next) {
    if (last->address_length == item->ai_addrlen &&
        memcmp(&last->address, item->ai_addr, item->ai_addrlen) == 0)
      continue; /* listed twice */
    if (item != list) {
      if ((other = malloc(sizeof *other)) == NULL) {
        fail_errno(p, ENOMEM);
        return;
      }
      *other = *p;
      other->step = PROBE_WAITING;
      other->lookup = NULL;
      other->descriptor = -1;
      other->next = last->next;
      last = last->next = other;
    }
    memcpy(&last->address, item->ai_addr, item->ai_addrlen);
    last->address_length = item->ai_addrlen;
  }
  make_connection(p);
}

void probe_begin(struct probe *p, const struct probe *other) {
  const char *host = p->endpoint.host;
  p->began = core_clock();
  if (p->address_length > 0 ||
      endpoint_address(host, &p->address, &p->address_length)) {
    make_connection(p);
    return;
  }
  enter(p, PROBE_RESOLVE, POLLIN);
  while (other != NULL &&
         (other->lookup == NULL || strcmp(other->lookup->host, host) != 0))
    other = other->next;
  if (other != NULL)
    atomic_fetch_add(&other->lookup->owners, 1);
  p->lookup = other != NULL ? other->lookup : lookup_start(host);
  if (p->lookup != NULL)
    p->descriptor = p->lookup->descriptor;
  else
    fail_errno(p, errno);
}

const struct probe_step probe_steps[] = {
    [PROBE_WAITING] = {"url", "cannot probe", NULL},
    [PROBE_RESOLVE] = {"resolve", "cannot resolve the host of", resolved},
    [PROBE_CONNECT] = {"connect", "cannot connect to", connected},
    [PROBE_GREETING] = {"greeting", "no greeting from", converse},
    [PROBE_STARTTLS] = {"starttls", "no STARTTLS with", converse},
    [PROBE_HANDSHAKE] = {"handshake", "no TLS handshake with", shake_hands},
    [PROBE_FAREWELL] = {NULL, NULL, part},
};
