/* state.h: where in a grammar a text stands, and how bytes lead on.
 *
 * A state is a set of configurations (node, frame, count): a place in a rule, who called the rule, and how many passes
 * there were of a loop. A frame is a set of places to return to, each with its own frame: the stacks of all readings of
 * the text at once, shared where they agree (graph-structured stack: Tomita 1985; one frame per rule and position, as
 * in Scott and Johnstone 2010), so that an ambiguous grammar costs polynomial time, never exponential. A call at the
 * end of a rule leaves no frame behind, so that right recursion does not grow.
 *
 * States and frames are kept once each and are named by numbers: equal places of a text are the same number, a copy is
 * an assignment, and going back is keeping the old number. Transitions are found once and then looked up: a machine
 * that writes its own table. Nothing here knows tokens. */
#ifndef FACET_GRAMMAR_STATE_H
#define FACET_GRAMMAR_STATE_H

#include "grammar/grammar.h"

enum { STATE_DEAD = 0 }; /* no text leads on, and the text may not end */

typedef struct config {
    int32_t node, frame, count;
} config;

/* Part of the machine's pool of configurations. */
typedef struct config_span {
    uint32_t first, n;
} config_span;

typedef struct machine_state {
    config_span core;   /* sorted: what was reached, before rules are called */
    config_span active; /* all that reads a byte next */
    uint64_t hash;
    int32_t local; /* index of its context-independent tokens (mask.c), -1 = not known */
    bool is_final; /* the text may end here */
} machine_state;

typedef struct machine_frame {
    config_span links; /* sorted: where to return to */
    uint64_t hash;
    int32_t pop; /* the state after returning, -1 = not known */
} machine_frame;

typedef struct hash_index {
    int32_t *slots; /* -1 = free */
    size_t mask;    /* slots - 1, a power of two */
} hash_index;

typedef struct config_list {
    config *items;
    uint32_t n, cap;
} config_list;

/* A call that waits until all callers of its rule are known. */
typedef struct pending_call {
    int32_t rank, rule;
    config link;
} pending_call;

typedef struct machine {
    const grammar *g; /* borrowed */
    config_list pool;
    machine_state *states;
    machine_frame *frames; /* frame 0: the end of the text */
    int32_t n_states, cap_states, n_frames, cap_frames;
    int32_t *next; /* [n_states, g->n_classes]; -1 = not known */
    hash_index by_core, by_links;
    size_t max_bytes; /* that states may take; above: FACET_ERR_LIMIT */
    uint64_t work;    /* configurations that may still be looked at; at 0: FACET_ERR_LIMIT */
    int32_t start;
    /* scratch */
    config_list set, active, links;
    hash_index seen; /* of set */
    pending_call *calls;
    uint32_t n_calls, cap_calls;
    int32_t *stack;    /* nodes */
    uint32_t *node_at; /* [n_nodes] the last search that met it */
    uint32_t search;
} machine;

facet_status machine_open(const grammar *g, size_t max_bytes, machine **out, facet_error *err);
void machine_close(machine *m);
/* Memory that states take. */
size_t machine_bytes(const machine *m);

/* The state after one more byte. FACET_ERR_LIMIT when memory or work is used up, FACET_ERR_MEMORY: nothing changed but
 * what is remembered. */
facet_status machine_find_next(machine *m, int32_t state, int byte_class, int32_t *out, facet_error *err);
static inline facet_status machine_next(machine *m, int32_t state, int byte_class, int32_t *out, facet_error *err)
{
    const int32_t known = m->next[(size_t)state * (size_t)m->g->n_classes + (size_t)byte_class];
    if (known < 0) return machine_find_next(m, state, byte_class, out, err);
    *out = known;
    return FACET_OK;
}

/* The state after a return from the frame. */
facet_status machine_pop(machine *m, int32_t frame, int32_t *out, facet_error *err);
/* The state that has these configurations (of one frame) under these callers, innermost first, the last of which stands
 * in a text that ends where its rule ends: what it reads does not depend on who called that one. Counts are brought
 * down to the least ones that no text of max_bytes tells from them. */
facet_status machine_localise(machine *m, config_span span, const config *callers, int n_callers, int32_t max_bytes,
                              int32_t *out, facet_error *err);

/* Forgets all states but these [n], which get their new numbers, and the start. */
facet_status machine_compact(machine *m, int32_t *const *kept, size_t n, facet_error *err);

#endif
