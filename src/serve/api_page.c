/* api_page.c: GET / and the files that the page loads. */
#include <string.h>

#include "serve/api.h"
#include "serve/web.h"

static const struct {
    const char *suffix, *type;
} types[] = {{".html", "text/html; charset=utf-8"},
             {".js", "text/javascript; charset=utf-8"},
             {".css", "text/css; charset=utf-8"}};

static const char *type_of(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        const size_t n = strlen(name), m = strlen(types[i].suffix);
        if (n > m && strcmp(name + n - m, types[i].suffix) == 0) return types[i].type;
    }
    return "application/octet-stream";
}

static const web_file *find(const char *path)
{
    const char *name = *path ? path + 1 : path;
    if (!*name) name = "index.html";
    for (size_t i = 0; i < web_n_files; i++)
        if (strcmp(name, web_files[i].name) == 0) return &web_files[i];
    return NULL;
}

bool api_has_page(const char *path)
{
    return find(path) != NULL;
}

/* The page takes nothing from elsewhere, and may not be shown inside another one. */
void api_page(api *a, http_exchange *x)
{
    const web_file *f = find(http_path(x));
    const char *known = http_header(x, "If-None-Match");
    (void)a;
    http_set_header(x, "ETag", f->tag);
    http_set_header(x, "Cache-Control", "no-cache");
    http_set_header(x, "Content-Security-Policy",
                    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
                    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    if (known && strcmp(known, f->tag) == 0)
        http_reply(x, 304, NULL, "", 0);
    else
        http_reply(x, 200, type_of(f->name), f->data, f->size);
}
