/*
 * cert.h: what cert.c, fields.c, chain.c, verify.c and issue.c share, the
 * files behind core.cert.
 */
#ifndef CORE_CERT_H
#define CORE_CERT_H

#include "core.h"

/* cert.c */

/* A copy in the default library context, where its key can be decoded. */
X509 *cert_twin(X509 *certificate);
/* Whether its public key is that of key. */
bool cert_has_key(X509 *certificate, EVP_PKEY *key);
/* Pushes the DER as a block of memory. */
const unsigned char *cert_push_der(lua_State *L, X509 *certificate,
                                   size_t *length);
/* Pushes the digest of bytes in hex. */
void cert_push_digest(lua_State *L, const unsigned char *bytes, size_t length,
                      const EVP_MD *digest);
const EVP_MD *cert_sha256(void);
/* A field of the options table at 1: pushed, NULL or false when it is nil;
 * raises when it has another type. */
const char *cert_string_field(lua_State *L, const char *field, size_t *length);
bool cert_integer_field(lua_State *L, const char *field, lua_Integer *number);

/* fields.c */

/* What a message calls a certificate: its common name, else its first DNS
 * name, else its subject, else its serial number. */
void cert_push_label(lua_State *L, X509 *certificate);
/* Pushes "2027-02-20" (UTC), or "?" for a time that is none. */
void cert_push_date(lua_State *L, const ASN1_TIME *time);
/* Whether a subject alternative name covers a host (RFC 9525, section 6). */
bool cert_covers(X509 *certificate, const char *name, size_t length);
int cert_fields(lua_State *L);

/* chain.c */

/* Pushes an array of the certificates in the table at index, which goes on
 * owning them; raises when something else is in it.  With system, the string
 * "system" may be among them and sets it. */
X509 **cert_push_array(lua_State *L, int index, const char *what, size_t *count,
                       bool *system);
bool cert_is_system(lua_State *L, int index);
int cert_chain(lua_State *L);

/* verify.c */
int cert_verify(lua_State *L);

/* issue.c */
int cert_issue(lua_State *L);

#endif
