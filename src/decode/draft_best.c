/* draft_best.c: the two decisions of draft_control.h as pure functions. */
#include "decode/draft_control.h"

#include <stddef.h>

int draft_best_count(const double *reach, int n, const double *ms, double *rate)
{
    double expected = 1, best_rate = 0;
    int best = 0;
    for (int k = 0; k <= n; k++) {
        if (k > 0) expected += reach[k - 1];
        if (expected / ms[k] <= best_rate) continue;
        best_rate = expected / ms[k];
        best = k;
    }
    if (rate) *rate = best_rate;
    return best;
}

int draft_best_width(const double *reach, int n, const double *ms, double lambda)
{
    double value = -lambda * ms[0], best_value = value, gained = 0;
    int best = 0;
    for (int k = 1; k <= n; k++) {
        gained += reach[k - 1];
        value = gained - lambda * ms[k];
        if (value <= best_value) continue;
        best_value = value;
        best = k;
    }
    return best;
}
