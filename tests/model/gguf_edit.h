/* gguf_edit.h: a GGUF file written again with some things changed, for tests of loaders. */
#ifndef FACET_TEST_GGUF_EDIT_H
#define FACET_TEST_GGUF_EDIT_H

#include "testing.h"

#include "file/gguf_write.h"

typedef enum edit_kind {
    EDIT_END,
    EDIT_ARCH,       /* general.architecture and the prefix of the keys become `text` */
    EDIT_DROP_KEY,   /* `name` */
    EDIT_RENAME_KEY, /* `name` to `text`; both with the new prefix */
    EDIT_U32,        /* sets a key to `n` */
    EDIT_I32,
    EDIT_F32,
    EDIT_BOOL,
    EDIT_STR,         /* to `text` */
    EDIT_I32S,        /* to the `n` numbers of `list` */
    EDIT_DROP_TENSOR, /* `name` */
    EDIT_RENAME_TENSOR,
    EDIT_TENSOR /* `name` [ne] of `type` with the bytes at `data`, zeros when NULL; replaces one of that name */
} edit_kind;

typedef struct edit {
    edit_kind kind;
    const char *name, *text;
    double n;
    const int32_t *list;
    tensor_type type;
    uint64_t ne[3];
    const void *data;
} edit;

typedef struct edited {
    gguf_file *f;
    gguf_writer *w;
    const edit *edits; /* up to EDIT_END */
    facet_error err;
} edited;

static inline const edit *edit_find(const edited *e, edit_kind kind, const char *name, size_t n)
{
    for (const edit *i = e->edits; i->kind != EDIT_END; i++)
        if (i->kind == kind && (!name || (strlen(i->name) == n && memcmp(i->name, name, n) == 0))) return i;
    return NULL;
}

static inline void edit_copy_key(edited *e, const gguf_kv *kv, const char *arch)
{
    const edit *other = edit_find(e, EDIT_ARCH, NULL, 0), *renamed;
    char key[256];
    const size_t n = strlen(arch);
    if (other && kv->key.n > n && memcmp(kv->key.s, arch, n) == 0 && kv->key.s[n] == '.')
        snprintf(key, sizeof key, "%s%.*s", other->text, (int)(kv->key.n - n), kv->key.s + n);
    else
        snprintf(key, sizeof key, "%.*s", (int)kv->key.n, kv->key.s);
    if (edit_find(e, EDIT_DROP_KEY, key, strlen(key))) return;
    renamed = edit_find(e, EDIT_RENAME_KEY, key, strlen(key));
    gguf_kv copy = *kv;
    copy.key.s = renamed ? renamed->text : key;
    copy.key.n = strlen(copy.key.s);
    assert_ok(gguf_put_kv(e->w, &copy, &e->err), e->err);
}

static inline void edit_keys(edited *e)
{
    char arch[64] = "";
    gguf_str s = {0};
    assert_ok(gguf_get_str(e->f, "general.architecture", true, &s, &e->err), e->err);
    snprintf(arch, sizeof arch, "%.*s", (int)s.n, s.s);
    for (uint64_t i = 0; i < e->f->n_kv; i++) edit_copy_key(e, &e->f->kv[i], arch);
    for (const edit *i = e->edits; i->kind != EDIT_END; i++) {
        facet_status status = FACET_OK;
        if (i->kind == EDIT_ARCH)
            status = gguf_put_str(e->w, "general.architecture", i->text, strlen(i->text), &e->err);
        if (i->kind == EDIT_U32) status = gguf_put_u32(e->w, i->name, (uint32_t)i->n, &e->err);
        if (i->kind == EDIT_I32) status = gguf_put_i32(e->w, i->name, (int32_t)i->n, &e->err);
        if (i->kind == EDIT_F32) status = gguf_put_f32(e->w, i->name, (float)i->n, &e->err);
        if (i->kind == EDIT_BOOL) status = gguf_put_bool(e->w, i->name, i->n != 0, &e->err);
        if (i->kind == EDIT_STR) status = gguf_put_str(e->w, i->name, i->text, strlen(i->text), &e->err);
        if (i->kind == EDIT_I32S) status = gguf_put_array(e->w, i->name, GGUF_I32, i->list, (uint64_t)i->n, &e->err);
        assert_ok(status, e->err);
    }
}

/* Tensors twice: their records, then their data. */
static inline void edit_tensors(edited *e, bool is_data)
{
    for (uint64_t i = 0; i < e->f->n_tensors; i++) {
        const gguf_tensor *t = &e->f->tensors[i];
        const size_t n = strlen(t->name);
        if (edit_find(e, EDIT_DROP_TENSOR, t->name, n) || edit_find(e, EDIT_TENSOR, t->name, n)) continue;
        const edit *renamed = edit_find(e, EDIT_RENAME_TENSOR, t->name, n);
        assert_ok(is_data ? gguf_write_data(e->w, t->data, t->bytes, &e->err)
                          : gguf_add_tensor(e->w, renamed ? renamed->text : t->name, (tensor_type)t->type, t->n_dims,
                                            t->ne, &e->err),
                  e->err);
    }
    for (const edit *i = e->edits; i->kind != EDIT_END; i++) {
        if (i->kind != EDIT_TENSOR) continue;
        const uint64_t ne[4] = {i->ne[0], i->ne[1] ? i->ne[1] : 1, i->ne[2] ? i->ne[2] : 1, 1};
        const size_t bytes = type_bytes(type_get(i->type), ne[0]) * ne[1] * ne[2];
        void *zeros = calloc(1, bytes);
        assert_ok(is_data ? gguf_write_data(e->w, i->data ? i->data : zeros, bytes, &e->err)
                          : gguf_add_tensor(e->w, i->name, i->type, ne[1] > 1 ? 2 : 1, ne, &e->err),
                  e->err);
        free(zeros);
    }
}

static inline void gguf_edit(const char *in, const char *out, const edit *edits)
{
    edited e = {.edits = edits};
    assert_ok(gguf_open(in, &e.f, &e.err), e.err);
    assert_ok(gguf_writer_new(&e.w, &e.err), e.err);
    edit_keys(&e);
    edit_tensors(&e, false);
    assert_ok(gguf_begin_data(e.w, out, &e.err), e.err);
    edit_tensors(&e, true);
    assert_ok(gguf_finish(e.w, &e.err), e.err);
    gguf_writer_free(e.w);
    gguf_close(e.f);
}

#endif
