/* A pool of worker threads that wait for work, run it side by side, and may meet in the middle. */
#ifndef ONDOL_THREADS_H
#define ONDOL_THREADS_H

#include <stdint.h>

#include "elementwise.h"

#define MAX_THREADS 256 /* what a pool has room for; it starts no more */

typedef struct pool pool;

/* What each worker runs; `index` counts from 0, which is the caller's own thread. */
typedef void work(void *context, int32_t index);

/* Start threads - 1 workers, fewer where the machine gives no more. Returns 0 when memory is short. */
INTERNAL pool *pool_open(int32_t threads, work *run, void *context);

/* How many workers there are, the caller's thread counted. */
INTERNAL int32_t pool_threads(const pool *p);

/* Run the work on the first `active` workers, and return when all are done. One call at a time. */
INTERNAL void pool_run(pool *p, int32_t active);

/* Called by each active worker: none goes on before all have come here. */
INTERNAL void pool_meet(pool *p);

INTERNAL void pool_close(pool *p);

#endif
