/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Outbound capture: the connect hooks of the cgroup.
 *
 * A TCP connect() of a captured workload gets a mark; the workload's own routing table then loops the SYN back over lo,
 * where lookup.bpf.c hands it to the proxy. Nothing is rewritten, so getpeername() stays true. Everything that is not
 * provably local either gets the mark or is refused: there is no path by which a failure becomes clear text.
 * The socket of a workload is known by the cookie of its network namespace, the proxy by the cgroup of the caller. */
#include <stdbool.h>

#include <asm/socket.h>
#include <linux/bpf.h>
#include <linux/errno.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "agent.h"
#include "culvert_abi.h"
#include "direct.h"
#include "excluded.h"
#include "hooks.h"
#include "leg.h"
#include "maps.h"

/* No program reads it: a restarted daemon learns from it whose captures it takes over. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_PODS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u64);
    __type(value, struct culvert_name);
} names SEC(".maps");

static __always_inline bool has_listener(__u32 slot)
{
    __u32 key = listener_key(slot, CULVERT_ROLE_OUTBOUND);
    struct bpf_sock *listener = bpf_map_lookup_elem(&lst, &key);

    if (!listener)
        return false;
    bpf_sk_release(listener);
    return true;
}

/* A bound device would keep the lookup away from the local route over lo, and the SYN would leave uncaptured. */
static __always_inline bool clear_device(struct bpf_sock_addr *ctx)
{
    char none = 0;

    return bpf_setsockopt(ctx, SOL_SOCKET, SO_BINDTODEVICE, &none, sizeof(none)) == 0;
}

/* The hook runs for each subflow of an MPTCP connection, which is a TCP socket to it. A direct one could grow subflows
 * over other addresses and outlive the reset of one of them; the proxy's plain TCP makes it fall back. */
static __always_inline bool is_multipath(struct bpf_sock_addr *ctx)
{
    return config.sees_multipath && ctx->sk && bpf_skc_to_mptcp_sock(ctx->sk);
}

/* An earlier attempt of the same socket may have been captured. */
static __always_inline void unmark(struct bpf_sock_addr *ctx)
{
    __u32 none = 0;

    if (ctx->sk && (ctx->sk->mark & CULVERT_MARK_MASK) == CULVERT_MARK_MATCH)
        bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &none, sizeof(none));
}

static __always_inline int decide(struct bpf_sock_addr *ctx, const struct culvert_address *destination, bool six)
{
    __u64 namespace_cookie = bpf_get_netns_cookie(ctx);
    struct culvert_pod *pod = bpf_map_lookup_elem(&pods, &namespace_cookie);
    __u32 mark = CULVERT_MARK_CAPTURED;

    answer_question(ctx, namespace_cookie);
    if (!pod || !(pod->flags & CULVERT_POD_ACTIVE)) {
        note_probe(ctx, destination);
        return ALLOW;
    }
    if (!is_tcp(ctx))
        return ALLOW;

    if (is_proxy()) {
        if (config.notes_legs && !note_leg(ctx, pod->slot))
            return refuse(pod->slot, CULVERT_EVENT_REFUSED_LEG, EAGAIN);
        count(pod->slot, CULVERT_EVENT_EXEMPT_PROXY);
        return ALLOW;
    }
    if (ctx->sk)
        forget_decision(ctx->sk);
    if (stays_inside(pod, destination)) {
        count(pod->slot, CULVERT_EVENT_EXEMPT_LOCAL);
        return ALLOW;
    }

    if (is_excluded_outbound(pod->slot, destination, bpf_ntohs(ctx->user_port))) {
        unmark(ctx);
        count(pod->slot, CULVERT_EVENT_EXEMPT_EXCLUDED);
        return ALLOW;
    }
    if (address_is_link_local_v6(destination))
        return refuse(pod->slot, CULVERT_EVENT_REFUSED_LINK_LOCAL, ENETUNREACH);
    /* Without an own address of the family there is no capture route: clients fall back to the other family. */
    if (!(pod->flags & (address_is_v4(destination) ? CULVERT_POD_IPV4 : CULVERT_POD_IPV6)))
        return refuse(pod->slot, CULVERT_EVENT_REFUSED_NO_ADDRESS, ENETUNREACH);
    if (!has_listener(pod->slot))
        return refuse(pod->slot, CULVERT_EVENT_REFUSED_NO_LISTENER, ECONNREFUSED);
    if (!is_multipath(ctx) && goes_direct(ctx, pod, destination, six))
        return ALLOW;

    if (ctx->sk && ctx->sk->bound_dev_if) {
        if (!clear_device(ctx))
            return refuse(pod->slot, CULVERT_EVENT_REFUSED_DEVICE, ECONNREFUSED);
        count(pod->slot, CULVERT_EVENT_DEVICE_CLEARED);
    }
    if (bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
        return refuse(pod->slot, CULVERT_EVENT_REFUSED_MARK, ECONNREFUSED);
    count(pod->slot, CULVERT_EVENT_OUTBOUND_MARKED);
    return ALLOW;
}

SEC("cgroup/connect4")
int culvert_connect4(struct bpf_sock_addr *ctx)
{
    struct culvert_address destination = address_v4(ctx->user_ip4);

    return decide(ctx, &destination, false);
}

/* Also called for an IPv6 socket that connects to ::ffff:a.b.c.d, which then sends IPv4. */
SEC("cgroup/connect6")
int culvert_connect6(struct bpf_sock_addr *ctx)
{
    struct culvert_address destination = {
        {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]}};

    return decide(ctx, &destination, true);
}

SEC("cgroup/getpeername4")
int culvert_getpeername4(struct bpf_sock_addr *ctx)
{
    const struct culvert_endpoint *asked = asked_for(ctx);

    if (asked)
        put_v4(ctx, &asked->address, asked->port);
    return ALLOW;
}

SEC("cgroup/getpeername6")
int culvert_getpeername6(struct bpf_sock_addr *ctx)
{
    const struct culvert_endpoint *asked = asked_for(ctx);

    if (asked)
        put_v6(ctx, &asked->address, asked->port);
    return ALLOW;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
