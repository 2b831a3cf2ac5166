#include "compute/cpu/rows.h"

#include "base/cpu.h"

const row_kernels *rows_best(void)
{
#if defined(__x86_64__)
    if (cpu_features()->avx512) return rows_avx512();
    if (cpu_features()->avx2) return rows_avx2();
#endif
    return rows_scalar();
}
