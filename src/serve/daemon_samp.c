#include "serve/daemon_samp.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"

enum { LAST_N = 256, N_FIELDS = 7 };
enum { F_TEMPERATURE, F_TOP_P, F_TOP_K, F_REPETITION, F_SEED, F_FREQUENCY, F_PRESENCE };

typedef struct field {
    const char *name;
    double min, max, missing;
} field;

static const field fields[N_FIELDS] = {
    [F_TEMPERATURE] = {"temperature", 0, 1e6, 0},      [F_TOP_P] = {"top-p", 0, 1, 1},
    [F_TOP_K] = {"top-k", 0, 2147483647, 0},           [F_REPETITION] = {"repetition penalty", 0, 1e6, 1},
    [F_SEED] = {"seed", 0, 18446744073709551616.0, 0}, [F_FREQUENCY] = {"frequency penalty", -1e6, 1e6, 0},
    [F_PRESENCE] = {"presence penalty", -1e6, 1e6, 0},
};

static facet_status bad_field(int i, const char *text, size_t n, facet_error *err)
{
    return error_set(err, FACET_ERR_ARG, "samp=: field %d (%s) is '%.*s', wanted a number from %g to %g", i + 1,
                     fields[i].name, (int)(n < 40 ? n : 40), text, fields[i].min, fields[i].max);
}

/* text [n] without a comma in it. Numbers begin with a digit, a point or a sign: no "nan", no "inf". */
static facet_status parse_field(int i, const char *text, size_t n, double *v, uint64_t *seed, facet_error *err)
{
    char copy[64], *end;
    if (n == 0 || n >= sizeof copy || !strchr("+-.0123456789", *text)) return bad_field(i, text, n, err);
    memcpy(copy, text, n);
    copy[n] = 0;
    errno = 0;
    if (i == F_SEED) {
        if (*copy == '-' || *copy == '+') return bad_field(i, text, n, err);
        *seed = strtoull(copy, &end, 10);
    } else {
        *v = strtod(copy, &end);
        if (!(*v >= fields[i].min && *v <= fields[i].max)) return bad_field(i, text, n, err);
        if (i == F_TOP_K && *v != floor(*v)) return bad_field(i, text, n, err);
    }
    return *end || (errno && i == F_SEED) ? bad_field(i, text, n, err) : FACET_OK;
}

static uint64_t seed_by_chance(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed || !seed) seed = clock_ns() | 1;
    return seed;
}

facet_status samp_parse(const char *text, facet_sampling *out, facet_error *err)
{
    double v[N_FIELDS];
    uint64_t seed = 0;
    int i = 0;
    for (int k = 0; k < N_FIELDS; k++) v[k] = fields[k].missing;
    for (const char *at = text;; i++) {
        const size_t n = strcspn(at, ",");
        if (i == N_FIELDS) return error_set(err, FACET_ERR_ARG, "samp=%.60s: more than %d fields", text, N_FIELDS);
        FACET_TRY(parse_field(i, at, n, &v[i], &seed, err));
        if (!at[n]) break;
        at += n + 1;
    }
    out->temperature = (float)v[F_TEMPERATURE];
    out->top_p = v[F_TOP_P] > 0 ? (float)v[F_TOP_P] : 1;
    out->top_k = (int)v[F_TOP_K];
    out->repeat_penalty = v[F_REPETITION] > 1 ? (float)v[F_REPETITION] : 1;
    out->frequency_penalty = (float)v[F_FREQUENCY];
    out->presence_penalty = (float)v[F_PRESENCE];
    out->penalty_last_n = LAST_N;
    out->seed = seed ? seed : seed_by_chance();
    return FACET_OK;
}
