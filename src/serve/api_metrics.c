#include "serve/api_metrics.h"

#include <string.h>

void metrics_open(api_metrics *m)
{
    *m = (api_metrics){0};
    pthread_mutex_init(&m->lock, NULL);
}

void metrics_close(api_metrics *m)
{
    pthread_mutex_destroy(&m->lock);
}

void metrics_count_request(api_metrics *m, const char *route, int status)
{
    enum { CAP = sizeof m->requests / sizeof *m->requests };
    int i = 0;
    pthread_mutex_lock(&m->lock);
    while (i < m->n_requests && (m->requests[i].status != status || strcmp(m->requests[i].route, route) != 0)) i++;
    if (i < CAP) {
        if (i == m->n_requests) m->requests[m->n_requests++] = (metrics_count){.route = route, .status = status};
        m->requests[i].n++;
    }
    pthread_mutex_unlock(&m->lock);
}

static double bound(int i)
{
    return 0.005 * (double)(1 << i);
}

static void observe(metrics_histogram *h, double seconds)
{
    int i = 0;
    while (i < METRICS_BUCKETS && seconds > bound(i)) i++;
    h->bucket[i]++;
    h->sum += seconds;
}

void metrics_count_text(api_metrics *m, const text_report *r)
{
    pthread_mutex_lock(&m->lock);
    observe(&m->queue_time, r->queue_ms * 1e-3);
    if (r->n_tokens) observe(&m->first_token, r->first_token_ms * 1e-3);
    observe(&m->text_time, (r->queue_ms + r->prefill_ms + r->decode_ms) * 1e-3);
    pthread_mutex_unlock(&m->lock);
}

static void head(buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP facet_%s %s\n# TYPE facet_%s %s\n", name, help, name, type);
}

static void number(buf *out, const char *name, const char *type, const char *help, double v)
{
    head(out, name, type, help);
    buf_printf(out, "facet_%s %.17g\n", name, v);
}

static void histogram(buf *out, const char *name, const char *help, const metrics_histogram *h)
{
    uint64_t n = 0;
    head(out, name, "histogram", help);
    for (int i = 0; i < METRICS_BUCKETS; i++) {
        n += h->bucket[i];
        buf_printf(out, "facet_%s_bucket{le=\"%g\"} %llu\n", name, bound(i), (unsigned long long)n);
    }
    n += h->bucket[METRICS_BUCKETS];
    buf_printf(out, "facet_%s_bucket{le=\"+Inf\"} %llu\nfacet_%s_sum %.9g\nfacet_%s_count %llu\n", name,
               (unsigned long long)n, name, h->sum, name, (unsigned long long)n);
}

static void engine_numbers(buf *out, const server_engine_stats *s)
{
    number(out, "texts_running", "gauge", "Texts that run.", s->n_active);
    number(out, "texts_waiting", "gauge", "Texts in the queue.", s->n_waiting);
    number(out, "queue_size", "gauge", "Texts that may wait.", s->n_queue);
    number(out, "texts_total", "counter", "Texts that ended.", (double)s->n_texts);
    number(out, "texts_failed_total", "counter", "Texts that ended with an error.", (double)s->n_failed);
    number(out, "texts_cancelled_total", "counter", "Texts whose client went.", (double)s->n_cancelled);
    number(out, "texts_refused_total", "counter", "Texts that found the queue full.", (double)s->n_refused);
    number(out, "engine_steps_total", "counter", "Steps of the target.", (double)s->n_steps);
    number(out, "prompt_tokens_total", "counter", "Tokens of prompts.", (double)s->n_prompt_tokens);
    number(out, "prompt_tokens_cached_total", "counter", "Of these, taken from the cache.", (double)s->n_cached_tokens);
    number(out, "generated_tokens_total", "counter", "Tokens generated.", (double)s->n_tokens);
    number(out, "prefill_seconds_total", "counter", "Time that texts spent on prompts.", s->prefill_ms * 1e-3);
    number(out, "decode_seconds_total", "counter", "Time that texts spent on generated tokens.", s->decode_ms * 1e-3);
    number(out, "drafted_tokens_total", "counter", "Drafts verified.", (double)s->spec.drafted);
    number(out, "accepted_tokens_total", "counter", "Drafts accepted.", (double)s->spec.accepted);
}

static void prefix_numbers(buf *out, const server_engine_stats *s)
{
    number(out, "kept_prompts", "gauge", "Prompts that are kept beside the sessions.", s->prefix_entries);
    number(out, "kept_prompt_bytes", "gauge", "What their pages take.", (double)s->prefix_bytes);
    number(out, "kept_prompt_bytes_max", "gauge", "What they may take.", (double)s->prefix_budget);
    number(out, "kept_prompts_forgotten_total", "counter", "Prompts that were forgotten for room.",
           (double)s->prefix_evictions);
}

static void page_numbers(buf *out, const server_engine_stats *s)
{
    static const char *const groups[] = {"global", "local", "draft", "other"};
    head(out, "cache_pages", "gauge", "Pages of the KV cache, of 64 positions each.");
    for (int g = 0; g < s->n_groups; g++)
        buf_printf(out, "facet_cache_pages{group=\"%s\"} %d\n", groups[g], (int)s->pages[g]);
    head(out, "cache_pages_free", "gauge", "Of these, free.");
    for (int g = 0; g < s->n_groups; g++)
        buf_printf(out, "facet_cache_pages_free{group=\"%s\"} %d\n", groups[g], (int)s->free_pages[g]);
}

void metrics_write(api_metrics *m, const server_engine_stats *s, int n_connections, double uptime_s, buf *out)
{
    number(out, "uptime_seconds", "gauge", "Time since the server began.", uptime_s);
    number(out, "connections", "gauge", "Open connections.", n_connections);
    engine_numbers(out, s);
    prefix_numbers(out, s);
    page_numbers(out, s);
    pthread_mutex_lock(&m->lock);
    head(out, "http_requests_total", "counter", "Requests by route and status; 499: the client went.");
    for (int i = 0; i < m->n_requests; i++)
        buf_printf(out, "facet_http_requests_total{route=\"%s\",status=\"%d\"} %llu\n", m->requests[i].route,
                   m->requests[i].status, (unsigned long long)m->requests[i].n);
    histogram(out, "queue_seconds", "Time that texts waited.", &m->queue_time);
    histogram(out, "first_token_seconds", "From the request to its first token.", &m->first_token);
    histogram(out, "text_seconds", "From the request to the end of a text.", &m->text_time);
    pthread_mutex_unlock(&m->lock);
}
