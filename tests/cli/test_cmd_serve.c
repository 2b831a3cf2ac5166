/* facet serve as a person runs it: options, keys, signals, exit status. */
#define _GNU_SOURCE
#include "testing.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "file/temp_dir.h"
#include "serve/http_client.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"

/* A server in a process of its own. */
typedef struct program {
    pid_t pid;
    int port;
    FILE *err;
    char log[1 << 16]; /* standard error so far */
} program;

static void read_line(program *p)
{
    const size_t n = strlen(p->log);
    if (!fgets(p->log + n, (int)(sizeof p->log - n), p->err)) fail_msg("the server ended: %s", p->log);
}

/* Waits until it listens. environment: "NAME=VALUE" or NULL. */
static program start(const char *const *args, const char *environment)
{
    const char *argv[32] = {FACET_BINARY_DIR "/facet",
                            "serve",
                            "-m",
                            MODEL,
                            "--device",
                            "cpu",
                            "-t",
                            "1",
                            "-c",
                            "4096",
                            "--temp",
                            "0",
                            "--port",
                            "0"};
    int n = 14, fd[2];
    program p = {0};
    while (*args) argv[n++] = *args++;
    assert_int_equal(pipe(fd), 0);
    p.pid = fork();
    if (p.pid == 0) {
        dup2(fd[1], 2);
        close(fd[0]);
        if (environment) putenv((char *)(uintptr_t)environment);
        execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(fd[1]);
    p.err = fdopen(fd[0], "r");
    const char *url;
    do read_line(&p);
    while (!(url = strstr(p.log, "http://")));
    p.port = atoi(strrchr(url, ':') + 1);
    return p;
}

/* Its exit status; -1 when a signal ended it. */
static int finish(program *p)
{
    int status;
    size_t n = strlen(p->log);
    while (n + 1 < sizeof p->log && fgets(p->log + n, (int)(sizeof p->log - n), p->err)) n = strlen(p->log);
    assert_int_equal(waitpid(p->pid, &status, 0), p->pid);
    fclose(p->err);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define ASK(rest) "{\"messages\":[{\"role\":\"user\",\"content\":\"What is 82 - 61?\"}]" rest "}"
#define LONG ASK(",\"ignore_eos\":true,\"stream\":true,\"max_tokens\":4000")

static void serves_until_a_signal(void **state)
{
    (void)state;
    const int signals[] = {SIGTERM, SIGINT};
    for (int i = 0; i < 2; i++) {
        program p = start((const char *const[]){"--alias", "tiny", NULL}, NULL);
        reply r = http_post(p.port, "/v1/chat/completions", ASK(""));
        json_t *j = reply_json(&r);
        assert_string_equal(text_at(j, "choices.0.message.content"), "82 - 61 = 21.");
        assert_string_equal(text_at(j, "model"), "tiny");
        json_decref(j);
        reply_free(&r);
        kill(p.pid, signals[i]);
        assert_int_equal(finish(&p), 0);
        assert_non_null(strstr(p.log, "POST /v1/chat/completions 200"));
        assert_non_null(strstr(p.log, "shutting down"));
    }
}

/* Within the time of grace an answer ends as it would; a second signal cuts it. */
static void running_answers_have_grace(void **state)
{
    (void)state;
    for (int n_signals = 1; n_signals <= 2; n_signals++) {
        program p = start((const char *const[]){"--grace", "60", NULL}, NULL);
        client c = client_open(p.port);
        client_ask(&c, "POST", "/v1/chat/completions", NULL, LONG);
        reply r = client_read_head(&c);
        assert_int_equal(r.status, 200);
        assert_true(client_read_chunk(&c, &r.body));
        for (int i = 0; i < n_signals; i++) {
            kill(p.pid, SIGTERM);
            while (!strstr(p.log, "shutting down")) read_line(&p);
        }
        client_read_body(&c, &r);
        json_t *events = reply_events(&r);
        const json_t *last = json_array_get(events, json_array_size(events) - 1);
        if (n_signals == 1)
            assert_string_equal(json_string_value(last), "[DONE]");
        else
            assert_string_equal(text_at(last, "error.message"), "the server is shutting down: the text was cut");
        json_decref(events);
        reply_free(&r);
        client_close(&c);
        assert_int_equal(finish(&p), 0);
    }
}

static void keys_from_a_file(void **state)
{
    (void)state;
    char file[512];
    snprintf(file, sizeof file, "%s", temp_file("keys"));
    write_file(file, "# mine\nalpha\n\nbeta  \n", 21);
    program p = start((const char *const[]){"--api-key", "gamma", "--api-key-file", file, "--log", "json", NULL},
                      "FACET_ALIAS=named");
    const struct {
        const char *header;
        int status;
    } table[] = {{"x-api-key: alpha\r\n", 200},
                 {"x-api-key: beta\r\n", 200},
                 {"x-api-key: gamma\r\n", 200},
                 {"x-api-key: # mine\r\n", 401},
                 {NULL, 401}};
    for (size_t i = 0; i < 5; i++) {
        reply r = http_ask_with(p.port, "GET", "/v1/models", table[i].header, NULL);
        assert_int_equal(r.status, table[i].status);
        if (r.status == 200) assert_non_null(strstr(r.body.data, "\"id\":\"named\""));
        reply_free(&r);
    }
    /* SIGHUP: the file as it is now; where it cannot be read the old keys hold */
    const struct {
        const char *text, *said;
        int alpha, delta;
    } later[] = {{"delta\n", "facet: 2 keys\n", 401, 200}, {NULL, "facet: the old keys hold: ", 401, 200}};
    for (size_t i = 0; i < 2; i++) {
        if (later[i].text)
            write_file(file, later[i].text, strlen(later[i].text));
        else
            assert_int_equal(unlink(file), 0);
        kill(p.pid, SIGHUP);
        while (!strstr(p.log, later[i].said)) read_line(&p);
        reply a = http_ask_with(p.port, "GET", "/v1/models", "x-api-key: alpha\r\n", NULL);
        reply d = http_ask_with(p.port, "GET", "/v1/models", "x-api-key: delta\r\n", NULL);
        assert_int_equal(a.status, later[i].alpha);
        assert_int_equal(d.status, later[i].delta);
        reply_free(&a);
        reply_free(&d);
    }
    kill(p.pid, SIGTERM);
    assert_int_equal(finish(&p), 0);
    assert_non_null(strstr(p.log, "\"level\":\"info\",\"message\":\"GET /v1/models 401\"}"));
}

static void wrong_usage(void **state)
{
    static const struct {
        const char *args;
        int status;
        const char *message;
    } table[] = {
        {"--port 65536", 2, "facet: --port: '65536' is not a whole number from 0 to 65535"},
        {"--parallel 65", 2, "--parallel: '65'"},
        {"--queue -1", 2, "--queue: '-1'"},
        {"--max-body x", 2, "--max-body: 'x'"},
        {"--log loud", 2, "--log: 'loud' is not text, json or none"},
        {"--api-key ''", 2, "--api-key: an empty key"},
        {"--cors example.org", 2, "cors: 'example.org': want *, local, none or http(s)://host[:port]"},
        {"--api-key-file /nonexistent", 1, "/nonexistent"},
        {"--api-key-file /dev/null", 1, "/dev/null: no key: want one a line"},
        {"--host no.such.host.invalid --port 0", 1, "cannot listen on no.such.host.invalid port 0"},
        {"--max-connections 1000000", 1, "--max-connections 1000000: the system allows"},
        {"--json", 2, "--json is for facet run"},
        {"extra", 2, "'extra': takes no argument"},
        {"--help", 0, "usage: facet serve"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char command[1024], out[1 << 14];
        snprintf(command, sizeof command,
                 "ulimit -n 4096; " FACET_BINARY_DIR "/facet serve -m " MODEL
                 " --device cpu -c 256 --max-connections 64 %s 2>&1 </dev/null",
                 table[i].args);
        FILE *f = popen(command, "r");
        assert_non_null(f);
        out[fread(out, 1, sizeof out - 1, f)] = 0;
        const int status = pclose(f);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != table[i].status || !strstr(out, table[i].message))
            fail_msg("%s: status %d, wanted %d and '%s' in: %s", table[i].args, WEXITSTATUS(status), table[i].status,
                     table[i].message, out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serves_until_a_signal),
        cmocka_unit_test(running_answers_have_grace),
        cmocka_unit_test(keys_from_a_file),
        cmocka_unit_test(wrong_usage),
    };
    return cmocka_run_group_tests(tests, temp_dir_make, temp_dir_remove);
}
