#define _GNU_SOURCE
#include "culvert_kernel.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/fib_rules.h>
#include <linux/inet_diag.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int mesh_capabilities(uint64_t *effective) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};

    if (syscall(SYS_capget, &header, data) != 0) return -errno;
    *effective = (uint64_t)data[1].effective << 32 | data[0].effective;
    return 0;
}

int mesh_lock_exclusive(int descriptor) {
    return flock(descriptor, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno;
}

/// One netlink request with room for the few attributes capture needs.
struct request {
    struct nlmsghdr header;
    char body[256];
};

static void *request_start(struct request *request, uint16_t type, uint16_t flags, size_t fixed) {
    memset(request, 0, sizeof(*request));
    request->header.nlmsg_len = NLMSG_LENGTH(fixed);
    request->header.nlmsg_type = type;
    request->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    request->header.nlmsg_seq = 1;
    return NLMSG_DATA(&request->header);
}

static void request_add(struct request *request, uint16_t type, const void *value, size_t size) {
    struct rtattr *attribute = (void *)((char *)&request->header + NLMSG_ALIGN(request->header.nlmsg_len));

    attribute->rta_type = type;
    attribute->rta_len = (uint16_t)RTA_LENGTH(size);
    memcpy(RTA_DATA(attribute), value, size);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(RTA_LENGTH(size));
}

/// Sends the request and receives one answer; its length, or a negated errno.
static ssize_t request_exchange(const struct request *request, int protocol, char *answer, size_t size) {
    ssize_t count;
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

    if (descriptor < 0) return -errno;
    do count = send(descriptor, request, request->header.nlmsg_len, 0);
    while (count < 0 && errno == EINTR);
    if (count >= 0) {
        do count = recv(descriptor, answer, size, 0);
        while (count < 0 && errno == EINTR);
    }
    if (count < 0) count = -errno;
    close(descriptor);
    return count;
}

/// What the kernel says to an answer that is no data: 0 or a negated errno.
static int request_outcome(const struct nlmsghdr *answer, ssize_t count) {
    if (count < 0) return (int)count;
    if (!NLMSG_OK(answer, (size_t)count) || answer->nlmsg_type != NLMSG_ERROR) return -EPROTO;
    return ((const struct nlmsgerr *)NLMSG_DATA(answer))->error;
}

static int request_send(const struct request *request, int protocol) {
    char answer[4096];

    return request_outcome((const void *)answer, request_exchange(request, protocol, answer, sizeof(answer)));
}

static int rule_request(const struct mesh_rule *rule, uint16_t type, uint16_t flags) {
    struct request request;
    struct fib_rule_hdr *body = request_start(&request, type, flags, sizeof(*body));

    body->family = rule->ipv4 ? AF_INET : AF_INET6;
    body->action = FR_ACT_TO_TBL;
    body->table = RT_TABLE_UNSPEC;
    request_add(&request, FRA_PRIORITY, &rule->priority, sizeof(rule->priority));
    request_add(&request, FRA_FWMARK, &rule->mark, sizeof(rule->mark));
    request_add(&request, FRA_FWMASK, &rule->mask, sizeof(rule->mask));
    request_add(&request, FRA_TABLE, &rule->table, sizeof(rule->table));
    return request_send(&request, NETLINK_ROUTE);
}

int mesh_rule_add(const struct mesh_rule *rule) {
    return rule_request(rule, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
}

int mesh_rule_remove(const struct mesh_rule *rule) {
    return rule_request(rule, RTM_DELRULE, 0);
}

static const uint8_t nowhere[16];

static int route_request(const struct mesh_local_route *route, uint16_t type, uint16_t flags, bool with_source) {
    struct request request;
    struct rtmsg *body = request_start(&request, type, flags, sizeof(*body));

    body->rtm_family = route->ipv4 ? AF_INET : AF_INET6;
    body->rtm_table = RT_TABLE_UNSPEC;
    body->rtm_protocol = RTPROT_STATIC;
    body->rtm_scope = route->ipv4 ? RT_SCOPE_HOST : RT_SCOPE_UNIVERSE;
    body->rtm_type = RTN_LOCAL;
    body->rtm_dst_len = route->prefix_bits;
    request_add(&request, RTA_TABLE, &route->table, sizeof(route->table));
    request_add(&request, RTA_OIF, &route->interface, sizeof(route->interface));
    if (route->prefix_bits) request_add(&request, RTA_DST, route->destination, route->ipv4 ? 4 : 16);
    if (with_source && memcmp(route->source, nowhere, sizeof(nowhere)) != 0)
        request_add(&request, RTA_PREFSRC, route->source, route->ipv4 ? 4 : 16);
    return request_send(&request, NETLINK_ROUTE);
}

int mesh_local_route_set(const struct mesh_local_route *route) {
    return route_request(route, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, true);
}

int mesh_local_route_remove(const struct mesh_local_route *route) {
    return route_request(route, RTM_DELROUTE, 0, false);
}

int mesh_loopback_up(const uint8_t *address) {
    struct ifreq request = {.ifr_name = "lo"};
    struct sockaddr_in *own = (void *)&request.ifr_addr;
    int result = 0;
    int descriptor = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (descriptor < 0) return -errno;
    own->sin_family = AF_INET;
    memcpy(&own->sin_addr, address, 4);
    if (ioctl(descriptor, SIOCSIFADDR, &request) != 0) result = -errno;
    request.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
    if (result == 0 && ioctl(descriptor, SIOCSIFFLAGS, &request) != 0) result = -errno;
    close(descriptor);
    return result;
}

int mesh_probe_listen(void) {
    struct sockaddr_in any = {.sin_family = AF_INET};
    int on = 1, code;
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (descriptor < 0) return -errno;
    if (setsockopt(descriptor, IPPROTO_IP, IP_TRANSPARENT, &on, sizeof(on)) == 0 &&
        bind(descriptor, (const struct sockaddr *)&any, sizeof(any)) == 0 && listen(descriptor, 1) == 0)
        return descriptor;
    code = -errno;
    close(descriptor);
    return code;
}

int mesh_probe_connect(int listener, uint32_t destination, uint32_t mark, uint32_t *seen) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(80), .sin_addr = {htonl(destination)}};
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    socklen_t size = sizeof(address);
    int accepted = -1, result = 0;
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (descriptor < 0) return -errno;
    if (setsockopt(descriptor, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) != 0 ||
        (connect(descriptor, (const struct sockaddr *)&address, sizeof(address)) != 0 && errno != EINPROGRESS)) {
        result = -errno;
    } else if (poll(&ready, 1, 1000) != 1) {
        result = -ETIMEDOUT;
    } else {
        accepted = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (accepted < 0 || getsockname(accepted, (struct sockaddr *)&address, &size) != 0) result = -errno;
        else *seen = ntohl(address.sin_addr.s_addr);
    }
    if (accepted >= 0) close(accepted);
    close(descriptor);
    return result;
}

static void socket_request(struct request *request, uint16_t type, const struct inet_diag_sockid *socket, bool ipv4) {
    struct inet_diag_req_v2 *body = request_start(request, type, 0, sizeof(*body));

    body->sdiag_family = ipv4 ? AF_INET : AF_INET6;
    body->sdiag_protocol = IPPROTO_TCP;
    body->idiag_states = (uint32_t)-1;
    body->id = *socket;
}

// The kernel looks a socket up as for a packet: where no connection matches it finds a listener, with the help of the
// lookup programs even the proxy's. So the connection is found first, and destroyed by its cookie.
int mesh_socket_destroy(bool ipv4, const uint8_t *local, uint16_t local_port, const uint8_t *remote,
                        uint16_t remote_port) {
    struct request request;
    struct inet_diag_sockid socket = {.idiag_sport = htons(local_port), .idiag_dport = htons(remote_port)};
    char answer[4096];
    const struct nlmsghdr *header = (const void *)answer;
    const struct inet_diag_msg *found = NLMSG_DATA(header);
    size_t size = ipv4 ? 4 : 16;
    ssize_t count;

    memcpy(socket.idiag_src, local, size);
    memcpy(socket.idiag_dst, remote, size);
    socket.idiag_cookie[0] = socket.idiag_cookie[1] = INET_DIAG_NOCOOKIE;
    socket_request(&request, SOCK_DIAG_BY_FAMILY, &socket, ipv4);
    count = request_exchange(&request, NETLINK_SOCK_DIAG, answer, sizeof(answer));
    if (count < 0 || !NLMSG_OK(header, (size_t)count) || header->nlmsg_type != SOCK_DIAG_BY_FAMILY ||
        header->nlmsg_len < NLMSG_LENGTH(sizeof(*found)))
        return request_outcome(header, count);
    if (found->id.idiag_dport != socket.idiag_dport) return -ENOENT;
    memcpy(socket.idiag_cookie, found->id.idiag_cookie, sizeof(socket.idiag_cookie));
    socket_request(&request, SOCK_DESTROY, &socket, ipv4);
    return request_send(&request, NETLINK_SOCK_DIAG);
}

int mesh_connections_open(void) {
    int made = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);

    return made < 0 ? -errno : made;
}

/// Begins an attribute that holds others; `request_nested` ends it.
static struct rtattr *request_nest(struct request *request, uint16_t type) {
    struct rtattr *nest = (void *)((char *)&request->header + NLMSG_ALIGN(request->header.nlmsg_len));

    request_add(request, type | NLA_F_NESTED, "", 0);
    return nest;
}

static void request_nested(struct request *request, struct rtattr *nest) {
    nest->rta_len = (uint16_t)((char *)&request->header + request->header.nlmsg_len - (char *)nest);
}

static const struct rtattr *attribute_in(const void *attributes, int size, uint16_t type) {
    const struct rtattr *each = attributes;

    for (; RTA_OK(each, size); each = (const void *)RTA_NEXT(each, size))
        if ((each->rta_type & NLA_TYPE_MASK) == type) return each;
    return NULL;
}

/// Copies the value at the end of a path of attributes; false when it is not there in this size.
static bool attribute_copy(const struct nlmsghdr *answer, size_t fixed, const uint16_t path[3], void *into, size_t size) {
    const char *attributes = (const char *)NLMSG_DATA(answer) + NLMSG_ALIGN(fixed);
    const struct rtattr *found;
    int left = (int)(answer->nlmsg_len - NLMSG_SPACE(fixed));

    for (size_t depth = 0; depth < 3; depth++) {
        found = attribute_in(attributes, left, path[depth]);
        if (!found) return false;
        attributes = RTA_DATA(found);
        left = (int)RTA_PAYLOAD(found);
    }
    if ((size_t)left != size) return false;
    memcpy(into, attributes, size);
    return true;
}

// The kernel finds an entry by the tuple of either direction. What was received tells that of the answers: they go from
// where it came to, to where it came from.
int mesh_connections_sent_to(int table, uint32_t number, struct mesh_datagram_ends *datagram) {
    struct request request;
    struct nfgenmsg *body = request_start(&request, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET, 0, sizeof(*body));
    const uint16_t address_path[] = {
        CTA_TUPLE_ORIG, CTA_TUPLE_IP, datagram->ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST};
    const uint16_t port_path[] = {CTA_TUPLE_ORIG, CTA_TUPLE_PROTO, CTA_PROTO_DST_PORT};
    const uint16_t from_port = htons(datagram->to_port), to_port = htons(datagram->from_port);
    const uint8_t protocol = IPPROTO_UDP;
    const size_t size = datagram->ipv4 ? 4 : 16;
    char answer[4096] __attribute__((aligned(8)));
    const struct nlmsghdr *header = (const void *)answer;
    struct rtattr *tuple, *part;
    uint16_t port;
    ssize_t count;

    body->nfgen_family = datagram->ipv4 ? AF_INET : AF_INET6;
    body->version = NFNETLINK_V0;
    // One answer alone, the entry or an error.
    request.header.nlmsg_flags = NLM_F_REQUEST;
    request.header.nlmsg_seq = number;
    tuple = request_nest(&request, CTA_TUPLE_REPLY);
    part = request_nest(&request, CTA_TUPLE_IP);
    request_add(&request, datagram->ipv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, datagram->to, size);
    request_add(&request, datagram->ipv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, datagram->from, size);
    request_nested(&request, part);
    part = request_nest(&request, CTA_TUPLE_PROTO);
    request_add(&request, CTA_PROTO_NUM, &protocol, sizeof(protocol));
    request_add(&request, CTA_PROTO_SRC_PORT, &from_port, sizeof(from_port));
    request_add(&request, CTA_PROTO_DST_PORT, &to_port, sizeof(to_port));
    request_nested(&request, part);
    request_nested(&request, tuple);

    do count = send(table, &request, request.header.nlmsg_len, 0);
    while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    // The kernel has answered by now. An answer that somebody left there is passed over.
    do {
        count = recv(table, answer, sizeof(answer), MSG_DONTWAIT);
        if (count < 0 && errno != EINTR) return -errno;
    } while (count < 0 || (NLMSG_OK(header, (size_t)count) && header->nlmsg_seq != number));
    if (!NLMSG_OK(header, (size_t)count) || header->nlmsg_type == NLMSG_ERROR) return request_outcome(header, count);
    if (header->nlmsg_len < NLMSG_SPACE(sizeof(*body)) ||
        !attribute_copy(header, sizeof(*body), address_path, datagram->to, size) ||
        !attribute_copy(header, sizeof(*body), port_path, &port, sizeof(port)))
        return -EPROTO;
    datagram->to_port = ntohs(port);
    return 0;
}
