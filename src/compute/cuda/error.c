/* error.c: CUDA errors as statuses. */
#include "compute/cuda/state.h"

static double mib(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

facet_status cuda_check(cuda_backend *b, cudaError_t e, const char *what, facet_error *err)
{
    if (e == cudaSuccess) return FACET_OK;
    (void)cudaGetLastError(); /* forgets an error that is not sticky */
    if (e == cudaErrorMemoryAllocation)
        return error_set(err, FACET_ERR_MEMORY, "out of memory on CUDA device %d: %s", b->device, what);
    b->failed = cudaStreamSynchronize(b->stream) != cudaSuccess;
    return error_set(err, FACET_ERR_DEVICE, "CUDA device %d: %s: %s (%s)%s", b->device, what, cudaGetErrorString(e),
                     cudaGetErrorName(e), b->failed ? "; the device is lost to this engine" : "");
}

facet_status cuda_alloc(cuda_backend *b, size_t bytes, const char *what, void **out, facet_error *err)
{
    void *p = NULL;
    *out = NULL;
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        size_t free = 0, total = 0;
        (void)cudaMemGetInfo(&free, &total);
        return error_set(err, FACET_ERR_MEMORY,
                         "out of memory on CUDA device %d: %s needs %.1f MiB, %.1f of %.1f are free", b->device, what,
                         mib(bytes), mib(free), mib(total));
    }
    FACET_TRY(cuda_check(b, e, what, err));
    *out = p;
    return FACET_OK;
}

facet_status cuda_alloc_pinned(cuda_backend *b, size_t bytes, const char *what, void **out, facet_error *err)
{
    void *p = NULL;
    *out = NULL;
    cudaError_t e = cudaMallocHost(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return error_set(err, FACET_ERR_MEMORY, "out of memory: %s needs %.1f MiB of pinned memory", what, mib(bytes));
    }
    FACET_TRY(cuda_check(b, e, what, err));
    *out = p;
    return FACET_OK;
}

facet_status cuda_enter(cuda_backend *b, facet_error *err)
{
    if (b->failed)
        return error_set(err, FACET_ERR_DEVICE, "CUDA device %d failed earlier; open the engine again", b->device);
    (void)cudaGetLastError(); /* a harmless error left by a failure path must not be blamed on the next launch */
    return cuda_check(b, cudaSetDevice(b->device), "selecting the device", err);
}
