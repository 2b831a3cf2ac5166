#include "decode/engine.h"

#include <string.h>

#include "base/mem.h"

facet_engine_params facet_engine_params_default(void)
{
    return (facet_engine_params){.struct_size = sizeof(facet_engine_params),
                                 .device = "auto",
                                 .n_sessions = 1,
                                 .cache_type_k = "f16",
                                 .cache_type_v = "f16"};
}

/* Page ids are int32_t: what does not fit in them would not fit in any memory either. */
static void count_pages(kv_desc *d, int32_t n_ctx, int n_sessions)
{
    for (int g = 0; g < d->n_groups; g++) {
        const int64_t n = (int64_t)n_sessions * kv_pages_needed(d->groups[g].window, n_ctx, ENGINE_MAX_ROWS);
        d->groups[g].n_pages = n > INT32_MAX ? INT32_MAX : (int32_t)n;
    }
}

facet_status engine_estimate(const facet_model *m, kv_type k, kv_type v, int32_t n_ctx, int n_sessions, bool use_mmap,
                             engine_needs *out, facet_error *err)
{
    kv_desc d;
    FACET_TRY(gemma4_kv_desc(&m->h, k, v, &d, err));
    count_pages(&d, n_ctx, n_sessions);
    *out = (engine_needs){.kv = kv_total_bytes(&d)};
    mem_free(d.layers);
    for (int i = 0; i < m->w.n && !use_mmap; i++)
        if (m->w.list[i].is_matrix) out->weights += m->w.list[i].bytes;
    return FACET_OK;
}

/* The context that was asked for, when it fits; the model's limit, halved until the cache takes at most half of what
 * the weights leave, when none was. */
static facet_status choose_context(const facet_model *m, const facet_engine_params *p, kv_type k, kv_type v,
                                   int32_t *n_ctx, facet_error *err)
{
    const int32_t limit = (int32_t)m->h.n_ctx_train;
    if (p->n_ctx < 0 || p->n_ctx > limit)
        return error_set(err, FACET_ERR_LIMIT, "context of %d tokens: the model takes 1 to %d", p->n_ctx, limit);
    const uint64_t available = mem_available();
    engine_needs needs;
    if (p->n_ctx) {
        FACET_TRY(engine_estimate(m, k, v, p->n_ctx, p->n_sessions, p->use_mmap, &needs, err));
        if (available && needs.weights + needs.kv > available)
            return error_set(err, FACET_ERR_MEMORY,
                             "context of %d tokens needs %.2f GiB for the KV cache beside %.2f GiB of weights, and "
                             "%.2f GiB are free: use a smaller context or cache type",
                             p->n_ctx, (double)needs.kv / 0x1p30, (double)needs.weights / 0x1p30,
                             (double)available / 0x1p30);
        *n_ctx = p->n_ctx;
        return FACET_OK;
    }
    for (*n_ctx = limit; *n_ctx > 1024; *n_ctx /= 2) {
        FACET_TRY(engine_estimate(m, k, v, *n_ctx, p->n_sessions, p->use_mmap, &needs, err));
        if (!available || (needs.weights < available && needs.kv <= (available - needs.weights) / 2)) break;
    }
    return FACET_OK;
}

static facet_status parse_cache_type(const char *name, const char *option, kv_type *out, facet_error *err)
{
    if (name && kv_type_by_name(name, out)) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "%s '%s': supported are %s", option, name ? name : "", kv_type_list());
}

static facet_status check_params(const facet_engine_params *p, facet_error *err)
{
    if (p->struct_size != sizeof *p)
        return error_set(err, FACET_ERR_ARG, "facet_engine_params.struct_size is %zu, this library wants %zu",
                         p->struct_size, sizeof *p);
    if (p->n_sessions < 1 || p->n_sessions > 4096)
        return error_set(err, FACET_ERR_ARG, "n_sessions is %d, wanted 1 to 4096", p->n_sessions);
    if (p->n_threads < 0 || p->n_threads > 1024)
        return error_set(err, FACET_ERR_ARG, "threads: %d, wanted 0 to 1024", p->n_threads);
    if (p->n_captures < 0 || p->n_captures > MAX_CAPTURES)
        return error_set(err, FACET_ERR_ARG, "n_captures is %d, wanted 0 to %d", p->n_captures, MAX_CAPTURES);
    return FACET_OK;
}

static facet_status make_plan(facet_engine *e, const facet_engine_params *p, facet_error *err)
{
    gemma4_options o = {.wants_hidden = p->wants_hidden, .n_captures = p->n_captures};
    for (int i = 0; i < p->n_captures; i++) o.capture_layer[i] = p->capture_layers[i];
    int n_suppress;
    const int32_t *suppress = tokenizer_suppressed(e->model->tok, &n_suppress);
    return gemma4_plan(&e->model->h, &e->model->w, &o, suppress, n_suppress, &e->plan, err);
}

static facet_status open_into(facet_engine *e, const facet_engine_params *p, facet_error *err)
{
    kv_type k, v;
    FACET_TRY(check_params(p, err));
    FACET_TRY(parse_cache_type(p->cache_type_k, "cache type of K", &k, err));
    FACET_TRY(parse_cache_type(p->cache_type_v, "cache type of V", &v, err));
    const backend_config cfg = {
        .n_threads = p->n_threads, .use_mmap = p->use_mmap, .progress = p->progress, .progress_ud = p->progress_ud};
    FACET_TRY(backend_open(p->device ? p->device : "auto", &cfg, &e->be, err));
    FACET_TRY(choose_context(e->model, p, k, v, &e->n_ctx, err));
    FACET_TRY(gemma4_kv_desc(&e->model->h, k, v, &e->kv, err));
    count_pages(&e->kv, e->n_ctx, p->n_sessions);
    FACET_TRY(make_plan(e, p, err));
    FACET_TRY(kv_pool_open(&e->kv, &e->pool, err));
    FACET_TRY(e->be->ops->load(e->be, e->model->w.list, e->model->w.n, err));
    FACET_TRY(e->be->ops->kv_alloc(e->be, &e->kv, err));
    return e->be->ops->compile(e->be, e->plan, ENGINE_MAX_ROWS, ENGINE_MAX_OUT, &e->compiled, err);
}

facet_status facet_engine_open(facet_model *m, const facet_engine_params *p, facet_engine **out, facet_error *err)
{
    facet_engine *e = mem_calloc(1, sizeof *e);
    if (!e) return error_memory(err, "an engine", sizeof *e);
    e->model = m;
    facet_status status = open_into(e, p, err);
    if (status != FACET_OK) {
        facet_engine_close(e);
        return status;
    }
    *out = e;
    return FACET_OK;
}

void facet_engine_close(facet_engine *e)
{
    if (!e) return;
    if (e->be && e->compiled) e->be->ops->release(e->be, e->compiled);
    if (e->be) e->be->ops->close(e->be);
    kv_pool_close(e->pool);
    plan_free(e->plan);
    mem_free(e->kv.layers);
    mem_free(e);
}

int32_t facet_engine_n_ctx(const facet_engine *e)
{
    return e->n_ctx;
}

void facet_engine_memory(const facet_engine *e, facet_memory *out)
{
    backend_info info;
    e->be->ops->info(e->be, &info);
    const bool is_device = strcmp(info.name, "cuda") == 0;
    *out = (facet_memory){
        .weights = info.weight_bytes, .kv = info.kv_bytes, .compute = info.compute_bytes, .peak_rss = mem_peak_rss()};
    if (is_device) out->device = info.weight_bytes + info.kv_bytes + info.compute_bytes;
}

/* A batch and what it points to. */
typedef struct step {
    batch in;
    batch_seq view;
    int32_t out_row[ENGINE_MAX_OUT];
} step;

static facet_status prepare(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                            step *out, facet_error *err)
{
    int n_copies = 0;
    e->logits_owner = NULL;
    for (int i = 0; i < n; i++) { /* before pages are reserved: their pending copies must not be lost */
        if (tokens[i] < 0 || tokens[i] >= (int32_t)e->model->h.n_vocab)
            return error_set(err, FACET_ERR_ARG, "token %d at position %d: the vocabulary has %u entries", tokens[i],
                             start + i, e->model->h.n_vocab);
        e->pos[i] = start + i;
        e->seq[i] = 0;
    }
    FACET_TRY(kv_seq_reserve(e->pool, s, start, start + n, e->copies, &n_copies, err));
    for (int i = 0; i < n_out; i++) out->out_row[i] = n - n_out + i;
    out->view = (batch_seq){.base = start};
    for (int g = 0; g < e->kv.n_groups; g++) out->view.table[g] = s->table[g];
    out->in = (batch){.n_rows = n,
                      .token = tokens,
                      .pos = e->pos,
                      .slot = e->pos,
                      .seq = e->seq,
                      .n_seqs = 1,
                      .seqs = &out->view,
                      .n_out = n_out,
                      .out_row = out->out_row,
                      .n_copies = n_copies,
                      .copies = e->copies};
    return FACET_OK;
}

facet_status engine_eval(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                         facet_error *err)
{
    step st;
    FACET_TRY(prepare(e, s, tokens, start, n, n_out, &st, err));
    return e->be->ops->run(e->be, e->compiled, &st.in, err);
}

facet_status engine_eval_timed(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                               double *op_ms, facet_error *err)
{
    step st;
    FACET_TRY(prepare(e, s, tokens, start, n, n_out, &st, err));
    return e->be->ops->run_timed(e->be, e->compiled, &st.in, op_ms, err);
}
