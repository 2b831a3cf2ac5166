/* sparse_report.h: what sparse attention did, for people and as JSON. */
#ifndef FACET_CLI_SPARSE_REPORT_H
#define FACET_CLI_SPARSE_REPORT_H

#include <jansson.h>
#include <stdio.h>

#include "facet.h"

/* One line; nothing where no row chose among its keys. */
void cli_print_sparse(FILE *f, const char *label, const facet_sparse_stats *s);
/* An object; null where no row chose. Owned by the caller. */
json_t *cli_sparse_json(const facet_sparse_stats *s);

#endif
