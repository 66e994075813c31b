#ifndef CHIASM_PROCESS_SPAWN_H
#define CHIASM_PROCESS_SPAWN_H

#include <sys/types.h>

// Child processes of a supervisor. Swift cannot call fork; everything between fork and exec
// has to be async-signal-safe anyway.

enum chiasm_spawn_step {
  CHIASM_SPAWN_FORK = 1,
  CHIASM_SPAWN_STREAMS,
  CHIASM_SPAWN_DIRECTORY,
  CHIASM_SPAWN_GUARD,
  CHIASM_SPAWN_EXEC,
};

struct chiasm_spawn {
  // Path of the executable; not searched for.
  const char *program;
  // Both end with NULL.
  char *const *arguments;
  char *const *environment;
  // NULL: the caller's.
  const char *directory;
  // Descriptors that become 0, 1 and 2; negative: /dev/null. The child inherits no others.
  int input;
  int output;
  int error;
  // The guard's pipe, or negative.
  int guard;
};

// Starts a program as the leader of a process group of its own, with default signal handling.
// Returns its process id after it has been executed. Returns -errno when it could not be, with
// the step that failed.
pid_t chiasm_process_spawn(const struct chiasm_spawn *spawn, int *failed_step);

// Waits until the child has exited, and leaves it a zombie, so that its id, which is its
// group's too, stays taken. Without `block` it only looks.
// Returns 1 with the exit code, or 128 + signal and the signal; 0 while it runs; -errno.
int chiasm_process_wait(pid_t child, int block, int *code, int *signal);

// Frees the id of an exited child.
void chiasm_process_reap(pid_t child);

// A descriptor that polls readable once the child has exited, or -errno.
int chiasm_process_descriptor(pid_t child);

// Starts a process that outlives the caller for one purpose: to end the process groups the
// caller had started when the caller itself ends, however it ends. Spawned children write
// their ids into the pipe; chiasm_guard_forget takes them off again. At the pipe's end the
// guard sends SIGTERM to every group it knows, SIGKILL after `grace_ms`, and exits.
//
// Parent-death signals do not do this: they reach only direct children, and are tied to the
// thread that forked.
//
// Returns the guard's process id, with the pipe's writing end, or -errno.
pid_t chiasm_guard_start(unsigned grace_ms, int *guard);
void chiasm_guard_forget(int guard, pid_t child);

// ---- What Swift's Glibc module lacks ----------------------------------------------------------

// A pipe that is closed on exec: 0, or -errno.
int chiasm_process_pipe(int ends[2]);
// A non-blocking eventfd that is closed on exec, or -errno.
int chiasm_process_wake(void);
// Names the calling thread (the system keeps 15 bytes) and keeps signals away from it: those
// sent to the process are for others, and a write into a broken pipe just fails.
void chiasm_thread_prepare(const char *name);
// The system's words for an error number.
void chiasm_error_text(int code, char *text, size_t count);

#endif
