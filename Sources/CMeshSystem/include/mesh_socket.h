#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// An IP address and port in host order; `low` alone holds an IPv4 address. IPv4-mapped IPv6 addresses read from the
/// kernel come out as IPv4.
struct mesh_address {
    uint64_t high;
    uint64_t low;
    uint16_t port;
    bool is_ipv4;
};

/// Integer socket options whose names are macros.
enum mesh_option {
    MESH_OPTION_REUSE_ADDRESS,
    MESH_OPTION_REUSE_PORT,
    MESH_OPTION_MARK,
    MESH_OPTION_KEEP_ALIVE,
    MESH_OPTION_KEEP_ALIVE_IDLE,
    MESH_OPTION_KEEP_ALIVE_INTERVAL,
    MESH_OPTION_KEEP_ALIVE_COUNT,
    MESH_OPTION_NO_DELAY,
    MESH_OPTION_IPV6_ONLY,
    MESH_OPTION_IPV4_TRANSPARENT,
    MESH_OPTION_IPV6_TRANSPARENT,
    MESH_OPTION_IPV4_FREE_BIND,
    MESH_OPTION_IPV6_FREE_BIND,
    MESH_OPTION_BIND_WITHOUT_PORT,
    MESH_OPTION_IPV4_PACKET_INFO,
    MESH_OPTION_IPV6_PACKET_INFO,
};

/// A TCP socket, nonblocking and close-on-exec.
int mesh_socket_create(bool ipv4);
int mesh_socket_set(int socket, enum mesh_option option, int value);
/// Ties the socket to the device of this name, `length` bytes long.
int mesh_socket_bind_device(int socket, const unsigned char *name, unsigned length);
/// `family_ipv4` is the family of the socket: an IPv4 address on an IPv6 socket is given in mapped form.
int mesh_socket_bind(int socket, const struct mesh_address *address, bool family_ipv4);
int mesh_socket_listen(int socket, int backlog);
/// Starts a connection; 0 also when it goes on in the background.
int mesh_socket_connect(int socket, const struct mesh_address *address, bool family_ipv4);
/// The next connection, nonblocking and close-on-exec, and who made it.
int mesh_socket_accept(int listener, struct mesh_address *peer);
/// The kernel's name for a socket (SO_COOKIE), the same in every process that has it open.
int mesh_socket_identity(int socket, uint64_t *cookie);
int mesh_socket_local(int socket, struct mesh_address *address);
/// Where a connection that the packet filter translated was going (SO_ORIGINAL_DST); -ENOENT when it was not.
int mesh_socket_original_destination(int socket, struct mesh_address *address);
int mesh_socket_peer(int socket, struct mesh_address *address);
/// Takes the pending error (SO_ERROR) as a positive errno: 0 when there is none. The kernel forgets it.
int mesh_socket_take_error(int socket);

/// One system call each; never SIGPIPE.
ssize_t mesh_socket_receive(int socket, void *into, size_t count);
ssize_t mesh_socket_receive_two(int socket, void *first, size_t first_count, void *second, size_t second_count);
/// Throws away at most `count` bytes that have arrived.
ssize_t mesh_socket_discard(int socket, size_t count);
ssize_t mesh_socket_send(int socket, const void *bytes, size_t count);
ssize_t mesh_socket_send_two(
    int socket, const void *first, size_t first_count, const void *second, size_t second_count);
/// A UDP socket, nonblocking and close-on-exec.
int mesh_datagram_create(bool ipv4);
/// The next datagram, who sent it, to which address and by which interface; the last two need
/// MESH_OPTION_IPV6_PACKET_INFO (an IPv6 socket takes IPv4 too) or MESH_OPTION_IPV4_PACKET_INFO, and are zero without.
ssize_t mesh_datagram_receive(
    int socket, void *into, size_t count, struct mesh_address *from, struct mesh_address *to, uint32_t *interface);
/// Sends from one of this machine's addresses to another. An IPv6 socket sends IPv4 too.
ssize_t mesh_datagram_send(
    int socket, const void *bytes, size_t count, const struct mesh_address *from, const struct mesh_address *to);
/// FIN after what was written.
int mesh_socket_finish_writing(int socket);
/// Makes the close that follows an abort: RST.
int mesh_socket_linger_zero(int socket);
int mesh_socket_linger_off(int socket);
void mesh_close(int descriptor);
