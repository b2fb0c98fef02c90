/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Tier T2: who takes part. flows.bpf.c enrols both ends of a direct connection the moment each is established, before
 * its application can send; accelerate.bpf.c then decides about every message.
 *
 * The tuple is a safe key because an end is enrolled only where its address says it belongs: the client's and the
 * server's address must be those of the workloads in whose namespaces the sockets are. What a workload with rights over
 * its own namespace makes up (foreign addresses on its lo) is not enrolled. */
#pragma once

#include <stdbool.h>

#include <asm/socket.h>
#include <linux/bpf.h>
#include <linux/tcp.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"
#include "maps.h"

/* The sockets. An entry goes with its socket, and never before: the kernel would drop what waits to be read. */
struct {
    __uint(type, BPF_MAP_TYPE_SOCKHASH);
    __uint(max_entries, CULVERT_MAX_SHORTCUTS * CULVERT_SIDES);
    __type(key, struct culvert_end);
    __type(value, __u64);
} ends SEC(".maps");

/* What both ends share. */
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_SHORTCUTS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct culvert_tuple);
    __type(value, struct culvert_shortcut);
} shortcuts SEC(".maps");

static __always_inline bool may_accelerate(void)
{
    __u32 first = 0;
    struct culvert_control *current = bpf_map_lookup_elem(&control, &first);

    return current && current->flags & CULVERT_CONTROL_ACCELERATE;
}

/* No other connection has anything in `shortcuts`. */
static __always_inline bool is_accelerated(const struct culvert_flow *flow)
{
    return flow->kind == CULVERT_FLOW_DIRECT && flow->flags & CULVERT_RULE_ACCELERATED;
}
