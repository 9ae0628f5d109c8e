/* A YAML file as a tree that remembers its lines: what the job file and the log schemas are read
 * through.
 *
 * libyaml parses; this adds what a person needs when the file is wrong: every node knows its line,
 * every failure names file and line, duplicate keys are refused. libcyaml was tried first: it
 * checks neither the range of a number nor says where a refused value stands, so the library
 * beneath it is used directly.
 *
 * The document owns all nodes and texts; they live until clu_yaml_free. Threads: one document, one
 * thread.
 */
#ifndef CLUSTER_YAML_H
#define CLUSTER_YAML_H

#include <stddef.h>

enum clu_yaml_kind { CLU_YAML_TEXT, CLU_YAML_LIST, CLU_YAML_MAP };

struct clu_yaml;      /* a document */
struct clu_yaml_node; /* a node of one, borrowed */

/* Reads and checks a whole file (at most 16 MiB). An empty file is an empty map. Errors: NOT_FOUND
 * and I/O codes; CONFIG with file and line for anything that is not one well-formed document. */
int clu_yaml_load(const char *path, struct clu_yaml **document_p);

/* The same from memory; name stands for the file in messages. */
int clu_yaml_parse(const char *name, const char *text, size_t size_bytes,
                   struct clu_yaml **document_p);

void clu_yaml_free(struct clu_yaml *document);

/* The name given at load, for messages. */
const char *clu_yaml_name(const struct clu_yaml *document);

const struct clu_yaml_node *clu_yaml_root(const struct clu_yaml *document);
enum clu_yaml_kind clu_yaml_kind(const struct clu_yaml_node *node);

/* Line of the node, counted from 1. */
int clu_yaml_line(const struct clu_yaml_node *node);

/* The text of a TEXT node, "" for other kinds. */
const char *clu_yaml_text(const struct clu_yaml_node *node);

/* Items of a LIST, pairs of a MAP, 0 for TEXT. */
size_t clu_yaml_size(const struct clu_yaml_node *node);

/* Item i of a LIST, value i of a MAP; i < clu_yaml_size. */
const struct clu_yaml_node *clu_yaml_item(const struct clu_yaml *document,
                                          const struct clu_yaml_node *node, size_t i);

/* Key i of a MAP as text. */
const char *clu_yaml_key(const struct clu_yaml *document, const struct clu_yaml_node *node,
                         size_t i);

/* The value of a MAP's key, NULL when it is not there. */
const struct clu_yaml_node *clu_yaml_find(const struct clu_yaml *document,
                                          const struct clu_yaml_node *node, const char *key);

#endif
