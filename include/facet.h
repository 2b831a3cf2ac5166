/* facet.h: the public interface of Facet, an inference engine for Google's Gemma 4 models.
 *
 * Ownership: an object made by facet_x_open() belongs to the caller and is closed by facet_x_close(), which accepts
 * NULL. Strings and arrays handed in are only borrowed for the call. Text and arrays handed out by pointer to pointer
 * belong to the caller, who gives them to facet_free(); a `const` pointer that is returned is borrowed.
 * Errors: every function that can fail returns facet_status and, if `err` is not NULL, leaves one line there that names
 * the file, field or option, the value met and the value wanted. Outputs are written only on success. After an error
 * the objects are as before and usable, FACET_ERR_DEVICE excepted. The library never prints, aborts or exits. Threads:
 * a facet_model is immutable and may be shared by threads; an engine, its drafters and all its sessions are used by one
 * thread at a time; facet_session_cancel() may be called from any thread. Callbacks run in the thread of the call that
 * takes them. Units: times in milliseconds, memory in bytes, lengths of texts in bytes (UTF-8), everything else in
 * tokens. Structs of parameters come from facet_x_default() and carry their size, so that a program and a library that
 * do not fit are told. docs/library.md has the tour, examples/ four programs. */
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

#define FACET_VERSION_MAJOR 0
#define FACET_VERSION_MINOR 1
#define FACET_VERSION_PATCH 0

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
    FACET_ERR_CANCELLED,   /* stopped by the caller */
    FACET_ERR_PARKED       /* a part of the engine that the call needs is parked */
} facet_status;

/* "ok", "arg", "io", "format", "unsupported", "memory", "shape", "limit", "device", "numeric", "cancelled", "parked" */
FACET_API const char *facet_status_name(facet_status s);

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

/* "1.2.3" of the library that is linked. Before 1.0 programs fit libraries of the same major and minor version. */
FACET_API const char *facet_version(void);

/* Frees what the library handed out by pointer to pointer; NULL is fine. */
FACET_API void facet_free(void *p);

/* ---- model, engine, session ---- */

typedef struct facet_model facet_model;     /* an open GGUF file of a Gemma 4 target */
typedef struct facet_engine facet_engine;   /* a device, the page pool, the plans */
typedef struct facet_session facet_session; /* one sequence of tokens */

/* Opens and checks a file; nothing is read beyond its header yet. */
FACET_API facet_status facet_model_open(const char *path, facet_model **out, facet_error *err);
FACET_API void facet_model_close(facet_model *m); /* after its engines */
FACET_API int32_t facet_model_n_vocab(const facet_model *m);
FACET_API int32_t facet_model_n_ctx(const facet_model *m); /* the context it was trained for */

typedef struct facet_model_info {
    char name[64]; /* general.name of the file, cut to whole characters; "" when it has none */
    int32_t n_layers, n_embd, n_heads, n_vocab;
    int32_t n_ctx;                     /* it was trained for */
    int32_t window;                    /* positions that local layers see */
    int32_t n_experts, n_experts_used; /* 0 in dense models */
    int32_t bos, eos;                  /* token ids, -1 where the vocabulary lacks one */
    uint64_t weight_bytes;             /* of all tensors, as the file has them */
} facet_model_info;
FACET_API void facet_model_describe(const facet_model *m, facet_model_info *out);
/* True for the tokens that end a text: <eos>, <turn|> and the file's own. */
FACET_API bool facet_model_is_end(const facet_model *m, int32_t token);

typedef struct facet_drafter facet_drafter; /* an open draft model beside its target */

/* path: a GGUF file of an MTP assistant or a DFlash drafter, or a folder with its config.json and safetensors. One line
 * names the file and the field that does not fit the target, before any long work. The target must outlive it. */
FACET_API facet_status facet_drafter_open(const char *path, const facet_model *target, facet_drafter **out,
                                          facet_error *err);
FACET_API void facet_drafter_close(facet_drafter *d);             /* after the engine that uses it */
FACET_API const char *facet_drafter_kind(const facet_drafter *d); /* "mtp" or "dflash" */

typedef struct facet_engine_params {
    size_t struct_size; /* sizeof(facet_engine_params) */
    const char *device; /* "cpu", "cuda", "cuda:N", "ref", "auto" */
    int n_threads;      /* 0 = one per processor */
    int32_t n_ctx;      /* tokens per session; 0 = the model's limit, or what half of the free memory holds */
    int n_sessions;     /* sessions that can be full at a time */
    /* NULL: that of the preset; "f16", "q8_0", "q4_0", "tq3_0", "rot_q8_0", "rot_q4_0" (rotated first), "f32" (exact,
     * twice as large as f16). docs/formats.md describes them. */
    const char *cache_type_k;
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
    uint64_t cache_bytes; /* room of the KV cache for snapshots and cached prompts, beside that of the sessions */
    bool reuse_prompts; /* a prompt starts from the longest beginning that a session, snapshot or cached prompt holds */
    bool auto_unpark;   /* what needs a parked part unparks it instead of failing with FACET_ERR_PARKED */
    /* NULL, or cache types of single layers of the target: "SELECTOR=K[/V],..." with a layer's number, a range "2-5",
     * "local" or "global"; later entries overrule earlier ones. */
    const char *cache_layers;
    const char *cache_preset; /* NULL, "exact" (both: f16), "balanced", "small", "tiny" */
    /* Global layers whose V is the K projection keep V alone (in the finer of the two types), and keys are rebuilt when
     * they are read: half of what each further token takes. FACET_ERR_UNSUPPORTED for models without such layers, and
     * on CUDA devices. docs/long-context.md */
    bool rebuild_keys;
    /* Sparse attention: global layers read some of the keys (docs/sparse-attention.md). 0 = off everywhere. CPU only.
     */
    float sparse_alpha;   /* decoding: blocks whose mean key has this share of the best one's weight; 1 = all */
    float sparse_mass;    /* decoding: blocks until this much of the softmax is read by estimate, as 0.999; 1 = all */
    int32_t sparse_min;   /* rows that see fewer keys read all of them; by default 16384 */
    float sparse_hard;    /* a row reads the rest when more may have been dropped, by certificate; 1 = never */
    float sparse_prefill; /* prompts, too: blocks until this much is read by estimate, as 0.95; 1 = all */
    float sparse_prefill_alpha; /* or: blocks with this share of the best one's weight, as 0.1 */
    bool sparse_check;          /* also measures what was dropped, which reads everything; output stays the same */
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

typedef struct facet_engine_info {
    char device[16];               /* "cpu", "ref" or "cuda" */
    char description[128];         /* processor or card */
    int32_t n_ctx;                 /* of one session */
    int32_t n_pages, n_free_pages; /* of the global layers' cache, 64 positions each: what sessions, forks and snapshots
                                      share */
    uint64_t n_steps;              /* runs of the target so far */
    uint64_t memory_total, memory_free; /* of the device, or of the machine for CPU devices */
    /* Cached beginnings of prompts (reuse_prompts): how many, their bytes; prompts that found theirs somewhere, and the
     * tokens that were not evaluated for it. */
    int32_t n_cached_prompts;
    uint64_t cached_bytes, n_prompt_hits, n_reused_tokens;
} facet_engine_info;
FACET_API void facet_engine_describe(const facet_engine *e, facet_engine_info *out);

/* What sparse attention did so far; a choice is that of one row, layer and KV head which may leave keys out. */
typedef struct facet_sparse_stats {
    uint64_t choices;
    uint64_t dense, rescued;   /* choices that read all: too many blocks were wanted; too much might be missing */
    uint64_t blocks, selected; /* blocks of 64 keys there were, and that were read */
    uint64_t probed;           /* blocks whose keys were read once more to choose */
    double share;              /* selected / blocks */
    double certified_mean, certified_max; /* of the softmax at most this share was dropped, in the worst head */
    double estimated_max;
    double measured_mean, measured_max; /* what was dropped (sparse_check) */
    double error_max;                   /* certified bound of the output's relative error */
} facet_sparse_stats;
FACET_API void facet_engine_sparse(const facet_engine *e, facet_sparse_stats *out);

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
/* Adds tokens[0, n), n >= 1, to the session's content and evaluates them. FACET_ERR_CANCELLED leaves some of them. */
FACET_API facet_status facet_session_append(facet_session *s, const int32_t *tokens, size_t n, facet_error *err);
FACET_API int32_t facet_session_n_tokens(const facet_session *s);
/* The session's tokens, all evaluated: [facet_session_n_tokens], borrowed until the next call that changes it. */
FACET_API const int32_t *facet_session_tokens(const facet_session *s);
/* What the model says after the last token. When another session of the engine ran since, that token is evaluated
 * again. logits: n_vocab floats, after the softcap. best: the likeliest token, without the logits' way to the host.
 * hidden: n_embd floats, the post-norm hidden state (an engine with wants_hidden). capture: n_embd floats, the residual
 * stream after capture_layers[i]; evaluates the last token again unless it was a step of its own. FACET_ERR_ARG when
 * the session is empty. */
FACET_API facet_status facet_session_logits(facet_session *s, float *out, facet_error *err);
FACET_API facet_status facet_session_best(facet_session *s, int32_t *token, facet_error *err);
FACET_API facet_status facet_session_hidden(facet_session *s, float *out, facet_error *err);
FACET_API facet_status facet_session_capture(facet_session *s, int i, float *out, facet_error *err);
/* Stops work in this session as soon as the running step ends: sync and append with FACET_ERR_CANCELLED, a generation
 * with what it has and FACET_STOP_CANCELLED (FACET_ERR_CANCELLED during its prompt). While nothing runs, the next call
 * is the one that stops. From any thread, and from signal handlers. */
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

/* The sampler on its own, for loops of the caller's: generation has one built in. Belongs to one thread at a time. */
typedef struct facet_sampler facet_sampler;
FACET_API facet_status facet_sampler_open(const facet_model *m, const facet_sampling *p, facet_sampler **out,
                                          facet_error *err);
FACET_API void facet_sampler_close(facet_sampler *s);
/* Draws the token after the session's last one, which facet_session_append then adds. The draw depends on seed and
 * position alone. */
FACET_API facet_status facet_sampler_pick(facet_sampler *s, facet_session *from, int32_t *token, facet_error *err);

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
    FACET_ADAPT_OFF,    /* fixed lengths */
    FACET_ADAPT_AUTO    /* the published default: the rolling window for mixture-of-experts targets, else fixed */
} facet_spec_adapt;

/* "none", "mtp", "dflash", "ngram", "auto", and back (false for another name). */
FACET_API const char *facet_spec_method_name(facet_spec_method m);
FACET_API bool facet_spec_method_by_name(const char *name, facet_spec_method *out);

/* Where the queries of the MTP assistant stand, C being the position of the pending token. */
typedef enum facet_mtp_pos {
    FACET_MTP_POS_CONST,        /* at C in every step of a chain */
    FACET_MTP_POS_CONST_BEFORE, /* at C - 1 */
    FACET_MTP_POS_INCR          /* at C, C + 1, .. */
} facet_mtp_pos;

typedef struct facet_speculation {
    facet_spec_method method;
    facet_spec_adapt adapt;
    int draft_max;        /* drafts per step at most, 1 to 63; 0 = what the drafter can (n-gram: 15) */
    int mtp_gamma;        /* drafts per step of the MTP assistant, 1 to 16, the most under FACET_ADAPT_COST; 0 = 4, or
                             what pays */
    int tree_budget;      /* DFlash: nodes of the draft tree, 1 to 64; 0 = a chain; -1 = a chain, or what pays. A step
                             has 64 rows, one of them the pending token's: 64 makes trees of 63 nodes */
    bool is_chain_seeded; /* DFlash trees: the chain of best tokens comes first */
    float p_min;          /* MTP: end the draft before a token less likely than this; 0 = off */
    float width_theta;    /* fixed and rolling lengths of DFlash chains: verify while the product of the drafter's
                             confidences reaches this; 0 = off */
    int width_min;        /* .. but this many rows at least, the pending token's included; 0 = 4 */
    facet_mtp_pos mtp_pos;
} facet_speculation;
/* This method, with lengths and shapes as they pay. */
FACET_API facet_speculation facet_speculation_default(facet_spec_method m);

enum { FACET_SPEC_DEPTHS = 16 };
typedef struct facet_spec_stats {
    uint64_t steps, drafted, accepted, committed, plain_steps; /* plain_steps: of steps, those without drafts */
    uint64_t tree_steps, tree_nodes, tree_depth, moves; /* sums over trees; moves: rows copied to where they belong */
    uint64_t asked, switches; /* drafts asked for; steps by another strategy than the one before */
    double draft_ms, verify_ms, other_ms;
    double accept_rate;   /* accepted / drafted. Accepted drafts count even if an end token or a limit cuts them off */
    double mean_accepted; /* tokens committed per step, after that cut */
    /* Steps in which a draft at position i + 1 was verified and those before it were accepted, and those of them in
     * which it was accepted, too; the last entries count deeper positions as well. acceptance: their ratio. */
    uint64_t reached[FACET_SPEC_DEPTHS], held[FACET_SPEC_DEPTHS];
    double acceptance[FACET_SPEC_DEPTHS];
    uint64_t lengths[FACET_SPEC_DEPTHS + 1]; /* steps by accepted drafts, plain ones at 0, longer ones at the end */
    uint64_t method_steps[FACET_SPEC_AUTO];  /* drafting steps by facet_spec_method */
} facet_spec_stats;
/* Adds the counts of one generation to a sum (zeroes at first), and takes its ratios anew. */
FACET_API void facet_spec_stats_add(facet_spec_stats *sum, const facet_spec_stats *s);

/* ---- grammars: what a text may be, token by token ---- */

/* Belongs to one thread at a time, that of the engine whose generations use it: what was found out about it is kept and
 * shared by them. The model must outlive it. */
typedef struct facet_grammar facet_grammar;
/* text: GBNF notation [n]; errors name line and column. docs/grammars.md tells what is supported. */
FACET_API facet_status facet_grammar_open_gbnf(facet_model *m, const char *text, size_t n, facet_grammar **out,
                                               facet_error *err);
/* text: a JSON schema [n]; errors name the JSON pointer of the part that is malformed or not supported. */
FACET_API facet_status facet_grammar_open_json_schema(facet_model *m, const char *text, size_t n, facet_grammar **out,
                                                      facet_error *err);
/* Any JSON object. */
FACET_API facet_status facet_grammar_open_json_object(facet_model *m, facet_grammar **out, facet_error *err);
FACET_API void facet_grammar_close(facet_grammar *g); /* after the generations that use it */

/* Where the grammar holds: in the answer's content. What else an answer may have, free of it: */
enum {
    FACET_ANSWER_MAY_THINK = 1, /* a thought before the content */
    FACET_ANSWER_MAY_CALL = 2,  /* tool calls instead of it */
    FACET_ANSWER_IN_THOUGHT = 4 /* the prompt ended inside a thought */
};

/* Called per token with the text that became complete (n may be 0). Return false to stop. Other sessions of the engine
 * may run in it; what the generating session holds is settled only when the generation has ended. */
typedef bool (*facet_token_fn)(void *ud, int32_t token, const char *text, size_t n);

/* Called before on_token: the token's log-probability and the likeliest tokens, best first, as the model has them:
 * before bias, penalties and temperature. */
enum { FACET_MAX_LOGPROBS = 20 };
typedef struct facet_logprob {
    int32_t token;
    float logprob; /* natural; -INFINITY for tokens that cannot come */
} facet_logprob;
typedef void (*facet_logprobs_fn)(void *ud, int32_t token, float logprob, const facet_logprob *top, int n_top);

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
    facet_grammar *grammar; /* NULL = any text. Borrowed; end tokens come only where it may end. Not with ignore_eos */
    unsigned answer;        /* with a grammar: FACET_ANSWER_... flags */
    facet_logprobs_fn on_logprobs; /* NULL: nobody wants to know, which saves reading the logits; gets ud */
    int n_logprobs;                /* likeliest tokens, 0 to FACET_MAX_LOGPROBS */
} facet_generate_params;
FACET_API facet_generate_params facet_generate_params_default(void);

typedef struct facet_generate_result {
    facet_stop stop;
    int32_t n_tokens;  /* generated, an end token not counted */
    int32_t end_token; /* the one that ended it (FACET_STOP_EOS), which on_token does not get; else -1 */
    double prefill_ms, decode_ms;
    int32_t n_prefill; /* prompt tokens that were evaluated (not taken from the cache) */
    facet_spec_stats spec;
} facet_generate_result;

/* facet_session_sync to the prompt, then generation. */
FACET_API facet_status facet_generate(facet_session *s, const int32_t *prompt, size_t n_prompt,
                                      const facet_sampling *sampling, const facet_generate_params *p,
                                      facet_generate_result *out, facet_error *err);

/* ---- snapshots: states of sessions kept under numbers, in memory and on disk ---- */

enum { FACET_SNAPSHOT_SLOTS = 64, FACET_SNAPSHOT_LABEL = 63 };
typedef struct facet_snapshot_info {
    int slot;                  /* -1: of a file */
    int32_t first, n_tokens;   /* it holds positions [first, n_tokens); first > 0: thin, of use on top of another */
    uint64_t bytes, own_bytes; /* of its pages; of them those that nobody else holds, which freeing it gives back */
    char label[FACET_SNAPSHOT_LABEL + 1];
} facet_snapshot_info;

/* The session's tokens [first, n) (n = -1: to the end) become a slot's content; pages are shared, nothing is copied.
 * label: FACET_SNAPSHOT_LABEL bytes at most, or NULL. FACET_ERR_LIMIT: local layers have forgotten the window before n.
 * On failure the slot keeps what it held. Snapshots take room beside the sessions' (cache_bytes). */
FACET_API facet_status facet_snapshot_store(const facet_session *s, int slot, int32_t first, int32_t n,
                                            const char *label, facet_error *err);
/* The slot, with n_thin thin ones on top in their order, becomes the session's content; nothing is evaluated. Go on
 * with the complete prompt, as facet_session_sync has it: it need not be the snapshot's. */
FACET_API facet_status facet_snapshot_restore(facet_session *s, int slot, const int *thin, int n_thin,
                                              facet_error *err);
FACET_API facet_status facet_snapshot_free(facet_engine *e, int slot, facet_error *err); /* an empty one is fine */
/* out [FACET_SNAPSHOT_SLOTS] or NULL: the slots in use, ascending. Returns how many. */
FACET_API int facet_snapshot_list(const facet_engine *e, facet_snapshot_info *out);
/* All tokens of a slot from position 0 on ([*n], borrowed until the slot changes); NULL when it is empty. */
FACET_API const int32_t *facet_snapshot_tokens(const facet_engine *e, int slot, int32_t *n);
/* To and from a file, which at any moment is the old one or the new one. A file is refused by another model, drafter,
 * cache type, device layout or version (FACET_ERR_UNSUPPORTED), or when it is damaged (FACET_ERR_FORMAT). */
FACET_API facet_status facet_snapshot_save(facet_engine *e, int slot, const char *path, facet_error *err);
FACET_API facet_status facet_snapshot_load(facet_engine *e, int slot, const char *path, facet_error *err);
FACET_API facet_status facet_snapshot_describe_file(const char *path, facet_snapshot_info *out, facet_error *err);

/* ---- parking: memory of parts of an engine is given back while they are not needed ---- */

enum { FACET_PART_MTP = 1, FACET_PART_DFLASH = 2, FACET_PART_DRAFTERS = 3, FACET_PART_TARGET = 4, FACET_PART_ALL = 7 };
typedef enum facet_park_kv {
    FACET_PARK_KV_HOST, /* the cache moves to host memory, and comes back */
    FACET_PARK_KV_KEEP, /* stays on the device */
    FACET_PARK_KV_DROP  /* is freed: sessions and snapshots are empty then */
} facet_park_kv;
typedef struct facet_park_report {
    uint64_t weights, kv, compute; /* given back, or taken by unparking */
    uint64_t host;                 /* bytes of the cache in host memory instead */
    double ms;
} facet_park_report;

/* Between two steps. What needs a parked part fails with FACET_ERR_PARKED, or brings it back where the engine was
 * opened with auto_unpark; generations with FACET_SPEC_AUTO do without a parked drafter. Parts that the engine lacks,
 * or that are parked already, are passed over; out may be NULL. Output is the same afterwards. */
FACET_API facet_status facet_engine_park(facet_engine *e, unsigned parts, facet_park_kv kv, facet_park_report *out,
                                         facet_error *err);
FACET_API facet_status facet_engine_unpark(facet_engine *e, unsigned parts, facet_park_report *out, facet_error *err);
FACET_API unsigned facet_engine_parked(const facet_engine *e); /* FACET_PART_ bits */

/* ---- many sessions at a time ---- */

/* Generations of several sessions of one engine that share its steps: prompts in pieces beside tokens and drafts of the
 * others. Each gets the tokens that it would get alone. */
typedef struct facet_batch facet_batch;

/* How one ended: FACET_OK with its result (err is NULL), or an error. Called by facet_batch_step; may add others. */
typedef void (*facet_done_fn)(void *ud, facet_status status, const facet_generate_result *result,
                              const facet_error *err);
/* prompt_rows: prompt tokens evaluated in a step in which others decode, so that these do not wait long; 0 = 128. */
FACET_API facet_status facet_batch_open(facet_engine *e, int prompt_rows, facet_batch **out, facet_error *err);
FACET_API void facet_batch_close(facet_batch *b); /* before its engine; ends what is under way, without calling done */
/* Takes a generation in, as facet_generate has it. The prompt is copied; what sampling and params point to is borrowed
 * until the end. FACET_ERR_ARG when the session has one under way. */
FACET_API facet_status facet_batch_add(facet_batch *b, facet_session *s, const int32_t *prompt, size_t n_prompt,
                                       const facet_sampling *sampling, const facet_generate_params *p,
                                       facet_done_fn done, void *ud, facet_error *err);
/* One step for all of them; returns how many are under way afterwards. Call it until that is 0. */
FACET_API int facet_batch_step(facet_batch *b);

/* ---- text ---- */

/* Token ids of a text; *ids is owned by the caller. parse_special: control tokens in the text are parsed, otherwise
 * only the user-defined ones. */
FACET_API facet_status facet_tokenize(const facet_model *m, const char *text, size_t n, bool add_bos,
                                      bool parse_special, int32_t **ids, size_t *n_ids, facet_error *err);
/* Text of token ids, NUL-terminated (*n_text without it), owned by the caller. show_special: control tokens, too. */
FACET_API facet_status facet_detokenize(const facet_model *m, const int32_t *ids, size_t n, bool show_special,
                                        char **text, size_t *n_text, facet_error *err);

/* A chat as the exact prompt of this model (<bos> included: tokenize it with parse_special and without add_bos).
 * messages: a JSON array in the shape of the OpenAI chat interface; tools: likewise, or NULL. The text is owned by the
 * caller. FACET_ERR_ARG names the message and its field. */
enum { FACET_CHAT_THINK = 1, FACET_CHAT_NO_PROMPT = 2 /* no opener for the answer at the end */ };
FACET_API facet_status facet_chat_render(const facet_model *m, const char *messages, const char *tools, unsigned flags,
                                         char **text, size_t *n_text, facet_error *err);

/* The model's answer, token by token, as thought, content and tool calls. */
typedef enum facet_chat_kind { FACET_CHAT_THOUGHT, FACET_CHAT_CONTENT, FACET_CHAT_CALL } facet_chat_kind;
typedef struct facet_chat_event {
    facet_chat_kind kind;
    const char *text; /* [n] a piece of thought or content; the function's name of a call. Good during the callback */
    size_t n;
    const char *arguments; /* [n_arguments] FACET_CHAT_CALL: a JSON object */
    size_t n_arguments;
    int call; /* FACET_CHAT_CALL: from 0 */
} facet_chat_event;
typedef void (*facet_chat_fn)(void *ud, const facet_chat_event *event);
typedef struct facet_chat_parser facet_chat_parser;
/* prompt: what facet_chat_render gave (it may end inside a thought). */
FACET_API facet_status facet_chat_parser_open(const facet_model *m, const char *prompt, size_t n_prompt,
                                              facet_chat_fn fn, void *ud, facet_chat_parser **out, facet_error *err);
FACET_API facet_status facet_chat_parser_push(facet_chat_parser *p, int32_t token, facet_error *err);
FACET_API facet_status facet_chat_parser_finish(facet_chat_parser *p, facet_error *err); /* hands out what is left */
FACET_API void facet_chat_parser_close(facet_chat_parser *p);

#ifdef __cplusplus
}
#endif
#endif
