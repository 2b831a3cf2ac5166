#include "decode/draft_feed.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "decode/engine_draft.h"
#include "decode/park.h"
#include "decode/session.h"

static bool is_gap(draft_gap g)
{
    return g.end > g.begin;
}

static draft_gap cut_gap(draft_gap g, int32_t n)
{
    if (g.end > n) g.end = n;
    return is_gap(g) ? g : (draft_gap){0};
}

static bool has_tail(const draft_feed *f)
{
    return f->end > f->begin;
}

void draft_feed_cut(draft_feed *f, int32_t n)
{
    f->gap = cut_gap(f->gap, n);
    if (f->end > n) f->end = n;
    if (!has_tail(f)) f->begin = f->end = n;
}

void draft_feed_reset(draft_feed *f, draft_gap gap, int32_t n)
{
    f->gap = cut_gap(gap, n);
    f->begin = f->end = n;
}

/* Texts are many and short: the place for features goes from one to the next. */
void draft_feed_free(facet_session *s)
{
    mem_free(s->engine->spare_features);
    s->engine->spare_features = s->feed.features;
    s->feed.features = NULL;
}

draft_gap draft_feed_gap(const draft_feed *f)
{
    if (!has_tail(f)) return f->gap;
    return (draft_gap){is_gap(f->gap) ? f->gap.begin : f->begin, f->end};
}

/* What waits before position `end` is lost. One range for all that is: it may cover more. */
static void lose(draft_feed *f, int32_t end)
{
    if (!is_gap(f->gap)) f->gap.begin = f->begin;
    f->gap.end = f->begin = end;
    if (f->end < end) f->end = end;
}

void draft_feed_set(facet_session *s, draft_feeding feeding)
{
    s->feed.feeding = s->engine->can_leave_out ? feeding : DRAFT_FEED_NOW;
}

static size_t n_features(const facet_engine *e)
{
    return (size_t)e->dflash->dflash.n_taps * e->model->h.n_embd;
}

static facet_status take_place(facet_session *s, size_t bytes, facet_error *err)
{
    float **spare = &s->engine->spare_features, **own = &s->feed.features;
    if (*own) return FACET_OK;
    *own = *spare ? *spare : mem_alloc(bytes);
    *spare = NULL;
    return *own ? FACET_OK : error_memory(err, "a drafter's features", bytes);
}

static facet_status keep(facet_session *s, const int32_t *rows, int n, facet_error *err)
{
    draft_feed *f = &s->feed;
    const size_t width = n_features(s->engine), bytes = DRAFT_TAIL * width * sizeof *f->features;
    FACET_TRY(take_place(s, bytes, err));
    const int32_t start = s->n_tokens, end = start + n;
    if (!has_tail(f)) f->begin = f->end = start;
    const int32_t first = end - f->begin > DRAFT_TAIL ? end - DRAFT_TAIL : f->begin;
    for (int32_t p = first > start ? first : start; p < end; p++)
        FACET_TRY(engine_draft_features(s->engine, rows ? rows[p - start] : p - start,
                                        f->features + (size_t)(p % DRAFT_TAIL) * width, err));
    if (first > f->begin) lose(f, first);
    f->end = end;
    return FACET_OK;
}

static facet_status feed(facet_session *s, const int32_t *rows, int n, facet_error *err)
{
    const uint64_t t0 = clock_ns();
    FACET_TRY(engine_draft_inject(s->engine, &s->kv, rows, n, s->n_tokens, err));
    s->feed.n_fed += n;
    s->feed.fed_ms += (double)(clock_ns() - t0) * 1e-6;
    return FACET_OK;
}

facet_status draft_feed_rows(facet_session *s, const int32_t *rows, int n, facet_error *err)
{
    draft_feed *f = &s->feed;
    if (!s->engine->dflash) return FACET_OK;
    if (!engine_has_drafter(s->engine, PARK_DFLASH)) {
        if (!has_tail(f)) f->begin = f->end = s->n_tokens;
        lose(f, s->n_tokens + n);
        return FACET_OK;
    }
    const bool is_full = f->end - f->begin + n > DRAFT_TAIL;
    if (f->feeding == DRAFT_FEED_REST || (f->feeding == DRAFT_FEED_LATE && !is_full)) return keep(s, rows, n, err);
    FACET_TRY(draft_feed_catch_up(s, err));
    return feed(s, rows, n, err);
}

/* The run of waiting positions from p on that lie side by side. */
static int n_together(const draft_feed *f, int32_t p)
{
    const int32_t left = f->end - p, room = DRAFT_TAIL - p % DRAFT_TAIL;
    return left < room ? left : room;
}

/* Leaves the target's values as they are. */
facet_status draft_feed_catch_up(facet_session *s, facet_error *err)
{
    draft_feed *f = &s->feed;
    facet_engine *e = s->engine;
    const int32_t oldest = s->n_tokens - e->kv.groups[KV_GROUP_DRAFT].window; /* pages before it may be gone */
    if (!has_tail(f) || !engine_has_drafter(e, PARK_DFLASH)) return FACET_OK;
    if (f->begin < oldest) lose(f, oldest);
    const uint64_t t0 = clock_ns();
    const int n = f->end - f->begin;
    for (int32_t p = f->begin; p < f->end; p += n_together(f, p))
        FACET_TRY(engine_draft_put_features(e, p - f->begin, n_together(f, p),
                                            f->features + (size_t)(p % DRAFT_TAIL) * n_features(e), err));
    FACET_TRY(engine_draft_take_features(e, &s->kv, n, f->begin, err));
    f->begin = f->end;
    f->n_fed += n;
    f->fed_ms += (double)(clock_ns() - t0) * 1e-6;
    return FACET_OK;
}

int draft_feed_lag(const facet_session *s, int *least)
{
    const int n = s->feed.end - s->feed.begin;
    *least = n < DRAFT_LEAST_CONTEXT ? n : DRAFT_LEAST_CONTEXT;
    return n;
}

void draft_feed_shorten(facet_session *s, int n)
{
    draft_feed *f = &s->feed;
    if (f->end - f->begin > n) lose(f, f->end - n);
}

bool draft_feed_has_context(const facet_session *s)
{
    const int least = s->engine->can_leave_out ? DRAFT_LEAST_CONTEXT : s->engine->kv.groups[KV_GROUP_DRAFT].window;
    return !is_gap(s->feed.gap) || s->n_tokens - s->feed.gap.end >= least;
}

int draft_feed_cost(facet_session *s, double *ms)
{
    const int n = s->feed.n_fed;
    *ms = s->feed.fed_ms;
    s->feed.n_fed = 0;
    s->feed.fed_ms = 0;
    return n;
}
