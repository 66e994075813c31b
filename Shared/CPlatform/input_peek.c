#define _GNU_SOURCE
#include "input_peek.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/// tee(2) copies from one pipe to another without taking anything out of the first.
static int peek_pipe(int fd) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  unsigned char byte;
  ssize_t count;
  do {
    count = tee(fd, ends[1], 1, 0);
  } while (count < 0 && errno == EINTR);
  int result = count == 1 && read(ends[0], &byte, 1) == 1 ? byte : -1;
  close(ends[0]);
  close(ends[1]);
  return result;
}

int input_peek(int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0) return -1;
  unsigned char byte;
  ssize_t count;
  if (S_ISSOCK(status.st_mode)) {
    do {
      count = recv(fd, &byte, 1, MSG_PEEK);
    } while (count < 0 && errno == EINTR);
  } else if (S_ISREG(status.st_mode)) {
    count = pread(fd, &byte, 1, lseek(fd, 0, SEEK_CUR));
  } else {
    return peek_pipe(fd);
  }
  return count == 1 ? byte : -1;
}
