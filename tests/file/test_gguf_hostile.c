#include "testing.h"

#include "file/gguf_bytes.h"

/* Classes of published vulnerabilities of GGUF readers, one test each. */

static void class_key_count_sizes_an_allocation(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1ull << 60, 1ull << 63, UINT64_MAX, UINT64_MAX / 40 + 1};
    for (size_t i = 0; i < 4; i++) {
        buf b = {0};
        put_header(&b, 0, counts[i]);
        put_zeros(&b, 64);
        expect_refused(&b, "key count");
    }
}

static void class_tensor_count_sizes_an_allocation(void **state)
{
    (void)state;
    static const uint64_t counts[] = {1ull << 60, 1ull << 63, UINT64_MAX, UINT64_MAX / 72 + 1};
    for (size_t i = 0; i < 4; i++) {
        buf b = {0};
        put_header(&b, counts[i], 0);
        put_zeros(&b, 64);
        expect_refused(&b, "tensor count");
    }
}

static void class_string_length_plus_one_wraps(void **state)
{
    (void)state;
    static const uint64_t lengths[] = {UINT64_MAX, UINT64_MAX - 7, 1ull << 63, 1ull << 32, 17};
    for (size_t i = 0; i < 5; i++) {
        buf b = {0};
        put_header(&b, 0, 1);
        put_key(&b, "k", GGUF_STRING);
        put_u64(&b, lengths[i]);
        put_zeros(&b, 16);
        expect_refused(&b, "key \"k\": string length");
    }
}

static void class_array_count_times_size_wraps(void **state)
{
    (void)state;
    static const struct {
        uint32_t elem;
        uint64_t count;
    } cases[] = {{GGUF_U32, 1ull << 62},    {GGUF_F64, 1ull << 61}, {GGUF_U16, 1ull << 63}, {GGUF_STRING, 1ull << 61},
                 {GGUF_STRING, UINT64_MAX}, {GGUF_U8, UINT64_MAX},  {GGUF_BOOL, 33},        {GGUF_STRING, 5}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf b = {0};
        put_header(&b, 0, 1);
        put_array_key(&b, "k", cases[i].elem, cases[i].count);
        put_zeros(&b, 32);
        expect_refused(&b, "key \"k\": array count");
    }
}

static void class_string_in_array_runs_out(void **state)
{
    (void)state;
    buf b = {0};
    put_header(&b, 0, 1);
    put_array_key(&b, "k", GGUF_STRING, 2);
    put_u64(&b, 0);
    put_u64(&b, 1);
    expect_refused(&b, "string length 1 at offset");
}

static void class_value_type_indexes_a_table(void **state)
{
    (void)state;
    static const uint32_t types[] = {13, 255, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        buf b = {0}, a = {0};
        put_header(&b, 0, 1);
        put_key(&b, "k", types[i]);
        put_zeros(&b, 32);
        expect_refused(&b, "value type");
        put_header(&a, 0, 1);
        put_array_key(&a, "k", types[i], 1);
        put_zeros(&a, 32);
        expect_refused(&a, "array element type");
    }
}

static void class_alignment_wraps_the_blob_start(void **state)
{
    (void)state;
    static const uint64_t ne[1] = {8};
    static const uint32_t alignments[] = {0, 1u << 31, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        buf b = {0};
        put_header(&b, 1, 1);
        put_key_u32(&b, "general.alignment", alignments[i]);
        put_tensor(&b, "a", 1, ne, TYPE_F32, 0);
        put_zeros(&b, 64);
        expect_refused(&b, "general.alignment");
    }
}

static void refuse_tensor(uint32_t n_dims, const uint64_t *ne, uint32_t type, uint64_t offset, const char *part)
{
    buf b = {0};
    put_header(&b, 1, 0);
    put_tensor(&b, "a", n_dims, ne, type, offset);
    put_padding(&b, 32);
    put_zeros(&b, 4096);
    expect_refused(&b, part);
}

static void class_dimensions_wrap(void **state)
{
    (void)state;
    refuse_tensor(2, (uint64_t[]){1ull << 33, 1ull << 31}, TYPE_F32, 0, "element count overflows");
    refuse_tensor(2, (uint64_t[]){1ull << 32, 1ull << 32}, TYPE_Q4_0, 0, "element count overflows");
    refuse_tensor(2, (uint64_t[]){1024, (1ull << 42) + 1}, TYPE_F32, 0, "go past the end");
    refuse_tensor(2, (uint64_t[]){1024, (1ull << 52) + 1}, TYPE_F32, 0, "byte size of");
    refuse_tensor(1, (uint64_t[]){1ull << 62}, TYPE_F32, 0, "byte size of");
    refuse_tensor(4, (uint64_t[]){1 << 16, 1 << 16, 1 << 16, 1 << 16}, TYPE_F16, 0, "element count overflows");
}

static void class_dimension_zero_or_negative(void **state)
{
    (void)state;
    refuse_tensor(2, (uint64_t[]){8, 0}, TYPE_F32, 0, "dimension 1 is 0");
    refuse_tensor(2, (uint64_t[]){8, UINT64_MAX}, TYPE_F32, 0, "dimension 1 is -1");
    refuse_tensor(1, (uint64_t[]){1ull << 63}, TYPE_F32, 0, "dimension 0 is -9223372036854775808");
}

static void class_tensor_type_indexes_a_table(void **state)
{
    (void)state;
    refuse_tensor(1, (uint64_t[]){32}, 48, 0, "unknown tensor type 48");
    refuse_tensor(1, (uint64_t[]){32}, UINT32_MAX, 0, "unknown tensor type -1");
    refuse_tensor(1, (uint64_t[]){32}, 1u << 31, 0, "unknown tensor type -2147483648");
}

static void class_too_many_dimensions(void **state)
{
    (void)state;
    static const uint64_t ne[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    refuse_tensor(5, ne, TYPE_F32, 0, "5 dimensions, 1..4 wanted");
    refuse_tensor(0, ne, TYPE_F32, 0, "0 dimensions, 1..4 wanted");
    refuse_tensor(UINT32_MAX, ne, TYPE_F32, 0, "4294967295 dimensions, 1..4 wanted");
}

static void class_offset_wraps(void **state)
{
    (void)state;
    refuse_tensor(1, (uint64_t[]){32}, TYPE_F32, UINT64_MAX - 31, "lies past the end of the file");
    refuse_tensor(1, (uint64_t[]){32}, TYPE_F32, UINT64_MAX - 127, "lies past the end of the file");
    refuse_tensor(1, (uint64_t[]){32}, TYPE_F32, 1ull << 63, "lies past the end of the file");
    refuse_tensor(1, (uint64_t[]){32}, TYPE_F32, 4096, "go past the end of the file");
    refuse_tensor(1, (uint64_t[]){32}, TYPE_F32, 4096 - 96, "go past the end of the file");
    refuse_tensor(1, (uint64_t[]){32}, TYPE_F32, 1, "not a multiple of the alignment");
}

static void class_duplicate_names(void **state)
{
    (void)state;
    static const uint64_t ne[1] = {8};
    buf b = {0};
    put_header(&b, 0, 3);
    put_key_u32(&b, "a", 1);
    put_key_u32(&b, "b", 1);
    put_key_u32(&b, "a", 2);
    expect_refused(&b, "duplicate key \"a\"");
    buf t = {0};
    put_header(&t, 2, 0);
    put_tensor(&t, "a", 1, ne, TYPE_F32, 0);
    put_tensor(&t, "a", 1, ne, TYPE_F32, 32);
    put_padding(&t, 32);
    put_zeros(&t, 64);
    expect_refused(&t, "duplicate tensor name a");
}

static void class_many_keys_stay_linear(void **state)
{
    (void)state;
    buf b = {0};
    put_header(&b, 0, 65536);
    for (uint32_t i = 0; i < 65536; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        put_key_u32(&b, key, i);
    }
    expect_accepted(&b);
    buf more = {0};
    put_header(&more, 0, 65537);
    put_zeros(&more, 65537 * 13);
    expect_refused(&more, "key count 65537, at most 65536 allowed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(class_key_count_sizes_an_allocation),
        cmocka_unit_test(class_tensor_count_sizes_an_allocation),
        cmocka_unit_test(class_string_length_plus_one_wraps),
        cmocka_unit_test(class_array_count_times_size_wraps),
        cmocka_unit_test(class_string_in_array_runs_out),
        cmocka_unit_test(class_value_type_indexes_a_table),
        cmocka_unit_test(class_alignment_wraps_the_blob_start),
        cmocka_unit_test(class_dimensions_wrap),
        cmocka_unit_test(class_dimension_zero_or_negative),
        cmocka_unit_test(class_tensor_type_indexes_a_table),
        cmocka_unit_test(class_too_many_dimensions),
        cmocka_unit_test(class_offset_wraps),
        cmocka_unit_test(class_duplicate_names),
        cmocka_unit_test(class_many_keys_stay_linear),
    };
    return cmocka_run_group_tests_name("gguf_hostile", tests, NULL, NULL);
}
