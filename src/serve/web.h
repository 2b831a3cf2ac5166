/* web.h: the files of the page, inside the program; made from src/serve/web at build time. */
#ifndef FACET_SERVE_WEB_H
#define FACET_SERVE_WEB_H

#include <stddef.h>

typedef struct web_file {
    const char *name;
    const unsigned char *data; /* [size] */
    size_t size;
    const char *tag; /* of this content, in quotes, for ETag */
} web_file;

extern const web_file web_files[]; /* [web_n_files] */
extern const size_t web_n_files;

#endif
