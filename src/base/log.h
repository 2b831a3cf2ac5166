/* log.h: log lines go to the receiver set by facet_set_log(); the default is silence. */
#ifndef FACET_BASE_LOG_H
#define FACET_BASE_LOG_H

#include "facet.h"

void log_line(facet_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
