/* A counter that hands out tasks. Which thread gets which task is chance; what a task does is not.
 * */
#include "model/parallel.h"

#include "model/config.h"

#include <pthread.h>
#include <stdatomic.h>

struct crew {
    void (*run)(void *context, int task, int thread);
    void *context;
    int n_tasks;
    atomic_int next_task, next_thread;
};

static void *work(void *argument)
{
    struct crew *crew = argument;
    int thread = atomic_fetch_add(&crew->next_thread, 1);
    for (;;) {
        int task = atomic_fetch_add(&crew->next_task, 1);
        if (task >= crew->n_tasks)
            return NULL;
        crew->run(crew->context, task, thread);
    }
}

void mdl_parallel(int n_threads, int n_tasks, void (*run)(void *context, int task, int thread),
                  void *context)
{
    struct crew crew = {.run = run, .context = context, .n_tasks = n_tasks};
    pthread_t helper[MDL_MAX_THREADS];
    int n_helpers = 0;
    if (n_threads > n_tasks)
        n_threads = n_tasks;
    while (n_helpers + 1 < n_threads && pthread_create(&helper[n_helpers], NULL, work, &crew) == 0)
        n_helpers++;
    work(&crew);
    for (int i = 0; i < n_helpers; i++)
        pthread_join(helper[i], NULL);
}
