#define _GNU_SOURCE
#include "thread_pool.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/// How long an idle thread looks for work before it sleeps: the pause between two operations of
/// a model. Waking a sleeper costs nearly as much.
enum { SPIN_NANOSECONDS = 50000 };

/// Looks between two of the clock, which costs more than a look.
enum { LOOKS = 16 };

/// Set in `members` while a job takes in workers; the other bits count those inside.
#define OPEN 0x80000000u

struct thread_pool {
  pthread_mutex_t one_job;
  pthread_t *threads;
  size_t thread_count;
  int64_t spin_nanoseconds;

  // The job: written while `members` is 0, read by those counted in it.
  thread_pool_body body;
  void *context;
  size_t tiles;

  _Alignas(64) _Atomic size_t next;
  _Alignas(64) _Atomic uint32_t members;
  _Alignas(64) _Atomic uint32_t generation;
  _Atomic uint32_t sleepers;
  _Atomic bool ending;
};

typedef struct {
  thread_pool *pool;
  size_t index;
} worker_start;

static _Thread_local bool inside_a_body = false;

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/// Looks until the word differs from `value`, or for so long.
static uint32_t spin(_Atomic uint32_t *word, uint32_t value, int64_t nanoseconds) {
  const int64_t start = nanoseconds > 0 ? now() : 0;
  uint32_t found;
  for (int look = 1; (found = atomic_load_explicit(word, memory_order_acquire)) == value; look++) {
    if (nanoseconds == 0) break;
    if (look % LOOKS == 0 && now() - start > nanoseconds) break;
    relax();
  }
  return found;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void take_tiles(thread_pool *pool, size_t index) {
  inside_a_body = true;
  size_t tile;
  while ((tile = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed)) < pool->tiles)
    pool->body(pool->context, tile, index);
  inside_a_body = false;
}

/// Works on the job that is open, if one is: a worker that wakes after the others have done
/// everything is not waited for.
static void join(thread_pool *pool, size_t index) {
  uint32_t members = atomic_load_explicit(&pool->members, memory_order_relaxed);
  do {
    if (!(members & OPEN)) return;
  } while (!atomic_compare_exchange_weak_explicit(
      &pool->members, &members, members + 1, memory_order_acquire, memory_order_relaxed));
  take_tiles(pool, index);
  if (atomic_fetch_sub_explicit(&pool->members, 1, memory_order_release) == 1)
    futex_wake(&pool->members, 1);
}

static void *work(void *argument) {
  worker_start *start = argument;
  thread_pool *pool = start->pool;
  const size_t index = start->index;
  free(start);

  uint32_t seen = 0;
  for (;;) {
    if (spin(&pool->generation, seen, pool->spin_nanoseconds) == seen) {
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->generation) == seen) futex_wait(&pool->generation, seen);
      atomic_fetch_sub(&pool->sleepers, 1);
    }
    seen = atomic_load_explicit(&pool->generation, memory_order_acquire);
    if (atomic_load(&pool->ending)) return NULL;
    join(pool, index);
  }
}

static void announce(thread_pool *pool) {
  atomic_fetch_add(&pool->generation, 1);
  if (atomic_load(&pool->sleepers) > 0) futex_wake(&pool->generation, INT32_MAX);
}

/// Binds a thread to the index-th of the processors the process may use, counted round.
static void pin(pthread_t thread, size_t index) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  const size_t count = (size_t)CPU_COUNT(&allowed);
  if (count == 0) return;
  size_t skip = index % count;
  for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || skip-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(thread, sizeof one, &one);
    return;
  }
}

/// How long to look before sleeping: not at all when the threads outnumber the processors, where
/// a spinning thread keeps a working one from running.
static int64_t spin_for(size_t threads) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
  return threads <= (size_t)CPU_COUNT(&allowed) ? SPIN_NANOSECONDS : 0;
}

int thread_pool_create(size_t threads, bool pinned, thread_pool **result) {
  const size_t workers = threads > 1 ? threads - 1 : 0;
  thread_pool *pool = aligned_alloc(64, (sizeof(thread_pool) + 63) / 64 * 64);
  if (!pool) return ENOMEM;
  *pool = (thread_pool){.spin_nanoseconds = spin_for(threads)};
  pool->threads = calloc(workers ? workers : 1, sizeof(pthread_t));
  if (!pool->threads) {
    free(pool);
    return ENOMEM;
  }
  pthread_mutex_init(&pool->one_job, NULL);

  // Signals are for the threads that know what to do with them.
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_BLOCK, &every, &before);
  int failure = 0;
  for (size_t i = 0; i < workers && !failure; i++) {
    worker_start *start = malloc(sizeof *start);
    if (!start) {
      failure = ENOMEM;
      break;
    }
    *start = (worker_start){pool, i + 1};
    failure = pthread_create(&pool->threads[i], NULL, work, start);
    if (failure) {
      free(start);
      break;
    }
    pool->thread_count += 1;
    if (pinned) pin(pool->threads[i], i + 1);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failure) {
    thread_pool_destroy(pool);
    return failure;
  }
  *result = pool;
  return 0;
}

void thread_pool_run(thread_pool *pool, size_t tiles, thread_pool_body body, void *context) {
  pthread_mutex_lock(&pool->one_job);
  pool->body = body;
  pool->context = context;
  pool->tiles = tiles;
  atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
  if (pool->thread_count == 0 || tiles < 2) {
    take_tiles(pool, 0);
  } else {
    atomic_store_explicit(&pool->members, OPEN, memory_order_release);
    announce(pool);
    take_tiles(pool, 0);
    uint32_t left = atomic_fetch_and(&pool->members, ~OPEN) & ~OPEN;
    while (left > 0) {
      const uint32_t found = spin(&pool->members, left, pool->spin_nanoseconds);
      if (found == left) futex_wait(&pool->members, left);
      left = atomic_load_explicit(&pool->members, memory_order_acquire);
    }
  }
  pthread_mutex_unlock(&pool->one_job);
}

bool thread_pool_inside(void) { return inside_a_body; }

void thread_pool_destroy(thread_pool *pool) {
  atomic_store(&pool->ending, true);
  announce(pool);
  for (size_t i = 0; i < pool->thread_count; i++) pthread_join(pool->threads[i], NULL);
  pthread_mutex_destroy(&pool->one_job);
  free(pool->threads);
  free(pool);
}
