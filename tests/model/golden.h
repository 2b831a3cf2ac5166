/* golden.h: reading the reference outputs of the small models (goldens/NAME.json and its folder of raw float32). */
#ifndef FACET_TESTS_GOLDEN_H
#define FACET_TESTS_GOLDEN_H

#include "testing.h"

#include <jansson.h>

#include "base/file_map.h"
#include "base/mem.h"

static inline json_t *golden_json(const char *name)
{
    json_error_t e;
    json_t *j = json_load_file(name, 0, &e);
    if (!j) fail_msg("%s: %s", name, e.text);
    return j;
}

/* Raw float32 of a golden file; free with mem_free. */
static inline float *golden_floats(const char *file, size_t want)
{
    char name[256];
    snprintf(name, sizeof name, "goldens/%s", file);
    char *data;
    size_t size;
    facet_error err;
    assert_ok(file_read_all(test_shared(name), 1u << 30, &data, &size, &err), err);
    assert_int_equal(size, want * sizeof(float));
    return (float *)(void *)data;
}

static inline int32_t *golden_ids(const json_t *array, size_t *n)
{
    *n = json_array_size(array);
    int32_t *ids = malloc((*n + 1) * sizeof *ids);
    for (size_t i = 0; i < *n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return ids;
}

/* Largest absolute difference; its index in *at. */
static inline float max_diff(const float *a, const float *b, size_t n, size_t *at)
{
    float worst = 0;
    *at = 0;
    for (size_t i = 0; i < n; i++) {
        float d = a[i] > b[i] ? a[i] - b[i] : b[i] - a[i];
        if (!(d <= worst)) worst = d, *at = i;
    }
    return worst;
}

/* Index of the largest value, the first of equal ones. */
static inline int32_t golden_argmax(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

/* True when the text, stripped, begins with the answer, stripped: the rule of `facet eval tasks`. */
static inline bool golden_is_right(const char *text, const char *answer)
{
    static const char blank[] = " \t\r\n\v\f";
    text += strspn(text, blank);
    answer += strspn(answer, blank);
    size_t n = strlen(answer);
    while (n && strchr(blank, answer[n - 1])) n--;
    return strncmp(text, answer, n) == 0;
}

#endif
