/* rng.h: xoshiro256++ (Blackman, Vigna 2019, public domain), seeded by splitmix64. */
#ifndef FACET_BASE_RNG_H
#define FACET_BASE_RNG_H

#include <math.h>
#include <stdint.h>

typedef struct rng {
    uint64_t s[4];
} rng;

static inline uint64_t rng_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline void rng_seed(rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        r->s[i] = rng_mix(seed += 0x9e3779b97f4a7c15u);
    }
}

static inline uint64_t rng_rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

static inline uint64_t rng_next(rng *r)
{
    uint64_t *s = r->s, result = rng_rotl(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rng_rotl(s[3], 45);
    return result;
}

/* [0, 1), 53 bits */
static inline double rng_uniform(rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

/* standard normal (Box, Muller 1958) */
static inline double rng_normal(rng *r)
{
    double u = 1.0 - rng_uniform(r), v = rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

/* A number in [0, 1) that depends on the seed, a position and a lane (several numbers for one position) alone, not on
 * what was drawn before: two rounds of splitmix64's finaliser (Steele, Lea, Flood 2014) over a Weyl step per input. */
static inline double rng_uniform_at(uint64_t seed, int64_t pos, uint32_t lane)
{
    const uint64_t weyl = 0x9e3779b97f4a7c15u;
    uint64_t z = rng_mix(seed + weyl);
    z = rng_mix(z ^ (uint64_t)pos * weyl);
    z = rng_mix(z + ((uint64_t)lane + 1) * weyl);
    return (double)(z >> 11) * 0x1p-53;
}

/* [0, n), n >= 1 */
static inline uint32_t rng_below(rng *r, uint32_t n)
{
    return (uint32_t)(((rng_next(r) >> 32) * (uint64_t)n) >> 32);
}

#endif
