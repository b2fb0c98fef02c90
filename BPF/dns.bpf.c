/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* DNS capture: a server that a captured workload addresses by UDP is replaced by its alias on lo, where the proxy
 * listens; see culvert_abi.h. Receiving and getpeername() show the server again. TCP needs nothing here: connect.bpf.c
 * captures it, and the proxy knows DNS by the port.
 *
 * This is a service and no border: what cannot be captured (a socket bound to a device, no alias free) goes where it was
 * meant to. Only where the proxy's server is gone is a question refused, at once instead of by a time-out. */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "culvert_abi.h"
#include "hooks.h"
#include "maps.h"

#define SOCKET_DATAGRAM 2 /* <linux/net.h> keeps SOCK_DGRAM from user space */

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_PODS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u64);
    __type(value, struct culvert_dns_pod);
} dns_pods SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, CULVERT_MAX_DNS_SERVERS);
    __type(key, __u32);
    __type(value, struct culvert_address);
} dns_servers SEC(".maps");

static __always_inline bool has_server(__u32 slot)
{
    __u32 key = listener_key(slot, CULVERT_ROLE_DNS);
    struct bpf_sock *server = bpf_map_lookup_elem(&lst, &key);

    if (!server)
        return false;
    bpf_sk_release(server);
    return true;
}

/* The alias of a server, made when there is none; above the mask when none is free. */
static __always_inline __u32 alias_of(const struct culvert_address *server)
{
    __u32 hash = server->word_be[0];

    hash = hash * 0x9e3779b1 ^ server->word_be[1];
    hash = hash * 0x9e3779b1 ^ server->word_be[2];
    hash = hash * 0x9e3779b1 ^ server->word_be[3];
    hash = hash * 0x9e3779b1 >> 10;
#pragma clang loop unroll(full)
    for (__u32 i = 0; i < CULVERT_DNS_PROBES; i++) {
        __u32 alias = (hash + i) & CULVERT_DNS_ALIAS_MASK;
        struct culvert_address *known = bpf_map_lookup_elem(&dns_servers, &alias);

        if (!known) {
            /* Another CPU may be faster, with the same server or with another one. */
            if (!bpf_map_update_elem(&dns_servers, &alias, server, BPF_NOEXIST))
                return alias;
            known = bpf_map_lookup_elem(&dns_servers, &alias);
        }
        if (known && address_equal(server, known))
            return alias;
    }
    return ~0u;
}

enum decision { DECIDED_ALLOW, DECIDED_REFUSE, DECIDED_ALIAS };

static __always_inline enum decision decide(struct bpf_sock_addr *ctx, const struct culvert_address *server,
                                            __u32 *alias)
{
    struct culvert_dns_pod *pod;
    __u64 key;

    if (ctx->user_port != bpf_htons(CULVERT_PORT_DOMAIN) || ctx->type != SOCKET_DATAGRAM ||
        ctx->protocol != IPPROTO_UDP)
        return DECIDED_ALLOW;
    key = bpf_get_netns_cookie(ctx);
    pod = bpf_map_lookup_elem(&dns_pods, &key);
    if (!pod || address_is_loopback(server) || address_is_unspecified(server) || address_is_multicast(server) ||
        address_is_link_local_v6(server))
        return DECIDED_ALLOW;
    if (is_proxy())
        return DECIDED_ALLOW;
    if (!has_server(pod->slot)) {
        refuse(pod->slot, CULVERT_EVENT_DNS_REFUSED, ECONNREFUSED);
        return DECIDED_REFUSE;
    }
    *alias = ~0u;
    if ((pod->ipv6 || address_is_v4(server)) && !(ctx->sk && ctx->sk->bound_dev_if))
        *alias = alias_of(server);
    if (*alias > CULVERT_DNS_ALIAS_MASK) {
        count(pod->slot, CULVERT_EVENT_DNS_PASSED);
        return DECIDED_ALLOW;
    }
    count(pod->slot, CULVERT_EVENT_DNS_CAPTURED);
    return DECIDED_ALIAS;
}

static __always_inline int capture_v4(struct bpf_sock_addr *ctx)
{
    struct culvert_address server = address_v4(ctx->user_ip4);
    __u32 alias;
    enum decision decision = decide(ctx, &server, &alias);

    if (decision != DECIDED_ALIAS)
        return decision == DECIDED_REFUSE ? REFUSE : ALLOW;
    ctx->user_ip4 = bpf_htonl(CULVERT_DNS_ALIAS_V4 | alias);
    ctx->user_port = bpf_htons(CULVERT_PORT_DNS);
    return ALLOW;
}

/* An IPv6 socket that connects to ::ffff:a.b.c.d comes here too and keeps that form. */
static __always_inline int capture_v6(struct bpf_sock_addr *ctx)
{
    struct culvert_address server = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
    __u32 alias;
    enum decision decision = decide(ctx, &server, &alias);

    if (decision != DECIDED_ALIAS)
        return decision == DECIDED_REFUSE ? REFUSE : ALLOW;
    if (address_is_v4(&server)) {
        ctx->user_ip6[3] = bpf_htonl(CULVERT_DNS_ALIAS_V4 | alias);
    } else {
        ctx->user_ip6[0] = bpf_htonl(CULVERT_DNS_PREFIX_0);
        ctx->user_ip6[1] = bpf_htonl(CULVERT_DNS_PREFIX_1);
        ctx->user_ip6[2] = 0;
        ctx->user_ip6[3] = bpf_htonl(alias);
    }
    ctx->user_port = bpf_htons(CULVERT_PORT_DNS);
    return ALLOW;
}

/* The server that an alias stands for, when the address is one and the port the proxy's. */
static __always_inline const struct culvert_address *server_behind(struct bpf_sock_addr *ctx,
                                                                   const struct culvert_address *address)
{
    __u32 alias = bpf_ntohl(address->word_be[3]);
    bool is_alias;

    if (ctx->user_port != bpf_htons(CULVERT_PORT_DNS) || ctx->type != SOCKET_DATAGRAM)
        return 0;
    if (address_is_v4(address))
        is_alias = (alias & ~CULVERT_DNS_ALIAS_MASK) == CULVERT_DNS_ALIAS_V4;
    else
        is_alias = address->word_be[0] == bpf_htonl(CULVERT_DNS_PREFIX_0) &&
                   address->word_be[1] == bpf_htonl(CULVERT_DNS_PREFIX_1) && !address->word_be[2] &&
                   alias <= CULVERT_DNS_ALIAS_MASK;
    if (!is_alias)
        return 0;
    alias &= CULVERT_DNS_ALIAS_MASK;
    return bpf_map_lookup_elem(&dns_servers, &alias);
}

static __always_inline int show_v4(struct bpf_sock_addr *ctx)
{
    struct culvert_address address = address_v4(ctx->user_ip4);
    const struct culvert_address *server = server_behind(ctx, &address);

    if (server)
        put_v4(ctx, server, CULVERT_PORT_DOMAIN);
    return ALLOW;
}

static __always_inline int show_v6(struct bpf_sock_addr *ctx)
{
    struct culvert_address address = {{ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
    const struct culvert_address *server = server_behind(ctx, &address);

    if (server)
        put_v6(ctx, server, CULVERT_PORT_DOMAIN);
    return ALLOW;
}

#define HOOK(section, name, body) \
    SEC("cgroup/" section) int culvert_dns_##name(struct bpf_sock_addr *ctx) { return body(ctx); }

HOOK("connect4", connect4, capture_v4)
HOOK("connect6", connect6, capture_v6)
HOOK("sendmsg4", sendmsg4, capture_v4)
HOOK("sendmsg6", sendmsg6, capture_v6)
HOOK("recvmsg4", recvmsg4, show_v4)
HOOK("recvmsg6", recvmsg6, show_v6)
HOOK("getpeername4", peername4, show_v4)
HOOK("getpeername6", peername6, show_v6)

char LICENSE[] SEC("license") = "Dual BSD/GPL";
