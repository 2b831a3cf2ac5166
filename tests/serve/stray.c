/* stray.c: preloaded into the daemon by a test: everything that asks for the time writes to standard output first, by
 * the C library and directly, as a library that somebody links one day may do. What libraries do before the program
 * begins is let pass. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static bool has_begun;

typedef int (*start_fn)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void),
                        void *);

int __libc_start_main(int (*program)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end);

__attribute__((visibility("default"))) int __libc_start_main(int (*program)(int, char **, char **), int argc,
                                                             char **argv, void (*init)(void), void (*fini)(void),
                                                             void (*rtld_fini)(void), void *stack_end)
{
    has_begun = true;
    return ((start_fn)dlsym(RTLD_NEXT, "__libc_start_main"))(program, argc, argv, init, fini, rtld_fini, stack_end);
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *t)
{
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (has_begun) {
        printf("ok stray printf\n");
        fflush(stdout);
        if (write(STDOUT_FILENO, "err stray write\n", 16) < 0) return -1;
    }
    return next(clock, t);
}
