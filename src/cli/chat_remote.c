#include "cli/chat_remote.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "cli/cli.h"

enum { CONNECT_TIMEOUT_S = 10, MAX_REPLY = 16 << 20 };

struct chat_remote {
    CURL *curl;
    struct curl_slist *headers;
    char *base; /* ends in /v1 */
    char *model;
    /* of the request under way */
    buf text; /* of a reply that is not a stream; of a stream, a line that is not complete */
    chat_remote_fn fn;
    void *ud;
    bool is_ended;    /* by fn */
    facet_status bad; /* what came is not what a server says */
    facet_error error;
};

/* ---- a stream ---- */

static void take_chunk(chat_remote *r, const char *data, size_t n)
{
    json_error_t e;
    json_t *chunk = json_loadb(data, n, 0, &e);
    const char *message = json_string_value(json_object_get(json_object_get(chunk, "error"), "message"));
    if (!chunk)
        r->bad = error_set(&r->error, FACET_ERR_FORMAT, "the server's stream is not JSON: %s", e.text);
    else if (message)
        r->bad = error_set(&r->error, FACET_ERR_IO, "the server: %s", message);
    else
        r->is_ended = !r->fn(r->ud, chunk);
    json_decref(chunk);
}

static void take_line(chat_remote *r, const char *line, size_t n)
{
    if (n && line[n - 1] == '\r') n--;
    if (n < 6 || memcmp(line, "data: ", 6) != 0 || (n == 12 && memcmp(line, "data: [DONE]", 12) == 0)) return;
    take_chunk(r, line + 6, n - 6);
}

static void take_lines(chat_remote *r)
{
    size_t at = 0;
    for (const char *end; !r->is_ended && !r->bad && (end = memchr(r->text.data + at, '\n', r->text.len - at));
         at = (size_t)(end - r->text.data) + 1)
        take_line(r, r->text.data + at, (size_t)(end - r->text.data) - at);
    memmove(r->text.data, r->text.data + at, r->text.len - at);
    r->text.len -= at;
}

static bool is_stream(const chat_remote *r)
{
    long status = 0;
    curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
    return r->fn && status == 200;
}

/* CURLOPT_WRITEFUNCTION: fewer bytes than came end the transfer. */
static size_t on_data(char *data, size_t size, size_t n, void *ud)
{
    chat_remote *r = ud;
    if (!buf_append(&r->text, data, size * n) || r->text.len > MAX_REPLY) return 0;
    if (n && is_stream(r)) take_lines(r);
    return r->is_ended || r->bad ? 0 : size * n;
}

/* CURLOPT_XFERINFOFUNCTION: not 0 ends the transfer. */
static int on_progress(void *ud, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)ud, (void)a, (void)b, (void)c, (void)d;
    return cli_was_interrupted();
}

/* ---- requests ---- */

static facet_status refused(chat_remote *r, long status, facet_error *err)
{
    json_t *j = r->text.len ? json_loadb(r->text.data, r->text.len, 0, NULL) : NULL;
    const char *message = json_string_value(json_object_get(json_object_get(j, "error"), "message"));
    const facet_status code = status == 429 || status >= 500 ? FACET_ERR_IO : FACET_ERR_ARG;
    error_set(err, code, "%s: status %ld%s%s", r->base, status, message ? ": " : "", message ? message : "");
    json_decref(j);
    return code;
}

/* body NULL: GET. */
static facet_status ask(chat_remote *r, const char *path, const char *body, facet_error *err)
{
    char url[1024];
    long status = 0;
    snprintf(url, sizeof url, "%s%s", r->base, path);
    buf_clear(&r->text);
    r->is_ended = false;
    r->bad = FACET_OK;
    curl_easy_setopt(r->curl, CURLOPT_URL, url);
    if (body)
        curl_easy_setopt(r->curl, CURLOPT_POSTFIELDS, body);
    else
        curl_easy_setopt(r->curl, CURLOPT_HTTPGET, 1L);
    const CURLcode code = curl_easy_perform(r->curl);
    curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
    if (r->is_ended) return FACET_OK;
    if (r->bad) {
        *err = r->error;
        return r->bad;
    }
    if (code == CURLE_ABORTED_BY_CALLBACK) return error_set(err, FACET_ERR_CANCELLED, "cancelled");
    if (code != CURLE_OK) return error_set(err, FACET_ERR_IO, "%s: %s", url, curl_easy_strerror(code));
    return status == 200 ? FACET_OK : refused(r, status, err);
}

facet_status chat_remote_ask(chat_remote *r, json_t *body, chat_remote_fn fn, void *ud, facet_error *err)
{
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!text) return error_memory(err, "a request", 1);
    r->fn = fn;
    r->ud = ud;
    const facet_status status = ask(r, "/chat/completions", text, err);
    r->fn = NULL;
    free(text);
    return status;
}

/* ---- opening ---- */

static facet_status set_base(chat_remote *r, const char *url, facet_error *err)
{
    buf b = {0};
    size_t n = strlen(url);
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return error_set(err, FACET_ERR_ARG, "--url: '%s': want http://HOST:PORT or https://…", url);
    while (n && url[n - 1] == '/') n--;
    buf_append(&b, url, n);
    if (n < 3 || memcmp(url + n - 3, "/v1", 3) != 0) buf_puts(&b, "/v1");
    r->base = b.data;
    return b.failed ? error_memory(err, "a URL", n) : FACET_OK;
}

static facet_status set_headers(chat_remote *r, const char *key, facet_error *err)
{
    buf b = {0};
    r->headers = curl_slist_append(r->headers, "Content-Type: application/json");
    if (key) buf_printf(&b, "Authorization: Bearer %s", key);
    if (key && !b.failed) r->headers = curl_slist_append(r->headers, b.data);
    buf_free(&b);
    return r->headers ? FACET_OK : error_memory(err, "a request", 1);
}

static void set_options(chat_remote *r)
{
    curl_easy_setopt(r->curl, CURLOPT_HTTPHEADER, r->headers);
    curl_easy_setopt(r->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(r->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(r->curl, CURLOPT_WRITEDATA, r);
    curl_easy_setopt(r->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(r->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(r->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(r->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
}

static facet_status find_model(chat_remote *r, facet_error *err)
{
    FACET_TRY(ask(r, "/models", NULL, err));
    json_t *j = r->text.len ? json_loadb(r->text.data, r->text.len, 0, NULL) : NULL;
    const char *id = json_string_value(json_object_get(json_array_get(json_object_get(j, "data"), 0), "id"));
    if (id) r->model = mem_strdup(id);
    json_decref(j);
    return r->model ? FACET_OK : error_set(err, FACET_ERR_FORMAT, "%s/models names no model", r->base);
}

facet_status chat_remote_open(const char *url, const char *key, chat_remote **out, facet_error *err)
{
    chat_remote *r = mem_calloc(1, sizeof *r);
    if (!r) return error_memory(err, "a connection", sizeof *r);
    facet_status status = set_base(r, url, err);
    if (status == FACET_OK) status = set_headers(r, key, err);
    if (status == FACET_OK && !(r->curl = curl_easy_init())) status = error_memory(err, "a connection", 1);
    if (status == FACET_OK) {
        set_options(r);
        status = find_model(r, err);
    }
    if (status != FACET_OK) {
        chat_remote_close(r);
        return status;
    }
    *out = r;
    return FACET_OK;
}

void chat_remote_close(chat_remote *r)
{
    if (!r) return;
    curl_easy_cleanup(r->curl);
    curl_slist_free_all(r->headers);
    buf_free(&r->text);
    mem_free(r->base);
    mem_free(r->model);
    mem_free(r);
}

const char *chat_remote_model(const chat_remote *r)
{
    return r->model;
}
