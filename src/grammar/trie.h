/* trie.h: the texts of a vocabulary's tokens as a tree of bytes, laid out in the order of a walk through it, so that a
 * grammar looks at each beginning of a token once. */
#ifndef FACET_GRAMMAR_TRIE_H
#define FACET_GRAMMAR_TRIE_H

#include "text/tokenizer.h"

/* Node i's children begin at i + 1; what follows its subtree is end[i]. Node 0 is the empty text. The tokens whose text
 * is that of node i: tokens[first[i]] .. tokens[first[i + 1] - 1]; those below it, too: up to first[end[i]]. Immutable.
 */
typedef struct token_trie {
    int32_t n_nodes, n_vocab, n_tokens;
    int32_t max_bytes; /* of the longest token */
    uint8_t *byte;     /* [n_nodes] */
    uint16_t *depth;   /* [n_nodes] bytes of the node's text */
    int32_t *end;      /* [n_nodes] */
    int32_t *first;    /* [n_nodes + 1] */
    int32_t *tokens;   /* [n_tokens] by text */
    char *text;        /* of all tokens, one behind the other */
    uint32_t *start;   /* [n_vocab + 1]; tokens that print nothing have none */
} token_trie;

/* Of all tokens that print something, control tokens and the markers of chats aside. O(bytes of the vocabulary). */
facet_status trie_open(const tokenizer *t, token_trie **out, facet_error *err);
void trie_close(token_trie *t);

/* What the token adds to a text; *n = 0 for those that are not in the trie. */
static inline const char *trie_text(const token_trie *t, int32_t token, size_t *n)
{
    *n = t->start[token + 1] - t->start[token];
    return t->text + t->start[token];
}

#endif
