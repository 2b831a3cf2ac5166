/* cmd_inspect.c: facet inspect: metadata, tensors, sizes, plan, memory of a context. */
#include <string.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "decode/cache_types.h"
#include "decode/engine_memory.h"

enum { OPT_PLAN = 300, OPT_TENSOR, OPT_OUT, OPT_TENSORS, OPT_HELP };

static void help(void)
{
    printf("usage: facet inspect FILE [OPTIONS]\nMetadata, tensors and sizes of a GGUF file.\n\n"
           "       --tensors             list every tensor\n"
           "       --plan                print the forward pass\n"
           "  -c,  --ctx N               memory that a context of N tokens would need\n"
           "       --tensor NAME --out F write one tensor decoded to raw little-endian float32\n");
}

static void print_value(const gguf_kv *kv)
{
    int64_t i;
    if (kv->type == GGUF_STRING) {
        gguf_str s;
        if (gguf_array_strings(&(gguf_kv){.type = GGUF_ARRAY, .elem = GGUF_STRING, .count = 1, .value = kv->value},
                               &s)) {
            const size_t n = s.n < 60 ? s.n : 60;
            putchar('"');
            for (size_t k = 0; k < n; k++) putchar(s.s[k] >= 0x20 || s.s[k] < 0 ? s.s[k] : '.');
            printf("\"%s", s.n > n ? " ..." : "");
        }
        return;
    }
    if (kv->type == GGUF_ARRAY) {
        printf("%s[%llu]", gguf_type_name(kv->elem), (unsigned long long)kv->count);
        for (uint64_t k = 0; k < kv->count && k < 8 && kv->elem != GGUF_STRING; k++) {
            float f;
            if (gguf_array_i64(kv, k, &i))
                printf(" %lld", (long long)i);
            else if (gguf_array_f32(kv, k, &f))
                printf(" %g", (double)f);
        }
        return;
    }
    float f;
    if (gguf_scalar_i64(kv, &i)) {
        printf("%lld", (long long)i);
    } else if (kv->type == GGUF_F32) {
        memcpy(&f, kv->value, sizeof f);
        printf("%g", (double)f);
    } else {
        printf("(%s)", gguf_type_name(kv->type));
    }
}

static void print_metadata(const gguf_file *f)
{
    for (uint64_t i = 0; i < f->n_kv; i++) {
        printf("%-52.*s ", (int)f->kv[i].key.n, f->kv[i].key.s);
        print_value(&f->kv[i]);
        putchar('\n');
    }
}

static void print_tensors(const gguf_file *f, bool wants_all)
{
    uint64_t bytes[TYPE_COUNT] = {0}, count[TYPE_COUNT] = {0}, total = 0;
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const gguf_tensor *t = &f->tensors[i];
        bytes[t->type] += t->bytes;
        count[t->type]++;
        total += t->bytes;
        if (wants_all)
            printf("%-40s %-7s %llu x %llu x %llu\n", t->name, type_name(t->type), (unsigned long long)t->ne[0],
                   (unsigned long long)t->ne[1], (unsigned long long)t->ne[2]);
    }
    printf("%llu tensors, %.1f MiB:", (unsigned long long)f->n_tensors, (double)total / 0x1p20);
    for (uint32_t t = 0; t < TYPE_COUNT; t++)
        if (count[t])
            printf(" %s %llu (%.1f MiB)", type_name(t), (unsigned long long)count[t], (double)bytes[t] / 0x1p20);
    putchar('\n');
}

static facet_status print_plan(const facet_model *m, facet_error *err)
{
    plan *p;
    const gemma4_options o = {0};
    FACET_TRY(gemma4_plan(&m->h, &m->w, &o, NULL, 0, &p, err));
    for (int i = 0; i < p->n_ops; i++) {
        const plan_op *op = &p->ops[i];
        printf("%4d %-10s", i, op_kind_name(op->kind));
        if (op->o >= 0)
            printf(" %s[%u]%s =", p->values[op->o].name, p->values[op->o].width,
                   p->values[op->o].rows == ROWS_OUT ? " (wanted rows)" : "");
        if (op->i0 >= 0) printf(" %s", p->values[op->i0].name);
        if (op->i1 >= 0) printf(" %s", p->values[op->i1].name);
        const int w[3] = {op->w0, op->w1, op->w2};
        for (int k = 0; k < 3; k++)
            if (w[k] >= 0) printf(" %s:%s", m->w.list[w[k]].name, type_name(m->w.list[w[k]].type));
        if (op->kind == OP_ATTN) printf(" kv %d window %d", op->kv_layer, op->window);
        putchar('\n');
    }
    plan_free(p);
    return FACET_OK;
}

static bool model_rebuilds_keys(const facet_model *m)
{
    return gemma4_n_rebuilds(&m->h, &m->w) > 0;
}

/* One row: what the cache would take with these types, with keys that are stored, and rebuilt where the model can. */
static facet_status print_need(facet_model *m, const facet_engine_params *p, const char *name, const char *help,
                               facet_error *err)
{
    for (int i = 0; i < 2; i++) {
        engine_needs n;
        facet_error why;
        facet_engine_params q = *p;
        q.rebuild_keys = i;
        if (i && !model_rebuilds_keys(m)) break;
        const facet_status status = engine_estimate(m, &q, q.n_ctx, &n, &why);
        if (status == FACET_ERR_MEMORY) return error_set(err, status, "%s", why.message);
        if (i == 0) printf("  %-10s", name);
        if (status != FACET_OK) {
            printf(" %s\n", why.message);
            return FACET_OK;
        }
        printf(" %12.1f %12llu", (double)n.kv / 0x1p20, (unsigned long long)n.kv_per_token);
    }
    printf("  %s\n", help);
    return FACET_OK;
}

/* What each type would take for K and V alike, and what the presets take. */
static facet_status print_types(facet_model *m, const cli_options *o, facet_error *err)
{
    facet_engine_params p = o->engine;
    printf("\n  KV cache            MiB  bytes per further token%s\n",
           model_rebuilds_keys(m) ? "; the same with --rebuild-keys" : "");
    for (int t = 0; t < KV_TYPE_COUNT; t++) {
        p.cache_type_k = p.cache_type_v = kv_type_get((kv_type)t)->name;
        FACET_TRY(print_need(m, &p, p.cache_type_k, "", err));
    }
    printf("\n  --kv\n");
    p.cache_type_k = p.cache_type_v = NULL;
    for (int i = 0; cache_preset_at(i); i++) {
        char help[160];
        const cache_preset *c = cache_preset_at(i);
        snprintf(help, sizeof help, "K %s, V %s: %s", kv_type_get(c->k)->name, kv_type_get(c->v)->name, c->help);
        p.cache_preset = c->name;
        FACET_TRY(print_need(m, &p, c->name, help, err));
    }
    return FACET_OK;
}

static facet_status print_context(facet_model *m, const cli_options *o, facet_error *err)
{
    engine_needs n;
    if (o->engine.n_ctx > facet_model_n_ctx(m))
        return error_set(err, FACET_ERR_LIMIT, "context of %d tokens: the model takes 1 to %d", o->engine.n_ctx,
                         facet_model_n_ctx(m));
    FACET_TRY(engine_estimate(m, &o->engine, o->engine.n_ctx, &n, err));
    const uint64_t sum = n.weights + n.kv + n.compute;
    const char *cache[2];
    cli_cache_types(&o->engine, cache);
    printf("context of %d tokens, K %s, V %s%s: weights %.1f MiB, KV cache %.1f MiB (%llu bytes per further token), "
           "activations %.1f MiB, together %.2f GiB; free now %.2f GiB\n",
           o->engine.n_ctx, cache[0], cache[1], o->engine.rebuild_keys ? ", keys of global layers rebuilt" : "",
           (double)n.weights / 0x1p20, (double)n.kv / 0x1p20, (unsigned long long)n.kv_per_token,
           (double)n.compute / 0x1p20, (double)sum / 0x1p30, (double)mem_available() / 0x1p30);
    return print_types(m, o, err);
}

/* Row by row, so that a tensor of any size needs little memory. */
static facet_status write_tensor(const gguf_file *f, const char *name, const char *path, facet_error *err)
{
    const gguf_tensor *t = gguf_find_tensor(f, name);
    if (!t) return error_set(err, FACET_ERR_ARG, "%s: no tensor %s", f->path, name);
    const type_info *type = type_get(t->type);
    if (!type->decode)
        return error_set(err, FACET_ERR_UNSUPPORTED, "%s: tensor %s has type %s, which has no float32 form",
                         gguf_path_of(f, t), name, type->name);
    float *row = mem_calloc(t->ne[0], sizeof *row);
    if (!row) return error_memory(err, name, t->ne[0] * sizeof *row);
    file_writer w;
    facet_status status = file_writer_open(path, &w, err);
    const uint64_t n_rows = t->ne[1] * t->ne[2] * t->ne[3];
    for (uint64_t r = 0; r < n_rows && status == FACET_OK; r++) {
        type->decode(t->data + r * type_bytes(type, t->ne[0]), row, t->ne[0]);
        status = file_writer_put(&w, row, t->ne[0] * sizeof *row, err);
    }
    if (status == FACET_OK) status = file_writer_commit(&w, err);
    file_writer_abort(&w);
    mem_free(row);
    return status;
}

static facet_status inspect_model(const char *path, const cli_options *o, bool wants_plan, facet_error *err)
{
    if (!wants_plan && !o->engine.n_ctx) return FACET_OK;
    facet_model *m;
    FACET_TRY(facet_model_open(path, &m, err));
    facet_status status = wants_plan ? print_plan(m, err) : FACET_OK;
    if (status == FACET_OK && o->engine.n_ctx) status = print_context(m, o, err);
    facet_model_close(m);
    return status;
}

int cmd_inspect(int argc, char **argv)
{
    cli_options o;
    const char *tensor = NULL, *out = NULL;
    bool wants_plan = false, wants_tensors = false;
    struct option table[64] = {{"plan", no_argument, NULL, OPT_PLAN},
                               {"tensor", required_argument, NULL, OPT_TENSOR},
                               {"out", required_argument, NULL, OPT_OUT},
                               {"tensors", no_argument, NULL, OPT_TENSORS},
                               {"help", no_argument, NULL, OPT_HELP}};
    cli_long_options(table + 5, 0);
    cli_options_init(&o);
    cli_expand_short(argc, argv);
    for (int c; (c = cli_next_option(argc, argv, "m:c:t:h", table)) != -1;) {
        switch (c) {
        case OPT_PLAN: wants_plan = true; break;
        case OPT_TENSOR: tensor = optarg; break;
        case OPT_OUT: out = optarg; break;
        case OPT_TENSORS: wants_tensors = true; break;
        case 'h':
        case OPT_HELP: help(); return EXIT_OK;
        default:
            if (cli_option(&o, c, optarg) != 1) return EXIT_USAGE;
        }
    }
    if (optind < argc) o.model = argv[optind++];
    if (optind < argc || !o.model || !tensor != !out)
        return cli_usage("inspect", "give one FILE, and --tensor with --out");
    facet_error err = {0};
    gguf_file *f = NULL;
    facet_status status = gguf_open(o.model, &f, &err);
    if (status == FACET_OK && tensor) {
        status = write_tensor(f, tensor, out, &err);
    } else if (status == FACET_OK) {
        print_metadata(f);
        print_tensors(f, wants_tensors);
        status = inspect_model(o.model, &o, wants_plan, &err);
    }
    gguf_close(f);
    return status == FACET_OK ? EXIT_OK : cli_fail(&err);
}
