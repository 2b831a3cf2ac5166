/* What the daemon reads and writes through: lines of bounded length out of any bytes, in any pieces; a reader who is
 * slow or gone; and the sampling suffix. */
#define _GNU_SOURCE /* F_SETPIPE_SZ */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "base/mem.h"
#include "base/rng.h"
#include "serve/daemon_inlet.h"
#include "serve/daemon_outlet.h"
#include "serve/daemon_samp.h"

/* ---- lines ---- */

typedef struct item {
    inlet_item what;
    const char *text;
} item;

/* Writes the bytes in pieces of `step`, reading behind each; then the items must be those of the list, to its end. */
static void check_lines(const char *bytes, size_t n, size_t step, size_t max_line, const item *want)
{
    int fd[2];
    inlet in;
    assert_int_equal(pipe(fd), 0);
    assert_true(inlet_open(&in, fd[0], max_line));
    size_t at = 0;
    int n_items = 0;
    for (int i = 0;;) {
        const char *line;
        size_t len;
        const inlet_item got = inlet_next(&in, &line, &len);
        if (got == INLET_NONE) {
            if (in.is_over) break;
            const size_t k = n - at < step ? n - at : step;
            if (k) assert_int_equal(write(fd[1], bytes + at, k), k);
            at += k;
            if (!k) close(fd[1]);
            inlet_fill(&in);
            continue;
        }
        assert_int_equal(got, want[i].what);
        assert_int_equal(len, strlen(want[i].text));
        assert_memory_equal(line, want[i].text, len);
        i++;
        n_items = i;
    }
    assert_null(want[n_items].text); /* all of them came */
    close(fd[0]);
    inlet_close(&in);
}

static void lines_in_any_pieces(void **state)
{
    (void)state;
    static const char bytes[] =
        "one\n\ntwo\r\n\r\nabcdefgh\nabcdefgh\r\nabcdefghi\nabcdefghijklmnopqrstuvwxyz\r\nlast\ncut";
    static const item want[] = {{INLET_LINE, "one"},
                                {INLET_LINE, ""},
                                {INLET_LINE, "two"},
                                {INLET_LINE, ""},
                                {INLET_LINE, "abcdefgh"},
                                {INLET_LINE, "abcdefgh"},
                                {INLET_TOO_LONG, "abcdefgh"},
                                {INLET_TOO_LONG, "abcdefgh"},
                                {INLET_LINE, "last"},
                                {INLET_CUT, "cut"},
                                {INLET_NONE, NULL}};
    for (size_t step = 1; step <= sizeof bytes; step++) check_lines(bytes, sizeof bytes - 1, step, 8, want);
}

static void a_long_line_takes_bounded_memory(void **state)
{
    (void)state;
    int fd[2];
    inlet in;
    const char *line;
    size_t n;
    static char bytes[1 << 15];
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(pipe(fd), 0);
    assert_true(inlet_open(&in, fd[0], 1000));
    int n_long = 0;
    for (int i = 0; i < 500; i++) { /* 16 MB */
        assert_int_equal(write(fd[1], bytes, sizeof bytes), sizeof bytes);
        inlet_fill(&in);
        for (inlet_item what; (what = inlet_next(&in, &line, &n)) != INLET_NONE; n_long++)
            assert_int_equal(what, INLET_TOO_LONG);
        assert_true(in.data.cap <= 1 << 18);
    }
    assert_int_equal(n_long, 1);
    assert_int_equal(write(fd[1], "\nnext\n", 6), 6);
    inlet_fill(&in);
    assert_int_equal(inlet_next(&in, &line, &n), INLET_LINE);
    assert_int_equal(n, 4);
    close(fd[0]);
    close(fd[1]);
    inlet_close(&in);
}

/* Whatever is cut wherever: the lines put together again are the bytes, as long as no line is too long. */
static void random_bytes_come_through(void **state)
{
    (void)state;
    rng r;
    rng_seed(&r, 7);
    for (int round = 0; round < 200; round++) {
        char bytes[3000], got[3100];
        size_t n_got = 0, at = 0;
        const size_t n = 1 + rng_below(&r, sizeof bytes - 1);
        for (size_t i = 0; i < n; i++) bytes[i] = rng_below(&r, 10) ? (char)rng_below(&r, 256) : '\n';
        for (size_t i = 0; i < n; i++)
            if (bytes[i] == '\r') bytes[i] = 0;
        int fd[2];
        inlet in;
        assert_int_equal(pipe(fd), 0);
        assert_true(inlet_open(&in, fd[0], sizeof bytes));
        for (;;) {
            const char *line;
            size_t len;
            const inlet_item what = inlet_next(&in, &line, &len);
            if (what != INLET_NONE) {
                memcpy(got + n_got, line, len);
                n_got += len;
                if (what == INLET_LINE) got[n_got++] = '\n';
                continue;
            }
            if (in.is_over) break;
            const size_t left = n - at, k = left ? 1 + rng_below(&r, (uint32_t)left) : 0;
            if (k) assert_int_equal(write(fd[1], bytes + at, k), k);
            if (!k) close(fd[1]);
            at += k;
            inlet_fill(&in);
        }
        assert_int_equal(n_got, n);
        assert_memory_equal(got, bytes, n);
        close(fd[0]);
        inlet_close(&in);
    }
}

/* ---- output ---- */

static void a_slow_reader_is_waited_for(void **state)
{
    (void)state;
    int fd[2];
    outlet o;
    static char got[1 << 16];
    size_t n_put = 0, n_got = 0;
    assert_int_equal(pipe(fd), 0);
    const int size = fcntl(fd[1], F_SETPIPE_SZ, 4096);
    assert_true(size >= 4096);
    assert_true(outlet_open(&o, fd[1], 1000));
    assert_true(outlet_blocked_s(&o) == 0);
    while (!outlet_is_full(&o)) {
        uint8_t piece[100];
        for (size_t i = 0; i < sizeof piece; i++) piece[i] = (uint8_t)((n_put + i) * 7);
        outlet_put(&o, piece, sizeof piece);
        n_put += sizeof piece;
        outlet_flush(&o);
    }
    assert_true(n_put > 1000 && n_put < (size_t)size + 1200); /* a page that is begun may count as full */
    assert_true(outlet_n_waiting(&o) >= 1000);
    usleep(20000);
    assert_true(outlet_blocked_s(&o) > 0.01);
    while (n_got < n_put) {
        outlet_flush(&o);
        const ssize_t k = read(fd[0], got + n_got, 300);
        assert_true(k > 0);
        n_got += (size_t)k;
    }
    assert_int_equal(outlet_n_waiting(&o), 0);
    assert_true(outlet_blocked_s(&o) == 0);
    for (size_t i = 0; i < n_put; i++) assert_int_equal((uint8_t)got[i], (uint8_t)(i * 7));
    outlet_close(&o);
    close(fd[0]);
    close(fd[1]);
}

static void a_reader_who_is_gone_costs_nothing(void **state)
{
    (void)state;
    int fd[2];
    outlet o;
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe(fd), 0);
    assert_true(outlet_open(&o, fd[1], 1000));
    close(fd[0]);
    outlet_put(&o, "hello", 5);
    outlet_flush(&o);
    assert_true(o.is_broken);
    assert_int_equal(o.error, EPIPE);
    outlet_put(&o, "hello", 5);
    assert_int_equal(outlet_n_waiting(&o), 0);
    assert_false(outlet_is_full(&o));
    outlet_close(&o);
    close(fd[1]);
    assert_true(outlet_open(&o, -1, 1000)); /* there never was one */
    outlet_put(&o, "hello", 5);
    outlet_flush(&o);
    assert_int_equal(outlet_n_waiting(&o), 0);
    assert_false(o.is_broken);
}

static void long_replies_and_short_memory(void **state)
{
    (void)state;
    outlet o;
    static char text[3000], large[200000];
    memset(text, 'y', sizeof text - 1);
    mem_fail_at(1);
    assert_false(outlet_open(&o, 1, 1000));
    outlet_close(&o);
    mem_fail_at(0);
    assert_true(outlet_open(&o, 1, 1000));
    mem_fail_at(1); /* what the limit allows wants no memory */
    for (int i = 0; i < 20; i++) assert_true(outlet_printf(&o, "<%s>", text));
    assert_int_equal(outlet_n_waiting(&o), 20 * (sizeof text + 1));
    assert_false(outlet_put(&o, large, sizeof large)); /* this does, and is refused as a whole */
    assert_int_equal(outlet_n_waiting(&o), 20 * (sizeof text + 1));
    assert_true(outlet_put(&o, "x", 1));
    assert_false(o.is_broken);
    mem_fail_at(0);
    assert_true(outlet_put(&o, large, sizeof large));
    assert_int_equal(outlet_n_waiting(&o), 20 * (sizeof text + 1) + 1 + sizeof large);
    outlet_close(&o);
}

static void lines_and_short_memory(void **state)
{
    (void)state;
    int fd[2];
    inlet in;
    const char *line;
    size_t n;
    static char bytes[1 << 15];
    memset(bytes, 'x', sizeof bytes);
    assert_int_equal(pipe(fd), 0);
    mem_fail_at(1);
    assert_false(inlet_open(&in, fd[0], 1 << 20));
    inlet_close(&in);
    mem_fail_at(0);
    assert_true(inlet_open(&in, fd[0], 1 << 20));
    size_t n_read = 0;
    while (in.data.cap - in.data.len > 65536) { /* a line that has begun fills the buffer */
        assert_int_equal(write(fd[1], bytes, sizeof bytes), sizeof bytes);
        inlet_fill(&in);
        assert_int_equal(inlet_next(&in, &line, &n), INLET_NONE);
        n_read += sizeof bytes;
    }
    mem_fail_at(1);
    inlet_fill(&in);
    mem_fail_at(0);
    assert_int_equal(inlet_next(&in, &line, &n), INLET_TOO_LONG);
    assert_int_equal(n, n_read);
    assert_int_equal(inlet_next(&in, &line, &n), INLET_NONE);
    assert_int_equal(write(fd[1], "yy\nnext\n", 8), 8); /* its rest is dropped */
    inlet_fill(&in);
    assert_int_equal(inlet_next(&in, &line, &n), INLET_LINE);
    assert_int_equal(n, 4);
    assert_memory_equal(line, "next", 4);
    assert_false(in.is_over);
    close(fd[0]);
    close(fd[1]);
    inlet_close(&in);
}

/* ---- samp= ---- */

static void sampling_suffixes(void **state)
{
    (void)state;
    facet_error err;
    facet_sampling s = facet_sampling_default();
    assert_ok(samp_parse("0.7,0.9,40,1.1,5,0.25,-0.5", &s, &err), err);
    assert_true(s.temperature == 0.7f && s.top_p == 0.9f && s.top_k == 40 && s.repeat_penalty == 1.1f && s.seed == 5);
    assert_true(s.frequency_penalty == 0.25f && s.presence_penalty == -0.5f && s.penalty_last_n == 256);
    assert_ok(samp_parse("0", &s, &err), err);
    assert_true(s.temperature == 0 && s.top_p == 1 && s.top_k == 0 && s.repeat_penalty == 1);
    assert_true(s.frequency_penalty == 0 && s.presence_penalty == 0);
    assert_ok(samp_parse("1,0,0,0.5,18446744073709551615", &s, &err), err);
    assert_true(s.top_p == 1 && s.repeat_penalty == 1 && s.seed == UINT64_MAX);
    uint64_t seeds[2];
    for (int i = 0; i < 2; i++) {
        assert_ok(samp_parse("1,1,0,1,0", &s, &err), err);
        seeds[i] = s.seed;
    }
    assert_true(seeds[0] && seeds[1] && seeds[0] != seeds[1]);
}

static void malformed_suffixes(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"", "field 1 (temperature) is ''"},
        {"nan", "(temperature) is 'nan'"},
        {"inf", "(temperature) is 'inf'"},
        {"-1", "(temperature) is '-1'"},
        {"0x", "(temperature) is '0x'"},
        {"1,", "field 2 (top-p) is ''"},
        {"1,1.5", "(top-p) is '1.5'"},
        {"1,1,2.5", "(top-k) is '2.5'"},
        {"1,1,-1", "(top-k) is '-1'"},
        {"1,1,3000000000", "(top-k) is '3000000000'"},
        {"1,1,0,-inf", "(repetition penalty)"},
        {"1,1,0,1,-5", "(seed) is '-5'"},
        {"1,1,0,1,18446744073709551616", "(seed)"},
        {"1,1,0,1,1.5", "(seed) is '1.5'"},
        {"1,1,0,1,1,nan", "(frequency penalty)"},
        {"1,1,0,1,1,0,1e7", "(presence penalty)"},
        {"1,1,0,1,1,0,0,0", "more than 7 fields"},
        {" 1", "(temperature)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        facet_error err = {FACET_OK, ""};
        facet_sampling s = facet_sampling_default();
        const facet_sampling before = s;
        assert_int_equal(samp_parse(bad[i][0], &s, &err), FACET_ERR_ARG);
        if (!strstr(err.message, bad[i][1])) fail_msg("'%s': %s", bad[i][0], err.message);
        assert_memory_equal(&s, &before, sizeof s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_in_any_pieces),
        cmocka_unit_test(a_long_line_takes_bounded_memory),
        cmocka_unit_test(random_bytes_come_through),
        cmocka_unit_test(a_slow_reader_is_waited_for),
        cmocka_unit_test(a_reader_who_is_gone_costs_nothing),
        cmocka_unit_test(long_replies_and_short_memory),
        cmocka_unit_test(lines_and_short_memory),
        cmocka_unit_test(sampling_suffixes),
        cmocka_unit_test(malformed_suffixes),
    };
    return cmocka_run_group_tests_name("daemon pipes", tests, NULL, NULL);
}
