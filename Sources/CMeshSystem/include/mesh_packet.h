#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// Unix sockets of whole messages that carry descriptors (SOCK_SEQPACKET, SCM_RIGHTS). They block and are close-on-exec;
// failure is a negated errno.

enum {
    /// Descriptors one message may carry: the kernel's own bound (SCM_MAX_FD).
    MESH_PACKET_DESCRIPTORS = 253,
};

/// Listens on `path`, which must not exist, for processes of this user and root alone.
int mesh_packet_listen(const char *path);
/// Connects to whoever listens on `path`: -ECONNREFUSED or -ENOENT when nobody does.
int mesh_packet_connect(const char *path);
int mesh_packet_accept(int listener);
/// Who the other end was when it connected, as the kernel says it.
int mesh_packet_peer(int socket, uint32_t *user, int32_t *process);
/// How long a call may block, in milliseconds; -EAGAIN afterwards. 0: for ever.
int mesh_packet_set_patience(int socket, uint32_t milliseconds);
int mesh_packet_send(
    int socket, const void *bytes, size_t count, const int *descriptors, size_t descriptor_count);
/// The next message: its length, 0 at the end of the conversation. -EMSGSIZE when it does not fit, whole or in
/// descriptors; those that came are closed then.
ssize_t mesh_packet_receive(int socket, void *into, size_t count, int *descriptors, size_t *descriptor_count);
/// Ends the conversation or the listening, also for a thread that is blocked in it.
void mesh_packet_shut(int socket);
