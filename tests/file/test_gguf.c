#include "testing.h"

#include "base/mem.h"
#include "file/gguf_bytes.h"

/* Every file of tests/data/gguf: what its refusal must say, or NULL where it is to be accepted. */
static const struct vector {
    const char *name, *message;
} vectors[] = {
    {"ok_v3", NULL},
    {"ok_v2", NULL},
    {"ok_notensors", NULL},
    {"ok_nopad_tail", NULL},
    {"split-00001-of-00003", NULL},
    {"split-00002-of-00003", NULL},
    {"split-00003-of-00003", NULL},
    {"bad_trunc_00000", "0 bytes is too small"},
    {"bad_trunc_00003", "3 bytes is too small"},
    {"bad_trunc_00007", "7 bytes is too small"},
    {"bad_trunc_00020", "20 bytes is too small"},
    {"bad_trunc_00023", "23 bytes is too small"},
    {"bad_trunc_00024", "key count 17"},
    {"bad_trunc_00060", "key count 17"},
    {"bad_trunc_00200", "key count 17"},
    {"bad_trunc_00576", "tensor b.weight: number of dimensions at offset 574: the file ends"},
    {"bad_trunc_01151", "tensor c.weight: its 288 bytes at offset 192 go past the end of the file (1151 bytes)"},
    {"bad_magic", "not a GGUF file"},
    {"bad_v1", "version 1"},
    {"bad_v4", "version 4"},
    {"bad_bigendian", "wrong endianness"},
    {"bad_nkv_neg", "key count -1"},
    {"bad_nkv_huge", "key count 1099511627776"},
    {"bad_nt_huge", "tensor count 1099511627776"},
    {"bad_nt_max", "tensor count 9223372036854775807"},
    {"bad_key_dup", "duplicate key \"t.u8\""},
    {"bad_key_empty", "key: length 0"},
    {"bad_key_len", "key length 9223372036854775808"},
    {"bad_str_len", "string length 18446744073709551615"},
    {"bad_type_13", "value type 13"},
    {"bad_arr_arr", "array of arrays"},
    {"bad_arr_n", "array count 4611686018427387904"},
    {"bad_arr_str_n", "array count 2305843009213693952"},
    {"bad_bool_2", "bool value 2"},
    {"bad_key_nul", "key: NUL byte"},
    {"bad_align_0", "general.alignment: 0,"},
    {"bad_align_3", "general.alignment: 3,"},
    {"bad_align_2147483648", "general.alignment: 2147483648,"},
    {"bad_align_type", "general.alignment: type u64, u32 wanted"},
    {"bad_name_long", "tensor name: length 64"},
    {"bad_name_dup", "duplicate tensor name a"},
    {"bad_name_nul", "tensor name: NUL byte"},
    {"bad_ndims_5", "tensor a: 5 dimensions"},
    {"bad_ndims_max", "tensor a: 4294967295 dimensions"},
    {"bad_dim_zero", "tensor a: dimension 0 is 0"},
    {"bad_dim_neg", "tensor a: dimension 0 is -32"},
    {"bad_dim_wrap", "tensor a: element count overflows"},
    {"bad_dim_wrap2", "tensor a: its 18014398509486080 bytes at offset 0 go past the end"},
    {"bad_dim_wrap3", "tensor a: element count overflows"},
    {"bad_type_id", "tensor a: unknown tensor type 4"},
    {"bad_type_id2", "tensor a: unknown tensor type 1000"},
    {"bad_type_neg", "tensor a: unknown tensor type -1"},
    {"bad_row_block", "row of 33 values is not a multiple of the 32"},
    {"bad_row_k", "row of 128 values is not a multiple of the 256"},
    {"bad_off_unaligned", "tensor a: offset 16 is not a multiple of the alignment 32"},
    {"bad_off_far", "tensor a: offset 4611686018427387904 lies past the end of the file"},
    {"bad_off_wrap", "tensor a: offset 18446744073709551584 lies past the end of the file (4640 bytes)"},
    {"bad_overlap", "tensor b: its data overlaps that of tensor a"},
    {"bad_data_short", "tensor a: its 16384 bytes at offset 0 go past the end of the file (644 bytes)"},
};
enum { N_VECTORS = sizeof vectors / sizeof *vectors };

static char *read_data(const char *name, size_t *n)
{
    char path[64], *data = NULL;
    facet_error err = {0};
    snprintf(path, sizeof path, "gguf/%s.gguf", name);
    assert_ok(file_read_all(test_data(path), 1 << 20, &data, n, &err), err);
    return data;
}

static void judges_every_vector_in_memory(void **state)
{
    (void)state;
    assert_int_equal(N_VECTORS, 59);
    for (size_t i = 0; i < N_VECTORS; i++) {
        size_t n;
        char *data = read_data(vectors[i].name, &n);
        buf b = {0};
        if (n) buf_append(&b, data, n);
        mem_free(data);
        if (vectors[i].message)
            expect_refused(&b, vectors[i].message);
        else
            expect_accepted(&b);
    }
}

static void judges_every_vector_on_disk(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_VECTORS; i++) {
        char name[64];
        gguf_file *f = NULL;
        facet_error err = {0};
        if (strncmp(vectors[i].name, "split", 5) == 0) continue; /* test_gguf_split.c */
        snprintf(name, sizeof name, "gguf/%s.gguf", vectors[i].name);
        const char *path = test_data(name);
        facet_status status = gguf_open(path, &f, &err);
        assert_int_equal(status == FACET_OK, vectors[i].message == NULL);
        if (status != FACET_OK) {
            assert_int_equal(err.status, status);
            assert_int_equal(strncmp(err.message, path, strlen(path)), 0);
            assert_non_null(strstr(err.message, vectors[i].message));
        }
        gguf_close(f);
    }
}

static void gives_the_tensors_of_a_good_file(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    assert_ok(gguf_open(test_data("gguf/ok_v3.gguf"), &f, &err), err);
    assert_int_equal(f->version, 3);
    assert_int_equal(f->n_kv, 17);
    assert_int_equal(f->n_tensors, 3);
    const gguf_tensor *t = gguf_find_tensor(f, "b.weight");
    assert_ptr_equal(t, &f->tensors[1]);
    assert_int_equal(t->type, TYPE_F32);
    assert_int_equal(t->n_dims, 1);
    assert_int_equal(t->ne[0], 8);
    assert_int_equal(t->ne[1], 1);
    assert_int_equal(t->ne[3], 1);
    assert_int_equal(t->bytes, 32);
    assert_int_equal(t->data - f->tensors[0].data, 160);
    t = gguf_find_tensor(f, "c.weight");
    assert_int_equal(t->type, TYPE_Q4_K);
    assert_int_equal(t->bytes, 288);
    assert_ptr_equal(t->data + t->bytes, f->shards[0].data + f->shards[0].size);
    assert_null(gguf_find_tensor(f, "b.weigh"));
    assert_null(gguf_find_tensor(f, ""));
    assert_null(gguf_find(f, "b.weight"));
    gguf_close(f);
    gguf_close(NULL);
}

static void refuses_every_shorter_copy(void **state)
{
    (void)state;
    size_t n;
    char *data = read_data("ok_v3", &n);
    for (size_t i = 0; i < n; i++) {
        gguf_file *f;
        void *copy;
        facet_error err = {0};
        if (open_bytes(data, i, &f, &copy, &err) == FACET_OK) fail_msg("accepted when cut to %zu bytes", i);
    }
    mem_free(data);
}

static void survives_every_flipped_bit(void **state)
{
    (void)state;
    size_t n;
    char *data = read_data("ok_v3", &n);
    for (size_t i = 0; i < 8 * n; i++) {
        gguf_file *f;
        void *copy;
        facet_error err = {0};
        data[i / 8] = (char)(data[i / 8] ^ 1 << i % 8);
        if (open_bytes(data, n, &f, &copy, &err) == FACET_OK) {
            for (uint64_t k = 0; k < f->n_tensors; k++)
                assert_true(f->tensors[k].data + f->tensors[k].bytes <= (const uint8_t *)copy + n);
            gguf_close(f);
            free(copy);
        }
        data[i / 8] = (char)(data[i / 8] ^ 1 << i % 8);
    }
    mem_free(data);
}

static void names_what_else_a_file_is(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *part;
    } files[] = {
        {"PK\003\004aaaaaaaaaaaaaaaaaaaaaaaa", 28, "not a GGUF file: a zip archive"},
        {"\x10\0\0\0\0\0\0\0{\"a\":1}        ", 24, "not a GGUF file: a safetensors file"},
        {"version https://git-lfs.github.com/spec/v1\n", 43, "a Git LFS pointer"},
        {"<!DOCTYPE html><html></html>", 28, "a web page"},
        {"tjgg\3\0\0\0", 8, "older than GGUF"},
        {"abcd", 4, "not a GGUF file"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        buf b = {0};
        buf_append(&b, files[i].bytes, files[i].n);
        expect_refused(&b, files[i].part);
    }
}

static void reports_files_that_cannot_be_mapped(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    assert_int_equal(gguf_open("no/such/file.gguf", &f, &err), FACET_ERR_IO);
    assert_non_null(strstr(err.message, "no/such/file.gguf: cannot open"));
    assert_int_equal(gguf_open(FACET_SOURCE_DIR, &f, &err), FACET_ERR_IO);
    assert_non_null(strstr(err.message, "not a regular file"));
    assert_int_equal(gguf_open("no/such/file.gguf", &f, NULL), FACET_ERR_IO);
}

/* Rules at their limits: the last good value and the first bad one. */

static void bounds_names(void **state)
{
    (void)state;
    static const uint64_t ne[1] = {8};
    for (int n = 63; n <= 64; n++) {
        char name[65] = "";
        memset(name, 'x', (size_t)n);
        buf b = {0};
        put_header(&b, 1, 0);
        put_tensor(&b, name, 1, ne, TYPE_F32, 0);
        put_padding(&b, 32);
        put_zeros(&b, 32);
        if (n == 63)
            expect_accepted(&b);
        else
            expect_refused(&b, "tensor name: length 64 is outside 1..63");
    }
    for (size_t n = 65535; n <= 65536; n++) {
        buf b = {0};
        put_header(&b, 0, 1);
        put_u64(&b, n);
        for (size_t i = 0; i < n; i++) put_u8(&b, 'k');
        put_u32(&b, GGUF_U8);
        put_u8(&b, 1);
        if (n == 65535)
            expect_accepted(&b);
        else
            expect_refused(&b, "key: length 65536 is outside 1..65535");
    }
}

static void refuses_names_that_are_not_utf8(void **state)
{
    (void)state;
    buf b = {0};
    put_header(&b, 0, 1);
    put_key(&b, "k\xff", GGUF_U8);
    put_u8(&b, 1);
    expect_refused(&b, "not valid UTF-8");
    static const uint64_t ne[1] = {8};
    buf t = {0};
    put_header(&t, 1, 0);
    put_tensor(&t, "\xc0\x80", 1, ne, TYPE_F32, 0);
    expect_refused(&t, "not valid UTF-8");
}

static void bounds_alignment(void **state)
{
    (void)state;
    static const struct {
        uint32_t alignment;
        bool is_good;
    } cases[] = {{1, false}, {4, false}, {8, true}, {16, true}, {33, false}, {65536, true}, {131072, false}};
    static const uint64_t ne[1] = {8};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf b = {0};
        put_header(&b, 1, 1);
        put_key_u32(&b, "general.alignment", cases[i].alignment);
        put_tensor(&b, "a", 1, ne, TYPE_F32, 0);
        put_padding(&b, cases[i].alignment);
        put_zeros(&b, 32);
        if (cases[i].is_good)
            expect_accepted(&b);
        else
            expect_refused(&b, "general.alignment");
    }
}

static void accepts_gaps_and_any_order_of_data(void **state)
{
    (void)state;
    static const uint64_t ne[1] = {8};
    static const uint64_t offsets[3] = {128, 0, 64};
    buf b = {0};
    put_header(&b, 3, 0);
    for (uint32_t i = 0; i < 3; i++) put_tensor(&b, (const char *[]){"a", "b", "c"}[i], 1, ne, TYPE_F32, offsets[i]);
    put_padding(&b, 32);
    put_zeros(&b, 160);
    expect_accepted(&b);
}

static void refuses_overlap_out_of_order(void **state)
{
    (void)state;
    static const uint64_t ne[1] = {16};
    static const uint64_t offsets[3] = {64, 0, 32};
    buf b = {0};
    put_header(&b, 3, 0);
    for (uint32_t i = 0; i < 3; i++) put_tensor(&b, (const char *[]){"a", "b", "c"}[i], 1, ne, TYPE_F32, offsets[i]);
    put_padding(&b, 32);
    put_zeros(&b, 160);
    expect_refused(&b, "overlaps");
}

static void refuses_two_tensors_at_one_place(void **state)
{
    (void)state;
    static const uint64_t ne[1] = {8};
    buf b = {0};
    put_header(&b, 2, 0);
    put_tensor(&b, "a", 1, ne, TYPE_F32, 0);
    put_tensor(&b, "b", 1, ne, TYPE_F32, 0);
    put_padding(&b, 32);
    put_zeros(&b, 64);
    expect_refused(&b, "overlaps");
}

static void names_types_it_cannot_read(void **state)
{
    (void)state;
    static const uint64_t ne[1] = {256};
    static const struct {
        uint32_t type;
        const char *part;
    } cases[] = {
        {16, "tensor a: type IQ2_XXS (16) is not supported"},
        {9, "tensor a: type Q8_1 (9) is not supported"},
        {42, "tensor a: type Q2_0 (42) is not supported"},
        {38, "tensor a: unknown tensor type 38"},
        {48, "tensor a: unknown tensor type 48"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf b = {0};
        put_header(&b, 1, 0);
        put_tensor(&b, "a", 1, ne, cases[i].type, 0);
        put_padding(&b, 32);
        put_zeros(&b, 4096);
        expect_refused(&b, cases[i].part);
    }
}

static void keeps_control_characters_out_of_messages(void **state)
{
    (void)state;
    buf b = {0};
    put_header(&b, 0, 1);
    put_key(&b, "evil\n\033[2J", 13);
    expect_refused(&b, "key \"evil??[2J\": value type 13");
}

static void fails_cleanly_when_memory_is_short(void **state)
{
    (void)state;
    static const char *const files[] = {"gguf/ok_v3.gguf", "gguf/split-00001-of-00003.gguf"};
    for (size_t i = 0; i < 2; i++) {
        facet_status status = FACET_ERR_MEMORY;
        uint64_t n = 0;
        while (status != FACET_OK) {
            gguf_file *f = NULL;
            facet_error err = {0};
            mem_fail_at(++n);
            status = gguf_open(test_data(files[i]), &f, &err);
            mem_fail_at(0);
            if (status == FACET_OK)
                gguf_close(f);
            else
                assert_int_equal(status, FACET_ERR_MEMORY);
        }
        assert_in_range(n, 10, 1000);
    }
}

static void opens_real_models(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-F16.gguf");
    static const struct {
        const char *path;
        uint64_t n_kv, n_tensors;
    } models[] = {{"models/tiny-31b-F16.gguf", 42, 85}, {"models/vocab-gemma-4.gguf", 42, 0}};
    for (size_t i = 0; i < 2; i++) {
        gguf_file *f;
        facet_error err = {0};
        const char *path = test_shared(models[i].path);
        if (!path) continue;
        assert_ok(gguf_open(path, &f, &err), err);
        assert_int_equal(f->n_kv, models[i].n_kv);
        assert_int_equal(f->n_tensors, models[i].n_tensors);
        gguf_str arch = {0};
        assert_ok(gguf_get_str(f, "general.architecture", true, &arch, &err), err);
        assert_int_equal(arch.n, 6);
        assert_memory_equal(arch.s, "gemma4", 6);
        gguf_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judges_every_vector_in_memory),
        cmocka_unit_test(judges_every_vector_on_disk),
        cmocka_unit_test(gives_the_tensors_of_a_good_file),
        cmocka_unit_test(refuses_every_shorter_copy),
        cmocka_unit_test(survives_every_flipped_bit),
        cmocka_unit_test(names_what_else_a_file_is),
        cmocka_unit_test(reports_files_that_cannot_be_mapped),
        cmocka_unit_test(bounds_names),
        cmocka_unit_test(refuses_names_that_are_not_utf8),
        cmocka_unit_test(bounds_alignment),
        cmocka_unit_test(accepts_gaps_and_any_order_of_data),
        cmocka_unit_test(refuses_overlap_out_of_order),
        cmocka_unit_test(refuses_two_tensors_at_one_place),
        cmocka_unit_test(names_types_it_cannot_read),
        cmocka_unit_test(keeps_control_characters_out_of_messages),
        cmocka_unit_test(fails_cleanly_when_memory_is_short),
        cmocka_unit_test(opens_real_models),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
