/* spec_names.c: the methods of speculation by name, and options to begin with. */
#include <string.h>

#include "facet.h"

static const char *const names[] = {"none", "mtp", "dflash", "ngram", "auto"};
enum { N_NAMES = sizeof names / sizeof *names };

const char *facet_spec_method_name(facet_spec_method m)
{
    return (unsigned)m < N_NAMES ? names[m] : "unknown";
}

bool facet_spec_method_by_name(const char *name, facet_spec_method *out)
{
    for (int i = 0; i < N_NAMES; i++) {
        if (strcmp(name, names[i]) != 0) continue;
        *out = (facet_spec_method)i;
        return true;
    }
    return false;
}

facet_speculation facet_speculation_default(facet_spec_method m)
{
    return (facet_speculation){.method = m, .tree_budget = -1};
}
