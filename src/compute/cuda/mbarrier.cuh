/* mbarrier.cuh: barriers in shared memory that a few warps fill stages against, and copies that arrive on them. On
 * cards before 9.0 the copies are cp.async of 16 bytes per lane. Addresses are shared addresses. */
#ifndef FACET_COMPUTE_CUDA_MBARRIER_CUH
#define FACET_COMPUTE_CUDA_MBARRIER_CUH

#include "compute/cuda/async.cuh"

/* Arrivals that one stage_fill() makes. */
enum { FILL_ARRIVALS = FACET_BULK_COPY ? 1 : WARP };

static __device__ inline void barrier_init(uint32_t bar, int arrivals)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(bar), "r"(arrivals) : "memory");
}

/* After barrier_init, by the thread that did it, before the block's (or cluster's) barrier. */
static __device__ inline void barrier_init_done()
{
#if FACET_BULK_COPY
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

static __device__ inline void barrier_wait(uint32_t bar, uint32_t phase)
{
#if FACET_OVERLAP
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}\n" ::"r"(bar),
                 "r"(phase)
                 : "memory");
#else
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.test_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}\n" ::"r"(bar),
                 "r"(phase)
                 : "memory");
#endif
}

static __device__ inline void barrier_arrive(uint32_t bar)
{
    asm volatile("{\n"
                 ".reg .b64 state;\n"
                 "mbarrier.arrive.shared.b64 state, [%0];\n"
                 "}\n" ::"r"(bar)
                 : "memory");
}

/* Where the next stage of a ring is. */
typedef struct ring_place {
    int stage;
    uint32_t phase;
} ring_place;

static __device__ inline void place_next(ring_place *p, int n)
{
    if (++p->stage < n) return;
    p->stage = 0;
    p->phase ^= 1;
}

/* The bytes that copies are about to bring to a barrier. By one lane. */
static __device__ inline void fill_expect(uint32_t bar, int bytes)
{
#if FACET_BULK_COPY
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
#endif
}

/* One contiguous piece, by one lane. Only with bulk copies. */
static __device__ inline void fill_bulk(uint32_t dst, const uint8_t *src, int bytes, uint32_t bar)
{
#if FACET_BULK_COPY
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(dst),
                 "l"(src), "r"(bytes), "r"(bar)
                 : "memory");
#endif
}

/* Without bulk copies: a piece by the whole warp, and at the end of a stage fill_arrive() by the whole warp. */
static __device__ inline void fill_lanes(uint32_t dst, const uint8_t *src, int bytes)
{
#if !FACET_BULK_COPY
    for (int at = lane_id() * 16; at < bytes; at += WARP * 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst + at), "l"(src + at) : "memory");
#endif
}

static __device__ inline void fill_arrive(uint32_t bar)
{
#if !FACET_BULK_COPY
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(bar) : "memory");
#endif
}

#endif
