/* temp_dir.h: a folder for the files of one test program. Include after testing.h, with _GNU_SOURCE defined on top. */
#ifndef FACET_TESTS_TEMP_DIR_H
#define FACET_TESTS_TEMP_DIR_H

#include <dirent.h>
#include <sys/stat.h>

static char temp_dir[256];

static inline int temp_dir_make(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(temp_dir, sizeof temp_dir, "%s/facet-test-XXXXXX", base && *base && strlen(base) < 200 ? base : "/tmp");
    return mkdtemp(temp_dir) ? 0 : -1;
}

/* Removes what lies in the folder, one level deep; returns how many things there were. */
static inline int temp_dir_empty(void)
{
    DIR *d = opendir(temp_dir);
    int n = 0;
    if (!d) return 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char path[600];
        snprintf(path, sizeof path, "%s/%s", temp_dir, e->d_name);
        remove(path);
        n++;
    }
    closedir(d);
    return n;
}

static inline int temp_dir_remove(void **state)
{
    (void)state;
    temp_dir_empty();
    return rmdir(temp_dir);
}

static inline const char *temp_file(const char *name)
{
    return test_path(temp_dir, name);
}

static inline void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

#endif
