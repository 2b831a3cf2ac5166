/* api_origin.h: which web pages may use the server (CORS). */
#ifndef FACET_SERVE_API_ORIGIN_H
#define FACET_SERVE_API_ORIGIN_H

#include "serve/http_server.h"

/* "*", "local", "none", or origins ("https://host[:port]") with commas between them. */
facet_status origins_check(const char *origins, facet_error *err);
/* Sets the headers that browsers ask for. False: the request comes from a page that may not use the server. */
bool origin_allow(const char *origins, http_exchange *x);

#endif
