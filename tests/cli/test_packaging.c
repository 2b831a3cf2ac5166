/* What is installed beside the program: completions, man pages, the unit of systemd. Each says "skipped" where the
 * program that reads it is missing. */
#include "api/command.h"

#define FACET FACET_BINARY_DIR "/facet"
#define PACKAGING FACET_SOURCE_DIR "/packaging"

static char out[1 << 16];

static void need(const char *program)
{
    if (run_command(out, sizeof out, "command -v %s", program) == 0) return;
    print_message("skipped: %s is not installed\n", program);
    skip();
}

/* ---- completions ---- */

static const struct {
    const char *words; /* behind the program's name; the last one is completed */
    const char *want;
} completions[] = {
    {"ser", "serve\n"},
    {"da", "daemon\n"},
    {"eval pp", "ppl\n"},
    {"serve --max-h", "--max-header\n"},
    {"serve --idle", "--idle-timeout\n"},
    {"daemon --prot", "--protocol\n"},
    {"run --top-", "--top-k --top-p\n"},
    {"serve --device c", "cpu cuda\n"},
    {"serve --log j", "json\n"},
    {"run --nothing", "\n"},
};

static void bash_completes(void **state)
{
    (void)state;
    need("bash");
    for (size_t i = 0; i < sizeof completions / sizeof *completions; i++) {
        assert_int_equal(run_command(out, sizeof out,
                                     "bash -c '. " PACKAGING "/facet.bash; COMP_WORDS=(" FACET
                                     " %s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _facet; echo \"${COMPREPLY[*]}\"'",
                                     completions[i].words),
                         0);
        if (strcmp(out, completions[i].want) != 0) fail_msg("%s: %s", completions[i].words, out);
    }
}

static void zsh_reads_its_completion(void **state)
{
    (void)state;
    need("zsh");
    if (run_command(out, sizeof out, "zsh -n " PACKAGING "/_facet 2>&1") != 0) fail_msg("%s", out);
}

static void fish_reads_its_completion(void **state)
{
    (void)state;
    need("fish");
    if (run_command(out, sizeof out, "fish -n " PACKAGING "/facet.fish 2>&1") != 0) fail_msg("%s", out);
}

/* ---- man pages ---- */

static void man_pages_are_clean(void **state)
{
    (void)state;
    need("man");
    static const char *const pages[] = {"facet.1", "facet-serve.1"};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        run_command(out, sizeof out, "LC_ALL=C.UTF-8 man --warnings -l " FACET_BINARY_DIR "/%s 2>&1 >/dev/null",
                    pages[i]);
        if (out[0]) fail_msg("%s: %s", pages[i], out);
    }
}

/* Long options of `facet serve --help`, one a line, that the page does not have. */
static void the_page_of_serve_has_every_option(void **state)
{
    (void)state;
    const char *const help = FACET " serve --help | grep -oE '^ +(-[a-z]+, )?--[a-z][a-z0-9-]*' | grep -oE -- '--.*'";
    assert_int_equal(run_command(out, sizeof out, "%s | wc -l", help), 0);
    assert_in_range(atoi(out), 50, 200);
    run_command(out, sizeof out,
                "%s | while read -r o; do tr -d '\\\\' <" FACET_BINARY_DIR
                "/facet-serve.1 | grep -qE -- \"^[.]B .*$o( |$)\" || echo \"$o\"; done",
                help);
    assert_string_equal(out, "");
}

/* ---- systemd ---- */

static void the_unit_is_valid(void **state)
{
    (void)state;
    need("systemd-analyze");
    char dir[] = "/tmp/facet-unit-XXXXXX";
    assert_non_null(mkdtemp(dir));
    const int status = run_command(out, sizeof out,
                                   "sed 's|@BINDIR@/facet|" FACET "|; /^Documentation/d' " PACKAGING
                                   "/facet.service >%s/facet.service; systemd-analyze verify %s/facet.service 2>&1",
                                   dir, dir);
    char rest[64];
    run_command(rest, sizeof rest, "rm -rf %s", dir);
    if (status != 0 || strstr(out, "facet.service")) fail_msg("status %d: %s", status, out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bash_completes),
        cmocka_unit_test(zsh_reads_its_completion),
        cmocka_unit_test(fish_reads_its_completion),
        cmocka_unit_test(man_pages_are_clean),
        cmocka_unit_test(the_page_of_serve_has_every_option),
        cmocka_unit_test(the_unit_is_valid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
