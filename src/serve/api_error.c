#include "serve/api_error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

/* Input may stand in the message: what JSON could not carry becomes '?'. */
static void clean(char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        const int k = utf8_decode(s + i, n - i, &cp);
        if (k == 0 || cp < 0x20) s[i] = '?';
        i += k > 0 ? (size_t)k : 1;
    }
}

bool api_fail(api_error *e, int status, const char *param, const char *fmt, ...)
{
    va_list ap;
    size_t n = 0;
    *e = (api_error){.status = status};
    if (param && *param) {
        snprintf(e->param, sizeof e->param, "%s", param);
        clean(e->param);
        n = (size_t)snprintf(e->message, sizeof e->message, "%s: ", e->param);
    }
    va_start(ap, fmt);
    vsnprintf(e->message + n, sizeof e->message - n, fmt, ap);
    va_end(ap);
    clean(e->message);
    return false;
}

bool api_fail_with(api_error *e, const facet_error *err)
{
    switch (err->status) {
    case FACET_ERR_ARG:
    case FACET_ERR_FORMAT:
    case FACET_ERR_UNSUPPORTED: return api_fail(e, 400, NULL, "%s", err->message);
    case FACET_ERR_CANCELLED:
    case FACET_ERR_MEMORY:
    case FACET_ERR_LIMIT: return api_fail(e, 503, NULL, "%s", err->message);
    default: return api_fail(e, 500, NULL, "%s", err->message);
    }
}

bool api_fail_memory(api_error *e)
{
    return api_fail(e, 503, NULL, "out of memory");
}

static const struct {
    int status;
    const char *openai, *anthropic;
} types[] = {
    {400, "invalid_request_error", "invalid_request_error"}, {401, "invalid_request_error", "authentication_error"},
    {403, "invalid_request_error", "permission_error"},      {404, "invalid_request_error", "not_found_error"},
    {405, "invalid_request_error", "invalid_request_error"}, {408, "invalid_request_error", "timeout_error"},
    {413, "invalid_request_error", "request_too_large"},     {415, "invalid_request_error", "invalid_request_error"},
    {429, "rate_limit_error", "rate_limit_error"},           {503, "server_error", "overloaded_error"}};

static const char *type_of(const api_error *e, bool is_anthropic)
{
    if (e->type) return e->type;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].status == e->status) return is_anthropic ? types[i].anthropic : types[i].openai;
    return is_anthropic ? "api_error" : "server_error";
}

json_t *api_error_json(const api_error *e, bool is_anthropic)
{
    if (is_anthropic)
        return json_pack("{s:s, s:{s:s, s:s}}", "type", "error", "error", "type", type_of(e, true), "message",
                         e->message);
    return json_pack("{s:{s:s, s:s, s:s?, s:s?}}", "error", "message", e->message, "type", type_of(e, false), "param",
                     e->param[0] ? e->param : NULL, "code", e->code);
}
