/* Models in several files, as a person runs them: the same tokens as from one file, and one clear line for a set that
 * is not whole. */
#define _GNU_SOURCE
#include "testing.h"

#include "api/command.h"
#include "file/temp_dir.h"
#include "model/gguf_edit.h"
#include "model/gguf_parts.h"

#define MODELS FACET_SOURCE_DIR "/models/facet-small-"
#define MODEL MODELS "Q4_K_M.gguf"
#define MTP MODELS "mtp-Q8_0.gguf"

enum { N_PARTS = 3 };

static char out[1 << 16];

/* Runs `facet ARGS`, standard error joined to standard output. */
__attribute__((format(printf, 1, 2))) static int facet(const char *fmt, ...)
{
    char args[3000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(args, sizeof args, fmt, ap);
    va_end(ap);
    return run_command(out, sizeof out, "env -i PATH=\"$PATH\" %s/facet %s 2>&1 </dev/null", FACET_BINARY_DIR, args);
}

static const char *part(int no)
{
    return part_path(temp_file("m"), no, N_PARTS);
}

/* A good set of three and a drafter in two parts, from which each test departs. */
static int write_sets(void **state)
{
    (void)state;
    temp_dir_empty();
    gguf_write_parts(MODEL, temp_file("m"), N_PARTS);
    gguf_write_parts(MTP, temp_file("d"), 2);
    return 0;
}

/* ---- what a set gives ---- */

/* The list "tokens":[...] of a run's report, into list [n]. */
static void run_tokens(const char *options, char *list, size_t n)
{
    assert_int_equal(
        facet("run --device cpu -c 256 -n 48 --ignore-eos --json --chat %s 'Tell a short story about a small fox.'",
              options),
        0);
    const char *begin = strstr(out, "\"tokens\":["), *end = begin ? strchr(begin, ']') : NULL;
    if (!end) fail_msg("no tokens in %.400s", out);
    assert_true((size_t)(end - begin) < n && end - begin > 100);
    memcpy(list, begin, (size_t)(end - begin));
    list[end - begin] = 0;
}

static void the_same_tokens(void **state)
{
    (void)state;
    static const char *const extra[] = {"", "--mmap", "--device ref"};
    char want[1024], got[1024], options[1500];
    run_tokens("-m " MODEL, want, sizeof want);
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++) {
        snprintf(options, sizeof options, "-m %s %s", part(0), extra[i]);
        run_tokens(options, got, sizeof got);
        assert_string_equal(got, want);
    }
    snprintf(options, sizeof options, "-m %s -md %s --no-adaptive", part(0), part_path(temp_file("d"), 0, 2));
    run_tokens(options, got, sizeof got);
    assert_string_equal(got, want);
    assert_non_null(strstr(out, "\"method\":\"mtp\""));
}

static void inspect_sees_all_parts(void **state)
{
    (void)state;
    assert_int_equal(facet("inspect " MODEL " --tensors -c 512"), 0);
    char *whole = strdup(strstr(out, "token_embd.weight"));
    assert_int_equal(facet("inspect %s --tensors -c 512", part(0)), 0);
    char *set = strstr(out, "token_embd.weight");
    assert_non_null(set);
    /* up to the memory that is free at this moment */
    char *whole_end = strstr(whole, "free now"), *set_end = strstr(set, "free now");
    assert_true(whole_end && set_end);
    *whole_end = *set_end = 0;
    assert_string_equal(set, whole);
    free(whole);
}

static void quantize_makes_one_file_of_them(void **state)
{
    (void)state;
    assert_int_equal(facet("quantize %s %s --type Q8_0", part(0), temp_file("set.gguf")), 0);
    assert_int_equal(facet("quantize " MODEL " %s --type Q8_0", temp_file("whole.gguf")), 0);
    assert_int_equal(run_command(out, sizeof out, "cmp %s %s 2>&1", temp_file("set.gguf"), temp_file("whole.gguf")), 0);
}

/* ---- sets that are not whole ---- */

/* `facet run` on the first part ends with status 1 and this one line, and so does inspect, which reads the tables
 * alone. %s of the format are names of files. */
static void refused(const char *path, bool by_inspect, const char *line)
{
    const char *const commands[] = {"run --device cpu -m %s hi", "inspect %s"};
    for (int i = 0; i < 1 + by_inspect; i++) {
        char args[1024];
        snprintf(args, sizeof args, commands[i], path);
        const int status = facet("%s", args);
        const char *end = strchr(out, '\n');
        if (status != 1 || strncmp(out, "facet: ", 7) != 0 || !strstr(out, line) || !end || end[1])
            fail_msg("facet %s: exit %d, wanted 1 and the line '%s'; printed: %s", args, status, line, out);
    }
}

static void a_missing_part(void **state)
{
    (void)state;
    unlink(part(2));
    refused(part(0), true, "/m-00003-of-00003.gguf: cannot open: No such file or directory");
}

static void a_later_part(void **state)
{
    (void)state;
    refused(part(1), true, "/m-00002-of-00003.gguf: file 2 of a set of 3; open the first one");
}

static void parts_in_the_wrong_order(void **state)
{
    (void)state;
    const char *kept = temp_file("kept");
    assert_int_equal(rename(part(1), kept), 0);
    assert_int_equal(rename(part(2), part(1)), 0);
    assert_int_equal(rename(kept, part(2)), 0);
    refused(part(0), true, "/m-00002-of-00003.gguf: key \"split.no\": 2, 1 wanted");
}

static void a_part_with_another_name(void **state)
{
    (void)state;
    assert_int_equal(rename(part(0), temp_file("model.gguf")), 0);
    refused(temp_file("model.gguf"), true,
            "/model.gguf: first of 3 files, so its name should end in -00001-of-00003.gguf");
}

static void a_part_cut_short(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(stat(part(1), &st), 0);
    assert_int_equal(truncate(part(1), st.st_size / 2), 0);
    refused(part(0), true, "/m-00002-of-00003.gguf: tensor ");
    assert_non_null(strstr(out, "past the end of the file"));
    assert_int_equal(truncate(part(1), 0), 0);
    refused(part(0), true, "/m-00002-of-00003.gguf: ");
}

/* Writes the tensors from `begin` up to `end` of another file as this part of the set. */
static void replace_part(const char *path, int no, uint64_t begin, uint64_t end)
{
    facet_error err;
    gguf_file *f;
    assert_ok(gguf_open(path, &f, &err), err);
    gguf_write_part(f, temp_file("m"), no, N_PARTS, begin, end);
    gguf_close(f);
}

static uint64_t count_tensors(const char *path)
{
    facet_error err;
    gguf_file *f;
    assert_ok(gguf_open(path, &f, &err), err);
    const uint64_t n = f->n_tensors;
    gguf_close(f);
    return n;
}

static void a_part_of_another_file(void **state)
{
    (void)state;
    replace_part(MTP, 1, 0, 3);
    refused(part(0), true, "/m-00002-of-00003.gguf: key \"split.tensors.count\": ");
}

/* The same model, cut elsewhere. */
static void a_part_of_another_cut(void **state)
{
    (void)state;
    const uint64_t n = count_tensors(MODEL);
    replace_part(MODEL, 1, n / 3 - 1, n * 2 / 3 - 1);
    refused(part(0), true, "/m-00002-of-00003.gguf: duplicate tensor name ");
    replace_part(MODEL, 1, n / 3, n * 2 / 3 - 1);
    refused(part(0), true, "/m-00001-of-00003.gguf: key \"split.tensors.count\": ");
    assert_non_null(strstr(out, "but the 3 files hold "));
}

/* A model of the same layers and another size: only its shapes tell. */
static void a_part_of_another_size(void **state)
{
    (void)state;
    const uint64_t n = count_tensors(MODEL);
    gguf_edit(MODEL, temp_file("other.gguf"),
              (const edit[]){{EDIT_TENSOR, "blk.5.attn_q.weight", .type = TYPE_F32, .ne = {64, 32}}, {EDIT_END}});
    replace_part(temp_file("other.gguf"), 2, n * 2 / 3, n);
    refused(part(0), false, "/m-00003-of-00003.gguf: tensor blk.5.attn_q.weight is [64, 32, 1], wanted [");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_same_tokens, write_sets),
        cmocka_unit_test_setup(inspect_sees_all_parts, write_sets),
        cmocka_unit_test_setup(quantize_makes_one_file_of_them, write_sets),
        cmocka_unit_test_setup(a_missing_part, write_sets),
        cmocka_unit_test_setup(a_later_part, write_sets),
        cmocka_unit_test_setup(parts_in_the_wrong_order, write_sets),
        cmocka_unit_test_setup(a_part_with_another_name, write_sets),
        cmocka_unit_test_setup(a_part_cut_short, write_sets),
        cmocka_unit_test_setup(a_part_of_another_file, write_sets),
        cmocka_unit_test_setup(a_part_of_another_cut, write_sets),
        cmocka_unit_test_setup(a_part_of_another_size, write_sets),
    };
    return cmocka_run_group_tests_name("cli_split", tests, temp_dir_make, temp_dir_remove);
}
