#include "text/json_read.h"

facet_status json_read(const char *name, const char *text, size_t n, size_t flags, json_t **out, facet_error *err)
{
    json_error_t e = {0};
    json_t *j = json_loadb(text, n, flags | JSON_REJECT_DUPLICATES, &e);
    if (!j && (json_error_code(&e) == json_error_out_of_memory || !*e.text)) return error_memory(err, name, n);
    if (!j) return error_set(err, FACET_ERR_ARG, "%s: line %d, column %d: %s", name, e.line, e.column, e.text);
    *out = j;
    return FACET_OK;
}

static int put(const char *data, size_t n, void *ud)
{
    return buf_append(ud, data, n) ? 0 : -1;
}

bool json_print(const json_t *j, size_t flags, buf *out)
{
    return json_dump_callback(j, put, out, flags) == 0;
}
