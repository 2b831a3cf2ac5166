#include "serve/api_origin.h"

#include <string.h>

facet_status origins_check(const char *origins, facet_error *err)
{
    if (strcmp(origins, "*") == 0 || strcmp(origins, "local") == 0 || strcmp(origins, "none") == 0) return FACET_OK;
    for (const char *at = origins; *at;) {
        const size_t n = strcspn(at, ",");
        if (strncmp(at, "http://", 7) != 0 && strncmp(at, "https://", 8) != 0)
            return error_set(err, FACET_ERR_ARG, "cors: '%.*s': want *, local, none or http(s)://host[:port]", (int)n,
                             at);
        at += n + (at[n] == ',');
    }
    return FACET_OK;
}

/* What stands behind "://". */
static const char *host_of(const char *origin)
{
    const char *at = strstr(origin, "://");
    return at ? at + 3 : "";
}

static bool is_local(const char *origin)
{
    static const char *const names[] = {"localhost", "127.0.0.1", "[::1]"};
    const char *host = host_of(origin);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i]);
        if (strncmp(host, names[i], n) == 0 && (host[n] == 0 || host[n] == ':')) return true;
    }
    return false;
}

static bool is_listed(const char *origins, const char *origin)
{
    const size_t m = strlen(origin);
    for (const char *at = origins; *at;) {
        const size_t n = strcspn(at, ",");
        if (n == m && strncmp(at, origin, n) == 0) return true;
        at += n + (at[n] == ',');
    }
    return false;
}

/* Programs send no Origin; the server's own page sends the host that it was loaded from. */
bool origin_allow(const char *origins, http_exchange *x)
{
    const char *origin = http_header(x, "Origin"), *host = http_header(x, "Host");
    if (!origin) return true;
    const bool is_any = strcmp(origins, "*") == 0;
    if (!is_any && !(strcmp(origins, "local") == 0 && is_local(origin)) && !is_listed(origins, origin))
        return host && strcmp(host, host_of(origin)) == 0;
    const char *asked = http_header(x, "Access-Control-Request-Headers");
    http_set_header(x, "Access-Control-Allow-Origin", is_any ? "*" : origin);
    http_set_header(x, "Access-Control-Allow-Methods", "GET, POST, OPTIONS");
    http_set_header(x, "Access-Control-Allow-Headers", asked && strlen(asked) < 1024 ? asked : "*");
    http_set_header(x, "Access-Control-Max-Age", "86400");
    http_set_header(x, "Vary", "Origin");
    return true;
}
