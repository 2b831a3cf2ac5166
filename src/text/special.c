#include "text/special.h"

#include "base/mem.h"

static facet_status new_node(special_set *s, unsigned char byte, uint32_t *out, facet_error *err)
{
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? 2 * s->cap : 256;
        special_node *nodes = cap > s->cap ? mem_resize_array(s->nodes, cap, sizeof *nodes) : NULL;
        if (!nodes) return error_memory(err, "the special tokens", cap * sizeof *nodes);
        s->nodes = nodes;
        s->cap = cap;
    }
    *out = s->n;
    s->nodes[s->n++] = (special_node){.id = -1, .byte = byte};
    return FACET_OK;
}

static uint32_t find_child(const special_set *s, uint32_t node, unsigned char byte)
{
    uint32_t c = s->nodes[node].child;
    while (c && s->nodes[c].byte != byte) c = s->nodes[c].sibling;
    return c;
}

facet_status special_add(special_set *s, const char *text, size_t n, int32_t id, bool is_user, facet_error *err)
{
    uint32_t node = 0;
    if (s->n == 0) FACET_TRY(new_node(s, 0, &node, err));
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text[i];
        uint32_t child = find_child(s, node, byte);
        if (!child) {
            FACET_TRY(new_node(s, byte, &child, err));
            s->nodes[child].sibling = s->nodes[node].child;
            s->nodes[node].child = child;
        }
        node = child;
    }
    if (n == 0 || s->nodes[node].id >= 0) return FACET_OK;
    s->nodes[node].id = id;
    s->nodes[node].is_user = is_user;
    s->is_first[(unsigned char)text[0]] = true;
    return FACET_OK;
}

void special_free(special_set *s)
{
    mem_free(s->nodes);
    *s = (special_set){0};
}

int32_t special_match(const special_set *s, const char *p, size_t n, bool user_only, size_t *length)
{
    int32_t best = -1;
    if (s->n == 0) return best;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = find_child(s, node, (unsigned char)p[i]);
        if (!node) break;
        const special_node *end = &s->nodes[node];
        if (end->id < 0 || (user_only && !end->is_user)) continue;
        best = end->id;
        *length = i + 1;
    }
    return best;
}
