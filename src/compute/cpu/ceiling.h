/* ceiling.h: what this processor can do at best, measured: the yardsticks of `facet bench`. */
#ifndef FACET_COMPUTE_CPU_CEILING_H
#define FACET_COMPUTE_CPU_CEILING_H

#include "base/team.h"
#include "compute/backend.h"

/* Reads anonymous memory and multiplies int8 in registers on all threads of the team, several times; the medians. */
facet_status cpu_measure_ceilings(team *t, backend_ceilings *out, facet_error *err);

/* `rounds` rounds of independent int8 dot products in registers; returns something that depends on them. Each gives the
 * number of multiply-adds of one round. NULL where the CPU lacks the instructions. */
typedef uint32_t (*int_dot_fn)(uint32_t rounds, uint32_t *macs_per_round);
uint32_t int_dot_avx2(uint32_t rounds, uint32_t *macs_per_round);
uint32_t int_dot_avx512(uint32_t rounds, uint32_t *macs_per_round);

#endif
