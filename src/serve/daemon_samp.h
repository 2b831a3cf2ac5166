/* daemon_samp.h: sampling as the line protocol writes it: T,P,K,R,SEED[,F,PP]. */
#ifndef FACET_SERVE_DAEMON_SAMP_H
#define FACET_SERVE_DAEMON_SAMP_H

#include "base/error.h"

/* Temperature, top-p, top-k, repetition penalty, seed, frequency penalty, presence penalty; what is missing at the end
 * is 0, 1, 0, 1, 0, 0, 0. The penalties look back at 256 tokens; one of repetition that is not above 1 is off; seed 0
 * takes one by chance. FACET_ERR_ARG names the field; *out is untouched then. */
facet_status samp_parse(const char *text, facet_sampling *out, facet_error *err);

#endif
