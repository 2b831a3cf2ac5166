/* Well-formed GGUF files that are no model Facet can run: the bundled model with one thing changed in each, and the
 * message that names it. */
#define _GNU_SOURCE /* memmem */
#include "testing.h"

#include <math.h>

#include "base/file_map.h"
#include "base/mem.h"
#include "decode/session.h"

static char *good;
static size_t n_good;

static int read_good(void **state)
{
    (void)state;
    return file_read_all(FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf", 1u << 24, &good, &n_good, NULL) == FACET_OK
               ? 0
               : -1;
}

static int free_good(void **state)
{
    (void)state;
    mem_free(good);
    return 0;
}

/* ---- changes ---- */

typedef enum change {
    RENAMED, /* a key or a tensor: its last letter */
    TEXT,    /* a string key: other letters */
    U32,     /* a key of 4 bytes */
    F32,
    ENTRY, /* number `at` of an array of 4-byte integers */
    DIM,   /* dimension `at` of a tensor */
    TYPE,  /* of a tensor */
    DATA,  /* float `at` of an F32 tensor */
    ADDED  /* a key with a float */
} change;

typedef struct bad_model {
    change what;
    const char *name;
    int at;
    double value;
    const char *text;
    facet_status status;
    const char *message;
} bad_model;

/* The byte behind a name's record (a length and the letters). */
static char *behind(char *file, const char *name)
{
    char record[128];
    const uint64_t n = strlen(name);
    memcpy(record, &n, 8);
    memcpy(record + 8, name, n);
    char *p = memmem(file, n_good, record, 8 + n);
    if (!p) fail_msg("the model has no %s", name);
    return p + 8 + n;
}

static void put_u32(char *p, double v)
{
    const uint32_t u = (uint32_t)(int64_t)v;
    memcpy(p, &u, 4);
}

static void put_f32(char *p, double v)
{
    const float f = (float)v;
    memcpy(p, &f, 4);
}

static char *data_of(char *file, const char *tensor)
{
    gguf_file *f;
    facet_error err;
    assert_ok(gguf_open_memory(file, n_good, "good", &f, &err), err);
    const gguf_tensor *t = gguf_find_tensor(f, tensor);
    assert_non_null(t);
    char *data = (char *)(uintptr_t)t->data;
    gguf_close(f);
    return data;
}

/* A key in front of the others; the tensors' data moves to the next boundary. */
static size_t add_key(char *file, const char *key, double value)
{
    const uint64_t n = strlen(key);
    const uint32_t type = GGUF_F32;
    uint64_t n_kv;
    memmove(file + 24 + 16 + n, file + 24, n_good - 24);
    memcpy(file + 24, &n, 8);
    memcpy(file + 32, key, n);
    memcpy(file + 32 + n, &type, 4);
    put_f32(file + 36 + n, value);
    memcpy(&n_kv, file + 16, 8);
    n_kv++;
    memcpy(file + 16, &n_kv, 8);
    return n_good + 128;
}

/* A changed copy; free it. */
static char *changed(const bad_model *b, size_t *n)
{
    char *file = calloc(n_good + 128, 1);
    memcpy(file, good, n_good);
    *n = n_good;
    char *p = b->what == ADDED ? NULL : behind(file, b->name);
    const uint64_t dim = (uint64_t)b->value;
    uint32_t n_dims;
    switch (b->what) {
    case RENAMED: p[-1] = '~'; break;
    case TEXT: memcpy(p + 12, b->text, strlen(b->text)); break;
    case U32: put_u32(p + 4, b->value); break;
    case F32: put_f32(p + 4, b->value); break;
    case ENTRY: put_u32(p + 16 + 4 * b->at, b->value); break;
    case DIM: memcpy(p + 4 + 8 * b->at, &dim, 8); break;
    case TYPE:
        memcpy(&n_dims, p, 4);
        put_u32(p + 4 + 8 * n_dims, b->value);
        break;
    case DATA: put_f32(data_of(file, b->name) + 4 * b->at, b->value); break;
    case ADDED: *n = add_key(file, b->name, b->value); break;
    }
    return file;
}

/* ---- the table ---- */

#define G "gemma4."
#define A G "attention."

static const bad_model table[] = {
    {TEXT, "general.architecture", 0, 0, "gemma3", FACET_ERR_UNSUPPORTED, "general.architecture is 'gemma3'"},
    {RENAMED, "general.architecture", 0, 0, 0, FACET_ERR_FORMAT, "missing key \"general.architecture\""},
    {RENAMED, G "block_count", 0, 0, 0, FACET_ERR_FORMAT, "missing key \"gemma4.block_count\""},
    {U32, G "block_count", 0, 0, 0, FACET_ERR_FORMAT, "\"gemma4.block_count\": 0 is outside 1.."},
    {U32, G "block_count", 0, 1e6, 0, FACET_ERR_FORMAT, "\"gemma4.block_count\": 1000000 is outside"},
    {U32, G "block_count", 0, 5, 0, FACET_ERR_FORMAT, "has 6 entries, the model has 5 layers"},
    {U32, G "block_count", 0, 7, 0, FACET_ERR_FORMAT, "has 6 entries, the model has 7 layers"},
    {U32, G "context_length", 0, 0, 0, FACET_ERR_FORMAT, "\"gemma4.context_length\": 0 is outside"},
    {U32, G "context_length", 0, 0x80000000p0, 0, FACET_ERR_FORMAT, "context_length\": 2147483648 is outside"},
    {U32, G "embedding_length", 0, 0, 0, FACET_ERR_FORMAT, "\"gemma4.embedding_length\": 0 is outside"},
    {U32, G "embedding_length", 0, 512, 0, FACET_ERR_SHAPE, "tensor token_embd.weight is [256, 2048, 1]"},
    {U32, G "feed_forward_length", 0, 0, 0, FACET_ERR_FORMAT, "gemma4.feed_forward_length of layer 0 is 0"},
    {U32, G "feed_forward_length", 0, 768, 0, FACET_ERR_SHAPE, "tensor blk.0.ffn_gate.weight is [256, 512, 1]"},
    {U32, A "head_count", 0, 0, 0, FACET_ERR_FORMAT, "\"gemma4.attention.head_count\": 0 is outside"},
    {U32, A "head_count", 0, 3, 0, FACET_ERR_FORMAT, "head_count_kv of layer 0 is 2, which does not divide"},
    {U32, A "head_count", 0, 8, 0, FACET_ERR_SHAPE, "tensor blk.0.attn_q.weight is [256, 1024, 1]"},
    {ENTRY, A "head_count_kv", 0, 0, 0, FACET_ERR_FORMAT, "head_count_kv of layer 0 is 0, wanted 1 to 4"},
    {ENTRY, A "head_count_kv", 5, -1, 0, FACET_ERR_FORMAT, "head_count_kv of layer 5 is -1, wanted 1 to 4"},
    {ENTRY, A "head_count_kv", 1, 5, 0, FACET_ERR_FORMAT, "head_count_kv of layer 1 is 5, wanted 1 to 4"},
    {ENTRY, A "head_count_kv", 2, 2, 0, FACET_ERR_SHAPE, "tensor blk.2.attn_k.weight is [256, 512, 1]"},
    {U32, A "key_length", 0, 16, 0, FACET_ERR_FORMAT, "\"gemma4.attention.key_length\": 16 is outside"},
    {U32, A "key_length", 0, 256, 0, FACET_ERR_UNSUPPORTED, "value_length is 512: they must be equal"},
    {U32, A "key_length_swa", 0, 1e6, 0, FACET_ERR_FORMAT, "key_length_swa\": 1000000 is outside"},
    {U32, A "sliding_window", 0, 0, 0, FACET_ERR_FORMAT, "sliding_window\": 0 is outside"},
    {U32, A "shared_kv_layers", 0, 6, 0, FACET_ERR_FORMAT, "shared_kv_layers\": 6 is outside 0..5"},
    {U32, A "shared_kv_layers", 0, 5, 0, FACET_ERR_FORMAT, "layer 2 has no earlier layer of its kind"},
    {F32, A "layer_norm_rms_epsilon", 0, 0, 0, FACET_ERR_FORMAT, "layer_norm_rms_epsilon is 0, wanted above 0"},
    {F32, A "layer_norm_rms_epsilon", 0, -1, 0, FACET_ERR_FORMAT, "layer_norm_rms_epsilon is -1"},
    {F32, A "layer_norm_rms_epsilon", 0, NAN, 0, FACET_ERR_FORMAT, "layer_norm_rms_epsilon\": nan"},
    {F32, G "final_logit_softcapping", 0, -30, 0, FACET_ERR_FORMAT, "final_logit_softcapping is -30"},
    {F32, G "final_logit_softcapping", 0, INFINITY, 0, FACET_ERR_FORMAT, "final_logit_softcapping\": inf"},
    {F32, G "rope.freq_base", 0, 0.5, 0, FACET_ERR_FORMAT, "gemma4.rope.freq_base is 0.5 and 10000"},
    {F32, G "rope.freq_base_swa", 0, -1, 0, FACET_ERR_FORMAT, "gemma4.rope.freq_base is 1e+06 and -1"},
    {U32, G "embedding_length_per_layer_input", 0, 64, 0, FACET_ERR_FORMAT, "missing tensor per_layer_token_embd"},
    {ADDED, G "expert_count", 0, 4, 0, FACET_ERR_FORMAT, "\"gemma4.expert_count\": type f32, an integer wanted"},
    {ADDED, "general.sampling.temp", 0, -1, 0, FACET_ERR_FORMAT, "general.sampling.temp is -1"},
    {ADDED, "general.sampling.top_p", 0, 0, 0, FACET_ERR_FORMAT, "general.sampling.top_p is 0"},
    {ADDED, "general.sampling.top_p", 0, 1.25, 0, FACET_ERR_FORMAT, "general.sampling.top_p is 1.25"},
    {RENAMED, "token_embd.weight", 0, 0, 0, FACET_ERR_FORMAT, "missing tensor token_embd.weight"},
    {RENAMED, "output_norm.weight", 0, 0, 0, FACET_ERR_FORMAT, "missing tensor output_norm.weight"},
    {RENAMED, "blk.3.ffn_down.weight", 0, 0, 0, FACET_ERR_FORMAT, "missing tensor blk.3.ffn_down.weight"},
    {RENAMED, "blk.0.attn_v.weight", 0, 0, 0, FACET_ERR_FORMAT, "missing tensor blk.0.attn_v.weight"},
    {RENAMED, "blk.5.post_ffw_norm.weight", 0, 0, 0, FACET_ERR_FORMAT, "missing tensor blk.5.post_ffw_norm.weight"},
    {DIM, "output_norm.weight", 0, 128, 0, FACET_ERR_SHAPE, "output_norm.weight is [128, 1, 1], wanted [256, 1, 1]"},
    {DIM, "blk.1.attn_q.weight", 1, 512, 0, FACET_ERR_SHAPE, "blk.1.attn_q.weight is [256, 512, 1]"},
    {TYPE, "output_norm.weight", 0, TYPE_I32, 0, FACET_ERR_UNSUPPORTED, "output_norm.weight is I32, wanted F32"},
    {DATA, "blk.4.layer_output_scale.weight", 0, NAN, 0, FACET_ERR_FORMAT, "blk.4.layer_output_scale.weight is not"},
    {DATA, "blk.0.layer_output_scale.weight", 0, INFINITY, 0, FACET_ERR_FORMAT, "layer_output_scale.weight is not"},
    {RENAMED, "tokenizer.ggml.tokens", 0, 0, 0, FACET_ERR_FORMAT, "missing key tokenizer.ggml.tokens"},
    {TEXT, "tokenizer.ggml.model", 0, 0, "gemma9", FACET_ERR_UNSUPPORTED, "\"gemma9\" (pre \"\") is not a Gemma 4"},
    {U32, "tokenizer.ggml.bos_token_id", 0, 2048, 0, FACET_ERR_FORMAT,
     "tokenizer.ggml.bos_token_id is no id below 2048"},
    {ENTRY, "tokenizer.ggml.token_type", 9, 77, 0, FACET_ERR_FORMAT, "token_type: entry 9 is no token type"},
};

/* What opening a model does, on bytes in memory. */
static facet_status open_bytes(const char *bytes, size_t n, facet_error *err)
{
    gguf_file *f = NULL;
    hparams h = {0};
    weights w = {0};
    tokenizer *t = NULL;
    facet_status status = gguf_open_memory(bytes, n, "bad.gguf", &f, err);
    if (status == FACET_OK) status = hparams_read(f, &h, err);
    if (status == FACET_OK) status = weights_bind(f, &h, &w, err);
    if (status == FACET_OK) status = tokenizer_open(f, &t, err);
    tokenizer_close(t);
    weights_free(&w);
    hparams_free(&h);
    gguf_close(f);
    return status;
}

static void every_row_of_the_table(void **state)
{
    (void)state;
    facet_error err = {0};
    assert_ok(open_bytes(good, n_good, &err), err);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        size_t n;
        const int64_t live = mem_n_live();
        char *file = changed(&table[i], &n);
        err = (facet_error){0};
        const facet_status status = open_bytes(file, n, &err);
        if (status != table[i].status || !strstr(err.message, table[i].message) ||
            strncmp(err.message, "bad.gguf: ", 10) != 0 || strstr(err.message + 10, "bad.gguf"))
            fail_msg("row %zu, %s: status %d, \"%s\" lacks \"%s\"", i, table[i].name, (int)status, err.message,
                     table[i].message);
        assert_int_equal(mem_n_live(), live);
        free(file);
    }
}

/* Numbers that only running can meet: the answer is an error, not garbage. */
static void damaged_weights_are_found_by_running(void **state)
{
    (void)state;
    static const bad_model damaged[] = {{DATA, "blk.2.attn_norm.weight", 3, NAN, 0, 0, 0},
                                        {DATA, "output_norm.weight", 7, INFINITY, 0, 0, 0}};
    char path[] = "/tmp/facet_damaged_XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        size_t n;
        char *file = changed(&damaged[i], &n);
        assert_int_equal(pwrite(fd, file, n, 0), n);
        free(file);
        for (int temperature = 0; temperature < 2; temperature++) {
            facet_model *m;
            facet_engine *e;
            facet_session *s;
            facet_error err = {0};
            facet_engine_params p = facet_engine_params_default();
            p.device = "cpu";
            p.n_ctx = 64;
            assert_ok(facet_model_open(path, &m, &err), err);
            assert_ok(facet_engine_open(m, &p, &e, &err), err);
            assert_ok(facet_session_open(e, &s, &err), err);
            static const int32_t prompt[] = {2, 300, 301};
            facet_sampling sampling = facet_sampling_default();
            sampling.temperature = (float)temperature;
            const facet_generate_params g = facet_generate_params_default();
            facet_generate_result r = {.n_tokens = -1};
            assert_int_equal(facet_generate(s, prompt, 3, &sampling, &g, &r, &err), FACET_ERR_NUMERIC);
            assert_non_null(strstr(err.message, "the model file may be damaged"));
            assert_int_equal(r.n_tokens, -1);
            facet_session_close(s);
            facet_engine_close(e);
            facet_model_close(m);
        }
    }
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_of_the_table),
        cmocka_unit_test(damaged_weights_are_found_by_running),
    };
    return cmocka_run_group_tests_name("bad models", tests, read_good, free_good);
}
