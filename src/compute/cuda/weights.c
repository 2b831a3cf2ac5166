/* weights.c: weights go to the device once, through two pinned buffers, into one block of device memory. A team fills
 * the buffers: one thread alone copies more slowly than the bus does.
 *
 * Matrices whose type has tile records (tile.h) are sent in slices of rows and packed there; their raw blocks are not
 * kept. Other matrices stay as the file holds them. Vectors become f32. Tables that are only gathered by
 * row (the per-layer embeddings: several GB of which a step reads a few KB) stay on the host mapping. */
#include <string.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "base/team.h"
#include "compute/cuda/state.h"
#include "compute/cuda/tile.h"

enum { ALIGN = 256, STAGE_BYTES = 16 << 20, ALL_PARTS = -1, MOST_COPIERS = 8 };

/* Two buffers by turns: while one is on its way, the other is filled. */
typedef struct stager {
    cuda_backend *b;
    uint8_t *buffer[2];
    cudaEvent_t sent[2];
    int turn;
    team *team;
    bool has_progress;
    uint64_t done, total;
    uint8_t *slice; /* on the device: raw rows about to be packed */
    size_t slice_bytes;
    uint32_t *most; /* [weights] on the device: the largest scale of each, as the bits of an f32 */
} stager;

static void stager_close(stager *s)
{
    for (int i = 0; i < 2; i++) {
        if (s->sent[i]) (void)cudaEventSynchronize(s->sent[i]);
        if (s->sent[i]) (void)cudaEventDestroy(s->sent[i]);
        if (s->buffer[i]) (void)cudaFreeHost(s->buffer[i]);
    }
    team_close(s->team);
    (void)cudaFree(s->slice);
    (void)cudaFree(s->most);
}

static int n_copiers(const cuda_backend *b)
{
    const int n = b->n_threads ? b->n_threads : cpu_count();
    return n < MOST_COPIERS ? n : MOST_COPIERS;
}

static facet_status stager_open(cuda_backend *b, uint64_t total, size_t slice_bytes, bool has_progress, stager *s,
                                facet_error *err)
{
    size_t most_bytes = (size_t)b->n_weights * sizeof *s->most;
    *s = (stager){.b = b, .total = total, .slice_bytes = slice_bytes, .has_progress = has_progress};
    FACET_TRY(team_open(n_copiers(b), &s->team, err));
    FACET_TRY(cuda_alloc(b, slice_bytes, "loading weights", (void **)&s->slice, err));
    FACET_TRY(cuda_alloc(b, most_bytes, "loading weights", (void **)&s->most, err));
    FACET_TRY(
        cuda_check(b, cudaMemsetAsync(s->most, 0, most_bytes ? most_bytes : 1, b->stream), "loading weights", err));
    for (int i = 0; i < 2; i++) {
        FACET_TRY(cuda_alloc_pinned(b, STAGE_BYTES, "loading weights", (void **)&s->buffer[i], err));
        FACET_TRY(cuda_check(b, cudaEventCreateWithFlags(&s->sent[i], cudaEventDisableTiming), "making an event", err));
    }
    return FACET_OK;
}

typedef struct copy_job {
    uint8_t *dst;
    const uint8_t *src;
    size_t bytes;
} copy_job;

static void copy_share(void *arg, int thread, int n_threads)
{
    const copy_job *j = arg;
    const size_t begin = j->bytes * (size_t)thread / (size_t)n_threads,
                 end = j->bytes * ((size_t)thread + 1) / (size_t)n_threads;
    memcpy(j->dst + begin, j->src + begin, end - begin);
}

static void stager_copy(const stager *s, uint8_t *dst, const uint8_t *src, size_t bytes)
{
    enum { ALONE = 1 << 20 }; /* not worth waking anybody */
    copy_job job = {dst, src, bytes};
    if (bytes < ALONE)
        copy_share(&job, 0, 1);
    else
        team_run(s->team, copy_share, &job);
}

static facet_status stager_send(stager *s, uint8_t *dst, const uint8_t *src, size_t bytes, facet_error *err)
{
    cuda_backend *b = s->b;
    for (size_t at = 0; at < bytes;) {
        size_t n = bytes - at < STAGE_BYTES ? bytes - at : STAGE_BYTES;
        int i = s->turn;
        s->turn ^= 1;
        FACET_TRY(cuda_check(b, cudaEventSynchronize(s->sent[i]), "uploading weights", err));
        stager_copy(s, s->buffer[i], src + at, n);
        FACET_TRY(cuda_check(b, cudaMemcpyAsync(dst + at, s->buffer[i], n, cudaMemcpyHostToDevice, b->stream),
                             "uploading weights", err));
        FACET_TRY(cuda_check(b, cudaEventRecord(s->sent[i], b->stream), "uploading weights", err));
        at += n;
        s->done += n;
        if (s->has_progress && b->progress && !b->progress(b->progress_ud, "load", s->done, s->total))
            return error_set(err, FACET_ERR_CANCELLED, "loading was cancelled");
    }
    return FACET_OK;
}

static bool stays_on_host(const weight *w)
{
    return w->is_rows && !w->is_matrix && !w->is_picked;
}

static bool is_vector(const weight *w)
{
    return !w->is_rows && !w->is_matrix && !w->is_picked;
}

static bool is_of(const weight *w, int part)
{
    return part == ALL_PARTS || w->part == part;
}

static size_t n_elements(const weight *w)
{
    return (size_t)(w->ne[0] * w->ne[1] * w->ne[2]);
}

/* Experts are packed as rows that follow each other: every expert has whole tiles, and so have the gate and the up rows
 * of a common tensor. Floats, whose products need two planes of activations, and very long rows stay raw. */
static bool are_tiled_experts(const weight *w)
{
    return w->type != TYPE_F16 && w->type != TYPE_BF16 && w->ne[1] % (2 * TILE_M) == 0 &&
           tile_n_records((uint32_t)w->ne[0]) <= MOE_MAX_RECORDS && w->ne[1] * w->ne[2] <= INT32_MAX;
}

static bool is_tiled(const weight *w)
{
    return w->is_matrix && tile_record_bytes(w->type) > 0 && (w->ne[2] == 1 || are_tiled_experts(w));
}

/* Of all experts. */
static uint32_t n_rows(const weight *w)
{
    return (uint32_t)(w->ne[1] * w->ne[2]);
}

static size_t device_bytes(const weight *w)
{
    if (stays_on_host(w)) return 0;
    if (is_tiled(w))
        return (size_t)tile_n_rows(n_rows(w)) * tile_n_records((uint32_t)w->ne[0]) * tile_record_bytes(w->type);
    return is_vector(w) ? n_elements(w) * sizeof(float) : w->bytes;
}

static facet_status check_weight(const weight *w, facet_error *err)
{
    const type_info *t = type_get(w->type);
    if (!t || !t->decode)
        return error_set(err, FACET_ERR_UNSUPPORTED, "tensor %s: type %s cannot be multiplied", w->name,
                         t ? t->name : "?");
    if (w->ne[0] % t->block_len || w->ne[0] > INT32_MAX || w->ne[1] > INT32_MAX || w->ne[2] > INT32_MAX ||
        type_bytes(t, n_elements(w)) != w->bytes)
        return error_set(err, FACET_ERR_SHAPE, "tensor %s: %llu x %llu x %llu %s are not %zu bytes", w->name,
                         (unsigned long long)w->ne[0], (unsigned long long)w->ne[1], (unsigned long long)w->ne[2],
                         t->name, w->bytes);
    return FACET_OK;
}

dev_weight cuda_describe_weight(const weight *w, const uint8_t *data)
{
    dev_weight d = {.type = is_vector(w) ? TYPE_F32 : w->type,
                    .n_in = (uint32_t)w->ne[0],
                    .n_out = (uint32_t)w->ne[1],
                    .n_experts = (uint32_t)w->ne[2],
                    .data = stays_on_host(w) ? NULL : data,
                    .record_bytes = is_tiled(w) ? tile_record_bytes(w->type) : 0,
                    .gain = 1,
                    .host = w};
    d.row_bytes = type_bytes(type_get(d.type), w->ne[0]);
    d.expert_bytes = d.row_bytes * d.n_out;
    return d;
}

static facet_status send_vector(stager *s, const weight *w, uint8_t *dst, facet_error *err)
{
    size_t n = n_elements(w);
    float *x = mem_alloc(n * sizeof *x);
    if (!x) return error_memory(err, w->name, n * sizeof *x);
    type_get(w->type)->decode(w->data, x, n);
    facet_status status = stager_send(s, dst, (const uint8_t *)x, n * sizeof *x, err);
    mem_free(x);
    return status;
}

/* Rows of a slice: whole tiles. */
static uint32_t slice_rows(const weight *w)
{
    size_t row = type_bytes(type_get(w->type), w->ne[0]), rows = STAGE_BYTES / row / TILE_M * TILE_M;
    return rows < TILE_M ? TILE_M : rows < n_rows(w) ? (uint32_t)rows : n_rows(w);
}

static facet_status send_tiles(stager *s, const weight *w, int index, uint8_t *dst, facet_error *err)
{
    const uint32_t n_in = (uint32_t)w->ne[0], n_out = n_rows(w), step = slice_rows(w);
    const size_t row = type_bytes(type_get(w->type), n_in);
    const size_t tile = (size_t)tile_n_records(n_in) * tile_record_bytes(w->type);
    for (uint32_t at = 0; at < n_out; at += step) {
        uint32_t n = n_out - at < step ? n_out - at : step;
        FACET_TRY(stager_send(s, s->slice, (const uint8_t *)w->data + at * row, n * row, err));
        cuda_tile_pack(w->type, s->slice, n_in, n, dst + at / TILE_M * tile, s->most + index, s->b->stream);
        FACET_TRY(cuda_check(s->b, cudaGetLastError(), "packing weights", err));
    }
    return FACET_OK;
}

/* The gains need the largest scales, which the device has found while packing. Waits for the stream. */
static facet_status read_gains(stager *s, int part, facet_error *err)
{
    cuda_backend *b = s->b;
    size_t bytes = (size_t)b->n_weights * sizeof *s->most;
    uint32_t *most = mem_alloc(bytes + 1);
    if (!most) return error_memory(err, "the scales of weights", bytes);
    facet_status status = cuda_check(b, cudaMemcpyAsync(most, s->most, bytes, cudaMemcpyDeviceToHost, b->stream),
                                     "uploading weights", err);
    cudaError_t end = cudaStreamSynchronize(b->stream);
    if (status == FACET_OK) status = cuda_check(b, end, "uploading weights", err);
    for (int i = 0; i < b->n_weights && status == FACET_OK; i++) {
        float x;
        memcpy(&x, &most[i], sizeof x);
        if (is_of(b->weights[i].host, part) && b->weights[i].record_bytes)
            b->weights[i].gain = cuda_tile_gain(b->weights[i].type, x);
    }
    mem_free(most);
    return status;
}

static facet_status send_weight(stager *s, const weight *w, int index, uint8_t *dst, facet_error *err)
{
    if (stays_on_host(w)) return FACET_OK;
    if (is_vector(w)) return send_vector(s, w, dst, err);
    if (is_tiled(w))
        FACET_TRY(send_tiles(s, w, index, dst, err));
    else
        FACET_TRY(stager_send(s, dst, w->data, w->bytes, err));
    if (w->map) file_map_release(w->map, w->data, w->bytes);
    return FACET_OK;
}

static size_t largest_slice(const weight *weights, int n, int part)
{
    size_t most = 0;
    for (int i = 0; i < n; i++) {
        if (!is_of(&weights[i], part) || !is_tiled(&weights[i])) continue;
        size_t bytes = slice_rows(&weights[i]) * type_bytes(type_get(weights[i].type), weights[i].ne[0]);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* The weights of a part (ALL_PARTS: of all of them) to where b->weights says. */
static facet_status send_part(cuda_backend *b, int part, facet_error *err)
{
    stager s;
    uint64_t total = 0;
    for (int i = 0; i < b->n_weights; i++) {
        const weight *w = b->weights[i].host;
        if (is_of(w, part)) total += is_tiled(w) ? w->bytes : device_bytes(w);
    }
    facet_status status =
        stager_open(b, total, largest_slice(b->host_weights, b->n_weights, part), part == ALL_PARTS, &s, err);
    for (int i = 0; i < b->n_weights && status == FACET_OK; i++) {
        const weight *w = b->weights[i].host;
        if (!is_of(w, part)) continue;
        if (i + 1 < b->n_weights && is_of(w + 1, part) && !stays_on_host(w + 1))
            file_map_will_need(w[1].data, w[1].bytes);
        status = send_weight(&s, w, i, (uint8_t *)(uintptr_t)b->weights[i].data, err);
    }
    if (status == FACET_OK) status = read_gains(&s, part, err);
    stager_close(&s);
    return status;
}

static size_t padded_bytes(const weight *w)
{
    return (device_bytes(w) + ALIGN - 1) / ALIGN * ALIGN;
}

uint64_t backend_cuda_weight_bytes(const weight *w)
{
    return padded_bytes(w);
}

/* Memory of a part, in one block, and the place of each of its weights in it. */
static facet_status alloc_part(cuda_backend *b, int part, facet_error *err)
{
    size_t bytes = 0;
    for (int i = 0; i < b->n_weights; i++)
        if (b->host_weights[i].part == part) bytes += padded_bytes(&b->host_weights[i]);
    if (bytes == 0) return FACET_OK;
    FACET_TRY(cuda_alloc(b, bytes, "the weights", (void **)&b->weight_memory[part], err));
    b->part_bytes[part] = bytes;
    b->weight_bytes += bytes;
    uint8_t *at = b->weight_memory[part];
    for (int i = 0; i < b->n_weights; i++) {
        if (b->host_weights[i].part != part) continue;
        b->weights[i] = cuda_describe_weight(&b->host_weights[i], at);
        at += padded_bytes(&b->host_weights[i]);
    }
    return FACET_OK;
}

static facet_status load_all(cuda_backend *b, const weight *weights, int n, facet_error *err)
{
    for (int i = 0; i < n; i++) {
        FACET_TRY(check_weight(&weights[i], err));
        b->weights[i] = cuda_describe_weight(&weights[i], NULL);
    }
    b->host_weights = weights;
    b->n_weights = n;
    for (int part = 0; part < WEIGHT_MAX_PARTS; part++) FACET_TRY(alloc_part(b, part, err));
    return send_part(b, ALL_PARTS, err);
}

facet_status cuda_load(backend *base, const weight *weights, int n, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    cuda_weights_free(b);
    b->weights = mem_calloc((size_t)n + 1, sizeof *b->weights);
    if (!b->weights) return error_memory(err, "the weight table", (size_t)n * sizeof *b->weights);
    facet_status status = load_all(b, weights, n, err);
    if (status != FACET_OK) cuda_weights_free(b);
    return status;
}

static void free_part(cuda_backend *b, int part)
{
    if (!b->weight_memory[part]) return;
    (void)cudaFree(b->weight_memory[part]);
    b->weight_memory[part] = NULL;
    b->weight_bytes -= b->part_bytes[part];
    for (int i = 0; i < b->n_weights; i++)
        if (b->host_weights[i].part == part) b->weights[i].data = NULL;
}

void cuda_unload(backend *base, int part)
{
    cuda_backend *b = (cuda_backend *)base;
    if (cuda_enter(b, NULL) != FACET_OK) return;
    (void)cudaStreamSynchronize(b->stream);
    free_part(b, part);
    for (int i = 0; i < b->n_weights; i++) {
        const weight *w = &b->host_weights[i];
        if (w->part == part && w->map) file_map_release(w->map, w->data, w->bytes);
    }
}

facet_status cuda_reload(backend *base, int part, facet_error *err)
{
    cuda_backend *b = (cuda_backend *)base;
    FACET_TRY(cuda_enter(b, err));
    if (b->weight_memory[part]) return FACET_OK;
    facet_status status = alloc_part(b, part, err);
    if (status == FACET_OK) status = send_part(b, part, err);
    if (status != FACET_OK) free_part(b, part);
    return status;
}

void cuda_weights_free(cuda_backend *b)
{
    for (int part = 0; part < WEIGHT_MAX_PARTS; part++) free_part(b, part);
    mem_free(b->weights);
    b->weights = NULL;
    b->host_weights = NULL;
    b->n_weights = 0;
    b->weight_bytes = 0;
}
