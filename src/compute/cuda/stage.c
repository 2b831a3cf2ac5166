/* stage.c: a batch on its way to the device: checked, padded, copied into arrays at fixed addresses, so that a captured
 * graph serves every step of its width. */
#include <string.h>

#include "compute/cuda/state.h"

/* ---- checks: what kernels index with must lie in bounds ---- */

static facet_status check_counts(const compiled *c, const batch *in, facet_error *err)
{
    if (in->n_rows < 1 || in->n_rows > c->max_rows || in->n_out < 0 || in->n_out > c->max_out)
        return error_set(err, FACET_ERR_LIMIT, "batch of %d rows and %d wanted ones: this plan takes %d and %d",
                         in->n_rows, in->n_out, c->max_rows, c->max_out);
    if (c->uses_kv && (in->n_seqs < 1 || in->n_seqs > CUDA_MAX_SEQS))
        return error_set(err, FACET_ERR_LIMIT, "batch of %d sequences: wanted 1 to %d", in->n_seqs, CUDA_MAX_SEQS);
    for (int i = 0; i < in->n_out; i++)
        if (in->out_row[i] < 0 || in->out_row[i] >= in->n_rows)
            return error_set(err, FACET_ERR_ARG, "wanted row %d: the batch has %d", in->out_row[i], in->n_rows);
    return FACET_OK;
}

static facet_status check_tokens(const compiled *c, const batch *in, facet_error *err)
{
    for (int i = 0; i < c->p->n_ops; i++) {
        const plan_op *op = &c->p->ops[i];
        if (op->kind != OP_EMBED || op->i0 >= 0) continue;
        uint32_t n_vocab = c->b->weights[op->w0].n_out;
        for (int r = 0; r < in->n_rows; r++)
            if (in->token[r] < 0 || (uint32_t)in->token[r] >= n_vocab)
                return error_set(err, FACET_ERR_ARG, "row %d: token %d: wanted 0 to %u", r, in->token[r], n_vocab - 1);
    }
    return FACET_OK;
}

static facet_status check_row(const compiled *c, const batch *in, int r, facet_error *err)
{
    int64_t most = (int64_t)c->b->tables.cap * KV_PAGE_LEN;
    if (in->seq[r] < 0 || in->seq[r] >= in->n_seqs)
        return error_set(err, FACET_ERR_ARG, "row %d: sequence %d of %d", r, in->seq[r], in->n_seqs);
    if (in->pos[r] < 0 || in->pos[r] >= most || in->slot[r] < 0 || in->slot[r] >= most)
        return error_set(err, FACET_ERR_LIMIT, "row %d: position %d in slot %d: wanted 0 to %lld", r, in->pos[r],
                         in->slot[r], (long long)most - 1);
    if (in->path && in->pos[r] - in->seqs[in->seq[r]].base >= BATCH_MAX_TREE)
        return error_set(err, FACET_ERR_ARG, "row %d: position %d is %d or more past the base %d of its tree", r,
                         in->pos[r], BATCH_MAX_TREE, in->seqs[in->seq[r]].base);
    return FACET_OK;
}

/* Slots that one sequence reads or writes in this batch. */
typedef struct slot_range {
    int32_t first, last; /* first > last: the sequence has no rows */
} slot_range;

static slot_range slots_of(const compiled *c, const batch *in, int seq, int window)
{
    slot_range s = {INT32_MAX, -1};
    int32_t base = in->seqs[seq].base;
    for (int r = 0; r < in->n_rows; r++) {
        if (in->seq[r] != seq) continue;
        int32_t first = window > 0 && in->pos[r] >= window ? in->pos[r] - window + 1 : 0;
        int32_t last = in->slot[r] > in->pos[r] ? in->slot[r] : in->pos[r];
        for (int32_t p = base; in->path && p <= in->pos[r]; p++)
            if (base + in->path[r][p - base] > last) last = base + in->path[r][p - base];
        if (c->sees_committed) last = base - 1;
        if (first < s.first) s.first = first;
        if (last > s.last) s.last = last;
    }
    return s;
}

/* Every page from the window's begin to the last position is held and exists; past that only written pages are. */
static facet_status check_table(const compiled *c, const batch *in, int seq, int group, facet_error *err)
{
    const kv_group_desc *g = &c->b->groups[group];
    slot_range s = slots_of(c, in, seq, g->window);
    for (int32_t i = s.first / KV_PAGE_LEN; s.first <= s.last && i <= s.last / KV_PAGE_LEN; i++) {
        int32_t page = in->seqs[seq].table[group][i];
        if (page < 0 || page >= g->n_pages)
            return error_set(err, FACET_ERR_ARG, "sequence %d: slots from %d (group %d) lie in page %d: wanted 0 to %d",
                             seq, i * KV_PAGE_LEN, group, page, g->n_pages - 1);
    }
    return FACET_OK;
}

static facet_status check_pages(const compiled *c, const batch *in, facet_error *err)
{
    const cuda_backend *b = c->b;
    for (int r = 0; r < in->n_rows; r++) FACET_TRY(check_row(c, in, r, err));
    for (int s = 0; s < in->n_seqs; s++)
        if (in->seqs[s].begin > 0)
            return error_set(err, FACET_ERR_UNSUPPORTED, "sequence %d: rows that see nothing before position %d", s,
                             in->seqs[s].begin);
    for (int s = 0; s < in->n_seqs; s++)
        for (int g = 0; g < b->n_groups; g++) FACET_TRY(check_table(c, in, s, g, err));
    return FACET_OK;
}

static facet_status check_page(const cuda_backend *b, int group, int32_t page, facet_error *err)
{
    if (group >= 0 && group < b->n_groups && page >= 0 && page < b->groups[group].n_pages) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "a copy or move names page %d of group %d, which does not exist", page, group);
}

facet_status cuda_copies_check(const cuda_backend *b, const batch *in, facet_error *err)
{
    for (int i = 0; i < in->n_copies; i++) {
        FACET_TRY(check_page(b, in->copies[i].group, in->copies[i].src, err));
        FACET_TRY(check_page(b, in->copies[i].group, in->copies[i].dst, err));
    }
    for (int i = 0; i < in->n_moves; i++) {
        const struct batch_move *m = &in->moves[i];
        int64_t most = (int64_t)b->tables.cap * KV_PAGE_LEN;
        if (m->seq < 0 || m->seq >= in->n_seqs || m->src < 0 || m->dst < 0 || m->src >= most || m->dst >= most)
            return error_set(err, FACET_ERR_ARG, "move of slot %d to %d in sequence %d of %d", m->src, m->dst, m->seq,
                             in->n_seqs);
        for (int g = 0; g < b->n_groups; g++) {
            const int32_t *table = in->seqs[m->seq].table[g];
            FACET_TRY(check_page(b, g, table[m->src / KV_PAGE_LEN], err));
            FACET_TRY(check_page(b, g, table[m->dst / KV_PAGE_LEN], err));
        }
    }
    return FACET_OK;
}

facet_status cuda_batch_check(const compiled *c, const batch *in, facet_error *err)
{
    FACET_TRY(check_counts(c, in, err));
    FACET_TRY(check_tokens(c, in, err));
    FACET_TRY(cuda_copies_check(c->b, in, err));
    return c->uses_kv ? check_pages(c, in, err) : FACET_OK;
}

/* ---- staging ---- */

/* n values of src (zeros when it is NULL), then `pad` up to n_padded. */
static void put_array(int32_t *dst, const int32_t *src, int n, int n_padded, int32_t pad)
{
    for (int i = 0; i < n; i++) dst[i] = src ? src[i] : 0;
    for (int i = n; i < n_padded; i++) dst[i] = pad;
}

static void put_rows(const compiled *c, const batch *in, int n_rows, int n_out)
{
    const dev_batch *h = &c->in_host;
    put_array(h->token, in->token, in->n_rows, n_rows, 0);
    put_array(h->pos, in->pos, in->n_rows, n_rows, 0);
    put_array(h->slot, in->slot, in->n_rows, n_rows, 0);
    put_array(h->seq, c->uses_kv ? in->seq : NULL, in->n_rows, n_rows, -1);
    put_array(h->out_row, in->out_row, in->n_out, n_out, -1);
    for (int r = 0; r < n_rows; r++) {
        bool is_tree = c->uses_kv && in->path && r < in->n_rows;
        h->base[r] = is_tree ? in->seqs[in->seq[r]].base : INT32_MAX;
        const bool has_seq = c->uses_kv && r < in->n_rows;
        h->committed[r] = has_seq ? in->seqs[in->seq[r]].base : 0;
        h->end[r] = has_seq ? in->seqs[in->seq[r]].end : 0;
    }
    if (c->uses_kv && in->path) memcpy(h->path, in->path, (size_t)in->n_rows * BATCH_MAX_TREE);
}

static facet_status send(cuda_backend *b, void *dst, const void *src, size_t bytes, facet_error *err)
{
    return cuda_check(b, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, b->stream), "sending the batch", err);
}

static facet_status send_table(const compiled *c, const batch *in, int seq, int group, facet_error *err)
{
    cuda_backend *b = c->b;
    slot_range s = slots_of(c, in, seq, c->b->groups[group].window);
    if (s.first > s.last) return FACET_OK;
    size_t first = (size_t)(s.first / KV_PAGE_LEN), n = (size_t)(s.last / KV_PAGE_LEN) - first + 1;
    size_t at = ((size_t)seq * (size_t)b->n_groups + (size_t)group) * (size_t)b->tables.cap + first;
    memcpy(b->host_tables + at, in->seqs[seq].table[group] + first, n * sizeof(int32_t));
    return send(b, b->tables.data + at, b->host_tables + at, n * sizeof(int32_t), err);
}

/* Rows of a table that stays on the host. */
static facet_status send_host_rows(compiled *c, const host_rows *h, const batch *in, facet_error *err)
{
    const dev_weight *w = &c->b->weights[c->p->ops[h->op].w0];
    const type_info *type = type_get(w->type);
    for (int r = 0; r < in->n_rows; r++)
        type->decode((const uint8_t *)w->host->data + (size_t)in->token[r] * w->row_bytes,
                     h->host + (size_t)r * w->n_in, w->n_in);
    return send(c->b, h->device, h->host, (size_t)in->n_rows * w->n_in * sizeof(float), err);
}

facet_status cuda_batch_stage(compiled *c, const batch *in, int n_rows, int n_out, facet_error *err)
{
    cuda_backend *b = c->b;
    put_rows(c, in, n_rows, n_out);
    const size_t n_items = c->n_attn_classes ? (size_t)cuda_attn_make_lists(c, in, n_rows, n_out) : 0;
    FACET_TRY(send(b, c->device_batch, c->host_batch, c->items_at + n_items * sizeof(attn_item), err));
    if (c->uses_kv && in->path)
        FACET_TRY(send(b, c->in.path, c->in_host.path, (size_t)in->n_rows * BATCH_MAX_TREE, err));
    for (int s = 0; c->uses_kv && s < in->n_seqs; s++)
        for (int g = 0; g < b->n_groups; g++) FACET_TRY(send_table(c, in, s, g, err));
    for (int i = 0; i < c->n_host_rows; i++) FACET_TRY(send_host_rows(c, &c->host_rows_of[i], in, err));
    return FACET_OK;
}
