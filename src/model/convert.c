#include "model/convert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "file/safetensors.h"
#include "model/hf_config.h"
#include "model/hf_names.h"
#include "model/hf_tokenizer.h"
#include "model/quantize.h"
#include "model/transcode.h"
#include "text/chat.h"

#define TEMPLATE_KEY "tokenizer.chat_template"
#define MASK_KEY "tokenizer.ggml.mask_token_id"

typedef struct item {
    const st_tensor *src; /* NULL: the divisors of the rotary frequencies */
    char name[96];
    int layer, n_dims;
    uint64_t ne[4];
    tensor_type type;
} item;

typedef struct job {
    const convert_params *p;
    const char *dir;
    char name[256]; /* the directory's last part, which c.m.name borrows */
    st_file *in;
    hf_config c;
    gguf_file *target;
    gguf_writer *w;
    item *items;
    size_t n_items;
    transcoder t;
    bool in_memory; /* a drafter to be run at once */
    facet_error *err;
} job;

static bool is_drafter(const job *j)
{
    return strcmp(j->c.m.arch, META_TARGET) != 0;
}

/* ---- tensors ---- */

static int by_source_name(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (!x->src || !y->src) return !y->src - !x->src;
    return hf_name_compare(x->src->name, y->src->name);
}

static facet_status list_tensors(job *j)
{
    j->items = mem_calloc((size_t)j->in->n_tensors + 1, sizeof *j->items);
    if (!j->items) return error_memory(j->err, "the list of tensors", (size_t)j->in->n_tensors * sizeof *j->items);
    if (strcmp(j->c.m.arch, META_DFLASH) != 0)
        j->items[j->n_items++] =
            (item){.name = "rope_freqs.weight", .layer = -1, .n_dims = 1, .ne = {j->c.m.head_dim / 2, 1, 1, 1}};
    bool is_tied = j->c.is_tied || strcmp(j->c.m.arch, META_MTP) == 0;
    for (uint64_t i = 0; i < j->in->n_tensors; i++) {
        const st_tensor *s = &j->in->tensors[i];
        item *t = &j->items[j->n_items];
        hf_name kind = hf_name_map(j->c.m.arch, is_tied, s->name, t->name, sizeof t->name, &t->layer);
        if (kind == HF_NAME_SKIPPED) continue;
        if (kind == HF_NAME_UNKNOWN)
            return error_set(j->err, FACET_ERR_UNSUPPORTED, "%s: tensor %s belongs to no model that Facet converts",
                             j->dir, s->name);
        if (t->layer >= j->c.m.n_layers)
            return error_set(j->err, FACET_ERR_FORMAT, "%s: tensor %s, but config.json has %d layers", j->dir, s->name,
                             j->c.m.n_layers);
        t->src = s;
        t->n_dims = s->n_dims ? s->n_dims : 1;
        memcpy(t->ne, s->ne, sizeof t->ne);
        j->n_items++;
    }
    qsort(j->items, j->n_items, sizeof *j->items, by_source_name);
    return FACET_OK;
}

static const item *find_item(const job *j, int layer, const char *name)
{
    char full[96];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    for (size_t i = 0; i < j->n_items; i++)
        if (strcmp(j->items[i].name, full) == 0) return &j->items[i];
    return NULL;
}

static facet_status require(const job *j, int layer, const char *name, const item **out)
{
    *out = find_item(j, layer, name);
    if (*out) return FACET_OK;
    return error_set(j->err, FACET_ERR_FORMAT, "%s: the tensor for %s of layer %d is missing", j->dir, name, layer);
}

/* Widths stand in the tensors: some layers have twice the feed-forward width, or other KV heads, than config.json says
 * in plain. */
static facet_status read_shapes(job *j)
{
    hf_config *c = &j->c;
    const item *t = NULL;
    FACET_TRY(require(j, -1, "output_norm.weight", &t));
    FACET_TRY(require(j, -1, strcmp(c->m.arch, META_DFLASH) == 0 ? "fc.weight" : "token_embd.weight", &t));
    if (strcmp(c->m.arch, META_DFLASH) != 0) {
        if (t->ne[1] > 1 << 24)
            return error_set(j->err, FACET_ERR_FORMAT, "%s: embed_tokens.weight has too many rows", j->dir);
        c->n_vocab = (int)t->ne[1];
    }
    for (int l = 0; l < c->m.n_layers; l++) {
        FACET_TRY(require(j, l, "attn_norm.weight", &t));
        FACET_TRY(require(j, l, "ffn_gate.weight", &t));
        if (t->ne[1] < 1 << 30) c->n_ff[l] = (int32_t)t->ne[1];
        uint32_t d = c->m.head_dim_local && c->is_local[l] ? c->m.head_dim_local : c->m.head_dim;
        t = find_item(j, l, "attn_k.weight");
        if (t && t->ne[1] % d == 0 && t->ne[1] / d < 1 << 16) c->n_kv_heads[l] = (int32_t)(t->ne[1] / d);
    }
    return FACET_OK;
}

/* ---- keys ---- */

static facet_status copy_tokenizer(job *j)
{
    FACET_TRY(gguf_open(j->p->target, &j->target, j->err));
    if (!gguf_find(j->target, "tokenizer.ggml.tokens"))
        return error_set(j->err, FACET_ERR_FORMAT, "%s: no vocabulary to copy", j->p->target);
    for (uint64_t i = 0; i < j->target->n_kv; i++) {
        const gguf_kv *kv = &j->target->kv[i];
        if (kv->key.n > 10 && memcmp(kv->key.s, "tokenizer.", 10) == 0) FACET_TRY(gguf_put_kv(j->w, kv, j->err));
    }
    return FACET_OK;
}

static facet_status put_template(job *j)
{
    const char *text = j->p->chat_template;
    size_t n = j->p->n_chat_template;
    if (j->p->use_own_template) {
        text = chat_template_text(j->c.m.n_embd_per_layer == 0);
        n = strlen(text);
    }
    return text ? gguf_put_str(j->w, TEMPLATE_KEY, text, n, j->err) : FACET_OK;
}

/* Sampling defaults and tokens never to be written, where generation_config.json has them. */
static facet_status put_generation(job *j, const json_t *g)
{
    const json_t *temp = json_object_get(g, "temperature"), *top_p = json_object_get(g, "top_p");
    const json_t *top_k = json_object_get(g, "top_k"), *list = json_object_get(g, "suppress_tokens");
    if (json_is_number(temp))
        FACET_TRY(gguf_put_f32(j->w, "general.sampling.temp", (float)json_number_value(temp), j->err));
    if (json_is_number(top_p))
        FACET_TRY(gguf_put_f32(j->w, "general.sampling.top_p", (float)json_number_value(top_p), j->err));
    if (json_is_integer(top_k))
        FACET_TRY(gguf_put_i32(j->w, "general.sampling.top_k", (int32_t)json_integer_value(top_k), j->err));
    int32_t ids[64];
    size_t n = json_array_size(list);
    if (n == 0 || n > sizeof ids / sizeof *ids) return FACET_OK;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= j->c.n_vocab)
            return error_set(j->err, FACET_ERR_FORMAT,
                             "%s/generation_config.json: suppress_tokens: entry %zu is no token", j->dir, i);
        ids[i] = (int32_t)json_integer_value(v);
    }
    return gguf_put_array(j->w, "tokenizer.ggml.suppress_tokens", GGUF_I32, ids, n, j->err);
}

static facet_status put_vocab_size(job *j)
{
    char key[64];
    snprintf(key, sizeof key, "%s.vocab_size", j->c.m.arch);
    return gguf_put_u32(j->w, key, (uint32_t)j->c.n_vocab, j->err);
}

static facet_status put_keys(job *j)
{
    const char *end = j->dir + strlen(j->dir);
    while (end > j->dir && end[-1] == '/') end--;
    const char *start = end;
    while (start > j->dir && start[-1] != '/') start--;
    snprintf(j->name, sizeof j->name, "%.*s", (int)(end - start < 255 ? end - start : 255), start);
    j->c.m.name = j->name;
    j->c.m.file_type = typemix_file_type(j->p->mix);
    FACET_TRY(meta_put(j->w, &j->c.m, j->err));
    if (j->in_memory)
        FACET_TRY(put_vocab_size(j));
    else
        FACET_TRY(j->p->target ? copy_tokenizer(j) : hf_tokenizer_put(j->w, j->dir, j->c.n_vocab, j->err));
    if (j->c.mask_id >= 0) FACET_TRY(gguf_put_u32(j->w, MASK_KEY, (uint32_t)j->c.mask_id, j->err));
    FACET_TRY(put_template(j));
    if (is_drafter(j)) return FACET_OK;
    json_t *g = NULL;
    FACET_TRY(hf_read_json(j->dir, "generation_config.json", false, &g, j->err));
    facet_status status = put_generation(j, g);
    json_decref(g);
    return status;
}

/* ---- data ---- */

static bool is_attn_v(const item *t)
{
    return t->layer >= 0 && strstr(t->name, ".attn_v.weight") != NULL;
}

static facet_status declare_tensors(job *j)
{
    typemix_counts counts = {0, 0};
    for (size_t i = 0; i < j->n_items; i++) counts.n_attn_v += is_attn_v(&j->items[i]);
    for (size_t i = 0; i < j->n_items; i++) {
        item *t = &j->items[i];
        bool is_integer = t->src && t->src->type >= TYPE_I8 && t->src->type <= TYPE_I64;
        t->type = is_integer ? (tensor_type)t->src->type
                             : typemix_choose(j->p->mix, t->name, t->n_dims, t->ne, t->layer, j->c.m.n_layers, &counts);
        if (j->in_memory && t->src && t->type == TYPE_BF16) t->type = (tensor_type)t->src->type;
        counts.attn_v_index += is_attn_v(t);
        if (t->src) {
            FACET_TRY(transcode_check(t->src->name, t->src->type, t->type, t->ne[0], j->err));
            j->t.total += t->src->bytes;
        }
        FACET_TRY(gguf_add_tensor(j->w, t->name, t->type, t->n_dims, t->ne, j->err));
    }
    return FACET_OK;
}

static facet_status write_divisors(job *j, const item *t)
{
    size_t n = (size_t)t->ne[0];
    float *v = mem_resize_array(NULL, n, sizeof *v);
    if (!v) return error_memory(j->err, t->name, n * sizeof *v);
    meta_rope_divisors(v, (uint32_t)n);
    facet_status status = gguf_write_data(j->w, v, n * sizeof *v, j->err);
    mem_free(v);
    return status;
}

static facet_status write_tensors(job *j)
{
    for (size_t i = 0; i < j->n_items; i++) {
        const item *t = &j->items[i];
        if (!t->src) {
            FACET_TRY(write_divisors(j, t));
            continue;
        }
        FACET_TRY(transcode_write(&j->t, j->w, t->src->name, t->src->data, t->src->type, t->type, t->ne[0],
                                  t->ne[1] * t->ne[2] * t->ne[3], j->err));
        file_map_release(&j->in->shards[t->src->shard], t->src->data, (size_t)t->src->bytes);
    }
    return FACET_OK;
}

/* Everything up to the first byte of data. */
static facet_status prepare(job *j)
{
    FACET_TRY(list_tensors(j));
    FACET_TRY(read_shapes(j));
    FACET_TRY(gguf_writer_new(&j->w, j->err));
    FACET_TRY(put_keys(j));
    FACET_TRY(declare_tensors(j));
    return transcode_open(&j->t, j->p->n_threads, j->err);
}

static facet_status run(job *j, const char *out)
{
    FACET_TRY(hf_config_read(j->dir, &j->c, j->err));
    FACET_TRY(st_open(j->dir, &j->in, j->err));
    for (int i = 0; i < j->in->n_shards; i++) FACET_TRY(quantize_check_paths(j->in->shards[i].path, out, j->err));
    if (j->p->target) FACET_TRY(quantize_check_paths(j->p->target, out, j->err));
    FACET_TRY(prepare(j));
    FACET_TRY(gguf_begin_data(j->w, out, j->err));
    FACET_TRY(write_tensors(j));
    return gguf_finish(j->w, j->err);
}

static facet_status run_in_memory(job *j, void **out, size_t *bytes)
{
    FACET_TRY(hf_config_read(j->dir, &j->c, j->err));
    if (!is_drafter(j))
        return error_set(j->err, FACET_ERR_UNSUPPORTED, "%s: config.json describes a target, wanted a drafter", j->dir);
    FACET_TRY(st_open(j->dir, &j->in, j->err));
    FACET_TRY(prepare(j));
    FACET_TRY(gguf_begin_memory(j->w, j->err));
    FACET_TRY(write_tensors(j));
    return gguf_finish_memory(j->w, out, bytes, j->err);
}

static void job_free(job *j)
{
    gguf_writer_free(j->w);
    transcode_close(&j->t);
    mem_free(j->items);
    gguf_close(j->target);
    st_close(j->in);
    hf_config_free(&j->c);
}

facet_status convert_folder(const char *dir, const char *out, const convert_params *p, facet_error *err)
{
    job j = {.p = p,
             .dir = dir,
             .err = err,
             .t = {.progress = p->progress, .progress_ud = p->progress_ud, .phase = "convert"}};
    facet_status status = run(&j, out);
    job_free(&j);
    return status;
}

facet_status convert_drafter_in_memory(const char *dir, void **out, size_t *bytes, facet_error *err)
{
    const convert_params p = {.mix = TYPEMIX_BF16};
    job j = {.p = &p, .dir = dir, .in_memory = true, .err = err, .t = {.phase = "convert"}};
    facet_status status = run_in_memory(&j, out, bytes);
    job_free(&j);
    return status;
}
