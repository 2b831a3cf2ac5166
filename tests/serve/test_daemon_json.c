/* The JSON protocol, spoken with the daemon as a child process. */
#define _GNU_SOURCE /* F_SETPIPE_SZ */
#include "serve/daemon_events.h"

#include "base/rng.h"

#define ANSWER "82 - 61 = 21."

static int32_t prompt[64], answer[16]; /* the answer without its end token */
static int n_prompt, n_answer;

/* ---- talking ---- */

static child start(const char *const *more)
{
    const char *args[32] = {FACET, "daemon", "-m", MODEL,  "--device",   "cpu",
                            "-t",  "2",      "-c", "2048", "--protocol", "json"};
    for (int n = 12; more && *more; more++) args[n++] = *more;
    return child_start(false, NULL, args);
}

static void ready(child *c)
{
    json_t *o = event(c);
    assert_string_equal(text_of(o, "event"), "ready");
    json_decref(o);
}

/* A generation's events up to its end: tokens and text add up. Returns "done" or "error". */
typedef struct text {
    int32_t ids[4096];
    int n;
    char text[1 << 15];
} text;

static json_t *collect(child *c, const char *id, text *out)
{
    out->n = 0;
    out->text[0] = 0;
    for (;;) {
        json_t *o = event(c);
        assert_non_null(o);
        assert_string_equal(text_of(o, "id"), id);
        const char *kind = text_of(o, "event");
        if (strcmp(kind, "done") == 0 || strcmp(kind, "error") == 0) return o;
        if (strcmp(kind, "tokens") == 0) {
            size_t i;
            json_t *t;
            assert_int_equal(int_of(o, "index"), out->n);
            json_array_foreach(json_object_get(o, "tokens"), i, t) out->ids[out->n++] = (int32_t)json_integer_value(t);
            strcat(out->text, text_of(o, "text"));
        } else {
            assert_true(strcmp(kind, "start") == 0 || strcmp(kind, "progress") == 0);
        }
        json_decref(o);
    }
}

static void expect_answer(child *c, const char *id, json_t **done)
{
    static text t;
    json_t *o = collect(c, id, &t);
    if (strcmp(text_of(o, "event"), "done") != 0) dump(o);
    assert_string_equal(text_of(o, "reason"), "eos");
    assert_string_equal(t.text, ANSWER);
    assert_int_equal(t.n, n_answer);
    assert_memory_equal(t.ids, answer, (size_t)n_answer * sizeof *answer);
    if (done)
        *done = o;
    else
        json_decref(o);
}

static char ids_text[1024]; /* "[2,105,...]" */

static void learn_answer(void)
{
    facet_error err;
    facet_model *m;
    int32_t *ids;
    size_t n, at = 0;
    assert_ok(facet_model_open(MODEL, &m, &err), err);
    assert_ok(facet_tokenize(m, QUESTION, strlen(QUESTION), true, true, &ids, &n, &err), err);
    for (size_t i = 0; i < n; i++) {
        prompt[i] = ids[i];
        at += (size_t)snprintf(ids_text + at, sizeof ids_text - at, "%s%d", i ? "," : "[", ids[i]);
    }
    strcat(ids_text, "]");
    n_prompt = (int)n;
    facet_free(ids);
    assert_ok(facet_tokenize(m, ANSWER, strlen(ANSWER), false, true, &ids, &n, &err), err);
    facet_free(ids);
    facet_model_close(m);
    child c = start(NULL);
    ready(&c);
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    static text t;
    json_t *o = collect(&c, "a", &t);
    assert_string_equal(t.text, ANSWER);
    n_answer = t.n;
    memcpy(answer, t.ids, (size_t)t.n * sizeof *answer);
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

static int begin(void **state)
{
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(temp_dir_make(state), 0);
    learn_answer();
    write_file(temp_file("raw"), prompt, (size_t)n_prompt * sizeof *prompt);
    return 0;
}

/* ---- generations ---- */

static void the_first_line_tells_what_there_is(void **state)
{
    (void)state;
    child c = start((const char *const[]){"-md", MTP, "--sessions", "3", NULL});
    json_t *o = event(&c), *model = json_object_get(o, "model"), *limits = json_object_get(o, "limits");
    assert_string_equal(text_of(o, "event"), "ready");
    assert_int_equal(int_of(o, "protocol"), 1);
    assert_string_equal(text_of(o, "version"), facet_version());
    assert_string_equal(text_of(o, "device"), "cpu");
    assert_int_equal(int_of(model, "vocab"), 2048);
    assert_int_equal(int_of(model, "bos"), 2);
    assert_int_equal(int_of(limits, "ctx"), 2048);
    assert_int_equal(int_of(limits, "sessions"), 3);
    assert_int_equal(int_of(limits, "slots"), 64);
    assert_string_equal(json_string_value(json_array_get(json_object_get(o, "drafters"), 0)), "mtp");
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

static void prompts_of_every_kind(void **state)
{
    (void)state;
    child c = start(NULL);
    ready(&c);
    json_t *done;
    child_send(&c, "{\"id\":\"t\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    expect_answer(&c, "t", &done);
    const json_t *usage = json_object_get(done, "usage"), *timings = json_object_get(done, "timings");
    assert_int_equal(int_of(usage, "prompt_tokens"), n_prompt);
    assert_int_equal(int_of(usage, "reused_tokens"), 0);
    assert_int_equal(int_of(usage, "completion_tokens"), n_answer);
    assert_int_equal(int_of(done, "session_tokens"), n_prompt + n_answer);
    assert_int_equal(int_of(done, "end_token"), 106);
    assert_true(json_real_value(json_object_get(timings, "decode_ms")) > 0);
    assert_true(json_real_value(json_object_get(timings, "first_token_ms")) > 0);
    assert_string_equal(text_of(json_object_get(done, "speculation"), "method"), "none");
    json_decref(done);
    child_send(&c, "{\"id\":\"x\",\"op\":\"generate\",\"text\":\"<bos><|turn>user\\nWhat is 82 - 61?<turn|>\\n<|turn>"
                   "model\\n\"}");
    expect_answer(&c, "x", &done);
    assert_true(int_of(json_object_get(done, "usage"), "reused_tokens") >= n_prompt - 1); /* the same once more */
    json_decref(done);
    child_send(&c, "{\"id\":\"f\",\"op\":\"generate\",\"file\":\"%s/raw\"}", temp_dir);
    expect_answer(&c, "f", NULL);
    static text t;
    child_send(&c, "{\"id\":\"m\",\"op\":\"generate\",\"messages\":[{\"role\":\"user\",\"content\":\"What is 82 - "
                   "61?\"}]}");
    json_t *o = collect(&c, "m", &t);
    assert_string_equal(t.text, ANSWER);
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

static void whole_answers(void **state)
{
    (void)state;
    child c = start(NULL);
    ready(&c);
    child_send(&c, "{\"id\":7,\"op\":\"generate\",\"tokens\":%s,\"stream\":false}", ids_text);
    json_t *o = event(&c);
    assert_string_equal(text_of(o, "event"), "done");
    assert_int_equal(int_of(o, "id"), 7);
    assert_string_equal(text_of(o, "text"), ANSWER);
    assert_int_equal(json_array_size(json_object_get(o, "tokens")), n_answer);
    json_decref(o);
    child_send(&c, "{\"id\":\"s\",\"op\":\"generate\",\"tokens\":%s,\"stop\":\" = \",\"stream\":false}", ids_text);
    o = expect(&c, "s", "done");
    assert_string_equal(text_of(o, "text"), "82 - 61");
    assert_string_equal(text_of(o, "reason"), "stop");
    json_decref(o);
    child_send(&c, "{\"id\":\"l\",\"op\":\"generate\",\"tokens\":%s,\"n_predict\":3,\"stream\":false}", ids_text);
    o = expect(&c, "l", "done");
    assert_string_equal(text_of(o, "reason"), "length");
    assert_null(json_object_get(o, "end_token"));
    json_decref(o);
    child_send(&c,
               "{\"id\":\"b\",\"op\":\"generate\",\"tokens\":%s,\"n_predict\":2,\"stream\":false,\"logit_bias\":[[%d,"
               "-1e9]]}",
               ids_text, answer[0]);
    o = expect(&c, "b", "done");
    assert_true(json_integer_value(json_array_get(json_object_get(o, "tokens"), 0)) != answer[0]);
    json_decref(o);
    child_send(&c,
               "{\"id\":\"g\",\"op\":\"generate\",\"tokens\":%s,\"n_predict\":60,\"stream\":false,\"json_schema\":{"
               "\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":9}},"
               "\"required\":[\"n\"],\"additionalProperties\":false}}",
               ids_text);
    o = expect(&c, "g", "done");
    json_t *made = json_loads(text_of(o, "text"), 0, NULL);
    if (!json_is_integer(json_object_get(made, "n"))) dump(o);
    assert_true(json_is_integer(json_object_get(made, "n")));
    json_decref(made);
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

static void progress_and_speculation(void **state)
{
    (void)state;
    child c = start((const char *const[]){"-md", MTP, NULL});
    ready(&c);
    char list[16000] = "[2";
    for (int i = 1; i < 1500; i++) snprintf(list + strlen(list), 16, ",%d", 200 + i % 900);
    strcat(list, "]");
    const char head[] = "{\"id\":\"p\",\"op\":\"generate\",\"progress\":true,\"n_predict\":1,\"tokens\":";
    child_write(&c, head, strlen(head));
    child_write(&c, list, strlen(list));
    child_write(&c, "}\n", 2);
    int n_progress = 0;
    for (bool is_over = false; !is_over;) {
        json_t *o = event(&c);
        if (strcmp(text_of(o, "event"), "progress") == 0) {
            assert_string_equal(text_of(o, "phase"), "prefill");
            assert_int_equal(int_of(o, "total"), 1500);
            n_progress++;
        }
        is_over = strcmp(text_of(o, "event"), "done") == 0;
        json_decref(o);
    }
    assert_true(n_progress >= 1);
    json_t *done;
    child_send(
        &c,
        "{\"id\":\"s\",\"op\":\"generate\",\"tokens\":%s,\"speculation\":{\"method\":\"mtp\",\"adaptive\":\"off\","
        "\"mtp_gamma\":2}}",
        ids_text);
    expect_answer(&c, "s", &done);
    const json_t *spec = json_object_get(done, "speculation");
    assert_string_equal(text_of(spec, "method"), "mtp");
    assert_true(int_of(spec, "drafted") > 0);
    json_decref(done);
    child_send(&c, "{\"id\":\"n\",\"op\":\"generate\",\"tokens\":%s,\"speculation\":{\"method\":\"none\"}}", ids_text);
    expect_answer(&c, "n", &done);
    assert_int_equal(int_of(json_object_get(done, "speculation"), "drafted"), 0);
    json_decref(done);
    assert_int_equal(child_finish(&c), 0);
    c = start((const char *const[]){"-md", MTP, "--spec", "none", NULL}); /* unless a request wants drafts */
    ready(&c);
    child_send(&c, "{\"id\":\"d\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    expect_answer(&c, "d", &done);
    assert_int_equal(int_of(json_object_get(done, "speculation"), "drafted"), 0);
    json_decref(done);
    child_send(&c, "{\"id\":\"e\",\"op\":\"generate\",\"tokens\":%s,\"speculation\":{\"method\":\"mtp\"}}", ids_text);
    expect_answer(&c, "e", &done);
    assert_true(int_of(json_object_get(done, "speculation"), "drafted") > 0);
    json_decref(done);
    assert_int_equal(child_finish(&c), 0);
}

/* ---- many at a time ---- */

enum { N_TEXTS = 4 };

static void send_text(const child *c, const char *id, int session, int seed)
{
    child_send(c,
               "{\"id\":\"%s\",\"op\":\"generate\",\"tokens\":%s,\"session\":%d,\"seed\":%d,\"temperature\":3,"
               "\"n_predict\":40,\"ignore_eos\":true}",
               id, ids_text, session, seed);
}

static void sessions_run_beside_each_other(void **state)
{
    (void)state;
    static text alone[N_TEXTS];
    static char together[N_TEXTS][1 << 14];
    child c = start((const char *const[]){"--sessions", "4", NULL});
    ready(&c);
    for (int i = 0; i < N_TEXTS; i++) {
        send_text(&c, "x", 0, i + 1);
        json_decref(collect(&c, "x", &alone[i]));
    }
    for (int i = 0; i < N_TEXTS; i++) {
        char id[8];
        snprintf(id, sizeof id, "t%d", i);
        send_text(&c, id, i, i + 1);
    }
    send_text(&c, "w", 2, 3); /* waits for t2 */
    int n_left = N_TEXTS + 1, n_turns = 0, last = -1;
    static char again[1 << 14];
    bool is_t2_over = false;
    while (n_left > 0) {
        json_t *o = event(&c);
        const char *id = text_of(o, "id"), *kind = text_of(o, "event");
        const int i = id[0] == 't' ? id[1] - '0' : -1;
        if (strcmp(kind, "tokens") == 0) {
            n_turns += i != last;
            last = i;
            strcat(i >= 0 ? together[i] : again, text_of(o, "text"));
            if (i < 0) assert_true(is_t2_over);
        }
        if (strcmp(kind, "done") == 0) {
            assert_string_equal(text_of(o, "reason"), "length");
            if (i == 2) is_t2_over = true;
            n_left--;
        }
        json_decref(o);
    }
    for (int i = 0; i < N_TEXTS; i++) assert_string_equal(together[i], alone[i].text);
    assert_string_equal(again, alone[2].text);
    assert_true(n_turns > 20); /* their tokens come in turns */
    assert_int_equal(child_finish(&c), 0);
}

static void a_request_is_cancelled_by_its_id(void **state)
{
    (void)state;
    static text t;
    child c = start((const char *const[]){"--sessions", "2", NULL});
    ready(&c);
    send_text(&c, "keep", 1, 5);
    json_decref(collect(&c, "keep", &t));
    static char kept[1 << 14], want[1 << 14];
    strcpy(want, t.text);
    child_send(&c, "{\"id\":\"long\",\"op\":\"generate\",\"tokens\":%s,\"n_predict\":2000,\"ignore_eos\":true}",
               ids_text);
    send_text(&c, "keep", 1, 5);
    child_send(&c, "{\"id\":\"wait\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    int n_long = 0, n_over = 0, n_after = 0;
    bool is_sent = false, is_taken = false;
    while (n_over < 5) { /* long, keep, wait, two cancellations */
        json_t *o = event(&c);
        const char *id = text_of(o, "id"), *kind = text_of(o, "event");
        if (strcmp(kind, "tokens") == 0 && strcmp(id, "long") == 0) n_long++, n_after += is_taken;
        if (strcmp(kind, "tokens") == 0 && strcmp(id, "keep") == 0) strcat(kept, text_of(o, "text"));
        assert_false(strcmp(kind, "tokens") == 0 && strcmp(id, "wait") == 0);
        if (strcmp(kind, "done") == 0) {
            const bool is_kept = strcmp(id, "keep") == 0;
            assert_string_equal(text_of(o, "reason"), is_kept ? "length" : "cancelled");
            if (strcmp(id, "wait") == 0) assert_int_equal(int_of(json_object_get(o, "usage"), "completion_tokens"), 0);
            n_over++;
        }
        if (strcmp(kind, "result") == 0) {
            assert_true(json_is_true(json_object_get(json_object_get(o, "result"), "found")));
            is_taken |= json_integer_value(json_object_get(o, "id")) == 2;
            n_over++;
        }
        if (n_long == 3 && !is_sent) {
            child_send(&c, "{\"id\":1,\"op\":\"cancel\",\"target\":\"wait\"}\n{\"id\":2,\"op\":\"cancel\",\"target\":"
                           "\"long\"}");
            is_sent = true;
        }
        json_decref(o);
    }
    assert_true(n_long < 200);
    assert_true(n_after <= 1); /* the step that ran when the cancellation was taken */
    assert_string_equal(kept, want);
    child_send(&c, "{\"id\":\"c\",\"op\":\"cancel\",\"target\":\"nobody\"}");
    json_t *o = expect(&c, "c", "result");
    assert_true(json_is_false(json_object_get(json_object_get(o, "result"), "found")));
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

/* One waits for credit, the other goes on. */
static void credit(void **state)
{
    (void)state;
    static text t;
    child c = start((const char *const[]){"--sessions", "2", "--stall-timeout", "2", NULL});
    ready(&c);
    child_send(&c, "{\"id\":\"slow\",\"op\":\"generate\",\"tokens\":%s,\"ignore_eos\":true,\"credit\":5}", ids_text);
    int n = 0;
    while (n < 5) {
        json_t *o = event(&c);
        if (strcmp(text_of(o, "event"), "tokens") == 0) n += (int)json_array_size(json_object_get(o, "tokens"));
        json_decref(o);
    }
    assert_int_equal(n, 5);
    child_send(&c, "{\"id\":\"fast\",\"op\":\"generate\",\"tokens\":%s,\"session\":1}", ids_text);
    json_decref(collect(&c, "fast", &t)); /* none of the other's events in between */
    assert_string_equal(t.text, ANSWER);
    child_send(&c, "{\"id\":\"c\",\"op\":\"credit\",\"target\":\"slow\",\"tokens\":3}");
    json_t *o = expect(&c, "c", "result");
    assert_true(json_is_true(json_object_get(json_object_get(o, "result"), "found")));
    json_decref(o);
    for (bool is_over = false; !is_over; json_decref(o)) { /* three more, then nobody gives any */
        o = event(&c);
        if (strcmp(text_of(o, "event"), "tokens") == 0) n += (int)json_array_size(json_object_get(o, "tokens"));
        is_over = strcmp(text_of(o, "event"), "done") == 0;
        if (is_over) assert_string_equal(text_of(o, "reason"), "slow_reader");
    }
    assert_int_equal(n, 8);
    child_send(&c, "{\"id\":\"d\",\"op\":\"credit\",\"target\":\"slow\",\"tokens\":3}");
    o = expect(&c, "d", "result");
    assert_true(json_is_false(json_object_get(json_object_get(o, "result"), "found")));
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

static void deadlines(void **state)
{
    (void)state;
    static text t;
    child c = start(NULL);
    ready(&c);
    child_send(&c, "{\"id\":\"d\",\"op\":\"generate\",\"tokens\":%s,\"ignore_eos\":true,\"deadline_ms\":300}",
               ids_text);
    child_send(&c, "{\"id\":\"e\",\"op\":\"generate\",\"tokens\":%s,\"deadline_ms\":1}", ids_text); /* while it waits */
    for (int i = 0; i < 2;) {
        json_t *o = event(&c);
        if (strcmp(text_of(o, "event"), "done") == 0) {
            assert_string_equal(text_of(o, "reason"), "deadline");
            i++;
        }
        json_decref(o);
    }
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s,\"deadline_ms\":600000}", ids_text);
    json_t *o = collect(&c, "a", &t);
    assert_string_equal(t.text, ANSWER);
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

static void the_queue_is_bounded(void **state)
{
    (void)state;
    child c = start((const char *const[]){"--queue", "2", NULL});
    ready(&c);
    for (int i = 0; i < 3; i++)
        child_send(&c, "{\"id\":%d,\"op\":\"generate\",\"tokens\":%s,\"stream\":false}", i, ids_text);
    json_t *o = event(&c);
    assert_int_equal(int_of(o, "id"), 2);
    assert_string_equal(text_of(o, "code"), "busy");
    assert_true(json_is_true(json_object_get(o, "retryable")));
    json_decref(o);
    for (int i = 0; i < 2; i++) {
        o = event(&c);
        assert_int_equal(int_of(o, "id"), i);
        assert_string_equal(text_of(o, "event"), "done");
        json_decref(o);
    }
    assert_int_equal(child_finish(&c), 0);
}

/* ---- the other operations ---- */

static void text_and_tokens(void **state)
{
    (void)state;
    child c = start(NULL);
    ready(&c);
    child_send(
        &c, "{\"id\":\"a\",\"op\":\"tokenize\",\"text\":\"<|turn>user\\nWhat is 82 - 61?<turn|>\\n<|turn>model\\n\"}");
    json_t *o = expect(&c, "a", "result"), *ids = json_object_get(json_object_get(o, "result"), "tokens");
    assert_int_equal(json_array_size(ids), n_prompt);
    for (int i = 0; i < n_prompt; i++) assert_int_equal(json_integer_value(json_array_get(ids, (size_t)i)), prompt[i]);
    json_decref(o);
    child_send(&c, "{\"id\":\"b\",\"op\":\"detokenize\",\"tokens\":%s,\"show_special\":true}", ids_text);
    o = expect(&c, "b", "result");
    assert_string_equal(text_of(json_object_get(o, "result"), "text"), QUESTION);
    json_decref(o);
    child_send(&c, "{\"id\":\"c\",\"op\":\"render\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}");
    o = expect(&c, "c", "result");
    assert_non_null(
        strstr(text_of(json_object_get(o, "result"), "text"), "<bos><|turn>user\nHi<turn|>\n<|turn>model\n"));
    json_decref(o);
    child_send(&c, "{\"id\":\"d\",\"op\":\"ping\"}");
    json_decref(expect(&c, "d", "result"));
    child_send(&c, "{\"id\":\"e\",\"op\":\"status\"}");
    o = expect(&c, "e", "result");
    const json_t *r = json_object_get(o, "result");
    assert_string_equal(text_of(r, "device"), "cpu");
    assert_int_equal(int_of(r, "commands"), 0);
    assert_true(int_of(json_object_get(r, "memory"), "weights") > 1000000);
    assert_int_equal(json_array_size(json_object_get(r, "parked")), 0);
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

/* Stores, goes on in another process from the file, and gets the same tokens. */
static void snapshots_and_forks(void **state)
{
    (void)state;
    static text plain, got;
    child c = start((const char *const[]){"--sessions", "2", NULL});
    ready(&c);
    char more[2048];
    child_send(
        &c,
        "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s,\"snapshot\":{\"slot\":4,\"tokens\":10,\"label\":\"ten\"}}",
        ids_text);
    json_t *o;
    expect_answer(&c, "a", &o);
    assert_int_equal(int_of(o, "snapshot_tokens"), 10);
    json_decref(o);
    child_send(&c, "{\"id\":\"b\",\"op\":\"snapshot\",\"slot\":5}");
    o = expect(&c, "b", "result");
    assert_int_equal(int_of(json_object_get(o, "result"), "tokens"), n_prompt + n_answer);
    json_decref(o);
    snprintf(more, sizeof more, "%.*s", (int)strlen(ids_text) - 1, ids_text);
    for (int i = 0; i < n_answer; i++) snprintf(more + strlen(more), 16, ",%d", answer[i]);
    snprintf(more + strlen(more), 32, ",106,107,105]");
    child_send(&c, "{\"id\":\"c\",\"op\":\"generate\",\"tokens\":%s,\"n_predict\":20,\"ignore_eos\":true}", more);
    json_decref(collect(&c, "c", &plain));
    child_send(&c, "{\"id\":\"d\",\"op\":\"save_snapshot\",\"slot\":5,\"path\":\"%s/five\"}", temp_dir);
    json_decref(expect(&c, "d", "result"));
    child_send(&c, "{\"id\":\"e\",\"op\":\"list_snapshots\"}");
    o = expect(&c, "e", "result");
    const json_t *list = json_object_get(json_object_get(o, "result"), "snapshots");
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(text_of(json_array_get(list, 0), "label"), "ten");
    assert_int_equal(int_of(json_array_get(list, 1), "slot"), 5);
    json_decref(o);
    child_send(&c, "{\"id\":\"f\",\"op\":\"fork\",\"from\":0,\"to\":1}");
    o = expect(&c, "f", "result");
    const long n_forked = int_of(json_object_get(o, "result"), "tokens");
    assert_true(n_forked > n_prompt + n_answer);
    json_decref(o);
    child_send(&c,
               "{\"id\":\"g\",\"op\":\"generate\",\"session\":1,\"tokens\":%s,\"n_predict\":20,\"ignore_eos\":true,"
               "\"restore\":{\"slot\":5}}",
               more);
    o = collect(&c, "g", &got);
    assert_int_equal(int_of(o, "restored_tokens"), n_prompt + n_answer);
    assert_int_equal(got.n, plain.n);
    assert_memory_equal(got.ids, plain.ids, (size_t)got.n * sizeof *got.ids);
    json_decref(o);
    child_send(
        &c, "{\"id\":\"h\",\"op\":\"free_snapshot\",\"slot\":\"all\"}\n{\"id\":\"i\",\"op\":\"restore\",\"slot\":5}");
    json_decref(expect(&c, "h", "result"));
    o = expect(&c, "i", "error");
    assert_string_equal(text_of(o, "code"), "slot_empty");
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);

    c = start(NULL);
    ready(&c);
    child_send(&c, "{\"id\":\"l\",\"op\":\"load_snapshot\",\"slot\":9,\"path\":\"%s/five\"}", temp_dir);
    json_decref(expect(&c, "l", "result"));
    child_send(&c, "{\"id\":\"r\",\"op\":\"restore\",\"slot\":9}");
    o = expect(&c, "r", "result");
    assert_int_equal(int_of(json_object_get(o, "result"), "tokens"), n_prompt + n_answer);
    json_decref(o);
    child_send(&c, "{\"id\":\"g\",\"op\":\"generate\",\"tokens\":%s,\"n_predict\":20,\"ignore_eos\":true}", more);
    o = collect(&c, "g", &got);
    assert_int_equal(int_of(json_object_get(o, "usage"), "reused_tokens"), n_prompt + n_answer);
    assert_int_equal(got.n, plain.n);
    assert_memory_equal(got.ids, plain.ids, (size_t)got.n * sizeof *got.ids);
    json_decref(o);
    child_send(&c, "{\"id\":\"m\",\"op\":\"load_snapshot\",\"slot\":1,\"path\":\"%s/raw\"}", temp_dir);
    o = expect(&c, "m", "error");
    assert_string_equal(text_of(o, "code"), "bad_file");
    json_decref(o);
    child_send(&c, "{\"id\":\"n\",\"op\":\"load_snapshot\",\"slot\":1,\"path\":\"%s/nothing\"}", temp_dir);
    o = expect(&c, "n", "error");
    assert_string_equal(text_of(o, "code"), "io");
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

static void parking(void **state)
{
    (void)state;
    child c = start((const char *const[]){"-md", MTP, NULL});
    ready(&c);
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    expect_answer(&c, "a", NULL);
    const long awake = child_rss_kb(&c);
    child_send(&c, "{\"id\":\"p\",\"op\":\"park\"}");
    json_t *o = expect(&c, "p", "result");
    const long weights = int_of(json_object_get(o, "result"), "weights"), parked = child_rss_kb(&c);
    print_message("resident %ld kB, parked %ld kB; weights %ld kB\n", awake, parked, weights / 1024);
    assert_true(weights > 1000000);
    assert_true(awake - parked > weights / 1024); /* the system has them back, and the activations, too */
    json_decref(o);
    child_send(&c, "{\"id\":\"b\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    static text t;
    o = collect(&c, "b", &t);
    assert_string_equal(text_of(o, "code"), "parked");
    assert_true(json_is_true(json_object_get(o, "retryable")));
    json_decref(o);
    child_send(&c, "{\"id\":\"s\",\"op\":\"status\"}");
    o = expect(&c, "s", "result");
    assert_int_equal(json_array_size(json_object_get(json_object_get(o, "result"), "parked")), 2);
    json_decref(o);
    child_send(&c, "{\"id\":\"u\",\"op\":\"unpark\",\"parts\":[\"target\"]}");
    json_decref(expect(&c, "u", "result"));
    child_send(&c, "{\"id\":\"c\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    expect_answer(&c, "c", &o);
    assert_true(int_of(json_object_get(o, "usage"), "reused_tokens") >= n_prompt - 1); /* the cache came back, too */
    json_decref(o);
    child_send(&c, "{\"id\":\"d\",\"op\":\"generate\",\"tokens\":%s,\"speculation\":{\"method\":\"mtp\"}}", ids_text);
    o = collect(&c, "d", &t);
    assert_string_equal(text_of(o, "code"), "parked");
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

/* ---- variables of other daemons ---- */

static void set_all(const char *const *pairs, bool is_set)
{
    for (; *pairs; pairs += 2) {
        if (is_set)
            setenv(pairs[0], pairs[1], 1);
        else
            unsetenv(pairs[0]);
    }
}

static void cache_types_from_the_environment(void **state)
{
    (void)state;
    static const struct {
        const char *pairs[5], *option[3], *k, *v;
    } rows[] = {
        {{"DFLASH27B_KV_F16", "1", NULL}, {NULL}, "f16", "f16"},
        {{"DFLASH27B_KV_Q4", "1", NULL}, {NULL}, "q4_0", "q4_0"},
        {{"DFLASH27B_KV_TQ3", "1", NULL}, {NULL}, "tq3_0", "tq3_0"},
        {{"DFLASH27B_KV_TQ3", "0", NULL}, {NULL}, "f16", "f16"},
        {{"DFLASH27B_KV_K", "q8_0", NULL}, {NULL}, "q8_0", "f16"},
        {{"DFLASH27B_KV_V", "q8_0", NULL}, {NULL}, "f16", "q8_0"},
        {{"DFLASH27B_KV_V", "q8_0", "DFLASH27B_KV_F16", "1", NULL}, {NULL}, "f16", "q8_0"}, /* the finer one rules */
        {{"FACET_CACHE_TYPE_K", "q8_0", "DFLASH27B_KV_F16", "1", NULL}, {NULL}, "f16", "f16"},
        {{"DFLASH27B_KV_K", "q8_0", "DFLASH27B_KV_Q4", "0", NULL}, {"-ctk", "f32", NULL}, "f32", "f16"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        set_all(rows[i].pairs, true);
        child c = start(rows[i].option);
        set_all(rows[i].pairs, false);
        json_t *o = event(&c), *cache = json_object_get(o, "cache");
        assert_string_equal(text_of(cache, "k"), rows[i].k);
        assert_string_equal(text_of(cache, "v"), rows[i].v);
        json_decref(o);
        assert_int_equal(child_finish(&c), 0);
    }
    setenv("DFLASH27B_KV_V", "q3", 1);
    child c = start(NULL);
    unsetenv("DFLASH27B_KV_V");
    assert_null(event(&c));
    assert_true(child_has_logged(&c, "cache type of V 'q3': supported are f16, "));
    assert_int_equal(child_wait(&c), 2);
}

static void drafts_from_the_environment(void **state)
{
    (void)state;
    static const struct {
        const char *drafter, *pairs[7];
        int depth; /* 0: a tree */
    } rows[] = {
        {MTP, {"DFLASH_MTP_GAMMA", "2", "DFLASH_NO_ADAPTIVE", "1", NULL}, 2},
        {MTP, {"DFLASH_MTP_GAMMA", "1", "DFLASH_NO_ADAPTIVE", "1", "DFLASH_GEMMA4_MTP", "1", NULL}, 1},
        {DFLASH, {"DFLASH_DDTREE_BUDGET", "16", "DFLASH_NO_ADAPTIVE", "1", NULL}, 0},
        {DFLASH,
         {"DFLASH_GEMMA4_DDTREE_BUDGET", "12", "DFLASH_GEMMA4_DDTREE_TEMP", "1.5", "DFLASH_GEMMA4_DDTREE_CHAIN_SEED",
          "1", NULL},
         0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *done;
        set_all(rows[i].pairs, true);
        child c = start((const char *const[]){"-md", rows[i].drafter, "--adaptive", "off", NULL});
        set_all(rows[i].pairs, false);
        ready(&c);
        child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
        expect_answer(&c, "a", &done);
        const json_t *spec = json_object_get(done, "speculation");
        assert_int_equal(json_is_true(json_object_get(spec, "tree")), rows[i].depth == 0);
        if (rows[i].depth) assert_int_equal(json_array_size(json_object_get(spec, "acceptance")), rows[i].depth);
        json_decref(done);
        assert_false(child_has_logged(&c, "has no effect here"));
        assert_int_equal(child_finish(&c), 0);
    }
    setenv("DFLASH27B_FA_WINDOW", "512", 1);
    child c = start(NULL);
    unsetenv("DFLASH27B_FA_WINDOW");
    ready(&c);
    assert_true(child_has_logged(&c, "the environment variable DFLASH27B_FA_WINDOW is set and has no effect here\n"));
    assert_int_equal(child_finish(&c), 0);
}

/* ---- what is refused ---- */

static const struct {
    const char *line, *code, *message;
} refused[] = {
    {"nonsense", "bad_request", "a line: line 1"},
    {"", "bad_request", "a line"},
    {"[]", "bad_request", "no JSON object"},
    {"7", "bad_request", "a line"},
    {"{\"id\":\"a\"", "bad_request", "a line: line 1"},
    {"{}", "bad_request", "id: wanted"},
    {"{\"id\":\"\",\"op\":\"ping\"}", "bad_request", "id: wanted"},
    {"{\"id\":1.5,\"op\":\"ping\"}", "bad_request", "id: wanted"},
    {"{\"id\":null,\"op\":\"ping\"}", "bad_request", "id: wanted"},
    {"{\"id\":\"a\",\"id\":\"b\",\"op\":\"ping\"}", "bad_request", "duplicate"},
    {"{\"id\":\"a\"}", "bad_request", "op: wanted"},
    {"{\"id\":\"a\",\"op\":5}", "bad_request", "op: wanted"},
    {"{\"id\":\"a\",\"op\":\"sing\"}", "unknown_command", "'sing' is not known"},
    {"{\"id\":\"a\",\"op\":\"ping\",\"loud\":true}", "bad_request", "loud: there is no such field"},
    {"{\"id\":\"a\",\"op\":\"generate\"}", "bad_request", "one of tokens, text, messages and file"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"text\":\"a\",\"tokens\":[2]}", "bad_request", "one of tokens, text"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"text\":\"a\",\"messages\":[]}", "bad_request", "exclude each other"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"text\":5}", "bad_request", "text: 5, wanted a string"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[]}", "empty_prompt", "empty prompt"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":\"x\"}", "bad_request", "tokens: 'x' (a string), wanted an array"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2,\"x\"]}", "bad_request", "wanted whole numbers"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2,1e400]}", "bad_request", "a line"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2,4294967298]}", "bad_request", "wanted whole numbers"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2,2048]}", "bad_token", "token 1 of the prompt is 2048"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[-1]}", "bad_token", "token 0 of the prompt is -1"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"file\":\"/nonexistent\"}", "io", "/nonexistent"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"messages\":[{\"role\":5}]}", "bad_request", "messages[0].role"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"n_predict\":0}", "bad_request", "n_predict: 0"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"n_predict\":2048}", "context_overflow", "the context holds"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"temperature\":-1}", "bad_request", "temperature: -1"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"temperature\":\"hot\"}", "bad_request", "'hot' (a string)"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"top_p\":0}", "bad_request", "top_p: 0"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"stop\":[\"\"]}", "bad_request", "stop"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"stop\":5}", "bad_request", "stop: 5"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"logit_bias\":[[1]]}", "bad_request", "logit_bias"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"logit_bias\":[[99999,1]]}", "bad_request", "99999"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"session\":1}", "bad_request", "session: 1"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"speculation\":{\"method\":\"eagle\"}}", "bad_request",
     "speculation: method: 'eagle' (a string), wanted one of none, mtp"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"speculation\":{\"method\":\"mtp\"}}", "bad_request",
     "wants an MTP drafter"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"speculation\":{\"depth\":1}}", "bad_request",
     "speculation: depth: there is no such field"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"gbnf\":\"root ::= (\"}", "bad_request", "line"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"gbnf\":\"root ::= [a]\",\"json_object\":true}", "bad_request",
     "exclude each other"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"deadline_ms\":0}", "bad_request", "deadline_ms: 0"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"restore\":{\"slot\":3}}", "slot_empty", "slot 3 is empty"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"restore\":{}}", "bad_request", "restore: slot: nothing"},
    {"{\"id\":\"a\",\"op\":\"generate\",\"tokens\":[2],\"snapshot\":{\"slot\":64}}", "bad_request",
     "snapshot: slot: 64"},
    {"{\"id\":\"a\",\"op\":\"snapshot\",\"slot\":3}", "bad_request", ""},
    {"{\"id\":\"a\",\"op\":\"snapshot\"}", "bad_request", "slot: nothing"},
    {"{\"id\":\"a\",\"op\":\"restore\",\"slot\":3,\"thin\":[64]}", "bad_request", "thin: 64"},
    {"{\"id\":\"a\",\"op\":\"save_snapshot\",\"slot\":3}", "bad_request", "path: nothing"},
    {"{\"id\":\"a\",\"op\":\"save_snapshot\",\"slot\":3,\"path\":\"/tmp/x\"}", "bad_request", "slot"},
    {"{\"id\":\"a\",\"op\":\"free_snapshot\",\"slot\":\"some\"}", "bad_request", "slot: 'some'"},
    {"{\"id\":\"a\",\"op\":\"fork\",\"from\":0,\"to\":3}", "bad_request", "to: 3"},
    {"{\"id\":\"a\",\"op\":\"park\",\"parts\":[\"wheel\"]}", "bad_request", "parts: 'wheel'"},
    {"{\"id\":\"a\",\"op\":\"park\",\"kv\":\"burn\"}", "bad_request", "kv: 'burn'"},
    {"{\"id\":\"a\",\"op\":\"credit\",\"target\":\"b\"}", "bad_request", "tokens: nothing"},
    {"{\"id\":\"a\",\"op\":\"cancel\"}", "bad_request", "target: nothing"},
    {"{\"id\":\"a\",\"op\":\"detokenize\",\"tokens\":[99999]}", "bad_request", "99999"},
    {"{\"id\":\"a\",\"op\":\"tokenize\"}", "bad_request", "text: nothing"},
    {"{\"id\":\"a\",\"op\":\"render\",\"text\":\"x\"}", "bad_request", "messages: nothing"},
    {"{\"id\":\"a\",\"op\":\"shutdown\",\"now\":1}", "bad_request", "now: 1, wanted true or false"},
};
enum { N_REFUSED = sizeof refused / sizeof *refused };

/* Reads the refusal of a line. */
static void expect_refusal(child *c, int i)
{
    for (;;) {
        json_t *o = event(c);
        assert_non_null(o);
        const bool is_start = strcmp(text_of(o, "event"), "start") == 0;
        if (!is_start &&
            (strcmp(text_of(o, "event"), "error") != 0 || strcmp(text_of(o, "code"), refused[i].code) != 0 ||
             !strstr(text_of(o, "message"), refused[i].message))) {
            dump(o);
            fail_msg("'%s': wanted %s: %s", refused[i].line, refused[i].code, refused[i].message);
        }
        json_decref(o);
        if (!is_start) return;
    }
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    child c = start(NULL);
    ready(&c);
    for (int i = 0; i < N_REFUSED; i++) {
        child_send(&c, "%s", refused[i].line);
        expect_refusal(&c, i);
    }
    child_send(&c, "{\"id\":\"o\",\"op\":\"generate\",\"tokens\":[2],\"n_predict\":2048}");
    static text t;
    json_t *o = collect(&c, "o", &t);
    assert_int_equal(int_of(o, "limit"), 2048);
    assert_int_equal(int_of(o, "prompt"), 1);
    assert_int_equal(int_of(o, "requested"), 2049);
    json_decref(o);
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    expect_answer(&c, "a", NULL);
    assert_int_equal(child_finish(&c), 0);
    c = start(NULL); /* at once */
    ready(&c);
    for (int i = 0; i < N_REFUSED; i++) child_send(&c, "%s", refused[i].line);
    close_fd(&c.in);
    for (int i = 0; i < N_REFUSED; i++) expect_refusal(&c, i);
    assert_int_equal(child_finish(&c), 0);
}

static void an_id_is_used_once_at_a_time(void **state)
{
    (void)state;
    static text t;
    child c = start(NULL);
    ready(&c);
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}\n{\"id\":\"a\",\"op\":\"ping\"}", ids_text);
    int n_over = 0;
    while (n_over < 2) {
        json_t *o = event(&c);
        if (strcmp(text_of(o, "event"), "error") == 0) assert_non_null(strstr(text_of(o, "message"), "has not ended"));
        n_over += strcmp(text_of(o, "event"), "error") == 0 || strcmp(text_of(o, "event"), "done") == 0;
        json_decref(o);
    }
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    json_decref(collect(&c, "a", &t));
    assert_int_equal(child_finish(&c), 0);
}

static void strange_bytes(void **state)
{
    (void)state;
    child c = start((const char *const[]){"--max-line", "100000", NULL});
    ready(&c);
    static char bytes[300000];
    memset(bytes, '[', sizeof bytes); /* deep */
    bytes[90000] = '\n';
    child_write(&c, bytes, 90001);
    json_t *o = event(&c);
    assert_string_equal(text_of(o, "code"), "bad_request");
    json_decref(o);
    memset(bytes, ' ', sizeof bytes); /* long */
    bytes[sizeof bytes - 1] = '\n';
    child_write(&c, bytes, sizeof bytes);
    o = event(&c);
    assert_non_null(strstr(text_of(o, "message"), "longer than 100000 bytes"));
    json_decref(o);
    child_write(&c, "{\"id\":\"a\0b\",\"op\":\"ping\"}\n", 25);
    json_decref(event(&c));
    child_write(&c, "{\"id\":\"\xff\",\"op\":\"ping\"}\n", 23);
    o = event(&c);
    assert_string_equal(text_of(o, "event"), "error");
    json_decref(o);
    rng r;
    rng_seed(&r, 5);
    int n_lines = 1;
    for (size_t i = 0; i < 20000; i++) {
        bytes[i] = (char)rng_below(&r, 256);
        n_lines += bytes[i] == '\n';
    }
    bytes[20000] = '\n';
    child_write(&c, bytes, 20001);
    for (int i = 0; i < n_lines; i++) {
        o = event(&c);
        assert_string_equal(text_of(o, "event"), "error");
        assert_true(json_is_null(json_object_get(o, "id")));
        json_decref(o);
    }
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}\r", ids_text);
    expect_answer(&c, "a", NULL);
    child_write(&c, "{\"id\"", 5);
    close_fd(&c.in);
    o = event(&c);
    assert_non_null(strstr(text_of(o, "message"), "the input ends within a line"));
    json_decref(o);
    assert_int_equal(child_finish(&c), 0);
}

/* ---- ends ---- */

static void ways_to_end(void **state)
{
    (void)state;
    static text t;
    child c = start(NULL); /* the end of the input: what was asked for is done */
    ready(&c);
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}\n{\"id\":\"b\",\"op\":\"generate\",\"tokens\":%s}",
               ids_text, ids_text);
    close_fd(&c.in);
    expect_answer(&c, "a", NULL);
    expect_answer(&c, "b", NULL);
    assert_null(event(&c));
    assert_int_equal(child_wait(&c), 0);

    c = start(NULL);
    ready(&c);
    child_send(
        &c,
        "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s}\n{\"id\":\"s\",\"op\":\"shutdown\"}\n{\"id\":\"x\",\"op\":"
        "\"ping\"}",
        ids_text);
    bool has_result = false, has_done = false;
    for (json_t *o; (o = event(&c)); json_decref(o)) {
        has_result |= strcmp(text_of(o, "event"), "result") == 0;
        if (strcmp(text_of(o, "event"), "done") == 0) has_done = strcmp(text_of(o, "reason"), "eos") == 0;
        assert_true(strcmp(text_of(o, "id"), "x") != 0);
    }
    assert_true(has_result && has_done);
    assert_int_equal(child_wait(&c), 0);

    c = start(NULL); /* SIGTERM: what runs ends with the token in progress */
    ready(&c);
    child_send(
        &c,
        "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s,\"ignore_eos\":true}\n{\"id\":\"b\",\"op\":\"generate\","
        "\"tokens\":%s}",
        ids_text, ids_text);
    for (int n = 0; n < 4; n++) json_decref(event(&c));
    kill(c.pid, SIGTERM);
    int n_done = 0;
    for (json_t *o; (o = event(&c)); json_decref(o)) {
        if (strcmp(text_of(o, "event"), "done") != 0) continue;
        assert_string_equal(text_of(o, "reason"), "cancelled");
        n_done++;
    }
    assert_int_equal(n_done, 2);
    assert_int_equal(child_wait(&c), 0);

    c = start(NULL); /* the reader is gone */
    ready(&c);
    child_send(&c, "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s,\"ignore_eos\":true}", ids_text);
    json_decref(event(&c));
    close_fd(&c.out);
    assert_int_equal(child_wait(&c), 0);
    (void)t;
}

static void a_slow_reader_does_not_cost_memory(void **state)
{
    (void)state;
    static text t;
    child c = start((const char *const[]){"-c", "8192", "--cache", "0", "--stall-timeout", "1", NULL});
    assert_true(fcntl(c.out, F_SETPIPE_SZ, 4096) >= 4096);
    ready(&c);
    char line[2048];
    snprintf(line, sizeof line,
             "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s,\"n_predict\":4000,\"ignore_eos\":true}", ids_text);
    child_send(&c, "%s", line); /* read at once: now the cache has its size */
    json_t *o = collect(&c, "a", &t);
    assert_string_equal(text_of(o, "reason"), "length");
    assert_int_equal(t.n, 4000);
    json_decref(o);
    const long before = child_rss_kb(&c);
    child_send(&c, "%s", line);
    for (long last = -1, same = 0; same < 40;) { /* until it does nothing any more */
        const long now = child_ticks(&c);
        same = now == last ? same + 1 : 0;
        last = now;
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
    if (!*FACET_TEST_FLAGS) assert_true(child_rss_kb(&c) - before < 2048); /* a sanitizer keeps freed memory */
    static text some;
    o = collect(&c, "a", &some);
    assert_string_equal(text_of(o, "reason"), "slow_reader");
    assert_true(some.n > 1000 && some.n < 4000);
    assert_memory_equal(some.ids, t.ids, (size_t)some.n * sizeof *some.ids);
    json_decref(o);
    child_send(&c, "{\"id\":\"b\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    expect_answer(&c, "b", NULL);
    assert_int_equal(child_finish(&c), 0);
}

/* FACET_SOAK_S=600 for the long one. */
static void random_requests_for_long(void **state)
{
    (void)state;
    const char *seconds = getenv("FACET_SOAK_S");
    const time_t until = time(NULL) + (seconds ? atol(seconds) : 5);
    child c = start((const char *const[]){"-md", MTP, "--sessions", "2", "--cache", "4", NULL});
    ready(&c);
    rng r;
    rng_seed(&r, 23);
    long n = 0, rss = 0;
    int n_fds = 0;
    while (n < 300 || time(NULL) < until) {
        static text t;
        if (n == 300) rss = child_rss_kb(&c), n_fds = child_n_fds(&c);
        n++;
        const int what = (int)rng_below(&r, 12), slot = (int)rng_below(&r, 3), session = (int)rng_below(&r, 2);
        if (what < 4) {
            const int i = (int)rng_below(&r, N_REFUSED);
            child_send(&c, "%s", refused[i].line);
            json_t *o = event(&c);
            while (strcmp(text_of(o, "event"), "error") != 0 && strcmp(text_of(o, "event"), "done") != 0 &&
                   strcmp(text_of(o, "event"), "result") != 0) {
                json_decref(o);
                o = event(&c);
            }
            json_decref(o);
            continue;
        }
        if (what < 8)
            child_send(
                &c,
                "{\"id\":\"a\",\"op\":\"generate\",\"tokens\":%s,\"session\":%d,\"n_predict\":%d,\"temperature\":%d,"
                "\"seed\":%d,\"ignore_eos\":true}%s",
                ids_text, session, 1 + (int)rng_below(&r, 30), (int)rng_below(&r, 3), (int)rng_below(&r, 1000),
                what == 7 ? "\n{\"id\":\"k\",\"op\":\"cancel\",\"target\":\"a\"}" : "");
        else if (what < 10)
            child_send(&c, "{\"id\":\"a\",\"op\":\"%s\",\"session\":%d,\"slot\":%d}",
                       what == 8 ? "snapshot" : "restore", session, slot);
        else if (what < 11)
            child_send(&c, "{\"id\":\"a\",\"op\":\"free_snapshot\",\"slot\":%d}", slot);
        else
            child_send(&c, "{\"id\":\"b\",\"op\":\"park\"}\n{\"id\":\"a\",\"op\":\"unpark\"}");
        int n_left = 1 + (what == 7) + (what == 11);
        while (n_left > 0) {
            json_t *o = event(&c);
            assert_non_null(o);
            const char *kind = text_of(o, "event");
            n_left -= strcmp(kind, "done") == 0 || strcmp(kind, "result") == 0 || strcmp(kind, "error") == 0;
            json_decref(o);
        }
        (void)t;
    }
    if (!rss) rss = child_rss_kb(&c), n_fds = child_n_fds(&c);
    print_message("%ld requests; resident %ld kB after 300 of them, %ld kB at the end\n", n, rss, child_rss_kb(&c));
    assert_true(child_rss_kb(&c) - rss < 4096);
    assert_int_equal(child_n_fds(&c), n_fds);
    child_send(&c, "{\"id\":\"z\",\"op\":\"generate\",\"tokens\":%s}", ids_text);
    expect_answer(&c, "z", NULL);
    assert_int_equal(child_finish(&c), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_line_tells_what_there_is),
        cmocka_unit_test(prompts_of_every_kind),
        cmocka_unit_test(whole_answers),
        cmocka_unit_test(progress_and_speculation),
        cmocka_unit_test(sessions_run_beside_each_other),
        cmocka_unit_test(a_request_is_cancelled_by_its_id),
        cmocka_unit_test(credit),
        cmocka_unit_test(deadlines),
        cmocka_unit_test(the_queue_is_bounded),
        cmocka_unit_test(text_and_tokens),
        cmocka_unit_test(snapshots_and_forks),
        cmocka_unit_test(parking),
        cmocka_unit_test(cache_types_from_the_environment),
        cmocka_unit_test(drafts_from_the_environment),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(an_id_is_used_once_at_a_time),
        cmocka_unit_test(strange_bytes),
        cmocka_unit_test(ways_to_end),
        cmocka_unit_test(a_slow_reader_does_not_cost_memory),
        cmocka_unit_test(random_requests_for_long),
    };
    return cmocka_run_group_tests_name("daemon, JSON protocol", tests, begin, temp_dir_remove);
}
