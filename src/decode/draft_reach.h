/* draft_reach.h: how likely drafted tokens are to be accepted, learned from what was: the drafter's own confidences are
 * put into bins, and each bin's acceptance is counted. Counts fade (factor 0.98 per step that touches a bin), so the
 * estimates follow the text. */
#ifndef FACET_DECODE_DRAFT_REACH_H
#define FACET_DECODE_DRAFT_REACH_H

#include <stdint.h>

enum {
    DRAFT_REACH_MAX_ITEMS = 63, /* drafts of a chain, or nodes of a tree */
    DRAFT_REACH_DEPTHS = 16,    /* deeper positions share the last */
    DRAFT_REACH_BINS = 8,       /* of confidence; one more counts positions whatever their confidence */
    DRAFT_REACH_WEIGHT_BINS = 16
};

typedef struct draft_reach_count {
    double n, hits;
} draft_reach_count;

typedef struct draft_reach {
    /* Chains: acceptance of position j, given that the ones before it were accepted. */
    draft_reach_count at[DRAFT_REACH_DEPTHS][DRAFT_REACH_BINS + 1];
    draft_reach_count any_depth[DRAFT_REACH_BINS + 1];
    /* Trees: nodes of weight in (2^-(i+1), 2^-i]; n sums their weights, hits how many lay on the accepted path. */
    draft_reach_count weight[DRAFT_REACH_WEIGHT_BINS];
    /* Running means of the calibrated reach of the i-th item, for deciding before the next draft exists. */
    int n_mean;
    double mean[DRAFT_REACH_MAX_ITEMS];
} draft_reach;

/* Probability that draft `depth` (from 1) is accepted, if those before it were. conf in [0, 1]; negative = not known.
 * (hits + 2 m) / (n + 2), where m is the same for the bin over all depths, whose own m is 1/2 when the confidence is
 * not known (Beta(1, 1)), else the confidence: it is believed until two or three observations say otherwise. */
double draft_reach_accept(const draft_reach *r, int depth, float conf);

/* reach[i] = probability that drafts 1 .. i + 1 are all accepted. conf [n] or NULL. */
void draft_reach_of_chain(const draft_reach *r, const float *conf, int n, double *reach);
/* reach[i] = probability that node i + 1 lies on the accepted path: its weight [n], corrected by its bin
 * ((hits + 1) / (sum of weights + 1)), at most 1. */
void draft_reach_of_tree(const draft_reach *r, const float *weight, int n, double *reach);
/* Before drafting: the running means, halving beyond what was ever drafted; until something was drafted with
 * confidences, the chain without them. */
void draft_reach_expected(const draft_reach *r, int n, double *reach);

/* Notes the drafts of a step whether or not they were verified: conf [n] of a chain, or weights [n] of a tree's nodes.
 */
void draft_reach_note_chain(draft_reach *r, const float *conf, int n);
void draft_reach_note_tree(draft_reach *r, const float *weight, int n);

/* Counts a verified chain: n_verified drafts, the first n_accepted accepted. Positions after the first rejection say
 * nothing and are not counted. conf [n_verified] or NULL. */
void draft_reach_observe_chain(draft_reach *r, const float *conf, int n_verified, int n_accepted);
/* Counts a verified tree: weight [n] of nodes 1 .. n; path [n_path]: accepted rows, path[0] = 0 the root. Every node
 * counts: one that is not on the path was not reached. */
void draft_reach_observe_tree(draft_reach *r, const float *weight, int n, const uint8_t *path, int n_path);

/* Multiplies every count, so that new evidence weighs more. 0 <= factor <= 1. */
void draft_reach_age(draft_reach *r, double factor);

#endif
