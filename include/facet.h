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

/* ---- model, engine, session ---- */

typedef struct facet_model facet_model;     /* an open GGUF file of a Gemma 4 target */
typedef struct facet_engine facet_engine;   /* a device, the page pool, the plans */
typedef struct facet_session facet_session; /* one sequence of tokens */

/* Opens and checks a file; nothing is read beyond its header yet. */
FACET_API facet_status facet_model_open(const char *path, facet_model **out, facet_error *err);
FACET_API void facet_model_close(facet_model *m); /* after its engines */
FACET_API int32_t facet_model_n_vocab(const facet_model *m);
FACET_API int32_t facet_model_n_ctx(const facet_model *m); /* the context it was trained for, in tokens */

typedef struct facet_drafter facet_drafter; /* an open draft model beside its target */

/* path: a GGUF file of an MTP assistant or a DFlash drafter, or a folder with its config.json and safetensors. One line
 * names the file and the field that does not fit the target, before any long work. The target must outlive it. */
FACET_API facet_status facet_drafter_open(const char *path, const facet_model *target, facet_drafter **out,
                                          facet_error *err);
FACET_API void facet_drafter_close(facet_drafter *d);             /* after the engine that uses it */
FACET_API const char *facet_drafter_kind(const facet_drafter *d); /* "mtp" or "dflash" */

typedef struct facet_engine_params {
    size_t struct_size;       /* sizeof(facet_engine_params) */
    const char *device;       /* "cpu", "cuda", "cuda:N", "ref", "auto" */
    int n_threads;            /* 0 = one per processor */
    int32_t n_ctx;            /* tokens per session; 0 = the model's limit, or what half of the free memory holds */
    int n_sessions;           /* sessions that can be full at a time */
    const char *cache_type_k; /* "f16", "q8_0", "f32" (exact, twice as large as f16) */
    const char *cache_type_v;
    bool use_mmap;     /* run from the mapped file: starts at once, slower */
    bool wants_hidden; /* make the post-norm hidden of wanted rows readable */
    int n_captures;    /* residual streams after these layers become readable (ascending, at most 16) */
    const int *capture_layers;
    facet_drafter *const *drafters; /* at most one of each kind; each belongs to one engine at a time */
    int n_drafters;
    int32_t draft_ctx;      /* DFlash: committed positions that the drafter sees; 0 = 4096 */
    float tree_temp;        /* DFlash trees: temperature of the drafter's probabilities; changes shapes, never tokens */
    const char *block_mask; /* DFlash: "auto", "all_bidir", "swa_causal", "all_causal" */
    facet_progress_fn progress;
    void *progress_ud;
} facet_engine_params;

FACET_API facet_engine_params facet_engine_params_default(void);
/* Loads the weights. FACET_ERR_MEMORY tells what the context would need. The model must outlive the engine. */
FACET_API facet_status facet_engine_open(facet_model *m, const facet_engine_params *p, facet_engine **out,
                                         facet_error *err);
FACET_API void facet_engine_close(facet_engine *e); /* after its sessions */
FACET_API int32_t facet_engine_n_ctx(const facet_engine *e);

typedef struct facet_memory {
    uint64_t weights, kv, compute, peak_rss, device; /* bytes */
} facet_memory;
FACET_API void facet_engine_memory(const facet_engine *e, facet_memory *out);

FACET_API facet_status facet_session_open(facet_engine *e, facet_session **out, facet_error *err);
FACET_API void facet_session_close(facet_session *s);
/* A session with the same tokens that shares every page with this one. */
FACET_API facet_status facet_session_fork(const facet_session *s, facet_session **out, facet_error *err);
/* Makes tokens[0, n) the session's content: keeps the longest common prefix that the cache still holds, evaluates the
 * rest. Local layers forget what left their window, but the end of the last synced prompt is held: a next prompt that
 * parts from this one there (or less than 64 tokens before) evaluates only what is new, however much was generated in
 * between. Afterwards the logits after the last token are at hand. n >= 1. FACET_ERR_LIMIT above the context;
 * FACET_ERR_CANCELLED leaves a valid shorter prefix. */
FACET_API facet_status facet_session_sync(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
FACET_API int32_t facet_session_n_tokens(const facet_session *s);
/* Logits after the last token: n_vocab floats, after the softcap. */
FACET_API facet_status facet_session_logits(facet_session *s, float *out, facet_error *err);
/* Stops work in this session as soon as the running step ends. From any thread. */
FACET_API void facet_session_cancel(facet_session *s);

/* ---- sampling and generation ---- */

typedef struct facet_logit_bias {
    int32_t token;
    float bias; /* at most 1e9; -INFINITY excludes the token */
} facet_logit_bias;

typedef struct facet_sampling {
    size_t struct_size;
    float temperature;                                         /* 0 = greedy */
    int top_k;                                                 /* 0 = off */
    float top_p;                                               /* 1 = off */
    float min_p;                                               /* 0 = off */
    uint64_t seed;                                             /* the same seed gives the same text */
    float repeat_penalty, presence_penalty, frequency_penalty; /* 1, 0, 0 = off */
    int penalty_last_n;                                        /* tokens looked back at; -1 = all */
    const facet_logit_bias *bias;
    size_t n_bias;
} facet_sampling;
/* Greedy, everything else off. */
FACET_API facet_sampling facet_sampling_default(void);
/* What the model's file recommends (temperature 1, top-k 64, top-p 0.95 where it says nothing). */
FACET_API facet_sampling facet_sampling_of_model(const facet_model *m);

typedef enum facet_stop { FACET_STOP_LIMIT, FACET_STOP_EOS, FACET_STOP_STRING, FACET_STOP_CANCELLED } facet_stop;

/* ---- speculative decoding: the same tokens, sooner ---- */

typedef enum facet_spec_method {
    FACET_SPEC_NONE,
    FACET_SPEC_MTP,
    FACET_SPEC_DFLASH,
    FACET_SPEC_NGRAM, /* drafts from the session's own text; needs no drafter */
    FACET_SPEC_AUTO   /* whichever of these the engine has pays most, step by step; none where none pays */
} facet_spec_method;

typedef enum facet_spec_adapt {
    FACET_ADAPT_COST,   /* lengths by measured cost and running acceptance: never slower than plain for long */
    FACET_ADAPT_WINDOW, /* the published rolling-window rule */
    FACET_ADAPT_OFF     /* fixed lengths */
} facet_spec_adapt;

typedef struct facet_speculation {
    facet_spec_method method;
    facet_spec_adapt adapt;
    int draft_max;        /* drafts per step at most, 1 to 63; 0 = what the drafter can (n-gram: 15) */
    int mtp_gamma;        /* drafts per step of the MTP assistant, 1 to 16, the most under FACET_ADAPT_COST; 0 = 4, or
                             what pays */
    int tree_budget;      /* DFlash: nodes of the draft tree, 1 to 63; 0 = a chain; -1 = a chain, or what pays */
    bool is_chain_seeded; /* DFlash trees: the chain of best tokens comes first */
    float p_min;          /* MTP: end the draft before a token less likely than this; 0 = off */
    float width_theta;    /* fixed and rolling lengths of DFlash chains: verify while the product of the drafter's
                             confidences reaches this; 0 = off */
} facet_speculation;

enum { FACET_SPEC_DEPTHS = 16 };
typedef struct facet_spec_stats {
    uint64_t steps, drafted, accepted, committed, plain_steps; /* plain_steps: of steps, those without drafts */
    uint64_t tree_steps, moves;
    double draft_ms, verify_ms, other_ms;
    double mean_accepted; /* tokens committed per step */
    /* Steps in which a draft at position i + 1 was verified and those before it were accepted, and those of them in
     * which it was accepted, too; the last entries count deeper positions as well. acceptance: their ratio. */
    uint64_t reached[FACET_SPEC_DEPTHS], held[FACET_SPEC_DEPTHS];
    double acceptance[FACET_SPEC_DEPTHS];
    uint64_t method_steps[FACET_SPEC_AUTO]; /* drafting steps by facet_spec_method */
} facet_spec_stats;
/* Adds the counts of one generation to a sum (zeroes at first), and takes its ratios anew. */
FACET_API void facet_spec_stats_add(facet_spec_stats *sum, const facet_spec_stats *s);

/* Called per token with the text that became complete (n may be 0). Return false to stop. Other sessions of the engine
 * may run in it; what the generating session holds is settled only when the generation has ended. */
typedef bool (*facet_token_fn)(void *ud, int32_t token, const char *text, size_t n);

typedef struct facet_generate_params {
    size_t struct_size;
    int32_t n_predict;       /* -1 = up to the end of the context */
    bool ignore_eos;         /* end tokens are generated like others */
    bool show_special;       /* control tokens appear in the text */
    const char *const *stop; /* texts that end generation, valid UTF-8, not empty; not part of the output */
    size_t n_stop;
    facet_token_fn on_token;
    void *ud;
    facet_progress_fn progress; /* of the prompt: phase "prefill", tokens evaluated of those that the cache lacked */
    void *progress_ud;
    facet_speculation speculation; /* zeroes: plain decoding */
} facet_generate_params;
FACET_API facet_generate_params facet_generate_params_default(void);

typedef struct facet_generate_result {
    facet_stop stop;
    int32_t n_tokens; /* generated, an end token not counted */
    double prefill_ms, decode_ms;
    int32_t n_prefill; /* prompt tokens that were evaluated (not taken from the cache) */
    facet_spec_stats spec;
} facet_generate_result;

/* facet_session_sync to the prompt, then generation. */
FACET_API facet_status facet_generate(facet_session *s, const int32_t *prompt, size_t n_prompt,
                                      const facet_sampling *sampling, const facet_generate_params *p,
                                      facet_generate_result *out, facet_error *err);

/* ---- text ---- */

/* Token ids of a text; *ids is owned by the caller (facet_free). */
FACET_API facet_status facet_tokenize(const facet_model *m, const char *text, size_t n, bool add_bos,
                                      bool parse_special, int32_t **ids, size_t *n_ids, facet_error *err);
FACET_API void facet_free(void *p);

#ifdef __cplusplus
}
#endif
#endif
