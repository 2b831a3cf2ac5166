/* The line protocol, spoken with the daemon as a child process: every command, good and bad, in order and at once, with
 * bytes that nobody meant, with readers who are slow or gone, and with signals. */
#define _GNU_SOURCE /* F_SETPIPE_SZ */
#include "serve/daemon_testing.h"

#include <math.h>

#include "base/rng.h"

enum { MAX_PROMPT = 64, N_CTX = 2048 };

static int32_t prompt[MAX_PROMPT];
static int n_prompt;
static int32_t answer[64]; /* greedy, with its end token */
static int n_answer;

/* ---- what is right ---- */

static bool keep(void *ud, int32_t token, const char *text, size_t n)
{
    (void)ud, (void)text, (void)n;
    if (token >= 0) answer[n_answer++] = token;
    return true;
}

static void learn_answer(void)
{
    facet_error err;
    facet_model *m;
    facet_engine *e;
    facet_session *s;
    int32_t *ids;
    size_t n;
    facet_engine_params p = facet_engine_params_default();
    facet_generate_params g = facet_generate_params_default();
    const facet_sampling greedy = facet_sampling_default();
    facet_generate_result r;
    p.device = "cpu";
    p.n_ctx = 256;
    g.n_predict = 60;
    g.on_token = keep;
    assert_ok(facet_model_open(MODEL, &m, &err), err);
    assert_ok(facet_engine_open(m, &p, &e, &err), err);
    assert_ok(facet_session_open(e, &s, &err), err);
    assert_ok(facet_tokenize(m, QUESTION, strlen(QUESTION), true, true, &ids, &n, &err), err);
    assert_true(n <= MAX_PROMPT);
    memcpy(prompt, ids, n * sizeof *ids);
    n_prompt = (int)n;
    assert_ok(facet_generate(s, ids, n, &greedy, &g, &r, &err), err);
    assert_int_equal(r.stop, FACET_STOP_EOS);
    answer[n_answer++] = r.end_token;
    facet_free(ids);
    facet_session_close(s);
    facet_engine_close(e);
    facet_model_close(m);
}

static int begin(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(temp_dir_make(state), 0);
    learn_answer();
    int32_t counted[MAX_PROMPT + 1] = {n_prompt}, wrong[] = {2, 999999}, negative[] = {2, -1};
    const uint32_t lie[] = {0xffffffff, 2, 3}, none[] = {0};
    memcpy(counted + 1, prompt, (size_t)n_prompt * sizeof *prompt);
    static int32_t huge[1 << 16];
    write_file(temp_file("raw"), prompt, (size_t)n_prompt * sizeof *prompt);
    write_file(temp_file("counted"), counted, (size_t)(n_prompt + 1) * sizeof *counted);
    write_file(temp_file("tail"), prompt, (size_t)n_prompt * sizeof *prompt);
    FILE *f = fopen(temp_file("tail"), "ab");
    fwrite("xyz", 1, 3, f); /* three bytes more than whole ids */
    fclose(f);
    write_file(temp_file("wrong"), wrong, sizeof wrong);
    write_file(temp_file("negative"), negative, sizeof negative);
    write_file(temp_file("lie"), lie, sizeof lie);
    write_file(temp_file("none"), none, sizeof none);
    write_file(temp_file("empty"), "", 0);
    write_file(temp_file("short"), "ab", 2);
    write_file(temp_file("huge"), huge, sizeof huge);
    return 0;
}

static child start_with(bool with_stream, const char *environment, const char *const *more)
{
    const char *args[32] = {FACET, "daemon", "-m", MODEL, "--device", "cpu", "-t", "2", "-c", "2048"};
    int n = 10;
    if (with_stream) args[n++] = "--stream-fd=9";
    for (; more && *more; more++) args[n++] = *more;
    return child_start(with_stream, environment, args);
}

static child start(const char *const *more)
{
    child c = start_with(true, NULL, more);
    child_expect(&c, "[gemma4-daemon] ready n_layer=6 n_embd=256 vocab=2048 max_ctx=2048 draft=none sparse_fa=0");
    return c;
}

static void expect_answer(const child *c)
{
    int32_t got[64];
    assert_int_equal(child_tokens(c, got, 64), n_answer);
    assert_memory_equal(got, answer, (size_t)n_answer * sizeof *answer);
}

static void ask(child *c)
{
    char want[64];
    child_send(c, "%s/raw 40", temp_dir);
    expect_answer(c);
    snprintf(want, sizeof want, "ok N=%d gen=%d prefill_s=", n_prompt, n_answer);
    child_expect(c, want);
}

/* ---- commands ---- */

static void bare_prompts(void **state)
{
    (void)state;
    child c = start(NULL);
    char line[512];
    float prefill, decode, rate;
    int n, gen, fd;
    child_send(&c, "%s/raw 40", temp_dir);
    expect_answer(&c);
    assert_true(child_line(&c, line, sizeof line));
    assert_int_equal(sscanf(line, "ok N=%d gen=%d prefill_s=%f decode_s=%f decode_tok_s=%f stream_fd=%d", &n, &gen,
                            &prefill, &decode, &rate, &fd),
                     6);
    assert_int_equal(n, n_prompt);
    assert_int_equal(gen, n_answer);
    assert_int_equal(fd, STREAM_FD);
    assert_true(decode > 0 && fabs((double)(rate * decode) - gen) < 0.01 * gen + rate * 0.001);
    /* again, from the cache; cut by n_gen; three stray bytes at the end of the file */
    ask(&c);
    int32_t got[8];
    child_send(&c, "%s/raw 3", temp_dir);
    assert_int_equal(child_tokens(&c, got, 8), 3);
    assert_memory_equal(got, answer, 3 * sizeof *answer);
    child_expect(&c, "ok N=19 gen=3 ");
    child_send(&c, "%s/tail 40", temp_dir);
    expect_answer(&c);
    child_expect(&c, "ok N=19 gen=12 ");
    assert_true(child_stream_is_quiet(&c));
    assert_int_equal(child_finish(&c), 0);
}

static void files_of_ids(void **state)
{
    (void)state;
    child c = start(NULL);
    char want[512];
    int32_t got[64];
    child_send(&c, "generate %s/counted 40 %s/out", temp_dir, temp_dir);
    char line[512];
    assert_true(child_line(&c, line, sizeof line));
    assert_int_equal(strncmp(line, "ok N=19 gen=12 prefill_s=", 25), 0);
    snprintf(want, sizeof want, " out=%s/out", temp_dir);
    assert_string_equal(strstr(line, " out="), want);
    FILE *f = fopen(temp_file("out"), "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, sizeof *got, 64, f), n_answer + 1);
    fclose(f);
    assert_int_equal(got[0], n_answer);
    assert_memory_equal(got + 1, answer, (size_t)n_answer * sizeof *answer);
    child_send(&c, "generate %s/counted 40 %s/no/such/folder", temp_dir, temp_dir);
    child_expect(&c, "err write_out");
    assert_true(child_stream_is_quiet(&c)); /* this command has nothing to do with the stream */
    assert_int_equal(child_finish(&c), 0);
}

static const struct {
    const char *line; /* %s: the folder, as often as it occurs */
    const char *reply;
    bool has_end;
} refused[] = {
    {"nonsense", "err unknown_command", true},
    {"", "err unknown_command", true},
    {"   ", "err unknown_command", true},
    {"GENERATE x", "err unknown_command", true},
    {"quit now", "err unknown_command", true},
    {"parking", "err unknown_command", true},
    {"raw 5", "err unknown_command", true},
    {"%s/raw", "err bad_args", true},
    {"%s/raw 0", "err bad_args", true},
    {"%s/raw -3", "err bad_args", true},
    {"%s/raw x", "err bad_args", true},
    {"%s/raw 5x", "err bad_args", true},
    {"%s/raw 99999999999", "err bad_args", true},
    {"%s/raw 5 more", "err bad_args", true},
    {"%s/raw 5 samp=", "err bad_args", true},
    {"%s/raw 5 samp=nan", "err bad_args", true},
    {"%s/raw 5 samp=1,2", "err bad_args", true},
    {"%s/raw 5 samp=1,1,0,1,0,0,0,0", "err bad_args", true},
    {"./no-such-file 5", "err empty_prompt", true},
    {"%s 5", "err empty_prompt", true}, /* a folder */
    {"%s/empty 5", "err empty_prompt", true},
    {"%s/short 5", "err empty_prompt", true},
    {"%s/wrong 5", "err bad_token", true},
    {"%s/negative 5", "err bad_token", true},
    {"%s/raw 2030", "err context_overflow limit=2048 prompt=19 requested=2049", true},
    {"%s/huge 5", "err context_overflow limit=2048 prompt=65536 requested=65541", true},
    {"generate", "err bad_args", false},
    {"generate %s/counted 5", "err bad_args", false},
    {"generate %s/counted 0 out", "err bad_args", false},
    {"generate %s/counted x out", "err bad_args", false},
    {"generate %s/counted 5 out more", "err bad_args", false},
    {"generate %s/counted 5 out samp=inf", "err bad_args", false},
    {"generate %s/nothing 5 out", "err empty_prompt", false},
    {"generate %s/none 5 out", "err empty_prompt", false},
    {"generate %s/lie 5 out", "err empty_prompt", false},
    {"generate %s/short 5 out", "err empty_prompt", false},
    {"generate %s/empty 5 out", "err empty_prompt", false},
    {"generate /dev/zero 5 out", "err empty_prompt", false},
};
enum { N_REFUSED = sizeof refused / sizeof *refused };

static void fill_in(char *out, size_t size, const char *line)
{
    size_t n = 0;
    for (; *line; line++) {
        if (line[0] == '%' && line[1] == 's') {
            n += (size_t)snprintf(out + n, size - n, "%s", temp_dir);
            line++;
        } else {
            out[n++] = *line;
        }
    }
    out[n] = 0;
}

static void bad_commands_are_refused(void **state)
{
    (void)state;
    child c = start(NULL);
    for (int i = 0; i < N_REFUSED; i++) {
        char line[512], got[512];
        fill_in(line, sizeof line, refused[i].line);
        child_send(&c, "%s", line);
        assert_true(child_line(&c, got, sizeof got));
        if (strcmp(got, refused[i].reply) != 0) fail_msg("'%s': '%s', wanted '%s'", line, got, refused[i].reply);
        if (refused[i].has_end) assert_int_equal(child_token(&c), END);
        if (!refused[i].has_end && !child_stream_is_quiet(&c)) fail_msg("'%s': something on the stream", line);
    }
    ask(&c);
    assert_int_equal(child_finish(&c), 0);
}

static void without_a_stream(void **state)
{
    (void)state;
    child c = start_with(false, NULL, NULL);
    child_expect(&c, "[gemma4-daemon] ready ");
    child_send(&c, "%s/raw 5", temp_dir);
    child_expect(&c, "err no_stream_fd");
    child_send(&c, "%s/raw 0", temp_dir);
    child_expect(&c, "err bad_args");
    child_send(&c, "nonsense");
    child_expect(&c, "err unknown_command");
    child_send(&c, "generate %s/counted 40 %s/out", temp_dir, temp_dir);
    child_expect(&c, "ok N=19 gen=12 ");
    assert_int_equal(child_finish(&c), 0);
}

static void sampling(void **state)
{
    (void)state;
    child c = start(NULL);
    int32_t a[32], b[32], other[32];
    const char *const suffix[] = {" samp=5,0.95,50,1.1,7", " samp=5,0.95,50,1.1,7,0,0", " samp=5,0.95,50,1.1,8"};
    int32_t *const out[] = {a, b, other};
    int n[3];
    for (int i = 0; i < 3; i++) {
        child_send(&c, "%s/raw%s 12", temp_dir, suffix[i]); /* anywhere behind the first field */
        n[i] = child_tokens(&c, out[i], 32);
        child_expect(&c, "ok N=19 gen=");
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(a, b, (size_t)n[0] * sizeof *a);
    assert_true(n[0] != n[2] || memcmp(a, other, (size_t)n[0] * sizeof *a) != 0);
    child_send(&c, "%s/raw 40 samp=0", temp_dir); /* temperature 0: greedy */
    expect_answer(&c);
    child_expect(&c, "ok ");
    child_send(&c, "%s/raw 40 samp=0,1,0,1,0,5,5", temp_dir); /* penalties at temperature 0 */
    n[0] = child_tokens(&c, a, 32);
    assert_true(n[0] != n_answer || memcmp(a, answer, sizeof *answer * (size_t)n_answer) != 0);
    child_expect(&c, "ok ");
    assert_int_equal(child_finish(&c), 0);
}

/* ---- slots and parts ---- */

/* The prompt, its answer and a second question, as ids. */
static int write_long_prompt(void)
{
    int32_t ids[2 * MAX_PROMPT + 64];
    int n = 0;
    for (int i = 0; i < n_prompt; i++) ids[n++] = prompt[i];
    for (int i = 0; i < n_answer; i++) ids[n++] = answer[i];
    for (int i = 1; i < n_prompt; i++) ids[n++] = prompt[i];
    write_file(temp_file("long"), ids, (size_t)n * sizeof *ids);
    return n;
}

static void snapshots(void **state)
{
    (void)state;
    child c = start(NULL);
    char want[128], line[128];
    int32_t plain[32], got[32];
    const int n_long = write_long_prompt(), n_held = n_prompt + n_answer - 1; /* the end token is not evaluated */
    child_send(&c, "SNAPSHOT 3");
    child_expect(&c, "[snap] inline slot=3 cur_pos=-1"); /* there is nothing yet */
    child_send(&c, "LIST_SLOTS");
    assert_true(child_line(&c, line, sizeof line));
    assert_string_equal(line, "[snap] slots=");
    ask(&c);
    child_send(&c, "SNAPSHOT 3");
    snprintf(want, sizeof want, "[snap] inline slot=3 cur_pos=%d", n_held);
    child_expect(&c, want);
    child_send(&c, "%s/long 20", temp_dir);
    const int n = child_tokens(&c, plain, 32);
    child_expect(&c, "ok ");
    child_send(&c, "%s/raw 3 snap=10:5 samp=0", temp_dir); /* within the prompt */
    assert_int_equal(child_tokens(&c, got, 32), 3);
    assert_memory_equal(got, answer, 3 * sizeof *got);
    child_expect(&c, "ok N=19 gen=3 ");
    child_send(&c, "%s/raw 3 snap=500:63", temp_dir); /* behind its end: at its end */
    child_tokens(&c, got, 32);
    child_expect(&c, "ok N=19 gen=3 ");
    static const char *const ignored[] = {"x",    "5",    "0:1", "-4:1",  "5:64",
                                          "5:-1", "5:6x", ":",   "5:6:7", "4294967298:7" /* more than 32 bits */};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        child_send(&c, "%s/raw 2 snap=%s", temp_dir, ignored[i]);
        assert_int_equal(child_tokens(&c, got, 32), 2);
        child_expect(&c, "ok N=19 gen=2 ");
    }
    child_send(&c, "LIST_SLOTS");
    assert_true(child_line(&c, line, sizeof line));
    assert_string_equal(line, "[snap] slots=3,5,63");
    child_send(&c, "RESTORE 3 %s/long 20", temp_dir);
    assert_int_equal(child_tokens(&c, got, 32), n);
    assert_memory_equal(got, plain, (size_t)n * sizeof *got);
    snprintf(want, sizeof want, "ok N=%d gen=%d prefix_len=", n_long, n);
    assert_true(child_line(&c, line, sizeof line));
    assert_memory_equal(line, want, strlen(want));
    assert_true(atoi(line + strlen(want)) >= n_held); /* or more, from cached prompts */
    snprintf(want, sizeof want, " (RESTORE slot=3) stream_fd=%d", STREAM_FD);
    assert_string_equal(strchr(line, '(') - 1, want);
    child_send(&c, "RESTORE 5 %s/raw 40 samp=0", temp_dir);
    expect_answer(&c);
    child_expect(&c, "ok N=19 gen=12 prefix_len=1"); /* 10 to 19 */
    child_send(&c, "FREE_SNAPSHOT 3");
    child_expect(&c, "[snap] freed slot=3");
    child_send(&c, "FREE_SNAPSHOT 99");
    child_expect(&c, "[snap] freed slot=99");
    child_send(&c, "SNAPSHOT 64");
    child_expect(&c, "[snap] inline slot=64 cur_pos=-1");
    child_send(&c, "LIST_SLOTS");
    assert_true(child_line(&c, line, sizeof line));
    assert_string_equal(line, "[snap] slots=5,63");
    assert_true(child_stream_is_quiet(&c));
    assert_int_equal(child_finish(&c), 0);
}

static void chains_of_snapshots(void **state)
{
    (void)state;
    child c = start(NULL);
    int32_t got[8];
    child_send(&c, "%s/raw 2 snap=10:5", temp_dir);
    child_tokens(&c, got, 8);
    child_expect(&c, "ok ");
    child_send(&c, "SNAPSHOT_THIN 6 10 19");
    child_expect(&c, "[snap] thin slot=6 kv=10,19");
    child_send(&c, "SNAPSHOT_THIN 7 0 19"); /* all of it */
    child_expect(&c, "[snap] thin slot=7 kv=0,19");
    child_send(&c, "SNAPSHOT_THIN 8 10 1000");
    child_expect(&c, "err bad_args");
    child_send(&c, "RESTORE_CHAIN 5 6 %s/raw 40", temp_dir);
    child_expect(&c, "[snap] chain restored thick=5 thins=1 cur_pos=19");
    expect_answer(&c);
    child_send(&c, "RESTORE_CHAIN 5 - %s/raw 40", temp_dir);
    child_expect(&c, "[snap] chain restored thick=5 thins=0 cur_pos=10");
    expect_answer(&c);
    child_send(&c, "RESTORE_CHAIN -1 7 %s/raw 40", temp_dir);
    child_expect(&c, "[snap] chain restored thick=-1 thins=1 cur_pos=19");
    expect_answer(&c);
    write_long_prompt();
    child_send(&c, "%s/long 2 snap=40:9", temp_dir);
    child_tokens(&c, got, 8);
    child_expect(&c, "ok ");
    child_send(&c, "SNAPSHOT_THIN 10 20 40");
    child_expect(&c, "[snap] thin slot=10 kv=20,40");
    child_send(&c, "RESTORE_CHAIN 5 10 %s/raw 40", temp_dir); /* a gap from 10 to 20 */
    child_expect(&c, "err slot_mismatch");
    assert_int_equal(child_token(&c), END);
    ask(&c);
    assert_int_equal(child_finish(&c), 0);
}

static const struct {
    const char *line, *reply;
    bool has_end;
} refused_slots[] = {
    {"RESTORE 4 %s/raw 5", "err empty_slot", true},
    {"RESTORE 64 %s/raw 5", "err bad_args", true},
    {"RESTORE -1 %s/raw 5", "err bad_args", true},
    {"RESTORE x %s/raw 5", "err bad_args", true},
    {"RESTORE 4 %s/raw", "err bad_args", true},
    {"RESTORE 4 %s/raw 0", "err bad_args", true},
    {"RESTORE", "err bad_args", true},
    {"RESTORE_CHAIN", "err bad_args", true},
    {"RESTORE_CHAIN 4 - %s/raw 5", "err empty_slot", true},
    {"RESTORE_CHAIN -1 - %s/raw 5", "err bad_args", true},
    {"RESTORE_CHAIN 4 1,x %s/raw 5", "err bad_args", true},
    {"RESTORE_CHAIN 4 1,64 %s/raw 5", "err bad_args", true},
    {"RESTORE_CHAIN 4 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17 %s/raw 5", "err bad_args", true},
    {"SNAPSHOT", "err bad_args", false},
    {"SNAPSHOT x", "err bad_args", false},
    {"SNAPSHOT_THIN 4 5", "err bad_args", false},
    {"SNAPSHOT_THIN 4 5 5", "err bad_args", false},
    {"SNAPSHOT_THIN 64 0 5", "err bad_args", false},
    {"FREE_SNAPSHOT x", "err bad_args", false},
    {"LIST_SLOTS now", "err bad_args", false},
    {"park everything", "err bad_args", true},
    {"unpark target now", "err bad_args", true},
    {"free", "err unknown_command", true},
    {"free drafters", "err unknown_command", true},
    {"drafter drafter", "err unknown_command", true},
    {"compress %s/raw 500", "err unsupported feature=compress", true},
};

static void bad_slot_commands_are_refused(void **state)
{
    (void)state;
    child c = start(NULL);
    for (size_t i = 0; i < sizeof refused_slots / sizeof *refused_slots; i++) {
        char line[512], got[512];
        fill_in(line, sizeof line, refused_slots[i].line);
        child_send(&c, "%s", line);
        assert_true(child_line(&c, got, sizeof got));
        if (strcmp(got, refused_slots[i].reply) != 0) fail_msg("'%s': '%s'", line, got);
        if (refused_slots[i].has_end) assert_int_equal(child_token(&c), END);
    }
    assert_true(child_stream_is_quiet(&c));
    assert_true(child_has_logged(&c, "compress: this daemon cannot shorten prompts: give the complete prompt"));
    assert_int_equal(child_finish(&c), 0);
}

static void parking(void **state)
{
    (void)state;
    static const char *const park[] = {"park", "park all", "park target"};
    child c = start_with(true, NULL, (const char *const[]){"-md", MTP, NULL});
    child_expect(&c, "[gemma4-daemon] ready ");
    ask(&c);
    child_send(&c, "SNAPSHOT 1");
    child_expect(&c, "[snap] inline slot=1 cur_pos=");
    for (int i = 0; i < 3; i++) {
        child_send(&c, "%s", park[i]);
        assert_int_equal(child_token(&c), END);
        child_send(&c, "park target"); /* it is already */
        assert_int_equal(child_token(&c), END);
        child_send(&c, "%s/raw 5", temp_dir);
        child_expect(&c, "err target_parked");
        assert_int_equal(child_token(&c), END);
        child_send(&c, "RESTORE 1 %s/raw 5", temp_dir);
        child_expect(&c, "err target_parked");
        assert_int_equal(child_token(&c), END);
        child_send(&c, "generate %s/counted 5 %s/out", temp_dir, temp_dir);
        child_expect(&c, "err target_parked");
        child_send(&c, "LIST_SLOTS");
        child_expect(&c, "[snap] slots=1");
        child_send(&c, "unpark");
        assert_int_equal(child_token(&c), END);
        ask(&c);
        child_send(&c, "RESTORE 1 %s/raw 40", temp_dir);
        expect_answer(&c);
        child_expect(&c, "ok N=19 gen=12 prefix_len=1");
    }
    child_send(&c, "park draft"); /* the target goes on without it */
    assert_int_equal(child_token(&c), END);
    ask(&c);
    child_send(&c, "unpark draft");
    assert_int_equal(child_token(&c), END);
    ask(&c);
    child_send(&c, "free drafter\ndrafter free");
    assert_int_equal(child_token(&c), END);
    assert_int_equal(child_token(&c), END);
    ask(&c);
    assert_int_equal(child_finish(&c), 0);
    c = start_with(true, NULL, (const char *const[]){"--auto-unpark", NULL});
    child_expect(&c, "[gemma4-daemon] ready ");
    child_send(&c, "park");
    assert_int_equal(child_token(&c), END);
    ask(&c);
    assert_int_equal(child_finish(&c), 0);
}

/* ---- many lines, strange lines ---- */

static void everything_at_once(void **state)
{
    (void)state;
    child c = start((const char *const[]){"--queue", "4", NULL});
    enum { ROUNDS = 3 };
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < N_REFUSED; i++) {
            char line[512];
            fill_in(line, sizeof line, refused[i].line);
            child_send(&c, "%s", line);
            if (i % 7 == 0) child_send(&c, "%s/raw 2", temp_dir);
        }
    close_fd(&c.in); /* what was asked for is done all the same */
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < N_REFUSED; i++) {
            child_expect(&c, refused[i].reply);
            if (refused[i].has_end) assert_int_equal(child_token(&c), END);
            if (i % 7) continue;
            int32_t got[4];
            assert_int_equal(child_tokens(&c, got, 4), 2);
            assert_memory_equal(got, answer, 2 * sizeof *got);
            child_expect(&c, "ok N=19 gen=2 ");
        }
    char line[64];
    assert_false(child_line(&c, line, sizeof line));
    assert_int_equal(child_token(&c), NO_STREAM);
    assert_int_equal(child_wait(&c), 0);
}

static void strange_lines(void **state)
{
    (void)state;
    child c = start(NULL);
    static char bytes[200000];
    memset(bytes, 'x', sizeof bytes);
    bytes[sizeof bytes - 1] = '\n';
    child_write(&c, bytes, sizeof bytes); /* too long */
    child_expect(&c, "err bad_args");
    assert_int_equal(child_token(&c), END);
    child_write(&c, "qu\0it\n", 6);
    child_expect(&c, "err unknown_command");
    assert_int_equal(child_token(&c), END);
    child_write(&c, "\0\n", 2);
    child_expect(&c, "err unknown_command");
    assert_int_equal(child_token(&c), END);
    const char *raw = temp_file("raw"); /* in pieces, with a CR */
    for (const char *at = raw; *at; at++) {
        child_write(&c, at, 1);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    child_write(&c, "\t 4", 3);
    assert_true(child_stream_is_quiet(&c));
    child_write(&c, "0 \r\n", 4);
    expect_answer(&c);
    child_expect(&c, "ok N=19 gen=12 ");
    rng r;
    rng_seed(&r, 3);
    int n_lines = 0;
    for (size_t i = 0; i < 20000; i++) {
        bytes[i] = (char)rng_below(&r, 256);
        if (bytes[i] == '/' || bytes[i] == '.') bytes[i] = 1; /* no paths by chance */
        n_lines += bytes[i] == '\n';
    }
    bytes[20000] = '\n';
    child_write(&c, bytes, 20001);
    for (int i = 0; i <= n_lines; i++) {
        child_expect(&c, "err ");
        assert_int_equal(child_token(&c), END);
    }
    ask(&c);
    child_write(&c, temp_file("raw"), strlen(temp_dir)); /* the end comes within a line */
    close_fd(&c.in);
    child_expect(&c, "err incomplete");
    assert_int_equal(child_token(&c), END);
    assert_int_equal(child_finish(&c), 0);
}

static void ways_to_end(void **state)
{
    (void)state;
    static const char *const words[] = {"quit", "exit"};
    for (int i = 0; i < 2; i++) {
        child c = start(NULL);
        char line[64];
        child_send(&c, "nonsense\n%s\nnonsense", words[i]);
        child_expect(&c, "err unknown_command");
        assert_false(child_line(&c, line, sizeof line)); /* nothing after it is done */
        assert_int_equal(child_token(&c), END);
        assert_int_equal(child_token(&c), NO_STREAM);
        assert_int_equal(child_wait(&c), 0);
    }
    child c = start(NULL);
    assert_int_equal(child_finish(&c), 0);
}

/* ---- cancelling, signals ---- */

/* A text that goes on to the end of the context, of which a few tokens came. */
static void start_long(child *c)
{
    child_send(c, "%s/raw 2000", temp_dir);
    for (int i = 0; i < 5; i++) assert_true(child_token(c) >= 0);
}

static void expect_cancelled(child *c)
{
    char line[128];
    int gen, n = 5;
    for (int32_t t; (t = child_token(c)) != END; n++) assert_true(t >= 0);
    assert_true(child_line(c, line, sizeof line));
    if (sscanf(line, "err cancelled gen=%d", &gen) != 1) fail_msg("'%s'", line);
    assert_int_equal(gen, n); /* every token that was counted came */
    assert_true(n < 1500);
}

static void cancel_and_interrupt(void **state)
{
    (void)state;
    child c = start((const char *const[]){"--ignore-eos", NULL});
    child_send(&c, "cancel"); /* nothing runs: no effect, no reply */
    start_long(&c);
    child_send(&c, "cancel");
    expect_cancelled(&c);
    start_long(&c);
    kill(c.pid, SIGINT);
    expect_cancelled(&c);
    child_send(&c, "%s/raw 2000\ncancel", temp_dir); /* at once */
    int n = 0;
    for (int32_t t; (t = child_token(&c)) != END; n++) assert_true(t >= 0);
    child_expect(&c, "err cancelled gen=");
    assert_true(n < 20);
    child_send(&c, "%s/raw 3", temp_dir);
    int32_t got[4];
    assert_int_equal(child_tokens(&c, got, 4), 3);
    assert_memory_equal(got, answer, sizeof *got * 3);
    child_expect(&c, "ok N=19 gen=3 ");
    kill(c.pid, SIGINT); /* nothing runs: it ends */
    assert_int_equal(child_wait(&c), 130);
}

/* A text of one token whose prompt stands in the session needs no step in which its cancellation could be seen: the
 * next command is not touched by it. */
static void a_cancellation_that_comes_late_is_forgotten(void **state)
{
    (void)state;
    int32_t got[4];
    char line[128];
    child c = start(NULL);
    for (int i = 0; i < 6; i++) {
        child_send(&c, "%s/raw 1", temp_dir);
        assert_int_equal(child_tokens(&c, got, 4), 1);
        child_expect(&c, "ok N=19 gen=1 ");
        child_send(&c, "%s/raw %d\ncancel", temp_dir, 1 + i % 2);
        child_tokens(&c, got, 4);
        assert_true(child_line(&c, line, sizeof line));
        assert_true(strncmp(line, "ok N=19 gen=", 12) == 0 || strncmp(line, "err cancelled gen=", 18) == 0);
        ask(&c);
    }
    assert_int_equal(child_finish(&c), 0);
}

static void terminate(void **state)
{
    (void)state;
    char line[64];
    child c = start((const char *const[]){"--ignore-eos", NULL});
    start_long(&c);
    child_send(&c, "%s/raw 3", temp_dir); /* waits, and is not begun */
    nanosleep(&(struct timespec){0, 50000000}, NULL);
    kill(c.pid, SIGTERM);
    expect_cancelled(&c);
    assert_false(child_line(&c, line, sizeof line));
    assert_int_equal(child_token(&c), NO_STREAM);
    assert_int_equal(child_wait(&c), 0);
    child d = start(NULL);
    kill(d.pid, SIGTERM);
    assert_int_equal(child_wait(&d), 0);
}

/* ---- readers ---- */

static void a_closed_stream_ends_a_generation(void **state)
{
    (void)state;
    char want[64];
    child c = start((const char *const[]){"--ignore-eos", NULL});
    start_long(&c);
    close_fd(&c.stream);
    snprintf(want, sizeof want, "err io errno=%d fd=%d gen=", EPIPE, STREAM_FD);
    child_expect(&c, want);
    child_send(&c, "%s/raw 3", temp_dir);
    child_expect(&c, "err no_stream_fd");
    child_send(&c, "generate %s/counted 3 %s/out", temp_dir, temp_dir);
    child_expect(&c, "ok N=19 gen=3 ");
    assert_int_equal(child_finish(&c), 0);
}

static void closed_replies_end_the_daemon(void **state)
{
    (void)state;
    child c = start((const char *const[]){"--ignore-eos", NULL});
    start_long(&c);
    close_fd(&c.out);
    assert_int_equal(child_wait(&c), 0);
    child d = start(NULL);
    close_fd(&d.out); /* nothing runs */
    assert_int_equal(child_wait(&d), 0);
}

/* What nobody reads waits in the pipe and in 16 kB beside it; then the engine waits, too, for a while. */
static void a_slow_reader_does_not_cost_memory(void **state)
{
    (void)state;
    enum { N_GEN = 8000 };
    static int32_t all[N_GEN + 1], some[N_GEN + 1];
    char line[128];
    int gen;
    child c = start_with(true, NULL,
                         (const char *const[]){"-c", "8192", "--cache", "0", "--ignore-eos", "--stall-timeout", "1",
                                               "--spec", "ngram", NULL});
    child_expect(&c, "[gemma4-daemon] ready ");
    assert_true(fcntl(c.stream, F_SETPIPE_SZ, 4096) >= 4096);
    child_send(&c, "%s/raw %d", temp_dir, N_GEN); /* read at once: now the cache has its size */
    assert_int_equal(child_tokens(&c, all, N_GEN + 1), N_GEN);
    child_expect(&c, "ok N=19 gen=8000 ");
    const long before = child_rss_kb(&c);
    child_send(&c, "%s/raw %d", temp_dir, N_GEN);
    assert_true(child_line(&c, line, sizeof line)); /* nobody reads the stream: it gives up */
    if (sscanf(line, "err slow_reader gen=%d", &gen) != 1) fail_msg("'%s'", line);
    assert_true(gen > 4096 && gen < 6000);
    assert_true(child_rss_kb(&c) - before < 1024);
    assert_int_equal(child_tokens(&c, some, N_GEN + 1), gen); /* what was generated is still there */
    assert_memory_equal(some, all, (size_t)gen * sizeof *some);
    child_send(&c, "%s/raw %d", temp_dir, N_GEN); /* slow, but not too slow */
    for (int i = 0; i < N_GEN; i++) {
        if (i % 1000 == 0) nanosleep(&(struct timespec){0, 300000000}, NULL);
        assert_int_equal(child_token(&c), all[i]);
    }
    assert_int_equal(child_token(&c), END);
    child_expect(&c, "ok N=19 gen=8000 ");
    assert_int_equal(child_finish(&c), 0);
}

/* Replies that nobody reads are bounded, too, and so is what is read ahead. */
static void unread_replies_hold_the_daemon_up(void **state)
{
    (void)state;
    child c = start_with(false, NULL, NULL);
    child_expect(&c, "[gemma4-daemon] ready ");
    static char lines[1 << 16];
    for (size_t i = 0; i < sizeof lines; i++) lines[i] = i % 2 ? '\n' : 'x';
    assert_int_equal(fcntl(c.in, F_SETFL, O_NONBLOCK), 0);
    const long before = child_rss_kb(&c);
    long n = 0;
    for (int idle = 0; idle < 30;) { /* until it reads no more */
        const ssize_t k = write(c.in, lines, sizeof lines);
        if (k > 0) n += k;
        idle = k > 0 ? 0 : idle + 1;
        if (k <= 0) nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    assert_true(n > 50000);
    print_message("%ld bytes of commands; resident %ld kB before, %ld kB after\n", n, before, child_rss_kb(&c));
    assert_true(child_rss_kb(&c) - before < 8192);
    assert_int_equal(n % 2, 0);
    assert_int_equal(fcntl(c.in, F_SETFL, 0), 0);
    close_fd(&c.in);
    for (long i = 0; i < n / 2; i++) child_expect(&c, "err unknown_command");
    assert_int_equal(child_finish(&c), 0);
}

/* ---- starting ---- */

static void stray_output_does_not_reach_the_protocol(void **state)
{
    (void)state;
    if (strstr(FACET_TEST_FLAGS, "-fsanitize")) {
        print_message("skipped: a sanitizer must be the first library that is loaded\n");
        skip();
    }
    char environment[512];
    snprintf(environment, sizeof environment, "LD_PRELOAD=%s", FACET_BINARY_DIR "/tests/libstray.so");
    child c = start_with(true, environment, (const char *const[]){"--verbose", NULL});
    child_expect(&c, "[gemma4-daemon] ready n_layer=6 ");
    for (int i = 0; i < 3; i++) ask(&c);
    for (int i = 0; i < N_REFUSED; i++) { /* every warning that there is */
        char line[512];
        fill_in(line, sizeof line, refused[i].line);
        child_send(&c, "%s", line);
        child_expect(&c, refused[i].reply);
        if (refused[i].has_end) assert_int_equal(child_token(&c), END);
    }
    assert_true(child_has_logged(&c, "ok stray printf\n"));
    assert_true(child_has_logged(&c, "err stray write\n"));
    assert_int_equal(child_finish(&c), 0);
}

static void as_other_daemons_are_started(void **state)
{
    (void)state;
    child c = child_start(true, NULL,
                          (const char *const[]){FACET, MODEL, MTP, "--daemon", "--fast-rollback", "--ddtree",
                                                "--ddtree-budget=16", "--max-ctx=1024", "--stream-fd=9",
                                                "--ddtree-temp=1.0", "--ddtree-no-chain-seed", NULL});
    child_expect(&c, "[gemma4-daemon] ready n_layer=6 n_embd=256 vocab=2048 max_ctx=1024 draft=mtp sparse_fa=0");
    ask(&c);
    assert_int_equal(child_finish(&c), 0);
    c = child_start(true, "DFLASH27B_KV_K=q8_0",
                    (const char *const[]){FACET, "daemon", MODEL, DFLASH, "--stream-fd=9", "--ddtree", NULL});
    child_expect(&c, "[gemma4-daemon] ready n_layer=6 n_embd=256 vocab=2048 max_ctx=16384 draft=dflash ");
    ask(&c);
    assert_int_equal(child_finish(&c), 0);
    c = start_with(true, NULL, (const char *const[]){"--sparse-mass", "0.999", NULL});
    child_expect(&c, "[gemma4-daemon] ready n_layer=6 n_embd=256 vocab=2048 max_ctx=2048 draft=none sparse_fa=1");
    ask(&c);
    assert_int_equal(child_finish(&c), 0);
}

static const struct {
    const char *environment;
    const char *args[4];
    const char *message;
    int status;
} wrong_usage[] = {
    {NULL, {"--stream-fd=77"}, "--stream-fd: 77 is not a descriptor that can be written to", 2},
    {NULL, {"--stream-fd=1"}, "--stream-fd: 1 is a standard descriptor", 2},
    {NULL, {"--protocol", "xml"}, "--protocol: 'xml' is not lines or json", 2},
    {NULL, {"--samp=nan"}, "--samp=: field 1 (temperature) is 'nan'", 2},
    {NULL, {"--sessions", "0"}, "--sessions: '0'", 2},
    {NULL, {"--target-gpus=0,1"}, "there is no option --target-gpus=0,1", 2},
    {NULL, {MODEL, MTP, "third"}, "'third': a model and a draft model, no more", 2},
    {NULL, {"-m", "/nonexistent.gguf"}, "/nonexistent.gguf: cannot open", 1},
    {"DFLASH27B_KV_V=q3", {"-m", MODEL}, "cache type of V 'q3': supported are", 2},
    {"DFLASH_MTP_GAMMA=x", {"-m", MODEL}, "(from the environment variable DFLASH_MTP_GAMMA)", 2},
};

static void wrong_starts_are_told(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong_usage / sizeof *wrong_usage; i++) {
        const char *args[8] = {FACET, "daemon"};
        char line[64];
        for (int k = 0; k < 4; k++) args[2 + k] = wrong_usage[i].args[k];
        child c = child_start(false, wrong_usage[i].environment, args);
        assert_false(child_line(&c, line, sizeof line));
        if (!child_has_logged(&c, wrong_usage[i].message)) fail_msg("not told: %s", wrong_usage[i].message);
        assert_int_equal(child_wait(&c), wrong_usage[i].status);
    }
}

/* ---- long runs ---- */

static void park_for_a_while(child *c)
{
    child_send(c, "park");
    assert_int_equal(child_token(c), END);
    child_send(c, "%s/raw 5", temp_dir);
    child_expect(c, "err target_parked");
    assert_int_equal(child_token(c), END);
    child_send(c, "unpark");
    assert_int_equal(child_token(c), END);
}

static void use_slots(child *c, rng *r)
{
    char line[512], want[64];
    const int slot = (int)rng_below(r, 4), what = (int)rng_below(r, 5);
    if (what == 0) {
        child_send(c, "SNAPSHOT %d", slot);
        snprintf(want, sizeof want, "[snap] inline slot=%d cur_pos=", slot);
        child_expect(c, want);
    } else if (what == 1) {
        child_send(c, "FREE_SNAPSHOT %d\nLIST_SLOTS", slot);
        snprintf(want, sizeof want, "[snap] freed slot=%d", slot);
        child_expect(c, want);
        child_expect(c, "[snap] slots=");
    } else if (what == 2) {
        park_for_a_while(c);
    } else {
        child_send(c, "RESTORE %d %s/raw 40", slot, temp_dir);
        assert_true(child_line(c, line, sizeof line));
        if (strncmp(line, "ok N=19 gen=12 prefix_len=", 26) == 0) {
            expect_answer(c);
        } else {
            assert_string_equal(line, "err empty_slot");
            assert_int_equal(child_token(c), END);
        }
    }
}

/* One random command, and its replies. */
static void do_something(child *c, rng *r)
{
    char line[512], got[512];
    int32_t tokens[64];
    const uint32_t what = rng_below(r, 13);
    if (what < 5) {
        const int i = (int)rng_below(r, N_REFUSED);
        fill_in(line, sizeof line, refused[i].line);
        child_send(c, "%s", line);
        child_expect(c, refused[i].reply);
        if (refused[i].has_end) assert_int_equal(child_token(c), END);
    } else if (what < 7) {
        ask(c);
    } else if (what < 8) {
        child_send(c, "%s/raw %d samp=0.8,0.9,40,1.1,%d\ncancel", temp_dir, 1 + (int)rng_below(r, 30),
                   1 + (int)rng_below(r, 1000));
        child_tokens(c, tokens, 64);
        assert_true(child_line(c, got, sizeof got));
        assert_true(strncmp(got, "ok N=19 gen=", 12) == 0 || strncmp(got, "err cancelled gen=", 18) == 0);
    } else if (what < 9) {
        child_send(c, "generate %s/counted %d %s/out", temp_dir, 1 + (int)rng_below(r, 30), temp_dir);
        child_expect(c, "ok N=19 gen=");
    } else if (what < 12) {
        use_slots(c, r);
    } else {
        static char bytes[100000];
        const size_t n = rng_below(r, sizeof bytes);
        memset(bytes, 'z', n);
        bytes[n] = '\n';
        child_write(c, bytes, n + 1);
        child_expect(c, "err ");
        assert_int_equal(child_token(c), END);
    }
}

/* FACET_SOAK_S=600 for the long one. Until N_SETTLED commands the cache fills. */
enum { N_SETTLED = 300 };

static void random_commands_for_long(void **state)
{
    (void)state;
    const char *seconds = getenv("FACET_SOAK_S");
    const time_t until = time(NULL) + (seconds ? atol(seconds) : 5);
    child c = start_with(true, NULL, (const char *const[]){"-md", MTP, "--cache", "4", NULL});
    child_expect(&c, "[gemma4-daemon] ready ");
    rng r;
    rng_seed(&r, 11);
    long n = 0;
    for (; n < N_SETTLED; n++) do_something(&c, &r);
    const long rss = child_rss_kb(&c);
    const int n_fds = child_n_fds(&c);
    while (time(NULL) < until) {
        do_something(&c, &r);
        n++;
    }
    print_message("%ld commands; resident %ld kB after %d of them, %ld kB at the end\n", n, rss, N_SETTLED,
                  child_rss_kb(&c));
    assert_true(child_rss_kb(&c) - rss < 2048);
    assert_int_equal(child_n_fds(&c), n_fds);
    assert_int_equal(child_finish(&c), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bare_prompts),
        cmocka_unit_test(files_of_ids),
        cmocka_unit_test(bad_commands_are_refused),
        cmocka_unit_test(without_a_stream),
        cmocka_unit_test(sampling),
        cmocka_unit_test(snapshots),
        cmocka_unit_test(chains_of_snapshots),
        cmocka_unit_test(bad_slot_commands_are_refused),
        cmocka_unit_test(parking),
        cmocka_unit_test(everything_at_once),
        cmocka_unit_test(strange_lines),
        cmocka_unit_test(ways_to_end),
        cmocka_unit_test(cancel_and_interrupt),
        cmocka_unit_test(a_cancellation_that_comes_late_is_forgotten),
        cmocka_unit_test(terminate),
        cmocka_unit_test(a_closed_stream_ends_a_generation),
        cmocka_unit_test(closed_replies_end_the_daemon),
        cmocka_unit_test(a_slow_reader_does_not_cost_memory),
        cmocka_unit_test(unread_replies_hold_the_daemon_up),
        cmocka_unit_test(stray_output_does_not_reach_the_protocol),
        cmocka_unit_test(as_other_daemons_are_started),
        cmocka_unit_test(wrong_starts_are_told),
        cmocka_unit_test(random_commands_for_long),
    };
    return cmocka_run_group_tests_name("daemon, line protocol", tests, begin, temp_dir_remove);
}
