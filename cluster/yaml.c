/* libyaml's document API holds the tree; struct clu_yaml_node is its yaml_node_t under another
 * name, so no copy is made and no third-party type is in the header. Keys are checked once, at
 * load: each must be a text, and unlike its neighbours (YAML lets a later duplicate win silently,
 * which hides typing errors). */
#include "cluster/yaml.h"

#include "cluster/file.h"
#include "cluster/log.h"
#include "cluster/status.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MAX_BYTES = 16 << 20 };

struct clu_yaml {
    yaml_document_t tree;
    char *name;
};

/* libyaml's accessors take a non-const document and do not change it */
static const yaml_node_t *node_at(const struct clu_yaml *document, int index)
{
    return yaml_document_get_node((yaml_document_t *)&document->tree, index);
}

static const yaml_node_t *yaml_of(const struct clu_yaml_node *node)
{
    return (const yaml_node_t *)node;
}

static int check_map(const struct clu_yaml *document, const yaml_node_t *map)
{
    const yaml_node_pair_t *pairs = map->data.mapping.pairs.start;
    size_t n = (size_t)(map->data.mapping.pairs.top - pairs);
    for (size_t i = 0; i < n; i++) {
        const yaml_node_t *key = node_at(document, pairs[i].key);
        int line = (int)key->start_mark.line + 1;
        if (key->type != YAML_SCALAR_NODE)
            return clu_fail(CLU_E_CONFIG, "%s, line %d: a key must be a plain word", document->name,
                            line);
        for (size_t j = 0; j < i; j++) {
            const yaml_node_t *other = node_at(document, pairs[j].key);
            if (strcmp((const char *)key->data.scalar.value,
                       (const char *)other->data.scalar.value) == 0)
                return clu_fail(CLU_E_CONFIG, "%s, line %d: '%s' is given already on line %d",
                                document->name, line, (const char *)key->data.scalar.value,
                                (int)other->start_mark.line + 1);
        }
    }
    return CLU_OK;
}

static int check_tree(const struct clu_yaml *document)
{
    for (int i = 1;; i++) {
        const yaml_node_t *node = node_at(document, i);
        if (!node)
            return CLU_OK;
        if (node->type == YAML_MAPPING_NODE) {
            int status = check_map(document, node);
            if (status != CLU_OK)
                return status;
        }
    }
}

static int refuse(const char *name, const yaml_parser_t *parser)
{
    if (parser->error == YAML_MEMORY_ERROR)
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read it", name);
    size_t line = parser->problem_mark.line ? parser->problem_mark.line : parser->context_mark.line;
    return clu_fail(CLU_E_CONFIG, "%s, line %zu: not valid YAML: %s", name, line + 1,
                    parser->problem ? parser->problem : "cannot be read");
}

/* An empty document parses to no root; an empty map stands in for it. */
static int ensure_root(struct clu_yaml *document)
{
    if (yaml_document_get_root_node(&document->tree))
        return CLU_OK;
    yaml_document_delete(&document->tree);
    if (!yaml_document_initialize(&document->tree, NULL, NULL, NULL, 1, 1))
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read it", document->name);
    if (!yaml_document_add_mapping(&document->tree, NULL, YAML_BLOCK_MAPPING_STYLE))
        return clu_fail(CLU_E_NO_MEMORY, "%s: no memory to read it", document->name);
    return CLU_OK;
}

static int check_single(const char *name, yaml_parser_t *parser)
{
    yaml_document_t next;
    if (!yaml_parser_load(parser, &next))
        return refuse(name, parser);
    int more = yaml_document_get_root_node(&next) != NULL;
    yaml_document_delete(&next);
    return more ? clu_fail(CLU_E_CONFIG, "%s: holds more than one YAML document", name) : CLU_OK;
}

int clu_yaml_parse(const char *name, const char *text, size_t size_bytes,
                   struct clu_yaml **document_p)
{
    struct clu_yaml *document = calloc(1, sizeof(*document));
    yaml_parser_t parser;
    int status = CLU_E_NO_MEMORY;
    if (!document || !(document->name = strdup(name)) || !yaml_parser_initialize(&parser)) {
        clu_error("%s: no memory to read it", name);
        goto err_free;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size_bytes);
    if (!yaml_parser_load(&parser, &document->tree)) {
        status = refuse(name, &parser);
        yaml_parser_delete(&parser);
        goto err_free;
    }
    status = yaml_document_get_root_node(&document->tree) ? check_single(name, &parser) : CLU_OK;
    yaml_parser_delete(&parser);
    if (status == CLU_OK)
        status = ensure_root(document);
    if (status == CLU_OK)
        status = check_tree(document);
    if (status != CLU_OK) {
        clu_yaml_free(document);
        return status;
    }
    *document_p = document;
    return CLU_OK;

err_free:
    if (document)
        free(document->name);
    free(document);
    return status;
}

int clu_yaml_load(const char *path, struct clu_yaml **document_p)
{
    char *text;
    size_t size;
    int status = clu_file_read_all(path, MAX_BYTES, &text, &size);
    if (status != CLU_OK)
        return status;
    status = clu_yaml_parse(path, text, size, document_p);
    free(text);
    return status;
}

void clu_yaml_free(struct clu_yaml *document)
{
    if (!document)
        return;
    yaml_document_delete(&document->tree);
    free(document->name);
    free(document);
}

const char *clu_yaml_name(const struct clu_yaml *document)
{
    return document->name;
}

const struct clu_yaml_node *clu_yaml_root(const struct clu_yaml *document)
{
    return (const struct clu_yaml_node *)yaml_document_get_root_node(
        (yaml_document_t *)&document->tree);
}

enum clu_yaml_kind clu_yaml_kind(const struct clu_yaml_node *node)
{
    switch (yaml_of(node)->type) {
    case YAML_MAPPING_NODE:
        return CLU_YAML_MAP;
    case YAML_SEQUENCE_NODE:
        return CLU_YAML_LIST;
    default:
        return CLU_YAML_TEXT;
    }
}

int clu_yaml_line(const struct clu_yaml_node *node)
{
    return (int)yaml_of(node)->start_mark.line + 1;
}

const char *clu_yaml_text(const struct clu_yaml_node *node)
{
    const yaml_node_t *yaml = yaml_of(node);
    return yaml->type == YAML_SCALAR_NODE ? (const char *)yaml->data.scalar.value : "";
}

size_t clu_yaml_size(const struct clu_yaml_node *node)
{
    const yaml_node_t *yaml = yaml_of(node);
    switch (yaml->type) {
    case YAML_SEQUENCE_NODE:
        return (size_t)(yaml->data.sequence.items.top - yaml->data.sequence.items.start);
    case YAML_MAPPING_NODE:
        return (size_t)(yaml->data.mapping.pairs.top - yaml->data.mapping.pairs.start);
    default:
        return 0;
    }
}

const struct clu_yaml_node *clu_yaml_item(const struct clu_yaml *document,
                                          const struct clu_yaml_node *node, size_t i)
{
    const yaml_node_t *yaml = yaml_of(node);
    int index = yaml->type == YAML_SEQUENCE_NODE ? yaml->data.sequence.items.start[i]
                                                 : yaml->data.mapping.pairs.start[i].value;
    return (const struct clu_yaml_node *)node_at(document, index);
}

const char *clu_yaml_key(const struct clu_yaml *document, const struct clu_yaml_node *node,
                         size_t i)
{
    const yaml_node_t *key = node_at(document, yaml_of(node)->data.mapping.pairs.start[i].key);
    return (const char *)key->data.scalar.value;
}

const struct clu_yaml_node *clu_yaml_find(const struct clu_yaml *document,
                                          const struct clu_yaml_node *node, const char *key)
{
    if (clu_yaml_kind(node) != CLU_YAML_MAP)
        return NULL;
    for (size_t i = 0; i < clu_yaml_size(node); i++)
        if (strcmp(clu_yaml_key(document, node, i), key) == 0)
            return clu_yaml_item(document, node, i);
    return NULL;
}
