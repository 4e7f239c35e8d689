/*
 * probe_limit.c: the limit for probing: COUNT full handshakes with one HTTPS
 * port, all at once, straight on libssl in one poll loop.  Prints seconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static SSL *start(SSL_CTX *context, int port, int *descriptor) {
  struct sockaddr_in address = {.sin_family = AF_INET,
                                .sin_port = htons((unsigned short)port)};
  SSL *ssl = SSL_new(context);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  *descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  connect(*descriptor, (struct sockaddr *)&address, sizeof address);
  SSL_set_fd(ssl, *descriptor);
  SSL_set_tlsext_host_name(ssl, "bench.lab.test");
  SSL_set_connect_state(ssl);
  return ssl;
}

int main(int argc, char **argv) {
  int port = argc > 1 ? atoi(argv[1]) : 0, count = argc > 2 ? atoi(argv[2]) : 64;
  int rounds = argc > 3 ? atoi(argv[3]) : 1, failed = 0, round, i;
  struct pollfd *set = calloc((size_t)count, sizeof *set);
  SSL **ssl = calloc((size_t)count, sizeof *ssl);
  SSL_CTX *context = SSL_CTX_new(TLS_client_method());
  double began, best = 1e9;
  signal(SIGPIPE, SIG_IGN);
  SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
  for (round = 0; round < rounds; round++) {
    int left = count;
    began = now();
    for (i = 0; i < count; i++) {
      ssl[i] = start(context, port, &set[i].fd);
      set[i].events = POLLOUT;
    }
    while (left > 0 && poll(set, (nfds_t)count, 10000) > 0)
      for (i = 0; i < count; i++) {
        int n, why;
        if (set[i].fd < 0 || set[i].revents == 0)
          continue;
        n = SSL_do_handshake(ssl[i]);
        why = SSL_get_error(ssl[i], n);
        if (n != 1 && why == SSL_ERROR_WANT_READ) {
          set[i].events = POLLIN;
          continue;
        } else if (n != 1 && why == SSL_ERROR_WANT_WRITE) {
          set[i].events = POLLOUT;
          continue;
        }
        failed += n != 1 || SSL_get0_peer_certificate(ssl[i]) == NULL;
        SSL_shutdown(ssl[i]);
        close(set[i].fd);
        SSL_free(ssl[i]);
        set[i].fd = -1;
        left--;
      }
    best = now() - began < best ? now() - began : best;
  }
  printf("%.6f %d\n", best, failed);
  return failed != 0;
}
