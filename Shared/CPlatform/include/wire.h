#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>

// What a transport asks of Linux and Swift cannot say well: variadic calls, ancillary data,
// macros. Functions return 0 or a count, or the negative of an errno.

/// Makes an anonymous shared-memory file of `byte_count` bytes.
int wire_memory_create(const char *name, size_t byte_count);

/// Forbids, for good: changing its length, mapping it for writing from now on, further seals.
/// Call after the owner has mapped it.
int wire_memory_seal(int fd);

/// 0 when the file can no longer change its length and is `byte_count` bytes long; -EPERM when
/// its length could change, -ERANGE when it has another length, another errno when `fd` is no
/// such file.
int wire_memory_check(int fd, size_t byte_count);

/// sendmsg without blocking and without SIGPIPE, with one descriptor beside the first byte when
/// `passed` is not negative.
ssize_t wire_send(int fd, const struct iovec *parts, int part_count, int passed);

/// recvmsg without blocking. Descriptors that came along are put in `received`, at most
/// `capacity` of them (up to 8), close-on-exec; their number in `*received_count`. When there were
/// more, all are closed and -EMSGSIZE is returned.
ssize_t wire_receive(
  int fd, void *buffer, size_t byte_count, int *received, int capacity, int *received_count);

/// User of the process at the other end of a Unix socket.
int wire_peer_user(int fd, uid_t *user, pid_t *process);

/// Turns O_NONBLOCK on or off; returns whether it was on.
int wire_set_nonblocking(int fd, int on);

int wire_pipe_grow(int fd, int byte_count);

/// A descriptor that becomes readable when the process ends.
int wire_process_watch(pid_t process);

/// Runs `sh -c command` with the given descriptors as standard input and output.
int wire_spawn(const char *command, int input, int output, pid_t *process);

/// Writing to a closed pipe shall fail, not end the process. Leaves a handler that is there alone.
void wire_ignore_broken_pipes(void);

/// Starts a detached thread with the given name (15 bytes at most).
int wire_thread_start(const char *name, void (*body)(void *), void *context);

/// An eventfd that does not block.
int wire_event_create(void);

/// Stream sockets and pipes, close-on-exec; the sockets do not block.
int wire_socket(int family);
int wire_socket_pair(int descriptors[2]);
int wire_pipe(int descriptors[2]);
int wire_accept(int listener);

/// -ENAMETOOLONG when the path does not fit.
int wire_unix_address(const char *path, struct sockaddr_un *address);

int wire_no_delay(int fd);

/// A close-on-exec copy with a number above the standard descriptors.
int wire_duplicate(int fd);

/// Median microseconds in which forty bytes go to another thread over a socket pair and come back,
/// with nothing between the threads and the system: what a round trip costs at least where threads
/// sleep until they are woken. Negative: an error number.
double wire_baseline_round_trip(int calls);
