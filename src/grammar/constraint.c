#include "grammar/constraint.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"

typedef enum part {
    PART_OPEN,
    PART_READY, /* after a thought: a second one could go on for ever, where what the model would rather say is
                   forbidden */
    PART_CONTENT,
    PART_THOUGHT,
    PART_CALL,
    PART_CALLED,
    PART_OVER
} part;

struct constraint {
    masker *k;
    const tokenizer *t;
    unsigned flags;
    int32_t state[CONSTRAINT_POINTS]; /* PART_OPEN, PART_READY, PART_CONTENT; the start in other parts */
    uint8_t part[CONSTRAINT_POINTS];
    state_holder holder;
    uint64_t *bits;
    int32_t *ends; /* [n_ends] end tokens */
    int32_t n_ends;
};

static facet_status list_ends(constraint *c, facet_error *err)
{
    const int32_t n_vocab = tokenizer_n_vocab(c->t);
    for (int32_t id = 0; id < n_vocab; id++) c->n_ends += tokenizer_is_end(c->t, id);
    c->ends = mem_calloc((size_t)c->n_ends, sizeof *c->ends);
    if (!c->ends) return error_memory(err, "a constraint", (size_t)c->n_ends * sizeof *c->ends);
    for (int32_t id = 0, n = 0; id < n_vocab; id++)
        if (tokenizer_is_end(c->t, id)) c->ends[n++] = id;
    return FACET_OK;
}

facet_status constraint_open(masker *k, const tokenizer *t, unsigned flags, constraint **out, facet_error *err)
{
    constraint *c = mem_calloc(1, sizeof *c);
    if (!c) return error_memory(err, "a constraint", sizeof *c);
    c->k = k;
    c->t = t;
    c->flags = flags;
    for (int i = 0; i < CONSTRAINT_POINTS; i++) c->state[i] = masker_start(k);
    c->part[0] = flags & CONSTRAINT_IN_THOUGHT ? PART_THOUGHT : PART_OPEN;
    masker_hold(k, &c->holder, c->state, CONSTRAINT_POINTS);
    c->bits = mem_calloc(mask_words(k->trie), sizeof *c->bits);
    const facet_status status =
        c->bits ? list_ends(c, err) : error_memory(err, "a token mask", mask_words(k->trie) * sizeof *c->bits);
    if (status != FACET_OK) {
        constraint_close(c);
        return status;
    }
    *out = c;
    return FACET_OK;
}

void constraint_close(constraint *c)
{
    if (!c) return;
    masker_release(c->k, &c->holder);
    mem_free(c->bits);
    mem_free(c->ends);
    mem_free(c);
}

void constraint_settle(constraint *c, int from)
{
    c->state[0] = c->state[from];
    c->part[0] = c->part[from];
}

bool constraint_is_over(const constraint *c, int at)
{
    return c->part[at] == PART_OVER;
}

/* ---- one token ---- */

static bool is_open(part now)
{
    return now == PART_OPEN || now == PART_READY;
}

/* A token that opens a thought or a call, where that is admitted. */
static bool opens(const constraint *c, part now, int32_t token, part *next)
{
    const special_ids *ids = tokenizer_special(c->t);
    if (token < 0) return false;
    if (token == ids->channel_open && now == PART_OPEN && c->flags & CONSTRAINT_MAY_THINK)
        *next = PART_THOUGHT;
    else if (token == ids->call_open && c->flags & CONSTRAINT_MAY_CALL)
        *next = PART_CALL;
    else
        return false;
    return true;
}

/* Outside the content. False: the token is not allowed. */
static bool next_part(const constraint *c, part now, int32_t token, part *next)
{
    const special_ids *ids = tokenizer_special(c->t);
    const bool is_end = tokenizer_is_end(c->t, token);
    *next = now;
    switch (now) {
    case PART_THOUGHT:
        if (token == ids->channel_close) *next = PART_READY;
        if (token == ids->call_open) return opens(c, now, token, next);
        return !is_end;
    case PART_CALL:
        if (token == ids->call_close) *next = PART_CALLED;
        return !is_end;
    case PART_CALLED: *next = is_end ? PART_OVER : PART_CALL; return is_end || token == ids->call_open;
    default: return false;
    }
}

static facet_status next_content(constraint *c, int from, int32_t token, int to, facet_error *err)
{
    const bool is_final = masker_is_final(c->k, c->state[from]);
    if (tokenizer_is_end(c->t, token)) {
        c->part[to] = PART_OVER;
        c->state[to] = is_final ? masker_start(c->k) : STATE_DEAD;
        return FACET_OK;
    }
    c->part[to] = PART_CONTENT;
    return masker_advance(c->k, c->state[from], token, &c->state[to], err);
}

facet_status constraint_advance(constraint *c, int from, int32_t token, int to, bool *is_allowed, facet_error *err)
{
    const part now = c->part[from];
    part next;
    FACET_TRY(masker_trim(c->k, err));
    if (now == PART_CONTENT || (is_open(now) && !opens(c, now, token, &next))) {
        FACET_TRY(next_content(c, from, token, to, err));
        *is_allowed = c->state[to] != STATE_DEAD;
        return FACET_OK;
    }
    *is_allowed = is_open(now) || next_part(c, now, token, &next);
    c->part[to] = (uint8_t)next;
    c->state[to] = masker_start(c->k);
    return FACET_OK;
}

/* ---- all tokens ---- */

static void set(uint64_t *bits, int32_t token)
{
    if (token >= 0) bits[token >> 6] |= UINT64_C(1) << (token & 63);
}

static void clear(uint64_t *bits, int32_t token)
{
    if (token >= 0) bits[token >> 6] &= ~(UINT64_C(1) << (token & 63));
}

/* Everything but end tokens. */
static void set_free(constraint *c)
{
    const int32_t n_vocab = c->k->trie->n_vocab;
    memset(c->bits, 0xff, mask_words(c->k->trie) * sizeof *c->bits);
    if (n_vocab & 63) c->bits[n_vocab >> 6] = (UINT64_C(1) << (n_vocab & 63)) - 1;
    for (int32_t i = 0; i < c->n_ends; i++) clear(c->bits, c->ends[i]);
}

static void set_ends(constraint *c)
{
    for (int32_t i = 0; i < c->n_ends; i++) set(c->bits, c->ends[i]);
}

static facet_status mask_content(constraint *c, int at, facet_error *err)
{
    const special_ids *ids = tokenizer_special(c->t);
    FACET_TRY(masker_mask(c->k, c->state[at], c->bits, err));
    if (masker_is_final(c->k, c->state[at])) set_ends(c);
    if (c->part[at] == PART_OPEN && c->flags & CONSTRAINT_MAY_THINK) set(c->bits, ids->channel_open);
    if (is_open((part)c->part[at]) && c->flags & CONSTRAINT_MAY_CALL) set(c->bits, ids->call_open);
    return FACET_OK;
}

facet_status constraint_mask(constraint *c, int at, const uint64_t **bits, facet_error *err)
{
    const special_ids *ids = tokenizer_special(c->t);
    FACET_TRY(masker_trim(c->k, err));
    switch ((part)c->part[at]) {
    case PART_OPEN:
    case PART_READY:
    case PART_CONTENT: FACET_TRY(mask_content(c, at, err)); break;
    case PART_THOUGHT:
        set_free(c);
        if (!(c->flags & CONSTRAINT_MAY_CALL)) clear(c->bits, ids->call_open);
        break;
    case PART_CALL: set_free(c); break;
    case PART_CALLED:
        memset(c->bits, 0, mask_words(c->k->trie) * sizeof *c->bits);
        set_ends(c);
        set(c->bits, ids->call_open);
        break;
    case PART_OVER: memset(c->bits, 0, mask_words(c->k->trie) * sizeof *c->bits); break;
    }
    *bits = c->bits;
    return FACET_OK;
}

facet_status constraint_apply(constraint *c, int at, float *logits, facet_error *err)
{
    const int32_t n_vocab = c->k->trie->n_vocab;
    const uint64_t *bits;
    FACET_TRY(constraint_mask(c, at, &bits, err));
    for (int32_t t = 0; t < n_vocab; t++)
        if (!(bits[t >> 6] >> (t & 63) & 1)) logits[t] = -INFINITY;
    return FACET_OK;
}
