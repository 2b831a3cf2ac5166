#include "serve/api.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "serve/api_origin.h"

typedef struct route {
    const char *method, *path;
    void (*handle)(api *a, http_exchange *x);
    bool is_public;    /* wants no key */
    bool is_anthropic; /* errors have that shape */
} route;

static const route routes[] = {
    {"POST", "/v1/chat/completions", api_chat, false, false},
    {"POST", "/v1/completions", api_completions, false, false},
    {"POST", "/v1/responses", api_responses, false, false},
    {"POST", "/v1/messages", api_messages, false, true},
    {"POST", "/v1/messages/count_tokens", api_count_tokens, false, true},
    {"GET", "/v1/models", api_models, false, false},
    {"GET", "/health", api_health, true, false},
    {"GET", "/props", api_props, false, false},
    {"GET", "/slots", api_slots, false, false},
    {"GET", "/metrics", api_metrics_page, false, false},
    {"POST", "/tokenize", api_tokenize, false, false},
    {"POST", "/detokenize", api_detokenize, false, false},
};
static const route page = {"GET", "/", api_page, true, false};
enum { N_ROUTES = sizeof routes / sizeof *routes };

static void free_keys(char **keys)
{
    for (size_t i = 0; keys && keys[i]; i++) mem_free(keys[i]);
    mem_free(keys);
}

/* *out NULL where none is wanted. */
static facet_status copy_keys(const char *const *keys, char ***out, facet_error *err)
{
    size_t n = 0;
    *out = NULL;
    if (!keys) return FACET_OK;
    while (keys[n]) n++;
    char **copy = mem_calloc(n + 1, sizeof *copy);
    if (!copy) return error_memory(err, "the keys", n * sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        if ((copy[i] = mem_strdup(keys[i]))) continue;
        free_keys(copy);
        return error_memory(err, "a key", strlen(keys[i]) + 1);
    }
    *out = copy;
    return FACET_OK;
}

facet_status api_open(const api_config *c, api *out, facet_error *err)
{
    *out = (api){.c = *c, .started_at = (int64_t)time(NULL)};
    FACET_TRY(origins_check(c->origins, err));
    FACET_TRY(copy_keys(c->keys, &out->keys, err));
    pthread_mutex_init(&out->keys_lock, NULL);
    metrics_open(&out->metrics);
    grammars_open(&out->grammars);
    return FACET_OK;
}

void api_close(api *a)
{
    metrics_close(&a->metrics);
    grammars_close(&a->grammars);
    free_keys(a->keys);
    pthread_mutex_destroy(&a->keys_lock);
}

facet_status api_set_keys(api *a, const char *const *keys, facet_error *err)
{
    char **copy, **old;
    FACET_TRY(copy_keys(keys, &copy, err));
    pthread_mutex_lock(&a->keys_lock);
    old = a->keys;
    a->keys = copy;
    pthread_mutex_unlock(&a->keys_lock);
    free_keys(old);
    return FACET_OK;
}

/* ---- routes ---- */

/* The interface's own clients have /v1 in their base address or leave it out. */
static bool is_path(const route *r, const char *path)
{
    return strcmp(r->path, path) == 0 || (strncmp(r->path, "/v1", 3) == 0 && strcmp(r->path + 3, path) == 0);
}

/* HEAD is answered as GET; what is sent is libmicrohttpd's business. */
static bool is_method(const route *r, const char *method)
{
    return strcmp(r->method, method) == 0 || (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0);
}

static const route *find(const http_exchange *x, const route **other)
{
    *other = NULL;
    if (api_has_page(http_path(x))) {
        if (is_method(&page, http_method(x))) return &page;
        *other = &page;
    }
    for (int i = 0; i < N_ROUTES; i++) {
        if (!is_path(&routes[i], http_path(x))) continue;
        if (is_method(&routes[i], http_method(x))) return &routes[i];
        *other = &routes[i];
    }
    return NULL;
}

/* ---- replies ---- */

void api_reply_json(http_exchange *x, int status, json_t *j)
{
    char *text = j ? json_dumps(j, API_JSON_FLAGS) : NULL;
    static const char none[] = "{\"error\":{\"message\":\"out of memory\",\"type\":\"server_error\"}}";
    json_decref(j);
    if (text)
        http_reply(x, status, "application/json", text, strlen(text));
    else
        http_reply(x, 503, "application/json", none, sizeof none - 1);
    free(text);
}

void api_reply_error(http_exchange *x, const api_error *e)
{
    const route *other, *r = find(x, &other);
    api_reply_json(x, e->status, api_error_json(e, r && r->is_anthropic));
}

bool api_read_body(const http_exchange *x, json_t **out, api_error *e)
{
    size_t n;
    json_error_t je;
    const char *text = http_body(x, &n);
    if (!n) return api_fail(e, 400, NULL, "the body is empty: want a JSON object");
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &je);
    if (!j) return api_fail(e, 400, NULL, "the body is not JSON: line %d, column %d: %s", je.line, je.column, je.text);
    if (!json_is_object(j)) {
        json_decref(j);
        return api_fail(e, 400, NULL, "the body is JSON, but no object");
    }
    *out = j;
    return true;
}

/* ---- admission ---- */

/* In a time that does not tell how much of the key is right. */
static bool is_key(const char *key, const char *given)
{
    const size_t n = strlen(key), m = strlen(given);
    unsigned char differs = n != m;
    for (size_t i = 0; i < m; i++) differs |= (unsigned char)(given[i] ^ key[n ? i % n : 0]);
    return !differs;
}

static const char *given_key(const http_exchange *x)
{
    const char *bearer = http_header(x, "Authorization"), *own = http_header(x, "x-api-key");
    if (bearer && strncasecmp(bearer, "Bearer ", 7) == 0) return bearer + 7;
    return own;
}

static bool check_key(api *a, const http_exchange *x, api_error *e)
{
    const char *given = given_key(x);
    pthread_mutex_lock(&a->keys_lock);
    bool is_known = !a->keys;
    for (int i = 0; given && a->keys && a->keys[i]; i++) is_known |= is_key(a->keys[i], given);
    pthread_mutex_unlock(&a->keys_lock);
    if (is_known) return true;
    api_fail(e, 401, NULL,
             given ? "the API key is not one of this server's"
                   : "this server wants an API key: Authorization: Bearer KEY, or x-api-key: KEY");
    e->code = "invalid_api_key";
    return false;
}

static bool check_size(const http_exchange *x, api_error *e)
{
    if (!http_is_too_large(x)) return true;
    return api_fail(e, 413, NULL, "the body is larger than this server takes (--max-body)");
}

static bool check_route(http_exchange *x, const route *r, const route *other, api_error *e)
{
    if (r) return true;
    if (!other) return api_fail(e, 404, NULL, "%s %.200s: no such address", http_method(x), http_path(x));
    http_set_header(x, "Allow", other->method);
    return api_fail(e, 405, NULL, "%s %.200s: want %s", http_method(x), http_path(x), other->method);
}

void api_admit(void *ud, http_exchange *x)
{
    api *a = ud;
    api_error e = {0};
    const route *other, *r = find(x, &other);
    http_set_header(x, "X-Content-Type-Options", "nosniff");
    const bool is_allowed = origin_allow(a->c.origins, x);
    if (strcmp(http_method(x), "OPTIONS") == 0) {
        http_reply(x, 204, NULL, "", 0);
        return;
    }
    if (!is_allowed) api_fail(&e, 403, NULL, "pages of another origin may not use this server (--cors)");
    const bool ok =
        is_allowed && check_route(x, r, other, &e) && (r->is_public || check_key(a, x, &e)) && check_size(x, &e);
    if (!ok) api_reply_error(x, &e);
}

void api_handle(void *ud, http_exchange *x)
{
    api_error e = {0};
    const route *other, *r = find(x, &other);
    if (check_size(x, &e))
        r->handle(ud, x);
    else
        api_reply_error(x, &e);
}

void api_finished(void *ud, http_exchange *x)
{
    api *a = ud;
    const route *other, *r = find(x, &other);
    const int status = http_status(x) ? http_status(x) : 499;
    metrics_count_request(&a->metrics, r ? r->path : "other", status);
    log_line(FACET_LOG_INFO, "%s %.200s %d", http_method(x), http_path(x), status);
}
