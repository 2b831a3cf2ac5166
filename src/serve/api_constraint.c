#include "serve/api_constraint.h"

#include <string.h>

#include "serve/api_fields.h"

bool api_constraint_read(const json_t *body, api_error *e)
{
    const json_t *format = NULL;
    const char *type = NULL;
    if (!field_object(body, "response_format", &format, e)) return false;
    if (format && !field_string(format, "type", &type, e)) return false;
    if (type && strcmp(type, "text") != 0)
        return api_fail(e, 400, "response_format.type", "'%.40s' is not supported yet: want 'text'", type);
    if (field_get(body, "grammar")) return api_fail(e, 400, "grammar", "grammars are not supported yet");
    return true;
}
