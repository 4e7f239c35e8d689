/*
 * chain.c: cert.chain, which puts a pile of certificates in order.
 *
 * Signatures are checked on copies, in a box of cert_push_twins.  Dates and
 * trust play no part here; those are verify.c's.
 */
#include "cert.h"

#include <openssl/err.h>
#include <string.h>

void cert_free_list(void *value) {
  sk_X509_pop_free(value, X509_free);
}

static void add_twin(lua_State *L, STACK_OF(X509) * twins, X509 *certificate) {
  size_t length;
  const unsigned char *der = cert_push_der(L, certificate, &length);
  X509 *twin = d2i_X509(NULL, &der, (long)length);
  if (twin == NULL || sk_X509_push(twins, twin) <= 0) {
    X509_free(twin);
    luaL_error(L, "cannot copy a certificate: %s", core_reason());
  }
  lua_pop(L, 1);
}

static bool is_system(lua_State *L, int index) {
  return lua_type(L, index) == LUA_TSTRING &&
         strcmp(lua_tostring(L, index), "system") == 0;
}

STACK_OF(X509) *
    cert_push_twins(lua_State *L, int index, const char *what, bool *system) {
  core_holder *holder;
  lua_Integer i;
  index = lua_absindex(L, index);
  holder = core_push_holder(L, cert_free_list);
  if ((holder->value = sk_X509_new_null()) == NULL)
    luaL_error(L, "not enough memory");
  if (system != NULL && is_system(L, index)) {
    *system = true;
    return holder->value;
  }
  if (!lua_istable(L, index))
    luaL_error(L, "%s: an array of certificates expected, got %s", what,
               luaL_typename(L, index));
  for (i = 1; i <= (lua_Integer)lua_rawlen(L, index); i++) {
    X509 **box;
    lua_rawgeti(L, index, i);
    box = luaL_testudata(L, -1, CORE_CERT);
    if (box != NULL && *box != NULL)
      add_twin(L, holder->value, *box);
    else if (system != NULL && is_system(L, -1))
      *system = true;
    else
      luaL_error(L, "%s[%d]: a certificate expected, got %s", what, (int)i,
                 luaL_typename(L, -1));
    lua_pop(L, 1);
  }
  return holder->value;
}

/* Building a chain */

struct pile {
  STACK_OF(X509) * twins;
  int count;
  int *order; /* the answer: indices, leaf first */
  int length;
};

static bool is_issuer(X509 *issuer, X509 *subject) {
  return X509_check_issued(issuer, subject) == X509_V_OK &&
         X509_verify(subject, X509_get0_pubkey(issuer)) == 1;
}

static bool listed(const struct pile *pile, const X509 *twin) {
  int i;
  for (i = 0; i < pile->length; i++)
    if (X509_cmp(sk_X509_value(pile->twins, pile->order[i]), twin) == 0)
      return true;
  return false;
}

static bool issued_another(const struct pile *pile, X509 *twin) {
  int i;
  for (i = 0; i < pile->count; i++) {
    X509 *other = sk_X509_value(pile->twins, i);
    if (X509_cmp(twin, other) != 0 && is_issuer(twin, other))
      return true;
  }
  return false;
}

/* Puts what could be the leaf into order: all that are no CA, or all CAs that
 * issued none of the others. */
static void find_leaf(struct pile *pile, bool among_cas) {
  int i;
  for (i = 0; i < pile->count; i++) {
    X509 *twin = sk_X509_value(pile->twins, i);
    bool fit = among_cas ? !issued_another(pile, twin) : !X509_check_ca(twin);
    if (fit && !listed(pile, twin))
      pile->order[pile->length++] = i;
  }
}

/* Appends the issuer of the last in order; false when there is none.  None is
 * taken twice. */
static bool append_issuer(struct pile *pile) {
  X509 *last = sk_X509_value(pile->twins, pile->order[pile->length - 1]);
  int i;
  if (X509_self_signed(last, 1) == 1)
    return false;
  for (i = 0; i < pile->count; i++) {
    X509 *twin = sk_X509_value(pile->twins, i);
    if (is_issuer(twin, last) && !listed(pile, twin)) {
      pile->order[pile->length++] = i;
      return true;
    }
  }
  return false;
}

static int fail_ambiguous(lua_State *L, const struct pile *pile) {
  int i;
  lua_pushliteral(L, "");
  for (i = 0; i < pile->length; i++) {
    cert_push_label(L, sk_X509_value(pile->twins, pile->order[i]));
    lua_pushfstring(L, "%s%s\"%s\"", lua_tostring(L, -2), i > 0 ? ", " : "",
                    lua_tostring(L, -1));
    lua_replace(L, -3);
    lua_pop(L, 1);
  }
  return core_fail(L, "mismatch",
                   "cannot tell which certificate is the leaf: %s",
                   lua_tostring(L, -1));
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
  struct pile pile = {NULL, 0, NULL, 0};
  X509 *leaf;
  int i;
  lua_settop(L, 2);
  leaf = lua_isnil(L, 2) ? NULL : core_cert_check(L, 2);
  pile.twins = cert_push_twins(L, 1, "pile", NULL);
  pile.count = sk_X509_num(pile.twins);
  pile.order = lua_newuserdatauv(L, (pile.count + 1) * sizeof *pile.order, 0);
  if (leaf != NULL) {
    add_twin(L, pile.twins, leaf);
    pile.order[pile.length++] = pile.count;
  } else {
    find_leaf(&pile, false);
  }
  if (pile.length == 0)
    find_leaf(&pile, true);
  if (pile.length == 0)
    return core_fail(L, "missing", "cannot build a chain: %s",
                     pile.count == 0 ? "no certificate was given"
                                     : "each certificate issued another");
  if (pile.length > 1)
    return fail_ambiguous(L, &pile);
  while (append_issuer(&pile))
    continue;
  ERR_clear_error();
  lua_createtable(L, pile.length, 0);
  for (i = 0; i < pile.length; i++) {
    if (pile.order[i] == pile.count)
      lua_pushvalue(L, 2);
    else
      lua_rawgeti(L, 1, pile.order[i] + 1);
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}
