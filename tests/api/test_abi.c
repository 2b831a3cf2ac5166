/* What the shared library promises to programs that are built already: its symbols, as tests/data/abi/symbols.txt lists
 * them, its soname, and the sizes of the structs of facet.h on 64-bit machines. A difference is meant or a mistake;
 * when it is meant, the minor version grows, and the list changes with it. */
#include "command.h"

#define LIBRARY FACET_BINARY_DIR "/libfacet.so"

static void symbols_are_those_of_the_list(void **state)
{
    (void)state;
    static char want[1 << 16], got[1 << 16];
    assert_int_equal(run_command(want, sizeof want, "cat %s", test_data("abi/symbols.txt")), 0);
    assert_int_equal(run_command(got, sizeof got,
                                 "nm -D --defined-only " LIBRARY " | awk '$2 != \"A\" { print $3 }' | LC_ALL=C sort"),
                     0);
    char tagged[1 << 16] = "";
    for (char *line = strtok(want, "\n"); line; line = strtok(NULL, "\n"))
        snprintf(tagged + strlen(tagged), sizeof tagged - strlen(tagged), "%s@@FACET_%d.%d\n", line,
                 FACET_VERSION_MAJOR, FACET_VERSION_MINOR);
    assert_string_equal(got, tagged);
}

static void every_function_of_the_header_is_exported(void **state)
{
    (void)state;
    static char declared[1 << 16], listed[1 << 16];
    assert_int_equal(run_command(declared, sizeof declared,
                                 "tr '\\n' ' ' <" FACET_SOURCE_DIR "/include/facet.h | grep -oE 'FACET_API [^(]*\\(' | "
                                 "grep -oE 'facet_[a-z_]+\\($' | tr -d '(' | LC_ALL=C sort"),
                     0);
    assert_int_equal(run_command(listed, sizeof listed, "cat %s", test_data("abi/symbols.txt")), 0);
    assert_string_equal(declared, listed);
}

static void the_soname_carries_the_version(void **state)
{
    (void)state;
    char got[256], want[64], version[32];
    assert_int_equal(run_command(got, sizeof got, "readelf -d " LIBRARY " | grep -o 'libfacet[^]]*'"), 0);
    snprintf(want, sizeof want, "libfacet.so.%d.%d\n", FACET_VERSION_MAJOR, FACET_VERSION_MINOR);
    assert_string_equal(got, want);
    snprintf(version, sizeof version, "%d.%d.%d", FACET_VERSION_MAJOR, FACET_VERSION_MINOR, FACET_VERSION_PATCH);
    assert_string_equal(facet_version(), version);
}

static void structs_have_their_sizes(void **state)
{
    (void)state;
    if (sizeof(void *) != 8) {
        print_message("skipped: not a 64-bit machine\n");
        skip();
    }
#define SIZE(type, bytes) assert_int_equal(sizeof(type), bytes)
    SIZE(facet_error, 516);
    SIZE(facet_model_info, 112);
    SIZE(facet_engine_params, 176);
    SIZE(facet_memory, 40);
    SIZE(facet_engine_info, 216);
    SIZE(facet_sparse_stats, 104);
    SIZE(facet_logit_bias, 8);
    SIZE(facet_sampling, 64);
    SIZE(facet_speculation, 40);
    SIZE(facet_spec_stats, 680);
    SIZE(facet_generate_params, 136);
    SIZE(facet_generate_result, 720);
    SIZE(facet_snapshot_info, 96);
    SIZE(facet_park_report, 40);
    SIZE(facet_logprob, 8);
    SIZE(facet_chat_event, 48);
#undef SIZE
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(symbols_are_those_of_the_list),
        cmocka_unit_test(every_function_of_the_header_is_exported),
        cmocka_unit_test(the_soname_carries_the_version),
        cmocka_unit_test(structs_have_their_sizes),
    };
    return cmocka_run_group_tests_name("ABI", tests, NULL, NULL);
}
