/* HTTP itself: malformed requests and their exact replies, limits, keys, origins, slow and vanished clients. */
#define _GNU_SOURCE
#include "testing.h"

#include <malloc.h>

#include "server_world.h"

/* ---- exact replies ---- */

static const struct {
    const char *method, *path, *headers, *body;
    int status;
    const char *message, *param, *code; /* param, code: NULL = null */
} refusals[] = {
    {"GET", "/nothing", NULL, NULL, 404, "GET /nothing: no such address", NULL, NULL},
    {"GET", "/v1/chat/completions", NULL, NULL, 405, "GET /v1/chat/completions: want POST", NULL, NULL},
    {"DELETE", "/health", NULL, NULL, 405, "DELETE /health: want GET", NULL, NULL},
    {"POST", "/v1/chat/completions", NULL, "", 400, "the body is empty: want a JSON object", NULL, NULL},
    {"POST", "/v1/chat/completions", NULL, "{", 400,
     "the body is not JSON: line 1, column 1: string or '}' expected near end of file", NULL, NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"n\":1,\"n\":2}", 400,
     "the body is not JSON: line 1, column 10: duplicate object key near '\"n\"'", NULL, NULL},
    {"POST", "/v1/chat/completions", NULL, "[1]", 400, "the body is JSON, but no object", NULL, NULL},
    {"POST", "/v1/chat/completions", NULL, "{}", 400, "messages: nothing: want an array with at least one message",
     "messages", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[]}", 400,
     "messages: an array of 0: want an array with at least one message", "messages", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":\"hi\"}", 400, "messages: 'hi' (a string): want an array",
     "messages", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"robot\",\"content\":\"x\"}]}", 400,
     "messages[0].role: 'robot' (a string): want system, developer, user, assistant or tool", "messages[0].role", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":7}]}", 400,
     "messages[0].content: 7: want a string or an array of parts", "messages[0].content", NULL},
    {"POST", "/v1/chat/completions", NULL,
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]}]}", 400,
     "messages[0].content[0].type: 'image_url': this server takes text only", "messages[0].content[0].type", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"temperature\":-1}",
     400, "temperature: -1: want a number from 0 to 100", "temperature", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"top_p\":\"1\"}",
     400, "top_p: '1' (a string): want a number from 0 to 1", "top_p", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"n\":65}", 400,
     "n: 65: want a whole number from 1 to 64", "n", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stream\":1}", 400,
     "stream: 1: want true or false", "stream", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"stop\":[\"\"]}",
     400, "stop: a text of 0 bytes: want 1 to 1024, without a NUL", "stop", NULL},
    {"POST", "/v1/chat/completions", NULL,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"logit_bias\":{\"99999\":1}}", 400,
     "logit_bias.99999: want token ids from 0 to 2047", "logit_bias.99999", NULL},
    {"POST", "/v1/chat/completions", NULL,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tool_choice\":\"required\"}", 400,
     "tool_choice: a call is demanded, and tools is empty", "tool_choice", NULL},
    {"POST", "/v1/chat/completions", NULL,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{\"type\":\"retrieval\"}]}", 400,
     "tools[0].type: 'retrieval' (a string): want 'function'", "tools[0].type", NULL},
    {"POST", "/v1/chat/completions", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":5000}",
     400,
     "This model's maximum context length is 1024 tokens. However, you requested 5014 tokens (14 in the messages, 5000 "
     "in "
     "the completion). Please reduce the length of the messages or completion.",
     NULL, "context_length_exceeded"},
    {"POST", "/v1/chat/completions", NULL,
     "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"speculation\":\"mtp\"}", 400,
     "speculation by MTP wants an MTP drafter, and none was given", NULL, NULL},
    {"POST", "/detokenize", NULL, "{\"tokens\":[5,2048]}", 400, "tokens[1]: 2048: want a whole number from 0 to 2047",
     "tokens[1]", NULL},
    {"POST", "/tokenize", NULL, "{\"content\":[]}", 400, "content: an array of 0: want a string", "content", NULL},
    {"POST", "/health", "Origin: https://example.org\r\n", NULL, 403,
     "pages of another origin may not use this server (--cors)", NULL, NULL},
};

static void assert_field(const json_t *error, const char *name, const char *want, const char *message)
{
    const json_t *v = json_object_get(error, name);
    if (want ? strcmp(text_at(error, name), want) != 0 : !json_is_null(v))
        fail_msg("%s: %s is %s, wanted %s", message, name, text_at(error, name), want ? want : "null");
}

static void refused_with_status_and_message(void **state)
{
    (void)state;
    world w = world_open(world_config(), 1024);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        reply r = http_ask_with(w.port, refusals[i].method, refusals[i].path, refusals[i].headers, refusals[i].body);
        if (r.status != refusals[i].status)
            fail_msg("'%s': status %d, wanted %d: %s", refusals[i].message, r.status, refusals[i].status, r.body.data);
        json_t *j = reply_json(&r);
        assert_string_equal(text_at(j, "error.message"), refusals[i].message);
        assert_string_equal(text_at(j, "error.type"), "invalid_request_error");
        assert_field(json_object_get(j, "error"), "param", refusals[i].param, refusals[i].message);
        assert_field(json_object_get(j, "error"), "code", refusals[i].code, refusals[i].message);
        assert_string_equal(reply_header(&r, "Content-Type"), "application/json");
        json_decref(j);
        reply_free(&r);
    }
    world_close(&w);
}

static void broken_http(void **state)
{
    static const struct {
        const char *bytes;
        int status; /* 0: closed without a reply */
    } table[] = {
        {"\r\n\r\nnonsense\r\n\r\n", 0},
        {"GET /health HTTP/1.1\r\n\r\n", 400}, /* no Host */
        {"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 505},
        {"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400},
        {"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413},
        {"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
    };
    (void)state;
    world w = world_open(world_config(), 256);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        client c = client_open(w.port);
        client_puts(&c, table[i].bytes);
        shutdown(c.fd, SHUT_WR);
        reply r = client_read(&c);
        if (r.status != table[i].status) fail_msg("request %zu: status %d, wanted %d", i, r.status, table[i].status);
        reply_free(&r);
        client_close(&c);
    }
    reply r = http_get(w.port, "/health");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    world_close(&w);
}

/* ---- limits ---- */

static void large_bodies_and_headers(void **state)
{
    (void)state;
    server_config c = world_config();
    c.http.max_body_bytes = 1000;
    c.http.max_header_bytes = 4096;
    world w = world_open(c, 256);
    char text[8192];
    memset(text, 'a', sizeof text);
    text[1001] = 0;
    reply r = http_post(w.port, "/tokenize", text);
    assert_int_equal(r.status, 413);
    assert_string_equal(r.body.data,
                        "{\"error\":{\"message\":\"the body is larger than this server takes (--max-body)\","
                        "\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}");
    reply_free(&r);
    /* the same in chunks, whose sum nobody announced */
    client k = client_open(w.port);
    client_puts(&k, "POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; i++) {
        client_puts(&k, "190\r\n");
        client_send(&k, text, 400);
        client_puts(&k, "\r\n");
    }
    client_puts(&k, "0\r\n\r\n");
    r = client_read(&k);
    assert_int_equal(r.status, 413);
    reply_free(&r);
    client_close(&k);
    /* told before the body is sent */
    k = client_open(w.port);
    client_puts(&k, "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n");
    r = client_read(&k);
    assert_int_equal(r.status, 413);
    reply_free(&r);
    client_close(&k);
    /* a header field that does not fit */
    char headers[6000];
    memset(headers, 'b', sizeof headers);
    memcpy(headers, "X: ", 3);
    memcpy(headers + sizeof headers - 3, "\r\n", 3);
    r = http_ask_with(w.port, "GET", "/health", headers, NULL);
    assert_int_equal(r.status, 431);
    reply_free(&r);
    world_close(&w);
}

/* Time until the server closes the connection, while `piece` is sent every 100 ms. */
static double seconds_until_closed(int port, const char *first, const char *piece)
{
    client c = client_open(port);
    client_puts(&c, first);
    int ticks = 0;
    for (; ticks < 200; ticks++) {
        char byte;
        struct pollfd p = {.fd = c.fd, .events = POLLIN};
        if (poll(&p, 1, 100) == 1 && recv(c.fd, &byte, 1, 0) <= 0) break;
        client_puts(&c, piece);
    }
    client_close(&c);
    return ticks * 0.1;
}

static void slow_senders_are_cut(void **state)
{
    (void)state;
    server_config c = world_config();
    c.http.idle_timeout_s = c.http.body_timeout_s = 1;
    world w = world_open(c, 256);
    static const char body[] = "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    assert_true(seconds_until_closed(w.port, "", "") < 10);
    assert_true(seconds_until_closed(w.port, "GET /health HTTP/1.1\r\n", "X: y\r\n") < 10);
    assert_true(seconds_until_closed(w.port, body, "z") < 10);
    world_close(&w);
}

static void too_many_connections_wait(void **state)
{
    (void)state;
    server_config c = world_config();
    c.http.n_threads = 1;
    c.http.max_connections = 3;
    world w = world_open(c, 256);
    client idle[3];
    for (int i = 0; i < 3; i++) {
        idle[i] = client_open(w.port);
        assert_true(client_ask(&idle[i], "GET", "/health", NULL, NULL));
        reply r = client_read(&idle[i]);
        assert_int_equal(r.status, 200);
        reply_free(&r);
    }
    client late = client_open(w.port);
    assert_true(client_ask(&late, "GET", "/health", NULL, NULL));
    struct pollfd p = {.fd = late.fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 300), 0); /* not served yet */
    client_close(&idle[1]);
    reply r = client_read(&late);
    assert_int_equal(r.status, 200);
    reply_free(&r);
    client_close(&late);
    client_close(&idle[0]);
    client_close(&idle[2]);
    world_close(&w);
}

static void connections_of_one_address_are_counted(void **state)
{
    (void)state;
    server_config c = world_config();
    c.http.max_per_address = 2;
    c.http.n_threads = 1;
    world w = world_open(c, 256);
    client open[2];
    for (int i = 0; i < 2; i++) {
        open[i] = client_open(w.port);
        assert_true(client_ask(&open[i], "GET", "/health", NULL, NULL));
        reply r = client_read(&open[i]);
        assert_int_equal(r.status, 200);
        reply_free(&r);
    }
    client third = client_open(w.port);
    char byte;
    assert_true(recv(third.fd, &byte, 1, 0) <= 0); /* closed without a word */
    client_close(&third);
    client_close(&open[0]);
    int status = 0;
    for (int i = 0; i < 600 && status != 200; i++) {
        client again = client_open(w.port);
        struct pollfd p = {.fd = again.fd, .events = POLLIN};
        client_puts(&again, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        if (poll(&p, 1, 10000) == 1 && recv(again.fd, &byte, 1, MSG_PEEK) == 1) {
            reply r = client_read(&again);
            status = r.status;
            reply_free(&r);
        }
        client_close(&again);
        if (status != 200) usleep(10000);
    }
    assert_int_equal(status, 200);
    client_close(&open[1]);
    world_close(&w);
}

static int n_connections(int port)
{
    reply r = http_get(port, "/metrics");
    const char *line = strstr(r.body.data, "\nfacet_connections ");
    assert_non_null(line);
    const int n = atoi(line + strlen("\nfacet_connections "));
    reply_free(&r);
    return n;
}

/* The last bytes and the end of a connection come together, which libmicrohttpd does not notice. */
static void senders_that_go_leave_no_connection(void **state)
{
    enum { N = 40 };
    (void)state;
    server_config c = world_config();
    c.http.idle_timeout_s = c.http.body_timeout_s = 600;
    world w = world_open(c, 256);
    client all[N];
    for (int i = 0; i < N; i++) {
        all[i] = client_open(w.port);
        client_puts(&all[i], i % 2 ? "GET /health HTTP/1.1\r\n"
                                   : "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n");
    }
    while (n_connections(w.port) < N + 1) usleep(1000);
    for (int i = 0; i < N; i++) {
        client_puts(&all[i], "X");
        client_close(&all[i]);
    }
    int n = N + 1;
    for (int i = 0; i < 600 && n > 1; i++) {
        usleep(100000);
        n = n_connections(w.port);
    }
    assert_int_equal(n, 1); /* the one that asks */
    world_close(&w);
}

/* Memory that is mapped for a connection goes back with it; of malloc's each one takes a little. */
static void idle_connections_take_little_of_the_heap(void **state)
{
    enum { N = 200, EACH = 8 << 10 };
    (void)state;
    world w = world_open(world_config(), 256);
    client all[N];
    assert_int_equal(n_connections(w.port), 1);
    const size_t before = mallinfo2().uordblks;
    for (int i = 0; i < N; i++) {
        all[i] = client_open(w.port);
        client_puts(&all[i], "GET /health HTTP/1.1\r\n");
    }
    while (n_connections(w.port) < N + 1) usleep(1000);
    const size_t with = mallinfo2().uordblks;
    assert_in_range(with - before, 0, N * EACH);
    for (int i = 0; i < N; i++) client_close(&all[i]);
    while (n_connections(w.port) > 1) usleep(1000);
    world_close(&w);
}

/* ---- keys and origins ---- */

static void keys(void **state)
{
    static const char *const known[] = {"sesame", "k2", NULL};
    static const struct {
        const char *headers;
        int status;
    } table[] = {
        {NULL, 401},
        {"Authorization: Bearer sesame\r\n", 200},
        {"authorization: bearer k2\r\n", 200},
        {"x-api-key: sesame\r\n", 200},
        {"Authorization: Bearer sesam\r\n", 401},
        {"Authorization: Bearer sesames\r\n", 401},
        {"Authorization: Bearer sesamesesame\r\n", 401},
        {"Authorization: Bearer \r\n", 401},
        {"Authorization: sesame\r\n", 401},
    };
    (void)state;
    server_config c = world_config();
    c.api.keys = known;
    world w = world_open(c, 256);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        reply r = http_ask_with(w.port, "GET", "/v1/models", table[i].headers, NULL);
        if (r.status != table[i].status)
            fail_msg("%s: status %d, wanted %d", table[i].headers, r.status, table[i].status);
        if (r.status == 401) {
            json_t *j = reply_json(&r);
            assert_string_equal(text_at(j, "error.code"), "invalid_api_key");
            json_decref(j);
        }
        reply_free(&r);
    }
    reply r = http_get(w.port, "/health");
    assert_int_equal(r.status, 200);
    reply_free(&r);
    world_close(&w);
}

static void origins(void **state)
{
    static const struct {
        const char *cors, *origin;
        int status;
        const char *allowed;
    } table[] = {
        {"local", "http://localhost:3000", 200, "http://localhost:3000"},
        {"local", "https://127.0.0.1", 200, "https://127.0.0.1"},
        {"local", "http://localhost.evil.example", 403, NULL},
        {"local", "null", 403, NULL},
        {"none", "http://localhost:3000", 403, NULL},
        {"none", "http://localhost", 200, NULL}, /* the Host of this request: the server's own page */
        {"*", "https://example.org", 200, "*"},
        {"https://a.example,https://b.example", "https://b.example", 200, "https://b.example"},
        {"https://a.example,https://b.example", "https://b.exampl", 403, NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        server_config c = world_config();
        char header[128];
        c.api.origins = table[i].cors;
        world w = world_open(c, 256);
        snprintf(header, sizeof header, "Origin: %s\r\n", table[i].origin);
        reply r = http_ask_with(w.port, "GET", "/health", header, NULL);
        const char *allowed = reply_header(&r, "Access-Control-Allow-Origin");
        if (r.status != table[i].status || !allowed != !table[i].allowed ||
            (allowed && strcmp(allowed, table[i].allowed) != 0))
            fail_msg("%s to %s: %d, %s", table[i].origin, table[i].cors, r.status, allowed ? allowed : "none");
        reply_free(&r);
        r = http_ask_with(w.port, "OPTIONS", "/v1/chat/completions", header, NULL);
        assert_int_equal(r.status, 204);
        reply_free(&r);
        world_close(&w);
    }
    facet_error err;
    assert_int_equal(api_open(&(api_config){.origins = "example.org"}, &(api){0}, &err), FACET_ERR_ARG);
    assert_string_equal(err.message, "cors: 'example.org': want *, local, none or http(s)://host[:port]");
}

/* ---- connections ---- */

static void many_requests_on_one_connection(void **state)
{
    (void)state;
    world w = world_open(world_config(), 256);
    client c = client_open(w.port);
    for (int i = 0; i < 50; i++) {
        assert_true(client_ask(&c, "POST", "/tokenize", NULL, "{\"content\":\"a b\"}"));
        reply r = client_read(&c);
        assert_int_equal(r.status, 200);
        reply_free(&r);
    }
    /* several at once, answered in order */
    for (int i = 0; i < 5; i++) assert_true(client_ask(&c, "GET", i % 2 ? "/health" : "/nothing", NULL, NULL));
    for (int i = 0; i < 5; i++) {
        reply r = client_read(&c);
        assert_int_equal(r.status, i % 2 ? 200 : 404);
        reply_free(&r);
    }
    client_close(&c);
    world_close(&w);
}

static void no_address(void **state)
{
    (void)state;
    world w = world_open(world_config(), 256);
    server_config c = world_config();
    facet_error err;
    server *none = NULL;
    char want[128];
    c.engine.engine = w.engine;
    c.api.model = w.model;
    c.http.port = w.port;
    assert_int_equal(server_open(&c, &none, &err), FACET_ERR_IO);
    snprintf(want, sizeof want, "cannot listen on 127.0.0.1 port %d: Address already in use", w.port);
    assert_string_equal(err.message, want);
    c.http.host = "no.such.host.invalid";
    assert_int_equal(server_open(&c, &none, &err), FACET_ERR_IO);
    assert_non_null(strstr(err.message, "cannot listen on no.such.host.invalid port"));
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refused_with_status_and_message),
        cmocka_unit_test(broken_http),
        cmocka_unit_test(large_bodies_and_headers),
        cmocka_unit_test(slow_senders_are_cut),
        cmocka_unit_test(too_many_connections_wait),
        cmocka_unit_test(connections_of_one_address_are_counted),
        cmocka_unit_test(senders_that_go_leave_no_connection),
        cmocka_unit_test(idle_connections_take_little_of_the_heap),
        cmocka_unit_test(keys),
        cmocka_unit_test(origins),
        cmocka_unit_test(many_requests_on_one_connection),
        cmocka_unit_test(no_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
