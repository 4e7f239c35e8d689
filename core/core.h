/*
 * core.h: what the C files of certwright share.
 *
 * Every primitive fails in one shape, `nil, message, code` (core_fail), hands
 * over valid UTF-8 only (core_pushtext), and keeps what it owns in a userdata
 * box whose __gc and __close free it.  The types below are the boxes that
 * cross from one file to another.
 */
#ifndef CORE_H
#define CORE_H

#include <lauxlib.h>
#include <lua.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* core.c: failures and text */

/* Pushes nil, message, code and returns 3. */
int core_fail(lua_State *L, const char *code, const char *format, ...);

/* "cannot VERB 'OBJECT': REASON", the code taken from errno. */
int core_fail_errno(lua_State *L, int error, const char *verb,
                    const char *object);

/* The first reason in OpenSSL's queue, which it empties; never NULL. */
const char *core_reason(void);
/* ERR_clear_error, at once where there is nothing to clear. */
void core_clear_errors(void);

/* Pushes bytes as valid UTF-8: what is none becomes U+FFFD. */
void core_pushtext(lua_State *L, const char *bytes, size_t length);

/* Pushes bytes as lower-case hexadecimal digits. */
void core_pushhex(lua_State *L, const unsigned char *bytes, size_t length);

/* Seconds since 1970 UTC of an ASN.1 time; false when it is none. */
bool core_time(const ASN1_TIME *time, lua_Integer *seconds);

/* Scratch that must live across calls of Lua: the box frees it, core_release at
 * once, core_drop the one on top, which it pops.  Without a release it is an
 * ASN.1 value of that item; core_push_item pushes a new one. */
typedef struct {
  void *value;
  void (*release)(void *value);
  const ASN1_ITEM *item;
} core_holder;
core_holder *core_push_holder(lua_State *L, void (*release)(void *value));
void core_release(core_holder *holder);
void *core_push_item(lua_State *L, const ASN1_ITEM *item);
void core_drop(lua_State *L);

/* Pushes the DER of a value; puts its SHA-256 in hex in its place. */
void core_push_der(lua_State *L, const void *value, const ASN1_ITEM *item);
void core_push_fingerprint(lua_State *L);

/* Makes the metatable of a type: methods as __index, then metamethods. */
void core_type(lua_State *L, const char *name, const luaL_Reg *methods,
               const luaL_Reg *metamethods);

/* Raises unless the table at index has no other keys than these. */
void core_check_fields(lua_State *L, int index, const char *const names[]);

/* Bytes that may hold a secret: a box that Lua hands on and cannot look into,
 * cleansed when it is freed.  A 0 follows them. */
#define CORE_SECRET "core.secret"
typedef struct {
  char *bytes;
  size_t length, size; /* used, and allocated */
} core_secret;
/* The bytes of the string or secret at index. */
const char *core_check_bytes(lua_State *L, int index, size_t *length);

/* der.c: writing DER (X.690) */

/* Identifier octets (8.1.2): universal ones; others are context-specific, with
 * contents that are elements (8.9) or not. */
enum {
  CORE_DER_BOOLEAN = 0x01,
  CORE_DER_INTEGER = 0x02,
  CORE_DER_BITS = 0x03,
  CORE_DER_OCTETS = 0x04,
  CORE_DER_OBJECT = 0x06,
  CORE_DER_SEQUENCE = 0x30,
  CORE_DER_SET = 0x31,
  CORE_DER_PLAIN = 0x80, /* + tag */
  CORE_DER_WITHIN = 0xA0
};
#define CORE_DER_FIRST 1024 /* octets that take no memory of their own */
#define CORE_DER_DEPTH 12   /* elements within each other */
#define CORE_DER_HEADER 16  /* octets: room for any identifier and length */

typedef struct {
  lua_State *L;
  int slot; /* of L's stack, with the memory that bytes are in, if any */
  int depth;
  size_t open[CORE_DER_DEPTH]; /* where those begin that are not closed yet */
  unsigned char *bytes;
  size_t length, room;
  unsigned char first[CORE_DER_FIRST];
} core_der;

/* Begins with nothing; pushes the slot, which has to stay. */
void core_der_begin(core_der *der, lua_State *L);
/* Where the next octets go, with room for so many: adding them, in pieces too,
 * does not raise; otherwise all that writes raises for want of memory. */
unsigned char *core_der_room(core_der *der, size_t size);
/* Adds octets as they are. */
void core_der_add(core_der *der, const void *bytes, size_t length);
/* Begins an element, whose contents are what is added until it is closed;
 * closes as many, the innermost first. */
void core_der_open(core_der *der, int identifier);
void core_der_close(core_der *der, int count);
/* Takes back as many, with what is in them, if the innermost is empty. */
bool core_der_undo(core_der *der, int count);
/* Adds a whole element; a number (8.3), an object identifier (8.19). */
void core_der_put(core_der *der, int identifier, const void *bytes,
                  size_t length);
void core_der_put_number(core_der *der, uint64_t number);
/* By number or text (a name, or numbers and dots); false: there is none. */
bool core_der_put_object(core_der *der, int nid);
bool core_der_put_oid(core_der *der, const char *text, int *nid);

/* pem.c */

#define CORE_BUNDLE_LIMIT (16 * 1024 * 1024) /* bytes of PKCS #7 and #12 */
#define CORE_PILE_LIMIT 100                  /* certificates in one of them */

/* The same without what text editors and mail put around DER and PEM: a byte
 * order mark, UTF-16, base64 without armour.  Pushes one value, which may own
 * the bytes. */
const char *core_push_plain(lua_State *L, int index, size_t *length);
/* Moves *at behind the next BEGIN line (RFC 7468), of any label. */
bool core_next_block(const char **at, const char *end, const char **label,
                     size_t *length);
/* Reads the block whose base64 begins at body into der, which has as many bytes
 * as are left and 3 more: NULL, or what was wrong. */
const char *core_read_block(const char *body, const char *end,
                            const char *label, size_t length,
                            unsigned char *der, size_t *size);
/* What DER is by its outermost elements: "certificate", "request", "key",
 * "pkcs7", "pkcs12" or NULL; and a block, by its label where it is a key or
 * cannot be read. */
const char *core_shape(const unsigned char *der, size_t size);
const char *core_block_shape(const char *body, const char *end,
                             const char *label, size_t length,
                             unsigned char *der);
int core_kinds(lua_State *L); /* these two of core.bundle */
int core_parts(lua_State *L);
/* Pushes DER as a PEM block of this kind. */
void core_push_pem(lua_State *L, const char *kind, const unsigned char *der,
                   size_t length);

/* key.c */
#define CORE_KEY "core.key"
EVP_PKEY **core_key_new(lua_State *L); /* pushes an empty box */
EVP_PKEY *core_key_check(lua_State *L, int index);
EVP_PKEY *core_key_test(lua_State *L, int index); /* NULL: no key */
/* The digest to sign with, NULL for keys that take none; false: unknown. */
bool core_key_digest(EVP_PKEY *key, const char *name, const EVP_MD **digest);

/* keyfile.c: methods of core.key */
int core_key_load(lua_State *L);
int core_key_open(lua_State *L);
int core_key_save(lua_State *L);
/* Writes the PKCS #8 PEM to a descriptor; 0, or an errno value (EINVAL:
 * OpenSSL cannot encode the key). */
int core_key_write(int descriptor, EVP_PKEY *key);

/* The key in a PKCS #8, to be freed; or NULL, with the code and the reason that
 * it is refused for (NULL: it is none, or of an unknown kind). */
EVP_PKEY *core_key_take(const PKCS8_PRIV_KEY_INFO *info, const char **code,
                        const char **reason);

/* pbe.c: encryption with passwords */

/* What a key may cost to derive; see core_pbe_seconds. */
#define CORE_PBE_LIMIT 2.0
#define CORE_PBE_REASON "its iteration counts would take over 2 seconds"
/* Seconds that deriving the key of an algorithm would take, PBES1, PBES2 or
 * PKCS #12's, and the key of a PKCS #12's MAC. */
double core_pbe_seconds(const X509_ALGOR *algorithm);
double core_mac_seconds(const ASN1_INTEGER *iterations);
/* Whether OpenSSL's first error is about the way of encryption. */
bool core_pbe_unsupported(void);

/* spki.c: the public half of a key */

/* Puts key's public half into public_key; false where only OpenSSL's encoder
 * (X509_REQ_set_pubkey, X509_set_pubkey: a tenfold cost) knows how. */
bool core_key_put_public(EVP_PKEY *key, X509_PUBKEY *public_key);
/* Puts key's public half as an element, however it is encoded, and gives its
 * key identifier (RFC 5280, 4.2.1.2, method (1)), SHA-1 of the bits of the key;
 * false: OpenSSL says why not. */
#define CORE_KEY_ID 20
bool core_put_public(core_der *der, EVP_PKEY *key,
                     unsigned char id[CORE_KEY_ID]);
bool core_key_id(const X509_PUBKEY *public_key, unsigned char id[CORE_KEY_ID]);
/* The public key, to be freed, decoded now where reading did not; or NULL. */
EVP_PKEY *core_key_decode(X509_PUBKEY *public_key);
/* SHA-256 of the DER SubjectPublicKeyInfo (RFC 7469, section 2.4), in hex. */
void core_push_spki_fingerprint(lua_State *L, X509_PUBKEY *public_key);
/* "ec:P-256", "rsa:2048", "ed25519", else OpenSSL's name in lower case; taken
 * from the algorithm and the bits, without decoding the key. */
void core_push_spki_keytype(lua_State *L, const X509_PUBKEY *public_key);

/* request.c */
#define CORE_REQUEST "core.request"
X509_REQ *core_request_check(lua_State *L, int index);

/* cert.c */
#define CORE_CERT "core.cert"
X509 **core_cert_new(lua_State *L);
X509 *core_cert_check(lua_State *L, int index);
/* Pushes an array of boxes, which take the certificates off the list. */
void core_push_certificates(lua_State *L, STACK_OF(X509) * list);
X509 *core_cert_read(const unsigned char **der, long length);
/* A library context without decoders: reading a certificate or request in it
 * leaves its public key alone, which costs a twelfth (26 against 323
 * microseconds). */
OSSL_LIB_CTX *core_bare_context(void);

/* names.c: subjects, in and out */

/* Puts a Name (RFC 5280, 4.1.2.4) of what the table at index has (none or nil:
 * nothing); false: nil, message, code pushed. */
bool core_put_subject(core_der *der, int index);
/* Pushes the RFC 4514 text, the array of parts, the last CN (or nil). */
void core_push_name_text(lua_State *L, const X509_NAME *name);
void core_push_name_parts(lua_State *L, const X509_NAME *name);
void core_push_common_name(lua_State *L, const X509_NAME *name);

/* Pushes a character string as text, anything else as "#" and its DER in hex
 * (RFC 4514, section 2.4). */
void core_push_string(lua_State *L, const ASN1_STRING *value);
/* Pushes the short name of an object where it has one, else its number. */
void core_push_oid(lua_State *L, const ASN1_OBJECT *object, bool by_name);

/* Makes of the text on top what a message has between double quotes: quotes and
 * control characters escaped, cut.  A stranger's name ends nowhere else. */
const char *core_quotable(lua_State *L);
/* Pushes a value for a message: valid, without control characters, cut. */
void core_push_excerpt(lua_State *L, const char *bytes, size_t length);

/* extensions.c: extensions, in and out */

/* Puts each Extension (RFC 5280, 4.1) that the options table at index asks for
 * (domains, emails, uris, key_usage, extended_key_usage, ca, path_length,
 * must_staple; subject_key_id, which is id, unless that is false); false: nil,
 * message, code pushed. */
bool core_put_extensions(core_der *der, int index,
                         const unsigned char id[CORE_KEY_ID]);
/* Opens an Extension: two elements, the inner one for its value. */
void core_open_extension(core_der *der, int nid, bool critical);
/* Sets domains, names, key_usage, extended_key_usage, ca, path_length,
 * must_staple, subject_key_id in the table on top of the stack. */
void core_set_extensions(lua_State *L, const STACK_OF(X509_EXTENSION) * list);

/* memory.c */
/* Has OpenSSL cleanse all that it frees; before it takes any memory. */
void core_cleanse_freed(void);

/* file.c */
/* Pushes an empty secret with room for that many bytes. */
core_secret *core_secret_new(lua_State *L, size_t size);
/* Pushes a secret with all of a file ("-": standard input), or nil, message,
 * code and returns false. */
bool core_push_secret(lua_State *L, const char *path, size_t limit);

/* newfile.c: paths and new files; an int is 0 or an errno value */

typedef struct {
  mode_t mode;
  uid_t owner; /* (uid_t)-1: as it is */
  gid_t group; /* (gid_t)-1: as it is */
} core_access;

typedef struct {
  EVP_PKEY *key; /* borrowed; NULL: text */
  const char *bytes;
  size_t length;
} core_part;

/* 0, or errno when a system call returned something else than 0. */
int core_errno(int result);
/* Pushes true when error is 0, else as core_fail_errno. */
int core_done(lua_State *L, int error, const char *verb, const char *object);
/* The path at index; raises when it is empty or holds a NUL. */
const char *core_check_path(lua_State *L, int index);
/* Takes the value at the top when name is mode, owner or group; false when
 * name is something else; raises on a bad value. */
bool core_take_access(lua_State *L, const char *name, core_access *access);
/* 0 when the name itself is of that kind, else why not: ENOTDIR when it is no
 * folder, else EEXIST. */
int core_check_kind(int folder, const char *name, mode_t kind);
/* Pushes what a symbolic link says, and returns 1; or a failure. */
int core_push_link(lua_State *L, const char *path);
/* Writes ".NAME.xxxxxx" with six random hex digits, a name for what is not
 * whole yet; a name of more than 240 bytes is cut. */
#define CORE_TEMPORARY_SIZE 256
void core_temporary(char out[CORE_TEMPORARY_SIZE], const char *name);
/* A descriptor, or -1 with errno set; below an open folder no link. */
int core_open_folder(int parent, const char *name);
/* Unless error is set, puts what was written to a file or folder on the disk
 * (where the file system has fsync); closes it.  The first error. */
int core_finish(int descriptor, int error);
/* Opens the folder that holds path, whose last component is *name (with its
 * trailing slashes); -1 with errno set on a failure. */
int core_open_parent(const char *path, const char **name);
/* Makes the name of a new file durable. */
int core_sync_parent(const char *path);
/* Writes all of the bytes. */
int core_write(int descriptor, const char *bytes, size_t length);
/* Writes a new file in an open folder, which has its access from the start
 * and is on the disk in the end; nothing is left of it after a failure. */
int core_write_file(int folder, const char *name, const core_access *access,
                    const core_part *parts, size_t count);

/* way.c */

/* Checks what path leads to, and all that it leads through: others than root,
 * the user and the owner of the program's own file may not be able to change
 * it. 0 with its status in found, or the 3 of nil, message, code pushed:
 * "refused to VERB 'PATH': ...". */
struct stat;
int core_check_way(lua_State *L, const char *path, const char *verb,
                   struct stat *found);

/* chunks.c */

/* The Lua library's own word for its release (lapi.c has it, no header). */
extern const char lua_ident[];
/* Finds the compiled chunks in a file; where it is none, not to be trusted or
 * of another release, there are none. */
void core_open_chunks(lua_State *L, const char *path);
/* Pushes the function compiled from just this text, of this chunk name, and
 * returns true; or there is none. */
bool core_push_chunk(lua_State *L, const char *name, const char *text,
                     size_t length);

/* lock.c, which is a part of core.generation */
int core_lock(lua_State *L);
void core_lock_type(lua_State *L);

/* host.c */
double core_clock(void); /* seconds, monotonic */

/* Whether someone insists that what is going on ends: a wait is cut short. */
bool core_interrupted(void);
/* The number of the signal that is named at index ("TERM", "HUP" ...), missing
 * where nothing is; NULL: that raises. */
int core_check_signal(lua_State *L, int index, const char *missing);
/* Pushes what kill(2) said: true for 0, or nil, message, code. */
int core_push_signalled(lua_State *L, pid_t pid, int error);

/* caller.c */
/* For a program that was called through sudo: nothing but a few variables of
 * the environment stays, and no limit that the caller has set. */
void core_settle_caller(void);

/* openers */
int luaopen_core_bundle(lua_State *L);
int luaopen_core_caller(lua_State *L);
int luaopen_core_cert(lua_State *L);
int luaopen_core_file(lua_State *L);
int luaopen_core_generation(lua_State *L);
int luaopen_core_host(lua_State *L);
int luaopen_core_http(lua_State *L); /* of a shared object, as in main.c */
int luaopen_core_idna(lua_State *L);
int luaopen_core_interrupt(lua_State *L);
int luaopen_core_key(lua_State *L);
int luaopen_core_load(lua_State *L);
int luaopen_core_log(lua_State *L);
int luaopen_core_probe(lua_State *L);
int luaopen_core_process(lua_State *L);
int luaopen_core_request(lua_State *L);
int luaopen_core_revocation(lua_State *L);
int luaopen_core_store(lua_State *L);
int luaopen_core_zip(lua_State *L);

#endif
