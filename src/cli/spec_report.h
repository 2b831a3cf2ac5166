/* spec_report.h: what speculation did, for people and for programs. */
#ifndef FACET_CLI_SPEC_REPORT_H
#define FACET_CLI_SPEC_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "facet.h"

/* The "speculation" object of --json. */
json_t *cli_spec_json(const facet_spec_stats *s);
/* One line behind the label, of generations that were asked to speculate; nothing for FACET_SPEC_NONE. */
void cli_print_spec(FILE *f, const char *label, facet_spec_method asked, const facet_spec_stats *s);

#endif
