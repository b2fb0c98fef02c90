#define _GNU_SOURCE
#include "mesh_probe.h"

#include "culvert_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int mesh_probe_pair(int *client, int *server) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(address);
    int code = 0;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *client = *server = -1;
    if (listener < 0) return -errno;
    if (bind(listener, (const struct sockaddr *)&address, size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0 ||
        (*client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
        connect(*client, (const struct sockaddr *)&address, size) != 0 ||
        (*server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) < 0 ||
        fcntl(*client, F_SETFL, O_NONBLOCK) != 0) {
        code = -errno;
        if (*client >= 0) close(*client);
        if (*server >= 0) close(*server);
    }
    close(listener);
    return code;
}

int mesh_probe_await(int socket) {
    struct pollfd ready = {.fd = socket, .events = POLLIN};
    int count;

    do count = poll(&ready, 1, 1000);
    while (count < 0 && errno == EINTR);
    return count < 0 ? -errno : count == 0 ? -ETIMEDOUT : 0;
}

int mesh_probe_pending(int socket) {
    int count = 0;

    return ioctl(socket, FIONREAD, &count) == 0 ? count : -errno;
}

int mesh_probe_charged(int socket) {
    uint32_t memory[SK_MEMINFO_VARS];
    socklen_t size = sizeof memory;

    if (getsockopt(socket, SOL_SOCKET, SO_MEMINFO, memory, &size) != 0) return -errno;
    return (int)memory[SK_MEMINFO_RMEM_ALLOC];
}

int mesh_probe_splice(int socket, size_t count) {
    int ends[2];
    ssize_t moved;

    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return -errno;
    moved = splice(socket, NULL, ends[1], NULL, count, SPLICE_F_NONBLOCK);
    if (moved < 0) moved = -errno;
    close(ends[0]);
    close(ends[1]);
    return (int)moved;
}

int mesh_probe_destroy(void) {
    struct sockaddr_in local = {0}, remote = {0};
    socklen_t size = sizeof(local), other = sizeof(remote);
    char byte;
    int client, server;
    int code = mesh_probe_pair(&client, &server);

    if (code < 0) return code;
    if (getsockname(client, (struct sockaddr *)&local, &size) != 0 ||
        getpeername(client, (struct sockaddr *)&remote, &other) != 0) {
        code = -errno;
    } else {
        code = mesh_socket_destroy(true, (const uint8_t *)&local.sin_addr, ntohs(local.sin_port),
                                   (const uint8_t *)&remote.sin_addr, ntohs(remote.sin_port));
        if (code == 0 && (recv(client, &byte, 1, 0) >= 0 || errno != ECONNABORTED)) code = -EISCONN;
    }
    close(client);
    close(server);
    return code;
}

int mesh_probe_tls(enum mesh_tls_step *failed) {
    struct tls12_crypto_info_aes_gcm_128 keys = {
        .info = {.version = TLS_1_3_VERSION, .cipher_type = TLS_CIPHER_AES_GCM_128}};
    int client, server;
    int code = mesh_probe_pair(&client, &server);

    *failed = MESH_TLS_PAIR;
    if (code < 0) return code;
    *failed = MESH_TLS_DONE;
    if (setsockopt(client, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) != 0) *failed = MESH_TLS_ULP;
    else if (setsockopt(client, SOL_TLS, TLS_TX, &keys, sizeof(keys)) != 0) *failed = MESH_TLS_TRANSMIT;
    else if (setsockopt(client, SOL_TLS, TLS_RX, &keys, sizeof(keys)) != 0) *failed = MESH_TLS_RECEIVE;
    if (*failed != MESH_TLS_DONE) code = -errno;
    close(client);
    close(server);
    return code;
}

/// What one RTM_NEWRULE message says.
static struct mesh_rule_seen rule_seen(const struct nlmsghdr *header) {
    const struct fib_rule_hdr *body = NLMSG_DATA(header);
    struct mesh_rule_seen rule = {.table = body->table};
    size_t left = header->nlmsg_len - NLMSG_LENGTH(sizeof(*body));
    struct rtattr *attribute = (void *)((char *)NLMSG_DATA(header) + NLMSG_ALIGN(sizeof(*body)));

    for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left)) {
        uint32_t *into = attribute->rta_type == FRA_FWMARK     ? &rule.mark
                         : attribute->rta_type == FRA_FWMASK   ? &rule.mask
                         : attribute->rta_type == FRA_TABLE    ? &rule.table
                         : attribute->rta_type == FRA_PRIORITY ? &rule.priority
                                                               : NULL;
        if (into && RTA_PAYLOAD(attribute) == sizeof(*into)) memcpy(into, RTA_DATA(attribute), sizeof(*into));
    }
    return rule;
}

int mesh_rules_read(bool ipv4, struct mesh_rule_seen *rules, size_t capacity) {
    struct {
        struct nlmsghdr header;
        struct fib_rule_hdr body;
    } request = {
        .header = {.nlmsg_len = sizeof(request),
                   .nlmsg_type = RTM_GETRULE,
                   .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
                   .nlmsg_seq = 1},
        .body = {.family = ipv4 ? AF_INET : AF_INET6},
    };
    char answer[16384] __attribute__((aligned(8)));
    size_t found = 0;
    int result = 1; // 1: the dump goes on
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

    if (descriptor < 0) return -errno;
    if (send(descriptor, &request, sizeof(request), 0) < 0) result = -errno;
    while (result == 1) {
        ssize_t count = recv(descriptor, answer, sizeof(answer), 0);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) {
            result = count < 0 ? -errno : -EPROTO;
            break;
        }
        for (const struct nlmsghdr *header = (const void *)answer; NLMSG_OK(header, (size_t)count);
             header = NLMSG_NEXT(header, count)) {
            if (header->nlmsg_type == NLMSG_DONE) result = 0;
            else if (header->nlmsg_type == NLMSG_ERROR) result = ((const struct nlmsgerr *)NLMSG_DATA(header))->error;
            else if (header->nlmsg_type == RTM_NEWRULE) {
                if (found < capacity) rules[found] = rule_seen(header);
                found += 1;
            }
        }
    }
    close(descriptor);
    return result < 0 ? result : (int)found;
}
