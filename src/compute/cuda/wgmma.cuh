/* wgmma.cuh: the matrix instructions of compute capability 9.0 in which four warps share the right side: 64 weight rows
 * from registers, N columns of 16 inputs from shared memory. A warp's weights and results lie as in mma.m16n8k16, and
 * its sums have the same bits (test_cuda_linear compares them). */
#ifndef FACET_COMPUTE_CUDA_WGMMA_CUH
#define FACET_COMPUTE_CUDA_WGMMA_CUH

#include <stdint.h>

/* FACET_NO_WGMMA tries the code of other cards on a 9.0 one. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) && !defined(FACET_NO_WGMMA)
#define FACET_WGMMA 1
#else
#define FACET_WGMMA 0
#endif

#if FACET_WGMMA

#define WGMMA_4(n) "+f"(c[n]), "+f"(c[n + 1]), "+f"(c[n + 2]), "+f"(c[n + 3])
#define WGMMA_16(n) WGMMA_4(n), WGMMA_4(n + 4), WGMMA_4(n + 8), WGMMA_4(n + 12)
#define WGMMA_32(n) WGMMA_16(n), WGMMA_16(n + 16)

/* c += weights (words of one lane) times the columns at b. Asynchronous: until wgmma_wait() neither c nor the words may
 * be touched. */
template <int N>
static __device__ inline void wgmma(float c[N / 2], const uint32_t low[2], const uint32_t high[2], uint64_t b);

template <> __device__ inline void wgmma<16>(float c[8], const uint32_t low[2], const uint32_t high[2], uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9,%10,%11}, %12, 1, 1, 1, 0;"
                 : WGMMA_4(0), WGMMA_4(4)
                 : "r"(low[0]), "r"(high[0]), "r"(low[1]), "r"(high[1]), "l"(b));
}

template <> __device__ inline void wgmma<32>(float c[16], const uint32_t low[2], const uint32_t high[2], uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}, {%16,%17,%18,%19}, %20, 1, 1, 1, 0;"
                 : WGMMA_16(0)
                 : "r"(low[0]), "r"(high[0]), "r"(low[1]), "r"(high[1]), "l"(b));
}

template <> __device__ inline void wgmma<64>(float c[32], const uint32_t low[2], const uint32_t high[2], uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"
                 "%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, 1, 1, 1, 0;"
                 : WGMMA_32(0)
                 : "r"(low[0]), "r"(high[0]), "r"(low[1]), "r"(high[1]), "l"(b));
}

template <> __device__ inline void wgmma<128>(float c[64], const uint32_t low[2], const uint32_t high[2], uint64_t b)
{
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 "
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"
                 "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,"
                 "%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, {%64,%65,%66,%67}, %68, 1, 1, 1, 0;"
                 : WGMMA_32(0), WGMMA_32(32)
                 : "r"(low[0]), "r"(high[0]), "r"(low[1]), "r"(high[1]), "l"(b));
}

#undef WGMMA_4
#undef WGMMA_16
#undef WGMMA_32

/* Before instructions whose registers the warp has just written. */
static __device__ inline void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ inline void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Until at most N committed groups are under way. */
template <int N> static __device__ inline void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* Columns of 128 bytes, eight of them one after another, their chunks of 16 bytes spread by the column (the hardware's
 * 128-byte swizzle). at: a shared address, its first column a multiple of 1024 bytes. */
static __device__ inline uint64_t wgmma_columns(uint32_t at)
{
    return (uint64_t)((at & 0x3ffff) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

#endif

#endif
