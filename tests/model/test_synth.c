/* Files with random weights: the public counts of tensors, and that the loader takes what is written. */
#include "testing.h"

#include <math.h>
#include <sys/stat.h>

#include "base/mem.h"
#include "model/synth.h"
#include "model/weights.h"
#include "text/tokenizer.h"

static char folder[] = "/tmp/facet_synth_XXXXXX";

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

static void has_public_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *arch;
        uint64_t n;
        double billions; /* of weights, as published */
    } list[] = {
        {"31b", 833, 30.7},     {"26b-a4b", 658, 25.23}, {"12b", 667, 11.91},      {"e4b", 720, 7.5},
        {"e2b", 601, 4.65},     {"31b-mtp", 49, 0.47},   {"31b-dflash", 58, 1.55}, {"26b-a4b-dflash", 58, 0.43},
        {"e2b-mtp", 49, 0.078}, {"e4b-mtp", 49, 0.078},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        facet_error err = {0};
        uint64_t n = 0, bytes = 0;
        synth_params p = {.arch = list[i].arch, .mix = TYPEMIX_BF16};
        assert_ok(synth_size(&p, &n, &bytes, &err), err);
        double billions = (double)bytes / 2e9; /* the few F32 vectors do not matter */
        print_message("%s: %llu tensors, %.3f B weights\n", list[i].arch, (unsigned long long)n, billions);
        assert_int_equal(n, list[i].n);
        assert_true(fabs(billions / list[i].billions - 1) < 0.02);
    }
}

static const char *written(const char *arch, int n_layers, uint64_t seed, const char *name)
{
    const char *path = test_path(folder, name);
    facet_error err = {0};
    synth_params p = {
        .arch = arch, .mix = TYPEMIX_Q4_K_M, .n_layers = n_layers, .n_vocab = SYNTH_MIN_VOCAB, .seed = seed};
    assert_ok(synth_write(&p, path, &err), err);
    return path;
}

static uint64_t hash_file(const char *path)
{
    char *data = NULL;
    size_t n = 0;
    facet_error err = {0};
    assert_ok(file_read_all(path, (size_t)1 << 30, &data, &n, &err), err);
    uint64_t h = n;
    for (size_t i = 0; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, data + i, 8);
        h = (h ^ w) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    mem_free(data);
    return h;
}

static void check_finite(const gguf_file *f)
{
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const gguf_tensor *t = &f->tensors[i];
        const type_info *type = type_get(t->type);
        float *row = malloc((size_t)t->ne[0] * sizeof *row);
        type->decode(t->data, row, (size_t)t->ne[0]);
        double sum = 0;
        bool is_rope = strcmp(t->name, "rope_freqs.weight") == 0;
        for (uint64_t k = 0; k < t->ne[0]; k++) {
            if (!isfinite(row[k])) fail_msg("%s: value %llu", t->name, (unsigned long long)k);
            if (!is_rope) sum += fabs((double)row[k]);
        }
        if (!is_rope && (sum == 0 || sum / (double)t->ne[0] > 2)) fail_msg("%s: mean size %g", t->name, sum);
        free(row);
    }
}

static void check_text(const gguf_file *f)
{
    facet_error err = {0};
    tokenizer *t = NULL;
    assert_ok(tokenizer_open(f, &t, &err), err);
    assert_int_equal(tokenizer_n_vocab(t), SYNTH_MIN_VOCAB);
    assert_int_equal(tokenizer_special(t)->turn_open, 105);
    assert_int_equal(tokenizer_special(t)->call_close, 49);
    static const char text[] = "<|turn>user\nthe sum,  \xc3\xa9 = 12?\n\n\t\t<turn|>";
    int32_t *ids = NULL;
    size_t n = 0, cap = 0;
    assert_ok(tokenizer_encode(t, text, strlen(text), true, SPECIAL_ALL, &ids, &n, &cap, &err), err);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], 105);
    assert_int_equal(ids[n - 1], 106);
    buf out = {0};
    detokenizer d = {.show_special = true};
    for (size_t i = 1; i < n; i++) detokenizer_push(&d, t, ids[i], &out);
    detokenizer_finish(&d, &out);
    assert_string_equal(out.data, text);
    buf_free(&out);
    mem_free(ids);
    tokenizer_close(t);
}

static void target_loads(void **state)
{
    (void)state;
    facet_error err = {0};
    const char *path = written("e2b", 3, 1, "target.gguf");
    gguf_file *f = NULL;
    hparams h = {0};
    weights w = {0};
    assert_ok(gguf_open(path, &f, &err), err);
    assert_int_equal(f->n_tensors, 3 * 17 + 6);
    assert_ok(hparams_read(f, &h, &err), err);
    assert_int_equal(h.n_embd, 1536);
    assert_int_equal(h.n_embd_per_layer, 256);
    assert_int_equal(h.sampling_top_k, 64);
    assert_true(h.layers[1].is_local && !h.layers[2].is_local);
    assert_ok(weights_bind(f, &h, &w, &err), err);
    check_finite(f);
    check_text(f);
    for (int l = 0; l < 3; l++) assert_true(w.layers[l].out_scale >= 0.3f && w.layers[l].out_scale < 1.0f);
    weights_free(&w);
    hparams_free(&h);
    gguf_close(f);
    unlink(path);
}

/* Every key and tensor of the file with weights, nothing on the disk. */
static void hollow_files(void **state)
{
    (void)state;
    facet_error err = {0};
    char path[2][80];
    gguf_file *f[2] = {NULL};
    struct stat st;
    for (int i = 0; i < 2; i++) {
        const synth_params p = {
            .arch = "e2b", .mix = TYPEMIX_Q4_K_M, .n_layers = 3, .n_vocab = SYNTH_MIN_VOCAB, .is_hollow = i};
        snprintf(path[i], sizeof path[i], "%s/hollow%d.gguf", folder, i);
        assert_ok(synth_write(&p, path[i], &err), err);
        assert_ok(gguf_open(path[i], &f[i], &err), err);
    }
    assert_int_equal(stat(path[1], &st), 0);
    assert_true(st.st_blocks * 512 < st.st_size / 10); /* /tmp can have holes */
    assert_int_equal(f[0]->n_tensors, f[1]->n_tensors);
    for (size_t t = 0; t < f[0]->n_tensors; t++) {
        const gguf_tensor *a = &f[0]->tensors[t], *b = &f[1]->tensors[t];
        assert_string_equal(a->name, b->name);
        assert_int_equal(a->type, b->type);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->ne, b->ne, sizeof a->ne);
        for (size_t i = 0; i < b->bytes; i += 997) assert_int_equal(b->data[i], 0);
    }
    for (int i = 0; i < 2; i++) {
        gguf_close(f[i]);
        unlink(path[i]);
    }
}

static void expect_matrix(const gguf_file *f, const char *name, uint64_t n_in, uint64_t n_out)
{
    const gguf_tensor *t = gguf_find_tensor(f, name);
    assert_non_null(t);
    if (t->ne[0] != n_in || t->ne[1] != n_out)
        fail_msg("%s is [%d, %d], wanted [%d, %d]", name, (int)t->ne[0], (int)t->ne[1], (int)n_in, (int)n_out);
}

/* Four query heads, of the donor's width; three local layers and a global one. */
static void check_mtp_e2b(const gguf_file *f)
{
    static const char *const names[] = {"block_count",
                                        "embedding_length",
                                        "embedding_length_out",
                                        "attention.head_count",
                                        "attention.shared_kv_layers",
                                        "feed_forward_length",
                                        "attention.sliding_window"};
    static const uint64_t want[] = {4, 256, 1536, 4, 4, 2048, 512};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        char key[80];
        uint64_t v = 0;
        facet_error err;
        snprintf(key, sizeof key, "gemma4-assistant.%s", names[i]);
        assert_ok(gguf_get_u64(f, key, true, 0, 1 << 20, &v, &err), err);
        if (v != want[i]) fail_msg("%s is %d, wanted %d", key, (int)v, (int)want[i]);
    }
    expect_matrix(f, "nextn.pre_projection.weight", 2 * 1536, 256);
    expect_matrix(f, "nextn.post_projection.weight", 256, 1536);
    expect_matrix(f, "blk.0.attn_q.weight", 256, 4 * 256);
    expect_matrix(f, "blk.3.attn_q.weight", 256, 4 * 512);
    expect_matrix(f, "blk.3.attn_output.weight", 4 * 512, 256);
    expect_matrix(f, "blk.1.ffn_down.weight", 2048, 256);
    assert_null(gguf_find_tensor(f, "blk.0.attn_k.weight")); /* K and V are the target's */
}

static void drafters_load(void **state)
{
    (void)state;
    static const char *const archs[] = {"e2b-mtp", "e2b-dflash"};
    for (int i = 0; i < 2; i++) {
        facet_error err = {0};
        const char *path = written(archs[i], 10, 1, "drafter.gguf");
        gguf_file *f = NULL;
        assert_ok(gguf_open(path, &f, &err), err);
        check_finite(f);
        check_text(f);
        if (i == 0) {
            check_mtp_e2b(f);
        } else {
            const gguf_kv *taps = gguf_find(f, "dflash.target_layers");
            static const int64_t want[] = {2, 3, 4, 6, 7, 8}; /* 1 + round(1 + 6 k / 5) */
            assert_int_equal(taps->count, 6);
            for (uint64_t k = 0; k < 6; k++) {
                int64_t id = 0;
                assert_true(gguf_array_i64(taps, k, &id));
                assert_int_equal(id, want[k]);
            }
        }
        gguf_close(f);
        unlink(path);
    }
}

static void seed_decides(void **state)
{
    (void)state;
    uint64_t hash[3];
    static const uint64_t seeds[] = {5, 5, 6};
    for (int i = 0; i < 3; i++) {
        const char *path = written("e2b-mtp", 0, seeds[i], "seed.gguf");
        hash[i] = hash_file(path);
        unlink(path);
    }
    assert_true(hash[0] == hash[1]);
    assert_true(hash[0] != hash[2]);
}

static void refuses(void **state)
{
    (void)state;
    static const struct {
        synth_params p;
        const char *message;
    } list[] = {
        {{.arch = "70b"}, "unknown size '70b'"},
        {{.arch = "e2b-mtpx"}, "unknown size"},
        {{.arch = "e2b", .n_layers = 1}, "1 layers, want 2"},
        {{.arch = "e2b", .n_layers = 65}, "65 layers"},
        {{.arch = "e2b", .n_vocab = 100}, "a vocabulary of 100"},
        {{.arch = "e2b", .n_vocab = 300000}, "a vocabulary of 300000"},
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        facet_error err = {0};
        assert_int_equal(synth_write(&list[i].p, test_path(folder, "none.gguf"), &err), FACET_ERR_ARG);
        if (!strstr(err.message, list[i].message)) fail_msg("%s", err.message);
    }
}

static void survives_short_memory(void **state)
{
    (void)state;
    const char *path = test_path(folder, "short.gguf");
    synth_params p = {.arch = "e2b-mtp", .mix = TYPEMIX_Q8_0, .n_vocab = SYNTH_MIN_VOCAB};
    for (uint64_t n = 1; n < 400; n += 13) {
        facet_error err = {0};
        mem_fail_at(n);
        facet_status status = synth_write(&p, path, &err);
        mem_fail_at(0);
        if (status == FACET_OK) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_public_sizes),      cmocka_unit_test(target_loads), cmocka_unit_test(hollow_files),
        cmocka_unit_test(drafters_load),         cmocka_unit_test(seed_decides), cmocka_unit_test(refuses),
        cmocka_unit_test(survives_short_memory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
