/* Files of drafters: both dialects of each kind and the safetensors folder make the same plans, and every file that
 * does not fit its target is refused by one line that names it and the field. */
#define _GNU_SOURCE
#include "draft_rig.h"

#include <math.h>

#include "base/file_map.h"
#include "file/temp_dir.h"
#include "base/rng.h"
#include "gguf_edit.h"

#define MODEL(name) FACET_SOURCE_DIR "/models/facet-small-" name ".gguf"
#define MTP MODEL("mtp-Q8_0")
#define DFLASH MODEL("dflash-Q8_0")
#define P "gemma4-assistant."
#define OLD "gemma4_assistant."
#define F "dflash."
#define C "gemma4-dflash-draft."

static facet_model *target; /* the bundled one */

static int open_target(void **state)
{
    facet_error err;
    if (temp_dir_make(state)) return -1;
    return facet_model_open(MODEL("Q4_K_M"), &target, &err) == FACET_OK ? 0 : -1;
}

static int close_target(void **state)
{
    facet_model_close(target);
    return temp_dir_remove(state);
}

/* ---- equal plans ---- */

static void same_weights(const weights *a, const weights *b)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        const weight *x = &a->list[i], *y = &b->list[i];
        assert_int_equal(x->type, y->type);
        assert_memory_equal(x->ne, y->ne, sizeof x->ne);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
        assert_true(x->is_rows == y->is_rows && x->is_matrix == y->is_matrix && x->is_picked == y->is_picked);
        assert_true(a->scale[i] == b->scale[i]);
    }
}

static void same_op(const plan_op *a, const plan_op *b)
{
    plan_op x = *a, y = *b;
    assert_int_equal(!a->inv_freq, !b->inv_freq);
    assert_int_equal(!a->order, !b->order);
    if (a->inv_freq) assert_memory_equal(a->inv_freq, b->inv_freq, (size_t)a->n_rot * sizeof *a->inv_freq);
    if (a->order) assert_memory_equal(a->order, b->order, (size_t)a->n_experts * a->group * sizeof *a->order);
    x.inv_freq = y.inv_freq = NULL;
    x.order = y.order = NULL;
    assert_int_equal(x.kind, y.kind);
    assert_true(x.layer == y.layer && x.i0 == y.i0 && x.i1 == y.i1 && x.o == y.o && x.o2 == y.o2);
    assert_true(x.w0 == y.w0 && x.w1 == y.w1 && x.w2 == y.w2);
    assert_true(x.eps == y.eps && x.scale == y.scale && x.scale2 == y.scale2 && x.softcap == y.softcap);
    assert_true(x.attn_scale == y.attn_scale && x.temp == y.temp);
    assert_true(x.epilogue == y.epilogue && x.activation == y.activation && x.sight == y.sight);
    assert_true(x.group == y.group && x.column == y.column && x.has_v_norm == y.has_v_norm);
    assert_true(x.n_heads == y.n_heads && x.n_kv_heads == y.n_kv_heads && x.head_dim == y.head_dim);
    assert_true(x.kv_layer == y.kv_layer && x.window == y.window && x.n_rot == y.n_rot);
    assert_true(x.n_experts == y.n_experts && x.n_used == y.n_used && x.n_ff == y.n_ff);
}

static void same_plan(plan *a, plan *b)
{
    assert_int_equal(a->n_ops, b->n_ops);
    assert_int_equal(a->n_values, b->n_values);
    for (int i = 0; i < a->n_ops; i++) same_op(&a->ops[i], &b->ops[i]);
    for (int i = 0; i < a->n_values; i++) {
        const plan_value *x = &a->values[i], *y = &b->values[i];
        assert_string_equal(x->name, y->name);
        assert_true(x->type == y->type && x->rows == y->rows && x->width == y->width);
        assert_true(x->is_input == y->is_input && x->is_output == y->is_output);
    }
    assert_true(a->v_in_token == b->v_in_token && a->v_in_hidden == b->v_in_hidden && a->v_hidden == b->v_hidden);
    assert_true(a->v_top_ids == b->v_top_ids && a->v_top_logp == b->v_top_logp && a->v_logits == b->v_logits);
    plan_free(a);
    plan_free(b);
}

static drafter *open_drafter(const char *path, const facet_model *m)
{
    drafter *d;
    facet_error err;
    assert_ok(drafter_open(path, m, &d, &err), err);
    return d;
}

/* The plans of a drafter beside a model; [1] is NULL for MTP. */
static void plans_of(drafter *d, const facet_model *m, plan *out[2])
{
    facet_error err;
    kv_desc kv;
    weight *list;
    int n;
    assert_ok(gemma4_kv_desc(&m->h, KV_F16, KV_F16, &kv, &err), err);
    assert_ok(drafter_extend_kv(d, &m->h, KV_F16, KV_F16, 1024, &kv, &err), err);
    assert_ok(drafter_join_weights(m, &d, 1, &list, &n, &err), err);
    assert_int_equal(n, m->w.n + d->w.n);
    mem_free(kv.layers);
    mem_free(list);
    const mtp_options mtp = {.top_k = 10, .wants_logits = true};
    const dflash_options block = {.top_k = 8, .temp = 0.5f};
    out[1] = NULL;
    if (d->kind == DRAFTER_MTP) {
        assert_ok(mtp_plan(d, m, &mtp, &out[0], &err), err);
        return;
    }
    assert_ok(dflash_block_plan(d, m, &block, &out[0], &err), err);
    assert_ok(dflash_inject_plan(d, m, &out[1], &err), err);
}

static void same_drafter(const char *a, const char *b, const facet_model *m)
{
    drafter *x = open_drafter(a, m), *y = open_drafter(b, m);
    plan *p[2], *q[2];
    assert_int_equal(x->kind, y->kind);
    same_weights(&x->w, &y->w);
    plans_of(x, m, p);
    plans_of(y, m, q);
    same_plan(p[0], q[0]);
    if (p[1]) same_plan(p[1], q[1]);
    drafter_close(x);
    drafter_close(y);
}

static void test_dialects_of_mtp_make_the_same_plan(void **state)
{
    (void)state;
    static const int32_t pattern[] = {1, 1, 1, 0}; /* numbers where the other dialect has bools */
    const edit old[] = {
        {.kind = EDIT_ARCH, .text = "gemma4_assistant"},
        {.kind = EDIT_RENAME_KEY, .name = OLD "embedding_length_out", .text = OLD "n_embd_backbone"},
        {.kind = EDIT_DROP_KEY, .name = OLD "nextn_predict_layers"},
        {.kind = EDIT_I32S, .name = OLD "attention.sliding_window_pattern", .n = 4, .list = pattern},
        {.kind = EDIT_STR, .name = OLD "requires_target_arch", .text = "gemma4"},
        {.kind = EDIT_BOOL, .name = OLD "use_ordered_embeddings", .n = 0},
        {.kind = EDIT_BOOL, .name = OLD "attention_k_eq_v", .n = 1},
        {.kind = EDIT_RENAME_TENSOR, .name = "nextn.pre_projection.weight", .text = "mtp.pre_projection.weight"},
        {.kind = EDIT_RENAME_TENSOR, .name = "nextn.post_projection.weight", .text = "mtp.post_projection.weight"},
        {.kind = EDIT_END}};
    gguf_edit(MTP, temp_file("old.gguf"), old);
    same_drafter(MTP, temp_file("old.gguf"), target);
}

/* The community's dialect: other names, layers counted from 0, no vocabulary, no pattern of windows. */
static void write_community(const char *in, const char *out, const int32_t raw[3], uint32_t n_target_layers)
{
    const edit edits[] = {
        {.kind = EDIT_ARCH, .text = "gemma4-dflash-draft"},
        {.kind = EDIT_DROP_KEY, .name = C "target_layers"},
        {.kind = EDIT_I32S, .name = C "dflash.target_layer_ids", .n = 3, .list = raw},
        {.kind = EDIT_U32, .name = C "dflash.n_target_layers", .n = n_target_layers},
        {.kind = EDIT_RENAME_KEY, .name = C "block_size", .text = C "dflash.block_size"},
        {.kind = EDIT_U32, .name = C "dflash.mask_token_id", .n = 4},
        {.kind = EDIT_DROP_KEY, .name = "tokenizer.ggml.mask_token_id"},
        {.kind = EDIT_DROP_KEY, .name = "tokenizer.ggml.tokens"},
        {.kind = EDIT_U32, .name = C "vocab_size", .n = 2048},
        {.kind = EDIT_F32, .name = C "final_logit_softcapping", .n = 30},
        {.kind = EDIT_DROP_KEY, .name = C "embedding_scale"},
        {.kind = EDIT_DROP_KEY, .name = C "attention.sliding_window_pattern"},
        {.kind = EDIT_RENAME_TENSOR, .name = "fc.weight", .text = "dflash.fc.weight"},
        {.kind = EDIT_RENAME_TENSOR, .name = "enc.output_norm.weight", .text = "dflash.hidden_norm.weight"},
        {.kind = EDIT_END}};
    gguf_edit(in, out, edits);
}

static void test_pitfall_10_dialects_of_dflash_make_the_same_plans(void **state)
{
    (void)state;
    static const int32_t raw[] = {1, 3, 4}; /* 2, 4, 5 in the other dialect */
    write_community(DFLASH, temp_file("community.gguf"), raw, 6);
    same_drafter(DFLASH, temp_file("community.gguf"), target);
    drafter *d = open_drafter(temp_file("community.gguf"), target);
    for (int i = 0; i < 3; i++) assert_int_equal(d->dflash.tap[i], raw[i]);
    drafter_close(d);
}

/* Local layers: all but the last where there is no pattern. */
static void test_windows_of_the_dialects(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-26b-a4b-F16.gguf");
    static const int32_t raw[] = {0, 2, 3};
    const char *file = test_shared("models/tiny-26b-a4b-dflash-F16.gguf");
    facet_model *m;
    facet_error err;
    assert_ok(facet_model_open(test_shared("models/tiny-26b-a4b-F16.gguf"), &m, &err), err);
    write_community(file, temp_file("community.gguf"), raw, 5);
    same_drafter(file, temp_file("community.gguf"), m);
    drafter *d = open_drafter(temp_file("community.gguf"), m);
    assert_int_equal(d->dflash.window, 256);
    for (int l = 0; l < 3; l++) assert_int_equal(d->dflash.layer[l].is_local, l < 2);
    drafter_close(d);
    facet_model_close(m);
}

/* ---- safetensors folders ---- */

static void test_folder_makes_the_plans_of_the_file(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-dflash");
    facet_error err;
    facet_model *m;
    plan *p[2], *q[2];
    assert_ok(facet_model_open(test_shared("models/tiny-31b-F16.gguf"), &m, &err), err);
    drafter *folder = open_drafter(test_shared("models/tiny-31b-dflash"), m),
            *file = open_drafter(test_shared("models/tiny-31b-dflash-F16.gguf"), m);
    assert_non_null(folder->image);
    assert_int_equal(folder->w.n, file->w.n);
    for (int i = 0; i < file->w.n; i++) { /* the values, whichever float holds them */
        const weight *a = &folder->w.list[i], *b = &file->w.list[i];
        const size_t n = a->ne[0] * a->ne[1];
        assert_string_equal(a->name, b->name);
        assert_memory_equal(a->ne, b->ne, sizeof a->ne);
        assert_null(a->map);
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
        type_get(a->type)->decode(a->data, x, n);
        type_get(b->type)->decode(b->data, y, n);
        for (size_t j = 0; j < n; j++)
            if (!(fabsf(x[j] - y[j]) <= 1e-7f + 1e-3f * fabsf(y[j])))
                fail_msg("%s[%zu] is %g, wanted %g", a->name, j, (double)x[j], (double)y[j]);
        free(x);
        free(y);
    }
    plans_of(folder, m, p);
    plans_of(file, m, q);
    same_plan(p[0], q[0]);
    same_plan(p[1], q[1]);
    drafter_close(folder);
    drafter_close(file);
    facet_model_close(m);
}

/* The folder with its config.json changed in one place. */
static void change_config(const char *find, const char *replace)
{
    char *text, path[1024];
    size_t n;
    facet_error err;
    snprintf(path, sizeof path, "%s/config.json", test_shared("models/tiny-31b-dflash"));
    assert_ok(file_read_all(path, 1 << 20, &text, &n, &err), err);
    const char *at = strstr(text, find);
    assert_non_null(at);
    FILE *f = fopen(temp_file("config.json"), "w");
    fprintf(f, "%.*s%s%s", (int)(at - text), text, replace, at + strlen(find));
    fclose(f);
    mem_free(text);
    snprintf(path, sizeof path, "%s/model.safetensors", test_shared("models/tiny-31b-dflash"));
    unlink(temp_file("model.safetensors"));
    char *whole = realpath(path, NULL);
    assert_int_equal(symlink(whole, temp_file("model.safetensors")), 0);
    free(whole);
}

static void test_config_of_a_folder(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-dflash");
    static const struct {
        const char *find, *replace;
        dflash_causal causal;
        bool is_gelu, is_local;
    } list[] = {
        {"\"block_size\": 16,", "\"block_size\": 16,", DFLASH_CAUSAL_UNSAID, false, false},
        {"\"mask_token_id\": 4", "\"mask_token_id\": 4, \"causal\": true", DFLASH_CAUSAL_YES, false, false},
        {"\"mask_token_id\": 4", "\"mask_token_id\": 4, \"causal\": false", DFLASH_CAUSAL_NO, false, false},
        {"\"hidden_act\": \"silu\"", "\"hidden_act\": \"gelu_pytorch_tanh\"", DFLASH_CAUSAL_UNSAID, true, false},
        {"\"sliding_window\": null", "\"sliding_window\": 64", DFLASH_CAUSAL_UNSAID, false, false},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        change_config(list[i].find, list[i].replace);
        drafter *d = open_drafter(temp_dir, target);
        assert_int_equal(d->dflash.causal, list[i].causal);
        assert_int_equal(d->dflash.is_gelu, list[i].is_gelu);
        for (int l = 0; l < 3; l++) assert_int_equal(d->dflash.layer[l].is_local, list[i].is_local);
        assert_int_equal(d->dflash.mask_token, 4);
        drafter_close(d);
        temp_dir_empty();
    }
}

static void folder_is_refused(const char *find, const char *replace, const char *message)
{
    facet_error err = {0};
    drafter *d = NULL;
    change_config(find, replace);
    assert_int_not_equal(drafter_open(temp_dir, target, &d, &err), FACET_OK);
    if (!strstr(err.message, message)) fail_msg("'%s' does not hold '%s'", err.message, message);
    temp_dir_empty();
}

static void test_refused_folders(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-dflash");
    facet_error err = {0};
    drafter *d = NULL;
    assert_int_equal(drafter_open(temp_dir, target, &d, &err), FACET_ERR_IO);
    assert_non_null(strstr(err.message, "config.json"));
    folder_is_refused("\"vocab_size\": 2048", "\"vocab_size\": 2000", "dflash.vocab_size is 2000, the target has 2048");
    folder_is_refused("\"num_target_layers\": 6", "\"num_target_layers\": 60",
                      "dflash.target_layer_count is 60, the target has 6 layers");
    folder_is_refused("\"mask_token_id\": 4,", "", "missing key \"tokenizer.ggml.mask_token_id\"");
    folder_is_refused("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2", "layer_types is no list of 2 names");
    folder_is_refused("\"hidden_size\": 256", "\"hidden_size\": 320",
                      "dflash.embedding_length is 320, the target's hidden size is 256");
    folder_is_refused("\"mask_token_id\": 4", "\"mask_token_id\": 4, \"causal\": 1",
                      "causal is neither true nor false");
    folder_is_refused("\"DFlashDraftModel\"", "\"Gemma4ForCausalLM\"", "model_type 'qwen3'");
}

/* ---- refusals ---- */

typedef struct refusal {
    edit edits[3]; /* the last is EDIT_END */
    facet_status status;
    const char *message; /* a part of it */
} refusal;

static void check_refusal(const char *path, facet_status status, const char *message)
{
    facet_error err = {0};
    drafter *d = NULL;
    const facet_status got = drafter_open(path, target, &d, &err);
    if (got != status || !strstr(err.message, message))
        fail_msg("status %d, '%s'; wanted %d, '%s'", (int)got, err.message, (int)status, message);
    if (!strstr(err.message, path)) fail_msg("'%s' does not name the file", err.message);
    assert_null(strchr(err.message, '\n'));
    assert_null(d);
}

static void check_refusals(const char *in, const refusal *list, size_t n)
{
    char out[300];
    snprintf(out, sizeof out, "%s", temp_file("bad.gguf"));
    for (size_t i = 0; i < n; i++) {
        gguf_edit(in, out, list[i].edits);
        check_refusal(out, list[i].status, list[i].message);
    }
}

#define FMT FACET_ERR_FORMAT
#define UNS FACET_ERR_UNSUPPORTED
#define SHP FACET_ERR_SHAPE

static void test_refused_mtp_files(void **state)
{
    (void)state;
    static const int32_t three[] = {1, 1, 0}, twos[] = {1, 1, 2, 0}, heads[] = {2, 2, 1, 1};
    static const refusal list[] = {
        {{{.kind = EDIT_U32, .name = P "embedding_length_out", .n = 512}},
         UNS,
         "out is 512, the target's hidden size is 256"},
        {{{.kind = EDIT_DROP_KEY, .name = P "embedding_length_out"}}, FMT, "missing key \"" P "embedding_length_out\""},
        {{{.kind = EDIT_DROP_KEY, .name = P "block_count"}}, FMT, "missing key \"" P "block_count\""},
        {{{.kind = EDIT_U32, .name = P "block_count", .n = 65}}, FMT, P "block_count"},
        {{{.kind = EDIT_U32, .name = P "block_count", .n = 5}}, UNS, "shared_kv_layers is 4 of 5 layers"},
        {{{.kind = EDIT_U32, .name = P "attention.shared_kv_layers", .n = 0}},
         UNS,
         "shared_kv_layers is 0 of 4 layers"},
        {{{.kind = EDIT_U32, .name = P "attention.head_count", .n = 3}},
         UNS,
         "attention.head_count is 3, no multiple of the 2 KV heads of layer 4 of the target"},
        {{{.kind = EDIT_I32S, .name = P "attention.head_count_kv", .n = 4, .list = heads}},
         UNS,
         "head_count_kv of layer 2 is 1, layer 4 of the target, whose cache it reads, has 2"},
        {{{.kind = EDIT_U32, .name = P "attention.key_length_swa", .n = 128},
          {.kind = EDIT_U32, .name = P "attention.value_length_swa", .n = 128}},
         UNS,
         "key_length_swa is 128, layer 4 of the target, whose cache it reads, has 256"},
        {{{.kind = EDIT_U32, .name = P "attention.key_length", .n = 256},
          {.kind = EDIT_U32, .name = P "attention.value_length", .n = 256}},
         UNS,
         "key_length is 256, layer 5 of the target, whose cache it reads, has 512"},
        {{{.kind = EDIT_U32, .name = P "attention.value_length", .n = 256}}, UNS, "they must be equal"},
        {{{.kind = EDIT_U32, .name = P "attention.sliding_window", .n = 4096}}, FMT, P "attention.sliding_window"},
        {{{.kind = EDIT_I32S, .name = P "attention.sliding_window_pattern", .n = 3, .list = three}},
         FMT,
         "has 3 entries, the model has 4"},
        {{{.kind = EDIT_I32S, .name = P "attention.sliding_window_pattern", .n = 4, .list = twos}},
         FMT,
         "of layer 2 is 2, wanted 0 to 1"},
        {{{.kind = EDIT_DROP_KEY, .name = P "attention.sliding_window_pattern"}},
         FMT,
         "missing key " P "attention.sliding_window_pattern"},
        {{{.kind = EDIT_DROP_KEY, .name = P "attention.layer_norm_rms_epsilon"}},
         FMT,
         P "attention.layer_norm_rms_epsilon"},
        {{{.kind = EDIT_F32, .name = P "rope.freq_base", .n = 0.5}}, FMT, P "rope.freq_base is 0.5"},
        {{{.kind = EDIT_STR, .name = P "requires_target_arch", .text = "llama"}},
         UNS,
         P "requires_target_arch is 'llama', the target is 'gemma4'"},
        {{{.kind = EDIT_DROP_TENSOR, .name = "blk.2.attn_q.weight"}}, FMT, "missing tensor blk.2.attn_q.weight"},
        {{{.kind = EDIT_DROP_TENSOR, .name = "nextn.pre_projection.weight"}},
         FMT,
         "missing tensor nextn.pre_projection.weight"},
        {{{.kind = EDIT_DROP_TENSOR, .name = "token_embd.weight"}}, FMT, "missing tensor token_embd.weight"},
        {{{.kind = EDIT_TENSOR, .name = "token_embd.weight", .type = TYPE_Q8_0, .ne = {128, 1024}}},
         SHP,
         "tensor token_embd.weight is [128, 1024, 1], wanted [128, 2048, 1]"},
        {{{.kind = EDIT_TENSOR, .name = "nextn.pre_projection.weight", .type = TYPE_Q8_0, .ne = {256, 128}}},
         SHP,
         "tensor nextn.pre_projection.weight is [256, 128, 1], wanted [512, 128, 1]"},
        {{{.kind = EDIT_TENSOR, .name = "blk.0.attn_norm.weight", .type = TYPE_F16, .ne = {128}}},
         UNS,
         "attn_norm.weight is F16, wanted F32"},
        {{{.kind = EDIT_TENSOR, .name = "blk.1.attn_k.weight", .type = TYPE_Q8_0, .ne = {128, 256}}},
         UNS,
         "tensor blk.1.attn_k.weight has no role in an MTP assistant"},
        {{{.kind = EDIT_ARCH, .text = "llama"}}, UNS, "general.architecture is 'llama'; drafters are gemma4-assistant"},
        {{{.kind = EDIT_STR, .name = "tokenizer.ggml.tokens", .text = "none"}},
         UNS,
         "tokenizer.ggml.tokens has 1 entries, the target has 2048"},
        {{{.kind = EDIT_BOOL, .name = P "use_ordered_embeddings", .n = 1}},
         FMT,
         "missing tensor masked_embd_centroids.weight"},
    };
    check_refusals(MTP, list, sizeof list / sizeof *list);
    check_refusal(MODEL("Q4_K_M"), UNS, "general.architecture is 'gemma4'; drafters are");
    check_refusal(temp_file("absent.gguf"), FACET_ERR_IO, "cannot open");
}

/* A tensor of another size, as when the target's quantisation were forced on the assistant. */
static void test_pitfall_20_shapes_are_checked(void **state)
{
    (void)state;
    static const refusal list[] = {
        {{{.kind = EDIT_TENSOR, .name = "blk.0.attn_q.weight", .type = TYPE_F16, .ne = {128, 512}}},
         SHP,
         "tensor blk.0.attn_q.weight is [128, 512, 1], wanted [128, 1024, 1]"},
        {{{.kind = EDIT_TENSOR, .name = "blk.3.attn_output.weight", .type = TYPE_F16, .ne = {1024, 128}}},
         SHP,
         "tensor blk.3.attn_output.weight is [1024, 128, 1], wanted [2048, 128, 1]"},
        {{{.kind = EDIT_TENSOR, .name = "blk.3.ffn_down.weight", .type = TYPE_F16, .ne = {256, 128}}},
         SHP,
         "tensor blk.3.ffn_down.weight is [256, 128, 1], wanted [512, 128, 1]"},
        {{{.kind = EDIT_TENSOR, .name = "blk.1.layer_output_scale.weight", .type = TYPE_F32, .ne = {2}}},
         SHP,
         "tensor blk.1.layer_output_scale.weight is [2, 1, 1], wanted [1, 1, 1]"},
    };
    check_refusals(MTP, list, sizeof list / sizeof *list);
}

static void test_refused_dflash_files(void **state)
{
    (void)state;
    static const int32_t falling[] = {2, 5, 4}, zero[] = {0, 3, 4}, far[] = {2, 4, 7}, two[] = {2, 4},
                         mixed[] = {1, 0, 1};
    static const refusal list[] = {
        {{{.kind = EDIT_U32, .name = F "embedding_length", .n = 512}},
         UNS,
         F "embedding_length is 512, the target's hidden size is 256"},
        {{{.kind = EDIT_U32, .name = F "vocab_size", .n = 1000}},
         UNS,
         F "vocab_size is 1000, the target has 2048 tokens"},
        {{{.kind = EDIT_I32S, .name = F "target_layers", .n = 3, .list = falling}}, FMT, F "target_layers[2] is 4"},
        {{{.kind = EDIT_I32S, .name = F "target_layers", .n = 3, .list = zero}},
         FMT,
         F "target_layers[0] is 0; wanted rising numbers from 1 to 6"},
        {{{.kind = EDIT_I32S, .name = F "target_layers", .n = 3, .list = far}}, FMT, F "target_layers[2] is 7"},
        {{{.kind = EDIT_I32S, .name = F "target_layers", .n = 2, .list = two}},
         SHP,
         "tensor fc.weight is [768, 256, 1], wanted [512, 256, 1]"},
        {{{.kind = EDIT_DROP_KEY, .name = F "target_layers"}}, FMT, "missing key " F "target_layers"},
        {{{.kind = EDIT_U32, .name = F "target_layers", .n = 3}},
         FMT,
         F "target_layers: wanted a list of 1 to 16 layers"},
        {{{.kind = EDIT_U32, .name = F "target_layer_count", .n = 60}},
         UNS,
         F "target_layer_count is 60, the target has 6 layers"},
        {{{.kind = EDIT_U32, .name = F "block_size", .n = 1}}, FMT, F "block_size"},
        {{{.kind = EDIT_DROP_KEY, .name = F "block_size"}}, FMT, "missing key \"" F "block_size\""},
        {{{.kind = EDIT_DROP_KEY, .name = F "rope.freq_base"}}, FMT, "missing key \"" F "rope.freq_base\""},
        {{{.kind = EDIT_U32, .name = F "attention.head_count_kv", .n = 3}}, FMT, "which does not divide head_count 4"},
        {{{.kind = EDIT_U32, .name = F "attention.sliding_window", .n = 64}},
         FMT,
         "there is no attention.sliding_window_pattern"},
        {{{.kind = EDIT_I32S, .name = F "attention.sliding_window_pattern", .n = 3, .list = mixed}},
         FMT,
         "layer 0 is local, but there is no attention.sliding_window"},
        {{{.kind = EDIT_F32, .name = F "logit_scale", .n = 2}}, UNS, F "logit_scale is 2, wanted 1"},
        {{{.kind = EDIT_STR, .name = F "hidden_activation", .text = "relu"}},
         UNS,
         F "hidden_activation is 'relu', wanted silu or gelu"},
        {{{.kind = EDIT_DROP_TENSOR, .name = "blk.2.attn_k_norm.weight"}},
         FMT,
         "missing tensor blk.2.attn_k_norm.weight"},
        {{{.kind = EDIT_DROP_TENSOR, .name = "enc.output_norm.weight"}}, FMT, "missing tensor enc.output_norm.weight"},
        {{{.kind = EDIT_TENSOR, .name = "d2t", .type = TYPE_I64, .ne = {1024}}},
         UNS,
         "tensor d2t: drafters with a vocabulary of their own"},
        {{{.kind = EDIT_TENSOR, .name = "output.weight", .type = TYPE_F16, .ne = {256, 1024}}},
         SHP,
         "tensor output.weight is [256, 1024, 1]"},
        /* successors */
        {{{.kind = EDIT_U32, .name = F "selector_rank", .n = 8}},
         UNS,
         F "selector_rank: this is a successor of DFlash"},
        {{{.kind = EDIT_U32, .name = F "conv_kernel", .n = 3}}, UNS, F "conv_kernel: this is a successor of DFlash"},
        {{{.kind = EDIT_BOOL, .name = F "sample_from_anchor", .n = 1}}, UNS, F "sample_from_anchor is set"},
        {{{.kind = EDIT_BOOL, .name = F "has_confidence_head", .n = 1}}, UNS, F "has_confidence_head is set"},
        {{{.kind = EDIT_TENSOR, .name = "blk.0.conv_attn.weight", .type = TYPE_F32, .ne = {256}}},
         UNS,
         "tensor blk.0.conv_attn.weight has no role in a DFlash drafter (it belongs to a successor, DSpark or DFlash2"},
        {{{.kind = EDIT_TENSOR, .name = "selector_prev.weight", .type = TYPE_F32, .ne = {256}}},
         UNS,
         "tensor selector_prev.weight has no role"},
        {{{.kind = EDIT_TENSOR, .name = "markov_w1.weight", .type = TYPE_F32, .ne = {256}}},
         UNS,
         "tensor markov_w1.weight has no role"},
        {{{.kind = EDIT_TENSOR, .name = "blk.0.post_ffw_norm.weight", .type = TYPE_F32, .ne = {256}}},
         UNS,
         "tensor blk.0.post_ffw_norm.weight has no role"},
        {{{.kind = EDIT_TENSOR, .name = "blk.3.attn_q.weight", .type = TYPE_F32, .ne = {256, 512}}},
         UNS,
         "tensor blk.3.attn_q.weight has no role"},
    };
    check_refusals(DFLASH, list, sizeof list / sizeof *list);
}

static void test_pitfall_11_mask_token_must_be_said(void **state)
{
    (void)state;
    static const refusal list[] = {
        {{{.kind = EDIT_DROP_KEY, .name = "tokenizer.ggml.mask_token_id"}},
         FMT,
         "missing key \"tokenizer.ggml.mask_token_id\""},
        {{{.kind = EDIT_I32, .name = "tokenizer.ggml.mask_token_id", .n = -1}}, FMT, "tokenizer.ggml.mask_token_id"},
        {{{.kind = EDIT_U32, .name = "tokenizer.ggml.mask_token_id", .n = 2048}}, FMT, "tokenizer.ggml.mask_token_id"},
    };
    check_refusals(DFLASH, list, sizeof list / sizeof *list);
}

static void test_refused_community_files(void **state)
{
    (void)state;
    static const int32_t raw[] = {1, 3, 5}, from_one[] = {2, 4, 6};
    char out[300], bad[300];
    snprintf(out, sizeof out, "%s", temp_file("community.gguf"));
    snprintf(bad, sizeof bad, "%s", temp_file("bad.gguf"));
    write_community(DFLASH, out, raw, 60);
    check_refusal(out, UNS, C "dflash.n_target_layers is 60, the target has 6 layers");
    write_community(DFLASH, out, from_one, 6);
    check_refusal(out, FMT, C "dflash.target_layer_ids[2] is 6; wanted rising numbers from 0 to 5");
    write_community(DFLASH, out, raw, 6);
    const edit no_mask[] = {{.kind = EDIT_DROP_KEY, .name = C "dflash.mask_token_id"}, {.kind = EDIT_END}};
    gguf_edit(out, bad, no_mask);
    check_refusal(bad, FMT, "missing key \"" C "dflash.mask_token_id\"");
    const edit no_fc[] = {{.kind = EDIT_RENAME_TENSOR, .name = "dflash.fc.weight", .text = "fc.weight"},
                          {.kind = EDIT_END}};
    gguf_edit(out, bad, no_fc);
    check_refusal(bad, FMT, "missing tensor dflash.fc.weight");
}

/* One token that is spelt otherwise. */
static void test_other_vocabulary_is_refused(void **state)
{
    (void)state;
    facet_error err;
    const char *const files[] = {MTP, DFLASH};
    char out[300];
    snprintf(out, sizeof out, "%s", temp_file("vocab.gguf"));
    for (int i = 0; i < 2; i++) {
        gguf_file *f;
        gguf_writer *w;
        assert_ok(gguf_open(files[i], &f, &err), err);
        assert_ok(gguf_writer_new(&w, &err), err);
        for (uint64_t k = 0; k < f->n_kv; k++) assert_ok(gguf_put_kv(w, &f->kv[k], &err), err);
        const gguf_kv *kv = gguf_find(f, "tokenizer.ggml.tokens");
        gguf_str *tokens = calloc(kv->count, sizeof *tokens);
        assert_true(gguf_array_strings(kv, tokens));
        tokens[1234] = (gguf_str){"other", 5};
        assert_ok(gguf_put_strings(w, "tokenizer.ggml.tokens", tokens, kv->count, &err), err);
        for (uint64_t t = 0; t < f->n_tensors; t++) {
            const gguf_tensor *x = &f->tensors[t];
            assert_ok(gguf_add_tensor(w, x->name, (tensor_type)x->type, x->n_dims, x->ne, &err), err);
        }
        assert_ok(gguf_begin_data(w, out, &err), err);
        for (uint64_t t = 0; t < f->n_tensors; t++)
            assert_ok(gguf_write_data(w, f->tensors[t].data, f->tensors[t].bytes, &err), err);
        assert_ok(gguf_finish(w, &err), err);
        gguf_writer_free(w);
        gguf_close(f);
        free(tokens);
        check_refusal(out, UNS, "tokenizer.ggml.tokens[1234] is 'other', the target's is '");
    }
}

/* ---- what the log says ---- */

static char said[4096];

static void remember(void *ud, facet_log_level level, const char *message)
{
    (void)ud, (void)level;
    const size_t n = strlen(said);
    snprintf(said + n, sizeof said - n, "%s\n", message);
}

static void test_defaults_are_logged(void **state)
{
    (void)state;
    const edit lost[] = {{.kind = EDIT_DROP_KEY, .name = F "embedding_scale"}, {.kind = EDIT_END}};
    const edit heads[] = {{.kind = EDIT_U32, .name = P "attention.head_count_kv", .n = 4}, {.kind = EDIT_END}};
    facet_set_log(remember, NULL);
    gguf_edit(DFLASH, temp_file("a.gguf"), lost);
    drafter *d = open_drafter(temp_file("a.gguf"), target);
    assert_true(d->dflash.embd_scale == 16 && d->dflash.softcap == 30);
    drafter_close(d);
    assert_non_null(strstr(said, "mask token 4, blocks of up to 16"));
    assert_non_null(strstr(said, "no dflash.embedding_scale; the target's 16 is used"));
    assert_non_null(strstr(said, "no dflash.final_logit_softcapping; the target's 30 is used"));
    gguf_edit(MTP, temp_file("a.gguf"), heads);
    drafter_close(open_drafter(temp_file("a.gguf"), target));
    assert_non_null(strstr(said, "attention.head_count_kv of layer 0 is 4, the target's layer 4 has 2"));
    facet_set_log(NULL, NULL);
}

/* ---- beside the target ---- */

static void test_cache_layout(void **state)
{
    (void)state;
    facet_error err;
    kv_desc kv;
    drafter *d = open_drafter(DFLASH, target);
    assert_ok(gemma4_kv_desc(&target->h, KV_F16, KV_Q8_0, &kv, &err), err);
    const int n = kv.n_layers;
    assert_ok(drafter_extend_kv(d, &target->h, KV_Q8_0, KV_F16, 777, &kv, &err), err);
    assert_int_equal(kv.n_layers, n + 3);
    assert_int_equal(kv.n_groups, 3);
    assert_int_equal(kv.groups[KV_GROUP_DRAFT].window, 777);
    assert_int_equal(d->first_kv_layer, n);
    for (int l = n; l < n + 3; l++) {
        const kv_layer_desc *y = &kv.layers[l];
        assert_true(y->group == KV_GROUP_DRAFT && y->n_kv_heads == 2 && y->head_dim == 128);
        assert_true(y->k_type == KV_Q8_0 && y->v_type == KV_F16);
    }
    assert_int_equal(drafter_extend_kv(d, &target->h, KV_F16, KV_F16, 0, &kv, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "draft context of 0 tokens"));
    mem_free(kv.layers);
    drafter_close(d);
    d = open_drafter(MTP, target);
    assert_ok(gemma4_kv_desc(&target->h, KV_Q8_0, KV_F16, &kv, &err), err);
    assert_ok(drafter_extend_kv(d, &target->h, KV_Q8_0, KV_F16, 0, &kv, &err), err);
    assert_int_equal(kv.n_layers, n);
    assert_int_equal(kv.n_groups, 2);
    for (int l = 0; l < n; l++) assert_true(kv.layers[l].k_type == KV_Q8_0 && kv.layers[l].v_type == KV_F16);
    mem_free(kv.layers);
    drafter_close(d);
}

static void test_two_drafters_in_one_list(void **state)
{
    (void)state;
    facet_error err;
    weight *list;
    int n;
    drafter *d[2] = {open_drafter(MTP, target), open_drafter(DFLASH, target)};
    assert_ok(drafter_join_weights(target, d, 2, &list, &n, &err), err);
    assert_int_equal(d[0]->first_weight, target->w.n);
    assert_int_equal(d[1]->first_weight, target->w.n + d[0]->w.n);
    assert_int_equal(n, d[1]->first_weight + d[1]->w.n);
    assert_memory_equal(list, target->w.list, (size_t)target->w.n * sizeof *list);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < d[i]->w.n; j++) {
            weight want = d[i]->w.list[j];
            want.part = i + 1; /* so that it can be unloaded by itself */
            assert_memory_equal(&list[d[i]->first_weight + j], &want, sizeof want);
        }
    mem_free(list);
    for (int i = 0; i < 2; i++) drafter_close(d[i]);
}

static void test_options_are_checked(void **state)
{
    (void)state;
    facet_error err;
    plan *p = NULL;
    block_mask mask;
    drafter *mtp = open_drafter(MTP, target), *dflash = open_drafter(DFLASH, target);
    assert_int_equal(mtp_plan(mtp, target, &(mtp_options){.top_k = 17}, &p, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "top_k of the drafter is 17, wanted 1 to 16"));
    assert_int_equal(dflash_block_plan(dflash, target, &(dflash_options){.temp = 1}, &p, &err), FACET_ERR_ARG);
    assert_int_equal(dflash_block_plan(dflash, target, &(dflash_options){.top_k = 1}, &p, &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "temperature of the draft is 0"));
    assert_null(p);
    assert_true(block_mask_by_name("all_causal", &mask) && mask == BLOCK_MASK_ALL_CAUSAL);
    assert_true(block_mask_by_name("auto", &mask) && mask == BLOCK_MASK_AUTO);
    assert_false(block_mask_by_name("some", &mask));
    drafter_close(mtp);
    drafter_close(dflash);
}

/* ---- a file with a head and an embedding of its own ---- */

static void test_tables_of_the_file_come_first(void **state)
{
    (void)state;
    const edit tables[] = {{.kind = EDIT_TENSOR, .name = "token_embd.weight", .type = TYPE_F16, .ne = {256, 2048}},
                           {.kind = EDIT_TENSOR, .name = "output.weight", .type = TYPE_F16, .ne = {256, 2048}},
                           {.kind = EDIT_END}};
    gguf_edit(DFLASH, temp_file("own.gguf"), tables);
    drafter *d = open_drafter(temp_file("own.gguf"), target);
    plan *p[2];
    plans_of(d, target, p);
    int n = 0;
    for (int i = 0; i < p[0]->n_ops; i++) {
        const plan_op *op = &p[0]->ops[i];
        if (op->kind == OP_EMBED) assert_int_equal(op->w0, d->first_weight + d->w.token_embd);
        if (op->epilogue == EPI_LOGITS) assert_int_equal(op->w0, d->first_weight + d->w.output);
        n += op->kind == OP_EMBED || op->epilogue == EPI_LOGITS;
    }
    assert_int_equal(n, 2);
    plan_free(p[0]);
    plan_free(p[1]);
    drafter_close(d);
}

/* ---- centroid heads ---- */

enum { V = 2048, N_CENTROIDS = 64, GROUP = V / N_CENTROIDS, D = 128 };

typedef struct centroid_file {
    uint16_t centroids[N_CENTROIDS * D];
    int32_t order[V];
    int64_t wide_order[V];
} centroid_file;

static centroid_file *make_centroids(void)
{
    centroid_file *c = malloc(sizeof *c);
    float x[D];
    rng r;
    rng_seed(&r, 12);
    for (int i = 0; i < N_CENTROIDS; i++) {
        for (int j = 0; j < D; j++) x[j] = (float)rng_normal(&r);
        type_get(TYPE_F16)->encode(x, c->centroids + i * D, D);
    }
    for (int i = 0; i < V; i++) c->order[i] = (i * 625 + 77) % V; /* 625 is odd: every id once */
    for (int i = 0; i < V; i++) c->wide_order[i] = c->order[i];
    return c;
}

static void write_centroids(const centroid_file *c, const char *out, bool is_old)
{
    const edit edits[] = {
        {.kind = EDIT_ARCH, .text = is_old ? "gemma4_assistant" : "gemma4-assistant"},
        {.kind = EDIT_TENSOR,
         .name = is_old ? "mtp.centroids.weight" : "masked_embd_centroids.weight",
         .type = TYPE_F16,
         .ne = {D, N_CENTROIDS},
         .data = c->centroids},
        {.kind = EDIT_TENSOR,
         .name = is_old ? "mtp.token_ordering.weight" : "masked_embd_ordering",
         .type = is_old ? TYPE_I64 : TYPE_I32,
         .ne = {V},
         .data = is_old ? (const void *)c->wide_order : c->order},
        {.kind = EDIT_U32, .name = is_old ? OLD "n_centroids" : P "n_centroids", .n = N_CENTROIDS},
        {.kind = EDIT_U32, .name = is_old ? OLD "centroid_top_k" : P "centroid_top_k", .n = 7},
        {.kind = EDIT_BOOL, .name = is_old ? OLD "use_ordered_embeddings" : P "use_ordered_embeddings", .n = 1},
        {.kind = EDIT_END}};
    gguf_edit(MTP, out, edits);
}

/* Logits of the whole step: those of the dense head at the ids of the chosen centroids, -inf elsewhere. */
static void check_centroid_step(const char *file, const char *device)
{
    static const int32_t tokens[] = {2, 300, 900, 1400, 77};
    float *logits[2], logp[RIG_TOP_K];
    int32_t ids[RIG_TOP_K];
    for (int dense = 0; dense < 2; dense++) {
        const rig_options o = {.device = device, .wants_logits = true, .dense_head = dense};
        rig r = rig_open(MODEL("Q4_K_M"), file, &o);
        assert_int_equal(r.d->mtp.n_centroids_used, 7);
        rig_prefill(&r, tokens, 5, 5);
        rig_chain(&r, 1, POS_CONST, ids, logp);
        logits[dense] = malloc(V * sizeof(float));
        rig_read(&r, r.draft_c, r.draft->v_logits, 0, 1, logits[dense]);
        float best = -INFINITY;
        for (int i = 0; i < V; i++) best = fmaxf(best, logits[dense][i]);
        assert_true(ids[0] >= 0 && logits[dense][ids[0]] == best);
        rig_close(&r);
    }
    int n = 0;
    for (int i = 0; i < V; i++) {
        if (logits[0][i] == -INFINITY) continue;
        assert_true(fabsf(logits[0][i] - logits[1][i]) < 1e-4f);
        n++;
    }
    assert_int_equal(n, 7 * GROUP);
    free(logits[0]);
    free(logits[1]);
}

static void test_centroid_files(void **state)
{
    (void)state;
    centroid_file *c = make_centroids();
    char file[300], old[300];
    snprintf(file, sizeof file, "%s", temp_file("centroids.gguf"));
    snprintf(old, sizeof old, "%s", temp_file("old.gguf"));
    write_centroids(c, file, false);
    write_centroids(c, old, true);
    same_drafter(file, old, target);
    check_centroid_step(file, "cpu");
    check_centroid_step(file, "ref");
    const edit dense[] = {{.kind = EDIT_BOOL, .name = P "use_ordered_embeddings", .n = 0}, {.kind = EDIT_END}};
    gguf_edit(file, temp_file("dense.gguf"), dense); /* says itself that they are not to be used */
    drafter *d = open_drafter(temp_file("dense.gguf"), target);
    assert_int_equal(d->mtp.n_centroids, 0);
    assert_null(d->mtp.order);
    drafter_close(d);
    free(c);
}

static void test_refused_centroid_files(void **state)
{
    (void)state;
    centroid_file *c = make_centroids();
    static int32_t twice[V], beyond[V];
    memcpy(twice, c->order, sizeof twice);
    memcpy(beyond, c->order, sizeof beyond);
    twice[9] = twice[3];
    beyond[5] = V;
    const refusal list[] = {
        {{{.kind = EDIT_TENSOR, .name = "masked_embd_ordering", .type = TYPE_I32, .ne = {V}, .data = twice}},
         FMT,
         "tensor masked_embd_ordering: entry 9 is 1952: no permutation of 0 to 2047"},
        {{{.kind = EDIT_TENSOR, .name = "masked_embd_ordering", .type = TYPE_I32, .ne = {V}, .data = beyond}},
         FMT,
         "entry 5 is 2048"},
        {{{.kind = EDIT_TENSOR, .name = "masked_embd_ordering", .type = TYPE_F32, .ne = {V}}},
         FMT,
         "is F32, wanted I32 or I64"},
        {{{.kind = EDIT_TENSOR, .name = "masked_embd_ordering", .type = TYPE_I32, .ne = {V - 1}}},
         SHP,
         "is [2047, 1], wanted [2048]"},
        {{{.kind = EDIT_DROP_TENSOR, .name = "masked_embd_ordering"}}, FMT, "missing tensor masked_embd_ordering"},
        {{{.kind = EDIT_TENSOR, .name = "masked_embd_centroids.weight", .type = TYPE_F16, .ne = {D, 60}}},
         SHP,
         "masked_embd_centroids.weight has 60 rows, which do not divide the 2048 tokens"},
        {{{.kind = EDIT_TENSOR, .name = "masked_embd_centroids.weight", .type = TYPE_F16, .ne = {64, 64}}},
         SHP,
         "is [64, 64, 1]"},
        {{{.kind = EDIT_U32, .name = P "n_centroids", .n = 32}}, FMT, P "n_centroids"},
        {{{.kind = EDIT_U32, .name = P "centroid_top_k", .n = 65}}, FMT, P "centroid_top_k"},
    };
    char file[300];
    snprintf(file, sizeof file, "%s", temp_file("centroids.gguf"));
    write_centroids(c, file, false);
    check_refusals(file, list, sizeof list / sizeof *list);
    free(c);
}

/* ---- damaged files ---- */

static size_t offset_of(const char *data, size_t n, const char *text)
{
    const char *at = memmem(data, n, text, strlen(text));
    assert_non_null(at);
    return (size_t)(at - data);
}

/* Bytes of the keys and of the tensor records changed at random: an error, or plans that can be made. */
static void test_damaged_headers(void **state)
{
    (void)state;
    const char *const files[] = {MTP, DFLASH};
    rng r;
    rng_seed(&r, 13);
    for (int i = 0; i < 2; i++) {
        facet_error err;
        char *data, path[300];
        size_t n;
        int n_opened = 0, n_refused = 0;
        snprintf(path, sizeof path, "%s", temp_file("damaged.gguf"));
        assert_ok(file_read_all(files[i], (size_t)1 << 26, &data, &n, &err), err);
        const size_t keys = offset_of(data, n, "general.name"), end = offset_of(data, n, "tokenizer.ggml.model"),
                     records = offset_of(data, n, "blk.0.");
        for (int k = 0; k < 400; k++) {
            char was[2];
            size_t at[2];
            const int n_changed = 1 + k % 2;
            for (int j = 0; j < n_changed; j++) {
                at[j] = rng_below(&r, 2) ? keys + rng_below(&r, (uint32_t)(end - keys)) : records + rng_below(&r, 1500);
                was[j] = data[at[j]];
                const uint32_t flip = 1u << rng_below(&r, 8), other = rng_below(&r, 256);
                data[at[j]] = (char)(rng_below(&r, 2) ? other : (uint8_t)data[at[j]] ^ flip);
            }
            write_file(path, data, n);
            for (int j = n_changed - 1; j >= 0; j--) data[at[j]] = was[j];
            drafter *d = NULL;
            if (drafter_open(path, target, &d, &err) != FACET_OK) {
                assert_true(strlen(err.message) > 0);
                n_refused++;
                continue;
            }
            plan *p[2];
            plans_of(d, target, p);
            plan_free(p[0]);
            plan_free(p[1]);
            drafter_close(d);
            n_opened++;
        }
        print_message("%d opened, %d refused\n", n_opened, n_refused);
        assert_true(n_opened > 10 && n_refused > 100);
        mem_free(data);
    }
}

/* ---- short memory ---- */

static void test_allocation_faults(void **state)
{
    (void)state;
    const char *const files[] = {MTP, DFLASH, test_shared("models/tiny-31b-dflash")};
    for (int i = 0; i < 3 && files[i]; i++) {
        facet_error err;
        drafter *d = NULL;
        int n_failed = 0;
        for (uint64_t k = 1;; k++) { /* plenty of allocations are names of tensors: every one would take long */
            mem_fail_at(k < 60 ? k : k * k / 60);
            const facet_status status = drafter_open(files[i], target, &d, &err);
            mem_fail_at(0);
            if (status == FACET_OK) break;
            assert_int_equal(status, FACET_ERR_MEMORY);
            assert_null(d);
            n_failed++;
        }
        assert_true(n_failed > 20);
        plan *p = NULL;
        for (uint64_t k = 1;; k++) {
            mem_fail_at(k);
            const facet_status status =
                d->kind == DRAFTER_MTP
                    ? mtp_plan(d, target, &(mtp_options){.top_k = 10}, &p, &err)
                    : dflash_block_plan(d, target, &(dflash_options){.top_k = 8, .temp = 1}, &p, &err);
            mem_fail_at(0);
            if (status == FACET_OK) break;
            assert_int_equal(status, FACET_ERR_MEMORY);
        }
        plan_free(p);
        drafter_close(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dialects_of_mtp_make_the_same_plan),
        cmocka_unit_test(test_pitfall_10_dialects_of_dflash_make_the_same_plans),
        cmocka_unit_test(test_windows_of_the_dialects),
        cmocka_unit_test(test_folder_makes_the_plans_of_the_file),
        cmocka_unit_test(test_config_of_a_folder),
        cmocka_unit_test(test_refused_folders),
        cmocka_unit_test(test_refused_mtp_files),
        cmocka_unit_test(test_pitfall_20_shapes_are_checked),
        cmocka_unit_test(test_refused_dflash_files),
        cmocka_unit_test(test_pitfall_11_mask_token_must_be_said),
        cmocka_unit_test(test_refused_community_files),
        cmocka_unit_test(test_other_vocabulary_is_refused),
        cmocka_unit_test(test_defaults_are_logged),
        cmocka_unit_test(test_cache_layout),
        cmocka_unit_test(test_two_drafters_in_one_list),
        cmocka_unit_test(test_options_are_checked),
        cmocka_unit_test(test_tables_of_the_file_come_first),
        cmocka_unit_test(test_centroid_files),
        cmocka_unit_test(test_refused_centroid_files),
        cmocka_unit_test(test_damaged_headers),
        cmocka_unit_test(test_allocation_faults),
    };
    return cmocka_run_group_tests_name("drafter_files", tests, open_target, close_target);
}
