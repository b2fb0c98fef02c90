#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// What `culvert preflight` tries on real sockets, in the calling thread's network namespace. As everywhere in this
// module, failure is a negated errno.

/// A connected pair over 127.0.0.1 (lo must be up), nonblocking and close-on-exec.
int mesh_probe_pair(int *client, int *server);
/// Waits up to a second for bytes: -ETIMEDOUT when there are none.
int mesh_probe_await(int socket);
/// What FIONREAD says.
int mesh_probe_pending(int socket);
/// How many bytes of memory the socket's receive queue is charged for (SO_MEMINFO).
int mesh_probe_charged(int socket);
/// How many of `count` bytes splice(2) takes from the socket: -EAGAIN when it sees none.
int mesh_probe_splice(int socket, size_t count);
/// Ends a connection of its own by `mesh_socket_destroy` and reads what the socket says. -EISCONN: acknowledged, and the
/// connection lives on.
int mesh_probe_destroy(void);

/// The step of kTLS that failed.
enum mesh_tls_step { MESH_TLS_DONE, MESH_TLS_PAIR, MESH_TLS_ULP, MESH_TLS_TRANSMIT, MESH_TLS_RECEIVE };
/// Turns a pair of its own to kTLS 1.3 with AES-128-GCM, both ways. Loads the kernel module where it may.
int mesh_probe_tls(enum mesh_tls_step *failed);

/// A policy rule as it stands; what a rule does not say is 0.
struct mesh_rule_seen {
    uint32_t mark;
    uint32_t mask;
    uint32_t table;
    uint32_t priority;
};
/// Reads the policy rules of one family: how many there are (more than `capacity` are not stored).
int mesh_rules_read(bool ipv4, struct mesh_rule_seen *rules, size_t capacity);
