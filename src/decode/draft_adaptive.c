#include "decode/draft_adaptive.h"

#include <stddef.h>

#define FILL_LOW 0.35
#define FILL_HIGH 0.78

static int clamp(int x, int lo, int hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

void draft_adaptive_init(draft_adaptive *a, draft_adaptive_mode mode, bool is_moe, int block, int initial)
{
    const bool is_on = mode == DRAFT_ADAPTIVE_ON || (mode == DRAFT_ADAPTIVE_AUTO && is_moe);
    const int min_rows = block < DRAFT_ADAPTIVE_FLOOR ? block : DRAFT_ADAPTIVE_FLOOR;
    *a = (draft_adaptive){.is_on = is_on,
                          .min_rows = min_rows,
                          .max_rows = block,
                          .n_rows = clamp(initial > 0 ? initial : block, is_on ? min_rows : 1, block)};
}

void draft_adaptive_observe(draft_adaptive *a, int n_accepted, int n_rows)
{
    if (!a->is_on) return;
    a->n_accepted += n_accepted > 1 ? n_accepted - 1 : 0;
    a->n_room += n_rows > 2 ? n_rows - 1 : 1;
    if (++a->n_steps < DRAFT_ADAPTIVE_WINDOW) return;
    const double fill = (double)a->n_accepted / a->n_room;
    if (fill < FILL_LOW)
        a->n_rows = clamp(a->n_rows / 2, a->min_rows, a->max_rows);
    else if (fill > FILL_HIGH)
        a->n_rows = clamp(a->n_rows * 2, a->min_rows, a->max_rows);
    a->n_accepted = a->n_room = a->n_steps = 0;
}

bool draft_switch_is_set(const char *value)
{
    return value != NULL && *value != '\0' && *value != '0';
}

int draft_width_by_confidence(const float *p_top1, int k, float theta, int min_rows)
{
    double reach = 1;
    int n = 0;
    while (n < k && (reach *= (double)p_top1[n]) >= (double)theta) n++;
    if (theta <= 0) n = k;
    return clamp(n + 1, min_rows < k + 1 ? min_rows : k + 1, k + 1);
}
