/* Safetensors folders to GGUF: the shared DFlash drafter against its GGUF file; targets and assistants on the way from
 * GGUF to safetensors and back; the vocabulary; what is refused. */
#include "testing.h"

#include "base/buf.h"
#include "file/safetensors.h"
#include "model/convert.h"
#include "model/hf_names.h"
#include "model/meta.h"

static char folder[] = "/tmp/facet_convert_XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
                                        "chat_template.jinja"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(test_path(folder, names[i]));
    return rmdir(folder);
}

static bool is_descriptive(const char *key)
{
    return strcmp(key, "general.name") == 0 || strcmp(key, "general.finetune") == 0 ||
           strcmp(key, "general.basename") == 0 || strcmp(key, "general.size_label") == 0;
}

/* Not in the reference file; it lets a drafter of a target with another number of layers be refused. */
static bool is_addition(const char *key)
{
    return strcmp(key, "dflash.target_layer_count") == 0;
}

static size_t value_bytes(const gguf_kv *kv)
{
    static const size_t size[] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
        [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    if (kv->elem != GGUF_STRING) return size[kv->elem] * (size_t)kv->count;
    gguf_str *s = calloc((size_t)kv->count, sizeof *s);
    assert_true(gguf_array_strings(kv, s));
    size_t n = 0;
    for (uint64_t i = 0; i < kv->count; i++) n += 8 + s[i].n;
    free(s);
    return n;
}

static void check_same_keys(const gguf_file *want, const gguf_file *got)
{
    uint64_t n_got = 0, n_want = 0;
    for (uint64_t i = 0; i < got->n_kv; i++) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)got->kv[i].key.n, got->kv[i].key.s);
        if (is_descriptive(key) || is_addition(key)) continue;
        n_got++;
        const gguf_kv *a = gguf_find(want, key), *b = &got->kv[i];
        if (!a) fail_msg("%s is too much", key);
        if (a->type != b->type || a->elem != b->elem || a->count != b->count) fail_msg("%s: type or count", key);
        if (value_bytes(a) != value_bytes(b) || memcmp(a->value, b->value, value_bytes(a)) != 0)
            fail_msg("%s: value", key);
    }
    for (uint64_t i = 0; i < want->n_kv; i++) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)want->kv[i].key.n, want->kv[i].key.s);
        n_want += !is_descriptive(key);
    }
    assert_int_equal(n_got, n_want);
}

static void check_same_tensors(const gguf_file *want, const gguf_file *got)
{
    assert_int_equal(want->n_tensors, got->n_tensors);
    for (uint64_t i = 0; i < want->n_tensors; i++) {
        const gguf_tensor *a = &want->tensors[i], *b = gguf_find_tensor(got, a->name);
        if (!b) fail_msg("%s is missing", a->name);
        if (a->type != b->type || a->n_dims != b->n_dims || memcmp(a->ne, b->ne, sizeof a->ne) != 0)
            fail_msg("%s: type or shape", a->name);
        if (memcmp(a->data, b->data, (size_t)a->bytes) != 0) fail_msg("%s: data", a->name);
    }
}

static void check_same(const char *want, const char *got)
{
    facet_error err = {0};
    gguf_file *a = NULL, *b = NULL;
    assert_ok(gguf_open(want, &a, &err), err);
    assert_ok(gguf_open(got, &b, &err), err);
    check_same_keys(a, b);
    check_same_tensors(a, b);
    gguf_close(a);
    gguf_close(b);
}

static void dflash_equals_reference(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-dflash");
    facet_error err = {0};
    const char *out = test_path(folder, "out.gguf");
    convert_params p = {.mix = TYPEMIX_F16, .target = test_shared("models/tiny-31b-F16.gguf"), .n_threads = 2};
    assert_ok(convert_folder(test_shared("models/tiny-31b-dflash"), out, &p, &err), err);
    check_same(test_shared("models/tiny-31b-dflash-F16.gguf"), out);
    gguf_file *f;
    uint64_t depth = 0;
    assert_ok(gguf_open(out, &f, &err), err);
    assert_ok(gguf_get_u64(f, "dflash.target_layer_count", true, 1, 1000, &depth, &err), err);
    assert_int_equal(depth, 6); /* num_target_layers of config.json */
    gguf_close(f);
    unlink(out);
}

/* The way back from GGUF names, for the folders made here. */
static bool hf_name_of(const gguf_tensor *t, const char *prefix, char *out, size_t n)
{
    static const char *const pairs[][2] = {
        {"attn_norm.weight", "input_layernorm.weight"},
        {"post_attention_norm.weight", "post_attention_layernorm.weight"},
        {"ffn_norm.weight", "pre_feedforward_layernorm.weight"},
        {"post_ffw_norm.weight", "post_feedforward_layernorm.weight"},
        {"post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight"},
        {"post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight"},
        {"pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight"},
        {"layer_output_scale.weight", "layer_scalar"},
        {"ffn_gate_inp.weight", "router.proj.weight"},
        {"ffn_gate_inp.scale", "router.scale"},
        {"ffn_down_exps.scale", "router.per_expert_scale"},
        {"ffn_gate_up_exps.weight", "experts.gate_up_proj"},
        {"ffn_down_exps.weight", "experts.down_proj"},
        {"inp_gate.weight", "per_layer_input_gate.weight"},
        {"proj.weight", "per_layer_projection.weight"},
        {"post_norm.weight", "post_per_layer_input_norm.weight"},
        {"attn_q.weight", "self_attn.q_proj.weight"},
        {"attn_k.weight", "self_attn.k_proj.weight"},
        {"attn_v.weight", "self_attn.v_proj.weight"},
        {"attn_output.weight", "self_attn.o_proj.weight"},
        {"attn_q_norm.weight", "self_attn.q_norm.weight"},
        {"attn_k_norm.weight", "self_attn.k_norm.weight"},
        {"ffn_gate.weight", "mlp.gate_proj.weight"},
        {"ffn_up.weight", "mlp.up_proj.weight"},
        {"ffn_down.weight", "mlp.down_proj.weight"},
        {"token_embd.weight", "embed_tokens.weight"},
        {"output_norm.weight", "norm.weight"},
        {"per_layer_token_embd.weight", "embed_tokens_per_layer.weight"},
        {"per_layer_model_proj.weight", "per_layer_model_projection.weight"},
        {"per_layer_proj_norm.weight", "per_layer_projection_norm.weight"},
    };
    if (strcmp(t->name, "rope_freqs.weight") == 0) return false;
    if (strncmp(t->name, "nextn.", 6) == 0) {
        snprintf(out, n, "%s", t->name + 6);
        return true;
    }
    int layer = -1, used = 0;
    sscanf(t->name, "blk.%d.%n", &layer, &used);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (strcmp(pairs[i][0], t->name + used) != 0) continue;
        if (layer >= 0)
            snprintf(out, n, "%slayers.%d.%s", prefix, layer, pairs[i][1]);
        else
            snprintf(out, n, "%s%s", prefix, pairs[i][1]);
        return true;
    }
    fail_msg("%s has no name", t->name);
    return false;
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(test_path(folder, name), "wb");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* The tensors of a file as model.safetensors; `extra`, "NAME": one tensor more that belongs elsewhere. */
static void write_safetensors(const gguf_file *f, const char *prefix, const char *extra)
{
    buf head = {0};
    uint64_t at = 0;
    buf_puts(&head, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const gguf_tensor *t = &f->tensors[i];
        char name[256];
        if (!hf_name_of(t, prefix, name, sizeof name)) continue;
        buf_printf(&head, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", name, t->type == TYPE_F32 ? "F32" : "F16");
        for (int d = t->n_dims - 1; d >= 0; d--)
            buf_printf(&head, "%llu%s", (unsigned long long)t->ne[d], d ? "," : "");
        buf_printf(&head, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                   (unsigned long long)(at + t->bytes));
        at += t->bytes;
    }
    if (extra)
        buf_printf(&head, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%llu,%llu]}", extra,
                   (unsigned long long)at, (unsigned long long)at + 4);
    buf_puts(&head, "}");
    while (head.len % 8) buf_putc(&head, ' ');
    FILE *out = fopen(test_path(folder, "model.safetensors"), "wb");
    assert_non_null(out);
    uint64_t n = head.len;
    assert_int_equal(fwrite(&n, 8, 1, out), 1);
    assert_int_equal(fwrite(head.data, 1, head.len, out), head.len);
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const gguf_tensor *t = &f->tensors[i];
        if (strcmp(t->name, "rope_freqs.weight") != 0)
            assert_int_equal(fwrite(t->data, 1, (size_t)t->bytes, out), t->bytes);
    }
    if (extra) assert_int_equal(fwrite("\0\0\0\0", 1, 4, out), 4);
    assert_int_equal(fclose(out), 0);
    buf_free(&head);
}

#define ROPE                                                                                                           \
    "\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1000000.0,\"partial_rotary_factor\":0.25},"               \
    "\"sliding_attention\":{\"rope_theta\":10000.0}},"
#define COMMON                                                                                                         \
    "\"vocab_size\":2048,\"max_position_embeddings\":32768,\"head_dim\":256,\"global_head_dim\":512,"                  \
    "\"sliding_window\":128,\"num_attention_heads\":4,\"rms_norm_eps\":1e-06," ROPE
#define S "\"sliding_attention\","
#define G "\"full_attention\""

static const char config_31b[] =
    "{\"model_type\":\"gemma4\",\"text_config\":{\"model_type\":\"gemma4_text\"," COMMON
    "\"hidden_size\":256,\"num_hidden_layers\":6,\"intermediate_size\":512,\"num_key_value_heads\":2,"
    "\"num_global_key_value_heads\":1,\"final_logit_softcapping\":30.0,\"hidden_size_per_layer_input\":0,"
    "\"num_kv_shared_layers\":0,\"layer_types\":[" S S G "," S S G "]}}";
static const char config_26b[] =
    "{\"model_type\":\"gemma4_text\"," COMMON
    "\"hidden_size\":256,\"num_hidden_layers\":5,\"intermediate_size\":256,\"num_key_value_heads\":2,"
    "\"num_global_key_value_heads\":1,\"final_logit_softcapping\":30.0,\"enable_moe_block\":true,\"num_experts\":16,"
    "\"top_k_experts\":4,\"moe_intermediate_size\":64,\"layer_types\":[" S S G "," S G "]}";
static const char config_e2b[] =
    "{\"model_type\":\"gemma4_text\"," COMMON
    "\"hidden_size\":256,\"num_hidden_layers\":6,\"intermediate_size\":256,\"use_double_wide_mlp\":true,"
    "\"num_key_value_heads\":1,\"num_global_key_value_heads\":null,\"final_logit_softcapping\":30.0,"
    "\"hidden_size_per_layer_input\":128,\"num_kv_shared_layers\":3,\"num_experts\":null,"
    "\"layer_types\":[" S S G "," S S G "]}";
static const char config_mtp[] =
    "{\"model_type\":\"gemma4_assistant\",\"backbone_hidden_size\":256,\"use_ordered_embeddings\":false,"
    "\"text_config\":{" COMMON
    "\"hidden_size\":128,\"num_hidden_layers\":4,\"intermediate_size\":512,\"num_key_value_heads\":2,"
    "\"num_global_key_value_heads\":1,\"num_kv_shared_layers\":4,\"final_logit_softcapping\":null,"
    "\"layer_types\":[" S S S G "]}}";

static void link_tokenizer(void)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"};
    for (size_t i = 0; i < 3; i++) {
        char shared[64];
        snprintf(shared, sizeof shared, "models/tiny-tokenizer/%s", names[i]);
        unlink(test_path(folder, names[i]));
        char *real = realpath(test_shared(shared), NULL);
        assert_non_null(real);
        assert_int_equal(symlink(real, test_path(folder, names[i])), 0);
        free(real);
    }
}

static void there_and_back(void **state)
{
    (void)state;
    static const struct {
        const char *file, *config, *prefix;
    } list[] = {
        {"models/tiny-31b-F16.gguf", config_31b, "model.language_model."},
        {"models/tiny-26b-a4b-F16.gguf", config_26b, "model."},
        {"models/tiny-e2b-F16.gguf", config_e2b, "language_model.model."},
        {"models/tiny-31b-mtp-F16.gguf", config_mtp, "model."},
    };
    TEST_NEEDS_SHARED(list[0].file);
    link_tokenizer();
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        facet_error err = {0};
        gguf_file *f = NULL;
        assert_ok(gguf_open(test_shared(list[i].file), &f, &err), err);
        write_safetensors(f, list[i].prefix, i == 0 ? "model.vision_tower.scale" : NULL);
        gguf_close(f);
        write_text("config.json", list[i].config);
        convert_params p = {.mix = TYPEMIX_F16, .n_threads = 2};
        const char *out = test_path(folder, "out.gguf");
        assert_ok(convert_folder(folder, out, &p, &err), err);
        check_same(test_shared(list[i].file), out);
        unlink(test_path(folder, "out.gguf"));
    }
}

/* 31b as it stands in the folder, with one thing changed in its config.json. */
static void refuses(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-F16.gguf");
    static const struct {
        const char *find, *replace;
        facet_status status;
        const char *message;
    } list[] = {
        {"{\"model_type\":\"gemma4\"", "{\"model_type\":\"llama\"", FACET_ERR_UNSUPPORTED, "model_type 'llama'"},
        {"\"num_hidden_layers\":6,", "", FACET_ERR_FORMAT, "missing key num_hidden_layers"},
        {"\"num_hidden_layers\":6", "\"num_hidden_layers\":7", FACET_ERR_FORMAT, "layer_types is no list of 7"},
        {"\"hidden_size\":256", "\"hidden_size\":\"wide\"", FACET_ERR_FORMAT, "hidden_size is not a whole number"},
        {"\"num_hidden_layers\":6", "\"num_hidden_layers\":-1", FACET_ERR_FORMAT, "num_hidden_layers is not"},
        {"\"rope_theta\":10000.0", "\"rope_theta\":0", FACET_ERR_FORMAT, "rope_theta is not a positive number"},
        {"[" S, "[\"linear_attention\",", FACET_ERR_UNSUPPORTED, "entry 0 is neither"},
        {"{\"model_type\"", "[\"model_type\"", FACET_ERR_FORMAT, "config.json: line 1"},
        {"\"model_type\"", "\"architectures\":[\"DFlashDraftModel\"],\"model_type\"", FACET_ERR_FORMAT,
         "missing key dflash_config"},
    };
    facet_error err = {0};
    gguf_file *f = NULL;
    convert_params p = {.mix = TYPEMIX_F16, .n_threads = 1};
    char out[256]; /* test_path would be used again and again */
    snprintf(out, sizeof out, "%s/out.gguf", folder);
    assert_ok(gguf_open(test_shared("models/tiny-31b-F16.gguf"), &f, &err), err);
    link_tokenizer();
    write_safetensors(f, "model.", NULL);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const char *at = strstr(config_31b, list[i].find);
        assert_non_null(at);
        buf text = {0};
        buf_append(&text, config_31b, (size_t)(at - config_31b));
        buf_puts(&text, list[i].replace);
        buf_puts(&text, at + strlen(list[i].find));
        write_text("config.json", text.data);
        buf_free(&text);
        facet_status status = convert_folder(folder, out, &p, &err);
        if (status != list[i].status || !strstr(err.message, list[i].message))
            fail_msg("case %zu: %d, %s", i, (int)status, err.message);
        assert_int_not_equal(access(out, F_OK), 0);
    }
    write_text("config.json", config_31b);
    write_safetensors(f, "model.", "model.layers.0.mystery");
    assert_int_equal(convert_folder(folder, out, &p, &err), FACET_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "model.layers.0.mystery"));
    write_safetensors(f, "model.", NULL);
    unlink(test_path(folder, "tokenizer.json"));
    assert_int_equal(convert_folder(folder, out, &p, &err), FACET_ERR_IO);
    write_text("tokenizer.json", "{\"model\":{\"type\":\"WordPiece\"}}");
    assert_int_equal(convert_folder(folder, out, &p, &err), FACET_ERR_UNSUPPORTED);
    write_text("tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2048},\"merges\":[]}}");
    assert_int_equal(convert_folder(folder, out, &p, &err), FACET_ERR_FORMAT);
    write_text("tokenizer.json", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[[\"a\"]]}}");
    assert_int_equal(convert_folder(folder, out, &p, &err), FACET_ERR_FORMAT);
    assert_non_null(strstr(err.message, "merge 0"));
    gguf_close(f);
}

static void names_map(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *name;
        bool is_tied;
        hf_name kind;
        const char *want;
        int layer;
    } list[] = {
        {META_TARGET, "model.language_model.layers.12.self_attn.q_proj.weight", true, HF_NAME_KNOWN,
         "blk.12.attn_q.weight", 12},
        {META_TARGET, "model.layers.3.post_attention_layernorm.weight", true, HF_NAME_KNOWN,
         "blk.3.post_attention_norm.weight", 3},
        {META_DFLASH, "layers.3.post_attention_layernorm.weight", true, HF_NAME_KNOWN, "blk.3.ffn_norm.weight", 3},
        {META_DFLASH, "model.hidden_norm.weight", true, HF_NAME_KNOWN, "enc.output_norm.weight", -1},
        {META_TARGET, "lm_head.weight", true, HF_NAME_SKIPPED, "", -1},
        {META_TARGET, "lm_head.weight", false, HF_NAME_KNOWN, "output.weight", -1},
        {META_TARGET, "model.embed_vision.embedding_projection.weight", true, HF_NAME_SKIPPED, "", -1},
        {META_MTP, "masked_embedding.token_ordering", true, HF_NAME_KNOWN, "masked_embd_ordering", -1},
        {META_TARGET, "model.layers.x.layer_scalar", true, HF_NAME_UNKNOWN, "", -1},
        {META_TARGET, "model.layers.-1.layer_scalar", true, HF_NAME_UNKNOWN, "", -1},
        {META_TARGET, "something", true, HF_NAME_UNKNOWN, "", -1},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char out[96] = "";
        int layer = -2;
        hf_name kind = hf_name_map(list[i].arch, list[i].is_tied, list[i].name, out, sizeof out, &layer);
        assert_int_equal(kind, list[i].kind);
        if (kind != HF_NAME_KNOWN) continue;
        assert_string_equal(out, list[i].want);
        assert_int_equal(layer, list[i].layer);
    }
    assert_true(hf_name_compare("layers.2.a", "layers.10.a") < 0);
    assert_true(hf_name_compare("layers.2.b", "layers.2.a") > 0);
    assert_int_equal(hf_name_compare("x.1", "x.1"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dflash_equals_reference),
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(refuses),
        cmocka_unit_test(names_map),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
