/* park.h: memory of parts of an engine is given back while they are not needed, and taken again later.
 *
 * A parked drafter: its weights and activations are freed, generations draft without it (FACET_SPEC_AUTO) or are
 * refused with FACET_ERR_PARKED (those that name its method). The DFlash drafter's context stays, see below; tokens
 * that are evaluated while it is parked are missing there, so that a session which has some drafts with it again only
 * when they left the drafter's window or were evaluated anew. What is generated never depends on it.
 *
 * The parked target: weights and activations are freed, and the cache by one of three rules. Everything that evaluates
 * is refused with FACET_ERR_PARKED; sessions can be opened, closed and forked, snapshots be kept, restored and freed.
 * Drafters read the target's weights: they are at rest as long as it is parked, parked themselves or not.
 *
 * Parking is between two steps: a generation that is under way (a callback may park) ends with FACET_ERR_PARKED at its
 * next step, or goes on where the engine unparks by itself. Used by the engine's thread. */
#ifndef FACET_DECODE_PARK_H
#define FACET_DECODE_PARK_H

#include "decode/engine.h"

enum {
    PARK_MTP = FACET_PART_MTP,
    PARK_DFLASH = FACET_PART_DFLASH,
    PARK_DRAFTERS = FACET_PART_DRAFTERS,
    PARK_TARGET = FACET_PART_TARGET,
    PARK_ALL = FACET_PART_ALL
};

/* The pages of the parked parts: those of the target's layers, and those of the DFlash drafter's. HOST: those in use
 * move to host memory, and come back; the device's memory is freed. KEEP: they stay where they are. DROP: parking the
 * target empties sessions, snapshots and cached prompts, parking the drafter its context. */
typedef facet_park_kv park_kv;

typedef facet_park_report park_report; /* bytes by the backend's accounts */

/* parts: PARK_... bits; drafters that the engine does not have and parts that are parked already are passed over. out
 * may be NULL. FACET_ERR_ARG: no or unknown bits. FACET_ERR_MEMORY: no host memory for the pages; nothing is parked
 * then. */
facet_status engine_park(facet_engine *e, unsigned parts, park_kv kv, park_report *out, facet_error *err);
/* Brings parts back; those that are not parked are passed over. The target does not bring its drafters with it. On
 * failure they stay parked, with all they had, and it can be tried again: FACET_ERR_MEMORY when others took the memory
 * in the meantime, FACET_ERR_IO when a model's file was written to. */
facet_status engine_unpark(facet_engine *e, unsigned parts, park_report *out, facet_error *err);
/* PARK_... bits of what is parked. */
unsigned engine_parked(const facet_engine *e);

/* On: what needs a parked part unparks it instead of failing (facet_engine_params.auto_unpark at first). AUTO does not
 * unpark drafters. */
void engine_set_auto_unpark(facet_engine *e, bool is_on);

/* ---- for the engine's own modules ---- */

/* Called by whatever is about to evaluate: FACET_OK when the parts are there, or were unparked by setting; else
 * FACET_ERR_PARKED. */
facet_status engine_need(facet_engine *e, unsigned parts, facet_error *err);
void engine_parking_close(facet_engine *e);
/* False while the drafter (PARK_MTP or PARK_DFLASH) is absent or parked. */
bool engine_has_drafter(const facet_engine *e, unsigned part);

#endif
