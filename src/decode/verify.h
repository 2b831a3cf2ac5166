/* verify.h: the verification of drafts, one loop for chains, trees and plain steps (a chain without drafts): the rows
 * [pending token, drafts] go through the target; what it would have chosen itself decides how far the drafts hold.
 * Exact at any temperature: at each accepted row the target's own choice is made, by argmax or by a draw that depends
 * on the seed and the position alone, and a draft holds iff it equals that choice: with a one-hot proposal, rejection
 * sampling (Leviathan et al. 2023, arXiv:2211.17192) accepts draft t with probability p(t) and otherwise leaves a draw
 * from p given "not t", which is what comparing t with one draw from p does. */
#ifndef FACET_DECODE_VERIFY_H
#define FACET_DECODE_VERIFY_H

#include "decode/logprobs.h"
#include "decode/sampler.h"
#include "decode/session.h"
#include "grammar/constraint.h"

/* What is to be verified: a chain of n drafts, or a tree of n nodes, after the pending token. */
typedef struct proposal {
    int n;
    bool is_tree, has_conf;
    int32_t token[DRAFT_TREE_MAX_NODES]; /* chain */
    float conf[DRAFT_TREE_MAX_NODES];    /* chain: the drafter's probability of each; tree: weights of the nodes */
    draft_tree tree;                     /* its root is the pending token */
    int32_t rows[DRAFT_TREE_MAX_ROWS];   /* chain: what verify_part makes of it */
} proposal;

/* Where target tokens come from. logits [n_vocab] is scratch. */
typedef struct chooser {
    sampler *sampler;
    float *logits;
    const struct made_up *made_up; /* NULL but for benches */
    constraint *constraint;        /* NULL = every token is allowed; its point 0 is after the session's tokens */
    logprobs *log;                 /* notes the choice after entry i of the path at i; NULL: nobody wants to know */
} chooser;

/* Acceptance by decree, so that speculation can be timed where the weights are random and no draft would hold:
 * draft j of a step holds iff accept[j] > u, with one u per step that depends on seed and position. */
typedef struct made_up {
    int n; /* drafts beyond never hold */
    float accept[DRAFT_TREE_MAX_NODES];
    uint64_t seed;
} made_up;

typedef struct verdict {
    uint64_t run;             /* the engine's step whose outputs it is about */
    uint64_t n_drops;         /* the engine's then */
    int first_row, first_out; /* where its rows begin in that step */
    int n_path;               /* rows that hold, that of the pending token included */
    uint8_t path[DRAFT_TREE_MAX_ROWS];
    int32_t token[DRAFT_TREE_MAX_ROWS];  /* of the row path[i] */
    int32_t choice[DRAFT_TREE_MAX_ROWS]; /* the target's token after it; equals token[i + 1] but for the last */
} verdict;

/* The confidences of a drafter that knows the decree: what is drafted by random weights says nothing about them. */
void made_up_confidences(const made_up *m, proposal *p);

/* The target's choice after the session's last token. */
facet_status verify_first(facet_session *s, const chooser *c, int32_t *out, facet_error *err);
/* Drops the drafts that the constraint forbids, and what follows them. */
facet_status verify_cut(const chooser *c, int32_t pending, proposal *p, facet_error *err);
/* The rows as a part of a step; *p must live until the step was run. Makes room in the session. */
facet_status verify_part(facet_session *s, int32_t pending, proposal *p, engine_part *out, facet_error *err);
/* After the step: what holds; the constraint's point i + 1 is after row i of the path. The session's content is
 * unchanged until verify_commit; after a failure (of the step, too) verify_abandon gives the rows back. */
facet_status verify_read(facet_session *s, const chooser *c, int32_t pending, const proposal *p,
                         const engine_part *part, verdict *out, facet_error *err);
void verify_abandon(facet_session *s);
/* Keeps the first m rows of the path (1 .. n_path): tokens, cache, the drafter's context; drops the rest. *n_moves gets
 * the rows that were moved in the cache. The engine may have run other steps since: then the outputs are gone, and
 * the rows that are kept are evaluated again. */
facet_status verify_commit(facet_session *s, const verdict *v, int m, int *n_moves, facet_error *err);

#endif
