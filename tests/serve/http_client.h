/* http_client.h: a small HTTP client on loopback, so that tests see the bytes: whole replies, streams read event by
 * event, requests sent in pieces. Include after testing.h. */
#ifndef FACET_TESTS_HTTP_CLIENT_H
#define FACET_TESTS_HTTP_CLIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buf.h"

enum { CLIENT_TIMEOUT_MS = 60000 };

typedef struct reply {
    int status; /* 0: the connection ended without one */
    buf head;   /* status line and header fields */
    buf body;   /* chunks joined */
} reply;

/* A connection with what was read from it and not used yet. */
typedef struct client {
    int fd;
    buf in;
    size_t at;
    bool is_over; /* the server closed it */
} client;

static inline client client_open(int port)
{
    client c = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    const struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_true(c.fd >= 0);
    if (connect(c.fd, (const struct sockaddr *)&a, sizeof a) != 0) fail_msg("connect: %s", strerror(errno));
    return c;
}

static inline void client_close(client *c)
{
    close(c->fd);
    buf_free(&c->in);
}

/* False: the server closed the connection. */
static inline bool client_send(client *c, const void *data, size_t n)
{
    for (const char *at = data; n;) {
        const ssize_t k = send(c->fd, at, n, MSG_NOSIGNAL);
        if (k <= 0) return false;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool client_puts(client *c, const char *text)
{
    return client_send(c, text, strlen(text));
}

/* More bytes; false at the end. Nothing may take longer than CLIENT_TIMEOUT_MS. */
static inline bool client_fill(client *c)
{
    char data[1 << 14];
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    if (c->is_over) return false;
    if (poll(&p, 1, CLIENT_TIMEOUT_MS) != 1) fail_msg("no reply within %d ms", CLIENT_TIMEOUT_MS);
    const ssize_t n = recv(c->fd, data, sizeof data, 0);
    if (n <= 0) {
        c->is_over = true;
        return false;
    }
    assert_true(buf_append(&c->in, data, (size_t)n));
    return true;
}

/* Takes everything up to and with `end` from what comes. False: the connection ended first. */
static inline bool client_take_until(client *c, const char *end, buf *out)
{
    for (;;) {
        const char *from = c->in.data ? c->in.data + c->at : "", *hit = strstr(from, end);
        if (hit) {
            const size_t n = (size_t)(hit - from) + strlen(end);
            buf_append(out, from, n);
            c->at += n;
            return true;
        }
        if (!client_fill(c)) return false;
    }
}

static inline bool client_take(client *c, size_t n, buf *out)
{
    while (c->in.len - c->at < n)
        if (!client_fill(c)) break;
    const size_t got = c->in.len - c->at < n ? c->in.len - c->at : n;
    if (got) buf_append(out, c->in.data + c->at, got);
    c->at += got;
    return got == n;
}

/* The value of a header field, in a static buffer; NULL where there is none. */
static inline const char *reply_header(const reply *r, const char *name)
{
    static _Thread_local char value[512];
    for (const char *at = r->head.data; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
        const size_t n = strlen(name);
        if (strncasecmp(at, name, n) != 0 || at[n] != ':') continue;
        at += n + 1;
        at += strspn(at, " ");
        snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\r\n"), at);
        return value;
    }
    return NULL;
}

static inline reply client_read_head(client *c)
{
    reply r = {0};
    do {
        buf_clear(&r.head);
        if (!client_take_until(c, "\r\n\r\n", &r.head)) return r;
        r.status = atoi(r.head.data + strcspn(r.head.data, " "));
    } while (r.status == 100);
    return r;
}

/* One chunk; false after the last one. */
static inline bool client_read_chunk(client *c, buf *out)
{
    buf line = {0}, end = {0};
    bool more = client_take_until(c, "\r\n", &line);
    const size_t n = more ? strtoul(line.data, NULL, 16) : 0;
    more = more && client_take(c, n, out) && client_take(c, 2, &end) && n > 0;
    buf_free(&line);
    buf_free(&end);
    return more;
}

static inline void client_read_body(client *c, reply *r)
{
    const char *coding = reply_header(r, "Transfer-Encoding"), *length;
    if (coding && strcmp(coding, "chunked") == 0)
        while (client_read_chunk(c, &r->body)) continue;
    else if ((length = reply_header(r, "Content-Length")))
        client_take(c, strtoul(length, NULL, 10), &r->body);
    else if (r->status != 204)
        while (client_fill(c)) continue;
    buf_append(&r->body, "", 0);
}

static inline reply client_read(client *c)
{
    reply r = client_read_head(c);
    if (r.status) client_read_body(c, &r);
    return r;
}

static inline void reply_free(reply *r)
{
    buf_free(&r->head);
    buf_free(&r->body);
}

/* headers: further lines, each with \r\n; NULL = none. body: NULL = none. */
static inline bool client_ask(client *c, const char *method, const char *path, const char *headers, const char *body)
{
    buf b = {0};
    buf_printf(&b, "%s %s HTTP/1.1\r\nHost: localhost\r\n%s", method, path, headers ? headers : "");
    if (body) buf_printf(&b, "Content-Type: application/json\r\nContent-Length: %zu\r\n", strlen(body));
    buf_puts(&b, "\r\n");
    if (body) buf_puts(&b, body);
    const bool ok = client_send(c, b.data, b.len);
    buf_free(&b);
    return ok;
}

/* One request on a connection of its own. */
static inline reply http_ask_with(int port, const char *method, const char *path, const char *headers, const char *body)
{
    client c = client_open(port);
    assert_true(client_ask(&c, method, path, headers, body));
    reply r = strcmp(method, "HEAD") == 0 ? client_read_head(&c) : client_read(&c);
    client_close(&c);
    return r;
}

static inline reply http_get(int port, const char *path)
{
    return http_ask_with(port, "GET", path, NULL, NULL);
}

static inline reply http_post(int port, const char *path, const char *body)
{
    return http_ask_with(port, "POST", path, NULL, body);
}

static inline json_t *reply_json(const reply *r)
{
    json_error_t e;
    json_t *j = json_loadb(r->body.data ? r->body.data : "", r->body.len, 0, &e);
    if (!j) fail_msg("status %d, not JSON (%s): %.2000s", r->status, e.text, r->body.data ? r->body.data : "");
    return j;
}

/* The events of a stream: the JSON behind each "data: ", the names behind "event: " as its member "event_name"; the
 * end "[DONE]" as a string. Comments are left out. */
static inline json_t *reply_events(const reply *r)
{
    json_t *list = json_array();
    char name[64] = "";
    for (const char *at = r->body.data; at && *at;) {
        const size_t n = strcspn(at, "\n");
        if (strncmp(at, "event: ", 7) == 0) snprintf(name, sizeof name, "%.*s", (int)(n - 7), at + 7);
        if (strncmp(at, "data: [DONE]", 12) == 0) {
            json_array_append_new(list, json_string("[DONE]"));
        } else if (strncmp(at, "data: ", 6) == 0) {
            json_t *j = json_loadb(at + 6, n - 6, 0, NULL);
            if (!j) fail_msg("not JSON: %.*s", (int)n, at);
            if (*name) json_object_set_new(j, "event_name", json_string(name));
            json_array_append_new(list, j);
            name[0] = 0;
        }
        at += n + (at[n] == '\n');
    }
    return list;
}

/* A member by a path like "choices.0.message.content". */
static inline json_t *json_at(const json_t *j, const char *path)
{
    char part[64];
    while (j && *path) {
        const size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        j = json_is_array(j) ? json_array_get(j, strtoul(part, NULL, 10)) : json_object_get(j, part);
        path += n + (path[n] == '.');
    }
    return (json_t *)(uintptr_t)j;
}

static inline const char *text_at(const json_t *j, const char *path)
{
    const char *s = json_string_value(json_at(j, path));
    return s ? s : "(none)";
}

static inline json_int_t int_at(const json_t *j, const char *path)
{
    const json_t *v = json_at(j, path);
    if (!json_is_integer(v)) fail_msg("%s: no whole number", path);
    return json_integer_value(v);
}

#endif
