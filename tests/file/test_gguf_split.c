#define _GNU_SOURCE
#include "testing.h"

#include "file/gguf_bytes.h"
#include "file/temp_dir.h"

enum { NO_KEY = -1 };

/* A shard with one F32 tensor of 8 values, each `value`; keys that are NO_KEY are left out. */
typedef struct shard {
    int no, count, total;
    const char *tensor; /* NULL: none */
    float value;
} shard;

static void put_split_key(buf *b, const char *key, int v)
{
    if (v == NO_KEY) return;
    put_key(b, key, GGUF_U16);
    put_u16(b, (uint16_t)v);
}

static void write_shard(const char *name, shard s)
{
    static const uint64_t ne[1] = {8};
    buf b = {0};
    put_header(&b, s.tensor ? 1 : 0, (uint64_t)((s.no != NO_KEY) + (s.count != NO_KEY) + (s.total != NO_KEY)));
    put_split_key(&b, "split.no", s.no);
    put_split_key(&b, "split.count", s.count);
    put_split_key(&b, "split.tensors.count", s.total);
    if (s.tensor) {
        put_tensor(&b, s.tensor, 1, ne, TYPE_F32, 0);
        put_padding(&b, 32);
        for (int i = 0; i < 8; i++) buf_append(&b, &s.value, sizeof s.value);
    }
    write_file(temp_file(name), b.data, b.len);
    buf_free(&b);
}

/* A good set of three, from which each test departs. */
static int write_set(void **state)
{
    (void)state;
    temp_dir_empty();
    write_shard("m-00001-of-00003.gguf", (shard){0, 3, 3, "a", 1});
    write_shard("m-00002-of-00003.gguf", (shard){1, 3, 3, "b", 2});
    write_shard("m-00003-of-00003.gguf", (shard){2, 3, 3, "c", 3});
    return 0;
}

static void expect_open(const char *name, facet_status wanted, const char *part)
{
    gguf_file *f = NULL;
    facet_error err = {0};
    facet_status status = gguf_open(temp_file(name), &f, &err);
    if (status != wanted || !strstr(err.message, part))
        fail_msg("status %d, message \"%s\", wanted %d, \"%s\"", status, err.message, wanted, part);
    assert_null(f);
}

static void merges_the_tables(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    assert_ok(gguf_open(temp_file("m-00001-of-00003.gguf"), &f, &err), err);
    assert_int_equal(f->n_shards, 3);
    assert_int_equal(f->n_tensors, 3);
    assert_int_equal(f->n_kv, 3);
    static const char *const names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++) {
        const gguf_tensor *t = gguf_find_tensor(f, names[i]);
        float v;
        assert_int_equal(t->shard, i);
        memcpy(&v, t->data + 28, sizeof v);
        assert_true(v == (float)(i + 1));
        assert_true(t->data > f->shards[i].data && t->data + t->bytes <= f->shards[i].data + f->shards[i].size);
    }
    gguf_close(f);
}

static void accepts_a_first_shard_without_tensors(void **state)
{
    (void)state;
    gguf_file *f;
    facet_error err = {0};
    assert_ok(gguf_open(test_data("gguf/split-00001-of-00003.gguf"), &f, &err), err);
    assert_int_equal(f->n_shards, 3);
    assert_int_equal(f->n_tensors, 2);
    assert_int_equal(gguf_find_tensor(f, "t1")->shard, 1);
    assert_int_equal(gguf_find_tensor(f, "t2")->shard, 2);
    gguf_close(f);
}

static void refuses_a_later_shard(void **state)
{
    (void)state;
    expect_open("m-00002-of-00003.gguf", FACET_ERR_FORMAT, "file 2 of a set of 3; open the first one");
}

static void refuses_a_missing_shard(void **state)
{
    (void)state;
    unlink(temp_file("m-00003-of-00003.gguf"));
    expect_open("m-00001-of-00003.gguf", FACET_ERR_IO, "m-00003-of-00003.gguf: cannot open");
}

static void refuses_a_broken_shard(void **state)
{
    (void)state;
    write_file(temp_file("m-00002-of-00003.gguf"), "GGUF", 4);
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT, "m-00002-of-00003.gguf: file of 4 bytes is too small");
}

static void refuses_a_wrong_number(void **state)
{
    (void)state;
    write_shard("m-00002-of-00003.gguf", (shard){2, 3, 3, "b", 2});
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT, "m-00002-of-00003.gguf: key \"split.no\": 2, 1 wanted");
    write_shard("m-00002-of-00003.gguf", (shard){NO_KEY, 3, 3, "b", 2});
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT, "m-00002-of-00003.gguf: missing key \"split.no\"");
}

static void refuses_a_wrong_count(void **state)
{
    (void)state;
    write_shard("m-00003-of-00003.gguf", (shard){2, 4, 3, "c", 3});
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT, "m-00003-of-00003.gguf: key \"split.count\": 4, 3 wanted");
}

static void refuses_a_tensor_in_two_shards(void **state)
{
    (void)state;
    write_shard("m-00003-of-00003.gguf", (shard){2, 3, 3, "a", 3});
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT, "m-00003-of-00003.gguf: duplicate tensor name a");
}

static void refuses_a_wrong_total(void **state)
{
    (void)state;
    for (int no = 0; no < 3; no++) {
        char name[32], tensor[2] = {(char)('a' + no)};
        snprintf(name, sizeof name, "m-0000%d-of-00003.gguf", no + 1);
        write_shard(name, (shard){no, 3, 4, tensor, 1});
    }
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT,
                "m-00001-of-00003.gguf: key \"split.tensors.count\": 4, but the 3 files hold 3 tensors");
    write_shard("m-00001-of-00003.gguf", (shard){0, 3, NO_KEY, "a", 1});
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT, "missing key \"split.tensors.count\"");
}

static void refuses_a_part_of_another_set(void **state)
{
    (void)state;
    write_shard("m-00002-of-00003.gguf", (shard){1, 3, 4, "b", 2});
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT,
                "m-00002-of-00003.gguf: key \"split.tensors.count\": 4, 3 wanted");
    write_shard("m-00002-of-00003.gguf", (shard){1, 3, NO_KEY, "b", 2}); /* only the first must have it */
    gguf_file *f;
    facet_error err = {0};
    assert_ok(gguf_open(temp_file("m-00001-of-00003.gguf"), &f, &err), err);
    assert_int_equal(f->n_tensors, 3);
    gguf_close(f);
}

static void never_guesses_a_name(void **state)
{
    (void)state;
    write_shard("model.gguf", (shard){0, 3, 3, "a", 1});
    expect_open("model.gguf", FACET_ERR_FORMAT, "should end in -00001-of-00003.gguf");
    write_shard("m-1-of-3.gguf", (shard){0, 3, 3, "a", 1});
    expect_open("m-1-of-3.gguf", FACET_ERR_FORMAT, "should end in -00001-of-00003.gguf");
}

static void bounds_the_count(void **state)
{
    (void)state;
    write_shard("m-00001-of-01025.gguf", (shard){0, 1025, 3, "a", 1});
    expect_open("m-00001-of-01025.gguf", FACET_ERR_FORMAT, "\"split.count\": 1025 is outside 0..1024");
    write_shard("m-00001-of-00003.gguf", (shard){5, 3, 3, "a", 1});
    expect_open("m-00001-of-00003.gguf", FACET_ERR_FORMAT, "\"split.no\": 5 is outside 0..2");
}

static void takes_a_set_of_one_as_a_file(void **state)
{
    (void)state;
    for (int count = 0; count < 2; count++) {
        gguf_file *f;
        facet_error err = {0};
        write_shard("any.gguf", (shard){0, count, 1, "a", 1});
        assert_ok(gguf_open(temp_file("any.gguf"), &f, &err), err);
        assert_int_equal(f->n_shards, 1);
        gguf_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(merges_the_tables, write_set),
        cmocka_unit_test(accepts_a_first_shard_without_tensors),
        cmocka_unit_test_setup(refuses_a_later_shard, write_set),
        cmocka_unit_test_setup(refuses_a_missing_shard, write_set),
        cmocka_unit_test_setup(refuses_a_broken_shard, write_set),
        cmocka_unit_test_setup(refuses_a_wrong_number, write_set),
        cmocka_unit_test_setup(refuses_a_wrong_count, write_set),
        cmocka_unit_test_setup(refuses_a_tensor_in_two_shards, write_set),
        cmocka_unit_test_setup(refuses_a_wrong_total, write_set),
        cmocka_unit_test_setup(refuses_a_part_of_another_set, write_set),
        cmocka_unit_test_setup(never_guesses_a_name, write_set),
        cmocka_unit_test_setup(bounds_the_count, write_set),
        cmocka_unit_test_setup(takes_a_set_of_one_as_a_file, write_set),
    };
    return cmocka_run_group_tests_name("gguf_split", tests, temp_dir_make, temp_dir_remove);
}
