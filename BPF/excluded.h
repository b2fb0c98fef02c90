/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Exclusions: connections that the operator keeps out of the mesh, workload by workload.
 *
 * The entry for port 0 of a workload and direction says what holds for everything that no other entry names; without it
 * nothing is excluded there, and one lookup is all it costs. What is excluded wins over what is included: the daemon
 * writes the ranges so that the longest prefix has the answer. */
#pragma once

#include <stdbool.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "culvert_abi.h"

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CULVERT_MAX_PORT_SCOPES);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct culvert_port);
    __type(value, __u32);
} port_scopes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, CULVERT_MAX_RANGE_SCOPES);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct culvert_range);
    __type(value, __u32);
} range_scopes SEC(".maps");

static __always_inline __u32 port_scope(__u32 slot, enum culvert_direction direction, __u16 port)
{
    struct culvert_port key = {.slot = slot, .port = port, .direction = direction};
    __u32 *scope = bpf_map_lookup_elem(&port_scopes, &key);

    return scope ? *scope : CULVERT_SCOPE_OPEN;
}

static __always_inline bool is_excluded_outbound(__u32 slot, const struct culvert_address *destination, __u16 port)
{
    __u32 rest = port_scope(slot, CULVERT_OUTBOUND, 0);
    struct culvert_range key = {.prefix_bits = CULVERT_RANGE_BITS, .slot = slot, .address = *destination};
    __u32 of_port, *of_range;

    if (rest == CULVERT_SCOPE_OPEN)
        return false;
    of_port = port_scope(slot, CULVERT_OUTBOUND, port);
    if (of_port == CULVERT_SCOPE_EXCLUDED)
        return true;
    of_range = bpf_map_lookup_elem(&range_scopes, &key);
    if (of_range && *of_range != CULVERT_SCOPE_OPEN)
        return *of_range == CULVERT_SCOPE_EXCLUDED;
    return of_port == CULVERT_SCOPE_OPEN && rest == CULVERT_SCOPE_EXCLUDED;
}

/* The proxy's own ports are never passed by: its listeners take what comes there for what the lookup program sent. */
static __always_inline bool is_excluded_inbound(__u32 slot, __u16 port)
{
    __u32 rest = port_scope(slot, CULVERT_INBOUND, 0), scope;

    if (rest == CULVERT_SCOPE_OPEN || port == CULVERT_PORT_OUTBOUND || port == CULVERT_PORT_INBOUND ||
        port == CULVERT_PORT_TUNNEL)
        return false;
    scope = port_scope(slot, CULVERT_INBOUND, port);
    return (scope == CULVERT_SCOPE_OPEN ? rest : scope) == CULVERT_SCOPE_EXCLUDED;
}
