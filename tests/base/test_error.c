/* Messages of errors: one line, cut at the end of their room, whatever goes into them. */
#include "testing.h"

#include "base/error.h"

enum { ROOM = sizeof((facet_error *)0)->message };

static void prefix_stands_in_front(void **state)
{
    (void)state;
    facet_error err;
    assert_int_equal(error_set(&err, FACET_ERR_FORMAT, "line %d", 3), FACET_ERR_FORMAT);
    error_prefix(&err, "%s", "file");
    assert_string_equal(err.message, "file: line 3");
    assert_int_equal(err.status, FACET_ERR_FORMAT);
    error_prefix(NULL, "nothing happens");
    assert_int_equal(error_set(NULL, FACET_ERR_IO, "nothing"), FACET_ERR_IO);
}

/* Every length of prefix and message around the room that there is. */
static void long_lines_are_cut(void **state)
{
    (void)state;
    char a[2 * ROOM], b[2 * ROOM], want[4 * ROOM + 4];
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    static const int lengths[] = {0, 1, 2, ROOM / 2, ROOM - 5, ROOM - 4, ROOM - 3, ROOM - 2, ROOM - 1, ROOM, ROOM + 1};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
            facet_error err;
            memset(&err, 0x55, sizeof err);
            error_set(&err, FACET_ERR_ARG, "%.*s", lengths[k], b);
            assert_int_equal(strlen(err.message), lengths[k] < ROOM ? lengths[k] : ROOM - 1);
            error_prefix(&err, "%.*s", lengths[i], a);
            snprintf(want, sizeof want, "%.*s: %.*s", lengths[i], a, lengths[k], b);
            assert_in_range(strlen(err.message), 2, ROOM - 1);
            if (strncmp(err.message, want, strlen(err.message)) != 0) fail_msg("%d, %d", lengths[i], lengths[k]);
            if (lengths[i] + lengths[k] + 2 < ROOM) assert_string_equal(err.message, want);
        }
}

static void control_characters_are_replaced(void **state)
{
    (void)state;
    facet_error err;
    error_set(&err, FACET_ERR_FORMAT, "key \"%s\"", "a\nb\033[31m\x7f");
    assert_string_equal(err.message, "key \"a?b?[31m?\"");
    error_prefix(&err, "%s", "f\r");
    assert_string_equal(err.message, "f?: key \"a?b?[31m?\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prefix_stands_in_front),
        cmocka_unit_test(long_lines_are_cut),
        cmocka_unit_test(control_characters_are_replaced),
    };
    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
