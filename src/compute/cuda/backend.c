/* backend.c: CUDA devices: which there are, opening and closing one. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "compute/cuda/state.h"

enum { MIN_MAJOR = 8 };

/* Why there is no device to use; FACET_OK when *n is at least 1. */
static facet_status count_devices(int *n, facet_error *err)
{
    int driver = 0;
    cudaError_t e = cudaDriverGetVersion(&driver);
    if (e != cudaSuccess || driver == 0)
        return error_set(err, FACET_ERR_DEVICE, "no NVIDIA driver on this machine; use --device cpu");
    e = cudaGetDeviceCount(n);
    if (e == cudaErrorInsufficientDriver)
        return error_set(err, FACET_ERR_DEVICE,
                         "the NVIDIA driver is for CUDA %d.%d, this build needs %d.%d or newer; update it or use "
                         "--device cpu",
                         driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (e == cudaErrorNoDevice || (e == cudaSuccess && *n == 0))
        return error_set(err, FACET_ERR_DEVICE, "no CUDA device on this machine; use --device cpu");
    if (e != cudaSuccess)
        return error_set(err, FACET_ERR_DEVICE, "looking for CUDA devices: %s; use --device cpu",
                         cudaGetErrorString(e));
    return FACET_OK;
}

static facet_status check_device(int device, struct cudaDeviceProp *prop, facet_error *err)
{
    int n = 0;
    facet_status status = count_devices(&n, err);
    (void)cudaGetLastError();
    if (status != FACET_OK) return status;
    if (device < 0 || device >= n)
        return error_set(err, FACET_ERR_DEVICE, "no CUDA device %d: this machine has 0 to %d", device, n - 1);
    cudaError_t e = cudaGetDeviceProperties(prop, device);
    if (e != cudaSuccess) return error_set(err, FACET_ERR_DEVICE, "CUDA device %d: %s", device, cudaGetErrorString(e));
    if (prop->major < MIN_MAJOR)
        return error_set(err, FACET_ERR_DEVICE,
                         "CUDA device %d (%s) has compute capability %d.%d; wanted %d.0 or newer; use --device cpu",
                         device, prop->name, prop->major, prop->minor, MIN_MAJOR);
    return FACET_OK;
}

static void describe(const struct cudaDeviceProp *prop, char *out, size_t n)
{
    snprintf(out, n, "%.80s, sm_%d%d, %.1f GiB", prop->name, prop->major, prop->minor,
             (double)prop->totalGlobalMem / (1 << 30));
}

static void cuda_info(const backend *base, backend_info *out)
{
    const cuda_backend *b = (const cuda_backend *)base;
    size_t free = 0, total = 0;
    if (!b->failed && cudaSetDevice(b->device) == cudaSuccess) (void)cudaMemGetInfo(&free, &total);
    *out = (backend_info){.memory_total = total,
                          .memory_free = free,
                          .weight_bytes = b->weight_bytes,
                          .kv_bytes = b->kv_bytes,
                          .compute_bytes = b->compute_bytes};
    snprintf(out->name, sizeof out->name, "cuda");
    snprintf(out->page_layout, sizeof out->page_layout, "rows-apart"); /* q8_0 rows: codes, then scales */
    snprintf(out->description, sizeof out->description, "%s", b->description);
}

static void cuda_close(backend *base)
{
    if (!base) return;
    cuda_backend *b = (cuda_backend *)base;
    (void)cudaSetDevice(b->device);
    cuda_pages_free(b);
    cuda_weights_free(b);
    (void)cudaFree(b->product_sums);
    (void)cudaFree(b->product_arrivals);
    if (b->stream) (void)cudaStreamDestroy(b->stream);
    mem_free(b);
}

static const backend_ops cuda_ops = {
    .load = cuda_load,
    .kv_alloc = cuda_kv_alloc,
    .compile = cuda_compile,
    .release = cuda_release,
    .run = cuda_run,
    .read = cuda_read,
    .write = cuda_write,
    .copy_rows = cuda_copy_rows,
    .move = cuda_move,
    .unload = cuda_unload,
    .reload = cuda_reload,
    .kv_drop = cuda_kv_drop,
    .kv_renew = cuda_kv_renew,
    .kv_read = cuda_kv_read,
    .kv_write = cuda_kv_write,
    .run_timed = cuda_run_timed,
    .measure = cuda_measure,
    .info = cuda_info,
    .close = cuda_close,
};

facet_status backend_cuda_open(const backend_config *cfg, backend **out, facet_error *err)
{
    struct cudaDeviceProp prop;
    FACET_TRY(check_device(cfg->device, &prop, err));
    cuda_backend *b = mem_calloc(1, sizeof *b);
    if (!b) return error_memory(err, "a backend", sizeof *b);
    b->base.ops = &cuda_ops;
    b->device = cfg->device;
    b->n_threads = cfg->n_threads;
    b->progress = cfg->progress;
    b->progress_ud = cfg->progress_ud;
    b->n_sms = prop.multiProcessorCount;
    b->shared_bytes = (int)prop.sharedMemPerBlockOptin;
    b->has_overlap = prop.major >= 9;
    describe(&prop, b->description, sizeof b->description);
    facet_status status = cuda_enter(b, err);
    if (status == FACET_OK)
        status = cuda_check(b, cudaStreamCreateWithFlags(&b->stream, cudaStreamNonBlocking), "making a stream", err);
    if (status == FACET_OK) status = cuda_products_open(b, err);
    if (status == FACET_OK) status = cuda_wide_open(b, err);
    if (status == FACET_OK) status = cuda_attn_open(b, err);
    if (status == FACET_OK) status = cuda_moe_open(b, err);
    if (status == FACET_OK) status = cuda_moe_products_open(b, err);
    if (status == FACET_OK)
        *out = &b->base;
    else
        cuda_close(&b->base);
    return status;
}

void backend_cuda_describe(char *out, size_t size)
{
    if (!size) return;
    out[0] = 0;
    int n = 0;
    if (count_devices(&n, NULL) != FACET_OK) n = 0;
    for (int i = 0; i < n; i++) {
        struct cudaDeviceProp prop;
        char line[160];
        size_t at = strlen(out);
        if (cudaGetDeviceProperties(&prop, i) != cudaSuccess) continue;
        describe(&prop, line, sizeof line);
        snprintf(out + at, size - at, "cuda:%d %s\n", i, line);
    }
    (void)cudaGetLastError();
}
