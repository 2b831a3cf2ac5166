#include "decode/verify.h"

#include <string.h>

#include "base/rng.h"

/* Point of the constraint that nobody uses. */
enum { SPARE_POINT = CONSTRAINT_POINTS - 1 };

static facet_status is_allowed(const chooser *c, int point, int32_t token, bool *out, facet_error *err)
{
    *out = true;
    return c->constraint ? constraint_advance(c->constraint, point, token, SPARE_POINT, out, err) : FACET_OK;
}

/* A token of the path, which was chosen under the constraint. */
static facet_status advance(const chooser *c, int from, int32_t token, facet_error *err)
{
    bool holds;
    FACET_TRY(constraint_advance(c->constraint, from, token, from + 1, &holds, err));
    return holds ? FACET_OK : error_set(err, FACET_ERR_ARG, "token %d is not one that the grammar allows here", token);
}

/* From c->logits, of which the constraint leaves what it allows at the point. `history` tokens precede the one that is
 * chosen; they stand in s->tokens. i: the entry of the path that it follows. */
static facet_status pick(facet_session *s, const chooser *c, int i, int point, int32_t n_history, int32_t *out,
                         facet_error *err)
{
    if (c->log) memcpy(c->log->raw, c->logits, (size_t)c->log->n_vocab * sizeof *c->logits);
    if (c->constraint) FACET_TRY(constraint_apply(c->constraint, point, c->logits, err));
    FACET_TRY(sampler_pick(c->sampler, c->logits, s->tokens, (size_t)n_history, out, err));
    if (c->log) logprobs_note(c->log, i, *out);
    return FACET_OK;
}

/* Row r of the engine's wanted values. */
static facet_status choose(facet_session *s, const chooser *c, int row, int i, int point, int32_t n_history,
                           int32_t *out, facet_error *err)
{
    facet_engine *e = s->engine;
    FACET_TRY(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, row, 1, c->logits, err));
    return pick(s, c, i, point, n_history, out, err);
}

/* The logits need not be read. */
static bool is_argmax_enough(const chooser *c)
{
    return sampler_is_argmax(c->sampler) && !c->log;
}

/* Where the best token of all is allowed, it is also the best of the allowed ones. */
facet_status verify_first(facet_session *s, const chooser *c, int32_t *out, facet_error *err)
{
    bool holds = false;
    if (is_argmax_enough(c)) {
        FACET_TRY(session_argmax(s, out, err));
        FACET_TRY(is_allowed(c, 0, *out, &holds, err));
    }
    if (holds) return FACET_OK;
    FACET_TRY(facet_session_logits(s, c->logits, err));
    return pick(s, c, 0, 0, s->n_tokens, out, err);
}

static facet_status cut_chain(const chooser *c, proposal *p, facet_error *err)
{
    bool holds = true;
    for (int i = 0; i < p->n; i++) {
        FACET_TRY(constraint_advance(c->constraint, i + 1, p->token[i], i + 2, &holds, err));
        if (!holds) p->n = i;
    }
    return FACET_OK;
}

/* Node i of the tree at point i + 1; a node without its parent's point has none either. */
static facet_status cut_tree(const chooser *c, proposal *p, facet_error *err)
{
    uint64_t kept = 1;
    int n = 0;
    for (int i = 1; i < p->tree.n_rows; i++) {
        bool holds = kept >> p->tree.parent[i] & 1;
        if (holds)
            FACET_TRY(constraint_advance(c->constraint, p->tree.parent[i] + 1, p->tree.token[i], i + 1, &holds, err));
        if (!holds) continue;
        kept |= UINT64_C(1) << i;
        p->conf[n++] = p->conf[i - 1];
    }
    p->n = n;
    draft_tree_prune(&p->tree, kept);
    return FACET_OK;
}

facet_status verify_cut(const chooser *c, int32_t pending, proposal *p, facet_error *err)
{
    if (!c->constraint || p->n == 0) return FACET_OK;
    FACET_TRY(advance(c, 0, pending, err));
    return p->is_tree ? cut_tree(c, p, err) : cut_chain(c, p, err);
}

static int child_of(const proposal *p, int row, int32_t token)
{
    if (p->is_tree) return draft_tree_child(&p->tree, row, token);
    return row < p->n && p->token[row] == token ? row + 1 : -1;
}

/* The token after path entry i by decree: that of the row's first child, or one that is no child's. */
static int32_t decree(const facet_session *s, const made_up *m, const proposal *p, int i, int row, int32_t token)
{
    const bool holds = i < m->n && (double)m->accept[i] > rng_uniform_at(m->seed, s->n_tokens, 0);
    int child = row + 1;
    while (p->is_tree && child < p->tree.n_rows && p->tree.parent[child] != row) child++;
    if (holds && child <= p->n) return p->is_tree ? p->tree.token[child] : p->token[child - 1];
    while (child_of(p, row, token) >= 0) token = (token + 1) % (int32_t)s->engine->model->h.n_vocab;
    return token;
}

static float decreed(const made_up *m, int depth)
{
    return depth == 0 ? 1 : depth <= m->n ? m->accept[depth - 1] : 0;
}

void made_up_confidences(const made_up *m, proposal *p)
{
    const float little = 0.01f; /* of nodes that are not their parent's first child, which never hold */
    for (int i = 0; i < p->n && p->has_conf; i++) {
        if (!p->is_tree) {
            const float before = decreed(m, i);
            p->conf[i] = before > 0 ? decreed(m, i + 1) / before : 0;
            continue;
        }
        int first = p->tree.parent[i + 1] + 1;
        while (p->tree.parent[first] != p->tree.parent[i + 1]) first++;
        p->conf[i] = decreed(m, p->tree.depth[i + 1]) * (first == i + 1 ? 1 : little);
    }
}

facet_status verify_read(facet_session *s, const chooser *c, int32_t pending, const proposal *p,
                         const engine_part *part, verdict *out, facet_error *err)
{
    facet_engine *e = s->engine;
    const bool is_greedy = is_argmax_enough(c);
    int32_t best[ENGINE_MAX_OUT];
    if (is_greedy)
        FACET_TRY(e->be->ops->read(e->be, e->compiled, e->plan->v_argmax, part->first_out, p->n + 1, best, err));
    out->run = e->n_runs;
    out->n_drops = e->n_drops;
    out->first_row = part->first_row;
    out->first_out = part->first_out;
    out->n_path = 0;
    int32_t token = pending;
    for (int row = 0; row >= 0;) {
        const int i = out->n_path++;
        out->path[i] = (uint8_t)row;
        out->token[i] = s->tokens[s->n_tokens + i] = token; /* the history of the choices further down the path */
        bool is_best = is_greedy;
        out->choice[i] = token;
        if (c->constraint) FACET_TRY(advance(c, i, token, err));
        if (c->constraint && constraint_is_over(c->constraint, i + 1)) break; /* what would follow does not matter */
        if (is_greedy && best[row] >= 0) FACET_TRY(is_allowed(c, i + 1, best[row], &is_best, err));
        if (is_best)
            token = best[row];
        else
            FACET_TRY(choose(s, c, part->first_out + row, i, i + 1, s->n_tokens + i + 1, &token, err));
        if (c->made_up) token = decree(s, c->made_up, p, i, row, token);
        if (token < 0)
            return error_set(err, FACET_ERR_NUMERIC, "non-finite logits after token %d: the model file may be damaged",
                             s->n_tokens + i);
        out->choice[i] = token;
        row = child_of(p, row, token);
    }
    return FACET_OK;
}

facet_status verify_part(facet_session *s, int32_t pending, proposal *p, engine_part *out, facet_error *err)
{
    const int n = p->n + 1;
    FACET_TRY(session_reserve(s, (size_t)s->n_tokens + (size_t)n, err));
    p->rows[0] = pending;
    for (int i = 0; i < p->n && !p->is_tree; i++) p->rows[i + 1] = p->token[i];
    *out = (engine_part){.seq = &s->kv,
                         .start = s->n_tokens,
                         .n = n,
                         .n_out = n,
                         .tokens = p->rows,
                         .tree = p->is_tree ? &p->tree : NULL};
    return FACET_OK;
}

void verify_abandon(facet_session *s)
{
    kv_seq_truncate(s->engine->pool, &s->kv, s->n_tokens);
}

/* Brings the keys of the path to the slots of their positions. */
static facet_status compact(facet_session *s, const verdict *v, int m, int *n_moves, facet_error *err)
{
    facet_engine *e = s->engine;
    draft_move moves[DRAFT_TREE_MAX_ROWS];
    struct batch_move batch_moves[DRAFT_TREE_MAX_ROWS];
    *n_moves = draft_tree_moves(v->path, m, s->n_tokens, moves);
    if (*n_moves == 0) return FACET_OK;
    for (int i = 0; i < *n_moves; i++) batch_moves[i] = (struct batch_move){0, moves[i].src, moves[i].dst};
    const batch_seq view = engine_view(e, &s->kv, s->n_tokens, s->n_tokens + m);
    const batch in = {.n_seqs = 1, .seqs = &view, .n_moves = *n_moves, .moves = batch_moves};
    return e->be->ops->move(e->be, &in, err);
}

facet_status verify_commit(facet_session *s, const verdict *v, int m, int *n_moves, facet_error *err)
{
    int32_t rows[DRAFT_TREE_MAX_ROWS];
    *n_moves = 0;
    FACET_TRY(session_check_content(s, v->n_drops, err));
    if (v->run != s->engine->n_runs) {
        kv_seq_truncate(s->engine->pool, &s->kv, s->n_tokens);
        return session_append(s, v->token, (size_t)m, err);
    }
    for (int i = 0; i < m; i++) rows[i] = v->first_row + v->path[i];
    facet_status status = compact(s, v, m, n_moves, err);
    if (status == FACET_OK) status = session_commit(s, v->token, rows, m, v->first_out + v->path[m - 1], err);
    kv_seq_truncate(s->engine->pool, &s->kv, s->n_tokens);
    return status;
}
