/* snapshot_file.c: snapshots on disk.
 *
 *   header    320 bytes, below; ends with its own checksum
 *   layers    16 bytes each: u32 group, KV heads, head dimension, u16 K type (0xffff: V alone), u16 V type
 *   tokens    i32 each, from position 0 on
 *   pages     of group 0, 1, 2, in the order of positions, each with its bytes of all layers of the group in turn
 *   checksum  u64 of everything before it
 *
 * All numbers are little-endian, as hosts are. Types and checksums: kv.h, base/hash.h. */
#define _GNU_SOURCE
#include "decode/snapshot_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_map.h"
#include "base/hash.h"
#include "base/mem.h"
#include "decode/prefix.h"
#include "decode/snapshot_header.h"
#include "model/identity.h"

enum { CHUNK_BYTES = 1 << 20 };

/* ---- what an engine wants ---- */

static uint64_t model_id(facet_engine *e)
{
    if (!e->model_id) e->model_id = identity_of_model(e->model);
    return e->model_id;
}

static uint64_t drafter_id(facet_engine *e)
{
    if (!e->dflash_id && e->dflash) e->dflash_id = identity_of_drafter(e->dflash);
    return e->dflash_id;
}

static int n_layers_of(const kv_desc *d, int first_group, int end_group)
{
    int n = 0;
    for (int i = 0; i < d->n_layers; i++) n += d->layers[i].group >= first_group && d->layers[i].group < end_group;
    return n;
}

static snapshot_layer describe_layer(const kv_layer_desc *l)
{
    return (snapshot_layer){.group = (uint32_t)l->group,
                            .n_kv_heads = (uint32_t)l->n_kv_heads,
                            .head_dim = (uint32_t)l->head_dim,
                            .k_type = l->rebuilds_k ? SNAPSHOT_K_REBUILT : (uint16_t)l->k_type,
                            .v_type = (uint16_t)l->v_type};
}

static facet_status need_pages(const facet_engine *e, facet_error *err)
{
    for (int g = 0; g < e->kv.n_groups; g++)
        if (e->parking.group[g].is_away)
            return error_set(err, FACET_ERR_PARKED,
                             "the cache is parked: unpark it before snapshots are saved or loaded");
    return FACET_OK;
}

static int32_t pages_of(int32_t n)
{
    return (n + KV_PAGE_LEN - 1) / KV_PAGE_LEN;
}

/* ---- writing ---- */

typedef struct sink {
    file_writer w;
    hash64 hash;
} sink;

static facet_status put(sink *s, const void *data, size_t bytes, facet_error *err)
{
    hash64_add(&s->hash, data, bytes);
    return file_writer_put(&s->w, data, bytes, err);
}

/* The pages of a group that a table holds: one run up to its end. */
static snapshot_group describe_group(const facet_engine *e, const kv_seq *s, int group, int32_t n_tokens)
{
    const int32_t end = pages_of(n_tokens);
    int32_t first = end;
    while (first > 0 && s->table[group][first - 1] >= 0) first--;
    return (snapshot_group){.window = e->kv.groups[group].window,
                            .first_page = first,
                            .n_pages = end - first,
                            .page_bytes = kv_group_page_bytes(&e->kv, group)};
}

static snapshot_header describe(facet_engine *e, const snapshot_parts *p)
{
    snapshot_header h = {.version = SNAPSHOT_VERSION,
                         .header_bytes = sizeof h,
                         .model = model_id(e),
                         .drafter = drafter_id(e),
                         .page_len = KV_PAGE_LEN,
                         .n_vocab = e->model->h.n_vocab,
                         .first = p->first,
                         .n_tokens = p->text.n_tokens,
                         .gap_begin = p->text.gap.begin,
                         .gap_end = p->text.gap.end,
                         .n_groups = (uint32_t)e->kv.n_groups,
                         .n_layers = (uint32_t)e->kv.n_layers};
    backend_info info;
    e->be->ops->info(e->be, &info);
    memcpy(h.magic, "FACETSNP", sizeof h.magic);
    memcpy(h.page_layout, info.page_layout, sizeof h.page_layout);
    memcpy(h.label, p->label, strlen(p->label));
    for (int g = 0; g < e->kv.n_groups; g++) h.groups[g] = describe_group(e, &p->text.kv, g, h.n_tokens);
    h.file_bytes = snapshot_header_file_bytes(&h);
    h.checksum = hash64_of(&h, offsetof(snapshot_header, checksum));
    return h;
}

static facet_status put_layers(sink *s, const facet_engine *e, facet_error *err)
{
    for (int i = 0; i < e->kv.n_layers; i++) {
        const snapshot_layer l = describe_layer(&e->kv.layers[i]);
        FACET_TRY(put(s, &l, sizeof l, err));
    }
    return FACET_OK;
}

/* Pages that go through the buffer at a time. */
static int chunk_pages(const snapshot_group *g)
{
    return g->page_bytes >= CHUNK_BYTES ? 1 : (int)(CHUNK_BYTES / g->page_bytes);
}

static facet_status put_pages(sink *s, facet_engine *e, const kv_seq *kv, int group, const snapshot_group *g,
                              facet_error *err)
{
    const int at_once = chunk_pages(g);
    uint8_t *chunk = mem_alloc((size_t)at_once * g->page_bytes);
    facet_status status = chunk ? FACET_OK : error_memory(err, "pages of a snapshot", (size_t)at_once * g->page_bytes);
    for (int32_t i = 0; i < g->n_pages && status == FACET_OK; i += at_once) {
        const int n = g->n_pages - i < at_once ? g->n_pages - i : at_once;
        status = e->be->ops->kv_read(e->be, group, kv->table[group] + g->first_page + i, n, chunk, err);
        if (status == FACET_OK) status = put(s, chunk, (size_t)n * g->page_bytes, err);
    }
    mem_free(chunk);
    return status;
}

static facet_status put_all(sink *s, facet_engine *e, const snapshot_parts *p, facet_error *err)
{
    const snapshot_header h = describe(e, p);
    FACET_TRY(put(s, &h, sizeof h, err));
    FACET_TRY(put_layers(s, e, err));
    FACET_TRY(put(s, p->text.tokens, (size_t)h.n_tokens * sizeof *p->text.tokens, err));
    for (int g = 0; g < e->kv.n_groups; g++) FACET_TRY(put_pages(s, e, &p->text.kv, g, &h.groups[g], err));
    const uint64_t sum = hash64_get(&s->hash);
    FACET_TRY(file_writer_put(&s->w, &sum, sizeof sum, err));
    assert(s->w.written == h.file_bytes);
    return file_writer_commit(&s->w, err);
}

facet_status snapshot_save(facet_engine *e, int slot, const char *path, facet_error *err)
{
    snapshot_parts p;
    sink s = {0};
    FACET_TRY(snapshot_get(e, slot, &p, err));
    FACET_TRY(need_pages(e, err));
    FACET_TRY(file_writer_open(path, &s.w, err));
    const facet_status status = put_all(&s, e, &p, err);
    if (status != FACET_OK) file_writer_abort(&s.w);
    return status;
}

/* ---- reading ---- */

typedef struct source {
    int fd;
    const char *path;
    uint64_t size;
    hash64 hash;
} source;

static facet_status open_source(const char *path, source *s, facet_error *err)
{
    struct stat st;
    *s = (source){.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (s->fd < 0) return error_set(err, FACET_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(s->fd, &st) == 0 && S_ISREG(st.st_mode)) {
        s->size = (uint64_t)st.st_size;
        return FACET_OK;
    }
    close(s->fd);
    return error_set(err, FACET_ERR_IO, "%s: not a regular file", path);
}

/* The next bytes, which enter the checksum. */
static facet_status take(source *s, void *data, size_t bytes, facet_error *err)
{
    for (size_t at = 0; at < bytes;) {
        const ssize_t n = read(s->fd, (uint8_t *)data + at, bytes - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return error_set(err, FACET_ERR_IO, "%s: cannot read: %s", s->path, strerror(errno));
        if (n == 0) return error_set(err, FACET_ERR_FORMAT, "%s: the snapshot ends early", s->path);
        at += (size_t)n;
    }
    hash64_add(&s->hash, data, bytes);
    return FACET_OK;
}

static facet_status take_header(source *s, snapshot_header *h, facet_error *err)
{
    if (s->size < sizeof *h)
        return error_set(err, FACET_ERR_FORMAT, "%s: %llu bytes are no snapshot: its header has %zu", s->path,
                         (unsigned long long)s->size, sizeof *h);
    FACET_TRY(take(s, h, sizeof *h, err));
    return snapshot_header_check(h, s->size, s->path, err);
}

static const char *k_name(const snapshot_layer *l)
{
    return l->k_type == SNAPSHOT_K_REBUILT ? "none (keys are rebuilt)" : kv_type_get((kv_type)l->k_type)->name;
}

static bool has_types(const snapshot_layer *l)
{
    return (l->k_type < KV_TYPE_COUNT || l->k_type == SNAPSHOT_K_REBUILT) && l->v_type < KV_TYPE_COUNT;
}

/* The file's layers of groups [first, end) are those of the engine. */
static facet_status check_layer(const source *s, const snapshot_layer *got, const kv_layer_desc *want, int i,
                                facet_error *err)
{
    const snapshot_layer w = describe_layer(want);
    if (memcmp(got, &w, sizeof w) == 0) return FACET_OK;
    if (got->group == w.group && got->n_kv_heads == w.n_kv_heads && got->head_dim == w.head_dim && has_types(got))
        return error_set(
            err, FACET_ERR_UNSUPPORTED,
            "%s: the snapshot's cache types are %s for K and %s for V (layer %d), this engine's are %s and %s", s->path,
            k_name(got), kv_type_get((kv_type)got->v_type)->name, i, k_name(&w), kv_type_get(want->v_type)->name);
    return error_set(err, FACET_ERR_UNSUPPORTED,
                     "%s: cache layer %d is of group %u with %u heads of %u, this engine's of group %u with %u of %u",
                     s->path, i, got->group, got->n_kv_heads, got->head_dim, w.group, w.n_kv_heads, w.head_dim);
}

/* The target's layers stand first; those of a drafter are compared when its pages are wanted. */
static facet_status take_layers(source *s, const facet_engine *e, const snapshot_header *h, bool *has_drafts,
                                facet_error *err)
{
    const int n_target = n_layers_of(&e->kv, 0, KV_GROUP_DRAFT);
    for (int i = 0; i < (int)h->n_layers; i++) {
        snapshot_layer l;
        FACET_TRY(take(s, &l, sizeof l, err));
        if (i < n_target)
            FACET_TRY(check_layer(s, &l, &e->kv.layers[i], i, err));
        else if (*has_drafts)
            *has_drafts = check_layer(s, &l, &e->kv.layers[i], i, NULL) == FACET_OK;
    }
    return FACET_OK;
}

static facet_status take_tokens(source *s, const facet_engine *e, int32_t n, int32_t **out, facet_error *err)
{
    const size_t bytes = (size_t)n * sizeof **out;
    const int32_t n_vocab = (int32_t)e->model->h.n_vocab;
    int32_t *tokens = *out = mem_alloc(bytes);
    if (!tokens) return error_memory(err, "the tokens of a snapshot", bytes);
    FACET_TRY(take(s, tokens, bytes, err));
    for (int32_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return error_set(err, FACET_ERR_FORMAT, "%s: token %d is %d: the vocabulary has %d entries", s->path, i,
                             tokens[i], n_vocab);
    return FACET_OK;
}

/* Reads the pages of a group into new pages of the engine; without a table past them. */
static facet_status take_pages(source *s, facet_engine *e, int group, const snapshot_group *g, const kv_seq *kv,
                               facet_error *err)
{
    const int at_once = chunk_pages(g);
    uint8_t *chunk = mem_alloc((size_t)at_once * g->page_bytes);
    facet_status status = chunk ? FACET_OK : error_memory(err, "pages of a snapshot", (size_t)at_once * g->page_bytes);
    for (int32_t i = 0; i < g->n_pages && status == FACET_OK; i += at_once) {
        const int n = g->n_pages - i < at_once ? g->n_pages - i : at_once;
        status = take(s, chunk, (size_t)n * g->page_bytes, err);
        if (status == FACET_OK && kv)
            status = e->be->ops->kv_write(e->be, group, kv->table[group] + g->first_page + i, n, chunk, err);
    }
    mem_free(chunk);
    return status;
}

static facet_status reserve_pages(facet_engine *e, kv_seq *kv, int group, int32_t first, int32_t end, facet_error *err)
{
    facet_status status;
    do status = kv_seq_take(e->pool, kv, group, first, end, err);
    while (status == FACET_ERR_LIMIT && prefix_evict(e));
    return status;
}

/* Pages that the engine's tables want. The drafter's group has them also where the file has nothing for it. */
static facet_status reserve_all(facet_engine *e, const snapshot_header *h, bool has_drafts, kv_seq *kv,
                                facet_error *err)
{
    const int32_t end = pages_of(h->n_tokens);
    for (int g = 0; g < e->kv.n_groups; g++) {
        const bool is_given = g < KV_GROUP_DRAFT || has_drafts;
        const int window = e->kv.groups[g].window;
        int32_t begin = window > 0 && h->n_tokens > window ? h->n_tokens - window : 0;
        if (begin < h->first) begin = h->first;
        FACET_TRY(reserve_pages(e, kv, g, is_given ? h->groups[g].first_page : begin / KV_PAGE_LEN, end, err));
    }
    return FACET_OK;
}

static facet_status take_sum(source *s, facet_error *err)
{
    const uint64_t want = hash64_get(&s->hash);
    uint64_t got;
    FACET_TRY(take(s, &got, sizeof got, err));
    if (got == want) return FACET_OK;
    return error_set(err, FACET_ERR_FORMAT, "%s: the snapshot's checksum is %016llx, its content has %016llx: damaged",
                     s->path, (unsigned long long)got, (unsigned long long)want);
}

static facet_status check_engine(const source *s, facet_engine *e, const snapshot_header *h, facet_error *err)
{
    backend_info info;
    e->be->ops->info(e->be, &info);
    if (h->model != model_id(e))
        return error_set(err, FACET_ERR_UNSUPPORTED,
                         "%s: a snapshot of another model (identity %016llx, this model's is %016llx)", s->path,
                         (unsigned long long)h->model, (unsigned long long)model_id(e));
    if (strncmp(h->page_layout, info.page_layout, sizeof h->page_layout) != 0)
        return error_set(
            err, FACET_ERR_UNSUPPORTED,
            "%s: its pages are laid out as '%.16s', those of device %s as '%s': it was made on another kind "
            "of device",
            s->path, h->page_layout, info.name, info.page_layout);
    if (h->n_tokens > e->n_ctx)
        return error_set(err, FACET_ERR_UNSUPPORTED, "%s: a snapshot of %d tokens: this engine's context holds %d",
                         s->path, h->n_tokens, e->n_ctx);
    if ((int)h->n_layers < n_layers_of(&e->kv, 0, KV_GROUP_DRAFT) || h->n_vocab != e->model->h.n_vocab)
        return error_set(err, FACET_ERR_FORMAT,
                         "%s: %u cache layers and %u vocabulary entries do not belong to its model", s->path,
                         h->n_layers, h->n_vocab);
    return FACET_OK;
}

/* The target's groups: the engine's windows and page sizes, and all that the state needs. */
static facet_status check_group(const source *s, const facet_engine *e, const snapshot_header *h, int g,
                                facet_error *err)
{
    const snapshot_group *got = &h->groups[g];
    const kv_group_desc *want = &e->kv.groups[g];
    int32_t begin = want->window > 0 && h->n_tokens > want->window ? h->n_tokens - want->window : 0;
    if (begin < h->first) begin = h->first;
    if (got->window != want->window || got->page_bytes != kv_group_page_bytes(&e->kv, g))
        return error_set(err, FACET_ERR_UNSUPPORTED,
                         "%s: cache group %d has a window of %d and pages of %llu bytes, this engine's %d and %zu",
                         s->path, g, got->window, (unsigned long long)got->page_bytes, want->window,
                         kv_group_page_bytes(&e->kv, g));
    if (got->first_page > begin / KV_PAGE_LEN)
        return error_set(err, FACET_ERR_FORMAT, "%s: cache group %d begins with page %d, wanted at most %d", s->path, g,
                         got->first_page, begin / KV_PAGE_LEN);
    return FACET_OK;
}

static facet_status load_into(source *s, facet_engine *e, const snapshot_header *h, snapshot_parts *p, facet_error *err)
{
    /* another drafter's context is of no use, nor is one of other types or another length */
    bool has_drafts = e->kv.n_groups > KV_GROUP_DRAFT && (int)h->n_groups > KV_GROUP_DRAFT &&
                      h->drafter == drafter_id(e) && (int)h->n_layers == e->kv.n_layers &&
                      check_group(s, e, h, KV_GROUP_DRAFT, NULL) == FACET_OK;
    FACET_TRY(check_engine(s, e, h, err));
    FACET_TRY(take_layers(s, e, h, &has_drafts, err));
    for (int g = 0; g < KV_GROUP_DRAFT; g++) FACET_TRY(check_group(s, e, h, g, err));
    FACET_TRY(take_tokens(s, e, h->n_tokens, &p->text.tokens, err));
    FACET_TRY(reserve_all(e, h, has_drafts, &p->text.kv, err));
    for (int g = 0; g < (int)h->n_groups; g++)
        FACET_TRY(take_pages(s, e, g, &h->groups[g], g < KV_GROUP_DRAFT || has_drafts ? &p->text.kv : NULL, err));
    FACET_TRY(take_sum(s, err));
    p->first = h->first;
    p->label = h->label;
    p->text.n_tokens = h->n_tokens;
    if (e->dflash) p->text.gap = has_drafts ? (draft_gap){h->gap_begin, h->gap_end} : (draft_gap){0, h->n_tokens};
    return FACET_OK;
}

static facet_status load(source *s, facet_engine *e, int slot, facet_error *err)
{
    snapshot_parts p = {0};
    snapshot_header h = {0};
    FACET_TRY(take_header(s, &h, err));
    facet_status status = load_into(s, e, &h, &p, err);
    if (status == FACET_OK) status = snapshot_put(e, slot, &p, err);
    if (status != FACET_OK) kept_free(e, &p.text);
    return status;
}

facet_status snapshot_load(facet_engine *e, int slot, const char *path, facet_error *err)
{
    source s;
    FACET_TRY(snapshot_check_slot(slot, err));
    FACET_TRY(need_pages(e, err));
    FACET_TRY(open_source(path, &s, err));
    const facet_status status = load(&s, e, slot, err);
    close(s.fd);
    return status;
}

facet_status snapshot_file_describe(const char *path, snapshot_info *out, facet_error *err)
{
    source s;
    snapshot_header h = {0};
    FACET_TRY(open_source(path, &s, err));
    const facet_status status = take_header(&s, &h, err);
    close(s.fd);
    FACET_TRY(status);
    *out = (snapshot_info){.slot = -1, .first = h.first, .n_tokens = h.n_tokens};
    memcpy(out->label, h.label, sizeof out->label);
    for (uint32_t g = 0; g < h.n_groups; g++) out->bytes += (uint64_t)h.groups[g].n_pages * h.groups[g].page_bytes;
    out->own_bytes = out->bytes;
    return FACET_OK;
}
