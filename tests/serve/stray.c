/* stray.c: preloaded into the daemon by a test: everything that asks for the time writes to standard output first, by
 * the C library and directly, as a library that somebody links one day may do. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    printf("ok stray printf\n");
    fflush(stdout);
    if (write(STDOUT_FILENO, "err stray write\n", 16) < 0) return -1;
    return next(clock, t);
}
