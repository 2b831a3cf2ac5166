#include "compute/cpu/rows_impl.h"

const row_kernels *rows_avx2(void)
{
    return &kernels;
}
