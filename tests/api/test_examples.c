/* The programs of examples/, which know nothing but facet.h and the shared library, with the bundled models. */
#include "command.h"

#define EXAMPLE FACET_BINARY_DIR "/examples/example_"
#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define DRAFTER FACET_SOURCE_DIR "/models/facet-small-%s-Q8_0.gguf"
#define QUESTION "\"$(printf '<bos><|turn>user\\nWhat is 82 - 61?<turn|>\\n<|turn>model\\n')\n\""

static char out[1 << 14];

static void expect(const char *text)
{
    if (!strstr(out, text)) fail_msg("'%s' is not in:\n%s", text, out);
}

static void generate(void **state)
{
    (void)state;
    assert_int_equal(run_command(out, sizeof out, EXAMPLE "generate " MODEL " " QUESTION), 0);
    static const char begin[] = "82 - 61 = 21.\n[19 prompt tokens in ";
    assert_memory_equal(out, begin, sizeof begin - 1);
    expect(" 11 generated in ");
    assert_int_equal(run_command(out, sizeof out, EXAMPLE "generate " FACET_SOURCE_DIR "/README.md x 2>&1"), 1);
    expect("README.md: not a GGUF file");
    assert_int_equal(run_command(out, sizeof out, EXAMPLE "generate 2>&1"), 2);
}

static void chat(void **state)
{
    (void)state;
    assert_int_equal(run_command(out, sizeof out, EXAMPLE "chat " MODEL " 60000 'What is 82 - 61?' 'What is 12 + 30?'"),
                     0);
    expect("> What is 82 - 61?\n82 - 61 = 21.\n[end; ");
    expect("> What is 12 + 30?\n12 + 30 = 42.\n[end; ");
}

static void chat_that_another_thread_stops(void **state)
{
    (void)state;
    const int status = run_command(out, sizeof out, EXAMPLE "chat " MODEL " 0 'What is 82 - 61?' 2>&1");
    expect(status ? "chat: cancelled" : "[stopped; "); /* before the prompt was read, or after */
    assert_int_equal(run_command(out, sizeof out, EXAMPLE "chat " MODEL " 60000 'What is 82 - 61?'"), 0);
    expect("[end; ");
}

static void speculative(void **state)
{
    (void)state;
    static const char *const kinds[] = {"mtp", "dflash"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run_command(out, sizeof out, EXAMPLE "speculative " MODEL " " DRAFTER " " QUESTION, kinds[i]),
                         0);
        expect("none: 11 tokens in ");
        expect(kinds[i]);
        expect("the tokens are the same\n");
        if (strstr(out, " of 0 drafts accepted; by position: ")) fail_msg("nothing was drafted:\n%s", out);
    }
}

#define FORKS EXAMPLE "forks " MODEL " '<bos>Once upon a time' 3"

static void forks(void **state)
{
    (void)state;
    char again[sizeof out];
    assert_int_equal(run_command(out, sizeof out, FORKS), 0);
    expect("1: ");
    expect("3: ");
    if (!strstr(out, "   [1 prompt tokens evaluated]\n3: ")) fail_msg("the forks do not share the prompt:\n%s", out);
    memcpy(again, out, sizeof out);
    assert_int_equal(run_command(out, sizeof out, FORKS), 0);
    assert_string_equal(out, again);
}

/* The same continuations, with the text's state from a file that another process wrote. */
static void forks_of_a_snapshot(void **state)
{
    (void)state;
    char plain[sizeof out], file[64];
    assert_int_equal(run_command(plain, sizeof plain, FORKS), 0);
    snprintf(file, sizeof file, "/tmp/facet-forks-%d.snapshot", (int)getpid());
    assert_int_equal(run_command(out, sizeof out, FORKS " %s", file), 0);
    expect("[io: ");
    assert_string_equal(strchr(out, '\n') + 1, plain);
    assert_int_equal(run_command(out, sizeof out, FORKS " %s", file), 0);
    unlink(file);
    expect(" tokens from ");
    assert_string_equal(strchr(out, '\n') + 1, plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(generate),    cmocka_unit_test(chat),  cmocka_unit_test(chat_that_another_thread_stops),
        cmocka_unit_test(speculative), cmocka_unit_test(forks), cmocka_unit_test(forks_of_a_snapshot),
    };
    return cmocka_run_group_tests_name("examples", tests, NULL, NULL);
}
