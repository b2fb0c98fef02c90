#define _GNU_SOURCE
#include "mesh_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

// Of <linux/in6.h>, which does not go together with the C library's header.
#ifndef IPV6_FREEBIND
#define IPV6_FREEBIND 78
#endif

union name {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static const struct {
    int level;
    int name;
} options[] = {
    [MESH_OPTION_REUSE_ADDRESS] = {SOL_SOCKET, SO_REUSEADDR},
    [MESH_OPTION_REUSE_PORT] = {SOL_SOCKET, SO_REUSEPORT},
    [MESH_OPTION_MARK] = {SOL_SOCKET, SO_MARK},
    [MESH_OPTION_KEEP_ALIVE] = {SOL_SOCKET, SO_KEEPALIVE},
    [MESH_OPTION_KEEP_ALIVE_IDLE] = {IPPROTO_TCP, TCP_KEEPIDLE},
    [MESH_OPTION_KEEP_ALIVE_INTERVAL] = {IPPROTO_TCP, TCP_KEEPINTVL},
    [MESH_OPTION_KEEP_ALIVE_COUNT] = {IPPROTO_TCP, TCP_KEEPCNT},
    [MESH_OPTION_NO_DELAY] = {IPPROTO_TCP, TCP_NODELAY},
    [MESH_OPTION_IPV6_ONLY] = {IPPROTO_IPV6, IPV6_V6ONLY},
    [MESH_OPTION_IPV4_TRANSPARENT] = {IPPROTO_IP, IP_TRANSPARENT},
    [MESH_OPTION_IPV6_TRANSPARENT] = {IPPROTO_IPV6, IPV6_TRANSPARENT},
    [MESH_OPTION_IPV4_FREE_BIND] = {IPPROTO_IP, IP_FREEBIND},
    [MESH_OPTION_IPV6_FREE_BIND] = {IPPROTO_IPV6, IPV6_FREEBIND},
    [MESH_OPTION_BIND_WITHOUT_PORT] = {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
    [MESH_OPTION_IPV4_PACKET_INFO] = {IPPROTO_IP, IP_PKTINFO},
    [MESH_OPTION_IPV6_PACKET_INFO] = {IPPROTO_IPV6, IPV6_RECVPKTINFO},
};

static int result(int value) { return value < 0 ? -errno : value; }

static uint64_t load64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        value = value << 8 | bytes[i];
    }
    return value;
}

static void store64(uint8_t *bytes, uint64_t value) {
    for (int i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    }
}

static socklen_t name_from(union name *name, const struct mesh_address *address, bool family_ipv4) {
    memset(name, 0, sizeof *name);
    if (family_ipv4) {
        name->v4.sin_family = AF_INET;
        name->v4.sin_port = htons(address->port);
        name->v4.sin_addr.s_addr = htonl((uint32_t)address->low);
        return sizeof name->v4;
    }
    name->v6.sin6_family = AF_INET6;
    name->v6.sin6_port = htons(address->port);
    uint64_t low = address->is_ipv4 ? UINT64_C(0xffff) << 32 | address->low : address->low;
    store64(name->v6.sin6_addr.s6_addr, address->is_ipv4 ? 0 : address->high);
    store64(name->v6.sin6_addr.s6_addr + 8, low);
    return sizeof name->v6;
}

static void address_from(struct mesh_address *address, const union name *name) {
    if (name->any.sa_family == AF_INET) {
        *address = (struct mesh_address){
            .low = ntohl(name->v4.sin_addr.s_addr), .port = ntohs(name->v4.sin_port), .is_ipv4 = true};
        return;
    }
    uint64_t high = load64(name->v6.sin6_addr.s6_addr);
    uint64_t low = load64(name->v6.sin6_addr.s6_addr + 8);
    bool mapped = high == 0 && low >> 32 == 0xffff;
    *address = (struct mesh_address){
        .high = high, .low = mapped ? (uint32_t)low : low, .port = ntohs(name->v6.sin6_port), .is_ipv4 = mapped};
}

int mesh_socket_create(bool ipv4) {
    return result(socket(ipv4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
}

int mesh_socket_set(int socket, enum mesh_option option, int value) {
    return result(setsockopt(socket, options[option].level, options[option].name, &value, sizeof value));
}

int mesh_socket_bind_device(int socket, const unsigned char *name, unsigned length) {
    return result(setsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, name, length));
}

int mesh_socket_bind(int socket, const struct mesh_address *address, bool family_ipv4) {
    union name name;
    socklen_t size = name_from(&name, address, family_ipv4);
    return result(bind(socket, &name.any, size));
}

int mesh_socket_listen(int socket, int backlog) { return result(listen(socket, backlog)); }

int mesh_socket_connect(int socket, const struct mesh_address *address, bool family_ipv4) {
    union name name;
    socklen_t size = name_from(&name, address, family_ipv4);
    if (connect(socket, &name.any, size) == 0 || errno == EINPROGRESS || errno == EINTR) {
        return 0;
    }
    return -errno;
}

int mesh_socket_accept(int listener, struct mesh_address *peer) {
    union name name;
    int accepted;
    do {
        socklen_t size = sizeof name;
        accepted = accept4(listener, &name.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
    } while (accepted < 0 && errno == EINTR);
    if (accepted < 0) {
        return -errno;
    }
    address_from(peer, &name);
    return accepted;
}

int mesh_socket_identity(int socket, uint64_t *cookie) {
    socklen_t size = sizeof *cookie;
    return getsockopt(socket, SOL_SOCKET, SO_COOKIE, cookie, &size) < 0 ? -errno : 0;
}

int mesh_socket_local(int socket, struct mesh_address *address) {
    union name name;
    socklen_t size = sizeof name;
    if (getsockname(socket, &name.any, &size) < 0) {
        return -errno;
    }
    address_from(address, &name);
    return 0;
}

int mesh_socket_original_destination(int socket, struct mesh_address *address) {
    // The numbers of <linux/netfilter_ipv4.h> and <linux/netfilter_ipv6/ip6_tables.h>, which clash with <netinet/in.h>.
    enum { original_destination = 80 };
    struct mesh_address local;
    int code = mesh_socket_local(socket, &local);
    if (code < 0) {
        return code;
    }
    union name name;
    socklen_t size = local.is_ipv4 ? sizeof name.v4 : sizeof name.v6;
    if (getsockopt(socket, local.is_ipv4 ? IPPROTO_IP : IPPROTO_IPV6, original_destination, &name, &size) < 0) {
        return -errno;
    }
    address_from(address, &name);
    return 0;
}

int mesh_socket_peer(int socket, struct mesh_address *address) {
    union name name;
    socklen_t size = sizeof name;
    if (getpeername(socket, &name.any, &size) < 0) {
        return -errno;
    }
    address_from(address, &name);
    return 0;
}

int mesh_socket_take_error(int socket) {
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size) < 0 ? errno : error;
}

ssize_t mesh_socket_receive(int socket, void *into, size_t count) {
    ssize_t got;
    do {
        got = recv(socket, into, count, 0);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

ssize_t mesh_socket_receive_two(int socket, void *first, size_t first_count, void *second, size_t second_count) {
    struct iovec parts[] = {{first, first_count}, {second, second_count}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t got;
    do {
        got = recvmsg(socket, &message, 0);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

ssize_t mesh_socket_discard(int socket, size_t count) {
    // tcp(7): with MSG_TRUNC the bytes are dropped in the kernel and no buffer is needed.
    ssize_t got = recv(socket, NULL, count, MSG_TRUNC);
    return got < 0 ? -errno : got;
}

ssize_t mesh_socket_send(int socket, const void *bytes, size_t count) {
    ssize_t sent;
    do {
        sent = send(socket, bytes, count, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

ssize_t mesh_socket_send_two(
    int socket, const void *first, size_t first_count, const void *second, size_t second_count) {
    struct iovec parts[] = {{(void *)first, first_count}, {(void *)second, second_count}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int mesh_datagram_create(bool ipv4) {
    return result(socket(ipv4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP));
}

// The kernel tells the destination of an IPv4 datagram on an IPv6 socket in mapped form, and takes the source of one so.
// The larger of the two forms has room for the other.
union packet_info {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

static bool is_ipv4(int socket) {
    int family = 0;
    socklen_t size = sizeof family;
    return getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 && family == AF_INET;
}

ssize_t mesh_datagram_receive(
    int socket, void *into, size_t count, struct mesh_address *from, struct mesh_address *to, uint32_t *interface) {
    union name name;
    union packet_info control;
    struct iovec part = {into, count};
    ssize_t got;
    struct msghdr message;
    do {
        message = (struct msghdr){.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &part, .msg_iovlen = 1,
                                  .msg_control = &control, .msg_controllen = sizeof control};
        got = recvmsg(socket, &message, 0);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
        return -errno;
    }
    address_from(from, &name);
    *to = (struct mesh_address){0};
    *interface = 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO) {
        struct in6_pktinfo info;
        memcpy(&info, CMSG_DATA(header), sizeof info);
        union name destination = {.v6 = {.sin6_family = AF_INET6, .sin6_addr = info.ipi6_addr}};
        address_from(to, &destination);
        *interface = info.ipi6_ifindex;
    } else if (header && header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO) {
        struct in_pktinfo info;
        memcpy(&info, CMSG_DATA(header), sizeof info);
        union name destination = {.v4 = {.sin_family = AF_INET, .sin_addr = info.ipi_addr}};
        address_from(to, &destination);
        *interface = (uint32_t)info.ipi_ifindex;
    }
    return got;
}

ssize_t mesh_datagram_send(
    int socket, const void *bytes, size_t count, const struct mesh_address *from, const struct mesh_address *to) {
    bool ipv4 = is_ipv4(socket);
    union name name, source;
    socklen_t size = name_from(&name, to, ipv4);
    name_from(&source, from, ipv4);
    union packet_info control;
    memset(&control, 0, sizeof control);
    struct iovec part = {(void *)bytes, count};
    struct msghdr message = {.msg_name = &name, .msg_namelen = size, .msg_iov = &part, .msg_iovlen = 1,
                             .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (ipv4) {
        struct in_pktinfo info = {.ipi_spec_dst = source.v4.sin_addr};
        *header = (struct cmsghdr){.cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof info)};
        memcpy(CMSG_DATA(header), &info, sizeof info);
        message.msg_controllen = CMSG_SPACE(sizeof info);
    } else {
        struct in6_pktinfo info = {.ipi6_addr = source.v6.sin6_addr};
        *header =
            (struct cmsghdr){.cmsg_level = IPPROTO_IPV6, .cmsg_type = IPV6_PKTINFO, .cmsg_len = CMSG_LEN(sizeof info)};
        memcpy(CMSG_DATA(header), &info, sizeof info);
    }
    ssize_t sent;
    do {
        sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

int mesh_socket_finish_writing(int socket) { return result(shutdown(socket, SHUT_WR)); }

int mesh_socket_linger_off(int socket) {
    const struct linger off = {.l_onoff = 0, .l_linger = 0};
    return result(setsockopt(socket, SOL_SOCKET, SO_LINGER, &off, sizeof off));
}

int mesh_socket_linger_zero(int socket) {
    const struct linger abort = {.l_onoff = 1, .l_linger = 0};
    return result(setsockopt(socket, SOL_SOCKET, SO_LINGER, &abort, sizeof abort));
}

void mesh_close(int descriptor) {
    // Linux has closed the descriptor whatever close() says; repeating it could close somebody else's.
    (void)close(descriptor);
}
