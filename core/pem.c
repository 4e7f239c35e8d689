/*
 * pem.c: the forms in which DER comes as text: PEM blocks (RFC 7468), UTF-16 of
 * either order, base64 without armour; and what DER is, by its shape.
 *
 * What is read may be a private key: copies are secrets, cleansed when freed.
 */
#include "cert.h"

#include <openssl/err.h>
#include <string.h>

#define PART_LINE 40 /* characters of base64 in a line that begins a part */

/* 1: UTF-16 with the low byte first, 2: with the high one, 0: something else.
 * ASCII without a mark is known by its zeros. */
static int wide(const char *s, size_t length) {
  if (length < 4 || length % 2 != 0)
    return 0;
  if (memcmp(s, "\xFF\xFE", 2) == 0 ||
      (s[0] > 0 && s[1] == 0 && s[2] > 0 && s[3] == 0))
    return 1;
  return memcmp(s, "\xFE\xFF", 2) == 0 ||
                 (s[0] == 0 && s[1] > 0 && s[2] == 0 && s[3] > 0)
             ? 2
             : 0;
}

/* Writes ASCII for UTF-16; "?" for everything else, 0 included. */
static void narrow(char *out, const char *s, size_t count, int order) {
  size_t i;
  for (i = 0; i < count; i++) {
    char low = s[2 * i + (order == 1 ? 0 : 1)];
    char high = s[2 * i + (order == 1 ? 1 : 0)];
    out[i] = high == 0 && low > 0 ? low : '?';
  }
}

/* Where the text of a line begins, after the marks with which mail quotes. */
static const char *unquote(const char *at, const char *end) {
  while (at < end && (*at == ' ' || *at == '\t' || *at == '>'))
    at++;
  return at;
}

/* Base64 in lines, that may be quoted, and have "=" as quoted-printable text
 * has it (RFC 2045, section 6.7). */
static bool decode(const char *at, size_t length, unsigned char *der,
                   size_t *size) {
  EVP_ENCODE_CTX *context = EVP_ENCODE_CTX_new();
  const char *end = at + length, *line = at /* its end */, *stop, *sign;
  int n = 0;
  bool good = context != NULL;
  *size = 0;
  if (good)
    EVP_DecodeInit(context);
  while (good && (at = unquote(at, end)) < end) {
    if (at >= line) { /* looked for once, however many signs are before it */
      line = memchr(at, '\n', (size_t)(end - at));
      line = line != NULL ? line + 1 : end;
    }
    stop = line;
    sign = memmem(at, (size_t)(stop - at), "=3D", 3);
    if (sign != NULL)
      stop = sign + 1;
    good = EVP_DecodeUpdate(context, der + *size, &n, (const unsigned char *)at,
                            (int)(stop - at)) >= 0;
    *size += good ? (size_t)n : 0;
    at = sign != NULL ? sign + 3 : stop;
  }
  good = good && EVP_DecodeFinal(context, der + *size, &n) == 1;
  *size += good ? (size_t)n : 0;
  EVP_ENCODE_CTX_free(context);
  return good;
}

static bool is_base64(char c) {
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrs"
                                 "tuvwxyz0123456789+/=";
  return memchr(alphabet, c, sizeof alphabet - 1) != NULL;
}

/* Whether it is nothing but base64, of something that begins as DER does, or as
 * a ZIP. */
static bool bare(const char *s, size_t length) {
  static const char blanks[] = " \t\r\n";
  size_t i = 0;
  while (i < length && memchr(blanks, s[i], 4) != NULL)
    i++;
  if (length - i < 16 || (s[i] != 'M' && memcmp(s + i, "UEsDB", 5) != 0))
    return false;
  while (i < length && (is_base64(s[i]) || memchr(blanks, s[i], 4) != NULL))
    i++;
  return i == length;
}

const char *core_push_plain(lua_State *L, int index, size_t *length) {
  const char *bytes = core_check_bytes(L, index, length);
  core_secret *box;
  int order = wide(bytes, *length);
  if (*length >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0) {
    *length -= 3;
    bytes += 3;
  }
  lua_pushnil(L);
  if (order != 0) {
    box = core_secret_new(L, *length / 2);
    narrow(box->bytes, bytes, *length / 2, order);
    *length = box->length = *length / 2;
    bytes = box->bytes;
    if (*bytes == '?') { /* the byte order mark */
      *length -= 1;
      bytes++;
    }
    lua_replace(L, -2);
  }
  if (*length <= CORE_BUNDLE_LIMIT && bare(bytes, *length)) {
    box = core_secret_new(L, *length + 3);
    if (decode(bytes, *length, (unsigned char *)box->bytes, &box->length)) {
      *length = box->length;
      bytes = box->bytes;
      lua_replace(L, -2); /* what is plain below it may go: it was read */
    } else {
      lua_pop(L, 1);
    }
  }
  return bytes;
}

bool core_next_block(const char **at, const char *end, const char **label,
                     size_t *length) {
  static const char begin[] = "-----BEGIN ";
  while ((*at = memmem(*at, (size_t)(end - *at), begin, sizeof begin - 1)) !=
         NULL) {
    const char *stop;
    *label = *at += sizeof begin - 1;
    stop = memmem(*at, (size_t)(end - *at), "-----", 5);
    if (stop != NULL && memchr(*at, '\n', (size_t)(stop - *at)) == NULL) {
      *length = (size_t)(stop - *at);
      *at = stop + 5;
      return true;
    }
  }
  return false;
}

const char *core_read_block(const char *body, const char *end,
                            const char *label, size_t length,
                            unsigned char *der, size_t *size) {
  const char *stop = memmem(body, (size_t)(end - body), "-----", 5);
  if (stop == NULL || (size_t)(end - stop) < length + 14 ||
      strncmp(stop, "-----END ", 9) != 0 ||
      strncmp(stop + 9, label, length) != 0 ||
      strncmp(stop + 9 + length, "-----", 5) != 0)
    return "its END line is missing";
  return decode(body, (size_t)(stop - body), der, size) ? NULL : "bad base64";
}

/* Lines of 64 characters, of 48 octets each (RFC 7468, section 2). */
void core_push_pem(lua_State *L, const char *kind, const unsigned char *der,
                   size_t length) {
  static const char begin[] = "-----BEGIN ", end[] = "-----END ";
  luaL_Buffer buffer;
  size_t lines = length / 48 + 1;
  char *text = luaL_buffinitsize(L, &buffer,
                                 sizeof begin + sizeof end +
                                     2 * (strlen(kind) + 8) + lines * 66);
  char *at = stpcpy(stpcpy(stpcpy(text, begin), kind), "-----\n");
  while (length > 0) {
    size_t n = length < 48 ? length : 48;
    at += EVP_EncodeBlock((unsigned char *)at, der, (int)n);
    *at++ = '\n';
    der += n;
    length -= n;
  }
  at = stpcpy(stpcpy(stpcpy(at, end), kind), "-----\n");
  luaL_pushresultsize(&buffer, (size_t)(at - text));
}

const char *core_shape(const unsigned char *der, size_t size) {
  struct cert_span rest = {der, der + size}, inside, first;
  long length;
  int tag, class;
  int flags = ASN1_get_object(&rest.at, &length, &tag, &class, (long)size);
  ERR_clear_error();
  if ((flags & 0x80) != 0 || tag != V_ASN1_SEQUENCE || class != 0)
    return NULL;
  tag = cert_take(&rest, &inside);
  if (tag == V_ASN1_OBJECT)
    return "pkcs7";
  if (tag == V_ASN1_INTEGER)
    return inside.end - inside.at == 1 && *inside.at == 3 ? "pkcs12" : "key";
  tag = tag == V_ASN1_SEQUENCE ? cert_take(&inside, &first) : -1;
  if (tag == V_ASN1_OBJECT) /* the algorithm that it is encrypted with */
    return "key";
  if (tag == V_ASN1_INTEGER && cert_take(&inside, &rest) == V_ASN1_SEQUENCE &&
      cert_take(&rest, &first) != V_ASN1_OBJECT) /* a subject, no algorithm */
    return "request";
  return tag >= 0 ? "certificate" : NULL;
}

const char *core_block_shape(const char *at, const char *end, const char *label,
                             size_t length, unsigned char *der) {
  static const char key[] = "PRIVATE KEY";
  const char *found = NULL;
  size_t size;
  if (length >= 11 && strncmp(label + length - 11, key, 11) == 0)
    return "key";
  if (core_read_block(at, end, label, length, der, &size) == NULL)
    found = core_shape(der, size);
  if (found == NULL && length >= 11 &&
      strncmp(label + length - 11, "CERTIFICATE", 11) == 0)
    return "certificate"; /* whose reader says what is wrong with it */
  return found;
}

/*
 * bundle.kinds(bytes) -> { certificate =, request =, key =, pkcs7 =, pkcs12 =
 *   other = true where there is one, zip = secret } | nil, message, "limit"
 * What DER is, or the blocks of a PEM text are, by their shape; empty when it
 * is neither.  A ZIP is handed over, as it may hold a key.  A string or a
 * secret of at most 16 MiB.
 */
int core_kinds(lua_State *L) {
  size_t length, size;
  const char *at = core_check_bytes(L, 1, &length), *end, *label;
  const char *kind;
  unsigned char *der;
  core_secret *zip;
  if (length > CORE_BUNDLE_LIMIT)
    return core_fail(L, "limit", "cannot read it: more than 16 MiB");
  at = core_push_plain(L, 1, &length);
  end = at + length;
  kind = core_shape((const unsigned char *)at, length);
  der = kind == NULL ? lua_newuserdatauv(L, length + 3, 0) : NULL;
  lua_newtable(L);
  if (length > 4 && memcmp(at, "PK\3\4", 4) == 0) {
    zip = core_secret_new(L, length);
    memcpy(zip->bytes, at, length);
    zip->bytes[zip->length = length] = '\0';
    lua_setfield(L, -2, "zip");
    return 1;
  }
  while (kind != NULL || core_next_block(&at, end, &label, &size)) {
    if (der != NULL)
      kind = core_block_shape(at, end, label, size, der);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, kind != NULL ? kind : "other");
    if (der == NULL)
      break;
    kind = NULL;
  }
  return 1;
}

/* Parts of a text */

/* The length of a line that is nothing but base64, quoted or not, without the
 * marks around it and blanks at its end; 0: it is something else. */
static size_t base64_line(const char *at, const char *stop) {
  const char *first = at = unquote(at, stop), *last;
  while (at < stop && is_base64(*at))
    at++;
  last = at;
  while (at < stop && (*at == ' ' || *at == '\t'))
    at++;
  return at == stop || *at == '\r' || *at == '\n' ? (size_t)(last - first) : 0;
}

/* The next lines of base64 in a text, as long as each other but for the last:
 * where they end, or NULL. */
static const char *next_run(const char **at, const char *end) {
  const char *next, *from = *at;
  size_t first = 0, length;
  for (; from < end; from = next) {
    next = memchr(from, '\n', (size_t)(end - from));
    next = next != NULL ? next + 1 : end;
    length = base64_line(from, next);
    if (first > 0 && (length == 0 || length > first))
      return from;
    if (first == 0 && length >= PART_LINE) {
      *at = from;
      first = length;
    }
    if (first > 0 &&
        (length < first || memchr(from, '=', (size_t)(next - from)) != NULL))
      return next;
  }
  return first > 0 ? end : NULL;
}

static bool is_part(const core_secret *part) {
  const char *bytes = part->bytes;
  return part->length > 16 &&
         (core_shape((const unsigned char *)bytes, part->length) != NULL ||
          memcmp(bytes, "PK\3\4", 4) == 0 ||
          memmem(bytes, part->length, "-----BEGIN ", 11) != NULL);
}

/*
 * bundle.parts(bytes) -> array of secret | nil, message, "limit"
 * What stands as base64 among other text, such as what is attached to an e-mail
 * (RFC 2045, section 6.8): what is DER, a ZIP or has a PEM block.  A string or
 * a secret of at most 16 MiB and 100 such parts.
 */
int core_parts(lua_State *L) {
  size_t length;
  const char *at = core_check_bytes(L, 1, &length), *end, *stop;
  lua_Integer count = 0;
  if (length > CORE_BUNDLE_LIMIT)
    return core_fail(L, "limit", "cannot read it: more than 16 MiB");
  at = core_push_plain(L, 1, &length);
  end = at + length;
  lua_newtable(L);
  while (count <= CORE_PILE_LIMIT && (stop = next_run(&at, end)) != NULL) {
    core_secret *part = core_secret_new(L, (size_t)(stop - at) + 3);
    if (decode(at, (size_t)(stop - at), (unsigned char *)part->bytes,
               &part->length) &&
        is_part(part))
      lua_rawseti(L, -2, ++count);
    else
      lua_pop(L, 1);
    at = stop;
  }
  if (count > CORE_PILE_LIMIT)
    return core_fail(L, "limit", "cannot read it: more than %d parts in base64",
                     CORE_PILE_LIMIT);
  return 1;
}
