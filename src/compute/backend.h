/* backend.h: what a device offers. One object per engine, driven by one thread. */
#ifndef FACET_COMPUTE_BACKEND_H
#define FACET_COMPUTE_BACKEND_H

#include "compute/batch.h"
#include "compute/plan.h"

typedef struct backend backend;
typedef struct compiled compiled; /* a plan made ready by a backend */

typedef struct backend_info {
    char name[16];                                  /* "ref", "cpu", "cuda" */
    char description[128];                          /* processor or card */
    uint64_t memory_total, memory_free;             /* device memory, or the host's for CPU backends */
    uint64_t weight_bytes, kv_bytes, compute_bytes; /* held now */
    char page_layout[16];                           /* of the bytes of a page: equal names, equal meaning */
} backend_info;

typedef struct backend_config {
    int n_threads; /* CPU backends: 0 = all processors */
    int device;    /* CUDA ordinal */
    bool use_mmap; /* weights stay in the mapped file */
    facet_progress_fn progress;
    void *progress_ud;
} backend_config;

/* What the device can do at best, measured on the spot. 0 = not known. */
typedef struct backend_ceilings {
    double read_gbps; /* 10^9 bytes per second read from memory */
    double dot_gops;  /* 10^9 operations per second of the multiplier that products use (a multiply-add is two) */
} backend_ceilings;
/* Rows of an output value of one compiled plan become rows of an input of another, or of the same, of the
 * same backend, without a way through host memory. */
typedef struct row_copy {
    compiled *src;
    int src_value;
    uint32_t src_column;
    const int32_t *src_rows; /* [n]; NULL: 0 .. n - 1 */
    compiled *dst;
    int dst_value, dst_row; /* rows dst_row .. dst_row + n - 1 */
    uint32_t dst_column;
    int n;
    uint32_t width; /* columns; 0: all of the source's */
} row_copy;

/* The entries stay few: a new wish becomes an op kind. None is optional. */
typedef struct backend_ops {
    /* Takes the weights (kept by index); the array and the mappings outlive the backend. */
    facet_status (*load)(backend *b, const weight *weights, int n, facet_error *err);
    /* Storage for the pages of every layer. Called once. */
    facet_status (*kv_alloc)(backend *b, const kv_desc *desc, facet_error *err);
    facet_status (*compile)(backend *b, const plan *p, int max_rows, int max_out, compiled **out, facet_error *err);
    void (*release)(backend *b, compiled *c);
    /* Runs the plan over the batch, which it does not keep. A device may still be at work when it returns: read()
     * waits, and calls take effect in their order. */
    facet_status (*run)(backend *b, compiled *c, const batch *batch, facet_error *err);
    /* Rows [row, row + n) of an output value, width * 4 bytes each. */
    facet_status (*read)(backend *b, compiled *c, int value, int row, int n, void *dst, facet_error *err);
    /* Like run(), and the milliseconds of each op of the plan, one after another ([n_ops]). */
    facet_status (*run_timed)(backend *b, compiled *c, const batch *batch, double *op_ms, facet_error *err);
    facet_status (*measure)(backend *b, backend_ceilings *out, facet_error *err);
    /* Host data into rows [row, row + n) of an input value. */
    facet_status (*write)(backend *b, compiled *c, int value, int row, int n, const void *src, facet_error *err);
    facet_status (*copy_rows)(backend *b, const row_copy *copy, facet_error *err);
    /* Only the page copies and slot moves of a batch that has no rows. */
    facet_status (*move)(backend *b, const batch *batch, facet_error *err);
    /* Frees what the backend holds of the weights of a part, and makes it again. No compiled plan that uses them may
     * exist in between. On failure the part stays unloaded. */
    void (*unload)(backend *b, int part);
    facet_status (*reload)(backend *b, int part, facet_error *err);
    /* Frees the storage of a group's layers, and makes it again, with other contents. Nothing may run in between that
     * uses it. On failure it stays freed. */
    void (*kv_drop)(backend *b, int group);
    facet_status (*kv_renew)(backend *b, int group, facet_error *err);
    /* The bytes of n pages of a group, all its layers: kv_group_page_bytes each, layer after layer in each page. What
     * is written can be used by the next run. */
    facet_status (*kv_read)(backend *b, int group, const int32_t *pages, int n, void *dst, facet_error *err);
    facet_status (*kv_write)(backend *b, int group, const int32_t *pages, int n, const void *src, facet_error *err);
    void (*info)(const backend *b, backend_info *out);
    void (*close)(backend *b);
} backend_ops;

struct backend {
    const backend_ops *ops;
};

/* The rules of row_copy for backends: values that own memory, an input as destination, equal types, rows and columns in
 * bounds. FACET_ERR_ARG names plan and value. */
facet_status row_copy_check(const row_copy *copy, const plan *src, int src_rows, const plan *dst, int dst_rows,
                            facet_error *err);
/* Likewise for read and write: rows [row, row + n) of a value of a plan that holds `rows` of them. */
facet_status row_access_check(const plan *p, int value, int row, int n, int rows, bool is_write, facet_error *err);

/* The rules of kv_read and kv_write: a group and pages of the layout. */
facet_status kv_access_check(const kv_desc *d, int group, const int32_t *pages, int n, facet_error *err);

/* "ref", "cpu", "cuda", "cuda:N", "auto" (the first CUDA device that is usable, else cpu; says so in the log). */
facet_status backend_open(const char *device, const backend_config *cfg, backend **out, facet_error *err);

facet_status backend_cpu_open(const backend_config *cfg, bool is_ref, backend **out, facet_error *err);
/* What the CPU backend's own copy of a weight takes (0: it has none), unless it runs from the mapped file. */
uint64_t backend_cpu_weight_bytes(const weight *w);
/* What compile() of a CPU backend with n_threads (0: all processors) takes for this plan: activations and scratch.
 * weights: those that the plan names. Takes nothing itself but a little for the while. */
facet_status backend_cpu_plan_bytes(const plan *p, const weight *weights, const kv_desc *kv, int n_threads,
                                    int max_rows, int max_out, uint64_t *out, facet_error *err);
/* FACET_ERR_DEVICE when this build has no CUDA, or there is no driver, no device, or only too old a one. */
facet_status backend_cuda_open(const backend_config *cfg, backend **out, facet_error *err);
/* What a CUDA backend will hold of a weight, and for a plan over such weights and a cache of that layout, asked before
 * anything is loaded; no device is needed. 0 in a build without CUDA. FACET_ERR_UNSUPPORTED for a layout that it lacks.
 */
uint64_t backend_cuda_weight_bytes(const weight *w);
facet_status backend_cuda_plan_bytes(const weight *weights, int n, const plan *p, const kv_desc *kv, int max_rows,
                                     int max_out, uint64_t *out, facet_error *err);
/* One line per CUDA device for --version; "" without any. */
void backend_cuda_describe(char *out, size_t n);

#endif
