/* Everything a person can set goes through clu_setting_assign: one place that parses, checks the
 * range and words the refusal, whatever the value came from. Numbers are parsed to their end ("12x"
 * is refused, not read as 12). Names compare with - and _ alike, so a flag and a job-file key are
 * the same word.
 */
#include "cluster/settings.h"

#include "cluster/log.h"
#include "cluster/status.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMNS = 100 };

/* ---- names ---- */

static bool names_equal(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
            return false;
    return *a == *b;
}

const struct clu_setting *clu_settings_find(struct clu_binding binding, const char *name)
{
    for (size_t i = 0; i < binding.n_rows; i++)
        if (names_equal(binding.rows[i].name, name))
            return &binding.rows[i];
    return NULL;
}

/* Levenshtein distance of two short names; names longer than the row are never near. */
static int distance(const char *a, const char *b)
{
    enum { LONGEST = 63 };
    int row[LONGEST + 1];
    size_t n = strlen(b);
    if (n > LONGEST || strlen(a) > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= n; j++)
        row[j] = (int)j;
    for (size_t i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= n; j++) {
            int change = diagonal + (a[i - 1] != b[j - 1]);
            int shift = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < shift ? change : shift;
        }
    }
    return row[n];
}

const char *clu_settings_nearest(const struct clu_binding *bindings, size_t n_bindings,
                                 const char *name)
{
    char plain[64];
    snprintf(plain, sizeof(plain), "%s", name);
    for (char *p = plain; *p; p++)
        if (*p == '-')
            *p = '_';
    const char *best = NULL;
    int best_distance = (int)strlen(plain) / 3 + 2;
    for (size_t b = 0; b < n_bindings; b++)
        for (size_t i = 0; i < bindings[b].n_rows; i++) {
            const char *candidate = bindings[b].rows[i].name;
            int d = distance(plain, candidate);
            if (d < best_distance) {
                best = candidate;
                best_distance = d;
            }
        }
    return best;
}

/* ---- values ---- */

static void *field(const struct clu_setting *row, void *object)
{
    return (char *)object + row->offset;
}

static const void *field_of(const struct clu_setting *row, const void *object)
{
    return (const char *)object + row->offset;
}

/* An integer's extra word: "async=-1" says that the text "async" is -1. */
static bool word_value(const struct clu_setting *row, const char *text, int64_t *value_p)
{
    if (row->kind != CLU_SETTING_INT || !row->choices)
        return false;
    const char *equals = strchr(row->choices, '=');
    size_t length = (size_t)(equals - row->choices);
    if (strlen(text) != length || strncmp(text, row->choices, length) != 0)
        return false;
    *value_p = strtoll(equals + 1, NULL, 10);
    return true;
}

static void format_size(uint64_t bytes, char *out, size_t out_bytes)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    int unit = 0;
    while (unit < 4 && bytes > 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, out_bytes, "%llu%s", (unsigned long long)bytes, units[unit]);
}

void clu_setting_range(const struct clu_setting *row, char *out, size_t out_bytes)
{
    char low[32], high[32];
    switch (row->kind) {
    case CLU_SETTING_BOOL:
        snprintf(out, out_bytes, "true|false");
        break;
    case CLU_SETTING_INT:
        snprintf(out, out_bytes, "%lld..%lld%s%.*s", (long long)row->min, (long long)row->max,
                 row->choices ? " or " : "",
                 row->choices ? (int)(strchr(row->choices, '=') - row->choices) : 0,
                 row->choices ? row->choices : "");
        break;
    case CLU_SETTING_REAL:
        snprintf(out, out_bytes, "%g..%g", row->min, row->max);
        break;
    case CLU_SETTING_SIZE:
        format_size((uint64_t)row->min, low, sizeof(low));
        format_size((uint64_t)row->max, high, sizeof(high));
        snprintf(out, out_bytes, "%s..%s", low, high);
        break;
    case CLU_SETTING_TEXT:
        snprintf(out, out_bytes, "text of at most %zu bytes", row->size - 1);
        break;
    case CLU_SETTING_CHOICE:
        snprintf(out, out_bytes, "%s", row->choices);
        break;
    }
}

static int refuse(const struct clu_setting *row, const char *text, const char *place)
{
    char range[512];
    clu_setting_range(row, range, sizeof(range));
    return clu_fail(CLU_E_CONFIG, "%s: %s is '%s', expected %s", place, row->name, text, range);
}

static bool parse_bool(const char *text, bool *value_p)
{
    static const char *const yes[] = {"true", "yes", "on", "1"};
    static const char *const no[] = {"false", "no", "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *value_p = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static bool parse_size(const char *text, double *bytes_p)
{
    static const struct {
        const char *suffix;
        double factor;
    } units[] = {{"", 1},       {"B", 1},        {"K", 1024},     {"KiB", 1024}, {"KB", 1e3},
                 {"M", 0x1p20}, {"MiB", 0x1p20}, {"MB", 1e6},     {"G", 0x1p30}, {"GiB", 0x1p30},
                 {"GB", 1e9},   {"T", 0x1p40},   {"TiB", 0x1p40}, {"TB", 1e12}};
    char *end;
    double number = strtod(text, &end);
    if (end == text || !isfinite(number))
        return false;
    while (*end == ' ')
        end++;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(end, units[i].suffix) == 0) {
            *bytes_p = floor(number * units[i].factor);
            return true;
        }
    return false;
}

static bool choice_allowed(const char *choices, const char *text)
{
    size_t length = strlen(text);
    if (length == 0 || strchr(text, '|'))
        return false;
    for (const char *at = choices; at; at = strchr(at, '|')) {
        at += *at == '|';
        if (strncmp(at, text, length) == 0 && (at[length] == '|' || at[length] == '\0'))
            return true;
        if (!strchr(at, '|'))
            return false;
    }
    return false;
}

static int assign_number(const struct clu_setting *row, void *object, const char *text,
                         const char *place)
{
    char *end;
    errno = 0;
    if (row->kind == CLU_SETTING_INT) {
        int64_t value;
        if (!word_value(row, text, &value)) {
            value = strtoll(text, &end, 10);
            if (end == text || *end || errno || (double)value < row->min ||
                (double)value > row->max)
                return refuse(row, text, place);
        }
        memcpy(field(row, object), &value, sizeof(value));
    } else if (row->kind == CLU_SETTING_REAL) {
        double value = strtod(text, &end);
        if (end == text || *end || !(value >= row->min && value <= row->max))
            return refuse(row, text, place);
        memcpy(field(row, object), &value, sizeof(value));
    } else {
        double value;
        if (!parse_size(text, &value) || !(value >= row->min && value <= row->max))
            return refuse(row, text, place);
        uint64_t bytes = (uint64_t)value;
        memcpy(field(row, object), &bytes, sizeof(bytes));
    }
    return CLU_OK;
}

int clu_setting_assign(const struct clu_setting *row, void *object, const char *text,
                       const char *place)
{
    bool flag;
    switch (row->kind) {
    case CLU_SETTING_BOOL:
        if (!parse_bool(text, &flag))
            return refuse(row, text, place);
        memcpy(field(row, object), &flag, sizeof(flag));
        return CLU_OK;
    case CLU_SETTING_TEXT:
    case CLU_SETTING_CHOICE:
        if (strlen(text) >= row->size ||
            (row->kind == CLU_SETTING_CHOICE && !choice_allowed(row->choices, text)))
            return refuse(row, text, place);
        memcpy(field(row, object), text, strlen(text) + 1);
        return CLU_OK;
    default:
        return assign_number(row, object, text, place);
    }
}

void clu_setting_format(const struct clu_setting *row, const void *object, char *out,
                        size_t out_bytes)
{
    const void *at = field_of(row, object);
    switch (row->kind) {
    case CLU_SETTING_BOOL:
        snprintf(out, out_bytes, "%s", *(const bool *)at ? "true" : "false");
        break;
    case CLU_SETTING_INT: {
        int64_t value = *(const int64_t *)at, of_word;
        char word[32] = "";
        if (row->choices)
            snprintf(word, sizeof(word), "%.*s", (int)(strchr(row->choices, '=') - row->choices),
                     row->choices);
        if (row->choices && word_value(row, word, &of_word) && of_word == value)
            snprintf(out, out_bytes, "%s", word);
        else
            snprintf(out, out_bytes, "%lld", (long long)value);
        break;
    }
    case CLU_SETTING_REAL:
        for (int digits = 6; digits <= 17; digits++) { /* the shortest text that reads back alike */
            snprintf(out, out_bytes, "%.*g", digits, *(const double *)at);
            if (strtod(out, NULL) == *(const double *)at)
                break;
        }
        break;
    case CLU_SETTING_SIZE:
        format_size(*(const uint64_t *)at, out, out_bytes);
        break;
    case CLU_SETTING_TEXT:
    case CLU_SETTING_CHOICE:
        snprintf(out, out_bytes, "%s", (const char *)at);
        break;
    }
}

/* ---- sources ---- */

void clu_settings_defaults(struct clu_binding binding)
{
    for (size_t i = 0; i < binding.n_rows; i++) {
        const struct clu_setting *row = &binding.rows[i];
        if (row->default_text[0] == '\0' &&
            (row->kind == CLU_SETTING_TEXT || row->kind == CLU_SETTING_CHOICE))
            *(char *)field(row, binding.object) = '\0';
        else
            clu_setting_assign(row, binding.object, row->default_text, "default");
    }
}

int clu_settings_environment(struct clu_binding binding)
{
    for (size_t i = 0; i < binding.n_rows; i++) {
        char name[80];
        snprintf(name, sizeof(name), "SLUICE_%s", binding.rows[i].name);
        for (char *p = name; *p; p++)
            *p = (char)toupper((unsigned char)*p);
        const char *text = getenv(name);
        int status =
            text ? clu_setting_assign(&binding.rows[i], binding.object, text, name) : CLU_OK;
        if (status != CLU_OK)
            return status;
    }
    return CLU_OK;
}

/* One key and its text, to whichever binding knows it. */
static int assign_flag(const struct clu_binding *bindings, size_t n_bindings, const char *name,
                       const char *text)
{
    char place[96];
    snprintf(place, sizeof(place), "--%s", name);
    for (size_t b = 0; b < n_bindings; b++) {
        const struct clu_setting *row = clu_settings_find(bindings[b], name);
        if (row)
            return clu_setting_assign(row, bindings[b].object, text, place) == CLU_OK ? CLU_OK
                                                                                      : CLU_E_USAGE;
    }
    const char *near = clu_settings_nearest(bindings, n_bindings, name);
    return near ? clu_fail(CLU_E_USAGE, "unknown flag --%s, did you mean --%s?", name, near)
                : clu_fail(CLU_E_USAGE, "unknown flag --%s", name);
}

static bool is_switch(const struct clu_binding *bindings, size_t n_bindings, const char *name)
{
    for (size_t b = 0; b < n_bindings; b++) {
        const struct clu_setting *row = clu_settings_find(bindings[b], name);
        if (row)
            return row->kind == CLU_SETTING_BOOL;
    }
    return false;
}

/* One flag at argv[*i]; *i moves past its value when the value stands apart. */
static int parse_flag(const struct clu_binding *bindings, size_t n_bindings, int argc, char **argv,
                      int *i)
{
    char name[80];
    const char *word = argv[*i] + 2, *equals = strchr(word, '='), *text;
    size_t length = equals ? (size_t)(equals - word) : strlen(word);
    if (length == 0 || length >= sizeof(name))
        return clu_fail(CLU_E_USAGE, "unknown flag %s", argv[*i]);
    memcpy(name, word, length);
    name[length] = '\0';
    if (!equals && is_switch(bindings, n_bindings, name))
        return assign_flag(bindings, n_bindings, name, "true");
    if (!equals && strncmp(name, "no-", 3) == 0 && is_switch(bindings, n_bindings, name + 3))
        return assign_flag(bindings, n_bindings, name + 3, "false");
    if (equals) {
        text = equals + 1;
    } else if (*i + 1 < argc) {
        text = argv[++*i];
    } else {
        bool known = false;
        for (size_t b = 0; b < n_bindings; b++)
            known = known || clu_settings_find(bindings[b], name);
        return known || strcmp(name, "set") == 0 ? clu_fail(CLU_E_USAGE, "--%s needs a value", name)
                                                 : assign_flag(bindings, n_bindings, name, "");
    }
    if (strcmp(name, "set") != 0)
        return assign_flag(bindings, n_bindings, name, text);
    equals = strchr(text, '=');
    if (!equals || equals == text || (size_t)(equals - text) >= sizeof(name))
        return clu_fail(CLU_E_USAGE, "--set takes key=value, got '%s'", text);
    memcpy(name, text, (size_t)(equals - text));
    name[equals - text] = '\0';
    return assign_flag(bindings, n_bindings, name, equals + 1);
}

int clu_settings_arguments(const struct clu_binding *bindings, size_t n_bindings, int argc,
                           char **argv, int *n_positionals_p)
{
    int n = 0;
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            while (++i < argc)
                argv[n++] = argv[i];
            break;
        }
        if (argv[i][0] != '-' || argv[i][1] == '\0') {
            argv[n++] = argv[i];
            continue;
        }
        if (argv[i][1] != '-')
            return clu_fail(CLU_E_USAGE, "unknown flag %s, flags have two dashes", argv[i]);
        int status = parse_flag(bindings, n_bindings, argc, argv, &i);
        if (status != CLU_OK)
            return status;
    }
    *n_positionals_p = n;
    return CLU_OK;
}

/* ---- help ---- */

/* The words of a text, wrapped at HELP_COLUMNS; the first line begins at column `at`, the others
 * are indented to there. */
static void print_wrapped(const char *text, int at, FILE *stream)
{
    int column = at;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (column > at && column + 1 + length > HELP_COLUMNS) {
            fprintf(stream, "\n%*s", at, "");
            column = at;
        }
        column += fprintf(stream, "%s%.*s", column > at ? " " : "", length, text);
        text += length;
        text += strspn(text, " ");
    }
    fputc('\n', stream);
}

void clu_settings_help(struct clu_binding binding, FILE *stream)
{
    for (size_t i = 0; i < binding.n_rows; i++) {
        const struct clu_setting *row = &binding.rows[i];
        char flag[80], range[512], text[1024];
        snprintf(flag, sizeof(flag), "--%s", row->name);
        for (char *p = flag; *p; p++)
            if (*p == '_')
                *p = '-';
        clu_setting_range(row, range, sizeof(range));
        if (row->kind == CLU_SETTING_TEXT)
            snprintf(range, sizeof(range), "text");
        snprintf(text, sizeof(text), "%s (%s%s%s)", row->help, range,
                 row->default_text[0] ? ", default " : "", row->default_text);
        print_wrapped(text, fprintf(stream, "  %-24s ", flag), stream);
    }
}
