/* The library from outside: installed and found by pkg-config, shared and static, from C++, and by dlopen from Python.
 */
#include "command.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define QUESTION "\"$(printf '<bos><|turn>user\\nWhat is 82 - 61?<turn|>\\n<|turn>model\\n')\n\""
#define ANSWER "82 - 61 = 21."

static char out[1 << 14], dir[512];

static int install(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/facet-install-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    const int status = run_command(out, sizeof out, "cmake --install " FACET_BINARY_DIR " --prefix %s/usr 2>&1", dir);
    if (status != 0) print_message("%s", out);
    return status;
}

static int remove_all(void **state)
{
    (void)state;
    return run_command(out, sizeof out, "rm -rf %s", dir);
}

/* Shell words: where the installed facet.pc is, and nothing else. */
static const char *find_pc(void)
{
    static char words[1024];
    snprintf(words, sizeof words, "export PKG_CONFIG_PATH=$(dirname $(find %s -name facet.pc)); ", dir);
    return words;
}

static void build(const char *compiler, const char *source, const char *pkg_config_flags, const char *program)
{
    if (run_command(out, sizeof out,
                    "%s cd %s && %s %s -o %s $(pkg-config --cflags --libs %s facet) " FACET_TEST_FLAGS
                    " -Wl,-rpath,$(pkg-config --variable=libdir facet) 2>&1",
                    find_pc(), dir, compiler, source, program, pkg_config_flags) != 0)
        fail_msg("%s", out);
}

static void answers(const char *program)
{
    assert_int_equal(run_command(out, sizeof out, "%s/%s " MODEL " " QUESTION, dir, program), 0);
    assert_memory_equal(out, ANSWER, sizeof ANSWER - 1);
}

static void installed_files(void **state)
{
    (void)state;
    static const char *const files[] = {"bin/facet",
                                        "include/facet.h",
                                        "libfacet.so",
                                        "libfacet.a",
                                        "facet.pc",
                                        "models/facet-small-Q4_K_M.gguf",
                                        "man1/facet.1",
                                        "man1/facet-serve.1",
                                        "lib/systemd/system/facet.service",
                                        "bash-completion/completions/facet",
                                        "site-functions/_facet",
                                        "vendor_completions.d/facet.fish"};
    assert_int_equal(run_command(out, sizeof out, "find %s", dir), 0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strstr(out, files[i])) fail_msg("%s is missing:\n%s", files[i], out);
    assert_int_equal(run_command(out, sizeof out, "%s pkg-config --modversion facet", find_pc()), 0);
    assert_int_equal(strncmp(out, facet_version(), strlen(facet_version())), 0);
}

static void shared(void **state)
{
    (void)state;
    build("cc -std=c17 -Wall -Wextra -Wpedantic -Werror", FACET_SOURCE_DIR "/examples/generate.c", "", "shared");
    answers("shared");
    assert_int_equal(run_command(out, sizeof out, "ldd %s/shared", dir), 0);
    assert_non_null(strstr(out, "libfacet.so.0.1 => "));
}

/* The linker finds libfacet.so first, so the archive is named. */
static void archive(void **state)
{
    (void)state;
    run_command(out, sizeof out, "rm $(find %s -name 'libfacet.so*')", dir);
    build("cc", FACET_SOURCE_DIR "/examples/generate.c", "--static", "archive");
    answers("archive");
    assert_int_equal(run_command(out, sizeof out, "ldd %s/archive", dir), 0);
    assert_null(strstr(out, "libfacet"));
}

static void cplusplus(void **state)
{
    (void)state;
    if (run_command(out, sizeof out, "g++ --version") != 0) {
        print_message("skipped: no C++ compiler (g++)\n");
        skip();
    }
    build("g++ -std=c++17 -Wall -Wextra -Wpedantic -Werror", FACET_SOURCE_DIR "/tests/api/embed.cpp", "", "cplusplus");
    answers("cplusplus");
    /* the header alone, as the oldest C++ that is still about */
    assert_int_equal(run_command(out, sizeof out,
                                 "echo '#include <facet.h>' | g++ -std=c++98 -Wall -Wextra -Wno-long-long -Werror "
                                 "-fsyntax-only -I" FACET_SOURCE_DIR "/include -x c++ - 2>&1"),
                     0);
}

static void python(void **state)
{
    (void)state;
    if (*FACET_TEST_FLAGS) {
        print_message("skipped: Python is not built with this sanitizer\n");
        skip();
    }
    if (run_command(out, sizeof out, "python3 -c 'import ctypes'") != 0) {
        print_message("skipped: no python3 with ctypes\n");
        skip();
    }
    const int status = run_command(out, sizeof out,
                                   "python3 " FACET_SOURCE_DIR "/tests/api/embed.py " FACET_BINARY_DIR
                                   "/libfacet.so " MODEL " " QUESTION " 2>&1");
    if (status != 0) fail_msg("%s", out);
    char want[1024];
    assert_int_equal(run_command(want, sizeof want,
                                 FACET_BINARY_DIR "/facet run -m " MODEL " -n 32 --json " QUESTION
                                                  " | grep -oE '\"tokens\":\\[[^]]*' | sed 's/,/, /g; s/:/: /'"),
                     0);
    want[strcspn(want, "\n")] = 0;
    if (!strstr(out, want)) fail_msg("wanted %s in %s", want, out);
    assert_non_null(strstr(out, "\"text\": \"" ANSWER "\""));
    assert_non_null(strstr(out, "\"error\": \"/nonexistent.gguf: cannot open"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(installed_files), cmocka_unit_test(shared),  cmocka_unit_test(cplusplus),
        cmocka_unit_test(python),          cmocka_unit_test(archive), /* last: it removes the shared library */
    };
    return cmocka_run_group_tests_name("embedding", tests, install, remove_all);
}
