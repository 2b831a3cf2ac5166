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

uint64_t backend_cuda_weight_bytes(const weight *w)
{
    (void)w;
    return 0;
}

facet_status backend_cuda_plan_bytes(const weight *weights, int n, const plan *p, const kv_desc *kv, int max_rows,
                                     int max_out, uint64_t *out, facet_error *err)
{
    (void)weights, (void)n, (void)p, (void)kv, (void)max_rows, (void)max_out, (void)err;
    *out = 0;
    return FACET_OK;
}
#endif

facet_status row_access_check(const plan *p, int value, int row, int n, int rows, bool is_write, facet_error *err)
{
    const plan_value *v = value >= 0 && value < p->n_values ? &p->values[value] : NULL;
    if (!v || !(is_write ? v->is_input : v->is_output))
        return error_set(err, FACET_ERR_ARG, "value %d of plan %s is no %s", value, p->name,
                         is_write ? "input" : "output");
    if (row < 0 || n < 0 || row > rows - n)
        return error_set(err, FACET_ERR_ARG, "plan %s: rows %d + %d of value %s: it has %d", p->name, row, n, v->name,
                         rows);
    return FACET_OK;
}

static facet_status check_columns(const plan *p, int value, uint32_t column, uint32_t width, facet_error *err)
{
    const plan_value *v = &p->values[value];
    if (column <= v->width && width <= v->width - column) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "plan %s: columns %u + %u of value %s: it has %u", p->name, column, width,
                     v->name, v->width);
}

facet_status row_copy_check(const row_copy *c, const plan *src, int src_rows, const plan *dst, int dst_rows,
                            facet_error *err)
{
    FACET_TRY(row_access_check(dst, c->dst_value, c->dst_row, c->n, dst_rows, true, err));
    FACET_TRY(row_access_check(src, c->src_value, 0, c->src_rows ? 0 : c->n, src_rows, false, err));
    for (int i = 0; i < c->n && c->src_rows; i++)
        FACET_TRY(row_access_check(src, c->src_value, c->src_rows[i], 1, src_rows, false, err));
    const plan_value *from = &src->values[c->src_value], *to = &dst->values[c->dst_value];
    if (from->type != to->type)
        return error_set(err, FACET_ERR_ARG, "value %s of plan %s and value %s of plan %s have different types",
                         from->name, src->name, to->name, dst->name);
    const uint32_t width = c->width ? c->width : from->width;
    FACET_TRY(check_columns(src, c->src_value, c->src_column, width, err));
    return check_columns(dst, c->dst_value, c->dst_column, width, err);
}

facet_status kv_access_check(const kv_desc *d, int group, const int32_t *pages, int n, facet_error *err)
{
    if (group < 0 || group >= d->n_groups)
        return error_set(err, FACET_ERR_ARG, "KV group %d: there are %d", group, d->n_groups);
    for (int i = 0; i < n; i++)
        if (pages[i] < 0 || pages[i] >= d->groups[group].n_pages)
            return error_set(err, FACET_ERR_ARG, "KV group %d: page %d: it has %d", group, pages[i],
                             d->groups[group].n_pages);
    return FACET_OK;
}

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
