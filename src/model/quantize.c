#include "model/quantize.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "model/transcode.h"
#include "text/chat.h"

#define TEMPLATE_KEY "tokenizer.chat_template"

typedef struct job {
    const quantize_params *p;
    gguf_file *in;
    gguf_writer *w;
    tensor_type *types; /* [n_tensors] */
    transcoder t;
    facet_error *err;
} job;

facet_status quantize_check_paths(const char *in, const char *out, facet_error *err)
{
    struct stat a, b;
    if (stat(in, &a) != 0 || stat(out, &b) != 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino) return FACET_OK;
    return error_set(err, FACET_ERR_ARG, "%s: the output is the input; give another path", out);
}

int quantize_layer_of(const char *tensor_name)
{
    if (strncmp(tensor_name, "blk.", 4) != 0) return -1;
    char *end;
    long n = strtol(tensor_name + 4, &end, 10);
    return end > tensor_name + 4 && *end == '.' && n >= 0 && n < 1 << 20 ? (int)n : -1;
}

static bool key_is(gguf_str key, const char *name)
{
    return key.n == strlen(name) && memcmp(key.s, name, key.n) == 0;
}

static bool is_dropped(const job *j, gguf_str key)
{
    if (key.n > 6 && memcmp(key.s, "split.", 6) == 0) return true;
    for (int i = 0; i < j->p->n_drop; i++)
        if (key_is(key, j->p->drop[i])) return true;
    return false;
}

/* The sizes without per-layer embeddings are the large ones. */
static facet_status put_template(job *j)
{
    const char *text = j->p->chat_template;
    size_t n = j->p->n_chat_template;
    if (j->p->use_own_template) {
        uint64_t n_ple = 0;
        FACET_TRY(gguf_get_u64(j->in, "gemma4.embedding_length_per_layer_input", false, 0, UINT32_MAX, &n_ple, j->err));
        text = chat_template_text(n_ple == 0);
        n = strlen(text);
    }
    return text ? gguf_put_str(j->w, TEMPLATE_KEY, text, n, j->err) : FACET_OK;
}

static facet_status put_keys(job *j)
{
    for (uint64_t i = 0; i < j->in->n_kv; i++)
        if (!is_dropped(j, j->in->kv[i].key)) FACET_TRY(gguf_put_kv(j->w, &j->in->kv[i], j->err));
    FACET_TRY(gguf_put_u32(j->w, "general.file_type", typemix_file_type(j->p->mix), j->err));
    FACET_TRY(gguf_put_u32(j->w, "general.quantization_version", 2, j->err));
    return put_template(j);
}

/* The type after '=' of the first --keep that matches; *is_kept says whether there was one. */
static facet_status kept_type(const job *j, const char *name, bool *used, tensor_type *type, bool *is_kept)
{
    *is_kept = false;
    for (int i = 0; i < j->p->n_keep && !*is_kept; i++) {
        const char *rule = j->p->keep[i], *equals = strrchr(rule, '=');
        if (!equals || equals == rule || !type_by_name(equals + 1, type))
            return error_set(j->err, FACET_ERR_ARG, "--keep %s: want NAME=TYPE, such as token_embd.weight=Q8_0", rule);
        char *pattern = mem_strndup(rule, (size_t)(equals - rule));
        if (!pattern) return error_memory(j->err, "a pattern", strlen(rule));
        *is_kept = fnmatch(pattern, name, 0) == 0;
        mem_free(pattern);
        if (*is_kept) used[i] = true;
    }
    return FACET_OK;
}

static bool is_integer(uint32_t type)
{
    return type >= TYPE_I8 && type <= TYPE_I64;
}

static int count_layers(const gguf_file *f)
{
    int n = 0;
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        int layer = quantize_layer_of(f->tensors[i].name);
        if (layer >= n) n = layer + 1;
    }
    return n;
}

static bool is_attn_v(const char *name)
{
    return strstr(name, ".attn_v.weight") != NULL;
}

/* Position of an attn_v among those of all layers, whatever their order in the file. */
static int attn_v_before(const gguf_file *f, int layer)
{
    int n = 0;
    for (uint64_t i = 0; i < f->n_tensors; i++)
        n += is_attn_v(f->tensors[i].name) && quantize_layer_of(f->tensors[i].name) < layer;
    return n;
}

static facet_status choose_types(job *j, bool *used)
{
    const gguf_file *f = j->in;
    int n_layers = count_layers(f);
    typemix_counts counts = {.n_attn_v = attn_v_before(f, n_layers)};
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const gguf_tensor *t = &f->tensors[i];
        bool is_kept = false;
        FACET_TRY(kept_type(j, t->name, used, &j->types[i], &is_kept));
        int layer = quantize_layer_of(t->name);
        if (is_attn_v(t->name)) counts.attn_v_index = attn_v_before(f, layer);
        if (!is_kept && is_integer(t->type))
            j->types[i] = (tensor_type)t->type;
        else if (!is_kept)
            j->types[i] = typemix_choose(j->p->mix, t->name, t->n_dims, t->ne, layer, n_layers, &counts);
        FACET_TRY(transcode_check(t->name, t->type, j->types[i], t->ne[0], j->err));
        FACET_TRY(gguf_add_tensor(j->w, t->name, j->types[i], t->n_dims, t->ne, j->err));
        j->t.total += t->bytes;
    }
    for (int i = 0; i < j->p->n_keep; i++)
        if (!used[i]) return error_set(j->err, FACET_ERR_ARG, "--keep %s: no tensor has this name", j->p->keep[i]);
    return FACET_OK;
}

static facet_status write_tensors(job *j)
{
    for (uint64_t i = 0; i < j->in->n_tensors; i++) {
        const gguf_tensor *t = &j->in->tensors[i];
        uint64_t n_rows = t->ne[1] * t->ne[2] * t->ne[3];
        FACET_TRY(transcode_write(&j->t, j->w, t->name, t->data, t->type, j->types[i], t->ne[0], n_rows, j->err));
        file_map_release(&j->in->shards[t->shard], t->data, (size_t)t->bytes);
    }
    return FACET_OK;
}

static facet_status run(job *j, const char *out)
{
    for (int i = 0; i < j->in->n_shards; i++) FACET_TRY(quantize_check_paths(j->in->shards[i].path, out, j->err));
    bool *used = mem_calloc((size_t)j->p->n_keep + 1, sizeof *used);
    j->types = mem_calloc((size_t)j->in->n_tensors, sizeof *j->types);
    facet_status status = FACET_OK;
    if (!used || !j->types) status = error_memory(j->err, "tensor types", (size_t)j->in->n_tensors * sizeof *j->types);
    if (status == FACET_OK) status = gguf_writer_new(&j->w, j->err);
    if (status == FACET_OK) status = put_keys(j);
    if (status == FACET_OK) status = choose_types(j, used);
    mem_free(used);
    FACET_TRY(status);
    FACET_TRY(transcode_open(&j->t, j->p->n_threads, j->err));
    FACET_TRY(gguf_begin_data(j->w, out, j->err));
    FACET_TRY(write_tensors(j));
    return gguf_finish(j->w, j->err);
}

facet_status quantize_file(const char *in, const char *out, const quantize_params *p, facet_error *err)
{
    job j = {.p = p, .err = err, .t = {.progress = p->progress, .progress_ud = p->progress_ud, .phase = "quantize"}};
    FACET_TRY(gguf_open(in, &j.in, err));
    facet_status status = run(&j, out);
    gguf_writer_free(j.w);
    transcode_close(&j.t);
    mem_free(j.types);
    gguf_close(j.in);
    return status;
}
