/* facet.h: the public interface of Facet, an inference engine for Google's Gemma 4 models.
 *
 * Ownership: an object made by facet_x_open() belongs to the caller and is closed by facet_x_close(),
 * which accepts NULL. Strings and arrays handed in are only borrowed for the call.
 * Errors: every function that can fail returns facet_status and, if `err` is not NULL, leaves one line
 * there that names the file, field or option, the value met and the value wanted. Outputs are written
 * only on success. The library never prints, aborts or exits.
 * Threads: a facet_model is immutable and may be shared; an engine and its sessions belong to one thread
 * at a time; facet_session_cancel() may be called from any thread. */
#ifndef FACET_H
#define FACET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FACET_API __attribute__((visibility("default")))
#else
#define FACET_API
#endif

typedef enum facet_status {
    FACET_OK = 0,
    FACET_ERR_ARG,         /* an argument or option is out of its range */
    FACET_ERR_IO,          /* a file could not be opened, read or written */
    FACET_ERR_FORMAT,      /* a file is malformed */
    FACET_ERR_UNSUPPORTED, /* well-formed, but not a model or a type that Facet runs */
    FACET_ERR_MEMORY,      /* host or device memory is short */
    FACET_ERR_SHAPE,       /* a tensor has other dimensions than its role demands */
    FACET_ERR_LIMIT,       /* a named limit (context, batch, queue) is reached */
    FACET_ERR_DEVICE,      /* a device is absent, too old, or failed */
    FACET_ERR_NUMERIC,     /* non-finite logits */
    FACET_ERR_CANCELLED    /* stopped by the caller */
} facet_status;

/* Caller-owned; `message` is one NUL-terminated line without a newline. */
typedef struct facet_error {
    facet_status status;
    char message[512];
} facet_error;

/* Progress of long work: `phase` is a static word ("load", "prefill", …), `done` of `total` units.
 * Return false to cancel; the work then ends with FACET_ERR_CANCELLED. */
typedef bool (*facet_progress_fn)(void *ud, const char *phase, uint64_t done, uint64_t total);

typedef enum facet_log_level { FACET_LOG_ERROR, FACET_LOG_WARN, FACET_LOG_INFO, FACET_LOG_DEBUG } facet_log_level;
typedef void (*facet_log_fn)(void *ud, facet_log_level level, const char *message);

/* Sets the receiver of log lines for the whole process; NULL (the default) is silence.
 * Not thread-safe against running work: call it first. */
FACET_API void facet_set_log(facet_log_fn fn, void *ud);

/* "1.2.3" of the library that is linked. */
FACET_API const char *facet_version(void);

#ifdef __cplusplus
}
#endif
#endif
