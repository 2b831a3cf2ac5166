#define _GNU_SOURCE /* memmem */
#include "decode/stop.h"

#include <string.h>

bool stop_find(const char *const *stop, size_t n_stop, const char *text, size_t n, size_t *at, size_t *hold)
{
    bool is_found = false;
    *hold = 0;
    for (size_t i = 0; i < n_stop; i++) {
        const size_t len = strlen(stop[i]);
        const char *hit = len && n ? memmem(text, n, stop[i], len) : NULL;
        if (hit && (!is_found || (size_t)(hit - text) < *at)) {
            *at = (size_t)(hit - text);
            is_found = true;
        }
        for (size_t k = len > 1 ? len - 1 : 0; k > *hold; k--)
            if (k <= n && memcmp(text + n - k, stop[i], k) == 0) *hold = k;
    }
    return is_found;
}
