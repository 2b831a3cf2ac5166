/* rotate.h: the randomised Walsh-Hadamard rotation of 128 values that flattens outliers before they are quantised.
 *
 *   rot(x) = S2 H S1 x,  unrot(y) = S1 H S2 y;  H the Sylvester matrix / sqrt(128), S1 and S2 diagonals of fixed signs.
 *
 * It keeps lengths and products: rot(q) . rot(k) = q . k up to rounding. A row of values is so many groups of 128, all
 * with the same signs. Source: Zandieh et al. 2025, arXiv:2504.19874 (random rotation); docs/formats.md has the signs.
 */
#ifndef FACET_QUANT_ROTATE_H
#define FACET_QUANT_ROTATE_H

#include <stddef.h>

enum { ROTATE_GROUP = 128 };

/* In place; n is a multiple of ROTATE_GROUP. */
void rotate_values(float *x, size_t n);
void unrotate_values(float *x, size_t n);

/* For vector code: unrot(y) = last * (H sqrt(128) (first * y)), each [ROTATE_GROUP]; the factor is in last. */
void unrotate_signs(float *first, float *last);

#endif
