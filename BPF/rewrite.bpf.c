/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Outbound capture without sk_lookup or policy routing (level L2): connect() goes to the outbound listener at an address
 * of the workload's own, so its source is what it would have been and no packet needs translating.
 *
 * The hook notes what the application asked for by the socket, the event before the SYN by the connection. From there
 * the proxy reads it as SO_ORIGINAL_DST, as if the packet filter had translated the connection, and the application as
 * the peer's address. The filter rules refuse whatever leaves without having come by here, and stay when the programs go
 * with their daemon. */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in6.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "culvert_abi.h"
#include "excluded.h"
#include "hooks.h"
#include "tuple.h"
#include "workloads.h"

#define PROTOCOL_IPV4 0 /* SOL_IP, SOL_IPV6 */
#define PROTOCOL_IPV6 41
#define ORIGINAL_DESTINATION 80 /* SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST */
#define FAMILY_INET6 10

/* Between connect() and the moment the connection has its ports, by the socket's cookie. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, CULVERT_MAX_PENDING);
    __type(key, __u64);
    __type(value, struct culvert_endpoint);
} pending SEC(".maps");

/* The one not used for longest gives way: by then the proxy has long asked. The tuple's server is the listener. An entry
 * stays when its client closes, since that may be before the proxy accepts. */
struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, CULVERT_MAX_FLOWS);
    __type(key, struct culvert_tuple);
    __type(value, struct culvert_endpoint);
} destinations SEC(".maps");

/* The workload's first address of a family; NULL: it has none. */
static __always_inline const struct culvert_address *own_address(const struct culvert_pod *pod, bool is_v4)
{
#pragma clang loop unroll(full)
    for (__u32 i = 0; i < CULVERT_MAX_OWN_ADDRESSES; i++) {
        if (i < pod->own_count && address_is_v4(&pod->own[i]) == is_v4)
            return &pod->own[i];
    }
    return NULL;
}

/* Sets `listener` to where the connection goes instead; untouched: where it was meant to. */
static __always_inline int decide(struct bpf_sock_addr *ctx, const struct culvert_address *destination,
                                  const struct culvert_address **listener)
{
    __u64 namespace_cookie = bpf_get_netns_cookie(ctx), socket_cookie;
    struct culvert_endpoint asked = {.address = *destination, .port = bpf_ntohs(ctx->user_port)};
    struct culvert_pod *pod = bpf_map_lookup_elem(&pods, &namespace_cookie);
    const struct culvert_address *own;

    answer_question(ctx, namespace_cookie);
    if (!pod || !(pod->flags & CULVERT_POD_ACTIVE) || !is_tcp(ctx))
        return ALLOW;
    if (is_proxy()) {
        count(pod->slot, CULVERT_EVENT_EXEMPT_PROXY);
        return ALLOW;
    }
    if (stays_inside(pod, destination)) {
        count(pod->slot, CULVERT_EVENT_EXEMPT_LOCAL);
        return ALLOW;
    }
    if (is_excluded_outbound(pod->slot, destination, asked.port)) {
        count(pod->slot, CULVERT_EVENT_EXEMPT_EXCLUDED);
        return ALLOW;
    }
    if (address_is_link_local_v6(destination))
        return refuse(pod->slot, CULVERT_EVENT_REFUSED_LINK_LOCAL, ENETUNREACH);
    own = own_address(pod, address_is_v4(destination));
    if (!own)
        return refuse(pod->slot, CULVERT_EVENT_REFUSED_NO_ADDRESS, ENETUNREACH);
    socket_cookie = bpf_get_socket_cookie(ctx);
    if (bpf_map_update_elem(&pending, &socket_cookie, &asked, BPF_ANY))
        return refuse(pod->slot, CULVERT_EVENT_REFUSED_UNNOTED, EAGAIN);
    count(pod->slot, CULVERT_EVENT_OUTBOUND_MARKED);
    *listener = own;
    return ALLOW;
}

SEC("cgroup/connect4")
int culvert_connect4(struct bpf_sock_addr *ctx)
{
    struct culvert_address destination = address_v4(ctx->user_ip4);
    const struct culvert_address *listener = NULL;
    int verdict = decide(ctx, &destination, &listener);

    if (listener)
        put_v4(ctx, listener, CULVERT_PORT_OUTBOUND);
    return verdict;
}

/* An IPv6 socket that connects to ::ffff:a.b.c.d comes here too and keeps that form. */
SEC("cgroup/connect6")
int culvert_connect6(struct bpf_sock_addr *ctx)
{
    struct culvert_address destination = {
        {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};
    const struct culvert_address *listener = NULL;
    int verdict = decide(ctx, &destination, &listener);

    if (listener)
        put_v6(ctx, listener, CULVERT_PORT_OUTBOUND);
    return verdict;
}

SEC("sockops")
int culvert_noted(struct bpf_sock_ops *ctx)
{
    struct culvert_endpoint *asked;
    struct culvert_tuple tuple;
    __u64 socket_cookie;

    if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB || ctx->remote_port != bpf_htonl(CULVERT_PORT_OUTBOUND))
        return ALLOW;
    socket_cookie = bpf_get_socket_cookie(ctx);
    asked = bpf_map_lookup_elem(&pending, &socket_cookie);
    if (!asked)
        return ALLOW;
    NOTE_ADDRESSES(ctx, &tuple);
    /* Without an entry the proxy finds no destination but its own listener, which it never connects to. */
    bpf_map_update_elem(&destinations, &tuple, asked, BPF_ANY);
    bpf_map_delete_elem(&pending, &socket_cookie);
    return ALLOW;
}

/* The addresses of a whole socket, from the side that `is_client` says. */
static __always_inline const struct culvert_endpoint *asked_for(struct bpf_sock *sk, bool is_client)
{
    struct culvert_address local, remote;
    struct culvert_tuple tuple = {};

    local = address_pick(sk->family, sk->src_ip4, sk->src_ip6[0], sk->src_ip6[1], sk->src_ip6[2], sk->src_ip6[3]);
    remote = address_pick(sk->family, sk->dst_ip4, sk->dst_ip6[0], sk->dst_ip6[1], sk->dst_ip6[2], sk->dst_ip6[3]);
    tuple.client = is_client ? local : remote;
    tuple.server = is_client ? remote : local;
    tuple.client_port = is_client ? sk->src_port : bpf_ntohs(sk->dst_port);
    tuple.server_port = is_client ? bpf_ntohs(sk->dst_port) : sk->src_port;
    if (tuple.server_port != CULVERT_PORT_OUTBOUND)
        return NULL;
    return bpf_map_lookup_elem(&destinations, &tuple);
}

SEC("cgroup/getpeername4")
int culvert_getpeername4(struct bpf_sock_addr *ctx)
{
    const struct culvert_endpoint *asked = ctx->sk ? asked_for(ctx->sk, true) : NULL;

    if (asked)
        put_v4(ctx, &asked->address, asked->port);
    return ALLOW;
}

SEC("cgroup/getpeername6")
int culvert_getpeername6(struct bpf_sock_addr *ctx)
{
    const struct culvert_endpoint *asked = ctx->sk ? asked_for(ctx->sk, true) : NULL;

    if (asked)
        put_v6(ctx, &asked->address, asked->port);
    return ALLOW;
}

/* Attached to the proxy's cgroup alone. For connections that the packet filter translated the kernel has the answer. */
SEC("cgroup/getsockopt")
int culvert_original_destination(struct bpf_sockopt *ctx)
{
    const struct culvert_endpoint *asked;

    if (ctx->optname != ORIGINAL_DESTINATION || (ctx->level != PROTOCOL_IPV4 && ctx->level != PROTOCOL_IPV6) ||
        !ctx->sk)
        return ALLOW;
    asked = asked_for(ctx->sk, false);
    if (!asked)
        return ALLOW;
    if (address_is_v4(&asked->address)) {
        struct sockaddr_in *name = ctx->optval;

        if ((void *)(name + 1) > ctx->optval_end)
            return ALLOW;
        __builtin_memset(name, 0, sizeof(*name));
        name->sin_family = FAMILY_INET;
        name->sin_port = bpf_htons(asked->port);
        name->sin_addr.s_addr = asked->address.word_be[3];
        ctx->optlen = sizeof(*name);
    } else {
        struct sockaddr_in6 *name = ctx->optval;

        if ((void *)(name + 1) > ctx->optval_end)
            return ALLOW;
        __builtin_memset(name, 0, sizeof(*name));
        name->sin6_family = FAMILY_INET6;
        name->sin6_port = bpf_htons(asked->port);
        name->sin6_addr.in6_u.u6_addr32[0] = asked->address.word_be[0];
        name->sin6_addr.in6_u.u6_addr32[1] = asked->address.word_be[1];
        name->sin6_addr.in6_u.u6_addr32[2] = asked->address.word_be[2];
        name->sin6_addr.in6_u.u6_addr32[3] = asked->address.word_be[3];
        ctx->optlen = sizeof(*name);
    }
    ctx->retval = 0;
    return ALLOW;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
