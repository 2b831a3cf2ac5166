/* graph.h: the steps that the plans of the three models have in common. Private to the plan builders.
 *
 * Each function appends one op and returns its output value; `name` and the layer (-1: none) name it. They never fail
 * visibly: plan_finish reports. */
#ifndef FACET_MODEL_GRAPH_H
#define FACET_MODEL_GRAPH_H

#include "model/weights.h"

typedef struct graph {
    plan *p;
    const weights *w;
    int first; /* the plan knows weight i of w as first + i (drafter_join_weights) */
    float eps;
    row_set rows; /* of the values made now */
} graph;

int graph_value(const graph *g, uint32_t width, const char *name, int layer);
/* Index of a weight in the plan; -1 stays -1. */
int graph_weight(const graph *g, int w);

/* Rows of w for the tokens in value ids, -1: the batch's. */
int graph_embed(const graph *g, int w, int ids, float scale, const char *name);
int graph_norm(const graph *g, int x, int w, uint32_t width, const char *name, int layer);
/* (residual + rms(x; w)) * scale */
int graph_norm_add(const graph *g, int x, int residual, int w, uint32_t width, float scale, const char *name,
                   int layer);
int graph_add(const graph *g, int x, int y, float scale, uint32_t width, const char *name, int layer);
int graph_linear(const graph *g, int x, int w, const char *name, int layer);
/* act(gate x) * (up x) */
int graph_gated(const graph *g, int x, int gate, int up, op_activation act, const char *name, int layer);
int graph_concat(const graph *g, int x, int y, uint32_t width, const char *name);
int graph_gather(const graph *g, int x, uint32_t width, const char *name, int layer); /* ROWS_OUT */
int graph_capture(const graph *g, int x, uint32_t width, const char *name, int layer);

/* Makes a value readable. Returns it. */
int graph_output(const graph *g, int v);
/* The head's logits, an output when asked for; sets v_logits when it is. */
int graph_logits(const graph *g, int x, int w, float softcap, bool is_output);
/* The best of logits; sets v_top_ids and v_top_logp. */
void graph_top_k(const graph *g, int logits, int k, float temp);

/* How the heads of a layer turn. divisors [head_dim / 2]: of the frequencies, 1e20 and more meaning "does not turn";
 * NULL: `turning` pairs turn. */
typedef struct rotation {
    int head_dim, n_rot;
    const double *inv_freq; /* kept by the plan */
} rotation;
rotation graph_rotation(const graph *g, int head_dim, double base, const float *divisors, int turning);
void graph_rotate(plan_op *op, const rotation *r);

#endif
