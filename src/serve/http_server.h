/* http_server.h: HTTP/1.1 over libmicrohttpd. Requests are read whole, up to a limit, and go to one handler, which
 * replies at once or later, whole or as a stream, from any thread. Limits hold for everything that a client can make
 * long: headers, body, the time for either, connections, the time that a reply waits for its reader. */
#ifndef FACET_SERVE_HTTP_SERVER_H
#define FACET_SERVE_HTTP_SERVER_H

#include "base/error.h"

typedef struct http_server http_server;
typedef struct http_exchange http_exchange; /* a request and its reply; counts references */

typedef struct http_config {
    const char *host;                     /* name or address to listen on */
    int port;                             /* 0: a free one */
    int n_threads;                        /* that read requests and write replies */
    int max_connections, max_per_address; /* max_per_address 0: no limit */
    /* libmicrohttpd maps more than 32 KiB of header for each connection, and unmaps them with it. Less comes from
     * malloc: then an idle connection also touches a page or two alone, but as connections come and go in other places
     * of the heap, all pages of all the places that were ever open together become resident. */
    size_t max_header_bytes;
    size_t max_body_bytes;
    int send_buffer_bytes; /* of a connection, in the kernel */
    int idle_timeout_s;    /* a connection without a complete request header */
    int body_timeout_s;    /* from the header to the end of the body */
    int stall_timeout_s;   /* a reply of which nothing more is taken */
    int ping_s;            /* a stream that is silent so long gets an empty comment; 0: none */
    /* When the header is there: may reply, then the body is read but not kept. */
    void (*admit)(void *ud, http_exchange *x);
    /* When the body is there and admit did not reply: must reply, now or later. */
    void (*handle)(void *ud, http_exchange *x);
    /* The exchange is over, replied or not. */
    void (*finished)(void *ud, http_exchange *x);
    void *ud;
} http_config;

/* Listens and serves. FACET_ERR_IO tells why the address cannot be had. */
facet_status http_server_open(const http_config *c, http_server **out, facet_error *err);
int http_server_port(const http_server *s);
/* No new connections; those that are open go on. */
void http_server_quiesce(http_server *s);
/* Requests that are under way: their header was read, their reply is not sent. */
int http_server_n_busy(http_server *s);
int http_server_n_connections(http_server *s);
/* Cuts what is open. Every exchange that was handled must have been replied to or ended. */
void http_server_close(http_server *s);

/* ---- the request; only from admit, handle and finished ---- */

const char *http_method(const http_exchange *x);
const char *http_path(const http_exchange *x);
const char *http_header(const http_exchange *x, const char *name); /* NULL: not there */
const char *http_query(const http_exchange *x, const char *name);
const char *http_body(const http_exchange *x, size_t *n); /* NUL-terminated */
bool http_is_too_large(const http_exchange *x);           /* the body; it was not kept then */
int http_n_connections(const http_exchange *x);           /* of the server */

/* ---- the reply; from any thread while a reference is held ---- */

http_exchange *http_retain(http_exchange *x);
void http_release(http_exchange *x);

/* Before the reply begins. Both are copied. */
void http_set_header(http_exchange *x, const char *name, const char *value);
/* A whole reply; data is copied. The first reply counts, later ones are dropped. */
void http_reply(http_exchange *x, int status, const char *type, const void *data, size_t n);
int http_status(const http_exchange *x); /* of the reply; 0 = none yet */

/* A stream of unknown length: begin, put any number of times, end. What is put waits in memory until the client takes
 * it; a producer looks at http_stream_backlog and pauses, as nobody else limits it. put returns false when the client
 * is gone or memory is short; then the stream is dead. */
void http_stream_begin(http_exchange *x, const char *type);
bool http_stream_put(http_exchange *x, const void *data, size_t n);
void http_stream_end(http_exchange *x);
size_t http_stream_backlog(http_exchange *x);
bool http_is_gone(http_exchange *x); /* the client went, or took nothing for too long */

/* fn is called when the client goes, and when a backlog falls below half of `mark` bytes; from an HTTP thread, with
 * no lock held. Set it once, before the reply. */
void http_watch(http_exchange *x, size_t mark, void (*fn)(void *ud), void *ud);
/* fn is not called any more once this returned. */
void http_unwatch(http_exchange *x);

#endif
