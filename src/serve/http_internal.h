/* http_internal.h: what http_server.c, http_exchange.c and http_peers.c share. */
#ifndef FACET_SERVE_HTTP_INTERNAL_H
#define FACET_SERVE_HTTP_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/buf.h"
#include "serve/http_server.h"

enum { HTTP_BUF_KEEP = 1 << 16 };

typedef enum peer_phase {
    PEER_IDLE, /* no complete header of a request */
    PEER_BODY, /* a header, no complete body */
    PEER_BUSY  /* a complete request without a complete reply */
} peer_phase;

/* A connection. */
typedef struct peer {
    struct peer *next, *prev;
    int fd;
    uint32_t serial; /* tells connections apart that had the same fd */
    peer_phase phase;
    uint64_t since;          /* ns: when the phase began */
    uint64_t gone_at;        /* ns: when the client was seen to have closed it, or its half, in this phase; 0 = not */
    http_exchange *exchange; /* of this phase; NULL while idle */
} peer;

/* All connections, and the thread that looks after them. lock comes before those of exchanges. */
typedef struct http_peers {
    http_server *server;
    pthread_mutex_t lock;
    pthread_t thread;
    bool has_thread;
    int epoll, wake; /* file descriptors, -1 = none */
    peer *list;
    peer **by_fd; /* [cap]; NULL where there is none */
    size_t cap;
    int n, n_busy;
    uint32_t serial;
} http_peers;

struct http_server {
    http_config config;
    struct MHD_Daemon *daemon;
    int listen_fd; /* -1 once MHD or nobody has it */
    int port;
    bool is_quiesced;
    http_peers peers;
};

struct http_exchange {
    http_server *server;
    atomic_int refs;
    /* of the request; HTTP thread only */
    const char *method, *path;
    buf body;
    bool is_too_large, is_handled;
    size_t n_received;
    peer *peer;
    /* guarded by lock, which comes before MHD's own ones */
    pthread_mutex_t lock;
    struct MHD_Connection *connection; /* NULL once MHD has let go of it */
    struct MHD_Response *response;     /* not queued yet */
    buf headers;                       /* name, NUL, value, NUL, … */
    int status;
    bool is_stream, is_ended, is_gone, is_suspended;
    buf queue; /* of a stream: what is not taken yet begins at taken */
    size_t taken;
    uint64_t last_put, last_taken; /* ns */
    size_t mark;
    void (*on_change)(void *ud);
    void *on_change_ud;
    int n_notifying; /* calls of on_change under way */
    pthread_cond_t notified;
};

/* http_exchange.c */
http_exchange *exchange_open(http_server *s, struct MHD_Connection *c, const char *method, const char *path);
/* Queues the reply if there is one; otherwise puts the connection to sleep until there is. */
enum MHD_Result exchange_answer(http_exchange *x);
bool exchange_is_replied(http_exchange *x);
/* The client is gone: the producer learns it, the connection wakes up to be closed. */
void exchange_set_gone(http_exchange *x);
/* MHD is done with the connection or the request. */
void exchange_detach(http_exchange *x);
/* True when the reply waits for its reader since before `then`. A silent stream gets a ping. */
bool exchange_tick(http_exchange *x, uint64_t now);

/* http_peers.c */
facet_status peers_open(http_peers *p, http_server *s, facet_error *err);
void peers_close(http_peers *p);
peer *peers_add(http_peers *p, int fd);
void peers_remove(http_peers *p, peer *q);
/* x: the exchange of a phase other than PEER_IDLE; borrowed until the next change. */
void peers_set_phase(http_peers *p, peer *q, peer_phase phase, http_exchange *x);

#endif
