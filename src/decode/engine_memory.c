#include "decode/engine_memory.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "decode/cache_types.h"
#include "decode/engine_sparse.h"

facet_status engine_config_read(const facet_engine_params *p, engine_config *out, facet_error *err)
{
    engine_config c = {.n_sessions = p->n_sessions,
                       .n_threads = p->n_threads,
                       .draft_ctx = p->draft_ctx ? p->draft_ctx : DRAFT_CTX_DEFAULT,
                       .cache_bytes = p->cache_bytes,
                       .cache_layers = p->cache_layers,
                       .rebuild_keys = p->rebuild_keys};
    /* ref multiplies from the file's layout */
    c.copies_weights = !p->use_mmap && !(p->device && strcmp(p->device, "ref") == 0);
    FACET_TRY(cache_types_read(p, &c.k, &c.v, err));
    FACET_TRY(engine_sparse_read(p, &c.sparse, err));
    *out = c;
    return FACET_OK;
}

facet_status engine_layout_cache(facet_engine *e, const engine_config *c, facet_error *err)
{
    FACET_TRY(gemma4_kv_desc(&e->model->h, c->k, c->v, &e->kv, err));
    FACET_TRY(cache_layers_apply(c->cache_layers, &e->kv, err));
    if (c->rebuild_keys && !gemma4_n_rebuilds(&e->model->h, &e->model->w))
        return error_set(err, FACET_ERR_UNSUPPORTED,
                         "rebuild_keys: the global layers of this model have values of their own beside the keys: both "
                         "are kept");
    if (c->rebuild_keys) gemma4_rebuild_keys(&e->model->h, &e->model->w, &e->kv);
    engine_sparse_layout(&c->sparse, &e->kv);
    if (e->mtp) FACET_TRY(drafter_extend_kv(e->mtp, &e->model->h, c->k, c->v, c->draft_ctx, &e->kv, err));
    if (e->dflash) FACET_TRY(drafter_extend_kv(e->dflash, &e->model->h, c->k, c->v, c->draft_ctx, &e->kv, err));
    return kv_desc_check(&e->kv, err);
}

/* Between steps a session holds at most window / 64 + 2 local pages, and as many again in its mark (session.h); a step
 * of up to 64 rows takes two more. Larger steps may drop the mark. Page ids are int32_t: what does not fit in them
 * would not fit in any memory either. */
static int32_t session_pages(const kv_desc *d, int group, int32_t n_ctx)
{
    const int window = d->groups[group].window, marked = window + 4 * KV_PAGE_LEN;
    return kv_pages_needed(window, n_ctx, marked > ENGINE_MAX_ROWS ? marked : ENGINE_MAX_ROWS);
}

/* cache_bytes in terms of texts of TYPICAL tokens: so the groups' shares are what kept texts of that length take. */
static double kept_texts(const kv_desc *d, int32_t n_typical, uint64_t cache_bytes)
{
    double bytes = 0;
    for (int g = 0; g < d->n_groups; g++)
        bytes += (double)kv_pages_needed(d->groups[g].window, n_typical, 1) * (double)kv_group_page_bytes(d, g);
    return bytes > 0 ? (double)cache_bytes / bytes : 0;
}

void engine_count_pages(const engine_config *c, int32_t n_ctx, kv_desc *d)
{
    enum { TYPICAL = 8192 };
    const int32_t n_typical = n_ctx < TYPICAL ? n_ctx : TYPICAL;
    const double n_kept = kept_texts(d, n_typical, c->cache_bytes);
    for (int g = 0; g < d->n_groups; g++) {
        const double extra = n_kept * (double)kv_pages_needed(d->groups[g].window, n_typical, 1),
                     n = (double)c->n_sessions * (double)session_pages(d, g, n_ctx) + floor(extra);
        d->groups[g].n_pages = n > INT32_MAX ? INT32_MAX : (int32_t)n;
    }
}

static uint64_t copied_bytes(const facet_engine *e, bool is_cuda)
{
    uint64_t sum = 0;
    for (int i = 0; i < e->n_weights; i++)
        sum += is_cuda ? backend_cuda_weight_bytes(&e->weights[i]) : backend_cpu_weight_bytes(&e->weights[i]);
    return sum;
}

static facet_status plan_bytes(const facet_engine *e, const engine_config *c, const kv_desc *kv, const engine_plan *p,
                               uint64_t *out, facet_error *err)
{
    if (c->is_cuda)
        return backend_cuda_plan_bytes(e->weights, e->n_weights, p->plan, kv, p->max_rows, p->max_out, out, err);
    return backend_cpu_plan_bytes(p->plan, e->weights, kv, c->n_threads, p->max_rows, p->max_out, out, err);
}

static facet_status compute_bytes(const facet_engine *e, const engine_config *c, const kv_desc *kv, uint64_t *out,
                                  facet_error *err)
{
    const uint64_t driver = (uint64_t)128 << 20; /* for the graphs of all widths, and to spare */
    const engine_plan list[] = {{.plan = e->plan, .max_rows = ENGINE_MAX_ROWS, .max_out = ENGINE_MAX_OUT},
                                e->mtp_step,
                                e->dflash_inject,
                                e->dflash_block};
    *out = c->is_cuda ? driver : 0;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        uint64_t bytes;
        if (!list[i].plan) continue;
        FACET_TRY(plan_bytes(e, c, kv, &list[i], &bytes, err));
        *out += bytes;
    }
    return FACET_OK;
}

static facet_status needs_of(const facet_engine *e, const engine_config *c, int32_t n_ctx, engine_needs *out,
                             facet_error *err)
{
    kv_desc d = e->kv; /* its layers are borrowed */
    engine_count_pages(c, n_ctx, &d);
    *out = (engine_needs){.weights = c->is_cuda || c->copies_weights ? copied_bytes(e, c->is_cuda) : 0,
                          .kv = kv_total_bytes(&d),
                          .kv_per_token =
                              (kv_group_page_bytes(&d, KV_GROUP_GLOBAL) + kv_group_summary_bytes(&d, KV_GROUP_GLOBAL)) /
                              KV_PAGE_LEN};
    return compute_bytes(e, c, &d, &out->compute, err);
}

facet_status engine_estimate(facet_model *m, const facet_engine_params *p, int32_t n_ctx, engine_needs *out,
                             facet_error *err)
{
    engine_config c;
    facet_engine *e = mem_calloc(1, sizeof *e);
    if (!e) return error_memory(err, "an engine", sizeof *e);
    e->model = m;
    facet_status status = engine_prepare(e, p, &c, err);
    if (status == FACET_OK) status = needs_of(e, &c, n_ctx, out, err);
    facet_engine_close(e);
    return status;
}

/* FACET_ERR_MEMORY when the weights, the activations and a cache for n_ctx tokens are more than what is available (0 =
 * unknown). */
static facet_status check_fits(const facet_engine *e, const engine_config *c, int32_t n_ctx, uint64_t available,
                               facet_error *err)
{
    engine_needs needs;
    FACET_TRY(needs_of(e, c, n_ctx, &needs, err));
    const uint64_t fixed = needs.weights + needs.compute;
    const double loaded = (double)needs.weights / 0x1p30, compute = (double)needs.compute / 0x1p30,
                 kv = (double)needs.kv / 0x1p30, free = (double)available / 0x1p30;
    if (!available || (fixed <= available && needs.kv <= available - fixed)) return FACET_OK;
    const char *where = c->is_cuda ? " on the device" : "";
    if (fixed > available)
        return error_set(err, FACET_ERR_MEMORY,
                         "the weights need %.2f GiB, activations %.2f GiB, and %.2f GiB are free%s: use a smaller %s",
                         loaded, compute, free, where,
                         c->is_cuda ? "file, or --device cpu" : "file, or run from the mapped file (--mmap)");
    return error_set(err, FACET_ERR_MEMORY,
                     "context of %d tokens needs %.2f GiB for the KV cache beside %.2f GiB of weights and %.2f GiB of "
                     "activations, and %.2f GiB are free%s: use a smaller context or cache type",
                     n_ctx, kv, loaded, compute, free, where);
}

facet_status engine_choose_context(const facet_engine *e, const engine_config *c, uint64_t available, int32_t wanted,
                                   int32_t *n_ctx, facet_error *err)
{
    enum { MIN_CTX = 1024 };
    const int32_t limit = (int32_t)e->model->h.n_ctx_train;
    if (wanted < 0 || wanted > limit)
        return error_set(err, FACET_ERR_LIMIT, "context of %d tokens: the model takes 1 to %d", wanted, limit);
    int32_t n = wanted ? wanted : limit;
    for (; !wanted && available && n > MIN_CTX; n /= 2) {
        engine_needs needs;
        FACET_TRY(needs_of(e, c, n, &needs, err));
        const uint64_t fixed = needs.weights + needs.compute;
        if (fixed < available && needs.kv <= (available - fixed) / 2) break;
    }
    FACET_TRY(check_fits(e, c, n, available, err));
    *n_ctx = n;
    return FACET_OK;
}
