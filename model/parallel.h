/* Tasks of one call spread over threads: task i runs once, on some thread; the call returns when
 * all are done.
 *
 * With one thread everything runs in the caller, in order. Threads live for one call: a phase of a
 * step is milliseconds, starting a thread tens of microseconds. Threads: any.
 */
#ifndef MODEL_PARALLEL_H
#define MODEL_PARALLEL_H

/* run(context, task, thread) for task 0..n_tasks - 1; thread: 0..n_threads - 1, for the task's own
 * room. When helpers cannot start, those that run do all of the work. */
void mdl_parallel(int n_threads, int n_tasks, void (*run)(void *context, int task, int thread),
                  void *context);

#endif
