#pragma once

#include <stdbool.h>
#include <stdint.h>

/// What one entry of an epoll batch says; `struct epoll_event` is packed on x86-64, which Swift does not import.
struct mesh_event {
    uint64_t token;
    uint32_t ready;
};

enum {
    MESH_POLL_BATCH = 256,
};

/// Bits of `mesh_event.ready`: EPOLLIN and its sisters.
extern const uint32_t mesh_ready_input;
extern const uint32_t mesh_ready_output;
extern const uint32_t mesh_ready_peer_finished;
extern const uint32_t mesh_ready_hangup;
extern const uint32_t mesh_ready_error;

/// A new epoll instance, close-on-exec.
int mesh_poll_create(void);
/// A new eventfd, nonblocking and close-on-exec.
int mesh_poll_make_signal(void);
/// Wakes whoever polls `signal`.
int mesh_poll_raise(int signal);
/// Adds a stream or an eventfd: edge-triggered, both directions and the peer's half-close, never modified afterwards.
int mesh_poll_add_edges(int poll, int descriptor, uint64_t token);
/// Adds a listener: level-triggered, so that a burst cut short is reported again.
int mesh_poll_add_listener(int poll, int descriptor, uint64_t token);
/// Silences or reawakens a listener.
int mesh_poll_set_listener(int poll, int descriptor, uint64_t token, bool enabled);
int mesh_poll_remove(int poll, int descriptor);
/// Waits at most `milliseconds` (-1: for ever) and fills up to MESH_POLL_BATCH events. A signal counts as nothing.
int mesh_poll_wait(int poll, struct mesh_event *events, int milliseconds);

/// CLOCK_MONOTONIC in nanoseconds.
uint64_t mesh_clock_monotonic(void);
