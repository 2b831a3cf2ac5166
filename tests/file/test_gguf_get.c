#include "testing.h"

#include "file/gguf_bytes.h"

/* One file with a key of each kind, opened for every test. */
static buf bytes;
static gguf_file *file;

static void put_f64(buf *b, double v)
{
    buf_append(b, &v, sizeof v);
}

static int open_file(void **state)
{
    (void)state;
    buf *b = &bytes;
    facet_error err = {0};
    put_header(b, 0, 22);
    put_key(b, "u8", GGUF_U8), put_u8(b, 200);
    put_key(b, "i8", GGUF_I8), put_u8(b, 0x80);
    put_key(b, "u16", GGUF_U16), put_u16(b, 65535);
    put_key(b, "i16", GGUF_I16), put_u16(b, 0x8000);
    put_key(b, "u32", GGUF_U32), put_u32(b, UINT32_MAX);
    put_key(b, "i32", GGUF_I32), put_u32(b, 0x80000000u);
    put_key(b, "u64", GGUF_U64), put_u64(b, UINT64_MAX);
    put_key(b, "i64", GGUF_I64), put_u64(b, 1ull << 63);
    put_key(b, "f32", GGUF_F32), put_u32(b, 0x3fc00000u);
    put_key(b, "f32 nan", GGUF_F32), put_u32(b, 0x7fc00000u);
    put_key(b, "f32 inf", GGUF_F32), put_u32(b, 0xff800000u);
    put_key(b, "f64", GGUF_F64), put_f64(b, 0.5);
    put_key(b, "f64 big", GGUF_F64), put_f64(b, 1e300);
    put_key(b, "true", GGUF_BOOL), put_u8(b, 1);
    put_key(b, "false", GGUF_BOOL), put_u8(b, 0);
    put_key(b, "string", GGUF_STRING), put_name(b, "gemma4");
    put_key(b, "empty string", GGUF_STRING), put_name(b, "");
    put_array_key(b, "i32s", GGUF_I32, 2), put_u32(b, 7), put_u32(b, (uint32_t)-7);
    put_array_key(b, "u64s", GGUF_U64, 2), put_u64(b, 1ull << 62), put_u64(b, 1ull << 63);
    put_array_key(b, "bools", GGUF_BOOL, 2), put_u8(b, 0), put_u8(b, 1);
    put_array_key(b, "strings", GGUF_STRING, 3), put_name(b, "a"), put_name(b, ""), put_name(b, "bcd");
    put_array_key(b, "f64s", GGUF_F64, 1), put_f64(b, 0.25);
    return gguf_open_memory(b->data, b->len, "made.gguf", &file, &err) == FACET_OK ? 0 : -1;
}

static int close_file(void **state)
{
    (void)state;
    gguf_close(file);
    buf_free(&bytes);
    return 0;
}

static uint64_t u64_of(const char *key)
{
    uint64_t v = 0;
    facet_error err = {0};
    assert_ok(gguf_get_u64(file, key, true, 0, UINT64_MAX, &v, &err), err);
    return v;
}

static void widens_and_narrows_integers(void **state)
{
    (void)state;
    assert_true(u64_of("u8") == 200);
    assert_true(u64_of("u16") == 65535);
    assert_true(u64_of("u32") == UINT32_MAX);
    assert_true(u64_of("u64") == UINT64_MAX);
}

static void expect_u64(const char *key, uint64_t min, uint64_t max, const char *message)
{
    uint64_t v = 42;
    facet_error err = {0};
    assert_int_equal(gguf_get_u64(file, key, true, min, max, &v, &err), FACET_ERR_FORMAT);
    assert_string_equal(err.message, message);
    assert_int_equal(v, 42);
}

static void refuses_integers_out_of_range(void **state)
{
    (void)state;
    expect_u64("u8", 0, 199, "made.gguf: key \"u8\": 200 is outside 0..199");
    expect_u64("u8", 201, 300, "made.gguf: key \"u8\": 200 is outside 201..300");
    expect_u64("i8", 0, 300, "made.gguf: key \"i8\": -128 is outside 0..300");
    expect_u64("i64", 0, UINT64_MAX, "made.gguf: key \"i64\": -9223372036854775808 is outside 0..18446744073709551615");
}

static void refuses_other_types(void **state)
{
    (void)state;
    float v = 0;
    bool flag = false;
    gguf_str s = {0};
    facet_error err = {0};
    expect_u64("f32", 0, 9, "made.gguf: key \"f32\": type f32, an integer wanted");
    expect_u64("true", 0, 9, "made.gguf: key \"true\": type bool, an integer wanted");
    expect_u64("i32s", 0, 9, "made.gguf: key \"i32s\": type array, an integer wanted");
    expect_u64("none", 0, 9, "made.gguf: missing key \"none\"");
    assert_int_equal(gguf_get_f32(file, "u32", true, &v, &err), FACET_ERR_FORMAT);
    assert_string_equal(err.message, "made.gguf: key \"u32\": type u32, f32 wanted");
    assert_int_equal(gguf_get_bool(file, "u8", true, &flag, &err), FACET_ERR_FORMAT);
    assert_string_equal(err.message, "made.gguf: key \"u8\": type u8, bool wanted");
    assert_int_equal(gguf_get_str(file, "strings", true, &s, &err), FACET_ERR_FORMAT);
    assert_string_equal(err.message, "made.gguf: key \"strings\": type array, string wanted");
}

static void leaves_outputs_of_absent_keys_alone(void **state)
{
    (void)state;
    uint64_t u = 1;
    float v = 2;
    bool flag = true;
    gguf_str s = {.s = "x", .n = 1};
    facet_error err = {0};
    assert_ok(gguf_get_u64(file, "none", false, 5, 6, &u, &err), err);
    assert_ok(gguf_get_f32(file, "none", false, &v, &err), err);
    assert_ok(gguf_get_bool(file, "none", false, &flag, &err), err);
    assert_ok(gguf_get_str(file, "none", false, &s, &err), err);
    assert_true(u == 1 && v == 2 && flag && s.n == 1);
    assert_int_equal(gguf_get_f32(file, "none", true, &v, &err), FACET_ERR_FORMAT);
    assert_int_equal(gguf_get_bool(file, "none", true, &flag, &err), FACET_ERR_FORMAT);
    assert_int_equal(gguf_get_str(file, "none", true, &s, &err), FACET_ERR_FORMAT);
    assert_string_equal(err.message, "made.gguf: missing key \"none\"");
}

static void reads_floats_that_are_finite(void **state)
{
    (void)state;
    float v = 0;
    facet_error err = {0};
    assert_ok(gguf_get_f32(file, "f32", true, &v, &err), err);
    assert_true(v == 1.5f);
    assert_ok(gguf_get_f32(file, "f64", true, &v, &err), err);
    assert_true(v == 0.5f);
    static const char *const bad[] = {"f32 nan", "f32 inf", "f64 big"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(gguf_get_f32(file, bad[i], true, &v, &err), FACET_ERR_FORMAT);
        assert_non_null(strstr(err.message, "a finite f32 wanted"));
    }
    assert_true(v == 0.5f);
}

static void reads_bools_and_strings(void **state)
{
    (void)state;
    bool flag = false;
    gguf_str s = {0};
    facet_error err = {0};
    assert_ok(gguf_get_bool(file, "true", true, &flag, &err), err);
    assert_true(flag);
    assert_ok(gguf_get_bool(file, "false", true, &flag, &err), err);
    assert_false(flag);
    assert_ok(gguf_get_str(file, "string", true, &s, &err), err);
    assert_int_equal(s.n, 6);
    assert_memory_equal(s.s, "gemma4", 6);
    assert_ok(gguf_get_str(file, "empty string", true, &s, &err), err);
    assert_int_equal(s.n, 0);
}

static void reads_array_elements(void **state)
{
    (void)state;
    int64_t i = 0;
    float v = 0;
    const gguf_kv *kv = gguf_find(file, "i32s");
    assert_int_equal(kv->count, 2);
    assert_true(gguf_array_i64(kv, 0, &i) && i == 7);
    assert_true(gguf_array_i64(kv, 1, &i) && i == -7);
    assert_false(gguf_array_f32(kv, 0, &v));
    assert_false(gguf_scalar_i64(kv, &i));
    kv = gguf_find(file, "u64s");
    assert_true(gguf_array_i64(kv, 0, &i) && i == (int64_t)1 << 62);
    assert_false(gguf_array_i64(kv, 1, &i));
    kv = gguf_find(file, "bools");
    assert_true(gguf_array_i64(kv, 0, &i) && i == 0);
    assert_true(gguf_array_i64(kv, 1, &i) && i == 1);
    kv = gguf_find(file, "f64s");
    assert_true(gguf_array_f32(kv, 0, &v) && v == 0.25f);
    assert_false(gguf_array_i64(kv, 0, &i));
}

static void reads_array_strings(void **state)
{
    (void)state;
    gguf_str s[3];
    int64_t i;
    const gguf_kv *kv = gguf_find(file, "strings");
    assert_true(gguf_array_strings(kv, s));
    assert_true(s[0].n == 1 && s[0].s[0] == 'a');
    assert_int_equal(s[1].n, 0);
    assert_int_equal(s[2].n, 3);
    assert_memory_equal(s[2].s, "bcd", 3);
    assert_false(gguf_array_i64(kv, 0, &i));
    assert_false(gguf_array_strings(gguf_find(file, "i32s"), s));
}

static void reads_scalars_as_int64(void **state)
{
    (void)state;
    int64_t i = 0;
    assert_true(gguf_scalar_i64(gguf_find(file, "i8"), &i) && i == -128);
    assert_true(gguf_scalar_i64(gguf_find(file, "i16"), &i) && i == -32768);
    assert_true(gguf_scalar_i64(gguf_find(file, "i32"), &i) && i == INT32_MIN);
    assert_true(gguf_scalar_i64(gguf_find(file, "i64"), &i) && i == INT64_MIN);
    assert_true(gguf_scalar_i64(gguf_find(file, "u32"), &i) && i == UINT32_MAX);
    assert_true(gguf_scalar_i64(gguf_find(file, "true"), &i) && i == 1);
    assert_false(gguf_scalar_i64(gguf_find(file, "u64"), &i));
    assert_false(gguf_scalar_i64(gguf_find(file, "string"), &i));
}

static void names_its_types(void **state)
{
    (void)state;
    assert_string_equal(gguf_type_name(GGUF_U8), "u8");
    assert_string_equal(gguf_type_name(GGUF_F64), "f64");
    assert_string_equal(gguf_type_name((gguf_type)13), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(widens_and_narrows_integers),  cmocka_unit_test(refuses_integers_out_of_range),
        cmocka_unit_test(refuses_other_types),          cmocka_unit_test(leaves_outputs_of_absent_keys_alone),
        cmocka_unit_test(reads_floats_that_are_finite), cmocka_unit_test(reads_bools_and_strings),
        cmocka_unit_test(reads_array_elements),         cmocka_unit_test(reads_array_strings),
        cmocka_unit_test(reads_scalars_as_int64),       cmocka_unit_test(names_its_types),
    };
    return cmocka_run_group_tests_name("gguf_get", tests, open_file, close_file);
}
