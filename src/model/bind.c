#include "model/bind.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static facet_status check_shape(const binder *b, const gguf_tensor *t, uint64_t n0, uint64_t n1, uint64_t n2)
{
    if (t->ne[0] == n0 && t->ne[1] == n1 && t->ne[2] == n2 && t->ne[3] == 1) return FACET_OK;
    return error_set(b->err, FACET_ERR_SHAPE, "%s: tensor %s is [%llu, %llu, %llu], wanted [%llu, %llu, %llu]",
                     gguf_path_of(b->f, t), t->name, (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
                     (unsigned long long)t->ne[2], (unsigned long long)n0, (unsigned long long)n1,
                     (unsigned long long)n2);
}

static facet_status check_type(const binder *b, const gguf_tensor *t, weight_class c)
{
    const type_info *type = type_get(t->type);
    bool is_vector = c == CLASS_VECTOR || c == CLASS_F32_MATRIX;
    if (is_vector && t->type != TYPE_F32)
        return error_set(b->err, FACET_ERR_UNSUPPORTED, "%s: tensor %s is %s, wanted F32", gguf_path_of(b->f, t),
                         t->name, type->name);
    if (!type->decode)
        return error_set(b->err, FACET_ERR_UNSUPPORTED, "%s: tensor %s has type %s, which is no weight type",
                         gguf_path_of(b->f, t), t->name, type->name);
    if (!is_vector && t->ne[0] % 32)
        return error_set(b->err, FACET_ERR_UNSUPPORTED,
                         "%s: tensor %s has rows of %llu values, wanted a multiple of 32", gguf_path_of(b->f, t),
                         t->name, (unsigned long long)t->ne[0]);
    return FACET_OK;
}

/* Appends rows [row, row + n1) of a checked tensor. */
static facet_status append(const binder *b, const gguf_tensor *t, weight_class c, uint64_t row, uint64_t n1, int *out)
{
    weights *w = b->w;
    if (w->n == w->cap) {
        int cap = w->cap ? w->cap * 2 : 256;
        weight *list = mem_resize_array(w->list, (size_t)cap, sizeof *list);
        if (list) w->list = list;
        float *scale = mem_resize_array(w->scale, (size_t)cap, sizeof *scale);
        if (scale) w->scale = scale;
        if (!list || !scale) return error_memory(b->err, "the weight table", (size_t)cap * sizeof *list);
        w->cap = cap;
    }
    const size_t row_bytes = type_bytes(type_get(t->type), t->ne[0]);
    weight *x = &w->list[w->n];
    *x = (weight){.type = (tensor_type)t->type,
                  .ne = {t->ne[0], n1, t->ne[2]},
                  .data = t->data + row * row_bytes,
                  .bytes = row_bytes * n1 * t->ne[2],
                  .map = &b->f->shards[t->shard],
                  .is_rows = c == CLASS_ROWS,
                  .is_matrix = c == CLASS_MATRIX,
                  .is_picked = c == CLASS_PICKED};
    snprintf(x->name, sizeof x->name, "%s", t->name);
    w->scale[w->n] = 1;
    *out = w->n++;
    return FACET_OK;
}

facet_status bind_tensor(const binder *b, weight_class c, bool required, uint64_t n0, uint64_t n1, uint64_t n2,
                         int *out, const char *name)
{
    *out = -1;
    const gguf_tensor *t = gguf_find_tensor(b->f, name);
    if (!t) return required ? error_set(b->err, FACET_ERR_FORMAT, "%s: missing tensor %s", b->f->path, name) : FACET_OK;
    FACET_TRY(check_shape(b, t, n0, n1, n2));
    FACET_TRY(check_type(b, t, c));
    return append(b, t, c, 0, n1, out);
}

/* NVFP4 files carry a second-level factor NAME.scale [1] beside NAME.weight. */
facet_status bind_factor(const binder *b, int index, const char *stem)
{
    if (index < 0 || b->w->list[index].ne[2] != 1) return FACET_OK;
    char name[80];
    snprintf(name, sizeof name, "%s.scale", stem);
    const gguf_tensor *t = gguf_find_tensor(b->f, name);
    if (!t) return FACET_OK;
    FACET_TRY(check_shape(b, t, 1, 1, 1));
    FACET_TRY(check_type(b, t, CLASS_VECTOR));
    memcpy(&b->w->scale[index], t->data, sizeof(float));
    if (!isfinite(b->w->scale[index]))
        return error_set(b->err, FACET_ERR_FORMAT, "%s: tensor %s is not finite", gguf_path_of(b->f, t), name);
    return FACET_OK;
}

facet_status bind_matrix(const binder *b, bool required, uint64_t n_in, uint64_t n_out, uint64_t n_experts, int *out,
                         int layer, const char *stem)
{
    char full[72], name[80];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s", layer, stem);
    else
        snprintf(full, sizeof full, "%s", stem);
    snprintf(name, sizeof name, "%s.weight", full);
    FACET_TRY(bind_tensor(b, CLASS_MATRIX, required, n_in, n_out, n_experts, out, name));
    return bind_factor(b, *out, full);
}

facet_status bind_vector(const binder *b, bool required, uint64_t n, int *out, int layer, const char *suffix)
{
    char name[72];
    snprintf(name, sizeof name, "blk.%d.%s", layer, suffix);
    return bind_tensor(b, CLASS_VECTOR, required, n, 1, 1, out, name);
}

facet_status bind_scalar(const binder *b, float absent, float *out, int layer, const char *suffix)
{
    int i;
    FACET_TRY(bind_vector(b, false, 1, &i, layer, suffix));
    *out = absent;
    if (i < 0) return FACET_OK;
    memcpy(out, b->w->list[i].data, sizeof *out);
    if (isfinite(*out)) return FACET_OK;
    return error_set(b->err, FACET_ERR_FORMAT, "%s: tensor blk.%d.%s is not finite", b->w->list[i].map->path, layer,
                     suffix);
}

facet_status bind_part(const binder *b, const gguf_tensor *t, uint64_t n_in, uint64_t n_rows, uint64_t row, uint64_t n,
                       int *out)
{
    FACET_TRY(check_shape(b, t, n_in, n_rows, 1));
    FACET_TRY(check_type(b, t, CLASS_MATRIX));
    return append(b, t, CLASS_MATRIX, row, n, out);
}
