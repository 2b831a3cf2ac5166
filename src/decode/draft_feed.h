/* draft_feed.h: what the DFlash drafter's context holds of a session. To feed it costs a little for every token of the
 * target, drafts or not. While nobody drafts by it, the features of the last tokens are only kept ("the tail"): a draft
 * that comes up feeds them first, many at once, which costs less; what fell out of the tail meanwhile is a gap, and the
 * drafter sees what lies behind it alone. */
#ifndef FACET_DECODE_DRAFT_FEED_H
#define FACET_DECODE_DRAFT_FEED_H

#include "compute/kv.h"
#include "facet.h"

enum {
    DRAFT_TAIL = 128,        /* positions whose features are kept */
    DRAFT_LEAST_CONTEXT = 64 /* positions behind a gap, without which the drafter is not asked */
};

/* Positions [begin, end) that the drafter's context lacks for good: their features are gone. begin == end: none. */
typedef struct draft_gap {
    int32_t begin, end;
} draft_gap;

typedef enum draft_feeding {
    DRAFT_FEED_NOW,  /* with every step */
    DRAFT_FEED_LATE, /* when a draft comes up, or the tail is full */
    DRAFT_FEED_REST  /* when a draft comes up; what falls out of the tail is lost */
} draft_feeding;

/* One session's. Zeroes at first. */
typedef struct draft_feed {
    draft_feeding feeding;
    draft_gap gap;
    /* Positions [begin, end) whose features wait, that of p in row p % DRAFT_TAIL; when there are any, end is the
     * session's length. */
    int32_t begin, end;
    float *features; /* [DRAFT_TAIL, taps * n_embd], owned; NULL until something waits */
    /* since the last draft_feed_cost */
    int n_fed;
    double fed_ms;
} draft_feed;

/* Cut to length n; what comes behind is another text. */
void draft_feed_cut(draft_feed *f, int32_t n);
/* Another text of n tokens with this gap. */
void draft_feed_reset(draft_feed *f, draft_gap gap, int32_t n);
void draft_feed_free(facet_session *s);
/* What others who share the session's pages must take for its gap: what waits is not there yet. */
draft_gap draft_feed_gap(const draft_feed *f);

/* How to go on. Where the backend cannot leave keys out, contexts have no gaps: all is fed now. */
void draft_feed_set(facet_session *s, draft_feeding feeding);
/* Rows of the target's last step, which the session is about to make its own as positions n_tokens ..: rows[i] (NULL:
 * i), n of them. */
facet_status draft_feed_rows(facet_session *s, const int32_t *rows, int n, facet_error *err);
/* Before a draft: feeds what waits. */
facet_status draft_feed_catch_up(facet_session *s, facet_error *err);
/* Positions that wait; *least of them must be fed before a draft, at least. */
int draft_feed_lag(const facet_session *s, int *least);
/* Of the positions that wait, the last n at most are kept. */
void draft_feed_shorten(facet_session *s, int n);
/* False while the drafter would see positions that its context lacks, or too few. */
bool draft_feed_has_context(const facet_session *s);
/* Positions fed since the last call, and the time that it took. */
int draft_feed_cost(facet_session *s, double *ms);

#endif
