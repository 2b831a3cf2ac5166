/* op_attn_sparse.c: what stands around an attention op that reads some of the keys: before it the summaries of blocks
 * and the choice of each row and KV head, after it the certificates, and the rest of the keys where one is not good
 * enough. The attention between is the common one, on rows that name their blocks.
 *
 *   make summaries | choose | attend | certify and rescue | count       (a barrier at each bar)
 *
 * Each row is treated alone: its bits do not depend on the others. */
#include <math.h>
#include <string.h>

#include "compute/cpu/attn_select.h"
#include "compute/cpu/exec.h"

/* What came of one row and KV head. */
typedef struct unit {
    attn_choice choice;
    bool is_rescued;
    float certified, estimated, measured; /* dropped mass, the worst of the heads */
    double error;                         /* bound of |o - o_all| / |o| */
} unit;

/* How the memory is shared out. */
typedef struct space {
    size_t n_splits;          /* of a row's mask */
    uint8_t *masks;           /* [row][KV head][n_splits] */
    float *states;            /* [row][head][max, sum] */
    attn_left_out *left_out;  /* [row][head] */
    unit *units;              /* [row][KV head] */
    float *scratch;           /* of this thread: attn_select_floats */
    float *rest, *rest_state; /* of this thread: [head][head_dim] and [head][max, sum], of what was left out */
    uint8_t *rest_mask;       /* of this thread: [n_splits] */
} space;

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static uint8_t *take(uint8_t **at, size_t bytes)
{
    uint8_t *p = *at;
    *at = p + aligned(bytes);
    return p;
}

/* Pages of a sequence's table are at most those of the group. */
static size_t place(const plan_op *op, const kv_desc *kv, int max_rows, int n_threads, int thread, uint8_t *memory,
                    space *s)
{
    const int64_t n_pages = kv->groups[kv->layers[op->kv_layer].group].n_pages;
    const size_t rows = (size_t)max_rows, heads = (size_t)op->n_heads, kv_heads = (size_t)op->n_kv_heads;
    uint8_t *at = memory;
    s->n_splits = (size_t)(n_pages / ATTN_SPLIT_BLOCKS + 1);
    s->masks = take(&at, rows * kv_heads * s->n_splits);
    s->states = (float *)(void *)take(&at, rows * heads * 2 * sizeof(float));
    s->left_out = (attn_left_out *)(void *)take(&at, rows * heads * sizeof *s->left_out);
    s->units = (unit *)(void *)take(&at, rows * kv_heads * sizeof *s->units);
    const size_t shared = (size_t)(at - memory);
    s->scratch = (float *)(void *)take(&at, attn_select_floats(op->n_heads / op->n_kv_heads, op->head_dim, n_pages) *
                                                sizeof(float));
    s->rest = (float *)(void *)take(&at, heads * (size_t)op->head_dim * sizeof(float));
    s->rest_state = (float *)(void *)take(&at, heads * 2 * sizeof(float));
    s->rest_mask = take(&at, s->n_splits);
    const size_t own = (size_t)(at - memory) - shared, shift = own * (size_t)thread;
    s->scratch += shift / sizeof(float);
    s->rest += shift / sizeof(float);
    s->rest_state += shift / sizeof(float);
    s->rest_mask += shift;
    return shared + own * (size_t)n_threads;
}

size_t sparse_space_bytes(const plan_op *op, const kv_desc *kv, int max_rows, int n_threads)
{
    static uint8_t nowhere[64]; /* addresses are computed, never used */
    space s;
    return place(op, kv, max_rows, n_threads, 0, nowhere, &s);
}

static space space_of(const exec *x, const plan_op *op, int thread)
{
    const compiled *c = x->c;
    space s;
    place(op, &x->be->kv, c->plan->values[op->o].rows == ROWS_ALL ? c->max_rows : c->max_out, team_size(x->be->team),
          thread, c->sparse, &s);
    return s;
}

/* The rule by which row r leaves keys out; NULL: it reads all. */
static const sparse_rule *rule_of(const exec *x, const plan_op *op, int r)
{
    const int b = exec_batch_row(x, op->o, r);
    const batch_seq *s = &x->batch->seqs[x->batch->seq[b]];
    const sparse_rule *rule = s->is_prompt ? &op->sparse->prompt : &op->sparse->decode;
    const attn_row row = {.pos = x->batch->pos[b]};
    if (s->is_prompt && row.pos >= s->prompt_end - rule->tail) return NULL;
    return attn_may_select(rule, op->sparse->min_keys, &row) ? rule : NULL;
}

bool sparse_is_wanted(const exec *x, const plan_op *op)
{
    const int n_rows = exec_n_rows(x, op->o);
    bool is_wanted = false;
    for (int r = 0; r < n_rows && op->sparse && !is_wanted; r++) is_wanted = rule_of(x, op, r) != NULL;
    return is_wanted;
}

void sparse_set_row(const exec *x, const plan_op *op, int r, attn_row *row)
{
    if (!op->sparse || !rule_of(x, op, r)) return;
    const space s = space_of(x, op, 0);
    row->blocks = s.masks + (size_t)r * (size_t)op->n_kv_heads * s.n_splits;
    row->blocks_stride = s.n_splits;
    row->state = s.states + (size_t)r * (size_t)op->n_heads * 2;
}

static void make_summaries(const exec *x, const plan_op *op, const attn_work *w, int thread, int n_threads)
{
    for (int r = 0, n_rows = exec_n_rows(x, op->o); r < n_rows; r++) {
        const sparse_rule *rule = rule_of(x, op, r);
        if (!rule) continue;
        const attn_row row = exec_query_row(x, op, r);
        int32_t first, end;
        attn_select_range(rule, &row, &first, &end);
        for (int32_t b = first; b < end; b++)
            if (row.table[b] % n_threads == thread)
                attn_summary_make(w->layer, w->rebuild, row.table[b], b, w->scratch);
    }
}

void sparse_choose(const exec *x, const plan_op *op, const attn_work *w, const attn_kernels *k, int thread,
                   int n_threads)
{
    const space s = space_of(x, op, thread);
    const int n_units = exec_n_rows(x, op->o) * op->n_kv_heads, per_kv = op->n_heads / op->n_kv_heads;
    make_summaries(x, op, w, thread, n_threads);
    team_barrier(x->be->team);
    for (int u; (u = exec_take(x, op, 1)) < n_units;) {
        const int r = u / op->n_kv_heads, h = u % op->n_kv_heads;
        const sparse_rule *rule = rule_of(x, op, r);
        s.units[u] = (unit){0};
        if (!rule) continue;
        const attn_row row = exec_query_row(x, op, r);
        attn_select(w, k, rule, &row, h, s.scratch, s.masks + (size_t)u * s.n_splits,
                    s.left_out + r * op->n_heads + h * per_kv, &s.units[u].choice);
    }
    team_barrier(x->be->team);
}

/* ---- afterwards ---- */

static float length(const float *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * x[i];
    return (float)sqrt(sum);
}

/* |o - o_all| <= delta (v_max + |o|), delta being the dropped mass, v_max the longest value that was left out. */
static void certify(const plan_op *op, const space *s, const attn_row *row, int kv_head, unit *u)
{
    const int per_kv = op->n_heads / op->n_kv_heads;
    for (int h = kv_head * per_kv; h < (kv_head + 1) * per_kv; h++) {
        const attn_left_out *left = &s->left_out[(row->state - s->states) / 2 + h];
        const float *state = row->state + 2 * h, bound = attn_dropped(state, left->bound, left->slack);
        const float o = length(row->out + (size_t)h * (size_t)op->head_dim, op->head_dim);
        u->certified = fmaxf(u->certified, bound);
        u->estimated = fmaxf(u->estimated, attn_dropped(state, left->estimate, 0));
        if (bound > 0) u->error = fmax(u->error, (double)bound * (left->v_max + o) / o);
    }
}

static void measure(const plan_op *op, const attn_work *w, const attn_kernels *k, const attn_row *rest,
                    const attn_row *row, int kv_head, unit *u)
{
    const int per_kv = op->n_heads / op->n_kv_heads;
    if (!op->sparse->is_checked) return;
    k->probe(w, rest, kv_head, rest->state, NULL, 0);
    for (int h = 0; h < per_kv; h++) {
        const float *z = rest->state + 2 * h;
        u->measured = fmaxf(u->measured, attn_dropped(row->state + 2 * (kv_head * per_kv + h), z[0] + logf(z[1]), 0));
    }
}

/* Reads what was left out, and joins it with what was read. */
static void rescue(const plan_op *op, const attn_work *w, const attn_kernels *k, const space *s, const attn_row *rest,
                   const attn_row *row, int kv_head)
{
    const int per_kv = op->n_heads / op->n_kv_heads;
    k->rows(w, rest, 1, kv_head);
    for (int h = kv_head * per_kv; h < (kv_head + 1) * per_kv; h++) {
        float *o = row->out + (size_t)h * (size_t)op->head_dim;
        const float *more = s->rest + (size_t)h * (size_t)op->head_dim;
        const float share = attn_dropped(row->state + 2 * h, rest->state[2 * h] + logf(rest->state[2 * h + 1]), 0);
        for (int i = 0; i < op->head_dim; i++) o[i] += (more[i] - o[i]) * share;
    }
}

static void settle(const exec *x, const plan_op *op, const attn_work *w, const attn_kernels *k, const space *s, int r,
                   int kv_head)
{
    unit *u = &s->units[r * op->n_kv_heads + kv_head];
    const attn_row row = exec_query_row(x, op, r);
    if (u->choice.n_selected == u->choice.n_blocks) return;
    attn_row rest = row;
    attn_complement(&row, attn_row_blocks(&row, kv_head), s->rest_mask);
    rest.blocks = s->rest_mask;
    rest.blocks_stride = 0; /* one KV head at a time */
    rest.out = s->rest;
    rest.state = s->rest_state;
    certify(op, s, &row, kv_head, u);
    measure(op, w, k, &rest, &row, kv_head, u);
    if (u->certified <= rule_of(x, op, r)->hard) return;
    rescue(op, w, k, s, &rest, &row, kv_head);
    u->is_rescued = true;
    u->choice.n_selected = u->choice.n_blocks;
}

static float larger(float a, float b)
{
    return a > b ? a : b;
}

static void add_unit(sparse_stats *t, const unit *u)
{
    if (!u->choice.n_blocks) return;
    t->choices++;
    t->dense += u->choice.is_dense;
    t->rescued += u->is_rescued;
    t->blocks += (uint64_t)u->choice.n_blocks;
    t->selected += (uint64_t)u->choice.n_selected;
    t->probed += (uint64_t)u->choice.n_probed;
    t->certified_sum += (double)u->certified;
    t->measured_sum += (double)u->measured;
    t->certified_max = larger(t->certified_max, u->certified);
    t->measured_max = larger(t->measured_max, u->measured);
    t->estimated_max = larger(t->estimated_max, u->estimated);
    if (u->error > t->error_max) t->error_max = u->error;
}

void sparse_settle(const exec *x, const plan_op *op, const attn_work *w, const attn_kernels *k, int thread,
                   int n_threads)
{
    const space s = space_of(x, op, thread);
    const int n_rows = exec_n_rows(x, op->o);
    team_barrier(x->be->team);
    for (int r = 0; r < n_rows; r++)
        for (int h = 0; h < op->n_kv_heads && rule_of(x, op, r); h++)
            if ((r * op->n_kv_heads + h) % n_threads == thread) settle(x, op, w, k, &s, r, h);
    team_barrier(x->be->team);
    for (int u = 0; u < n_rows * op->n_kv_heads && thread == 0 && x->batch->sparse; u++)
        add_unit(x->batch->sparse, &s.units[u]);
}
