/* needle_svg.c: the heat map of facet eval needle.
 *
 *      title
 *      settings
 *              2048   4096  ...      columns: context
 *        0 %  [100 %][ 50 %]         rows: depth of the number
 *       25 %  [     ][     ]
 *             ......                 legend: none .. all right
 */
#include <math.h>

#include "cli/needle_report.h"

enum { CELL_W = 84, CELL_H = 36, LEFT = 92, TOP = 104, RIGHT = 24, MIN_WIDTH = 440, LEGEND_H = 14 };

/* Colours of no, half and all answers right: they differ in lightness and in blue against orange, so that eyes without
 * red or green tell them apart as well. */
typedef struct color {
    double r, g, b;
} color;
static const color none = {194, 65, 12}, half = {242, 193, 78}, all = {15, 118, 110};

static color mix(color a, color b, double t)
{
    return (color){a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

static color color_of(double share)
{
    return share < 0.5 ? mix(none, half, 2 * share) : mix(half, all, 2 * share - 1);
}

/* Part of the relative luminance of WCAG 2.2 that a channel of sRGB has. */
static double linear(double channel)
{
    const double c = channel / 255;
    return c <= 0.04045 ? c / 12.92 : pow((c + 0.055) / 1.055, 2.4);
}

/* What is written on the colour: black where that has more contrast than white. */
static const char *ink_on(color c)
{
    const double luminance = 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
    return (luminance + 0.05) * (luminance + 0.05) > 1.05 * 0.05 ? "#000" : "#fff";
}

static void put_escaped(buf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '&')
            buf_puts(b, "&amp;");
        else if (*s == '<')
            buf_puts(b, "&lt;");
        else if (*s == '>')
            buf_puts(b, "&gt;");
        else if ((unsigned char)*s < ' ')
            buf_putc(b, '?'); /* XML has no control characters */
        else
            buf_putc(b, *s);
    }
}

static void put_color(buf *b, color c)
{
    buf_printf(b, "#%02x%02x%02x", (int)lround(c.r), (int)lround(c.g), (int)lround(c.b));
}

static void put_head(const needle_report *r, buf *b, int width, int height)
{
    int total;
    const int right = needle_count_right(r, -1, -1, &total);
    buf_printf(b,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" "
               "role=\"img\" aria-labelledby=\"title desc\">\n<title id=\"title\">Needle test of ",
               width, height, width, height);
    put_escaped(b, r->model);
    buf_printf(b,
               "</title>\n<desc id=\"desc\">Share of right answers by length of the context (columns) and depth of the "
               "number in the text (rows): %d of %d right, keys as %s, values as %s.</desc>\n",
               right, total, r->cache[0], r->cache[1]);
    buf_puts(b, "<style>\n  .page { fill: #fff } .text { fill: #1b1f24 } .faint { fill: #57606a }\n"
                "  text { font-family: system-ui, sans-serif; font-size: 14px }\n"
                "  .big { font-size: 17px; font-weight: 600 } .mid { text-anchor: middle } .end { text-anchor: end }\n"
                "  @media (prefers-color-scheme: dark) {\n"
                "    .page { fill: #14181d } .text { fill: #e6eaef } .faint { fill: #9aa5b1 }\n  }\n</style>\n"
                "<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n<text class=\"text big\" x=\"20\" y=\"30\">");
    put_escaped(b, r->model);
    buf_printf(b, "</text>\n<text class=\"faint\" x=\"20\" y=\"52\">K %s, V %s, %s: %d of %d right</text>\n",
               r->cache[0], r->cache[1], r->device, right, total);
}

static void put_axes(const needle_report *r, buf *b)
{
    buf_printf(b, "<text class=\"faint mid\" x=\"%d\" y=\"%d\">tokens of context</text>\n",
               LEFT + r->ctx.n * CELL_W / 2, TOP - 26);
    for (int c = 0; c < r->ctx.n; c++)
        buf_printf(b, "<text class=\"text mid\" x=\"%d\" y=\"%d\">%d</text>\n", LEFT + c * CELL_W + CELL_W / 2, TOP - 8,
                   r->ctx.v[c]);
    buf_printf(b, "<text class=\"faint mid\" x=\"20\" y=\"%d\" transform=\"rotate(-90 20 %d)\">depth</text>\n",
               TOP + r->depth.n * CELL_H / 2, TOP + r->depth.n * CELL_H / 2);
    for (int d = 0; d < r->depth.n; d++)
        buf_printf(b, "<text class=\"text end\" x=\"%d\" y=\"%d\">%d %%</text>\n", LEFT - 10,
                   TOP + d * CELL_H + CELL_H / 2 + 5, r->depth.v[d]);
}

static void put_cell(const needle_report *r, buf *b, int d, int c)
{
    int total;
    const int right = needle_count_right(r, d, c, &total), x = LEFT + c * CELL_W, y = TOP + d * CELL_H;
    const color fill = color_of((double)right / total);
    buf_printf(b, "<g class=\"cell\"><title>context %d, depth %d %%: %d of %d right</title>", r->ctx.v[c],
               r->depth.v[d], right, total);
    buf_printf(b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"3\" fill=\"", x + 1, y + 1, CELL_W - 2,
               CELL_H - 2);
    put_color(b, fill);
    buf_printf(b, "\"/><text class=\"mid\" x=\"%d\" y=\"%d\" fill=\"%s\">%.0f %%</text></g>\n", x + CELL_W / 2,
               y + CELL_H / 2 + 5, ink_on(fill), 100.0 * right / total);
}

static void put_legend(buf *b, int y)
{
    enum { STEPS = 20, STEP_W = 8 };
    buf_printf(b, "<text class=\"faint\" x=\"%d\" y=\"%d\">right: 0 %%</text>\n", LEFT, y + 12);
    for (int i = 0; i < STEPS; i++) {
        buf_printf(b, "<rect class=\"legend\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"",
                   LEFT + 80 + i * STEP_W, y, STEP_W, LEGEND_H);
        put_color(b, color_of((double)i / (STEPS - 1)));
        buf_puts(b, "\"/>\n");
    }
    buf_printf(b, "<text class=\"faint\" x=\"%d\" y=\"%d\">100 %%</text>\n", LEFT + 88 + STEPS * STEP_W, y + 12);
}

bool needle_svg(const needle_report *r, buf *out)
{
    int width = LEFT + r->ctx.n * CELL_W + RIGHT;
    const int bottom = TOP + r->depth.n * CELL_H;
    if (width < MIN_WIDTH) width = MIN_WIDTH;
    put_head(r, out, width, bottom + 50);
    put_axes(r, out);
    for (int d = 0; d < r->depth.n; d++)
        for (int c = 0; c < r->ctx.n; c++) put_cell(r, out, d, c);
    put_legend(out, bottom + 20);
    buf_puts(out, "</svg>\n");
    return !out->failed;
}
