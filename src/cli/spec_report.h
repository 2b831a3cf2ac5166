/* spec_report.h: what speculation did, for people. */
#ifndef FACET_CLI_SPEC_REPORT_H
#define FACET_CLI_SPEC_REPORT_H

#include <stdio.h>

#include "facet.h"

/* One line behind the label, of generations that were asked to speculate; nothing for FACET_SPEC_NONE. */
void cli_print_spec(FILE *f, const char *label, facet_spec_method asked, const facet_spec_stats *s);

#endif
