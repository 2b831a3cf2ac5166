/* engine.h: a backend with a compiled target plan and those of its drafters, the page pool, and the buffers of one
 * step. */
#ifndef FACET_DECODE_ENGINE_H
#define FACET_DECODE_ENGINE_H

#include "compute/backend.h"
#include "decode/draft_control.h"
#include "decode/draft_tree.h"
#include "model/drafter.h"

enum { ENGINE_MAX_ROWS = 512, ENGINE_MAX_OUT = 64, ENGINE_MAX_PARTS = 64 };

/* The rows of one sequence in a step of the target: a chain or a draft tree. */
typedef struct engine_part {
    kv_seq *seq;
    int32_t start;          /* position of the first row */
    int32_t prompt_end;     /* rows of a prompt: where it ends (sparse attention); 0 = generated tokens */
    int n, n_out;           /* rows, and how many of the last of them are wanted (a tree: all) */
    const int32_t *tokens;  /* [n] of a chain */
    const draft_tree *tree; /* NULL: a chain; else node j lies in slot start + j */
    /* set by engine_step_add: where its rows and its wanted rows begin among those of the step */
    int first_row, first_out;
    int first_copy, n_copies;
} engine_part;

/* A step of the target that is being put together. */
typedef struct engine_step {
    int n_parts, n_rows, n_out, n_copies;
    bool has_tree;
    engine_part *part[ENGINE_MAX_PARTS];
    batch_seq view[ENGINE_MAX_PARTS];
    int32_t out_row[ENGINE_MAX_OUT];
} engine_step;

/* A plan, made ready. */
typedef struct engine_plan {
    int max_rows, max_out;
    plan *plan;
    compiled *compiled;
} engine_plan;

/* What is parked (park.h), and the pages that lie in host memory meanwhile. */
typedef struct engine_parking {
    unsigned parked; /* PARK_... bits */
    bool is_auto;
    uint64_t id[WEIGHT_MAX_PARTS]; /* identity.h, of what is parked */
    struct parked_pages {
        bool is_away;   /* the device has no memory for the group */
        int32_t *pages; /* [n], or NULL: dropped */
        uint8_t *bytes; /* kv_group_page_bytes each */
        int32_t n;
        size_t n_bytes;
    } group[KV_MAX_GROUPS];
} engine_parking;

struct facet_engine {
    facet_model *model;
    backend *be;
    weight *weights; /* of the target, then of the drafters */
    int n_weights;
    plan *plan; /* the target's */
    compiled *compiled;
    drafter *mtp, *dflash;     /* borrowed; NULL = none */
    int mtp_part, dflash_part; /* of the weights */
    engine_plan mtp_step, dflash_inject, dflash_block;
    int tap_value[MAX_CAPTURES];                 /* the target's values that the DFlash drafter reads */
    int capture_value[MAX_CAPTURES], n_captures; /* and those that the caller asked for */
    kv_desc kv;
    kv_pool *pool;
    int32_t n_ctx;
    bool can_leave_out;    /* the backend: batch_seq.begin */
    float *spare_features; /* of a session that was closed, for the next one (draft_feed.h) */
    draft_control control; /* what drafting costs here, and how well it goes */
    bool has_control;
    uint64_t n_runs; /* steps of the target so far: outputs can be read until the next one */
    sparse_stats sparse;
    uint64_t n_drops; /* times that all pages were given up (FACET_PARK_KV_DROP) */
    engine_parking parking;
    facet_session *sessions;      /* all of them, in no order */
    struct snapshot_slots *slots; /* NULL: none was ever used */
    struct prefix_cache *prefix;  /* NULL: prompts are not reused */
    uint64_t model_id, dflash_id; /* identity.h; 0 = not looked at yet, or no drafter */
    /* buffers of one step */
    engine_step step;
    int32_t token[ENGINE_MAX_ROWS], pos[ENGINE_MAX_ROWS], slot[ENGINE_MAX_ROWS], seq[ENGINE_MAX_ROWS];
    uint8_t path[ENGINE_MAX_ROWS][DRAFT_TREE_MAX_ROWS];
    kv_copy copies[KV_MAX_GROUPS * (ENGINE_MAX_ROWS / KV_PAGE_LEN + 2 * ENGINE_MAX_PARTS)];
};

/* One step of the target over the rows of several sequences: begin, add each part, run. Nothing else may use the engine
 * in between. The parts and what they point to must live until the run. engine_step_add reserves pages; on
 * FACET_ERR_LIMIT (pages) and FACET_ERR_ARG (a token) nothing has changed, and the step goes on without the part. A
 * step holds ENGINE_MAX_PARTS parts, ENGINE_MAX_ROWS rows, ENGINE_MAX_OUT wanted rows. A row has the same bits whatever
 * other parts there are. */
void engine_step_begin(facet_engine *e);
facet_status engine_step_add(facet_engine *e, engine_part *part, facet_error *err);
/* op_ms: gets the milliseconds of each op of the plan, where not NULL. */
facet_status engine_step_run(facet_engine *e, double *op_ms, facet_error *err);

/* Evaluates tokens at positions [start, start + n), n <= ENGINE_MAX_ROWS, of one sequence; the last n_out rows (<=
 * ENGINE_MAX_OUT) are wanted. Their values can then be read at rows 0 .. n_out - 1. For sparse attention they count as
 * generated tokens where it is on for these, else as those of a prompt without an end. */
facet_status engine_eval(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                         facet_error *err);

/* engine_eval, and the milliseconds of each op of the plan. */
facet_status engine_eval_timed(facet_engine *e, kv_seq *s, const int32_t *tokens, int32_t start, int n, int n_out,
                               double *op_ms, facet_error *err);

/* kv_seq_reserve; where the pool has no pages left, cached prompts are forgotten first. The message of a failure tells
 * about snapshots. */
facet_status engine_reserve(facet_engine *e, kv_seq *s, int32_t begin, int32_t end, int *n_copies, facet_error *err);
/* The target's plan, and those of its drafters that are there, made ready; all of them given back. */
facet_status engine_compile(facet_engine *e, facet_error *err);
void engine_release(facet_engine *e);

/* Page tables of a sequence as a batch wants them. */
batch_seq engine_view(const facet_engine *e, const kv_seq *s, int32_t base, int32_t end);

#endif
