/* engine_draft.h: the drafters' plans on the engine's backend: what runs on the device between two steps of the target.
 * Hidden states and features go from plan to plan there; the host gets token ids and probabilities. */
#ifndef FACET_DECODE_ENGINE_DRAFT_H
#define FACET_DECODE_ENGINE_DRAFT_H

#include "decode/engine.h"

enum { ENGINE_MTP_MAX = 16, ENGINE_TOP_K = DRAFT_TREE_RANKS };

/* What the drafters' parameters are judged by before anything is loaded. */
facet_status engine_draft_check(const facet_engine_params *p, facet_error *err);
/* Makes the plans of the engine's drafters. engine_draft_close also after a failure. */
facet_status engine_draft_open(facet_engine *e, const facet_engine_params *p, facet_error *err);
void engine_draft_close(facet_engine *e);
/* Makes those of one drafter ready (PARK_MTP or PARK_DFLASH; nothing to do without it), and gives those of several
 * back. */
facet_status engine_draft_compile(facet_engine *e, unsigned part, facet_error *err);
void engine_draft_release(facet_engine *e, unsigned parts);

/* Tokens from a drafter, with probabilities: row j belongs to the j-th position after the pending token; column 0 is
 * its best token. */
typedef struct draft_rows {
    int n, n_top;
    int32_t token[DRAFT_TREE_MAX_NODES][PLAN_MAX_TOPK];
    float logp[DRAFT_TREE_MAX_NODES][PLAN_MAX_TOPK];
} draft_rows;

/* MTP: a chain of k tokens after `pending`, which will stand at position `base`; the target's hidden of position base -
 * 1 lies in row out_row of its wanted rows. With p_min > 0 the chain ends before a token whose share of the ten best is
 * smaller. */
typedef struct draft_chain {
    int32_t pending, base;
    int out_row, k;
    float p_min;
    facet_mtp_pos pos;
} draft_chain;
facet_status engine_draft_mtp(facet_engine *e, const kv_seq *s, const draft_chain *c, draft_rows *out,
                              facet_error *err);

/* DFlash: marginals of the k positions after `pending` (k < block size), which will stand at position `base`; the
 * drafter sees its context from position `begin` on. Reserves pages for them. */
typedef struct draft_block {
    int32_t pending, base, begin;
    int k;
} draft_block;
facet_status engine_draft_block(facet_engine *e, kv_seq *s, const draft_block *b, draft_rows *out, facet_error *err);

/* DFlash, while it is not parked: rows of the target's last step enter the drafter's context: rows[i] (NULL: i) as
 * position start + i, n >= 1 of them. */
facet_status engine_draft_inject(facet_engine *e, const kv_seq *s, const int32_t *rows, int n, int32_t start,
                                 facet_error *err);
/* The same in three parts: the features [n_taps * n_embd] of one row are read; n rows of them are given back, to stand
 * at row `at`; and rows 0 .. n - 1 enter as positions start .. */
facet_status engine_draft_features(facet_engine *e, int row, float *out, facet_error *err);
facet_status engine_draft_put_features(facet_engine *e, int at, int n, const float *features, facet_error *err);
facet_status engine_draft_take_features(facet_engine *e, const kv_seq *s, int n, int32_t start, facet_error *err);

#endif
