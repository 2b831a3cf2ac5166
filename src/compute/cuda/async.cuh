/* async.cuh: launches that overlap, and copies into shared memory that run beside the arithmetic.
 *
 * From compute capability 9.0 on a kernel may start before its predecessor has ended (programmatic dependent launch):
 * it must call wait_for_predecessors() before it touches anything that an earlier kernel reads or writes. Copies are
 * bulk copies there, and cp.async of 16 bytes per lane on older cards. */
#ifndef FACET_COMPUTE_CUDA_ASYNC_CUH
#define FACET_COMPUTE_CUDA_ASYNC_CUH

#include "compute/cuda/device.cuh"
#include "compute/cuda/ops.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define FACET_OVERLAP 1
#else
#define FACET_OVERLAP 0
#endif
/* FACET_NO_BULK_COPY tries the code of older cards on a new one. */
#if FACET_OVERLAP && !defined(FACET_NO_BULK_COPY)
#define FACET_BULK_COPY 1
#else
#define FACET_BULK_COPY 0
#endif

enum { RING_MAX_STAGES = 8 };

/* Launches a kernel that calls wait_for_predecessors() first. */
template <typename... P, typename... A>
static inline void launch_overlapped(const cuda_backend *b, void (*kernel)(P...), dim3 grid, int block, size_t shared,
                                     A... args)
{
    cudaLaunchAttribute overlap = {};
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3((unsigned)block);
    config.dynamicSmemBytes = shared;
    config.stream = b->stream;
    config.attrs = &overlap;
    config.numAttrs = b->has_overlap ? 1 : 0;
    (void)cudaLaunchKernelEx(&config, kernel, P(args)...);
}

static __device__ inline void wait_for_predecessors()
{
#if FACET_OVERLAP
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* From here on the next kernel of the stream may start, once every block of this one has come here. A kernel may call
 * it first of all: the next one waits for the end of this one, which waits for the end of all before it. */
static __device__ inline void release_dependents()
{
#if FACET_OVERLAP
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* Orders this thread's accesses to device memory as others of the device see them. */
static __device__ inline void fence()
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

/* The stages of one warp in shared memory, filled and used in order. */
typedef struct ring {
    uint8_t *stages;
    uint32_t barriers; /* shared address of one mbarrier per stage */
    int n, bytes;      /* stages, bytes of one */
    int stage;         /* the next to be used, and to be filled again */
    uint32_t phase;
} ring;

static __device__ inline uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

static __device__ inline void ring_init(ring *r, uint8_t *stages, uint64_t *barriers, int n, int bytes)
{
    r->stages = stages;
    r->barriers = shared_address(barriers);
    r->n = n;
    r->bytes = bytes;
    r->stage = 0;
    r->phase = 0;
#if FACET_BULK_COPY
    if (lane_id() == 0) {
        for (int i = 0; i < n; i++) asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(r->barriers + 8 * i));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncwarp();
#endif
}

/* Fills a stage with N pieces of `bytes` each, `apart` bytes apart in the stage. Called by the whole warp once per
 * stage and round, also when nothing is left to copy (!is_needed). */
template <int N>
static __device__ inline void ring_fill(const ring &r, int stage, const uint8_t *const (&pieces)[N], bool is_needed,
                                        int bytes, int apart)
{
    uint32_t dst = shared_address(r.stages + stage * r.bytes);
#if FACET_BULK_COPY
    uint32_t bar = r.barriers + 8 * stage;
    if (!is_needed || lane_id() != 0) return;
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "r"(N * bytes) : "memory");
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                         dst + i * apart),
                     "l"(pieces[i]), "r"(bytes), "r"(bar)
                     : "memory");
#else
#pragma unroll
    for (int i = 0; i < N; i++)
        for (int at = lane_id() * 16; is_needed && at < bytes; at += WARP * 16)
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst + i * apart + at), "l"(pieces[i] + at)
                         : "memory");
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* The next stage, once it is full. */
static __device__ inline const uint8_t *ring_wait(const ring &r)
{
#if FACET_BULK_COPY
    asm volatile("{\n"
                 ".reg .pred full;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared.b64 full, [%0], %1;\n"
                 "@!full bra again;\n"
                 "}\n" ::"r"(r.barriers + 8 * r.stage),
                 "r"(r.phase)
                 : "memory");
#else
    switch (r.n) { /* the count must be a constant */
    case 1: asm volatile("cp.async.wait_group 0;" ::: "memory"); break;
    case 2: asm volatile("cp.async.wait_group 1;" ::: "memory"); break;
    case 3: asm volatile("cp.async.wait_group 2;" ::: "memory"); break;
    case 4: asm volatile("cp.async.wait_group 3;" ::: "memory"); break;
    case 5: asm volatile("cp.async.wait_group 4;" ::: "memory"); break;
    case 6: asm volatile("cp.async.wait_group 5;" ::: "memory"); break;
    case 7: asm volatile("cp.async.wait_group 6;" ::: "memory"); break;
    default: asm volatile("cp.async.wait_group 7;" ::: "memory"); break; /* RING_MAX_STAGES */
    }
    __syncwarp();
#endif
    return r.stages + r.stage * r.bytes;
}

/* Waits until the first records asked for into a stage have come. Elsewhere copies are waited for in order only. */
static __device__ inline void ring_arrived(ring r, int stage)
{
#if FACET_BULK_COPY
    r.stage = stage;
    r.phase = 0;
    (void)ring_wait(r);
#else
    (void)r;
    (void)stage;
#endif
}

static __device__ inline void ring_next(ring *r)
{
    if (++r->stage < r->n) return;
    r->stage = 0;
    r->phase ^= 1;
}

#endif
