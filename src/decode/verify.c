#include "decode/verify.h"

#include "base/rng.h"

/* Row r of the engine's wanted values. `history` tokens precede the one that is chosen; they stand in s->tokens. */
static facet_status choose(facet_session *s, const chooser *c, int row, int32_t n_history, int32_t *out,
                           facet_error *err)
{
    facet_engine *e = s->engine;
    FACET_TRY(e->be->ops->read(e->be, e->compiled, e->plan->v_logits, row, 1, c->logits, err));
    return sampler_pick(c->sampler, c->logits, s->tokens, (size_t)n_history, out, err);
}

facet_status verify_first(facet_session *s, const chooser *c, int32_t *out, facet_error *err)
{
    if (sampler_is_argmax(c->sampler)) return session_argmax(s, out, err);
    FACET_TRY(facet_session_logits(s, c->logits, err));
    return sampler_pick(c->sampler, c->logits, s->tokens, (size_t)s->n_tokens, out, err);
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
    const bool is_greedy = sampler_is_argmax(c->sampler);
    int32_t best[ENGINE_MAX_OUT];
    if (is_greedy)
        FACET_TRY(e->be->ops->read(e->be, e->compiled, e->plan->v_argmax, part->first_out, p->n + 1, best, err));
    out->run = e->n_runs;
    out->first_row = part->first_row;
    out->first_out = part->first_out;
    out->n_path = 0;
    int32_t token = pending;
    for (int row = 0; row >= 0;) {
        const int i = out->n_path++;
        out->path[i] = (uint8_t)row;
        out->token[i] = s->tokens[s->n_tokens + i] = token; /* the history of the choices further down the path */
        if (is_greedy)
            token = best[row];
        else
            FACET_TRY(choose(s, c, part->first_out + row, s->n_tokens + i + 1, &token, err));
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
