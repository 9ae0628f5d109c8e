/* Workspaces: the one block of memory that a step or a reading works in, grown by whoever calls.
 *
 * Large ones stand on huge pages where the system gives them: a step walks tens of megabytes in
 * tiles, and with 4 KiB pages a tenth to a fifth of it is spent on address translation. Threads:
 * owner. Cost: growing throws the contents away.
 */
#ifndef MODEL_WORKSPACE_H
#define MODEL_WORKSPACE_H

#include <stddef.h>

/* Makes *workspace (NULL, or of *size_bytes from an earlier call) at least `wanted` bytes large,
 * aligned for the model, with room for the next batch to be somewhat larger. Contents are lost when
 * it grows. free() it. Errors, logged: CLU_E_NO_MEMORY, and nothing changed. */
int mdl_workspace_grow(void **workspace, size_t *size_bytes, size_t wanted);

#endif
