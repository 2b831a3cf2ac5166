/* api_call.h: a request for texts, of any of the interfaces: it is read by a dialect, its texts run in the engine, and
 * the dialect writes what comes of them, piece by piece or as a whole. */
#ifndef FACET_SERVE_API_CALL_H
#define FACET_SERVE_API_CALL_H

#include "base/buf.h"
#include "serve/api.h"
#include "serve/spec_json.h"

enum { API_MAX_STOP = 64, API_MAX_TOP_LOGPROBS = FACET_MAX_LOGPROBS };

typedef struct api_call api_call;
typedef struct api_answer api_answer;

/* How a text ended. */
typedef enum api_finish { API_STOP, API_STOP_TEXT, API_LENGTH, API_CALLS } api_finish;

/* How an interface writes texts. The pieces are of streams; all run in the engine's thread. */
typedef struct api_dialect {
    const char *id_prefix, *call_prefix;     /* of requests and tool calls */
    bool is_anthropic;                       /* errors have that shape */
    bool (*read)(api_call *c, api_error *e); /* from c->body to the prompts */
    void (*begin)(api_answer *a);            /* the prompt's length is known */
    void (*reasoning)(api_answer *a, const char *text, size_t n);
    void (*content)(api_answer *a, const char *text, size_t n);
    void (*tool_call)(api_answer *a, const json_t *call); /* {id, name, arguments} as in api_answer.calls */
    void (*finish)(api_answer *a);
    void (*end)(api_call *c);                      /* after the last text */
    void (*fail)(api_call *c, const api_error *e); /* instead of end */
    json_t *(*whole)(api_call *c);                 /* the reply of a request without stream */
} api_dialect;

/* One text of a request. */
struct api_answer {
    api_call *call;
    int index;
    server_text text;
    chat_parser *parser; /* NULL: the text is handed on as it is */
    buf content, reasoning;
    buf held;      /* content that may be the beginning of a stop text */
    json_t *calls; /* of tools: [{id, name, arguments}], arguments as JSON text */
    api_finish finish;
    int stop_index; /* of the stop text that ended it; -1 = none */
    bool is_ended;  /* by a stop text or a call; what comes is dropped */
    bool in_thought, in_call, is_thought_cut;
    int32_t n_thought;   /* tokens */
    bool is_priming;     /* the parser sees what the request made the answer begin with: nothing is handed on */
    buf echo;            /* the prompt as text, where that was asked for */
    int block, n_blocks; /* the dialect's: kind of the open block of content, 0 = none; blocks so far */
    json_t *items;       /* the dialect's */
    size_t block_start;  /* the dialect's: where the open block begins in content or reasoning */
    /* log-probabilities: of the token that comes next; of content that is held; of content that was handed on (in
     * streams: with this piece) */
    json_t *next_logprob, *held_logprobs, *logprobs;
    json_t *drafts; /* of the last step, until they were sent; NULL = none */
    text_report report;
};

typedef struct api_prompt {
    int32_t *ids;
    size_t n;
} api_prompt;

struct api_call {
    api *api;
    http_exchange *x;
    const api_dialect *dialect;
    json_t *body; /* what the fields below borrow from */
    char id[48];
    int64_t created; /* Unix time */
    /* what was asked for */
    facet_sampling sampling;
    facet_speculation speculation;
    facet_logit_bias *bias;
    const char *stop[API_MAX_STOP];
    size_t n_stop;
    bool is_stream, wants_usage, ignores_eos, echoes, wants_drafts;
    int n_choices;
    int32_t max_tokens; /* -1: not said */
    bool wants_logprobs;
    int32_t n_top_logprobs;
    bool is_chat, is_thinking, starts_in_thought, may_call_twice;
    int32_t thinking_budget;  /* -1 = none */
    json_t *messages, *tools; /* chats; owned; tools NULL = none */
    const char *forced_tool;  /* "" = any; NULL: none is forced */
    grammar_entry *grammar;   /* of the content; NULL = any text */
    buf forced;               /* text that the answer is made to begin with; not part of the reply */
    api_prompt *prompts;      /* n_prompts * n_choices texts */
    int n_prompts;
    /* the texts */
    api_answer *answers;
    int n_answers, n_left;
    int32_t close_ids[8]; /* the end of a thought */
    size_t n_close;
    facet_status status; /* of the first that failed */
    facet_error error;
    buf line;
    int n_events; /* the dialect's */
};

extern const api_dialect dialect_chat, dialect_completions, dialect_messages, dialect_responses;

/* Reads the request, runs its texts, and replies, now or later. */
void call_serve(api *a, http_exchange *x, const api_dialect *d);

/* A call that is not served, to be read alone. body is taken. */
bool call_new(api *a, const api_dialect *d, json_t *body, api_call **out, api_error *e);
void call_close(api_call *c);

/* ---- between the parts of a call ---- */

/* Makes the i-th text of a call ready for the engine. answer_close also after a failure. */
bool answer_open(api_call *c, int i, api_error *e);
void answer_close(api_answer *a);
/* The first failure of any text is the call's. */
void call_note_failure(api_call *c, facet_status status, const facet_error *err);
/* After the last text: replies, and closes the call. */
void call_end(api_call *c);
/* prefix and 24 random digits; n: room. */
void call_make_id(const char *prefix, char *out, size_t n);

/* ---- for dialects ---- */

/* max_tokens and the like by these names, first come first served; NULL-terminated. */
bool call_read_sampling(api_call *c, const char *const *max_names, api_error *e);
bool call_read_stop(api_call *c, const char *name, api_error *e);
/* tool_choice: a word, or {"type": "function"} with the name, or with {"function": {"name"}}. After c->tools. */
bool call_read_tool_choice(api_call *c, api_error *e);
/* The ways in which OpenAI's clients ask for thoughts. */
bool call_read_thinking(api_call *c, api_error *e);
/* Checks c->messages and c->tools, renders and tokenises them: the one prompt. */
bool call_render_chat(api_call *c, api_error *e);
/* Adds a prompt; ids are taken. */
bool call_add_prompt(api_call *c, int32_t *ids, size_t n, api_error *e);
/* Of a stream: "data: JSON", with an "event: NAME" line unless NULL. j is taken. */
void call_send(api_call *c, const char *event, json_t *j);
void call_send_done(api_call *c); /* data: [DONE] */
void call_send_error(api_call *c, const api_error *e);

/* What replies share. */
json_t *call_timings(const api_answer *a);
text_report call_total(const api_call *c); /* of all texts; a prompt counts once */
int32_t call_thought_tokens(const api_call *c);

#endif
