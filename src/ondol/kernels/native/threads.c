#define _GNU_SOURCE
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

typedef struct {
    pool *owner;
    int32_t index;
} worker;

struct pool {
    work *run;
    void *context;
    int32_t threads;
    pthread_t handles[MAX_THREADS];
    worker workers[MAX_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    uint64_t generation; /* of the work: a worker runs each once */
    int32_t running, active;
    int closing;
    atomic_int arrived;
    atomic_uint phase;
};

static void *serve(void *argument) {
    worker *w = argument;
    pool *p = w->owner;
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        while (p->generation == seen && !p->closing) pthread_cond_wait(&p->wake, &p->lock);
        if (p->closing) {
            pthread_mutex_unlock(&p->lock);
            return 0;
        }
        seen = p->generation;
        int mine = w->index < p->active;
        pthread_mutex_unlock(&p->lock);
        if (!mine) continue;
        p->run(p->context, w->index);
        pthread_mutex_lock(&p->lock);
        if (--p->running == 0) pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
}

pool *pool_open(int32_t threads, work *run, void *context) {
    pool *p = calloc(1, sizeof *p);
    if (!p) return 0;
    p->run = run;
    p->context = context;
    p->threads = threads < 1 ? 1 : threads > MAX_THREADS ? MAX_THREADS : threads;
    pthread_mutex_init(&p->lock, 0);
    pthread_cond_init(&p->wake, 0);
    pthread_cond_init(&p->done, 0);
    for (int32_t i = 1; i < p->threads; i++) {
        p->workers[i] = (worker){p, i};
        if (pthread_create(p->handles + i, 0, serve, p->workers + i)) {
            p->threads = i;
            break;
        }
    }
    return p;
}

int32_t pool_threads(const pool *p) { return p->threads; }

void pool_run(pool *p, int32_t active) {
    p->active = active;
    if (active > 1) {
        pthread_mutex_lock(&p->lock);
        p->running = active - 1;
        p->generation++;
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    p->run(p->context, 0);
    if (active > 1) {
        pthread_mutex_lock(&p->lock);
        while (p->running) pthread_cond_wait(&p->done, &p->lock);
        pthread_mutex_unlock(&p->lock);
    }
}

void pool_meet(pool *p) {
    if (p->active == 1) return;
    unsigned phase = atomic_load_explicit(&p->phase, memory_order_acquire);
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->active - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&p->phase, 1, memory_order_release);
        return;
    }
    /* The others come soon, so wait awake; give the processor up in the end, since there may be
     * fewer processors than threads. */
    for (int spins = 0; atomic_load_explicit(&p->phase, memory_order_acquire) == phase; spins++) {
        if (spins < 4000) _mm_pause();
        else sched_yield();
    }
}

void pool_close(pool *p) {
    pthread_mutex_lock(&p->lock);
    p->closing = 1;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int32_t i = 1; i < p->threads; i++) pthread_join(p->handles[i], 0);
    free(p);
}
