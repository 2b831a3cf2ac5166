/* special.h: the special tokens: which they are, and finding them in a text in one pass. Private to src/text. */
#ifndef FACET_TEXT_SPECIAL_H
#define FACET_TEXT_SPECIAL_H

#include "base/error.h"

#define SPECIAL_MAX_BYTES 128 /* longest text of a special token; bounds the work per byte of input */

/* A trie over the texts; node 0 is the root. */
typedef struct special_node {
    uint32_t child, sibling; /* 0: none */
    int32_t id;              /* token that ends here, or -1 */
    bool is_user;            /* user-defined: matched in SPECIAL_USER too */
    unsigned char byte;
} special_node;

typedef struct special_set {
    special_node *nodes;
    uint32_t n, cap;
    bool is_first[256]; /* bytes that begin some text */
} special_set;

facet_status special_add(special_set *s, const char *text, size_t n, int32_t id, bool is_user, facet_error *err);
void special_free(special_set *s);

/* The longest special text at p[0..n): its token and length, or -1. */
int32_t special_match(const special_set *s, const char *p, size_t n, bool user_only, size_t *length);

#endif
