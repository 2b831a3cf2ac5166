/* fuzz_snapshot.c: loads arbitrary bytes as a snapshot into an engine of the bundled model and, when they are accepted,
 * goes on from there.
 *
 * Checksums would keep a fuzzer out, and pages are large: an input is the beginning of a file. It is loaded as it is;
 * then with the model's identity and a right checksum in its header; then with zeroes up to the size that it claims
 * (below a limit), and a right checksum of everything. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/mem.h"
#include "decode/snapshot_file.h"
#include "decode/snapshot_header.h"
#include "model/identity.h"

#define MODEL FACET_SOURCE_DIR "/models/facet-small-Q4_K_M.gguf"
#define MAX_FILE ((size_t)4 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct world {
    facet_model *model;
    facet_engine *engine;
    int fd; /* a file in memory */
    char path[64];
    uint8_t *bytes; /* [MAX_FILE] */
} world;

static void require(bool condition)
{
    if (!condition) abort();
}

static world open_world(void)
{
    world w = {.fd = memfd_create("snapshot", MFD_CLOEXEC), .bytes = malloc(MAX_FILE)};
    facet_engine_params p = facet_engine_params_default();
    p.device = "cpu";
    p.use_mmap = true;
    p.n_threads = 1;
    p.n_ctx = 256;
    p.cache_type_k = p.cache_type_v = "q8_0";
    require(w.fd >= 0 && w.bytes);
    require(facet_model_open(MODEL, &w.model, NULL) == FACET_OK);
    require(facet_engine_open(w.model, &p, &w.engine, NULL) == FACET_OK);
    snprintf(w.path, sizeof w.path, "/proc/self/fd/%d", w.fd);
    return w;
}

/* A snapshot that was accepted can be used. */
static void go_on(world *w)
{
    facet_error err;
    facet_session *s;
    snapshot_info info;
    int32_t n, token = 300;
    require(snapshot_describe(w->engine, 0, &info));
    require(info.n_tokens >= 1 && info.n_tokens <= facet_engine_n_ctx(w->engine));
    require(snapshot_tokens(w->engine, 0, &n) && n == info.n_tokens);
    require(facet_session_open(w->engine, &s, &err) == FACET_OK);
    if (snapshot_restore(s, 0, &err) == FACET_OK) {
        require(info.first == 0 && facet_session_n_tokens(s) == n);
        if (n < facet_engine_n_ctx(w->engine)) require(session_append(s, &token, 1, &err) == FACET_OK);
    } else {
        require(info.first > 0);
    }
    facet_session_close(s);
}

static void load(world *w, const uint8_t *data, size_t size)
{
    facet_error err = {0};
    require(ftruncate(w->fd, 0) == 0 && pwrite(w->fd, data, size, 0) == (ssize_t)size);
    const facet_status status = snapshot_load(w->engine, 0, w->path, &err);
    if (status == FACET_OK)
        go_on(w);
    else
        require(err.message[0] && !strchr(err.message, '\n'));
    snapshot_free_all(w->engine);
    for (int g = 0; g < w->engine->kv.n_groups; g++)
        require(kv_pool_free_pages(w->engine->pool, g) == w->engine->kv.groups[g].n_pages);
}

static void sign_header(world *w)
{
    snapshot_header h;
    memcpy(&h, w->bytes, sizeof h);
    h.model = identity_of_model(w->model);
    h.checksum = hash64_of(&h, offsetof(snapshot_header, checksum));
    memcpy(w->bytes, &h, sizeof h);
}

/* The size that the header claims, or 0 when it is none to go along with. */
static size_t claimed(const world *w)
{
    snapshot_header h;
    memcpy(&h, w->bytes, sizeof h);
    return h.file_bytes > sizeof h + sizeof(uint64_t) && h.file_bytes <= MAX_FILE ? (size_t)h.file_bytes : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static world w;
    if (!w.model) w = open_world();
    if (size > MAX_FILE) return 0;
    load(&w, data, size);
    if (size < sizeof(snapshot_header)) return 0;
    memcpy(w.bytes, data, size);
    sign_header(&w);
    load(&w, w.bytes, size);
    const size_t whole = claimed(&w);
    if (whole == 0) return 0;
    if (whole > size) memset(w.bytes + size, 0, whole - size);
    const uint64_t sum = hash64_of(w.bytes, whole - sizeof sum);
    memcpy(w.bytes + whole - sizeof sum, &sum, sizeof sum);
    load(&w, w.bytes, whole);
    return 0;
}
