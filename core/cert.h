/* cert.h: what the files behind core.cert share. */
#ifndef CORE_CERT_H
#define CORE_CERT_H

#include "core.h"

/* cert.c */

/* Pushes the DER as a block of memory. */
const unsigned char *cert_push_der(lua_State *L, X509 *certificate,
                                   size_t *length);
/* Pushes the digest of bytes in hex. */
void cert_push_digest(lua_State *L, const unsigned char *bytes, size_t length,
                      const EVP_MD *digest);
/* Whether its public key is that of key. */
bool cert_has_key(X509 *certificate, EVP_PKEY *key);
/* A field of the options table at 1: pushed, NULL or false when it is nil;
 * raises when it has another type. */
const char *cert_string_field(lua_State *L, const char *field, size_t *length);
bool cert_integer_field(lua_State *L, const char *field, lua_Integer *number);

/* fields.c */

/* Bytes inside something else. */
struct cert_span {
  const unsigned char *at, *end;
};
/* Takes the next DER element off a span: its class and tag, its contents in
 * *contents; -1 at the end, and for all the rest of a malformed span. */
int cert_take(struct cert_span *span, struct cert_span *contents);
/* The same for the value of an extension; -1 also when the extension is not
 * there exactly once (RFC 5280, section 4.2). */
int cert_open(const X509 *certificate, int nid, struct cert_span *contents);
/* Pushes what a message calls a certificate, and returns it: its common name,
 * else its first DNS name, else its subject, else its serial number. */
const char *cert_push_label(lua_State *L, const X509 *certificate);
/* Writes "2027-02-20" (UTC), or "?" for a time that is none. */
#define CERT_DATE_SIZE 16
void cert_date(char text[CERT_DATE_SIZE], const ASN1_TIME *time);
/* Whether it covers a host; strictly: with its alternative names, in which "*"
 * is a whole label (RFC 9525, section 6). */
bool cert_covers(X509 *certificate, const char *name, size_t length,
                 bool strictly);
int cert_fields(lua_State *L);
int cert_extensions(lua_State *L);

/* chain.c */

/* Pushes a box with copies of the certificates in the table at index, made in
 * the default library context, where their keys can be decoded; raises when
 * something else is in it.  With system, the string "system" may be among
 * them, or in place of the table, and sets it. */
STACK_OF(X509) *
    cert_push_twins(lua_State *L, int index, const char *what, bool *system);
int cert_chain(lua_State *L);
void cert_free_list(void *value); /* of a holder's STACK_OF(X509) */

/* verify.c */
int cert_verify(lua_State *L);

/* issue.c */
int cert_issue(lua_State *L);

/* crl.c */
int cert_issue_crl(lua_State *L);

#endif
