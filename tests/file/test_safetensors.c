#define _GNU_SOURCE
#include "testing.h"

#include "base/buf.h"
#include "base/mem.h"
#include "file/safetensors.h"
#include "file/temp_dir.h"

enum { DATA_BYTES = 64 };

/* A file of the given header and 64 bytes of data, byte i being i. */
static buf make_file(const char *header, size_t n)
{
    buf b = {0};
    uint64_t length = n;
    buf_append(&b, &length, sizeof length);
    buf_append(&b, header, n);
    for (int i = 0; i < DATA_BYTES; i++) buf_putc(&b, (char)i);
    assert_false(b.failed);
    return b;
}

static void write_st(const char *name, const char *header)
{
    buf b = make_file(header, strlen(header));
    write_file(temp_file(name), b.data, b.len);
    buf_free(&b);
}

#define TENSOR(dtype, shape, offsets) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* Files of one header each and what the refusal must say; status FORMAT unless it is given. */
static const struct bad_file {
    const char *header, *message;
    facet_status status;
} bad_files[] = {
    {"", "header: ", 0},
    {"{", "header: ", 0},
    {"[]", "header: not a JSON object", 0},
    {"{}x", "header: end of file expected", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0,8]"), "header: ", 0},
    {"{\"a\\u0000b\":1}", "header: ", 0},
    {"{\"\xff\":1}", "header: ", 0},
    {"{\"\":" TENSOR("F32", "[2]", "[0,8]") "}", "empty tensor name", 0},
    {"{\"a\":1}", "tensor a: not an object", 0},
    {"{\"a\":{}}", "tensor a: dtype is missing", 0},
    {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", "tensor a: dtype is missing or not a string", 0},
    {"{\"a\":" TENSOR("F33", "[2]", "[0,8]") "}", "tensor a: unknown dtype F33", 0},
    {"{\"a\":" TENSOR("f32", "[2]", "[0,8]") "}", "tensor a: unknown dtype f32", 0},
    {"{\"a\":" TENSOR("F8_E4M3", "[8]", "[0,8]") "}", "dtype F8_E4M3 is not supported", FACET_ERR_UNSUPPORTED},
    {"{\"a\":" TENSOR("U8", "[8]", "[0,8]") "}", "tensor a: dtype U8 is not supported", FACET_ERR_UNSUPPORTED},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "tensor a: shape is missing", 0},
    {"{\"a\":" TENSOR("F32", "2", "[0,8]") "}", "tensor a: shape is missing or not an array", 0},
    {"{\"a\":" TENSOR("F32", "[2.0]", "[0,8]") "}", "tensor a: a dimension in shape is not an integer", 0},
    {"{\"a\":" TENSOR("F32", "[\"2\"]", "[0,8]") "}", "tensor a: a dimension in shape is not an integer", 0},
    {"{\"a\":" TENSOR("F32", "[1,1,1,1,2]", "[0,8]") "}", "tensor a: 5 dimensions, at most 4 wanted", 0},
    {"{\"a\":" TENSOR("F32", "[0]", "[0,0]") "}", "tensor a: dimension 0, at least 1 wanted", 0},
    {"{\"a\":" TENSOR("F32", "[-2]", "[0,8]") "}", "tensor a: dimension -2, at least 1 wanted", 0},
    {"{\"a\":" TENSOR("F32", "[18446744073709551616]", "[0,8]") "}", "header: too big integer", 0},
    {"{\"a\":" TENSOR("F32", "[8589934592,2147483648]", "[0,0]") "}", "tensor a: element count overflows", 0},
    {"{\"a\":" TENSOR("F64", "[4611686018427387904]", "[0,0]") "}", "tensor a: byte size overflows", 0},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "tensor a: data_offsets is not", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0]") "}", "tensor a: data_offsets is not an array of two integers", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0,8,9]") "}", "tensor a: data_offsets is not an array of two integers", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0,8.0]") "}", "tensor a: data_offsets is not an array of two integers", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[-8,0]") "}", "tensor a: data_offsets [-8, 0] lie outside the 64 bytes", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[8,0]") "}", "tensor a: data_offsets [8, 0] lie outside", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[60,68]") "}", "tensor a: data_offsets [60, 68] lie outside", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[9223372036854775800,9223372036854775807]") "}", "lie outside", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0,12]") "}", "span 12 bytes, but dtype and shape need 8", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0,4]") "}", "span 4 bytes, but dtype and shape need 8", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0,8]") ",\"b\":" TENSOR("F32", "[2]", "[4,12]") "}", "overlaps", 0},
    {"{\"b\":" TENSOR("F32", "[2]", "[8,16]") ",\"a\":" TENSOR("F32", "[16]", "[0,64]") "}", "overlaps", 0},
    {"{\"a\":" TENSOR("F32", "[2]", "[0,8]") ",\"a\":" TENSOR("F32", "[2]", "[8,16]") "}", "duplicate object key", 0},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,8]}}", "duplicate object key", 0},
};

static void refuses_malformed_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_files / sizeof *bad_files; i++) {
        st_file *f = NULL;
        facet_error err = {0};
        buf b = make_file(bad_files[i].header, strlen(bad_files[i].header));
        facet_status status = st_open_memory(b.data, b.len, "made", &f, &err);
        facet_status wanted = bad_files[i].status ? bad_files[i].status : FACET_ERR_FORMAT;
        if (status != wanted || !strstr(err.message, bad_files[i].message))
            fail_msg("%s: status %d, \"%s\" lacks \"%s\"", bad_files[i].header, status, err.message,
                     bad_files[i].message);
        assert_int_equal(strncmp(err.message, "made: ", 6), 0);
        buf_free(&b);
    }
}

static void expect_bytes(const void *data, size_t n, const char *part)
{
    st_file *f = NULL;
    facet_error err = {0};
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n) memcpy(copy, data, n);
    assert_int_equal(st_open_memory(copy, n, "made", &f, &err), FACET_ERR_FORMAT);
    if (!strstr(err.message, part)) fail_msg("\"%s\" lacks \"%s\"", err.message, part);
    free(copy);
}

static void bounds_the_header_length(void **state)
{
    (void)state;
    expect_bytes("", 0, "0 bytes is too small");
    expect_bytes("\1\0\0\0\0\0\0", 7, "7 bytes is too small");
    expect_bytes("\3\0\0\0\0\0\0\0{}", 10, "header length 3, but 2 bytes follow");
    expect_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "header length 18446744073709551615, at most 100000000");
    expect_bytes("\0\0\0\0\0\0\0\x80{}", 10, "header length 9223372036854775808, at most");
    expect_bytes("GGUF\3\0\0\0\0\0\0\0", 12, "not a safetensors file?");
    expect_bytes("\0\xe1\xf5\5\0\0\0\0{}", 10, "header length 100000000, but 2 bytes follow");
    expect_bytes("\1\xe1\xf5\5\0\0\0\0{}", 10, "header length 100000001, at most 100000000");
}

static void refuses_every_shorter_copy(void **state)
{
    (void)state;
    static const char header[] = "{\"a\":" TENSOR("F32", "[16]", "[0,64]") "}";
    buf b = make_file(header, strlen(header));
    for (size_t n = 0; n < b.len; n++) expect_bytes(b.data, n, "");
    buf_free(&b);
}

static void reads_types_and_reversed_shapes(void **state)
{
    (void)state;
    st_file *f;
    facet_error err = {0};
    write_st("a.safetensors",
             "{\"__metadata__\":{\"format\":\"pt\"},"
             "\"m\":" TENSOR("F32", "[2,3]", "[0,24]") ",\"s\":" TENSOR(
                 "I64", "[]", "[56,64]") ","
                                         "\"h\":" TENSOR("BF16", "[1,2,1,3]",
                                                         "[24,36]") ",\"b\":" TENSOR("I8", "[3]", "[36,39]") "}   ");
    assert_ok(st_open(temp_file("a.safetensors"), &f, &err), err);
    assert_int_equal(f->n_tensors, 4);
    for (uint64_t i = 1; i < 4; i++) assert_true(strcmp(f->tensors[i - 1].name, f->tensors[i].name) < 0);
    const st_tensor *t = st_find(f, "m");
    assert_int_equal(t->type, TYPE_F32);
    assert_int_equal(t->n_dims, 2);
    assert_true(t->ne[0] == 3 && t->ne[1] == 2 && t->ne[2] == 1 && t->ne[3] == 1);
    assert_int_equal(t->data[0], 0);
    t = st_find(f, "s");
    assert_int_equal(t->n_dims, 0);
    assert_true(t->ne[0] == 1 && t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1);
    assert_int_equal(t->bytes, 8);
    assert_int_equal(t->data[0], 56);
    t = st_find(f, "h");
    assert_true(t->ne[0] == 3 && t->ne[1] == 1 && t->ne[2] == 2 && t->ne[3] == 1);
    assert_int_equal(st_find(f, "b")->data[2], 38);
    assert_null(st_find(f, "__metadata__"));
    assert_null(st_find(f, "x"));
    st_close(f);
    st_close(NULL);
}

static void reads_an_empty_file(void **state)
{
    (void)state;
    st_file *f;
    facet_error err = {0};
    assert_ok(st_open_memory("\2\0\0\0\0\0\0\0{}", 10, "made", &f, &err), err);
    assert_int_equal(f->n_tensors, 0);
    assert_null(st_find(f, ""));
    st_close(f);
}

#define SHARD(name) "{\"" name "\":" TENSOR("F32", "[2]", "[0,8]") "}"

/* Two shards with the tensors a, b and the index given. */
static void write_folder(const char *index)
{
    temp_dir_empty();
    write_st("model-00001-of-00002.safetensors", SHARD("a"));
    write_st("model-00002-of-00002.safetensors", SHARD("b"));
    write_file(temp_file("model.safetensors.index.json"), index, strlen(index));
}

#define GOOD_INDEX                                                                                                     \
    "{\"metadata\":{\"total_size\":16},\"weight_map\":{\"b\":\"model-00002-of-00002.safetensors\","                    \
    "\"a\":\"model-00001-of-00002.safetensors\"}}"

static void opens_a_sharded_folder(void **state)
{
    (void)state;
    st_file *f;
    facet_error err = {0};
    write_folder(GOOD_INDEX);
    assert_ok(st_open(temp_dir, &f, &err), err);
    assert_int_equal(f->n_shards, 2);
    assert_int_equal(f->n_tensors, 2);
    assert_non_null(strstr(f->shards[st_find(f, "a")->shard].path, "/model-00001-of-00002.safetensors"));
    assert_non_null(strstr(f->shards[st_find(f, "b")->shard].path, "/model-00002-of-00002.safetensors"));
    st_close(f);
}

static void prefers_a_single_file(void **state)
{
    (void)state;
    st_file *f;
    facet_error err = {0};
    write_folder("{}");
    write_st("model.safetensors", SHARD("c"));
    char folder[300];
    snprintf(folder, sizeof folder, "%s/", temp_dir);
    assert_ok(st_open(folder, &f, &err), err);
    assert_int_equal(f->n_shards, 1);
    assert_non_null(st_find(f, "c"));
    st_close(f);
}

static void expect_folder(const char *index, facet_status wanted, const char *part)
{
    st_file *f = NULL;
    facet_error err = {0};
    write_folder(index);
    facet_status status = st_open(temp_dir, &f, &err);
    if (status != wanted || !strstr(err.message, part))
        fail_msg("status %d, \"%s\" lacks \"%s\"", status, err.message, part);
    assert_int_equal(strncmp(err.message, temp_dir, strlen(temp_dir)), 0);
}

static void refuses_malformed_folders(void **state)
{
    (void)state;
    static const struct {
        const char *index, *message;
        facet_status status;
    } cases[] = {
        {"", "index.json: ", FACET_ERR_FORMAT},
        {"[1]", "weight_map is missing", FACET_ERR_FORMAT},
        {"{\"weight_map\":{}}", "weight_map is missing, empty", FACET_ERR_FORMAT},
        {"{\"weight_map\":[]}", "weight_map is missing, empty or not an object", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":1}}", "a file name is not a string", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"\"}}", "would leave the folder", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "would leave the folder", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "would leave the folder", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"..\"}}", "would leave the folder", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"none.safetensors\"}}", "none.safetensors: cannot open", FACET_ERR_IO},
        {"{\"weight_map\":{\"x\":\"model-00001-of-00002.safetensors\"}}", "weight_map: tensor x is not in model-00001",
         FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"model-00002-of-00002.safetensors\",\"b\":\"model-00001-of-00002.safetensors\"}}",
         "weight_map: tensor a is not in model-00002", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"m\",\"a\":\"m\"}}", "duplicate object key", FACET_ERR_FORMAT},
        {"{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}", "not a safetensors file?", FACET_ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_folder(cases[i].index, cases[i].status, cases[i].message);
}

static void refuses_a_tensor_in_two_shards(void **state)
{
    (void)state;
    st_file *f = NULL;
    facet_error err = {0};
    write_folder(GOOD_INDEX);
    write_st("model-00002-of-00002.safetensors",
             "{\"a\":" TENSOR("F32", "[2]", "[0,8]") ",\"b\":" TENSOR("F32", "[2]", "[8,16]") "}");
    assert_int_equal(st_open(temp_dir, &f, &err), FACET_ERR_FORMAT);
    assert_non_null(strstr(err.message, "duplicate tensor a, also in "));
}

static void reports_paths_that_hold_nothing(void **state)
{
    (void)state;
    st_file *f = NULL;
    facet_error err = {0};
    temp_dir_empty();
    assert_int_equal(st_open(temp_dir, &f, &err), FACET_ERR_IO);
    assert_non_null(strstr(err.message, "holds neither model.safetensors nor"));
    assert_int_equal(st_open(temp_file("none"), &f, &err), FACET_ERR_IO);
    assert_non_null(strstr(err.message, "none: cannot open"));
}

static void fails_cleanly_when_memory_is_short(void **state)
{
    (void)state;
    facet_status status = FACET_ERR_MEMORY;
    uint64_t n = 0;
    write_folder(GOOD_INDEX);
    while (status != FACET_OK) {
        st_file *f = NULL;
        facet_error err = {0};
        mem_fail_at(++n);
        status = st_open(temp_dir, &f, &err);
        mem_fail_at(0);
        if (status == FACET_OK)
            st_close(f);
        else
            assert_int_equal(status, FACET_ERR_MEMORY);
    }
    assert_in_range(n, 10, 1000);
}

static void opens_a_real_model(void **state)
{
    (void)state;
    TEST_NEEDS_SHARED("models/tiny-31b-dflash");
    st_file *f;
    facet_error err = {0};
    assert_ok(st_open(test_shared("models/tiny-31b-dflash"), &f, &err), err);
    assert_true(f->n_tensors > 10);
    st_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_malformed_files),
        cmocka_unit_test(bounds_the_header_length),
        cmocka_unit_test(refuses_every_shorter_copy),
        cmocka_unit_test(reads_types_and_reversed_shapes),
        cmocka_unit_test(reads_an_empty_file),
        cmocka_unit_test(opens_a_sharded_folder),
        cmocka_unit_test(prefers_a_single_file),
        cmocka_unit_test(refuses_malformed_folders),
        cmocka_unit_test(refuses_a_tensor_in_two_shards),
        cmocka_unit_test(reports_paths_that_hold_nothing),
        cmocka_unit_test(fails_cleanly_when_memory_is_short),
        cmocka_unit_test(opens_a_real_model),
    };
    return cmocka_run_group_tests_name("safetensors", tests, temp_dir_make, temp_dir_remove);
}
