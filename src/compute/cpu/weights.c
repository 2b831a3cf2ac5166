/* weights.c: weights of the CPU backend: what is multiplied often is repacked into tiles, the rest is read from the
 * mapping. */
#include <stdatomic.h>

#include "base/mem.h"
#include "compute/cpu/exec.h"

static size_t packed_size(const weight *w)
{
    const size_t n_tiles = ((size_t)w->ne[1] + LINEAR_TILE - 1) / LINEAR_TILE;
    return n_tiles * linear_tile_bytes(w->type, (uint32_t)w->ne[0]) * (size_t)w->ne[2];
}

uint64_t backend_cpu_weight_bytes(const weight *w)
{
    return w->is_matrix && linear_can_pack(w->type, (uint32_t)w->ne[0]) ? packed_size(w) : 0;
}

typedef struct pack_job {
    const weight *w;
    packed_matrix *p;
    uint8_t *dst;
    atomic_uint next;
    uint32_t n_tiles, step; /* tiles per expert; tiles per unit */
} pack_job;

/* Threads take runs of tiles; each run's source pages are let go as soon as they are packed. */
static void pack_tiles(void *arg, int thread, int n_threads)
{
    (void)thread, (void)n_threads;
    pack_job *j = arg;
    const weight *w = j->w;
    const size_t row_bytes = type_bytes(type_get(w->type), w->ne[0]);
    const uint32_t total = j->n_tiles * (uint32_t)w->ne[2];
    for (uint32_t first; (first = atomic_fetch_add(&j->next, j->step)) < total;) {
        const uint32_t last = first + j->step < total ? first + j->step : total;
        for (uint32_t t = first; t < last; t++) {
            const uint8_t *src = (const uint8_t *)w->data + (size_t)(t / j->n_tiles) * row_bytes * w->ne[1];
            linear_pack_tile(w->type, (uint32_t)w->ne[0], (uint32_t)w->ne[1], src, t % j->n_tiles,
                             j->dst + (size_t)t * j->p->tile_bytes);
        }
        if (w->map && w->ne[1] % LINEAR_TILE == 0)
            file_map_release(w->map, (const uint8_t *)w->data + (size_t)first * LINEAR_TILE * row_bytes,
                             (size_t)(last - first) * LINEAR_TILE * row_bytes);
    }
}

static facet_status pack_weight(cpu_backend *be, int i, facet_error *err)
{
    const weight *w = &be->weights[i];
    packed_matrix *p = &be->packed[i];
    const size_t bytes = packed_size(w);
    uint8_t *dst = mem_map(bytes);
    if (!dst) return error_memory(err, w->name, bytes);
    *p = (packed_matrix){w->type, (uint32_t)w->ne[0], (uint32_t)w->ne[1],
                         linear_tile_bytes(w->type, (uint32_t)w->ne[0]), dst};
    be->packed_bytes += bytes;
    pack_job job = {.w = w, .p = p, .dst = dst, .n_tiles = (p->n_out + LINEAR_TILE - 1) / LINEAR_TILE};
    job.step = (uint32_t)((2u << 20) / p->tile_bytes) + 1;
    team_run(be->team, pack_tiles, &job);
    if (w->map) file_map_release(w->map, w->data, w->bytes);
    return FACET_OK;
}

static bool wants_packing(const cpu_backend *be, const weight *w)
{
    return !be->is_ref && !be->cfg.use_mmap && backend_cpu_weight_bytes(w) > 0;
}

facet_status cpu_load(backend *b, const weight *weights, int n, facet_error *err)
{
    cpu_backend *be = (cpu_backend *)b;
    be->packed = mem_calloc((size_t)n, sizeof *be->packed);
    if (!be->packed) return error_memory(err, "the weight table", (size_t)n * sizeof *be->packed);
    be->weights = weights;
    be->n_weights = n;
    uint64_t total = 0, done = 0;
    for (int i = 0; i < n; i++)
        if (wants_packing(be, &weights[i])) total += weights[i].bytes;
    for (int i = 0; i < n; i++) {
        if (!wants_packing(be, &weights[i])) continue;
        FACET_TRY(pack_weight(be, i, err));
        done += weights[i].bytes;
        if (be->cfg.progress && !be->cfg.progress(be->cfg.progress_ud, "load", done, total))
            return error_set(err, FACET_ERR_CANCELLED, "loading was cancelled");
    }
    return FACET_OK;
}

static void unpack_weight(cpu_backend *be, int i)
{
    packed_matrix *p = &be->packed[i];
    if (!p->data) return;
    const size_t bytes = packed_size(&be->weights[i]);
    mem_unmap((void *)(uintptr_t)p->data, bytes);
    be->packed_bytes -= bytes;
    *p = (packed_matrix){0};
}

/* What is used from the mapping leaves memory as well; it comes back from the file when it is read again. */
void cpu_unload(backend *b, int part)
{
    cpu_backend *be = (cpu_backend *)b;
    for (int i = 0; i < be->n_weights; i++) {
        const weight *w = &be->weights[i];
        if (w->part != part) continue;
        unpack_weight(be, i);
        if (w->map) file_map_release(w->map, w->data, w->bytes);
    }
}

facet_status cpu_reload(backend *b, int part, facet_error *err)
{
    cpu_backend *be = (cpu_backend *)b;
    facet_status status = FACET_OK;
    for (int i = 0; i < be->n_weights && status == FACET_OK; i++)
        if (be->weights[i].part == part && !be->packed[i].data && wants_packing(be, &be->weights[i]))
            status = pack_weight(be, i, err);
    if (status != FACET_OK) cpu_unload(b, part);
    return status;
}

void cpu_weights_free(cpu_backend *be)
{
    for (int i = 0; i < be->n_weights && be->packed; i++) unpack_weight(be, i);
    mem_free(be->packed);
}
