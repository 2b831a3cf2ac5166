/* snapshot.c: the slots of an engine. */
#include "decode/snapshot.h"

#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"
#include "decode/kept.h"

typedef struct snapshot {
    bool is_used;
    kept_text text;
    int32_t first;
    char label[SNAPSHOT_LABEL_MAX + 1];
} snapshot;

struct snapshot_slots {
    snapshot list[SNAPSHOT_SLOTS];
};

void snapshot_close(facet_engine *e)
{
    snapshot_free_all(e);
    mem_free(e->slots);
    e->slots = NULL;
}

static snapshot *find(const facet_engine *e, int slot)
{
    if (slot < 0 || slot >= SNAPSHOT_SLOTS || !e->slots || !e->slots->list[slot].is_used) return NULL;
    return &e->slots->list[slot];
}

facet_status snapshot_check_slot(int slot, facet_error *err)
{
    if (slot >= 0 && slot < SNAPSHOT_SLOTS) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "snapshot slot %d: wanted 0 to %d", slot, SNAPSHOT_SLOTS - 1);
}

static facet_status need(const facet_engine *e, int slot, snapshot **out, facet_error *err)
{
    FACET_TRY(snapshot_check_slot(slot, err));
    *out = find(e, slot);
    return *out ? FACET_OK : error_set(err, FACET_ERR_ARG, "snapshot slot %d is empty", slot);
}

facet_status snapshot_check_label(const char *label, facet_error *err)
{
    const size_t n = label ? strlen(label) : 0;
    if (n > SNAPSHOT_LABEL_MAX)
        return error_set(err, FACET_ERR_ARG, "a label of %zu bytes: wanted at most %d", n, SNAPSHOT_LABEL_MAX);
    if (n && !utf8_valid(label, n)) return error_set(err, FACET_ERR_ARG, "a label that is not valid UTF-8");
    return FACET_OK;
}

static void free_snapshot(facet_engine *e, snapshot *s)
{
    if (s->is_used) kept_free(e, &s->text);
    *s = (snapshot){0};
}

facet_status snapshot_put(facet_engine *e, int slot, const snapshot_parts *p, facet_error *err)
{
    if (!e->slots && !(e->slots = mem_calloc(1, sizeof *e->slots)))
        return error_memory(err, "snapshot slots", sizeof *e->slots);
    snapshot *s = &e->slots->list[slot];
    free_snapshot(e, s);
    *s = (snapshot){.is_used = true, .text = p->text, .first = p->first};
    if (p->label) memcpy(s->label, p->label, strlen(p->label) + 1);
    return FACET_OK;
}

/* ---- storing ---- */

/* Where a state of n tokens, whose pages begin at `first`, has its window of some local layers: from which on its pages
 * must be held. A thin one is put on top of others, which hold what lies before `first`. */
static int32_t window_begin(const facet_engine *e, int group, int32_t n, int32_t first)
{
    const int window = e->kv.groups[group].window;
    const int32_t begin = window > 0 && n > window ? n - window : 0; /* the last token is evaluated again: one more */
    return begin > first ? begin : first;
}

static bool is_held(const facet_engine *e, const kv_seq *s, int32_t n, int32_t first)
{
    for (int g = 0; g < e->kv.n_groups; g++) {
        const int32_t end = (n + KV_PAGE_LEN - 1) / KV_PAGE_LEN;
        if (end > s->n_table[g]) return false;
        for (int32_t i = window_begin(e, g, n, first) / KV_PAGE_LEN; i < end; i++)
            if (s->table[g][i] < 0) return false;
    }
    return true;
}

/* The least n >= from for which is_held; it is that of the whole session at the latest. */
static int32_t first_held(const facet_session *s, int32_t from, int32_t first)
{
    while (from < s->n_tokens && !is_held(s->engine, &s->kv, from, first)) from++;
    return from;
}

static facet_status store(const facet_session *s, int slot, int32_t first, int32_t n, const char *label,
                          facet_error *err)
{
    facet_engine *e = s->engine;
    snapshot_parts p = {.first = first, .label = label};
    FACET_TRY(snapshot_check_slot(slot, err));
    FACET_TRY(snapshot_check_label(label, err));
    if (s->n_tokens == 0) return error_set(err, FACET_ERR_ARG, "a snapshot of an empty session");
    if (n < 1 || n > s->n_tokens)
        return error_set(err, FACET_ERR_ARG, "a snapshot of %d tokens: the session has %d", n, s->n_tokens);
    if (!is_held(e, &s->kv, n, first))
        return error_set(
            err, FACET_ERR_LIMIT,
            "a snapshot of the first %d of %d tokens: local layers have forgotten what lies before it; the "
            "first that can be kept is of %d tokens",
            n, s->n_tokens, first_held(s, n, first));
    FACET_TRY(kept_take(s, n, &p.text, err));
    kv_seq_drop_before(e->pool, &p.text.kv, first);
    const facet_status status = snapshot_put(e, slot, &p, err);
    if (status != FACET_OK) kept_free(e, &p.text);
    return status;
}

facet_status snapshot_store(const facet_session *s, int slot, int32_t n, const char *label, facet_error *err)
{
    return store(s, slot, 0, n == -1 ? s->n_tokens : n, label, err);
}

facet_status snapshot_store_thin(const facet_session *s, int slot, int32_t first, int32_t n, const char *label,
                                 facet_error *err)
{
    if (first < 1 || first >= n)
        return error_set(err, FACET_ERR_ARG, "a thin snapshot of positions %d to %d: wanted 0 < first < end", first, n);
    return store(s, slot, first, n, label, err);
}

/* ---- restoring ---- */

facet_status snapshot_restore(facet_session *s, int slot, facet_error *err)
{
    return snapshot_restore_chain(s, slot, NULL, 0, err);
}

/* Whether the thin one fits on top of n tokens. */
static facet_status check_link(const snapshot *below, const snapshot *thin, int slot, facet_error *err)
{
    const int32_t n = below->text.n_tokens;
    if (thin->first == 0) return error_set(err, FACET_ERR_ARG, "snapshot slot %d is not thin", slot);
    if (thin->first > n || thin->text.n_tokens <= n)
        return error_set(err, FACET_ERR_ARG,
                         "thin snapshot slot %d holds positions %d to %d: it does not continue %d tokens", slot,
                         thin->first, thin->text.n_tokens, n);
    for (int32_t i = 0; i < n; i++)
        if (thin->text.tokens[i] != below->text.tokens[i])
            return error_set(err, FACET_ERR_ARG,
                             "thin snapshot slot %d is of another text: token %d is %d, that of the one below is %d",
                             slot, i, thin->text.tokens[i], below->text.tokens[i]);
    return FACET_OK;
}

static draft_gap join_gaps(draft_gap a, draft_gap b)
{
    if (a.begin == a.end) return b;
    if (b.begin == b.end) return a;
    return (draft_gap){a.begin < b.begin ? a.begin : b.begin, a.end > b.end ? a.end : b.end};
}

facet_status snapshot_restore_chain(facet_session *s, int slot, const int *thin, int n_thin, facet_error *err)
{
    facet_engine *e = s->engine;
    snapshot *bottom, *top;
    FACET_TRY(need(e, slot, &bottom, err));
    if (bottom->first)
        return error_set(err, FACET_ERR_ARG,
                         "snapshot slot %d is thin (positions %d to %d): restore it on top of another", slot,
                         bottom->first, bottom->text.n_tokens);
    kv_seq kv = {0};
    session_state state = kept_state(&bottom->text);
    facet_status status = kv_seq_fork(e->pool, &bottom->text.kv, &kv, err);
    state.kv = &kv;
    const snapshot *below = bottom;
    for (int i = 0; i < n_thin && status == FACET_OK; i++, below = top) {
        status = need(e, thin[i], &top, err);
        if (status == FACET_OK) status = check_link(below, top, thin[i], err);
        if (status == FACET_OK) status = kv_seq_join(e->pool, &kv, &top->text.kv, top->first, err);
        if (status != FACET_OK) break;
        state.tokens = top->text.tokens;
        state.n_tokens = top->text.n_tokens;
        state.gap = join_gaps(state.gap, top->text.gap);
    }
    if (status == FACET_OK && !is_held(e, &kv, state.n_tokens, 0))
        status = error_set(err, FACET_ERR_ARG, "the chain of snapshots does not hold the window of its end");
    if (status == FACET_OK) status = session_adopt(s, &state, state.n_tokens, err);
    kv_seq_free(e->pool, &kv);
    return status;
}

/* ---- the rest ---- */

facet_status snapshot_free(facet_engine *e, int slot, facet_error *err)
{
    FACET_TRY(snapshot_check_slot(slot, err));
    if (e->slots) free_snapshot(e, &e->slots->list[slot]);
    return FACET_OK;
}

void snapshot_free_all(facet_engine *e)
{
    for (int i = 0; i < SNAPSHOT_SLOTS && e->slots; i++) free_snapshot(e, &e->slots->list[i]);
}

bool snapshot_describe(const facet_engine *e, int slot, snapshot_info *out)
{
    const snapshot *s = find(e, slot);
    if (!s) return false;
    *out = (snapshot_info){.slot = slot, .first = s->first, .n_tokens = s->text.n_tokens};
    memcpy(out->label, s->label, sizeof out->label);
    for (int g = 0; g < e->kv.n_groups; g++) {
        const size_t bytes = kv_group_page_bytes(&e->kv, g);
        for (int32_t i = 0; i < s->text.kv.n_table[g]; i++) {
            const int32_t page = s->text.kv.table[g][i];
            if (page < 0) continue;
            out->bytes += bytes;
            if (kv_pool_refs(e->pool, g, page) == 1) out->own_bytes += bytes;
        }
    }
    return true;
}

int snapshot_list(const facet_engine *e, snapshot_info *out)
{
    int n = 0;
    for (int slot = 0; slot < SNAPSHOT_SLOTS; slot++) {
        if (!find(e, slot)) continue;
        if (out) snapshot_describe(e, slot, &out[n]);
        n++;
    }
    return n;
}

const int32_t *snapshot_tokens(const facet_engine *e, int slot, int32_t *n)
{
    const snapshot *s = find(e, slot);
    if (!s) return NULL;
    *n = s->text.n_tokens;
    return s->text.tokens;
}

int snapshot_find(const facet_engine *e, const char *label)
{
    for (int slot = 0; slot < SNAPSHOT_SLOTS; slot++) {
        const snapshot *s = find(e, slot);
        if (s && strcmp(s->label, label) == 0) return slot;
    }
    return -1;
}

int snapshot_empty_slot(const facet_engine *e)
{
    for (int slot = 0; slot < SNAPSHOT_SLOTS; slot++)
        if (!find(e, slot)) return slot;
    return -1;
}

bool snapshot_state(const facet_engine *e, int slot, session_state *out)
{
    snapshot *s = find(e, slot);
    if (!s || s->first) return false;
    *out = kept_state(&s->text);
    return true;
}

facet_status snapshot_get(const facet_engine *e, int slot, snapshot_parts *out, facet_error *err)
{
    snapshot *s;
    FACET_TRY(need(e, slot, &s, err));
    *out = (snapshot_parts){.text = s->text, .first = s->first, .label = s->label};
    return FACET_OK;
}

void snapshot_forget_drafts(facet_engine *e)
{
    for (int i = 0; i < SNAPSHOT_SLOTS && e->slots; i++)
        e->slots->list[i].text.gap = (draft_gap){0, e->slots->list[i].text.n_tokens};
}
