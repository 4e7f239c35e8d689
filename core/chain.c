/*
 * chain.c: cert.chain, which puts a pile of certificates in order.
 *
 * Signatures are checked on copies in the default library context (cert_twin):
 * build owns those and knows no Lua.  Dates and trust play no part here; those
 * are verify.c's.
 */
#include "cert.h"

#include <openssl/err.h>
#include <string.h>

bool cert_is_system(lua_State *L, int index) {
  return lua_type(L, index) == LUA_TSTRING &&
         strcmp(lua_tostring(L, index), "system") == 0;
}

X509 **cert_push_array(lua_State *L, int index, const char *what, size_t *count,
                       bool *system) {
  size_t i, n;
  X509 **array;
  *count = 0;
  index = lua_absindex(L, index);
  if (!lua_istable(L, index))
    luaL_error(L, "%s: an array of certificates expected, got %s", what,
               luaL_typename(L, index));
  n = (size_t)lua_rawlen(L, index);
  array = lua_newuserdatauv(L, (n + 1) * sizeof *array, 0);
  for (i = 1; i <= n; i++) {
    X509 **box;
    lua_rawgeti(L, index, (lua_Integer)i);
    box = luaL_testudata(L, -1, CORE_CERT);
    if (box != NULL && *box != NULL)
      array[(*count)++] = *box;
    else if (system != NULL && cert_is_system(L, -1))
      *system = true;
    else
      luaL_error(L, "%s[%d]: a certificate expected, got %s", what, (int)i,
                 luaL_typename(L, -1));
    lua_pop(L, 1);
  }
  return array;
}

/* Building a chain */

/* A pile with the leaf that was given, if one was, behind it. */
struct pile {
  X509 **twins;
  size_t count, total; /* without and with that leaf */
  size_t *order;       /* the answer: indices, leaf first */
  size_t length;
  bool ambiguous; /* order is all that could be the leaf */
};

static bool is_issuer(X509 *issuer, X509 *subject) {
  return X509_check_issued(issuer, subject) == X509_V_OK &&
         X509_verify(subject, X509_get0_pubkey(issuer)) == 1;
}

static bool listed(const struct pile *pile, size_t index) {
  size_t i;
  for (i = 0; i < pile->length; i++)
    if (X509_cmp(pile->twins[pile->order[i]], pile->twins[index]) == 0)
      return true;
  return false;
}

static bool issued_another(const struct pile *pile, size_t index) {
  size_t i;
  for (i = 0; i < pile->count; i++)
    if (X509_cmp(pile->twins[index], pile->twins[i]) != 0 &&
        is_issuer(pile->twins[index], pile->twins[i]))
      return true;
  return false;
}

/* Puts what could be the leaf into order: all that are no CA, else the CAs
 * that issued none of the others. */
static void find_leaf(struct pile *pile) {
  size_t i;
  for (i = 0; i < pile->count; i++)
    if (X509_check_ca(pile->twins[i]) == 0 && !listed(pile, i))
      pile->order[pile->length++] = i;
  if (pile->length > 0)
    return;
  for (i = 0; i < pile->count; i++)
    if (!listed(pile, i) && !issued_another(pile, i))
      pile->order[pile->length++] = i;
}

/* Follows the issuers from the one certificate in order; ends, because none
 * is taken twice. */
static void follow(struct pile *pile) {
  size_t i;
  do {
    X509 *last = pile->twins[pile->order[pile->length - 1]];
    if (X509_self_signed(last, 1) == 1)
      return;
    for (i = 0; i < pile->count; i++)
      if (is_issuer(pile->twins[i], last) && !listed(pile, i))
        break;
    if (i < pile->count)
      pile->order[pile->length++] = i;
  } while (i < pile->count);
}

static bool build(X509 **pile_of, size_t count, X509 *leaf, struct pile *pile) {
  size_t i;
  bool good = false;
  ERR_clear_error();
  pile->count = count;
  pile->total = count + (leaf != NULL ? 1 : 0);
  pile->twins = OPENSSL_zalloc((pile->total + 1) * sizeof *pile->twins);
  if (pile->twins == NULL)
    goto out;
  for (i = 0; i < pile->total; i++)
    if ((pile->twins[i] = cert_twin(i < count ? pile_of[i] : leaf)) == NULL)
      goto out;
  if (leaf != NULL)
    pile->order[pile->length++] = count;
  else
    find_leaf(pile);
  pile->ambiguous = pile->length > 1;
  if (pile->length == 1)
    follow(pile);
  good = true;
out:
  for (i = 0; pile->twins != NULL && i < pile->total; i++)
    X509_free(pile->twins[i]);
  OPENSSL_free(pile->twins);
  pile->twins = NULL;
  ERR_clear_error();
  return good;
}

static int fail_ambiguous(lua_State *L, X509 **array, const struct pile *pile) {
  luaL_Buffer buffer;
  size_t i;
  luaL_buffinit(L, &buffer);
  luaL_addstring(&buffer, "cannot tell which certificate is the leaf: ");
  for (i = 0; i < pile->length; i++) {
    luaL_addstring(&buffer, i > 0 ? ", \"" : "\"");
    cert_push_label(L, array[pile->order[i]]);
    luaL_addvalue(&buffer);
    luaL_addchar(&buffer, '"');
  }
  luaL_pushresult(&buffer);
  return core_fail(L, "mismatch", "%s", lua_tostring(L, -1));
}

/*
 * cert.chain(pile[, leaf]) -> array of cert | nil, message,
 *   "missing" | "mismatch"
 * The leaf, then each issuer that is in the pile, by issuer name, authority
 * key identifier and signature (RFC 5280, section 6.1.3), and the self-signed
 * root last if it is there.  Of several issuers the first in the pile is
 * taken.  Without leaf it is the only certificate that is no CA, or the only
 * CA that issued none of the others: "mismatch" when there are several,
 * "missing" when there is none.  An issuer that is not in the pile is no
 * failure: the chain ends there.
 */
int cert_chain(lua_State *L) {
  struct pile pile = {NULL, 0, 0, NULL, 0, false};
  X509 **array, *leaf;
  size_t count, i;
  lua_settop(L, 2);
  leaf = lua_isnil(L, 2) ? NULL : core_cert_check(L, 2);
  array = cert_push_array(L, 1, "pile", &count, NULL);
  pile.order = lua_newuserdatauv(L, (count + 1) * sizeof *pile.order, 0);
  if (!build(array, count, leaf, &pile))
    return luaL_error(L, "cannot copy the certificates");
  if (pile.length == 0)
    return core_fail(L, "missing", "cannot build a chain: %s",
                     count == 0 ? "no certificate was given"
                                : "each certificate issued another");
  if (pile.ambiguous)
    return fail_ambiguous(L, array, &pile);
  lua_createtable(L, (int)pile.length, 0);
  for (i = 0; i < pile.length; i++) {
    if (pile.order[i] == count)
      lua_pushvalue(L, 2);
    else
      lua_rawgeti(L, 1, (lua_Integer)pile.order[i] + 1);
    lua_rawseti(L, -2, (lua_Integer)i + 1);
  }
  return 1;
}
