/* batch_api.c: the scheduler as the public interface shows it. */
#include "base/mem.h"
#include "decode/scheduler.h"

struct facet_batch {
    scheduler *scheduler;
};

facet_status facet_batch_open(facet_engine *e, int prompt_rows, facet_batch **out, facet_error *err)
{
    facet_batch *b = mem_calloc(1, sizeof *b);
    if (!b) return error_memory(err, "a batch", sizeof *b);
    const facet_status status = scheduler_open(e, prompt_rows, &b->scheduler, err);
    if (status != FACET_OK) {
        mem_free(b);
        return status;
    }
    *out = b;
    return FACET_OK;
}

void facet_batch_close(facet_batch *b)
{
    if (!b) return;
    scheduler_close(b->scheduler);
    mem_free(b);
}

facet_status facet_batch_add(facet_batch *b, facet_session *s, const int32_t *prompt, size_t n_prompt,
                             const facet_sampling *sampling, const facet_generate_params *p, facet_done_fn done,
                             void *ud, facet_error *err)
{
    const scheduler_request r = {.session = s,
                                 .prompt = prompt,
                                 .n_prompt = n_prompt,
                                 .sampling = *sampling,
                                 .params = *p,
                                 .done = done,
                                 .done_ud = ud};
    return scheduler_add(b->scheduler, &r, err);
}

int facet_batch_step(facet_batch *b)
{
    return scheduler_step(b->scheduler);
}
