#pragma once

#include <stdbool.h>
#include <stdint.h>

// What capture needs from the kernel beside eBPF. As everywhere in this module, failure is a negated errno.

/// The effective capabilities of the calling thread, one bit each (capabilities(7)).
int mesh_capabilities(uint64_t *effective);
/// Takes the exclusive lock of an open file without waiting: -EWOULDBLOCK when another open file holds it.
int mesh_lock_exclusive(int descriptor);

/// A policy rule `fwmark mark/mask lookup table` of one family in the calling thread's network namespace.
struct mesh_rule {
    uint32_t mark;
    uint32_t mask;
    uint32_t table;
    uint32_t priority;
    bool ipv4;
};

/// Adds the rule; -EEXIST when the same rule stands.
int mesh_rule_add(const struct mesh_rule *rule);
/// Removes the rule; -ENOENT when there is none.
int mesh_rule_remove(const struct mesh_rule *rule);

/// A route `local DESTINATION/PREFIX_BITS dev INTERFACE src SOURCE table TABLE`; the addresses are 4 or 16 bytes in
/// network order. All zeros: the default route, and no particular source.
struct mesh_local_route {
    uint8_t destination[16];
    uint8_t prefix_bits;
    uint8_t source[16];
    uint32_t table;
    uint32_t interface;
    bool ipv4;
};

/// Adds or replaces the route. -EINVAL: the source is not an address of this namespace (or, IPv6, still tentative).
int mesh_local_route_set(const struct mesh_local_route *route);
/// Removes the route; -ESRCH when there is none. The source is not compared.
int mesh_local_route_remove(const struct mesh_local_route *route);

/// Brings lo of the calling thread's network namespace up and gives it an IPv4 address (4 bytes, network order).
int mesh_loopback_up(const uint8_t *address);
/// A transparent IPv4 listener on a free port: what a probe of capture steers to.
int mesh_probe_listen(void);
/// Connects with a mark to `destination` (host order), accepts at `listener` and says which address the accepted
/// socket has. Gives up after a second.
int mesh_probe_connect(int listener, uint32_t destination, uint32_t mark, uint32_t *seen);

/// Aborts a TCP connection of the calling thread's network namespace as its own side would (SOCK_DESTROY, sock_diag(7)):
/// the application reads ECONNABORTED, the peer gets a reset. Addresses are 4 or 16 bytes in network order, ports in
/// host order. -ENOENT when there is no such connection, -EOPNOTSUPP when the kernel cannot do it.
int mesh_socket_destroy(bool ipv4, const uint8_t *local, uint16_t local_port, const uint8_t *remote,
                        uint16_t remote_port);

/// A UDP datagram's ends; the addresses are 4 or 16 bytes in network order, the ports in host order.
struct mesh_datagram_ends {
    uint8_t from[16];
    uint8_t to[16];
    uint16_t from_port;
    uint16_t to_port;
    bool ipv4;
};

/// Opens the connection table of the calling thread's network namespace (ctnetlink); the socket stays with it.
int mesh_connections_open(void);
/// What a datagram that was received was sent to, before the packet filter translated it: its `to` and `to_port` are
/// replaced. -ENOENT when the table does not know it.
/// - number: another one with every call.
int mesh_connections_sent_to(int table, uint32_t number, struct mesh_datagram_ends *datagram);
