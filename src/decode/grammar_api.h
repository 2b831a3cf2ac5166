/* grammar_api.h: the inside of facet_grammar. */
#ifndef FACET_DECODE_GRAMMAR_API_H
#define FACET_DECODE_GRAMMAR_API_H

#include "grammar/mask.h"

struct facet_grammar {
    const facet_model *model; /* borrowed */
    masker *masker;
};

#endif
