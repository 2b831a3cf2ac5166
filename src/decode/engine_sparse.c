#include "decode/engine_sparse.h"

static facet_status check_share(const char *name, double v, double max, facet_error *err)
{
    if (v >= 0 && v <= max) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "%s is %g, wanted 0 to %g", name, v, max);
}

/* The spec's window and cap of each rule: alpha keeps the last 4 blocks, mass the last 8; more than half is all. */
static sparse_rule decode_rule(const facet_engine_params *p)
{
    const float hard = p->sparse_hard;
    if (p->sparse_alpha > 0 && p->sparse_alpha < 1)
        return (sparse_rule){
            .kind = SPARSE_ALPHA, .threshold = p->sparse_alpha, .sink = 2, .window = 4, .cap = 0.5f, .hard = hard};
    if (p->sparse_mass > 0 && p->sparse_mass < 1)
        return (sparse_rule){
            .kind = SPARSE_MASS, .threshold = 1 - p->sparse_mass, .sink = 2, .window = 8, .cap = 0.5f, .hard = hard};
    return (sparse_rule){.kind = SPARSE_OFF};
}

/* The last 128 tokens of a prompt, which ask about the rest, read all. */
static sparse_rule prompt_rule(const facet_engine_params *p)
{
    const sparse_rule common = {.sink = 2, .window = 4, .cap = 0.6f, .hard = p->sparse_hard, .tail = 128};
    sparse_rule r = common;
    if (p->sparse_prefill > 0 && p->sparse_prefill < 1) {
        r.kind = SPARSE_MASS;
        r.threshold = 1 - p->sparse_prefill;
    } else if (p->sparse_prefill_alpha > 0 && p->sparse_prefill_alpha < 1) {
        r.kind = SPARSE_SHARE;
        r.threshold = p->sparse_prefill_alpha;
    }
    return r;
}

facet_status engine_sparse_read(const facet_engine_params *p, sparse_config *out, facet_error *err)
{
    if (p->sparse_alpha > 0 && p->sparse_mass > 0)
        return error_set(err, FACET_ERR_ARG, "sparse_alpha and sparse_mass are two rules for the same keys: give one");
    if (p->sparse_prefill > 0 && p->sparse_prefill_alpha > 0)
        return error_set(err, FACET_ERR_ARG,
                         "sparse_prefill and sparse_prefill_alpha are two rules for the same keys: give one");
    FACET_TRY(check_share("sparse_mass", (double)p->sparse_mass, 1, err));
    FACET_TRY(check_share("sparse_prefill", (double)p->sparse_prefill, 1, err));
    FACET_TRY(check_share("sparse_hard", (double)p->sparse_hard, 1, err));
    if (p->sparse_min < 0) return error_set(err, FACET_ERR_ARG, "sparse_min is %d, wanted 0 or more", p->sparse_min);
    *out = (sparse_config){
        .decode = decode_rule(p), .prompt = prompt_rule(p), .min_keys = p->sparse_min, .is_checked = p->sparse_check};
    return FACET_OK;
}

void engine_sparse_layout(const sparse_config *c, kv_desc *d)
{
    for (int i = 0; i < d->n_layers; i++)
        d->layers[i].has_summaries = sparse_is_on(c) && d->layers[i].group == KV_GROUP_GLOBAL;
}

facet_status engine_sparse_check_device(const sparse_config *c, bool is_cuda, facet_error *err)
{
    if (!is_cuda || !sparse_is_on(c)) return FACET_OK;
    return error_set(err, FACET_ERR_UNSUPPORTED,
                     "sparse attention is not on CUDA yet: use the device cpu, or leave the sparse options out");
}

void facet_engine_sparse(const facet_engine *e, facet_sparse_stats *out)
{
    const sparse_stats *s = &e->sparse;
    const double n = s->choices ? (double)s->choices : 1;
    *out = (facet_sparse_stats){.choices = s->choices,
                                .dense = s->dense,
                                .rescued = s->rescued,
                                .blocks = s->blocks,
                                .selected = s->selected,
                                .probed = s->probed,
                                .share = s->blocks ? (double)s->selected / (double)s->blocks : 0,
                                .certified_mean = s->certified_sum / n,
                                .certified_max = (double)s->certified_max,
                                .estimated_max = (double)s->estimated_max,
                                .measured_mean = s->measured_sum / n,
                                .measured_max = (double)s->measured_max,
                                .error_max = s->error_max};
}
