#include "decode/speculate.h"

#include <string.h>

#include "base/clock.h"
#include "compute/plan_cost.h"
#include "decode/engine_draft.h"
#include "decode/park.h"

enum { GAMMA_DEFAULT = 4, NGRAM_MAX_DEFAULT = 15, TREE_BUDGET_DEFAULT = 22 };

/* ---- options ---- */

static facet_status check(facet_engine *e, const facet_speculation *o, facet_error *err)
{
    if ((unsigned)o->method > FACET_SPEC_AUTO)
        return error_set(err, FACET_ERR_ARG, "speculation method is %d, wanted 0 to %d", (int)o->method,
                         (int)FACET_SPEC_AUTO);
    if ((unsigned)o->adapt > FACET_ADAPT_AUTO)
        return error_set(err, FACET_ERR_ARG, "speculation adapt is %d, wanted 0 to %d", (int)o->adapt,
                         (int)FACET_ADAPT_AUTO);
    if (o->draft_max < 0 || o->draft_max > DRAFT_TREE_MAX_NODES)
        return error_set(err, FACET_ERR_ARG, "draft_max is %d, wanted 0 to %d", o->draft_max, DRAFT_TREE_MAX_NODES);
    if (o->mtp_gamma < 0 || o->mtp_gamma > ENGINE_MTP_MAX)
        return error_set(err, FACET_ERR_ARG, "mtp_gamma is %d, wanted 0 to %d", o->mtp_gamma, ENGINE_MTP_MAX);
    if (o->tree_budget < -1 || o->tree_budget > DRAFT_TREE_MAX_ROWS)
        return error_set(err, FACET_ERR_ARG, "tree_budget is %d, wanted -1 to %d", o->tree_budget, DRAFT_TREE_MAX_ROWS);
    if (!(o->p_min >= 0 && o->p_min <= 1))
        return error_set(err, FACET_ERR_ARG, "p_min is %g, wanted 0 to 1", (double)o->p_min);
    if (!(o->width_theta >= 0 && o->width_theta <= 1))
        return error_set(err, FACET_ERR_ARG, "width_theta is %g, wanted 0 to 1", (double)o->width_theta);
    if (o->width_min < 0 || o->width_min > DRAFT_TREE_MAX_ROWS)
        return error_set(err, FACET_ERR_ARG, "width_min is %d, wanted 0 to %d", o->width_min, DRAFT_TREE_MAX_ROWS);
    if ((unsigned)o->mtp_pos > FACET_MTP_POS_INCR)
        return error_set(err, FACET_ERR_ARG, "mtp_pos is %d, wanted 0 to %d", (int)o->mtp_pos, (int)FACET_MTP_POS_INCR);
    if (o->method == FACET_SPEC_MTP && !e->mtp)
        return error_set(err, FACET_ERR_ARG, "speculation by MTP wants an MTP drafter, and none was given");
    if (o->method == FACET_SPEC_DFLASH && !e->dflash)
        return error_set(err, FACET_ERR_ARG, "speculation by DFlash wants a DFlash drafter, and none was given");
    const unsigned named = o->method == FACET_SPEC_MTP ? PARK_MTP : o->method == FACET_SPEC_DFLASH ? PARK_DFLASH : 0u;
    return engine_need(e, PARK_TARGET | named, err);
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

static void add_arm(speculation *sp, const strategy_ops *ops, int k_max, int k_fixed)
{
    const int limit = sp->opts.draft_max ? sp->opts.draft_max : DRAFT_TREE_MAX_NODES;
    sp->arm[sp->n_arms++] =
        (strategy){.ops = ops, .opts = &sp->opts, .k_max = least(k_max, limit), .k_fixed = least(k_fixed, limit)};
}

static bool wants(const speculation *sp, facet_spec_method m)
{
    return sp->opts.method == FACET_SPEC_AUTO || sp->opts.method == m;
}

static void add_mtp(speculation *sp)
{
    const int gamma = sp->opts.mtp_gamma;
    if (!engine_has_drafter(sp->s->engine, PARK_MTP) || !wants(sp, FACET_SPEC_MTP)) return;
    add_arm(sp, &strategy_mtp, gamma ? gamma : ENGINE_MTP_MAX, gamma ? gamma : GAMMA_DEFAULT);
}

static void add_ngram(speculation *sp)
{
    const int n = sp->opts.draft_max ? sp->opts.draft_max : NGRAM_MAX_DEFAULT;
    if (wants(sp, FACET_SPEC_NGRAM)) add_arm(sp, &strategy_ngram, n, n);
}

static void add_dflash(speculation *sp)
{
    const drafter *d = sp->s->engine->dflash;
    const int budget = sp->opts.tree_budget;
    if (!engine_has_drafter(sp->s->engine, PARK_DFLASH) || !wants(sp, FACET_SPEC_DFLASH)) return;
    const int nodes = least(budget, DRAFT_TREE_MAX_NODES);
    if (budget > 0) add_arm(sp, &strategy_dflash_tree, nodes, nodes);
    if (budget <= 0) add_arm(sp, &strategy_dflash_chain, d->dflash.block_size - 1, d->dflash.block_size - 1);
    if (budget < 0) add_arm(sp, &strategy_dflash_tree, DRAFT_TREE_MAX_NODES, TREE_BUDGET_DEFAULT);
}

/* Fixed and rolling lengths use the first arm: the strongest drafter. The controller tries new arms in their order: the
 * cheapest one first, whose savings then pay for trying the others. */
static void choose_arms(speculation *sp)
{
    if (sp->opts.adapt != FACET_ADAPT_COST) add_dflash(sp);
    add_mtp(sp);
    add_ngram(sp);
    if (sp->opts.adapt == FACET_ADAPT_COST) add_dflash(sp);
}

static double bytes_of(const facet_engine *e, const plan *p, int n_rows)
{
    return plan_cost(p, e->weights, &e->kv, n_rows, n_rows, 0).bytes;
}

/* What computing a further row adds to reading the weights: a CPU is near its limit and a GPU far from it. */
static double guess_row(const facet_engine *e)
{
    backend_info info;
    e->be->ops->info(e->be, &info);
    return strcmp(info.name, "cuda") == 0 ? 0.02 : 0.12;
}

/* How much of a one-row step a further row costs before anything was measured: what it reads (experts), and computes.
 */
static double guess_rise(const facet_engine *e)
{
    enum { ROWS = 16 };
    return (bytes_of(e, e->plan, ROWS) / bytes_of(e, e->plan, 1) - 1) / (ROWS - 1) + guess_row(e);
}

/* What a draft costs, in steps of the target of one row. */
static double guess_draft(const facet_engine *e, const strategy_ops *ops)
{
    const double lookup = 0.02, plain = bytes_of(e, e->plan, 1);
    if (ops->method == FACET_SPEC_MTP) return bytes_of(e, e->mtp_step.plan, 1) / plain;
    if (ops->method != FACET_SPEC_DFLASH) return lookup;
    const int n_rows = e->dflash->dflash.block_size;
    return bytes_of(e, e->dflash_block.plan, n_rows) / plain * (1 + (n_rows - 1) * guess_row(e));
}

/* What feeding the context of a drafter with a token costs, likewise. */
static double guess_feed(const facet_engine *e, const strategy_ops *ops)
{
    return ops->desc.is_fed ? bytes_of(e, e->dflash_inject.plan, 1) / bytes_of(e, e->plan, 1) : 0;
}

/* What earlier generations learned holds as long as the same strategies are at hand. */
static void begin_control(speculation *sp)
{
    const facet_engine *e = sp->s->engine;
    draft_arm_desc desc[DRAFT_MAX_ARMS];
    bool is_same = e->has_control && e->control.n_arms == sp->n_arms;
    for (int i = 0; i < sp->n_arms; i++) {
        desc[i] = sp->arm[i].ops->desc;
        desc[i].draft_share = guess_draft(e, sp->arm[i].ops);
        desc[i].feed_share = guess_feed(e, sp->arm[i].ops);
        is_same = is_same && strcmp(e->control.arm[i].desc.name, desc[i].name) == 0;
    }
    if (is_same) {
        sp->control = e->control;
    } else {
        draft_control_init(&sp->control, NULL, desc, sp->n_arms, NULL, 0);
        draft_cost_guess(&sp->control.cost, guess_rise(e));
    }
    sp->has_control = true;
    draft_control_begin(&sp->control);
    draft_feed_set(sp->s, draft_control_feeding(&sp->control, sp->s->n_tokens));
}

void speculation_end(speculation *sp)
{
    if (!sp->has_control) return;
    sp->s->engine->control = sp->control;
    sp->s->engine->has_control = true;
}

facet_status speculation_begin(speculation *sp, facet_session *s, const facet_speculation *opts,
                               const strategy_ops *ops, facet_error *err)
{
    FACET_TRY(check(s->engine, opts, err));
    memset(sp, 0, sizeof *sp);
    sp->s = s;
    sp->opts = *opts;
    sp->last_arm = DRAFT_NO_ARM;
    draft_feed_set(s, DRAFT_FEED_NOW);
    if (ops)
        add_arm(sp, ops, DRAFT_TREE_MAX_NODES, DRAFT_TREE_MAX_NODES);
    else if (opts->method != FACET_SPEC_NONE)
        choose_arms(sp);
    if (sp->n_arms == 0) return FACET_OK;
    static const draft_adaptive_mode modes[] = {[FACET_ADAPT_COST] = DRAFT_ADAPTIVE_OFF,
                                                [FACET_ADAPT_WINDOW] = DRAFT_ADAPTIVE_ON,
                                                [FACET_ADAPT_OFF] = DRAFT_ADAPTIVE_OFF,
                                                [FACET_ADAPT_AUTO] = DRAFT_ADAPTIVE_AUTO};
    draft_adaptive_init(&sp->window, modes[opts->adapt], s->engine->model->h.n_experts > 0, sp->arm[0].k_fixed + 1, 0);
    if (opts->adapt == FACET_ADAPT_COST) begin_control(sp);
    return FACET_OK;
}

/* ---- a step ---- */

static double ms_since(uint64_t t0)
{
    return (double)(clock_ns() - t0) * 1e-6;
}

static facet_status ask(speculation *sp, int32_t pending, int room, facet_error *err)
{
    draft_offer offer[DRAFT_MAX_ARMS] = {0};
    float known[DRAFT_MAX_ARMS][DRAFT_TREE_MAX_NODES];
    for (int i = 0; i < sp->n_arms; i++) {
        strategy *st = &sp->arm[i];
        bool has_known;
        FACET_TRY(
            st->ops->offer(st, sp->s, pending, least(st->k_max, room), &offer[i].k_max, known[i], &has_known, err));
        if (has_known) offer[i].conf = known[i];
        if (st->ops->desc.is_fed) offer[i].n_behind = draft_feed_lag(sp->s, &offer[i].n_least);
    }
    sp->plan = draft_control_plan(&sp->control, sp->s->n_tokens, offer);
    draft_feed_set(sp->s, draft_control_feeding(&sp->control, sp->s->n_tokens));
    sp->is_planned = true;
    return FACET_OK;
}

static facet_status ask_fixed(speculation *sp, int32_t pending, int room, facet_error *err)
{
    strategy *st = &sp->arm[0];
    bool has_known;
    float known[DRAFT_TREE_MAX_NODES];
    sp->plan = (draft_plan){.arm = 0};
    return st->ops->offer(st, sp->s, pending, least(sp->window.n_rows - 1, room), &sp->plan.k, known, &has_known, err);
}

/* Which strategy, and how much; drafts are made; the proposal holds what is to be verified. */
static facet_status draft(speculation *sp, const chooser *c, int32_t pending, int room, facet_error *err)
{
    const facet_session *s = sp->s;
    sp->plan = (draft_plan){.arm = DRAFT_NO_ARM};
    sp->is_planned = false;
    sp->proposal.n = sp->n_drafted = 0;
    sp->proposal.is_tree = false;
    if (sp->n_arms == 0 || room < 1) return FACET_OK;
    FACET_TRY(sp->has_control ? ask(sp, pending, room, err) : ask_fixed(sp, pending, room, err));
    if (sp->plan.arm == DRAFT_NO_ARM || sp->plan.k < 1) return FACET_OK;
    strategy *st = &sp->arm[sp->plan.arm];
    proposal *p = &sp->proposal;
    if (sp->is_planned && st->ops->desc.is_fed) draft_feed_shorten(sp->s, sp->plan.n_caught);
    FACET_TRY(st->ops->propose(st, sp->s, pending, sp->plan.k, p, err));
    FACET_TRY(verify_cut(c, pending, p, err));
    sp->n_drafted = p->n;
    if (c->made_up) made_up_confidences(c->made_up, p);
    if (p->has_conf) memcpy(sp->conf, p->conf, (size_t)p->n * sizeof *p->conf);
    if (!sp->has_control || p->n == 0) return FACET_OK;
    p->n = draft_control_width(&sp->control, s->n_tokens, p->has_conf ? sp->conf : NULL, p->n);
    if (p->is_tree) draft_tree_shrink(&p->tree, p->n + 1);
    return FACET_OK;
}

facet_status speculation_draft(speculation *sp, const chooser *c, int32_t pending, int32_t n_left, int max_rows,
                               facet_error *err)
{
    const uint64_t t0 = clock_ns();
    const int room = least(sp->s->engine->n_ctx - sp->s->n_tokens - 1, n_left - 1);
    draft_feed_cost(sp->s, &sp->caught_ms); /* the prompt's */
    FACET_TRY(draft(sp, c, pending, least(room, max_rows - 1), err));
    sp->n_caught = draft_feed_cost(sp->s, &sp->caught_ms);
    sp->draft_ms = ms_since(t0) - sp->caught_ms;
    sp->is_switched = sp->plan.arm != sp->last_arm;
    sp->last_arm = sp->plan.arm;
    return verify_part(sp->s, pending, &sp->proposal, &sp->part, err);
}

facet_status speculation_read(speculation *sp, const chooser *c, int32_t pending, double step_ms, bool is_shared,
                              facet_error *err)
{
    const uint64_t t0 = clock_ns();
    FACET_TRY(verify_read(sp->s, c, pending, &sp->proposal, &sp->part, &sp->verdict, err));
    sp->verify_ms = step_ms + ms_since(t0);
    sp->is_shared = is_shared;
    return FACET_OK;
}

facet_status speculation_step(speculation *sp, const chooser *c, int32_t pending, int32_t n_left, facet_error *err)
{
    facet_engine *e = sp->s->engine;
    FACET_TRY(speculation_draft(sp, c, pending, n_left, ENGINE_MAX_OUT, err));
    const uint64_t t0 = clock_ns();
    engine_step_begin(e);
    facet_status status = session_add(sp->s, &sp->part, err);
    if (status == FACET_OK) status = engine_step_run(e, NULL, err);
    if (status == FACET_OK) status = speculation_read(sp, c, pending, ms_since(t0), false, err);
    if (status != FACET_OK) verify_abandon(sp->s);
    return status;
}

/* ms: since the choices were made. */
static void observe(speculation *sp, int m, int n_moves, int64_t n_ctx, double ms)
{
    double fed_ms;
    const int n_fed = draft_feed_cost(sp->s, &fed_ms);
    const double other_ms = ms - fed_ms;
    const proposal *p = &sp->proposal;
    const int n_accepted = sp->verdict.n_path - 1;
    const spec_step step = {.method =
                                sp->plan.arm == DRAFT_NO_ARM ? FACET_SPEC_NONE : sp->arm[sp->plan.arm].ops->method,
                            .n_asked = sp->plan.k,
                            .n_drafted = p->n,
                            .n_accepted = n_accepted,
                            .n_committed = m,
                            .max_depth = p->is_tree ? draft_tree_max_depth(&p->tree) : p->n,
                            .is_tree = p->is_tree && p->n > 0,
                            .n_moves = n_moves,
                            .is_switched = sp->is_switched,
                            .draft_ms = sp->draft_ms,
                            .verify_ms = sp->verify_ms,
                            .other_ms = ms + sp->caught_ms};
    spec_stats_add(&sp->stats, &step);
    if (p->n > 0) draft_adaptive_observe(&sp->window, n_accepted + 1, p->n + 1);
    if (!sp->is_planned) return;
    const draft_outcome o = {.n_ctx = n_ctx,
                             .n_drafted = sp->n_drafted,
                             .n_verified = p->n,
                             .n_accepted = n_accepted,
                             .conf = sp->n_drafted > 0 && p->has_conf ? sp->conf : NULL,
                             .path = p->is_tree ? sp->verdict.path : NULL,
                             .draft_ms = sp->draft_ms,
                             .verify_ms = sp->is_shared ? -1 : sp->verify_ms,
                             .other_ms = sp->is_shared ? -1 : other_ms,
                             .n_caught = sp->n_caught,
                             .n_fed = n_fed,
                             .caught_ms = sp->caught_ms,
                             .fed_ms = fed_ms};
    draft_control_observe(&sp->control, &o);
}

facet_status speculation_commit(speculation *sp, int m, facet_error *err)
{
    const int64_t n_ctx = sp->s->n_tokens;
    const uint64_t t0 = clock_ns();
    int n_moves;
    FACET_TRY(verify_commit(sp->s, &sp->verdict, m, &n_moves, err));
    observe(sp, m, n_moves, n_ctx, ms_since(t0));
    return FACET_OK;
}
