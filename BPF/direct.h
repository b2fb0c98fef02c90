/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tier T1: a connection between two workloads of this node that policy allows needs no proxy.
 *
 * The daemon computes ahead which pairs of workloads may talk on which ports (`rules`), always for the policy of the
 * current generation. The hook only looks up; whatever it does not find is the proxy's to decide, so nothing is ever
 * refused here, and a doubt costs speed alone. What is decided is kept in the socket's storage, where flows.bpf.c finds
 * it once the connection has its ports. */
#pragma once

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"
#include "hooks.h"
#include "maps.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_RULES);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct culvert_pair);
    __type(value, struct culvert_rule);
} rules SEC(".maps");

/* In-kernel choice of an endpoint, for services that the proxy would resolve to this node's workloads alone. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_SERVICES);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct culvert_endpoint);
    __type(value, struct culvert_service);
} services SEC(".maps");

static __always_inline bool rule_is_direct(const struct culvert_rule *rule, __u16 port)
{
    bool direct = rule->flags & CULVERT_RULE_DIRECT;

    for (__u32 i = 0; i < CULVERT_MAX_RULE_PORTS; i++) {
        if (i >= rule->port_count)
            break;
        if (rule->ports[i] == port)
            return !direct;
    }
    return direct;
}

/* A socket may connect again after a failure: what was decided for the last attempt must not hold for this one. */
static __always_inline void forget_decision(struct bpf_sock *sk)
{
    struct culvert_socket *socket = bpf_sk_storage_get(&sockets, sk, 0, 0);

    if (socket) {
        socket->flow.kind = CULVERT_FLOW_NONE;
        socket->asked.port = 0;
    }
}

/* `target` is the workload's address that would be connected to, `asked` what the application wants. */
static __always_inline bool is_direct(struct bpf_sock_addr *ctx, const struct culvert_pod *pod,
                                      const struct culvert_control *current, const struct culvert_endpoint *target,
                                      const struct culvert_endpoint *asked)
{
    struct bpf_sock *sk = ctx->sk;
    struct culvert_pair pair = {.source = pod->slot};
    struct culvert_socket *socket;
    struct culvert_rule *rule;
    __u32 *endpoint;
    __u64 *live;

    endpoint = bpf_map_lookup_elem(&endpoints, &target->address);
    if (!endpoint || !sk)
        return false;
    pair.destination = *endpoint;
    rule = bpf_map_lookup_elem(&rules, &pair);
    if (!rule || !rule_is_direct(rule, target->port)) {
        count(pod->slot, CULVERT_EVENT_DIRECT_NO_RULE);
        return false;
    }
    if (rule->generation != current->generation) {
        count(pod->slot, CULVERT_EVENT_DIRECT_STALE);
        return false;
    }
    /* Marked by an earlier attempt, or bound to a device: it would not take the plain way to the neighbour. */
    if (sk->bound_dev_if || (sk->mark & CULVERT_MARK_MASK) == CULVERT_MARK_MATCH) {
        count(pod->slot, CULVERT_EVENT_DIRECT_DEVICE);
        return false;
    }
    live = live_flows();
    socket = live && *live < CULVERT_MAX_FLOWS - CULVERT_FLOWS_RESERVED
                 ? bpf_sk_storage_get(&sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE)
                 : NULL;
    if (!socket) {
        count(pod->slot, CULVERT_EVENT_DIRECT_FULL);
        return false;
    }
    socket->flow.source = pair.source;
    socket->flow.destination = pair.destination;
    socket->flow.generation = rule->generation;
    socket->flow.flags = rule->flags;
    socket->flow.kind = CULVERT_FLOW_DIRECT;
    /* For flows.bpf.c to see whether it still goes there when its SYN is made. */
    socket->tuple.server = target->address;
    socket->tuple.server_port = target->port;
    if (asked != target) {
        socket->asked = *asked;
        socket->flow.flags |= CULVERT_FLOW_BY_SERVICE;
    }
    count(pod->slot, CULVERT_EVENT_DIRECT);
    return true;
}

/* Decides and, for a service, chooses the endpoint and puts it in the place of the service's address; getpeername()
 * keeps showing that one. `six` is a constant. */
static __always_inline bool goes_direct(struct bpf_sock_addr *ctx, const struct culvert_pod *pod,
                                        const struct culvert_address *destination, bool six)
{
    struct culvert_endpoint asked = {.address = *destination, .port = bpf_ntohs(ctx->user_port)}, chosen;
    struct culvert_control *current;
    struct culvert_service *service;
    __u32 first = 0;
    __u64 index;

    if (!ctx->sk)
        return false;
    current = bpf_map_lookup_elem(&control, &first);
    if (!current || !(current->flags & CULVERT_CONTROL_DIRECT))
        return false;
    service = bpf_map_lookup_elem(&services, &asked);
    if (!service)
        return is_direct(ctx, pod, current, &asked, &asked);
    if (!service->count)
        return false;
    /* The mask is for the verifier: the daemon writes no more than fit. */
    index = bpf_get_prandom_u32() % service->count & (CULVERT_MAX_SERVICE_ENDPOINTS - 1);
    chosen = service->endpoints[index];
    if (!is_direct(ctx, pod, current, &chosen, &asked))
        return false;
    if (six)
        put_v6(ctx, &chosen.address, chosen.port);
    else
        put_v4(ctx, &chosen.address, chosen.port);
    return true;
}

/* What the application asked for, when the connection goes to an endpoint that the hook chose. */
static __always_inline const struct culvert_endpoint *asked_for(struct bpf_sock_addr *ctx)
{
    struct culvert_socket *socket = ctx->sk ? bpf_sk_storage_get(&sockets, ctx->sk, 0, 0) : NULL;

    return socket && socket->asked.port ? &socket->asked : NULL;
}
