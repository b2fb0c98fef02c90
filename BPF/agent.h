/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Health probes of the node's own agent. Its processes are known by their cgroup, which nobody else can enter; each of
 * its connections to a workload of this node is noted like a direct one and passes by the proxy under any policy. No
 * address is opened for it, and other processes of the node are captured at the workload as ever. */
#pragma once

#include <stdbool.h>

#include <linux/bpf.h>
#include <linux/in.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"
#include "direct.h"
#include "maps.h"

/* Written by the daemon whenever the agent's cgroup is made anew; an id of 0 means none. */
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, CULVERT_MAX_AGENT_CGROUPS);
    __type(key, __u32);
    __type(value, struct culvert_cgroup);
} agent_cg SEC(".maps");

/* The cgroup itself or one below it. */
static __always_inline bool is_agent(void)
{
#pragma clang loop unroll(full)
    for (__u32 i = 0; i < CULVERT_MAX_AGENT_CGROUPS; i++) {
        __u32 key = i;
        struct culvert_cgroup *group = bpf_map_lookup_elem(&agent_cg, &key);

        if (group && group->id && bpf_get_current_ancestor_cgroup_id(group->level) == group->id)
            return true;
    }
    return false;
}

/* For sockets outside of the captured namespaces. Without room to note it a probe is judged as plaintext. */
static __always_inline void note_probe(struct bpf_sock_addr *ctx, const struct culvert_address *destination)
{
    __u32 *endpoint = bpf_map_lookup_elem(&endpoints, destination);
    struct culvert_socket *socket;

    if (!ctx->sk || ctx->protocol != IPPROTO_TCP)
        return;
    forget_decision(ctx->sk);
    if (!endpoint || !is_agent())
        return;
    socket = bpf_sk_storage_get(&sockets, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!socket) {
        count(*endpoint, CULVERT_EVENT_PROBE_LOST);
        return;
    }
    socket->flow.source = CULVERT_SLOT_RETIRED;
    socket->flow.destination = *endpoint;
    socket->flow.generation = 0;
    socket->flow.flags = 0;
    socket->flow.kind = CULVERT_FLOW_PROBE;
    count(*endpoint, CULVERT_EVENT_PROBE);
}
