#ifndef CHIASM_THREAD_POOL_H
#define CHIASM_THREAD_POOL_H

#include <stdbool.h>
#include <stddef.h>

/// Threads that share out the tiles of one job at a time.
typedef struct thread_pool thread_pool;

/// Computes tile `tile` on thread `worker` (0 is the calling thread).
typedef void (*thread_pool_body)(void *_Nullable context, size_t tile, size_t worker);

/// Starts `threads` - 1 threads; the thread that calls thread_pool_run is one more. With
/// `pinned`, each of them is bound to one of the processors the process may use, from the
/// second on. Returns 0, or an errno value with nothing left running.
int thread_pool_create(
    size_t threads, bool pinned, thread_pool *_Nullable *_Nonnull result);

/// Calls body for each tile in 0 ..< tiles, each exactly once, and returns when all are done.
/// Calls from several threads run one after the other; a call from inside a body would wait
/// for itself, see thread_pool_inside.
void thread_pool_run(
    thread_pool *_Nonnull pool, size_t tiles, thread_pool_body _Nonnull body,
    void *_Nullable context);

/// Whether the calling thread is inside a body, of whichever pool.
bool thread_pool_inside(void);

/// Ends the threads. No run may be under way.
void thread_pool_destroy(thread_pool *_Nonnull pool);

#endif
