/* pages.c: memory of the KV cache; page copies and slot moves; pages as bytes. */
#include <string.h>

#include "base/mem.h"
#include "compute/cpu/attn_summary.h"
#include "compute/cpu/exec.h"

static size_t storage_bytes(const cpu_backend *be, int layer)
{
    const attn_layer *a = &be->kv_layers[layer];
    return a->page_bytes * (size_t)be->kv.groups[a->desc.group].n_pages;
}

static size_t summaries_bytes(const cpu_backend *be, int layer)
{
    const kv_layer_desc *d = &be->kv_layers[layer].desc;
    return kv_layer_summary_bytes(d) * (size_t)be->kv.groups[d->group].n_pages;
}

static facet_status alloc_summaries(cpu_backend *be, int layer, facet_error *err)
{
    attn_layer *a = &be->kv_layers[layer];
    const size_t bytes = summaries_bytes(be, layer);
    if (!bytes) return FACET_OK;
    uint8_t *memory = mem_map(bytes);
    if (!memory) return error_memory(err, "summaries of the KV cache", bytes);
    attn_summary_place(a, memory, be->kv.groups[a->desc.group].n_pages);
    be->kv_bytes += bytes;
    return FACET_OK;
}

static void free_summaries(cpu_backend *be, int layer)
{
    attn_layer *a = &be->kv_layers[layer];
    if (!a->figures) return;
    mem_unmap(a->figures, summaries_bytes(be, layer));
    be->kv_bytes -= summaries_bytes(be, layer);
    a->figures = NULL;
    a->centres = NULL;
    a->is_summarised = NULL;
}

static facet_status alloc_layer(cpu_backend *be, int layer, facet_error *err)
{
    attn_layer *a = &be->kv_layers[layer];
    const size_t bytes = storage_bytes(be, layer);
    a->pages = mem_map(bytes);
    if (!a->pages) return error_memory(err, "the KV cache", bytes);
    be->kv_bytes += bytes;
    return alloc_summaries(be, layer, err);
}

static void free_layer(cpu_backend *be, int layer)
{
    attn_layer *a = &be->kv_layers[layer];
    free_summaries(be, layer);
    if (!a->pages) return;
    mem_unmap(a->pages, storage_bytes(be, layer));
    be->kv_bytes -= storage_bytes(be, layer);
    a->pages = NULL;
}

facet_status cpu_kv_alloc(backend *b, const kv_desc *desc, facet_error *err)
{
    cpu_backend *be = (cpu_backend *)b;
    const size_t n = (size_t)desc->n_layers;
    be->kv_layers = mem_calloc(n, sizeof *be->kv_layers);
    be->kv.layers = mem_calloc(n, sizeof *be->kv.layers);
    if (!be->kv_layers || !be->kv.layers) return error_memory(err, "the cache layout", n * sizeof *be->kv_layers);
    kv_layer_desc *layers = be->kv.layers;
    memcpy(layers, desc->layers, n * sizeof *layers);
    be->kv = *desc;
    be->kv.layers = layers;
    for (size_t l = 0; l < n; l++)
        be->kv_layers[l] = (attn_layer){.desc = layers[l], .page_bytes = kv_layer_page_bytes(&layers[l])};
    for (int l = 0; l < desc->n_layers; l++) FACET_TRY(alloc_layer(be, l, err));
    return FACET_OK;
}

void cpu_kv_drop(backend *b, int group)
{
    cpu_backend *be = (cpu_backend *)b;
    for (int l = 0; l < be->kv.n_layers; l++)
        if (be->kv_layers[l].desc.group == group) free_layer(be, l);
}

facet_status cpu_kv_renew(backend *b, int group, facet_error *err)
{
    cpu_backend *be = (cpu_backend *)b;
    facet_status status = FACET_OK;
    for (int l = 0; l < be->kv.n_layers && status == FACET_OK; l++)
        if (be->kv_layers[l].desc.group == group && !be->kv_layers[l].pages) status = alloc_layer(be, l, err);
    if (status != FACET_OK) cpu_kv_drop(b, group);
    return status;
}

void cpu_pages_free(cpu_backend *be)
{
    for (int l = 0; l < be->kv.n_layers && be->kv_layers; l++) free_layer(be, l);
    mem_free(be->kv_layers);
    mem_free(be->kv.layers);
}

/* Between the pages of one layer and their bytes among those of the group. */
static void carry(const attn_layer *a, const int32_t *pages, int n, uint8_t *bytes, size_t pitch, bool is_write)
{
    for (int i = 0; i < n; i++) {
        uint8_t *page = a->pages + (size_t)pages[i] * a->page_bytes, *at = bytes + (size_t)i * pitch;
        memcpy(is_write ? page : at, is_write ? at : page, a->page_bytes);
        if (is_write) attn_summary_forget(a, pages[i]);
    }
}

static facet_status carry_group(cpu_backend *be, int group, const int32_t *pages, int n, uint8_t *bytes, bool is_write,
                                facet_error *err)
{
    FACET_TRY(kv_access_check(&be->kv, group, pages, n, err));
    const size_t pitch = kv_group_page_bytes(&be->kv, group);
    for (int l = 0; l < be->kv.n_layers; l++) {
        const attn_layer *a = &be->kv_layers[l];
        if (a->desc.group != group) continue;
        if (!a->pages) return error_set(err, FACET_ERR_PARKED, "KV group %d: its memory was given back", group);
        carry(a, pages, n, bytes, pitch, is_write);
        bytes += a->page_bytes;
    }
    return FACET_OK;
}

facet_status cpu_kv_read(backend *b, int group, const int32_t *pages, int n, void *dst, facet_error *err)
{
    return carry_group((cpu_backend *)b, group, pages, n, dst, false, err);
}

facet_status cpu_kv_write(backend *b, int group, const int32_t *pages, int n, const void *src, facet_error *err)
{
    return carry_group((cpu_backend *)b, group, pages, n, (uint8_t *)(uintptr_t)src, true, err);
}

void cpu_pages_prepare(cpu_backend *be, const batch *in)
{
    for (int i = 0; i < in->n_copies; i++)
        for (int l = 0; l < be->kv.n_layers; l++) {
            const attn_layer *a = &be->kv_layers[l];
            if (a->desc.group != in->copies[i].group || !a->pages) continue;
            memcpy(a->pages + (size_t)in->copies[i].dst * a->page_bytes,
                   a->pages + (size_t)in->copies[i].src * a->page_bytes, a->page_bytes);
            attn_summary_forget(a, in->copies[i].dst);
        }
    for (int i = 0; i < in->n_moves; i++)
        for (int l = 0; l < be->kv.n_layers; l++) {
            const struct batch_move *m = &in->moves[i];
            const int32_t *table = in->seqs[m->seq].table[be->kv_layers[l].desc.group];
            if (!be->kv_layers[l].pages) continue;
            attn_move_slot(&be->kv_layers[l], table[m->src / KV_PAGE_LEN], m->src % KV_PAGE_LEN,
                           table[m->dst / KV_PAGE_LEN], m->dst % KV_PAGE_LEN);
            attn_summary_forget(&be->kv_layers[l], table[m->dst / KV_PAGE_LEN]);
        }
}

facet_status cpu_move(backend *b, const batch *in, facet_error *err)
{
    (void)err;
    cpu_pages_prepare((cpu_backend *)b, in);
    return FACET_OK;
}
