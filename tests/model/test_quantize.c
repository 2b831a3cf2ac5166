/* Type mixes of real files: against files that the reference made, and what is refused. */
#include "testing.h"

#include <math.h>

#include "base/mem.h"
#include "model/quantize.h"

static char folder[] = "/tmp/facet_quantize_XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* Every tensor of both files: same shape and type; returns how many have other bytes. per_layer_model_proj is BF16 here
 * where files made from F16 keep F16 (typemix.h). */
static int count_different(const gguf_file *a, const gguf_file *b)
{
    int n = 0;
    assert_int_equal(a->n_tensors, b->n_tensors);
    for (uint64_t i = 0; i < a->n_tensors; i++) {
        const gguf_tensor *x = &a->tensors[i], *y = gguf_find_tensor(b, x->name);
        assert_non_null(y);
        assert_memory_equal(x->ne, y->ne, sizeof x->ne);
        if (strcmp(x->name, "per_layer_model_proj.weight") == 0) continue;
        if (x->type != y->type) fail_msg("%s: %s, wanted %s", x->name, type_name(y->type), type_name(x->type));
        n += memcmp(x->data, y->data, (size_t)x->bytes) != 0;
    }
    return n;
}

static void check_keys(const gguf_file *a, const gguf_file *b)
{
    for (uint64_t i = 0; i < a->n_kv; i++) {
        char key[256];
        snprintf(key, sizeof key, "%.*s", (int)a->kv[i].key.n, a->kv[i].key.s);
        const gguf_kv *kv = gguf_find(b, key);
        if (!kv || kv->type != a->kv[i].type || kv->count != a->kv[i].count) fail_msg("%s differs", key);
    }
    assert_int_equal(a->n_kv, b->n_kv);
}

static void equals_reference_files(void **state)
{
    (void)state;
    static const struct {
        const char *in, *want;
        typemix mix;
        int n_different; /* at most: tensors in which our K-quant encoder rounds some value otherwise */
    } list[] = {
        {"models/tiny-31b-F16.gguf", "models/tiny-31b-Q8_0.gguf", TYPEMIX_Q8_0, 0},
        {"models/tiny-31b-F16.gguf", "models/tiny-31b-Q4_0.gguf", TYPEMIX_Q4_0, 1},
        {"models/tiny-31b-F16.gguf", "models/tiny-31b-Q4_K_M.gguf", TYPEMIX_Q4_K_M, 6},
        {"models/tiny-26b-a4b-F16.gguf", "models/tiny-26b-a4b-Q4_K_M.gguf", TYPEMIX_Q4_K_M, 4},
        {"models/tiny-e2b-F16.gguf", "models/tiny-e2b-Q4_K_M.gguf", TYPEMIX_Q4_K_M, 5},
        {"models/tiny-31b-mtp-F16.gguf", "models/tiny-31b-mtp-Q8_0.gguf", TYPEMIX_Q8_0, 0},
        {"models/tiny-31b-dflash-F16.gguf", "models/tiny-31b-dflash-Q8_0.gguf", TYPEMIX_Q8_0, 0},
    };
    TEST_NEEDS_SHARED(list[0].in);
    const char *out = test_path(folder, "out.gguf");
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        facet_error err = {0};
        quantize_params p = {.mix = list[i].mix, .n_threads = 2};
        assert_ok(quantize_file(test_shared(list[i].in), out, &p, &err), err);
        gguf_file *a = NULL, *b = NULL;
        assert_ok(gguf_open(test_shared(list[i].want), &a, &err), err);
        assert_ok(gguf_open(out, &b, &err), err);
        check_keys(a, b);
        int n = count_different(a, b);
        print_message("%s: %d tensors differ in some byte\n", list[i].want, n);
        assert_true(n <= list[i].n_different);
        gguf_close(a);
        gguf_close(b);
        out = test_path(folder, "out.gguf"); /* the ring of test_path holds eight */
    }
    unlink(out);
}

/* A small file made here: one matrix of each kind of interest. */
static const char *small_file(const char *name, float value)
{
    const char *path = test_path(folder, name);
    facet_error err = {0};
    gguf_writer *w = NULL;
    float m[2 * 256];
    int32_t ids[4] = {3, 1, 2, 0};
    for (int i = 0; i < 512; i++) m[i] = (float)(i % 37 - 18) / 16;
    m[300] = value;
    assert_ok(gguf_writer_new(&w, &err), err);
    assert_ok(gguf_put_str(w, "general.architecture", "gemma4", 6, &err), err);
    assert_ok(gguf_put_u32(w, "split.count", 1, &err), err);
    assert_ok(gguf_put_u32(w, "note.one", 1, &err), err);
    assert_ok(gguf_put_str(w, "tokenizer.chat_template", "old", 3, &err), err);
    assert_ok(gguf_add_tensor(w, "blk.0.attn_q.weight", TYPE_F32, 2, (uint64_t[4]){256, 2, 1, 1}, &err), err);
    assert_ok(gguf_add_tensor(w, "blk.0.ffn_down.weight", TYPE_F32, 2, (uint64_t[4]){32, 4, 1, 1}, &err), err);
    assert_ok(gguf_add_tensor(w, "ordering", TYPE_I32, 1, (uint64_t[4]){4, 1, 1, 1}, &err), err);
    assert_ok(gguf_begin_data(w, path, &err), err);
    assert_ok(gguf_write_data(w, m, sizeof m, &err), err);
    assert_ok(gguf_write_data(w, m, 128 * sizeof *m, &err), err);
    assert_ok(gguf_write_data(w, ids, sizeof ids, &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
    return path;
}

static uint32_t type_in(const gguf_file *f, const char *name)
{
    const gguf_tensor *t = gguf_find_tensor(f, name);
    assert_non_null(t);
    return t->type;
}

static void options_are_obeyed(void **state)
{
    (void)state;
    facet_error err = {0};
    const char *in = small_file("in.gguf", 0), *out = test_path(folder, "out.gguf");
    static const char *const keep[] = {"blk.*.attn_?.weight=q6_k"}, *const drop[] = {"note.one"};
    quantize_params p = {.mix = TYPEMIX_Q4_K_M,
                         .keep = keep,
                         .n_keep = 1,
                         .drop = drop,
                         .n_drop = 1,
                         .chat_template = "new one",
                         .n_chat_template = 7,
                         .n_threads = 1};
    assert_ok(quantize_file(in, out, &p, &err), err);
    gguf_file *f = NULL;
    assert_ok(gguf_open(out, &f, &err), err);
    assert_int_equal(type_in(f, "blk.0.attn_q.weight"), TYPE_Q6_K);
    assert_int_equal(type_in(f, "blk.0.ffn_down.weight"), TYPE_Q8_0); /* Q6_K does not fit rows of 32 */
    assert_int_equal(type_in(f, "ordering"), TYPE_I32);
    assert_int_equal(((const int32_t *)(const void *)gguf_find_tensor(f, "ordering")->data)[0], 3);
    assert_null(gguf_find(f, "note.one"));
    assert_null(gguf_find(f, "split.count"));
    gguf_str s = {0};
    assert_ok(gguf_get_str(f, "tokenizer.chat_template", true, &s, &err), err);
    assert_memory_equal(s.s, "new one", 7);
    uint64_t type = 0;
    assert_ok(gguf_get_u64(f, "general.file_type", true, 0, 99, &type, &err), err);
    assert_int_equal(type, 15);
    gguf_close(f);
    p = (quantize_params){.mix = TYPEMIX_F16, .use_own_template = true};
    assert_ok(quantize_file(in, out, &p, &err), err);
    assert_ok(gguf_open(out, &f, &err), err);
    assert_ok(gguf_get_str(f, "tokenizer.chat_template", true, &s, &err), err);
    assert_true(s.n > 1000);
    gguf_close(f);
    unlink(in);
    unlink(out);
}

static bool stop(void *ud, const char *phase, uint64_t done, uint64_t total)
{
    (void)ud, (void)phase, (void)done, (void)total;
    return false;
}

static void refuses(void **state)
{
    (void)state;
    const char *in = small_file("in.gguf", 0), *bad = small_file("bad.gguf", NAN), *out = test_path(folder, "out.gguf");
    const char *link = test_path(folder, "link.gguf");
    assert_int_equal(symlink(in, link), 0);
    static const char *const none[] = {"nothing=F16"}, *const form[] = {"ordering"},
                             *const width[] = {"blk.0.ffn_down.weight=Q4_K"};
    static const char *const integer[] = {"ordering=F16"}, *const no_encoder[] = {"blk.0.attn_q.weight=I8"};
    const struct {
        const char *in, *out;
        quantize_params p;
        facet_status status;
        const char *message;
    } list[] = {
        {in, in, {0}, FACET_ERR_ARG, "the output is the input"},
        {in, link, {0}, FACET_ERR_ARG, "the output is the input"},
        {"/nonexistent.gguf", out, {0}, FACET_ERR_IO, "/nonexistent.gguf"},
        {in, "/nonexistent/out.gguf", {0}, FACET_ERR_IO, "/nonexistent/out.gguf"},
        {in, out, {.keep = none, .n_keep = 1}, FACET_ERR_ARG, "no tensor has this name"},
        {in, out, {.keep = form, .n_keep = 1}, FACET_ERR_ARG, "want NAME=TYPE"},
        {in, out, {.keep = width, .n_keep = 1}, FACET_ERR_ARG, "rows of 32 values"},
        {in, out, {.keep = integer, .n_keep = 1}, FACET_ERR_UNSUPPORTED, "I32 cannot be converted"},
        {in, out, {.keep = no_encoder, .n_keep = 1}, FACET_ERR_UNSUPPORTED, "does not write I8"},
        {bad, out, {.mix = TYPEMIX_Q4_0}, FACET_ERR_NUMERIC, "blk.0.attn_q.weight: a value that is not finite"},
        {in, out, {.progress = stop}, FACET_ERR_CANCELLED, "cancelled"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        facet_error err = {0};
        facet_status status = quantize_file(list[i].in, list[i].out, &list[i].p, &err);
        if (status != list[i].status || !strstr(err.message, list[i].message))
            fail_msg("case %zu: %d, %s", i, (int)status, err.message);
        assert_int_not_equal(access(out, F_OK), 0);
    }
    unlink(link);
    unlink(in);
    unlink(bad);
}

static void survives_short_memory(void **state)
{
    (void)state;
    const char *in = small_file("in.gguf", 0), *out = test_path(folder, "out.gguf");
    quantize_params p = {.mix = TYPEMIX_Q4_K_M, .n_threads = 2};
    uint64_t n = 1;
    for (;; n++) {
        facet_error err = {0};
        mem_fail_at(n);
        facet_status status = quantize_file(in, out, &p, &err);
        mem_fail_at(0);
        if (status == FACET_OK) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
        assert_int_not_equal(access(out, F_OK), 0);
    }
    assert_true(n > 10);
    unlink(in);
    unlink(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_reference_files),
        cmocka_unit_test(options_are_obeyed),
        cmocka_unit_test(refuses),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
