#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

enum { MESSAGE = 40 };

/// Blocks until a message has come; 0 at the end of the stream.
static int receive_message(int fd, char *message) {
  struct pollfd wanted = {.fd = fd, .events = POLLIN};
  while (poll(&wanted, 1, -1) < 0 && errno == EINTR) {
  }
  return recv(fd, message, MESSAGE, MSG_WAITALL) == MESSAGE;
}

static void *echo(void *context) {
  int fd = *(int *)context;
  char message[MESSAGE];
  while (receive_message(fd, message)) {
    if (send(fd, message, MESSAGE, MSG_NOSIGNAL) != MESSAGE) break;
  }
  return NULL;
}

static int ascending(const void *left, const void *right) {
  double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

double wire_baseline_round_trip(int calls) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return -errno;
  double *times = calloc((size_t)calls, sizeof *times);
  pthread_t thread;
  int failure = times ? pthread_create(&thread, NULL, echo, &ends[1]) : ENOMEM;
  double median = -failure;
  if (failure == 0) {
    char message[MESSAGE] = {0};
    int i = 0;
    for (; i < calls; i++) {
      struct timespec from, to;
      clock_gettime(CLOCK_MONOTONIC, &from);
      if (send(ends[0], message, MESSAGE, MSG_NOSIGNAL) != MESSAGE) break;
      if (!receive_message(ends[0], message)) break;
      clock_gettime(CLOCK_MONOTONIC, &to);
      times[i] = (double)(to.tv_sec - from.tv_sec) * 1e6 + (double)(to.tv_nsec - from.tv_nsec) / 1e3;
    }
    shutdown(ends[0], SHUT_RDWR);
    pthread_join(thread, NULL);
    qsort(times, (size_t)calls, sizeof *times, ascending);
    // Times that were never taken must not pass for short ones.
    median = i == calls ? times[calls / 2] : -EIO;
  }
  free(times);
  close(ends[0]);
  close(ends[1]);
  return median;
}
