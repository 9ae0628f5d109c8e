/* A mutex, a condition and one thread. A thread that stands back cannot step forward again
 * (cluster/priority.h). So a change of mind ends it, and the next piece begins another, which has
 * the owner's priority to start from.
 */
#include "embeddings/scribe.h"

#include "cluster/log.h"
#include "cluster/priority.h"
#include "cluster/status.h"

#include <pthread.h>
#include <stdlib.h>

struct emb_scribe {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool has_thread, hurry, hurried; /* hurried: as the thread was begun */
    bool end;
    int (*work)(void *context); /* given and not done */
    void *context;
    int busy; /* atomic: the same, to be asked without the lock */
    int status;
};

int emb_scribe_create(struct emb_scribe **scribe_p)
{
    struct emb_scribe *s = calloc(1, sizeof(*s));
    if (!s)
        return clu_fail(CLU_E_NO_MEMORY, "no memory for a thread's work");
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    *scribe_p = s;
    return CLU_OK;
}

static void *run(void *argument)
{
    struct emb_scribe *s = argument;
    clu_stand_back(!s->hurried);
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->work && !s->end)
            pthread_cond_wait(&s->changed, &s->lock);
        if (!s->work)
            break;
        pthread_mutex_unlock(&s->lock);
        int status = s->work(s->context);
        pthread_mutex_lock(&s->lock);
        s->status = status;
        s->work = NULL;
        __atomic_store_n(&s->busy, 0, __ATOMIC_RELEASE);
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void end_thread(struct emb_scribe *s)
{
    if (!s->has_thread)
        return;
    pthread_mutex_lock(&s->lock);
    s->end = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->has_thread = s->end = false;
}

void emb_scribe_free(struct emb_scribe *s)
{
    if (!s)
        return;
    end_thread(s);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}

void emb_scribe_give(struct emb_scribe *s, int (*work)(void *context), void *context)
{
    if (s->has_thread && s->hurried != s->hurry)
        end_thread(s);
    if (!s->has_thread) {
        s->hurried = s->hurry;
        s->has_thread = pthread_create(&s->thread, NULL, run, s) == 0;
    }
    if (!s->has_thread) {
        s->status = work(context);
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->work = work;
    s->context = context;
    __atomic_store_n(&s->busy, 1, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

bool emb_scribe_is_busy(const struct emb_scribe *s)
{
    return __atomic_load_n(&s->busy, __ATOMIC_ACQUIRE);
}

int emb_scribe_take(struct emb_scribe *s)
{
    pthread_mutex_lock(&s->lock);
    while (s->work)
        pthread_cond_wait(&s->changed, &s->lock);
    int status = s->status;
    s->status = CLU_OK;
    pthread_mutex_unlock(&s->lock);
    return status;
}

void emb_scribe_hurry(struct emb_scribe *s, bool hurry)
{
    s->hurry = hurry;
}
