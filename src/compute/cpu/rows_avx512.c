#include "compute/cpu/rows_impl.h"

const row_kernels *rows_avx512(void)
{
    return &kernels;
}
