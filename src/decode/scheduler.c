#include "decode/scheduler.h"

#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

/* A text under way. */
typedef struct job {
    generation *g;
    int32_t *prompt;
    scheduler_wish (*wish)(void *ud);
    scheduler_done_fn done;
    void *done_ud;
    /* of the step in progress */
    bool may_run;
    engine_part *part;
    facet_status status;
    facet_error err;
} job;

struct scheduler {
    facet_engine *engine;
    int prompt_rows;
    job **jobs; /* [n_jobs], oldest first */
    int n_jobs, cap_jobs;
    int turn; /* counts steps, so that everybody comes first sometimes */
};

/* Rows that a step still has room for. */
typedef struct room {
    int rows, out, parts;
} room;

facet_status scheduler_open(facet_engine *e, int prompt_rows, scheduler **out, facet_error *err)
{
    if (prompt_rows < 0 || prompt_rows > ENGINE_MAX_ROWS)
        return error_set(err, FACET_ERR_ARG, "prompt rows of a step: %d, wanted 0 to %d", prompt_rows, ENGINE_MAX_ROWS);
    scheduler *sc = mem_calloc(1, sizeof *sc);
    if (!sc) return error_memory(err, "a scheduler", sizeof *sc);
    sc->engine = e;
    sc->prompt_rows = prompt_rows ? prompt_rows : SCHEDULER_PROMPT_ROWS;
    *out = sc;
    return FACET_OK;
}

static void job_close(job *j)
{
    if (!j) return;
    generation_close(j->g);
    mem_free(j->prompt);
    mem_free(j);
}

void scheduler_close(scheduler *sc)
{
    if (!sc) return;
    for (int i = 0; i < sc->n_jobs; i++) {
        generation_abandon(sc->jobs[i]->g);
        job_close(sc->jobs[i]);
    }
    mem_free(sc->jobs);
    mem_free(sc);
}

int scheduler_n_active(const scheduler *sc)
{
    return sc->n_jobs;
}

/* ---- taking in ---- */

static facet_status check_request(const scheduler *sc, const scheduler_request *r, facet_error *err)
{
    if (r->session->engine != sc->engine) return error_set(err, FACET_ERR_ARG, "the session is another engine's");
    if (r->n_prompt < 1) return error_set(err, FACET_ERR_ARG, "an empty prompt: give at least one token");
    for (int i = 0; i < sc->n_jobs; i++)
        if (generation_session(sc->jobs[i]->g) == r->session)
            return error_set(err, FACET_ERR_ARG, "the session has a text under way");
    return FACET_OK;
}

static facet_status grow(scheduler *sc, facet_error *err)
{
    if (sc->n_jobs < sc->cap_jobs) return FACET_OK;
    const int cap = 2 * sc->cap_jobs + 8;
    job **jobs = mem_resize_array(sc->jobs, (size_t)cap, sizeof(job *));
    if (!jobs) return error_memory(err, "a list of generations", (size_t)cap * sizeof(job *));
    sc->jobs = jobs;
    sc->cap_jobs = cap;
    return FACET_OK;
}

static facet_status job_open(const scheduler_request *r, job **out, facet_error *err)
{
    job *j = mem_calloc(1, sizeof *j);
    if (!j) return error_memory(err, "a generation", sizeof *j);
    j->wish = r->wish;
    j->done = r->done;
    j->done_ud = r->done_ud;
    facet_status status = FACET_OK;
    if ((j->prompt = mem_resize_array(NULL, r->n_prompt, sizeof *j->prompt)))
        memcpy(j->prompt, r->prompt, r->n_prompt * sizeof *j->prompt);
    else
        status = error_memory(err, "a prompt", r->n_prompt * sizeof *j->prompt);
    if (status == FACET_OK)
        status = generation_open(r->session, j->prompt, r->n_prompt, &r->sampling, &r->params, NULL, &j->g, err);
    if (status == FACET_OK) {
        generation_watch(j->g, r->on_drafts, r->done_ud);
        *out = j;
    } else {
        job_close(j);
    }
    return status;
}

facet_status scheduler_add(scheduler *sc, const scheduler_request *r, facet_error *err)
{
    job *j = NULL;
    FACET_TRY(check_request(sc, r, err));
    FACET_TRY(grow(sc, err));
    FACET_TRY(job_open(r, &j, err));
    sc->jobs[sc->n_jobs++] = j;
    return FACET_OK;
}

/* ---- a step ---- */

static void fail(job *j, facet_status status)
{
    j->status = status;
    j->part = NULL;
    generation_abandon(j->g);
}

/* What the job wants to run, as far as there is room. */
static void plan_job(job *j, int max_rows, int max_out, room *left)
{
    facet_error err;
    const facet_status status = generation_plan(j->g, max_rows, max_out, &j->part, &err);
    if (status != FACET_OK) {
        j->err = err;
        fail(j, status);
    } else if (j->part) {
        left->rows -= j->part->n;
        left->out -= j->part->n_out;
        left->parts--;
    }
}

static bool is_live(const job *j)
{
    return j->status == FACET_OK && !generation_is_over(j->g);
}

/* What the texts wish; those that are to end fail. */
static void ask(scheduler *sc, int n)
{
    for (int i = 0; i < n; i++) {
        job *j = sc->jobs[i];
        const scheduler_wish wish = j->wish ? j->wish(j->done_ud) : SCHEDULER_RUN;
        j->part = NULL;
        j->may_run = wish == SCHEDULER_RUN;
        if (wish == SCHEDULER_END) fail(j, error_set(&j->err, FACET_ERR_CANCELLED, "cancelled"));
    }
}

static bool wants_rows(const job *j, bool is_prefill)
{
    return j->may_run && is_live(j) && generation_is_prefill(j->g) == is_prefill;
}

/* Everyone that decodes gets one row, and an equal share of what is left for drafts. */
static void plan_decoding(scheduler *sc, int n, room *left)
{
    int n_waiting = 0;
    for (int i = 0; i < n; i++) n_waiting += wants_rows(sc->jobs[i], false);
    for (int i = 0; i < n && n_waiting > 0 && left->parts > 0 && left->out > 0; i++) {
        job *j = sc->jobs[(sc->turn + i) % n];
        if (!wants_rows(j, false)) continue;
        const int share = left->out / n_waiting > 1 ? left->out / n_waiting : 1;
        plan_job(j, share, share, left);
        n_waiting--;
    }
}

static void plan_prompts(scheduler *sc, int n, int most, room *left)
{
    if (left->rows > most) left->rows = most;
    for (int i = 0; i < n && left->parts > 0 && left->out > 0 && left->rows > 0; i++)
        if (wants_rows(sc->jobs[i], true)) plan_job(sc->jobs[i], left->rows, 1, left);
}

/* Puts the planned parts together. Returns how many there are. */
static int gather(scheduler *sc, int n)
{
    int n_parts = 0;
    engine_step_begin(sc->engine);
    for (int i = 0; i < n; i++) {
        job *j = sc->jobs[i];
        if (!j->part) continue;
        facet_error err;
        const facet_status status = session_add(generation_session(j->g), j->part, &err);
        if (status == FACET_OK) {
            n_parts++;
        } else {
            j->err = err;
            fail(j, status);
        }
    }
    return n_parts;
}

static void run(scheduler *sc, int n, int n_parts)
{
    facet_error err;
    const uint64_t t0 = clock_ns();
    const facet_status run_status = engine_step_run(sc->engine, NULL, &err);
    const double ms = (double)(clock_ns() - t0) * 1e-6 / sc->engine->step.n_rows;
    for (int i = 0; i < n; i++) {
        job *j = sc->jobs[i];
        if (!j->part) continue;
        facet_status status = run_status;
        if (status == FACET_OK) status = generation_read(j->g, ms * j->part->n, n_parts > 1, &err);
        if (status == FACET_OK) continue;
        j->err = err;
        fail(j, status);
    }
}

/* Hands the tokens out. Callbacks may add jobs at the end of the list. */
static void take(scheduler *sc, int n)
{
    for (int i = 0; i < n; i++) {
        job *j = sc->jobs[i];
        facet_error err;
        if (!j->part) continue;
        j->part = NULL;
        const facet_status status = generation_take(j->g, &err);
        if (status == FACET_OK) continue;
        j->err = err;
        fail(j, status);
    }
}

static void end(job *j)
{
    facet_generate_result result = {0};
    if (j->status == FACET_OK) generation_result(j->g, &result);
    generation_close(j->g);
    j->g = NULL;
    if (j->done) j->done(j->done_ud, j->status, &result, j->status == FACET_OK ? NULL : &j->err);
    job_close(j);
}

/* Takes what ended out of the list first: done may add texts, also to the same session. */
static void sweep(scheduler *sc)
{
    for (int i = 0; i < sc->n_jobs;) {
        job *j = sc->jobs[i];
        if (is_live(j)) {
            i++;
            continue;
        }
        memmove(&sc->jobs[i], &sc->jobs[i + 1], (size_t)(sc->n_jobs - i - 1) * sizeof(job *));
        sc->n_jobs--;
        end(j);
    }
}

int scheduler_step(scheduler *sc)
{
    const int n = sc->n_jobs; /* callbacks may add more */
    room left = {ENGINE_MAX_ROWS, ENGINE_MAX_OUT, ENGINE_MAX_PARTS};
    ask(sc, n);
    plan_decoding(sc, n, &left);
    plan_prompts(sc, n, left.rows < ENGINE_MAX_ROWS ? sc->prompt_rows : ENGINE_MAX_ROWS, &left);
    const int n_parts = gather(sc, n);
    if (n_parts) {
        run(sc, n, n_parts);
        take(sc, n);
    }
    if (n) sc->turn++;
    sweep(sc);
    return sc->n_jobs;
}
