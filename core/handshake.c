/*
 * handshake.c: one probe, from the connection to the farewell: TCP, STARTTLS
 * where the protocol has it, TLS, and a good-bye that keeps the server's log
 * clean.  Nothing here waits: a call goes as far as it can.
 *
 * Nothing is verified: the client is there to see, the weak and the expired
 * too.
 */
#include "core.h"
#include "probe.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FAREWELL_SECONDS 1.0
#define FAREWELL_BYTES 65536 /* read while waiting for a farewell's answer */

static const struct {
  const char *name, *trouble;
} steps[] = {
    [PROBE_WAITING] = {"url", "cannot probe"},
    [PROBE_RESOLVE] = {"resolve", "cannot resolve the host of"},
    [PROBE_CONNECT] = {"connect", "cannot connect to"},
    [PROBE_GREETING] = {"greeting", "no greeting from"},
    [PROBE_STARTTLS] = {"starttls", "no STARTTLS with"},
    [PROBE_HANDSHAKE] = {"handshake", "no TLS handshake with"},
};

const char *probe_step_name(enum probe_step step) {
  return steps[step].name;
}

/* The end of a probe */

void probe_finish(struct probe *p) {
  SSL_free(p->ssl);
  p->ssl = NULL;
  if (p->step > PROBE_RESOLVE && p->descriptor >= 0)
    close(p->descriptor);
  p->descriptor = -1;
  free(p->dialogue);
  p->dialogue = NULL;
  p->step = PROBE_FINISHED;
}

void probe_address(const struct probe *p, char text[ADDRESS_SIZE]) {
  if (p->address_length == 0 ||
      getnameinfo((const struct sockaddr *)&p->address, p->address_length, text,
                  ADDRESS_SIZE, NULL, 0, NI_NUMERICHOST) != 0)
    text[0] = '\0';
}

void probe_fail(struct probe *p, const char *code, const char *format, ...) {
  char address[ADDRESS_SIZE];
  va_list arguments;
  int used;
  probe_address(p, address);
  if (strcmp(address, p->endpoint.host) == 0)
    address[0] = '\0';
  used = snprintf(p->message, sizeof p->message,
                  "%s '%s'%s%s: ", steps[p->step].trouble, p->url,
                  address[0] ? " at " : "", address);
  va_start(arguments, format);
  vsnprintf(p->message + used, sizeof p->message - (size_t)used, format,
            arguments);
  va_end(arguments);
  p->code = code;
  p->failed = p->step;
  probe_finish(p);
}

void probe_fail_errno(struct probe *p, int error) {
  const char *code = "io";
  if (error == ECONNREFUSED)
    code = "refused";
  else if (error == EACCES || error == EPERM)
    code = "denied";
  else if (error == ETIMEDOUT)
    code = "timeout";
  probe_fail(p, code, "%s", strerror(error));
}

void probe_enter(struct probe *p, enum probe_step step, short events) {
  double limit = p->limit;
  if (step == PROBE_FAREWELL && limit > FAREWELL_SECONDS)
    limit = FAREWELL_SECONDS;
  p->step = step;
  p->events = events;
  p->deadline = core_clock() + limit;
}

/* TLS */

static int accept_any(X509_STORE_CTX *store, void *unused) {
  (void)store;
  (void)unused;
  return 1;
}

/* Called when the server asks for the client's certificate: there is none. */
static int note_request(SSL *ssl, X509 **certificate, EVP_PKEY **key) {
  struct probe *p = SSL_get_app_data(ssl);
  (void)certificate;
  (void)key;
  if (p != NULL)
    p->asked = true;
  return 0;
}

SSL_CTX *probe_context(void) {
  static SSL_CTX *kept = NULL;
  SSL_CTX *context;
  if (kept != NULL)
    return kept;
  context = SSL_CTX_new(TLS_client_method());
  if (context == NULL)
    return NULL;
  SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
  SSL_CTX_set_cert_verify_callback(context, accept_any, NULL);
  SSL_CTX_set_client_cert_cb(context, note_request);
  SSL_CTX_set_security_level(context, 0);
  SSL_CTX_set_options(context, SSL_OP_LEGACY_SERVER_CONNECT);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  if (SSL_CTX_set_cipher_list(context, "DEFAULT:@SECLEVEL=0") == 1 &&
      SSL_CTX_set_min_proto_version(context, TLS1_VERSION) == 1 &&
      SSL_CTX_set_max_proto_version(context, 0) == 1)
    return kept = context;
  SSL_CTX_free(context);
  return NULL;
}

/* Keeps the chain that was sent; NULL, or what is wrong with it. */
static const char *keep_chain(struct probe *p) {
  STACK_OF(X509) *sent = SSL_get_peer_cert_chain(p->ssl);
  int count = sk_X509_num(sent), i;
  p->chain = sk_X509_new_reserve(NULL, count > 0 ? count : 0);
  if (count <= 0 || p->chain == NULL)
    return "the server sent no certificate";
  for (i = 0; i < count; i++) {
    unsigned char *der = NULL;
    int length = i2d_X509(sk_X509_value(sent, i), &der);
    const unsigned char *at = der;
    X509 *certificate = length > 0 ? core_cert_read(&at, length) : NULL;
    if (i == 0 && length > 0)
      EVP_Digest(der, (size_t)length, p->fingerprint, NULL, EVP_sha256(), NULL);
    OPENSSL_free(der);
    if (certificate == NULL)
      return "a certificate that cannot be read";
    sk_X509_push(p->chain, certificate);
  }
  p->protocol = SSL_get_version(p->ssl);
  p->cipher = SSL_get_cipher_name(p->ssl);
  return NULL;
}

/* Whether a call on p->ssl that returned result is to be repeated. */
static bool wants(struct probe *p, int result) {
  int error = SSL_get_error(p->ssl, result);
  if (error == SSL_ERROR_WANT_READ)
    p->events = POLLIN;
  else if (error == SSL_ERROR_WANT_WRITE)
    p->events = POLLOUT;
  else
    return false;
  return true;
}

/* The reason of an error of libssl itself, 0 of any other. */
static int tls_reason(unsigned long error) {
  return ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;
}

/* An alert that the server sent has its number above the offset. */
static bool is_alert(unsigned long error) {
  int reason = tls_reason(error);
  return reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255;
}

static void fail_handshake(struct probe *p, int result) {
  int error = SSL_get_error(p->ssl, result), system = errno;
  unsigned long first = ERR_peek_error();
  if (error == SSL_ERROR_SYSCALL && first == 0 && system != 0)
    probe_fail_errno(p, system);
  else if (first == 0 ||
           tls_reason(first) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
    probe_fail(p, "io", "the server closed the connection");
  else if (is_alert(first))
    probe_fail(p, "refused", "%s", core_reason());
  else if (tls_reason(first) == SSL_R_EXCESSIVE_MESSAGE_SIZE)
    probe_fail(p, "limit", "%s", core_reason());
  else
    probe_fail(p, "parse", "%s", core_reason());
}

/* Whether the server, having proved that it holds the key, turned us away for
 * want of a certificate: TLS 1.2 ends the handshake so, TLS 1.3 lets it be. */
static bool turned_away(const struct probe *p) {
  int type;
  return p->asked && SSL_get_peer_signature_type_nid(p->ssl, &type) == 1 &&
         is_alert(ERR_peek_error());
}

/* Farewell: QUIT or LOGOUT, then close_notify, then the server's end. */
static void part(struct probe *p) {
  struct dialogue *d = p->dialogue;
  char bytes[4096];
  int n;
  while (p->drained < FAREWELL_BYTES) {
    ERR_clear_error();
    if (!p->closing && d != NULL && d->out_length > 0) {
      n = SSL_write(p->ssl, d->out, (int)d->out_length);
      if (n <= 0 && wants(p, n))
        return;
      if (n <= 0)
        break;
      d->out_length = 0;
    }
    if (!p->closing && d == NULL) {
      SSL_shutdown(p->ssl);
      p->closing = true;
    }
    n = SSL_read(p->ssl, bytes, sizeof bytes);
    if (n <= 0 && wants(p, n))
      return;
    if (n <= 0)
      break;
    p->drained += (size_t)n;
    if (d != NULL && dialogue_feed(d, bytes, (size_t)n) != DIALOGUE_MORE) {
      free(d);
      p->dialogue = d = NULL;
    }
  }
  probe_finish(p);
}

static void shake_hands(struct probe *p) {
  const struct scheme *scheme = p->endpoint.scheme;
  const char *trouble;
  int result;
  ERR_clear_error();
  errno = 0;
  result = SSL_do_handshake(p->ssl);
  if (result != 1 && wants(p, result))
    return;
  if (result != 1 && !turned_away(p)) {
    fail_handshake(p, result);
    return;
  }
  trouble = keep_chain(p);
  if (trouble != NULL) {
    probe_fail(p, "parse", "%s", trouble);
    return;
  }
  p->seconds = core_clock() - p->began;
  if (result != 1) {
    probe_finish(p);
    return;
  }
  probe_enter(p, PROBE_FAREWELL, POLLIN);
  if (p->dialogue != NULL)
    dialogue_leave(p->dialogue, scheme->protocol, scheme->starttls);
  part(p);
}

static void start_tls(struct probe *p) {
  SSL_CTX *context;
  probe_enter(p, PROBE_HANDSHAKE, POLLOUT);
  ERR_clear_error();
  context = probe_context();
  p->ssl = context != NULL ? SSL_new(context) : NULL;
  if (p->ssl == NULL || SSL_set_fd(p->ssl, p->descriptor) != 1 ||
      (p->name[0] != '\0' && SSL_set_tlsext_host_name(p->ssl, p->name) != 1)) {
    probe_fail(p, "io", "%s", core_reason());
    return;
  }
  SSL_set_app_data(p->ssl, p);
  SSL_set_connect_state(p->ssl);
  shake_hands(p);
}

/* Before TLS */

/* Says the farewell without waiting for its answer. */
static void fail_dialogue(struct probe *p) {
  struct dialogue *d = p->dialogue;
  const char *code = d->code;
  char reason[sizeof d->reason];
  strcpy(reason, d->reason);
  if (strcmp(code, "refused") == 0 || strcmp(code, "unsupported") == 0) {
    dialogue_farewell(d);
    (void)!send(p->descriptor, d->out, d->out_length, 0);
  }
  probe_fail(p, code, "%s", reason);
}

/* False when it has to wait, or has failed. */
static bool send_words(struct probe *p) {
  struct dialogue *d = p->dialogue;
  while (d->out_length > 0) {
    ssize_t n = send(p->descriptor, d->out, d->out_length, 0);
    if (n < 0 && errno == EAGAIN) {
      p->events = POLLOUT;
      return false;
    }
    if (n < 0) {
      probe_fail_errno(p, errno);
      return false;
    }
    d->out_length -= (size_t)n;
    memmove(d->out, d->out + n, d->out_length);
  }
  p->events = POLLIN;
  return true;
}

static void converse(struct probe *p) {
  struct dialogue *d = p->dialogue;
  enum dialogue_result result;
  char bytes[4096];
  ssize_t n;
  if (!send_words(p))
    return;
  n = recv(p->descriptor, bytes, sizeof bytes, 0);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n < 0) {
    probe_fail_errno(p, errno);
    return;
  }
  if (n == 0) {
    probe_fail(p, "io", "the server closed the connection");
    return;
  }
  result = dialogue_feed(d, bytes, (size_t)n);
  if (p->step == PROBE_GREETING && d->stage != DIALOGUE_GREETING)
    probe_enter(p, PROBE_STARTTLS, POLLIN);
  if (result == DIALOGUE_FAILED)
    fail_dialogue(p);
  else if (result == DIALOGUE_READY)
    start_tls(p);
  else
    send_words(p);
}

/* The address literal that EHLO says (RFC 5321, section 4.1.3). */
static void address_literal(int descriptor, char *text, size_t size) {
  struct sockaddr_storage address;
  socklen_t length = sizeof address;
  char host[NI_MAXHOST] = "127.0.0.1";
  if (getsockname(descriptor, (struct sockaddr *)&address, &length) == 0)
    getnameinfo((struct sockaddr *)&address, length, host, sizeof host, NULL, 0,
                NI_NUMERICHOST);
  host[strcspn(host, "%")] = '\0'; /* the zone means nothing elsewhere */
  snprintf(text, size, "[%s%.64s]", strchr(host, ':') ? "IPv6:" : "", host);
}

static void connected(struct probe *p) {
  const struct scheme *scheme = p->endpoint.scheme;
  char self[80];
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(p->descriptor, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    probe_fail_errno(p, error);
    return;
  }
  if (scheme->protocol != DIALOGUE_NONE) {
    p->dialogue = malloc(sizeof *p->dialogue);
    if (p->dialogue == NULL) {
      probe_fail_errno(p, ENOMEM);
      return;
    }
  }
  if (!scheme->starttls) {
    start_tls(p);
    return;
  }
  address_literal(p->descriptor, self, sizeof self);
  dialogue_open(p->dialogue, scheme->protocol, self);
  probe_enter(p, PROBE_GREETING, POLLIN);
}

void probe_connect(struct probe *p) {
  const int yes = 1;
  in_port_t port = htons((in_port_t)p->endpoint.port);
  probe_enter(p, PROBE_CONNECT, POLLOUT);
  if (p->address.ss_family == AF_INET6)
    ((struct sockaddr_in6 *)&p->address)->sin6_port = port;
  else
    ((struct sockaddr_in *)&p->address)->sin_port = port;
  p->descriptor = socket(p->address.ss_family,
                         SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (p->descriptor < 0) {
    probe_fail_errno(p, errno);
    return;
  }
  setsockopt(p->descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  if (connect(p->descriptor, (struct sockaddr *)&p->address,
              p->address_length) != 0 &&
      errno != EINPROGRESS)
    probe_fail_errno(p, errno);
}

/* Goes on with a probe after an event, or at its beginning's end. */
void probe_advance(struct probe *p) {
  enum probe_step step = p->step;
  switch (step) {
  case PROBE_CONNECT:
    connected(p);
    break;
  case PROBE_GREETING:
  case PROBE_STARTTLS:
    converse(p);
    break;
  case PROBE_HANDSHAKE:
    shake_hands(p);
    break;
  case PROBE_FAREWELL:
    part(p);
    break;
  default:
    break;
  }
}
