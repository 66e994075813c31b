#pragma once

/// The first byte that is to be read from the descriptor, left where it is: 0–255, or -1 at the
/// end of the input. Waits for it. Works on pipes, sockets and files.
int input_peek(int fd);
