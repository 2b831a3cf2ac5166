#include "decode/engine.h"

#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "decode/engine_draft.h"
#include "decode/engine_memory.h"
#include "decode/engine_sparse.h"
#include "decode/park.h"
#include "decode/prefix.h"
#include "decode/snapshot.h"

facet_engine_params facet_engine_params_default(void)
{
    return (facet_engine_params){.struct_size = sizeof(facet_engine_params),
                                 .device = "auto",
                                 .n_sessions = 1,
                                 .tree_temp = 1,
                                 .block_mask = "auto",
                                 .sparse_min = SPARSE_MIN_KEYS,
                                 .sparse_hard = 1};
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
    FACET_TRY(engine_draft_check(p, err));
    if (p->n_captures < 0 || p->n_captures > MAX_CAPTURES)
        return error_set(err, FACET_ERR_ARG, "n_captures is %d, wanted 0 to %d", p->n_captures, MAX_CAPTURES);
    for (int i = 1; i < p->n_captures; i++)
        if (p->capture_layers[i] <= p->capture_layers[i - 1])
            return error_set(err, FACET_ERR_ARG, "capture_layers: layer %d behind layer %d, wanted ascending layers",
                             p->capture_layers[i], p->capture_layers[i - 1]);
    return FACET_OK;
}

/* The layers whose output somebody wants, ascending and each once. */
static int merge_captures(const facet_engine *e, const facet_engine_params *p, int out[2 * MAX_CAPTURES])
{
    const int n_taps = e->dflash ? e->dflash->dflash.n_taps : 0, *tap = e->dflash ? e->dflash->dflash.tap : NULL;
    int n = 0;
    for (int i = 0, t = 0; i < p->n_captures || t < n_taps;) {
        const bool is_tap = i == p->n_captures || (t < n_taps && tap[t] < p->capture_layers[i]);
        const int layer = is_tap ? tap[t++] : p->capture_layers[i++];
        if (!n || out[n - 1] != layer) out[n++] = layer;
    }
    return n;
}

static facet_status make_plan(facet_engine *e, const facet_engine_params *p, const engine_config *c, facet_error *err)
{
    int capture[2 * MAX_CAPTURES] = {0}, n_suppress;
    const int n = merge_captures(e, p, capture);
    if (n > MAX_CAPTURES)
        return error_set(err, FACET_ERR_LIMIT, "%d layers to capture, the drafter's included: at most %d", n,
                         MAX_CAPTURES);
    gemma4_options o = {.wants_hidden = p->wants_hidden || e->mtp, .n_captures = n, .sparse = c->sparse};
    memcpy(o.capture_layer, capture, (size_t)n * sizeof *capture);
    const int32_t *suppress = tokenizer_suppressed(e->model->tok, &n_suppress);
    FACET_TRY(gemma4_plan(&e->model->h, &e->model->w, &o, suppress, n_suppress, &e->plan, err));
    for (int t = 0, i = 0; e->dflash && t < e->dflash->dflash.n_taps; t++) {
        while (capture[i] != e->dflash->dflash.tap[t]) i++;
        e->tap_value[t] = e->plan->v_capture[i];
    }
    for (int i = 0; e->n_captures < p->n_captures; i++)
        if (capture[i] == p->capture_layers[e->n_captures]) e->capture_value[e->n_captures++] = e->plan->v_capture[i];
    return FACET_OK;
}

static facet_status take_drafters(facet_engine *e, const facet_engine_params *p, facet_error *err)
{
    for (int i = 0; i < p->n_drafters; i++) {
        drafter **place = p->drafters[i]->kind == DRAFTER_MTP ? &e->mtp : &e->dflash;
        if (*place)
            return error_set(err, FACET_ERR_ARG, "%s and %s are both %s drafters: one of each kind is used",
                             (*place)->path, p->drafters[i]->path, drafter_kind_name((*place)->kind));
        *place = p->drafters[i];
        *(p->drafters[i]->kind == DRAFTER_MTP ? &e->mtp_part : &e->dflash_part) = i + 1;
    }
    return FACET_OK;
}

facet_status engine_prepare(facet_engine *e, const facet_engine_params *p, engine_config *c, facet_error *err)
{
    FACET_TRY(check_params(p, err));
    FACET_TRY(engine_config_read(p, c, err));
    FACET_TRY(take_drafters(e, p, err));
    FACET_TRY(engine_layout_cache(e, c, err));
    FACET_TRY(drafter_join_weights(e->model, p->drafters, p->n_drafters, &e->weights, &e->n_weights, err));
    FACET_TRY(make_plan(e, p, c, err));
    return engine_draft_open(e, p, err);
}

/* What the kernels of CUDA devices lack, told before anything is loaded. */
static facet_status check_device(const engine_config *c, bool is_cuda, facet_error *err)
{
    FACET_TRY(engine_sparse_check_device(&c->sparse, is_cuda, err));
    if (!is_cuda || !c->rebuild_keys) return FACET_OK;
    return error_set(err, FACET_ERR_UNSUPPORTED,
                     "rebuild_keys: the CUDA backend reads keys and values that are both stored: leave it out, or use "
                     "--device cpu");
}

/* One device, and the context that fits it. */
static facet_status open_device(facet_engine *e, const facet_engine_params *p, const char *device, engine_config *c,
                                facet_error *err)
{
    const backend_config cfg = {
        .n_threads = p->n_threads, .use_mmap = p->use_mmap, .progress = p->progress, .progress_ud = p->progress_ud};
    backend_info info;
    FACET_TRY(check_device(c, strncmp(device, "cuda", 4) == 0, err));
    FACET_TRY(backend_open(device, &cfg, &e->be, err));
    e->be->ops->info(e->be, &info);
    c->is_cuda = strcmp(info.name, "cuda") == 0;
    FACET_TRY(check_device(c, c->is_cuda, err));
    return engine_choose_context(e, c, info.memory_free, p->n_ctx, &e->n_ctx, err);
}

/* Where "auto" found a CUDA device on which the model does not fit, the CPU takes it. */
static facet_status open_backend(facet_engine *e, const facet_engine_params *p, engine_config *c, facet_error *err)
{
    const char *device = p->device ? p->device : "auto";
    facet_error why;
    const facet_status status = open_device(e, p, device, c, &why);
    if (status == FACET_OK) return FACET_OK;
    if (status != FACET_ERR_MEMORY || !c->is_cuda || strcmp(device, "auto") != 0)
        return error_set(err, status, "%s", why.message);
    log_line(FACET_LOG_WARN, "device auto: using the CPU (%s)", why.message);
    e->be->ops->close(e->be);
    e->be = NULL;
    return open_device(e, p, "cpu", c, err);
}

static facet_status open_into(facet_engine *e, const facet_engine_params *p, facet_error *err)
{
    engine_config c;
    FACET_TRY(engine_prepare(e, p, &c, err));
    FACET_TRY(open_backend(e, p, &c, err));
    e->can_leave_out = !c.is_cuda;
    engine_count_pages(&c, e->n_ctx, &e->kv);
    FACET_TRY(kv_pool_open(&e->kv, &e->pool, err));
    FACET_TRY(e->be->ops->load(e->be, e->weights, e->n_weights, err));
    FACET_TRY(e->be->ops->kv_alloc(e->be, &e->kv, err));
    FACET_TRY(engine_compile(e, err));
    e->parking.is_auto = p->auto_unpark;
    return p->reuse_prompts ? prefix_open(e, p->cache_bytes, err) : FACET_OK;
}

facet_status engine_compile(facet_engine *e, facet_error *err)
{
    FACET_TRY(e->be->ops->compile(e->be, e->plan, ENGINE_MAX_ROWS, ENGINE_MAX_OUT, &e->compiled, err));
    if (!(e->parking.parked & PARK_MTP)) FACET_TRY(engine_draft_compile(e, PARK_MTP, err));
    if (!(e->parking.parked & PARK_DFLASH)) FACET_TRY(engine_draft_compile(e, PARK_DFLASH, err));
    return FACET_OK;
}

void engine_release(facet_engine *e)
{
    engine_draft_release(e, PARK_DRAFTERS);
    if (e->compiled) e->be->ops->release(e->be, e->compiled);
    e->compiled = NULL;
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
    snapshot_close(e);
    prefix_close(e);
    if (e->be) engine_release(e);
    engine_draft_close(e);
    engine_parking_close(e);
    if (e->be) e->be->ops->close(e->be);
    kv_pool_close(e->pool);
    plan_free(e->plan);
    mem_free(e->spare_features);
    mem_free(e->kv.layers);
    mem_free(e->weights);
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

batch_seq engine_view(const facet_engine *e, const kv_seq *s, int32_t base, int32_t end)
{
    batch_seq view = {.base = base, .end = end};
    for (int g = 0; g < e->kv.n_groups; g++) view.table[g] = s->table[g];
    return view;
}

void engine_step_begin(facet_engine *e)
{
    e->step.n_parts = e->step.n_rows = e->step.n_out = e->step.n_copies = 0;
    e->step.has_tree = false;
}

/* A failure for lack of pages, with what else holds some. */
static facet_status tell_about_snapshots(const facet_engine *e, facet_error *err)
{
    facet_error why;
    const int n = snapshot_list(e, NULL);
    if (!err || n == 0) return FACET_ERR_LIMIT;
    why = *err;
    return error_set(err, FACET_ERR_LIMIT, "%.300s; %d snapshots hold pages: free some, or set cache_bytes",
                     why.message, n);
}

facet_status engine_reserve(facet_engine *e, kv_seq *s, int32_t begin, int32_t end, int *n_copies, facet_error *err)
{
    facet_status status;
    do status = kv_seq_reserve(e->pool, s, begin, end, e->copies, n_copies, err);
    while (status == FACET_ERR_LIMIT && prefix_evict(e));
    return status == FACET_ERR_LIMIT ? tell_about_snapshots(e, err) : status;
}

static facet_status check_tokens(const facet_engine *e, const engine_part *p, facet_error *err)
{
    const int32_t *tokens = p->tree ? p->tree->token : p->tokens;
    for (int i = 0; i < p->n; i++)
        if (tokens[i] < 0 || tokens[i] >= (int32_t)e->model->h.n_vocab)
            return error_set(err, FACET_ERR_ARG, "token %d at position %d: the vocabulary has %u entries", tokens[i],
                             p->start + i, e->model->h.n_vocab);
    return FACET_OK;
}

static void put_rows(facet_engine *e, const engine_part *p)
{
    const int at = p->first_row;
    for (int i = 0; i < p->n; i++) e->seq[at + i] = e->step.n_parts;
    if (p->tree) {
        draft_tree_rows(p->tree, p->start, p->n, DRAFT_PAD_ROOT, e->token + at, e->pos + at, e->slot + at,
                        e->path + at);
        return;
    }
    memcpy(e->token + at, p->tokens, (size_t)p->n * sizeof *p->tokens);
    for (int i = 0; i < p->n; i++) e->pos[at + i] = e->slot[at + i] = p->start + i;
}

facet_status engine_step_add(facet_engine *e, engine_part *p, facet_error *err)
{
    engine_step *st = &e->step;
    if (st->n_parts == ENGINE_MAX_PARTS || p->n > ENGINE_MAX_ROWS - st->n_rows || p->n_out > ENGINE_MAX_OUT - st->n_out)
        return error_set(err, FACET_ERR_ARG, "a step of more than %d sequences, %d rows or %d wanted rows",
                         ENGINE_MAX_PARTS, ENGINE_MAX_ROWS, ENGINE_MAX_OUT);
    FACET_TRY(check_tokens(e, p, err)); /* before pages are reserved: their pending copies must not be lost */
    p->first_row = st->n_rows;
    p->first_out = st->n_out;
    p->first_copy = st->n_copies;
    FACET_TRY(engine_reserve(e, p->seq, p->start, p->start + p->n, &st->n_copies, err));
    p->n_copies = st->n_copies - p->first_copy;
    put_rows(e, p);
    for (int i = 0; i < p->n_out; i++) st->out_row[st->n_out + i] = p->first_row + p->n - p->n_out + i;
    /* beside trees a chain has no paths of its own: its keys lie in the slots of their positions, as those before base
     */
    st->view[st->n_parts] = engine_view(e, p->seq, p->tree ? p->start : p->start + p->n, p->start + p->n);
    st->view[st->n_parts].is_prompt = p->prompt_end > 0;
    st->view[st->n_parts].prompt_end = p->prompt_end;
    st->has_tree |= p->tree != NULL;
    st->part[st->n_parts++] = p;
    st->n_rows += p->n;
    st->n_out += p->n_out;
    return FACET_OK;
}

facet_status engine_step_run(facet_engine *e, double *op_ms, facet_error *err)
{
    engine_step *st = &e->step;
    const batch in = {.n_rows = st->n_rows,
                      .token = e->token,
                      .pos = e->pos,
                      .slot = e->slot,
                      .seq = e->seq,
                      .path = st->has_tree ? (const uint8_t(*)[BATCH_MAX_TREE])e->path : NULL,
                      .n_seqs = st->n_parts,
                      .seqs = st->view,
                      .n_out = st->n_out,
                      .out_row = st->out_row,
                      .n_copies = st->n_copies,
                      .copies = e->copies,
                      .sparse = &e->sparse};
    facet_status status = engine_need(e, PARK_TARGET, err);
    e->n_runs++;
    if (status == FACET_OK)
        status = op_ms ? e->be->ops->run_timed(e->be, e->compiled, &in, op_ms, err)
                       : e->be->ops->run(e->be, e->compiled, &in, err);
    for (int i = st->n_parts - 1; i >= 0 && status != FACET_OK; i--)
        kv_seq_undo_copies(e->pool, st->part[i]->seq, e->copies + st->part[i]->first_copy, st->part[i]->n_copies);
    st->n_copies = 0;
    return status;
}

facet_status engine_eval_timed(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                               double *op_ms, facet_error *err)
{
    engine_part part = {.seq = s, .start = start, .n = n, .n_out = n_out, .tokens = tokens};
    if (e->plan->sparse.decode.kind == SPARSE_OFF) part.prompt_end = INT32_MAX;
    engine_step_begin(e);
    FACET_TRY(engine_step_add(e, &part, err));
    return engine_step_run(e, op_ms, err);
}

facet_status engine_eval(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                         facet_error *err)
{
    return engine_eval_timed(e, s, tokens, start, n, n_out, NULL, err);
}
