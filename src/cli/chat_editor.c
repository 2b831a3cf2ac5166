#include "cli/chat_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

enum { HISTORY_LINES = 1000, MAX_PATH = 4096 };

struct chat_editor {
    EditLine *edit;
    History *history;
    const char *prompt;
    char path[MAX_PATH]; /* of the history; empty = it is not kept */
};

static char *prompt_of(EditLine *edit)
{
    chat_editor *e = NULL;
    el_get(edit, EL_CLIENTDATA, &e);
    return (char *)(uintptr_t)e->prompt; /* libedit does not write to it */
}

/* libedit takes the terminal's bytes for characters of the locale; Facet's texts are UTF-8 everywhere. */
static void use_utf8(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
}

/* ---- history ---- */

static void make_parents(char *path)
{
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        mkdir(path, 0700); /* most are there; what cannot be made shows when the file is written */
        *p = '/';
    }
}

/* XDG Base Directory Specification: a relative $XDG_STATE_HOME is to be ignored. */
static void find_history(char path[MAX_PATH])
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (state && *state == '/')
        n = snprintf(path, MAX_PATH, "%s/facet/history", state);
    else if (home && *home == '/')
        n = snprintf(path, MAX_PATH, "%s/.local/state/facet/history", home);
    if (n < 0 || n >= MAX_PATH) *path = 0;
    if (*path) make_parents(path);
}

static void load_history(chat_editor *e)
{
    HistEvent event;
    struct stat st;
    if (*e->path && stat(e->path, &st) == 0 && S_ISREG(st.st_mode)) history(e->history, &event, H_LOAD, e->path);
}

/* Written anew and renamed, so that neither a crash nor a second chat leaves half a file. mkstemp gives mode 0600. */
static void save_history(const chat_editor *e)
{
    char temp[MAX_PATH + 8];
    HistEvent event;
    if (!*e->path) return;
    snprintf(temp, sizeof temp, "%s.XXXXXX", e->path);
    const int fd = mkstemp(temp);
    if (fd < 0) return;
    FILE *f = fdopen(fd, "w");
    bool ok = f && history(e->history, &event, H_SAVE_FP, f) >= 0;
    if (f)
        ok = fclose(f) == 0 && ok;
    else
        close(fd);
    if (!ok || rename(temp, e->path) != 0) unlink(temp);
}

static void remember(chat_editor *e, const char *line)
{
    HistEvent event;
    if (line[strspn(line, " \t\r\n")] == 0) return;
    history(e->history, &event, H_ENTER, line);
    save_history(e);
}

/* ---- editing ---- */

static bool open_into(chat_editor *e)
{
    HistEvent event;
    FILE *out = isatty(STDOUT_FILENO) ? stdout : stderr;
    e->history = history_init();
    e->edit = el_init("facet", stdin, out, stderr);
    if (!e->history || !e->edit) return false;
    history(e->history, &event, H_SETSIZE, HISTORY_LINES);
    history(e->history, &event, H_SETUNIQUE, 1);
    el_set(e->edit, EL_CLIENTDATA, e);
    el_set(e->edit, EL_PROMPT, prompt_of);
    el_set(e->edit, EL_EDITOR, "emacs");
    el_set(e->edit, EL_HIST, history, e->history);
    el_set(e->edit, EL_SIGNAL, 1);
    el_set(e->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_set(e->edit, EL_SETTY, "-x", "+noflsh", NULL); /* Ctrl-C shall not drop what an answer has written */
    el_source(e->edit, NULL);                         /* ~/.editrc */
    find_history(e->path);
    load_history(e);
    return true;
}

chat_editor *chat_editor_open(void)
{
    if (!isatty(STDIN_FILENO) || (!isatty(STDOUT_FILENO) && !isatty(STDERR_FILENO))) return NULL;
    use_utf8();
    chat_editor *e = mem_calloc(1, sizeof *e);
    if (e && open_into(e)) return e;
    chat_editor_close(e);
    return NULL;
}

void chat_editor_close(chat_editor *e)
{
    if (!e) return;
    if (e->edit) el_end(e->edit);
    if (e->history) history_end(e->history);
    mem_free(e);
}

const char *chat_editor_read(chat_editor *e, const char *prompt, size_t *n)
{
    int count = 0;
    e->prompt = prompt;
    const char *line = el_gets(e->edit, &count);
    if (!line || count <= 0) return NULL;
    remember(e, line);
    *n = (size_t)count;
    if (line[*n - 1] == '\n') (*n)--;
    return line;
}
