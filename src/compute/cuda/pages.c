/* pages.c: memory of the KV cache; page copies and slot moves. */
#include <string.h>

#include "base/mem.h"
#include "compute/cuda/state.h"

static size_t row_bytes(kv_type t, int head_dim)
{
    const kv_type_info *info = kv_type_get(t);
    return (size_t)head_dim / info->block_len * info->block_bytes;
}

static facet_status check_layer(const kv_desc *desc, int layer, facet_error *err)
{
    const kv_layer_desc *d = &desc->layers[layer];
    if (d->rebuilds_k)
        return error_set(err, FACET_ERR_UNSUPPORTED, "KV layer %d holds V alone: the CUDA backend cannot rebuild keys",
                         layer);
    if (cuda_has_head_dim(d->head_dim) && d->n_kv_heads > 0 && d->group >= 0 && d->group < desc->n_groups)
        return FACET_OK;
    return error_set(
        err, FACET_ERR_UNSUPPORTED,
        "KV layer %d: head_dim %d, %d KV heads, group %d: wanted head_dim 64, 128, 256 or 512, a group below %d", layer,
        d->head_dim, d->n_kv_heads, d->group, desc->n_groups);
}

/* attn_any.cu reads f16, q8_0 and f32 alone. */
static facet_status check_type(const kv_layer_desc *d, int layer, kv_type t, facet_error *err)
{
    if (t == KV_F16 || t == KV_Q8_0 || t == KV_F32 || cuda_attn_has_kernel(d->head_dim, d->k_type, d->v_type))
        return FACET_OK;
    return error_set(
        err, FACET_ERR_UNSUPPORTED,
        "KV layer %d (K %s, V %s, head_dim %d): on CUDA devices type %s wants heads of 128, 256 or 512 and "
        "no f32 beside it: use f16 or q8_0, or --device cpu",
        layer, kv_type_get(d->k_type)->name, kv_type_get(d->v_type)->name, d->head_dim, kv_type_get(t)->name);
}

static dev_pages layout_of(const kv_layer_desc *d)
{
    size_t slots = (size_t)d->n_kv_heads * KV_PAGE_LEN, k = row_bytes(d->k_type, d->head_dim),
           v = row_bytes(d->v_type, d->head_dim);
    return (dev_pages){.page_bytes = slots * (k + v),
                       .v_offset = slots * k,
                       .k_row_bytes = (uint32_t)k,
                       .v_row_bytes = (uint32_t)v,
                       .k_type = d->k_type,
                       .v_type = d->v_type,
                       .n_kv_heads = d->n_kv_heads,
                       .head_dim = d->head_dim,
                       .group = d->group};
}

static size_t storage_bytes(const cuda_backend *b, const dev_pages *l)
{
    return l->page_bytes * (size_t)b->groups[l->group].n_pages;
}

static facet_status alloc_storage(cuda_backend *b, dev_pages *l, facet_error *err)
{
    size_t bytes = storage_bytes(b, l);
    FACET_TRY(cuda_alloc(b, bytes, "the KV cache", (void **)&l->data, err));
    b->kv_bytes += bytes;
    return cuda_check(b, cudaMemsetAsync(l->data, 0, bytes, b->stream), "clearing the KV cache", err);
}

facet_status cuda_pages_describe(cuda_backend *b, const kv_desc *desc, facet_error *err)
{
    b->layers = mem_calloc((size_t)desc->n_layers + 1, sizeof *b->layers);
    if (!b->layers) return error_memory(err, "the cache layout", (size_t)desc->n_layers * sizeof *b->layers);
    b->n_layers = desc->n_layers;
    b->n_groups = desc->n_groups;
    memcpy(b->groups, desc->groups, sizeof b->groups);
    for (int i = 0; i < desc->n_layers; i++) {
        FACET_TRY(check_layer(desc, i, err));
        FACET_TRY(check_type(&desc->layers[i], i, desc->layers[i].k_type, err));
        FACET_TRY(check_type(&desc->layers[i], i, desc->layers[i].v_type, err));
        b->layers[i] = layout_of(&desc->layers[i]);
    }
    return FACET_OK;
}

static facet_status alloc_tables(cuda_backend *b, facet_error *err)
{
    b->tables = (dev_tables){.n_groups = b->n_groups, .cap = CUDA_MIN_TABLE};
    for (int g = 0; g < b->n_groups; g++)
        if (b->groups[g].n_pages > b->tables.cap) b->tables.cap = b->groups[g].n_pages;
    size_t bytes = (size_t)CUDA_MAX_SEQS * (size_t)b->n_groups * (size_t)b->tables.cap * sizeof(int32_t);
    FACET_TRY(cuda_alloc(b, bytes, "page tables", (void **)&b->tables.data, err));
    b->kv_bytes += bytes;
    return cuda_alloc_pinned(b, bytes, "page tables", (void **)&b->host_tables, err);
}

facet_status cuda_kv_alloc(backend *base, const kv_desc *desc, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    cuda_pages_free(b);
    facet_status status = cuda_pages_describe(b, desc, err);
    if (status == FACET_OK) status = alloc_tables(b, err);
    for (int i = 0; i < b->n_layers && status == FACET_OK; i++) status = alloc_storage(b, &b->layers[i], err);
    if (status == FACET_OK) status = cuda_check(b, cudaStreamSynchronize(b->stream), "clearing the KV cache", err);
    if (status != FACET_OK) cuda_pages_free(b);
    return status;
}

void cuda_kv_drop(backend *base, int group)
{
    cuda_backend *b = (cuda_backend *)base;
    if (cuda_enter(b, NULL) != FACET_OK) return;
    (void)cudaStreamSynchronize(b->stream);
    for (int i = 0; i < b->n_layers; i++) {
        dev_pages *l = &b->layers[i];
        if (l->group != group || !l->data) continue;
        (void)cudaFree(l->data);
        l->data = NULL;
        b->kv_bytes -= storage_bytes(b, l);
    }
}

facet_status cuda_kv_renew(backend *base, int group, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    facet_status status = FACET_OK;
    for (int i = 0; i < b->n_layers && status == FACET_OK; i++)
        if (b->layers[i].group == group && !b->layers[i].data) status = alloc_storage(b, &b->layers[i], err);
    if (status == FACET_OK) status = cuda_check(b, cudaStreamSynchronize(b->stream), "clearing the KV cache", err);
    if (status != FACET_OK) cuda_kv_drop(base, group);
    return status;
}

/* Between the pages of one layer and their bytes among those of the group; the stream is waited for afterwards. */
static facet_status carry(cuda_backend *b, const dev_pages *l, const int32_t *pages, int n, uint8_t *bytes,
                          size_t pitch, bool is_write, facet_error *err)
{
    cudaError_t e = cudaSuccess;
    for (int i = 0; i < n && e == cudaSuccess; i++) {
        uint8_t *page = l->data + (size_t)pages[i] * l->page_bytes, *at = bytes + (size_t)i * pitch;
        e = is_write ? cudaMemcpyAsync(page, at, l->page_bytes, cudaMemcpyHostToDevice, b->stream)
                     : cudaMemcpyAsync(at, page, l->page_bytes, cudaMemcpyDeviceToHost, b->stream);
    }
    return cuda_check(b, e, is_write ? "writing pages" : "reading pages", err);
}

static facet_status carry_group(cuda_backend *b, int group, const int32_t *pages, int n, uint8_t *bytes, bool is_write,
                                facet_error *err)
{
    const kv_desc d = {.n_groups = b->n_groups, .groups = {b->groups[0], b->groups[1], b->groups[2]}};
    size_t pitch = 0;
    FACET_TRY(cuda_enter(b, err));
    FACET_TRY(kv_access_check(&d, group, pages, n, err));
    for (int i = 0; i < b->n_layers; i++)
        if (b->layers[i].group == group) pitch += b->layers[i].page_bytes;
    for (int i = 0; i < b->n_layers; i++) {
        const dev_pages *l = &b->layers[i];
        if (l->group != group) continue;
        if (!l->data) return error_set(err, FACET_ERR_PARKED, "KV group %d: its memory was given back", group);
        FACET_TRY(carry(b, l, pages, n, bytes, pitch, is_write, err));
        bytes += l->page_bytes;
    }
    return cuda_check(b, cudaStreamSynchronize(b->stream), is_write ? "writing pages" : "reading pages", err);
}

facet_status cuda_kv_read(backend *b, int group, const int32_t *pages, int n, void *dst, facet_error *err)
{
    return carry_group((cuda_backend *)b, group, pages, n, dst, false, err);
}

facet_status cuda_kv_write(backend *b, int group, const int32_t *pages, int n, const void *src, facet_error *err)
{
    return carry_group((cuda_backend *)b, group, pages, n, (uint8_t *)(uintptr_t)src, true, err);
}

void cuda_pages_free(cuda_backend *b)
{
    for (int i = 0; i < b->n_layers; i++)
        if (b->layers[i].data) (void)cudaFree(b->layers[i].data);
    if (b->tables.data) (void)cudaFree(b->tables.data);
    if (b->host_tables) (void)cudaFreeHost(b->host_tables);
    mem_free(b->layers);
    b->layers = NULL;
    b->host_tables = NULL;
    b->tables = (dev_tables){0};
    b->n_layers = b->n_groups = 0;
    b->kv_bytes = 0;
}

static facet_status copy_page(cuda_backend *b, const dev_pages *l, const kv_copy *c, facet_error *err)
{
    uint8_t *dst = l->data + (size_t)c->dst * l->page_bytes;
    const uint8_t *src = l->data + (size_t)c->src * l->page_bytes;
    return cuda_check(b, cudaMemcpyAsync(dst, src, l->page_bytes, cudaMemcpyDeviceToDevice, b->stream),
                      "copying a page", err);
}

/* The slot's rows of every head lie KV_PAGE_LEN rows apart. */
static facet_status move_rows(cuda_backend *b, uint8_t *dst, const uint8_t *src, size_t row, int n_heads,
                              facet_error *err)
{
    size_t pitch = row * KV_PAGE_LEN;
    cudaError_t e =
        cudaMemcpy2DAsync(dst, pitch, src, pitch, row, (size_t)n_heads, cudaMemcpyDeviceToDevice, b->stream);
    return cuda_check(b, e, "moving a slot", err);
}

static facet_status move_slot(cuda_backend *b, const dev_pages *l, const int32_t *table, int32_t src, int32_t dst,
                              facet_error *err)
{
    uint8_t *from = l->data + (size_t)table[src / KV_PAGE_LEN] * l->page_bytes;
    uint8_t *to = l->data + (size_t)table[dst / KV_PAGE_LEN] * l->page_bytes;
    size_t s = (size_t)(src % KV_PAGE_LEN), d = (size_t)(dst % KV_PAGE_LEN), k = l->k_row_bytes, v = l->v_row_bytes;
    FACET_TRY(move_rows(b, to + d * k, from + s * k, k, l->n_kv_heads, err));
    return move_rows(b, to + l->v_offset + d * v, from + l->v_offset + s * v, v, l->n_kv_heads, err);
}

facet_status cuda_pages_prepare(cuda_backend *b, const batch *in, facet_error *err)
{
    for (int i = 0; i < in->n_copies; i++)
        for (int l = 0; l < b->n_layers; l++)
            if (b->layers[l].group == in->copies[i].group && b->layers[l].data)
                FACET_TRY(copy_page(b, &b->layers[l], &in->copies[i], err));
    for (int i = 0; i < in->n_moves; i++)
        for (int l = 0; l < b->n_layers && in->moves[i].src != in->moves[i].dst; l++) {
            const int32_t *table = in->seqs[in->moves[i].seq].table[b->layers[l].group];
            if (!b->layers[l].data) continue;
            FACET_TRY(move_slot(b, &b->layers[l], table, in->moves[i].src, in->moves[i].dst, err));
        }
    return FACET_OK;
}
