/* host.h: the C headers that device sources may use, also seen from C++. */
#ifndef FACET_COMPUTE_CUDA_HOST_H
#define FACET_COMPUTE_CUDA_HOST_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"
#include "compute/backend.h"
#include "compute/batch.h"
#include "compute/kv.h"
#include "compute/plan.h"
#include "quant/type.h"

#ifdef __cplusplus
}
#endif

#endif
