/* Stop strings in streamed text: the earliest hit, and what must be held back. */
#include "testing.h"

#include "decode/stop.h"

static const struct {
    const char *text, *stop[3];
    bool is_found;
    size_t at, hold;
} table[] = {
    {"", {"ab"}, false, 0, 0},
    {"xyz", {NULL}, false, 0, 0},
    {"xab", {"ab"}, true, 1, 0},
    {"xa", {"ab"}, false, 0, 1},
    {"xaab", {"aab"}, true, 1, 0},
    {"xaa", {"aab"}, false, 0, 2},
    {"xaaa", {"aab"}, false, 0, 2},
    {"xyabz", {"ab", "xy"}, true, 0, 0},
    {"xyabz", {"abz", "ab"}, true, 2, 0},
    {"endend", {"endend!", "dx"}, false, 0, 6},
    {"n\n", {"\n\n", "n\nq"}, false, 0, 2},
    {"text", {"t"}, true, 0, 0},
};

static void every_row_of_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        size_t n_stop = 0, at = 99, hold = 99;
        while (n_stop < 3 && table[i].stop[n_stop]) n_stop++;
        const char *text = *table[i].text ? table[i].text : NULL;
        const bool is_found = stop_find(table[i].stop, n_stop, text, strlen(table[i].text), &at, &hold);
        if (is_found != table[i].is_found || (is_found && at != table[i].at) || (!is_found && hold != table[i].hold))
            fail_msg("row %zu ('%s'): found %d at %zu, hold %zu", i, table[i].text, is_found, at, hold);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_row_of_the_table)};
    return cmocka_run_group_tests_name("stop", tests, NULL, NULL);
}
