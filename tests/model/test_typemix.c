/* The types that a mix gives to each tensor: against three files, and by count for the shapes of released models. */
#include "testing.h"

#include "model/typemix.h"
#include "model/typemix_tiny.h"

static int layer_of(const char *name)
{
    int layer = -1;
    sscanf(name, "blk.%d.", &layer);
    return layer;
}

static bool is_attn_v(const char *name)
{
    return strstr(name, ".attn_v.weight") != NULL;
}

static void check_file(const listed_tensor *list, size_t n)
{
    typemix_counts counts = {0, 0};
    int n_layers = 0;
    for (size_t i = 0; i < n; i++) {
        counts.n_attn_v += is_attn_v(list[i].name);
        if (layer_of(list[i].name) >= n_layers) n_layers = layer_of(list[i].name) + 1;
    }
    for (size_t i = 0; i < n; i++) {
        const listed_tensor *t = &list[i];
        tensor_type got =
            typemix_choose(TYPEMIX_Q4_K_M, t->name, t->n_dims, t->ne, layer_of(t->name), n_layers, &counts);
        /* the known difference, stated in typemix.h */
        tensor_type want = strcmp(t->name, "per_layer_model_proj.weight") == 0 ? TYPE_BF16 : t->type;
        if (got != want) fail_msg("%s: %s, wanted %s", t->name, type_name(got), type_name(want));
        counts.attn_v_index += is_attn_v(t->name);
    }
}

static void matches_the_files(void **state)
{
    (void)state;
    check_file(tiny_31b, sizeof tiny_31b / sizeof tiny_31b[0]);
    check_file(tiny_26b_a4b, sizeof tiny_26b_a4b / sizeof tiny_26b_a4b[0]);
    check_file(tiny_e2b, sizeof tiny_e2b / sizeof tiny_e2b[0]);
}

typedef struct model_shape {
    int n_layers, period;
    uint64_t n_embd, n_ff, n_experts, n_ff_expert, n_per_layer;
    bool global_has_v;
} model_shape;

typedef struct type_counter {
    const model_shape *shape;
    typemix mix;
    typemix_counts counts;
    int of_type[TYPE_COUNT];
} type_counter;

static void count_tensor(type_counter *c, int layer, const char *base, int n_dims, uint64_t width)
{
    char name[64];
    const uint64_t ne[4] = {width, 256, 128, 1};
    if (layer >= 0)
        snprintf(name, sizeof name, "blk.%d.%s", layer, base);
    else
        snprintf(name, sizeof name, "%s", base);
    c->of_type[typemix_choose(c->mix, name, n_dims, ne, layer, c->shape->n_layers, &c->counts)]++;
}

static void count_vectors(type_counter *c, int layer, const char *const *names)
{
    for (; *names; names++) count_tensor(c, layer, *names, 1, 256);
}

static void count_experts(type_counter *c, int layer)
{
    static const char *const vectors[] = {"ffn_gate_inp.scale",     "ffn_down_exps.scale",    "pre_ffw_norm_2.weight",
                                          "post_ffw_norm_1.weight", "post_ffw_norm_2.weight", NULL};
    count_vectors(c, layer, vectors);
    count_tensor(c, layer, "ffn_gate_inp.weight", 2, c->shape->n_embd);
    count_tensor(c, layer, "ffn_gate_up_exps.weight", 3, c->shape->n_embd);
    count_tensor(c, layer, "ffn_down_exps.weight", 3, c->shape->n_ff_expert);
}

static void count_layer(type_counter *c, int layer)
{
    static const char *const vectors[] = {
        "attn_norm.weight", "attn_q_norm.weight",   "attn_k_norm.weight",        "post_attention_norm.weight",
        "ffn_norm.weight",  "post_ffw_norm.weight", "layer_output_scale.weight", NULL};
    static const char *const matrices[] = {"attn_q.weight", "attn_k.weight", "ffn_gate.weight", "ffn_up.weight", NULL};
    const model_shape *s = c->shape;
    count_vectors(c, layer, vectors);
    for (const char *const *m = matrices; *m; m++) count_tensor(c, layer, *m, 2, s->n_embd);
    count_tensor(c, layer, "attn_output.weight", 2, 4096);
    count_tensor(c, layer, "ffn_down.weight", 2, s->n_ff);
    if (s->global_has_v || layer % s->period != s->period - 1) {
        count_tensor(c, layer, "attn_v.weight", 2, s->n_embd);
        c->counts.attn_v_index++;
    }
    if (s->n_experts) count_experts(c, layer);
    if (s->n_per_layer) {
        count_tensor(c, layer, "inp_gate.weight", 2, s->n_embd);
        count_tensor(c, layer, "proj.weight", 2, s->n_per_layer);
        count_tensor(c, layer, "post_norm.weight", 1, s->n_embd);
    }
}

static type_counter count_model(const model_shape *s, typemix mix)
{
    type_counter c = {.shape = s, .mix = mix};
    c.counts.n_attn_v = s->global_has_v ? s->n_layers : s->n_layers - s->n_layers / s->period;
    count_tensor(&c, -1, "token_embd.weight", 2, s->n_embd);
    count_tensor(&c, -1, "output_norm.weight", 1, s->n_embd);
    count_tensor(&c, -1, "rope_freqs.weight", 1, 256);
    if (s->n_per_layer) {
        count_tensor(&c, -1, "per_layer_token_embd.weight", 2, s->n_per_layer * (uint64_t)s->n_layers);
        count_tensor(&c, -1, "per_layer_model_proj.weight", 2, s->n_embd);
        count_tensor(&c, -1, "per_layer_proj_norm.weight", 1, s->n_per_layer);
    }
    for (int i = 0; i < s->n_layers; i++) count_layer(&c, i);
    return c;
}

static const model_shape shape_26b = {
    .n_layers = 30, .period = 6, .n_embd = 2816, .n_ff = 2112, .n_experts = 128, .n_ff_expert = 704};
static const model_shape shape_12b = {.n_layers = 48, .period = 6, .n_embd = 3840, .n_ff = 15360};
static const model_shape shape_e2b = {
    .n_layers = 35, .period = 5, .n_embd = 1536, .n_ff = 6144, .n_per_layer = 256, .global_has_v = true};

static void counts_of_q4_k_m(void **state)
{
    (void)state;
    type_counter c = count_model(&shape_26b, TYPEMIX_Q4_K_M);
    assert_int_equal(c.of_type[TYPE_Q4_K], 192);
    assert_int_equal(c.of_type[TYPE_Q6_K], 14);
    assert_int_equal(c.of_type[TYPE_Q5_0], 32);
    assert_int_equal(c.of_type[TYPE_Q8_0], 28);
    assert_int_equal(c.of_type[TYPE_F32], 392);
    c = count_model(&shape_12b, TYPEMIX_Q4_K_M);
    assert_int_equal(c.of_type[TYPE_Q4_K], 284);
    assert_int_equal(c.of_type[TYPE_Q6_K], 45);
    assert_int_equal(c.of_type[TYPE_F32], 338);
    c = count_model(&shape_e2b, TYPEMIX_Q4_K_M);
    assert_int_equal(c.of_type[TYPE_F32], 283);
    assert_int_equal(c.of_type[TYPE_BF16], 1);
    assert_int_equal(c.of_type[TYPE_Q4_K] + c.of_type[TYPE_Q6_K], 601 - 284);
}

static void counts_of_the_other_mixes(void **state)
{
    (void)state;
    type_counter c = count_model(&shape_26b, TYPEMIX_Q5_K_M);
    assert_int_equal(c.of_type[TYPE_Q5_K], 192);
    assert_int_equal(c.of_type[TYPE_Q5_1], 32);
    assert_int_equal(c.of_type[TYPE_Q8_0], 28);
    c = count_model(&shape_26b, TYPEMIX_Q6_K);
    assert_int_equal(c.of_type[TYPE_Q6_K], 206);
    assert_int_equal(c.of_type[TYPE_Q8_0], 60);
    c = count_model(&shape_e2b, TYPEMIX_Q4_0);
    assert_int_equal(c.of_type[TYPE_Q6_K], 2);
    assert_int_equal(c.of_type[TYPE_Q4_0], 35 * 9);
    c = count_model(&shape_e2b, TYPEMIX_Q8_0);
    assert_int_equal(c.of_type[TYPE_Q8_0], 35 * 9 + 2);
    assert_int_equal(c.of_type[TYPE_BF16], 1);
    c = count_model(&shape_e2b, TYPEMIX_F16);
    assert_int_equal(c.of_type[TYPE_F16], 35 * 9 + 3);
    c = count_model(&shape_26b, TYPEMIX_BF16);
    assert_int_equal(c.of_type[TYPE_BF16], 266);
    assert_int_equal(c.of_type[TYPE_F32], 392);
}

static tensor_type choose(typemix mix, const char *name, int n_dims, uint64_t width)
{
    const uint64_t ne[4] = {width, 64, 1, 1};
    return typemix_choose(mix, name, n_dims, ne, layer_of(name), 4, NULL);
}

static void names_and_widths(void **state)
{
    (void)state;
    assert_int_equal(choose(TYPEMIX_Q4_K_M, "nextn.pre_projection.weight", 2, 512), TYPE_Q4_K);
    assert_int_equal(choose(TYPEMIX_Q8_0, "fc.weight", 2, 768), TYPE_Q8_0);
    assert_int_equal(choose(TYPEMIX_Q4_0, "nextn.post_projection.weight", 2, 128), TYPE_Q4_0);
    assert_int_equal(choose(TYPEMIX_Q4_K_M, "enc.output_norm.weight", 1, 512), TYPE_F32);
    assert_int_equal(choose(TYPEMIX_Q4_K_M, "token_embd.weight", 2, 128), TYPE_Q8_0);
    assert_int_equal(choose(TYPEMIX_Q4_K_M, "blk.1.ffn_gate.weight", 2, 96), TYPE_Q5_0);
    assert_int_equal(choose(TYPEMIX_Q4_K_M, "blk.1.ffn_gate.weight", 2, 100), TYPE_F16);
    assert_int_equal(choose(TYPEMIX_Q8_0, "blk.1.ffn_gate.weight", 2, 100), TYPE_F16);
    assert_int_equal(choose(TYPEMIX_BF16, "blk.1.ffn_gate.weight", 2, 100), TYPE_BF16);
    assert_int_equal(choose(TYPEMIX_F16, "blk.1.ffn_gate_inp.weight", 2, 256), TYPE_F32);
    assert_int_equal(choose(TYPEMIX_Q8_0, "blk.1.ffn_gate.scale", 2, 256), TYPE_F32);
    assert_int_equal(choose(TYPEMIX_Q8_0, "weight", 2, 256), TYPE_F32);
}

static void mixes_by_name(void **state)
{
    (void)state;
    for (int i = 0; i < TYPEMIX_COUNT; i++) {
        typemix found;
        assert_true(typemix_by_name(typemix_name((typemix)i), &found));
        assert_int_equal(found, i);
    }
    typemix mix = TYPEMIX_BF16;
    assert_true(typemix_by_name("q4_k_m", &mix));
    assert_int_equal(mix, TYPEMIX_Q4_K_M);
    assert_int_equal(typemix_file_type(mix), 15);
    assert_false(typemix_by_name("Q4_K", &mix));
    assert_false(typemix_by_name("", &mix));
    assert_int_equal(mix, TYPEMIX_Q4_K_M);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_files),
        cmocka_unit_test(counts_of_q4_k_m),
        cmocka_unit_test(counts_of_the_other_mixes),
        cmocka_unit_test(names_and_widths),
        cmocka_unit_test(mixes_by_name),
    };
    return cmocka_run_group_tests_name("typemix", tests, NULL, NULL);
}
