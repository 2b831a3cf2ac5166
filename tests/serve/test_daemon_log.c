/* What is logged never meets the protocol and never holds it up: a client that does not read standard error, one that
 * has closed it, none at all, and libraries that print, while every way to log is flooded, in both protocols. */
#define _GNU_SOURCE /* F_SETPIPE_SZ, pipe2 */
#include "serve/daemon_events.h"

#define ANSWER "82 - 61 = 21."

enum { N_ROUNDS = 400, PIPE_BYTES = 16384 };

static int begin(void **state)
{
    facet_error err;
    facet_model *m;
    int32_t *ids;
    size_t n;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(temp_dir_make(state), 0);
    assert_ok(facet_model_open(MODEL, &m, &err), err);
    assert_ok(facet_tokenize(m, QUESTION, strlen(QUESTION), true, true, &ids, &n, &err), err);
    write_file(temp_file("raw"), ids, n * sizeof *ids);
    facet_free(ids);
    facet_model_close(m);
    return 0;
}

/* ---- standard error ---- */

typedef struct ear {
    const char *name;
    int given;  /* what the daemon gets */
    int unread; /* our end of its pipe; -1: none */
} ear;

enum { N_EARS = 3 };

static void make_ears(ear ears[N_EARS])
{
    int deaf[2], gone[2];
    assert_true(pipe2(deaf, O_CLOEXEC) == 0 && pipe2(gone, O_CLOEXEC) == 0);
    assert_true(fcntl(deaf[1], F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES);
    close(gone[0]);
    ears[0] = (ear){"nobody reads it", deaf[1], deaf[0]};
    ears[1] = (ear){"its reader is gone", gone[1], -1};
    ears[2] = (ear){"it is closed", STDERR_CLOSED, -1};
}

/* What nobody read is whole lines of the log, and nothing else. */
static void check_unread(const ear *e)
{
    char text[2 * PIPE_BYTES + 1];
    assert_int_equal(fcntl(e->unread, F_SETFL, O_NONBLOCK), 0);
    const ssize_t n = read(e->unread, text, sizeof text - 1);
    assert_true(n > PIPE_BYTES / 4);
    text[n] = 0;
    assert_int_equal(text[n - 1], '\n');
    for (char *save = NULL, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (strncmp(line, "facet daemon: ", 14) != 0) fail_msg("on standard error: '%s'", line);
}

static void close_ear(ear *e)
{
    if (e->given >= 0) close(e->given);
    close_fd(&e->unread);
}

/* ---- the flood ---- */

static const struct {
    const char *line, *reply;
    int n_ends;
} noisy[] = {
    {"nonsense", "err unknown_command", 1},
    {"\x01\x02\x03 \x7f%s%n", "err unknown_command", 1},
    {"/nothing 5", "err empty_prompt", 1},
    {"/nothing 5 samp=nan", "err bad_args", 1},
    {"generate /nothing 5 out", "err empty_prompt", 0},
    {"SNAPSHOT 64", "[snap] inline slot=64 cur_pos=-1", 0},
    {"SNAPSHOT_THIN 4 5 5", "err bad_args", 0},
    {"RESTORE 4 /nothing 5", "err empty_slot", 1},
    {"park everything", "err bad_args", 1},
    {"compress x 500", "err unsupported feature=compress", 1},
};
enum { N_NOISY = sizeof noisy / sizeof *noisy };

static void flood_lines(child *c)
{
    static char out[1 << 17];
    int32_t tokens[64];
    char line[256];
    for (int round = 0; round < N_ROUNDS; round++) {
        for (int i = 0; i < N_NOISY; i++) {
            child_send(c, "%s", noisy[i].line);
            if (!child_line(c, line, sizeof line)) fail_msg("the end, wanted '%s'", noisy[i].reply);
            assert_string_equal(line, noisy[i].reply);
            for (int k = 0; k < noisy[i].n_ends; k++) assert_int_equal(child_token(c), END);
        }
    }
    memset(out, 'x', sizeof out);
    out[sizeof out - 1] = '\n';
    child_write(c, out, sizeof out);
    child_expect(c, "err bad_args");
    assert_int_equal(child_token(c), END);
    child_send(c, "%s/raw 40", temp_dir);
    assert_int_equal(child_tokens(c, tokens, 64), 12);
    child_expect(c, "ok N=19 gen=12 ");
    assert_true(child_stream_is_quiet(c));
}

static void flood_json(child *c)
{
    for (int i = 0; i < N_ROUNDS * 4; i++) {
        child_send(c, "nonsense %d\n{\"id\":1,\"op\":\"sing\"}\n{\"id\":2,\"op\":\"restore\",\"slot\":5}", i);
        for (int k = 0; k < 3; k++) expect_kind(c, "error");
    }
    child_send(c, "{\"id\":3,\"op\":\"generate\",\"stream\":false,\"file\":\"%s/raw\"}", temp_dir);
    json_t *o = event(c);
    assert_string_equal(text_of(o, "text"), ANSWER);
    json_decref(o);
}

static const char *const line_args[] = {FACET, "daemon", "-m",  MODEL,       "-md",           DFLASH, "--device",
                                        "cpu", "-c",     "512", "--verbose", "--stream-fd=9", NULL};
static const char *const json_args[] = {FACET, "daemon", "-m",  MODEL,       "-md",        DFLASH, "--device",
                                        "cpu", "-c",     "512", "--verbose", "--protocol", "json", NULL};

static void lines_whoever_reads_the_log(void **state)
{
    (void)state;
    ear ears[N_EARS];
    make_ears(ears);
    for (int i = 0; i < N_EARS; i++) {
        print_message("standard error: %s\n", ears[i].name);
        child c = child_start_err(true, NULL, line_args, ears[i].given);
        child_expect(&c, "[gemma4-daemon] ready n_layer=6 n_embd=256 vocab=2048 max_ctx=512 draft=dflash ");
        flood_lines(&c);
        if (ears[i].unread >= 0) check_unread(&ears[i]);
        assert_int_equal(child_finish(&c), 0);
        close_ear(&ears[i]);
    }
}

static void json_whoever_reads_the_log(void **state)
{
    (void)state;
    ear ears[N_EARS];
    make_ears(ears);
    for (int i = 0; i < N_EARS; i++) {
        print_message("standard error: %s\n", ears[i].name);
        child c = child_start_err(false, NULL, json_args, ears[i].given);
        expect_kind(&c, "ready");
        flood_json(&c);
        assert_int_equal(child_finish(&c), 0);
        close_ear(&ears[i]);
    }
}

/* A library that prints to standard output, through C and directly, whenever somebody asks for the time. */
static void json_and_stray_output(void **state)
{
    (void)state;
    if (strstr(FACET_TEST_FLAGS, "-fsanitize")) {
        print_message("skipped: a sanitizer wants to be the first library\n");
        skip();
    }
    child c = child_start(false, "LD_PRELOAD=" FACET_BINARY_DIR "/tests/libstray.so", json_args);
    expect_kind(&c, "ready");
    flood_json(&c);
    assert_true(child_has_logged(&c, "ok stray printf\n"));
    assert_true(child_has_logged(&c, "err stray write\n"));
    assert_int_equal(child_finish(&c), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_whoever_reads_the_log),
        cmocka_unit_test(json_whoever_reads_the_log),
        cmocka_unit_test(json_and_stray_output),
    };
    return cmocka_run_group_tests_name("daemon, log", tests, begin, temp_dir_remove);
}
