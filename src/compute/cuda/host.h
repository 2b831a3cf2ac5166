/* host.h: the C headers that device sources may use, seen from C++. */
#ifndef FACET_COMPUTE_CUDA_HOST_H
#define FACET_COMPUTE_CUDA_HOST_H

extern "C" {
#include "base/error.h"
#include "base/file_map.h"
#include "base/log.h"
#include "base/mem.h"
#include "compute/backend.h"
#include "compute/batch.h"
#include "compute/kv.h"
#include "compute/plan.h"
#include "quant/type.h"
}

#endif
