/* The n-th allocation of a daemon at work fails, for n = 1, 2, … to the last, in both protocols: every request has its
 * one end, what is written are whole replies, nothing is left behind, and the engine answers as ever. The daemon runs
 * in this process, from a pipe that holds all its commands to a file that takes its replies. */
#define _GNU_SOURCE /* memfd_create */
#include "testing.h"

#include <jansson.h>
#include <sys/mman.h>

#include "base/mem.h"
#include "decode/snapshot.h"
#include "serve/daemon.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define QUESTION "<bos><|turn>user\nWhat is 82 - 61?<turn|>\n<|turn>model\n"
#define ANSWER "82 - 61 = 21."

enum { MAX_OUT = 1 << 16 };

static facet_model *model;
static facet_engine *engine;
static char prompt_path[64];
static char out[MAX_OUT];
static int32_t stream[4096];
static size_t n_stream;

/* Runs the daemon over the lines; out and stream are what it wrote. */
static facet_status run(daemon_protocol protocol, const char *lines, uint64_t fail_at, bool *is_past)
{
    int in[2];
    facet_error err = {FACET_OK, ""};
    const int replies = memfd_create("replies", 0), tokens = memfd_create("tokens", 0);
    assert_true(replies >= 0 && tokens >= 0 && pipe(in) == 0);
    assert_int_equal(write(in[1], lines, strlen(lines)), strlen(lines));
    close(in[1]);
    daemon_config c = daemon_config_default(protocol);
    c.engine = engine;
    c.in_fd = in[0];
    c.out_fd = replies;
    c.stream_fd = protocol == DAEMON_LINES ? tokens : -1;
    mem_fail_at(fail_at);
    const facet_status status = daemon_run(&c, NULL, &err);
    const uint64_t n = mem_fail_at(0);
    *is_past = n < fail_at || fail_at == 0;
    const ssize_t k = pread(replies, out, MAX_OUT - 1, 0), t = pread(tokens, stream, sizeof stream, 0);
    assert_true(k >= 0 && t >= 0 && t % 4 == 0);
    out[k] = 0;
    n_stream = (size_t)t / 4;
    close(in[0]);
    close(replies);
    close(tokens);
    if (status != FACET_OK && (status != FACET_ERR_MEMORY || !strstr(err.message, "out of memory")))
        fail_msg("status %d: %s", (int)status, err.message);
    return status;
}

/* ---- JSON ---- */

static const char requests[] = "{\"id\":1,\"op\":\"generate\",\"text\":\"<|turn>user\\nWhat is 82 - "
                               "61?<turn|>\\n<|turn>model\\n\",\"stop\":\"xyz\","
                               "\"snapshot\":{\"slot\":1,\"tokens\":8}}\n"
                               "{\"id\":2,\"op\":\"snapshot\",\"slot\":2}\n"
                               "{\"id\":3,\"op\":\"generate\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
                               "\"n_predict\":2,\"stream\":false,"
                               "\"temperature\":1,\"logit_bias\":[[410,1.5]],\"restore\":{\"slot\":1}}\n"
                               "{\"id\":4,\"op\":\"list_snapshots\"}\n"
                               "{\"id\":5,\"op\":\"tokenize\",\"text\":\"abc\"}\n"
                               "{\"id\":6,\"op\":\"status\"}\n"
                               "{\"id\":7,\"op\":\"nonsense\"}\n"
                               "{\"id\":8,\"op\":\"free_snapshot\",\"slot\":\"all\"}\n";
enum { N_REQUESTS = 8 };

/* Whole objects, and one end for each request: of its id, or of none where memory was short for it. */
static void check_events(void)
{
    int n_ends = 0, n_known[N_REQUESTS + 1] = {0};
    char *save;
    for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(o)) fail_msg("no object: %s", line);
        const char *kind = json_string_value(json_object_get(o, "event"));
        const json_t *id = json_object_get(o, "id");
        assert_non_null(kind);
        if (strcmp(kind, "done") == 0 || strcmp(kind, "result") == 0 || strcmp(kind, "error") == 0) {
            if (json_is_integer(id)) n_known[json_integer_value(id)]++;
            n_ends++;
        }
        json_decref(o);
    }
    /* "start", "tokens" and "ready" may be the one that memory was short for */
    if (n_ends != N_REQUESTS && n_ends != N_REQUESTS + 1) fail_msg("%d ends", n_ends);
    for (int i = 1; i <= N_REQUESTS; i++) assert_true(n_known[i] <= 1);
}

/* ---- lines ---- */

static char commands[1024];

static void check_replies(void)
{
    char *save;
    int n = 0;
    for (char *line = strtok_r(out, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, "[gemma4-daemon] ready ", 22) != 0) n++;
        assert_true(strncmp(line, "ok ", 3) == 0 || strncmp(line, "err ", 4) == 0 || strncmp(line, "[", 1) == 0);
    }
    assert_int_equal(n, 6);
    size_t n_ends = 0;
    for (size_t i = 0; i < n_stream; i++) n_ends += stream[i] == -1;
    assert_int_equal(n_ends, 3);
}

/* ---- each allocation ---- */

static void check_answer(void)
{
    bool is_past;
    assert_int_equal(
        run(DAEMON_JSON,
            "{\"id\":1,\"op\":\"generate\",\"stream\":false,\"text\":\"<|turn>user\\nWhat is 82 - 61?<turn|>\\n"
            "<|turn>model\\n\"}\n",
            0, &is_past),
        FACET_OK);
    if (!strstr(out, "\"text\":\"" ANSWER "\"")) fail_msg("%s", out);
}

static void fail_each(daemon_protocol protocol, const char *lines, void (*check)(void), int least)
{
    bool is_past = false;
    uint64_t k = 0;
    run(protocol, lines, 0, &is_past); /* what the engine keeps for later is kept now */
    snapshot_free_all(engine);
    const int64_t live = mem_n_live();
    for (is_past = false; !is_past;) {
        const facet_status status = run(protocol, lines, ++k, &is_past);
        if (status == FACET_OK) check();
        snapshot_free_all(engine);
        if (mem_n_live() != live) fail_msg("allocation %d: %d blocks are left", (int)k, (int)(mem_n_live() - live));
        if (k % 64 == 0) check_answer();
    }
    check_answer();
    print_message("%d allocations\n", (int)k - 1);
    assert_true((int)k - 1 >= least);
}

static void json_protocol(void **state)
{
    (void)state;
    fail_each(DAEMON_JSON, requests, check_events, 115);
}

static void line_protocol(void **state)
{
    (void)state;
    snprintf(
        commands, sizeof commands,
        "%s 4 snap=8:1 samp=0.5,0.9,20,1.1,3\nSNAPSHOT 2\nRESTORE 1 %s 3\n LIST_SLOTS\nnonsense\nFREE_SNAPSHOT 1\n",
        prompt_path, prompt_path);
    fail_each(DAEMON_LINES, commands, check_replies, 60);
}

static int begin(void **state)
{
    (void)state;
    facet_error err;
    int32_t *ids;
    size_t n;
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.n_ctx = 512;
    p.cache_bytes = 1 << 22;
    assert_ok(facet_model_open(MODEL, &model, &err), err);
    assert_ok(facet_engine_open(model, &p, &engine, &err), err);
    assert_ok(facet_tokenize(model, QUESTION, strlen(QUESTION), true, true, &ids, &n, &err), err);
    snprintf(prompt_path, sizeof prompt_path, "/tmp/facet-faults-XXXXXX");
    const int fd = mkstemp(prompt_path);
    assert_int_equal(write(fd, ids, n * sizeof *ids), n * sizeof *ids);
    close(fd);
    facet_free(ids);
    return 0;
}

static int end(void **state)
{
    (void)state;
    unlink(prompt_path);
    facet_engine_close(engine);
    facet_model_close(model);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_protocol),
        cmocka_unit_test(line_protocol),
    };
    return cmocka_run_group_tests_name("daemon, allocation faults", tests, begin, end);
}
