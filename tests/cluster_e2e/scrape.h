/* Reads a process's metrics as Prometheus would, and checks the text by the rules of its format
 * (version 0.0.4): names, one HELP and one TYPE before the samples of a family, a family in one
 * piece, no sample twice, numbers that parse; counters named _total; a histogram's buckets in
 * rising order and cumulative, the last +Inf and equal to _count.
 *
 * What breaks a rule is printed and counted.
 */
#ifndef TESTS_CLUSTER_E2E_SCRAPE_H
#define TESTS_CLUSTER_E2E_SCRAPE_H

#include <arpa/inet.h>
#include <ctype.h>
#include <math.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { SCRAPE_SAMPLES = 4096, SCRAPE_FAMILIES = 256 };

struct scrape_sample {
    char series[320]; /* name{labels}, as it stands there */
    double value;
};

struct scrape {
    int n;
    struct scrape_sample sample[SCRAPE_SAMPLES];
    int n_families;
    char family[SCRAPE_FAMILIES][96];
    int n_broken;
    /* of the histogram that is being read */
    char bucket_of[320]; /* its labels without le */
    double bound, count;
    bool open; /* buckets came, +Inf did not */
};

static inline void scrape_broken(struct scrape *s, const char *rule, const char *line)
{
    printf("  not Prometheus text: %s: %.200s\n", rule, line);
    s->n_broken++;
}

/* GET of a path from 127.0.0.1 (or another loopback address), the body after the headers; false
 * when nobody answers. */
static inline bool scrape_get(const char *address, int port, const char *path, char *body_p,
                              size_t size)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval patience = {.tv_sec = 10};
    char request[256];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t n = 0;
    inet_pton(AF_INET, address, &to.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    snprintf(request, sizeof(request), "GET %s HTTP/1.0\r\nHost: x\r\n\r\n", path);
    bool sent = connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
                write(fd, request, strlen(request)) == (ssize_t)strlen(request);
    for (ssize_t got; sent && n < size - 1 && (got = read(fd, body_p + n, size - 1 - n)) > 0;)
        n += (size_t)got;
    close(fd);
    body_p[n] = '\0';
    char *end = strstr(body_p, "\r\n\r\n");
    if (!end || !strstr(body_p, " 200 "))
        return false;
    memmove(body_p, end + 4, strlen(end + 4) + 1);
    return true;
}

/* The value of one series, labels as they stand; NAN when it is not there. */
static inline double scrape_value(const struct scrape *s, const char *series)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->sample[i].series, series) == 0)
            return s->sample[i].value;
    return NAN;
}

static inline void scrape_begin_family(struct scrape *s, const char *line, char *name_p)
{
    if (sscanf(line, "# HELP %95s", name_p) != 1)
        scrape_broken(s, "a comment that is neither HELP nor TYPE", line);
    if (strncmp(name_p, "sluice_", 7) != 0)
        scrape_broken(s, "a name without the prefix", line);
    for (const char *c = name_p; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '_')
            scrape_broken(s, "a name of other letters", line);
    for (int i = 0; i < s->n_families; i++)
        if (strcmp(s->family[i], name_p) == 0)
            scrape_broken(s, "a family in two pieces", line);
    if (s->n_families < SCRAPE_FAMILIES)
        strcpy(s->family[s->n_families++], name_p);
}

/* name_bucket{le="BOUND"}, or name_bucket{...,le="BOUND"} */
static inline void scrape_bucket(struct scrape *s, char *series, double value)
{
    char *le = strstr(series, ",le=\"");
    if (!le)
        le = strstr(series, "{le=\"");
    if (!le) {
        scrape_broken(s, "a bucket without a bound", series);
        return;
    }
    double bound = strtod(le + 5, NULL);
    char rest[320];
    snprintf(rest, sizeof(rest), "%.*s", (int)(le - series), series);
    if (!s->open || strcmp(rest, s->bucket_of) != 0) {
        if (s->open)
            scrape_broken(s, "a histogram without +Inf", series);
        strcpy(s->bucket_of, rest);
        s->bound = -INFINITY;
        s->count = 0;
    }
    if (bound <= s->bound || value < s->count)
        scrape_broken(s, "buckets that do not rise", series);
    s->bound = bound;
    s->count = value;
    s->open = !isinf(bound);
}

static inline void scrape_line(struct scrape *s, char *line, const char *family, const char *type)
{
    char *end, *space = strrchr(line, ' ');
    size_t name_bytes = strcspn(line, "{ "), family_bytes = strlen(family);
    if (!space || strncmp(line, family, family_bytes) != 0) {
        scrape_broken(s, "a sample outside its family", line);
        return;
    }
    double value = strtod(space + 1, &end);
    if (end == space + 1 || *end)
        scrape_broken(s, "a value that is no number", line);
    *space = '\0';
    char suffix[64];
    snprintf(suffix, sizeof(suffix), "%.*s", (int)(name_bytes - family_bytes), line + family_bytes);
    bool histogram = strcmp(type, "histogram") == 0;
    if (histogram && strcmp(suffix, "_bucket") == 0)
        scrape_bucket(s, line, value);
    else if (histogram && strcmp(suffix, "_count") == 0 && (s->open || value != s->count))
        scrape_broken(s, "a count that is not the last bucket", line);
    else if (histogram ? strcmp(suffix, "_count") != 0 && strcmp(suffix, "_sum") != 0 : suffix[0])
        scrape_broken(s, "a sample of another name than its family", line);
    if (strcmp(type, "counter") == 0 && strcmp(family + family_bytes - 6, "_total") != 0)
        scrape_broken(s, "a counter that is not named _total", line);
    if (!isnan(scrape_value(s, line)))
        scrape_broken(s, "a sample twice", line);
    if (s->n == SCRAPE_SAMPLES)
        return;
    snprintf(s->sample[s->n].series, sizeof(s->sample[0].series), "%s", line);
    s->sample[s->n++].value = value;
}

/* Reads a text; s begins empty. text is changed. */
static inline void scrape_read(struct scrape *s, char *text)
{
    char family[96] = "", type[32] = "", of[96], *rest = NULL;
    memset(s, 0, sizeof(*s));
    if (!text[0] || text[strlen(text) - 1] != '\n')
        scrape_broken(s, "the last line has no end", "");
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] != '#') {
            if (!type[0])
                scrape_broken(s, "a sample before its TYPE", line);
            scrape_line(s, line, family, type);
        } else if (sscanf(line, "# TYPE %95s %31s", of, type) == 2) {
            if (strcmp(of, family) != 0)
                scrape_broken(s, "a TYPE without its HELP", line);
        } else {
            type[0] = '\0';
            scrape_begin_family(s, line, family);
        }
    }
    if (s->open)
        scrape_broken(s, "a histogram without +Inf", s->bucket_of);
}

#endif
