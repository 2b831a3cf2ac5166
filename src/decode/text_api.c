/* text_api.c: the public text functions. */
#include "base/mem.h"
#include "model/model.h"

facet_status facet_tokenize(const facet_model *m, const char *text, size_t n, bool add_bos, bool parse_special,
                            int32_t **ids, size_t *n_ids, facet_error *err)
{
    int32_t *list = NULL;
    size_t count = 0, cap = 0;
    facet_status status = tokenizer_encode(m->tok, text, n, add_bos, parse_special ? SPECIAL_ALL : SPECIAL_USER, &list,
                                           &count, &cap, err);
    if (status != FACET_OK) {
        mem_free(list);
        return status;
    }
    *ids = list;
    *n_ids = count;
    return FACET_OK;
}

void facet_free(void *p)
{
    mem_free(p);
}
