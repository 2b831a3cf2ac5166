/* testing.h: what the test programs share. Include it first. */
#ifndef FACET_TESTING_H
#define FACET_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "facet.h"

/* Path of a file that ships with the project (tests/data, models). One static buffer per call site is enough for tests:
 * eight paths are kept alive. */
static inline const char *test_path(const char *format_dir, const char *name)
{
    static char paths[8][1024];
    static unsigned next;
    char *p = paths[next++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", format_dir, name);
    return p;
}

static inline const char *test_data(const char *name)
{
    return test_path(FACET_SOURCE_DIR "/tests/data", name);
}

/* Path of a file of the larger reference set, which stands beside a developer's checkout ($FACET_SHARED or ../shared);
 * NULL when it is not there. A test that needs it says so: if (!test_shared("x")) skip(). */
static inline const char *test_shared(const char *name)
{
    const char *dir = getenv("FACET_SHARED");
    const char *p = test_path(dir && *dir ? dir : FACET_SOURCE_DIR "/../shared", name);
    return access(p, R_OK) == 0 ? p : NULL;
}

#define TEST_NEEDS_SHARED(name)                                                                                        \
    do {                                                                                                               \
        if (!test_shared(name)) {                                                                                      \
            print_message("skipped: the reference set (%s) is not beside this checkout\n", name);                      \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

/* Fails with the error's line when status is not FACET_OK. */
#define assert_ok(call, err)                                                                                           \
    do {                                                                                                               \
        if ((call) != FACET_OK) fail_msg("%s: %s", #call, (err).message);                                              \
    } while (0)

#endif
