#include "decode/session.h"

#include <string.h>

#include "base/mem.h"
#include "decode/engine_draft.h"
#include "decode/park.h"
#include "decode/prefix.h"

facet_status facet_session_open(facet_engine *e, facet_session **out, facet_error *err)
{
    facet_session *s = mem_calloc(1, sizeof *s);
    if (!s) return error_memory(err, "a session", sizeof *s);
    s->engine = e;
    s->next = e->sessions;
    if (s->next) s->next->prev = s;
    e->sessions = s;
    *out = s;
    return FACET_OK;
}

static void unlink_session(facet_session *s)
{
    if (s->next) s->next->prev = s->prev;
    *(s->prev ? &s->prev->next : &s->engine->sessions) = s->next;
}

void facet_session_close(facet_session *s)
{
    if (!s) return;
    unlink_session(s);
    kv_seq_free(s->engine->pool, &s->mark);
    kv_seq_free(s->engine->pool, &s->kv);
    draft_ngram_close(s->ngram);
    if (s->feed.features) draft_feed_free(s);
    mem_free(s->tokens);
    mem_free(s);
}

facet_status session_reserve(facet_session *s, size_t n, facet_error *err)
{
    if (n > (size_t)s->engine->n_ctx)
        return error_set(err, FACET_ERR_LIMIT, "%zu tokens: the context holds %d (set it with -c)", n,
                         s->engine->n_ctx);
    if ((int32_t)n <= s->cap_tokens) return FACET_OK;
    const size_t cap = n + n / 2 + 64;
    int32_t *t = mem_resize_array(s->tokens, cap, sizeof *t);
    if (!t) return error_memory(err, "a session", cap * sizeof *t);
    s->tokens = t;
    s->cap_tokens = (int32_t)cap;
    return FACET_OK;
}

facet_status facet_session_fork(const facet_session *s, facet_session **out, facet_error *err)
{
    facet_session *f;
    FACET_TRY(facet_session_open(s->engine, &f, err));
    facet_status status = session_reserve(f, (size_t)s->n_tokens, err);
    if (status == FACET_OK) status = kv_seq_fork(s->engine->pool, &s->kv, &f->kv, err);
    if (status == FACET_OK && s->ngram) status = draft_ngram_fork(s->ngram, &f->ngram, err);
    if (status != FACET_OK) {
        facet_session_close(f);
        return status;
    }
    if (s->n_tokens) memcpy(f->tokens, s->tokens, (size_t)s->n_tokens * sizeof *f->tokens);
    f->n_tokens = s->n_tokens;
    f->n_prompt = s->n_prompt;
    draft_feed_reset(&f->feed, draft_feed_gap(&s->feed), f->n_tokens);
    *out = f;
    return FACET_OK;
}

void session_drop_mark(facet_session *s)
{
    kv_seq_free(s->engine->pool, &s->mark);
    s->n_mark = 0;
}

facet_status session_commit(facet_session *s, const int32_t *tokens, const int32_t *rows, int n, int out_row,
                            facet_error *err)
{
    FACET_TRY(draft_feed_rows(s, rows, n, err));
    memmove(s->tokens + s->n_tokens, tokens, (size_t)n * sizeof *tokens);
    s->n_tokens += n;
    s->out_row = out_row;
    s->out_run = out_row < 0 ? 0 : s->engine->n_runs;
    /* a page back, so that a prompt which ends a little earlier can go on from there */
    kv_seq_release_window(s->engine->pool, &s->kv, s->n_tokens - KV_PAGE_LEN);
    return FACET_OK;
}

facet_status session_commit_part(facet_session *s, const engine_part *part, facet_error *err)
{
    int32_t rows[ENGINE_MAX_ROWS];
    for (int i = 0; i < part->n; i++) rows[i] = part->first_row + i;
    const int out_row = part->n_out ? part->first_out + part->n_out - 1 : -1;
    FACET_TRY(session_commit(s, part->tokens, rows, part->n, out_row, err));
    if (part->prompt_end) s->n_prompt = part->prompt_end;
    if (s->n_tokens == s->branch) prefix_keep(s);
    return FACET_OK;
}

int session_rows(const facet_session *s, size_t left, int max_rows)
{
    const int n = left < (size_t)max_rows ? (int)left : max_rows;
    return s->branch > s->n_tokens && s->branch - s->n_tokens < n ? s->branch - s->n_tokens : n;
}

facet_status session_add(facet_session *s, engine_part *part, facet_error *err)
{
    /* the pool has room for a step of every session without marks (engine.c, count_pages) */
    const facet_status status = engine_step_add(s->engine, part, err);
    if (status != FACET_ERR_LIMIT || !s->n_mark) return status;
    session_drop_mark(s);
    return engine_step_add(s->engine, part, err);
}

/* One step of up to ENGINE_MAX_ROWS rows. */
static facet_status step(facet_session *s, const int32_t *tokens, int n_rows, bool is_last, int32_t prompt_end,
                         facet_error *err)
{
    engine_part part = {
        .seq = &s->kv, .start = s->n_tokens, .n = n_rows, .n_out = is_last, .tokens = tokens, .prompt_end = prompt_end};
    engine_step_begin(s->engine);
    FACET_TRY(session_add(s, &part, err));
    FACET_TRY(engine_step_run(s->engine, NULL, err));
    return session_commit_part(s, &part, err);
}

/* prompt_end: of a prompt that the tokens belong to; 0 = generated tokens. */
static facet_status append(facet_session *s, const int32_t *tokens, size_t n, int32_t prompt_end,
                           facet_progress_fn progress, void *ud, facet_error *err)
{
    FACET_TRY(session_reserve(s, (size_t)s->n_tokens + n, err));
    for (size_t done = 0; done < n;) {
        const bool goes_on = !progress || progress(ud, "prefill", done, n);
        if (atomic_exchange(&s->is_cancelled, false) || !goes_on)
            return error_set(err, FACET_ERR_CANCELLED, "cancelled");
        const int rows = session_rows(s, n - done, ENGINE_MAX_ROWS);
        FACET_TRY(step(s, tokens + done, rows, done + (size_t)rows == n, prompt_end, err));
        done += (size_t)rows;
    }
    if (progress) progress(ud, "prefill", n, n);
    return FACET_OK;
}

facet_status session_append(facet_session *s, const int32_t *tokens, size_t n, facet_error *err)
{
    return append(s, tokens, n, 0, NULL, NULL, err);
}

facet_status session_append_prompt(facet_session *s, const int32_t *tokens, size_t n, facet_error *err)
{
    return append(s, tokens, n, s->n_tokens + (int32_t)n, NULL, NULL, err);
}

facet_status session_append_blank(facet_session *s, const int32_t *tokens, size_t n, facet_error *err)
{
    FACET_TRY(session_reserve(s, (size_t)s->n_tokens + n, err));
    for (size_t done = 0; done < n;) {
        const int rows = n - done < ENGINE_MAX_ROWS ? (int)(n - done) : ENGINE_MAX_ROWS;
        int n_copies = 0;
        FACET_TRY(engine_reserve(s->engine, &s->kv, s->n_tokens, s->n_tokens + rows, &n_copies, err));
        memcpy(s->tokens + s->n_tokens, tokens + done, (size_t)rows * sizeof *tokens);
        s->n_tokens += rows;
        kv_seq_release_window(s->engine->pool, &s->kv, s->n_tokens - KV_PAGE_LEN);
        done += (size_t)rows;
    }
    s->out_run = 0;
    return FACET_OK;
}

/* How many of its first `keep` tokens the session can go on from: all of them, or fewer where pages that these need are
 * gone: those of the mark, or none. */
static int32_t resumable(const facet_session *s, int32_t keep)
{
    const kv_pool *pool = s->engine->pool;
    if (keep == s->n_tokens || kv_seq_can_resume(pool, &s->kv, keep)) return keep;
    if (keep > s->n_mark) keep = s->n_mark;
    return kv_seq_can_resume(pool, &s->mark, keep) ? keep : 0;
}

/* Cuts the session to its first n tokens, which are resumable. */
static facet_status rewind_to(facet_session *s, int32_t n, facet_error *err)
{
    kv_pool *pool = s->engine->pool;
    if (n < s->n_tokens && !kv_seq_can_resume(pool, &s->kv, n)) {
        kv_seq kv = {0};
        FACET_TRY(kv_seq_fork(pool, &s->mark, &kv, err));
        kv_seq_free(pool, &s->kv);
        s->kv = kv;
        draft_feed_reset(&s->feed, s->mark_gap, n);
    }
    kv_seq_truncate(pool, &s->kv, n);
    s->n_tokens = n;
    if (s->n_prompt > n + 1) s->n_prompt = n; /* the last token of a prompt may be what is evaluated again */
    s->out_run = 0;
    draft_feed_cut(&s->feed, n);
    if (s->ngram && draft_ngram_n_tokens(s->ngram) > n) draft_ngram_truncate(s->ngram, n);
    if (n < s->n_mark) {
        kv_seq_truncate(pool, &s->mark, n);
        s->n_mark = n;
    }
    return FACET_OK;
}

void session_clear(facet_session *s)
{
    session_drop_mark(s);
    kv_seq_free(s->engine->pool, &s->kv);
    s->n_tokens = s->n_prompt = s->n_kept = s->branch = 0;
    s->out_run = 0;
    draft_feed_reset(&s->feed, (draft_gap){0}, 0);
    if (s->ngram) draft_ngram_truncate(s->ngram, 0);
}

facet_status session_check_content(const facet_session *s, uint64_t n_drops, facet_error *err)
{
    if (s->engine->n_drops == n_drops) return FACET_OK;
    return error_set(err, FACET_ERR_PARKED, "the target was parked and its cache dropped: give the prompt again");
}

static int32_t n_common(const int32_t *a, int32_t n_a, const int32_t *b, size_t n_b)
{
    int32_t n = 0;
    while (n < n_a && (size_t)n < n_b && a[n] == b[n]) n++;
    return n;
}

facet_status session_adopt(facet_session *s, const session_state *from, int32_t n, facet_error *err)
{
    kv_pool *pool = s->engine->pool;
    kv_seq kv = {0};
    FACET_TRY(session_reserve(s, (size_t)n, err));
    FACET_TRY(kv_seq_fork(pool, from->kv, &kv, err));
    kv_seq_truncate(pool, &kv, n);
    const int32_t same = n_common(s->tokens, s->n_tokens, from->tokens, (size_t)n);
    if (s->ngram && draft_ngram_n_tokens(s->ngram) > same) draft_ngram_truncate(s->ngram, same);
    session_drop_mark(s);
    kv_seq_free(pool, &s->kv);
    s->kv = kv;
    if (n) memmove(s->tokens, from->tokens, (size_t)n * sizeof *s->tokens);
    s->n_tokens = n;
    s->n_prompt = n;
    s->out_run = 0;
    s->branch = 0;
    draft_feed_reset(&s->feed, from->gap, n);
    return FACET_OK;
}

/* A beginning that others hold, where it is longer than the session's own `keep` tokens. */
static facet_status look_around(facet_session *s, const int32_t *tokens, int32_t n, int32_t *keep, facet_error *err)
{
    prefix_match m;
    if (!s->engine->prefix) return FACET_OK;
    prefix_find(s, tokens, n, *keep, &m);
    if (m.n_usable > *keep) {
        FACET_TRY(session_adopt(s, &m.from, m.n_usable, err));
        *keep = m.n_usable;
    }
    s->branch = m.branch;
    return FACET_OK;
}

facet_status session_keep(facet_session *s, const int32_t *tokens, size_t n, facet_error *err)
{
    if (n < 1) return error_set(err, FACET_ERR_ARG, "an empty prompt: give at least one token");
    FACET_TRY(engine_need(s->engine, PARK_TARGET, err));
    FACET_TRY(session_reserve(s, n, err));
    s->branch = 0;
    int32_t keep = n_common(s->tokens, s->n_tokens, tokens, n);
    if ((size_t)keep < n || keep < s->n_tokens || !session_has_outputs(s)) {
        if ((size_t)keep == n) keep--; /* the last token is evaluated again for its logits */
        keep = resumable(s, keep);
        FACET_TRY(look_around(s, tokens, (int32_t)n - 1, &keep, err));
        FACET_TRY(rewind_to(s, keep, err));
    }
    s->n_kept = keep;
    return FACET_OK;
}

static facet_status sync_to(facet_session *s, const int32_t *tokens, size_t n, int32_t prompt_end,
                            facet_progress_fn progress, void *ud, facet_error *err)
{
    FACET_TRY(session_keep(s, tokens, n, err));
    const size_t n_kept = (size_t)s->n_kept;
    return n_kept == n ? FACET_OK : append(s, tokens + n_kept, n - n_kept, prompt_end, progress, ud, err);
}

void session_set_mark(facet_session *s)
{
    session_drop_mark(s);
    if (kv_seq_fork(s->engine->pool, &s->kv, &s->mark, NULL) == FACET_OK) s->n_mark = s->n_tokens;
    s->mark_gap = draft_feed_gap(&s->feed);
    prefix_keep(s);
}

facet_status session_sync(facet_session *s, const int32_t *tokens, size_t n, facet_progress_fn progress, void *ud,
                          facet_error *err)
{
    FACET_TRY(sync_to(s, tokens, n, (int32_t)n, progress, ud, err));
    session_set_mark(s);
    return FACET_OK;
}

facet_status facet_session_sync(facet_session *s, const int32_t *tokens, size_t n, facet_error *err)
{
    return session_sync(s, tokens, n, NULL, NULL, err);
}

int32_t facet_session_n_tokens(const facet_session *s)
{
    return s->n_tokens;
}

facet_status session_read(facet_session *s, int value, void *out, facet_error *err)
{
    if (!s->n_tokens) return error_set(err, FACET_ERR_ARG, "this session has no logits yet: sync it to a prompt first");
    /* another session ran since: the last token is evaluated again, as what it was */
    const int32_t prompt_end = s->n_tokens <= s->n_prompt ? s->n_prompt : 0;
    if (!session_has_outputs(s)) FACET_TRY(sync_to(s, s->tokens, (size_t)s->n_tokens, prompt_end, NULL, NULL, err));
    return s->engine->be->ops->read(s->engine->be, s->engine->compiled, value, s->out_row, 1, out, err);
}

facet_status facet_session_logits(facet_session *s, float *out, facet_error *err)
{
    return session_read(s, s->engine->plan->v_logits, out, err);
}

facet_status session_argmax(facet_session *s, int32_t *out, facet_error *err)
{
    FACET_TRY(session_read(s, s->engine->plan->v_argmax, out, err));
    if (*out < 0)
        return error_set(err, FACET_ERR_NUMERIC, "non-finite logits after token %d: the model file may be damaged",
                         s->n_tokens - 1);
    return FACET_OK;
}

void facet_session_cancel(facet_session *s)
{
    atomic_store(&s->is_cancelled, true);
}
