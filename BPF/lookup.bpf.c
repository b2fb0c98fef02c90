/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Steering of SYNs inside one workload's network namespace: one instance per workload, its addresses in .rodata, since
 * the same pair of addresses means "outbound" in the client's namespace and "inbound" in the server's.
 *
 * Runs only for packets that match no established connection, so live flows are never touched. An empty slot drops the
 * SYN: passing it could deliver the connection to an application that listens on the same port, around every policy. */
#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "address.h"
#include "culvert_abi.h"
#include "excluded.h"
#include "maps.h"

const volatile struct culvert_lookup_config config = {};

static __always_inline int steer(struct bpf_sk_lookup *ctx, enum culvert_role role, enum culvert_event event)
{
    __u32 key = listener_key(config.slot, role);
    struct bpf_sock *listener = bpf_map_lookup_elem(&lst, &key);
    long error;

    if (!listener) {
        count(config.slot, CULVERT_EVENT_DROPPED_NO_LISTENER);
        return SK_DROP;
    }
    /* No BPF_SK_LOOKUP_F_NO_REUSEPORT: the kernel spreads SYNs over the listeners of every core. */
    error = bpf_sk_assign(ctx, listener, 0);
    bpf_sk_release(listener);
    if (error) {
        count(config.slot, CULVERT_EVENT_DROPPED_ASSIGN);
        return SK_DROP;
    }
    count(config.slot, event);
    return SK_PASS;
}

static __always_inline int pass(enum culvert_event event)
{
    count(config.slot, event);
    return SK_PASS;
}

/* The flow of a connection that was noted before its SYN was sent: allowed to go direct, the proxy's leg, or a probe. */
static __always_inline const struct culvert_flow *known(struct bpf_sk_lookup *ctx, const struct culvert_address *client,
                                     const struct culvert_address *server)
{
    struct culvert_tuple tuple = {.client = *client, .server = *server};
    struct culvert_flow *flow;

    tuple.client_port = bpf_ntohs(ctx->remote_port);
    tuple.server_port = ctx->local_port;
    flow = bpf_map_lookup_elem(&flows, &tuple);
    return flow && flow->destination == config.slot ? flow : NULL;
}

SEC("sk_lookup")
int culvert_lookup(struct bpf_sk_lookup *ctx)
{
    struct culvert_address local, remote;
    const struct culvert_flow *flow;

    if (ctx->protocol != IPPROTO_TCP)
        return SK_PASS;
    local = address_pick(ctx->family, ctx->local_ip4, ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2],
                 ctx->local_ip6[3]);
    remote = address_pick(ctx->family, ctx->remote_ip4, ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2],
                  ctx->remote_ip6[3]);

    /* A self call. The kernel accounts it to the device that holds the address, not to lo. A packet that comes from
     * outside with such a source cannot finish a handshake: the answer stays inside. */
    if (address_in(&remote, config.own, config.own_count) ? address_in(&local, config.own, config.own_count)
                                                          : address_equal(&local, &remote))
        return pass(CULVERT_EVENT_LOCAL_PASSED);
    /* Where the field does not exist the branch is dead code for the verifier. */
    if (config.sees_ingress && ctx->ingress_ifindex == config.loopback_ifindex) {
        /* The proxy's leg to the application: its socket is bound to lo and marked, so it takes the capture route. */
        if (address_in(&local, config.own, config.own_count) || address_is_loopback(&local))
            return pass(CULVERT_EVENT_LOCAL_PASSED);
        /* On lo an address that is not ours can only have come by the capture route. */
        return steer(ctx, CULVERT_ROLE_OUTBOUND, CULVERT_EVENT_OUTBOUND_STEERED);
    }
    if (!config.sees_ingress) {
        if (address_is_loopback(&local))
            return pass(CULVERT_EVENT_LOCAL_PASSED);
        /* From an own address to a foreign one: the capture route. Whoever sends this from outside gets no answer. */
        if (address_in(&remote, config.own, config.own_count))
            return steer(ctx, CULVERT_ROLE_OUTBOUND, CULVERT_EVENT_OUTBOUND_STEERED);
    }
    /* Whatever arrives from outside is inbound, also for an address of the namespace that nobody declared. */
    flow = known(ctx, &remote, &local);
    if (flow)
        return pass(flow->kind == CULVERT_FLOW_DIRECT  ? CULVERT_EVENT_DIRECT_PASSED
                    : flow->kind == CULVERT_FLOW_PROBE ? CULVERT_EVENT_PROBE_PASSED
                                                       : CULVERT_EVENT_LOCAL_PASSED);
    if (ctx->local_port == CULVERT_PORT_TUNNEL)
        return steer(ctx, CULVERT_ROLE_TUNNEL, CULVERT_EVENT_TUNNEL_STEERED);
    if (is_excluded_inbound(config.slot, ctx->local_port))
        return pass(CULVERT_EVENT_EXCLUDED_PASSED);
    return steer(ctx, CULVERT_ROLE_INBOUND, CULVERT_EVENT_INBOUND_STEERED);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
