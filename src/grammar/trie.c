#include "grammar/trie.h"

#include <string.h>

#include "base/mem.h"

enum { MAX_TOKEN_BYTES = UINT16_MAX };

static facet_status no_memory(size_t bytes, facet_error *err)
{
    return error_memory(err, "the tree of tokens", bytes);
}

static facet_status copy_texts(token_trie *t, const tokenizer *tok, buf *text, facet_error *err)
{
    t->start = mem_resize_array(NULL, (size_t)t->n_vocab + 1, sizeof *t->start);
    if (!t->start) return no_memory((size_t)t->n_vocab * sizeof *t->start, err);
    for (int32_t id = 0; id < t->n_vocab; id++) {
        t->start[id] = (uint32_t)text->len;
        tokenizer_append_text(tok, id, text);
        if (text->len - t->start[id] > MAX_TOKEN_BYTES) text->len = t->start[id]; /* no use in any grammar */
        if (text->len > UINT32_MAX - MAX_TOKEN_BYTES) text->failed = true;
        if (text->failed) return no_memory(text->len, err);
        const int32_t n = (int32_t)(text->len - t->start[id]);
        if (n > t->max_bytes) t->max_bytes = n;
        t->n_tokens += n > 0;
    }
    t->start[t->n_vocab] = (uint32_t)text->len;
    t->text = text->data;
    *text = (buf){0};
    return FACET_OK;
}

/* ---- sorting ---- */

/* Ids by the byte at `depth` of their texts, those that end there first: most significant byte first, each bucket then
 * by the next byte. An explicit stack instead of recursion; a vocabulary's texts may be long. */
typedef struct bucket {
    int32_t first, n;
    int32_t depth;
} bucket;

typedef struct sorter {
    const token_trie *t;
    int32_t *ids, *scratch;
    bucket *stack;
    size_t n_stack, cap_stack;
} sorter;

static bool push(sorter *s, bucket b)
{
    if (s->n_stack == s->cap_stack) {
        const size_t cap = 2 * s->cap_stack + 256;
        bucket *p = mem_resize_array(s->stack, cap, sizeof *p);
        if (!p) return false;
        s->stack = p;
        s->cap_stack = cap;
    }
    s->stack[s->n_stack++] = b;
    return true;
}

static int key_of(const token_trie *t, int32_t id, int32_t depth)
{
    size_t n;
    const char *text = trie_text(t, id, &n);
    return (size_t)depth < n ? 1 + (uint8_t)text[depth] : 0;
}

static bool split(sorter *s, bucket b)
{
    int32_t at[258] = {0};
    for (int32_t i = 0; i < b.n; i++) at[key_of(s->t, s->ids[b.first + i], b.depth) + 1]++;
    for (int k = 1; k <= 257; k++) at[k] += at[k - 1];
    int32_t fill[257];
    memcpy(fill, at, sizeof fill);
    for (int32_t i = 0; i < b.n; i++) {
        const int32_t id = s->ids[b.first + i];
        s->scratch[fill[key_of(s->t, id, b.depth)]++] = id;
    }
    memcpy(s->ids + b.first, s->scratch, (size_t)b.n * sizeof *s->ids);
    for (int k = 1; k <= 256; k++) {
        const bucket next = {b.first + at[k], at[k + 1] - at[k], b.depth + 1};
        if (next.n > 1 && !push(s, next)) return false;
    }
    return true;
}

static facet_status sort_tokens(token_trie *t, facet_error *err)
{
    const size_t bytes = (size_t)t->n_tokens * sizeof *t->tokens;
    sorter s = {.t = t, .scratch = mem_alloc(bytes)};
    t->tokens = s.ids = mem_alloc(bytes);
    bool ok = s.ids && s.scratch && push(&s, (bucket){0, t->n_tokens, 0});
    int32_t n = 0;
    for (int32_t id = 0; ok && id < t->n_vocab; id++)
        if (t->start[id + 1] > t->start[id]) t->tokens[n++] = id;
    while (ok && s.n_stack) ok = split(&s, s.stack[--s.n_stack]);
    mem_free(s.scratch);
    mem_free(s.stack);
    return ok ? FACET_OK : no_memory(bytes, err);
}

/* ---- nodes ---- */

/* Bytes that the texts have in common at their beginnings. */
static size_t common(const token_trie *t, int32_t a, int32_t b)
{
    size_t n_a, n_b, n = 0;
    const char *x = trie_text(t, a, &n_a), *y = trie_text(t, b, &n_b);
    while (n < n_a && n < n_b && x[n] == y[n]) n++;
    return n;
}

static int32_t count_nodes(const token_trie *t)
{
    size_t n = 1;
    for (int32_t i = 0; i < t->n_tokens; i++) {
        const int32_t id = t->tokens[i];
        n += t->start[id + 1] - t->start[id] - (i ? common(t, t->tokens[i - 1], id) : 0);
        if (n >= INT32_MAX) return INT32_MAX;
    }
    return (int32_t)n;
}

/* The nodes of each text behind those of the one before it, the common beginning left out; open[d]: the node at depth d
 * on the way to the present text, whose subtree is not at its end yet. */
static void lay_out(token_trie *t, int32_t *open)
{
    int32_t n = 1, n_open = 1;
    open[0] = 0;
    for (int32_t i = 0; i < t->n_tokens; i++) {
        size_t length;
        const char *text = trie_text(t, t->tokens[i], &length);
        const size_t shared = i ? common(t, t->tokens[i - 1], t->tokens[i]) : 0;
        while (n_open > (int32_t)shared + 1) t->end[open[--n_open]] = n;
        for (size_t d = shared; d < length; d++) {
            t->byte[n] = (uint8_t)text[d];
            t->depth[n] = (uint16_t)(d + 1);
            t->first[n] = i;
            open[n_open++] = n++;
        }
    }
    while (n_open) t->end[open[--n_open]] = n;
    t->first[n] = t->n_tokens;
}

static facet_status build(token_trie *t, facet_error *err)
{
    FACET_TRY(sort_tokens(t, err));
    t->n_nodes = count_nodes(t);
    const size_t n = (size_t)t->n_nodes;
    if (t->n_nodes == INT32_MAX) return no_memory(n, err);
    int32_t *open = mem_calloc((size_t)t->max_bytes + 1, sizeof *open);
    t->byte = mem_calloc(n, 1);
    t->depth = mem_calloc(n, sizeof *t->depth);
    t->end = mem_calloc(n, sizeof *t->end);
    t->first = mem_calloc(n + 1, sizeof *t->first);
    const bool ok = open && t->byte && t->depth && t->end && t->first;
    if (ok) lay_out(t, open);
    mem_free(open);
    return ok ? FACET_OK : no_memory(n * 11, err);
}

facet_status trie_open(const tokenizer *tok, token_trie **out, facet_error *err)
{
    buf text = {0};
    token_trie *t = mem_calloc(1, sizeof *t);
    if (!t) return no_memory(sizeof *t, err);
    t->n_vocab = tokenizer_n_vocab(tok);
    facet_status status = copy_texts(t, tok, &text, err);
    if (status == FACET_OK) status = build(t, err);
    buf_free(&text);
    if (status == FACET_OK)
        *out = t;
    else
        trie_close(t);
    return status;
}

void trie_close(token_trie *t)
{
    if (!t) return;
    mem_free(t->byte);
    mem_free(t->depth);
    mem_free(t->end);
    mem_free(t->first);
    mem_free(t->tokens);
    mem_free(t->text);
    mem_free(t->start);
    mem_free(t);
}
