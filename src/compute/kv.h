/* kv.h: the paged KV cache seen from the host: types, page tables, reference counts. The bytes of the pages belong to a
 * backend.
 *
 * A page is KV_PAGE_LEN consecutive slots. Layers form groups (the target's global and local layers, and those of a
 * DFlash drafter; a group shares its window and its page tables): page id p of a group names, in every layer of the
 * group, the p-th page of that layer's storage. So a sequence has one table per group, whatever the number of layers,
 * and each layer keeps its own types and sizes. A slot is where a token's K and V lie; it equals the token's position,
 * except for draft-tree nodes (batch.h). */
#ifndef FACET_COMPUTE_KV_H
#define FACET_COMPUTE_KV_H

#include "base/error.h"

enum { KV_PAGE_LEN = 64, KV_MAX_GROUPS = 3, KV_SUMMARY_BALLS = 4, KV_SUMMARY_FIGURES = 5 * KV_SUMMARY_BALLS + 1 };
enum { KV_GROUP_GLOBAL, KV_GROUP_LOCAL, KV_GROUP_DRAFT };

/* KV_F32 keeps what the model computed: exact, and twice as large as KV_F16. The numbers stand in snapshots. */
typedef enum kv_type { KV_F16, KV_Q8_0, KV_F32, KV_Q4_0, KV_TQ3_0, KV_ROT_Q8_0, KV_ROT_Q4_0, KV_TYPE_COUNT } kv_type;

typedef struct kv_type_info {
    const char *name;
    uint32_t block_len, block_bytes; /* along the head dimension */
    uint32_t group_len;              /* head dimensions must be multiples of it */
    kv_type layout;                  /* the type whose bytes these are: KV_Q4_0 for KV_ROT_Q4_0 */
    /* The cache holds rotated vectors (quant/rotate.h). Who reads keys rotates the query, who sums values turns the sum
     * back. */
    bool is_rotated;
} kv_type_info;

const kv_type_info *kv_type_get(kv_type t);
bool kv_type_by_name(const char *name, kv_type *out);
/* Whether a keeps at least as many bits per value as b. */
bool kv_type_is_as_fine(const kv_type_info *a, const kv_type_info *b);
/* t, or floor where t is coarser. */
kv_type kv_type_at_least(kv_type t, kv_type floor);
const char *kv_type_list(void); /* all names, for messages */

typedef struct kv_layer_desc {
    int group;
    int n_kv_heads, head_dim;
    kv_type k_type, v_type;
    /* Of a layer whose V is made of the K projection: pages hold V alone, and who reads a key makes it of the value
     * (plan.h, OP_ATTN). k_type is v_type then. */
    bool rebuilds_k;
    bool has_summaries; /* the backend keeps a summary of every page beside it (compute/sparse.h) */
} kv_layer_desc;

typedef struct kv_group_desc {
    int window;      /* a query at position a sees a - window < p <= a; 0 = global */
    int32_t n_pages; /* capacity of each layer's storage */
} kv_group_desc;

typedef struct kv_desc {
    int n_groups, n_layers;
    kv_group_desc groups[KV_MAX_GROUPS];
    kv_layer_desc *layers; /* owned by whoever made the desc */
} kv_desc;

/* V alone from now on, with the finer of the two types. */
void kv_layer_rebuild_k(kv_layer_desc *l);

/* FACET_ERR_UNSUPPORTED where a layer's heads are no multiple of what its types want. */
facet_status kv_desc_check(const kv_desc *d, facet_error *err);

/* Bytes of one page of a layer (K and V or V alone, all heads), of its summary (0: it has none), and of the whole
 * cache. */
size_t kv_layer_page_bytes(const kv_layer_desc *l);
size_t kv_layer_summary_bytes(const kv_layer_desc *l);
uint64_t kv_total_bytes(const kv_desc *d);
/* Bytes of one page in all layers of a group, without summaries. */
size_t kv_group_page_bytes(const kv_desc *d, int group);
size_t kv_group_summary_bytes(const kv_desc *d, int group);

/* Pages that one sequence of n_ctx positions needs in a group when at most max_rows rows are written per step. */
int32_t kv_pages_needed(int window, int64_t n_ctx, int max_rows);

/* The host-side pool: which pages are free, how many tables point at each. */
typedef struct kv_pool kv_pool;
facet_status kv_pool_open(const kv_desc *desc, kv_pool **out, facet_error *err);
void kv_pool_close(kv_pool *p);
int32_t kv_pool_free_pages(const kv_pool *p, int group);
/* Tables that point at a page; 0 = it is free. */
int32_t kv_pool_refs(const kv_pool *p, int group, int32_t page);

/* One sequence's tables. Zero-initialise; kv_seq_free returns its pages. */
typedef struct kv_seq {
    int32_t *table[KV_MAX_GROUPS]; /* physical page of slot / KV_PAGE_LEN, -1 where none is held */
    int32_t n_table[KV_MAX_GROUPS], cap_table[KV_MAX_GROUPS];
} kv_seq;

/* A page whose content must be copied before it is written (it was shared); the backend does it first thing in run().
 */
typedef struct kv_copy {
    int group;
    int32_t src, dst;
} kv_copy;

/* Makes slots [begin, end) writable for one sequence: new pages, and private copies of shared ones (appended to copies;
 * room for KV_MAX_GROUPS * ((end - begin) / KV_PAGE_LEN + 2) entries). On FACET_ERR_LIMIT (pool exhausted) nothing has
 * changed. */
facet_status kv_seq_reserve(kv_pool *p, kv_seq *s, int32_t begin, int32_t end, kv_copy *copies, int *n_copies,
                            facet_error *err);
/* Takes copies back that a step which failed may not have made: the table points at the shared pages again. Nothing
 * else may have used the pool since they were reserved. */
void kv_seq_undo_copies(kv_pool *p, kv_seq *s, const kv_copy *copies, int n);
/* Gives local pages back that no query at a position >= pos can see. */
void kv_seq_release_window(kv_pool *p, kv_seq *s, int32_t pos);
/* Drops everything at slots >= n (whole pages only). */
void kv_seq_truncate(kv_pool *p, kv_seq *s, int32_t n);
/* Gives back the pages of all groups that end at or before slot n. */
void kv_seq_drop_before(kv_pool *p, kv_seq *s, int32_t n);
/* Makes entries [first, end) of a group's table new pages; entries before `first` of a longer table are empty. The
 * group's table must not reach beyond `first`. On failure (FACET_ERR_LIMIT: pool exhausted) nothing has changed. */
facet_status kv_seq_take(kv_pool *p, kv_seq *s, int group, int32_t first, int32_t end, facet_error *err);
/* Puts the pages of top from slot n's page on in place of those of s. On failure nothing has changed. */
facet_status kv_seq_join(kv_pool *p, kv_seq *s, const kv_seq *top, int32_t n, facet_error *err);
/* dst (empty) becomes a copy that shares every page. */
facet_status kv_seq_fork(kv_pool *p, const kv_seq *src, kv_seq *dst, facet_error *err);
void kv_seq_free(kv_pool *p, kv_seq *s);
/* True when every slot that a query at position pos needs (window for local groups) is still held for positions < pos.
 */
bool kv_seq_can_resume(const kv_pool *p, const kv_seq *s, int32_t pos);

#endif
