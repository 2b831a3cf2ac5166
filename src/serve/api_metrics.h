/* api_metrics.h: counts of requests, and the page that Prometheus reads. */
#ifndef FACET_SERVE_API_METRICS_H
#define FACET_SERVE_API_METRICS_H

#include <pthread.h>

#include "base/buf.h"
#include "serve/server_engine.h"

enum { METRICS_MAX_ROUTES = 24, METRICS_BUCKETS = 14 };

/* Bounds of the buckets in seconds: 5 ms, doubling. */
typedef struct metrics_histogram {
    uint64_t bucket[METRICS_BUCKETS + 1]; /* the last one: above all bounds */
    double sum;
} metrics_histogram;

typedef struct metrics_count {
    const char *route; /* static */
    int status;
    uint64_t n;
} metrics_count;

typedef struct api_metrics {
    pthread_mutex_t lock;
    metrics_count requests[METRICS_MAX_ROUTES * 8];
    int n_requests;
    metrics_histogram first_token, text_time, queue_time;
} api_metrics;

void metrics_open(api_metrics *m);
void metrics_close(api_metrics *m);
void metrics_count_request(api_metrics *m, const char *route, int status);
void metrics_count_text(api_metrics *m, const text_report *r);
/* The page, in the text format of Prometheus 0.0.4. */
void metrics_write(api_metrics *m, const server_engine_stats *s, int n_connections, double uptime_s, buf *out);

#endif
