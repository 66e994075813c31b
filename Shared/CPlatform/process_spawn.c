#define _GNU_SOURCE
#include "include/process_spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif

struct failure {
  int step;
  int code;
};

static void write_fully(int descriptor, const void *bytes, size_t count) {
  // Far below PIPE_BUF: a pipe takes it whole or not at all.
  while (write(descriptor, bytes, count) < 0 && errno == EINTR) {
  }
}

static void default_signals(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = SIG_DFL;
  for (int number = 1; number < NSIG; number++) sigaction(number, &action, NULL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

// Signals that a terminal sends to the group of the process, which is also that of a child until
// it has left: they are for the process alone. Held back in both, forgotten in the child.
static void hold_signals(sigset_t *before) {
  sigset_t held;
  sigemptyset(&held);
  sigaddset(&held, SIGINT);
  sigaddset(&held, SIGQUIT);
  sigaddset(&held, SIGTERM);
  sigaddset(&held, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &held, before);
}

static void forget_signals(void) {
  // Whatever waits for delivery is dropped where it is ignored.
  signal(SIGINT, SIG_IGN);
  signal(SIGQUIT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
}

// Replaces 0, 1 and 2. First away from those numbers, lest one overwrites another.
static int set_streams(int input, int output, int error) {
  int streams[3] = {input, output, error};
  for (int number = 0; number < 3; number++) {
    int source = streams[number];
    if (source < 0) source = open("/dev/null", (number == 0 ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
    if (source < 0) return -1;
    streams[number] = fcntl(source, F_DUPFD_CLOEXEC, 3);
    if (streams[number] < 0) return -1;
  }
  for (int number = 0; number < 3; number++) {
    if (dup2(streams[number], number) < 0) return -1;
  }
  return 0;
}

static void become(const struct chiasm_spawn *spawn, int report) {
  struct failure failure = {CHIASM_SPAWN_STREAMS, 0};
  setpgid(0, 0);
  forget_signals();
  default_signals();
  // 0, 1 and 2 are about to be replaced, and the two pipes may be there.
  int guard = spawn->guard < 0 ? -1 : fcntl(spawn->guard, F_DUPFD_CLOEXEC, 3);
  report = fcntl(report, F_DUPFD_CLOEXEC, 3);
  if (set_streams(spawn->input, spawn->output, spawn->error) < 0) goto failed;
  failure.step = CHIASM_SPAWN_DIRECTORY;
  if (spawn->directory && chdir(spawn->directory) < 0) goto failed;
  if (spawn->guard >= 0) {
    failure.step = CHIASM_SPAWN_GUARD;
    int32_t entry = (int32_t)getpid();
    // SIGPIPE is back at its default, which would end the child without a word.
    signal(SIGPIPE, SIG_IGN);
    if (guard < 0 || write(guard, &entry, sizeof entry) != sizeof entry) goto failed;
    signal(SIGPIPE, SIG_DFL);
  }
  failure.step = CHIASM_SPAWN_EXEC;
  syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
  execve(spawn->program, spawn->arguments, spawn->environment);
failed:
  failure.code = errno;
  write_fully(report, &failure, sizeof failure);
  _exit(127);
}

pid_t chiasm_process_spawn(const struct chiasm_spawn *spawn, int *failed_step) {
  int report[2];
  *failed_step = CHIASM_SPAWN_FORK;
  if (pipe2(report, O_CLOEXEC) < 0) return -errno;
  sigset_t before;
  hold_signals(&before);
  pid_t child = fork();
  if (child != 0) {
    int code = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = code;
  }
  if (child < 0) {
    int code = errno;
    close(report[0]);
    close(report[1]);
    return -code;
  }
  if (child == 0) become(spawn, report[1]);
  // In both processes, so that the group exists for whichever goes on first.
  setpgid(child, child);
  close(report[1]);
  struct failure failure;
  ssize_t count;
  do {
    count = read(report[0], &failure, sizeof failure);
  } while (count < 0 && errno == EINTR);
  close(report[0]);
  if (count != sizeof failure) return child;
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
  }
  chiasm_guard_forget(spawn->guard, child);
  *failed_step = failure.step;
  return -failure.code;
}

int chiasm_process_wait(pid_t child, int block, int *code, int *signal) {
  siginfo_t info;
  memset(&info, 0, sizeof info);
  while (waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT | (block ? 0 : WNOHANG)) < 0) {
    if (errno != EINTR) return -errno;
  }
  if (info.si_pid == 0) return 0;
  *signal = info.si_code == CLD_EXITED ? 0 : info.si_status;
  *code = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
  return 1;
}

void chiasm_process_reap(pid_t child) {
  while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
  }
}

int chiasm_process_descriptor(pid_t child) {
  int descriptor = (int)syscall(SYS_pidfd_open, child, 0);
  return descriptor < 0 ? -errno : descriptor;
}

// ---- The guard --------------------------------------------------------------------------------

enum { GUARD_CAPACITY = 4096 };

static void milliseconds_pass(long count) {
  struct timespec time = {count / 1000, count % 1000 * 1000000};
  nanosleep(&time, NULL);
}

static int signal_groups(const int32_t *groups, int number) {
  int alive = 0;
  for (int i = 0; i < GUARD_CAPACITY; i++) {
    if (groups[i] > 0 && kill(-groups[i], number) == 0) alive++;
  }
  return alive;
}

static void guard(int pipe, unsigned grace_ms) {
  static int32_t groups[GUARD_CAPACITY];
  memset(groups, 0, sizeof groups);
  setsid();
  forget_signals();
  default_signals();
  // A terminal's Ctrl-C and a shutdown's SIGTERM are for the supervisor: the guard ends when
  // its work is done.
  forget_signals();
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_NAME, "chiasm-guard");
  int kept = fcntl(pipe, F_DUPFD, 3);
  if (kept < 0 || set_streams(-1, -1, -1) < 0) _exit(1);
  if (dup2(kept, 3) < 0) _exit(1);
  syscall(SYS_close_range, 4U, ~0U, 0);
  for (;;) {
    int32_t entry;
    ssize_t count = read(3, &entry, sizeof entry);
    if (count < 0 && errno == EINTR) continue;
    if (count != sizeof entry) break;
    int32_t wanted = entry > 0 ? 0 : -entry;
    for (int i = 0; i < GUARD_CAPACITY; i++) {
      if (groups[i] != wanted) continue;
      groups[i] = entry > 0 ? entry : 0;
      break;
    }
  }
  int alive = signal_groups(groups, SIGTERM);
  for (unsigned waited = 0; alive > 0 && waited < grace_ms; waited += 20) {
    milliseconds_pass(20);
    alive = signal_groups(groups, 0);
  }
  if (alive > 0) signal_groups(groups, SIGKILL);
  _exit(0);
}

pid_t chiasm_guard_start(unsigned grace_ms, int *writing) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0) return -errno;
  sigset_t before;
  hold_signals(&before);
  pid_t child = fork();
  if (child != 0) {
    int code = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = code;
  }
  if (child < 0) {
    int code = errno;
    close(ends[0]);
    close(ends[1]);
    return -code;
  }
  if (child == 0) {
    // Holding the writing end would keep the pipe from ever ending.
    close(ends[1]);
    guard(ends[0], grace_ms);
  }
  close(ends[0]);
  *writing = ends[1];
  return child;
}

void chiasm_guard_forget(int guard, pid_t child) {
  if (guard < 0) return;
  int32_t entry = -(int32_t)child;
  // The guard may have been killed; then a SIGPIPE must not end the supervisor too.
  sigset_t pipe_signal, before, pending;
  sigemptyset(&pipe_signal);
  sigaddset(&pipe_signal, SIGPIPE);
  sigpending(&pending);
  pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
  if (write(guard, &entry, sizeof entry) < 0 && errno == EPIPE
      && !sigismember(&pending, SIGPIPE)) {
    struct timespec now = {0, 0};
    sigtimedwait(&pipe_signal, NULL, &now);
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
}

// ---- What Swift's Glibc module lacks ----------------------------------------------------------

int chiasm_process_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }

int chiasm_process_wake(void) {
  int descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  return descriptor < 0 ? -errno : descriptor;
}

void chiasm_thread_prepare(const char *name) {
  prctl(PR_SET_NAME, name);
  sigset_t blocked;
  sigfillset(&blocked);
  // A thread's own faults cannot wait.
  sigdelset(&blocked, SIGSEGV);
  sigdelset(&blocked, SIGBUS);
  sigdelset(&blocked, SIGFPE);
  sigdelset(&blocked, SIGILL);
  sigdelset(&blocked, SIGTRAP);
  pthread_sigmask(SIG_SETMASK, &blocked, NULL);
}

void chiasm_error_text(int code, char *text, size_t count) {
  // strerror_r comes in two kinds, and which one depends on macros; this one does not.
  const char *words = strerrordesc_np(code);
  if (words) {
    snprintf(text, count, "%s", words);
  } else {
    snprintf(text, count, "error %d", code);
  }
}
