/* server_engine.h: the thread that owns the engine: it takes texts from a bounded queue, runs as many as there are
 * places, all in the same steps (decode/scheduler.h), and hands their tokens out. Nobody else touches the engine. */
#ifndef FACET_SERVE_SERVER_ENGINE_H
#define FACET_SERVE_SERVER_ENGINE_H

#include <stdatomic.h>

#include "decode/generation.h"

typedef struct server_engine server_engine;
typedef struct server_text server_text;

/* What came of a text, or of its beginning. */
typedef struct text_report {
    facet_stop stop;
    int32_t n_prompt, n_cached, n_tokens;                   /* n_cached: of the prompt, not evaluated again */
    double queue_ms, prefill_ms, first_token_ms, decode_ms; /* first_token_ms: from the request on */
    facet_spec_stats spec;
} text_report;

/* All called by the engine's thread. */
typedef struct text_ops {
    bool (*may_run)(void *ud); /* false: it pauses, and is asked again when server_engine_wake was called */
    void (*on_start)(void *ud, const text_report *r); /* n_prompt, n_cached and queue_ms are known; before any token */
    /* A token with the text that became complete. False: the text ends here (FACET_STOP_CANCELLED), or goes on behind
     * what server_text_force was given. */
    bool (*on_token)(void *ud, int32_t token, const char *text, size_t n);
    /* Before on_token; NULL: nobody wants to know. params.n_logprobs tells how many. */
    void (*on_logprobs)(void *ud, int32_t token, float logprob, const facet_logprob *top, int n_top);
    void (*on_drafts)(void *ud, const generation_drafts *d); /* likewise */
    /* Exactly once for each text that was taken; it may be freed from then on, a leader once its followers may. err:
     * NULL with FACET_OK. */
    void (*on_done)(void *ud, facet_status status, const text_report *r, const facet_error *err);
} text_ops;

/* Zeroed, then filled in by the caller; borrowed until on_done. */
struct server_text {
    const int32_t *prompt; /* [n_prompt], n_prompt >= 1 */
    size_t n_prompt;
    int32_t n_predict; /* >= 0; prompt and text must fit the context */
    facet_sampling sampling;
    facet_generate_params params; /* stop texts, speculation, ignore_eos, show_special; the rest is the engine's */
    server_text *leader;          /* submitted with it, same prompt: it waits for that one's and shares its pages */
    const text_ops *ops;
    void *ud;
    /* the engine's */
    atomic_bool is_cancelled;
    server_engine *engine;
    server_text *next;
    int slot;
    bool has_begun, has_token, has_continued, is_over; /* has_begun: on_start was called */
    uint64_t submitted_at;
    int32_t *tokens; /* [n_tokens]: prompt, then what was generated */
    size_t n_tokens, cap_tokens;
    bool is_forced; /* server_text_force was called in this on_token */
    text_report report;
};

typedef struct server_engine_config {
    facet_engine *engine; /* borrowed; opened for n_parallel sessions, with reuse_prompts */
    int n_parallel;       /* texts that run at a time */
    int n_queue;          /* texts that wait at most */
    int prompt_rows;      /* of a step in which others decode; 0 = the scheduler's default */
} server_engine_config;

/* A session: a text that runs, or what is kept of the last one. */
typedef struct server_slot_state {
    bool is_busy, is_prefill;
    int32_t n_tokens; /* in the session's cache */
    int32_t n_prompt, n_generated;
} server_slot_state;

typedef struct server_engine_stats {
    int n_active, n_waiting, n_queue, n_parallel;
    uint64_t n_texts, n_failed, n_cancelled, n_refused; /* ended, in all and badly; not taken */
    uint64_t n_steps, n_prompt_tokens, n_cached_tokens, n_tokens;
    double prefill_ms, decode_ms;
    facet_spec_stats spec;
    int n_groups;
    int32_t pages[4], free_pages[4]; /* of each group of the cache */
    uint64_t prefix_bytes, prefix_budget, prefix_evictions;
    int prefix_entries; /* prompts that are kept beside the sessions */
} server_engine_stats;

facet_status server_engine_open(const server_engine_config *c, server_engine **out, facet_error *err);
/* Takes all n texts or none. FACET_ERR_LIMIT: the queue is full; FACET_ERR_CANCELLED: it was told to end. */
facet_status server_engine_submit(server_engine *e, server_text *const *texts, int n, facet_error *err);
/* Ends a text at the next step, also one that waits. From any thread, until on_done. */
void server_text_cancel(server_engine *e, server_text *t);
/* Something that may_run looks at has changed. */
void server_engine_wake(server_engine *e);
/* From on_token, which then returns false: the text goes on behind these tokens, as if the model had said them. */
facet_status server_text_force(server_text *t, const int32_t *tokens, size_t n, facet_error *err);

/* Takes nothing more. is_now: cancels what runs and waits. */
void server_engine_drain(server_engine *e, bool is_now);
void server_engine_stats_read(server_engine *e, server_engine_stats *out);
/* States of the first n slots. */
int server_engine_slots(server_engine *e, server_slot_state *out, int n);
/* Cancels what is left and waits for it; afterwards texts are refused. */
void server_engine_stop(server_engine *e);
void server_engine_close(server_engine *e); /* stops it first */

#endif
