/* spec_report.h: what speculation did, for people and for programs. */
#ifndef FACET_CLI_SPEC_REPORT_H
#define FACET_CLI_SPEC_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "facet.h"

/* The "speculation" object of --json. */
json_t *cli_spec_json(const facet_spec_stats *s);
/* One line; nothing when nothing was drafted. */
void cli_print_spec(FILE *f, const facet_spec_stats *s);

#endif
