/* spec_json.h: what speculation did, for programs. */
#ifndef FACET_SERVE_SPEC_JSON_H
#define FACET_SERVE_SPEC_JSON_H

#include <jansson.h>

#include "facet.h"

/* The method that drafted most; FACET_SPEC_NONE when nothing was drafted. */
facet_spec_method spec_main_method(const facet_spec_stats *s);
/* The object "speculation" of `facet run --json` and of the server's replies. */
json_t *spec_json(const facet_spec_stats *s);

#endif
