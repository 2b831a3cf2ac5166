#include "compute/backend.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#ifndef FACET_HAVE_CUDA
facet_status backend_cuda_open(const backend_config *cfg, backend **out, facet_error *err)
{
    (void)cfg, (void)out;
    return error_set(err, FACET_ERR_DEVICE,
                     "this build has no CUDA backend; use --device cpu, or build where nvcc is installed");
}

void backend_cuda_describe(char *out, size_t n)
{
    if (n) out[0] = 0;
}
#endif

static bool cuda_ordinal(const char *device, int *ordinal)
{
    if (strcmp(device, "cuda") == 0) return *ordinal = 0, true;
    if (strncmp(device, "cuda:", 5) != 0) return false;
    char *end;
    const long v = strtol(device + 5, &end, 10);
    if (end == device + 5 || *end || v < 0 || v > 1023) return false;
    *ordinal = (int)v;
    return true;
}

facet_status backend_open(const char *device, const backend_config *cfg, backend **out, facet_error *err)
{
    backend_config c = *cfg;
    if (strcmp(device, "ref") == 0) return backend_cpu_open(&c, true, out, err);
    if (strcmp(device, "cpu") == 0) return backend_cpu_open(&c, false, out, err);
    if (cuda_ordinal(device, &c.device)) return backend_cuda_open(&c, out, err);
    if (strcmp(device, "auto") != 0)
        return error_set(err, FACET_ERR_ARG, "device '%s': wanted cpu, cuda, cuda:N, ref or auto", device);
    facet_error why;
    if (backend_cuda_open(&c, out, &why) == FACET_OK) return FACET_OK;
    log_line(FACET_LOG_INFO, "device auto: using the CPU (%s)", why.message);
    return backend_cpu_open(&c, false, out, err);
}
