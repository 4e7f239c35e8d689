/*
 * idna.c: core.idna, internationalized domain names (RFC 5890 to 5893) over
 * libidn2.
 *
 * A library of its own, loaded when a name needs it.  What a DNS name may be
 * apart from that, and which names are shown how, Lua decides.
 */
#include "core.h"

#include <idn2.h>
#include <string.h>

#define NAME_LIMIT 4096 /* bytes of UTF-8; an A-label form has at most 253 */

/* The name at 1, without a NUL in it; or NULL, with a failure pushed. */
static const char *check_name(lua_State *L) {
  size_t length;
  const char *name = luaL_checklstring(L, 1, &length);
  if (length > NAME_LIMIT)
    core_fail(L, "limit", "more than %d bytes", NAME_LIMIT);
  else if (strlen(name) != length)
    core_fail(L, "parse", "a NUL in it");
  else
    return name;
  return NULL;
}

/* Pushes what libidn2 made, which is freed; or its failure. */
static int push_name(lua_State *L, int error, char *name) {
  core_holder *holder = core_push_holder(L, idn2_free);
  holder->value = name;
  if (error == IDN2_TOO_BIG_LABEL || error == IDN2_PUNYCODE_BIG_OUTPUT)
    return core_fail(L, "limit", "a label is longer than 63 octets (RFC 1035)");
  if (error == IDN2_TOO_BIG_DOMAIN)
    return core_fail(L, "limit", "it is longer than 253 octets (RFC 1035)");
  if (error != IDN2_OK)
    return core_fail(L, "parse", "%s", idn2_strerror(error));
  core_pushtext(L, name, strlen(name));
  return 1;
}

/*
 * idna.ascii(name) -> text | nil, message, "parse" | "limit"
 * The A-label form of a name in UTF-8, as clients look it up: mapped by UTS
 * #46, non-transitionally (so that a sharp s stays one), and each label then
 * checked by RFC 5891, section 5.  What is ASCII in it stays unchecked.
 */
static int l_ascii(lua_State *L) {
  const char *name = check_name(L);
  char *ascii = NULL;
  int error;
  if (name == NULL)
    return 3;
  error = idn2_to_ascii_8z(name, &ascii, IDN2_NONTRANSITIONAL);
  return push_name(L, error, ascii);
}

/*
 * idna.label(label) -> text | nil, message, "parse" | "limit"
 * The U-label of an A-label ("xn--..." in lower case), which must be one that
 * may be registered (RFC 5891, section 4): it is decoded, checked, and encoded
 * again to the same.
 */
static int l_label(lua_State *L) {
  const char *label = check_name(L);
  uint8_t *same = NULL;
  char *text = NULL;
  int error;
  if (label == NULL)
    return 3;
  error = idn2_register_u8(NULL, (const uint8_t *)label, &same, 0);
  idn2_free(same);
  if (error == IDN2_OK)
    error = idn2_to_unicode_8z8z(label, &text, 0);
  return push_name(L, error, text);
}

static const luaL_Reg functions[] = {
    {"ascii", l_ascii}, {"label", l_label}, {NULL, NULL}};

int luaopen_core_idna(lua_State *L) {
  luaL_newlib(L, functions);
  return 1;
}
