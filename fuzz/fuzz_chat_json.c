/* The input is a flag byte and the JSON text {"messages": …, "tools": …}, rendered in one of the formats. */
#include <stdlib.h>

#include "base/utf8.h"
#include "text/chat.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    json_t *root = json_loadb((const char *)data + 1, size - 1, JSON_REJECT_DUPLICATES, NULL);
    if (!root) return 0;
    chat_format format = {.generation = (chat_generation)(data[0] % 3), .is_large = data[0] & 4};
    chat_options options = {.enable_thinking = data[0] & 8,
                            .add_generation_prompt = data[0] & 16,
                            .preserve_thinking = data[0] & 32,
                            .reopen_turn = data[0] & 64};
    buf out = {0};
    facet_error err;
    facet_status status =
        chat_render(json_object_get(root, "messages"), json_object_get(root, "tools"), format, options, &out, &err);
    if (status == FACET_OK && !utf8_valid(out.data, out.len)) abort();
    if (status != FACET_OK && out.len) abort();
    buf_free(&out);
    json_decref(root);
    return 0;
}
