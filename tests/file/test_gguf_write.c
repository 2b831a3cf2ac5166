#define _GNU_SOURCE
#include "testing.h"

#include <signal.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "file/gguf_write.h"
#include "file/temp_dir.h"

static const uint64_t ne_f32[4] = {5, 3, 1, 1}, ne_q8[4] = {64, 3, 1, 1}, ne_i8[4] = {1, 1, 1, 1};
static uint8_t pattern[256];

static gguf_writer *new_writer(void)
{
    gguf_writer *w = NULL;
    facet_error err = {0};
    assert_ok(gguf_writer_new(&w, &err), err);
    for (size_t i = 0; i < sizeof pattern; i++) pattern[i] = (uint8_t)(i * 7 + 1);
    return w;
}

static facet_status put_keys(gguf_writer *w, facet_error *err)
{
    static const int32_t ints[3] = {1, -2, 3};
    static const bool bools[2] = {false, true};
    static const gguf_str strings[3] = {{"a", 1}, {"", 0}, {"\xe2\x96\x81", 3}};
    FACET_TRY(gguf_put_str(w, "general.architecture", "gemma4", 6, err));
    FACET_TRY(gguf_put_u32(w, "u32", UINT32_MAX, err));
    FACET_TRY(gguf_put_i32(w, "i32", INT32_MIN, err));
    FACET_TRY(gguf_put_f32(w, "f32", 1.5f, err));
    FACET_TRY(gguf_put_bool(w, "bool", true, err));
    FACET_TRY(gguf_put_str(w, "empty", "", 0, err));
    FACET_TRY(gguf_put_array(w, "ints", GGUF_I32, ints, 3, err));
    FACET_TRY(gguf_put_array(w, "bools", GGUF_BOOL, bools, 2, err));
    FACET_TRY(gguf_put_array(w, "none", GGUF_F64, NULL, 0, err));
    FACET_TRY(gguf_put_strings(w, "strings", strings, 3, err));
    return gguf_put_strings(w, "no strings", NULL, 0, err);
}

/* Three tensors of 60, 204 and 1 bytes. */
static facet_status put_tensors(gguf_writer *w, facet_error *err)
{
    FACET_TRY(gguf_add_tensor(w, "f", TYPE_F32, 2, ne_f32, err));
    FACET_TRY(gguf_add_tensor(w, "q", TYPE_Q8_0, 2, ne_q8, err));
    return gguf_add_tensor(w, "i", TYPE_I8, 1, ne_i8, err);
}

static facet_status put_data(gguf_writer *w, facet_error *err)
{
    FACET_TRY(gguf_write_data(w, pattern, 60, err));
    FACET_TRY(gguf_write_data(w, pattern, 100, err));
    FACET_TRY(gguf_write_data(w, pattern, 0, err));
    for (size_t i = 100; i < 204; i++) FACET_TRY(gguf_write_data(w, pattern + i, 1, err));
    return gguf_write_data(w, pattern, 1, err);
}

static facet_status write_whole(const char *path, facet_error *err)
{
    gguf_writer *w;
    FACET_TRY(gguf_writer_new(&w, err));
    facet_status status = put_keys(w, err);
    if (status == FACET_OK) status = put_tensors(w, err);
    if (status == FACET_OK) status = gguf_begin_data(w, path, err);
    if (status == FACET_OK) status = put_data(w, err);
    if (status == FACET_OK) status = gguf_finish(w, err);
    gguf_writer_free(w);
    return status;
}

static int empty_folder(void **state)
{
    (void)state;
    temp_dir_empty();
    return 0;
}

static void check_keys(const gguf_file *f)
{
    facet_error err = {0};
    int64_t i = 0;
    float v = 0;
    bool flag = false;
    gguf_str s, strings[3];
    assert_int_equal(f->n_kv, 11);
    assert_ok(gguf_get_str(f, "general.architecture", true, &s, &err), err);
    assert_int_equal(s.n, 6);
    assert_memory_equal(s.s, "gemma4", 6);
    assert_true(gguf_scalar_i64(gguf_find(f, "u32"), &i) && i == UINT32_MAX);
    assert_true(gguf_scalar_i64(gguf_find(f, "i32"), &i) && i == INT32_MIN);
    assert_ok(gguf_get_f32(f, "f32", true, &v, &err), err);
    assert_true(v == 1.5f);
    assert_ok(gguf_get_bool(f, "bool", true, &flag, &err), err);
    assert_true(flag);
    assert_ok(gguf_get_str(f, "empty", true, &s, &err), err);
    assert_int_equal(s.n, 0);
    assert_int_equal(gguf_find(f, "ints")->count, 3);
    assert_true(gguf_array_i64(gguf_find(f, "ints"), 1, &i) && i == -2);
    assert_true(gguf_array_i64(gguf_find(f, "bools"), 1, &i) && i == 1);
    assert_int_equal(gguf_find(f, "none")->count, 0);
    assert_int_equal(gguf_find(f, "none")->elem, GGUF_F64);
    assert_true(gguf_array_strings(gguf_find(f, "strings"), strings));
    assert_int_equal(strings[1].n, 0);
    assert_memory_equal(strings[2].s, "\xe2\x96\x81", 3);
    assert_int_equal(gguf_find(f, "no strings")->count, 0);
}

static void check_tensors(const gguf_file *f)
{
    static const char *const names[3] = {"f", "q", "i"};
    static const uint64_t bytes[3] = {60, 204, 1};
    assert_int_equal(f->n_tensors, 3);
    for (uint64_t i = 0; i < 3; i++) {
        const gguf_tensor *t = &f->tensors[i];
        assert_string_equal(t->name, names[i]);
        assert_int_equal(t->bytes, bytes[i]);
        assert_int_equal((t->data - f->shards[0].data) % 32, 0);
        assert_memory_equal(t->data, pattern, bytes[i]);
    }
    assert_int_equal(f->tensors[1].ne[0], 64);
    assert_int_equal(f->tensors[1].ne[1], 3);
    assert_int_equal(f->tensors[2].n_dims, 1);
    assert_int_equal(f->shards[0].size % 32, 0);
}

static void reads_back_what_it_wrote(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    gguf_writer_free(new_writer());
    assert_ok(write_whole(temp_file("a.gguf"), &err), err);
    assert_ok(gguf_open(temp_file("a.gguf"), &f, &err), err);
    assert_int_equal(f->version, 3);
    check_keys(f);
    check_tensors(f);
    gguf_close(f);
    assert_int_equal(temp_dir_empty(), 1);
}

static void writes_files_without_tensors_or_keys(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    gguf_writer *w = new_writer();
    assert_ok(gguf_begin_data(w, temp_file("empty.gguf"), &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
    assert_ok(gguf_open(temp_file("empty.gguf"), &f, &err), err);
    assert_int_equal(f->n_kv, 0);
    assert_int_equal(f->n_tensors, 0);
    assert_int_equal(f->shards[0].size, 24);
    gguf_close(f);
}

/* Copying all keys and tensors of a file that a conforming writer made gives the same bytes. */
static void copies_a_file_bit_for_bit(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    char *a, *b;
    size_t n, m;
    gguf_writer *w = new_writer();
    assert_ok(gguf_open(test_data("gguf/ok_v3.gguf"), &f, &err), err);
    for (uint64_t i = 0; i < f->n_kv; i++) assert_ok(gguf_put_kv(w, &f->kv[i], &err), err);
    for (uint64_t i = 0; i < f->n_tensors; i++) {
        const gguf_tensor *t = &f->tensors[i];
        assert_ok(gguf_add_tensor(w, t->name, (tensor_type)t->type, t->n_dims, t->ne, &err), err);
    }
    assert_ok(gguf_begin_data(w, temp_file("copy.gguf"), &err), err);
    for (uint64_t i = 0; i < f->n_tensors; i++)
        assert_ok(gguf_write_data(w, f->tensors[i].data, f->tensors[i].bytes, &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
    gguf_close(f);
    assert_ok(file_read_all(test_data("gguf/ok_v3.gguf"), 1 << 20, &a, &n, &err), err);
    assert_ok(file_read_all(temp_file("copy.gguf"), 1 << 20, &b, &m, &err), err);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    mem_free(a);
    mem_free(b);
}

static void replaces_and_removes_keys(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    uint64_t v = 0;
    gguf_writer *w = new_writer();
    assert_ok(gguf_put_str(w, "a", "text", 4, &err), err);
    assert_ok(gguf_put_u32(w, "b", 1, &err), err);
    assert_ok(gguf_put_u32(w, "c", 2, &err), err);
    assert_ok(gguf_put_u32(w, "a", 3, &err), err);
    assert_ok(gguf_remove(w, "b"), err);
    assert_ok(gguf_remove(w, "absent"), err);
    assert_ok(gguf_remove(w, "c"), err);
    assert_ok(gguf_put_u32(w, "c", 4, &err), err);
    assert_ok(gguf_begin_data(w, temp_file("k.gguf"), &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
    assert_ok(gguf_open(temp_file("k.gguf"), &f, &err), err);
    assert_int_equal(f->n_kv, 2);
    assert_null(gguf_find(f, "b"));
    assert_ok(gguf_get_u64(f, "a", true, 3, 3, &v, &err), err);
    assert_ok(gguf_get_u64(f, "c", true, 4, 4, &v, &err), err);
    gguf_close(f);
}

static void keeps_many_keys_apart(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    gguf_writer *w = new_writer();
    for (uint32_t i = 0; i < 5000; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i % 2500);
        assert_ok(gguf_put_u32(w, key, i, &err), err);
    }
    assert_ok(gguf_begin_data(w, temp_file("m.gguf"), &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
    assert_ok(gguf_open(temp_file("m.gguf"), &f, &err), err);
    assert_int_equal(f->n_kv, 2500);
    uint64_t v;
    assert_ok(gguf_get_u64(f, "k2499", true, 4999, 4999, &v, &err), err);
    gguf_close(f);
}

static void follows_the_alignment_key(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    gguf_writer *w = new_writer();
    assert_ok(gguf_put_u32(w, "general.alignment", 128, &err), err);
    assert_ok(put_tensors(w, &err), err);
    assert_ok(gguf_begin_data(w, temp_file("a.gguf"), &err), err);
    assert_ok(put_data(w, &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
    assert_ok(gguf_open(temp_file("a.gguf"), &f, &err), err);
    for (uint64_t i = 0; i < 3; i++) assert_int_equal((f->tensors[i].data - f->shards[0].data) % 128, 0);
    gguf_close(f);
    w = new_writer();
    assert_ok(gguf_put_u32(w, "general.alignment", 33, &err), err);
    assert_int_equal(gguf_begin_data(w, temp_file("b.gguf"), &err), FACET_ERR_ARG);
    assert_non_null(strstr(err.message, "general.alignment"));
    assert_ok(gguf_put_str(w, "general.alignment", "32", 2, &err), err);
    assert_int_equal(gguf_begin_data(w, temp_file("b.gguf"), &err), FACET_ERR_ARG);
    gguf_writer_free(w);
}

static void expect_arg(facet_status status, const facet_error *err, const char *part)
{
    assert_int_equal(status, FACET_ERR_ARG);
    if (!strstr(err->message, part)) fail_msg("message \"%s\" lacks \"%s\"", err->message, part);
}

static void refuses_what_its_reader_would_refuse(void **state)
{
    (void)state;
    facet_error err = {0};
    gguf_writer *w = new_writer();
    char name[65] = "";
    memset(name, 'x', 64);
    expect_arg(gguf_put_u32(w, "", 1, &err), &err, "key: length 0");
    expect_arg(gguf_put_u32(w, "\xff", 1, &err), &err, "not valid UTF-8");
    expect_arg(gguf_put_array(w, "k", GGUF_STRING, NULL, 0, &err), &err, "fixed-size elements wanted");
    expect_arg(gguf_put_array(w, "k", GGUF_ARRAY, NULL, 0, &err), &err, "fixed-size elements wanted");
    expect_arg(gguf_put_array(w, "k", GGUF_BOOL, "\2", 1, &err), &err, "bool byte above 1");
    expect_arg(gguf_put_array(w, "k", GGUF_U8, "", 1ull << 40, &err), &err, "array of 1099511627776 elements");
    expect_arg(gguf_put_str(w, "k", "", (size_t)1 << 40, &err), &err, "string of 1099511627776 bytes");
    expect_arg(gguf_add_tensor(w, name, TYPE_F32, 2, ne_f32, &err), &err, "tensor name: length 64");
    expect_arg(gguf_add_tensor(w, "t", TYPE_F32, 5, ne_f32, &err), &err, "5 dimensions");
    expect_arg(gguf_add_tensor(w, "t", TYPE_F32, 0, ne_f32, &err), &err, "0 dimensions");
    expect_arg(gguf_add_tensor(w, "t", TYPE_Q8_0, 2, ne_f32, &err), &err, "tensor t: row of 5 values");
    expect_arg(gguf_add_tensor(w, "t", TYPE_F32, 1, (uint64_t[4]){0, 1, 1, 1}, &err), &err, "dimension 0 is 0");
    assert_int_equal(gguf_add_tensor(w, "t", (tensor_type)16, 2, ne_q8, &err), FACET_ERR_UNSUPPORTED);
    assert_ok(gguf_add_tensor(w, "t", TYPE_F32, 2, ne_f32, &err), err);
    expect_arg(gguf_add_tensor(w, "t", TYPE_F32, 2, ne_f32, &err), &err, "duplicate tensor name t");
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "huge %d", i);
        assert_ok(gguf_add_tensor(w, name, TYPE_I8, 1, (uint64_t[4]){INT64_MAX, 1, 1, 1}, &err), err);
    }
    expect_arg(gguf_begin_data(w, temp_file("x.gguf"), &err), &err, "the size of the file overflows");
    gguf_writer_free(w);
    assert_int_equal(temp_dir_empty(), 0);
}

static void refuses_calls_out_of_order(void **state)
{
    (void)state;
    facet_error err = {0};
    gguf_writer *w = new_writer();
    expect_arg(gguf_write_data(w, pattern, 1, &err), &err, "no file is being written");
    expect_arg(gguf_finish(w, &err), &err, "no file is being written");
    assert_ok(put_tensors(w, &err), err);
    assert_ok(gguf_begin_data(w, temp_file("a.gguf"), &err), err);
    expect_arg(gguf_put_u32(w, "k", 1, &err), &err, "already written");
    expect_arg(gguf_add_tensor(w, "t", TYPE_F32, 2, ne_f32, &err), &err, "already written");
    expect_arg(gguf_begin_data(w, temp_file("a.gguf"), &err), &err, "already written");
    assert_int_equal(gguf_remove(w, "k"), FACET_ERR_ARG);
    expect_arg(gguf_write_data(w, pattern, 61, &err), &err, "tensor f: 1 bytes too many (60 wanted)");
    assert_ok(gguf_write_data(w, pattern, 59, &err), err);
    expect_arg(gguf_finish(w, &err), &err, "tensor f: 59 of 60 bytes written");
    assert_ok(gguf_write_data(w, pattern, 1, &err), err);
    assert_ok(gguf_write_data(w, pattern, 204, &err), err);
    assert_ok(gguf_write_data(w, pattern, 1, &err), err);
    expect_arg(gguf_write_data(w, pattern, 1, &err), &err, "1 bytes after the last tensor");
    assert_ok(gguf_finish(w, &err), err);
    expect_arg(gguf_finish(w, &err), &err, "no file is being written");
    gguf_writer_free(w);
}

/* The same bytes in memory as in a file. */
static void writes_into_memory(void **state)
{
    (void)state;
    facet_error err = {0};
    char *want;
    void *image = NULL;
    size_t n_want, n = 0;
    gguf_writer *w = new_writer();
    assert_ok(put_tensors(w, &err), err);
    expect_arg(gguf_finish_memory(w, &image, &n, &err), &err, "no file is being written");
    assert_ok(gguf_begin_memory(w, &err), err);
    expect_arg(gguf_begin_memory(w, &err), &err, "already written");
    expect_arg(gguf_finish(w, &err), &err, "no file is being written");
    assert_ok(gguf_write_data(w, pattern, 60, &err), err);
    expect_arg(gguf_write_data(w, pattern, 206, &err), &err, "a GGUF file in memory: tensor");
    expect_arg(gguf_finish_memory(w, &image, &n, &err), &err, "0 of 204 bytes written");
    assert_ok(gguf_write_data(w, pattern, 204, &err), err);
    assert_ok(gguf_write_data(w, pattern, 1, &err), err);
    expect_arg(gguf_write_data(w, pattern, 1, &err), &err, "1 bytes after the last tensor");
    assert_ok(gguf_finish_memory(w, &image, &n, &err), err);
    gguf_writer_free(w);
    w = new_writer();
    assert_ok(put_tensors(w, &err), err);
    assert_ok(gguf_begin_data(w, temp_file("a.gguf"), &err), err);
    assert_ok(gguf_write_data(w, pattern, 60, &err), err);
    assert_ok(gguf_write_data(w, pattern, 204, &err), err);
    assert_ok(gguf_write_data(w, pattern, 1, &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
    assert_ok(file_read_all(temp_file("a.gguf"), 1 << 20, &want, &n_want, &err), err);
    assert_int_equal(n, n_want);
    assert_memory_equal(image, want, n);
    mem_free(want);
    mem_unmap(image, n);
}

/* A hole reads as the zeros that would have been written, in a file and in memory, padding and all. */
static void holes_are_zeros(void **state)
{
    (void)state;
    static const uint8_t zeros[60];
    facet_error err = {0};
    char *bytes[2];
    size_t n[2], n_image = 0;
    void *image = NULL;
    for (int with_holes = 0; with_holes < 2; with_holes++) {
        gguf_writer *w = new_writer();
        assert_ok(put_tensors(w, &err), err);
        expect_arg(gguf_write_hole(w, &err), &err, "no file is being written");
        assert_ok(gguf_begin_data(w, temp_file("a.gguf"), &err), err);
        assert_ok(with_holes ? gguf_write_hole(w, &err) : gguf_write_data(w, zeros, 60, &err), err);
        assert_ok(gguf_write_data(w, pattern, 100, &err), err);
        expect_arg(gguf_write_hole(w, &err), &err, "a hole in the middle of a tensor");
        assert_ok(gguf_write_data(w, pattern + 100, 104, &err), err);
        assert_ok(with_holes ? gguf_write_hole(w, &err) : gguf_write_data(w, zeros, 1, &err), err);
        expect_arg(gguf_write_hole(w, &err), &err, "after the last one");
        assert_ok(gguf_finish(w, &err), err);
        gguf_writer_free(w);
        assert_ok(file_read_all(temp_file("a.gguf"), 1 << 20, &bytes[with_holes], &n[with_holes], &err), err);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    gguf_writer *w = new_writer();
    assert_ok(put_tensors(w, &err), err);
    assert_ok(gguf_begin_memory(w, &err), err);
    assert_ok(gguf_write_hole(w, &err), err);
    assert_ok(gguf_write_data(w, pattern, 204, &err), err);
    assert_ok(gguf_write_hole(w, &err), err);
    assert_ok(gguf_finish_memory(w, &image, &n_image, &err), err);
    gguf_writer_free(w);
    assert_int_equal(n_image, n[0]);
    assert_memory_equal(image, bytes[0], n_image);
    mem_unmap(image, n_image);
    for (int i = 0; i < 2; i++) mem_free(bytes[i]);
}

static void leaves_nothing_of_an_interrupted_file(void **state)
{
    (void)state;
    facet_error err = {0};
    char *old;
    size_t n;
    write_file(temp_file("a.gguf"), "old", 3);
    gguf_writer *w = new_writer();
    assert_ok(put_tensors(w, &err), err);
    assert_ok(gguf_begin_data(w, temp_file("a.gguf"), &err), err);
    assert_ok(gguf_write_data(w, pattern, 60, &err), err);
    gguf_writer_free(w);
    assert_ok(file_read_all(temp_file("a.gguf"), 100, &old, &n, &err), err);
    assert_string_equal(old, "old");
    mem_free(old);
    assert_int_equal(temp_dir_empty(), 1);
}

static void reports_a_full_disk(void **state)
{
    (void)state;
    facet_error err = {0};
    static uint8_t zeros[1 << 20];
    struct rlimit old, small;
    write_file(temp_file("a.gguf"), "old", 3);
    gguf_writer *w = new_writer();
    assert_ok(gguf_add_tensor(w, "big", TYPE_I8, 1, (uint64_t[4]){4 << 20, 1, 1, 1}, &err), err);
    assert_ok(gguf_begin_data(w, temp_file("a.gguf"), &err), err);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 1 << 20;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    facet_status status = FACET_OK;
    for (int i = 0; i < 4 && status == FACET_OK; i++) status = gguf_write_data(w, zeros, sizeof zeros, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(status, FACET_ERR_IO);
    assert_non_null(strstr(err.message, "a.gguf: cannot write"));
    gguf_writer_free(w);
    assert_int_equal(temp_dir_empty(), 1);
}

static void reports_a_missing_folder(void **state)
{
    (void)state;
    facet_error err = {0};
    gguf_writer *w = new_writer();
    assert_int_equal(gguf_begin_data(w, temp_file("none/a.gguf"), &err), FACET_ERR_IO);
    assert_non_null(strstr(err.message, "none/a.gguf"));
    assert_ok(gguf_begin_data(w, temp_file("a.gguf"), &err), err);
    assert_ok(gguf_finish(w, &err), err);
    gguf_writer_free(w);
}

static void fails_cleanly_when_memory_is_short(void **state)
{
    (void)state;
    facet_status status = FACET_ERR_MEMORY;
    uint64_t n = 0;
    while (status != FACET_OK) {
        facet_error err = {0};
        mem_fail_at(++n);
        status = write_whole(temp_file("a.gguf"), &err);
        mem_fail_at(0);
        if (status == FACET_OK) break;
        assert_int_equal(status, FACET_ERR_MEMORY);
        assert_int_equal(temp_dir_empty(), 0);
    }
    assert_in_range(n, 30, 1000);
    assert_int_equal(temp_dir_empty(), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(reads_back_what_it_wrote, empty_folder),
        cmocka_unit_test_setup(writes_files_without_tensors_or_keys, empty_folder),
        cmocka_unit_test_setup(copies_a_file_bit_for_bit, empty_folder),
        cmocka_unit_test_setup(replaces_and_removes_keys, empty_folder),
        cmocka_unit_test_setup(keeps_many_keys_apart, empty_folder),
        cmocka_unit_test_setup(follows_the_alignment_key, empty_folder),
        cmocka_unit_test_setup(refuses_what_its_reader_would_refuse, empty_folder),
        cmocka_unit_test_setup(refuses_calls_out_of_order, empty_folder),
        cmocka_unit_test_setup(writes_into_memory, empty_folder),
        cmocka_unit_test_setup(holes_are_zeros, empty_folder),
        cmocka_unit_test_setup(leaves_nothing_of_an_interrupted_file, empty_folder),
        cmocka_unit_test_setup(reports_a_full_disk, empty_folder),
        cmocka_unit_test_setup(reports_a_missing_folder, empty_folder),
        cmocka_unit_test_setup(fails_cleanly_when_memory_is_short, empty_folder),
    };
    return cmocka_run_group_tests_name("gguf_write", tests, temp_dir_make, temp_dir_remove);
}
