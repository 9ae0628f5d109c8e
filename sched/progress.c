/* The progress bar. The estimate of the time left is the mean rate since the first report of this
 * life of the job: smooth, and honest after a restart.
 */
#include "sched/progress.h"

#include "cluster/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BAR_WIDTH = 24 };

void schd_progress_init(struct schd_progress *progress)
{
    *progress = (struct schd_progress){.terminal = isatty(STDERR_FILENO)};
}

static void format_rate(double rate, char *out, size_t out_bytes)
{
    if (rate >= 1e6)
        snprintf(out, out_bytes, "%.2fM", rate / 1e6);
    else if (rate >= 1e4)
        snprintf(out, out_bytes, "%.1fk", rate / 1e3);
    else
        snprintf(out, out_bytes, "%.0f", rate);
}

static void format_bar(uint64_t step, uint64_t n_steps, int width, char *out, size_t out_bytes)
{
    int full = n_steps ? (int)((double)step / (double)n_steps * width) : 0;
    out[0] = '\0';
    if (width <= 0 || (size_t)width + 5 > out_bytes)
        return;
    full = full > width ? width : full;
    out[0] = '[';
    memset(out + 1, '#', (size_t)full);
    memset(out + 1 + full, '.', (size_t)(width - full));
    strcpy(out + 1 + width, "]  ");
}

void schd_progress_format(const struct schd_progress *progress, int64_t now_ms, uint64_t step,
                          uint64_t n_steps, const struct clu_figures *figures, int bar_width,
                          char *out, size_t out_bytes)
{
    char bar[128], rate[32], total[32] = "", eta[48] = "";
    format_bar(step, n_steps, bar_width, bar, sizeof(bar));
    format_rate(clu_figures_get(figures, "samples_per_second", 0), rate, sizeof(rate));
    if (n_steps)
        snprintf(total, sizeof(total), "/%" PRIu64, n_steps);
    if (n_steps > step && step > progress->first_step && now_ms > progress->first_ms) {
        double left = (double)(now_ms - progress->first_ms) / 1000 * (double)(n_steps - step) /
                      (double)(step - progress->first_step);
        if (left < 360000)
            snprintf(eta, sizeof(eta), "  eta %d:%02d", (int)left / 60, (int)left % 60);
    }
    snprintf(out, out_bytes, "%s%s%" PRIu64 "%s  loss %.4f  %s samples/s%s", bar,
             bar[0] ? "" : "step ", step, total, clu_figures_get(figures, "loss", 0), rate, eta);
}

void schd_progress_show(struct schd_progress *progress, int64_t now_ms, uint64_t step,
                        uint64_t n_steps, const struct clu_figures *figures)
{
    char text[256];
    if (!progress->first_ms || step < progress->first_step) {
        progress->first_ms = now_ms;
        progress->first_step = step;
    }
    schd_progress_format(progress, now_ms, step, n_steps, figures,
                         progress->terminal ? BAR_WIDTH : 0, text, sizeof(text));
    if (!progress->terminal) {
        clu_info("%s", text);
        return;
    }
    fprintf(stderr, "\r\033[K%s", text);
    fflush(stderr);
    progress->shown = true;
}

void schd_progress_clear(struct schd_progress *progress)
{
    if (!progress->shown)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    progress->shown = false;
}
