/* What servers leave that the job has no more: OUT/run/server-R of a rank that was drained, in this
 * life of the job or an earlier one, or that belongs to a larger shape. Its rows are with the other
 * servers, and in the snapshots.
 *
 * It goes after a snapshot has been committed while R is no part of the job. Snapshots and moves do
 * not meet (coordinator_shape.c), so that snapshot has R's rows from where they are now; before it,
 * the folder is left alone. Nothing reads the folder either way: a job that goes back to a snapshot
 * from before the drain keeps its map, by which others own R's buckets and take them from the
 * snapshot. It only has to be certain that no process of rank R will open it: a drained rank is not
 * used again (S3), but one beyond the shape may be added at any moment. So whether R is needed is
 * looked at, and the folder renamed server-R.gone, in the thread that decides about servers; rows
 * by the gigabyte are then removed in a thread of its own. Who dies in between leaves a .gone
 * folder for the next time.
 */
#include "sched/scheduler_internal.h"

#include "cluster/file.h"
#include "cluster/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The rank in "server-R" (suffix "") or "server-R.gone"; -1 for any other name. */
static int rank_of(const char *name, const char *suffix)
{
    int rank, end = 0;
    if (sscanf(name, "server-%5d%n", &rank, &end) != 1 || rank < 0 || strcmp(name + end, suffix))
        return -1;
    return rank;
}

static void *remove_gone(void *context)
{
    struct schd_scheduler *s = context;
    DIR *dir = opendir(s->run);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char path[CLU_PATH_BYTES];
        if (rank_of(entry->d_name, ".gone") >= 0 &&
            !clu_path_join(path, sizeof(path), s->run, entry->d_name))
            clu_remove_tree(path);
    }
    if (dir)
        closedir(dir);
    atomic_store(&s->sweep_done, true);
    return NULL;
}

static bool is_in_the_job(const struct schd_scheduler *s, int rank)
{
    struct schd_view view;
    struct schd_member_view member;
    schd_coordinator_view(s->coordinator, &view);
    if (rank >= view.n_members)
        return false;
    schd_coordinator_member(s->coordinator, rank, 0, &member); /* servers by rank, then workers */
    return member.role == CLU_ROLE_PS && member.state != SCHD_DRAINED;
}

/* Puts aside the folders of those who are in the job no more; the number of .gone folders. */
static int set_aside(const struct schd_scheduler *s)
{
    int n = 0;
    DIR *dir = opendir(s->run);
    struct dirent *entry;
    while (dir && (entry = readdir(dir))) {
        char from[CLU_PATH_BYTES], to[CLU_PATH_BYTES];
        int rank = rank_of(entry->d_name, "");
        n += rank_of(entry->d_name, ".gone") >= 0;
        if (rank < 0 || is_in_the_job(s, rank) ||
            clu_path_join(from, sizeof(from), s->run, entry->d_name) ||
            (size_t)snprintf(to, sizeof(to), "%s.gone", from) >= sizeof(to) ||
            clu_remove_tree(to)) /* of an earlier one of that rank */
            continue;
        if (rename(from, to))
            clu_warn("%s, which is needed no more, stays: %s", from, strerror(errno));
        else
            clu_info("ps %d is in the job no more, and a snapshot without it is whole: its folder "
                     "is removed",
                     rank);
        n++;
    }
    if (dir)
        closedir(dir);
    return n;
}

void schd_scheduler_sweep(struct schd_scheduler *s)
{
    if (s->sweeping && !atomic_load(&s->sweep_done))
        return; /* after the next snapshot, then */
    schd_scheduler_sweep_end(s);
    if (set_aside(s) == 0)
        return;
    atomic_store(&s->sweep_done, false);
    s->sweeping = pthread_create(&s->sweep, NULL, remove_gone, s) == 0;
}

void schd_scheduler_sweep_end(struct schd_scheduler *s)
{
    if (s->sweeping)
        pthread_join(s->sweep, NULL);
    s->sweeping = false;
}
