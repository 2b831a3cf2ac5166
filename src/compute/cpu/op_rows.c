/* op_rows.c: ops that treat each row alone. Row r always belongs to thread r mod n_threads, so that such ops follow
 * each other without a barrier (exec.h). */
#include <string.h>

#include "compute/cpu/exec.h"

void exec_quantize_row(const exec *x, int value, int r)
{
    const value_state *v = &x->c->values[value];
    if (!v->act) return;
    const uint32_t width = x->c->plan->values[value].width;
    const size_t per_row = width / v->segment, n = (size_t)exec_n_rows(x, value) * per_row;
    for (size_t s = 0; s < per_row; s++)
        x->be->quantize(exec_row(x, value, r) + s * v->segment, v->segment, v->act + (size_t)r * per_row + s, n);
}

void op_embed(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const weight *w = &x->be->weights[op->w0];
    const type_info *type = type_get(w->type);
    const size_t row_bytes = type_bytes(type, w->ne[0]);
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        const int32_t token = op->i0 >= 0 ? *(const int32_t *)(const void *)exec_row(x, op->i0, r)
                                          : x->batch->token[exec_batch_row(x, op->o, r)];
        float *out = exec_row(x, op->o, r);
        if (token >= 0 && (uint64_t)token < w->ne[1]) {
            type->decode((const uint8_t *)w->data + (size_t)token * row_bytes, out, w->ne[0]);
            x->be->rows->scale(out, w->ne[0], op->scale);
        } else {
            memset(out, 0, w->ne[0] * sizeof *out);
        }
        exec_quantize_row(x, op->o, r);
    }
}

void op_norm(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const uint32_t width = x->c->plan->values[op->o].width, group = op->group ? op->group : width;
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        const float *in = exec_row(x, op->i0, r);
        float *out = exec_row(x, op->o, r);
        for (uint32_t g = 0; g < width; g += group)
            x->be->rows->rms_norm(in + g, exec_vector(x, op->w0), group, op->eps, out + g);
        exec_quantize_row(x, op->o, r);
    }
}

void op_norm_add(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const uint32_t width = x->c->plan->values[op->o].width;
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        x->be->rows->rms_norm_add(exec_row(x, op->i0, r), exec_vector(x, op->w0), exec_row(x, op->i1, r), width,
                                  op->eps, op->scale, exec_row(x, op->o, r));
        exec_quantize_row(x, op->o, r);
    }
}

void op_add(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const uint32_t width = x->c->plan->values[op->o].width;
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        x->be->rows->add(exec_row(x, op->i0, r), exec_row(x, op->i1, r), width, op->scale, exec_row(x, op->o, r));
        exec_quantize_row(x, op->o, r);
    }
}

void op_gather(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const uint32_t width = x->c->plan->values[op->o].width;
    for (int r = thread; r < x->batch->n_out; r += n_threads) {
        memcpy(exec_row(x, op->o, r), exec_row(x, op->i0, x->batch->out_row[r]), width * sizeof(float));
        exec_quantize_row(x, op->o, r);
    }
}

void op_concat(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const uint32_t left = x->c->plan->values[op->i0].width, right = x->c->plan->values[op->i1].width;
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        float *out = exec_row(x, op->o, r);
        memcpy(out, exec_row(x, op->i0, r), left * sizeof *out);
        memcpy(out + left, exec_row(x, op->i1, r), right * sizeof *out);
        exec_quantize_row(x, op->o, r);
    }
}

void op_capture(const exec *x, const plan_op *op, int thread, int n_threads)
{
    const uint32_t width = x->c->plan->values[op->o].width;
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads)
        memcpy(exec_row(x, op->o, r), exec_row(x, op->i0, r), width * sizeof(float));
}

void op_argmax(const exec *x, const plan_op *op, int thread, int n_threads)
{
    for (int r = thread; r < exec_n_rows(x, op->o); r += n_threads) {
        const int32_t best = x->be->rows->argmax(exec_row(x, op->i0, r), x->c->plan->values[op->i0].width);
        memcpy(exec_row(x, op->o, r), &best, sizeof best);
    }
}
