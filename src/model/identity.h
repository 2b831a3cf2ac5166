/* identity.h: telling models apart: whether a state that one model computed is another's. */
#ifndef FACET_MODEL_IDENTITY_H
#define FACET_MODEL_IDENTITY_H

#include "model/drafter.h"

/* Of what decides about a model's results: the settings of its architecture in the file, and of every tensor name,
 * type, shape and samples of the data (all of it up to 16 KiB, else four pieces of 4 KiB). Names, texts and the path do
 * not count, nor how the file is split. Reads about 10 MB of a large file. */
uint64_t identity_of_model(const facet_model *m);
uint64_t identity_of_drafter(const drafter *d);

#endif
